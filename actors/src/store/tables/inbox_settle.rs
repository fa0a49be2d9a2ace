//! How a message leaves the inbox: handled, given up, or kept back for a while.
//!
//! Whatever takes a message out tells its sender in the same batch, so a message is never gone
//! without a word and never told about while it is here.
//! Who may say what became of a message was decided before: this file knows no leases.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use packhorse_protocol::backoff;
use packhorse_protocol::epoch::{Lane, Position};
use packhorse_protocol::grant::Capability;
use packhorse_protocol::limits::REASON_BYTES_MAX;
use packhorse_protocol::receipt::OUTPUT_BYTES_MAX;

use crate::events::Fact;
use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::view::{Source, View};

use super::dead_in::{self, DeadInLetter};
use super::inbox::{self, InboxRow, decode_row, take_from_topic, take_from_totals, topic_hash};
use super::peers::{self, PeerNumber};
use super::receipts::Report;
use super::tries::{self, DELAY_MS_MAX, FAILURES_MAX, Tries, UNENDED_MAX};
use super::{held, marks, read};

/// What is said of a message whose sender was forgotten before it was handled.
const REVOKED: &str = "revoked: its sender was forgotten before it was handled";

/// A failed message waits a random time up to this, doubled with each failure.
const BACKOFF_BASE_MS: u64 = 1_000;
/// And never longer than this.
const BACKOFF_CAP_MS: u64 = 5 * 60 * 1_000;

/// What became of a message under its handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was handled.
    Done {
        /// What the handler wrote; the first 4 KiB travel to the sender.
        output: Vec<u8>,
    },
    /// It cannot be handled now. No failure is counted.
    Retry {
        /// How long it is kept back, at most a day; without it as after a failure.
        delay_ms: Option<u64>,
        /// Why.
        reason: String,
    },
    /// The handler failed. After some failures the message is given up.
    Failed {
        /// Why.
        reason: String,
        /// What the handler wrote; travels when the message is given up.
        output: Vec<u8>,
    },
    /// It can never be handled.
    Dead {
        /// Why.
        reason: String,
        /// What the handler wrote.
        output: Vec<u8>,
    },
}

/// Where a message is after a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Handled, and its sender is told.
    Done,
    /// Kept back.
    Later {
        /// Until then, by the wall clock.
        due_ms: u64,
        /// For how long that was when it was said. Whoever waits goes by this: the clock may have
        /// been set since.
        delay_ms: u64,
        /// How often a handler failed.
        failures: u32,
    },
    /// Among the dead letters, and its sender is told.
    Dead,
    /// It had left the inbox before.
    Gone,
}

/// Deletes messages that were handled, and tells their senders. Unknown ones are passed over:
/// they were handled before.
pub(crate) fn done(view: &mut View, arrivals: Vec<u64>) -> Result<(), Refused> {
    let mut report = Report::default();
    for row in take_out(view, arrivals)? {
        if row.lane == Lane::User {
            report.done(row.peer, row.position, Vec::new());
        }
    }
    report.send(view)
}

/// Deletes rows, their index and their histories, and counts them off. Returns the rows.
fn take_out(view: &mut View, mut arrivals: Vec<u64>) -> Result<Vec<InboxRow>, Refused> {
    arrivals.sort_unstable();
    arrivals.dedup();
    let mut topics: BTreeMap<[u8; 16], u64> = BTreeMap::new();
    // Batches are mostly of one topic: its hash is made once.
    let mut last_topic = None;
    let mut weights: BTreeMap<PeerNumber, u64> = BTreeMap::new();
    let mut rows = Vec::with_capacity(arrivals.len());
    for arrival in &arrivals {
        let key = Key::inbox(*arrival);
        let Some(mut row) = read(view, &key, |bytes| decode_row(*arrival, bytes))? else {
            continue;
        };
        let hash = match &last_topic {
            Some((lane, topic, hash)) if *lane == row.lane && *topic == row.message.topic => *hash,
            _ => {
                let hash = topic_hash(view, row.lane, &row.message.topic);
                last_topic = Some((row.lane, row.message.topic.clone(), hash));
                hash
            }
        };
        view.delete(key);
        view.delete(Key::inbox_topic(hash, *arrival));
        *topics.entry(hash).or_default() += 1;
        *weights.entry(row.peer).or_default() += held::weight(&row.message);
        if arrivals.len() > 1 {
            // Nobody asks for the payloads of many.
            row.message.payload = Vec::new();
        }
        rows.push(row);
    }
    for (hash, count) in topics {
        take_from_topic(view, hash, count)?;
    }
    for (peer, weight) in &weights {
        held::change_share(view, *peer, 0, *weight)?;
    }
    let gone = weights.values().sum();
    held::Change::default().inbox(0, gone).write(view)?;
    take_from_totals(view, rows.len() as u64)?;
    tries::forget(view, &arrivals)?;
    Ok(rows)
}

