//! Peers, tickets and epochs in the store, each promise checked over both engines.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use packhorse_actors::store::{
    EpochVerdict, PeerError, PeerNumber, Refused, StoreError, TicketRefusal,
};

use store_common::*;

over_both_engines! {
    a_ticket_pairs_as_often_as_it_says_and_its_user_again_for_nothing
    an_expired_ticket_pairs_nobody_and_is_forgotten
    a_name_in_use_gets_a_suffix_or_is_refused
    a_peer_is_found_by_name_id_and_short_id
    pairing_again_adds_grants_and_takes_none_away
    pairing_again_elsewhere_keeps_the_former_address_behind
    the_epoch_of_a_peer_shows_whether_it_is_a_copy
    the_boot_number_rises_above_what_a_peer_has_seen
    failed_attempts_are_counted_twice_a_minute_at_most_and_for_ever
}

async fn a_ticket_pairs_as_often_as_it_says_and_its_user_again_for_nothing(mut place: Place) {
    let node = place.open();
    let store = &node.store;
    store
        .add_invite(invite(1, 2, 100, &["message.send:news"]))
        .await
        .unwrap();
    let second = store.pair_joiner(joiner(1, 2, 50)).await.unwrap();
    assert_eq!(second.grants, grants_of(&["message.send:news"]));
    assert!(second.granted.is_empty());
    // The verdict was lost: it comes again.
    let again = store.pair_joiner(joiner(1, 2, 60)).await.unwrap();
    assert_eq!(again.number, second.number);
    store.pair_joiner(joiner(1, 3, 70)).await.unwrap();
    let refused = store.pair_joiner(joiner(1, 4, 80)).await;
    let used_up = Refused::Ticket(TicketRefusal::UsedUp);
    assert_eq!(refused, Err(StoreError::Refused(used_up)));
    assert_eq!(store.peers().await.unwrap().len(), 2);
    store.pair_joiner(joiner(1, 3, 90)).await.unwrap();
    let refused = store.pair_joiner(joiner(9, 3, 90)).await;
    let unknown = Refused::Ticket(TicketRefusal::Unknown);
    assert_eq!(refused, Err(StoreError::Refused(unknown)));
    node.close().await;
    let node = place.open();
    assert_eq!(node.store.peers().await.unwrap().len(), 2);
    node.close().await;
}

async fn an_expired_ticket_pairs_nobody_and_is_forgotten(mut place: Place) {
    let node = place.open();
    let expires_ms = place.config.env.now_ms() + 1_000;
    node.store
        .add_invite(invite(1, 1, expires_ms, &[]))
        .await
        .unwrap();
    assert_eq!(
        node.store
            .invite([1; 16])
            .await
            .unwrap()
            .unwrap()
            .key
            .as_bytes(),
        &[1; 32]
    );
    let refused = node.store.pair_joiner(joiner(1, 2, expires_ms)).await;
    let expired = Refused::Ticket(TicketRefusal::Expired);
    assert_eq!(refused, Err(StoreError::Refused(expired)));
    place.clock.advance(2_000);
    node.store
        .add_invite(invite(2, 1, expires_ms + 5_000, &[]))
        .await
        .unwrap();
    // For a day whoever holds it is told that it has expired.
    assert!(node.store.invite([1; 16]).await.unwrap().is_some());
    place.clock.advance(24 * 3_600_000);
    let third = invite(3, 1, expires_ms + 100_000_000, &[]);
    node.store.add_invite(third).await.unwrap();
    assert!(node.store.invite([1; 16]).await.unwrap().is_none());
    assert!(node.store.invite([2; 16]).await.unwrap().is_some());
    place.clock.advance(10_000);
    node.close().await;
    let node = place.open();
    assert!(node.store.invite([2; 16]).await.unwrap().is_none());
    node.close().await;
}

async fn a_name_in_use_gets_a_suffix_or_is_refused(mut place: Place) {
    let node = place.open();
    let store = &node.store;
    let pair = |number: u8, name: Option<&str>| {
        let mut pair = inviter(number, &[]);
        pair.introduction.name = "anna".into();
        pair.name = name.map(str::to_owned);
        store.pair_inviter(pair)
    };
    assert_eq!(pair(2, None).await.unwrap().name, "anna");
    assert_eq!(pair(3, None).await.unwrap().name, "anna-2");
    assert_eq!(pair(4, None).await.unwrap().name, "anna-3");
    let refused = pair(5, Some("anna-2")).await;
    assert_eq!(
        refused,
        Err(StoreError::Refused(Refused::NameTaken("anna-2".into())))
    );
    let bruno = pair(5, Some("bruno")).await.unwrap();
    let refused = store
        .update_peer(bruno.number, |peer| peer.name = "anna".into())
        .await;
    assert_eq!(
        refused,
        Err(StoreError::Refused(Refused::NameTaken("anna".into())))
    );
    store
        .update_peer(bruno.number, |peer| peer.name = "carla".into())
        .await
        .unwrap();
    assert!(store.peer_by_name_or_id("bruno").await.unwrap().is_none());
    assert_eq!(
        store
            .peer_by_name_or_id("carla")
            .await
            .unwrap()
            .unwrap()
            .number,
        bruno.number
    );
    node.close().await;
}

