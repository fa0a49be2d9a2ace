//! What a person decides: messages taken back, letters sent again, grants taken and given.

use packhorse_actors::store::{DeadLetter, Filter, StoreError};
use packhorse_protocol::grant::{Held, Revocation};

use super::{Desk, said};
use crate::{
    ledger::{ByHand, Said, What},
    plan::{Deed, Node},
};

/// More than any run has.
const ALL: usize = 100_000;

pub(super) async fn act(desk: &Desk, deed: Deed) {
    match deed {
        Deed::Send { .. } => {}
        Deed::DropWaiting { to, count } => drop_waiting(desk, to, count).await,
        Deed::RetryDead { count } => retry_dead(desk, count).await,
        Deed::DropDead { count } => drop_dead(desk, count).await,
        Deed::RetryDeadIn { count } => dead_in(desk, count, true).await,
        Deed::DropDeadIn { count } => dead_in(desk, count, false).await,
        Deed::Revoke { from, grant } => revoke(desk, from, grant).await,
        Deed::Grant { to, grant } => give(desk, to, grant).await,
        Deed::Ping { to } => {
            if let Some(number) = desk.number(to) {
                let _ = desk.tree.sessions.ping(number).await;
            }
        }
    }
}

async fn drop_waiting(desk: &Desk, to: Option<Node>, count: Option<usize>) {
    let filter = Filter {
        peer: to.and_then(|to| desk.number(to)),
        topic: None,
    };
    let store = &desk.tree.store;
    let mut ids = Vec::new();
    if let Some(count) = count {
        let Ok(listed) = store.outbox_list_of(filter.clone(), count).await else {
            return;
        };
        ids = listed.rows.iter().map(|row| row.id).collect();
        if ids.is_empty() {
            return;
        }
    }
    let of = ids.clone();
    doing(desk, ByHand::DropWaiting { to, ids }, async {
        store.outbox_drop(filter, of).await
    })
    .await;
}

async fn letters(desk: &Desk) -> Vec<DeadLetter> {
    let listed = desk.tree.store.dead_letters(Filter::default(), ALL).await;
    listed.map(|listed| listed.rows).unwrap_or_default()
}

async fn retry_dead(desk: &Desk, count: usize) {
    for letter in letters(desk).await.into_iter().take(count) {
        let id = letter.id;
        let call = desk.call();
        let deed = ByHand::RetryDead { id };
        desk.note(What::Doing { call, deed });
        let answer = said(desk.tree.store.dead_retry(id).await.map(|new| new.id));
        if let Said::Yes(new) = &answer {
            desk.machine.receipts.borrow_mut().push(*new);
        }
        desk.note(What::Retried { call, answer });
    }
}

async fn drop_dead(desk: &Desk, count: usize) {
    for letter in letters(desk).await.into_iter().take(count) {
        let id = letter.id;
        doing(desk, ByHand::DropDead { id }, async {
            desk.tree.store.dead_drop(id).await.map(|()| 1)
        })
        .await;
    }
}

async fn dead_in(desk: &Desk, count: usize, again: bool) {
    let store = &desk.tree.store;
    let Ok(listed) = store.dead_in(Filter::default(), count).await else {
        return;
    };
    for letter in listed.rows {
        let (from, position) = (desk.node(letter.peer), letter.position);
        let deed = match again {
            true => ByHand::RetryDeadIn { from, position },
            false => ByHand::DropDeadIn { from, position },
        };
        doing(desk, deed, async {
            match again {
                true => {
                    store
                        .dead_in_retry(letter.peer, letter.lane, position)
                        .await
                }
                false => store.dead_in_drop(letter.peer, letter.lane, position).await,
            }
            .map(|()| 1)
        })
        .await;
    }
}

async fn revoke(desk: &Desk, from: Node, grant: &str) {
    let Some(number) = desk.number(from) else {
        return;
    };
    let revocation: Revocation = grant.parse().expect("a grant");
    let deed = ByHand::Revoke {
        from,
        grant: grant.to_owned(),
    };
    doing(desk, deed, async {
        let revoked = desk.tree.store.revoke(number, vec![revocation]).await?;
        changed(desk, number);
        Ok(revoked.taken.len() as u64)
    })
    .await;
}

async fn give(desk: &Desk, to: Node, grant: &str) {
    let Some(number) = desk.number(to) else {
        return;
    };
    // What arrived while it was absent is looked at before it is back.
    super::observers::list(desk, usize::MAX).await;
    let held = Held {
        grant: grant.parse().expect("a grant"),
        until_ms: None,
    };
    let deed = ByHand::Grant {
        to,
        grant: grant.to_owned(),
    };
    doing(desk, deed, async {
        desk.tree.store.grant(number, vec![held]).await?;
        changed(desk, number);
        Ok(1)
    })
    .await;
}

fn changed(desk: &Desk, peer: packhorse_actors::store::PeerNumber) {
    desk.tree.sessions.grants_changed(peer);
    desk.tree.inbox.grants_changed();
}

/// Notes what is done, does it, and notes how it went.
pub(super) async fn doing(
    desk: &Desk,
    deed: ByHand,
    does: impl Future<Output = Result<u64, StoreError>>,
) {
    let call = desk.call();
    desk.note(What::Doing { call, deed });
    let answer = said(does.await);
    desk.note(What::Did { call, answer });
}
