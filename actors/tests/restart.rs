//! The crash matrix: every actor × every death × every moment.
//!
//! Three real trees over loopback QUIC; one of them suffers. After each death: what was
//! acknowledged is delivered once, every permanent actor runs exactly once and in the incarnation
//! it should, handles that were taken before still work, sessions live on where they should, and
//! after the end no task is left.
//! Combinations that cannot be are in [`CANNOT`], with the reason.

#[path = "restart_common/mod.rs"]
mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{DEADLINE, Node, Scene, TO_RIGHT, TO_THIRD};
use packhorse_actors::{
    events::Fact,
    fault::{Fault, When},
    supervise::{Cause, TreeEnd},
};
use packhorse_protocol::error_class::ErrorClass;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Store,
    Bus,
    Inbox,
    Supervisor,
    Session,
    Retry,
    Listener,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Panic,
    Error,
    Kill,
    /// Killed, and the next start fails.
    FailedStart,
    /// Killed, and no start succeeds any more.
    FailedStarts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Idle,
    MidMessage,
    ShuttingDown,
}

use Death::*;
use Moment::*;
use Who::*;

/// What cannot be, and why.
const CANNOT: [(Who, Death, Moment, &str); 1] = [(
    Session,
    FailedStarts,
    ShuttingDown,
    "a session has no budget and is not started again: between incarnations there is only a dial, \
     which the shutdown of the supervisor aborts (see Supervisor)",
)];

impl Who {
    fn name(self) -> &'static str {
        match self {
            Store => "store",
            Bus => "event bus",
            Inbox => "inbox",
            Supervisor => "session supervisor",
            Session => TO_RIGHT,
            Retry => "retry scheduler",
            Listener => "listener",
        }
    }

    /// Restarts that its budget allows.
    fn restarts_max(self) -> u64 {
        match self {
            Store => 3,
            Listener => 10,
            Bus | Inbox | Supervisor | Retry => 5,
            // None: the next session is another dial.
            Session => 3,
        }
    }
}

impl Death {
    fn fault(self) -> Fault {
        match self {
            Panic => Fault::Panic,
            Error => Fault::Error,
            Kill | FailedStart | FailedStarts => Fault::Kill,
        }
    }

    /// Starts that fail afterwards.
    fn failing(self, who: Who) -> u64 {
        match self {
            Panic | Error | Kill => 0,
            FailedStart => 1,
            FailedStarts => who.restarts_max(),
        }
    }
}

/// Makes the actor die in the middle of something.
async fn strike_mid_message(scene: &mut Scene, who: Who, fault: Fault) {
    let name = who.name();
    match who {
        // Its work is done by the writer thread; a kill comes while jobs are under way.
        Store if fault != Fault::Kill => {
            scene.left.order(name, When::BeforeCommit, fault).await;
            scene.send_all(1).await;
        }
        Store => {
            let tree = scene.left.tree();
            let (killed, _) = tokio::join!(
                scene.left.order(name, When::Idle, fault),
                tree.store.outbox_list(10),
            );
            killed
        }
        // Its only message says that its task has ended; its work is what its task writes.
        Bus => {
            for _ in 0..500 {
                scene
                    .left
                    .tree()
                    .events
                    .tell(packhorse_actors::events::Fact::NetworkChanged);
            }
            scene.left.order(name, When::Idle, fault).await;
        }
        Inbox => {
            scene.left.order(name, When::BeforeMessage, fault).await;
            scene.left.take().await;
        }
        Supervisor => {
            scene.left.order(name, When::BeforeMessage, fault).await;
            scene.left.join_itself().await;
        }
        // Its message comes when its link has ended at the other side.
        Session => {
            scene.left.order(name, When::BeforeMessage, fault).await;
            scene
                .right
                .order("session 1", When::Idle, Fault::Kill)
                .await;
        }
        // Something waits where nothing did.
        Retry => {
            scene.left.order(name, When::BeforeMessage, fault).await;
            scene.send_all(1).await;
        }
        // Its only message says that its task has ended; its work is a handshake.
        Listener => {
            scene
                .right
                .order("session 1", When::Idle, Fault::Kill)
                .await;
            let text = "right to left, by a handshake that is cut off".to_owned();
            scene.right.send("left", common::LEFT, text).await;
            scene.left.order(name, When::Idle, fault).await;
        }
    }
}

/// Whether `left`'s session with right, and with third, must be the same as before.
fn sessions_live_on(who: Who, moment: Moment) -> (bool, bool) {
    match (who, moment) {
        (Supervisor, _) => (false, false),
        // Whose job was in the batch does not know how it ended, and begins anew.
        (Store, MidMessage) => (false, false),
        (Session, _) | (Listener, MidMessage) => (false, true),
        _ => (true, true),
    }
}

async fn ended(node: &Node) -> TreeEnd {
    tokio::time::timeout(DEADLINE, node.tree().ended())
        .await
        .expect("the tree ends")
}

