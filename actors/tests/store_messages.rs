//! Messages in and out of the store, each promise checked over both engines.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use packhorse_actors::store::{ReceiptId, ReceiptState, Refused, StoreError};
use packhorse_protocol::epoch::{Lane, Mark, Position, Refusal, RefusalCode, Span};
use packhorse_protocol::limits::EPOCHS_KEPT_MAX;
use packhorse_protocol::outbox::Inbound;

use store_common::*;

over_both_engines! {
    what_was_accepted_is_there_after_a_clean_end
    every_open_draws_an_epoch_with_a_higher_boot
    messages_wait_in_the_order_of_boot_and_sequence
    a_load_stops_at_each_limit_and_goes_on_behind_its_last_row
    a_load_gives_a_message_over_the_limit_of_bytes_alone
    a_repeated_key_gives_the_first_receipt
    a_key_with_other_bytes_is_refused_and_writes_nothing
    a_key_is_known_after_its_message_was_stored_and_the_store_reopened
    a_settled_message_is_gone_and_its_receipt_says_stored
    a_refused_message_is_a_dead_letter_and_blocks_nothing
    a_mark_of_an_epoch_that_never_was_settles_nothing
    a_mark_above_what_was_given_out_settles_what_is_there
    settling_thousands_takes_several_jobs_and_settles_all
    an_earlier_epoch_still_answers_for_its_receipts
    a_receipt_that_was_never_given_is_not_known
    what_a_peer_sends_arrives_once_and_in_order
    a_gap_is_refused_and_writes_nothing
    a_base_skips_and_never_goes_back
    what_no_grant_allows_is_refused_until_that_is_confirmed
    a_message_over_the_limits_is_refused_like_one_without_a_grant
    topics_do_not_mix_and_done_messages_do_not_come_back
    a_payload_of_one_mebibyte_goes_both_ways
    nothing_is_accepted_for_a_peer_that_is_none
    counts_follow_the_outbox_across_a_reopen
    marks_are_kept_for_so_many_epochs_and_the_oldest_goes
    a_key_is_forgotten_after_a_month_but_not_while_its_message_waits
    jobs_after_the_end_are_told_that_the_store_is_closed
}

async fn what_was_accepted_is_there_after_a_clean_end(mut place: Place) {
    let first = place.open();
    assert!(first.opened.is_new());
    let peer = first.pair(2, &[]).await;
    first.accept(peer, &["a", "b"]).await;
    first.close().await;
    let second = place.open();
    assert!(!second.opened.is_new());
    second.accept(peer, &["c"]).await;
    assert_eq!(second.waiting(peer).await, ["a", "b", "c"]);
    second.close().await;
}

async fn every_open_draws_an_epoch_with_a_higher_boot(mut place: Place) {
    let first = place.open();
    let before = first.store.epoch();
    assert_eq!(before.boot, 1);
    first.close().await;
    let second = place.open();
    assert_eq!(second.store.epoch().boot, 2);
    assert_ne!(second.store.epoch().nonce, before.nonce);
    second.close().await;
}

async fn messages_wait_in_the_order_of_boot_and_sequence(mut place: Place) {
    let first = place.open();
    let peer = first.pair(2, &[]).await;
    first.accept(peer, &["a", "b"]).await;
    let old = first.store.epoch();
    first.close().await;
    let second = place.open();
    second.accept(peer, &["c"]).await;
    let (rows, _) = second
        .store
        .load(peer, Lane::User, None, 9, 9_999)
        .await
        .unwrap();
    let places: Vec<(u32, u64)> = rows
        .iter()
        .map(|row| (row.position.epoch.boot, row.position.sequence))
        .collect();
    assert_eq!(places, [(1, 1), (1, 2), (2, 1)]);
    assert_eq!(rows[0].position.epoch, old);
    let spans = second.store.lines(peer, Lane::User).await.unwrap();
    assert_eq!(spans.len(), 2);
    assert_eq!(
        (spans[0].first, spans[0].last, spans[0].acknowledged),
        (1, 2, 0)
    );
    assert_eq!((spans[1].first, spans[1].last), (1, 1));
    second.close().await;
}

