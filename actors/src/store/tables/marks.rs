//! How far each sender's epochs are settled here, and the refusals it has not confirmed.
//!
//! A mark is the highest contiguous sequence that was stored, refused or skipped. It is what makes
//! a repeated message harmless, so it outlives the session, the messages and the pairing.
//!
//! ```text
//! Mark     key  11 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ nonce u64                    value layout u8 = 1 ‖ settled u64
//! Refusal  key  12 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ nonce u64 ‖ sequence u64     value layout u8 = 1 ‖ code u16
//! ```

use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Epoch, Lane, Mark, Position, Refusal, RefusalCode};
use packhorse_protocol::limits::EPOCHS_KEPT_MAX;
#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{self, Mutant};
#[cfg(feature = "sim")]
use packhorse_protocol::outbox::Inbound;

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::head::{decode_u64, encode_u64};
use super::peers::PeerNumber;
use super::read;

/// How far one epoch is settled; `None` when nothing of it ever came.
pub(crate) fn mark(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
) -> Result<Option<u64>, ReadFault> {
    read(source, &Key::mark(peer, lane, epoch), decode_u64)
}

/// The marks of these epochs in their order (0 where nothing came), and all unconfirmed refusals.
pub(crate) fn of_lane(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    epochs: &[Epoch],
) -> Result<(Vec<Mark>, Vec<Refusal>), ReadFault> {
    let mut marks = Vec::with_capacity(epochs.len());
    for epoch in epochs {
        let settled = mark(source, peer, lane, *epoch)?.unwrap_or(0);
        marks.push(Mark {
            epoch: *epoch,
            settled,
        });
    }
    Ok((marks, refusals(source, peer, lane)?))
}

/// All refusals that the sender has not confirmed, in order.
pub(crate) fn refusals(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
) -> Result<Vec<Refusal>, ReadFault> {
    let mut refusals = Vec::new();
    source.scan_prefix(&Key::refusals(peer, lane), &mut |key, plain| {
        let code = plain.ok().and_then(|plain| decode_code(&plain).ok());
        if let (Some(code), Some(Position { epoch, sequence })) = (code, key.position()) {
            refusals.push(Refusal {
                epoch,
                sequence,
                code,
            });
        }
        ControlFlow::Continue(())
    })?;
    Ok(refusals)
}

/// Raises a mark.
pub(crate) fn raise(view: &mut View, peer: PeerNumber, lane: Lane, epoch: Epoch, settled: u64) {
    #[cfg(feature = "sim")]
    if mutant::is(Mutant::ForgetTheMark) {
        return raise_unwritten(view, peer, lane, epoch, settled);
    }
    view.put(Key::mark(peer, lane, epoch), encode_u64(settled));
}

/// For mutants: raises a mark until this writer ends.
#[cfg(feature = "sim")]
pub(crate) fn raise_unwritten(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
    settled: u64,
) {
    view.put_unwritten(Key::mark(peer, lane, epoch), encode_u64(settled));
}

/// For a mutant: where an epoch has no mark, that of another epoch of the same sender, as far as
/// `item` goes.
#[cfg(feature = "sim")]
pub(crate) fn or_of_another(
    view: &View,
    peer: PeerNumber,
    lane: Lane,
    mark: Option<u64>,
    item: &Inbound,
) -> Result<Option<u64>, ReadFault> {
    let last = match item {
        Inbound::Messages {
            first, messages, ..
        } => first - 1 + messages.len() as u64,
        Inbound::Base { .. } => 0,
    };
    if mark.is_some() || last == 0 || !mutant::is(Mutant::MarkAcrossEpochs) {
        return Ok(mark);
    }
    let mut newest = None;
    view.scan_prefix(&Key::marks(peer, lane), &mut |_, plain| {
        newest = plain.ok().and_then(|plain| decode_u64(&plain).ok());
        ControlFlow::Continue(())
    })?;
    Ok(newest.map(|settled| settled.min(last)))
}

/// Marks are kept for the last 4,096 epochs of a peer. Called once a job that began new ones: a
/// peer that begins many at a time must not make the writer count for each.
pub(crate) fn forget_oldest(view: &mut View, peer: PeerNumber, lane: Lane) -> Result<(), Refused> {
    let mut keys = Vec::new();
    view.scan_prefix(&Key::marks(peer, lane), &mut |key, _| {
        keys.push(key);
        ControlFlow::Continue(())
    })?;
    let surplus = keys.len().saturating_sub(EPOCHS_KEPT_MAX);
    for key in keys.into_iter().take(surplus) {
        view.delete(key);
    }
    Ok(())
}

/// Remembers a refusal until it is confirmed.
pub(crate) fn refuse(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    at: Position,
    code: RefusalCode,
) {
    view.put(
        Key::refusal(peer, lane, at),
        Pen::new(1, 2).u16(code.0).done(),
    );
}

/// Forgets refusals: the sender has made them dead letters.
pub(crate) fn confirm(view: &mut View, peer: PeerNumber, lane: Lane, settled: &[(Epoch, u64)]) {
    for (epoch, sequence) in settled {
        let at = Position {
            epoch: *epoch,
            sequence: *sequence,
        };
        view.delete(Key::refusal(peer, lane, at));
    }
}

pub(super) fn decode_code(bytes: &[u8]) -> Result<RefusalCode, Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    let code = RefusalCode(cursor.u16()?);
    cursor.end()?;
    Ok(code)
}
