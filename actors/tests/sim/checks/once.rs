//! What arrives: once, in order, and as it was sent.

use std::collections::{BTreeMap, BTreeSet};

use packhorse_actors::store::{DeadState, ReceiptState};
use packhorse_protocol::epoch::{Lane, Position};
use packhorse_protocol::message::DeliveryClass;

use super::Violation;
use super::history::{Arrived, History, Taken};
use crate::ledger::{Call, What};
use crate::plan::{Node, Op};

/// Refusals of the recipient are below, this node's own reasons for a letter from here on.
const OWN_CODES_FROM: u16 = 0xff00;

/// What counts of what was seen: not what a disk that was put back has undone.
fn standing<'h, 'a>(history: &'h History<'a>) -> impl Iterator<Item = &'h Arrived<'a>> {
    history.arrived.iter().filter(|arrived| {
        !history
            .doubts
            .is_undone(arrived.node, arrived.at_ms, u64::MAX)
    })
}

/// An op is stored at its recipient under one position only, however often it was sent, repeated
/// under its key, dropped or sent again by hand; a position has one arrival, and one more for each
/// time that it was put back by hand; and an arrival number stands for one message for ever.
///
/// Weakened: the first part says nothing of a sender whose disk was copied or put back, which may
/// have forgotten keys and letters. What a recipient showed within the window of a disk that was put
/// back does not count.
pub(crate) fn stored_once(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut positions: BTreeMap<(Node, Op), BTreeSet<(Node, Position)>> = BTreeMap::new();
    let mut arrivals: BTreeMap<(Node, Node, Position), BTreeSet<u64>> = BTreeMap::new();
    let mut numbers: BTreeMap<(Node, u64), BTreeSet<(Node, Position)>> = BTreeMap::new();
    for arrived in standing(history) {
        let (node, from, position) = (arrived.node, arrived.from, arrived.position);
        if let Some(op) = arrived.op
            && history.doubts.is_spotless(from)
        {
            positions
                .entry((node, op))
                .or_default()
                .insert((from, position));
        }
        if arrived.arrival > 0 {
            let at = (node, from, position);
            arrivals.entry(at).or_default().insert(arrived.arrival);
            let number = (node, arrived.arrival);
            numbers.entry(number).or_default().insert((from, position));
        }
    }
    for ((node, op), places) in positions {
        if places.len() > 1 {
            let text = format!("op {op} was stored at node {node} under {places:?}");
            found.push(Violation::new("stored-once", text));
        }
    }
    for ((node, from, position), numbers) in arrivals {
        if numbers.len() > 1 + history.put_back(node, from, position) {
            let text = format!("{position:?} of node {from} arrived at node {node} as {numbers:?}");
            found.push(Violation::new("stored-once", text));
        }
    }
    for ((node, arrival), places) in numbers {
        if places.len() > 1 {
            let text = format!("arrival {arrival} of node {node} stood for {places:?}");
            found.push(Violation::new("stored-once", text));
        }
    }
    found
}

/// Messages of one sender stand in the inbox in the order of their positions, and positions in the
/// order in which clients were answered before they asked again.
///
/// Weakened: nothing is asked of a sender whose disk was copied or put back, whose epochs are not in
/// order then; what was put back by hand stands where it was put.
pub(crate) fn in_order(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut lines: BTreeMap<(Node, Node), BTreeMap<u64, Position>> = BTreeMap::new();
    for arrived in standing(history) {
        let (node, from) = (arrived.node, arrived.from);
        let is_moved = history.put_back(node, from, arrived.position) > 0;
        if arrived.arrival > 0 && !is_moved && history.doubts.is_spotless(from) {
            let line = lines.entry((node, from)).or_default();
            line.insert(arrived.arrival, arrived.position);
        }
    }
    for ((node, from), line) in lines {
        let rows: Vec<(u64, Position)> = line.into_iter().collect();
        for pair in rows.windows(2) {
            let [(before, first), (after, second)] = pair else {
                continue;
            };
            if first >= second {
                found.push(Violation::new(
                    "in-order",
                    format!("node {node} has {first:?} of node {from} as arrival {before} and {second:?} as {after}"),
                ));
            }
        }
    }
    let mut given: BTreeMap<(Node, Node), Vec<(Taken, Position)>> = BTreeMap::new();
    for ((node, id), taken) in &history.taken {
        // The first answer that names it and is not itself a repetition.
        let first = taken.iter().find(|taken| !taken.repeated);
        if let Some(taken) = first.filter(|_| id.lane == Lane::User) {
            let line = given.entry((*node, taken.to)).or_default();
            line.push((*taken, id.position));
        }
    }
    for ((node, to), mut line) in given {
        if !history.doubts.is_spotless(node) {
            continue;
        }
        line.sort_by_key(|(_, position)| *position);
        // From the end: when anything behind was answered at the earliest.
        let mut answered: Option<(u64, Op)> = None;
        for (taken, _) in line.iter().rev() {
            if let Some((answered_ms, op)) = answered
                && answered_ms < taken.asked_ms
            {
                found.push(Violation::new(
                    "in-order",
                    format!("node {node} accepted op {op} for node {to} before op {} was asked, and placed it behind", taken.op),
                ));
            }
            if answered.is_none_or(|(ms, _)| taken.answered_ms < ms) {
                answered = Some((taken.answered_ms, taken.op));
            }
        }
    }
    found
}

