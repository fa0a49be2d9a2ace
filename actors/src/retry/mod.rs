//! The retry scheduler: who is dialled next, who is given up, and when.
//!
//! `actor` is the scheduler, `agenda` its one ordered set of due times with one timer, `budget`
//! what it asks of the store about failed attempts and messages whose time is over.
//!
//! Read [`RetryMsg`] for what it is told, then `actor` from `handle` upwards.

mod actor;
mod agenda;
mod budget;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use actor::{Retry, RetryState};

use crate::{
    session::SessionExit,
    store::{PeerNumber, StoreError, Swept},
    supervise::{Address, Post},
    surroundings::Change,
};

/// The scheduler's messages.
#[derive(Debug)]
pub enum RetryMsg {
    /// From the store's signal: something waits for this peer that did not wait before.
    Waiting(PeerNumber),
    /// From the store's signal, after it had to skip some: look at all of them.
    WaitingUnknown,
    /// From the session supervisor: a session lives.
    Connected(PeerNumber),
    /// From the session supervisor: a session or a dial is over.
    Over {
        /// The peer.
        peer: PeerNumber,
        /// How, and whose doing it was.
        exit: SessionExit,
        /// What the other side asked for.
        retry_after_ms: Option<u64>,
    },
    /// From the session supervisor's new incarnation: no session and no dial lives.
    AllOver,
    /// From the node: a peer was paired or its addresses changed.
    Added(PeerNumber),
    /// From the node, or the session supervisor: a peer was forgotten; nothing is planned for it any more.
    Removed(PeerNumber),
    /// From the node: somebody said when a link to this peer is kept.
    Kept(PeerNumber),
    /// From whoever knows that it is worth a try: dial now, one peer or all.
    Wake(Option<PeerNumber>),
    /// From its watch on the surroundings.
    Changed(Change),
    /// From its watch on the store: among what waits for this peer, something may be given up at
    /// this time of the wall clock.
    Limited {
        /// The peer.
        peer: PeerNumber,
        /// Never later than that.
        due_ms: u64,
    },
    /// From its own task: what the store said of a failed attempt.
    Counted {
        /// The peer.
        peer: PeerNumber,
        /// The new count, if it was counted.
        result: Result<Option<u32>, StoreError>,
    },
    /// From its own task: a sweep is over.
    Swept {
        /// The peer.
        peer: PeerNumber,
        /// What it did.
        result: Result<Swept, StoreError>,
    },
    /// From its own timer; stale when the number is not the current one.
    Due(u64),
}

impl RetryMsg {
    /// Whether the scheduler's own timer, tasks and watches send it.
    pub(crate) fn is_own(&self) -> bool {
        match self {
            Self::Waiting(_)
            | Self::WaitingUnknown
            | Self::Changed(_)
            | Self::Limited { .. }
            | Self::Counted { .. }
            | Self::Swept { .. }
            | Self::Due(_) => true,
            Self::Connected(_)
            | Self::Over { .. }
            | Self::AllOver
            | Self::Added(_)
            | Self::Removed(_)
            | Self::Kept(_)
            | Self::Wake(_) => false,
        }
    }
}

/// Reaches the retry scheduler, across its incarnations.
#[derive(Clone, Debug)]
pub struct RetryHandle {
    address: Arc<Address<RetryMsg>>,
}

impl Default for RetryHandle {
    fn default() -> Self {
        Self {
            address: Arc::new(Address::vacant()),
        }
    }
}

impl RetryHandle {
    /// Tells the scheduler something. While it is being restarted nothing is lost by a message that
    /// nobody hears: the new incarnation dials every peer once.
    pub(crate) fn tell(&self, message: RetryMsg) {
        self.address.cast(message);
    }

    /// Dials now, whatever is planned: one peer, or every one for which something waits.
    ///
    /// Nothing happens where a session lives, nor while the scheduler is being restarted: its new
    /// incarnation dials everybody.
    pub fn wake(&self, peer: Option<PeerNumber>) {
        self.tell(RetryMsg::Wake(peer));
    }

    /// When a link to this peer is kept was changed in the store. A scheduler that is being
    /// restarted reads it there.
    pub fn kept(&self, peer: PeerNumber) {
        self.tell(RetryMsg::Kept(peer));
    }

    /// A peer was paired, or paired again after it was forgotten: it is dialled now.
    pub fn added(&self, peer: PeerNumber) {
        self.tell(RetryMsg::Added(peer));
    }

    /// A peer was forgotten: nothing is planned for it any more.
    pub fn removed(&self, peer: PeerNumber) {
        self.tell(RetryMsg::Removed(peer));
    }

    /// For the supervisor: publishes a new incarnation.
    pub(crate) fn publish(&self, incarnation: Post<RetryMsg>) {
        self.address.publish(incarnation);
    }

    /// For the supervisor: the incarnation is gone.
    pub(crate) fn vacate(&self) {
        self.address.vacate();
    }
}
