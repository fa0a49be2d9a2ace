//! What becomes of messages that arrived: given up, put back, found again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use packhorse_actors::store::{
    Begun, FAILURES_MAX, Filter, ReceiptState, Refused, Settled, StoreError, UNENDED_MAX, Verdict,
    Whereabouts,
};
use packhorse_protocol::epoch::Lane;

use store_common::pair::*;
use store_common::*;

#[tokio::test]
async fn a_letter_that_is_put_back_and_handled_is_done_in_the_end() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a", "b"]).await;
    let store = &pair.recipient.store;
    for arrival in pair.arrivals().await {
        let dead = Verdict::Dead {
            reason: "not today".into(),
            output: vec![],
        };
        store.inbox_settle(arrival, dead, 0).await.unwrap();
    }
    pair.reports().await;
    assert_eq!(pair.states(&ids).await, [ReceiptState::Failed; 2]);
    let filter = Filter {
        peer: Some(pair.back),
        topic: Some("news".into()),
    };
    assert_eq!(store.dead_in(filter, 1).await.unwrap().total, 2);
    let arrived = *store.inbox_arrived().borrow();
    let retry = store.dead_in_retry(pair.back, Lane::User, ids[0].position);
    retry.await.unwrap();
    assert!(*store.inbox_arrived().borrow() > arrived);
    let drop = store.dead_in_drop(pair.back, Lane::User, ids[1].position);
    drop.await.unwrap();
    let again = store
        .dead_in_drop(pair.back, Lane::User, ids[1].position)
        .await;
    assert!(matches!(
        again,
        Err(StoreError::Refused(Refused::NoSuchArrivedLetter))
    ));
    store.inbox_done(pair.arrivals().await).await.unwrap();
    pair.reports().await;
    assert_eq!(
        pair.states(&ids).await,
        [ReceiptState::Done, ReceiptState::Failed]
    );
    assert_eq!(store.dead_in(Filter::default(), 9).await.unwrap().total, 0);
}

#[tokio::test]
async fn a_message_is_given_up_at_the_limit_of_failures_and_not_before() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a"]).await;
    let arrival = pair.arrivals().await[0];
    let store = &pair.recipient.store;
    let now_ms = 1_750_000_000_000;
    for count in 1..FAILURES_MAX {
        let settled = store
            .inbox_settle(arrival, failed("exit 1"), u64::MAX)
            .await
            .unwrap();
        let longest = (1_000_u64 << (count - 1)).min(300_000);
        let due_ms = now_ms + longest;
        let expected = Settled::Later {
            due_ms,
            delay_ms: longest,
            failures: count,
        };
        assert_eq!(settled, expected);
    }
    // Giving it back is no failure, also at the edge.
    let retry = Verdict::Retry {
        delay_ms: Some(5),
        reason: "busy".into(),
    };
    let settled = store.inbox_settle(arrival, retry, 0).await.unwrap();
    let expected = Settled::Later {
        due_ms: now_ms + 5,
        delay_ms: 5,
        failures: FAILURES_MAX - 1,
    };
    assert_eq!(settled, expected);
    let settled = store
        .inbox_settle(arrival, failed("exit 1"), 0)
        .await
        .unwrap();
    assert_eq!(settled, Settled::Dead);
    let settled = store
        .inbox_settle(arrival, failed("exit 1"), 0)
        .await
        .unwrap();
    assert_eq!(settled, Settled::Gone);
    pair.reports().await;
    let receipt = pair.sender.store.receipt(ids[0]).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Failed);
    assert!(receipt.reason.unwrap().contains("10 attempts failed"));
}

