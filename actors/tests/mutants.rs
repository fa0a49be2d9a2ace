//! Each mutant breaks its promise, the sound program keeps it, and neither is to be told from the
//! other while nothing goes wrong.
//!
//! A mutant that breaks nothing would let a blind checker pass; one that breaks everything would
//! prove nothing about a checker. Which mutant is chosen counts for the whole process, so all of it
//! is one test, and each promise is tried twice by the same steps.
//! Mutants of the writer and of the engine are not here: only a cut of the power shows them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod live_common;
mod store_common;

use std::time::Duration;

use packhorse_actors::inbox::ClaimRequest;
use packhorse_actors::store::{MemoryDisk, NewMessage, PeerNumber, ReceiptState};
use packhorse_actors::supervise::{Life, LifeEvent};
use packhorse_protocol::epoch::{Lane, Mark};
use packhorse_protocol::message::DeliveryClass;
use packhorse_protocol::mutant::{self, Mutant};
use packhorse_protocol::outbox::Inbound;
use tokio::sync::broadcast::Receiver;

use store_common::pair::Pair;
use store_common::{Node, batch, epoch, within};

const MUTANTS: [Mutant; 9] = [
    Mutant::ForgetTheMark,
    Mutant::MarkAcrossEpochs,
    Mutant::SkipGrantCheck,
    Mutant::LoseRetryTimer,
    Mutant::StaleWindow,
    Mutant::BothCrossingLinks,
    Mutant::BaseWithoutCommit,
    Mutant::ReceiptOutsideBatch,
    Mutant::LeaseNeverExpires,
];

#[tokio::test(flavor = "multi_thread")]
async fn each_mutant_breaks_its_promise_and_nothing_else_while_all_is_well() {
    for mutant in MUTANTS {
        mutant::clear();
        let sound = is_kept(mutant, Program::Sound).await;
        assert!(sound, "{mutant}: the sound program fails");
        mutant::choose(mutant);
        let broken = !is_kept(mutant, Program::Broken).await;
        assert!(broken, "{mutant} breaks nothing");
        calm_traffic().await;
    }
}

/// Which program takes the steps.
#[derive(Debug, Clone, Copy)]
enum Program {
    Sound,
    Broken,
}

impl Program {
    /// How long what ought to happen is waited for: of the sound program on a machine that is busy
    /// with other things as long as it takes; of the broken one as long as it takes on a free one.
    fn patience(self, free: Duration) -> Duration {
        match self {
            Self::Sound => live_common::DEADLINE,
            Self::Broken => free,
        }
    }

    /// How often chance is asked for what ought not to happen: of the broken program until it does.
    fn tries(self) -> u32 {
        match self {
            Self::Sound => 8,
            Self::Broken => 100,
        }
    }
}

async fn is_kept(mutant: Mutant, program: Program) -> bool {
    match mutant {
        Mutant::ForgetTheMark => a_message_that_comes_again_is_stored_once().await,
        Mutant::MarkAcrossEpochs => a_new_epoch_begins_with_nothing().await,
        Mutant::SkipGrantCheck => who_may_not_send_is_refused().await,
        Mutant::LoseRetryTimer => who_could_not_be_reached_is_dialled_again(program).await,
        Mutant::StaleWindow => what_did_not_arrive_is_sent_again().await,
        Mutant::BothCrossingLinks => crossing_dials_end_in_one_session(program).await,
        Mutant::BaseWithoutCommit => an_acknowledged_base_survives_a_cut().await,
        Mutant::ReceiptOutsideBatch => who_takes_out_reports().await,
        Mutant::LeaseNeverExpires => what_a_consumer_left_behind_is_handed_out_again(program).await,
        other => panic!("{other} has no steps here"),
    }
}

