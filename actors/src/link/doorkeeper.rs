//! Who decides whether a stranger's packet may begin a link, as the transport asks it.
//!
//! The transport asks in the middle of receiving packets, so every answer is given at once.

use std::{fmt, net::SocketAddr, sync::Arc};

/// What is done about a first packet whose sender's address is only claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// A handshake of the transport begins.
    Allow,
    /// The sender has to show first that the address is its own.
    Prove,
    /// Nothing is answered.
    Ignore,
}

/// How a handshake of the transport ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginEnd {
    /// A link is up.
    Link,
    /// It failed or took too long.
    Failed,
    /// Its other end sent more than a handshake has, and it was cut.
    Cut,
}

/// Decides about strangers, and is told what becomes of them.
pub trait Doorkeeper: fmt::Debug + Send + Sync {
    /// A first packet; the address may be a lie.
    fn on_offer(&self, remote: SocketAddr) -> Welcome;
    /// Whether one that shows its address could begin now. Nothing is spent by asking.
    fn has_room(&self, remote: SocketAddr) -> bool;
    /// One has shown its address; whether its handshake begins.
    fn on_proven(&self, remote: SocketAddr) -> bool;
    /// A handshake of the transport began; the number comes back when it is over.
    fn on_begun(&self, remote: SocketAddr) -> u64;
    /// A handshake of the transport is over.
    fn on_over(&self, begun: u64, end: BeginEnd);
}

/// Lets everybody in: for who listens without a node behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenDoor;

impl Doorkeeper for OpenDoor {
    fn on_offer(&self, _remote: SocketAddr) -> Welcome {
        Welcome::Allow
    }

    fn has_room(&self, _remote: SocketAddr) -> bool {
        true
    }

    fn on_proven(&self, _remote: SocketAddr) -> bool {
        true
    }

    fn on_begun(&self, _remote: SocketAddr) -> u64 {
        0
    }

    fn on_over(&self, _begun: u64, _end: BeginEnd) {}
}

/// A transport handshake under way; told to be over when dropped, whatever ended it.
pub(super) struct Begun {
    doorkeeper: Arc<dyn Doorkeeper>,
    number: u64,
    end: BeginEnd,
}

impl Begun {
    pub(super) fn new(doorkeeper: Arc<dyn Doorkeeper>, remote: SocketAddr) -> Self {
        let number = doorkeeper.on_begun(remote);
        Self {
            doorkeeper,
            number,
            end: BeginEnd::Failed,
        }
    }

    /// It led to a link.
    pub(super) fn succeed(mut self) {
        self.end = BeginEnd::Link;
    }

    /// It is about to be cut.
    pub(super) fn cut(&mut self) {
        self.end = BeginEnd::Cut;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.doorkeeper.on_over(self.number, self.end);
    }
}
