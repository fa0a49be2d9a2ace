//! A store that was set back: its recipient has more of it than it remembers having sent.
//!
//! Goal: whatever is done with a message before its recipient is met, its receipt and its letter
//! tell the truth once it was met; and a store that was merely closed and opened shows nothing.
//! Method: to the store, a copy of it that is put back looks like a plain restart. What differs is
//! the mark that the recipient answers with, so that is all that these tests vary.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use packhorse_actors::events::Fact;
use packhorse_actors::store::{DeadState, Filter, PeerNumber, ReceiptId, ReceiptState};
use packhorse_protocol::epoch::Lane;

mod store_common;

use store_common::outgoing::replacing;
use store_common::*;

const MINUTE: u64 = 60_000;

impl Node {
    /// What was told of this node's store.
    async fn told(&self) -> Vec<Fact> {
        let page = self.store.events_since(0, usize::MAX).await.unwrap();
        page.events.into_iter().map(|event| event.fact).collect()
    }

    async fn was_set_back(&self) -> bool {
        let told = self.told().await;
        told.iter()
            .any(|fact| matches!(fact, Fact::RolledBack { .. }))
    }

    async fn trouble(&self, peer: PeerNumber) -> Option<String> {
        let record = self.store.peer(peer).await.unwrap().unwrap();
        record.trouble.map(|noted| noted.text)
    }
}

/// A store in which these messages wait since an earlier boot, each under its text as key.
async fn reopened(place: &mut Place, texts: &[&str]) -> (Node, PeerNumber, Vec<ReceiptId>) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let mut ids = Vec::new();
    for text in texts {
        ids.push(node.send(peer, keyed(text, text)).await);
    }
    node.close().await;
    (place.open(), peer, ids)
}

async fn replace(node: &Node, peer: PeerNumber, key: &str) {
    let new = replacing(&format!("new {key}"), key);
    node.store
        .accept(peer, Lane::User, vec![new])
        .await
        .unwrap();
}

async fn what_is_replaced_in_a_store_that_was_set_back_is_not_told_as_stored(mut place: Place) {
    let (node, peer, ids) = reopened(&mut place, &["one", "two", "three"]).await;
    replace(&node, peer, "two").await;
    node.open_session(peer, ids[0].position.epoch, 2).await;
    // The recipient has "two", and this store only "new two".
    let states = node.states().await;
    assert_eq!(states, [("new two".to_owned(), DeadState::NotDelivered)]);
    let receipt = node.store.receipt(ids[1]).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Failed);
    assert!(receipt.reason.unwrap().contains("set back"));
    // The others are what they were.
    assert_eq!(node.state(ids[0]).await, ReceiptState::Stored);
    assert_eq!(node.state(ids[2]).await, ReceiptState::Accepted);
    assert_eq!(node.waiting(peer).await, ["three"]);
    assert!(node.was_set_back().await);
    assert!(node.trouble(peer).await.unwrap().contains("1 to 2"));
    // Nothing of the kind is found a second time, and the letter can be sent.
    let facts = node.told().await.len();
    node.open_session(peer, ids[0].position.epoch, 2).await;
    assert_eq!(node.told().await.len(), facts);
    node.store.dead_retry(ids[1]).await.unwrap();
    assert_eq!(node.waiting(peer).await, ["three", "new two"]);
    node.close().await;
}

async fn what_is_dropped_in_a_store_that_was_set_back_is_not_told_as_not_delivered(
    mut place: Place,
) {
    let (node, peer, ids) = reopened(&mut place, &["one", "two"]).await;
    assert_eq!(node.drop_rows(vec![ids[0]]).await, 1);
    let before = node.states().await;
    assert_eq!(before, [("one".to_owned(), DeadState::NotDelivered)]);
    node.open_session(peer, ids[0].position.epoch, 1).await;
    let states = node.states().await;
    assert_eq!(states, [("one".to_owned(), DeadState::MayBeDelivered)]);
    assert_eq!(node.state(ids[0]).await, ReceiptState::Failed);
    assert_eq!(node.waiting(peer).await, ["two"]);
    // A person decides; nothing waits for another word of the recipient.
    node.store.dead_drop(ids[0]).await.unwrap();
    assert!(node.letters().await.is_empty());
    node.close().await;
}

