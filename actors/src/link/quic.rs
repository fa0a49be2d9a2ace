//! QUIC endpoints: one that listens, one that dials.
//!
//! An endpoint outlives the actors that use it: recreating a listener while connections live
//! fails, because the port stays bound until the last of them ends.
//! Nothing here reads a stream.
//!
//! Windows follow from the limits below and are those of a session; what a stranger may send is
//! bounded by `bounds`, and how many strangers there may be by the doorkeeper.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use s2n_quic::{
    Client, Connection, Server,
    client::Connect,
    provider::{
        event::{ConnectionInfo, ConnectionMeta, Subscriber, events, supervisor},
        limits::Limits,
        tls::rustls as provider,
    },
};

#[cfg(feature = "sim")]
use super::simulated;
use super::{
    Doorkeeper, Link, LinkBounds, LinkError, LinkHandle, LinkInfo, LinkStreams, Listening,
    doorkeeper::{Begun, OpenDoor},
    entry::{FirstPackets, Tokens, address_of},
    reach::check_route,
    tls,
};
use crate::env::{Env, Platform};

/// Label of the exporter whose value binds the handshake to the link.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-packhorse-1";

/// A largest frame and a half: credit returns as frames are read, so a lane's own window of 4 MiB
/// need not fit. The transport cannot raise it after the handshake, so it holds for strangers too.
const STREAM_WINDOW_BYTES: u64 = 1_536 << 10;
/// Both lanes of one direction, and control beside them.
const CONNECTION_WINDOW_BYTES: u64 = 4 << 20;
/// Handshake, control and two lanes, each way; later stream kinds raise it.
const STREAMS_MAX: u64 = 16;
/// A QUIC handshake that this node began ends in this time or not at all.
const DIALLED_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// One that a stranger began: two lost packets of a slow network fit, and a flood of half-open ones
/// is over sooner.
const HANDSHAKE_MAX: Duration = Duration::from_secs(4);
/// How often a stranger's handshake is looked at while it runs.
const HANDSHAKE_WATCHED_EVERY: Duration = Duration::from_millis(250);
/// What a stranger's TLS messages may take: a ClientHello has 1.5 KiB, a Finished 60 bytes. The
/// transport itself would hold 128 KiB of them in each of three spaces.
const TLS_BYTES_MAX: u64 = 8 << 10;
/// Without a packet for this long the link is lost.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Sent on idle links, so that a silent one is a dead one.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Path MTU is probed up to here; jumbo frames halve the cost per byte.
pub(super) const MTU_MAX: u16 = 9_000;

/// Starts an endpoint on a simulated machine.
#[cfg(feature = "sim")]
macro_rules! simulated_start {
    ($builder:expr, $io:expr, $env:expr) => {{
        let builder = match $builder.with_io($io) {
            Ok(builder) => builder,
            Err(never) => match never {},
        };
        let builder = match builder.with_random(simulated::Drawn::from($env)) {
            Ok(builder) => builder,
            Err(never) => match never {},
        };
        builder.start().map_err(|error| error.to_string())
    }};
}

/// Accepts links on one address.
pub struct QuicListener {
    /// Taken only by the drop.
    server: Option<Server>,
    address: SocketAddr,
    platform: Platform,
}

impl QuicListener {
    /// Binds `address`; port 0 picks a free one. Whoever comes is let in, and may send as much as
    /// a session.
    ///
    /// # Errors
    /// [`LinkError::Listen`] names the address and what the system said.
    pub fn bind(address: SocketAddr) -> Result<Self, LinkError> {
        let listening = Listening {
            address,
            only_v6: false,
        };
        Self::bind_with(
            &Env::system(),
            listening,
            Arc::new(OpenDoor),
            LinkBounds::none,
        )
    }

    /// As [`QuicListener::bind`], but `doorkeeper` is asked about everybody, each link begins with
    /// at most `bytes_max` bytes on its first stream and no other, and a socket of IPv6 may leave
    /// IPv4 on its port to another one.
    ///
    /// # Errors
    /// As [`QuicListener::bind`].
    pub fn bind_guarded(
        env: &Env,
        listening: Listening,
        doorkeeper: Arc<dyn Doorkeeper>,
        bytes_max: u64,
    ) -> Result<Self, LinkError> {
        Self::bind_with(env, listening, doorkeeper, move || {
            LinkBounds::new(bytes_max)
        })
    }

