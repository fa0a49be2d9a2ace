//! Deleting what the recipient has, and telling how it ended for what was given up.
//!
//! A settle comes from a session: after every acknowledgement, and once at the opening with the
//! mark of every line. Rows at or below a mark go; what the recipient refused becomes a dead
//! letter; letters that may have been delivered get their end. At an opening nothing is on its way
//! and nothing above the marks has arrived, so the end is known for all of them.
//! Reads no row unless a line says that it has holes or open letters.
//!
//! Read [`settle`], then [`find_oldest`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, RangeInclusive};

use packhorse_protocol::epoch::{Epoch, Lane, Mark, Refusal};

use crate::events::Fact;
use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::view::{Source, View};

use super::dead;
use super::lines::{self, Line};
use super::outbox::decode_row;
use super::peers::{self, PeerNumber};
use super::{held, read, unsettled};

/// Rows and letters that one settling job deals with at most; more take another job, so that no
/// batch holds up the others for long.
pub(crate) const SETTLE_ROWS_MAX: u64 = 4_096;
/// Bytes of messages that one settling job reads to count them off.
const WEIGHED_BYTES_MAX: u64 = 32 << 20;
/// Bytes that one settling job writes about letters.
const WRITTEN_BYTES_MAX: usize = 4 << 20;

/// A line of ours, unless the peer speaks of an epoch that never was.
pub(super) fn own_line(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
) -> Result<Option<Line>, ReadFault> {
    let line = lines::line(source, peer, lane, epoch.boot)?;
    Ok(line.filter(|line| line.nonce == epoch.nonce))
}

/// A line that a job changes.
pub(super) struct Work {
    pub(super) line: Line,
    before: Line,
    /// Messages of which the recipient has spoken.
    pub(super) settled: u64,
    /// Rows were taken out of it, maybe the oldest.
    pub(super) is_torn: bool,
}

/// The lines that one settling job touches, each written once.
struct Works {
    peer: PeerNumber,
    lane: Lane,
    lines: BTreeMap<u32, Work>,
}

impl Works {
    fn get(&mut self, view: &View, epoch: Epoch) -> Result<Option<&mut Work>, Refused> {
        if !self.lines.contains_key(&epoch.boot) {
            let Some(line) = own_line(view, self.peer, self.lane, epoch)? else {
                return Ok(None);
            };
            let work = Work {
                line,
                before: line,
                settled: 0,
                is_torn: false,
            };
            self.lines.insert(epoch.boot, work);
        }
        let work = self.lines.get_mut(&epoch.boot);
        Ok(work.filter(|work| work.line.nonce == epoch.nonce))
    }

    fn write(self, view: &mut View) -> Result<(), Refused> {
        for (boot, mut work) in self.lines {
            if work.is_torn {
                find_oldest(view, self.peer, self.lane, boot, &mut work.line)?;
            }
            if work.line != work.before {
                let (line, settled) = (&work.line, work.settled);
                lines::put(view, self.peer, self.lane, boot, line, 0, settled)?;
            }
        }
        Ok(())
    }
}

/// Deletes what the recipient has settled; what it refused becomes a dead letter in the same step.
///
/// Returns whether more is to be done, by another call with the same arguments.
pub(crate) fn settle(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    is_opening: bool,
    marks: &[Mark],
    refusals: &[Refusal],
) -> Result<bool, Refused> {
    let mut works = Works {
        peer,
        lane,
        lines: BTreeMap::new(),
    };
    // ORDER: refusals first. The mark covers refused sequences too, and would delete their rows
    // and call their letters delivered.
    let mut buried = Vec::new();
    for refusal in refusals {
        // Repeated until confirmed, so one comes again after its line has become past.
        if let Some(work) = works.get(view, refusal.epoch)?
            && dead::bury(view, peer, lane, refusal, work)?
        {
            buried.push(refusal.code);
        }
    }
    dead::facts_given_up(view, peer, buried.into_iter());
    let mut left = SETTLE_ROWS_MAX;
    let mut more = false;
    for mark in marks {
        let Some(work) = works.get(view, mark.epoch)? else {
            continue;
        };
        if left == 0 {
            more = true;
            break;
        }
        let boot = mark.epoch.boot;
        // A mark above what was given out belongs to a copy of this store that lived on; all that
        // is here is settled then.
        let settled = mark.settled.min(work.line.next - 1);
        // INVARIANT: no row above `offered` left this store, and no base spoke of one. So a mark
        // above it is the work of a life that is not in this store: it was set back.
        let is_set_back = is_opening && settled > work.line.offered;
        // ORDER: before rows are deleted, which would call a row stored that is not what was sent.
        if is_set_back && !settle_doubts(view, peer, lane, boot, work, settled, &mut left)? {
            more = true;
            continue;
        }
        let is_done = settle_rows(view, peer, lane, boot, work, settled, &mut left)?
            && settle_letters(
                view,
                peer,
                lane,
                boot,
                &mut work.line,
                settled,
                is_opening,
                &mut left,
            )?;
        if is_done && is_opening {
            if is_set_back {
                let from = work.line.offered + 1;
                tell_set_back(view, peer, lane, boot, from..=settled)?;
            }
            // INVARIANT: what lies above is not at the recipient and not on its way. Of what lies
            // below the first row the bases of this opening are about to speak.
            let first = work.line.first;
            work.line.offered = work.line.offered.min(settled).max(first - 1);
        }
        more |= !is_done;
    }
    works.write(view)?;
    Ok(more)
}

