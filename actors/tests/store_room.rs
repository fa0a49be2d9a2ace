//! Room for new work: what is refused without it, what goes on all the same, and that it comes back
//! by itself. The numbers of the disk are the test's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use packhorse_actors::store::{
    EngineKind, Filter, PeerNumber, QUOTA_BYTES_MIN, Severity, Shortage, Space, StoreError,
    Verdict, examine,
};
use packhorse_protocol::epoch::{Epoch, Lane, Mark};
use packhorse_protocol::outbox::Inbound;
use store_common::{Node, Place, batch, epoch, keyed, message, new, within};

const MIB: u64 = 1 << 20;
/// The disk in memory is large, so its levels are those of any large disk.
const LINE: u64 = 74 * MIB;
const RESERVE: u64 = 148 * MIB;
const PAYLOAD: usize = 1 << 20;

fn large(seed: u8) -> packhorse_actors::store::NewMessage {
    let mut message = message("");
    message.payload = vec![seed; PAYLOAD];
    packhorse_actors::store::NewMessage::new(message)
}

/// As many messages as a quota of the least size takes.
const FIT: u64 = QUOTA_BYTES_MIN / (PAYLOAD as u64 + 4);

fn large_batch(epoch: Epoch, first: u64, count: u64) -> Inbound {
    let message = large(1).message;
    Inbound::Messages {
        epoch,
        first,
        messages: (0..count).map(|_| Ok(message.clone())).collect(),
    }
}

#[track_caller]
fn is_full<T: std::fmt::Debug>(outcome: Result<T, StoreError>, words: &str) {
    match outcome {
        Err(StoreError::Full { what }) => assert!(what.contains(words), "{what}"),
        other => panic!("{words}: {other:?}"),
    }
}

/// The kinds of the facts that were written.
async fn facts(node: &Node) -> Vec<String> {
    let page = node.store.events_since(0, 1_000).await.unwrap();
    let kinds = page.events.iter().map(|event| event.fact.kind().to_owned());
    kinds.collect()
}

/// Closes the store and counts everything that its counters say.
async fn close_and_count(place: &Place, node: Node) {
    node.close().await;
    let report = examine(&place.config).unwrap();
    assert_eq!(report.worst(), Severity::Well, "{report:?}");
}

async fn settle(node: &Node, peer: PeerNumber, settled: u64) {
    let epoch = node.store.epoch();
    let marks = vec![Mark { epoch, settled }];
    node.store
        .settle(peer, Lane::User, marks, vec![])
        .await
        .unwrap();
}