/// What came of beginning an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It may be made. Its number, from 1.
    Attempt(u32),
    /// Too many before it ended without a verdict: the message is a dead letter now.
    GivenUp,
}

/// Counts an attempt, durably, before a handler runs; or gives the message up, whose handlers took
/// their worker with them again and again.
pub(crate) fn begin(view: &mut View, arrival: u64) -> Result<Begun, Refused> {
    let row = row(view, arrival)?.ok_or(Refused::NotInInbox(arrival))?;
    // Asked here as well as when it was handed out: it may have been taken away since.
    let grants = peers::peer(view, row.peer)?.map(|peer| peer.grants);
    let topic = &row.message.topic;
    if !grants.is_some_and(|grants| grants.allows(Capability::Execute, topic, view.now_ms())) {
        return Err(Refused::NoExecute);
    }
    let mut tries = tries::of(view, arrival)?;
    if tries.unended >= UNENDED_MAX {
        let reason = format!("{UNENDED_MAX} attempts in a row ended without a verdict");
        bury(view, row, &reason, Vec::new())?;
        return Ok(Begun::GivenUp);
    }
    tries.attempts = tries.attempts.saturating_add(1);
    tries.unended += 1;
    tries::put(view, arrival, &tries);
    Ok(Begun::Attempt(tries.attempts))
}

/// Carries out a verdict. `random` spreads what is kept back.
pub(crate) fn settle(
    view: &mut View,
    arrival: u64,
    verdict: Verdict,
    random: u64,
) -> Result<Settled, Refused> {
    let Some(row) = row(view, arrival)? else {
        return Ok(Settled::Gone);
    };
    match verdict {
        Verdict::Done { output } => {
            take_out(view, vec![arrival])?;
            let mut report = Report::default();
            report.done(row.peer, row.position, clipped(output));
            report.send(view)?;
            Ok(Settled::Done)
        }
        Verdict::Retry { delay_ms, reason } => {
            let tries = tries::of(view, arrival)?;
            let delay_ms = delay_ms.unwrap_or_else(|| backoff_ms(tries.attempts, random));
            Ok(keep_back(view, arrival, tries, delay_ms, &reason))
        }
        Verdict::Failed { reason, output } => {
            let mut tries = tries::of(view, arrival)?;
            tries.failures = tries.failures.saturating_add(1);
            if tries.failures >= FAILURES_MAX {
                let reason = format!("{FAILURES_MAX} attempts failed, the last one: {reason}");
                return bury(view, row, &reason, output);
            }
            let delay_ms = backoff_ms(tries.failures, random);
            Ok(keep_back(view, arrival, tries, delay_ms, &reason))
        }
        Verdict::Dead { reason, output } => bury(view, row, &reason, output),
    }
}

fn row(view: &View, arrival: u64) -> Result<Option<InboxRow>, Refused> {
    Ok(read(view, &Key::inbox(arrival), |bytes| {
        decode_row(arrival, bytes)
    })?)
}

fn backoff_ms(count: u32, random: u64) -> u64 {
    let delay = backoff::delay(
        count.saturating_sub(1),
        BACKOFF_BASE_MS,
        BACKOFF_CAP_MS,
        random,
    );
    u64::try_from(delay.as_millis()).unwrap_or(BACKOFF_CAP_MS)
}

fn keep_back(
    view: &mut View,
    arrival: u64,
    mut tries: Tries,
    delay_ms: u64,
    reason: &str,
) -> Settled {
    let delay_ms = delay_ms.min(DELAY_MS_MAX);
    let due_ms = view.now_ms().saturating_add(delay_ms);
    tries.said_ms = view.now_ms();
    tries.not_before_ms = due_ms;
    tries.unended = 0;
    tries.reason = clean(reason);
    tries::put(view, arrival, &tries);
    Settled::Later {
        due_ms,
        delay_ms,
        failures: tries.failures,
    }
}

