//! Reports of peers that repeat themselves, come late, or are made to hurt.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use packhorse_actors::store::{PeerNumber, ReceiptId, ReceiptState, Space};
use packhorse_protocol::codec;
use packhorse_protocol::epoch::Lane;
use packhorse_protocol::outbox::Inbound;
use packhorse_protocol::receipt::{DONE, FAILED, OutcomeReport, Receipts, TOPIC};

mod store_common;

use store_common::{Node, Place, epoch, message, within};

/// A node that has sent messages to a peer, and hears its reports.
struct Sender {
    place: Place,
    node: Node,
    peer: PeerNumber,
    ids: Vec<ReceiptId>,
    heard: u64,
}

impl Sender {
    async fn new(messages: usize) -> Self {
        let mut place = Place::memory(1);
        let node = place.open();
        let peer = node.pair(2, &[]).await;
        let accepted = node.accept(peer, &vec!["a"; messages]).await;
        // Handed to a session: only what was offered can be reported on.
        let (lane, bytes) = (Lane::User, usize::MAX);
        let loaded = node.store.load(peer, lane, None, messages, bytes).await;
        assert_eq!(loaded.unwrap().0.len(), messages);
        Self {
            ids: accepted.iter().map(|one| one.id).collect(),
            place,
            node,
            peer,
            heard: 0,
        }
    }

    async fn hear(&mut self, receipts: &Receipts) {
        let mut message = message("");
        message.topic = TOPIC.into();
        message.payload = codec::encode_receipts(receipts);
        self.heard += 1;
        let items = vec![Inbound::Messages {
            epoch: epoch(9, 9),
            first: self.heard,
            messages: vec![Ok(message)],
        }];
        let store = &self.node.store;
        let (_, refusals) = store
            .store_inbound(self.peer, Lane::System, items)
            .await
            .unwrap();
        assert_eq!(refusals, []);
    }

    async fn hear_outcome(&mut self, state: u8, output: &[u8]) {
        let outcome = OutcomeReport {
            at: self.ids[0].position,
            state,
            reason: String::new(),
            output: output.to_vec(),
        };
        let receipts = Receipts {
            lane: 0,
            done: vec![],
            outcomes: vec![outcome],
        };
        self.hear(&receipts).await;
    }

    async fn hear_done(&mut self, ranges: impl IntoIterator<Item = (u64, u64)>) {
        let ours = self.ids[0].position.epoch;
        let done = ranges.into_iter().map(|(first, last)| (ours, first, last));
        let receipts = Receipts {
            lane: 0,
            done: done.collect(),
            outcomes: vec![],
        };
        self.hear(&receipts).await;
    }

    async fn state(&self, number: usize) -> ReceiptState {
        let receipt = self.node.store.receipt(self.ids[number]).await;
        receipt.unwrap().unwrap().state
    }

    fn records(&self, table: u8) -> usize {
        let rows = self.place.disk().rows(Space::Small);
        let of_table = rows.iter().filter(|(key, _)| key.first() == Some(&table));
        of_table.count()
    }
}

#[tokio::test]
async fn what_was_handled_stays_handled_whatever_is_reported_or_dropped_then() {
    let mut sender = Sender::new(2).await;
    sender.hear_outcome(FAILED, b"first").await;
    assert_eq!(sender.state(0).await, ReceiptState::Failed);
    sender.hear_done([(1, 1)]).await;
    assert_eq!(sender.state(0).await, ReceiptState::Done);
    // An older report, sent again from the dead letters of its sender.
    sender.hear_outcome(FAILED, b"first").await;
    assert_eq!(sender.state(0).await, ReceiptState::Done);

    sender.hear_outcome(DONE, b"output").await;
    sender.hear_outcome(FAILED, b"late").await;
    let receipt = sender.node.store.receipt(sender.ids[0]).await;
    let receipt = receipt.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Done);
    assert_eq!(receipt.output.as_deref(), Some(&b"output"[..]));

    // Given up while it was on its way, handled there all the same, and then dropped here.
    let store = &sender.node.store;
    let dropped = store.outbox_drop(Default::default(), vec![sender.ids[1]]);
    assert_eq!(dropped.await.unwrap(), 1);
    sender.hear_done([(2, 2)]).await;
    assert_eq!(sender.state(1).await, ReceiptState::Done);
    sender.node.store.dead_drop(sender.ids[1]).await.unwrap();
    assert_eq!(sender.state(1).await, ReceiptState::Done);
}

#[tokio::test]
async fn a_peer_that_repeats_itself_takes_one_place_among_the_outcomes() {
    let mut sender = Sender::new(1).await;
    for number in 0..20_u8 {
        let state = if number < 10 { FAILED } else { DONE };
        sender.hear_outcome(state, &[number]).await;
    }
    assert_eq!(sender.state(0).await, ReceiptState::Done);
    // Outcomes are table 19, their order is table 20.
    assert_eq!((sender.records(19), sender.records(20)), (1, 1));
}

#[tokio::test]
async fn one_range_over_very_many_is_taken_in_parts() {
    const STRETCHES: u64 = 5_120;
    let mut sender = Sender::new(2 * STRETCHES as usize).await;
    for part in 0..STRETCHES / 1_024 {
        let from = part * 1_024;
        let odd = (from..from + 1_024).map(|number| (2 * number + 1, 2 * number + 1));
        sender.hear_done(odd).await;
    }
    // Stretches are table 21.
    assert_eq!(sender.records(21), STRETCHES as usize);
    sender.hear_done([(1, 2 * STRETCHES)]).await;
    assert_eq!(sender.records(21), STRETCHES as usize - 4_096 + 1);
    assert_eq!(sender.state(1).await, ReceiptState::Done);
    assert_eq!(sender.state(9_001).await, ReceiptState::Accepted);
    assert_eq!(sender.state(9_000).await, ReceiptState::Done);
    sender.hear_done([(1, 2 * STRETCHES)]).await;
    assert_eq!(sender.records(21), 1);
    assert_eq!(sender.state(9_001).await, ReceiptState::Done);
}

#[tokio::test]
async fn reports_with_very_many_ranges_hold_the_writer_up_for_a_moment_only() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let accepted = node.accept(peer, &["a"; 2_048]).await;
    let loaded = node
        .store
        .load(peer, Lane::User, None, 2_048, usize::MAX)
        .await;
    assert_eq!(loaded.unwrap().0.len(), 2_048);
    let ours = accepted[0].id.position.epoch;
    let odd = (0..1_024).map(|number| (ours, 2 * number + 1, 2 * number + 1));
    let receipts = Receipts {
        lane: 0,
        done: odd.collect(),
        outcomes: vec![],
    };
    let mut message = message("");
    message.topic = TOPIC.into();
    message.payload = codec::encode_receipts(&receipts);
    let items = vec![Inbound::Messages {
        epoch: epoch(9, 9),
        first: 1,
        messages: vec![Ok(message); 200],
    }];
    // One job. It took a minute when each range copied all that the batch had written before.
    let stored = node.store.store_inbound(peer, Lane::System, items);
    assert_eq!(within(stored).await.unwrap().1, []);
}
