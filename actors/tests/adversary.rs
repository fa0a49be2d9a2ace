//! A peer that is paired and misuses everything: each misuse ends its session with the right class,
//! or costs one message, and nobody else notices.
//!
//! One tree is the victim of all of them, one after the other, while an honest peer talks to it
//! over one session. After each misuse the same identity comes back, behaves, and is served.
//! The misuses are the tables in `adversary/cases.rs`; strangers have `adversary/strangers.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the protocol's own tests need the rest of it")]
#[path = "../../protocol/tests/handshake/by_hand.rs"]
mod by_hand;
#[path = "adversary/cases.rs"]
mod cases;
#[path = "adversary/hand.rs"]
mod hand;
mod live_common;
#[path = "adversary/strangers.rs"]
mod strangers;

use std::{collections::BTreeMap, time::Duration};

use packhorse_actors::{
    board::PeerLine,
    inbox::ClaimRequest,
    link::{QuicDialler, QuicListener},
    store::{InboxRow, PeerNumber},
};
use packhorse_protocol::{
    codec,
    epoch::{Epoch, Mark, Span},
    error_class::ErrorClass,
    handshake::{Answer, Local},
    limits,
    message::{ControlFrame, DeliveryClass, Message, ReceiverFrame, SenderFrame},
};

use cases::{Case, End};
use hand::{Hand, Move, On};
use live_common::{DEADLINE, Node, identity, message, pair, texts};

/// The seeds of the three nodes.
const VICTIM: u8 = 1;
const FRIEND: u8 = 2;
const ADVERSARY: u8 = 9;
/// What the victim sends the adversary before each case.
const WAITING: usize = 2;

/// The victim, its honest peer, and everything that was ever honestly exchanged.
struct Scene {
    victim: Node,
    friend: Node,
    to_friend: PeerNumber,
    to_victim: PeerNumber,
    adversary: PeerNumber,
    dialler: QuicDialler,
    boot: u32,
    /// What the victim is to hold of the adversary, in order.
    stored: Vec<String>,
    /// What the adversary got of the victim, by sequence.
    taken: BTreeMap<u64, String>,
    sent: Vec<String>,
    /// The friend's session began then.
    since_ms: u64,
    friendly: usize,
}

impl Scene {
    async fn new() -> Scene {
        let (victim, friend) = (Node::start(VICTIM).await, Node::start(FRIEND).await);
        let (to_friend, to_victim) = pair(&victim, &friend, &["message.send:*"]).await;
        let adversary = victim.knows(ADVERSARY, None, &["message.send:news"]).await;
        friend.send(to_victim, &texts(1)).await;
        friend.settled(to_victim, DEADLINE).await;
        victim.connected(to_friend).await;
        let since_ms = victim.tree().board.line(to_friend).since_ms;
        Scene {
            victim,
            friend,
            to_friend,
            to_victim,
            adversary,
            dialler: QuicDialler::bind().unwrap(),
            boot: 0,
            stored: Vec::new(),
            taken: BTreeMap::new(),
            sent: Vec::new(),
            since_ms,
            friendly: 1,
        }
    }

    fn theirs(&self) -> Epoch {
        self.victim.tree().store.epoch()
    }

    /// A session of the adversary's, under an epoch of its own.
    async fn session(&mut self) -> (Hand, Epoch) {
        self.boot += 1;
        let epoch = Epoch {
            boot: self.boot,
            nonce: 1_000 + u64::from(self.boot),
        };
        let at = self.victim.tree().listening[0];
        let whom = identity(VICTIM).id();
        let hand = Hand::dial(&self.dialler, at, whom, ADVERSARY, epoch).await;
        (hand, epoch)
    }