async fn run(who: Who, death: Death, moment: Moment) {
    if let Some((.., why)) = CANNOT
        .iter()
        .find(|(a, b, c, _)| (*a, *b, *c) == (who, death, moment))
    {
        eprintln!("cannot be: {who:?} {death:?} {moment:?}: {why}");
        return;
    }
    let mut scene = Scene::new(who == Store).await;
    match moment {
        ShuttingDown => die_while_shutting_down(&mut scene, who, death).await,
        Idle | MidMessage => die(&mut scene, who, death, moment).await,
    }
    scene.end().await;
}

async fn die(scene: &mut Scene, who: Who, death: Death, moment: Moment) {
    let name = who.name();
    let mut lives = scene.left.tree().probe.listen();
    let faults = scene.left.tree().faults();
    // Delays of 50 s in all would say nothing more than shorter ones.
    if (who, death) == (Listener, FailedStarts) {
        faults.plan().hasten(Duration::from_millis(50));
    }
    for _ in 0..death.failing(who) {
        faults.plan().order(name, When::Starting, Fault::Error);
    }
    match moment {
        MidMessage => strike_mid_message(scene, who, death.fault()).await,
        _ => {
            scene.left.order(name, When::Idle, death.fault()).await;
            // Nobody dials for nothing: what is sent before the death needs no session after it.
            scene.left.expect_death(&mut lives, name).await;
        }
    }
    let is_fatal = (who, death, moment) == (Store, Error, MidMessage);
    if is_fatal || (death == FailedStarts && who != Session) {
        let cause = if is_fatal {
            Cause::StorageFailed
        } else {
            Cause::Budget
        };
        let end = ended(&scene.left).await;
        assert!(
            matches!(&end, TreeEnd::GaveUp { actor, cause: told, .. } if *actor == name && *told == cause),
            "{end:?}"
        );
        // The process manager's part: another process goes on with what is on disk.
        scene.left.stop().await;
        scene.left.start().await;
        scene.send_all(2).await;
        scene.expect_delivered().await;
        return;
    }
    let incarnation = 2 + death.failing(who);
    assert!(scene.send_all(2).await, "every store takes messages");
    scene
        .left
        .expect_running(&mut lives, name, incarnation)
        .await;
    scene.expect_delivered().await;
    let permanent = if who == Session { "" } else { name };
    scene.expect_incarnations(permanent, incarnation);
    let (right, third) = sessions_live_on(who, moment);
    for (session, lives_on) in [(TO_RIGHT, right), (TO_THIRD, third)] {
        let branch = scene.left.branch(session).expect("it was there");
        assert!(branch.is_running, "{branch:?}");
        if lives_on {
            assert_eq!(branch.incarnation, 1, "{session} was not to be touched");
        }
    }
    if who == Session {
        let branch = scene.left.branch(TO_RIGHT).expect("it was there");
        assert_eq!(branch.incarnation, incarnation, "one dial after the other");
    }
    let pulse = scene.left.tree().pulse(Duration::from_secs(5)).await;
    assert_eq!(pulse, Ok(()));
    assert_eq!(faults.plan().clear(), 0, "every order was carried out");
    if who == Bus {
        expect_burst(scene, moment).await;
    }
}

/// What was told before the bus died is there, and nothing twice.
async fn expect_burst(scene: &Scene, moment: Moment) {
    let told = if moment == MidMessage { 500 } else { 0 };
    let events = &scene.left.tree().events;
    let waiting = async {
        let mut newest = events.newest();
        loop {
            newest.borrow_and_update();
            let page = events.since(0, 1_024).await.expect("the ring reads");
            assert_eq!(page.gap, None);
            let kinds: Vec<_> = page.events.iter().map(|it| it.fact.kind()).collect();
            let count = kinds
                .iter()
                .filter(|kind| **kind == "network.changed")
                .count();
            let is_told = kinds.contains(&"actor.ended");
            if count >= told && is_told {
                assert_eq!(count, told);
                for kind in ["node.started", "peer.paired", "session.started"] {
                    assert!(kinds.contains(&kind), "{kind} is told");
                }
                return;
            }
            newest.changed().await.expect("the store lives");
        }
    };
    tokio::time::timeout(DEADLINE, waiting)
        .await
        .expect("all facts are kept");
}

async fn die_while_shutting_down(scene: &mut Scene, who: Who, death: Death) {
    let name = who.name();
    let mut lives = scene.left.tree().probe.listen();
    let faults = scene.left.tree().faults();
    match death {
        Panic | Error | Kill => {
            scene.left.order(name, When::Stopping, death.fault()).await;
        }
        // The shutdown finds it in a start that hangs.
        FailedStart => {
            faults.plan().order(name, When::Starting, Fault::Hang);
            scene.left.order(name, When::Idle, Fault::Kill).await;
            if who != Session {
                expect_told(&mut lives, name, "restarting").await;
            }
        }
        // The shutdown finds it between two starts that fail.
        FailedStarts => {
            for _ in 0..death.failing(who) {
                faults.plan().order(name, When::Starting, Fault::Error);
            }
            scene.left.order(name, When::Idle, Fault::Kill).await;
            expect_told(&mut lives, name, "restarting").await;
            expect_told(&mut lives, name, "restarting").await;
        }
    }
    // Under way when the shutdown comes. A store that is between incarnations acknowledges nothing.
    let stored = !(who == Store && matches!(death, FailedStart | FailedStarts));
    if stored {
        scene.send_all(2).await;
    }
    let took = scene.left.stop().await;
    assert!(took < common::SHUTDOWN_WITHIN, "{took:?}");
    scene.left.start().await;
    scene.send_all(1).await;
    scene.expect_delivered().await;
}