fn bury(view: &mut View, row: InboxRow, reason: &str, output: Vec<u8>) -> Result<Settled, Refused> {
    let reason = clean(reason);
    take_out(view, vec![row.arrival])?;
    let mut report = Report::default();
    report.failed(row.peer, row.position, &reason, clipped(output));
    report.send(view)?;
    view.fact(Fact::FailedHere {
        peer: row.peer,
        topic: row.message.topic.clone(),
        reason: reason.clone(),
    });
    let letter = DeadInLetter {
        peer: row.peer,
        lane: row.lane,
        position: row.position,
        at_ms: view.now_ms(),
        reason,
        message: row.message,
    };
    dead_in::put(view, &letter)?;
    Ok(Settled::Dead)
}

/// Rows of the inbox that one job looks at for those of a peer that was forgotten.
const REVOKED_ROWS_MAX: usize = 1_024;
/// And bytes of messages.
const REVOKED_BYTES_MAX: usize = 4 << 20;

/// Makes messages of a peer that was forgotten dead letters, without a word to it: those among a page
/// of the inbox. Returns which were taken out, and where to go on.
pub(super) fn bury_revoked(
    view: &mut View,
    peer: PeerNumber,
    from: u64,
) -> Result<(Vec<u64>, Option<u64>), Refused> {
    let (arrivals, next) = waiting_of(view, peer, from, REVOKED_ROWS_MAX, REVOKED_BYTES_MAX)?;
    let mut taken = Vec::with_capacity(arrivals.len());
    for arrival in &arrivals {
        let row = match row(view, *arrival) {
            Ok(row) => row.filter(|row| row.peer == peer),
            // It stays for whoever comes upon it, as any record that does not open.
            Err(Refused::Damaged { .. }) => None,
            Err(refused) => return Err(refused),
        };
        let Some(row) = row else {
            continue;
        };
        let letter = DeadInLetter {
            peer,
            lane: row.lane,
            position: row.position,
            at_ms: view.now_ms(),
            reason: REVOKED.to_owned(),
            message: row.message,
        };
        dead_in::put(view, &letter)?;
        taken.push(*arrival);
    }
    take_out(view, taken.clone())?;
    Ok((taken, next))
}

fn clipped(mut output: Vec<u8>) -> Vec<u8> {
    output.truncate(OUTPUT_BYTES_MAX);
    output
}

/// A reason fits one line, here and where it is told.
fn clean(reason: &str) -> String {
    let mut clean = String::new();
    for letter in reason.chars() {
        if clean.len() + letter.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        clean.push(if letter.is_control() { ' ' } else { letter });
    }
    clean
}

/// Puts a dead letter back into the inbox, as new: behind what waits, with nothing counted.
pub(crate) fn retry_dead(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    at: Position,
) -> Result<(), Refused> {
    let letter = dead_in::find(view, peer, lane, at)?.ok_or(Refused::NoSuchArrivedLetter)?;
    held::check_intake(view, None)?;
    inbox::put_back(view, peer, lane, at, &letter.message)?;
    let gone = held::weight(&letter.message);
    held::Change::default().dead(0, gone).write(view)?;
    view.delete(Key::dead_in(peer, lane, at));
    Ok(())
}

/// Deletes a dead letter. Its sender was told when it was given up.
pub(crate) fn drop_dead(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    at: Position,
) -> Result<(), Refused> {
    let key = Key::dead_in(peer, lane, at);
    // One that does not open can be dropped as well.
    let gone = match dead_in::find(view, peer, lane, at) {
        Ok(None) => return Err(Refused::NoSuchArrivedLetter),
        Ok(Some(letter)) => held::weight(&letter.message),
        Err(fault) if fault.is_damage() => held::weight_of_damaged(view, &key),
        Err(fault) => return Err(fault.into()),
    };
    held::Change::default().dead(0, gone).write(view)?;
    view.delete(key);
    Ok(())
}

/// Where a message is that arrived here once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the inbox.
    Waiting {
        /// The message.
        row: InboxRow,
        /// What was tried with it.
        tries: Tries,
    },
    /// Given up here.
    Dead(DeadInLetter),
    /// It arrived, and is not here any more: it was handled, or refused.
    Left,
}

