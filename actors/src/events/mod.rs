//! Numbered facts about this node, kept in a ring in the store.
//!
//! Whoever notices something tells it and goes on: telling never waits. The bus writes what was
//! told, in its order; jobs of the store write theirs in the same batch as what they did.
//! Consumers pull with a cursor, so that a slow one blocks nobody; what the ring has dropped before
//! they came is named to them as a gap.
//! Nothing here decides anything.
//!
//! Read [`Fact`] for what can happen, then [`EventsHandle`].

mod bus;
mod fact;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{Mutex, mpsc, watch};

pub(crate) use bus::EventBus;
pub use fact::{FACT_TEXT_BYTES_MAX, Fact, FactParts};

use crate::{
    env::Env,
    store::{StoreError, StoreHandle},
};

/// Facts that wait to be written; what comes beyond is counted and lost.
pub const FACTS_QUEUED_MAX: usize = 1_024;

/// A fact that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts on over restarts, from 1, without gaps.
    pub number: u64,
    /// When it happened, in wall-clock milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub fact: Fact,
}

/// An answer to "what came after this number?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// In the order of their numbers.
    pub events: Vec<Event>,
    /// The first and the last number behind the cursor that the ring no longer holds.
    pub gap: Option<(u64, u64)>,
    /// The newest event's number; 0 before the first. A cursor above it is of another store.
    pub newest: u64,
}

/// A fact on its way to the store.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) at_ms: u64,
    pub(crate) fact: Fact,
}

/// What was told and is not written yet. It outlives every incarnation of the bus.
#[derive(Debug)]
pub(crate) struct FactQueue {
    pub(crate) told: Mutex<mpsc::Receiver<Told>>,
    pub(crate) lost: AtomicU64,
}

/// Tells and reads events; clones are the same.
#[derive(Clone, Debug)]
pub struct EventsHandle {
    env: Env,
    store: StoreHandle,
    tell: mpsc::Sender<Told>,
    queue: Arc<FactQueue>,
}

impl EventsHandle {
    pub(crate) fn new(env: Env, store: StoreHandle) -> Self {
        let (tell, told) = mpsc::channel(FACTS_QUEUED_MAX);
        let queue = FactQueue {
            told: Mutex::new(told),
            lost: AtomicU64::new(0),
        };
        Self {
            env,
            store,
            tell,
            queue: Arc::new(queue),
        }
    }

    pub(crate) fn queue(&self) -> Arc<FactQueue> {
        Arc::clone(&self.queue)
    }

    /// Tells a fact. Never waits: what does not fit the queue is counted, and the count becomes a
    /// fact of its own.
    pub fn tell(&self, fact: Fact) {
        let at_ms = self.env.now_ms();
        if self.tell.try_send(Told { at_ms, fact }).is_err() {
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The events behind number `after`, oldest first, at most `limit` (and never more than 1,024).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn since(&self, after: u64, limit: usize) -> Result<EventPage, StoreError> {
        self.store.events_since(after, limit).await
    }

    /// The newest event's number, now and whenever it grows.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.store.newest_event()
    }
}
