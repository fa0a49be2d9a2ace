//! What the session supervisor is told and asked, and the handle that hides it.
//!
//! The handle outlives every incarnation of the supervisor; a lost answer means "outcome unknown",
//! and everything here is safe to ask again.

use std::{sync::Arc, time::Duration};

use packhorse_protocol::{
    handshake::{Introduction, SessionId, VerdictRefusal},
    message::{DeliveryClass, Message},
    ticket::Ticket,
};
use ractor::{ActorId, RpcReplyPort};
use tokio::sync::oneshot;

use super::{
    dial::DialError,
    ephemeral::EphemeralError,
    exit::SessionExit,
    handshake::Accepted,
    join::{JOIN_WITHIN, JoinError, JoinOptions, Joined},
    outlet::{Ask, Outlet},
    ping::{Ping, PingError},
};
use crate::{
    store::{PeerNumber, PeerRecord},
    supervise::{Address, AddressError, Post},
};

/// How long a listener waits for leave to begin a session.
const ADMIT_WITHIN: Duration = Duration::from_secs(3);

/// How long the supervisor may take to say which session lives.
const OUTLET_WITHIN: Duration = Duration::from_secs(3);
/// How long an answer to a ping is waited for.
const PING_WITHIN: Duration = Duration::from_secs(5);

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
    /// From whoever has something for a live session: the way into it, `None` without one.
    Outlet {
        /// Which peer's.
        peer: PeerNumber,
        /// Who asked.
        reply: RpcReplyPort<Option<Outlet>>,
    },
    /// From the retry scheduler: the network or the wall clock changed; each live session is to
    /// show that its peer still hears this node.
    ProveAlive,
    /// From the node: what this peer may do here was changed; a live session tells it.
    GrantsChanged(PeerNumber),
    /// From the node or the retry scheduler: this peer is none any more; its session and its dial end.
    Forgotten(PeerNumber),
    /// From the retry scheduler: the machine's addresses changed; what follows from it for this
    /// node's own is told to every live session.
    Moved,
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

    /// Measures one round trip to a peer over its live session.
    ///
    /// # Errors
    /// [`PingError`]; asking again is safe.
    pub async fn ping(&self, peer: PeerNumber) -> Result<Ping, PingError> {
        let outlet = self.outlet(peer).await?.ok_or(PingError::NoSession)?;
        let (reply, answer) = oneshot::channel();
        outlet.ask(Ask::Ping(reply));
        match tokio::time::timeout(PING_WITHIN, answer).await {
            Ok(Ok(ping)) => Ok(ping),
            Ok(Err(_)) | Err(_) => Err(PingError::NoAnswer),
        }
    }

    /// Hands a message to a peer's live session, now or never: `Ok` says that it was handed to the
    /// stream's writer, not that it arrived.
    ///
    /// # Errors
    /// [`EphemeralError`]; nothing was sent then.
    pub async fn send_ephemeral(
        &self,
        peer: PeerNumber,
        message: Message,
    ) -> Result<(), EphemeralError> {
        message.check()?;
        if message.class != DeliveryClass::Ephemeral {
            return Err(EphemeralError::Class);
        }
        let outlet = self.outlet(peer).await?.ok_or(EphemeralError::NoSession)?;
        outlet.ephemeral.offer(message)
    }

    /// Asks every live session to show that its peer still hears this node.
    pub(crate) fn prove_alive(&self) {
        self.address.cast(SessionsMsg::ProveAlive);
    }

    /// Tells a live session that what its peer may do here was changed.
    pub fn grants_changed(&self, peer: PeerNumber) {
        self.address.cast(SessionsMsg::GrantsChanged(peer));
    }

    /// Ends whatever goes on with a peer that was forgotten.
    pub fn forgotten(&self, peer: PeerNumber) {
        self.address.cast(SessionsMsg::Forgotten(peer));
    }

    /// The machine is at other addresses.
    pub(crate) fn moved(&self) {
        self.address.cast(SessionsMsg::Moved);
    }

    async fn outlet(&self, peer: PeerNumber) -> Result<Option<Outlet>, AddressError> {
        let ask = |reply| SessionsMsg::Outlet { peer, reply };
        self.address
            .call("session supervisor", OUTLET_WITHIN, ask)
            .await
    }

    /// For the supervisor: publishes a new incarnation.
    pub(crate) fn publish(&self, incarnation: Post<SessionsMsg>) {
        self.address.publish(incarnation);
    }

    /// For the supervisor: the incarnation is gone.
    pub(crate) fn vacate(&self) {
        self.address.vacate();
    }
}
