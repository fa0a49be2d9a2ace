//! Where a message stands: lane, epoch, sequence; and how far a lane has come.
//!
//! These are plain values with an order; they decide nothing.
//! Read [`Position`] first: it is the name of a message for ever.

use bincode::{Decode, Encode};

/// One open of a store: what a message is numbered under.
///
/// The boot number rises by one at every open; the random nonce tells two copies
/// of one store apart that both rose to the same boot number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Epoch {
    /// Rises at every open of the store.
    pub boot: u32,
    /// Drawn at every open of the store.
    pub nonce: u64,
}

/// The two independently numbered lines of messages between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// What applications send.
    User = 0,
    /// What nodes tell each other; never paused by user data.
    System = 1,
}

impl Lane {
    /// Both lanes, in the order of their numbers.
    pub const ALL: [Lane; 2] = [Lane::User, Lane::System];

    /// The lane's number, as keys and arrays use it.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The place of one message in a lane; kept for the message's whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Position {
    /// The epoch in which the message was accepted.
    pub epoch: Epoch,
    /// Counted from 1 in every epoch.
    pub sequence: u64,
}

/// What a sender still holds of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Span {
    /// The epoch these sequences belong to.
    pub epoch: Epoch,
    /// First sequence that still waits.
    pub first: u64,
    /// Last sequence given out; `first - 1` when nothing waits.
    pub last: u64,
    /// Highest sequence the recipient has acknowledged.
    pub acknowledged: u64,
}

/// How far a receiver has come in one epoch of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Mark {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// Highest contiguous sequence that was stored, refused or skipped.
    pub settled: u64,
}

/// A message that its recipient will not store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Refusal {
    /// The epoch of the message.
    pub epoch: Epoch,
    /// The sequence of the message.
    pub sequence: u64,
    /// Why.
    pub code: RefusalCode,
}

/// Why a message was refused. Numbered by hand; a number is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RefusalCode(pub u16);

impl RefusalCode {
    /// The sender holds no grant for the topic.
    pub const NO_GRANT: RefusalCode = RefusalCode(1);
    /// The message breaks a limit of the recipient.
    pub const TOO_LARGE: RefusalCode = RefusalCode(2);
    /// The message could be read as a frame but not as a message.
    pub const UNDECODABLE: RefusalCode = RefusalCode(3);

    /// What a person is told.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self.0 {
            1 => "the recipient grants no message.send for this topic",
            2 => "the message is over a limit of the recipient",
            3 => "the recipient could not read the message",
            _ => "refused for a reason this version does not know",
        }
    }
}
