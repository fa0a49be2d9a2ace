//! Requests to be paired, received and sent: their bounds, their ends, and what a decision does,
//! over both engines.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use std::net::IpAddr;

use packhorse_actors::store::{
    ASKING_MS_MAX, ASKINGS_MAX, AskingAnswer, AskingRecord, AskingState, NewRequest,
    REQUEST_MS_MAX, REQUESTS_NEAR_MAX, REQUESTS_WAITING_MAX, Refused, RequestState, Requested,
    StoreError, StoreHandle,
};
use packhorse_protocol::grant::Grants;

use store_common::*;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

over_both_engines! {
    a_request_waits_once_however_often_it_is_made
    as_many_requests_wait_as_may_and_a_decision_makes_room
    a_prefix_gets_four_a_day_and_loopback_is_exempt
    a_rejected_node_is_remembered_for_a_day_and_a_denied_one_for_good
    an_approval_makes_a_peer_and_waits_for_nothing_more
    a_request_that_nobody_decides_about_ends_after_a_week
    asking_is_kept_until_the_answer_and_pairs_in_one_step
    what_was_withdrawn_or_begun_anew_hears_no_old_answer
    who_is_a_peer_or_denied_is_not_asked_and_not_too_many_are
    becoming_peers_ends_what_was_asked_and_a_peer_is_not_rejected
}

fn request(number: u8, from: [u8; 4]) -> NewRequest {
    NewRequest {
        introduction: introduction(number),
        text: format!("hay for {number}"),
        from: IpAddr::from(from),
    }
}

/// Every one from its own address.
fn far(number: u8) -> [u8; 4] {
    [198, 51, 100, number]
}

async fn ask(store: &StoreHandle, number: u8, from: [u8; 4]) -> Requested {
    store.request(request(number, from)).await.unwrap()
}

fn refused<T>(refused: Refused) -> Result<T, StoreError> {
    Err(StoreError::Refused(refused))
}

async fn a_request_waits_once_however_often_it_is_made(mut place: Place) {
    let node = place.open();
    let first_ms = place.config.env.now_ms();
    let waits = Requested::Waits { asked_ms: first_ms };
    assert_eq!(ask(&node.store, 2, far(2)).await, waits);
    place.clock.advance(60_000);
    // Another text and another address change nothing but the time.
    let mut again = request(2, far(3));
    again.text = "something else".into();
    again.introduction.name = "other".into();
    assert_eq!(node.store.request(again).await.unwrap(), waits);
    node.close().await;
    let node = place.open();
    let kept = node.store.requests(first_ms).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].introduction, introduction(2));
    assert_eq!(kept[0].text, "hay for 2");
    assert_eq!(kept[0].from, IpAddr::from(far(2)));
    assert_eq!(kept[0].asked_ms, first_ms);
    assert_eq!(kept[0].last_ms, first_ms + 60_000);
    assert_eq!(kept[0].state, RequestState::Waiting);
    node.close().await;
}

async fn as_many_requests_wait_as_may_and_a_decision_makes_room(mut place: Place) {
    let node = place.open();
    let last = u8::try_from(REQUESTS_WAITING_MAX).unwrap() + 1;
    for number in 2..=last {
        let asked = ask(&node.store, number, far(number)).await;
        assert!(matches!(asked, Requested::Waits { .. }), "{number}");
    }
    let next = last + 1;
    assert_eq!(ask(&node.store, next, far(next)).await, Requested::Full);
    // Who waits already may come again.
    let again = ask(&node.store, 2, far(2)).await;
    assert!(matches!(again, Requested::Waits { .. }));
    node.store
        .reject_request(introduction(2).id, false)
        .await
        .unwrap();
    let asked = ask(&node.store, next, far(next)).await;
    assert!(matches!(asked, Requested::Waits { .. }));
    node.close().await;
}

