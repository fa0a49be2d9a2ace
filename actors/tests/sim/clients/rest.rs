//! Whether a machine stands still, and what is left on it then.

use std::time::Duration;

use packhorse_actors::{
    board::PeerState,
    store::{Filter, InboxRow},
    supervise::Branch,
};
use packhorse_protocol::{grant::Capability, message::Message};

use super::{Desk, observers};
use crate::{
    checks::{InRow, KEPT_BACK_MS_MAX, LetterRow, NodeFinal, OutRow, ReceiptEnd},
    host::Phase,
    plan::{IDLE, JOBS, op_of},
};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(500);
/// More than any run leaves.
const ALL: usize = 100_000;

/// Looks from the end of the work on.
pub(super) async fn watch(desk: Desk) {
    let mut phase = desk.machine.phase.subscribe();
    let settles = phase.wait_for(|phase| *phase == Phase::Settle);
    if settles.await.map(drop).is_err() {
        return;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        match unrest(&desk).await {
            Some(unrest) => {
                *desk.machine.unrest.borrow_mut() = unrest;
                desk.machine.remains.borrow_mut().take();
            }
            None => {
                let remains = remains(&desk).await;
                desk.machine.unrest.borrow_mut().clear();
                *desk.machine.remains.borrow_mut() = remains;
            }
        }
    }
}

/// What still moves, or has to.
async fn unrest(desk: &Desk) -> Option<String> {
    let store = &desk.tree.store;
    for (node, number) in desk.numbers.iter() {
        let counts = *store.outbox_counts(*number).borrow();
        let [user, system] = counts.waiting;
        if user + system > 0 {
            let line = desk.tree.board.line(*number);
            return Some(format!(
                "{user} messages and {system} reports wait for node {node}, which is {:?}, {:?}, next dial {:?}, last exit {:?}",
                line.state, line.last_error, line.next_attempt_ms, line.last_exit
            ));
        }
    }
    if store.queued() != (0, 0) {
        return Some(format!(
            "jobs and bytes wait for the writer: {:?}",
            store.queued()
        ));
    }
    let Ok(inbox) = store.inbox_list(ALL).await else {
        return Some("the inbox cannot be read".to_owned());
    };
    let Ok(peers) = store.peers().await else {
        return Some("the peers cannot be read".to_owned());
    };
    // What no worker may begin waits until its sender may have it begun.
    let may_begin = |row: &InboxRow| {
        let sender = peers.iter().find(|peer| peer.number == row.peer);
        let (topic, now_ms) = (&row.message.topic, desk.wall_ms());
        sender.is_some_and(|peer| peer.grants.allows(Capability::Execute, topic, now_ms))
    };
    let waiting = inbox
        .rows
        .iter()
        .filter(|row| match row.message.topic.as_str() {
            IDLE => false,
            JOBS => may_begin(row),
            _ => true,
        });
    // A clock that was set back keeps things back for longer than the run lasts.
    let (now_ms, is_set_back) = (
        desk.wall_ms(),
        desk.plan().sets_clock_back(desk.machine.node),
    );
    let mut due = Vec::new();
    for row in waiting {
        let tries = store
            .inbox_tries(vec![row.arrival])
            .await
            .unwrap_or_default();
        let kept_back_ms = tries.first().map_or(0, |tries| tries.wait_ms(now_ms));
        if kept_back_ms <= KEPT_BACK_MS_MAX || !is_set_back {
            due.push(row);
        }
    }
    let topics: Vec<_> = due.iter().map(|row| row.message.topic.clone()).collect();
    if !topics.is_empty() {
        return Some(format!(
            "{} messages wait in the inbox: {topics:?}",
            topics.len()
        ));
    }
    None
}