    fn bind_with(
        env: &Env,
        listening: Listening,
        doorkeeper: Arc<dyn Doorkeeper>,
        bounds: impl Fn() -> LinkBounds + Send + 'static,
    ) -> Result<Self, LinkError> {
        let Listening { address, only_v6 } = listening;
        let fail = |reason: String| LinkError::Listen { address, reason };
        let server = match Server::builder().with_tls(provider::Server::from(tls::server()?)) {
            Ok(builder) => builder,
            Err(never) => match never {},
        };
        let guard = Guard {
            doorkeeper: Arc::clone(&doorkeeper),
            bounds: Box::new(bounds),
        };
        let tokens = match server.with_address_token(Tokens::new(Arc::clone(&doorkeeper))) {
            Ok(builder) => builder,
            Err(never) => match never {},
        };
        let server = tokens
            .with_endpoint_limits(FirstPackets::new(doorkeeper))
            .map_err(|error| fail(error.to_string()))?
            .with_event(LinkSubscriber { guard: Some(guard) })
            .map_err(|error| fail(error.to_string()))?
            .with_limits(limits(HANDSHAKE_MAX).map_err(fail)?)
            .map_err(|error| fail(error.to_string()))?;
        let (server, address) = match env.platform {
            #[cfg(feature = "sim")]
            Platform::Simulated => {
                let io = simulated::socket(address).map_err(|error| fail(error.to_string()))?;
                (simulated_start!(server, io, env).map_err(fail)?, address)
            }
            Platform::System => {
                let io = io_provider(address, only_v6).map_err(|error| fail(error.to_string()))?;
                let server = match server.with_io(io) {
                    Ok(builder) => builder,
                    Err(never) => match never {},
                };
                let server = server.start().map_err(|error| fail(error.to_string()))?;
                let bound = server.local_addr();
                (server, bound.map_err(|error| fail(error.to_string()))?)
            }
        };
        Ok(Self {
            server: Some(server),
            address,
            platform: env.platform,
        })
    }

    /// The bound address, with the port that was picked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next link. `None` when the endpoint ended.
    pub async fn accept(&mut self) -> Option<Result<Link, LinkError>> {
        let connection = self.server.as_mut()?.accept().await?;
        Some(link(connection))
    }
}

impl std::fmt::Debug for QuicListener {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("QuicListener")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// An endpoint without connections sleeps, and is not woken by the loss of its handle: it would
/// keep its tasks, its socket and its port for ever. Any packet makes it look.
impl Drop for QuicListener {
    fn drop(&mut self) {
        drop(self.server.take());
        if self.platform == Platform::System {
            wake(self.address);
        }
    }
}

/// Sends one byte, which is no QUIC packet, to an endpoint of this machine.
fn wake(endpoint: SocketAddr) {
    let (from, loopback): (IpAddr, IpAddr) = match endpoint {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
    };
    let to = match endpoint.ip().is_unspecified() {
        true => SocketAddr::new(loopback, endpoint.port()),
        false => endpoint,
    };
    // What cannot be woken ends with the process, as it would without this.
    let sent = UdpSocket::bind((from, 0)).and_then(|socket| socket.send_to(&[0], to));
    if let Err(error) = sent {
        tracing::debug!(%endpoint, %error, "an endpoint may outlive its handle");
    }
}

/// Dials links; one socket per address family, made when first needed.
#[derive(Debug)]
pub struct QuicDialler {
    /// Taken only by the drop.
    v4: Option<Client>,
    v6: Option<Client>,
    platform: Platform,
}

impl QuicDialler {
    /// Makes the sockets. A machine without IPv6 gets a dialler without IPv6.
    ///
    /// # Errors
    /// [`LinkError::Socket`] with what the system said.
    pub fn bind() -> Result<Self, LinkError> {
        Self::bind_on(&Env::system())
    }

    /// As [`QuicDialler::bind`], on what the node runs on.
    ///
    /// # Errors
    /// As [`QuicDialler::bind`].
    pub fn bind_on(env: &Env) -> Result<Self, LinkError> {
        let v4 = client(env, (Ipv4Addr::UNSPECIFIED, 0).into())?;
        let v6 = match env.is_simulated() {
            true => None,
            false => client(env, (Ipv6Addr::UNSPECIFIED, 0).into()).ok(),
        };
        Ok(Self {
            v4: Some(v4),
            v6,
            platform: env.platform,
        })
    }

    /// Makes one socket, at an address of this machine that others are to see.
    ///
    /// # Errors
    /// [`LinkError::Socket`] with what the system said.
    pub fn bind_at(local: IpAddr) -> Result<Self, LinkError> {
        let client = client(&Env::system(), (local, 0).into())?;
        Ok(match local {
            IpAddr::V4(_) => Self {
                v4: Some(client),
                v6: None,
                platform: Platform::System,
            },
            IpAddr::V6(_) => Self {
                v4: None,
                v6: Some(client),
                platform: Platform::System,
            },
        })
    }

