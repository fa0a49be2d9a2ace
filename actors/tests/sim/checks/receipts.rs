//! What senders are told: upwards only, the truth at the end, and a cause for every letter.

use std::collections::BTreeMap;

use packhorse_actors::store::{DeadState, ReceiptId, ReceiptState};
use packhorse_protocol::epoch::Lane;
use packhorse_protocol::grant::Capability;
use packhorse_protocol::message::DeliveryClass;

use super::Violation;
use super::grants::Timeline;
use super::history::History;
use crate::ledger::{ByHand, Verdict, What};
use crate::plan::{Node, Op};

/// One look at a receipt.
#[derive(Clone, Debug)]
struct Look {
    at_ms: u64,
    state: ReceiptState,
    may_be_delivered: bool,
}

/// A receipt only climbs: accepted, stored, done; or failed. What failed is later stored when its
/// letter said that it may have been delivered, done when it was put back there, and anything when it
/// was sent again by hand. Done is the last word.
///
/// Weakened: not compared across the moment in which the sender's disk was put back.
pub(crate) fn receipts_only_climb(history: &History<'_>) -> Vec<Violation> {
    let mut looks: BTreeMap<(Node, ReceiptId), Vec<Look>> = BTreeMap::new();
    let mut look = |node, id, at_ms, state, reason: Option<&str>| {
        looks.entry((node, id)).or_default().push(Look {
            at_ms,
            state,
            may_be_delivered: reason
                .is_some_and(|reason| reason.contains("may have been delivered")),
        });
    };
    for entry in history.entries() {
        if let What::Receipt {
            id,
            state: Some(state),
            reason,
        } = &entry.what
        {
            look(
                entry.place.node,
                *id,
                entry.at_ms,
                *state,
                reason.as_deref(),
            );
        }
    }
    for (node, end) in history.end.nodes.iter().enumerate() {
        for (id, receipt) in &end.receipts {
            if let Some(receipt) = receipt {
                let at_ms = history.end.at_ms;
                look(node, *id, at_ms, receipt.state, receipt.reason.as_deref());
            }
        }
    }
    let mut found = Vec::new();
    for ((node, id), looks) in looks {
        for pair in looks.windows(2) {
            let [before, after] = pair else {
                continue;
            };
            let is_undone = history.doubts.is_undone(node, before.at_ms, after.at_ms);
            if is_undone || climbs(before, after.state) {
                continue;
            }
            let ops = history.ops_of(node, id);
            let is_retried = history.is_retried(node, &ops, before.at_ms, after.at_ms);
            if before.state == ReceiptState::Failed && is_retried {
                continue;
            }
            found.push(Violation::new(
                "receipts-only-climb",
                format!(
                    "{id} of node {node}, ops {ops:?}: {:?} at {} ms, {:?} at {} ms",
                    before.state, before.at_ms, after.state, after.at_ms
                ),
            ));
        }
    }
    found
}

fn climbs(before: &Look, after: ReceiptState) -> bool {
    use ReceiptState::{Accepted, Done, Failed, Stored};
    match (before.state, after) {
        (Accepted, _) | (Stored, Stored | Done | Failed) | (Failed, Failed | Done) => true,
        (Failed, Stored) => before.may_be_delivered,
        (Done, after) => after == Done,
        (Stored | Failed, Accepted) => false,
    }
}

/// At rest a sender knows how each message ended that arrived: stored while it waits there, failed
/// when it was given up there, done when it was handled; and done only when somebody there said so.
///
/// Weakened: nothing is asked of what was first sent before the last window of its sender or recipient
/// closed, nor of a pair of which one forgot the other, because nobody is told then; nor when the run
/// did not come to rest.
pub(crate) fn ends_are_told(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if history.end.unrest.is_some() {
        return found;
    }
    for ((node, id), taken) in &history.taken {
        let Some(taken) = taken.last() else {
            continue;
        };
        let (to, ops) = (taken.to, history.ops_of(*node, *id));
        let is_clear = history.is_clear(*node, to, &ops);
        if !is_clear || history.doubts.forgot(*node, to) || id.lane != Lane::User {
            continue;
        }
        let (Some(end), Some(there)) = (history.end.nodes.get(*node), history.end.nodes.get(to))
        else {
            continue;
        };
        let Some(Some(receipt)) = end.receipts.get(id) else {
            continue;
        };
        let is_it = |from: Node, position| (from, position) == (*node, id.position);
        let arrived: Vec<_> = history
            .arrived
            .iter()
            .filter(|arrived| arrived.node == to && is_it(arrived.from, arrived.position))
            .collect();
        if arrived.is_empty() {
            continue;
        }
        let was_put_back = history.put_back(to, *node, id.position) > 0;
        // Somebody deleted its letter while it was open whether it had arrived.
        let is_dropped = history.deeds.iter().any(|deed| {
            let is_it = matches!(deed.deed, ByHand::DropDead { id: dropped } if dropped == id);
            is_it && deed.node == *node && deed.is_maybe_done()
        });
        let state = receipt.state;
        let waits = there.inbox.iter().any(|row| is_it(row.from, row.position));
        let mut letters_in = there.letters_in.iter();
        let given_up = letters_in.find(|row| is_it(row.from, row.position));
        let words: Vec<_> = arrived
            .iter()
            .flat_map(|arrived| history.words_of(to, arrived.arrival))
            .collect();
        let is_handled = words
            .iter()
            .any(|word| matches!(word.verdict, Verdict::Done | Verdict::Acknowledged));
        let may_fail = words
            .iter()
            .any(|word| matches!(word.verdict, Verdict::Dead | Verdict::Failed));
        let is_true = if is_dropped && state == ReceiptState::Failed {
            true
        } else if waits {
            state == ReceiptState::Stored || (was_put_back && state == ReceiptState::Failed)
        } else if given_up.is_some() {
            state == ReceiptState::Failed
        } else {
            match state {
                ReceiptState::Done => is_handled,
                ReceiptState::Failed => may_fail,
                ReceiptState::Accepted | ReceiptState::Stored => false,
            }
        };
        if !is_true {
            let place = match given_up {
                _ if waits => "it waits there".to_owned(),
                Some(letter) => format!("it was given up there: {}", letter.reason),
                None => "it is gone there".to_owned(),
            };
            found.push(Violation::new(
                "ends-are-told",
                format!(
                    "node {node} says {state:?} of {id}, ops {:?} for node {to}, and {place} (handled: {is_handled}, may have failed: {may_fail})",
                    history.ops_of(*node, *id)
                ),
            ));
        }
    }
    found
}

