//! The transport's parts that a simulation owns: its socket and its randomness.

use std::{convert::Infallible, fmt, net::SocketAddr, sync::Arc};

use s2n_quic::provider::{io::turmoil, random};

use crate::env::{Env, Random};

use super::quic::MTU_MAX;

/// A socket of the simulated machine that this is called on.
pub(super) fn socket(address: SocketAddr) -> std::io::Result<turmoil::Provider> {
    turmoil::Builder::default()
        .with_address(address)?
        .with_max_mtu(MTU_MAX)?
        .build()
}

/// Draws connection ids, paths and spins from the node's own randomness.
pub(super) struct Drawn(Arc<dyn Random>);

impl Drawn {
    pub(super) fn from(env: &Env) -> Self {
        Self(Arc::clone(&env.random))
    }
}

impl fmt::Debug for Drawn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Drawn")
    }
}

impl random::Generator for Drawn {
    fn public_random_fill(&mut self, dest: &mut [u8]) {
        self.0.fill(dest);
    }

    fn private_random_fill(&mut self, dest: &mut [u8]) {
        self.0.fill(dest);
    }
}

impl random::Provider for Drawn {
    type Generator = Self;
    type Error = Infallible;

    fn start(self) -> Result<Self, Infallible> {
        Ok(self)
    }
}