    /// Whether this machine knows a way to an address. A simulated one knows its whole network.
    ///
    /// # Errors
    /// [`LinkError::NoRoute`].
    pub fn check_route(&self, address: SocketAddr) -> Result<(), LinkError> {
        match self.platform {
            Platform::System => check_route(address),
            #[cfg(feature = "sim")]
            Platform::Simulated => Ok(()),
        }
    }

    /// Dials one address.
    ///
    /// # Errors
    /// [`LinkError::Unreachable`] names the address and the reason.
    pub async fn dial(&self, address: SocketAddr) -> Result<Link, LinkError> {
        let unreachable = |reason: String| LinkError::Unreachable { address, reason };
        let client = match address {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        };
        let Some(client) = client else {
            let reason = match address {
                SocketAddr::V4(_) => "there is no socket for IPv4",
                SocketAddr::V6(_) => "this machine has no IPv6",
            };
            return Err(unreachable(reason.to_owned()));
        };
        let connect = Connect::new(address).with_server_name(tls::SERVER_NAME);
        let mut connection = client
            .connect(connect)
            .await
            .map_err(|error| not_connected(address, &error))?;
        connection
            .keep_alive(true)
            .map_err(|error| unreachable(error.to_string()))?;
        link(connection)
    }
}

/// Why no link came to be: silence, or something that speaks QUIC and not this protocol.
fn not_connected(address: SocketAddr, error: &s2n_quic::connection::Error) -> LinkError {
    use s2n_quic::connection::Error;
    let reason = error.to_string();
    match error {
        // RFC 9001, section 4.8: TLS alerts are the codes from 0x100 to 0x1ff.
        Error::Transport { code, .. } if (0x100..=0x1ff).contains(&code.as_u64()) => {
            LinkError::OtherProtocol { address, reason }
        }
        _ => LinkError::Unreachable { address, reason },
    }
}

/// See the drop of [`QuicListener`].
impl Drop for QuicDialler {
    fn drop(&mut self) {
        for client in [self.v4.take(), self.v6.take()].into_iter().flatten() {
            let address = client.local_addr();
            drop(client);
            if self.platform == Platform::System
                && let Ok(address) = address
            {
                wake(address);
            }
        }
    }
}

fn client(env: &Env, address: SocketAddr) -> Result<Client, LinkError> {
    let fail = |reason: String| LinkError::Socket(reason);
    let builder = match Client::builder().with_tls(provider::Client::from(tls::client()?)) {
        Ok(builder) => builder,
        Err(never) => match never {},
    };
    let builder = builder
        .with_event(LinkSubscriber { guard: None })
        .map_err(|error| fail(error.to_string()))?
        .with_limits(limits(DIALLED_HANDSHAKE_MAX).map_err(fail)?)
        .map_err(|error| fail(error.to_string()))?;
    match env.platform {
        #[cfg(feature = "sim")]
        Platform::Simulated => {
            let io = simulated::socket(address).map_err(|error| fail(error.to_string()))?;
            simulated_start!(builder, io, env).map_err(fail)
        }
        Platform::System => {
            let io = io_provider(address, false).map_err(|error| fail(error.to_string()))?;
            let builder = match builder.with_io(io) {
                Ok(builder) => builder,
                Err(never) => match never {},
            };
            builder.start().map_err(|error| fail(error.to_string()))
        }
    }
}

fn io_provider(
    address: SocketAddr,
    only_v6: bool,
) -> Result<s2n_quic::provider::io::tokio::Provider, std::io::Error> {
    s2n_quic::provider::io::tokio::Builder::default()
        .with_receive_address(address)?
        .with_only_v6(only_v6)?
        .with_max_mtu(MTU_MAX)?
        .build()
}

fn limits(handshake_max: Duration) -> Result<Limits, String> {
    // The validation error's type is private to the transport; its text is all there is.
    macro_rules! set {
        ($limits:expr $(, $method:ident($value:expr))+) => {{
            let limits = $limits;
            $(let limits = limits.$method($value).map_err(|error| error.to_string())?;)+
            limits
        }};
    }
    Ok(set!(
        Limits::new(),
        with_data_window(CONNECTION_WINDOW_BYTES),
        with_bidirectional_local_data_window(STREAM_WINDOW_BYTES),
        with_bidirectional_remote_data_window(STREAM_WINDOW_BYTES),
        with_max_open_local_bidirectional_streams(STREAMS_MAX),
        with_max_open_remote_bidirectional_streams(STREAMS_MAX),
        with_max_open_remote_unidirectional_streams(0),
        with_max_handshake_duration(handshake_max),
        with_max_idle_timeout(IDLE_MAX),
        with_max_keep_alive_period(KEEP_ALIVE)
    ))
}

fn link(mut connection: Connection) -> Result<Link, LinkError> {
    // A socket for both families shows an address of IPv4 inside one of IPv6.
    let remote = connection.remote_addr()?;
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let known = connection
        .query_event_context_mut(|context: &mut LinkContext| {
            if let Some(begun) = context.begun.take() {
                begun.succeed();
            }
            (
                context.binding,
                std::mem::take(&mut context.group),
                context.bounds.clone(),
            )
        })
        .map_err(|_| LinkError::NoBinding(remote))?;
    let (binding, key_exchange, bounds) = known;
    let binding = binding.ok_or(LinkError::NoBinding(remote))?;
    let (handle, acceptor) = connection.split();
    Ok(Link {
        handle: LinkHandle(handle),
        streams: LinkStreams(acceptor),
        info: LinkInfo {
            remote,
            binding,
            key_exchange,
        },
        bounds,
    })
}

/// Keeps, per connection, what only the transport's events tell, and bounds what strangers send.
struct LinkSubscriber {
    /// None at the dialling end, which knows whom it dials.
    guard: Option<Guard>,
}

struct Guard {
    doorkeeper: Arc<dyn Doorkeeper>,
    bounds: Box<dyn Fn() -> LinkBounds + Send>,
}

struct LinkContext {
    binding: Option<[u8; 32]>,
    group: String,
    bounds: LinkBounds,
    /// There while a stranger's handshake of the transport runs.
    begun: Option<Begun>,
    has_excess: bool,
}

impl Subscriber for LinkSubscriber {
    type ConnectionContext = LinkContext;