/// Deletes the rows up to `settled`. Returns whether all of them are gone.
fn settle_rows(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    work: &mut Work,
    settled: u64,
    left: &mut u64,
) -> Result<bool, Refused> {
    let line = &mut work.line;
    if settled < line.first {
        line.acknowledged = line.acknowledged.max(settled);
        return Ok(true);
    }
    let mut last = settled.min(line.first + *left - 1);
    // Where every row of the line is as it was accepted, the first one behind says what those weighed.
    let is_plain = line.holes == 0 && line.edits == 0;
    let gone_before = line.bytes_gone;
    let mut gone = 0;
    if !is_plain {
        (last, gone) = weigh(view, peer, lane, boot, line.first..=last)?;
    }
    let range = line.first..=last;
    let holes = if line.holes > 0 {
        pass_holes(view, peer, lane, boot, range.clone())?
    } else {
        BTreeSet::new()
    };
    for sequence in range.filter(|sequence| !holes.contains(sequence)) {
        view.delete(Key::outbox(peer, lane, boot, sequence));
    }
    let count = last + 1 - line.first;
    let holes = holes.len() as u64;
    *left -= count;
    if last < settled {
        *left = 0;
    }
    work.settled += count - holes;
    // A line that an older version wrote did not count all of its holes.
    line.holes = line.holes.saturating_sub(holes);
    line.first = last + 1;
    line.acknowledged = line.acknowledged.max(last);
    find_oldest(view, peer, lane, boot, line)?;
    if is_plain {
        gone = line.bytes_gone.saturating_sub(gone_before);
    }
    held::Change::default().outbox(0, gone).write(view)?;
    Ok(last == settled)
}

