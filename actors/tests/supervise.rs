//! The root supervisor: restarts within the budget, gives up beyond it, stops in reverse order.
//!
//! Real actors with made-up deaths; every wait is for a life event with a deadline.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use packhorse_actors::{
    env::Env,
    supervise::{
        Address, AddressError, Birth, Budget, Cause, Census, ChildSpec, Fatal, Life, LifeEvent,
        Probe, Root, RootMsg, TreeEnd,
    },
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, rpc::CallResult};
use tokio::sync::{broadcast, watch};

const DEADLINE: Duration = Duration::from_secs(10);

/// Three restarts a minute, at once.
const BUDGET: Budget = Budget {
    restarts_max: 3,
    window: Duration::from_secs(60),
    delay_first: Duration::from_millis(1),
    delay_max: Duration::from_millis(2),
};

/// How the child is to die.
#[derive(Clone, Copy, Debug)]
enum Death {
    Panic,
    Error,
    Fatal,
    Stop,
    Kill,
}

#[derive(Debug)]
enum MortalMsg {
    Die(Death),
    Ping(RpcReplyPort<&'static str>),
}

/// A child that answers pings and dies as told.
struct Mortal;

impl Actor for Mortal {
    type Msg = MortalMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<MortalMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<MortalMsg>,
        message: MortalMsg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match message {
            MortalMsg::Ping(reply) => {
                let _ = reply.send("alive");
                Ok(())
            }
            MortalMsg::Die(Death::Panic) => panic!("as told"),
            MortalMsg::Die(Death::Error) => Err("as told".into()),
            MortalMsg::Die(Death::Fatal) => Err(Fatal {
                cause: Cause::StorageFull,
                reason: "no restart mends this".to_owned(),
            }
            .into()),
            MortalMsg::Die(Death::Stop) => {
                myself.stop(None);
                Ok(())
            }
            MortalMsg::Die(Death::Kill) => {
                myself.kill();
                Ok(())
            }
        }
    }
}

struct Scene {
    root: ActorRef<RootMsg>,
    end: Arc<watch::Sender<Option<TreeEnd>>>,
    events: broadcast::Receiver<LifeEvent>,
    children: Vec<Arc<Address<MortalMsg>>>,
}

/// A root with the named children; `failing_starts` of the first child's starts fail.
async fn scene(names: &[&'static str], failing_starts: usize) -> Scene {
    let left = Arc::new(AtomicUsize::new(failing_starts));
    let mut children = Vec::new();
    let mut specs = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let address = Arc::new(Address::vacant());
        children.push(Arc::clone(&address));
        let left = Arc::clone(&left);
        let gone = Arc::clone(&address);
        specs.push(ChildSpec {
            name,
            vacate: Box::new(move || gone.vacate()),
            budget: BUDGET,
            stop_within: Duration::from_secs(1),
            start: Arc::new(move |birth: Birth| {
                let address = Arc::clone(&address);
                let fails = index == 0
                    && left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                            left.checked_sub(1)
                        })
                        .is_ok();
                Box::pin(async move {
                    if fails {
                        return Err(SpawnErr::StartupFailed("as told".into()));
                    }
                    let actor = birth.spawn(Mortal, (), |_| false).await?;
                    address.publish(actor.clone());
                    Ok(actor.cell())
                })
            }),
        });
    }
    Scene {
        children,
        ..scene_of(specs).await
    }
}

async fn scene_of(specs: Vec<ChildSpec>) -> Scene {
    let probe = Probe::default();
    let events = probe.listen();
    let end = Arc::new(watch::Sender::new(None));
    let env = Env::system();
    let census = Census::new(
        env.clone(),
        #[cfg(feature = "fault")]
        packhorse_actors::fault::FaultPlan::default(),
    );
    let root = Root::new(env, probe, census, None, Arc::clone(&end));
    let (root, _) = Actor::spawn(None, root, specs)
        .await
        .expect("the root starts");
    Scene {
        root,
        end,
        events,
        children: Vec::new(),
    }
}

