//! What each machine keeps about itself: events, actors, sessions, queues, counters.

use std::collections::{BTreeMap, BTreeSet};

use packhorse_actors::store::{QUEUE_BYTES_MAX, QUEUE_JOBS_MAX};

use super::Violation;
use super::history::History;
use crate::ledger::{Depths, Life, Place, What};
use crate::plan::Node;

/// Decisions travel in mailboxes and bytes do not, so no mailbox is ever long.
const MAILBOX_MAX: u64 = 1_024;
/// At rest timers tick and consumers ask again.
const MAILBOX_AT_REST_MAX: u64 = 4;
/// QUIC handshakes of strangers, links without a knock, handshakes behind it.
const HALF_OPEN_MAX: usize = 512;
const CHEAP_MAX: usize = 1_024;
const COSTLY_MAX: usize = 64;

/// Whether an actor is a session and not their supervisor.
fn is_session(actor: &str) -> bool {
    let peer = actor.strip_prefix("session ");
    peer.is_some_and(|peer| peer.parse::<u32>().is_ok())
}

/// An event never changes under its number.
///
/// Weakened: what was read within the window of a disk that was put back is not compared with what
/// is read behind it, because its numbers are given out again.
pub(crate) fn events_keep_their_numbers(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut known: BTreeMap<(Node, u64), (u64, &What)> = BTreeMap::new();
    for entry in history.entries() {
        let What::Event { number, .. } = &entry.what else {
            continue;
        };
        let node = entry.place.node;
        let before = known.insert((node, *number), (entry.at_ms, &entry.what));
        if let Some((before_ms, before)) = before
            && *before != entry.what
            && !history.doubts.is_undone(node, before_ms, entry.at_ms)
        {
            found.push(Violation::new(
                "events-keep-their-numbers",
                format!(
                    "node {node}: {before:?} at {before_ms} ms, {:?} at {} ms",
                    entry.what, entry.at_ms
                ),
            ));
        }
    }
    found
}

/// Nobody tells of a store that was set back, of a copy, or of commits that are lost, about a machine
/// of which there was none.
pub(crate) fn alarms_are_true(history: &History<'_>) -> Vec<Violation> {
    const ALARMS: [&str; 5] = [
        "peer.copy_seen",
        "node.rolled_back",
        "peer.rolled_back",
        "peer.identity_in_use",
        "store.lost_commits",
    ];
    let mut found = Vec::new();
    let mut told = BTreeSet::new();
    for entry in history.entries() {
        let What::Event {
            number,
            kind,
            peer,
            text,
            ..
        } = &entry.what
        else {
            continue;
        };
        let node = entry.place.node;
        let is_spotless = |node: Node| history.doubts.is_spotless(node);
        let is_false = is_spotless(node) && peer.is_none_or(is_spotless);
        if ALARMS.contains(kind) && is_false && told.insert((node, *number)) {
            let text = format!("node {node} about {peer:?}: {kind}: {text}");
            found.push(Violation::new("alarms-are-true", text));
        }
    }
    found
}

/// A machine has one session with a peer at a time: the one before is told as ended before the next
/// is told as started.
pub(crate) fn one_session_per_peer(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut alive: BTreeMap<(Place, &str), u64> = BTreeMap::new();
    // Copies have sessions too.
    for entry in &history.ledger.entries {
        match &entry.what {
            What::Life {
                actor,
                incarnation,
                life,
            } if is_session(actor) => {
                let key = (entry.place, actor.as_str());
                match life {
                    Life::Started => {
                        if let Some(before) = alive.insert(key, *incarnation) {
                            found.push(Violation::new(
                                "one-session-per-peer",
                                format!("{} started {actor} {incarnation} at {} ms while {before} lived", entry.place, entry.at_ms),
                            ));
                        }
                    }
                    Life::Exited(_) | Life::GivenUp | Life::Restarting => {
                        if alive.get(&key) == Some(incarnation) {
                            alive.remove(&key);
                        }
                    }
                }
            }
            // Sessions end with their supervisor, which is told of it or not.
            What::Life { actor, .. } if actor == "session supervisor" => {
                alive.retain(|(place, _), _| *place != entry.place);
            }
            What::LifeMissed | What::Ended { .. } => {
                alive.retain(|(place, _), _| *place != entry.place);
            }
            _ => {}
        }
    }
    if history.end.unrest.is_none() {
        for pair in &history.plan.topology.pairs {
            let sees = |node: Node, peer: Node| {
                let end = history.end.nodes.get(node);
                end.is_some_and(|end| end.connected.contains(&peer))
            };
            if sees(pair.a, pair.b) != sees(pair.b, pair.a) {
                let (a, b) = (pair.a, pair.b);
                let text = format!(
                    "of nodes {a} and {b} one has a session with the other and not the other way"
                );
                found.push(Violation::new("one-session-per-peer", text));
            }
        }
    }
    found
}

