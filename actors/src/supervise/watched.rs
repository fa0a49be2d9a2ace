//! The one wrapper that every actor is started in.
//!
//! It lowers the gauge of the mailbox, answers pings, and holds the incarnation's life token. Under
//! the feature `fault` it also does what a test's plan says; no default build carries any of that.
//! The actor inside knows nothing of it.

use std::sync::{Arc, Mutex, PoisonError};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, Message, SpawnErr, SupervisionEvent};
use tokio::sync::oneshot;

use super::{gauge::Gauge, life::LifeToken, poke};

/// How others see into one incarnation.
#[derive(Clone, Debug)]
pub struct Watch {
    pub(super) name: Arc<str>,
    pub(super) incarnation: u64,
    pub(super) depth: Gauge,
    pub(super) pings: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
    #[cfg(feature = "fault")]
    pub(super) plan: crate::fault::FaultPlan,
}

impl Watch {
    /// Counts the starts of this actor, from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(super) fn expect_ping(&self) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        self.pings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(answer);
        answered
    }

    fn answer_pings(&self) {
        let pings = std::mem::take(&mut *self.pings.lock().unwrap_or_else(PoisonError::into_inner));
        for ping in pings {
            // Who asked may have given up waiting.
            let _ = ping.send(());
        }
    }
}

/// What an incarnation is born with: its supervisor, its place in the census, its life token.
#[derive(Debug)]
pub struct Birth {
    pub(super) supervisor: ActorCell,
    pub(super) watch: Watch,
    pub(super) life: LifeToken,
}

impl Birth {
    pub(crate) fn new(supervisor: ActorCell, watch: Watch, life: LifeToken) -> Self {
        Self {
            supervisor,
            watch,
            life,
        }
    }

    /// Held by everything that belongs to this incarnation: its tasks, its children.
    #[must_use]
    pub fn life(&self) -> LifeToken {
        self.life.clone()
    }

    /// Starts the actor, watched and linked to its supervisor. `is_own` tells the messages that
    /// the actor sends to itself, which the gauge does not count.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn spawn<A: Actor>(
        self,
        actor: A,
        arguments: A::Arguments,
        is_own: fn(&A::Msg) -> bool,
    ) -> Result<Post<A::Msg>, SpawnErr> {
        let depth = self.watch.depth.clone();
        let watched = Watched {
            inner: actor,
            watch: self.watch,
            is_own,
            _life: self.life,
        };
        let (actor, _) = Actor::spawn_linked(None, watched, arguments, self.supervisor).await?;
        Ok(Post { actor, depth })
    }
}

/// Reaches one incarnation, and counts what is sent to it.
pub struct Post<M> {
    actor: ActorRef<M>,
    depth: Gauge,
}

impl<M: Message> Post<M> {
    /// The incarnation's untyped cell.
    #[must_use]
    pub fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }

    /// The incarnation itself, for what is not counted.
    #[must_use]
    pub fn actor(&self) -> &ActorRef<M> {
        &self.actor
    }

    pub(super) fn send(&self, message: M) -> Result<(), ractor::MessagingErr<M>> {
        // ORDER: raised first, or the actor could lower it before.
        self.depth.raise();
        self.actor
            .send_message(message)
            .inspect_err(|_| self.depth.lower())
    }
}

impl<M> Clone for Post<M> {
    fn clone(&self) -> Self {
        Self {
            actor: self.actor.clone(),
            depth: self.depth.clone(),
        }
    }
}

/// An actor that was started without the wrapper: its gauge counts for nobody.
impl<M> From<ActorRef<M>> for Post<M> {
    fn from(actor: ActorRef<M>) -> Self {
        Self {
            actor,
            depth: Gauge::default(),
        }
    }
}

impl<M> std::fmt::Debug for Post<M> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Post").finish_non_exhaustive()
    }
}

/// The wrapper.
struct Watched<A: Actor> {
    inner: A,
    watch: Watch,
    is_own: fn(&A::Msg) -> bool,
    _life: LifeToken,
}

impl<A: Actor> Actor for Watched<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        #[cfg(feature = "fault")]
        self.watch.plan.at_start(&self.watch.name).await?;
        self.inner.pre_start(myself, arguments).await
    }

    async fn post_start(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        self.inner.post_start(myself, state).await
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if !(self.is_own)(&message) {
            self.watch.depth.lower();
        }
        #[cfg(feature = "fault")]
        self.fault(&myself, crate::fault::When::BeforeMessage)
            .await?;
        #[cfg(not(feature = "fault"))]
        return self.inner.handle(myself, message, state).await;
        #[cfg(feature = "fault")]
        {
            self.inner.handle(myself.clone(), message, state).await?;
            self.fault(&myself, crate::fault::When::AfterMessage).await
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if event.actor_cell().is_some_and(poke::is_poke) {
            #[cfg(feature = "fault")]
            self.fault(&myself, crate::fault::When::Idle).await?;
            self.watch.answer_pings();
            return Ok(());
        }
        self.inner.handle_supervisor_evt(myself, event, state).await
    }

    async fn post_stop(
        &self,
        myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        #[cfg(feature = "fault")]
        self.fault(&myself, crate::fault::When::Stopping).await?;
        self.inner.post_stop(myself, state).await
    }
}

#[cfg(feature = "fault")]
impl<A: Actor> Watched<A> {
    async fn fault(
        &self,
        myself: &ActorRef<A::Msg>,
        when: crate::fault::When,
    ) -> Result<(), ActorProcessingErr> {
        self.watch
            .plan
            .strike(&self.watch.name, when, || myself.kill())
            .await
    }
}