#[tokio::test]
async fn under_the_line_new_work_is_refused_and_what_ends_old_work_goes_on() {
    let mut place = Place::memory(1);
    let node = place.open();
    let disk = place.disk();
    let peer = node.pair(2, &["message.send:*"]).await;
    node.accept(peer, &["waits", "goes", "too"]).await;
    let from = epoch(1, 2);
    let arrived = batch(from, 1, &["one", "two"]);
    node.store
        .store_inbound(peer, Lane::User, vec![arrived])
        .await
        .unwrap();
    assert_eq!(disk.reserved(), RESERVE);

    disk.set_free(LINE - 1);
    let refused = node.store.accept(peer, Lane::User, vec![new("new")]);
    is_full(
        refused.await,
        "73.9 MiB free for new work, which is taken from 74 MiB on",
    );
    let more = vec![batch(from, 3, &["three"])];
    let refused = node.store.store_inbound(peer, Lane::User, more.clone());
    // And once it is refused, it is until there is a quarter more.
    is_full(refused.await, "taken from 92.5 MiB on");
    // What nodes tell each other, and whatever takes away.
    node.store
        .accept(peer, Lane::System, vec![new("report")])
        .await
        .unwrap();
    settle(&node, peer, 1).await;
    let dropped = node.store.outbox_drop(Filter::default(), vec![]).await;
    assert_eq!(dropped.unwrap(), 2);
    let rows = node.store.inbox_list(9).await.unwrap().rows;
    let verdict = Verdict::Dead {
        reason: "no".into(),
        output: vec![],
    };
    node.store
        .inbox_settle(rows[0].arrival, verdict, 0)
        .await
        .unwrap();
    node.store.inbox_done(vec![rows[1].arrival]).await.unwrap();
    let letter = node.store.dead_in(Filter::default(), 1).await.unwrap().rows[0].clone();
    let back = node.store.dead_in_retry(peer, letter.lane, letter.position);
    is_full(back.await, "the disk has");
    let storage = node.store.storage().borrow().clone();
    assert!(matches!(storage.shortages[..], [Shortage::Disk { .. }]));

    // The line alone is not enough any more: who stands at it must not change its mind all the time.
    disk.set_free(LINE);
    let refused = node.store.accept(peer, Lane::User, vec![new("new")]);
    is_full(refused.await, "the disk has");
    disk.set_free(LINE + LINE / 4);
    node.accept(peer, &["new"]).await;
    node.store
        .store_inbound(peer, Lane::User, more)
        .await
        .unwrap();
    assert!(node.store.storage().borrow().shortages.is_empty());
    let facts = facts(&node).await;
    let told = facts.iter().filter(|kind| kind.starts_with("storage."));
    assert_eq!(told.collect::<Vec<_>>(), ["storage.full", "storage.back"]);
    close_and_count(&place, node).await;
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_gets_the_reserve_and_gives_it_back_first() {
    let mut place = Place::memory(1);
    let node = place.open();
    let disk = place.disk();
    let peer = node.pair(2, &[]).await;
    disk.set_free(10 * MIB);
    let refused = node.store.accept(peer, Lane::User, vec![new("new")]);
    is_full(refused.await, "the disk has 10 MiB free");
    assert_eq!(disk.reserved(), 0);
    // What the reserve held is free now, and not for new work.
    let refused = node.store.accept(peer, Lane::User, vec![new("new")]);
    is_full(refused.await, "the disk has 10 MiB free");
    disk.set_free(RESERVE + LINE);
    let refused = node.store.accept(peer, Lane::User, vec![new("new")]);
    is_full(refused.await, "the disk has 74 MiB free");
    disk.set_free(RESERVE + LINE + LINE / 4);
    node.accept(peer, &["new"]).await;
    assert_eq!(disk.reserved(), RESERVE);
    close_and_count(&place, node).await;
}

#[tokio::test]
async fn an_outbox_over_its_quota_refuses_and_takes_again_when_it_empties() {
    let mut place = Place::memory(1);
    place.config.quotas.outbox = QUOTA_BYTES_MIN;
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let key = |seed| packhorse_actors::store::NewMessage {
        key: Some(format!("k{seed}")),
        ..large(seed)
    };
    for seed in 0..FIT {
        let sent = vec![key(seed as u8)];
        node.store.accept(peer, Lane::User, sent).await.unwrap();
    }
    let refused = node.store.accept(peer, Lane::User, vec![large(200)]);
    is_full(refused.await, "the outbox holds 15");
    // What is here already needs no room.
    let again = node.store.accept(peer, Lane::User, vec![key(0)]).await;
    assert!(again.unwrap()[0].repeated);
    assert_eq!(
        facts(&node)
            .await
            .iter()
            .filter(|kind| *kind == "storage.full")
            .count(),
        1
    );
    settle(&node, peer, 2).await;
    node.store
        .accept(peer, Lane::User, vec![large(200)])
        .await
        .unwrap();
    assert!(facts(&node).await.iter().any(|kind| kind == "storage.back"));
    close_and_count(&place, node).await;
}

#[tokio::test]
async fn a_sender_over_its_share_is_held_up_alone() {
    let mut place = Place::memory(1);
    place.config.quotas.inbox_share = QUOTA_BYTES_MIN;
    let node = place.open();
    let loud = node.pair(2, &["message.send:*"]).await;
    let quiet = node.pair(3, &["message.send:*"]).await;
    let from = epoch(1, 2);
    let first = vec![large_batch(from, 1, FIT + 1)];
    // A box that is not full takes a batch whole.
    node.store
        .store_inbound(loud, Lane::User, first)
        .await
        .unwrap();
    let more = || vec![large_batch(from, FIT + 2, 1)];
    let refused = node.store.store_inbound(loud, Lane::User, more()).await;
    is_full(refused, "its share is 16 MiB");
    let other = vec![batch(epoch(1, 3), 1, &["small"])];
    node.store
        .store_inbound(quiet, Lane::User, other)
        .await
        .unwrap();
    let rows = node.store.inbox_list(9).await.unwrap().rows;
    let arrivals = rows.iter().take(2).map(|row| row.arrival).collect();
    node.store.inbox_done(arrivals).await.unwrap();
    node.store
        .store_inbound(loud, Lane::User, more())
        .await
        .unwrap();
    close_and_count(&place, node).await;
}

#[tokio::test]
async fn a_full_inbox_takes_nothing_and_dead_letters_over_their_quota_stop_new_work() {
    let mut place = Place::memory(1);
    place.config.quotas.inbox = QUOTA_BYTES_MIN;
    place.config.quotas.dead = QUOTA_BYTES_MIN;
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let from = epoch(1, 2);
    let all = vec![large_batch(from, 1, FIT + 1)];
    node.store
        .store_inbound(peer, Lane::User, all)
        .await
        .unwrap();
    let more = || vec![batch(from, FIT + 2, &["small"])];
    let refused = node.store.store_inbound(peer, Lane::User, more()).await;
    is_full(refused, "the inbox holds");
    // All of it is given up: now the dead letters hold too much, both ways.
    for row in node.store.inbox_list(99).await.unwrap().rows {
        let verdict = Verdict::Dead {
            reason: "no".into(),
            output: vec![],
        };
        node.store
            .inbox_settle(row.arrival, verdict, 0)
            .await
            .unwrap();
    }
    let refused = node.store.store_inbound(peer, Lane::User, more()).await;
    is_full(refused, "the dead letters hold");
    let refused = node.store.accept(peer, Lane::User, vec![new("new")]).await;
    is_full(refused, "the dead letters hold");
    // Nothing is in the way of what empties them.
    let letters = node
        .store
        .dead_in(Filter::default(), 99)
        .await
        .unwrap()
        .rows;
    let (back, dropped) = letters.split_at(1);
    for letter in back {
        let retried = node
            .store
            .dead_in_retry(peer, letter.lane, letter.position)
            .await;
        retried.unwrap();
    }
    for letter in dropped {
        node.store
            .dead_in_drop(peer, letter.lane, letter.position)
            .await
            .unwrap();
    }
    node.accept(peer, &["new"]).await;
    node.store
        .store_inbound(peer, Lane::User, more())
        .await
        .unwrap();
    close_and_count(&place, node).await;
}

#[tokio::test]
async fn counters_fit_whatever_happens_to_messages() {
    let mut place = Place::memory(7);
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    for number in 0..40 {
        let sent = vec![keyed(&"x".repeat(number), &format!("k{number}"))];
        node.store.accept(peer, Lane::User, sent).await.unwrap();
    }
    let mut other = keyed("another, longer one", "k7");
    other.replace = true;
    node.store
        .accept(peer, Lane::User, vec![other])
        .await
        .unwrap();
    let ids: Vec<_> = node.store.outbox_list(99).await.unwrap().rows;
    let some = ids.iter().skip(3).step_by(4).map(|row| row.id).collect();
    node.store
        .outbox_drop(Filter::default(), some)
        .await
        .unwrap();
    settle(&node, peer, 17).await;
    let letters = node
        .store
        .dead_letters(Filter::default(), 99)
        .await
        .unwrap();
    node.store.dead_retry(letters.rows[0].id).await.unwrap();
    node.store.dead_drop(letters.rows[1].id).await.unwrap();
    node.close().await;
    // Rows of an earlier life, and a counter that has to survive it.
    let node = place.open();
    node.accept(peer, &["later"]).await;
    close_and_count(&place, node).await;
    let node = place.open();
    let held = node.store.storage().borrow().clone();
    assert!(held.outbox > 0 && held.dead > 0, "{held:?}");
    close_and_count(&place, node).await;
}

#[tokio::test]
async fn a_damaged_counter_is_made_anew_at_the_next_open() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["one", "two"]).await;
    let before = node.store.storage().borrow().outbox;
    within(node.close()).await;
    let EngineKind::Memory(disk) = &place.config.engine else {
        panic!("it lies in memory");
    };
    disk.overwrite(packhorse_actors::store::Space::Small, &[3, 9], vec![1; 40]);
    let node = place.open();
    assert_eq!(node.store.storage().borrow().outbox, before);
    close_and_count(&place, node).await;
}

