//! How senders hear of what became of their messages, and that nobody else sees how.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use std::collections::BTreeSet;

use packhorse_actors::env::testing::SeededRandom;
use packhorse_actors::store::{Filter, ReceiptId, ReceiptState, Settled, Verdict};
use packhorse_protocol::epoch::{Epoch, Lane, Mark, Position, Refusal, RefusalCode};
use packhorse_protocol::outbox::Inbound;
use packhorse_protocol::receipt::{DONE, FAILED, OutcomeReport, Receipts, TOPIC};

use store_common::pair::*;
use store_common::*;

#[tokio::test]
async fn handled_messages_are_told_as_one_range_and_only_once() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a", "b", "c", "d"]).await;
    assert_eq!(pair.states(&ids).await, [ReceiptState::Stored; 4]);
    let mut counts = pair.sender.store.outbox_counts(pair.peer);
    counts.borrow_and_update();
    let arrivals = pair.arrivals().await;
    pair.recipient
        .store
        .inbox_done(vec![arrivals[2], arrivals[0], arrivals[1]])
        .await
        .unwrap();
    assert_eq!(pair.reports_waiting(), 1);
    // Repeating it, and what never was, say nothing.
    pair.recipient
        .store
        .inbox_done(arrivals[..3].to_vec())
        .await
        .unwrap();
    pair.recipient.store.inbox_done(vec![999]).await.unwrap();
    assert_eq!(pair.reports_waiting(), 1);
    assert_eq!(pair.reports().await, []);
    assert_eq!(pair.reports_waiting(), 0);
    let done = ReceiptState::Done;
    assert_eq!(
        pair.states(&ids).await,
        [done, done, done, ReceiptState::Stored]
    );
    assert!(counts.has_changed().unwrap());
    assert_eq!(counts.borrow().outcomes, 1);
    // Nothing of it is shown to applications, on either side.
    assert_eq!(pair.sender.store.inbox_list(9).await.unwrap().total, 0);
}

#[tokio::test]
async fn a_report_that_comes_twice_changes_nothing() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a"]).await;
    pair.recipient
        .store
        .inbox_done(pair.arrivals().await)
        .await
        .unwrap();
    let (peer, back) = (pair.peer, pair.back);
    offer(&pair.recipient, &pair.sender, back, peer, Lane::System).await;
    let outcomes = pair.sender.store.outbox_counts(peer).borrow().outcomes;
    pair.reports().await;
    assert_eq!(
        pair.sender.store.outbox_counts(peer).borrow().outcomes,
        outcomes
    );
    assert_eq!(pair.state(&ids[0]).await, ReceiptState::Done);
}

#[tokio::test]
async fn what_a_handler_wrote_and_why_it_failed_reach_the_sender() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a", "b"]).await;
    let arrivals = pair.arrivals().await;
    let output = vec![7; 5_000];
    let done = pair
        .recipient
        .store
        .inbox_settle(arrivals[0], Verdict::Done { output }, 0);
    assert_eq!(done.await.unwrap(), Settled::Done);
    let dead = Verdict::Dead {
        reason: "no\nsuch file".into(),
        output: b"trace".to_vec(),
    };
    let dead = pair.recipient.store.inbox_settle(arrivals[1], dead, 0);
    assert_eq!(dead.await.unwrap(), Settled::Dead);
    pair.reports().await;
    let receipt = pair.sender.store.receipt(ids[0]).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Done);
    assert_eq!(receipt.output, Some(vec![7; 4_096]));
    assert!(receipt.at_ms.is_some());
    let receipt = pair.sender.store.receipt(ids[1]).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Failed);
    assert_eq!(receipt.reason.as_deref(), Some("no such file"));
    assert_eq!(receipt.output.as_deref(), Some(&b"trace"[..]));
    let letters = pair
        .recipient
        .store
        .dead_in(Filter::default(), 9)
        .await
        .unwrap();
    assert_eq!(letters.total, 1);
    assert_eq!(letters.rows[0].message.payload, b"b");
    assert_eq!(letters.rows[0].reason, "no such file");
    assert_eq!(pair.arrivals().await, [0_u64; 0]);
}

