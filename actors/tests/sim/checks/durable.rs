//! What was accepted, or seen, is somewhere for ever.

use std::collections::BTreeSet;

use packhorse_actors::store::{ReceiptId, ReceiptState};

use super::Violation;
use super::end::ReceiptEnd;
use super::history::History;
use crate::ledger::{ByHand, Verdict, What};
use crate::plan::{Node, Op};

/// A receipt that a client was given is known from then on, at every look and at the end.
///
/// Weakened: a machine whose disk was put back may not know what it gave out within the window.
pub(crate) fn receipts_are_known(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut miss = |node: Node, id: ReceiptId, at_ms: u64| {
        let taken = history.taken.get(&(node, id)).into_iter().flatten();
        let is_owed = taken
            .filter(|taken| taken.answered_ms < at_ms)
            .any(|taken| !history.doubts.is_undone(node, taken.answered_ms, at_ms));
        if is_owed {
            found.push(Violation::new(
                "receipts-are-known",
                format!("node {node} does not know {id} at {at_ms} ms, which it had given out"),
            ));
        }
    };
    for entry in history.entries() {
        if let What::Receipt {
            id, state: None, ..
        } = &entry.what
        {
            miss(entry.place.node, *id, entry.at_ms);
        }
    }
    for (node, state) in history.end.nodes.iter().enumerate() {
        for (id, receipt) in &state.receipts {
            if receipt.is_none() {
                miss(node, *id, history.end.at_ms);
            }
        }
    }
    found
}

/// A message that was accepted is where its receipt says: waiting here, arrived there, or given up
/// with a dead letter. What arrived there is in that inbox, among its letters, or somebody asked for
/// it to leave.
///
/// Weakened: nothing is asked of what was first sent before the last window of its sender or its
/// recipient closed; either may then say what only the other disk knows.
pub(crate) fn accepted_is_accounted_for(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for ((node, id), taken) in &history.taken {
        let Some(end) = history.end.nodes.get(*node).filter(|end| end.is_read()) else {
            continue;
        };
        let Some(to) = taken.first().map(|taken| taken.to) else {
            continue;
        };
        let ops = history.ops_of(*node, *id);
        let is_read = history.end.nodes.get(to).is_some_and(|end| end.is_read());
        if !history.is_clear(*node, to, &ops) || !is_read {
            continue;
        }
        let Some(receipt) = end.receipts.get(id) else {
            let text = format!("nobody read {id} of node {node} at the end");
            found.push(Violation::new("the-run-itself", text));
            continue;
        };
        let Some(ReceiptEnd { state, reason }) = receipt else {
            // Told by another rule.
            continue;
        };
        let is_there = match state {
            ReceiptState::Accepted => is_waiting(history, *node, &ops),
            ReceiptState::Stored | ReceiptState::Done => is_stored(history, *node, to, &ops),
            ReceiptState::Failed => {
                is_dead_here(history, *node, &ops) || is_given_up_there(history, *node, to, &ops)
            }
        };
        if !is_there {
            found.push(Violation::new(
                "accepted-is-accounted-for",
                format!(
                    "node {node} says {state:?} ({}) of {id}, ops {ops:?} for node {to}, accepted at {} ms, and it is not there",
                    reason.as_deref().unwrap_or(""),
                    taken.last().map_or(0, |taken| taken.answered_ms),
                ),
            ));
        }
    }
    found
}

fn is_one_of(op: Option<Op>, ops: &BTreeSet<Op>) -> bool {
    op.is_some_and(|op| ops.contains(&op))
}

fn is_waiting(history: &History<'_>, node: Node, ops: &BTreeSet<Op>) -> bool {
    let rows = &history.end.nodes[node].outbox;
    rows.iter().any(|row| is_one_of(row.op, ops))
}

fn is_stored(history: &History<'_>, sender: Node, to: Node, ops: &BTreeSet<Op>) -> bool {
    let arrived = history.arrived.iter().filter(|arrived| {
        arrived.node == to && arrived.from == sender && is_one_of(arrived.op, ops)
    });
    for arrived in arrived {
        // Seen at the end: it is there.
        if arrived.life == u32::MAX {
            return true;
        }
        if has_leave(history, to, arrived.arrival)
            || history.is_dropped_there(to, sender, arrived.position)
        {
            return true;
        }
    }
    false
}

