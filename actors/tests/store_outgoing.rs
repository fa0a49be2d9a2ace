//! Limits of waiting messages, dead letters, and how both end.
//!
//! Goal: a message is given up when its budget is spent and not before, across restarts; what left
//! this node or may have left it is told apart from what certainly did not; a letter's end is told
//! by the recipient alone.
//! Method: jobs over files and over memory, a clock that is set by hand, stores opened again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use packhorse_actors::events::Fact;
use packhorse_actors::store::{DeadState, Filter, NewMessage, ReceiptState, Refused, StoreError};
use packhorse_protocol::epoch::{Lane, Mark, Position, Refusal, RefusalCode};

use store_common::outgoing::*;
use store_common::*;

over_both_engines! {
    a_moderate_message_is_given_up_after_three_failures_and_a_minute_and_not_before
    attempts_from_before_a_message_do_not_count_and_a_restart_forgets_none
    a_moderate_message_is_given_up_after_a_day_without_any_failure
    any_message_may_expire_and_one_without_an_end_never_does
    what_is_over_is_neither_accepted_nor_handed_out
    what_never_left_is_not_delivered_and_what_was_offered_may_be
    a_letter_that_may_be_delivered_is_stored_when_a_mark_covers_it
    an_opening_below_a_letter_tells_that_it_is_not_delivered
    a_refusal_tells_the_end_of_a_letter_that_may_be_delivered
    a_letter_that_a_base_passes_over_is_not_taken_for_delivered
    a_letter_of_an_earlier_life_is_settled_at_the_next_opening
    holes_do_not_wait_and_do_not_come_back
    a_sweep_of_many_pages_tells_when_to_come_back
    what_is_offered_is_written_once_in_a_thousand
    what_is_accepted_after_a_session_has_not_left
}

async fn a_moderate_message_is_given_up_after_three_failures_and_a_minute_and_not_before(
    mut place: Place,
) {
    let clock = place.clock.clone();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let id = node.send(peer, moderate("a", BORN)).await;
    node.accept(peer, &["critical"]).await;
    node.fail(peer, 2).await;
    clock.advance(61 * SECOND);
    assert_eq!(node.given_up(peer).await, 0, "two failures");
    clock.set_wall(BORN + 59 * SECOND);
    node.fail(peer, 1).await;
    let swept = node.store.sweep(peer).await.unwrap();
    assert_eq!(swept.given_up, 0, "59 seconds");
    assert_eq!(swept.next_due_ms, Some(BORN + 60 * SECOND));
    assert_eq!(
        node.store.dues().await.unwrap(),
        [(peer, BORN + 60 * SECOND)]
    );
    let counts = node.store.outbox_counts(peer);
    assert_eq!(counts.borrow().due_ms, Some(BORN + 60 * SECOND));
    clock.set_wall(BORN + 60 * SECOND);
    let swept = node.store.sweep(peer).await.unwrap();
    assert_eq!((swept.given_up, swept.next_due_ms), (1, None));
    assert_eq!(counts.borrow().due_ms, None);
    assert_eq!(counts.borrow().total(), 1);
    assert!(node.store.dues().await.unwrap().is_empty());
    let [letter] = &node.letters().await[..] else {
        panic!("one letter")
    };
    assert_eq!((letter.id, letter.state), (id, DeadState::NotDelivered));
    assert_eq!(letter.code, RefusalCode(0xff02));
    assert_eq!(node.state(id).await, ReceiptState::Failed);
    assert_eq!(node.waiting(peer).await, ["critical"]);
    let events = node.store.events_since(0, 9).await.unwrap().events;
    assert!(
        matches!(
            events.last().map(|event| &event.fact),
            Some(Fact::GivenUp { count: 1, .. })
        ),
        "{events:?}"
    );
    node.close().await;
}

async fn attempts_from_before_a_message_do_not_count_and_a_restart_forgets_none(mut place: Place) {
    let clock = place.clock.clone();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.fail(peer, 7).await;
    node.send(peer, moderate("a", BORN)).await;
    node.fail(peer, 2).await;
    let rows = node.store.outbox_list(9).await.unwrap().rows;
    assert_eq!(rows[0].failures, 2);
    clock.set_wall(BORN + HOUR);
    assert_eq!(node.given_up(peer).await, 0);
    node.close().await;
    let node = place.open();
    assert_eq!(node.given_up(peer).await, 0);
    assert_eq!(
        node.store.dues().await.unwrap(),
        [(peer, BORN + 24 * HOUR)],
        "the time is known without a sweep"
    );
    assert_eq!(
        node.store.outbox_counts(peer).borrow().due_ms,
        Some(BORN + 24 * HOUR)
    );
    node.fail(peer, 1).await;
    assert_eq!(node.given_up(peer).await, 1);
    assert_eq!(node.total().await, 0);
    node.close().await;
}

