//! The writer as a task, for a simulated machine, which has no threads.
//!
//! Its batches are those of the thread; what differs is the disk under them, which takes time of
//! the simulation: before a commit, when a cut of the power decides whether the batch is there, and
//! after it, when the batch is there and nobody was told.
//!
//! Read [`run`] beside the writer's own.

use std::future::poll_fn;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use packhorse_protocol::mutant::{self, Mutant};
use tokio::sync::{mpsc, oneshot};

use super::error::EngineError;
use super::shared::{Envelope, Shared};
use super::writer::{Batch, Closed, Desk, Next, WriterEnd, catch};

#[expect(
    clippy::disallowed_methods,
    reason = "like the thread it stands for, it outlives the actor by the batch under way"
)]
pub(super) fn start(
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    tell_end: oneshot::Sender<WriterEnd>,
) {
    tokio::spawn(async move {
        let end = run(&shared, &stop).await.unwrap_or_else(|end| end);
        // Nobody waiting for the end is no error.
        let _ = tell_end.send(end);
    });
}

/// Runs batches until told to stop. Every end but that one comes as the error.
async fn run(shared: &Shared, stop: &AtomicBool) -> Result<WriterEnd, WriterEnd> {
    // Held to the end: there is one writer at a time, and the next one waits here.
    let _turn = shared.turn.lock().await;
    let mut desk = Desk::new(shared)?;
    loop {
        let next = desk.next(shared, stop, &mut queue(shared));
        let first = match next {
            Next::Begin(envelope) => envelope,
            Next::End(end) => return Ok(end),
            Next::Wait => match poll_fn(|context| queue(shared).poll_recv(context)).await {
                Some(envelope) => envelope,
                None => return Ok(WriterEnd::Stopped),
            },
        };
        let mut batch = catch(|| desk.gather(shared, &mut queue(shared), first))?;
        let closed = catch(|| batch.close(shared, &mut desk))?;
        let made = match closed {
            Ok(closed) => write(shared, &mut desk, &mut batch, closed).await?,
            Err(error) => Err(error),
        };
        let end = catch(|| batch.finish(shared, &mut queue(shared), made))?;
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

async fn write(
    shared: &Shared,
    desk: &mut Desk,
    batch: &mut Batch,
    closed: Closed,
) -> Result<Result<(), EngineError>, WriterEnd> {
    let Ok(engine) = shared.engine() else {
        return Ok(Err(EngineError::Gone));
    };
    let (before_ms, after_ms) = match closed.changes.is_empty() {
        true => (0, 0),
        false => engine.write_ahead(&closed.changes),
    };
    drop(engine);
    if mutant::is(Mutant::AcknowledgeBeforeSync) {
        batch.answer();
    }
    if mutant::is(Mutant::VisibleBeforeDurable) {
        desk.publish(shared);
    }
    pass(before_ms).await;
    let made = catch(|| desk.commit(shared, closed))?;
    pass(after_ms).await;
    Ok(made)
}

async fn pass(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// Never held across an await.
fn queue(shared: &Shared) -> MutexGuard<'_, mpsc::Receiver<Envelope>> {
    shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
}
