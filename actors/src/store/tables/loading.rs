//! Taking waiting rows out for a session.
//!
//! What is handed out may leave this node, so two things are durable before it is: that these rows
//! were offered (in steps, so that a stream of messages pays for it once in 1,024), and that
//! letters which this session was never handed have not arrived. Reading runs on a snapshot and
//! says what is missing; [`clear`] makes it durable and says whether the rows read are still right.
//! A sequence is a row, a dead letter, damaged, or over; none is passed over in silence.
//! What is over is never handed out. It has to be given up before anything behind it is handed out:
//! the recipient's mark for that would count it as stored.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, RangeInclusive};

use packhorse_protocol::epoch::{Epoch, Lane, Position};
use packhorse_protocol::outbox::Row;

use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::view::{Source, View};

use super::lines::{self, Line};
use super::outbox::decode_row;
use super::peers::PeerNumber;
use super::read;
use super::settling::{SETTLE_ROWS_MAX, own_line, visit_dead};
use super::unsettled::{self, Doubt};

/// How far `offered` runs ahead at most: the messages of which, after a crash, it is not known
/// whether they had left.
const OFFER_STEP: u64 = 1_024;

/// Rows that are over and that one load names; the next one names the rest.
const EXPIRED_MAX: usize = 1_024;

/// What a load found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) rows: Vec<Row>,
    /// Nothing lies behind the last row.
    pub(crate) exhausted: bool,
    /// Rows that do not open.
    pub(crate) damaged: Vec<Position>,
    /// Rows whose own end has passed.
    pub(crate) expired: Vec<Position>,
    /// What has to be durable before the rows are handed out.
    pub(crate) claims: Vec<Claim>,
}

/// What has to be durable of one line before rows of it are handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    epoch: Epoch,
    /// As the load saw the line.
    edits: u64,
    /// The last row, if it lies above what was offered.
    last: Option<u64>,
    /// Open letters above this sequence were never handed to the session.
    unhanded_above: Option<u64>,
}

