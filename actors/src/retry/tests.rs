//! The scheduler over a real store in memory, a made-up session supervisor and a paused clock.
//!
//! The store's writer is a thread of its own and knows nothing of the paused clock. So time never
//! runs by itself here: it passes in steps, and after each step everybody comes to rest.

mod keep;
mod late;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use packhorse_protocol::{
    epoch::{Epoch, Lane},
    error_class::ErrorClass,
    grant::Grants,
    handshake::Introduction,
    identity::IdentityKey,
    message::{DeliveryClass, Message},
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::{
    task::{JoinSet, spawn_blocking, yield_now},
    time::{advance, sleep},
};

use super::{Retry, RetryHandle, RetryMsg};
use crate::{
    board::{Board, PeerState},
    env::{Env, testing},
    events::EventsHandle,
    session::{Blame, SessionExit, SessionsHandle, SessionsMsg},
    store::{
        EngineKind, MemoryDisk, NewMessage, Opened, PairInviter, PeerNumber, Store, StoreConfig,
        StoreHandle, Writer,
    },
};

/// What the made-up supervisor does with a dial: after how long it is over, and how. `None`: it
/// forgets the dial.
type Script = Arc<dyn Fn(u64) -> Option<(Duration, SessionExit)> + Send + Sync>;

#[derive(Clone)]
struct Fake {
    env: Env,
    retry: RetryHandle,
    script: Arc<Mutex<Script>>,
    /// When, and whom.
    dials: Arc<Mutex<Vec<(u64, PeerNumber)>>>,
    proofs: Arc<Mutex<Vec<u64>>>,
    moves: Arc<Mutex<Vec<u64>>>,
    forgotten: Arc<Mutex<Vec<PeerNumber>>>,
    under_way: Arc<Mutex<BTreeSet<PeerNumber>>>,
}

impl Fake {
    fn dials(&self) -> Vec<(u64, PeerNumber)> {
        self.dials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn moves(&self) -> usize {
        self.moves.lock().unwrap().len()
    }

    fn follow(
        &self,
        script: impl Fn(u64) -> Option<(Duration, SessionExit)> + Send + Sync + 'static,
    ) {
        *self.script.lock().unwrap() = Arc::new(script);
    }
}

impl Actor for Fake {
    type Msg = SessionsMsg;
    type State = JoinSet<()>;
    type Arguments = ();

