//! What the books say, as numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the books say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Accepted by the senders.
    pub accepted: u64,
    /// Whether the senders were asked what came of it; without that `stored`, `done` and `lost` are 0,
    /// for what is under way is not lost.
    pub is_followed: bool,
    /// Stored by the recipients, as the senders know it.
    pub stored: u64,
    /// Handled by the recipients, as the senders know it.
    pub done: u64,
    /// Different numbers that consumers got.
    pub received: u64,
    /// Accepted, but no consumer got them.
    pub lost: u64,
    /// In an inbox twice, or handed out again after it was acknowledged.
    pub doubled: u64,
    /// In an inbox behind a later one.
    pub reordered: u64,
    /// Got, but never accepted.
    pub strange: u64,
    /// Handed out again after a consumer or its node died; no fault.
    pub redelivered: u64,
}

impl Tally {
    /// Whether all is well: accepted = stored = done = received, and nothing else came.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.stored == self.accepted
            && self.done == self.accepted
            && self.lost == 0
            && self.doubled == 0
            && self.reordered == 0
            && self.strange == 0
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.accepted += other.accepted;
        self.is_followed |= other.is_followed;
        self.stored += other.stored;
        self.done += other.done;
        self.received += other.received;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.strange += other.strange;
        self.redelivered += other.redelivered;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            accepted,
            is_followed,
            stored,
            done,
            received,
            lost,
            doubled,
            reordered,
            strange,
            redelivered,
        } = self;
        write!(f, "accepted {accepted}")?;
        if *is_followed {
            write!(f, ", stored {stored}, done {done}")?;
        }
        write!(f, ", received {received}")?;
        if *is_followed {
            write!(f, ", lost {lost}")?;
        }
        write!(f, ", twice {doubled}, out of order {reordered}")?;
        if *strange > 0 {
            write!(f, ", never accepted {strange}")?;
        }
        if *redelivered > 0 {
            write!(f, " (handed out again {redelivered})")?;
        }
        Ok(())
    }
}
