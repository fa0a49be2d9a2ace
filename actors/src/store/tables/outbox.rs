//! Messages that wait for their recipient.
//!
//! A message is in exactly one place: in the outbox while it waits, nowhere when its recipient has
//! it, among the dead letters when it was given up. So there is no table of receipts; a receipt's
//! state follows from where the message is.
//! Nothing here knows of sessions.
//!
//! ```text
//! Outbox  key  32 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ sequence u64
//!         value layout u8 = 1 ‖ bytes before u64 ‖ message
//! message = class u8 ‖ born ms u64 ‖ topic ‖ headers u32 × (name ‖ value) ‖ payload;  text = length u32 ‖ bytes
//! ```
//!
//! `bytes before` is the weight of everything accepted in the line before this message, so that
//! the weight of what waits is known from the oldest row alone.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, RangeInclusive};

use packhorse_protocol::epoch::{Epoch, Lane, Mark, Position, Refusal};
use packhorse_protocol::limits::KEY_BYTES_MAX;
use packhorse_protocol::message::{DeliveryClass, Message};
use packhorse_protocol::outbox::Row;

use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::receipt::ReceiptId;
use crate::store::view::{Source, View};

use super::dead::{self, Dead};
use super::idempotency::{self, Use};
use super::lines::{self, Line};
use super::peers::{self, PeerNumber};
use super::read;

/// Rows that one settling job deletes at most; more take another job, so that no batch holds up
/// the others for long.
pub(crate) const SETTLE_ROWS_MAX: u64 = 4_096;

/// A message to be accepted.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The message.
    pub message: Message,
    /// The sender's own name for it: repeating it gives the first receipt again.
    pub key: Option<String>,
}

/// A message that is safe here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its name.
    pub id: ReceiptId,
    /// Where it is now.
    pub state: ReceiptState,
    /// It had been accepted before, under the same key.
    pub repeated: bool,
}

/// How far a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReceiptState {
    /// Safe here.
    Accepted,
    /// Safe there.
    Stored,
    /// Handled there.
    Done,
    /// Given up, here or there.
    Failed,
}

/// What is known of a message that was accepted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRecord {
    /// Its name.
    pub id: ReceiptId,
    /// How far it came.
    pub state: ReceiptState,
    /// Why it failed.
    pub reason: Option<String>,
    /// The message, while it is here.
    pub message: Option<Message>,
}

/// One row of a listing of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// The message's name; holds peer, lane and position.
    pub id: ReceiptId,
    /// The message.
    pub message: Message,
}

/// Some rows of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// How many there are in all.
    pub total: u64,
    /// The first of them.
    pub rows: Vec<T>,
}

pub(super) fn encode_row(bytes_before: u64, message: &Message) -> Vec<u8> {
    // 64: the fixed fields of the row and of the message, with a few headers' lengths.
    Pen::new(1, 64 + message.weight())
        .u64(bytes_before)
        .message(message)
        .done()
}

pub(super) fn decode_row(bytes: &[u8]) -> Result<(u64, Message), Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    let row = (cursor.u64()?, cursor.message()?);
    cursor.end()?;
    Ok(row)
}