async fn a_peer_is_found_by_name_id_and_short_id(mut place: Place) {
    let first = place.open();
    let peer = first.pair(2, &[]).await;
    first.close().await;
    let second = place.open();
    let store = &second.store;
    let id = node(2);
    for text in ["node2".to_owned(), id.to_string(), id.short()] {
        let found = store.peer_by_name_or_id(&text).await.unwrap();
        assert_eq!(found.unwrap().number, peer, "{text}");
    }
    assert!(store.peer_by_name_or_id("nobody").await.unwrap().is_none());
    assert_eq!(store.peer_by_id(id).await.unwrap().unwrap().number, peer);
    assert_eq!(store.peer(peer).await.unwrap().unwrap().id, id);
    second.close().await;
}

async fn pairing_again_adds_grants_and_takes_none_away(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &["message.send:a"]).await;
    let mut pair = inviter(2, &["message.send:b"]);
    pair.hints = vec!["quic://127.0.0.1:1".into()];
    let again = node.store.pair_inviter(pair).await.unwrap();
    assert_eq!(again.number, peer);
    assert_eq!(
        again.grants,
        grants_of(&["message.send:a", "message.send:b"])
    );
    assert_eq!(
        again.addresses,
        ["quic://127.0.0.1:7002", "quic://127.0.0.1:1"]
    );
    node.close().await;
}

async fn pairing_again_elsewhere_keeps_the_former_address_behind(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let mut pair = inviter(2, &[]);
    pair.introduction.addresses = vec!["quic://127.0.0.1:1".into()];
    node.store.pair_inviter(pair).await.unwrap();
    node.close().await;
    let node = place.open();
    let record = node.store.peer(peer).await.unwrap().unwrap();
    assert_eq!(
        record.addresses,
        ["quic://127.0.0.1:1", "quic://127.0.0.1:7002"]
    );
    node.close().await;
}

async fn the_epoch_of_a_peer_shows_whether_it_is_a_copy(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let judge = |boot, nonce| node.store.judge_epoch(peer, epoch(boot, nonce));
    assert_eq!(judge(1, 2).await.unwrap(), EpochVerdict::Same);
    assert_eq!(judge(5, 1).await.unwrap(), EpochVerdict::Newer);
    assert_eq!(judge(5, 1).await.unwrap(), EpochVerdict::Same);
    let highest = epoch(5, 1);
    assert_eq!(judge(5, 2).await.unwrap(), EpochVerdict::Copy { highest });
    assert_eq!(judge(4, 9).await.unwrap(), EpochVerdict::Copy { highest });
    assert_eq!(judge(6, 9).await.unwrap(), EpochVerdict::Newer);
    node.close().await;
}

async fn the_boot_number_rises_above_what_a_peer_has_seen(mut place: Place) {
    let node = place.open();
    assert_eq!(node.store.raise_boot_floor(40).await.unwrap(), 40);
    assert_eq!(node.store.raise_boot_floor(30).await.unwrap(), 40);
    // False words cannot spend all boot numbers, however many there are.
    for _ in 0..10 {
        assert!(node.store.raise_boot_floor(u32::MAX).await.unwrap() < 2_000_000);
    }
    let floor = node.store.raise_boot_floor(0).await.unwrap();
    node.close().await;
    let node = place.open();
    assert_eq!(node.store.epoch().boot, floor + 1);
    node.close().await;
    let node = place.open();
    assert_eq!(node.store.epoch().boot, floor + 2);
    node.close().await;
}

async fn failed_attempts_are_counted_twice_a_minute_at_most_and_for_ever(mut place: Place) {
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let error = |at_ms, text: &str| PeerError {
        class: 1,
        text: text.into(),
        at_ms,
    };
    let failed = |at_ms| node.store.peer_failed(peer, error(at_ms, "why"));
    assert_eq!(failed(1_000_000).await, Ok(Some(1)));
    for at_ms in [1_000_000, 1_000_001, 1_029_999] {
        assert_eq!(failed(at_ms).await, Ok(None), "{at_ms}");
    }
    let record = node.store.peer(peer).await.unwrap().unwrap();
    // What did not count does not put off the next one that does.
    assert_eq!(record.last_error, Some(error(1_000_000, "why")));
    assert_eq!(failed(1_030_000).await, Ok(Some(2)));
    // The clock went back: nobody knows how long ago the last one was.
    assert_eq!(failed(5).await, Ok(Some(3)));
    assert_eq!(failed(6).await, Ok(None));
    let long = "\u{e9}".repeat(5_000);
    let counted = node.store.peer_failed(peer, error(u64::MAX, &long)).await;
    assert_eq!(counted, Ok(Some(4)));
    let nobody = PeerNumber(99);
    let refused = node.store.peer_failed(nobody, error(1, "why")).await;
    let unknown = Refused::NoSuchPeer(nobody);
    assert_eq!(refused, Err(StoreError::Refused(unknown)));
    node.close().await;
    let node = place.open();
    let record = node.store.peer(peer).await.unwrap().unwrap();
    assert_eq!(record.failures, 4);
    let kept = record.last_error.unwrap();
    assert_eq!(kept, error(u64::MAX, &"\u{e9}".repeat(512)));
    node.close().await;
}