#[tokio::test]
async fn an_attempt_is_counted_durably_and_only_for_who_may_start_a_command() {
    let mut pair = Pair::new(&["message.send:*", "execute:news"]).await;
    pair.send(&["a"]).await;
    let arrival = pair.arrivals().await[0];
    assert_eq!(
        pair.recipient.store.inbox_try_begin(arrival).await.unwrap(),
        Begun::Attempt(1)
    );
    pair.recipient_place.disk().cut();
    drop(pair.recipient);
    pair.recipient = pair.recipient_place.open();
    assert_eq!(
        pair.recipient.store.inbox_try_begin(arrival).await.unwrap(),
        Begun::Attempt(2)
    );
    let change = |peer: &mut packhorse_actors::store::PeerRecord| {
        peer.grants = grants_of(&["message.send:*"]);
    };
    pair.recipient
        .store
        .update_peer(pair.back, change)
        .await
        .unwrap();
    let begun = pair.recipient.store.inbox_try_begin(arrival).await;
    assert!(matches!(
        begun,
        Err(StoreError::Refused(Refused::NoExecute))
    ));
    pair.recipient
        .store
        .inbox_done(vec![arrival])
        .await
        .unwrap();
    let begun = pair.recipient.store.inbox_try_begin(arrival).await;
    assert!(matches!(
        begun,
        Err(StoreError::Refused(Refused::NotInInbox(_)))
    ));
}

#[tokio::test]
async fn a_message_whose_handlers_end_without_a_verdict_is_given_up_at_the_limit() {
    let pair = Pair::new(&["message.send:*", "execute:*"]).await;
    let ids = pair.send(&["a"]).await;
    let store = &pair.recipient.store;
    let arrival = pair.arrivals().await[0];
    let begin = async || store.inbox_try_begin(arrival).await.unwrap();
    for attempt in 1..=5 {
        assert_eq!(begin().await, Begun::Attempt(attempt));
    }
    // A verdict, even one that counts no failure, shows that the worker lives.
    let later = Verdict::Retry {
        delay_ms: Some(1),
        reason: "busy".into(),
    };
    store.inbox_settle(arrival, later, 0).await.unwrap();
    for attempt in 1..=UNENDED_MAX {
        assert_eq!(begin().await, Begun::Attempt(5 + attempt));
    }
    assert_eq!(begin().await, Begun::GivenUp);
    assert_eq!(pair.arrivals().await, []);
    let gone = store.inbox_try_begin(arrival).await;
    assert!(
        matches!(gone, Err(StoreError::Refused(Refused::NotInInbox(_)))),
        "{gone:?}"
    );
    let letters = store.dead_in(Filter::default(), 9).await.unwrap();
    let reason = "100 attempts in a row ended without a verdict";
    assert_eq!(letters.rows[0].reason, reason);
    pair.reports().await;
    let receipt = pair.sender.store.receipt(ids[0]).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Failed);
    assert_eq!(receipt.reason.as_deref(), Some(reason));
}

#[tokio::test]
async fn a_message_is_found_where_it_is() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a", "b", "c"]).await;
    let store = &pair.recipient.store;
    let arrivals = pair.arrivals().await;
    store
        .inbox_settle(arrivals[0], failed("exit 2"), 0)
        .await
        .unwrap();
    let dead = Verdict::Dead {
        reason: "never".into(),
        output: vec![],
    };
    store.inbox_settle(arrivals[1], dead, 0).await.unwrap();
    store.inbox_done(vec![arrivals[2]]).await.unwrap();
    let found = store.inbox_find(None, ids[0].position).await.unwrap();
    let Some(Whereabouts::Waiting { row, tries }) = found else {
        panic!("{found:?}");
    };
    assert_eq!((row.arrival, tries.failures), (arrivals[0], 1));
    assert_eq!(tries.reason, "exit 2");
    let found = store
        .inbox_find(Some(pair.back), ids[1].position)
        .await
        .unwrap();
    assert!(matches!(found, Some(Whereabouts::Dead(_))), "{found:?}");
    let found = store.inbox_find(None, ids[2].position).await.unwrap();
    assert_eq!(found, Some(Whereabouts::Left));
    let mut never = ids[2].position;
    never.sequence += 1;
    assert_eq!(store.inbox_find(None, never).await.unwrap(), None);
    let topics = store.inbox_topics().await.unwrap();
    assert_eq!(topics.len(), 1);
    assert_eq!((topics[0].topic.as_str(), topics[0].waiting), ("news", 1));
}
