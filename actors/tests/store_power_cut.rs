//! Power cuts at every step of every commit.
//!
//! Goal: what was acknowledged is there after the power comes back, what was not acknowledged is
//! there as a whole or not at all, and nobody ever saw what a cut could take back.
//! Method: a seeded load over the memory engine, the power cut after a seeded number of steps, the
//! store opened again and compared with a model that knows only the answers. `STORE_SEED` repeats
//! one seed, `STORE_SEEDS` sets how many are tried.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use packhorse_actors::env::testing::SeededRandom;
use packhorse_actors::store::{PeerNumber, ReceiptId, ReceiptState};
use packhorse_protocol::codec;
use packhorse_protocol::epoch::{Epoch, Lane, Mark};

use store_common::*;

/// What the answers said.
#[derive(Default)]
struct Model {
    /// Accepted, in order, with their texts.
    accepted: Vec<(ReceiptId, String)>,
    /// Given to `accept` without an answer: there or not.
    maybe_accepted: BTreeSet<String>,
    /// Receipts that were settled, or may have been.
    settled: BTreeSet<ReceiptId>,
    maybe_settled: BTreeSet<ReceiptId>,
    /// Arrived, in order.
    arrived: Vec<String>,
    /// The texts of the last batch when its answer was lost.
    maybe_arrived: Vec<String>,
    sent: u64,
    done: BTreeSet<String>,
    maybe_done: BTreeSet<String>,
}

const THEIRS: Epoch = Epoch { boot: 3, nonce: 3 };

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("STORE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("STORE_SEEDS").unwrap_or(150)).collect(),
    }
}