async fn a_load_stops_at_each_limit_and_goes_on_behind_its_last_row(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["a", "b", "c"]).await;
    let (rows, exhausted) = node
        .store
        .load(peer, Lane::User, None, 2, 9_999)
        .await
        .unwrap();
    assert_eq!((rows.len(), exhausted), (2, false));
    let after = Some(rows[1].position);
    let (rows, exhausted) = node
        .store
        .load(peer, Lane::User, after, 2, 9_999)
        .await
        .unwrap();
    assert_eq!((rows.len(), exhausted), (1, true));
    assert_eq!(rows[0].message.payload, b"c");
    // "news" and one byte of payload weigh five.
    let (rows, exhausted) = node
        .store
        .load(peer, Lane::User, None, 9, 10)
        .await
        .unwrap();
    assert_eq!((rows.len(), exhausted), (2, false));
    let (rows, exhausted) = node
        .store
        .load(peer, Lane::System, None, 9, 10)
        .await
        .unwrap();
    assert_eq!((rows.len(), exhausted), (0, true));
    node.close().await;
}

async fn a_load_gives_a_message_over_the_limit_of_bytes_alone(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["a long message", "b"]).await;
    let (rows, exhausted) = node.store.load(peer, Lane::User, None, 9, 1).await.unwrap();
    assert_eq!((rows.len(), exhausted), (1, false));
    node.close().await;
}

async fn a_repeated_key_gives_the_first_receipt(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let send = |text: &str, key: &str| node.store.accept(peer, Lane::User, vec![keyed(text, key)]);
    let first = send("a", "one").await.unwrap()[0];
    let again = send("a", "one").await.unwrap()[0];
    assert!(!first.repeated);
    assert!(again.repeated);
    assert_eq!((again.id, again.state), (first.id, ReceiptState::Accepted));
    let other = send("a", "two").await.unwrap()[0];
    assert_ne!(other.id, first.id);
    // Twice within one call.
    let both = vec![keyed("b", "three"), keyed("b", "three")];
    let both = node.store.accept(peer, Lane::User, both).await.unwrap();
    assert_eq!(both[0].id, both[1].id);
    assert!(both[1].repeated);
    assert_eq!(node.waiting(peer).await, ["a", "a", "b"]);
    // The scope of a key is the peer.
    let third = node.pair(3, &[]).await;
    let elsewhere = node
        .store
        .accept(third, Lane::User, vec![keyed("z", "one")])
        .await
        .unwrap();
    assert!(!elsewhere[0].repeated);
    node.close().await;
}

async fn a_key_with_other_bytes_is_refused_and_writes_nothing(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let first = node
        .store
        .accept(peer, Lane::User, vec![keyed("a", "one")])
        .await
        .unwrap()[0];
    let send = vec![new("before"), keyed("b", "one"), new("behind")];
    let refused = node.store.accept(peer, Lane::User, send).await;
    let receipt = first.id.to_string();
    assert_eq!(
        refused,
        Err(StoreError::Refused(Refused::KeyConflict { receipt }))
    );
    assert_eq!(node.waiting(peer).await, ["a"]);
    // The sequences of what was refused are given out again.
    assert_eq!(node.accept(peer, &["c"]).await[0].id.position.sequence, 2);
    node.close().await;
}

async fn a_key_is_known_after_its_message_was_stored_and_the_store_reopened(mut place: Place) {
    let first = place.open();
    let peer = first.pair(2, &[]).await;
    let sent = first
        .store
        .accept(peer, Lane::User, vec![keyed("a", "one")])
        .await
        .unwrap()[0];
    let mark = Mark {
        epoch: first.store.epoch(),
        settled: 1,
    };
    first
        .store
        .settle(peer, Lane::User, vec![mark], vec![])
        .await
        .unwrap();
    first.close().await;
    let second = place.open();
    let again = second
        .store
        .accept(peer, Lane::User, vec![keyed("a", "one")])
        .await
        .unwrap()[0];
    assert_eq!(
        (again.id, again.state, again.repeated),
        (sent.id, ReceiptState::Stored, true)
    );
    assert!(second.waiting(peer).await.is_empty());
    second.close().await;
}