impl Scene {
    async fn wait_for(&mut self, actor: &str, incarnation: u64, what: &Life) {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("no fact is missed");
                if event.actor == actor && event.incarnation == incarnation && event.what == *what {
                    return;
                }
            }
        };
        tokio::time::timeout(DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("{actor} {incarnation} {what:?} did not happen"));
    }

    async fn ended(&self) -> TreeEnd {
        let mut end = self.end.subscribe();
        let wait = end.wait_for(Option::is_some);
        let ended = tokio::time::timeout(DEADLINE, wait)
            .await
            .expect("the tree ends");
        ended
            .expect("the sender lives")
            .clone()
            .expect("just looked")
    }

    async fn ping(&self, child: usize) -> Result<&'static str, AddressError> {
        self.children[child]
            .call("mortal", DEADLINE, MortalMsg::Ping)
            .await
    }
}

#[tokio::test]
async fn every_kind_of_death_is_followed_by_a_new_incarnation_that_the_same_address_reaches() {
    for death in [Death::Panic, Death::Error, Death::Stop, Death::Kill] {
        let mut scene = scene(&["one", "two"], 0).await;
        scene.wait_for("two", 1, &Life::Started).await;
        assert!(scene.children[0].cast(MortalMsg::Die(death)), "{death:?}");
        scene.wait_for("one", 2, &Life::Started).await;
        assert_eq!(scene.ping(0).await, Ok("alive"), "{death:?}");
        assert_eq!(
            scene.ping(1).await,
            Ok("alive"),
            "the neighbour of {death:?}"
        );
        assert!(
            scene.end.borrow().is_none(),
            "{death:?} is within the budget"
        );
        scene.root.stop_and_wait(None, None).await.expect("stops");
    }
}

#[tokio::test]
async fn a_fatal_error_is_not_restarted() {
    let scene = scene(&["one"], 0).await;
    scene.children[0].cast(MortalMsg::Die(Death::Fatal));
    let reason = "no restart mends this".to_owned();
    assert_eq!(
        scene.ended().await,
        TreeEnd::GaveUp {
            actor: "one",
            cause: Cause::StorageFull,
            reason
        }
    );
}

#[tokio::test]
async fn one_death_more_than_the_budget_ends_the_tree_and_names_the_actor() {
    let mut scene = scene(&["one"], 0).await;
    for incarnation in 1..=4 {
        scene.wait_for("one", incarnation, &Life::Started).await;
        // The address may still show the former incarnation for a moment: ask before dying.
        assert_eq!(scene.ping(0).await, Ok("alive"));
        scene.children[0].cast(MortalMsg::Die(Death::Error));
    }
    assert_eq!(
        scene.ended().await,
        TreeEnd::GaveUp {
            actor: "one",
            cause: Cause::Budget,
            reason: "as told".to_owned()
        }
    );
}

#[tokio::test]
async fn failed_starts_spend_the_same_budget_and_one_success_is_enough() {
    let mut lucky = scene(&["one"], 3).await;
    lucky.wait_for("one", 4, &Life::Started).await;
    assert_eq!(lucky.ping(0).await, Ok("alive"));
    let unlucky = scene(&["one"], 4).await;
    assert!(matches!(
        unlucky.ended().await,
        TreeEnd::GaveUp { actor: "one", .. }
    ));
}

#[tokio::test]
async fn a_call_outlasts_a_restart_and_names_an_actor_that_never_comes() {
    let mut scene = scene(&["one"], 0).await;
    scene.wait_for("one", 1, &Life::Started).await;
    scene.children[0].cast(MortalMsg::Die(Death::Kill));
    scene.wait_for("one", 1, &Life::Restarting).await;
    assert_eq!(
        scene.ping(0).await,
        Ok("alive"),
        "the call waits for the new incarnation"
    );
    let nobody = Address::<MortalMsg>::vacant();
    let answer = nobody
        .call("nobody", Duration::from_millis(1), MortalMsg::Ping)
        .await;
    assert_eq!(answer, Err(AddressError::Absent("nobody")));
}