/// A key of a sender and recipient has one receipt, however often it was used.
///
/// Weakened: a sender whose disk was put back may have forgotten the key.
pub(crate) fn keys_have_one_receipt(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut ids: BTreeMap<(Node, Node, &str), BTreeSet<_>> = BTreeMap::new();
    for sent in &history.sends {
        let Some((answered_ms, _)) = sent.answer else {
            continue;
        };
        if history.doubts.is_undone(sent.from, answered_ms, u64::MAX) {
            continue;
        }
        for accepted in sent.accepted() {
            let letter = history.plan.letter(accepted.op);
            if let Some(key) = letter.and_then(|(_, _, letter)| letter.key.as_deref()) {
                let of_key = ids.entry((sent.from, sent.to, key)).or_default();
                of_key.insert(accepted.id);
            }
        }
    }
    for ((node, to, key), ids) in ids {
        if ids.len() > 1 {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let text = format!("node {node} gave {key:?} for node {to} the receipts {ids:?}");
            found.push(Violation::new("keys-have-one-receipt", text));
        }
    }
    found
}

/// Every message that is seen is a letter of the plan, byte for byte, at the peer that it was for,
/// from the machine that sends it; under its position it is what its sender accepted there last. What
/// is left in an outbox or a dead letter is a letter of that machine for that peer as well.
///
/// Weakened: which of the replaced and the replacing letter it is, is not asked of a sender whose
/// disk was copied or put back.
pub(crate) fn arrives_as_sent(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for arrived in &history.arrived {
        let (node, from, position) = (arrived.node, arrived.from, arrived.position);
        if !known.insert((node, from, position, arrived.op, arrived.is_intact)) {
            continue;
        }
        let mut wrong = |what: String| {
            found.push(Violation::new(
                "arrives-as-sent",
                format!(
                    "arrival {} at node {node}, {position:?} of node {from}: {what}",
                    arrived.arrival
                ),
            ));
        };
        let Some(op) = arrived.op else {
            wrong("it names no op".to_owned());
            continue;
        };
        match history.plan.letter(op) {
            Some((sender, to, _)) if (*sender, *to) == (from, node) => {}
            _ => wrong(format!(
                "op {op} is none that this machine sends to that one"
            )),
        }
        if !arrived.is_intact {
            wrong(format!("it is not what op {op} is"));
        }
        if !history.doubts.is_spotless(from) {
            continue;
        }
        let Some(id) = history.receipt_at(from, node, position) else {
            continue;
        };
        let taken = history
            .taken
            .get(&(from, id))
            .map_or(&[][..], Vec::as_slice);
        let of_op: Vec<&Taken> = taken.iter().filter(|taken| taken.op == op).collect();
        if of_op.is_empty() {
            if !may_be_unknown(history, op) {
                wrong(format!("op {op} was never accepted under {id}"));
            }
            continue;
        }
        let last_ms = of_op.iter().map(|taken| taken.answered_ms).max();
        let replaced = taken
            .iter()
            .find(|taken| taken.op != op && Some(taken.asked_ms) > last_ms);
        if let Some(by) = replaced {
            wrong(format!("op {op} had been replaced by op {}", by.op));
        }
    }
    for (node, end) in history.end.nodes.iter().enumerate() {
        let rows = end.outbox.iter().map(|row| (row.op, row.to));
        let letters = end.letters.iter().map(|letter| (letter.op, letter.to));
        for (op, to) in rows.chain(letters) {
            let letter = op.and_then(|op| history.plan.letter(op));
            if letter.is_none_or(|(sender, of, _)| (*sender, *of) != (node, to)) {
                let text = format!(
                    "node {node} keeps op {op:?} for node {to}, which is none of its letters"
                );
                found.push(Violation::new("arrives-as-sent", text));
            }
        }
    }
    found
}

/// Whether an op may have been accepted without anybody having been told.
fn may_be_unknown(history: &History<'_>, op: Op) -> bool {
    let mut sends = history.sends.iter();
    sends.any(|sent| sent.is_unknown() && sent.ops.contains(&op))
}

