//! Sessions: authenticated links with peers, one per peer, each an actor.
//!
//! `greeting` and `handshake` turn a link into an authenticated one, from the dialling and from the
//! answering side, `supervisor` holds one slot per peer and decides which session lives, `asking`
//! dials whom this node asks to be paired, `requests` decides about those who ask it, `actor` is a
//! session's life, `driver` runs the protocol machine over the streams and the store, `ephemeral`
//! carries what is never stored, `outlet` is what the rest of the node may hand to a live session,
//! `exit` says whose doing an end was.
//! No session knows another one, and no session survives its actor.

mod acceptor;
mod actor;
mod admission;
mod announced;
mod asking;
mod copies;
mod crossing;
mod dial;
mod driver;
mod ephemeral;
mod exit;
mod granted;
mod greeting;
mod handle;
mod handshake;
mod join;
mod operations;
mod outlet;
mod ping;
mod progress;
mod requests;
mod slot;
mod slots;
mod stream;
mod supervisor;
mod telling;
mod writers;

pub use announced::Announced;
pub use dial::DialError;
pub use ephemeral::EphemeralError;
pub use exit::{Blame, SessionExit};
pub use handle::{Admission, SessionsHandle, SessionsMsg};
pub(crate) use handshake::respond;
pub use handshake::{Accepted, HandshakeFailure};
pub use join::{JoinError, JoinOptions, Joined};
pub use ping::{Ping, PingError};
pub use requests::{DecideStranger, RequestPolicy, RequestsHandle, Stranger, StrangerDecision};
pub use supervisor::{SessionSupervisor, SessionSupervisorState};

use std::sync::Arc;

use packhorse_protocol::{epoch::Epoch, handshake::Local, identity::IdentityKey};

use crate::{
    board::Board,
    env::Env,
    events::EventsHandle,
    inbox::InboxHandle,
    listener::Door,
    store::StoreHandle,
    supervise::{Census, LifeToken, Probe},
};

/// What every session needs and none owns.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// Time and randomness.
    pub env: Env,
    /// Queue, inbox, peers.
    pub store: StoreHandle,
    /// Consumers, for what is never stored.
    pub inbox: InboxHandle,
    /// What people see.
    pub board: Board,
    /// Life events.
    pub probe: Probe,
    /// What happens, for people.
    pub events: EventsHandle,
    /// Who lives.
    pub census: Census,
    /// What strangers may cost.
    pub door: Door,
    /// Everything that was made of this wiring is gone before the next incarnation begins.
    pub life: LifeToken,
    /// Pairing without a ticket.
    pub requests: RequestsHandle,
    /// Who this node is.
    pub me: Arc<Me>,
    /// Which incarnation of a session it is made for.
    #[cfg(feature = "sim")]
    pub incarnation: u64,
}

/// Who this node is, for the life of the process.
#[derive(Debug)]
pub struct Me {
    /// The node's key.
    pub identity: IdentityKey,
    /// The announced name.
    pub name: String,
    /// What others should dial.
    pub announced: Announced,
    /// This open of the store.
    pub epoch: Epoch,
}

impl Me {
    /// What a handshake says about this node.
    #[must_use]
    pub fn local(&self) -> Local {
        Local {
            name: self.name.clone(),
            addresses: self.announced.current(),
            epoch: self.epoch,
        }
    }
}
