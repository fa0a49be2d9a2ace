//! The root of the tree: starts its children in order, restarts each within its budget, stops
//! them in the opposite order.
//!
//! * owns: child specifications, their histories; nothing that must outlive a child
//! * listens to: exits of its children, the shutdown request
//! * tells: the probe every life event, `main` why the tree ended
//! * dies when: asked to shut down, or a child's budget is spent
//! * comes back with: nothing; the process manager restarts the process

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr,
    SupervisionEvent,
};
use tokio::{sync::watch, task::JoinSet};

use super::{
    census::{Census, ROOT},
    life::{LifeWatch, life},
    policy::{Budget, Decision, ExitClass, History},
    probe::{Life, Probe},
    watched::{Birth, Watch},
};
use crate::{
    env::Env,
    events::{EventsHandle, Fact},
};

/// A start is milliseconds of work; a child that hangs in it must not hang the root.
const START_WITHIN: Duration = Duration::from_secs(5);
/// What is left of an incarnation ends at its next await. One that does not is a fault of ours.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// An aborted start ends at its next await.
const ABORTED_WITHIN: Duration = Duration::from_secs(1);
/// A killed child ends at its next await.
const KILLED_WITHIN: Duration = Duration::from_secs(1);
/// All children together may take this long to stop.
const STOP_MS_MAX: u64 = 22_000;

/// Starts one incarnation of a child.
pub type StartChild = Arc<
    dyn Fn(Birth) -> Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>
        + Send
        + Sync,
>;

/// A permanent child of the root.
pub struct ChildSpec {
    /// Its name in the tree.
    pub name: &'static str,
    /// Its restart budget.
    pub budget: Budget,
    /// How long an orderly stop may take before it is killed.
    pub stop_within: Duration,
    /// How one incarnation is started.
    pub start: StartChild,
    /// Called when an incarnation is gone: empties the address that others hold.
    pub vacate: Box<dyn Fn() + Send + Sync>,
}

/// Why the tree ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeEnd {
    /// Shutdown was asked for.
    Asked,
    /// A child's budget was spent, or it ended for a reason that no restart mends.
    GaveUp {
        /// The child.
        actor: &'static str,
        /// What somebody has to do something about.
        cause: Cause,
        /// Its last exit.
        reason: String,
    },
}

/// Why a tree gave up, as far as it decides what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A restart budget is spent.
    Budget,
    /// The disk is full: make room and start again.
    StorageFull,
    /// The store takes no more writes: look at the disk and start again.
    StorageFailed,
}

/// The root's messages.
#[derive(Debug)]
pub enum RootMsg {
    /// From its own starting tasks: look at what became of a start.
    Begun,
    /// From whoever wants to know whether it still answers.
    Ping(RpcReplyPort<()>),
    /// From `main`: stop everything in order, then yourself.
    Shutdown(RpcReplyPort<()>),
}

/// The root supervisor.
#[derive(Debug)]
pub struct Root {
    env: Env,
    probe: Probe,
    census: Census,
    events: Option<EventsHandle>,
    end: Arc<watch::Sender<Option<TreeEnd>>>,
}

/// How a child ended, in full.
struct ChildExit {
    class: ExitClass,
    cause: Cause,
    reason: String,
}

impl ChildExit {
    /// One that a restart may mend.
    fn new(class: ExitClass, reason: String) -> Self {
        Self {
            class,
            cause: Cause::Budget,
            reason,
        }
    }
}

struct Child {
    spec: ChildSpec,
    history: History,
    incarnation: u64,
    cell: Option<ActorCell>,
    /// Of the present incarnation, or of the last one until the next is started.
    life: Option<LifeWatch>,
    is_starting: bool,
}

/// What became of a start.
struct Begun {
    child: usize,
    watch: Option<Watch>,
    life: Option<LifeWatch>,
    result: Result<ActorCell, ChildExit>,
}