/// Accepts messages for one peer and lane, all or none.
pub(crate) fn accept(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    messages: Vec<NewMessage>,
) -> Result<Vec<Accepted>, Refused> {
    if !peers::exists(view, peer)? {
        return Err(Refused::NoSuchPeer(peer));
    }
    let epoch = view.epoch();
    let before = lines::line(view, peer, lane, epoch.boot)?;
    let mut line = before.unwrap_or_else(|| Line::new(epoch.nonce));
    let mut accepted = Vec::with_capacity(messages.len());
    let mut uses: Vec<([u8; 16], Use)> = Vec::new();
    for NewMessage { message, key } in messages {
        check(&message, key.as_deref())?;
        let key = match key {
            None => None,
            Some(key) => {
                let hash = idempotency::hash(view, peer, &key);
                let content = idempotency::content(view, &message);
                // Within one call a key may come twice as well.
                let within = uses
                    .iter()
                    .find(|(known, _)| *known == hash)
                    .map(|(_, used)| *used);
                let used = match within {
                    Some(used) => Some(used),
                    None => idempotency::find(view, hash)?,
                };
                if let Some(used) = used {
                    accepted.push(repeated(view, &used, content, within.is_some())?);
                    continue;
                }
                Some((hash, content))
            }
        };
        let position = Position {
            epoch,
            sequence: line.next,
        };
        let id = ReceiptId {
            peer,
            lane,
            position,
        };
        let row = encode_row(line.bytes_accepted, &message);
        view.put(Key::outbox(peer, lane, epoch.boot, line.next), row);
        if line.waiting() == 0 {
            line.oldest_born_ms = Some(message.born_ms);
        }
        line.bytes_accepted += message.weight() as u64;
        line.next += 1;
        if let Some((hash, content)) = key {
            uses.push((
                hash,
                Use {
                    receipt: id,
                    content,
                    at_ms: view.now_ms(),
                },
            ));
        }
        accepted.push(Accepted {
            id,
            state: ReceiptState::Accepted,
            repeated: false,
        });
    }
    let grown = line.next - before.map_or(1, |line| line.next);
    if grown > 0 {
        idempotency::remember(view, &uses)?;
        lines::put(view, peer, lane, epoch.boot, &line, grown, 0)?;
    }
    Ok(accepted)
}

fn repeated(
    view: &View,
    used: &Use,
    content: [u8; 16],
    is_in_this_call: bool,
) -> Result<Accepted, Refused> {
    if used.content != content {
        return Err(Refused::KeyConflict {
            receipt: used.receipt.to_string(),
        });
    }
    // The line of this call is not written yet, so it could not answer for it.
    let state = if is_in_this_call {
        ReceiptState::Accepted
    } else {
        state(view, &used.receipt)?.map_or(ReceiptState::Stored, |(state, _)| state)
    };
    Ok(Accepted {
        id: used.receipt,
        state,
        repeated: true,
    })
}

fn check(message: &Message, key: Option<&str>) -> Result<(), Refused> {
    if message.class == DeliveryClass::Ephemeral {
        return Err(Refused::Ephemeral);
    }
    message.check().map_err(Refused::Message)?;
    let bytes = key.map_or(0, str::len);
    if bytes > KEY_BYTES_MAX {
        return Err(Refused::KeyTooLong { bytes });
    }
    Ok(())
}

/// Deletes what the recipient has settled; what it refused becomes a dead letter in the same step.
///
/// Returns whether more rows are to be deleted, by another call with the same arguments.
pub(crate) fn settle(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    marks: &[Mark],
    refusals: &[Refusal],
) -> Result<bool, Refused> {
    // ORDER: refusals first. The mark covers refused sequences too, and would delete their rows.
    for refusal in refusals {
        dead::bury(view, peer, lane, refusal)?;
    }
    let mut rows_left = SETTLE_ROWS_MAX;
    let mut more = false;
    for mark in marks {
        let boot = mark.epoch.boot;
        let Some(mut line) = own_line(view, peer, lane, mark.epoch)? else {
            continue;
        };
        // A mark above what was given out belongs to a copy of this store that lived on; all that
        // is here is settled then.
        let settled = mark.settled.min(line.next - 1);
        if settled < line.first {
            if settled > line.acknowledged {
                line.acknowledged = settled;
                lines::put(view, peer, lane, boot, &line, 0, 0)?;
            }
            continue;
        }
        let last = settled.min(line.first + rows_left - 1);
        let count = last + 1 - line.first;
        for sequence in line.first..=last {
            view.delete(Key::outbox(peer, lane, boot, sequence));
        }
        rows_left -= count;
        line.first = last + 1;
        line.acknowledged = line.acknowledged.max(last);
        find_oldest(view, peer, lane, boot, &mut line)?;
        lines::put(view, peer, lane, boot, &line, 0, count)?;
        more |= last < settled;
        if rows_left == 0 {
            return Ok(true);
        }
    }
    Ok(more)
}

/// A line of ours, unless the peer speaks of an epoch that never was.
pub(super) fn own_line(
    view: &View,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
) -> Result<Option<Line>, Refused> {
    let line = lines::line(view, peer, lane, epoch.boot)?;
    Ok(line.filter(|line| line.nonce == epoch.nonce))
}