#[tokio::test]
async fn reports_survive_a_power_cut_of_either_side_at_any_step() {
    for steps in 0..24 {
        let mut pair = Pair::new(&["message.send:*"]).await;
        let ids = pair.send(&["a", "b"]).await;
        let arrivals = pair.arrivals().await;
        // The recipient dies while it acknowledges, and asks again when it is back.
        pair.recipient_place.disk().cut_after(steps);
        let _ = pair.recipient.store.inbox_done(arrivals.clone()).await;
        pair.recipient_place.disk().cut();
        drop(pair.recipient);
        pair.recipient = pair.recipient_place.open();
        pair.recipient.store.inbox_done(arrivals).await.unwrap();
        assert_eq!(pair.reports_waiting(), 1, "cut after {steps}");
        assert_eq!(pair.arrivals().await, [0_u64; 0]);
        // The sender dies while it takes the report; the recipient repeats what was not settled.
        let load = pair
            .recipient
            .store
            .load(pair.back, Lane::System, None, 9, usize::MAX);
        let rows = load.await.unwrap().0;
        let items: Vec<Inbound> = rows
            .into_iter()
            .map(|row| Inbound::Messages {
                epoch: row.position.epoch,
                first: row.position.sequence,
                messages: vec![Ok(row.message)],
            })
            .collect();
        pair.sender_place.disk().cut_after(steps);
        let _ = pair
            .sender
            .store
            .store_inbound(pair.peer, Lane::System, items)
            .await;
        pair.sender_place.disk().cut();
        drop(pair.sender);
        pair.sender = pair.sender_place.open();
        assert_eq!(pair.reports().await, [], "cut after {steps}");
        assert_eq!(
            pair.states(&ids).await,
            [ReceiptState::Done; 2],
            "cut after {steps}"
        );
    }
}

#[tokio::test]
async fn what_was_never_sent_there_is_counted_and_dropped() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a", "b"]).await;
    let ours = ids[0].position.epoch;
    let strange = Epoch {
        nonce: ours.nonce + 1,
        ..ours
    };
    let done = vec![
        (strange, 1, 2),
        (epoch(77, 7), 1, 1),
        (ours, 3, 9),
        (ours, 2, 9),
    ];
    let outcome = |at| OutcomeReport {
        at,
        state: FAILED,
        reason: String::new(),
        output: vec![],
    };
    let at = |epoch, sequence| Position { epoch, sequence };
    let outcomes = vec![outcome(at(ours, 3)), outcome(at(strange, 1))];
    let receipts = Receipts {
        lane: 0,
        done,
        outcomes,
    };
    assert_eq!(pair.report(1, report_of(&receipts)).await, []);
    // The last range is right in part: what was sent there counts.
    let states = pair.states(&ids).await;
    assert_eq!(states, [ReceiptState::Stored, ReceiptState::Done]);
    let counts = pair.sender.store.outbox_counts(pair.peer);
    assert_eq!(counts.borrow().unknown_receipts, 6);
    // What is accepted afterwards is not done before it was sent.
    let later = pair.sender.accept(pair.peer, &["c"]).await;
    assert_eq!(pair.state(&later[0].id).await, ReceiptState::Accepted);
}

#[tokio::test]
async fn anything_else_in_the_system_lane_is_refused_and_blocks_nothing() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a"]).await;
    let mut other = message("hello");
    other.topic = "news".into();
    let mut malformed = report_of(&Receipts::default());
    malformed.payload.push(1);
    let receipts = Receipts {
        lane: 0,
        done: vec![(ids[0].position.epoch, 1, 1)],
        outcomes: vec![],
    };
    let good = report_of(&receipts);
    assert_eq!(
        pair.report(1, other).await[0].code,
        RefusalCode::UNDECODABLE
    );
    let refusals = pair.report(2, malformed).await;
    let codes: Vec<RefusalCode> = refusals.iter().map(|refusal| refusal.code).collect();
    assert_eq!(codes, [RefusalCode::UNDECODABLE; 2]);
    // The peer holds no grant at all on the sender's side, and reports all the same.
    assert_eq!(pair.report(3, good).await.len(), 2);
    assert_eq!(pair.state(&ids[0]).await, ReceiptState::Done);
    assert_eq!(pair.sender.store.inbox_list(9).await.unwrap().total, 0);
}

#[tokio::test]
async fn a_report_with_output_does_not_lose_the_message_from_the_ranges() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a"]).await;
    let outcome = |state| Receipts {
        lane: 0,
        done: vec![],
        outcomes: vec![OutcomeReport {
            at: ids[0].position,
            state,
            reason: String::new(),
            output: b"x".to_vec(),
        }],
    };
    pair.report(1, report_of(&outcome(FAILED))).await;
    assert_eq!(pair.state(&ids[0]).await, ReceiptState::Failed);
    pair.report(2, report_of(&outcome(DONE))).await;
    let receipt = pair.sender.store.receipt(ids[0]).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Done);
    assert_eq!(receipt.output.as_deref(), Some(&b"x"[..]));
}