async fn a_moderate_message_is_given_up_after_a_day_without_any_failure(mut place: Place) {
    let clock = place.clock.clone();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.send(peer, moderate("a", BORN)).await;
    node.send(peer, moderate("b", BORN + HOUR)).await;
    clock.set_wall(BORN + 24 * HOUR - 1);
    assert_eq!(node.given_up(peer).await, 0);
    clock.set_wall(BORN + 24 * HOUR);
    let swept = node.store.sweep(peer).await.unwrap();
    assert_eq!(
        (swept.given_up, swept.next_due_ms),
        (1, Some(BORN + 25 * HOUR))
    );
    // A clock that goes back gives nothing up early and harms nothing.
    clock.set_wall(BORN - HOUR);
    assert_eq!(node.given_up(peer).await, 0);
    node.close().await;
}

async fn any_message_may_expire_and_one_without_an_end_never_does(mut place: Place) {
    let clock = place.clock.clone();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["for ever"]).await;
    let late = node.send(peer, expiring("late", BORN + 9 * SECOND)).await;
    node.send(peer, expiring("later", BORN + HOUR)).await;
    let rows = node.store.outbox_list(9).await.unwrap().rows;
    assert_eq!(rows[1].expires_ms, Some(BORN + 9 * SECOND));
    assert_eq!(
        node.store.dues().await.unwrap(),
        [(peer, BORN + 9 * SECOND)]
    );
    clock.set_wall(BORN + 9 * SECOND - 1);
    assert_eq!(node.given_up(peer).await, 0);
    clock.set_wall(BORN + 9 * SECOND);
    let swept = node.store.sweep(peer).await.unwrap();
    assert_eq!((swept.given_up, swept.next_due_ms), (1, Some(BORN + HOUR)));
    let letter = &node.letters().await[0];
    assert_eq!((letter.id, letter.code), (late, RefusalCode(0xff03)));
    clock.advance(1_000 * HOUR);
    node.fail(peer, 99).await;
    assert_eq!(node.given_up(peer).await, 1);
    assert_eq!(node.waiting(peer).await, ["for ever"]);
    node.close().await;
}

async fn what_is_over_is_neither_accepted_nor_handed_out(mut place: Place) {
    let clock = place.clock.clone();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    clock.set_wall(BORN);
    for expires_ms in [BORN, 0] {
        let past = vec![expiring("past", expires_ms)];
        let refused = node.store.accept(peer, Lane::User, past).await;
        let expected = Refused::ExpiresPast {
            expires_ms,
            now_ms: BORN,
        };
        assert_eq!(refused, Err(StoreError::Refused(expected)));
    }
    let over_ms = BORN + 9 * SECOND;
    let late = || NewMessage {
        expires_ms: Some(over_ms),
        ..keyed("late", "k")
    };
    node.accept(peer, &["a"]).await;
    let id = node.send(peer, late()).await;
    node.accept(peer, &["b"]).await;
    clock.set_wall(over_ms - 1);
    assert_eq!(node.waiting(peer).await, ["a", "late", "b"]);
    // It may have left; a session that begins later is not handed it, and its mark for what lies
    // behind it does not make it stored.
    node.open_session(peer, id.position.epoch, 0).await;
    clock.set_wall(over_ms);
    assert_eq!(node.waiting(peer).await, ["a", "b"]);
    assert_eq!(
        node.states().await,
        [("late".to_owned(), DeadState::NotDelivered)]
    );
    node.acknowledge(peer, id.position.epoch, 3).await;
    assert_eq!(node.state(id).await, ReceiptState::Failed);
    assert_eq!(node.letters().await.len(), 1);
    // Its sender repeats itself and hears what became of it.
    let again = node.store.accept(peer, Lane::User, vec![late()]).await;
    let again = again.unwrap()[0];
    assert_eq!((again.id, again.state), (id, ReceiptState::Failed));
    // More than one load takes away.
    let many = (0..2_500).map(|_| expiring("x", over_ms + 1)).collect();
    node.store.accept(peer, Lane::User, many).await.unwrap();
    node.accept(peer, &["c"]).await;
    clock.set_wall(over_ms + 1);
    assert_eq!(node.waiting(peer).await, ["c"]);
    assert_eq!(node.total().await, 1);
    let letters = node.store.dead_letters(Filter::default(), 0).await;
    assert_eq!(letters.unwrap().total, 2_501);
    node.close().await;
}