/// A session that was told as ended, or in whose place another one was started, has nothing written
/// any more.
pub(crate) fn a_displaced_session_does_nothing(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    // By process and peer: incarnations up to this one are over.
    let mut over: BTreeMap<(Place, String), u64> = BTreeMap::new();
    for entry in &history.ledger.entries {
        match &entry.what {
            What::Life {
                actor,
                incarnation,
                life,
            } if is_session(actor) => {
                let until = match life {
                    Life::Started => incarnation.saturating_sub(1),
                    _ => *incarnation,
                };
                let known = over.entry((entry.place, actor.clone())).or_default();
                *known = (*known).max(until);
            }
            What::SessionWork {
                actor,
                incarnation,
                what,
            } => {
                let key = (entry.place, actor.clone());
                if over.get(&key).is_some_and(|over| incarnation <= over) {
                    found.push(Violation::new(
                        "a-displaced-session-does-nothing",
                        format!(
                            "{}: {actor} {incarnation} asked to {what} at {} ms",
                            entry.place, entry.at_ms
                        ),
                    ));
                }
            }
            _ => {}
        }
    }
    found
}

/// No queue is ever longer than its limit.
pub(crate) fn queues_keep_their_limits(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for entry in &history.ledger.entries {
        let What::Depth(depths) = &entry.what else {
            continue;
        };
        let is_over = depths.jobs > QUEUE_JOBS_MAX
            || depths.job_bytes > QUEUE_BYTES_MAX
            || depths.mailbox.0 > MAILBOX_MAX
            || depths.half_open > HALF_OPEN_MAX
            || depths.cheap > CHEAP_MAX
            || depths.costly > COSTLY_MAX;
        if is_over {
            let text = format!("{} at {} ms: {depths:?}", entry.place, entry.at_ms);
            found.push(Violation::new("queues-keep-their-limits", text));
        }
    }
    found
}

/// At rest nothing is taken: no job and no byte of the store's queue, no mailbox beyond what timers
/// send, no place of a stranger, no lease. Every actor of the root's runs, and nothing was found that does not open.
pub(crate) fn permits_return(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if history.end.unrest.is_some() {
        return found;
    }
    for (node, end) in history.end.nodes.iter().enumerate() {
        let mut wrong = |what: String| {
            found.push(Violation::new(
                "permits-return",
                format!("node {node} at rest: {what}"),
            ));
        };
        let Depths {
            jobs,
            job_bytes,
            mailbox,
            half_open,
            cheap,
            costly,
            ..
        } = &end.depths;
        let taken = *jobs + *job_bytes + half_open + cheap + costly;
        if taken > 0 || mailbox.0 > MAILBOX_AT_REST_MAX {
            wrong(format!("{:?}", end.depths));
        }
        if !end.leased.is_empty() {
            wrong(format!("somebody has arrivals {:?}", end.leased));
        }
        for (actor, is_running) in &end.actors {
            if !is_running && !is_session(actor) {
                wrong(format!("{actor} does not run"));
            }
        }
        if end.quarantined > 0 {
            wrong(format!("{} records do not open", end.quarantined));
        }
    }
    found
}

/// What the store counts for its boxes is what lies in them. Reports that wait are not listed, so
/// the outbox is compared when none do.
pub(crate) fn counters_are_right(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (node, end) in history.end.nodes.iter().enumerate() {
        let has_reports = end.waiting.iter().any(|(_, lanes)| lanes[1] > 0);
        let outbox = end.outbox.iter().map(|row| row.weight).sum();
        let inbox = end.inbox.iter().map(|row| row.weight).sum();
        let dead: u64 = end.letters.iter().map(|letter| letter.weight).sum();
        let dead = dead + end.letters_in.iter().map(|row| row.weight).sum::<u64>();
        let lies = [if has_reports { end.held[0] } else { outbox }, inbox, dead];
        if lies != end.held {
            let text = format!(
                "node {node} counts {:?} bytes, and {lies:?} are there",
                end.held
            );
            found.push(Violation::new("counters-are-right", text));
        }
    }
    found
}