    fn create_connection_context(
        &mut self,
        _meta: &ConnectionMeta,
        _info: &ConnectionInfo,
    ) -> Self::ConnectionContext {
        let bounds = self.guard.as_ref().map(|guard| (guard.bounds)());
        LinkContext {
            binding: None,
            group: String::new(),
            bounds: bounds.unwrap_or_else(LinkBounds::none),
            begun: None,
            has_excess: false,
        }
    }

    fn on_connection_started(
        &mut self,
        context: &mut Self::ConnectionContext,
        _meta: &ConnectionMeta,
        event: &events::ConnectionStarted<'_>,
    ) {
        if let Some(guard) = &self.guard {
            let remote = address_of(&event.path.remote_addr);
            context.begun = Some(Begun::new(Arc::clone(&guard.doorkeeper), remote));
        }
    }

    fn on_frame_received(
        &mut self,
        context: &mut Self::ConnectionContext,
        _meta: &ConnectionMeta,
        event: &events::FrameReceived<'_>,
    ) {
        match event.frame {
            events::Frame::Stream {
                id, offset, len, ..
            } => context
                .bounds
                .on_frame(id, offset.saturating_add(len.into())),
            events::Frame::Crypto { offset, len, .. }
                if context.begun.is_some() && offset.saturating_add(len.into()) > TLS_BYTES_MAX =>
            {
                context.has_excess = true;
            }
            _ => {}
        }
    }

    fn supervisor_timeout(
        &mut self,
        context: &mut Self::ConnectionContext,
        _meta: &ConnectionMeta,
        _supervision: &supervisor::Context<'_>,
    ) -> Option<Duration> {
        // Once nobody asks any more, the transport stops looking at this connection.
        context.begun.as_ref().map(|_| HANDSHAKE_WATCHED_EVERY)
    }

    fn on_supervisor_timeout(
        &mut self,
        context: &mut Self::ConnectionContext,
        _meta: &ConnectionMeta,
        _supervision: &supervisor::Context<'_>,
    ) -> supervisor::Outcome {
        match &mut context.begun {
            Some(begun) if context.has_excess => {
                begun.cut();
                supervisor::Outcome::ImmediateClose {
                    reason: "more TLS than a handshake has",
                }
            }
            _ => supervisor::Outcome::Continue,
        }
    }

    fn on_tls_exporter_ready(
        &mut self,
        context: &mut Self::ConnectionContext,
        _meta: &ConnectionMeta,
        event: &events::TlsExporterReady<'_>,
    ) {
        let mut binding = [0; 32];
        if event
            .session
            .tls_exporter(EXPORTER_LABEL, b"", &mut binding)
            .is_ok()
        {
            context.binding = Some(binding);
        }
    }

    fn on_key_exchange_group(
        &mut self,
        context: &mut Self::ConnectionContext,
        _meta: &ConnectionMeta,
        event: &events::KeyExchangeGroup<'_>,
    ) {
        context.group = event.chosen_group_name.to_owned();
    }
}