async fn what_never_left_is_not_delivered_and_what_was_offered_may_be(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let never = node.accept(peer, &["never"]).await[0].id;
    let rows = node.store.outbox_list(9).await.unwrap().rows;
    assert!(rows[0].unoffered);
    assert_eq!(node.drop_rows(vec![never]).await, 1);
    let offered = node.accept(peer, &["offered"]).await[0].id;
    assert_eq!(node.waiting(peer).await, ["offered"]);
    let rows = node.store.outbox_list(9).await.unwrap().rows;
    assert!(!rows[0].unoffered);
    // It stays so when the process ends in between.
    node.close().await;
    let node = place.open();
    assert_eq!(node.drop_rows(vec![offered, offered, never]).await, 1);
    let expected = [
        ("never".to_owned(), DeadState::NotDelivered),
        ("offered".to_owned(), DeadState::MayBeDelivered),
    ];
    assert_eq!(node.states().await, expected);
    let receipt = node.store.receipt(offered).await.unwrap().unwrap();
    assert!(receipt.reason.unwrap().contains("may have been delivered"));
    assert_eq!(node.total().await, 0);
    node.close().await;
}

async fn a_letter_that_may_be_delivered_is_stored_when_a_mark_covers_it(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c"]).await;
    let epoch = sent[0].id.position.epoch;
    node.open_session(peer, epoch, 0).await;
    node.waiting(peer).await;
    node.drop_rows(vec![sent[0].id, sent[1].id]).await;
    // The session lives on and sends what it was handed, so a mark says what has arrived.
    node.acknowledge(peer, epoch, 1).await;
    assert_eq!(
        node.states().await,
        [("b".into(), DeadState::MayBeDelivered)]
    );
    assert_eq!(node.state(sent[0].id).await, ReceiptState::Stored);
    assert_eq!(node.state(sent[1].id).await, ReceiptState::Failed);
    node.acknowledge(peer, epoch, 3).await;
    assert!(node.letters().await.is_empty());
    assert_eq!(node.state(sent[1].id).await, ReceiptState::Stored);
    assert_eq!(node.total().await, 0);
    node.close().await;
}

async fn an_opening_below_a_letter_tells_that_it_is_not_delivered(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c"]).await;
    let epoch = sent[0].id.position.epoch;
    node.waiting(peer).await;
    node.drop_rows(vec![sent[0].id, sent[1].id]).await;
    node.open_session(peer, epoch, 1).await;
    assert_eq!(node.states().await, [("b".into(), DeadState::NotDelivered)]);
    assert_eq!(node.state(sent[0].id).await, ReceiptState::Stored);
    // What lies above the mark counts as not offered again.
    let rows = node.store.outbox_list(9).await.unwrap().rows;
    assert!(rows[0].unoffered);
    node.close().await;
}

async fn a_refusal_tells_the_end_of_a_letter_that_may_be_delivered(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a"]).await;
    let epoch = sent[0].id.position.epoch;
    node.waiting(peer).await;
    node.drop_rows(vec![sent[0].id]).await;
    let refusal = Refusal {
        epoch,
        sequence: 1,
        code: RefusalCode::NO_GRANT,
    };
    let marks = vec![Mark { epoch, settled: 1 }];
    let settle = node
        .store
        .settle(peer, Lane::User, marks, vec![refusal])
        .await;
    settle.unwrap();
    assert_eq!(node.states().await, [("a".into(), DeadState::Refused)]);
    assert_eq!(node.state(sent[0].id).await, ReceiptState::Failed);
    node.close().await;
}

async fn a_letter_that_a_base_passes_over_is_not_taken_for_delivered(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c"]).await;
    let epoch = sent[0].id.position.epoch;
    node.open_session(peer, epoch, 0).await;
    let load = |after| node.store.load(peer, Lane::User, after, 1, 1 << 20);
    let (rows, _) = load(None).await.unwrap();
    let after = rows[0].position;
    // Offered, because offering goes in steps, and never handed to the session.
    node.drop_rows(vec![sent[1].id]).await;
    assert_eq!(
        node.states().await,
        [("b".into(), DeadState::MayBeDelivered)]
    );
    let (rows, _) = load(Some(after)).await.unwrap();
    assert_eq!(rows[0].position, sent[2].id.position);
    // The session passes over it with a base, and the mark rises over it.
    node.acknowledge(peer, epoch, 3).await;
    assert_eq!(node.states().await, [("b".into(), DeadState::NotDelivered)]);
    node.close().await;
}

async fn a_letter_of_an_earlier_life_is_settled_at_the_next_opening(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b"]).await;
    let epoch = sent[0].id.position.epoch;
    node.waiting(peer).await;
    node.drop_rows(vec![]).await;
    node.close().await;
    let node = place.open();
    // Start names the epoch, although nothing of it waits, until its letters are settled.
    for _ in 0..2 {
        let spans = node.store.lines(peer, Lane::User).await.unwrap();
        assert_eq!(
            (spans[0].epoch, spans[0].first, spans[0].last),
            (epoch, 3, 2)
        );
    }
    node.open_session(peer, epoch, 1).await;
    assert_eq!(node.states().await, [("b".into(), DeadState::NotDelivered)]);
    assert_eq!(node.state(sent[0].id).await, ReceiptState::Stored);
    assert_eq!(node.state(sent[1].id).await, ReceiptState::Failed);
    node.close().await;
}

