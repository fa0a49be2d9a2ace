//! Where the transport asks the doorkeeper: at a dialler's first packet, when it shows its address,
//! and while its handshake runs.
//!
//! The transport asks its limiter only about packets without a token, so the answer to a Retry
//! would pass it; therefore tokens are given and taken here as well.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use s2n_quic::provider::{
    address_token::{self, Format, Provider},
    connection_id::LocalId,
    endpoint_limits::{self, ConnectionAttempt, Limiter, Outcome},
    event::events,
};
use s2n_quic_core::connection::InitialId;

use super::{Doorkeeper, Welcome};

/// Asks the doorkeeper about first packets.
pub(super) struct FirstPackets {
    doorkeeper: Arc<dyn Doorkeeper>,
    /// Knows the ports that reflection attacks abuse.
    ports: endpoint_limits::Default,
}

impl FirstPackets {
    pub(super) fn new(doorkeeper: Arc<dyn Doorkeeper>) -> Self {
        Self {
            doorkeeper,
            ports: endpoint_limits::Default::default(),
        }
    }
}

impl Limiter for FirstPackets {
    fn on_connection_attempt(&mut self, attempt: &ConnectionAttempt<'_>) -> Outcome {
        let by_port = self.ports.on_connection_attempt(attempt);
        if by_port != Outcome::allow() {
            return by_port;
        }
        match self
            .doorkeeper
            .on_offer(address_of(&attempt.remote_address))
        {
            Welcome::Allow => Outcome::allow(),
            Welcome::Prove => Outcome::retry(),
            Welcome::Ignore => Outcome::drop(),
        }
    }
}

/// Tokens of Retry packets: the transport's own, with the doorkeeper asked before one is honoured.
pub(super) struct Tokens {
    doorkeeper: Arc<dyn Doorkeeper>,
    inner: address_token::default::Format,
}

impl Tokens {
    pub(super) fn new(doorkeeper: Arc<dyn Doorkeeper>) -> Self {
        let inner = match address_token::Default::default().start() {
            Ok(inner) => inner,
            Err(never) => match never {},
        };
        Self { doorkeeper, inner }
    }
}

impl Provider for Tokens {
    type Format = Self;
    type Error = std::convert::Infallible;

    fn start(self) -> Result<Self::Format, Self::Error> {
        Ok(self)
    }
}

impl Format for Tokens {
    const TOKEN_LEN: usize = <address_token::default::Format as Format>::TOKEN_LEN;

    fn generate_new_token(
        &mut self,
        context: &mut address_token::Context<'_>,
        source: &LocalId,
        out: &mut [u8],
    ) -> Option<()> {
        self.inner.generate_new_token(context, source, out)
    }

    fn generate_retry_token(
        &mut self,
        context: &mut address_token::Context<'_>,
        original: &InitialId,
        out: &mut [u8],
    ) -> Option<()> {
        self.inner.generate_retry_token(context, original, out)
    }

    fn validate_token(
        &mut self,
        context: &mut address_token::Context<'_>,
        token: &[u8],
    ) -> Option<InitialId> {
        let remote = address_of(&context.remote_address);
        // ORDER: a valid token is used up by looking at it, so there must be room before.
        if !self.doorkeeper.has_room(remote) {
            return None;
        }
        let original = self.inner.validate_token(context, token)?;
        self.doorkeeper.on_proven(remote).then_some(original)
    }
}

/// The transport's address as the rest of the world writes it.
pub(super) fn address_of(address: &events::SocketAddress<'_>) -> SocketAddr {
    let ip = match <[u8; 4]>::try_from(address.ip()) {
        Ok(octets) => IpAddr::from(Ipv4Addr::from(octets)),
        Err(_) => {
            let octets = <[u8; 16]>::try_from(address.ip()).unwrap_or_default();
            IpAddr::from(Ipv6Addr::from(octets))
        }
    };
    // A socket for both families shows an address of IPv4 inside one of IPv6.
    SocketAddr::new(ip.to_canonical(), address.port())
}