async fn a_prefix_gets_four_a_day_and_loopback_is_exempt(mut place: Place) {
    let node = place.open();
    let from = [192, 0, 2, 7];
    let near = u8::try_from(REQUESTS_NEAR_MAX).unwrap();
    for number in 2..2 + near {
        let asked = ask(&node.store, number, from).await;
        assert!(matches!(asked, Requested::Waits { .. }), "{number}");
    }
    assert_eq!(ask(&node.store, 20, from).await, Requested::TooMany);
    // A decision makes no room here: that would invite a stream of strangers.
    node.store
        .reject_request(introduction(2).id, false)
        .await
        .unwrap();
    assert_eq!(ask(&node.store, 20, from).await, Requested::TooMany);
    let elsewhere = ask(&node.store, 20, [192, 0, 2, 8]).await;
    assert!(matches!(elsewhere, Requested::Waits { .. }));
    for number in 30..36 {
        let asked = ask(&node.store, number, [127, 0, 0, 1]).await;
        assert!(matches!(asked, Requested::Waits { .. }), "{number}");
    }
    place.clock.advance(DAY_MS);
    let asked = ask(&node.store, 40, from).await;
    assert!(matches!(asked, Requested::Waits { .. }));
    node.close().await;
}

async fn a_rejected_node_is_remembered_for_a_day_and_a_denied_one_for_good(mut place: Place) {
    let node = place.open();
    let (two, three) = (introduction(2).id, introduction(3).id);
    ask(&node.store, 2, far(2)).await;
    ask(&node.store, 3, far(3)).await;
    node.store.reject_request(two, false).await.unwrap();
    node.store.reject_request(three, true).await.unwrap();
    assert_eq!(ask(&node.store, 2, far(2)).await, Requested::Rejected);
    let denied = node.store.request(request(3, far(3))).await;
    assert_eq!(denied, refused(Refused::Denied(three)));
    place.clock.advance(DAY_MS);
    let asked = ask(&node.store, 2, far(2)).await;
    assert!(matches!(asked, Requested::Waits { .. }), "{asked:?}");
    let denied = node.store.request(request(3, far(3))).await;
    assert_eq!(denied, refused(Refused::Denied(three)));
    // Also an approval does not override it.
    let approved = node
        .store
        .approve_request(three, None, Grants::none())
        .await;
    assert_eq!(approved, refused(Refused::NoSuchRequest(three)));
    let nobody = introduction(9).id;
    let none = node.store.reject_request(nobody, false).await;
    assert_eq!(none, refused(Refused::NoSuchRequest(nobody)));
    node.close().await;
}

async fn an_approval_makes_a_peer_and_waits_for_nothing_more(mut place: Place) {
    let node = place.open();
    let two = introduction(2).id;
    ask(&node.store, 2, far(2)).await;
    let grants = grants_of(&["message.send:orders"]);
    let name = Some("donkey".to_owned());
    let peer = node.store.approve_request(two, name, grants.clone()).await;
    let peer = peer.unwrap();
    assert_eq!((peer.name.as_str(), &peer.grants), ("donkey", &grants));
    assert_eq!(peer.addresses, introduction(2).addresses);
    let found = node.store.peer_by_id(two).await.unwrap().unwrap();
    assert_eq!(found.number, peer.number);
    // Approved once more it keeps its number; rejecting a peer is what `forget` is for.
    let again = node.store.approve_request(two, None, Grants::none()).await;
    assert_eq!(again.unwrap().number, peer.number);
    let late = node.store.reject_request(two, true).await;
    assert_eq!(late, refused(Refused::NoSuchRequest(two)));
    node.close().await;
    let node = place.open();
    let now_ms = place.config.env.now_ms();
    let kept = node.store.requests(now_ms).await.unwrap();
    assert_eq!(kept[0].state, RequestState::Approved);
    assert!(
        node.store
            .requests(now_ms + DAY_MS)
            .await
            .unwrap()
            .is_empty()
    );
    node.close().await;
}