/// What the root knows about its children.
pub struct RootState {
    children: Vec<Child>,
    /// Restarts under way: their delays, their waiting for the former incarnation, their starts.
    starting: JoinSet<()>,
    begun: Arc<Mutex<Vec<Begun>>>,
    /// Exits that were heard before their start was; ractor hands them over first.
    early: Vec<(ActorId, ChildExit)>,
    is_stopping: bool,
}

/// Starts one incarnation, once nothing of the former one is left.
async fn begin(
    child: usize,
    name: &'static str,
    start: StartChild,
    census: Census,
    root: ActorCell,
    former: Option<LifeWatch>,
) -> Begun {
    if let Some(mut former) = former
        && tokio::time::timeout(GONE_WITHIN, former.gone())
            .await
            .is_err()
    {
        // Two of them side by side would be worse than none.
        let reason = format!("its former incarnation did not end within {GONE_WITHIN:?}");
        return Begun {
            child,
            watch: None,
            life: None,
            result: Err(ChildExit::new(ExitClass::Fatal, reason)),
        };
    }
    let watch = census.enter(ROOT, name);
    let (token, life) = life();
    let starting = start(Birth::new(root, watch.clone(), token));
    let started = tokio::time::timeout(START_WITHIN, starting)
        .await
        .unwrap_or_else(|_| Err(SpawnErr::StartupFailed("its start took too long".into())));
    if let Ok(cell) = &started {
        census.started(&watch, cell.clone());
    }
    Begun {
        child,
        watch: Some(watch),
        life: Some(life),
        // A failed start tells no supervisor event: it is fed to the same budget by the root.
        result: started.map_err(|error| ChildExit::new(ExitClass::StartFailed, error.to_string())),
    }
}

impl Root {
    /// A root that reports its end to `end`. Without `events` nothing is kept of what happens.
    #[must_use]
    pub fn new(
        env: Env,
        probe: Probe,
        census: Census,
        events: Option<EventsHandle>,
        end: Arc<watch::Sender<Option<TreeEnd>>>,
    ) -> Self {
        Self {
            env,
            probe,
            census,
            events,
            end,
        }
    }

    fn tell(&self, fact: Fact) {
        if let Some(events) = &self.events {
            events.tell(fact);
        }
    }

    /// Starts the next incarnation after a delay, in a task: a start that hangs holds up nobody.
    fn start_later(
        &self,
        myself: &ActorRef<RootMsg>,
        state: &mut RootState,
        index: usize,
        delay: Duration,
    ) {
        let Some(child) = state.children.get_mut(index) else {
            return;
        };
        child.is_starting = true;
        #[cfg(feature = "fault")]
        let delay = self.census.plan().hastened(delay);
        let beginning = begin(
            index,
            child.spec.name,
            Arc::clone(&child.spec.start),
            self.census.clone(),
            myself.get_cell(),
            child.life.take(),
        );
        let (begun, myself) = (Arc::clone(&state.begun), myself.clone());
        state.starting.spawn(async move {
            tokio::time::sleep(delay).await;
            let outcome = beginning.await;
            begun
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(outcome);
            // A root that is gone needs no nudge.
            let _ = myself.cast(RootMsg::Begun);
        });
    }

    fn take_begun(&self, myself: &ActorRef<RootMsg>, state: &mut RootState) {
        // Ended tasks leave nothing behind but their place in the set.
        while state.starting.try_join_next().is_some() {}
        let begun =
            std::mem::take(&mut *state.begun.lock().unwrap_or_else(PoisonError::into_inner));
        for outcome in begun {
            self.on_begun(myself, state, outcome);
        }
        if !state.children.iter().any(|child| child.is_starting) {
            state.early.clear();
        }
    }