/// What the rows of a range weigh, by reading them, and how far that came: not further than one job
/// may read. Nothing that cannot be read stops it, because a quota's counter decides about no message.
fn weigh(
    view: &View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    range: RangeInclusive<u64>,
) -> Result<(u64, u64), Refused> {
    let (first, last) = range.into_inner();
    let mut weight = 0;
    let mut next = first;
    let end = end_of(Key::outbox(peer, lane, boot, last).as_bytes());
    let from = Key::outbox(peer, lane, boot, first);
    let scanned = view.scan(&from, &end, &mut |key, plain| {
        weight += match plain.map(|plain| decode_row(&plain)) {
            Ok(Ok(row)) => held::weight(&row.message),
            _ => held::weight_of_damaged(view, &key),
        };
        next = key.last_u64() + 1;
        if weight < WEIGHED_BYTES_MAX {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    match scanned {
        Ok(()) if weight >= WEIGHED_BYTES_MAX => return Ok((next - 1, weight)),
        Ok(()) => return Ok((last, weight)),
        // A block that cannot be read: the rows behind it are looked up one by one.
        Err(fault) if fault.is_damage() => {}
        Err(fault) => return Err(fault.into()),
    }
    while next <= last && weight < WEIGHED_BYTES_MAX {
        let key = Key::outbox(peer, lane, boot, next);
        weight += match read(view, &key, decode_row) {
            Ok(row) => row.map_or(0, |row| held::weight(&row.message)),
            Err(fault) if fault.is_damage() => held::weight_of_damaged(view, &key),
            Err(fault) => return Err(fault.into()),
        };
        next += 1;
    }
    Ok((next - 1, weight))
}

/// Tells the end of letters that may have been delivered. Returns whether none is left to tell.
#[expect(
    clippy::too_many_arguments,
    reason = "the key of a line, and what is known of it"
)]
fn settle_letters(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    line: &mut Line,
    settled: u64,
    is_opening: bool,
    left: &mut u64,
) -> Result<bool, Refused> {
    if line.unsettled == 0 {
        return Ok(true);
    }
    // Without an opening a letter above the mark may still be on its way.
    let upto = if is_opening { u64::MAX } else { settled };
    let open = unsettled::among(view, peer, lane, boot, 0..=upto, *left as usize)?;
    let is_all = (open.len() as u64) < *left;
    let (mut count, mut weight) = (0, 0);
    for (sequence, _) in &open {
        if weight >= WEIGHED_BYTES_MAX {
            break;
        }
        if *sequence <= settled {
            weight += dead::delete(view, Key::dead(peer, lane, boot, *sequence))?;
        }
        view.delete(Key::unsettled(peer, lane, boot, *sequence));
        count += 1;
    }
    line.unsettled = line.unsettled.saturating_sub(count);
    if count < open.len() as u64 {
        *left = 0;
        return Ok(false);
    }
    *left -= count;
    Ok(is_all)
}

/// The recipient's mark covers messages that this store never offered: a life that is not in this
/// store sent them, or gave them up. Those that were rewritten or given up here since become
/// letters that say so. Returns whether none is left.
fn settle_doubts(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    work: &mut Work,
    settled: u64,
    left: &mut u64,
) -> Result<bool, Refused> {
    if work.line.unsettled == 0 {
        return Ok(true);
    }
    let range = work.line.offered + 1..=settled;
    let listed = unsettled::among(view, peer, lane, boot, range, *left as usize)?;
    let is_all = (listed.len() as u64) < *left;
    let written_before = view.changed_bytes();
    let mut codes = Vec::new();
    let mut count = 0;
    for (sequence, doubt) in &listed {
        if view.changed_bytes() - written_before >= WRITTEN_BYTES_MAX {
            break;
        }
        codes.extend(dead::bury_taken(
            view, peer, lane, boot, *sequence, *doubt, work,
        )?);
        view.delete(Key::unsettled(peer, lane, boot, *sequence));
        count += 1;
    }
    work.line.unsettled = work.line.unsettled.saturating_sub(count);
    dead::facts_given_up(view, peer, codes.into_iter());
    if count < listed.len() as u64 {
        *left = 0;
        return Ok(false);
    }
    *left -= count;
    Ok(is_all)
}

/// Says which messages were settled by the doing of a life that is lost.
fn tell_set_back(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    range: RangeInclusive<u64>,
) -> Result<(), Refused> {
    let (from, to) = range.into_inner();
    let text = format!(
        "this node's store was set back: by its word {from} to {to} of boot {boot} on the {lane:?} lane had left before that"
    );
    peers::note_trouble(view, peer, &text)?;
    view.fact(Fact::RolledBack { peer, text });
    Ok(())
}

/// Which sequences of a range are dead letters. Forgets those among them that were only kept
/// because the line had not passed them.
fn pass_holes(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    range: RangeInclusive<u64>,
) -> Result<BTreeSet<u64>, Refused> {
    let mut holes = BTreeSet::new();
    let mut stubs = Vec::new();
    visit_dead(view, peer, lane, boot, range, |sequence, is_stub| {
        holes.insert(sequence);
        if is_stub {
            stubs.push(Key::dead(peer, lane, boot, sequence));
        }
    })?;
    stubs.into_iter().for_each(|key| view.delete(key));
    Ok(holes)
}

/// Moves the line's first sequence over the dead letters that it stands on, a page of them at most,
/// and returns how many these are.
fn pass_gap(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    line: &mut Line,
) -> Result<u64, Refused> {
    let first = line.first;
    let last = (line.next - 1).min(first + SETTLE_ROWS_MAX - 1);
    let mut gap = Vec::new();
    visit_dead(view, peer, lane, boot, first..=last, |sequence, is_stub| {
        if sequence == first + gap.len() as u64 {
            gap.push(is_stub);
        }
    })?;
    for (sequence, is_stub) in (first..).zip(&gap) {
        if *is_stub {
            view.delete(Key::dead(peer, lane, boot, sequence));
        }
    }
    line.first += gap.len() as u64;
    line.holes = line.holes.saturating_sub(gap.len() as u64);
    Ok(gap.len() as u64)
}

/// Visits the dead letters among `range`: the sequence, and whether it is a mere stub.
pub(super) fn visit_dead(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    range: RangeInclusive<u64>,
    mut visit: impl FnMut(u64, bool),
) -> Result<(), ReadFault> {
    let from = Key::dead(peer, lane, boot, *range.start());
    let end = end_of(Key::dead(peer, lane, boot, *range.end()).as_bytes());
    source.scan(&from, &end, &mut |key, plain| {
        // One that does not open is a letter all the same.
        let is_stub = plain.is_ok_and(|plain| dead::is_stub(&plain));
        visit(key.last_u64(), is_stub);
        ControlFlow::Continue(())
    })
}

/// Moves the line's first sequence over rows that are gone, and tells what its oldest row says.
pub(super) fn find_oldest(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    line: &mut Line,
) -> Result<(), Refused> {
    let mut is_last_look = false;
    while line.first < line.next {
        if line.waiting() == 0 {
            pass_holes(view, peer, lane, boot, line.first..=line.next - 1)?;
            line.first = line.next;
            line.holes = 0;
            break;
        }
        match read(view, &Key::outbox(peer, lane, boot, line.first), decode_row) {
            Ok(Some(row)) => {
                line.bytes_gone = row.bytes_before;
                line.oldest_born_ms = Some(row.message.born_ms);
                return Ok(());
            }
            // Given up, refused or damaged, and a dead letter by now. One that is simply gone is
            // not passed over: a load comes upon it and buries it.
            Ok(None) => {
                // The rest is left to the next settle; what waits is counted right all the same.
                if is_last_look || pass_gap(view, peer, lane, boot, line)? == 0 {
                    return Ok(());
                }
                is_last_look = true;
            }
            Err(fault) if fault.is_damage() => return Ok(()),
            Err(fault) => return Err(fault.into()),
        }
    }
    line.oldest_born_ms = None;
    line.bytes_gone = line.bytes_accepted;
    Ok(())
}