async fn a_request_that_nobody_decides_about_ends_after_a_week(mut place: Place) {
    let node = place.open();
    let two = introduction(2).id;
    ask(&node.store, 2, far(2)).await;
    place.clock.advance(REQUEST_MS_MAX - 1);
    let now_ms = place.config.env.now_ms();
    assert_eq!(node.store.requests(now_ms).await.unwrap().len(), 1);
    place.clock.advance(1);
    let now_ms = place.config.env.now_ms();
    assert!(node.store.requests(now_ms).await.unwrap().is_empty());
    let late = node.store.approve_request(two, None, Grants::none()).await;
    assert_eq!(late, refused(Refused::NoSuchRequest(two)));
    // Asked again, it is new.
    assert_eq!(
        ask(&node.store, 2, far(2)).await,
        Requested::Waits { asked_ms: now_ms }
    );
    node.close().await;
}

fn asking(number: u8) -> AskingRecord {
    AskingRecord {
        text: "hay, please".into(),
        name: "barn".into(),
        grants: grants_of(&["message.send:orders"]),
        ..AskingRecord::new(introduction(number).id, vec!["quic://barn:7433".into()])
    }
}

fn answer(state: AskingState, text: &str) -> AskingAnswer {
    AskingAnswer {
        state,
        text: text.into(),
        next_ms: 77,
    }
}

async fn asking_is_kept_until_the_answer_and_pairs_in_one_step(mut place: Place) {
    let node = place.open();
    let two = introduction(2).id;
    let begun = node.store.begin_asking(asking(2)).await.unwrap();
    assert_eq!(begun.begun_ms, place.config.env.now_ms());
    assert_eq!((begun.next_ms, begun.tries), (begun.begun_ms, 0));
    let waits = answer(AskingState::Waits, "asked");
    let written = node.store.asking_answered(two, begun.begun_ms, waits);
    written.await.unwrap();
    node.close().await;
    let node = place.open();
    let kept = node.store.asking(two).await.unwrap().unwrap();
    assert_eq!(
        (kept.state, kept.tries, kept.next_ms),
        (AskingState::Waits, 1, 77)
    );
    assert_eq!(
        (kept.text.as_str(), kept.answer.as_str()),
        ("hay, please", "asked")
    );
    assert_eq!(kept.grants, asking(2).grants);
    // The name is taken meanwhile: the pairing goes first, under the name it announces.
    node.pair(3, &[]).await;
    let three = node.store.peer_by_id(introduction(3).id).await.unwrap();
    let renamed = node
        .store
        .update_peer(three.unwrap().number, |peer| peer.name = "barn".into());
    renamed.await.unwrap();
    let granted = grants_of(&["message.send:*"]);
    let peer = node
        .store
        .pair_asked(introduction(2), granted.clone())
        .await;
    let peer = peer.unwrap().unwrap();
    assert_eq!(peer.name, introduction(2).name);
    assert_eq!((&peer.grants, &peer.granted), (&asking(2).grants, &granted));
    assert!(peer.addresses.contains(&"quic://barn:7433".to_owned()));
    assert!(node.store.asking(two).await.unwrap().is_none());
    let again = node.store.pair_asked(introduction(2), granted).await;
    assert_eq!(again.unwrap(), None);
    node.close().await;
}

