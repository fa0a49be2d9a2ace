//! What a recipient reports about messages that it has dealt with.
//!
//! The report is an ordinary message of the system lane, so it is as durable as what it speaks of,
//! and arrives once. Handled messages are named as ranges: a lane that is handled in its order
//! costs one range, however long it is. Only what was written by a handler, or failed, is named
//! one by one.
//! A report says what its sender claims; whether such messages were ever sent there is decided by
//! who reads it.
//!
//! `codec/receipts.rs` has the bytes.

use bincode::{Decode, Encode};

use crate::epoch::{Epoch, Position};

/// The topic of the message that carries a report.
pub const TOPIC: &str = "receipt";
/// Ranges in one report: with their longest numbers 32 KiB.
pub const RANGES_MAX: usize = 1_024;
/// Outcomes in one report: with all they may carry 280 KiB.
pub const OUTCOMES_MAX: usize = 64;
/// Bytes of a handler's output that travel.
pub const OUTPUT_BYTES_MAX: usize = 4_096;
/// The lane that reports speak of: nobody reports on reports.
pub const USER_LANE: u8 = 0;

/// A message was handled, and its handler wrote something.
pub const DONE: u8 = 1;
/// A message was given up by its recipient.
pub const FAILED: u8 = 2;

/// What became of the messages of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Receipts {
    /// The number of the lane.
    pub lane: u8,
    /// Handled: epoch, first and last sequence.
    pub done: Vec<(Epoch, u64, u64)>,
    /// What a range cannot say.
    pub outcomes: Vec<OutcomeReport>,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutcomeReport {
    /// Which one.
    pub at: Position,
    /// [`DONE`] or [`FAILED`].
    pub state: u8,
    /// Why it failed; at most 256 bytes.
    pub reason: String,
    /// The beginning of what its handler wrote; at most 4,096 bytes.
    pub output: Vec<u8>,
}
