//! How often a message that waits here was tried, and from when on it may be tried again.
//!
//! Written only for messages whose handler ran; deleted with the message. Who has a message at the
//! moment is no business of this table: leases live in memory.
//!
//! ```text
//! Try  key  22 ‖ arrival u64
//!      value layout u8 = 1 ‖ attempts u32 ‖ failures u32 ‖ unended u32 ‖ not before ms u64 ‖ reason text
//! ```

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
    /// Not handed out before this, by the wall clock.
    pub not_before_ms: u64,
    /// Why it was given back last; empty when it never was.
    pub reason: String,
}

impl Tries {
    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 24 + self.reason.len())
            .u32(self.attempts)
            .u32(self.failures)
            .u32(self.unended)
            .u64(self.not_before_ms)
            .text(&self.reason)
            .done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let tries = Self {
            attempts: cursor.u32()?,
            failures: cursor.u32()?,
            unended: cursor.u32()?,
            not_before_ms: cursor.u64()?,
            reason: cursor.text()?,
        };
        cursor.end()?;
        Ok(tries)
    }

    /// How long the message is still kept back. A time further off than any verdict can set comes
    /// from a clock that has gone back since, and keeps nothing.
    #[must_use]
    pub fn wait_ms(&self, now_ms: u64) -> u64 {
        match self.not_before_ms.saturating_sub(now_ms) {
            wait_ms if wait_ms > DELAY_MS_MAX => 0,
            wait_ms => wait_ms,
        }
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
