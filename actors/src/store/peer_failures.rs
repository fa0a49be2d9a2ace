//! Counting failed attempts to reach a peer, durably.
//!
//! The count only rises; each message remembers the count at its birth, so one number serves all.
//! At most one attempt in 30 s counts: a peer that refuses at once must not use up a budget of
//! three attempts within a second.
//! Whether an attempt is one to count is decided by who calls.

use super::error::{Refused, StoreError};
use super::handle::StoreHandle;
use super::tables::peers::{self, PeerError, PeerNumber, PeerRecord};
use super::view::View;

/// Attempts closer together count as one.
const FAILURES_APART_MS: u64 = 30_000;
/// What is kept of the reason.
const TEXT_BYTES_MAX: usize = 1_024;

impl StoreHandle {
    /// Counts a failed attempt and keeps its reason, unless one was counted in the 30 s before it.
    /// Returns the new count, or `None` when nothing was counted and nothing changed.
    ///
    /// # Errors
    /// [`Refused::NoSuchPeer`], and whatever ails the store.
    pub async fn peer_failed(
        &self,
        peer: PeerNumber,
        error: PeerError,
    ) -> Result<Option<u32>, StoreError> {
        self.write(0, move |view| count(view, peer, error)).await
    }
}

fn count(view: &mut View, peer: PeerNumber, error: PeerError) -> Result<Option<u32>, Refused> {
    let before = peers::live(view, peer)?.ok_or(Refused::NoSuchPeer(peer))?;
    // A clock that went back says nothing about the time between, and counts.
    let is_recent = before.last_error.as_ref().is_some_and(|last| {
        error
            .at_ms
            .checked_sub(last.at_ms)
            .is_some_and(|apart_ms| apart_ms < FAILURES_APART_MS)
    });
    if is_recent {
        return Ok(None);
    }
    let text = &error.text;
    let cut = text.floor_char_boundary(TEXT_BYTES_MAX);
    let after = PeerRecord {
        failures: before.failures.saturating_add(1),
        last_error: Some(PeerError {
            text: text.get(..cut).unwrap_or_default().to_owned(),
            ..error
        }),
        ..before.clone()
    };
    peers::put(view, &before, &after)?;
    Ok(Some(after.failures))
}
