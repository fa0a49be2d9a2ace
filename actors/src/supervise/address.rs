//! Where to reach an actor that may be restarted at any moment.
//!
//! A handle holds an [`Address`], never an `ActorRef`: the supervisor publishes each new
//! incarnation in it, so that nobody is left talking to a ghost.
//! A lost answer means "outcome unknown"; the address says so and repeats nothing by itself.

use std::{fmt, time::Duration};

use ractor::{Message, RpcReplyPort};
use tokio::sync::{oneshot, watch};

use super::watched::Post;

/// A stable address of one actor, across its incarnations.
pub struct Address<M> {
    current: watch::Sender<Option<Post<M>>>,
}

/// The actor could not be asked, or did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No incarnation was alive within the deadline: nothing was asked.
    #[error("the {0} is not running")]
    Absent(&'static str),
    /// The question was handed over but no answer came: the outcome is unknown.
    #[error("the {0} did not answer")]
    Unanswered(&'static str),
}

impl<M: Message> Address<M> {
    /// An address at which nobody lives yet.
    #[must_use]
    pub fn vacant() -> Self {
        Self {
            current: watch::Sender::new(None),
        }
    }

    /// Publishes a new incarnation. Only the actor's supervisor calls this.
    pub fn publish(&self, incarnation: impl Into<Post<M>>) {
        self.current.send_replace(Some(incarnation.into()));
    }

    /// Says that the incarnation is gone, so that questions wait for the next one instead of
    /// falling into a dead mailbox. Only the actor's supervisor calls this.
    pub fn vacate(&self) {
        self.current.send_replace(None);
    }

    /// Sends a message to who lives there now; `false` when nobody does.
    pub fn cast(&self, message: M) -> bool {
        match &*self.current.borrow() {
            Some(actor) => actor.send(message).is_ok(),
            None => false,
        }
    }

    /// Asks a question. Waits for an incarnation to be alive, then for its answer, together at
    /// most `deadline`.
    ///
    /// # Errors
    /// See [`AddressError`]; `name` is what the error calls the actor.
    pub async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        deadline: Duration,
        question: impl FnOnce(RpcReplyPort<T>) -> M,
    ) -> Result<T, AddressError> {
        let (answer_tx, answer_rx) = oneshot::channel();
        let mut message = Some(question(answer_tx.into()));
        let mut current = self.current.subscribe();
        let asked = async {
            loop {
                let actor = current.borrow_and_update().clone();
                // ORDER: the question is taken only once there is somebody to hand it to.
                if let Some(actor) = actor
                    && let Some(asked) = message.take()
                {
                    match actor.send(asked) {
                        Ok(()) => {
                            return answer_rx.await.map_err(|_| AddressError::Unanswered(name));
                        }
                        Err(ractor::MessagingErr::SendErr(back)) => message = Some(back),
                        Err(_) => return Err(AddressError::Absent(name)),
                    }
                }
                if current.changed().await.is_err() {
                    return Err(AddressError::Absent(name));
                }
            }
        };
        match tokio::time::timeout(deadline, asked).await {
            Ok(answer) => answer,
            Err(_) if message.is_some() => Err(AddressError::Absent(name)),
            Err(_) => Err(AddressError::Unanswered(name)),
        }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alive = self.current.borrow().is_some();
        out.debug_struct("Address").field("alive", &alive).finish()
    }
}