    /// One that the victim dials.
    async fn dialled(&mut self) -> (Hand, Epoch) {
        let mut listener = QuicListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = format!("quic://{}", listener.address());
        let store = &self.victim.tree().store;
        let told = store.update_peer(self.adversary, |record| record.addresses = vec![address]);
        told.await.unwrap();
        self.victim.tree().retry.wake(Some(self.adversary));
        self.boot += 1;
        let epoch = Epoch {
            boot: self.boot,
            nonce: 1_000 + u64::from(self.boot),
        };
        let hand = Hand::answer(&mut listener, ADVERSARY, epoch).await;
        // From here on nobody is there to be dialled.
        let told = store.update_peer(self.adversary, |record| record.addresses.clear());
        told.await.unwrap();
        (hand, epoch)
    }

    async fn check(&mut self, case: &Case) {
        self.fill(case.what).await;
        let session = self.session().await;
        self.run(case, session).await;
    }

    /// Something waits for the adversary.
    async fn fill(&mut self, what: &str) {
        let waiting: Vec<_> = (0..WAITING).map(|n| format!("{what}, {n}")).collect();
        self.victim.send(self.adversary, &waiting).await;
        self.sent.extend(waiting);
    }

    async fn run(&mut self, case: &Case, (mut hand, mine): (Hand, Epoch)) {
        let what = case.what;
        let dropped = self
            .victim
            .tree()
            .board
            .line(self.adversary)
            .ephemeral_dropped;
        hand.play((case.moves)(mine, self.theirs())).await;
        match case.end {
            End::Over(class, words) => {
                assert_eq!(hand.closed().await, u64::from(class.to_u16()), "{what}");
                let told = |line: &PeerLine| {
                    let exit = line.last_exit.as_ref();
                    line.link.is_none() && exit.is_some_and(|exit| exit.contains(words))
                };
                self.victim.sees(self.adversary, what, told).await;
            }
            End::Settled(on, settled, refused) => {
                let refusals = hand.settled(on, mine, settled).await;
                let refusals: Vec<_> = refusals
                    .iter()
                    .filter(|refusal| refusal.epoch == mine)
                    .map(|refusal| (refusal.sequence, refusal.code))
                    .collect();
                assert_eq!(refusals, refused, "{what}");
                hand.beat().await;
                hand.leave();
            }
            End::Dropped(count) => {
                let is = |line: &PeerLine| line.ephemeral_dropped == dropped + count;
                self.victim.sees(self.adversary, what, is).await;
                hand.beat().await;
                hand.leave();
            }
            End::Lives => {
                hand.beat().await;
                hand.leave();
            }
        }
        self.stored
            .extend(case.stores.iter().map(|&text| text.to_owned()));
        self.behave(what).await;
        self.befriend(what).await;
    }

    /// The same identity once more, without a fault: what waited for it comes, what it says is kept.
    async fn behave(&mut self, what: &str) {
        let (mut hand, mine) = self.session().await;
        let text = format!("after {what}");
        let span = Span {
            epoch: mine,
            first: 1,
            last: 0,
            acknowledged: 0,
        };
        let batch = SenderFrame::Batch {
            epoch: mine,
            first: 1,
            messages: vec![Ok(message(DeliveryClass::Critical, text.as_bytes()))],
        };
        let frames = [SenderFrame::Start(vec![span]), batch];
        let say = |frame| Move::Say(On::User, codec::encode_sender(frame));
        hand.play(frames.iter().map(say).collect()).await;
        let refusals = hand.settled(On::User, mine, 1).await;
        assert!(
            refusals.iter().all(|refusal| refusal.epoch != mine),
            "{what}: {refusals:?}"
        );
        self.stored.push(text);

        hand.play(vec![Move::Answer(|spans| {
            hand::marks(spans, |span| span.acknowledged)
        })])
        .await;
        let last = self.sent.len() as u64;
        while self.taken.len() < self.sent.len() {
            let heard = tokio::time::timeout(DEADLINE, hand.hear()).await;
            let heard = heard.unwrap_or_else(|_| panic!("{what}: what waits is not sent"));
            let (epoch, first, texts) = heard.unwrap();
            assert_eq!(epoch, self.theirs(), "{what}");
            for (sequence, text) in (first..).zip(texts) {
                let before = self.taken.insert(sequence, text.clone());
                assert!(
                    before.is_none_or(|before| before == text),
                    "{what}: {sequence}"
                );
            }
        }
        // Of an epoch in which nothing was sent nothing can be acknowledged.
        if last > 0 {
            let mark = Mark {
                epoch: self.theirs(),
                settled: last,
            };
            let acknowledge = ReceiverFrame::Acknowledge {
                mark,
                refusals: Vec::new(),
            };
            let plain = codec::encode_receiver(&acknowledge);
            hand.play(vec![Move::Say(On::TheirUser, plain)]).await;
        }
        self.victim.settled(self.adversary, DEADLINE).await;
        hand.beat().await;
        hand.leave();
    }