async fn what_was_withdrawn_or_begun_anew_hears_no_old_answer(mut place: Place) {
    let node = place.open();
    let two = introduction(2).id;
    let first = node.store.begin_asking(asking(2)).await.unwrap();
    place.clock.advance(1_000);
    let second = node.store.begin_asking(asking(2)).await.unwrap();
    assert_ne!(first.begun_ms, second.begun_ms);
    let no = || answer(AskingState::Refused, "no");
    let late = node.store.asking_answered(two, first.begun_ms, no());
    late.await.unwrap();
    let kept = node.store.asking(two).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.tries), (AskingState::Unheard, 0));
    let written = node.store.asking_answered(two, second.begun_ms, no());
    written.await.unwrap();
    // A no pairs nobody, is shown for a day, and asking may begin anew.
    let paired = node.store.pair_asked(introduction(2), Grants::none()).await;
    assert_eq!(paired.unwrap(), None);
    let now_ms = place.config.env.now_ms();
    assert_eq!(node.store.askings(now_ms).await.unwrap().len(), 1);
    assert!(
        node.store
            .askings(now_ms + DAY_MS)
            .await
            .unwrap()
            .is_empty()
    );
    node.store.begin_asking(asking(2)).await.unwrap();
    node.store.withdraw_asking(two).await.unwrap();
    let withdrawn = node.store.withdraw_asking(two).await;
    assert_eq!(withdrawn, refused(Refused::NoSuchRequest(two)));
    let paired = node.store.pair_asked(introduction(2), Grants::none()).await;
    assert_eq!(paired.unwrap(), None);
    assert!(node.store.peers().await.unwrap().is_empty());
    const { assert!(ASKING_MS_MAX == REQUEST_MS_MAX) };
    node.close().await;
}

async fn who_is_a_peer_or_denied_is_not_asked_and_not_too_many_are(mut place: Place) {
    let node = place.open();
    node.pair(2, &[]).await;
    let name = introduction(2).name;
    let peer = node.store.begin_asking(asking(2)).await;
    assert_eq!(peer, refused(Refused::AlreadyPaired(name.clone())));
    let named = AskingRecord {
        name: name.clone(),
        ..asking(3)
    };
    let taken = node.store.begin_asking(named).await;
    assert_eq!(taken, refused(Refused::NameTaken(name)));
    let three = introduction(3).id;
    ask(&node.store, 3, far(3)).await;
    node.store.reject_request(three, true).await.unwrap();
    let denied = node.store.begin_asking(asking(3)).await;
    assert_eq!(denied, refused(Refused::Denied(three)));
    let last = u8::try_from(ASKINGS_MAX).unwrap() + 9;
    for number in 10..=last {
        node.store.begin_asking(asking(number)).await.unwrap();
    }
    let more = node.store.begin_asking(asking(last + 1)).await;
    assert_eq!(more, refused(Refused::TooManyAskings));
    // The same one may begin anew.
    node.store.begin_asking(asking(last)).await.unwrap();
    node.close().await;
}

async fn becoming_peers_ends_what_was_asked_and_a_peer_is_not_rejected(mut place: Place) {
    let node = place.open();
    let store = &node.store;
    let id = introduction(2).id;
    // Both ask, and then it comes by a ticket.
    ask(store, 2, far(2)).await;
    let mut wanted = asking(2);
    wanted.grants = grants_of(&["message.send:asked"]);
    store.begin_asking(wanted).await.unwrap();
    let peer = node.pair(2, &["message.send:given"]).await;
    let now_ms = place.config.env.now_ms();
    assert_eq!(store.requests(now_ms).await.unwrap(), []);
    assert_eq!(store.askings(now_ms).await.unwrap(), []);
    let record = store.peer(peer).await.unwrap().unwrap();
    assert_eq!(
        record.grants,
        grants_of(&["message.send:given", "message.send:asked"])
    );
    // Neither way denies a peer and leaves its session with all that it may do.
    let is_peer = Refused::AlreadyPaired(record.name);
    assert_eq!(store.deny(id, "two".into()).await, refused(is_peer.clone()));
    ask(store, 2, far(2)).await;
    for deny in [false, true] {
        assert_eq!(
            store.reject_request(id, deny).await,
            refused(is_peer.clone())
        );
    }
    assert!(!store.is_denied(id).await.unwrap());
    // Who is denied is asked no more.
    store.begin_asking(asking(3)).await.unwrap();
    let denied = introduction(3).id;
    store.deny(denied, "three".into()).await.unwrap();
    assert!(store.is_denied(denied).await.unwrap());
    assert_eq!(store.askings(now_ms).await.unwrap(), []);
    node.close().await;
}