/// A child that never starts, from its second incarnation on.
fn hanging(name: &'static str, address: &Arc<Address<MortalMsg>>) -> ChildSpec {
    let (address, gone) = (Arc::clone(address), Arc::clone(address));
    let starts = Arc::new(AtomicUsize::new(0));
    ChildSpec {
        name,
        vacate: Box::new(move || gone.vacate()),
        budget: BUDGET,
        stop_within: Duration::from_secs(1),
        start: Arc::new(move |birth: Birth| {
            let address = Arc::clone(&address);
            let hangs = starts.fetch_add(1, Ordering::SeqCst) > 0;
            Box::pin(async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                let actor = birth.spawn(Mortal, (), |_| false).await?;
                address.publish(actor.clone());
                Ok(actor.cell())
            })
        }),
    }
}

#[tokio::test]
async fn a_start_that_hangs_holds_up_neither_questions_nor_the_shutdown() {
    let address = Arc::new(Address::vacant());
    let mut scene = scene_of(vec![hanging("one", &address)]).await;
    assert!(address.cast(MortalMsg::Die(Death::Kill)));
    scene.wait_for("one", 1, &Life::Restarting).await;
    let quick = Duration::from_secs(2);
    let asked = scene.root.call(RootMsg::Ping, Some(quick)).await;
    assert!(matches!(asked, Ok(CallResult::Success(()))), "{asked:?}");
    let asked = scene.root.call(RootMsg::Shutdown, Some(quick)).await;
    assert!(matches!(asked, Ok(CallResult::Success(()))), "{asked:?}");
    assert_eq!(scene.ended().await, TreeEnd::Asked);
}

#[tokio::test]
async fn nothing_is_started_before_the_last_of_the_former_incarnation_is_gone() {
    let address = Arc::new(Address::vacant());
    let (tell_token, mut tokens) = tokio::sync::mpsc::channel(8);
    let (published, gone) = (Arc::clone(&address), Arc::clone(&address));
    let spec = ChildSpec {
        name: "one",
        vacate: Box::new(move || gone.vacate()),
        budget: BUDGET,
        stop_within: Duration::from_secs(1),
        start: Arc::new(move |birth: Birth| {
            let (address, tell_token) = (Arc::clone(&published), tell_token.clone());
            Box::pin(async move {
                // What a task of this incarnation would hold.
                tell_token.try_send(birth.life()).expect("few are made");
                let actor = birth.spawn(Mortal, (), |_| false).await?;
                address.publish(actor.clone());
                Ok(actor.cell())
            })
        }),
    };
    let mut scene = scene_of(vec![spec]).await;
    let held = tokens.recv().await.expect("it was started");
    assert!(address.cast(MortalMsg::Die(Death::Error)));
    scene.wait_for("one", 1, &Life::Restarting).await;
    let early = tokio::time::timeout(Duration::from_millis(100), tokens.recv()).await;
    assert!(
        early.is_err(),
        "a part of the first incarnation still lives"
    );
    drop(held);
    scene.wait_for("one", 2, &Life::Started).await;
}

#[tokio::test]
async fn shutdown_stops_the_children_in_reverse_order_and_then_the_root() {
    let mut scene = scene(&["one", "two", "three"], 0).await;
    scene
        .root
        .call(RootMsg::Shutdown, Some(DEADLINE))
        .await
        .expect("the root answers");
    let mut stopped = Vec::new();
    while stopped.len() < 3 {
        let event = scene.events.recv().await.expect("no fact is missed");
        if let Life::Exited(reason) = event.what {
            assert_eq!(reason, "shutdown");
            stopped.push(event.actor);
        }
    }
    assert_eq!(stopped, ["three", "two", "one"]);
    scene
        .root
        .wait(Some(DEADLINE))
        .await
        .expect("the root ends");
    assert_eq!(scene.ended().await, TreeEnd::Asked);
}