async fn holes_do_not_wait_and_do_not_come_back(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c", "d", "e"]).await;
    let epoch = sent[0].id.position.epoch;
    let id = |index: usize| sent[index].id;
    node.drop_rows(vec![id(1), id(3)]).await;
    assert_eq!(node.total().await, 3);
    assert_eq!(node.store.outbox_counts(peer).borrow().total(), 3);
    assert_eq!(node.waiting(peer).await, ["a", "c", "e"]);
    let refusal = Refusal {
        epoch,
        sequence: 3,
        code: RefusalCode::NO_GRANT,
    };
    let marks = vec![Mark { epoch, settled: 3 }];
    let settle = node
        .store
        .settle(peer, Lane::User, marks, vec![refusal])
        .await;
    settle.unwrap();
    // The line stands on the hole behind the mark no longer: the oldest that waits is e.
    let span = node.store.lines(peer, Lane::User).await.unwrap()[0];
    assert_eq!((span.first, span.last, span.acknowledged), (5, 5, 3));
    assert_eq!(node.store.outbox_counts(peer).borrow().total(), 1);
    node.close().await;
    let node = place.open();
    assert_eq!(node.store.outbox_counts(peer).borrow().total(), 1);
    assert_eq!(node.drop_rows(vec![]).await, 1);
    assert_eq!(node.store.outbox_counts(peer).borrow().total(), 0);
    assert_eq!(node.letters().await.len(), 4);
    node.close().await;
}

async fn a_sweep_of_many_pages_tells_when_to_come_back(mut place: Place) {
    let clock = place.clock.clone();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    // More than a page looks at, with one that is due in each third of them.
    let mut messages: Vec<NewMessage> = (0..9_000).map(|n| new(&n.to_string())).collect();
    for (index, expires_ms) in [
        (10, BORN + SECOND),
        (5_000, BORN + SECOND),
        (5_001, BORN + HOUR),
        (8_990, BORN + SECOND),
    ] {
        messages[index].expires_ms = Some(expires_ms);
    }
    for chunk in messages.chunks(3_000) {
        let accepted = node.store.accept(peer, Lane::User, chunk.to_vec()).await;
        accepted.unwrap();
    }
    clock.set_wall(BORN + SECOND);
    let swept = node.store.sweep(peer).await.unwrap();
    assert_eq!((swept.given_up, swept.next_due_ms), (3, Some(BORN + HOUR)));
    assert_eq!(node.store.dues().await.unwrap(), [(peer, BORN + HOUR)]);
    assert_eq!(node.total().await, 8_997);
    // All of them are given up at once, in several jobs.
    assert_eq!(node.drop_rows(vec![]).await, 8_997);
    assert_eq!(node.total().await, 0);
    assert!(node.store.dues().await.unwrap().is_empty());
    let span = node.store.lines(peer, Lane::User).await.unwrap()[0];
    assert_eq!((span.first, span.last), (9_001, 9_000));
    node.close().await;
}

async fn what_is_accepted_after_a_session_has_not_left(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a"]).await[0].id;
    node.waiting(peer).await;
    let early = node.accept(peer, &["early"]).await[0].id;
    node.drop_rows(vec![early]).await;
    assert_eq!(
        node.states().await,
        [("early".into(), DeadState::MayBeDelivered)]
    );
    node.store.session_over(peer).await.unwrap();
    assert_eq!(
        node.states().await,
        [("early".into(), DeadState::NotDelivered)]
    );
    let late = node.send(peer, keyed("late", "k")).await;
    assert_eq!(node.send(peer, replacing("later", "k")).await, late);
    assert_eq!(node.drop_rows(vec![sent, late]).await, 2);
    let expected = [
        ("a".to_owned(), DeadState::MayBeDelivered),
        ("early".to_owned(), DeadState::NotDelivered),
        ("later".to_owned(), DeadState::NotDelivered),
    ];
    assert_eq!(node.states().await, expected);
    node.close().await;
}

async fn what_is_offered_is_written_once_in_a_thousand(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let mut after: Option<Position> = None;
    let mut loads = 0;
    for round in 0..1_100 {
        node.accept(peer, &["a"]).await;
        let commits = node.store.commits();
        let (rows, _) = node
            .store
            .load(peer, Lane::User, after, 9, 1 << 20)
            .await
            .unwrap();
        assert_eq!(rows.len(), 1, "{round}");
        after = Some(rows[0].position);
        loads += node.store.commits() - commits;
    }
    assert_eq!(loads, 2);
    node.close().await;
}