    fn on_begun(&self, myself: &ActorRef<RootMsg>, state: &mut RootState, begun: Begun) {
        let index = begun.child;
        let Some(child) = state.children.get_mut(index) else {
            return;
        };
        child.is_starting = false;
        child.life = begun.life;
        if let Some(watch) = &begun.watch {
            child.incarnation = watch.incarnation();
        }
        match begun.result {
            Ok(cell) => {
                let id = cell.get_id();
                child.cell = Some(cell);
                let (name, incarnation) = (child.spec.name, child.incarnation);
                self.probe.tell(name, incarnation, Life::Started);
                self.tell(Fact::ActorStarted {
                    actor: name.to_owned(),
                    incarnation,
                });
                if let Some(at) = state.early.iter().position(|(early, _)| *early == id) {
                    let (_, exit) = state.early.swap_remove(at);
                    self.on_exit(myself, state, index, exit);
                }
            }
            Err(exit) => self.on_exit(myself, state, index, exit),
        }
    }

    fn on_exit(
        &self,
        myself: &ActorRef<RootMsg>,
        state: &mut RootState,
        index: usize,
        exit: ChildExit,
    ) {
        let ChildExit {
            class,
            cause,
            reason,
        } = exit;
        let Some(child) = state.children.get_mut(index) else {
            return;
        };
        child.cell = None;
        (child.spec.vacate)();
        let name = child.spec.name;
        let incarnation = child.incarnation;
        self.tell_exit(name, incarnation, &reason);
        if state.is_stopping {
            return;
        }
        let now_ms = self.env.monotonic_ms();
        match child.spec.budget.decide(class, &mut child.history, now_ms) {
            Decision::Ignore => {}
            Decision::RestartAfter(delay) => {
                self.probe.tell(name, incarnation, Life::Restarting);
                self.start_later(myself, state, index, delay);
            }
            Decision::GiveUp => {
                self.probe.tell(name, incarnation, Life::GivenUp);
                self.tell(Fact::ActorGaveUp {
                    actor: name.to_owned(),
                    reason: reason.clone(),
                });
                // The first reason is the one that is told.
                self.end.send_if_modified(|end| match end {
                    Some(_) => false,
                    None => {
                        *end = Some(TreeEnd::GaveUp {
                            actor: name,
                            cause,
                            reason,
                        });
                        true
                    }
                });
            }
        }
    }

    fn tell_exit(&self, name: &str, incarnation: u64, reason: &str) {
        for (below, incarnation) in self.census.ended(name, incarnation, reason) {
            let reason = format!("its supervisor ended: {reason}");
            self.probe
                .tell(&below, incarnation, Life::Exited(reason.clone()));
            self.tell(Fact::ActorEnded {
                actor: below,
                incarnation,
                reason,
            });
        }
        self.probe
            .tell(name, incarnation, Life::Exited(reason.to_owned()));
        self.tell(Fact::ActorEnded {
            actor: name.to_owned(),
            incarnation,
            reason: reason.to_owned(),
        });
    }

    fn on_child_event(
        &self,
        myself: &ActorRef<RootMsg>,
        state: &mut RootState,
        id: ActorId,
        exit: ChildExit,
    ) {
        let found = state
            .children
            .iter()
            .position(|child| child.cell.as_ref().is_some_and(|cell| cell.get_id() == id));
        match found {
            Some(index) => self.on_exit(myself, state, index, exit),
            // Its start was not heard of yet.
            None if state.children.iter().any(|child| child.is_starting) => {
                state.early.push((id, exit));
            }
            None => {}
        }
    }