#[tokio::test]
async fn ranges_grow_together_in_whichever_order_they_come() {
    const LAST: u64 = 60;
    for seed in 0..40 {
        let random = SeededRandom::new(seed);
        let pair = Pair::new(&["message.send:*"]).await;
        let texts = vec!["a"; LAST as usize];
        let ids = pair.send(&texts).await;
        let ours = ids[0].position.epoch;
        let mut model = BTreeSet::new();
        for sequence in 1..30 {
            let first = 1 + random.below(LAST);
            let last = (first + random.below(8)).min(LAST);
            model.extend(first..=last);
            let receipts = Receipts {
                lane: 0,
                done: vec![(ours, first, last)],
                outcomes: vec![],
            };
            pair.report(sequence, report_of(&receipts)).await;
        }
        let is_done: Vec<u64> = pair
            .states(&ids)
            .await
            .into_iter()
            .zip(1..)
            .filter_map(|(state, at)| (state == ReceiptState::Done).then_some(at))
            .collect();
        assert_eq!(
            is_done,
            model.iter().copied().collect::<Vec<u64>>(),
            "seed {seed}"
        );
        // As few records as stretches: a message of DoneRange is 21.
        let rows = pair
            .sender_place
            .disk()
            .rows(packhorse_actors::store::Space::Small);
        let records = rows
            .iter()
            .filter(|(key, _)| key.first() == Some(&21))
            .count();
        let stretches = model
            .iter()
            .filter(|at| !model.contains(&(*at - 1)))
            .count();
        assert_eq!(records, stretches, "seed {seed}");
    }
}

#[tokio::test]
async fn reports_are_nobodys_messages_and_cannot_be_dropped() {
    let pair = Pair::new(&["message.send:*"]).await;
    let ids = pair.send(&["a"]).await;
    let store = &pair.recipient.store;
    store.inbox_done(pair.arrivals().await).await.unwrap();
    assert_eq!(pair.reports_waiting(), 1);
    // They are a reason to dial, and nothing that a person waits for.
    let counts = *store.outbox_counts(pair.back).borrow();
    assert_eq!((counts.user(), counts.total()), (0, 1));
    assert_eq!(counts.oldest_born_ms, None);
    assert_eq!(store.waiting_peers(), [pair.back]);
    let (all, named) = (
        Filter::default(),
        Filter {
            peer: Some(pair.back),
            topic: Some(TOPIC.into()),
        },
    );
    let load = store.load(pair.back, Lane::System, None, 9, usize::MAX);
    let report = ReceiptId {
        peer: pair.back,
        lane: Lane::System,
        position: load.await.unwrap().0[0].position,
    };
    for filter in [all.clone(), named.clone()] {
        let listed = store.outbox_list_of(filter.clone(), 9).await.unwrap();
        assert_eq!((listed.total, listed.rows), (0, vec![]), "{filter:?}");
        for ids in [vec![], vec![report]] {
            let dropped = store.outbox_drop(filter.clone(), ids).await;
            assert_eq!(dropped, Ok(0), "{filter:?}");
        }
    }
    // Beside a message of a person only that one is seen, and dropped.
    pair.recipient.accept(pair.back, &["mine"]).await;
    assert_eq!(store.outbox_list(9).await.unwrap().total, 1);
    assert_eq!(store.outbox_drop(all.clone(), vec![]).await, Ok(1));
    assert_eq!(pair.reports_waiting(), 1);
    // One that is refused there is a dead letter of its own kind, whatever its topic.
    let Position { epoch, sequence } = report.position;
    let refusal = Refusal {
        epoch,
        sequence,
        code: RefusalCode(3),
    };
    let mark = Mark {
        epoch,
        settled: sequence,
    };
    let settle = store.settle(pair.back, Lane::System, vec![mark], vec![refusal]);
    settle.await.unwrap();
    let letters = store.dead_letters(all, 9).await.unwrap().rows;
    let lanes: Vec<_> = letters.iter().map(|letter| letter.id.lane).collect();
    assert_eq!(lanes, [Lane::User, Lane::System]);
    assert_eq!(store.dead_letters(named, 9).await.unwrap().total, 0);
    assert_eq!(pair.state(&ids[0]).await, ReceiptState::Stored);
}
