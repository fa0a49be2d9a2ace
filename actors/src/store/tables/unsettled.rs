//! Messages of which only the recipient can tell what became of them.
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
//! A store cannot know that it was set back: in a life that is not in this copy of it, a row that
//! never left this store may have left. So what is rewritten or given up of an earlier boot is
//! listed too, and the marks of the next opening tell. Nearly always they say that it was as this
//! store thought; until then it is shown as this store thinks.
//!
//! ```text
//! Unsettled  key  17 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ sequence u64
//!            value layout u8 = 1                   it was offered and given up
//!                  layout u8 = 2 ‖ kind u8         never offered by this store: 1 given up, 2 rewritten
//! ```

use std::ops::{ControlFlow, RangeInclusive};

use packhorse_protocol::epoch::Lane;

use crate::store::engine::end_of;
use crate::store::error::ReadFault;
use crate::store::keys::Key;
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::receipt::ReceiptId;
use crate::store::view::{Source, View};

use super::lines::Line;
use super::peers::PeerNumber;

/// Why a message is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It was offered, and given up.
    Offered,
    /// As far as this store knows it was never offered; it was given up.
    GivenUp,
    /// As far as this store knows it was never offered; its content was replaced. It waits, or was
    /// given up later.
    Rewritten,
}

impl Doubt {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            Doubt::Offered => Pen::new(1, 0).done(),
            Doubt::GivenUp => Pen::new(2, 1).u8(1).done(),
            Doubt::Rewritten => Pen::new(2, 1).u8(2).done(),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (layout, mut cursor) = Cursor::of_layouts(1..=2, bytes)?;
        let doubt = match layout {
            1 => Doubt::Offered,
            _ => match cursor.u8()? {
                1 => Doubt::GivenUp,
                2 => Doubt::Rewritten,
                _ => return Err(Malformed),
            },
        };
        cursor.end()?;
        Ok(doubt)
    }
}

/// Lists a letter of which it is open whether it was delivered, whatever it was listed as before.
/// The caller counts it in its line when this says so.
pub(super) fn add(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    sequence: u64,
) -> Result<bool, ReadFault> {
    let key = Key::unsettled(peer, lane, boot, sequence);
    let was_listed = is_listed(view, &key)?;
    view.put(key, Doubt::Offered.encode());
    Ok(!was_listed)
}

/// Lists a message of an earlier boot that this store never offered. One that was rewritten stays
/// that. The caller counts it in its line when this says so.
pub(super) fn add_doubt(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    sequence: u64,
    doubt: Doubt,
) -> Result<bool, ReadFault> {
    let key = Key::unsettled(peer, lane, boot, sequence);
    let was_listed = is_listed(view, &key)?;
    if !was_listed {
        view.put(key, doubt.encode());
    }
    Ok(!was_listed)
}

fn is_listed(view: &View, key: &Key) -> Result<bool, ReadFault> {
    match view.get(key) {
        Ok(found) => Ok(found.is_some()),
        Err(fault) if fault.is_damage() => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// Lists a row that was rewritten, if it is of an earlier boot, and counts it in its line.
pub(super) fn doubt_rewritten(
    view: &mut View,
    id: &ReceiptId,
    line: &mut Line,
) -> Result<(), ReadFault> {
    let (boot, sequence) = (id.position.epoch.boot, id.position.sequence);
    if boot != view.epoch().boot
        && add_doubt(view, id.peer, id.lane, boot, sequence, Doubt::Rewritten)?
    {
        line.unsettled += 1;
    }
    Ok(())
}

/// Why a message is listed, if it is.
pub(super) fn doubt(source: &impl Source, id: &ReceiptId) -> Result<Option<Doubt>, ReadFault> {
    let (boot, sequence) = (id.position.epoch.boot, id.position.sequence);
    match source.get(&Key::unsettled(id.peer, id.lane, boot, sequence)) {
        Ok(found) => Ok(found.map(|plain| Doubt::decode(&plain).unwrap_or(Doubt::Offered))),
        // The key is there, and the cautious reading of it is this one.
        Err(fault) if fault.is_damage() => Ok(Some(Doubt::Offered)),
        Err(fault) => Err(fault),
    }
}

/// Whether it is open how a letter ended.
pub(super) fn is_open(source: &impl Source, id: &ReceiptId) -> Result<bool, ReadFault> {
    Ok(doubt(source, id)? == Some(Doubt::Offered))
}

/// The first `count_max` messages of a line among `range`, in order, and why they are listed.
pub(super) fn among(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    range: RangeInclusive<u64>,
    count_max: usize,
) -> Result<Vec<(u64, Doubt)>, ReadFault> {
    let mut found = Vec::new();
    if count_max == 0 {
        return Ok(found);
    }
    let from = Key::unsettled(peer, lane, boot, *range.start());
    let end = end_of(Key::unsettled(peer, lane, boot, *range.end()).as_bytes());
    source.scan(&from, &end, &mut |key, plain| {
        let doubt = plain.ok().and_then(|plain| Doubt::decode(&plain).ok());
        found.push((key.last_u64(), doubt.unwrap_or(Doubt::Offered)));
        if found.len() < count_max {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    Ok(found)
}
