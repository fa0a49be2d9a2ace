//! The root of the tree: starts its children in order, restarts each within its budget, stops
//! them in the opposite order.
//!
//! * owns: child specifications, their histories; nothing that must outlive a child
//! * listens to: exits of its children, the shutdown request
//! * tells: the probe every life event, `main` why the tree ended
//! * dies when: asked to shut down, or a child's budget is spent
//! * comes back with: nothing; the process manager restarts the process

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr,
    SupervisionEvent,
};
use tokio::sync::watch;

use super::{
    policy::{Budget, Decision, ExitClass, History},
    probe::{Life, Probe},
};
use crate::env::Env;

/// A start is milliseconds of work; a child that hangs in it must not hang the root.
const START_WITHIN: Duration = Duration::from_secs(5);

/// Starts one incarnation of a child, linked to the given supervisor.
pub type StartChild = Box<
    dyn Fn(ActorCell) -> Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>
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
    /// From itself, after a restart delay: start this incarnation, unless it is stale.
    Start {
        /// Index of the child.
        child: usize,
        /// The incarnation to start.
        incarnation: u64,
    },
    /// From `main`: stop everything in order, then yourself.
    Shutdown(RpcReplyPort<()>),
}

/// The root supervisor.
#[derive(Debug)]
pub struct Root {
    env: Env,
    probe: Probe,
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
}

/// What the root knows about its children.
pub struct RootState {
    children: Vec<Child>,
}

impl Root {
    /// A root that reports its end to `end`.
    #[must_use]
    pub fn new(env: Env, probe: Probe, end: Arc<watch::Sender<Option<TreeEnd>>>) -> Self {
        Self { env, probe, end }
    }

    async fn start_child(&self, myself: &ActorRef<RootMsg>, state: &mut RootState, index: usize) {
        let Some(child) = state.children.get_mut(index) else {
            return;
        };
        child.incarnation += 1;
        let starting = (child.spec.start)(myself.get_cell());
        let started = tokio::time::timeout(START_WITHIN, starting)
            .await
            .unwrap_or_else(|_| Err(SpawnErr::StartupFailed("its start took too long".into())));
        match started {
            Ok(cell) => {
                child.cell = Some(cell);
                self.probe
                    .tell(child.spec.name, child.incarnation, Life::Started);
            }
            Err(error) => {
                // A failed start tells no supervisor event: it is fed to the same budget here.
                let exit = ChildExit::new(ExitClass::StartFailed, error.to_string());
                self.on_exit(myself, child, index, exit);
            }
        }
    }

    fn on_exit(
        &self,
        myself: &ActorRef<RootMsg>,
        child: &mut Child,
        index: usize,
        exit: ChildExit,
    ) {
        let ChildExit {
            class,
            cause,
            reason,
        } = exit;
        child.cell = None;
        (child.spec.vacate)();
        let name = child.spec.name;
        self.probe
            .tell(name, child.incarnation, Life::Exited(reason.clone()));
        let now_ms = self.env.monotonic_ms();
        match child.spec.budget.decide(class, &mut child.history, now_ms) {
            Decision::Ignore => {}
            Decision::RestartAfter(delay) => {
                self.probe.tell(name, child.incarnation, Life::Restarting);
                let incarnation = child.incarnation;
                myself.send_after(delay, move || RootMsg::Start {
                    child: index,
                    incarnation,
                });
            }
            Decision::GiveUp => {
                self.probe.tell(name, child.incarnation, Life::GivenUp);
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

    fn on_child_event(
        &self,
        myself: &ActorRef<RootMsg>,
        state: &mut RootState,
        id: ActorId,
        exit: ChildExit,
    ) {
        let found = state
            .children
            .iter_mut()
            .enumerate()
            .find(|(_, child)| child.cell.as_ref().is_some_and(|cell| cell.get_id() == id));
        if let Some((index, child)) = found {
            self.on_exit(myself, child, index, exit);
        }
    }

    async fn shut_down(&self, state: &mut RootState) {
        // ORDER: opposite to the start, so that nobody loses a service it still needs.
        for child in state.children.iter_mut().rev() {
            let Some(cell) = child.cell.take() else {
                continue;
            };
            (child.spec.vacate)();
            cell.stop(Some("shutdown".to_owned()));
            if cell.wait(Some(child.spec.stop_within)).await.is_err() {
                tracing::warn!(
                    actor = child.spec.name,
                    "did not stop within its deadline; killed"
                );
                cell.kill();
                // A kill takes effect at the next await; one that blocks ends with the process.
                let _ = cell.wait(Some(Duration::from_secs(1))).await;
            }
            self.probe.tell(
                child.spec.name,
                child.incarnation,
                Life::Exited("shutdown".to_owned()),
            );
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
        let children = specs.into_iter().map(|spec| Child {
            spec,
            history: History::default(),
            incarnation: 0,
            cell: None,
        });
        let mut state = RootState {
            children: children.collect(),
        };
        for index in 0..state.children.len() {
            self.start_child(&myself, &mut state, index).await;
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
            RootMsg::Start { child, incarnation } => {
                let due = state
                    .children
                    .get(child)
                    .is_some_and(|child| child.cell.is_none() && child.incarnation == incarnation);
                if due {
                    self.start_child(&myself, state, child).await;
                }
            }
            RootMsg::Shutdown(done) => {
                self.shut_down(state).await;
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
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
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
