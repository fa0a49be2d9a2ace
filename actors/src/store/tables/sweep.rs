//! Giving up what has waited for too long, and what is dropped by hand.
//!
//! A moderate message is given up after three failed attempts to reach its peer, but not within its
//! first minute, or after a day. Any message may have an end of its own. One counter of failures
//! serves all messages of a peer, because each row holds the count at its birth; so the budget
//! survives a restart without a write per attempt.
//! Whatever is given up becomes a dead letter in the same job. Nothing here knows why reaching a
//! peer failed, and nothing here runs by itself: the scheduler calls.
//!
//! Read [`verdict`], then [`page`].

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Epoch, Lane, Position, RefusalCode};
use packhorse_protocol::message::{DeliveryClass, Message};

use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::receipt::ReceiptId;
use crate::store::signals::earlier;
use crate::store::view::{Source, View};

use super::dead;
use super::lines::{self, Line};
use super::loading::is_dead;
use super::outbox::{Filter, Stored, decode_row};
use super::peers::{self, PeerNumber};
use super::settling::{find_oldest, own_line};
use super::{held, read};

/// Failed attempts after which a moderate message is given up.
const ATTEMPTS_MAX: u32 = 3;
/// What a moderate message waits at least.
const WAIT_MIN_MS: u64 = 60 * 1_000;
/// What a moderate message waits at most.
const WAIT_MAX_MS: u64 = 24 * 3_600 * 1_000;

/// Rows that one job looks at.
const PAGE_ROWS_MAX: usize = 4_096;
/// Bytes of rows that one job looks at, so that it does not hold up the writer for long.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// Bytes of messages that one job moves to the dead letters: as much as a batch holds.
const MOVED_BYTES_MAX: usize = 4 << 20;
/// Messages that one job moves to the dead letters; each is up to three changes, and all of them one
/// more for what the boxes hold.
const MOVED_ROWS_MAX: usize = 1_024;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Messages that became dead letters.
    pub given_up: u64,
    /// When the next one may be due, in wall milliseconds; `None` when nothing has a limit.
    pub next_due_ms: Option<u64>,
}

/// Whether a row's time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is, and why.
    Over(RefusalCode),
    /// Not before this moment, unless more attempts fail.
    NotBefore(u64),
    /// Never.
    Never,
}

fn verdict(row: &Stored, failures: u32, now_ms: u64) -> Verdict {
    if row.is_over(now_ms) {
        return Verdict::Over(dead::EXPIRED);
    }
    let mut due_ms = row.expires_ms;
    if row.message.class == DeliveryClass::Moderate {
        let has_tried = failures.saturating_sub(row.failures_born) >= ATTEMPTS_MAX;
        let wait_ms = if has_tried { WAIT_MIN_MS } else { WAIT_MAX_MS };
        let over_ms = row.message.born_ms.saturating_add(wait_ms);
        if over_ms <= now_ms {
            return Verdict::Over(dead::GAVE_UP);
        }
        due_ms = earlier(due_ms, Some(over_ms));
    }
    due_ms.map_or(Verdict::Never, Verdict::NotBefore)
}

/// When a message that is accepted now is due, if reaching its peer does not fail; `None` when it
/// has no limit.
pub(super) fn first_due(message: &Message, expires_ms: Option<u64>) -> Option<u64> {
    let is_moderate = message.class == DeliveryClass::Moderate;
    let over_ms = is_moderate.then(|| message.born_ms.saturating_add(WAIT_MAX_MS));
    earlier(expires_ms, over_ms)
}

/// How far the sweep of one line is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Where the next page begins; `None` before the first.
    from: Option<u64>,
    /// The first limited row that was left waiting.
    lowest: Option<u64>,
    /// When the first of those left waiting is due.
    pub(crate) due_ms: Option<u64>,
    /// What the last page wrote as the line's first limited sequence.
    written: u64,
    pub(crate) given_up: u64,
    pub(crate) is_done: bool,
}

/// Rows of one line on their way to the dead letters.
#[derive(Default)]
struct Moving {
    rows: Vec<(u64, RefusalCode, Message)>,
    bytes: usize,
    looked_at: usize,
    looked_at_bytes: usize,
    /// The last row that was looked at.
    last: u64,
}

