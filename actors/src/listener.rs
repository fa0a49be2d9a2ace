//! A listener: accepts links on one address and shakes hands on each.
//!
//! * owns: the handshakes under way; the endpoint is only borrowed
//! * listens to: the endpoint
//! * tells: the session supervisor about each accepted session
//! * dies when: the endpoint ends
//! * comes back with: the same endpoint, so that live links and the port outlast it
//!
//! A stranger costs one bounded slot for a bounded time; when all slots are taken, accepting waits.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
};

use crate::{
    link::{Link, QuicListener},
    session::{self, SessionsHandle, Wiring},
};

/// Handshakes at once: each may cost one ML-KEM encapsulation and two signatures, about 0.3 ms.
const HANDSHAKES_MAX: usize = 64;

/// The listener's messages.
#[derive(Debug)]
pub enum ListenerMsg {
    /// From its own accepting task: the endpoint ended, or the task panicked.
    Ended(String),
}

/// The listener actor.
#[derive(Debug)]
pub struct Listener {
    /// Shared with sessions.
    pub(crate) wiring: Wiring,
    /// Who takes accepted sessions.
    pub(crate) sessions: SessionsHandle,
    /// The endpoint, owned by the tree.
    pub(crate) endpoint: Arc<Mutex<QuicListener>>,
}

/// The accepting task; it dies with the actor, and the handshakes with it.
#[derive(Debug)]
pub struct ListenerState {
    accepting: JoinSet<()>,
}

async fn accept(
    wiring: Wiring,
    sessions: SessionsHandle,
    endpoint: Arc<Mutex<QuicListener>>,
) -> &'static str {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut handshakes = JoinSet::new();
    // The lock is free as soon as the former incarnation's task is gone.
    let mut endpoint = endpoint.lock().await;
    loop {
        // ORDER: the slot before the link, so that a flood waits in the endpoint, not here.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return "its slots are closed";
        };
        let link = match endpoint.accept().await {
            Some(Ok(link)) => link,
            Some(Err(error)) => {
                tracing::debug!(target: "packhorse::link", %error, "a link was given up");
                continue;
            }
            None => return "the endpoint ended",
        };
        let wiring = wiring.clone();
        let sessions = sessions.clone();
        handshakes.spawn(async move {
            shake_hands(&wiring, &sessions, link).await;
            drop(slot);
        });
        while handshakes.try_join_next().is_some() {}
    }
}

async fn shake_hands(wiring: &Wiring, sessions: &SessionsHandle, link: Link) {
    let remote = link.info().remote;
    match session::respond(wiring, sessions, link).await {
        Ok((record, accepted)) => sessions.adopt(record, accepted),
        Err(error) => {
            tracing::debug!(target: "packhorse::link", %remote, %error, "no session");
        }
    }
}

impl Actor for Listener {
    type Msg = ListenerMsg;
    type State = ListenerState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let (wiring, sessions) = (self.wiring.clone(), self.sessions.clone());
        let endpoint = Arc::clone(&self.endpoint);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut inner = JoinSet::new();
            inner.spawn(accept(wiring, sessions, endpoint));
            let reason = match inner.join_next().await {
                Some(Ok(reason)) => reason.to_owned(),
                Some(Err(panic)) => panic.to_string(),
                None => "it did not run".to_owned(),
            };
            let _ = myself.cast(ListenerMsg::Ended(reason));
        });
        Ok(ListenerState { accepting })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        ListenerMsg::Ended(reason): Self::Msg,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Err(format!("accepting links ended: {reason}").into())
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

    /// A stopped actor's state lives on inside the event of its end: the task is ended here, so
    /// that nobody is accepted or paired while the rest of the tree stops.
    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.accepting.shutdown().await;
        Ok(())
    }
}
