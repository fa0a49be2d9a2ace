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

use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::view::{Source, View};

use super::dead;
use super::lines::{self, Line};
use super::outbox::decode_row;
use super::peers::PeerNumber;
use super::{read, unsettled};

/// Rows and letters that one settling job deals with at most; more take another job, so that no
/// batch holds up the others for long.
pub(crate) const SETTLE_ROWS_MAX: u64 = 4_096;

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
            // INVARIANT: what lies above is not at the recipient and not on its way.
            work.line.offered = work.line.offered.min(settled);
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
    let last = settled.min(line.first + *left - 1);
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
    work.settled += count - holes;
    // A line that an older version wrote did not count all of its holes.
    line.holes = line.holes.saturating_sub(holes);
    line.first = last + 1;
    line.acknowledged = line.acknowledged.max(last);
    find_oldest(view, peer, lane, boot, line)?;
    Ok(last == settled)
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
    for sequence in &open {
        if *sequence <= settled {
            view.delete(Key::dead(peer, lane, boot, *sequence));
        }
        view.delete(Key::unsettled(peer, lane, boot, *sequence));
    }
    line.unsettled = line.unsettled.saturating_sub(open.len() as u64);
    *left -= open.len() as u64;
    Ok(is_all)
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
