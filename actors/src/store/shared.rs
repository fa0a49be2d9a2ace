//! What the handles, the writer and the owner of an open store have in common.
//!
//! It outlives every actor: a writer that ends leaves the queue of jobs here, and the next one
//! takes it up. Only the writer commits; handles send jobs and read snapshots.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use packhorse_protocol::epoch::Epoch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::env::Env;

use super::engine::Engine;
use super::error::{EngineError, StoreError};
use super::handed::Handed;
use super::quarantine::Quarantine;
use super::reader::Reader;
use super::room::RoomKeeper;
use super::seal::Vault;
use super::signals::Signals;
use super::space::Storage;
use super::view::View;

/// Jobs that may wait for the writer. Behind it `write` waits.
pub const QUEUE_JOBS_MAX: usize = 256;
/// Bytes that waiting jobs may carry: 256 jobs × 128 KiB, half of what a full queue of batches
/// from sessions would be. Behind it `write` waits.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Reads under way: enough to keep a disk busy, too few to fill the blocking threads.
pub const READS_MAX: usize = 4;
/// Of these, listings for people: each may open a thousand messages, and however many are asked
/// for, sessions and consumers find the other half free.
pub(super) const LISTINGS_MAX: usize = READS_MAX / 2;

/// Something to run on the writer thread.
pub(crate) trait Job: Send {
    /// Runs the job. `false`: it refused, and everything it wrote is taken back.
    fn run(&mut self, view: &mut View) -> bool;
    /// Answers the caller, after the batch that holds the job is durable or has failed.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// What lies in the queue.
pub(crate) enum Envelope {
    /// A job, and the bytes it holds of the queue's bound.
    Job(Box<dyn Job>, OwnedSemaphorePermit),
    /// Nothing: the writer is to look at whether it should stop.
    Wake,
}

/// An open store.
pub(crate) struct Shared {
    pub(crate) engine: RwLock<Option<Arc<dyn Engine>>>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) signals: Signals,
    pub(crate) handed: Handed,
    /// What is short. Only the writer takes it, so nobody waits for it.
    pub(crate) room: Mutex<RoomKeeper>,
    /// How the store stands with its space.
    pub(crate) storage: watch::Sender<Storage>,
    pub(crate) epoch: Epoch,
    pub(crate) env: Env,
    pub(crate) jobs: mpsc::Sender<Envelope>,
    pub(crate) queue: Mutex<mpsc::Receiver<Envelope>>,
    pub(crate) queue_bytes: Arc<Semaphore>,
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) listings: Arc<Semaphore>,
    pub(crate) failed: OnceLock<EngineError>,
    pub(crate) closed: AtomicBool,
    /// Deaths of the writer that a test ordered.
    #[cfg(feature = "fault")]
    pub(crate) faults: crate::fault::FaultPlan,
    /// Whose turn it is to write, where the writer is a task.
    #[cfg(feature = "sim")]
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Number of the last commit that is durable.
    pub(crate) committed: AtomicU64,
}

impl Shared {
    /// The engine, unless the store is closed.
    pub(crate) fn engine(&self) -> Result<Arc<dyn Engine>, StoreError> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        engine.clone().ok_or(StoreError::Closed)
    }

    pub(crate) fn room(&self) -> MutexGuard<'_, RoomKeeper> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is committed now.
    pub(crate) fn reader(&self) -> Result<Reader, StoreError> {
        let snapshot = self.engine()?.snapshot()?;
        Ok(Reader::new(
            snapshot,
            self.vault.clone(),
            self.quarantine.clone(),
        ))
    }

    /// Whether a job sent now would be run.
    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone().into());
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        Ok(())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("epoch", &self.epoch)
            .field("committed", &self.committed)
            .finish_non_exhaustive()
    }
}
