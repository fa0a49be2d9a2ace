//! QUIC endpoints: one that listens, one that dials.
//!
//! An endpoint outlives the actors that use it: recreating a listener while connections live
//! fails, because the port stays bound until the last of them ends.
//! Nothing here reads a stream.
//!
//! Windows follow from the limits below; a stranger can make a connection hold at most
//! [`CONNECTION_WINDOW_BYTES`] before a session reads.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use s2n_quic::{
    Client, Connection, Server,
    client::Connect,
    provider::{
        endpoint_limits,
        event::{ConnectionInfo, ConnectionMeta, Subscriber, events},
        limits::Limits,
        tls::rustls as provider,
    },
};

use super::{Link, LinkError, LinkHandle, LinkInfo, LinkStreams, tls};

/// Label of the exporter whose value binds the handshake to the link.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-packhorse-1";

/// A largest frame and a half: credit returns as frames are read, so a lane's own window of 4 MiB
/// need not fit. The transport cannot raise it after the handshake, so it holds for strangers too.
const STREAM_WINDOW_BYTES: u64 = 1_536 << 10;
/// Both lanes of one direction, and control beside them.
const CONNECTION_WINDOW_BYTES: u64 = 4 << 20;
/// Handshake, control and two lanes, each way; later stream kinds raise it.
const STREAMS_MAX: u64 = 16;
/// A peer's QUIC handshake ends in this time or not at all.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Without a packet for this long the link is lost.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Sent on idle links, so that a silent one is a dead one.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// QUIC handshakes under way at once before Retry is demanded.
const HALF_OPEN_MAX: usize = 64;
/// Path MTU is probed up to here; jumbo frames halve the cost per byte.
const MTU_MAX: u16 = 9_000;

/// Accepts links on one address.
pub struct QuicListener {
    /// Taken only by the drop.
    server: Option<Server>,
    address: SocketAddr,
}

impl QuicListener {
    /// Binds `address`; port 0 picks a free one.
    ///
    /// # Errors
    /// [`LinkError::Listen`] names the address and what the system said.
    pub fn bind(address: SocketAddr) -> Result<Self, LinkError> {
        let fail = |reason: String| LinkError::Listen { address, reason };
        let io = io_provider(address).map_err(|error| fail(error.to_string()))?;
        let builder = match Server::builder().with_tls(provider::Server::from(tls::server()?)) {
            Ok(builder) => builder,
            Err(never) => match never {},
        };
        let server = match builder.with_io(io) {
            Ok(builder) => builder,
            Err(never) => match never {},
        };
        // Above this many half-open handshakes a dialler has to show that its address is its own.
        let strangers = endpoint_limits::Default::builder()
            .with_inflight_handshake_limit(HALF_OPEN_MAX)
            .and_then(|builder| builder.build());
        let strangers = match strangers {
            Ok(strangers) => strangers,
            Err(never) => match never {},
        };
        let server = server
            .with_endpoint_limits(strangers)
            .map_err(|error| fail(error.to_string()))?
            .with_event(BindingSubscriber)
            .map_err(|error| fail(error.to_string()))?
            .with_limits(limits().map_err(fail)?)
            .map_err(|error| fail(error.to_string()))?
            .start()
            .map_err(|error| fail(error.to_string()))?;
        let address = server
            .local_addr()
            .map_err(|error| fail(error.to_string()))?;
        let server = Some(server);
        Ok(Self { server, address })
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
        wake(self.address);
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
}

impl QuicDialler {
    /// Makes the sockets. A machine without IPv6 gets a dialler without IPv6.
    ///
    /// # Errors
    /// [`LinkError::Socket`] with what the system said.
    pub fn bind() -> Result<Self, LinkError> {
        let v4 = client((Ipv4Addr::UNSPECIFIED, 0).into())?;
        let v6 = client((Ipv6Addr::UNSPECIFIED, 0).into()).ok();
        Ok(Self { v4: Some(v4), v6 })
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
            return Err(unreachable("this machine has no IPv6".to_owned()));
        };
        let connect = Connect::new(address).with_server_name(tls::SERVER_NAME);
        let mut connection = client
            .connect(connect)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        connection
            .keep_alive(true)
            .map_err(|error| unreachable(error.to_string()))?;
        link(connection)
    }
}

/// See the drop of [`QuicListener`].
impl Drop for QuicDialler {
    fn drop(&mut self) {
        for client in [self.v4.take(), self.v6.take()].into_iter().flatten() {
            let address = client.local_addr();
            drop(client);
            if let Ok(address) = address {
                wake(address);
            }
        }
    }
}

fn client(address: SocketAddr) -> Result<Client, LinkError> {
    let fail = |reason: String| LinkError::Socket(reason);
    let io = io_provider(address).map_err(|error| fail(error.to_string()))?;
    let builder = match Client::builder().with_tls(provider::Client::from(tls::client()?)) {
        Ok(builder) => builder,
        Err(never) => match never {},
    };
    let builder = match builder.with_io(io) {
        Ok(builder) => builder,
        Err(never) => match never {},
    };
    builder
        .with_event(BindingSubscriber)
        .map_err(|error| fail(error.to_string()))?
        .with_limits(limits().map_err(fail)?)
        .map_err(|error| fail(error.to_string()))?
        .start()
        .map_err(|error| fail(error.to_string()))
}

fn io_provider(
    address: SocketAddr,
) -> Result<s2n_quic::provider::io::tokio::Provider, std::io::Error> {
    s2n_quic::provider::io::tokio::Builder::default()
        .with_receive_address(address)?
        .with_max_mtu(MTU_MAX)?
        .build()
}

fn limits() -> Result<Limits, String> {
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
        with_max_handshake_duration(HANDSHAKE_MAX),
        with_max_idle_timeout(IDLE_MAX),
        with_max_keep_alive_period(KEEP_ALIVE)
    ))
}

fn link(connection: Connection) -> Result<Link, LinkError> {
    let remote = connection.remote_addr()?;
    let context = connection
        .query_event_context(|context: &BindingContext| context.clone())
        .map_err(|_| LinkError::NoBinding(remote))?;
    let binding = context.binding.ok_or(LinkError::NoBinding(remote))?;
    let (handle, acceptor) = connection.split();
    Ok(Link {
        handle: LinkHandle(handle),
        streams: LinkStreams(acceptor),
        info: LinkInfo {
            remote,
            binding,
            key_exchange: context.group,
        },
    })
}

/// Keeps, per connection, what only the TLS events tell.
struct BindingSubscriber;

#[derive(Clone, Default)]
struct BindingContext {
    binding: Option<[u8; 32]>,
    group: String,
}

impl Subscriber for BindingSubscriber {
    type ConnectionContext = BindingContext;

    fn create_connection_context(
        &mut self,
        _meta: &ConnectionMeta,
        _info: &ConnectionInfo,
    ) -> Self::ConnectionContext {
        BindingContext::default()
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