async fn remains(desk: &Desk) -> Option<NodeFinal> {
    let (store, read_ms) = (&desk.tree.store, crate::clock::now_ms());
    let inbox = store.inbox_list(ALL).await.ok()?.rows;
    let mut leased = Vec::new();
    for row in &inbox {
        if desk.tree.inbox.leased_ms(row.arrival).await.ok()?.is_some() {
            leased.push(row.arrival);
        }
    }
    let arrivals = inbox.iter().map(|row| row.arrival).collect();
    let tries = store.inbox_tries(arrivals).await.ok()?;
    let now_ms = desk.wall_ms();
    let kept_back = tries.iter().map(|tries| tries.wait_ms(now_ms));
    let outbox = store.outbox_list(ALL).await.ok()?.rows;
    let letters = store.dead_letters(Filter::default(), ALL).await.ok()?.rows;
    let letters_in = store.dead_in(Filter::default(), ALL).await.ok()?.rows;
    let ids = desk.machine.ledger.read().receipts_of(desk.machine.node);
    let mut receipts = std::collections::BTreeMap::new();
    for id in ids {
        let record = store.receipt(id).await.ok()?;
        let end = record.map(|record| ReceiptEnd {
            state: record.state,
            reason: record.reason,
        });
        receipts.insert(id, end);
    }
    let storage = store.storage().borrow().clone();
    let counts = desk
        .numbers
        .iter()
        .map(|(node, number)| (*node, store.outbox_counts(*number).borrow().waiting));
    let waiting = counts.collect();
    let connected = desk
        .numbers
        .iter()
        .filter(|(_, number)| desk.tree.board.line(**number).state == PeerState::Connected);
    let connected = connected.map(|(node, _)| *node).collect();
    let mut actors = Vec::new();
    flatten(&desk.tree.census(), &mut actors);
    let is_intact = |message: &Message| {
        let letter = op_of(message).and_then(|op| desk.plan().letter(op));
        letter.is_some_and(|(_, _, letter)| letter.message(message.born_ms) == *message)
    };
    let arrived = |(row, kept_back_ms): (&InboxRow, u64)| InRow {
        from: desk.node(row.peer),
        arrival: row.arrival,
        position: row.position,
        op: op_of(&row.message),
        topic: row.message.topic.clone(),
        weight: row.message.weight() as u64,
        is_intact: is_intact(&row.message),
        kept_back_ms,
        reason: String::new(),
    };
    Some(NodeFinal {
        read_ms,
        outbox: outbox
            .iter()
            .map(|row| OutRow {
                to: desk.node(row.id.peer),
                id: row.id,
                op: op_of(&row.message),
                weight: row.message.weight() as u64,
            })
            .collect(),
        inbox: inbox.iter().zip(kept_back).map(arrived).collect(),
        letters: letters
            .iter()
            .map(|letter| LetterRow {
                to: desk.node(letter.id.peer),
                id: letter.id,
                op: letter.message.as_ref().and_then(op_of),
                state: letter.state,
                is_open: letter.is_open,
                code: letter.code.0,
                at_ms: letter.at_ms,
                born_ms: letter.message.as_ref().map_or(0, |message| message.born_ms),
                weight: letter
                    .message
                    .as_ref()
                    .map_or(0, |message| message.weight() as u64),
            })
            .collect(),
        letters_in: letters_in
            .iter()
            .map(|letter| InRow {
                from: desk.node(letter.peer),
                arrival: 0,
                position: letter.position,
                op: op_of(&letter.message),
                topic: letter.message.topic.clone(),
                weight: letter.message.weight() as u64,
                is_intact: is_intact(&letter.message),
                kept_back_ms: 0,
                reason: letter.reason.clone(),
            })
            .collect(),
        receipts,
        waiting,
        held: [storage.outbox, storage.inbox, storage.dead],
        shortages: storage
            .shortages
            .iter()
            .map(|short| format!("{short:?}"))
            .collect(),
        depths: observers::depths(desk),
        actors,
        connected,
        leased,
        quarantined: store.quarantined().0,
    })
}

fn flatten(branch: &Branch, actors: &mut Vec<(String, bool)>) {
    actors.push((branch.actor.clone(), branch.is_running));
    for child in &branch.children {
        flatten(child, actors);
    }
}
