//! Known faults that a test puts into this program, to show that its checkers see them.
//!
//! Exists under the feature `mutants` only. Each breaks one promise on purpose, in one to three
//! lines where the promise is kept, and lets everything go well while nothing goes wrong. At most
//! one is chosen in a process; without a choice nothing is broken.
//!
//! Read [`Mutant`]: it says of each what is broken. The places ask [`is`] or [`broken_or`].

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// A fault, by the promise that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mutant {
    /// The store answers what it has written and not synced.
    AcknowledgeBeforeSync = 1,
    /// Readers see what is written and not synced.
    VisibleBeforeDurable = 2,
    /// Messages that arrived are stored without the mark that says so.
    ForgetTheMark = 3,
    /// The mark of an earlier epoch of the sender is taken for that of a new one.
    MarkAcrossEpochs = 4,
    /// What arrives is stored whatever its sender may do.
    SkipGrantCheck = 5,
    /// After a failed dial or an ended session the next dial is planned and never due.
    LoseRetryTimer = 6,
    /// A session goes on where the one before it had stopped sending, not behind the recipient's
    /// mark.
    StaleWindow = 7,
    /// A session that this node dialled and one that the peer dialled live on side by side.
    BothCrossingLinks = 8,
    /// The answer to Start names no refusals, so one that was not confirmed reads as stored.
    RefusalNotRepeated = 9,
    /// A base that comes alone is acknowledged and not written down.
    BaseWithoutCommit = 10,
    /// The report about a handled message is written after the commit that took the message out.
    ReceiptOutsideBatch = 11,
    /// What was handed out to somebody who then vanished is never handed out again.
    LeaseNeverExpires = 12,
}

/// The number of the chosen one; 0 for none.
static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// Breaks one promise in this process from now on, in place of what was broken before.
pub fn choose(mutant: Mutant) {
    CHOSEN.store(mutant as u8, Ordering::Relaxed);
}

/// Breaks nothing any more.
pub fn clear() {
    CHOSEN.store(0, Ordering::Relaxed);
}

/// Whether this promise is broken.
#[must_use]
pub fn is(mutant: Mutant) -> bool {
    CHOSEN.load(Ordering::Relaxed) == mutant as u8
}

/// The broken value if this promise is broken, else the sound one.
#[must_use]
pub fn broken_or<T>(mutant: Mutant, broken: T, sound: T) -> T {
    if is(mutant) { broken } else { sound }
}

impl Mutant {
    /// Each of them, by number.
    pub const ALL: [Mutant; 12] = [
        Mutant::AcknowledgeBeforeSync,
        Mutant::VisibleBeforeDurable,
        Mutant::ForgetTheMark,
        Mutant::MarkAcrossEpochs,
        Mutant::SkipGrantCheck,
        Mutant::LoseRetryTimer,
        Mutant::StaleWindow,
        Mutant::BothCrossingLinks,
        Mutant::RefusalNotRepeated,
        Mutant::BaseWithoutCommit,
        Mutant::ReceiptOutsideBatch,
        Mutant::LeaseNeverExpires,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mutant::AcknowledgeBeforeSync => "acknowledge-before-sync",
            Mutant::VisibleBeforeDurable => "visible-before-durable",
            Mutant::ForgetTheMark => "forget-the-mark",
            Mutant::MarkAcrossEpochs => "mark-across-epochs",
            Mutant::SkipGrantCheck => "skip-grant-check",
            Mutant::LoseRetryTimer => "lose-retry-timer",
            Mutant::StaleWindow => "stale-window",
            Mutant::BothCrossingLinks => "both-crossing-links",
            Mutant::RefusalNotRepeated => "refusal-not-repeated",
            Mutant::BaseWithoutCommit => "base-without-commit",
            Mutant::ReceiptOutsideBatch => "receipt-outside-batch",
            Mutant::LeaseNeverExpires => "lease-never-expires",
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no mutant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {all}", all = Mutant::ALL.map(Mutant::as_str).join(", "))]
pub struct NotAMutant(String);

impl FromStr for Mutant {
    type Err = NotAMutant;

    fn from_str(text: &str) -> Result<Self, NotAMutant> {
        Mutant::ALL
            .into_iter()
            .find(|mutant| mutant.as_str() == text)
            .ok_or_else(|| NotAMutant(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_in_order_and_names_are_read_back() {
        for (number, mutant) in (1..).zip(Mutant::ALL) {
            assert_eq!(mutant as u8, number);
            assert_eq!(mutant.as_str().parse(), Ok(mutant));
            let debug: String = format!("{mutant:?}").to_lowercase();
            assert_eq!(mutant.to_string().replace('-', ""), debug);
        }
        let error = "stale window".parse::<Mutant>().unwrap_err().to_string();
        assert!(error.starts_with("\"stale window\" is none of acknowledge-before-sync, "));
        assert!(error.ends_with(", lease-never-expires"));
    }
}
