//! Forgetting peers, changing grants and taking tickets back, as the store promises it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use packhorse_actors::store::{
    DeadState, Filter, PeerNumber, Refused, Space, StoreError, TicketRefusal,
};
use packhorse_protocol::epoch::{Epoch, Lane, RefusalCode};
use packhorse_protocol::grant::{Held, Revocation};

use store_common::*;

const THEIRS: Epoch = Epoch { boot: 3, nonce: 3 };
/// More than one job puts aside.
const MANY: usize = 1_100;

over_both_engines! {
    what_waits_for_a_forgotten_peer_and_came_from_it_becomes_dead_letters
    a_forgotten_node_pairs_only_when_it_is_allowed_and_takes_its_number_back
    a_grant_counts_from_its_commit_to_its_end_or_to_its_revocation
    a_ticket_says_what_became_of_it_and_gives_nothing_twice
}

fn refused<T>(answer: Result<T, StoreError>) -> Option<Refused> {
    match answer {
        Err(StoreError::Refused(refused)) => Some(refused),
        _ => None,
    }
}

async fn arrive(node: &Node, peer: PeerNumber, first: u64, texts: &[&str]) -> Option<Refused> {
    let items = vec![batch(THEIRS, first, texts)];
    refused(node.store.store_inbound(peer, Lane::User, items).await)
}

async fn what_waits_for_a_forgotten_peer_and_came_from_it_becomes_dead_letters(mut place: Place) {
    let node = place.open();
    let store = &node.store;
    let gone = node.pair(2, &["message.send:*"]).await;
    let stays = node.pair(3, &["message.send:*"]).await;
    let texts: Vec<String> = (0..MANY).map(|number| number.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    node.accept(gone, &texts).await;
    node.accept(stays, &["kept"]).await;
    // The first two may have left this node.
    store
        .load(gone, Lane::User, None, 2, usize::MAX)
        .await
        .unwrap();
    assert_eq!(arrive(&node, gone, 1, &texts).await, None);
    assert_eq!(arrive(&node, stays, 1, &["theirs"]).await, None);
    // Somebody handled one of them, and there is a report under way.
    let handled = store.inbox_waiting("news".into(), 0, 1, usize::MAX).await;
    store
        .inbox_done(vec![handled.unwrap()[0].arrival])
        .await
        .unwrap();
    assert!(store.outbox_counts(gone).borrow().total() > MANY as u64);

    let forgotten = store.forget(gone).await.unwrap();
    assert_eq!((forgotten.peer.number, forgotten.tickets), (gone, 0));
    assert_eq!(store.forgetting().await.unwrap(), [gone]);
    // At once: it is no peer, nothing of it comes in and nothing for it is taken.
    let unknown = Some(Refused::NoSuchPeer(gone));
    assert_eq!(store.peers().await.unwrap().len(), 1);
    assert!(store.peer_by_name_or_id("node2").await.unwrap().is_none());
    assert!(store.peer_by_id(node_id(2)).await.unwrap().is_none());
    assert_eq!(
        arrive(&node, gone, MANY as u64 + 1, &["more"]).await,
        unknown
    );
    let accepted = store.accept(gone, Lane::User, vec![new("more")]).await;
    assert_eq!(refused(accepted), unknown);
    assert_eq!(refused(store.forget(gone).await), unknown);
    let granted = store.grant(gone, held(&["message.send:*"], None)).await;
    assert_eq!(refused(granted), unknown);

    let mut left = 0;
    let put_aside = store
        .put_aside(gone, |arrivals| left += arrivals.len())
        .await;
    let put_aside = put_aside.unwrap();
    assert_eq!(put_aside.outgoing, MANY as u64);
    assert_eq!(put_aside.incoming, MANY as u64 - 1);
    assert_eq!(left, MANY - 1);
    assert!(store.forgetting().await.unwrap().is_empty());
    assert_eq!(store.outbox_counts(gone).borrow().total(), 0);
    assert_eq!(node.arrived("news").await, ["theirs"]);
    assert_eq!(node.waiting(stays).await, ["kept"]);
    node.close().await;

    let node = place.open();
    let store = &node.store;
    let letters = store
        .dead_letters(Filter::default(), 2 * MANY)
        .await
        .unwrap();
    assert_eq!(letters.total, MANY as u64);
    let state = |at: usize| letters.rows[at].state;
    assert_eq!(state(0), DeadState::MayBeDelivered);
    assert_eq!(state(MANY - 1), DeadState::NotDelivered);
    assert!(letters.rows[0].reason.starts_with("revoked: its recipient"));
    let letters = store.dead_in(Filter::default(), 2 * MANY).await.unwrap();
    assert_eq!(letters.total, MANY as u64 - 1);
    assert!(letters.rows[0].reason.starts_with("revoked: its sender"));
    let again = store.put_aside(gone, drop).await.unwrap();
    assert_eq!((again.outgoing, again.incoming), (0, 0));
    node.close().await;
}

fn node_id(number: u8) -> packhorse_protocol::node_id::NodeId {
    store_common::node(number)
}

async fn a_forgotten_node_pairs_only_when_it_is_allowed_and_takes_its_number_back(
    mut place: Place,
) {
    let node = place.open();
    let store = &node.store;
    let later = place.config.env.now_ms() + 1_000_000;
    let now_ms = later - 500_000;
    store
        .add_invite(invite(1, 5, later, &["message.send:news"]))
        .await
        .unwrap();
    let peer = store.pair_joiner(joiner(1, 2, now_ms)).await.unwrap();
    assert_eq!(peer.tickets, [[1; 16]]);
    let number = peer.number;
    assert_eq!(arrive(&node, number, 1, &["one", "two"]).await, None);
    let forgotten = store.forget(number).await.unwrap();
    assert_eq!(forgotten.tickets, 1);
    // The ticket it came by pairs nobody any more, and no other pairs it.
    let came_by = store.pair_joiner(joiner(1, 3, now_ms)).await;
    let revoked = Refused::Ticket(TicketRefusal::Revoked);
    assert_eq!(refused(came_by), Some(revoked));
    store
        .add_invite(invite(2, 5, later, &["message.send:news"]))
        .await
        .unwrap();
    let denied = Some(Refused::Denied(node_id(2)));
    assert_eq!(
        refused(store.pair_joiner(joiner(2, 2, now_ms)).await),
        denied
    );
    assert_eq!(refused(store.pair_inviter(inviter(2, &[])).await), denied);
    let ticket = store.invite([2; 16]).await.unwrap().unwrap();
    assert_eq!(ticket.uses_left, 5, "a refusal spends nothing");
    let waits = Some(Refused::StillForgetting(node_id(2)));
    assert_eq!(refused(store.allow(node_id(2)).await), waits);
    store.put_aside(number, drop).await.unwrap();
    node.close().await;

    let node = place.open();
    let store = &node.store;
    let listed = store.denied().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].id, listed[0].name.as_str()),
        (node_id(2), "node2")
    );
    assert!(store.is_denied(node_id(2)).await.unwrap());
    assert!(!store.is_denied(node_id(3)).await.unwrap());
    assert_eq!(store.allow(node_id(2)).await, Ok(true));
    assert_eq!(store.allow(node_id(2)).await, Ok(false));
    assert!(store.peers().await.unwrap().is_empty());
    // Meanwhile another one has its name.
    let mut other = inviter(4, &[]);
    other.introduction.name = "node2".into();
    store.pair_inviter(other).await.unwrap();
    let again = store.pair_joiner(joiner(2, 2, now_ms)).await.unwrap();
    assert_eq!((again.number, again.name.as_str()), (number, "node2-2"));
    assert_eq!(again.grants, grants_of(&["message.send:news"]));
    // What was stored once is not stored again.
    assert_eq!(
        arrive(&node, number, 1, &["one", "two", "three"]).await,
        None
    );
    assert_eq!(node.arrived("news").await, ["three"]);
    node.close().await;
}