async fn what_is_replaced_and_then_dropped_is_told_as_the_replacement(mut place: Place) {
    let (node, peer, ids) = reopened(&mut place, &["one"]).await;
    replace(&node, peer, "one").await;
    replace(&node, peer, "one").await;
    node.drop_rows(vec![ids[0]]).await;
    node.open_session(peer, ids[0].position.epoch, 1).await;
    let states = node.states().await;
    assert_eq!(states, [("new one".to_owned(), DeadState::NotDelivered)]);
    node.close().await;
}

async fn a_plain_restart_leaves_no_doubt_behind(mut place: Place) {
    let (node, peer, ids) = reopened(&mut place, &["one", "two", "three"]).await;
    let epoch = ids[0].position.epoch;
    replace(&node, peer, "one").await;
    node.drop_rows(vec![ids[1]]).await;
    // Doubts outlive a restart.
    node.close().await;
    let node = place.open();
    node.open_session(peer, epoch, 0).await;
    let states = node.states().await;
    assert_eq!(states, [("two".to_owned(), DeadState::NotDelivered)]);
    assert_eq!(node.waiting(peer).await, ["new one", "three"]);
    node.acknowledge(peer, epoch, 3).await;
    assert_eq!(node.state(ids[0]).await, ReceiptState::Stored);
    assert_eq!(node.state(ids[1]).await, ReceiptState::Failed);
    assert!(!node.was_set_back().await);
    assert_eq!(node.trouble(peer).await, None);
    node.close().await;
}

async fn untouched_messages_that_had_left_before_are_settled_and_named(mut place: Place) {
    let (node, peer, ids) = reopened(&mut place, &["one", "two", "three"]).await;
    node.open_session(peer, ids[0].position.epoch, 2).await;
    assert_eq!(node.state(ids[1]).await, ReceiptState::Stored);
    assert_eq!(node.waiting(peer).await, ["three"]);
    assert!(node.was_set_back().await);
    node.close().await;
}

/// A base raises the recipient's mark over what was given up here. That is no sign of anything.
async fn a_mark_that_a_base_raised_is_no_sign_of_a_store_that_was_set_back(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let ids = [
        node.send(peer, keyed("one", "a")).await,
        node.send(peer, keyed("two", "b")).await,
    ];
    let epoch = ids[0].position.epoch;
    node.drop_rows(vec![ids[0]]).await;
    // Start says that the first row is 2, and the base of this opening raises the mark to 1.
    node.open_session(peer, epoch, 0).await;
    node.store.session_over(peer).await.unwrap();
    node.open_session(peer, epoch, 1).await;
    assert!(!node.was_set_back().await);
    // The same with nothing behind it.
    node.drop_rows(vec![ids[1]]).await;
    node.open_session(peer, epoch, 1).await;
    node.store.session_over(peer).await.unwrap();
    node.close().await;
    let node = place.open();
    node.open_session(peer, epoch, 2).await;
    assert!(!node.was_set_back().await);
    let states = node.states().await;
    assert!(
        states
            .iter()
            .all(|(_, state)| *state == DeadState::NotDelivered)
    );
    node.close().await;
}

async fn many_that_were_touched_are_dealt_with_in_pages(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        let messages = (0..1_000).map(|_| new("x")).collect();
        let accepted = node.store.accept(peer, Lane::User, messages).await.unwrap();
        ids.extend(accepted.into_iter().map(|one| one.id));
    }
    node.close().await;
    let node = place.open();
    let all = node.store.outbox_drop(Filter::default(), vec![]).await;
    assert_eq!(all.unwrap(), 10_000);
    node.open_session(peer, ids[0].position.epoch, 9_990).await;
    let listed = node.store.dead_letters(Filter::default(), usize::MAX).await;
    let letters = listed.unwrap().rows;
    let count = |wanted| {
        letters
            .iter()
            .filter(|letter| letter.state == wanted)
            .count()
    };
    assert_eq!(count(DeadState::MayBeDelivered), 9_990);
    assert_eq!(count(DeadState::NotDelivered), 10);
    let told = node.told().await;
    let set_back = |fact: &&Fact| matches!(fact, Fact::RolledBack { .. });
    assert_eq!(told.iter().filter(set_back).count(), 1);
    node.close().await;
}