#[tokio::test]
async fn a_counter_that_does_not_open_holds_up_no_message() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    node.accept(peer, &["one", "two"]).await;
    let theirs = Epoch { boot: 3, nonce: 3 };
    let arrive = |first| {
        let items = vec![batch(theirs, first, &["x", "y"])];
        node.store.store_inbound(peer, Lane::User, items)
    };
    arrive(1).await.unwrap();
    node.close().await;
    let is_counter = |key: &[u8]| key == [3, 9] || key[0] == 27;
    let damage = |place: &Place| {
        let rows = place.disk().rows(Space::Small).into_iter();
        for (key, value) in rows.filter(|(key, _)| is_counter(key)) {
            place
                .disk()
                .overwrite(Space::Small, &key, vec![1; value.len()]);
        }
    };
    // Before anything has read them.
    let node = place.open();
    damage(&place);
    settle(&node, peer, 1).await;
    let waiting = node.store.inbox_waiting("news".into(), 0, 9, usize::MAX);
    let arrivals = waiting
        .await
        .unwrap()
        .iter()
        .map(|row| row.arrival)
        .collect();
    node.store.inbox_done(arrivals).await.unwrap();
    let items = vec![batch(theirs, 3, &["z"])];
    node.store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    node.close().await;
    // And a share alone is counted anew at an open.
    let rows = place.disk().rows(Space::Small);
    let share = rows.iter().find(|(key, _)| key[0] == 27).unwrap();
    place.disk().overwrite(Space::Small, &share.0, vec![1; 40]);
    let node = place.open();
    close_and_count(&place, node).await;
}

#[tokio::test]
async fn a_block_that_cannot_be_read_stops_no_acknowledgement_and_no_open() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["a", "b", "c", "d"]).await;
    let rows = place.disk().rows(Space::Outbox);
    place.disk().tear(Space::Outbox, &rows[1].0);
    // What cannot be read becomes a letter, the rest is sent.
    assert_eq!(node.waiting(peer).await, ["a", "c", "d"]);
    settle(&node, peer, 4).await;
    assert_eq!(node.store.outbox_counts(peer).borrow().total(), 0);
    node.close().await;
    // Counters that have to be made anew do not need every block.
    place.disk().lose(Space::Small, &[3, 9]);
    place.open().close().await;
}
