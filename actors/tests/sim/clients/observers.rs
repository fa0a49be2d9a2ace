//! Those who only look: at events, receipts, boxes, actors and queues.
//!
//! A state is noted when it is first seen or has changed, so that the ledger stays short.

use std::time::Duration;

use packhorse_actors::{
    store::Filter,
    supervise::{self, Branch, LifeEvent},
};
use tokio::sync::broadcast::error::RecvError;

use super::{Desk, Tasks};
use crate::{
    ledger::{Depths, Life, What},
    plan::op_of,
};

/// Events of one look.
const EVENTS: usize = 1_000;
/// Rows of one look at a box.
const ROWS: usize = 30;
/// Receipts of one look.
const RECEIPTS: u64 = 6;

pub(super) fn add(tasks: &mut Tasks, desk: &Desk) {
    tasks.add(follow_events(desk.clone()));
    tasks.add(follow_lives(desk.clone()));
    tasks.add(measure(desk.clone()));
    tasks.add(look_around(desk.clone()));
}

async fn follow_events(desk: Desk) {
    let mut after = 0;
    let mut newest = desk.tree.events.newest();
    loop {
        // A store that answers nothing now is asked again when there is news.
        if let Ok(page) = desk.tree.events.since(after, EVENTS).await {
            for event in page.events {
                after = event.number;
                desk.note(What::Event {
                    number: event.number,
                    event_ms: event.at_ms,
                    kind: event.fact.kind(),
                    peer: event.fact.peer().map(|peer| desk.node(peer)),
                    text: event.fact.text(),
                });
            }
        }
        if newest.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_lives(desk: Desk) {
    let mut lives = desk.tree.probe.listen();
    loop {
        match lives.recv().await {
            Ok(event) => desk.note(life_of(event)),
            Err(RecvError::Lagged(_)) => desk.note(What::LifeMissed),
            Err(RecvError::Closed) => return,
        }
    }
}

fn life_of(event: LifeEvent) -> What {
    let LifeEvent {
        actor,
        incarnation,
        what,
    } = event;
    let life = match what {
        supervise::Life::Started => Life::Started,
        supervise::Life::Exited(how) => Life::Exited(how),
        supervise::Life::Restarting => Life::Restarting,
        supervise::Life::GivenUp => Life::GivenUp,
        supervise::Life::Works(what) => {
            return What::SessionWork {
                actor,
                incarnation,
                what,
            };
        }
    };
    What::Life {
        actor,
        incarnation,
        life,
    }
}

async fn measure(desk: Desk) {
    let mut noted = Depths::default();
    loop {
        tokio::time::sleep(Duration::from_millis(500 + desk.machine.draw() % 1_000)).await;
        let depths = depths(&desk);
        if depths != noted {
            noted = depths.clone();
            desk.note(What::Depth(depths));
        }
    }
}

/// How full everything is now.
pub(super) fn depths(desk: &Desk) -> Depths {
    let (jobs, job_bytes) = desk.tree.store.queued();
    let storage = desk.tree.store.storage().borrow().clone();
    let strangers = desk.tree.door.counts();
    Depths {
        jobs,
        job_bytes,
        mailbox: deepest(&desk.tree.census()),
        outbox_bytes: storage.outbox,
        inbox_bytes: storage.inbox,
        dead_bytes: storage.dead,
        half_open: strangers.half_open,
        cheap: strangers.cheap,
        costly: strangers.costly,
    }
}

fn deepest(branch: &Branch) -> (u64, String) {
    let own = (branch.queue_depth, branch.actor.clone());
    let below = branch.children.iter().map(deepest);
    below.fold(own, |deepest, other| match other.0 > deepest.0 {
        true => other,
        false => deepest,
    })
}

/// Looks at boxes and receipts at moments that nobody expects.
async fn look_around(desk: Desk) {
    loop {
        let pause_ms = match desk.machine.draw() % 4 {
            0 => desk.machine.draw() % 20,
            _ => desk.machine.draw() % 1_500,
        };
        tokio::time::sleep(Duration::from_millis(1 + pause_ms)).await;
        list(&desk, ROWS).await;
        if !desk.machine.is_copy {
            receipts(&desk).await;
        }
    }
}

/// Notes what lies in the boxes and was not noted before.
pub(super) async fn list(desk: &Desk, rows: usize) {
    let (store, machine) = (&desk.tree.store, &desk.machine);
    if let Ok(listed) = store.outbox_list(rows.min(100_000)).await {
        for row in listed.rows {
            if machine
                .rows_seen
                .borrow_mut()
                .insert(("out", row.id.to_string()))
            {
                desk.note(What::OutRow {
                    to: desk.node(row.id.peer),
                    id: row.id,
                    op: op_of(&row.message),
                });
            }
        }
    }
    if let Ok(listed) = store.inbox_list(rows.min(100_000)).await {
        for row in listed.rows {
            let seen = (row.arrival, row.peer, row.position);
            if machine
                .rows_seen
                .borrow_mut()
                .insert(("in", format!("{seen:?}")))
            {
                desk.note(What::InRow {
                    from: desk.node(row.peer),
                    arrival: row.arrival,
                    position: row.position,
                    op: op_of(&row.message),
                });
            }
        }
    }
    if let Ok(listed) = store
        .dead_letters(Filter::default(), rows.min(100_000))
        .await
    {
        for letter in listed.rows {
            let seen = format!("{} {:?}", letter.id, letter.state);
            if machine.rows_seen.borrow_mut().insert(("dead", seen)) {
                desk.note(What::Letter {
                    to: desk.node(letter.id.peer),
                    id: letter.id,
                    op: letter.message.as_ref().and_then(op_of),
                    state: letter.state,
                    code: letter.code.0,
                });
            }
        }
    }
}

async fn receipts(desk: &Desk) {
    for _ in 0..RECEIPTS {
        let count = desk.machine.receipts.borrow().len() as u64;
        if count == 0 {
            return;
        }
        let index = usize::try_from(desk.machine.draw() % count).unwrap_or(0);
        let id = desk.machine.receipts.borrow()[index];
        let Ok(record) = desk.tree.store.receipt(id).await else {
            continue;
        };
        let state = record.as_ref().map(|record| record.state);
        let reason = record.and_then(|record| record.reason);
        let known = (state, reason.clone());
        if desk
            .machine
            .receipts_seen
            .borrow_mut()
            .insert(id, known.clone())
            != Some(known)
        {
            desk.note(What::Receipt { id, state, reason });
        }
    }
}
