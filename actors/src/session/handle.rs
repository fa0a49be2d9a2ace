//! What the session supervisor is told and asked, and the handle that hides it.
//!
//! The handle outlives every incarnation of the supervisor; a lost answer means "outcome unknown",
//! and everything here is safe to ask again.

use std::{sync::Arc, time::Duration};

use packhorse_protocol::{
    handshake::{Introduction, SessionId, VerdictRefusal},
    ticket::Ticket,
};
use ractor::{ActorId, ActorRef, RpcReplyPort};

use super::{
    dial::DialError,
    driver::SessionExit,
    handshake::Accepted,
    join::{JOIN_WITHIN, JoinError, JoinOptions, Joined},
};
use crate::{
    store::{PeerNumber, PeerRecord},
    supervise::{Address, AddressError},
};

/// How long a listener waits for leave to begin a session.
const ADMIT_WITHIN: Duration = Duration::from_secs(3);

/// May a session begin?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes, now.
    Granted,
    /// No; the other side is told why.
    Refused(VerdictRefusal),
}

/// The supervisor's messages.
#[derive(Debug)]
pub enum SessionsMsg {
    /// From the retry scheduler: dial this peer unless a session lives.
    Dial(PeerNumber),
    /// From a listener's handshake: may this peer's session begin?
    Admit {
        /// Which peer.
        peer: PeerNumber,
        /// What it said, with its verified id.
        introduction: Introduction,
        /// Orders its dials.
        dial_counter: u64,
        /// The session with this node that it knows of.
        alive: Option<SessionId>,
        /// The listener.
        reply: RpcReplyPort<Admission>,
    },
    /// From a listener's handshake: its verdict was "accepted".
    Adopt {
        /// The peer.
        record: Box<PeerRecord>,
        /// The session to be.
        accepted: Box<Accepted>,
    },
    /// From the node: pair with a ticket.
    Join {
        /// The ticket.
        ticket: Box<Ticket>,
        /// This side's decisions.
        options: JoinOptions,
        /// Who asked.
        reply: RpcReplyPort<Result<Joined, JoinError>>,
    },
    /// From its own dial task.
    Dialled {
        /// The peer.
        peer: PeerNumber,
        /// Which dial; stale when another one was begun since.
        dial: u64,
        /// What came of it.
        result: Box<Result<(PeerRecord, Accepted), DialError>>,
    },
    /// From a session: it is over.
    Ended {
        /// The peer.
        peer: PeerNumber,
        /// Which session.
        actor: ActorId,
        /// How.
        exit: SessionExit,
    },
    /// From its own timer: kill this session if it still lives.
    Overdue {
        /// The peer.
        peer: PeerNumber,
        /// Which session.
        actor: ActorId,
    },
}

/// Reaches the session supervisor, across its incarnations.
#[derive(Clone, Debug)]
pub struct SessionsHandle {
    address: Arc<Address<SessionsMsg>>,
}

impl Default for SessionsHandle {
    fn default() -> Self {
        Self {
            address: Arc::new(Address::vacant()),
        }
    }
}

impl SessionsHandle {
    /// Asks for a dial; nothing happens while a session or a dial lives. `false` when nobody
    /// heard it.
    pub(crate) fn dial(&self, peer: PeerNumber) -> bool {
        self.address.cast(SessionsMsg::Dial(peer))
    }

    pub(crate) async fn admit(
        &self,
        peer: PeerNumber,
        introduction: &Introduction,
        dial_counter: u64,
        alive: Option<SessionId>,
    ) -> Result<Admission, AddressError> {
        let introduction = introduction.clone();
        let ask = |reply| SessionsMsg::Admit {
            peer,
            introduction,
            dial_counter,
            alive,
            reply,
        };
        self.address
            .call("session supervisor", ADMIT_WITHIN, ask)
            .await
    }

    pub(crate) fn adopt(&self, record: PeerRecord, accepted: Accepted) {
        // When nobody hears it the link is dropped with the message, and the peer dials again.
        let accepted = Box::new(accepted);
        self.address.cast(SessionsMsg::Adopt {
            record: Box::new(record),
            accepted,
        });
    }

    /// Pairs this node with the ticket's inviter; returns once both sides have committed it.
    ///
    /// # Errors
    /// [`JoinError`]; joining again with the same ticket is safe.
    pub async fn join(&self, ticket: Ticket, options: JoinOptions) -> Result<Joined, JoinError> {
        let ask = |reply| SessionsMsg::Join {
            ticket: Box::new(ticket),
            options,
            reply,
        };
        // A moment more than the join takes at most, so that its own error is the one told.
        let within = JOIN_WITHIN + Duration::from_secs(5);
        self.address.call("session supervisor", within, ask).await?
    }

    /// For the supervisor: publishes a new incarnation.
    pub(crate) fn publish(&self, incarnation: ActorRef<SessionsMsg>) {
        self.address.publish(incarnation);
    }

    /// For the supervisor: the incarnation is gone.
    pub(crate) fn vacate(&self) {
        self.address.vacate();
    }
}