fn held(texts: &[&str], until_ms: Option<u64>) -> Vec<Held> {
    let grants = grants_of(texts);
    grants
        .iter()
        .map(|grant| Held {
            grant: grant.clone(),
            until_ms,
        })
        .collect()
}

async fn a_grant_counts_from_its_commit_to_its_end_or_to_its_revocation(mut place: Place) {
    let node = place.open();
    let store = &node.store;
    let peer = node.pair(2, &[]).await;
    let mut sequence = 0;
    let mut refusals = async |store: &packhorse_actors::store::StoreHandle| {
        sequence += 1;
        let items = vec![batch(THEIRS, sequence, &["text"])];
        let (_, refusals) = store.store_inbound(peer, Lane::User, items).await.unwrap();
        let last = refusals.iter().find(|one| one.sequence == sequence);
        last.map(|one| one.code)
    };
    let no_grant = Some(RefusalCode::NO_GRANT);
    assert_eq!(refusals(store).await, no_grant);
    let now_ms = place.config.env.now_ms();
    let until_ms = Some(now_ms + 1_000);
    let grants = held(&["message.send:*"], until_ms);
    store.grant(peer, grants).await.unwrap();
    assert_eq!(refusals(store).await, None);
    place.clock.advance(1_001);
    assert_eq!(refusals(store).await, no_grant, "it has ended");
    let grants = held(
        &["message.send:*", "message.send:!secret", "execute:a"],
        None,
    );
    let record = store.grant(peer, grants).await.unwrap();
    assert_eq!(
        record.grants.held().len(),
        3,
        "the one that ended is replaced"
    );
    assert_eq!(refusals(store).await, None);
    let what = ["message.send", "execute:b"].map(|text| text.parse::<Revocation>().unwrap());
    let revoked = store.revoke(peer, what.to_vec()).await.unwrap();
    assert_eq!(revoked.taken.len(), 2);
    assert_eq!(revoked.missing, what[1..]);
    assert_eq!(revoked.peer.grants, grants_of(&["execute:a"]));
    assert_eq!(refusals(store).await, no_grant);
    node.close().await;
    let node = place.open();
    let record = node.store.peer(peer).await.unwrap().unwrap();
    assert_eq!(record.grants, grants_of(&["execute:a"]));
    node.close().await;
}

