//! The event bus: writes what was told into the store's ring.
//!
//! * owns: the task that takes the queue of told facts; the queue itself belongs to the tree
//! * listens to: its own task's end
//! * tells: the store
//! * dies when: its task panicked; a store that cannot be written ends the node elsewhere
//! * comes back with: the same queue, whose facts waited
//!
//! It never makes anybody wait, and it holds no fact longer than one write.

use std::sync::{Arc, atomic::Ordering};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinSet;

use super::{Fact, FactQueue, Told};
use crate::{
    env::Env,
    store::{StoreError, StoreHandle},
};

/// Facts written by one job.
const FACTS_BATCH_MAX: usize = 256;

/// The bus's messages.
#[derive(Debug)]
pub(crate) enum EventBusMsg {
    /// From its own task: it panicked.
    Ended(String),
}

/// The event bus actor.
#[derive(Debug)]
pub(crate) struct EventBus {
    pub(crate) env: Env,
    pub(crate) store: StoreHandle,
    pub(crate) queue: Arc<FactQueue>,
}

/// The writing task; it dies with the actor.
#[derive(Debug)]
pub(crate) struct EventBusState {
    writing: JoinSet<()>,
}

/// Takes facts and writes them, until the store takes no more.
async fn write(env: Env, store: StoreHandle, queue: Arc<FactQueue>) {
    // Free as soon as the former incarnation's task is gone.
    let mut told = queue.told.lock().await;
    let mut batch: Vec<Told> = Vec::with_capacity(FACTS_BATCH_MAX);
    loop {
        if told.recv_many(&mut batch, FACTS_BATCH_MAX).await == 0 {
            return;
        }
        let lost = queue.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            batch.push(Told {
                at_ms: env.now_ms(),
                fact: Fact::FactsLost { count: lost },
            });
        }
        let facts = batch
            .drain(..)
            .map(|told| (told.at_ms, told.fact))
            .collect();
        match store.append_facts(facts).await {
            Ok(()) => {}
            // Its writer is being restarted: the batch may be there or not, and is not repeated.
            Err(StoreError::Unknown) => {
                tracing::warn!("a batch of events may be lost: the store's writer was restarted");
            }
            Err(error) => {
                tracing::warn!(%error, "events are no longer kept");
                return;
            }
        }
    }
}

impl Actor for EventBus {
    type Msg = EventBusMsg;
    type State = EventBusState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let (env, store, queue) = (
            self.env.clone(),
            self.store.clone(),
            Arc::clone(&self.queue),
        );
        let mut writing = JoinSet::new();
        writing.spawn(async move {
            let mut inner = JoinSet::new();
            inner.spawn(write(env, store, queue));
            // A store that takes no more ends the node by itself; only a panic is ours to tell.
            if let Some(Err(panic)) = inner.join_next().await {
                let _ = myself.cast(EventBusMsg::Ended(panic.to_string()));
            }
        });
        Ok(EventBusState { writing })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        EventBusMsg::Ended(reason): Self::Msg,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Err(format!("writing events ended: {reason}").into())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        _event: SupervisionEvent,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children; without this, ractor's default would stop it for a stray event.
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // What was told last is written before the store stops; its queue lock is given back first.
        state.writing.shutdown().await;
        let mut told = self.queue.told.lock().await;
        let mut last = Vec::new();
        while last.len() < FACTS_BATCH_MAX
            && let Ok(told) = told.try_recv()
        {
            last.push((told.at_ms, told.fact));
        }
        if !last.is_empty() {
            // The store's own failure is told elsewhere.
            let _ = self.store.append_facts(last).await;
        }
        Ok(())
    }
}