impl Moving {
    /// Notes a row; whether there is room for another one.
    fn look(&mut self, sequence: u64, row: Stored, code: Option<RefusalCode>) -> ControlFlow<()> {
        let weight = row.message.weight();
        self.last = sequence;
        self.looked_at += 1;
        self.looked_at_bytes += weight;
        if let Some(code) = code {
            self.bytes += weight;
            self.rows.push((sequence, code, row.message));
        }
        let is_full = self.looked_at >= PAGE_ROWS_MAX
            || self.looked_at_bytes >= PAGE_BYTES_MAX
            || self.rows.len() >= MOVED_ROWS_MAX
            || self.bytes >= MOVED_BYTES_MAX;
        if is_full {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn weight(&self) -> u64 {
        self.rows
            .iter()
            .map(|(_, _, message)| held::weight(message))
            .sum()
    }

    /// Makes the rows dead letters. The caller writes the line.
    fn bury(
        self,
        view: &mut View,
        peer: PeerNumber,
        lane: Lane,
        boot: u32,
        line: &mut Line,
    ) -> Result<u64, Refused> {
        let count = self.rows.len() as u64;
        if count == 0 {
            return Ok(0);
        }
        dead::facts_given_up(view, peer, self.rows.iter().map(|(_, code, _)| *code));
        let weight = self.weight();
        let change = held::Change::default().outbox(0, weight).dead(weight, 0);
        change.write(view)?;
        for (sequence, code, message) in self.rows {
            dead::give_up(view, peer, lane, boot, line, sequence, code, message)?;
        }
        find_oldest(view, peer, lane, boot, line)?;
        Ok(count)
    }
}

/// The lines of a peer in which something may be due.
pub(crate) fn limited(
    source: &impl Source,
    peer: PeerNumber,
) -> Result<Vec<(Lane, Epoch)>, ReadFault> {
    let mut limited = Vec::new();
    for lane in Lane::ALL {
        for (boot, line) in lines::of_lane(source, peer, lane)? {
            if line.is_limited() {
                let nonce = line.nonce;
                limited.push((lane, Epoch { boot, nonce }));
            }
        }
    }
    Ok(limited)
}

/// Per peer, when the first limited row may be due.
pub(crate) fn dues(source: &impl Source) -> Result<Vec<(PeerNumber, u64)>, ReadFault> {
    let mut dues: Vec<(PeerNumber, u64)> = Vec::new();
    for (peer, _, _, line) in lines::all(source)? {
        let Some(due_ms) = line.due() else { continue };
        match dues.last_mut() {
            Some((last, earliest)) if *last == peer => *earliest = due_ms.min(*earliest),
            _ => dues.push((peer, due_ms)),
        }
    }
    Ok(dues)
}

/// Looks at one page of a line from its first limited row on, gives up what is over, and says how
/// to go on.
pub(crate) fn page(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
    mut progress: Progress,
) -> Result<Progress, Refused> {
    let boot = epoch.boot;
    let Some(mut line) = own_line(view, peer, lane, epoch)? else {
        progress.is_done = true;
        return Ok(progress);
    };
    let before = line;
    let is_first = progress.from.is_none();
    if is_first {
        progress.written = line.limited_first;
    }
    let from = progress.from.unwrap_or(line.limited_first).max(line.first);
    let failures = peers::failures(view, peer)?.unwrap_or(0);
    let now_ms = view.now_ms();
    let mut moving = Moving::default();
    let mut is_cut = false;
    if from < line.next {
        let start = Key::outbox(peer, lane, boot, from);
        let end = end_of(Key::outbox(peer, lane, boot, line.next - 1).as_bytes());
        view.scan(&start, &end, &mut |key, plain| {
            // A row that does not open is buried by the next load, whatever its limits were.
            let Ok(Ok(row)) = plain.map(|plain| decode_row(&plain)) else {
                return ControlFlow::Continue(());
            };
            let sequence = key.last_u64();
            let code = match verdict(&row, failures, now_ms) {
                Verdict::Over(code) => Some(code),
                Verdict::Never => None,
                Verdict::NotBefore(due_ms) => {
                    progress.lowest.get_or_insert(sequence);
                    progress.due_ms = earlier(progress.due_ms, Some(due_ms));
                    None
                }
            };
            let flow = moving.look(sequence, row, code);
            is_cut = flow.is_break();
            flow
        })?;
    }
    let next = if is_cut { moving.last + 1 } else { line.next };
    progress.is_done = next >= line.next;
    progress.from = Some(next);
    progress.given_up += moving.bury(view, peer, lane, boot, &mut line)?;
    // Lower than it was left: a row before this page was replaced by one with a limit meanwhile.
    if line.limited_first >= progress.written {
        line.limited_first = progress.lowest.unwrap_or(next);
    }
    progress.written = line.limited_first;
    if progress.is_done {
        if !is_first {
            // What was accepted or replaced since the first page, which had left nothing here.
            progress.due_ms = earlier(progress.due_ms, line.due_ms);
        }
        line.due_ms = progress.due_ms;
    } else if is_first {
        line.due_ms = None;
    }
    if line != before {
        lines::put(view, peer, lane, boot, &line, 0, 0)?;
    }
    Ok(progress)
}

/// Drops rows of one line by hand, from `from` to `last`. Returns how many, and where to go on.
pub(crate) fn drop_page(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
    filter: &Filter,
    from: u64,
    last: u64,
) -> Result<(u64, Option<u64>), Refused> {
    let boot = epoch.boot;
    let Some(mut line) = own_line(view, peer, lane, epoch)? else {
        return Ok((0, None));
    };
    let mut moving = Moving::default();
    let mut is_cut = false;
    let from = from.max(line.first);
    if from <= last {
        let start = Key::outbox(peer, lane, boot, from);
        let end = end_of(Key::outbox(peer, lane, boot, last).as_bytes());
        view.scan(&start, &end, &mut |key, plain| {
            let Ok(Ok(row)) = plain.map(|plain| decode_row(&plain)) else {
                return ControlFlow::Continue(());
            };
            let is_meant = filter.takes_topic(&row.message.topic);
            let code = is_meant.then_some(dead::DROPPED);
            let flow = moving.look(key.last_u64(), row, code);
            is_cut = flow.is_break();
            flow
        })?;
    }
    let next = (is_cut && moving.last < last).then(|| moving.last + 1);
    let count = moving.bury(view, peer, lane, boot, &mut line)?;
    if count > 0 {
        lines::put(view, peer, lane, boot, &line, 0, 0)?;
    }
    Ok((count, next))
}

/// What a line of a peer that was forgotten holds.
#[derive(Default)]
struct Revoking {
    moving: Moving,
    damaged: Vec<Position>,
    /// Where what was not looked at begins; `None` at the end of the line.
    next: Option<u64>,
}

/// Takes one page of what waits for a peer that was forgotten out of a line: messages become dead
/// letters, reports go. Returns how many messages, and whether nothing is left in the line.
pub(super) fn revoke_page(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
) -> Result<(u64, bool), Refused> {
    let boot = epoch.boot;
    let Some(mut line) = own_line(view, peer, lane, epoch)? else {
        return Ok((0, true));
    };
    let before = line;
    let Revoking {
        moving,
        damaged,
        next,
    } = look_through(view, peer, lane, epoch, &line)?;
    let count = match lane {
        Lane::User => moving.bury(view, peer, lane, boot, &mut line)?,
        Lane::System => {
            for (sequence, _, _) in &moving.rows {
                dead::erase(view, peer, lane, boot, &mut line, *sequence);
            }
            let change = held::Change::default().outbox(0, moving.weight());
            change.write(view)?;
            0
        }
    };
    find_oldest(view, peer, lane, boot, &mut line)?;
    if line != before {
        lines::put(view, peer, lane, boot, &line, 0, 0)?;
    }
    for at in damaged {
        dead::bury_damaged(view, peer, lane, at)?;
    }
    Ok((count, next.is_none()))
}

/// Accounts for every sequence of a line, or for as many as one job may look at. A scan ends at a
/// block that cannot be read, and shows nothing of a lost file: no session comes upon these any more,
/// so they are looked up one by one.
fn look_through(
    view: &View,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
    line: &Line,
) -> Result<Revoking, Refused> {
    let boot = epoch.boot;
    let mut found = Revoking::default();
    if line.first >= line.next {
        return Ok(found);
    }
    let mut seen = 0;
    let mut next = line.first;
    let mut is_cut = false;
    let start = Key::outbox(peer, lane, boot, line.first);
    let end = end_of(Key::outbox(peer, lane, boot, line.next - 1).as_bytes());
    let scanned = view.scan(&start, &end, &mut |key, plain| {
        let sequence = key.last_u64();
        let flow = found.look(
            epoch,
            sequence,
            plain.ok().and_then(|plain| decode_row(&plain).ok()),
        );
        seen += 1;
        next = sequence + 1;
        is_cut = flow.is_break();
        flow
    });
    match scanned {
        Ok(()) if is_cut => {
            found.next = Some(next);
            return Ok(found);
        }
        Ok(()) if seen >= line.waiting() => return Ok(found),
        // Fewer than wait: among those that were shown some are missing.
        Ok(()) => next = line.first,
        Err(fault) if fault.is_damage() => {}
        Err(fault) => return Err(fault.into()),
    }
    let known: BTreeSet<u64> = found.sequences().collect();
    let last = line.next.min(next + PAGE_ROWS_MAX as u64);
    for sequence in (next..last).filter(|sequence| !known.contains(sequence)) {
        let key = Key::outbox(peer, lane, boot, sequence);
        let row = match read(view, &key, decode_row) {
            Ok(Some(row)) => Some(row),
            Ok(None) if is_dead(view, peer, lane, Position { epoch, sequence })? => continue,
            Ok(None) => None,
            Err(fault) if fault.is_damage() => None,
            Err(fault) => return Err(fault.into()),
        };
        if found.look(epoch, sequence, row).is_break() {
            found.next = Some(sequence + 1);
            return Ok(found);
        }
    }
    found.next = (last < line.next).then_some(last);
    Ok(found)
}

impl Revoking {
    /// Notes a row, or a sequence of which none is left; whether there is room for another one.
    fn look(&mut self, epoch: Epoch, sequence: u64, row: Option<Stored>) -> ControlFlow<()> {
        if let Some(row) = row {
            return self.moving.look(sequence, row, Some(dead::REVOKED));
        }
        self.damaged.push(Position { epoch, sequence });
        if self.damaged.len() < MOVED_ROWS_MAX {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }

    fn sequences(&self) -> impl Iterator<Item = u64> {
        let moving = self.moving.rows.iter().map(|(sequence, _, _)| *sequence);
        moving.chain(self.damaged.iter().map(|at| at.sequence))
    }
}

/// Gives up rows of one line whose own end has passed, as many of them as one job may. `positions`
/// rise; returns how many of them it is through with. One that does not wait any more is passed
/// over, as is one that does not open: the next load buries it.
pub(crate) fn expire(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    positions: &[Position],
) -> Result<usize, Refused> {
    let Some(epoch) = positions.first().map(|first| first.epoch) else {
        return Ok(0);
    };
    let of_line = positions.iter().take_while(|at| at.epoch == epoch);
    let Some(mut line) = own_line(view, peer, lane, epoch)? else {
        return Ok(of_line.count());
    };
    let now_ms = view.now_ms();
    let mut moving = Moving::default();
    let mut looked_at = 0;
    for at in of_line {
        looked_at += 1;
        let key = Key::outbox(peer, lane, epoch.boot, at.sequence);
        let row = match read(view, &key, decode_row) {
            Ok(Some(row)) if row.is_over(now_ms) => row,
            Ok(_) => continue,
            Err(fault) if fault.is_damage() => continue,
            Err(fault) => return Err(fault.into()),
        };
        if moving
            .look(at.sequence, row, Some(dead::EXPIRED))
            .is_break()
        {
            break;
        }
    }
    if moving.bury(view, peer, lane, epoch.boot, &mut line)? > 0 {
        lines::put(view, peer, lane, epoch.boot, &line, 0, 0)?;
    }
    Ok(looked_at)
}

/// Drops these rows by hand, as many of them as one job may. Returns how many were dropped, and how
/// many of `ids` it looked at. One that does not wait any more is passed over, and so is a report of
/// the system lane: nobody sent it, so nobody may drop it.
pub(crate) fn drop_ids(
    view: &mut View,
    filter: &Filter,
    ids: &[ReceiptId],
) -> Result<(u64, usize), Refused> {
    let (mut count, mut bytes, mut looked_at) = (0, 0, 0);
    for id in ids {
        if count as usize >= MOVED_ROWS_MAX || bytes >= MOVED_BYTES_MAX {
            break;
        }
        looked_at += 1;
        if id.lane != Lane::User {
            continue;
        }
        let Position { epoch, sequence } = id.position;
        let Some(mut line) = own_line(view, id.peer, id.lane, epoch)? else {
            continue;
        };
        let key = Key::outbox(id.peer, id.lane, epoch.boot, sequence);
        let row = match read(view, &key, decode_row) {
            Ok(Some(row)) => row,
            Ok(None) => continue,
            // The next load buries it.
            Err(fault) if fault.is_damage() => continue,
            Err(fault) => return Err(fault.into()),
        };
        if !filter.takes_peer(id.peer) || !filter.takes_topic(&row.message.topic) {
            continue;
        }
        let mut moving = Moving::default();
        bytes += row.message.weight();
        let _ = moving.look(sequence, row, Some(dead::DROPPED));
        count += moving.bury(view, id.peer, id.lane, epoch.boot, &mut line)?;
        lines::put(view, id.peer, id.lane, epoch.boot, &line, 0, 0)?;
    }
    Ok((count, looked_at))
}

/// The lines that a drop goes through: up to which sequence each, so that what is accepted
/// meanwhile is not dropped. Only those of the user lane: the reports of the system lane are nobody's
/// to drop.
pub(crate) fn droppable(
    source: &impl Source,
    filter: &Filter,
) -> Result<Vec<(PeerNumber, Lane, Epoch, u64)>, ReadFault> {
    let lines = lines::all(source)?.into_iter();
    Ok(lines
        .filter(|(peer, lane, _, line)| {
            *lane == Lane::User && filter.takes_peer(*peer) && line.waiting() > 0
        })
        .map(|(peer, lane, boot, line)| {
            let nonce = line.nonce;
            (peer, lane, Epoch { boot, nonce }, line.next - 1)
        })
        .collect())
}