/// Whether somebody asked for an arrival to leave, in a life that counts.
fn has_leave(history: &History<'_>, node: Node, arrival: u64) -> bool {
    let words = history.words_of(node, arrival).iter();
    words
        .filter(|word| word.verdict.is_last())
        .any(|word| !history.doubts.is_undone(node, word.asked_ms, u64::MAX))
}

fn is_dead_here(history: &History<'_>, node: Node, ops: &BTreeSet<Op>) -> bool {
    let letters = &history.end.nodes[node].letters;
    let is_dropped = || {
        history.deeds.iter().any(|deed| match deed.deed {
            ByHand::DropDead { id } => {
                let of_id = history.ops_of(node, *id);
                deed.node == node && deed.is_maybe_done() && !of_id.is_disjoint(ops)
            }
            _ => false,
        })
    };
    letters.iter().any(|letter| is_one_of(letter.op, ops)) || is_dropped()
}

fn is_given_up_there(history: &History<'_>, sender: Node, to: Node, ops: &BTreeSet<Op>) -> bool {
    let letters = history.end.nodes.get(to).map(|end| &end.letters_in);
    let is_letter = letters
        .into_iter()
        .flatten()
        .any(|row| row.from == sender && is_one_of(row.op, ops));
    let mut arrived = history.arrived.iter().filter(|arrived| {
        arrived.node == to && arrived.from == sender && is_one_of(arrived.op, ops)
    });
    // It was given up there, and then put back or dropped by somebody.
    is_letter
        || arrived.any(|arrived| {
            let words = history.words_of(to, arrived.arrival).iter();
            let is_ended = words
                .into_iter()
                .any(|word| matches!(word.verdict, Verdict::Dead | Verdict::Failed));
            let is_dealt_with = history.is_dropped_there(to, sender, arrived.position)
                || history.put_back(to, sender, arrived.position) > 0;
            is_ended && is_dealt_with
        })
}

/// What anybody saw stays: a message in an inbox is there at the end, given up there, or somebody
/// asked for it to leave; a row of an outbox has a receipt at the end. So nothing is shown that a
/// power cut can take back.
///
/// Weakened: what was seen within the window of a disk that was put back is undone with it.
pub(crate) fn seen_is_accounted_for(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for arrived in &history.arrived {
        let (node, from, position) = (arrived.node, arrived.from, arrived.position);
        let Some(end) = history.end.nodes.get(node).filter(|end| end.is_read()) else {
            continue;
        };
        if history.doubts.is_undone(node, arrived.at_ms, u64::MAX)
            || !known.insert((node, from, position, arrived.arrival))
        {
            continue;
        }
        let mut rows = end.inbox.iter().chain(&end.letters_in);
        let is_there = rows.any(|row| row.from == from && row.position == position)
            || has_leave(history, node, arrived.arrival)
            || history.is_dropped_there(node, from, position)
            // It was put back under another number, by which it was seen or is there.
            || history.put_back(node, from, position) > 0;
        if !is_there {
            found.push(Violation::new(
                "seen-is-accounted-for",
                format!(
                    "node {node} showed arrival {} from node {from}, op {:?}, at {} ms; nobody took it, and it is gone",
                    arrived.arrival, arrived.op, arrived.at_ms
                ),
            ));
        }
    }
    for entry in history.entries() {
        let node = entry.place.node;
        let What::OutRow { id, .. } = &entry.what else {
            continue;
        };
        let end = history.end.nodes.get(node);
        let is_lost = end.is_some_and(|end| matches!(end.receipts.get(id), Some(None)));
        if is_lost && !history.doubts.is_undone(node, entry.at_ms, u64::MAX) {
            found.push(Violation::new(
                "seen-is-accounted-for",
                format!(
                    "node {node} showed {id} in its outbox at {} ms and does not know it",
                    entry.at_ms
                ),
            ));
        }
    }
    found
}
