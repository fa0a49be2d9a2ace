//! The actor over a store in memory: who gets which message, when, and what a crash leaves.

use std::sync::Arc;

use packhorse_protocol::epoch::{Epoch, Lane};
use packhorse_protocol::grant::Grants;
use packhorse_protocol::handshake::Introduction;
use packhorse_protocol::identity::IdentityKey;
use packhorse_protocol::message::DeliveryClass;
use packhorse_protocol::outbox::Inbound;
use ractor::{Actor, ActorRef};
use tokio::time::timeout;

use super::*;
use crate::env::testing::{self, ManualClock};
use crate::store::{EngineKind, MemoryDisk, Opened, PairInviter, Store, StoreConfig, Writer};

const EPOCH: Epoch = Epoch { boot: 4, nonce: 4 };
const SOON: Duration = Duration::from_secs(20);

struct Desk {
    handle: InboxHandle,
    actor: ActorRef<InboxMsg>,
    clock: Arc<ManualClock>,
    env: Env,
    store: StoreHandle,
    peer: PeerNumber,
    sent: u64,
    _writer: Writer,
    _opened: Opened,
}

fn grants(texts: &[&str]) -> Grants {
    Grants::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
}

fn message(topic: &str, text: &str) -> Message {
    Message {
        class: DeliveryClass::Critical,
        topic: topic.to_owned(),
        born_ms: 0,
        headers: Vec::new(),
        payload: text.as_bytes().to_vec(),
    }
}

impl Desk {
    async fn new(texts: &[&str]) -> Self {
        let (env, clock) = testing::env(1);
        let id = |seed| IdentityKey::from_seed(&[seed; 32]).id();
        let mut config = StoreConfig::new("/nowhere", id(1), [7; 32], env.clone());
        config.engine = EngineKind::Memory(MemoryDisk::new(1));
        let opened = Store::open(&config).unwrap();
        let writer = opened.start_writer().unwrap();
        let store = opened.handle();
        let peer = Self::pair(&store, 2, texts).await;
        let handle = InboxHandle::default();
        let actor = Self::start(&env, &store, &handle).await;
        Self {
            handle,
            actor,
            clock,
            env,
            store,
            peer,
            sent: 0,
            _writer: writer,
            _opened: opened,
        }
    }

    async fn pair(store: &StoreHandle, seed: u8, texts: &[&str]) -> PeerNumber {
        let pair = PairInviter {
            introduction: Introduction {
                id: IdentityKey::from_seed(&[seed; 32]).id(),
                name: format!("node{seed}"),
                addresses: Vec::new(),
                epoch: EPOCH,
            },
            name: None,
            grants: grants(texts),
            granted: Grants::none(),
            hints: Vec::new(),
        };
        store.pair_inviter(pair).await.unwrap().number
    }

    async fn start(env: &Env, store: &StoreHandle, handle: &InboxHandle) -> ActorRef<InboxMsg> {
        let inbox = Inbox {
            env: env.clone(),
            store: store.clone(),
            handle: handle.clone(),
        };
        let (actor, _) = Actor::spawn(None, inbox, ()).await.unwrap();
        handle.publish(actor.clone().into());
        actor
    }

    /// The actor dies and another takes its place, as its supervisor would have it.
    async fn crash(&mut self) {
        self.actor.kill_and_wait(None).await.unwrap();
        self.handle.vacate();
        self.actor = Self::start(&self.env, &self.store, &self.handle).await;
    }

    async fn arrive(&mut self, topic: &str, texts: &[&str]) {
        let messages = texts.iter().map(|text| Ok(message(topic, text))).collect();
        let items = vec![Inbound::Messages {
            epoch: EPOCH,
            first: self.sent + 1,
            messages,
        }];
        self.sent += texts.len() as u64;
        let stored = self.store.store_inbound(self.peer, Lane::User, items);
        stored.await.unwrap();
    }

    async fn claim(&self, count: usize) -> Vec<Claimed> {
        self.handle
            .claim(ClaimRequest::new("a", count))
            .await
            .unwrap()
    }

    async fn work(&self, count: usize) -> Vec<Claimed> {
        self.handle.claim(work(count)).await.unwrap()
    }
}

