//! The two ends of a lane: what sends a peer's waiting messages, and what takes them in.
//!
//! One [`sender::Sender`] and one [`receiver::Receiver`] per lane and session. They ask the
//! store through outputs, believe only what it says is durable, and tell the peer nothing
//! else. They never hold a message longer than the window allows and never touch a store,
//! a stream or a clock themselves.
//!
//! Read `sender.rs` from top to bottom, then `receiver.rs`: each function answers one of the
//! other's frames.

use crate::epoch::{Epoch, Position};
use crate::error_class::ErrorClass;
use crate::message::{Arrival, Message};

mod phase;
pub mod receiver;
pub mod sender;
#[cfg(test)]
mod tests;

/// One waiting message as the sender's store loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name for ever.
    pub position: Position,
    /// The message.
    pub message: Message,
}

/// One step of what a recipient's store commits, in this order, in one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// Set the mark of `epoch` to `first - 1`, unless it is higher already.
    Base {
        /// The sender's epoch.
        epoch: Epoch,
        /// The next sequence that will come.
        first: u64,
    },
    /// Store, or refuse, each message above the mark and raise the mark to the last.
    Messages {
        /// The sender's epoch.
        epoch: Epoch,
        /// Sequence of the first.
        first: u64,
        /// Messages, and places that were refused while they were decoded.
        messages: Vec<Arrival>,
    },
}

/// Why a lane cannot go on. The session closes with the class that [`Fault::class`] names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The peer's fault: a frame that this phase of the lane does not allow.
    #[error("{frame} while the lane is {phase}")]
    OutOfTurn {
        /// The frame's name.
        frame: &'static str,
        /// The phase's name.
        phase: &'static str,
    },
    /// The peer's fault: messages are missing and no base explains it.
    #[error("sequence {first} of boot {} where {expected} was due, and no base", epoch.boot)]
    Gap {
        /// The epoch.
        epoch: Epoch,
        /// What was due.
        expected: u64,
        /// What came.
        first: u64,
    },
    /// The peer's fault: a sequence came twice in one session.
    #[error("sequence {first} of boot {} again, where {expected} was due", epoch.boot)]
    Repeated {
        /// The epoch.
        epoch: Epoch,
        /// What was due.
        expected: u64,
        /// What came.
        first: u64,
    },
    /// The peer's fault: a base that leads nowhere or back.
    #[error("base {first} of boot {} where {expected} was due", epoch.boot)]
    BaseBackwards {
        /// The epoch.
        epoch: Epoch,
        /// What was due.
        expected: u64,
        /// What came.
        first: u64,
    },
    /// The peer's fault: an acknowledgement of something that was never sent.
    #[error("acknowledgement of sequence {settled} of boot {}, of which {sent} was sent", epoch.boot)]
    AcknowledgedUnsent {
        /// The epoch.
        epoch: Epoch,
        /// What it claims.
        settled: u64,
        /// The last that was sent.
        sent: u64,
    },
    /// The peer's fault: an acknowledgement below an earlier one.
    #[error("acknowledgement of sequence {settled} of boot {} after {before}", epoch.boot)]
    AcknowledgedBackwards {
        /// The epoch.
        epoch: Epoch,
        /// What it says now.
        settled: u64,
        /// What it said before.
        before: u64,
    },
    /// The peer's fault: an epoch that neither Start nor a message named.
    #[error("boot {} was never named on this lane", epoch.boot)]
    UnknownEpoch {
        /// The epoch.
        epoch: Epoch,
    },
    /// The peer's fault: Marks does not answer Start epoch by epoch.
    #[error("marks for {marks} epochs do not answer a start of {spans}")]
    MarksMismatch {
        /// Epochs in Start.
        spans: usize,
        /// Epochs in Marks.
        marks: usize,
    },
    /// The peer's fault: Start is out of order or a span contradicts itself.
    #[error("span of boot {} in start is out of order or contradicts itself", epoch.boot)]
    BadSpan {
        /// The epoch.
        epoch: Epoch,
    },
    /// The peer's fault: more than the window allows.
    #[error("{messages} messages of {bytes} bytes unsettled, more than the window")]
    WindowExceeded {
        /// Messages unsettled with this batch.
        messages: usize,
        /// Their weight.
        bytes: usize,
    },
    /// The peer's fault: more unconfirmed refusals than its own limit allows.
    #[error(
        "{count} unconfirmed refusals, more than {}",
        crate::limits::REFUSALS_UNCONFIRMED_MAX
    )]
    RefusalsExceeded {
        /// How many.
        count: usize,
    },
    /// The peer's fault: more steps wait for one commit than any sender needs.
    #[error("{count} batches and bases wait for one commit")]
    TooManySteps {
        /// How many.
        count: usize,
    },
    /// The peer's fault: more epochs in one session than are kept.
    #[error("more than {} epochs on one lane", crate::limits::EPOCHS_KEPT_MAX)]
    TooManyEpochs,
    /// The peer's fault: a batch without messages, or a sequence beyond the last number.
    #[error("a batch at sequence {first} with {count} messages")]
    BadBatch {
        /// Its first sequence.
        first: u64,
        /// Its messages.
        count: usize,
    },
    /// Our fault: the driver answered something that was not asked.
    #[error("the store answered {answer}, which nobody asked")]
    UnexpectedAnswer {
        /// The answer's name.
        answer: &'static str,
    },
    /// Our fault: rows came out of order, or a page was empty without being the last.
    #[error("the store loaded rows out of order")]
    RowsOutOfOrder,
    /// Our fault: a new message carries a number that the peer has settled already.
    #[error("sequence {sequence} of boot {} was given out twice; the store is a copy", epoch.boot)]
    NumberReused {
        /// The epoch.
        epoch: Epoch,
        /// The sequence.
        sequence: u64,
    },
    /// Our fault: more refusals are stored than one frame can tell.
    #[error(
        "{count} unconfirmed refusals are stored, more than {}",
        crate::limits::REFUSALS_UNCONFIRMED_MAX
    )]
    TooManyRefusals {
        /// How many.
        count: usize,
    },
}

impl Fault {
    /// Who has to act.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Fault::UnexpectedAnswer { .. }
            | Fault::RowsOutOfOrder
            | Fault::NumberReused { .. }
            | Fault::TooManyRefusals { .. } => ErrorClass::Internal,
            _ => ErrorClass::Protocol,
        }
    }
}
