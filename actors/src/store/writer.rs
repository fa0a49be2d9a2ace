//! The one thread that writes.
//!
//! It takes what waits in the queue, runs each job over the view, commits everything as one batch,
//! and then answers every job: that is the group commit, and the only place that acknowledges.
//! A job that panics fails alone, and the thread ends after the batch, so that a supervisor sees
//! it; the queue stays where it is and the next writer goes on.
//! It never waits to make a batch larger: while one batch is synced the next one gathers.
//!
//! Read [`run`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::events::Fact;

use super::engine::Change;
use super::error::{EngineError, StoreError};
use super::keys::{Key, Meta};
use super::shared::{Envelope, Job, Shared};
use super::tables::head::encode_u64;
use super::tables::{events, held};
use super::view::View;

/// Changes after which a batch is closed: about 10 ms of work, so that no job waits for long.
const BATCH_CHANGES_MAX: usize = 4_096;
/// Plain bytes after which a batch is closed; half a write buffer.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How a writer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriterEnd {
    /// It was asked to.
    Stopped,
    /// A job, or the writer itself, panicked. Start another one.
    Panicked(String),
    /// The engine takes no more writes. The store must be opened again.
    Failed(EngineError),
}

/// The running writer. Dropping it asks the thread to stop.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    end: oneshot::Receiver<WriterEnd>,
    ended: Option<WriterEnd>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell_end, end) = oneshot::channel();
        #[cfg(feature = "sim")]
        if shared.env.is_simulated() {
            super::writer_task::start(shared.clone(), stop.clone(), tell_end);
            return Ok(Self {
                shared,
                stop,
                end,
                ended: None,
                thread: None,
            });
        }
        let thread = std::thread::Builder::new()
            .name("packhorse-store".into())
            .spawn({
                let (shared, stop) = (shared.clone(), stop.clone());
                move || {
                    let end = catch(|| run(&shared, &stop)).unwrap_or_else(|end| end);
                    // Nobody waiting for the end is no error.
                    let _ = tell_end.send(end);
                }
            })?;
        Ok(Self {
            shared,
            stop,
            end,
            ended: None,
            thread: Some(thread),
        })
    }

    /// Asks the writer to run what waits in the queue now and then to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // A full queue needs no waking: the writer is about to look at it.
        let _ = self.shared.jobs.try_send(Envelope::Wake);
    }

    /// Waits until the writer has ended, and says how. Cancel-safe; can be asked again.
    pub async fn ended(&mut self) -> WriterEnd {
        if let Some(end) = &self.ended {
            return end.clone();
        }
        let end = (&mut self.end).await.unwrap_or(WriterEnd::Stopped);
        self.ended = Some(end.clone());
        // It has sent its end as its last act, so this is a matter of microseconds.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        end
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a piece of the writer; its panic is how the writer ended.
pub(super) fn catch<T>(piece: impl FnOnce() -> T) -> Result<T, WriterEnd> {
    catch_unwind(AssertUnwindSafe(piece)).map_err(|panic| WriterEnd::Panicked(panic_text(&*panic)))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".into())
}

/// A job that was run and waits for its batch.
struct Ran {
    job: Box<dyn Job>,
    bytes: OwnedSemaphorePermit,
}

impl Ran {
    fn answer(self, outcome: Result<(), StoreError>) {
        // Given back first: who has its answer finds the queue as empty as it is.
        drop(self.bytes);
        self.job.answer(outcome);
    }
}

/// What to do next.
pub(super) enum Next {
    /// Begin a batch with this.
    Begin(Envelope),
    /// Wait for the queue.
    Wait,
    /// It is over.
    End(WriterEnd),
}

/// Runs batches until told to stop, until a job panics, or until the engine fails.
fn run(shared: &Shared, stop: &AtomicBool) -> WriterEnd {
    // Held to the end: there is one writer at a time, and the next one waits here.
    let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    let mut desk = match Desk::new(shared) {
        Ok(desk) => desk,
        Err(end) => return end,
    };
    loop {
        let first = match desk.next(shared, stop, &mut queue) {
            Next::Begin(envelope) => envelope,
            Next::End(end) => return end,
            Next::Wait => match queue.blocking_recv() {
                Some(envelope) => envelope,
                None => return WriterEnd::Stopped,
            },
        };
        let mut batch = desk.gather(shared, &mut queue, first);
        let made = batch.close(shared, &mut desk);
        let made = made.and_then(|closed| desk.commit(shared, closed));
        if let Some(end) = batch.finish(shared, &mut queue, made) {
            return end;
        }
    }
}

/// What one writer works with.
pub(super) struct Desk {
    view: View,
    /// Set once it is to stop: what came before that is still run.
    jobs_left: Option<usize>,
}

/// Jobs that were run and wait for their commit.
pub(super) struct Batch {
    ran: Vec<Ran>,
    gathered: Result<Option<String>, EngineError>,
}

/// A batch as it goes to the engine.
pub(super) struct Closed {
    pub(super) number: u64,
    pub(super) changes: Vec<Change>,
    held: Option<held::Held>,
}

impl Desk {
    pub(super) fn new(shared: &Shared) -> Result<Self, WriterEnd> {
        if let Some(error) = shared.failed.get() {
            return Err(WriterEnd::Failed(error.clone()));
        }
        Ok(Self {
            view: View::new(
                shared.vault.clone(),
                shared.quarantine.clone(),
                shared.epoch,
            ),
            jobs_left: None,
        })
    }

    pub(super) fn next(
        &mut self,
        shared: &Shared,
        stop: &AtomicBool,
        queue: &mut mpsc::Receiver<Envelope>,
    ) -> Next {
        let is_to_stop = || stop.load(Ordering::Acquire) || shared.closed.load(Ordering::Acquire);
        if is_to_stop() {
            // What comes after the stop waits for the next one.
            let left = self.jobs_left.get_or_insert(queue.len());
            if *left == 0 {
                return Next::End(WriterEnd::Stopped);
            }
        }
        match queue.try_recv() {
            Ok(envelope) => Next::Begin(envelope),
            Err(TryRecvError::Disconnected) => Next::End(WriterEnd::Stopped),
            Err(TryRecvError::Empty) if is_to_stop() => Next::End(WriterEnd::Stopped),
            Err(TryRecvError::Empty) => Next::Wait,
        }
    }

    pub(super) fn gather(
        &mut self,
        shared: &Shared,
        queue: &mut mpsc::Receiver<Envelope>,
        first: Envelope,
    ) -> Batch {
        let mut ran = Vec::new();
        let jobs_left = self.jobs_left.as_mut();
        let gathered = gather(shared, queue, &mut self.view, first, &mut ran, jobs_left);
        Batch { ran, gathered }
    }

    /// Makes the batch durable and visible, and then known to those who watch.
    pub(super) fn commit(&mut self, shared: &Shared, closed: Closed) -> Result<(), EngineError> {
        let Closed {
            number,
            changes,
            held,
        } = closed;
        if !changes.is_empty() {
            let engine = shared.engine().map_err(|_| EngineError::Gone)?;
            #[cfg(feature = "fault")]
            if shared.faults.before_commit() {
                return Err(EngineError::Gone);
            }
            // CRASH: inside, all of the batch is found at the next open or none of it; nobody was
            // told.
            engine.commit(number, changes)?;
            shared.committed.store(number, Ordering::Release);
            // ORDER: after the commit. CRASH: before this line the batch is there and nobody knows:
            // callers repeat, and keys, marks and uses make that harmless.
            self.publish(shared);
        }
        publish_storage(shared, held);
        Ok(())
    }

    /// Tells those who watch what the batch changed.
    pub(super) fn publish(&mut self, shared: &Shared) {
        shared.signals.publish(self.view.take_notes());
    }
}

impl Batch {
    /// Adds what belongs to every commit.
    pub(super) fn close(
        &mut self,
        shared: &Shared,
        desk: &mut Desk,
    ) -> Result<Closed, EngineError> {
        match &self.gathered {
            Ok(_) => Ok(close(shared, &mut desk.view)),
            Err(error) => Err(error.clone()),
        }
    }

    /// Tells whoever asked for the jobs that they are done.
    pub(super) fn answer(&mut self) {
        self.ran.drain(..).for_each(|ran| ran.answer(Ok(())));
    }

    /// Answers the jobs; `Some` when this was the writer's last batch.
    pub(super) fn finish(
        mut self,
        shared: &Shared,
        queue: &mut mpsc::Receiver<Envelope>,
        made: Result<(), EngineError>,
    ) -> Option<WriterEnd> {
        #[cfg(feature = "fault")]
        if made.is_ok() {
            shared.faults.before_answer();
        }
        if let Err(error) = made {
            let error = blame(shared, error);
            fail(shared, queue, self.ran, &error);
            return Some(WriterEnd::Failed(error));
        }
        self.answer();
        self.gathered.ok().flatten().map(WriterEnd::Panicked)
    }
}

/// Runs jobs until the batch is full or the queue is empty. Returns the text of a panic, if a job
/// ended in one: that job leaves no trace, and those before it are committed.
fn gather(
    shared: &Shared,
    queue: &mut mpsc::Receiver<Envelope>,
    view: &mut View,
    first: Envelope,
    batch: &mut Vec<Ran>,
    mut jobs_left: Option<&mut usize>,
) -> Result<Option<String>, EngineError> {
    let engine = shared.engine().map_err(|_| EngineError::Gone)?;
    let mut next = Some(first);
    let mut is_begun = false;
    while let Some(envelope) = next {
        if let Some(left) = jobs_left.as_deref_mut() {
            *left = left.saturating_sub(1);
        }
        if let Envelope::Job(mut job, bytes) = envelope {
            if !is_begun {
                let snapshot = engine.snapshot().inspect_err(|error| {
                    tracing::error!(%error, "the store gives no snapshot");
                });
                match snapshot {
                    Ok(snapshot) => {
                        view.begin_batch(snapshot);
                        let (now_ms, monotonic_ms) =
                            (shared.env.now_ms(), shared.env.monotonic_ms());
                        shared.room().look(view, now_ms, monotonic_ms);
                    }
                    Err(error) => {
                        batch.push(Ran { job, bytes });
                        return Err(error);
                    }
                }
                is_begun = true;
            }
            view.begin_job(shared.env.now_ms());
            // The view is made whole by undo_job, whatever the job left behind in it.
            match catch_unwind(AssertUnwindSafe(|| job.run(view))) {
                Ok(true) => batch.push(Ran { job, bytes }),
                Ok(false) => {
                    view.undo_job();
                    batch.push(Ran { job, bytes });
                }
                Err(panic) => {
                    view.undo_job();
                    job.answer(Err(StoreError::Unknown));
                    return Ok(Some(panic_text(&*panic)));
                }
            }
        }
        let is_full =
            view.changes() >= BATCH_CHANGES_MAX || view.changed_bytes() >= BATCH_BYTES_MAX;
        let is_over = jobs_left.as_deref().is_some_and(|left| *left == 0);
        next = if is_full || is_over {
            None
        } else {
            queue.try_recv().ok()
        };
    }
    Ok(None)
}

fn close(shared: &Shared, view: &mut View) -> Closed {
    // What cannot be read now was told when it was found; nothing is decided by it here.
    let _ = shared.room().settle(view, shared.env.now_ms());
    let held = held::held(view).ok();
    let mut facts = view.take_facts();
    let quarantined = shared.quarantine.untold();
    if quarantined > 0 {
        let fact = Fact::Quarantined { count: quarantined };
        facts.push((shared.env.now_ms(), fact));
    }
    // INVARIANT: no message waits for a fact: what cannot be told is only logged.
    if !facts.is_empty()
        && let Err(fault) = events::append(view, facts)
    {
        tracing::error!(?fault, "facts are lost: the event ring cannot be read");
    }
    let number = shared.committed.load(Ordering::Acquire) + 1;
    let mut changes = Vec::new();
    if view.changes() > 0 {
        view.put(Key::meta(Meta::Commit), encode_u64(number));
        changes = view.close_batch();
    }
    Closed {
        number,
        changes,
        held,
    }
}

fn publish_storage(shared: &Shared, held: Option<held::Held>) {
    let Some(held) = held else { return };
    let now = shared.room().storage(held);
    shared.storage.send_if_modified(|known| {
        let is_news = *known != now;
        *known = now;
        is_news
    });
}

/// The engine's own thread may have met the end of the space unseen; then all that is known here is
/// that it takes no more writes.
fn blame(shared: &Shared, error: EngineError) -> EngineError {
    let is_poisoned = matches!(error, EngineError::Poisoned(_));
    if is_poisoned && shared.room().is_to_blame(shared.env.monotonic_ms()) {
        return EngineError::Full;
    }
    error
}

/// Answers everybody who waits, and makes sure that nobody waits from here on.
fn fail(
    shared: &Shared,
    queue: &mut mpsc::Receiver<Envelope>,
    batch: Vec<Ran>,
    error: &EngineError,
) {
    if *error == EngineError::Full {
        // The next open needs it, and so does whatever else the disk is full of.
        shared.room().on_full();
    }
    tracing::error!(%error, "the store takes no more writes");
    let _ = shared.failed.set(error.clone());
    batch
        .into_iter()
        .for_each(|ran| ran.answer(Err(error.clone().into())));
    answer_all(queue, &error.clone().into());
}

/// Closes the queue and gives every job in it the same answer. None of them was run.
pub(crate) fn answer_all(queue: &mut mpsc::Receiver<Envelope>, error: &StoreError) {
    queue.close();
    while let Ok(envelope) = queue.try_recv() {
        if let Envelope::Job(job, _) = envelope {
            job.answer(Err(error.clone()));
        }
    }
}