/// One step of looking for what a peer sent and nobody has handled: arrivals among `rows_max` rows or
/// `bytes_max` of messages, and where to go on.
fn waiting_of(
    view: &View,
    peer: PeerNumber,
    from: u64,
    rows_max: usize,
    bytes_max: usize,
) -> Result<(Vec<u64>, Option<u64>), ReadFault> {
    let totals = inbox::totals(view)?;
    let mut step = WaitingOf {
        peer,
        arrivals: Vec::new(),
        bytes: 0,
        looked_at: 0,
        limits: (rows_max, bytes_max),
        next: totals.first.max(from),
    };
    let end = end_of(&[Table::Inbox as u8]);
    let mut is_cut = false;
    let scanned = view.scan(&Key::inbox(step.next), &end, &mut |key, plain| {
        let arrival = key.last_u64();
        let row = plain
            .ok()
            .and_then(|plain| decode_row(arrival, &plain).ok());
        let flow = step.look(arrival, row);
        is_cut = flow.is_break();
        flow
    });
    match scanned {
        Ok(()) => return Ok((step.arrivals, is_cut.then_some(step.next))),
        // A block that cannot be read: what lies behind it is looked up one by one.
        Err(fault) if fault.is_damage() => {}
        Err(fault) => return Err(fault),
    }
    while step.next < totals.next {
        let arrival = step.next;
        let key = Key::inbox(arrival);
        let row = match read(view, &key, |bytes| decode_row(arrival, bytes)) {
            Ok(row) => row,
            Err(fault) if fault.is_damage() => None,
            Err(fault) => return Err(fault),
        };
        if step.look(arrival, row).is_break() {
            return Ok((step.arrivals, Some(step.next)));
        }
    }
    Ok((step.arrivals, None))
}

/// How far one step of [`waiting_of`] is.
struct WaitingOf {
    peer: PeerNumber,
    arrivals: Vec<u64>,
    bytes: usize,
    looked_at: usize,
    /// Rows and bytes.
    limits: (usize, usize),
    /// What is looked at next.
    next: u64,
}

impl WaitingOf {
    fn look(&mut self, arrival: u64, row: Option<InboxRow>) -> ControlFlow<()> {
        if let Some(row) = row {
            self.bytes += row.message.weight();
            if row.peer == self.peer {
                self.arrivals.push(arrival);
            }
        }
        self.looked_at += 1;
        self.next = arrival + 1;
        let (rows_max, bytes_max) = self.limits;
        if self.looked_at < rows_max && self.bytes < bytes_max {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// One step of looking for a message among `rows_max` waiting ones from `from` on: what was found,
/// or where to go on.
pub(crate) fn find_waiting(
    source: &impl Source,
    peer: Option<PeerNumber>,
    at: Position,
    from: u64,
    rows_max: usize,
) -> Result<Result<(InboxRow, Tries), Option<u64>>, ReadFault> {
    let first = inbox::totals(source)?.first.max(from);
    let (mut found, mut next, mut seen) = (None, None, 0);
    let end = end_of(&[Table::Inbox as u8]);
    source.scan(&Key::inbox(first), &end, &mut |key, plain| {
        if seen >= rows_max {
            next = Some(key.last_u64());
            return ControlFlow::Break(());
        }
        seen += 1;
        if let Ok(Ok(row)) = plain.map(|plain| decode_row(key.last_u64(), &plain))
            && row.position == at
            && peer.is_none_or(|peer| peer == row.peer)
        {
            found = Some(row);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    match found {
        Some(row) => {
            let tries = tries::of(source, row.arrival)?;
            Ok(Ok((row, tries)))
        }
        None => Ok(Err(next)),
    }
}

/// Where a message is that does not wait: among the dead letters, or gone.
pub(crate) fn find_left(
    source: &impl Source,
    peer: Option<PeerNumber>,
    at: Position,
) -> Result<Option<Whereabouts>, ReadFault> {
    let peers = match peer {
        Some(peer) => vec![peer],
        None => peers::every(source)?
            .iter()
            .map(|peer| peer.number)
            .collect(),
    };
    for peer in peers {
        if let Some(letter) = dead_in::find(source, peer, Lane::User, at)? {
            return Ok(Some(Whereabouts::Dead(letter)));
        }
        let mark = marks::mark(source, peer, Lane::User, at.epoch)?;
        if mark.is_some_and(|settled| settled >= at.sequence) {
            return Ok(Some(Whereabouts::Left));
        }
    }
    Ok(None)
}
