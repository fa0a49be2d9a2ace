//! Readers and workers: they take messages out of the inbox, well or badly, as the plan says.

use std::time::Duration;

use packhorse_actors::{
    inbox::{ClaimRequest, Claimed, Mode},
    store::{Settled, Verdict},
};

use super::{Desk, Tasks, said_by_inbox};
use crate::{
    clock::now_ms,
    ledger::{self, Outcome, Said, Seen, What},
    plan::{Consumer, Handling, Op, op_of},
};

/// How long a consumer waits for messages before it asks anew.
const WAIT: Duration = Duration::from_secs(5);
/// The pause of a consumer whose inbox does not answer.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn add(tasks: &mut Tasks, desk: &Desk) {
    for consumer in &desk.plan().topology.nodes[desk.machine.node].consumers {
        tasks.add(consume(desk.clone(), consumer.clone()));
    }
}

async fn consume(desk: Desk, consumer: Consumer) {
    let begins_ms = consumer.begins_ms.saturating_sub(now_ms());
    tokio::time::sleep(Duration::from_millis(begins_ms)).await;
    let mode = match consumer.is_worker {
        true => Mode::Work,
        false => Mode::Receive,
    };
    loop {
        let pause = consumer.pauses.iter().find(|(from_ms, until_ms)| {
            (*from_ms..*until_ms).contains(&now_ms()) && now_ms() < desk.plan().work_ms
        });
        if let Some((_, until_ms)) = pause {
            tokio::time::sleep(Duration::from_millis(until_ms - now_ms())).await;
        }
        let request = ClaimRequest {
            topic: consumer.topic.to_owned(),
            count: consumer.count,
            lease_ms: consumer.lease_ms,
            mode,
        };
        let Ok(claimed) = desk.tree.inbox.claim_waiting(request, WAIT).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let seen: Vec<_> = claimed
            .into_iter()
            .map(|claimed| see(&desk, &consumer, claimed))
            .collect();
        match consumer.is_worker {
            true => {
                for one in seen {
                    work(&desk, &consumer, one).await;
                }
            }
            false => read(&desk, &consumer, seen).await,
        }
    }
}

/// A message in hand, and how it is to be dealt with.
struct InHand {
    claimed: Claimed,
    handling: Handling,
}

fn see(desk: &Desk, consumer: &Consumer, claimed: Claimed) -> InHand {
    let row = &claimed.row;
    let op = op_of(&row.message);
    let letter = op.and_then(|op| desk.plan().letter(op));
    desk.note(What::Saw(Seen {
        topic: row.message.topic.clone(),
        arrival: row.arrival,
        from: desk.node(row.peer),
        position: row.position,
        op,
        is_intact: letter
            .is_some_and(|(_, _, letter)| letter.message(row.message.born_ms) == row.message),
        token: claimed.token,
        lease_ms: consumer.lease_ms,
        attempts: claimed.attempts,
        failures: claimed.failures,
        is_worker: consumer.is_worker,
        is_ephemeral: claimed.is_ephemeral,
    }));
    let handling = handling(desk, op.unwrap_or_default());
    InHand { claimed, handling }
}

fn handling(desk: &Desk, op: Op) -> Handling {
    let mut times = desk.machine.times_seen.borrow_mut();
    let time = times.entry(op).or_default();
    *time += 1;
    desk.plan().handling(desk.machine.node, op, *time, now_ms())
}

async fn think(desk: &Desk, consumer: &Consumer) {
    let (least, most) = consumer.thinks_ms;
    let ms = least + desk.machine.draw() % (most - least + 1);
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// A reader takes all of it, or dies over all of it.
async fn read(desk: &Desk, consumer: &Consumer, mut seen: Vec<InHand>) {
    seen.retain(|one| !one.claimed.is_ephemeral);
    let Some(first) = seen.first() else { return };
    think(desk, consumer).await;
    match first.handling {
        Handling::Die => return,
        Handling::Late => late(consumer).await,
        Handling::Dead => {
            let arrivals: Vec<_> = seen.iter().map(|one| one.claimed.row.arrival).collect();
            desk.note(What::Released {
                arrivals: arrivals.clone(),
            });
            return desk.tree.inbox.release(arrivals);
        }
        _ => {}
    }
    let arrivals: Vec<_> = seen.iter().map(|one| one.claimed.row.arrival).collect();
    let call = desk.call();
    desk.note(What::Settling {
        call,
        arrivals: arrivals.clone(),
        verdict: ledger::Verdict::Acknowledged,
    });
    let answer = desk.tree.inbox.acknowledge(arrivals).await;
    let outcome = said_by_inbox(answer.map(|()| Outcome::Done));
    desk.note(What::Settled { call, outcome });
}

async fn late(consumer: &Consumer) {
    tokio::time::sleep(Duration::from_millis(consumer.lease_ms + 300)).await;
}

async fn work(desk: &Desk, consumer: &Consumer, one: InHand) {
    let Claimed { row, token, .. } = &one.claimed;
    if one.claimed.is_ephemeral {
        return;
    }
    let (arrival, token) = (row.arrival, *token);
    let call = desk.call();
    desk.note(What::Beginning { call, arrival });
    let attempt = said_by_inbox(desk.tree.inbox.begin(arrival, token).await);
    let has_begun = matches!(attempt, Said::Yes(_));
    desk.note(What::Begun { call, attempt });
    if !has_begun {
        return;
    }
    think(desk, consumer).await;
    let reason = "the plan says so".to_owned();
    let (said, verdict) = match one.handling {
        Handling::Die => return,
        Handling::Done { output } => done(output),
        Handling::Twice => done(7),
        Handling::Late => {
            late(consumer).await;
            done(3)
        }
        Handling::Fail => {
            let output = b"it broke".to_vec();
            (ledger::Verdict::Failed, Verdict::Failed { reason, output })
        }
        Handling::Retry { delay_ms } => {
            (ledger::Verdict::Retry, Verdict::Retry { delay_ms, reason })
        }
        Handling::Dead => {
            let output = b"never".to_vec();
            (ledger::Verdict::Dead, Verdict::Dead { reason, output })
        }
    };
    settle(desk, arrival, token, said, verdict.clone()).await;
    if one.handling == Handling::Twice {
        settle(desk, arrival, token, said, verdict).await;
    }
}

fn done(output: usize) -> (ledger::Verdict, Verdict) {
    let output = vec![b'o'; output];
    (ledger::Verdict::Done, Verdict::Done { output })
}

async fn settle(desk: &Desk, arrival: u64, token: u64, said: ledger::Verdict, verdict: Verdict) {
    let call = desk.call();
    desk.note(What::Settling {
        call,
        arrivals: vec![arrival],
        verdict: said,
    });
    let answer = desk.tree.inbox.settle(arrival, token, verdict).await;
    let outcome = match answer {
        Err(packhorse_actors::inbox::InboxError::LeaseLost { .. }) => Said::Yes(Outcome::LeaseLost),
        answer => said_by_inbox(answer.map(|settled| match settled {
            Settled::Done => Outcome::Done,
            Settled::Later { .. } => Outcome::Later,
            Settled::Dead => Outcome::Dead,
            Settled::Gone => Outcome::Gone,
        })),
    };
    desk.note(What::Settled { call, outcome });
}