async fn a_settled_message_is_gone_and_its_receipt_says_stored(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c"]).await;
    let mark = Mark {
        epoch: node.store.epoch(),
        settled: 2,
    };
    node.store
        .settle(peer, Lane::User, vec![mark], vec![])
        .await
        .unwrap();
    assert_eq!(node.waiting(peer).await, ["c"]);
    let state = async |id: ReceiptId| node.store.receipt(id).await.unwrap().unwrap().state;
    assert_eq!(state(sent[1].id).await, ReceiptState::Stored);
    assert_eq!(state(sent[2].id).await, ReceiptState::Accepted);
    let span = node.store.lines(peer, Lane::User).await.unwrap()[0];
    assert_eq!((span.first, span.last, span.acknowledged), (3, 3, 2));
    // Repeated and lower marks change nothing.
    let lower = Mark { settled: 1, ..mark };
    node.store
        .settle(peer, Lane::User, vec![mark, lower], vec![])
        .await
        .unwrap();
    assert_eq!(node.store.lines(peer, Lane::User).await.unwrap()[0], span);
    assert_eq!(node.store.outbox_list(0).await.unwrap().total, 1);
    node.close().await;
}

async fn a_refused_message_is_a_dead_letter_and_blocks_nothing(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c"]).await;
    let epoch = node.store.epoch();
    let refusal = Refusal {
        epoch,
        sequence: 2,
        code: RefusalCode::NO_GRANT,
    };
    let mark = Mark { epoch, settled: 2 };
    // Repeated in every acknowledgement until it is confirmed.
    for _ in 0..2 {
        node.store
            .settle(peer, Lane::User, vec![mark], vec![refusal])
            .await
            .unwrap();
    }
    assert_eq!(node.waiting(peer).await, ["c"]);
    let receipt = node.store.receipt(sent[1].id).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Failed);
    assert_eq!(
        receipt.reason.as_deref(),
        Some(RefusalCode::NO_GRANT.reason())
    );
    assert_eq!(receipt.message.unwrap().payload, b"b");
    let state = async |id: ReceiptId| node.store.receipt(id).await.unwrap().unwrap().state;
    assert_eq!(state(sent[0].id).await, ReceiptState::Stored);
    // The last of a line, refused ahead of its mark, leaves nothing waiting.
    let last = Refusal {
        sequence: 3,
        ..refusal
    };
    let mark = Mark { epoch, settled: 3 };
    node.store
        .settle(peer, Lane::User, vec![mark], vec![last])
        .await
        .unwrap();
    assert_eq!(node.store.outbox_list(0).await.unwrap().total, 0);
    node.close().await;
}

async fn a_mark_of_an_epoch_that_never_was_settles_nothing(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["a"]).await;
    let ours = node.store.epoch();
    let forged = epoch(ours.boot, ours.nonce ^ 1);
    let marks = vec![
        Mark {
            epoch: forged,
            settled: 1,
        },
        Mark {
            epoch: epoch(9, 9),
            settled: 1,
        },
    ];
    let refusals = vec![Refusal {
        epoch: forged,
        sequence: 1,
        code: RefusalCode::NO_GRANT,
    }];
    node.store
        .settle(peer, Lane::User, marks, refusals)
        .await
        .unwrap();
    assert_eq!(node.waiting(peer).await, ["a"]);
    node.close().await;
}

async fn a_mark_above_what_was_given_out_settles_what_is_there(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["a"]).await;
    let mark = Mark {
        epoch: node.store.epoch(),
        settled: u64::MAX,
    };
    node.store
        .settle(peer, Lane::User, vec![mark], vec![])
        .await
        .unwrap();
    assert!(node.waiting(peer).await.is_empty());
    node.accept(peer, &["b"]).await;
    assert_eq!(node.waiting(peer).await, ["b"]);
    node.close().await;
}