async fn a_ticket_says_what_became_of_it_and_gives_nothing_twice(mut place: Place) {
    let node = place.open();
    let store = &node.store;
    let made_ms = place.config.env.now_ms();
    let ends_ms = made_ms + 10_000;
    let mut first = invite(1, 1, ends_ms, &["message.send:*"]);
    first.grants_for_ms = Some(5_000);
    store.add_invite(first).await.unwrap();
    store.add_invite(invite(2, 1, ends_ms, &[])).await.unwrap();
    let peer = store.pair_joiner(joiner(1, 2, made_ms)).await.unwrap();
    let ends: Vec<_> = peer.grants.held().map(|held| held.until_ms).collect();
    assert_eq!(ends, [Some(made_ms + 5_000)]);
    let take = vec!["message.send".parse::<Revocation>().unwrap()];
    store.revoke(peer.number, take).await.unwrap();
    store
        .note_compare([1; 16], node_id(2), "one-two".into())
        .await
        .unwrap();
    node.close().await;

    let node = place.open();
    let store = &node.store;
    // Its verdict may have been lost, so it comes again; what was taken from it stays taken.
    let again = store
        .pair_joiner(joiner(1, 2, made_ms + 9_999))
        .await
        .unwrap();
    assert_eq!(again.number, peer.number);
    assert!(again.grants.is_empty());
    let kept = store.invite([1; 16]).await.unwrap().unwrap();
    assert_eq!((kept.uses_left, kept.users.len()), (0, 1));
    assert_eq!(kept.compares, ["one-two"]);
    let because = async |ticket, number, at_ms| match refused(
        store.pair_joiner(joiner(ticket, number, at_ms)).await,
    ) {
        Some(Refused::Ticket(refusal)) => Some(refusal),
        _ => None,
    };
    assert_eq!(because(1, 3, made_ms).await, Some(TicketRefusal::UsedUp));
    assert_eq!(because(2, 3, ends_ms).await, Some(TicketRefusal::Expired));
    assert_eq!(because(1, 2, ends_ms).await, Some(TicketRefusal::Expired));
    assert_eq!(store.revoke_invite([2; 16]).await, Ok(true));
    assert_eq!(store.revoke_invite([2; 16]).await, Ok(false));
    assert_eq!(because(2, 3, made_ms).await, Some(TicketRefusal::Revoked));
    let unknown = Refused::Ticket(TicketRefusal::Unknown);
    assert_eq!(refused(store.revoke_invite([9; 16]).await), Some(unknown));
    assert_eq!(store.invites().await.unwrap().len(), 2);
    node.close().await;
}

