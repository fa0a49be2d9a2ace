//! What people do with messages that wait or were given up: drop, send again, replace.
//!
//! Goal: nothing that may have arrived is sent twice or rewritten, and nothing that was dropped
//! comes back or stands in the way of the rest.
//! Method: jobs over files and over memory, stores opened again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use packhorse_actors::store::{Filter, NewMessage, PeerNumber, ReceiptState, Refused, StoreError};
use packhorse_protocol::epoch::Lane;

use store_common::outgoing::*;
use store_common::*;

over_both_engines! {
    a_letter_is_sent_again_only_when_its_end_is_known
    a_letter_is_dropped_for_good
    a_message_that_has_not_left_is_replaced_in_place
    what_may_have_left_is_not_replaced
    a_drop_takes_what_matches_and_no_more
}

async fn a_letter_is_sent_again_only_when_its_end_is_known(mut place: Place) {
    let clock = place.clock.clone();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.send(peer, moderate("a", BORN)).await;
    let epoch = sent.position.epoch;
    node.accept(peer, &["b"]).await;
    node.waiting(peer).await;
    node.drop_rows(vec![sent]).await;
    let refused = node.store.dead_retry(sent).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(Refused::Unsettled { .. }))),
        "{refused:?}"
    );
    node.open_session(peer, epoch, 0).await;
    clock.set_wall(BORN + 48 * HOUR);
    node.fail(peer, 9).await;
    let again = node.store.dead_retry(sent).await.unwrap();
    assert_eq!(again.state, ReceiptState::Accepted);
    assert!(node.letters().await.is_empty());
    assert_eq!(node.waiting(peer).await, ["b", "a"]);
    assert_eq!(node.given_up(peer).await, 0, "its budget begins anew");
    let again_refused = node.store.dead_retry(sent).await;
    let missing = |result| {
        matches!(
            result,
            Err(StoreError::Refused(Refused::NoSuchLetter { .. }))
        )
    };
    assert!(missing(again_refused));
    assert_eq!(node.state(sent).await, ReceiptState::Accepted);
    node.acknowledge(peer, epoch, 3).await;
    assert_eq!(node.state(sent).await, ReceiptState::Stored);
    assert_eq!(node.state(again.id).await, ReceiptState::Stored);
    node.close().await;
}

async fn a_letter_is_dropped_for_good(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c"]).await;
    let epoch = sent[0].id.position.epoch;
    node.drop_rows(vec![sent[1].id]).await;
    node.store.dead_drop(sent[1].id).await.unwrap();
    let missing = node.store.dead_drop(sent[1].id).await;
    assert!(matches!(
        missing,
        Err(StoreError::Refused(Refused::NoSuchLetter { .. }))
    ));
    let receipt = node.store.receipt(sent[1].id).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Failed);
    assert_eq!(receipt.reason.as_deref(), Some("dropped by hand"));
    // Its place in the line is not taken for damage.
    assert_eq!(node.waiting(peer).await, ["a", "c"]);
    assert!(node.letters().await.is_empty());
    node.acknowledge(peer, epoch, 3).await;
    assert_eq!(node.total().await, 0);
    assert!(node.letters().await.is_empty());
    // One whose end is open can be dropped as well, and is not looked for any more.
    let open = node.accept(peer, &["d"]).await[0].id;
    node.waiting(peer).await;
    node.drop_rows(vec![open]).await;
    node.store.dead_drop(open).await.unwrap();
    node.open_session(peer, epoch, 3).await;
    assert!(node.letters().await.is_empty());
    assert_eq!(node.state(open).await, ReceiptState::Failed);
    node.close().await;
}

async fn a_message_that_has_not_left_is_replaced_in_place(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let first = node.send(peer, keyed("a", "k")).await;
    node.accept(peer, &["b"]).await;
    let conflict = node
        .store
        .accept(peer, Lane::User, vec![keyed("A", "k")])
        .await;
    assert!(matches!(
        conflict,
        Err(StoreError::Refused(Refused::KeyConflict { .. }))
    ));
    assert_eq!(node.send(peer, replacing("A", "k")).await, first);
    // The same again is a repetition, also without asking for a replacement.
    assert_eq!(node.send(peer, keyed("A", "k")).await, first);
    // In an earlier epoch's line, twice within one call, and now with an end.
    node.close().await;
    let node = place.open();
    let ending = NewMessage {
        expires_ms: Some(BORN + HOUR),
        ..replacing("AAA", "k")
    };
    let both = vec![keyed("c", "n"), replacing("C", "n"), ending];
    let sent = node.store.accept(peer, Lane::User, both).await.unwrap();
    assert_eq!(sent[0].id, sent[1].id);
    assert_eq!(sent[2].id, first);
    assert_eq!(node.store.dues().await.unwrap(), [(peer, BORN + HOUR)]);
    assert_eq!(node.waiting(peer).await, ["AAA", "b", "C"]);
    place.clock.set_wall(BORN + HOUR);
    assert_eq!(node.given_up(peer).await, 1);
    node.close().await;
}

async fn what_may_have_left_is_not_replaced(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let id = node.send(peer, keyed("a", "k")).await;
    let epoch = id.position.epoch;
    node.waiting(peer).await;
    let too_late = async |node: &Node| {
        let refused = node
            .store
            .accept(peer, Lane::User, vec![replacing("A", "k")])
            .await;
        let receipt = id.to_string();
        assert_eq!(
            refused,
            Err(StoreError::Refused(Refused::TooLate { receipt }))
        );
    };
    too_late(&node).await;
    node.close().await;
    let node = place.open();
    too_late(&node).await;
    // The next opening shows that it has not arrived: it may be replaced until it is offered.
    node.open_session(peer, epoch, 0).await;
    assert_eq!(node.send(peer, replacing("B", "k")).await, id);
    assert_eq!(node.waiting(peer).await, ["B"]);
    too_late(&node).await;
    node.acknowledge(peer, epoch, 1).await;
    too_late(&node).await;
    node.close().await;
}

async fn a_drop_takes_what_matches_and_no_more(mut place: Place) {
    let node = place.open();
    let (anna, berta) = (node.pair(2, &[]).await, node.pair(3, &[]).await);
    let mut other = message("other");
    other.topic = "old".into();
    for peer in [anna, berta] {
        node.accept(peer, &["x", "y"]).await;
        node.send(peer, NewMessage::new(other.clone())).await;
    }
    let filter = Filter {
        peer: Some(anna),
        topic: Some("news".into()),
    };
    let listed = node.store.outbox_list_of(filter.clone(), 1).await.unwrap();
    assert_eq!((listed.total, listed.rows.len()), (2, 1));
    assert_eq!(node.store.outbox_drop(filter.clone(), vec![]).await, Ok(2));
    assert_eq!(node.waiting(anna).await, ["other"]);
    assert_eq!(node.waiting(berta).await, ["x", "y", "other"]);
    let listed = node.store.dead_letters(filter, 1).await.unwrap();
    assert_eq!((listed.total, listed.rows.len()), (2, 1));
    let filter = Filter {
        topic: Some("old".into()),
        ..Filter::default()
    };
    assert_eq!(
        node.store
            .dead_letters(filter.clone(), 9)
            .await
            .unwrap()
            .total,
        0
    );
    assert_eq!(node.store.outbox_list_of(filter, 9).await.unwrap().total, 2);
    let unknown = node.store.accept(PeerNumber(99), Lane::User, vec![]).await;
    assert!(unknown.is_err());
    node.close().await;
}
