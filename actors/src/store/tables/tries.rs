//! How often a message that waits here was tried, and from when on it may be tried again.
//!
//! Written only for messages whose handler ran; deleted with the message. Who has a message at the
//! moment is no business of this table: leases live in memory.
//!
//! ```text
//! Try  key  22 ‖ arrival u64
//!      value layout u8 = 2 ‖ attempts u32 ‖ failures u32 ‖ unended u32 ‖ said ms u64 ‖ not before ms u64
//!            ‖ reason text
//! ```
//!
//! Layout 1 has no `said ms`; it is read as said a day before, which no verdict exceeds.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::read;

/// Failures at which a message is given up.
pub const FAILURES_MAX: u32 = 10;
/// Attempts in a row without a verdict after which a message is given up: whatever its handler
/// does, it takes the worker with it. Far above what restarts and power cuts come to.
pub const UNENDED_MAX: u32 = 100;
/// The longest that a message is kept back by one verdict.
pub(crate) const DELAY_MS_MAX: u64 = 24 * 3_600 * 1_000;

/// The history of one waiting message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// How often a handler was begun.
    pub attempts: u32,
    /// How often one failed.
    pub failures: u32,
    /// How many of the last attempts ended without a verdict.
    pub unended: u32,
    /// When it was given back last, by the wall clock.
    pub said_ms: u64,
    /// Not handed out before this, by the wall clock.
    pub not_before_ms: u64,
    /// Why it was given back last; empty when it never was.
    pub reason: String,
}

impl Tries {
    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(2, 32 + self.reason.len())
            .u32(self.attempts)
            .u32(self.failures)
            .u32(self.unended)
            .u64(self.said_ms)
            .u64(self.not_before_ms)
            .text(&self.reason)
            .done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (layout, mut cursor) = Cursor::of_layouts(1..=2, bytes)?;
        let (attempts, failures, unended) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        let said_ms = if layout == 2 {
            Some(cursor.u64()?)
        } else {
            None
        };
        let not_before_ms = cursor.u64()?;
        let tries = Self {
            attempts,
            failures,
            unended,
            said_ms: said_ms.unwrap_or(not_before_ms.saturating_sub(DELAY_MS_MAX)),
            not_before_ms,
            reason: cursor.text()?,
        };
        cursor.end()?;
        Ok(tries)
    }

    /// How long the message is still kept back. A clock that shows less than when that was said has
    /// gone back since, and nobody knows by how much: then nothing is kept back.
    ///
    /// So whatever the clock does, a message waits at most twice as long as was said: a clock that
    /// went back by less than what had passed is not noticed.
    #[must_use]
    pub const fn wait_ms(&self, now_ms: u64) -> u64 {
        if now_ms < self.said_ms {
            return 0;
        }
        self.not_before_ms.saturating_sub(now_ms)
    }
}

/// The history of a message. One that does not open is none: the message must not be stuck for it.
pub(crate) fn of(source: &impl Source, arrival: u64) -> Result<Tries, ReadFault> {
    match read(source, &Key::tries(arrival), Tries::decode) {
        Ok(tries) => Ok(tries.unwrap_or_default()),
        Err(fault) if fault.is_damage() => Ok(Tries::default()),
        Err(fault) => Err(fault),
    }
}

pub(crate) fn put(view: &mut View, arrival: u64, tries: &Tries) {
    view.put(Key::tries(arrival), tries.encode());
}

/// Deletes the histories of messages that are gone. `arrivals` is sorted.
///
/// Most messages have none, so they are looked for with one scan; where too many others lie
/// between them, each is deleted blindly.
pub(crate) fn forget(view: &mut View, arrivals: &[u64]) -> Result<(), Refused> {
    let (Some(first), Some(last)) = (arrivals.first(), arrivals.last()) else {
        return Ok(());
    };
    let mut visits_left = arrivals.len() * 2 + 16;
    let mut found = BTreeSet::new();
    let end = end_of(Key::tries(*last).as_bytes());
    let scanned = view.scan(&Key::tries(*first), &end, &mut |key, _| {
        if visits_left == 0 {
            found.extend(arrivals);
            return ControlFlow::Break(());
        }
        visits_left -= 1;
        found.insert(key.last_u64());
        ControlFlow::Continue(())
    });
    match scanned {
        Ok(()) => {}
        // Blindly as well: a message is not kept for the sake of its history.
        Err(fault) if fault.is_damage() => found.extend(arrivals),
        Err(fault) => return Err(fault.into()),
    }
    for arrival in arrivals {
        if found.contains(arrival) {
            view.delete(Key::tries(*arrival));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const SAID_MS: u64 = 1_750_000_000_000;

    #[test]
    fn nothing_is_kept_back_by_a_clock_that_shows_less_than_when_it_was_said() {
        let tries = Tries {
            said_ms: SAID_MS,
            not_before_ms: SAID_MS + 5_000,
            ..Tries::default()
        };
        let waits = [0, SAID_MS - 1, SAID_MS, SAID_MS + 4_999, SAID_MS + 5_000];
        assert_eq!(
            waits.map(|now_ms| tries.wait_ms(now_ms)),
            [0, 0, 5_000, 1, 0]
        );
        assert_eq!(Tries::default().wait_ms(0), 0, "never given back");
    }

    #[test]
    fn a_record_that_does_not_say_when_keeps_back_for_a_day_at_most() {
        let mut bytes = Tries {
            not_before_ms: SAID_MS,
            ..Tries::default()
        }
        .encode();
        // Layout 1: without `said ms`, behind the layout and three numbers of four bytes.
        bytes[0] = 1;
        bytes.drain(13..21);
        let tries = Tries::decode(&bytes).unwrap();
        assert_eq!(tries.wait_ms(SAID_MS - DELAY_MS_MAX), DELAY_MS_MAX);
        assert_eq!(tries.wait_ms(SAID_MS - DELAY_MS_MAX - 1), 0);
    }
}