fn work(count: usize) -> ClaimRequest {
    ClaimRequest {
        mode: Mode::Work,
        ..ClaimRequest::new("a", count)
    }
}

fn texts(claimed: &[Claimed]) -> Vec<String> {
    let text = |one: &Claimed| String::from_utf8(one.row.message.payload.clone()).unwrap();
    claimed.iter().map(text).collect()
}

fn failed() -> Verdict {
    Verdict::Failed {
        reason: "exit 1".into(),
        output: Vec::new(),
    }
}

fn later(delay_ms: u64) -> Verdict {
    Verdict::Retry {
        delay_ms: Some(delay_ms),
        reason: "busy".into(),
    }
}

#[tokio::test]
async fn a_message_is_anothers_only_when_its_lease_has_ended() {
    let mut desk = Desk::new(&["message.send:*"]).await;
    desk.arrive("a", &["1", "2", "3"]).await;
    assert_eq!(texts(&desk.claim(2).await), ["1", "2"]);
    assert_eq!(texts(&desk.claim(9).await), ["3"]);
    desk.clock.advance(LEASE_MS_DEFAULT - 1);
    assert!(desk.claim(9).await.is_empty());
    desk.clock.advance(1);
    let again = desk.claim(9).await;
    assert_eq!(texts(&again), ["1", "2", "3"]);
    desk.handle
        .release(again.iter().map(|one| one.row.arrival).collect());
    assert_eq!(texts(&desk.claim(1).await), ["1"]);
    let arrivals = again.iter().map(|one| one.row.arrival).collect();
    desk.handle.acknowledge(arrivals).await.unwrap();
    desk.clock.advance(LEASE_MS_MAX);
    assert!(desk.claim(9).await.is_empty());
}

#[tokio::test]
async fn a_lease_that_is_told_of_progress_goes_on() {
    let mut desk = Desk::new(&["message.send:*"]).await;
    desk.arrive("a", &["1"]).await;
    let one = desk.claim(1).await.remove(0);
    let (arrival, token) = (one.row.arrival, one.token);
    for _ in 0..5 {
        desk.clock.advance(LEASE_MS_DEFAULT - 1);
        let lost = desk
            .handle
            .progress(vec![(arrival, token)], LEASE_MS_DEFAULT);
        assert!(lost.await.unwrap().is_empty());
    }
    assert!(desk.claim(1).await.is_empty());
    desk.clock.advance(LEASE_MS_DEFAULT);
    let other = desk.claim(1).await.remove(0);
    let lost = desk
        .handle
        .progress(vec![(arrival, token)], LEASE_MS_DEFAULT);
    assert_eq!(lost.await.unwrap(), [arrival]);
    let lost = desk
        .handle
        .progress(vec![(arrival, other.token)], LEASE_MS_DEFAULT);
    assert!(lost.await.unwrap().is_empty());
    for wrong in [0, LEASE_MS_MIN - 1, LEASE_MS_MAX + 1] {
        let refused = desk.handle.progress(Vec::new(), wrong).await;
        assert!(matches!(refused, Err(InboxError::LeaseLength { .. })));
    }
}

#[tokio::test]
async fn a_short_lease_is_short_also_after_an_attempt_or_a_renewal() {
    let mut desk = Desk::new(&["message.send:*", "execute:*"]).await;
    desk.arrive("a", &["1"]).await;
    let short = || ClaimRequest {
        lease_ms: LEASE_MS_MIN,
        ..work(1)
    };
    let one = desk.handle.claim(short()).await.unwrap().remove(0);
    let (arrival, token) = (one.row.arrival, one.token);
    desk.clock.advance(LEASE_MS_MIN - 1);
    assert_eq!(desk.handle.begin(arrival, token).await.unwrap(), 1);
    // The attempt has the whole lease, and no more.
    desk.clock.advance(LEASE_MS_MIN - 1);
    assert!(desk.work(1).await.is_empty());
    let lost = desk.handle.progress(vec![(arrival, token)], LEASE_MS_MIN);
    assert!(lost.await.unwrap().is_empty());
    desk.clock.advance(LEASE_MS_MIN - 1);
    assert!(desk.work(1).await.is_empty());
    desk.clock.advance(1);
    let other = desk.work(1).await.remove(0);
    assert_ne!(other.token, token);
    let lost = desk.handle.settle(arrival, token, failed()).await;
    assert!(
        matches!(lost, Err(InboxError::LeaseLost { .. })),
        "{lost:?}"
    );
}