/// Rows in (boot, sequence) order behind `after`, until either limit is met. A row larger than the
/// limit of bytes comes alone. With anything expired among them none of it may be handed out.
pub(crate) fn load(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    after: Option<Position>,
    count_max: usize,
    bytes_max: usize,
    now_ms: u64,
) -> Result<Loaded, ReadFault> {
    let mut loaded = Loaded::default();
    let mut bytes = 0;
    for (boot, line) in lines::of_lane(source, peer, lane)? {
        let epoch = Epoch {
            boot,
            nonce: line.nonce,
        };
        let handed = match after {
            Some(after) if boot < after.epoch.boot => continue,
            Some(after) if boot == after.epoch.boot => after.sequence,
            _ => 0,
        };
        let mut claim = Claim {
            epoch,
            edits: line.edits,
            last: None,
            unhanded_above: None,
        };
        let open = handed + 1..=u64::MAX;
        if line.unsettled > 0 && !unsettled::among(source, peer, lane, boot, open, 1)?.is_empty() {
            claim.unhanded_above = Some(handed);
        }
        let first = line.first.max(handed + 1);
        let mut is_full = false;
        if first < line.next {
            let from = Key::outbox(peer, lane, boot, first);
            let end = end_of(Key::outbox(peer, lane, boot, line.next - 1).as_bytes());
            source.scan(&from, &end, &mut |key, plain| {
                let position = Position {
                    epoch,
                    sequence: key.last_u64(),
                };
                let Ok(Ok(row)) = plain.map(|plain| decode_row(&plain)) else {
                    loaded.damaged.push(position);
                    return ControlFlow::Continue(());
                };
                if row.is_over(now_ms) {
                    loaded.expired.push(position);
                    return match loaded.expired.len() {
                        EXPIRED_MAX => ControlFlow::Break(()),
                        _ => ControlFlow::Continue(()),
                    };
                }
                let message = row.message;
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
            if !loaded.expired.is_empty() {
                return Ok(loaded);
            }
            let last = match loaded.rows.last() {
                Some(row) if is_full && row.position.epoch == epoch => row.position.sequence,
                // Full before the first row of this line.
                Some(_) if is_full => first - 1,
                _ => line.next - 1,
            };
            let here = (peer, lane, epoch, line.holes > 0);
            is_full |= fill_gaps(source, here, first..=last, (count_max, now_ms), &mut loaded)?;
        }
        let last = loaded.rows.last().map(|row| row.position);
        claim.last = last
            .filter(|last| last.epoch == epoch && last.sequence > line.offered)
            .map(|last| last.sequence);
        if claim.last.is_some() || claim.unhanded_above.is_some() {
            loaded.claims.push(claim);
        }
        if is_full {
            return Ok(loaded);
        }
    }
    loaded.exhausted = true;
    Ok(loaded)
}

/// Accounts for every sequence that a scan did not show: a scan ends at a block that cannot be
/// read, and a lost file shows nothing at all. Returns whether it stopped before the end of
/// `range`.
fn fill_gaps(
    source: &impl Source,
    (peer, lane, epoch, has_holes): (PeerNumber, Lane, Epoch, bool),
    range: RangeInclusive<u64>,
    (count_max, now_ms): (usize, u64),
    loaded: &mut Loaded,
) -> Result<bool, ReadFault> {
    let is_here = |position: &Position| position.epoch == epoch;
    let damaged = loaded.damaged.iter().copied().filter(is_here);
    let rows = loaded.rows.iter().map(|row| row.position).filter(is_here);
    let mut seen: BTreeSet<u64> = rows.chain(damaged).map(|at| at.sequence).collect();
    let expected = (range.end() + 1).saturating_sub(*range.start());
    if seen.len() as u64 == expected {
        return Ok(false);
    }
    if has_holes {
        // Many letters may stand between two rows: read in one go.
        visit_dead(
            source,
            peer,
            lane,
            epoch.boot,
            range.clone(),
            |sequence, _| {
                seen.insert(sequence);
            },
        )?;
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
            Ok(Some(row)) if row.is_over(now_ms) => loaded.expired.push(position),
            Ok(Some(row)) => loaded.rows.push(Row {
                position,
                message: row.message,
            }),
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
    match source.get(&key) {
        Ok(found) => Ok(found.is_some()),
        // A letter that does not open is a letter all the same.
        Err(fault) if fault.is_damage() => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// Takes back what was offered and not handed out: `handed` names the last sequence of each line
/// that may have left. Letters above it were not delivered.
pub(crate) fn withdraw(
    view: &mut View,
    peer: PeerNumber,
    handed: &[(Lane, u32, u64)],
) -> Result<(), Refused> {
    for (lane, boot, last) in handed.iter().copied() {
        let Some(mut line) = lines::line(view, peer, lane, boot)? else {
            continue;
        };
        let before = line;
        // A base of the opening may have spoken of what lies below the first row.
        line.offered = line.offered.min(last.max(line.first - 1));
        let is_offered = |doubt| doubt == Doubt::Offered;
        strike(view, peer, lane, boot, &mut line, last, is_offered)?;
        if line != before {
            lines::put(view, peer, lane, boot, &line, 0, 0)?;
        }
    }
    Ok(())
}

/// Strikes off a page of what is listed above a sequence: it was not delivered. The caller writes
/// the line.
fn strike(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    line: &mut Line,
    above: u64,
    is_meant: impl Fn(Doubt) -> bool,
) -> Result<(), Refused> {
    if line.unsettled == 0 {
        return Ok(());
    }
    let page = SETTLE_ROWS_MAX as usize;
    let open = unsettled::among(view, peer, lane, boot, above + 1..=u64::MAX, page)?;
    for (sequence, _) in open.iter().filter(|(_, doubt)| is_meant(*doubt)) {
        view.delete(Key::unsettled(peer, lane, boot, *sequence));
        line.unsettled = line.unsettled.saturating_sub(1);
    }
    Ok(())
}

/// Makes durable what a load claimed. Returns whether its rows are still what it read; else it
/// reads again.
pub(crate) fn clear(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    claims: &[Claim],
) -> Result<bool, Refused> {
    let mut is_right = true;
    for claim in claims {
        let boot = claim.epoch.boot;
        let Some(mut line) = own_line(view, peer, lane, claim.epoch)? else {
            is_right = false;
            continue;
        };
        let before = line;
        if let Some(last) = claim.last {
            // INVARIANT: whoever takes away or rewrites a row above `offered` counts it as an
            // edit, and nobody does so below. So with the same count the rows are the same.
            is_right &= line.edits == claim.edits;
            line.offered = line.offered.max(last.div_ceil(OFFER_STEP) * OFFER_STEP);
        }
        if let Some(handed) = claim.unhanded_above {
            // This session sends what lies behind them without them, and what it opened with had
            // settled those that an earlier one sent: they have certainly not arrived.
            strike(view, peer, lane, boot, &mut line, handed, |_| true)?;
            // More of them, or some that came since: the next look tells.
            is_right = false;
        }
        if line != before {
            lines::put(view, peer, lane, boot, &line, 0, 0)?;
        }
    }
    Ok(is_right)
}