async fn settling_thousands_takes_several_jobs_and_settles_all(mut place: Place) {
    const COUNT: u64 = 9_000;
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let texts: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    node.accept(peer, &texts).await;
    let mark = Mark {
        epoch: node.store.epoch(),
        settled: COUNT - 1,
    };
    node.store
        .settle(peer, Lane::User, vec![mark], vec![])
        .await
        .unwrap();
    assert_eq!(node.waiting(peer).await, ["8999"]);
    assert_eq!(node.store.outbox_list(9).await.unwrap().total, 1);
    node.close().await;
}

async fn an_earlier_epoch_still_answers_for_its_receipts(mut place: Place) {
    let first = place.open();
    let peer = first.pair(2, &[]).await;
    let sent = first.accept(peer, &["a", "b"]).await;
    let epoch = first.store.epoch();
    first
        .store
        .settle(peer, Lane::User, vec![Mark { epoch, settled: 1 }], vec![])
        .await
        .unwrap();
    first.close().await;
    let second = place.open();
    second
        .store
        .settle(peer, Lane::User, vec![Mark { epoch, settled: 2 }], vec![])
        .await
        .unwrap();
    // Nothing of that epoch waits any more, but Start still names it: it is the newest of which
    // anything was acknowledged, and shows a recipient that was set back.
    let spans = second.store.lines(peer, Lane::User).await.unwrap();
    let past = Span {
        epoch,
        first: 3,
        last: 2,
        acknowledged: 2,
    };
    assert_eq!(spans, [past]);
    second.close().await;
    let third = place.open();
    for accepted in sent {
        let receipt = third.store.receipt(accepted.id).await.unwrap().unwrap();
        assert_eq!(receipt.state, ReceiptState::Stored);
    }
    third.close().await;
}

async fn a_receipt_that_was_never_given_is_not_known(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a"]).await[0].id;
    let Position {
        epoch: ours,
        sequence,
    } = sent.position;
    let places = [
        (ours, 0),
        (ours, sequence + 1),
        (epoch(ours.boot, ours.nonce ^ 1), sequence),
        (epoch(ours.boot + 1, ours.nonce), sequence),
    ];
    for (epoch, sequence) in places {
        let id = ReceiptId {
            position: Position { epoch, sequence },
            ..sent
        };
        assert_eq!(node.store.receipt(id).await.unwrap(), None);
    }
    node.close().await;
}

async fn what_a_peer_sends_arrives_once_and_in_order(mut place: Place) {
    let first = place.open();
    let peer = first.pair(2, &["message.send:*"]).await;
    let theirs = epoch(4, 4);
    let (marks, refusals) = first
        .store
        .store_inbound(peer, Lane::User, vec![batch(theirs, 1, &["a", "b"])])
        .await
        .unwrap();
    assert_eq!(
        marks,
        [Mark {
            epoch: theirs,
            settled: 2
        }]
    );
    assert!(refusals.is_empty());
    first.close().await;
    // The acknowledgement was lost: everything comes again, and more.
    let second = place.open();
    let items = vec![batch(theirs, 1, &["a", "b"]), batch(theirs, 3, &["c"])];
    let (marks, _) = second
        .store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    assert_eq!(
        marks,
        [Mark {
            epoch: theirs,
            settled: 3
        }]
    );
    assert_eq!(second.arrived("news").await, ["a", "b", "c"]);
    let asked = vec![theirs, epoch(5, 5)];
    let (marks, _) = second.store.marks(peer, Lane::User, asked).await.unwrap();
    assert_eq!(marks[0].settled, 3);
    assert_eq!(
        marks[1],
        Mark {
            epoch: epoch(5, 5),
            settled: 0
        }
    );
    let listing = second.store.inbox_list(1).await.unwrap();
    assert_eq!((listing.total, listing.rows.len()), (3, 1));
    assert_eq!(
        listing.rows[0].position,
        Position {
            epoch: theirs,
            sequence: 1
        }
    );
    assert_eq!((listing.rows[0].peer, listing.rows[0].arrival), (peer, 1));
    second.close().await;
}