/// Every dead letter has a cause: a recipient refuses only what a grant may have denied; given up is
/// only what is moderate, after a minute at the least; expired only what has an end; dropped only
/// what somebody dropped; revoked only what was for a peer that was forgotten; set back only where a
/// disk was copied or put back. Nothing is damaged and nothing undecodable.
pub(crate) fn letters_have_causes(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let seen = history.entries().filter_map(|entry| match &entry.what {
        What::Letter {
            to, id, op, code, ..
        } => Some((entry.place.node, *to, *id, *op, *code, entry.at_ms)),
        _ => None,
    });
    let at_end = history
        .end
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(node, end)| {
            let letters = end.letters.iter();
            letters.map(move |letter| {
                let (to, id, op) = (letter.to, letter.id, letter.op);
                (node, to, id, op, letter.code, history.end.at_ms)
            })
        });
    let mut known = std::collections::BTreeSet::new();
    for (node, to, id, op, code, at_ms) in seen.chain(at_end) {
        if !known.insert((node, id, code)) {
            continue;
        }
        let is_right = op.is_some_and(|op| has_cause(history, node, to, id, op, code, at_ms));
        if !is_right {
            found.push(Violation::new(
                "letters-have-causes",
                format!("node {node} has a letter {id} for node {to}, op {op:?}, code {code:#06x}, without a cause"),
            ));
        }
    }
    for (node, end) in history.end.nodes.iter().enumerate() {
        for letter in &end.letters {
            if letter.is_open && letter.state != DeadState::MayBeDelivered {
                found.push(Violation::new(
                    "letters-have-causes",
                    format!(
                        "node {node} calls {} {:?} while it is open",
                        letter.id, letter.state
                    ),
                ));
            }
            // A clock that goes back gives nothing up early either.
            if letter.code == 0xff02 && letter.at_ms < letter.born_ms.saturating_add(60_000) {
                found.push(Violation::new(
                    "letters-have-causes",
                    format!(
                        "node {node} gave {} up after {} ms",
                        letter.id,
                        letter.at_ms.saturating_sub(letter.born_ms)
                    ),
                ));
            }
        }
    }
    found
}

fn has_cause(
    history: &History<'_>,
    node: Node,
    to: Node,
    id: ReceiptId,
    op: Op,
    code: u16,
    at_ms: u64,
) -> bool {
    let Some((_, _, letter)) = history.plan.letter(op) else {
        return false;
    };
    match code {
        // No grant.
        1 => {
            let mut asked = history.sends.iter().filter(|sent| sent.ops.contains(&op));
            let asked_ms = asked.next().map_or(0, |sent| sent.asked_ms);
            let timeline = Timeline::of(history, to, node);
            timeline.may_deny(Capability::MessageSend, letter.topic, asked_ms, at_ms)
        }
        0xff02 => letter.class == DeliveryClass::Moderate,
        0xff03 => letter.expires_in_ms.is_some(),
        0xff04 => history.deeds.iter().any(|deed| match deed.deed {
            ByHand::DropWaiting { to: of, ids } => {
                let is_named =
                    ids.contains(&id) || (ids.is_empty() && of.is_none_or(|of| of == to));
                deed.node == node && deed.is_maybe_done() && is_named
            }
            _ => false,
        }),
        0xff05 => history.doubts.has_forgotten(node, to),
        0xff06 | 0xff07 => !history.doubts.is_spotless(node),
        _ => false,
    }
}