#[tokio::test]
async fn acknowledged_means_there_whenever_the_power_goes() {
    for seed in seeds() {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let context = format!("STORE_SEED={seed}");
    let random = SeededRandom::new(seed);
    let mut place = Place::memory(seed);
    let mut model = Model::default();
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    node.close().await;
    let mut last_boot = 0;
    for _ in 0..4 {
        place.disk().cut_after(2 + random.below(120));
        // The power may go while the store opens.
        let Ok(node) = place.try_open() else { continue };
        assert!(node.store.epoch().boot > last_boot, "{context}");
        last_boot = node.store.epoch().boot;
        check(&node, peer, &mut model, &context).await;
        while place.disk().is_powered() {
            step(&node, peer, &mut model, &random).await;
        }
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
    check(&node, peer, &mut model, &context).await;
    check_reports(&node, peer, &context).await;
    node.close().await;
}

/// A report exists exactly when its message is gone, and names it once, whatever was cut off when.
async fn check_reports(node: &Node, peer: PeerNumber, context: &str) {
    let marks = node.store.marks(peer, Lane::User, vec![THEIRS]);
    let settled = marks.await.unwrap().0[0].settled;
    // No listing shows them, because they are nobody's messages.
    let reports = node
        .store
        .load(peer, Lane::System, None, usize::MAX, usize::MAX);
    let (reports, is_all) = reports.await.unwrap();
    assert!(is_all, "{context}");
    let mut reported = BTreeSet::new();
    for report in reports {
        let receipts = codec::decode_receipts(&report.message.payload).expect(context);
        for (epoch, first, last) in receipts.done {
            assert_eq!(epoch, THEIRS, "{context}");
            for sequence in first..=last {
                assert!(reported.insert(sequence), "{context}: {sequence} twice");
            }
        }
    }
    let gone = settled - node.arrived("news").await.len() as u64;
    assert_eq!(reported.len() as u64, gone, "{context}");
}

/// One thing that a node does with its store.
async fn step(node: &Node, peer: PeerNumber, model: &mut Model, random: &SeededRandom) {
    match random.below(5) {
        0 | 1 => {
            let texts: Vec<String> = (0..=random.below(4))
                .map(|_| random.next_u64().to_string())
                .collect();
            let messages = texts.iter().map(|text| new(text)).collect();
            model.maybe_accepted.extend(texts.iter().cloned());
            if let Ok(accepted) = node.store.accept(peer, Lane::User, messages).await {
                for (accepted, text) in accepted.into_iter().zip(texts) {
                    model.maybe_accepted.remove(&text);
                    model.accepted.push((accepted.id, text));
                }
            }
        }
        2 => {
            let waiting: Vec<ReceiptId> = model
                .accepted
                .iter()
                .map(|(id, _)| *id)
                .filter(|id| !model.settled.contains(id))
                .collect();
            let Some(last) = waiting.get(random.below(4) as usize) else {
                return;
            };
            let position = last.position;
            let covered: Vec<ReceiptId> = waiting
                .iter()
                .filter(|id| id.position.epoch == position.epoch)
                .filter(|id| id.position.sequence <= position.sequence)
                .copied()
                .collect();
            let marks = vec![Mark {
                epoch: position.epoch,
                settled: position.sequence,
            }];
            model.maybe_settled.extend(&covered);
            if node
                .store
                .settle(peer, Lane::User, marks, vec![])
                .await
                .is_ok()
            {
                model.settled.extend(&covered);
            }
        }
        3 => {
            let texts: Vec<String> = (0..=random.below(4))
                .map(|_| random.next_u64().to_string())
                .collect();
            let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
            let items = vec![batch(THEIRS, model.sent + 1, &borrowed)];
            model.maybe_arrived = texts.clone();
            if node
                .store
                .store_inbound(peer, Lane::User, items)
                .await
                .is_ok()
            {
                model.sent += texts.len() as u64;
                model.arrived.extend(texts);
                model.maybe_arrived.clear();
            }
        }
        _ => {
            let Ok(rows) = node
                .store
                .inbox_waiting("news".into(), 0, 2, usize::MAX)
                .await
            else {
                return;
            };
            let texts: Vec<String> = rows
                .iter()
                .map(|row| String::from_utf8(row.message.payload.clone()).unwrap())
                .collect();
            model.maybe_done.extend(texts.iter().cloned());
            let arrivals = rows.iter().map(|row| row.arrival).collect();
            if node.store.inbox_done(arrivals).await.is_ok() {
                model.done.extend(texts);
            }
        }
    }
}

/// Compares the store with the model, and lets the model learn what it could not know.
async fn check(node: &Node, peer: PeerNumber, model: &mut Model, context: &str) {
    let listing = node.store.outbox_list(usize::MAX).await.unwrap();
    let listed = listing.rows.len() as u64;
    let rows = listing.rows;
    let rows: Vec<(ReceiptId, String)> = rows
        .into_iter()
        .map(|row| (row.id, String::from_utf8(row.message.payload).unwrap()))
        .collect();
    assert_eq!(
        listing.total, listed,
        "{context}: what a line says and what it has"
    );
    assert_eq!(
        node.store.outbox_counts(peer).borrow().user(),
        listing.total,
        "{context}"
    );
    assert!(rows.is_sorted_by_key(|(id, _)| id.position), "{context}");
    let present: BTreeSet<ReceiptId> = rows.iter().map(|(id, _)| *id).collect();
    for (id, text) in &model.accepted {
        let state = node.store.receipt(*id).await.unwrap().expect(context).state;
        if model.settled.contains(id) {
            assert_eq!(state, ReceiptState::Stored, "{context}: {text}");
        } else if !model.maybe_settled.contains(id) {
            assert_eq!(state, ReceiptState::Accepted, "{context}: {text}");
        }
        assert_eq!(
            present.contains(id),
            state == ReceiptState::Accepted,
            "{context}: {text}"
        );
        if state == ReceiptState::Stored {
            model.settled.insert(*id);
        }
    }
    let known: BTreeSet<ReceiptId> = model.accepted.iter().map(|(id, _)| *id).collect();
    for (id, text) in rows.iter().filter(|(id, _)| !known.contains(id)) {
        assert!(
            model.maybe_accepted.remove(text),
            "{context}: {text} was never sent"
        );
        model.accepted.push((*id, text.clone()));
    }
    model.accepted.sort_by_key(|(id, _)| id.position);

    let (marks, _) = node
        .store
        .marks(peer, Lane::User, vec![THEIRS])
        .await
        .unwrap();
    let settled = marks[0].settled;
    let unknown = settled - model.sent;
    assert!(
        unknown == 0 || unknown == model.maybe_arrived.len() as u64,
        "{context}: a batch is there as a whole or not at all"
    );
    if unknown > 0 {
        model.sent = settled;
        model.arrived.append(&mut model.maybe_arrived);
    }
    let inbox = node.arrived("news").await;
    let (undone, maybe): (Vec<&String>, Vec<&String>) = model
        .arrived
        .iter()
        .filter(|text| !model.done.contains(*text))
        .partition(|text| !model.maybe_done.contains(*text));
    let listed = node.store.inbox_list(usize::MAX).await.unwrap();
    assert_eq!(listed.total, inbox.len() as u64, "{context}");
    assert_eq!(listed.rows.len(), inbox.len(), "{context}");
    let certain: Vec<&String> = inbox.iter().filter(|text| !maybe.contains(text)).collect();
    assert_eq!(certain, undone, "{context}: once, in order");
    let gone: Vec<String> = maybe
        .into_iter()
        .filter(|text| !inbox.contains(text))
        .cloned()
        .collect();
    model.done.extend(gone);
    model.maybe_done.clear();
}

/// What anybody can see of a store, in one value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    commits: u64,
    outbox: u64,
    inbox: u64,
    counted: u64,
    arrived: u64,
    waiting: Vec<PeerNumber>,
}

/// Goal: between the first and the last step of a commit nothing of it shows anywhere.
/// Method: look from inside the commit, on the writer's own thread, before each of its steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_unsynced_is_ever_seen() {
    let mut place = Place::memory(7);
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let store = node.store.clone();
    let runtime = tokio::runtime::Handle::current();
    let (counts, arrived) = (store.outbox_counts(peer), store.inbox_arrived());
    let look = move || {
        let (outbox, inbox) = runtime.block_on(async {
            (
                store.outbox_list(0).await.unwrap().total,
                store.inbox_list(0).await.unwrap().total,
            )
        });
        Seen {
            commits: store.commits(),
            outbox,
            inbox,
            counted: counts.borrow().total(),
            arrived: *arrived.borrow(),
            waiting: store.waiting_peers(),
        }
    };
    let looks = Arc::new(Mutex::new(Vec::new()));
    let noted = looks.clone();
    place
        .disk()
        .probe(move |step| noted.lock().unwrap().push((step, look())));
    let epoch = node.store.epoch();
    for round in 0..20 {
        node.accept(peer, &["a", "b"]).await;
        let items = vec![batch(THEIRS, round + 1, &["x"])];
        node.store
            .store_inbound(peer, Lane::User, items)
            .await
            .unwrap();
        let marks = vec![Mark {
            epoch,
            settled: (round + 1) * 2,
        }];
        node.store
            .settle(peer, Lane::User, marks, vec![])
            .await
            .unwrap();
    }
    let looks = std::mem::take(&mut *looks.lock().unwrap());
    assert_eq!(looks.len(), 60 * 5);
    for commit in looks.chunks(5) {
        let seen = |step: usize| &commit[step].1;
        // Before the write, the sync and the publishing: what the commit before left.
        assert_eq!(seen(0).counted, seen(0).outbox);
        assert_eq!(seen(0).arrived, seen(0).inbox);
        assert_eq!(seen(0), seen(1));
        assert_eq!(seen(0), seen(2));
        // After the publishing rows show; counts and signals follow when the mark is written too.
        assert_eq!(seen(3).commits, seen(0).commits);
        assert_eq!(seen(3).counted, seen(0).counted);
        assert_eq!(seen(3).arrived, seen(0).arrived);
        assert_eq!(seen(3).waiting, seen(0).waiting);
        assert!((seen(3).outbox, seen(3).inbox) != (seen(0).outbox, seen(0).inbox));
    }
    node.close().await;
}