async fn a_gap_is_refused_and_writes_nothing(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let theirs = epoch(4, 4);
    let items = vec![batch(theirs, 1, &["a"]), batch(theirs, 3, &["c"])];
    let refused = node.store.store_inbound(peer, Lane::User, items).await;
    assert_eq!(
        refused,
        Err(StoreError::Refused(Refused::Gap {
            expected: 2,
            found: 3
        }))
    );
    assert!(node.arrived("news").await.is_empty());
    let (marks, _) = node
        .store
        .marks(peer, Lane::User, vec![theirs])
        .await
        .unwrap();
    assert_eq!(marks[0].settled, 0);
    node.close().await;
}

async fn a_base_skips_and_never_goes_back(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let theirs = epoch(4, 4);
    let items = vec![
        Inbound::Base {
            epoch: theirs,
            first: 10,
        },
        batch(theirs, 10, &["a"]),
        Inbound::Base {
            epoch: theirs,
            first: 5,
        },
        Inbound::Base {
            epoch: theirs,
            first: 0,
        },
    ];
    let (marks, _) = node
        .store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    assert_eq!(
        marks,
        [Mark {
            epoch: theirs,
            settled: 10
        }]
    );
    assert_eq!(node.arrived("news").await, ["a"]);
    node.close().await;
}

async fn what_no_grant_allows_is_refused_until_that_is_confirmed(mut place: Place) {
    let node = place.open();
    let peer = node
        .pair(2, &["message.send:news", "message.send:!secret"])
        .await;
    let theirs = epoch(4, 4);
    let mut other = message("b");
    other.topic = "weather".into();
    let messages = vec![
        Ok(message("a")),
        Ok(other),
        Ok(message("c")),
        Err(RefusalCode::UNDECODABLE),
    ];
    let items = vec![Inbound::Messages {
        epoch: theirs,
        first: 1,
        messages,
    }];
    let (marks, refusals) = node
        .store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    assert_eq!(
        marks,
        [Mark {
            epoch: theirs,
            settled: 4
        }]
    );
    let codes: Vec<(u64, RefusalCode)> = refusals
        .iter()
        .map(|refusal| (refusal.sequence, refusal.code))
        .collect();
    assert_eq!(
        codes,
        [(2, RefusalCode::NO_GRANT), (4, RefusalCode::UNDECODABLE)]
    );
    assert_eq!(node.arrived("news").await, ["a", "c"]);
    assert!(node.arrived("weather").await.is_empty());
    node.store
        .confirm_refusals(peer, Lane::User, vec![(theirs, 2)])
        .await
        .unwrap();
    let (_, refusals) = node.store.marks(peer, Lane::User, vec![]).await.unwrap();
    assert_eq!(refusals.len(), 1);
    // A grant that is taken away counts for the next message.
    node.store
        .update_peer(peer, |peer| peer.grants = grants_of(&[]))
        .await
        .unwrap();
    let (_, refusals) = node
        .store
        .store_inbound(peer, Lane::User, vec![batch(theirs, 5, &["d"])])
        .await
        .unwrap();
    assert_eq!(refusals.len(), 2);
    node.close().await;
}

async fn a_message_over_the_limits_is_refused_like_one_without_a_grant(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let theirs = epoch(4, 4);
    let mut large = message("");
    large.payload = vec![0; (1 << 20) + 1];
    let messages = vec![Ok(large.clone()), Ok(message("b"))];
    let items = vec![Inbound::Messages {
        epoch: theirs,
        first: 1,
        messages,
    }];
    let (_, refusals) = node
        .store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    assert_eq!(refusals[0].code, RefusalCode::TOO_LARGE);
    assert_eq!(node.arrived("news").await, ["b"]);
    let send = vec![packhorse_actors::store::NewMessage::new(large)];
    let refused = node.store.accept(peer, Lane::User, send).await;
    assert!(
        matches!(refused, Err(StoreError::Refused(Refused::Message(_)))),
        "{refused:?}"
    );
    node.close().await;
}

