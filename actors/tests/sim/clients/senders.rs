//! Clients that hand messages in when the plan says so.
//!
//! What was sent under a key and never answered is sent again by the next process, as a client
//! does that was given a key for that.

use std::time::Duration;

use packhorse_actors::store::{NewMessage, Refused, StoreError};
use packhorse_protocol::epoch::Lane;
use packhorse_protocol::message::DeliveryClass;

use super::{Desk, Tasks, by_hand, is_certain};
use crate::{
    clock::now_ms,
    host::Phase,
    ledger::{AcceptedHere, Answer, Refusal, What},
    plan::{Act, Deed, Letter, Node},
};

/// How long a client waits for the node's answer before it gives the call up.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn add(tasks: &mut Tasks, desk: &Desk) {
    tasks.add(act(desk.clone()));
    let unanswered = desk.machine.unanswered.take();
    for (to, letter) in unanswered {
        let desk = desk.clone();
        tasks.add(async move { send(&desk, to, vec![letter]).await });
    }
}

/// Begins each act at its time; one that was missed while the machine was down is begun now.
async fn act(desk: Desk) {
    let (machine, plan) = (desk.machine.clone(), desk.machine.plan.clone());
    let acts: Vec<&Act> = plan
        .acts
        .iter()
        .filter(|act| act.node == machine.node)
        .collect();
    let mut under_way = Tasks::default();
    while let Some(act) = acts.get(machine.acts_begun.get()) {
        let wait_ms = act.at_ms.saturating_sub(now_ms());
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        if *machine.phase.borrow() == Phase::Settle {
            return;
        }
        machine.acts_begun.set(machine.acts_begun.get() + 1);
        let (desk, deed) = (desk.clone(), act.deed.clone());
        under_way.add(async move {
            match deed {
                Deed::Send { to, letters } => send(&desk, to, letters).await,
                deed => by_hand::act(&desk, deed).await,
            }
        });
        while under_way.0.try_join_next().is_some() {}
    }
    while under_way.0.join_next().await.is_some() {}
}

async fn send(desk: &Desk, to: Node, letters: Vec<Letter>) {
    let Some(number) = desk.number(to) else {
        return;
    };
    let born_ms = desk.wall_ms();
    let call = desk.call();
    if let [letter] = &letters[..]
        && letter.class == DeliveryClass::Ephemeral
    {
        let op = letter.op;
        desk.note(What::AskedEphemeral { call, to, op });
        let message = letter.message(born_ms);
        let sent = desk.tree.sessions.send_ephemeral(number, message).await;
        let sent = sent.map_err(|error| error.to_string());
        return desk.note(What::AnsweredEphemeral { call, sent });
    }
    let messages = letters.iter().map(|letter| NewMessage {
        message: letter.message(born_ms),
        key: letter.key.clone(),
        expires_ms: letter.expires_in_ms.map(|in_ms| born_ms + in_ms),
        replace: letter.replace,
    });
    let messages = messages.collect();
    let ops: Vec<_> = letters.iter().map(|letter| letter.op).collect();
    desk.note(What::Asked {
        call,
        to,
        ops: ops.clone(),
    });
    let keyed = keyed(&letters);
    if let Some(letter) = &keyed {
        // ORDER: before the call. Only its answer takes it off the list again.
        let mut unanswered = desk.machine.unanswered.borrow_mut();
        unanswered.push((to, letter.clone()));
    }
    let asked = desk.tree.store.accept(number, Lane::User, messages);
    let answer = match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Err(_) => Answer::Unknown("no answer".to_owned()),
        Ok(Err(error)) => refused(&error),
        Ok(Ok(accepted)) => {
            let accepted = ops
                .iter()
                .zip(&accepted)
                .map(|(op, accepted)| AcceptedHere {
                    op: *op,
                    id: accepted.id,
                    state: accepted.state,
                    repeated: accepted.repeated,
                });
            Answer::Accepted(accepted.collect())
        }
    };
    if let Answer::Accepted(accepted) = &answer {
        let mut receipts = desk.machine.receipts.borrow_mut();
        for id in accepted.iter().map(|accepted| accepted.id) {
            if !receipts.contains(&id) {
                receipts.push(id);
            }
        }
    }
    if !matches!(answer, Answer::Unknown(_))
        && let Some(letter) = keyed
    {
        let mut unanswered = desk.machine.unanswered.borrow_mut();
        unanswered.retain(|(_, waiting)| waiting.op != letter.op);
    }
    desk.note(What::Answered { call, answer });
}

/// The letter, if it is one alone that can be sent again without harm.
fn keyed(letters: &[Letter]) -> Option<Letter> {
    match letters {
        [letter] if letter.key.is_some() && !letter.replace => Some(letter.clone()),
        _ => None,
    }
}

fn refused(error: &StoreError) -> Answer {
    if !is_certain(error) {
        return Answer::Unknown(error.to_string());
    }
    Answer::Refused(match error {
        StoreError::Refused(Refused::KeyConflict { .. }) => Refusal::KeyConflict,
        StoreError::Refused(Refused::TooLate { .. }) => Refusal::TooLate,
        StoreError::Refused(Refused::ExpiresPast { .. }) => Refusal::Expired,
        StoreError::Refused(Refused::NoSuchPeer(_)) => Refusal::NoSuchPeer,
        StoreError::Full { .. } => Refusal::Full,
        StoreError::Closed => Refusal::Closed,
        other => Refusal::Other(other.to_string()),
    })
}
