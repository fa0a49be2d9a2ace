//! Sessions: authenticated links with peers, one per peer, each an actor.
//!
//! `handshake` turns a link into an authenticated one, `supervisor` holds one slot per peer and
//! decides which session lives, `actor` is a session's life, `driver` runs the protocol machine
//! over the streams and the store.
//! No session knows another one, and no session survives its actor.

mod acceptor;
mod actor;
mod dial;
mod driver;
mod handle;
mod handshake;
mod join;
mod slots;
mod stream;
mod supervisor;

pub use dial::DialError;
pub use driver::SessionExit;
pub use handle::{Admission, SessionsHandle, SessionsMsg};
pub(crate) use handshake::respond;
pub use handshake::{Accepted, HandshakeFailure};
pub use join::{JoinError, JoinOptions, Joined};
pub use supervisor::{SessionSupervisor, SessionSupervisorState};

use std::sync::Arc;

use packhorse_protocol::{epoch::Epoch, handshake::Local, identity::IdentityKey};

use crate::{board::Board, env::Env, store::StoreHandle, supervise::Probe};

/// What every session needs and none owns.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// Time and randomness.
    pub env: Env,
    /// Queue, inbox, peers.
    pub store: StoreHandle,
    /// What people see.
    pub board: Board,
    /// Life events.
    pub probe: Probe,
    /// Who this node is.
    pub me: Arc<Me>,
}

/// Who this node is, for the life of the process.
#[derive(Debug)]
pub struct Me {
    /// The node's key.
    pub identity: IdentityKey,
    /// The announced name.
    pub name: String,
    /// What others should dial.
    pub addresses: Vec<String>,
    /// This open of the store.
    pub epoch: Epoch,
}

impl Me {
    /// What a handshake says about this node.
    #[must_use]
    pub fn local(&self) -> Local {
        Local {
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            epoch: self.epoch,
        }
    }
}