async fn topics_do_not_mix_and_done_messages_do_not_come_back(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let theirs = epoch(4, 4);
    let messages = ["a", "b", "c", "d"].map(|topic| {
        let mut message = message(topic);
        message.topic = if topic == "b" {
            "other".into()
        } else {
            "news".into()
        };
        Ok(message)
    });
    let items = vec![Inbound::Messages {
        epoch: theirs,
        first: 1,
        messages: messages.into(),
    }];
    node.store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    assert_eq!(node.arrived("other").await, ["b"]);
    let rows = node
        .store
        .inbox_waiting("news".into(), 0, 2, usize::MAX)
        .await
        .unwrap();
    assert_eq!(
        rows.iter().map(|row| row.arrival).collect::<Vec<_>>(),
        [1, 3]
    );
    let rows = node
        .store
        .inbox_waiting("news".into(), 3, 2, usize::MAX)
        .await
        .unwrap();
    assert_eq!(rows.iter().map(|row| row.arrival).collect::<Vec<_>>(), [4]);
    // Out of order, repeated, and with one that never was.
    node.store.inbox_done(vec![3, 3, 99]).await.unwrap();
    node.store.inbox_done(vec![3, 1]).await.unwrap();
    assert_eq!(node.arrived("news").await, ["d"]);
    assert_eq!(node.arrived("other").await, ["b"]);
    assert_eq!(node.store.inbox_list(9).await.unwrap().total, 2);
    node.store.inbox_done(vec![2, 4]).await.unwrap();
    assert_eq!(node.store.inbox_list(9).await.unwrap().total, 0);
    node.store
        .store_inbound(peer, Lane::User, vec![batch(theirs, 5, &["e"])])
        .await
        .unwrap();
    assert_eq!(node.arrived("news").await, ["e"]);
    node.close().await;
    let node = place.open();
    assert_eq!(node.arrived("news").await, ["e"]);
    node.close().await;
}

async fn a_payload_of_one_mebibyte_goes_both_ways(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let payload = vec![0x5a; 1 << 20];
    let mut large = message("");
    large.payload = payload.clone();
    let send = vec![packhorse_actors::store::NewMessage::new(large.clone())];
    node.store.accept(peer, Lane::User, send).await.unwrap();
    let messages = vec![Ok(large)];
    let items = vec![Inbound::Messages {
        epoch: epoch(4, 4),
        first: 1,
        messages,
    }];
    node.store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    node.close().await;
    let node = place.open();
    let (rows, _) = node.store.load(peer, Lane::User, None, 1, 1).await.unwrap();
    assert_eq!(rows[0].message.payload, payload);
    let rows = node
        .store
        .inbox_waiting("news".into(), 0, 1, usize::MAX)
        .await
        .unwrap();
    assert_eq!(rows[0].message.payload, payload);
    node.close().await;
}

async fn nothing_is_accepted_for_a_peer_that_is_none(mut place: Place) {
    let node = place.open();
    let peer = packhorse_actors::store::PeerNumber(7);
    let none = Err(StoreError::Refused(Refused::NoSuchPeer(peer)));
    assert_eq!(
        node.store.accept(peer, Lane::User, vec![new("a")]).await,
        none
    );
    let items = vec![batch(epoch(1, 1), 1, &["a"])];
    let refused = node.store.store_inbound(peer, Lane::User, items).await;
    assert_eq!(refused, Err(StoreError::Refused(Refused::NoSuchPeer(peer))));
    node.close().await;
}