async fn trouble_ends_when_no_sign_of_it_came_for_an_hour(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    // The epoch that pairing showed was boot 1; now another machine shows it too.
    node.store.judge_epoch(peer, epoch(5, 50)).await.unwrap();
    node.store.judge_epoch(peer, epoch(5, 51)).await.unwrap();
    assert!(
        node.trouble(peer)
            .await
            .unwrap()
            .contains("boot 5 after boot 5")
    );
    place.clock.advance(59 * MINUTE);
    node.store.calm(peer).await.unwrap();
    assert!(node.trouble(peer).await.is_some());
    // A sign makes it young again.
    node.store.judge_epoch(peer, epoch(5, 51)).await.unwrap();
    place.clock.advance(59 * MINUTE);
    node.store.calm(peer).await.unwrap();
    assert!(node.trouble(peer).await.is_some());
    place.clock.advance(MINUTE);
    node.store.calm(peer).await.unwrap();
    assert_eq!(node.trouble(peer).await, None);
    node.close().await;
}

async fn a_new_identity_over_a_store_is_a_fact_and_a_trouble_of_every_peer(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.close().await;
    place.config.node_id = store_common::node(9);
    let node = place.open();
    assert!(node.opened.changed_hands());
    let told = node.told().await;
    assert!(
        told.iter()
            .any(|fact| matches!(fact, Fact::NewIdentity { .. })),
        "{told:?}"
    );
    assert!(
        node.trouble(peer)
            .await
            .unwrap()
            .contains("pair with it again")
    );
    node.close().await;
    let node = place.open();
    let count = |fact: &&Fact| matches!(fact, Fact::NewIdentity { .. });
    assert_eq!(node.told().await.iter().filter(count).count(), 1);
    node.close().await;
}

/// The recipient knows the new identity as another peer, so its mark says nothing.
async fn a_new_identity_leaves_no_letter_that_is_wrongly_called_not_delivered(mut place: Place) {
    let (node, peer, ids) = reopened(&mut place, &["one", "two", "three"]).await;
    node.open_session(peer, ids[0].position.epoch, 0).await;
    // Handed to a session, which ends without an answer; one is dropped behind that.
    assert_eq!(node.waiting(peer).await, ["one", "two", "three"]);
    assert_eq!(node.drop_rows(vec![ids[1]]).await, 1);
    node.close().await;
    let node = place.open();
    node.send(peer, new("four")).await;
    assert_eq!(node.store.leave_identity().await.unwrap(), 3);
    assert_eq!(node.store.leave_identity().await.unwrap(), 0);
    node.close().await;
    place.config.node_id = store_common::node(9);
    let node = place.open();
    node.open_session(peer, ids[0].position.epoch, 0).await;
    assert_eq!(node.waiting(peer).await, ["four"]);
    let states = node.states().await;
    assert_eq!(states.len(), 3);
    let maybe = |(_, state): &(String, DeadState)| *state == DeadState::MayBeDelivered;
    assert!(states.iter().all(maybe), "{states:?}");
    assert!(node.letters().await[0].reason.contains("new identity"));
    node.store.dead_retry(ids[1]).await.unwrap();
    assert_eq!(node.waiting(peer).await, ["four", "two"]);
    node.close().await;
}

over_both_engines! {
    a_new_identity_leaves_no_letter_that_is_wrongly_called_not_delivered
    trouble_ends_when_no_sign_of_it_came_for_an_hour
    a_new_identity_over_a_store_is_a_fact_and_a_trouble_of_every_peer
    what_is_replaced_in_a_store_that_was_set_back_is_not_told_as_stored
    what_is_dropped_in_a_store_that_was_set_back_is_not_told_as_not_delivered
    what_is_replaced_and_then_dropped_is_told_as_the_replacement
    a_plain_restart_leaves_no_doubt_behind
    untouched_messages_that_had_left_before_are_settled_and_named
    a_mark_that_a_base_raised_is_no_sign_of_a_store_that_was_set_back
    many_that_were_touched_are_dealt_with_in_pages
}