    async fn shut_down(&self, myself: &ActorRef<RootMsg>, state: &mut RootState) {
        self.tell(Fact::NodeStopping);
        state.is_stopping = true;
        // ORDER: nothing is started any more; what was started just now is stopped like the others.
        state.starting.abort_all();
        let aborted = async { while state.starting.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ABORTED_WITHIN, aborted).await;
        self.take_begun(myself, state);
        let until_ms = self.env.monotonic_ms().saturating_add(STOP_MS_MAX);
        let for_first = state
            .children
            .first()
            .map_or(Duration::ZERO, |child| child.spec.stop_within);
        // ORDER: opposite to the start, so that nobody loses a service it still needs.
        for index in (0..state.children.len()).rev() {
            let Some(child) = state.children.get_mut(index) else {
                continue;
            };
            let Some(cell) = child.cell.take() else {
                continue;
            };
            (child.spec.vacate)();
            let left_ms = until_ms.saturating_sub(self.env.monotonic_ms());
            let kept = if index > 0 { for_first } else { Duration::ZERO };
            let left = Duration::from_millis(left_ms).saturating_sub(kept);
            cell.stop(Some("shutdown".to_owned()));
            let within = child.spec.stop_within.min(left);
            if cell.wait(Some(within)).await.is_err() {
                tracing::warn!(
                    actor = child.spec.name,
                    "did not stop within its deadline; killed"
                );
                cell.kill();
                // A kill takes effect at the next await; one that blocks ends with the process.
                let _ = cell.wait(Some(KILLED_WITHIN)).await;
            }
            let (name, incarnation) = (child.spec.name, child.incarnation);
            self.tell_exit(name, incarnation, "shutdown");
        }
    }
}

impl Actor for Root {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = Vec<ChildSpec>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        specs: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let watch = self.census.enter("", ROOT);
        self.census.started(&watch, myself.get_cell());
        let children = specs.into_iter().map(|spec| Child {
            spec,
            history: History::default(),
            incarnation: 0,
            cell: None,
            life: None,
            is_starting: false,
        });
        let mut state = RootState {
            children: children.collect(),
            starting: JoinSet::new(),
            begun: Arc::default(),
            early: Vec::new(),
            is_stopping: false,
        };
        for index in 0..state.children.len() {
            let Some(child) = state.children.get(index) else {
                continue;
            };
            let (name, start) = (child.spec.name, Arc::clone(&child.spec.start));
            let census = self.census.clone();
            let begun = begin(index, name, start, census, myself.get_cell(), None).await;
            self.on_begun(&myself, &mut state, begun);
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::Begun => self.take_begun(&myself, state),
            RootMsg::Ping(reply) => {
                // Who asked may have given up waiting.
                let _ = reply.send(());
            }
            RootMsg::Shutdown(done) => {
                self.shut_down(&myself, state).await;
                if self.end.borrow().is_none() {
                    self.end.send_replace(Some(TreeEnd::Asked));
                }
                // The asker may have given up waiting; the tree is down either way.
                let _ = done.send(());
                myself.stop(Some("shutdown".to_owned()));
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // ORDER: a start that succeeded is heard of before its end.
        self.take_begun(&myself, state);
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                let exit = match error.downcast_ref::<Fatal>() {
                    Some(Fatal { cause, reason }) => ChildExit {
                        class: ExitClass::Fatal,
                        cause: *cause,
                        reason: reason.clone(),
                    },
                    None => ChildExit::new(ExitClass::Failed, error.to_string()),
                };
                self.on_child_event(&myself, state, cell.get_id(), exit);
            }
            SupervisionEvent::ActorTerminated(cell, rest, reason) => {
                // The stopped actor's state holds its tasks: they go first.
                drop(rest);
                let reason = reason.unwrap_or_else(|| "stopped by itself".to_owned());
                // ractor reports kills and cancelled tasks as terminations with these reasons.
                let class = match reason.as_str() {
                    "killed" | "actor_task_cancelled" => ExitClass::Killed,
                    _ => ExitClass::Unexpected,
                };
                let exit = ChildExit::new(class, reason);
                self.on_child_event(&myself, state, cell.get_id(), exit);
            }
            _ => {}
        }
        Ok(())
    }
}

/// An actor's error that no restart within this process mends.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Fatal {
    /// What somebody has to do something about.
    pub cause: Cause,
    /// What a person is told.
    pub reason: String,
}

impl std::fmt::Debug for ChildSpec {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ChildSpec")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RootState {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RootState")
            .field("children", &self.children.len())
            .finish()
    }
}