#[tokio::test]
async fn who_has_lost_a_lease_can_say_that_it_is_done_and_nothing_else() {
    let mut desk = Desk::new(&["message.send:*", "execute:*"]).await;
    desk.arrive("a", &["1"]).await;
    let old = desk.work(1).await.remove(0);
    let arrival = old.row.arrival;
    desk.clock.advance(LEASE_MS_DEFAULT);
    let new = desk.work(1).await.remove(0);
    for verdict in [failed(), later(5)] {
        let lost = desk.handle.settle(arrival, old.token, verdict).await;
        assert!(
            matches!(lost, Err(InboxError::LeaseLost { .. })),
            "{lost:?}"
        );
    }
    let begun = desk.handle.begin(arrival, old.token).await;
    assert!(
        matches!(begun, Err(InboxError::LeaseLost { .. })),
        "{begun:?}"
    );
    assert_eq!(desk.handle.begin(arrival, new.token).await.unwrap(), 1);
    let done = Verdict::Done { output: Vec::new() };
    let done = desk.handle.settle(arrival, old.token, done).await.unwrap();
    assert_eq!(done, Settled::Done);
    let gone = desk
        .handle
        .settle(arrival, new.token, failed())
        .await
        .unwrap();
    assert_eq!(gone, Settled::Gone);
    let begun = desk.handle.begin(arrival, new.token).await;
    assert!(
        matches!(begun, Err(InboxError::LeaseLost { .. })),
        "{begun:?}"
    );
}

#[tokio::test]
async fn what_is_kept_back_does_not_hold_those_behind_it() {
    let mut desk = Desk::new(&["message.send:*"]).await;
    desk.arrive("a", &["1", "2"]).await;
    let one = desk.claim(1).await.remove(0);
    let kept = desk
        .handle
        .settle(one.row.arrival, one.token, later(60_000));
    assert!(matches!(
        kept.await.unwrap(),
        Settled::Later { failures: 0, .. }
    ));
    assert_eq!(texts(&desk.claim(9).await), ["2"]);
    // A restart does not shorten it, and does not forget the others.
    desk.crash().await;
    assert_eq!(texts(&desk.claim(9).await), ["2"]);
    desk.clock.advance(59_999);
    assert_eq!(texts(&desk.claim(9).await), ["2"]);
    desk.clock.advance(1);
    assert_eq!(texts(&desk.claim(9).await), ["1"]);
    // Who had it before can neither hold nor fail it while it rests.
    let one = desk.claim(9).await;
    assert!(one.is_empty());
}

/// Found by the simulation, seed 219: a job was given back for a moment, then the clock of its node
/// was set back by an hour. The store kept only the time of day until which it is kept back, so the
/// job was handed to nobody for that hour.
#[tokio::test]
async fn a_clock_that_is_set_back_holds_nothing_back_for_longer() {
    for is_restarted in [false, true] {
        let mut desk = Desk::new(&["message.send:*"]).await;
        desk.arrive("a", &["1"]).await;
        let one = desk.claim(1).await.remove(0);
        let kept = desk.handle.settle(one.row.arrival, one.token, later(5_000));
        kept.await.unwrap();
        desk.clock.set_wall(desk.env.now_ms() - 3_700_000);
        if is_restarted {
            desk.crash().await;
        } else {
            assert!(desk.claim(9).await.is_empty(), "it is still kept back");
        }
        desk.clock.advance(5_000);
        assert_eq!(texts(&desk.claim(9).await), ["1"], "{is_restarted}");
    }
}

#[tokio::test]
async fn a_message_fails_until_it_is_given_up() {
    let mut desk = Desk::new(&["message.send:*", "execute:*"]).await;
    desk.arrive("a", &["1"]).await;
    for count in 0..FAILURES_MAX {
        let one = desk.work(1).await.remove(0);
        assert_eq!((one.attempts, one.failures), (count, count));
        let attempt = desk.handle.begin(one.row.arrival, one.token).await;
        assert_eq!(attempt.unwrap(), count + 1);
        let settled = desk.handle.settle(one.row.arrival, one.token, failed());
        match settled.await.unwrap() {
            Settled::Later { failures, .. } => assert_eq!(failures, count + 1),
            settled => assert_eq!((settled, count), (Settled::Dead, FAILURES_MAX - 1)),
        }
        desk.clock.advance(300_000);
    }
    assert!(desk.work(9).await.is_empty());
    let filter = crate::store::Filter::default();
    assert_eq!(desk.store.dead_in(filter, 9).await.unwrap().total, 1);
}

