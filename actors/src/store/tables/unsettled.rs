//! Dead letters of which it is not known whether they were delivered.
//!
//! A row that was handed to a session may have arrived, also when no acknowledgement came. When
//! such a row is given up, its letter is listed here until the recipient has spoken: an
//! acknowledgement that covers it, or a refusal, or the marks of the next opening. The line counts
//! its own, so that nobody looks here without need.
//!
//! A mark also rises over what was passed over by a base. That does not make a letter here look
//! delivered: before rows are handed out, those letters that the session was never handed are
//! struck off, see `loading.rs`; and the bases of an opening go out behind its settle.
//!
//! ```text
//! Unsettled  key  17 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ sequence u64     value layout u8 = 1
//! ```

use std::ops::{ControlFlow, RangeInclusive};

use packhorse_protocol::epoch::Lane;

use crate::store::engine::end_of;
use crate::store::error::ReadFault;
use crate::store::keys::Key;
use crate::store::layout::Pen;
use crate::store::receipt::ReceiptId;
use crate::store::view::{Source, View};

use super::peers::PeerNumber;

/// The only value: that the key is there is all it says.
pub(super) fn encode() -> Vec<u8> {
    Pen::new(1, 0).done()
}

/// Lists a letter. The caller counts it in its line.
pub(super) fn add(view: &mut View, peer: PeerNumber, lane: Lane, boot: u32, sequence: u64) {
    view.put(Key::unsettled(peer, lane, boot, sequence), encode());
}

/// Whether it is open how a letter ended.
pub(super) fn is_open(source: &impl Source, id: &ReceiptId) -> Result<bool, ReadFault> {
    let (boot, sequence) = (id.position.epoch.boot, id.position.sequence);
    match source.get(&Key::unsettled(id.peer, id.lane, boot, sequence)) {
        Ok(found) => Ok(found.is_some()),
        // The key is what counts, and it is there.
        Err(fault) if fault.is_damage() => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// The first `count_max` letters of a line among `range`, in order.
pub(super) fn among(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    range: RangeInclusive<u64>,
    count_max: usize,
) -> Result<Vec<u64>, ReadFault> {
    let mut found = Vec::new();
    if count_max == 0 {
        return Ok(found);
    }
    let from = Key::unsettled(peer, lane, boot, *range.start());
    let end = end_of(Key::unsettled(peer, lane, boot, *range.end()).as_bytes());
    source.scan(&from, &end, &mut |key, _| {
        found.push(key.last_u64());
        if found.len() < count_max {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(found)
}
