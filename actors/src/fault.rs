//! Deaths that a test orders: by actor, by kind, by moment.
//!
//! Exists under the feature `fault` only. The wrapper around every actor and the store's writer ask
//! the plan; without an order they go on as if it was not there.

use std::{
    collections::{BTreeMap, VecDeque},
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ractor::ActorProcessingErr;

use crate::supervise::{Census, poke};

/// How it is to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It panics.
    Panic,
    /// It returns an error.
    Error,
    /// It is killed, in the middle of what it does.
    Kill,
    /// It hangs until somebody kills it.
    Hang,
}

/// When it is to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// With its next message, which it does not handle.
    BeforeMessage,
    /// With its next message, once it has handled it.
    AfterMessage,
    /// At once, between two messages.
    Idle,
    /// When it is stopped.
    Stopping,
    /// When its next incarnation is started.
    Starting,
    /// In the store's writer: a batch was run and is not committed.
    BeforeCommit,
    /// In the store's writer: a batch is committed and nobody was told.
    BeforeAnswer,
}

/// The name under which the store's writer thread asks the plan.
const WRITER: &str = "store writer";

/// By actor.
type Orders = BTreeMap<String, VecDeque<(When, Fault)>>;

fn end_writer() -> ! {
    panic!("a test ordered the store's writer to panic")
}

/// What was ordered; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    orders: Arc<Mutex<Orders>>,
    /// No restart waits longer; 0 is as long as its budget says.
    delay_ms_max: Arc<AtomicU64>,
}

impl FaultPlan {
    /// Orders one death. Several orders for the same moment are carried out one after the other.
    pub fn order(&self, actor: &str, when: When, fault: Fault) {
        let actor = match when {
            When::BeforeCommit | When::BeforeAnswer => WRITER,
            _ => actor,
        };
        self.lock()
            .entry(actor.to_owned())
            .or_default()
            .push_back((when, fault));
    }

    /// Lets no restart wait longer than this, whatever its budget says.
    pub fn hasten(&self, delay_max: Duration) {
        let delay_ms = u64::try_from(delay_max.as_millis()).unwrap_or(u64::MAX);
        self.delay_ms_max.store(delay_ms, Ordering::Relaxed);
    }

    pub(crate) fn hastened(&self, delay: Duration) -> Duration {
        match self.delay_ms_max.load(Ordering::Relaxed) {
            0 => delay,
            delay_ms => delay.min(Duration::from_millis(delay_ms)),
        }
    }

    /// Takes back every order that was not carried out; returns how many there were.
    pub fn clear(&self) -> usize {
        let orders = std::mem::take(&mut *self.lock());
        orders.values().map(VecDeque::len).sum()
    }

    fn take(&self, actor: &str, when: When) -> Option<Fault> {
        let mut orders = self.lock();
        let of_actor = orders.get_mut(actor)?;
        let index = of_actor.iter().position(|(at, _)| *at == when)?;
        of_actor.remove(index).map(|(_, fault)| fault)
    }

    pub(crate) async fn strike(
        &self,
        actor: &str,
        when: When,
        kill: impl FnOnce(),
    ) -> Result<(), ActorProcessingErr> {
        match self.take(actor, when) {
            None => Ok(()),
            Some(Fault::Panic) => panic!("a test ordered {actor} to panic"),
            Some(Fault::Error) => Err(format!("a test ordered {actor} to fail").into()),
            Some(Fault::Kill) => {
                kill();
                // The kill takes effect at this await.
                std::future::pending().await
            }
            Some(Fault::Hang) => std::future::pending().await,
        }
    }

    pub(crate) async fn at_start(&self, actor: &str) -> Result<(), ActorProcessingErr> {
        // Nobody can be killed before it lives: a start that is killed is one that fails.
        self.strike(actor, When::Starting, || ()).await
    }

    /// For the store's writer. `true`: it is to end as after an error of the engine.
    pub(crate) fn before_commit(&self) -> bool {
        match self.take(WRITER, When::BeforeCommit) {
            None => false,
            Some(Fault::Error) => true,
            Some(_) => end_writer(),
        }
    }

    /// For the store's writer. What is committed cannot fail any more: it only dies.
    pub(crate) fn before_answer(&self) {
        if self.take(WRITER, When::BeforeAnswer).is_some() {
            end_writer();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Orders deaths in one tree.
#[derive(Clone, Debug)]
pub struct FaultHandle {
    plan: FaultPlan,
    census: Census,
}

impl FaultHandle {
    pub(crate) fn new(plan: FaultPlan, census: Census) -> Self {
        Self { plan, census }
    }

    /// What is ordered.
    #[must_use]
    pub fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// Orders one death; one of an idle actor is carried out at once. `false`: no such actor runs.
    pub async fn order(&self, actor: &str, when: When, fault: Fault) -> bool {
        let Some(cell) = self.census.cell(actor) else {
            return false;
        };
        self.plan.order(actor, when, fault);
        match when {
            When::Idle => poke(cell).await.is_ok(),
            _ => true,
        }
    }
}

/// The text names no fault, or no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {1}")]
pub struct NotAFault(String, &'static str);

impl FromStr for Fault {
    type Err = NotAFault;

    fn from_str(text: &str) -> Result<Self, NotAFault> {
        match text {
            "panic" => Ok(Self::Panic),
            "error" => Ok(Self::Error),
            "kill" => Ok(Self::Kill),
            "hang" => Ok(Self::Hang),
            _ => Err(NotAFault(text.to_owned(), "panic, error, kill, hang")),
        }
    }
}

impl FromStr for When {
    type Err = NotAFault;

    fn from_str(text: &str) -> Result<Self, NotAFault> {
        match text {
            "before-message" => Ok(Self::BeforeMessage),
            "after-message" => Ok(Self::AfterMessage),
            "idle" => Ok(Self::Idle),
            "stopping" => Ok(Self::Stopping),
            "starting" => Ok(Self::Starting),
            "before-commit" => Ok(Self::BeforeCommit),
            "before-answer" => Ok(Self::BeforeAnswer),
            _ => Err(NotAFault(
                text.to_owned(),
                "before-message, after-message, idle, stopping, starting, before-commit, before-answer",
            )),
        }
    }
}