#[tokio::test]
async fn a_crash_loses_no_message_and_no_handle() {
    let mut desk = Desk::new(&["message.send:*", "execute:*"]).await;
    desk.arrive("a", &["1", "2", "3"]).await;
    let had = desk.work(3).await;
    desk.handle
        .acknowledge(vec![had[0].row.arrival])
        .await
        .unwrap();
    desk.crash().await;
    // Who says first that it still has it, has it.
    let (arrival, token) = (had[1].row.arrival, had[1].token);
    let lost = desk
        .handle
        .progress(vec![(arrival, token)], LEASE_MS_DEFAULT);
    assert!(lost.await.unwrap().is_empty());
    let again = desk.work(9).await;
    assert_eq!(texts(&again), ["3"]);
    assert_ne!(again[0].token, had[2].token);
    let lost = desk
        .handle
        .settle(had[2].row.arrival, had[2].token, failed())
        .await;
    assert!(
        matches!(lost, Err(InboxError::LeaseLost { .. })),
        "{lost:?}"
    );
    // What was taken up again ends like any lease.
    desk.clock.advance(LEASE_MS_DEFAULT);
    assert_eq!(texts(&desk.work(9).await), ["2", "3"]);
}

#[tokio::test]
async fn what_is_acknowledged_while_the_inbox_is_down_is_gone() {
    let mut desk = Desk::new(&["message.send:*"]).await;
    desk.arrive("a", &["1", "2"]).await;
    let had = desk.claim(1).await;
    desk.actor.kill_and_wait(None).await.unwrap();
    desk.handle.vacate();
    desk.handle
        .acknowledge(vec![had[0].row.arrival])
        .await
        .unwrap();
    desk.actor = Desk::start(&desk.env, &desk.store, &desk.handle).await;
    assert_eq!(texts(&desk.claim(9).await), ["2"]);
}

#[tokio::test]
async fn a_worker_gets_only_what_its_sender_may_start() {
    let mut desk = Desk::new(&["message.send:*"]).await;
    desk.arrive("a", &["1"]).await;
    let other = Desk::pair(&desk.store, 3, &["message.send:*", "execute:a"]).await;
    let mine = std::mem::replace(&mut desk.peer, other);
    desk.sent = 0;
    desk.arrive("a", &["2"]).await;
    assert_eq!(texts(&desk.work(9).await), ["2"]);
    // A reader gets it all the same, and gives it back.
    let read = desk.claim(9).await;
    assert_eq!(texts(&read), ["1"]);
    desk.handle.release(vec![read[0].row.arrival]);
    assert!(desk.work(9).await.is_empty());
    let allow = |peer: &mut crate::store::PeerRecord| {
        peer.grants = grants(&["message.send:*", "execute:*"]);
    };
    desk.store.update_peer(mine, allow).await.unwrap();
    assert_eq!(texts(&desk.work(9).await), ["1"]);
}

#[tokio::test]
async fn thousands_that_cannot_be_handed_out_are_passed_once() {
    let mut desk = Desk::new(&["message.send:*"]).await;
    // More than one question looks at.
    for _ in 0..20 {
        desk.arrive("a", &["no"; 256]).await;
    }
    desk.peer = Desk::pair(&desk.store, 3, &["message.send:*", "execute:a"]).await;
    desk.sent = 0;
    desk.arrive("a", &["yes", "yes"]).await;
    assert_eq!(texts(&desk.work(1).await), ["yes"]);
    // One question of the actor finds the next, so it goes on where the last one ended.
    let (reply, answer) = tokio::sync::oneshot::channel();
    desk.actor
        .cast(InboxMsg::Claim {
            request: work(1),
            bytes_max: CLAIM_BYTES_MAX,
            reply: reply.into(),
        })
        .unwrap();
    let handed = answer.await.unwrap().unwrap();
    assert_eq!(texts(&handed.claimed), ["yes"]);
    // And the claim of a reader is full at once.
    assert_eq!(desk.claim(1_024).await.len(), 1_024);
}