    async fn pre_start(
        &self,
        _: ActorRef<SessionsMsg>,
        (): (),
    ) -> Result<JoinSet<()>, ActorProcessingErr> {
        Ok(JoinSet::new())
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionsMsg>,
        message: SessionsMsg,
        dials: &mut JoinSet<()>,
    ) -> Result<(), ActorProcessingErr> {
        let now_ms = self.env.monotonic_ms();
        match message {
            SessionsMsg::Dial(peer) => {
                // As the real one does while a dial is under way.
                if !self.under_way.lock().unwrap().insert(peer) {
                    return Ok(());
                }
                self.dials.lock().unwrap().push((now_ms, peer));
                let script = Arc::clone(&self.script.lock().unwrap());
                if let Some((after, exit)) = script(now_ms) {
                    let retry = self.retry.clone();
                    let under_way = Arc::clone(&self.under_way);
                    dials.spawn(async move {
                        sleep(after).await;
                        under_way.lock().unwrap().remove(&peer);
                        retry.tell(RetryMsg::Over {
                            peer,
                            exit,
                            retry_after_ms: None,
                        });
                    });
                } else {
                    self.under_way.lock().unwrap().remove(&peer);
                }
            }
            SessionsMsg::Forgotten(peer) => self.forgotten.lock().unwrap().push(peer),
            SessionsMsg::Moved => self.moves.lock().unwrap().push(now_ms),
            SessionsMsg::ProveAlive => self.proofs.lock().unwrap().push(now_ms),
            _ => myself.stop(None),
        }
        Ok(())
    }
}

/// A store, a made-up supervisor and a scheduler.
struct World {
    env: Env,
    clock: Arc<testing::ManualClock>,
    network: Arc<testing::ManualNetwork>,
    store: StoreHandle,
    board: Board,
    retry: RetryHandle,
    fake: Fake,
    scheduler: Option<ActorRef<RetryMsg>>,
    sessions: SessionsHandle,
    _opened: Opened,
    _writer: Writer,
    /// Keeps the clock from running by itself; a blocking task ends with it.
    _still: SyncSender<()>,
}

impl World {
    /// With this many peers; nothing runs yet.
    async fn new(peers: u8) -> Self {
        let (still, until) = sync_channel(1);
        // Its handle is not needed: it ends with the sender.
        drop(spawn_blocking(move || until.recv()));
        let network = Arc::new(testing::ManualNetwork::default());
        let (mut env, clock) = testing::env(7);
        env.network = network.clone();
        let id = IdentityKey::from_seed(&[99; 32]).id();
        let mut config = StoreConfig::new(PathBuf::from("/nowhere"), id, [7; 32], env.clone());
        config.engine = EngineKind::Memory(MemoryDisk::new(1));
        let opened = Store::open(&config).unwrap();
        let writer = opened.start_writer().unwrap();
        let store = opened.handle();
        for number in 1..=peers {
            store.pair_inviter(keep::pairing(number)).await.unwrap();
        }
        let retry = RetryHandle::default();
        let fake = Fake {
            env: env.clone(),
            retry: retry.clone(),
            script: Arc::new(Mutex::new(Arc::new(|_| {
                Some((Duration::from_secs(4), there()))
            }))),
            dials: Arc::default(),
            proofs: Arc::default(),
            moves: Arc::default(),
            forgotten: Arc::default(),
            under_way: Arc::default(),
        };
        let sessions = SessionsHandle::default();
        let (supervisor, _) = Actor::spawn(None, fake.clone(), ()).await.unwrap();
        sessions.publish(supervisor.into());
        Self {
            env,
            clock,
            network,
            store,
            board: Board::default(),
            retry,
            fake,
            scheduler: None,
            sessions,
            _opened: opened,
            _writer: writer,
            _still: still,
        }
    }

    /// Lets time pass.
    async fn pass(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(STEP);
            self.clock.advance(u64::try_from(step.as_millis()).unwrap());
            advance(step).await;
            left -= step;
            self.rest().await;
        }
    }

    /// Sets the wall clock forward, or back.
    fn jump(&self, ms: i64) {
        let now_ms = self.env.now_ms();
        self.clock.set_wall(now_ms.checked_add_signed(ms).unwrap());
    }

    /// Until everybody has done what there is to do now.
    async fn rest(&self) {
        for _ in 0..2 {
            for _ in 0..16 {
                yield_now().await;
            }
            // Behind everything that was handed to the store before.
            self.store.write(0, |_| Ok(())).await.unwrap();
        }
        for _ in 0..16 {
            yield_now().await;
        }
    }

    async fn start(&mut self, hold_links: bool) {
        let scheduler = Retry {
            env: self.env.clone(),
            store: self.store.clone(),
            sessions: self.sessions.clone(),
            board: self.board.clone(),
            events: EventsHandle::new(self.env.clone(), self.store.clone()),
            hold_links,
        };
        let (scheduler, _) = Actor::spawn(None, scheduler, ()).await.unwrap();
        self.retry.publish(scheduler.clone().into());
        self.scheduler = Some(scheduler);
        self.rest().await;
    }

    async fn kill(&mut self) {
        let scheduler = self.scheduler.take().unwrap();
        scheduler.kill();
        scheduler.wait(None).await.unwrap();
        self.retry.vacate();
    }

    async fn send(&self, peer: PeerNumber, class: DeliveryClass) {
        self.send_until(peer, class, None).await;
    }

    async fn send_until(&self, peer: PeerNumber, class: DeliveryClass, expires_ms: Option<u64>) {
        let message = Message {
            class,
            topic: "news".to_owned(),
            born_ms: self.env.now_ms(),
            headers: Vec::new(),
            payload: vec![1],
        };
        let new = NewMessage {
            expires_ms,
            ..NewMessage::new(message)
        };
        self.store
            .accept(peer, Lane::User, vec![new])
            .await
            .unwrap();
    }

    /// Failed attempts, behind every job that was handed to the store before.
    async fn failures(&self, peer: PeerNumber) -> u32 {
        let record = self.store.update_peer(peer, |_| ()).await.unwrap();
        record.failures
    }