/// Messages there, handled there, and told of here.
async fn calm_traffic() {
    let (one, two) = (
        live_common::Node::start(1).await,
        live_common::Node::start(2).await,
    );
    let (to_two, _) = live_common::pair(&one, &two, &["message.send:*"]).await;
    let texts = live_common::texts(300);
    let news = |text: &String| {
        let payload = text.as_bytes();
        NewMessage::new(live_common::message(DeliveryClass::Critical, payload))
    };
    let store = &one.tree().store;
    let mut ids = Vec::new();
    for some in texts.chunks(100) {
        let messages = some.iter().map(news).collect();
        let accepted = store.accept(to_two, Lane::User, messages).await.unwrap();
        ids.extend(accepted.into_iter().map(|accepted| accepted.id));
        one.settled(to_two, live_common::DEADLINE).await;
    }
    assert_eq!(two.inbox().await, texts);
    let inbox = &two.tree().inbox;
    let claimed = inbox.claim(ClaimRequest::new("news", 300)).await.unwrap();
    let arrivals = claimed.iter().map(|claimed| claimed.row.arrival).collect();
    inbox.acknowledge(arrivals).await.unwrap();
    assert!(two.inbox().await.is_empty());
    let told = async {
        for id in ids {
            while store.receipt(id).await.unwrap().unwrap().state != ReceiptState::Done {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    within(told).await;
}

fn reopen(pair: &mut Pair) {
    pair.recipient_place.disk().cut();
    pair.recipient = pair.recipient_place.open();
}

async fn arrive(node: &Node, from: PeerNumber, item: Inbound) -> Vec<Mark> {
    let stored = node.store.store_inbound(from, Lane::User, vec![item]);
    stored.await.unwrap().0
}

async fn a_message_that_comes_again_is_stored_once() -> bool {
    let mut pair = Pair::new(&["message.send:*"]).await;
    let first = || batch(epoch(1, 1), 1, &["a"]);
    arrive(&pair.recipient, pair.back, first()).await;
    arrive(&pair.recipient, pair.back, batch(epoch(1, 1), 2, &["b"])).await;
    assert_eq!(pair.recipient.arrived("news").await, ["a", "b"]);
    reopen(&mut pair);
    arrive(&pair.recipient, pair.back, first()).await;
    pair.recipient.arrived("news").await == ["a", "b"]
}

async fn a_new_epoch_begins_with_nothing() -> bool {
    let pair = Pair::new(&["message.send:*"]).await;
    let (first, second) = (epoch(1, 1), epoch(2, 2));
    arrive(&pair.recipient, pair.back, batch(first, 1, &["a", "b"])).await;
    let marks = arrive(&pair.recipient, pair.back, batch(second, 1, &["c"])).await;
    arrive(&pair.recipient, pair.back, batch(second, 2, &["d"])).await;
    // Whatever became of it, it is acknowledged.
    assert_eq!(marks[0].settled, 1);
    pair.recipient.arrived("news").await == ["a", "b", "c", "d"]
}

async fn who_may_not_send_is_refused() -> bool {
    let pair = Pair::new(&["message.send:weather"]).await;
    arrive(&pair.recipient, pair.back, batch(epoch(1, 1), 1, &["a"])).await;
    pair.recipient.arrived("news").await.is_empty()
}

async fn who_could_not_be_reached_is_dialled_again(program: Program) -> bool {
    let (one, two) = (
        live_common::Node::start(1).await,
        live_common::Node::start(2).await,
    );
    let to_two = one.knows(2, None, &[]).await;
    two.knows(1, None, &["message.send:*"]).await;
    one.send(to_two, &live_common::texts(1)).await;
    one.sees(to_two, "a failed dial", |line| line.last_error.is_some())
        .await;
    let at = format!("quic://{}", two.tree().listening[0]);
    let store = &one.tree().store;
    let told = store.update_peer(to_two, move |peer| peer.addresses = vec![at]);
    told.await.unwrap();
    let mut counts = store.outbox_counts(to_two);
    let settled = counts.wait_for(|counts| counts.total() == 0);
    let patience = program.patience(Duration::from_secs(8));
    tokio::time::timeout(patience, settled).await.is_ok()
}

async fn what_did_not_arrive_is_sent_again() -> bool {
    let pair = Pair::new(&[]).await;
    pair.sender.accept(pair.peer, &["a", "b", "c"]).await;
    assert_eq!(pair.sender.waiting(pair.peer).await, ["a", "b", "c"]);
    pair.sender.accept(pair.peer, &["d"]).await;
    // The next session: of what the first one was handed, one has arrived.
    let here = pair.sender.store.epoch();
    pair.sender.open_session(pair.peer, here, 1).await;
    pair.sender.waiting(pair.peer).await == ["b", "c", "d"]
}

async fn an_acknowledged_base_survives_a_cut() -> bool {
    let mut pair = Pair::new(&["message.send:*"]).await;
    let epoch = epoch(1, 1);
    let marks = arrive(
        &pair.recipient,
        pair.back,
        Inbound::Base { epoch, first: 5 },
    )
    .await;
    assert_eq!(marks, [Mark { epoch, settled: 4 }]);
    reopen(&mut pair);
    let store = &pair.recipient.store;
    let (marks, _) = store
        .marks(pair.back, Lane::User, vec![epoch])
        .await
        .unwrap();
    marks == [Mark { epoch, settled: 4 }]
}

async fn who_takes_out_reports() -> bool {
    let mut pair = Pair::new(&["message.send:*"]).await;
    pair.send(&["a"]).await;
    let arrivals = pair.arrivals().await;
    // The power goes with the next commit but one.
    let disk = pair.recipient_place.disk();
    disk.cut_after(MemoryDisk::STEPS_PER_COMMIT);
    // Whether it was answered is another matter.
    let _ = pair.recipient.store.inbox_done(arrivals).await;
    reopen(&mut pair);
    assert!(pair.arrivals().await.is_empty());
    let store = &pair.recipient.store;
    let reports = store.load(pair.back, Lane::System, None, 9, usize::MAX);
    reports.await.unwrap().0.len() == 1
}

async fn what_a_consumer_left_behind_is_handed_out_again(program: Program) -> bool {
    let node = live_common::Node::start(1).await;
    let peer = node.knows(2, None, &["message.send:*"]).await;
    let store = &node.tree().store;
    let items = vec![batch(epoch(1, 1), 1, &["a"])];
    let stored = store.store_inbound(peer, Lane::User, items);
    stored.await.unwrap();
    let inbox = &node.tree().inbox;
    let request = || ClaimRequest {
        lease_ms: 1_000,
        ..ClaimRequest::new("news", 1)
    };
    assert_eq!(inbox.claim(request()).await.unwrap().len(), 1);
    let patience = program.patience(Duration::from_secs(3));
    let again = inbox.claim_waiting(request(), patience).await;
    again.unwrap().len() == 1
}

/// Pairs that have something for each other at the same moment, until two sessions of one pair were
/// seen to live side by side, or a few times.
async fn crossing_dials_end_in_one_session(program: Program) -> bool {
    for _ in 0..program.tries() {
        let (one, two) = (
            live_common::Node::start(1).await,
            live_common::Node::start(2).await,
        );
        let (to_two, to_one) = live_common::pair(&one, &two, &["message.send:*"]).await;
        let mut lives = [&one, &two].map(|node| node.tree().probe.listen());
        let texts = live_common::texts(1);
        tokio::join!(one.send(to_two, &texts), two.send(to_one, &texts));
        one.settled(to_two, live_common::DEADLINE).await;
        two.settled(to_one, live_common::DEADLINE).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        if lives.iter_mut().any(|lives| most_sessions(lives) > 1) {
            return false;
        }
    }
    true
}

/// How many sessions of one node were alive at the same time.
fn most_sessions(lives: &mut Receiver<LifeEvent>) -> i32 {
    let (mut alive, mut most) = (0_i32, 0);
    while let Ok(event) = lives.try_recv() {
        match event.what {
            _ if event.actor != "session 1" => {}
            Life::Started => alive += 1,
            Life::Exited(_) => alive -= 1,
            Life::Restarting | Life::GivenUp | Life::Works(_) => {}
        }
        most = most.max(alive);
    }
    most
}