async fn expect_told(
    lives: &mut tokio::sync::broadcast::Receiver<packhorse_actors::supervise::LifeEvent>,
    actor: &str,
    what: &str,
) {
    let told = async {
        loop {
            let event = lives.recv().await.expect("no fact is missed");
            if event.actor == actor && format!("{:?}", event.what).to_lowercase() == what {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, told)
        .await
        .unwrap_or_else(|_| panic!("{actor} is not {what}"));
}

/// The batch is there and nobody was told: the same key finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_dies_between_commit_and_answer_leaves_one_copy() {
    let mut scene = Scene::new(true).await;
    let mut lives = scene.left.tree().probe.listen();
    let order = scene.left.order("store", When::BeforeAnswer, Fault::Panic);
    order.await;
    assert!(scene.send_all(3).await, "the next writer goes on");
    scene.left.expect_running(&mut lives, "store", 2).await;
    scene.expect_delivered().await;
    scene.expect_incarnations("store", 2);
    scene.end().await;
}

/// Nobody lives who could tell how they ended; for programs that watch, each has to end all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_end_with_their_supervisor_are_told_to_have_ended() {
    let mut scene = Scene::new(false).await;
    let mut lives = scene.left.tree().probe.listen();
    let order = scene
        .left
        .order("session supervisor", When::Idle, Fault::Kill);
    order.await;
    let running = scene
        .left
        .expect_running(&mut lives, "session supervisor", 2);
    running.await;
    assert!(scene.send_all(1).await, "every store takes messages");
    scene.expect_delivered().await;
    scene.left.stop().await;
    scene.left.start().await;
    let events = &scene.left.tree().events;
    let page = events.since(0, 1_024).await.expect("the ring reads");
    let mut living = BTreeSet::new();
    let mut ends = Vec::new();
    for event in &page.events {
        match &event.fact {
            Fact::SessionStarted { peer, .. } => {
                assert!(living.insert(*peer), "{peer:?} has two");
            }
            Fact::SessionEnded { peer, class, .. } => {
                assert!(living.remove(peer), "{peer:?} has none");
                ends.push(*class);
            }
            // What comes behind it belongs to the next life.
            Fact::NodeStarted { boot } if *boot > 1 => break,
            _ => {}
        }
    }
    assert!(living.is_empty(), "{living:?} were not told to have ended");
    let count = |class| ends.iter().filter(|end| **end == class).count();
    assert!(count(ErrorClass::Internal) >= 2, "{ends:?}");
    assert!(count(ErrorClass::ShuttingDown) >= 2, "{ends:?}");
    scene.end().await;
}

/// What it had handed out is handed out again, under the same numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_that_dies_behind_its_answer_loses_nothing() {
    let mut scene = Scene::new(false).await;
    let mut lives = scene.left.tree().probe.listen();
    for fault in [Fault::Panic, Fault::Error, Fault::Kill] {
        scene.left.order("inbox", When::AfterMessage, fault).await;
    }
    assert!(scene.send_all(3).await, "the store is well");
    scene.expect_delivered().await;
    // A question that falls into a dying mailbox kills nobody, so it is asked until all have died.
    let died = async {
        while scene.left.branch("inbox").expect("a child").incarnation < 4 {
            scene.left.take().await;
        }
    };
    let died = tokio::time::timeout(DEADLINE, died).await;
    died.expect("three orders are carried out");
    scene.left.expect_running(&mut lives, "inbox", 4).await;
    scene.expect_incarnations("inbox", 4);
    scene.end().await;
}

macro_rules! matrix {
    ($($module:ident $who:expr;)*) => {$(
        mod $module {
            use super::*;
            matrix!(@deaths $who;
                a_panic Panic, an_error Error, a_kill Kill,
                a_failed_start FailedStart, failed_starts FailedStarts);
        }
    )*};
    (@deaths $who:expr; $($death:ident $kind:expr),*) => {$(
        mod $death {
            use super::*;
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn while_idle() {
                run($who, $kind, Idle).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mid_message() {
                run($who, $kind, MidMessage).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn while_shutting_down() {
                run($who, $kind, ShuttingDown).await;
            }
        }
    )*};
}

matrix! {
    store Store;
    event_bus Bus;
    inbox Inbox;
    session_supervisor Supervisor;
    session Session;
    retry_scheduler Retry;
    listener Listener;
}