    /// The honest peer delivers over the session that it has had all the time.
    async fn befriend(&mut self, what: &str) {
        self.friendly += 1;
        self.friend.send(self.to_victim, &texts(1)).await;
        self.friend.settled(self.to_victim, DEADLINE).await;
        let line = self.victim.tree().board.line(self.to_friend);
        assert_eq!(line.since_ms, self.since_ms, "{what}: {line:?}");
    }

    /// The same for what was never read: it waits still.
    async fn end_unheard(mut self) {
        let waits = self.victim.tree().store.outbox_counts(self.adversary);
        assert_eq!(waits.borrow().total(), self.sent.len() as u64);
        self.sent.clear();
        self.end().await;
    }

    /// Nothing is lost, nothing stored that should not be, and nobody was restarted.
    async fn end(mut self) {
        let listing = self.victim.tree().store.inbox_list(100_000).await.unwrap();
        let of = |peer: PeerNumber| -> Vec<String> {
            let rows = listing.rows.iter().filter(|row| row.peer == peer);
            let text = |row: &InboxRow| String::from_utf8(row.message.payload.clone()).unwrap();
            rows.map(text).collect()
        };
        assert_eq!(of(self.adversary), self.stored);
        assert_eq!(of(self.to_friend), vec!["0".to_owned(); self.friendly]);
        let taken: Vec<_> = self.taken.values().cloned().collect();
        assert_eq!(
            taken, self.sent,
            "what the victim sent came once and in order"
        );
        let tree = self.victim.tree().census();
        for child in &tree.children {
            assert_eq!(child.restarts, 0, "{child:?}");
        }
        let friend = tree.find(&format!("session {}", self.to_friend.0));
        assert_eq!(friend.map(|session| session.incarnation), Some(1));
        // It stops in order: nothing of all that is left over.
        let took = self.victim.stop().await;
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

async fn check(table: &[Case]) {
    let mut scene = Scene::new().await;
    for case in table {
        scene.check(case).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none_end_the_session_and_harm_nobody() {
    check(cases::FRAMES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_breaks_its_lane_ends_its_session_and_harms_nobody() {
    check(cases::SENDING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_may_not_be_kept_costs_itself_alone() {
    check(cases::MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_lies_ends_its_session_and_settles_nothing() {
    check(cases::RECEIVING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_frames_out_of_turn_end_the_session_and_harm_nobody() {
    check(cases::CONTROL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_dialled_and_breaks_the_rules_harms_nobody() {
    let mut scene = Scene::new().await;
    for case in cases::DIALLED {
        scene.fill(case.what).await;
        let session = scene.dialled().await;
        scene.run(case, session).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing_and_leave_nothing_behind() {
    let mut scene = Scene::new().await;
    for stranger in strangers::STRANGERS {
        stranger.check(&mut scene).await;
    }
    strangers::silent_links_are_closed(&scene).await;
    let peers = scene.victim.tree().store.peers().await.unwrap();
    assert_eq!(peers.len(), 2, "{peers:?}");
    scene.behave("strangers").await;
    scene.end().await;
}

/// Nobody makes a sender wait for its acknowledgements; whether it is cut at the window or the
/// store keeps up with it, what is there is the beginning of what it sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_never_waits_is_cut_at_the_window_or_kept_up_with() {
    const BATCHES: u64 = 200;
    let mut scene = Scene::new().await;
    let (mut hand, mine) = scene.session().await;
    let count = limits::BATCH_MESSAGES_MAX as u64;
    let span = Span {
        epoch: mine,
        first: 1,
        last: 0,
        acknowledged: 0,
    };
    let batch = |number: u64| {
        let text = |at: u64| format!("{}", number * count + at);
        let messages = (0..count).map(|at| message(DeliveryClass::Critical, text(at).as_bytes()));
        SenderFrame::Batch {
            epoch: mine,
            first: number * count + 1,
            messages: messages.map(Ok).collect(),
        }
    };
    let frames = std::iter::once(SenderFrame::Start(vec![span])).chain((0..BATCHES).map(batch));
    let say = |frame| Move::Say(On::User, codec::encode_sender(&frame));
    hand.play(frames.map(say).collect()).await;
    match hand
        .settled_or_closed(On::User, mine, BATCHES * count)
        .await
    {
        Ok(()) => hand.leave(),
        Err(code) => {
            assert_eq!(code, u64::from(ErrorClass::Protocol.to_u16()));
            let is = |line: &PeerLine| {
                let exit = line.last_exit.as_ref();
                exit.is_some_and(|exit| exit.contains("more than the window"))
            };
            scene.victim.sees(scene.adversary, "cut", is).await;
        }
    }
    // What a session handed to the store may be committed behind its end, and is ahead of the next.
    scene.behave("a flood").await;
    let listing = scene.victim.tree().store.inbox_list(100_000).await.unwrap();
    let rows = listing
        .rows
        .iter()
        .filter(|row| row.peer == scene.adversary);
    let texts = rows.map(|row| String::from_utf8(row.message.payload.clone()).unwrap());
    let stored: Vec<_> = texts.collect();
    let (last, flood) = stored.split_last().unwrap();
    assert_eq!(Some(last), scene.stored.last());
    for (number, text) in flood.iter().enumerate() {
        assert_eq!(*text, number.to_string());
    }
    scene.stored = stored;
    scene.befriend("a flood").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_ephemeral_messages_fills_its_own_room_and_no_other() {
    const MESSAGES: usize = 3_000;
    let mut scene = Scene::new().await;
    let (mut hand, _) = scene.session().await;
    let flood = (0..MESSAGES).map(|number| {
        let message = message(DeliveryClass::Ephemeral, number.to_string().as_bytes());
        Move::Say(On::Ephemeral, codec::encode_ephemeral(&message))
    });
    hand.play(flood.collect()).await;
    // The stream has one order: when the last one was dropped, all were judged.
    let last = Message {
        topic: "secret".to_owned(),
        ..message(DeliveryClass::Ephemeral, b"without a grant")
    };
    let plain = codec::encode_ephemeral(&last);
    hand.play(vec![Move::Say(On::Ephemeral, plain)]).await;
    let dropped = |line: &PeerLine| line.ephemeral_dropped > 0;
    scene.victim.sees(scene.adversary, "judged", dropped).await;
    hand.beat().await;
    hand.leave();
    let claim = ClaimRequest::new("news", 100_000);
    let claimed = scene.victim.tree().inbox.claim(claim).await.unwrap();
    let kept = claimed
        .iter()
        .filter(|claimed| claimed.is_ephemeral)
        .count();
    assert!(kept <= 1_024, "{kept} are held");
    scene.behave("a flood").await;
    scene.befriend("a flood").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_says_first_does_not_grow_with_what_waits() {
    let mut scene = Scene::new().await;
    let waiting = texts(5_000);
    scene.victim.send(scene.adversary, &waiting).await;
    scene.sent.extend(waiting);
    let (hand, _) = scene.session().await;
    let counts: Vec<_> = hand.spans.iter().map(Vec::len).collect();
    assert!(
        counts.iter().all(|count| *count <= 2),
        "{counts:?} epochs are named"
    );
    hand.leave();
    scene.end_unheard().await;
}

/// Every sort of news has its own bound, and the last word about addresses is never lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_the_same_without_end_is_told_of_within_bounds_and_found_where_it_moves() {
    let mut scene = Scene::new().await;
    let (mut hand, _) = scene.session().await;
    let control = |frame| Move::Say(On::Control, codec::encode_control(&frame));
    let epoch = |boot| Epoch { boot, nonce: 7 };
    let boots = u32::MAX - 200..=u32::MAX;
    let seen = boots.map(|boot| control(ControlFrame::SeenEpoch { epoch: epoch(boot) }));
    hand.play(seen.collect()).await;
    let marks = |spans: &[Span]| hand::marks(spans, |span| span.acknowledged);
    hand.play(vec![Move::Answer(marks)]).await;
    let pauses = (0..200).flat_map(|_| {
        let reason = "full".to_owned();
        [ReceiverFrame::Paused { reason }, ReceiverFrame::Resumed]
            .map(|frame| Move::Say(On::TheirUser, codec::encode_receiver(&frame)))
    });
    hand.play(pauses.collect()).await;
    let last = "quic://192.0.2.1:300".to_owned();
    let moves = (1..=300).map(|port| {
        let addresses = vec![format!("quic://192.0.2.1:{port}")];
        control(ControlFrame::Addresses { addresses })
    });
    hand.play(moves.collect()).await;
    let store = &scene.victim.tree().store;
    let moved = async {
        while scene.victim.record(scene.adversary).await.addresses.first() != Some(&last) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, moved).await.unwrap();
    let known = scene.victim.record(scene.adversary).await.addresses;
    assert!(known.len() <= 1 + 4, "few of the former ones: {known:?}");
    // One life of the process gives a peer's words no more than this.
    let floor = store.raise_boot_floor(0).await.unwrap();
    assert!(floor < 2_000_000, "{floor}");
    let mut told = BTreeMap::<String, usize>::new();
    for event in scene
        .victim
        .tree()
        .events
        .since(0, 10_000)
        .await
        .unwrap()
        .events
    {
        *told.entry(event.fact.kind().to_owned()).or_default() += 1;
    }
    assert!(told.values().all(|count| *count <= 64), "{told:?}");
    assert_eq!(told.get("node.rolled_back"), Some(&1), "{told:?}");
    hand.leave();
    scene.behave("endless news").await;
    scene.befriend("endless news").await;
    scene.end().await;
}

/// What it announced last leads nowhere, as when it was the word of a copy that is gone for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_announces_what_leads_nowhere_is_dialled_where_it_announced_before() {
    let mut scene = Scene::new().await;
    let mut listener = QuicListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let before = format!("quic://{}", listener.address());
    let (mut hand, _) = scene.session().await;
    for hint in [before, "quic://192.0.2.1:7".to_owned()] {
        let addresses = vec![hint.clone()];
        let frame = codec::encode_control(&ControlFrame::Addresses { addresses });
        hand.play(vec![Move::Say(On::Control, frame)]).await;
        let known = async {
            while scene.victim.record(scene.adversary).await.addresses.first() != Some(&hint) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, known).await.unwrap();
    }
    hand.leave();
    scene.fill("a wrong word about itself").await;
    let epoch = Epoch { boot: 2, nonce: 2 };
    // The former one is dialled.
    Hand::answer(&mut listener, ADVERSARY, epoch).await.leave();
}

/// A second machine with the peer's identity is turned away while the first one lives; what it said
/// about itself leaves no trace in what is known of the first.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_changes_nothing_that_is_known_of_the_peer() {
    let mut scene = Scene::new().await;
    let (hand, epoch) = scene.session().await;
    let before = scene.victim.record(scene.adversary).await;
    let local = Local {
        name: "copy".to_owned(),
        addresses: vec!["quic://192.0.2.66:6".to_owned()],
        epoch: Epoch { nonce: 66, ..epoch },
    };
    let at = scene.victim.tree().listening[0];
    let link = scene.dialler.dial(at).await.unwrap();
    let whom = identity(VICTIM).id();
    let (_link, answer) = Hand::shake(link, whom, ADVERSARY, local).await;
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    let after = scene.victim.record(scene.adversary).await;
    assert_eq!(after, before);
    hand.leave();
    scene.behave("a copy").await;
    scene.end().await;
}