    async fn waits(&self, peer: PeerNumber) -> u64 {
        self.store.outbox_counts(peer).borrow().total()
    }

    /// Waits for the sweep that is due now: it asks the store more than once, and the store's
    /// thread takes its own time however the clock is moved.
    async fn until_waits(&self, peer: PeerNumber, wanted: u64) {
        for _ in 0..10_000 {
            if self.waits(peer).await == wanted {
                return;
            }
            self.rest().await;
        }
        panic!("{} wait, not {wanted}", self.waits(peer).await);
    }
}

fn there() -> SessionExit {
    SessionExit::blaming(Blame::There, ErrorClass::Disconnected, "nothing within 4 s")
}

fn here() -> SessionExit {
    SessionExit::blaming(Blame::Here, ErrorClass::Disconnected, "no route")
}

const ONE: PeerNumber = PeerNumber(1);
const TWO: PeerNumber = PeerNumber(2);
/// What happens within a step happens at its end.
const STEP: Duration = Duration::from_millis(200);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_is_dialled_on_and_on_with_bounded_pauses() {
    let mut world = World::new(2).await;
    world.send(ONE, DeliveryClass::Critical).await;
    world.start(false).await;
    world.pass(60 * MINUTE).await;
    let dials = world.fake.dials();
    let of_one: Vec<u64> = dials
        .iter()
        .filter(|(_, peer)| *peer == ONE)
        .map(|(at, _)| *at)
        .collect();
    assert!(of_one.len() >= 60, "{of_one:?}");
    for pair in of_one.windows(2) {
        // Four seconds is how long a dial takes here; two steps are how late it may be noticed.
        let apart_ms = pair[1] - pair[0];
        assert!((4_100..=64_400).contains(&apart_ms), "{apart_ms} ms apart");
    }
    let of_two = dials.iter().filter(|(_, peer)| *peer == TWO).count();
    assert_eq!(of_two, 1, "nothing waits for it, so it is tried once");
    assert_eq!(world.board.line(ONE).state, PeerState::Waiting);
}

#[tokio::test(start_paused = true)]
async fn only_a_session_that_lived_for_a_minute_makes_the_next_dials_quick_again() {
    let mut world = World::new(1).await;
    world.send(ONE, DeliveryClass::Critical).await;
    world.start(false).await;
    for (lived, dials_after) in [(Duration::from_secs(5), 0..=3), (2 * MINUTE, 4..=20)] {
        world.fake.follow(|_| Some((Duration::ZERO, there())));
        world.pass(20 * MINUTE).await;
        // The next dial leads to a session.
        world.fake.follow(|_| None);
        world.pass(2 * MINUTE).await;
        world.retry.tell(RetryMsg::Connected(ONE));
        world.pass(lived).await;
        world.fake.follow(|_| Some((Duration::ZERO, there())));
        let before = world.fake.dials().len();
        world.retry.tell(RetryMsg::Over {
            peer: ONE,
            exit: there(),
            retry_after_ms: None,
        });
        world.pass(Duration::from_secs(10)).await;
        let dials = world.fake.dials().len() - before;
        assert!(
            dials_after.contains(&dials),
            "{dials} dials after {lived:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_count_at_most_twice_a_minute_and_a_restart_resets_nothing() {
    let mut world = World::new(1).await;
    world.send(ONE, DeliveryClass::Critical).await;
    world.start(false).await;
    world.pass(Duration::from_secs(59)).await;
    let in_a_minute = world.failures(ONE).await;
    assert!((1..=2).contains(&in_a_minute), "{in_a_minute}");
    // Restarts without end: every incarnation dials at once, and none counts at once.
    for _ in 0..20 {
        world.kill().await;
        world.start(false).await;
        world.pass(Duration::from_secs(5)).await;
    }
    let restarted = world.failures(ONE).await;
    assert!(restarted > in_a_minute && restarted <= 6, "{restarted}");
    world.pass(10 * MINUTE).await;
    let later = world.failures(ONE).await;
    assert!((restarted + 3..=restarted + 21).contains(&later), "{later}");
    let record = world.store.peer(ONE).await.unwrap().unwrap();
    let error = record.last_error.unwrap();
    assert_eq!(error.text, "nothing within 4 s");
    assert_eq!(error.class, ErrorClass::Disconnected.to_u16());
    assert_eq!(world.board.line(ONE).failures, record.failures);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_peers_fault_counts_nothing() {
    let mut world = World::new(1).await;
    world.send(ONE, DeliveryClass::Critical).await;
    let acknowledged = SessionExit {
        progress: true,
        ..there()
    };
    let nobody = SessionExit::blaming(Blame::Nobody, ErrorClass::Busy, "crossing dial");
    let exits = [here(), acknowledged, nobody];
    world.fake.follow(move |now_ms| {
        let exit = exits[usize::try_from(now_ms).unwrap() % exits.len()].clone();
        Some((Duration::from_millis(5), exit))
    });
    world.start(false).await;
    world.pass(30 * MINUTE).await;
    assert!(world.fake.dials().len() > 20);
    assert_eq!(world.failures(ONE).await, 0);
}

#[tokio::test(start_paused = true)]
async fn without_anything_waiting_nothing_counts() {
    let mut world = World::new(1).await;
    world.start(true).await;
    world.pass(30 * MINUTE).await;
    assert!(world.fake.dials().len() > 20, "it holds its link up");
    assert_eq!(world.failures(ONE).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_laptop_that_wakes_up_in_bad_weather_uses_up_one_attempt() {
    let mut world = World::new(1).await;
    world.send(ONE, DeliveryClass::Moderate).await;
    let asleep_until_ms = 600_000;
    world.fake.follow(move |now_ms| match now_ms {
        at_ms if at_ms < asleep_until_ms => Some((Duration::ZERO, here())),
        at_ms if at_ms < asleep_until_ms + 20_000 => Some((Duration::from_millis(10), there())),
        _ => None,
    });
    world.start(false).await;
    world.pass(Duration::from_millis(asleep_until_ms)).await;
    assert_eq!(world.failures(ONE).await, 0);
    world.retry.wake(Some(ONE));
    for _ in 0..10 {
        world.pass(Duration::from_secs(1)).await;
        world.retry.wake(None);
    }
    world.pass(MINUTE).await;
    assert_eq!(world.failures(ONE).await, 1);
    assert_eq!(world.waits(ONE).await, 1, "and nothing is given up");
}

#[tokio::test(start_paused = true)]
async fn waking_dials_whoever_is_awaited_and_not_connected_at_once() {
    let mut world = World::new(3).await;
    let three = PeerNumber(3);
    world.fake.follow(|_| None);
    for peer in [ONE, TWO] {
        world.send(peer, DeliveryClass::Critical).await;
    }
    world.start(false).await;
    world.pass(MINUTE * 3).await;
    world.retry.tell(RetryMsg::Connected(TWO));
    let before = world.fake.dials().len();
    let now_ms = world.env.monotonic_ms();
    world.retry.wake(None);
    world.pass(Duration::from_secs(1)).await;
    let dials = world.fake.dials();
    let [(at_ms, ONE)] = dials[before..] else {
        panic!("{:?}", &dials[before..])
    };
    assert!(at_ms - now_ms <= 700, "{}", at_ms - now_ms);
    world.retry.wake(Some(TWO));
    world.retry.wake(Some(three));
    world.pass(Duration::from_secs(1)).await;
    let dials = world.fake.dials();
    assert!(matches!(dials[before + 1..], [(_, PeerNumber(3))]));
}

#[tokio::test(start_paused = true)]
async fn another_network_or_time_makes_sessions_prove_themselves_and_wakes_dials() {
    let mut world = World::new(1).await;
    world.send(ONE, DeliveryClass::Critical).await;
    world
        .fake
        .follow(|_| Some((Duration::from_millis(1), here())));
    world.start(false).await;
    world.pass(30 * MINUTE).await;
    assert_eq!(world.fake.proofs.lock().unwrap().len(), 0);
    let changes: [&dyn Fn(&World); 3] = [
        &|world| world.network.set([IpAddr::from([192, 0, 2, 1])]),
        &|world| world.jump(8 * 3_600_000),
        &|world| world.jump(-3_600_000),
    ];
    for (index, change) in changes.iter().enumerate() {
        let before = world.fake.dials().len();
        let now_ms = world.env.monotonic_ms();
        change(&world);
        // Looked at each 5 s, dialled within half a second of that.
        world.pass(Duration::from_millis(6_000)).await;
        let proofs = world.fake.proofs.lock().unwrap().clone();
        assert_eq!(proofs.len(), index + 1, "{proofs:?}");
        let first = world.fake.dials().get(before).copied();
        assert!(first.is_some_and(|(at_ms, _)| at_ms - now_ms <= 5_600));
        world.pass(30 * MINUTE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_moderate_message_to_a_dead_peer_is_given_up_and_a_critical_one_is_not() {
    let mut world = World::new(2).await;
    world.send(ONE, DeliveryClass::Moderate).await;
    world.send(TWO, DeliveryClass::Critical).await;
    world.start(false).await;
    world.pass(Duration::from_secs(58)).await;
    assert_eq!(world.waits(ONE).await, 1, "not within its first minute");
    world.pass(5 * MINUTE).await;
    world.until_waits(ONE, 0).await;
    assert_eq!(world.waits(TWO).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_given_up_at_its_own_end_also_after_a_restart_or_a_jump_of_the_clock() {
    let mut world = World::new(1).await;
    world.fake.follow(|_| Some((Duration::ZERO, here())));
    world.start(false).await;
    let in_ms = |world: &World, ms: u64| Some(world.env.now_ms() + ms);
    let critical = DeliveryClass::Critical;
    world
        .send_until(ONE, critical, in_ms(&world, 3_600_000))
        .await;
    world.send_until(ONE, critical, in_ms(&world, 10_000)).await;
    world.pass(Duration::from_secs(9)).await;
    assert_eq!(world.waits(ONE).await, 2);
    world.pass(Duration::from_secs(3)).await;
    world.until_waits(ONE, 1).await;
    world.kill().await;
    world.start(false).await;
    world.jump(3_500_000);
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(world.waits(ONE).await, 1);
    world.pass(Duration::from_secs(90)).await;
    world.until_waits(ONE, 0).await;
}

/// An attempt in the first moments of every start, as of a machine that restarts for ever: the
/// budget is neither used up sooner by it nor ever made whole again.
#[tokio::test(start_paused = true)]
async fn restarts_neither_use_up_nor_restore_the_budget_of_a_moderate_message() {
    let mut world = World::new(1).await;
    world.start(false).await;
    world.send(ONE, DeliveryClass::Moderate).await;
    let began_ms = world.env.now_ms();
    let mut counted = 0;
    while world.waits(ONE).await == 1 {
        world.kill().await;
        world.start(false).await;
        world.pass(Duration::from_secs(6)).await;
        let failures = world.failures(ONE).await;
        assert!(failures >= counted, "{failures} after {counted}");
        counted = failures;
        let age_ms = world.env.now_ms() - began_ms;
        assert!(age_ms <= 150_000, "{failures} failures in {age_ms} ms");
    }
    let age_ms = world.env.now_ms() - began_ms;
    assert!(counted >= 3 && age_ms >= 60_000, "{counted}, {age_ms} ms");
}

/// A night makes every message old enough; it takes attempts all the same, each half a minute
/// after the last one, and a peer that is there within that time gets it.
#[tokio::test(start_paused = true)]
async fn a_laptop_that_slept_for_a_night_gives_nothing_up_in_its_first_seconds() {
    let mut world = World::new(1).await;
    let offline = Arc::new(Mutex::new(true));
    let is_offline = Arc::clone(&offline);
    world.fake.follow(move |_| {
        let exit = if *is_offline.lock().unwrap() {
            here()
        } else {
            there()
        };
        Some((Duration::from_millis(10), exit))
    });
    world.start(false).await;
    world.send(ONE, DeliveryClass::Moderate).await;
    world.pass(Duration::from_secs(30)).await;
    // It sleeps: its monotonic clock stands still meanwhile.
    world.jump(8 * 3_600_000);
    *offline.lock().unwrap() = false;
    for _ in 0..50 {
        world.retry.wake(None);
        world.pass(Duration::from_secs(1)).await;
    }
    assert!((1..=2).contains(&world.failures(ONE).await));
    assert_eq!(world.waits(ONE).await, 1, "given up within a minute");
    world.pass(2 * MINUTE).await;
    world.until_waits(ONE, 0).await;
}