/// Whenever the power goes: the peer is as before, or it is none and what is left of it is found
/// and put aside by the next life; no message is lost or in two places.
#[tokio::test]
async fn forgetting_that_is_cut_off_is_taken_up_again() {
    let mut outcomes = [0_u32; 3];
    for steps in 1..40 {
        let context = format!("cut after {steps} steps");
        let mut place = Place::memory(steps);
        let node = place.open();
        let peer = node.pair(2, &["message.send:*"]).await;
        let texts: Vec<String> = (0..MANY).map(|number| number.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        node.accept(peer, &texts).await;
        assert_eq!(arrive(&node, peer, 1, &texts).await, None);
        place.disk().cut_after(steps);
        if node.store.forget(peer).await.is_ok() {
            let _ = node.store.put_aside(peer, drop).await;
        }
        if place.disk().is_powered() {
            // It was over before.
            place.disk().cut_after(u64::MAX);
            node.close().await;
        } else {
            let Node {
                store,
                mut writer,
                opened,
            } = node;
            within(writer.ended()).await;
            assert!(opened.close().is_err(), "{context}");
            drop((store, opened));
        }

        let node = place.open();
        let store = &node.store;
        let under_way = store.forgetting().await.unwrap();
        let waiting = store.outbox_counts(peer).borrow().total();
        let letters = store
            .dead_letters(Filter::default(), 1)
            .await
            .unwrap()
            .total;
        assert_eq!(waiting + letters, MANY as u64, "{context}");
        let inbox = node.arrived("news").await.len() as u64;
        let letters_in = store.dead_in(Filter::default(), 1).await.unwrap().total;
        assert_eq!(inbox + letters_in, MANY as u64, "{context}");
        if !store.peers().await.unwrap().is_empty() {
            outcomes[0] += 1;
            assert_eq!((waiting, inbox), (MANY as u64, MANY as u64), "{context}");
            assert!(under_way.is_empty(), "{context}");
            assert!(!store.is_denied(node_id(2)).await.unwrap(), "{context}");
            node.close().await;
            continue;
        }
        assert!(store.is_denied(node_id(2)).await.unwrap(), "{context}");
        if waiting + inbox > 0 {
            outcomes[1] += 1;
            assert_eq!(under_way, [peer], "{context}");
        } else {
            outcomes[2] += 1;
        }
        for peer in under_way {
            store.put_aside(peer, drop).await.unwrap();
        }
        let letters = store
            .dead_letters(Filter::default(), 1)
            .await
            .unwrap()
            .total;
        let letters_in = store.dead_in(Filter::default(), 1).await.unwrap().total;
        assert_eq!(
            (letters, letters_in),
            (MANY as u64, MANY as u64),
            "{context}"
        );
        assert!(store.forgetting().await.unwrap().is_empty(), "{context}");
        node.close().await;
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// The row of a message that waits for a peer or came from one.
fn row_of(place: &Place, space: Space, nth: usize) -> Vec<u8> {
    let rows = place.disk().rows(space).into_iter();
    let is_row = |key: &Vec<u8>| key[0] == if space == Space::Outbox { 32 } else { 48 };
    rows.map(|(key, _)| key).filter(is_row).nth(nth).unwrap()
}

#[tokio::test]
async fn forgetting_comes_to_its_end_behind_blocks_that_cannot_be_read() {
    let mut place = Place::memory(1);
    let node = place.open();
    let store = &node.store;
    let gone = node.pair(2, &["message.send:*"]).await;
    node.accept(gone, &["a", "b", "c", "d"]).await;
    assert_eq!(arrive(&node, gone, 1, &["k", "l", "m"]).await, None);
    store.forget(gone).await.unwrap();
    let outbox = row_of(&place, Space::Outbox, 1);
    place.disk().tear(Space::Outbox, &outbox);
    let inbox = row_of(&place, Space::Inbox, 1);
    place.disk().tear(Space::Inbox, &inbox);
    let put_aside = store.put_aside(gone, drop).await.unwrap();
    assert_eq!((put_aside.outgoing, put_aside.incoming), (3, 2));
    assert!(store.forgetting().await.unwrap().is_empty());
    assert_eq!(store.outbox_counts(gone).borrow().total(), 0);
    assert!(store.allow(node_id(2)).await.unwrap());
    node.close().await;
}

#[tokio::test]
async fn pairing_again_keeps_the_later_end_and_an_expired_ticket_is_taken_back() {
    let mut place = Place::memory(1);
    let node = place.open();
    let store = &node.store;
    let now_ms = place.config.env.now_ms();
    let peer = node.pair(2, &["message.send:ever"]).await;
    store
        .grant(peer, held(&["message.send:day"], Some(now_ms + 2)))
        .await
        .unwrap();
    let mut ticket = invite(
        1,
        5,
        now_ms + 10,
        &["message.send:ever", "message.send:day"],
    );
    ticket.grants_for_ms = Some(1);
    store.add_invite(ticket).await.unwrap();
    let record = store.pair_joiner(joiner(1, 2, now_ms)).await.unwrap();
    let ends: Vec<_> = record.grants.held().map(|held| held.until_ms).collect();
    assert_eq!(ends, [None, Some(now_ms + 2)], "{:?}", record.grants);
    // Those that ended take no room.
    place.clock.advance(5);
    let record = store.pair_joiner(joiner(1, 2, now_ms + 5)).await.unwrap();
    assert_eq!(record.grants.len(), 1);
    place.clock.advance(5);
    assert!(!store.revoke_invite([1; 16]).await.unwrap());
    let back = store.pair_joiner(joiner(1, 9, now_ms)).await;
    assert_eq!(refused(back), Some(Refused::Ticket(TicketRefusal::Revoked)));
    // What a session that ends still says goes nowhere.
    store.forget(peer).await.unwrap();
    let late = store
        .add_own_address(peer, "quic://192.0.2.1:7".into())
        .await;
    assert_eq!(refused(late), Some(Refused::NoSuchPeer(peer)));
    node.close().await;
}