#[tokio::test]
async fn who_waits_gets_what_arrives_and_holds_up_nobody() {
    let mut desk = Desk::new(&["message.send:*"]).await;
    let waiting = desk.handle.clone();
    let waiting = async move {
        let request = ClaimRequest::new("a", 9);
        waiting.claim_waiting(request, SOON).await.unwrap()
    };
    let arriving = async {
        // Others are served while one waits, whatever arrives for them.
        for _ in 0..10 {
            desk.arrive("b", &["other"]).await;
            let others = desk.handle.claim(ClaimRequest::new("b", 9)).await.unwrap();
            assert_eq!(others.len(), 1);
        }
        desk.arrive("a", &["1"]).await;
    };
    let (waited, ()) = timeout(SOON, async { tokio::join!(waiting, arriving) })
        .await
        .unwrap();
    assert_eq!(texts(&waited), ["1"]);
    let request = ClaimRequest::new("a", 9);
    let nothing = desk
        .handle
        .claim_waiting(request, Duration::from_millis(20));
    assert!(timeout(SOON, nothing).await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn who_waits_hears_of_what_is_given_back_and_of_a_restart() {
    let mut desk = Desk::new(&["message.send:*"]).await;
    desk.arrive("a", &["1"]).await;
    let had = desk.claim(1).await;
    let request = ClaimRequest::new("a", 9);
    let handle = desk.handle.clone();
    let waiting = handle.claim_waiting(request.clone(), SOON);
    let giving = async { handle.release(vec![had[0].row.arrival]) };
    let (waited, ()) = timeout(SOON, async { tokio::join!(waiting, giving) })
        .await
        .unwrap();
    assert_eq!(texts(&waited.unwrap()), ["1"]);
    // The lease dies with the actor: a waiting consumer gets the message from the next one.
    let waiting = handle.claim_waiting(request, SOON);
    let (waited, ()) = timeout(SOON, async { tokio::join!(waiting, desk.crash()) })
        .await
        .unwrap();
    assert_eq!(texts(&waited.unwrap()), ["1"]);
}

#[tokio::test]
async fn what_was_handed_to_nobody_comes_next() {
    let mut desk = Desk::new(&["message.send:*"]).await;
    desk.arrive("a", &["1", "2"]).await;
    desk.handle.offer_ephemeral(desk.peer, message("a", "0"));
    let claim = desk.handle.claim(ClaimRequest::new("a", 9));
    tokio::select! {
        biased;
        claimed = claim => panic!("answered within one poll: {claimed:?}"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(texts(&desk.claim(9).await), ["0", "1", "2"]);
}

#[tokio::test]
async fn ephemeral_messages_are_handed_out_once_and_to_workers_by_grant() {
    let desk = Desk::new(&["message.send:*"]).await;
    let handle = &desk.handle;
    handle.offer_ephemeral(desk.peer, message("a", "1"));
    assert!(desk.work(9).await.is_empty());
    let claimed = desk.claim(9).await;
    assert_eq!(texts(&claimed), ["1"]);
    assert!(claimed[0].is_ephemeral);
    assert!(claimed[0].row.arrival < 1 << 53);
    handle
        .acknowledge(vec![claimed[0].row.arrival])
        .await
        .unwrap();
    handle.offer_ephemeral(desk.peer, message("a", "2"));
    desk.clock.advance(10_001);
    assert!(desk.claim(9).await.is_empty());
    assert_eq!(handle.ephemeral_lost(), 1);
}

/// The session ends behind the forget, and may still hand one in.
#[tokio::test]
async fn an_ephemeral_message_of_a_peer_that_was_forgotten_reaches_nobody() {
    let desk = Desk::new(&["message.send:*"]).await;
    desk.store.forget(desk.peer).await.unwrap();
    desk.handle.drop_ephemeral_of(desk.peer);
    desk.handle.offer_ephemeral(desk.peer, message("a", "1"));
    assert!(desk.claim(9).await.is_empty());
}