/// What was refused is nowhere: an op of which every call was refused was never seen at its
/// recipient; a message of which a dead letter says that its recipient refused it, or that it was
/// not delivered, never arrived there under that position, and its receipt is not called stored.
///
/// Weakened: letters of a sender whose disk was copied or put back say what that disk knows; a
/// recipient's is asked for what was sent after its last window only.
pub(crate) fn refused_is_not_stored(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut refused: BTreeMap<Op, bool> = BTreeMap::new();
    for sent in &history.sends {
        for op in sent.ops {
            let is_refused = refused.entry(*op).or_insert(true);
            *is_refused &= sent.is_refused();
        }
    }
    for arrived in &history.arrived {
        if let Some(op) = arrived.op
            && refused.get(&op) == Some(&true)
        {
            let text = format!(
                "op {op} was refused to its client and arrived at node {}",
                arrived.node
            );
            found.push(Violation::new("refused-is-not-stored", text));
        }
    }
    let seen = history.entries().filter_map(|entry| match &entry.what {
        What::Letter {
            to,
            id,
            state,
            code,
            ..
        } => Some((entry.place.node, *to, *id, *state, *code)),
        _ => None,
    });
    let at_end = history
        .end
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(node, end)| {
            let letters = end.letters.iter();
            letters.map(move |letter| (node, letter.to, letter.id, letter.state, letter.code))
        });
    let letters: BTreeSet<_> = seen.chain(at_end).collect();
    for (node, to, id, state, code) in letters {
        if state == DeadState::MayBeDelivered || id.lane != Lane::User {
            continue;
        }
        if !history.doubts.is_spotless(node) || !history.doubts.is_spotless(to) {
            continue;
        }
        let why = match code < OWN_CODES_FROM {
            true => "refused there",
            false => "not delivered",
        };
        let arrived = history.arrived.iter().find(|arrived| {
            (arrived.node, arrived.from, arrived.position) == (to, node, id.position)
        });
        if let Some(arrived) = arrived {
            found.push(Violation::new(
                "refused-is-not-stored",
                format!(
                    "a letter of node {node} says {why} of {id}, code {code:#06x}, and node {to} has it as arrival {} (op {:?})",
                    arrived.arrival, arrived.op
                ),
            ));
        }
        // A refusal is final. What was not delivered was maybe sent again, and is told by that.
        let receipt = history
            .end
            .nodes
            .get(node)
            .and_then(|end| end.receipts.get(&id));
        let is_told_stored = receipt.is_some_and(|receipt| {
            receipt.as_ref().is_some_and(|receipt| {
                matches!(receipt.state, ReceiptState::Stored | ReceiptState::Done)
            })
        });
        let ops = history.ops_of(node, id);
        if is_told_stored && !history.is_retried(node, &ops, 0, u64::MAX) {
            let text =
                format!("a letter of node {node} said {why} of {id}, and its receipt says stored");
            found.push(Violation::new("refused-is-not-stored", text));
        }
    }
    found
}

/// An ephemeral message is seen at most once, never when its sender was told that it was not sent,
/// and never where stored ones are.
pub(crate) fn ephemeral_is_now_or_never(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut unsent: BTreeSet<Op> = BTreeSet::new();
    let mut asked: BTreeMap<Call, Op> = BTreeMap::new();
    let mut seen: BTreeMap<Op, usize> = BTreeMap::new();
    // Copies count here: a message that both have is one too many.
    for entry in &history.ledger.entries {
        match &entry.what {
            What::AskedEphemeral { call, op, .. } => {
                asked.insert(*call, *op);
            }
            What::AnsweredEphemeral { call, sent: Err(_) } => {
                unsent.extend(asked.get(call).copied());
            }
            What::Saw(one) if one.is_ephemeral => {
                *seen.entry(one.op.unwrap_or(0)).or_default() += 1;
            }
            _ => {}
        }
    }
    for (op, count) in seen {
        let letter = history.plan.letter(op);
        let is_one = letter.is_some_and(|(_, _, letter)| letter.class == DeliveryClass::Ephemeral);
        if count > 1 || unsent.contains(&op) || !is_one {
            let text = format!(
                "op {op} was seen {count} times, not sent: {}",
                unsent.contains(&op)
            );
            found.push(Violation::new("ephemeral-is-now-or-never", text));
        }
    }
    for arrived in &history.arrived {
        let letter = arrived.op.and_then(|op| history.plan.letter(op));
        if let Some((_, _, letter)) = letter
            && letter.class == DeliveryClass::Ephemeral
        {
            let text = format!(
                "op {} lies in the inbox of node {}",
                letter.op, arrived.node
            );
            found.push(Violation::new("ephemeral-is-now-or-never", text));
        }
    }
    found
}
