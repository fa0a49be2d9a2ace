//! Carries out what is asked of a process from outside.

use std::time::Duration;

use packhorse_actors::fault::{Fault, When};
use tokio::sync::mpsc;

use super::{Desk, by_hand::doing, terms};
use crate::{
    host::{Command, id_of, meet},
    ledger::ByHand,
    plan::{Actor, Manner, Moment, Node},
};

/// Between two tries of something that a store puts off.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn carry_out(desk: Desk, mut commands: mpsc::Receiver<Command>) {
    let to_readmit = desk.machine.to_readmit.borrow().clone();
    for peer in to_readmit {
        readmit(&desk, peer).await;
    }
    while let Some(command) = commands.recv().await {
        match command {
            Command::Die(actor, moment, manner) => die(&desk, actor, moment, manner).await,
            Command::Spare => {
                desk.tree.faults().plan().clear();
            }
            Command::Forget(peer) => forget(&desk, peer).await,
            Command::Readmit(peer) => readmit(&desk, peer).await,
        }
    }
}

async fn die(desk: &Desk, actor: Actor, moment: Moment, manner: Manner) {
    let name = match actor {
        Actor::Store | Actor::Writer => "store".to_owned(),
        Actor::EventBus => "event bus".to_owned(),
        Actor::Inbox => "inbox".to_owned(),
        Actor::Sessions => "session supervisor".to_owned(),
        Actor::Retry => "retry scheduler".to_owned(),
        Actor::Listener => "listener".to_owned(),
        Actor::Session(peer) => match desk.number(peer) {
            Some(number) => format!("session {}", number.0),
            None => return,
        },
    };
    let when = match moment {
        Moment::BeforeMessage => When::BeforeMessage,
        Moment::AfterMessage => When::AfterMessage,
        Moment::Idle => When::Idle,
        Moment::BeforeCommit => When::BeforeCommit,
        Moment::BeforeAnswer => When::BeforeAnswer,
    };
    let fault = match manner {
        Manner::Panic => Fault::Panic,
        Manner::Error => Fault::Error,
        Manner::Kill => Fault::Kill,
    };
    // Nobody of that name: nobody dies.
    let _ = desk.tree.faults().order(&name, when, fault).await;
}

async fn forget(desk: &Desk, peer: Node) {
    let Some(number) = desk.number(peer) else {
        return;
    };
    let (store, tree) = (&desk.tree.store, &desk.tree);
    doing(desk, ByHand::Forget { peer }, async {
        let forgotten = store.forget(number).await?;
        tree.sessions.forgotten(number);
        tree.retry.removed(number);
        tree.inbox.drop_ephemeral_of(number);
        if let Some(seen) = &forgotten.peer.seen_from {
            tree.forget_origin(seen).await;
        }
        let aside = store
            .put_aside(number, |arrivals| tree.inbox.left(arrivals))
            .await?;
        Ok(aside.outgoing + aside.incoming)
    })
    .await;
}

/// Until it is done: a person would repeat it too.
async fn readmit(desk: &Desk, peer: Node) {
    let (grants, knows) = terms(desk.plan(), desk.machine.node, peer);
    let given = desk.plan().topology.grants(desk.machine.node, peer);
    let given = given
        .unwrap_or_default()
        .iter()
        .map(|grant| (*grant).to_owned());
    let deed = ByHand::Readmit {
        peer,
        grants: given.collect(),
    };
    doing(desk, deed, async {
        loop {
            let allowed = desk.tree.store.allow(id_of(peer)).await;
            if allowed.is_ok() && meet(&desk.tree, peer, knows, grants.clone()).await.is_ok() {
                desk.machine.to_readmit.borrow_mut().remove(&peer);
                return Ok(1);
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
    .await;
}