/// Moves the line's first sequence over rows that are gone, and tells what its oldest row says.
pub(super) fn find_oldest(
    view: &View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    line: &mut Line,
) -> Result<(), Refused> {
    while line.waiting() > 0 {
        match read(view, &Key::outbox(peer, lane, boot, line.first), decode_row) {
            Ok(Some((bytes_before, message))) => {
                line.bytes_gone = bytes_before;
                line.oldest_born_ms = Some(message.born_ms);
                return Ok(());
            }
            // Refused or damaged, and a dead letter by now. One that is simply gone is not passed
            // over: a load comes upon it and buries it.
            Ok(None) => {
                let epoch = Epoch {
                    boot,
                    nonce: line.nonce,
                };
                let sequence = line.first;
                if !is_dead(view, peer, lane, Position { epoch, sequence })? {
                    return Ok(());
                }
                line.first += 1;
            }
            Err(fault) if fault.is_damage() => return Ok(()),
            Err(fault) => return Err(fault.into()),
        }
    }
    line.oldest_born_ms = None;
    line.bytes_gone = line.bytes_accepted;
    Ok(())
}

/// What a load found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) rows: Vec<Row>,
    /// Nothing lies behind the last row.
    pub(crate) exhausted: bool,
    /// Rows that do not open.
    pub(crate) damaged: Vec<Position>,
}

/// Rows in (boot, sequence) order behind `after`, until either limit is met. A row larger than the
/// limit of bytes comes alone.
pub(crate) fn load(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    after: Option<Position>,
    count_max: usize,
    bytes_max: usize,
) -> Result<Loaded, ReadFault> {
    let mut loaded = Loaded::default();
    let mut bytes = 0;
    for (boot, line) in lines::of_lane(source, peer, lane)? {
        let epoch = Epoch {
            boot,
            nonce: line.nonce,
        };
        let first = match after {
            Some(after) if boot < after.epoch.boot => continue,
            Some(after) if boot == after.epoch.boot => line.first.max(after.sequence + 1),
            _ => line.first,
        };
        if first >= line.next {
            continue;
        }
        let from = Key::outbox(peer, lane, boot, first);
        let end = end_of(Key::outbox(peer, lane, boot, line.next - 1).as_bytes());
        let mut is_full = false;
        source.scan(&from, &end, &mut |key, plain| {
            let position = Position {
                epoch,
                sequence: key.last_u64(),
            };
            let Ok(Ok((_, message))) = plain.map(|plain| decode_row(&plain)) else {
                loaded.damaged.push(position);
                return ControlFlow::Continue(());
            };
            let weight = message.weight();
            let is_over = loaded.rows.len() >= count_max || bytes + weight > bytes_max;
            if is_over && !loaded.rows.is_empty() {
                is_full = true;
                return ControlFlow::Break(());
            }
            bytes += weight;
            loaded.rows.push(Row { position, message });
            ControlFlow::Continue(())
        })?;
        let last = match loaded.rows.last() {
            Some(row) if is_full => row.position.sequence,
            _ => line.next - 1,
        };
        is_full |= fill_gaps(
            source,
            peer,
            lane,
            epoch,
            first..=last,
            count_max,
            &mut loaded,
        )?;
        if is_full {
            return Ok(loaded);
        }
    }
    loaded.exhausted = true;
    Ok(loaded)
}

/// Accounts for every sequence that a scan did not show: a scan ends at a block that cannot be
/// read, and a lost file shows nothing at all. A sequence is a row, a dead letter, or damaged;
/// none is passed over in silence. Returns whether it stopped before the end of `range`.
fn fill_gaps(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
    range: RangeInclusive<u64>,
    count_max: usize,
    loaded: &mut Loaded,
) -> Result<bool, ReadFault> {
    let is_here = |position: &Position| position.epoch == epoch;
    let damaged = loaded.damaged.iter().copied().filter(is_here);
    let rows = loaded.rows.iter().map(|row| row.position).filter(is_here);
    let seen: BTreeSet<u64> = rows.chain(damaged).map(|at| at.sequence).collect();
    let expected = range.end().saturating_sub(*range.start()) + 1;
    if seen.len() as u64 == expected {
        return Ok(false);
    }
    let mut looked_up = 0;
    for sequence in range.filter(|sequence| !seen.contains(sequence)) {
        if looked_up >= count_max {
            // What lies behind the last gap that was looked at comes with the next load.
            loaded
                .rows
                .retain(|row| row.position < Position { epoch, sequence });
            loaded
                .damaged
                .retain(|at| *at < Position { epoch, sequence });
            return Ok(true);
        }
        let position = Position { epoch, sequence };
        let row = Key::outbox(peer, lane, epoch.boot, sequence);
        match read(source, &row, decode_row) {
            Ok(Some((_, message))) => loaded.rows.push(Row { position, message }),
            Ok(None) if is_dead(source, peer, lane, position)? => continue,
            Ok(None) => loaded.damaged.push(position),
            Err(fault) if fault.is_damage() => loaded.damaged.push(position),
            Err(fault) => return Err(fault),
        }
        looked_up += 1;
    }
    loaded.rows.sort_unstable_by_key(|row| row.position);
    Ok(false)
}