async fn counts_follow_the_outbox_across_a_reopen(mut place: Place) {
    let first = place.open();
    let peer = first.pair(2, &[]).await;
    let mut grew = first.store.outbox_grew();
    let counts = first.store.outbox_counts(peer);
    assert_eq!(counts.borrow().total(), 0);
    first.accept(peer, &["a", "b"]).await;
    assert_eq!(counts.borrow().waiting, [2, 0]);
    assert_eq!(counts.borrow().grown, 2);
    assert_eq!(counts.borrow().oldest_born_ms, Some(1_750_000_000_000));
    assert_eq!(within(grew.recv()).await, Ok(peer));
    assert_eq!(first.store.waiting_peers(), [peer]);
    let old = first.store.epoch();
    first.close().await;

    let second = place.open();
    let counts = second.store.outbox_counts(peer);
    let mut grew = second.store.outbox_grew();
    assert_eq!(counts.borrow().waiting, [2, 0]);
    assert_eq!(second.store.waiting_peers(), [peer]);
    // It waited before, so nobody is told again.
    second.accept(peer, &["c"]).await;
    assert!(grew.try_recv().is_err());
    let marks = vec![
        Mark {
            epoch: old,
            settled: 2,
        },
        Mark {
            epoch: second.store.epoch(),
            settled: 1,
        },
    ];
    second
        .store
        .settle(peer, Lane::User, marks, vec![])
        .await
        .unwrap();
    assert_eq!(counts.borrow().total(), 0);
    assert_eq!(counts.borrow().settled, 3);
    assert!(second.store.waiting_peers().is_empty());
    let arrived = second.store.inbox_arrived();
    second
        .store
        .update_peer(peer, |peer| peer.grants = grants_of(&["message.send:*"]))
        .await
        .unwrap();
    second
        .store
        .store_inbound(peer, Lane::User, vec![batch(epoch(9, 9), 1, &["x"])])
        .await
        .unwrap();
    assert_eq!(*arrived.borrow(), 1);
    second.close().await;
}

async fn marks_are_kept_for_so_many_epochs_and_the_oldest_goes(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let limit = u32::try_from(EPOCHS_KEPT_MAX).unwrap();
    let bases = |boots: std::ops::RangeInclusive<u32>| {
        boots
            .map(|boot| Inbound::Base {
                epoch: epoch(boot, 1),
                first: 8,
            })
            .collect::<Vec<_>>()
    };
    node.store
        .store_inbound(peer, Lane::User, bases(1..=limit))
        .await
        .unwrap();
    node.store
        .store_inbound(peer, Lane::User, bases(limit + 1..=limit + 2))
        .await
        .unwrap();
    let asked = [1, 2, 3, limit + 2].map(|boot| epoch(boot, 1)).to_vec();
    let (marks, _) = node.store.marks(peer, Lane::User, asked).await.unwrap();
    let settled: Vec<u64> = marks.iter().map(|mark| mark.settled).collect();
    assert_eq!(settled, [0, 0, 7, 7]);
    node.close().await;
}

async fn a_key_is_forgotten_after_a_month_but_not_while_its_message_waits(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let send = |text: &str, key: &str| node.store.accept(peer, Lane::User, vec![keyed(text, key)]);
    let first = send("a", "one").await.unwrap()[0];
    place.clock.advance(31 * 24 * 3_600 * 1_000);
    send("b", "two").await.unwrap();
    assert_eq!(send("a", "one").await.unwrap()[0].id, first.id);
    let mark = Mark {
        epoch: node.store.epoch(),
        settled: 2,
    };
    node.store
        .settle(peer, Lane::User, vec![mark], vec![])
        .await
        .unwrap();
    send("c", "three").await.unwrap();
    assert_ne!(send("a", "one").await.unwrap()[0].id, first.id);
    // The second key is not a month old.
    assert!(send("b", "two").await.unwrap()[0].repeated);
    node.close().await;
}

async fn jobs_after_the_end_are_told_that_the_store_is_closed(mut place: Place) {
    let node = place.open();
    let store = node.store.clone();
    node.close().await;
    assert_eq!(store.raise_boot_floor(1).await, Err(StoreError::Closed));
    assert_eq!(store.peers().await, Err(StoreError::Closed));
}
