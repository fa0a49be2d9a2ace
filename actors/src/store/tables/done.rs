//! Messages of ours that their recipient has handled, as stretches of sequences.
//!
//! What is handled in its order is one growing record per epoch, and what is handled in any other
//! order grows together to the same one. A stretch is kept as long as its epoch is known: its line
//! or its record of the past.
//! Who handled a message, and what it wrote, stands among the outcomes.
//!
//! ```text
//! DoneRange  key  21 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ last sequence u64
//!            value layout u8 = 1 ‖ first sequence u64
//! ```
//!
//! The key holds the end, so that the first record at or behind a sequence is the only one that
//! can cover it.

use std::ops::ControlFlow;

use packhorse_protocol::epoch::Lane;

use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::view::{Source, View};

use super::head::{decode_u64, encode_u64};
use super::lines;
use super::peers::PeerNumber;

/// Stretches of a forgotten epoch that one report clears away at most.
const FORGET_MAX: usize = 64;
/// Stretches that one call takes together at most. Who tells what it handled in one job never names
/// a range with that many in it.
const ABSORBED_MAX: usize = 4_096;

/// Whether a message of this node's epoch `boot` was handled there.
pub(crate) fn covers(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    sequence: u64,
) -> Result<bool, ReadFault> {
    let mut is_covered = false;
    scan_from(source, peer, lane, boot, sequence, &mut |first, _| {
        is_covered = first <= sequence;
        ControlFlow::Break(())
    })?;
    Ok(is_covered)
}

/// Adds `first..=last`, which grows together with what it touches. Whether anything is new.
/// Where it would touch too many, only its first part is added.
pub(crate) fn insert(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    first: u64,
    last: u64,
) -> Result<bool, Refused> {
    let mut grown = (first, last);
    let mut absorbed = Vec::new();
    let mut is_known = false;
    let from = first.saturating_sub(1);
    scan_from(view, peer, lane, boot, from, &mut |known, end| {
        if known > last.saturating_add(1) {
            return ControlFlow::Break(());
        }
        if known <= first && last <= end {
            is_known = true;
            return ControlFlow::Break(());
        }
        grown = (grown.0.min(known), grown.1.max(end));
        absorbed.push(end);
        if absorbed.len() >= ABSORBED_MAX {
            grown.1 = end;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    if is_known {
        return Ok(false);
    }
    for end in absorbed.into_iter().filter(|end| *end != grown.1) {
        view.delete(Key::done_range(peer, lane, boot, end));
    }
    view.put(
        Key::done_range(peer, lane, boot, grown.1),
        encode_u64(grown.0),
    );
    Ok(true)
}

/// Clears away some stretches of the oldest epoch when that is not known any more: nobody can ask
/// for them.
pub(crate) fn forget_oldest(view: &mut View, peer: PeerNumber, lane: Lane) -> Result<(), Refused> {
    let mut oldest = None;
    view.scan_prefix(&Key::done_ranges(peer, lane), &mut |key, _| {
        oldest = Some(key.boot_number());
        ControlFlow::Break(())
    })?;
    let Some(boot) = oldest else { return Ok(()) };
    let is_known = lines::line(view, peer, lane, boot)?.is_some()
        || lines::past(view, peer, lane, boot)?.is_some();
    if is_known {
        return Ok(());
    }
    let mut gone = Vec::new();
    let from = Key::done_range(peer, lane, boot, 0);
    let end = end_of(Key::done_range(peer, lane, boot, u64::MAX).as_bytes());
    view.scan(&from, &end, &mut |key, _| {
        if gone.len() >= FORGET_MAX {
            return ControlFlow::Break(());
        }
        gone.push(key);
        ControlFlow::Continue(())
    })?;
    for key in gone {
        view.delete(key);
    }
    Ok(())
}

/// Visits the stretches that end at `sequence` or behind it as (first, last). One that does not
/// open is passed over: what it covered is told as stored, which it is as well.
fn scan_from(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    sequence: u64,
    visit: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(), ReadFault> {
    let from = Key::done_range(peer, lane, boot, sequence);
    let end = end_of(Key::done_range(peer, lane, boot, u64::MAX).as_bytes());
    source.scan(
        &from,
        &end,
        &mut |key, plain| match plain.map(|plain| decode_u64(&plain)) {
            Ok(Ok(first)) => visit(first, key.last_u64()),
            _ => ControlFlow::Continue(()),
        },
    )
}