/// Whether a sequence was given up.
pub(super) fn is_dead(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    position: Position,
) -> Result<bool, ReadFault> {
    let key = Key::dead(peer, lane, position.epoch.boot, position.sequence);
    Ok(read(source, &key, Dead::decode)?.is_some())
}

/// Where a message is; `None` when this store never accepted it or has forgotten its epoch.
pub(crate) fn state(
    source: &impl Source,
    id: &ReceiptId,
) -> Result<Option<(ReceiptState, Option<Dead>)>, ReadFault> {
    let Position { epoch, sequence } = id.position;
    let dead = read(
        source,
        &Key::dead(id.peer, id.lane, epoch.boot, sequence),
        Dead::decode,
    )?;
    let (nonce, first, last) = match lines::line(source, id.peer, id.lane, epoch.boot)? {
        Some(line) => (line.nonce, line.first, line.next - 1),
        None => match lines::past(source, id.peer, id.lane, epoch.boot)? {
            Some(past) => (past.nonce, past.last + 1, past.last),
            None => return Ok(None),
        },
    };
    if nonce != epoch.nonce || sequence == 0 || sequence > last {
        return Ok(None);
    }
    Ok(Some(match dead {
        Some(dead) => (ReceiptState::Failed, Some(dead)),
        None if sequence >= first => (ReceiptState::Accepted, None),
        None => (ReceiptState::Stored, None),
    }))
}

/// What is known of a message.
pub(crate) fn receipt(
    source: &impl Source,
    id: &ReceiptId,
) -> Result<Option<ReceiptRecord>, ReadFault> {
    let Some((state, dead)) = state(source, id)? else {
        return Ok(None);
    };
    let reason = dead.as_ref().map(|dead| dead::reason(dead.code).to_owned());
    let message = match (state, dead) {
        (_, Some(dead)) => dead.message,
        (ReceiptState::Accepted, None) => {
            let Position { epoch, sequence } = id.position;
            read(
                source,
                &Key::outbox(id.peer, id.lane, epoch.boot, sequence),
                decode_row,
            )?
            .map(|(_, message)| message)
        }
        _ => None,
    };
    Ok(Some(ReceiptRecord {
        id: *id,
        state,
        reason,
        message,
    }))
}

/// The oldest rows of all lines, line by line.
pub(crate) fn list(source: &impl Source, limit: usize) -> Result<Listing<OutboxRow>, ReadFault> {
    let mut listing = Listing {
        total: 0,
        rows: Vec::new(),
    };
    for (peer, lane, boot, line) in lines::all(source)? {
        listing.total += line.waiting();
        if listing.rows.len() >= limit || line.waiting() == 0 {
            continue;
        }
        let epoch = Epoch {
            boot,
            nonce: line.nonce,
        };
        let from = Key::outbox(peer, lane, boot, line.first);
        let end = end_of(Key::outbox(peer, lane, boot, line.next - 1).as_bytes());
        source.scan(&from, &end, &mut |key, plain| {
            if listing.rows.len() >= limit {
                return ControlFlow::Break(());
            }
            if let Ok(Ok((_, message))) = plain.map(|plain| decode_row(&plain)) {
                let position = Position {
                    epoch,
                    sequence: key.last_u64(),
                };
                listing.rows.push(OutboxRow {
                    id: ReceiptId {
                        peer,
                        lane,
                        position,
                    },
                    message,
                });
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(listing)
}
