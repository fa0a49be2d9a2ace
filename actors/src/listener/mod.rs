//! A listener: accepts links on one address and shakes hands on each.
//!
//! * owns: the handshakes under way; the endpoint is only borrowed
//! * listens to: the endpoint
//! * tells: the session supervisor about each accepted session
//! * dies when: the endpoint ends
//! * comes back with: the same endpoint, so that live links and the port outlast it
//!
//! What a stranger may cost is the door's decision, which all listeners share: `gate` is the
//! bookkeeping, `door` lends it to whoever meets a stranger, `stages` follows one handshake.
//! Accepting never waits for a place: who finds none, or loses its own, is closed.

mod bucket;
mod door;
mod gate;
mod known;
mod prefix;
mod slots;
mod stages;
mod tally;
#[cfg(test)]
mod tests;

pub use bucket::{Bucket, Rate};
pub use door::{Door, Visit};
pub use gate::{
    CHEAP, COSTLY, Full, Gate, HALF_OPEN, HALF_OPEN_UNPROVEN_MAX, KNOCKS, LINKS, LINKS_PER_PREFIX,
    Now, Offer,
};
pub use known::{KNOWN_FOR, KNOWN_MAX, Known};
pub use prefix::Prefix;
pub use slots::{NoRoom, SlotId, SlotLimits, Slots, Standing};
pub use stages::Stages;
pub use tally::{FLOOD_COUNT_MIN, Outcome, StrangerCounts};

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{sync::Mutex, task::JoinSet};

use crate::{
    events::Fact,
    link::{Link, QuicListener},
    session::{self, HandshakeFailure, SessionsHandle, Wiring},
};

/// What a link may send at first; the listener's endpoint is bound with it.
pub(crate) const FIRST_BYTES_MAX: u64 = stages::BYTES_BEFORE_KNOCK_MAX;
/// How often it is looked at whether there was a flood.
const FLOOD_LOOKED_AT_EVERY: Duration = Duration::from_secs(10);

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
    let mut handshakes = JoinSet::new();
    let mut looks = tokio::time::interval(FLOOD_LOOKED_AT_EVERY);
    // The lock is free as soon as the former incarnation's task is gone.
    let mut endpoint = endpoint.lock().await;
    loop {
        let link = tokio::select! {
            accepted = endpoint.accept() => match accepted {
                Some(Ok(link)) => link,
                Some(Err(error)) => {
                    // One that ended on its way up; the transport counted it among the half-open.
                    tracing::trace!(target: "packhorse::link", %error, "a link was given up");
                    continue;
                }
                None => return "the endpoint ended",
            },
            _ = looks.tick() => {
                if let Some(count) = wiring.door.flood() {
                    wiring.events.tell(Fact::StrangersFlood { count });
                    tracing::warn!(
                        target: "packhorse::link",
                        count,
                        "links of strangers were turned away within a minute"
                    );
                }
                continue;
            }
        };
        // As many as the door has places: whoever loses its place ends at once.
        let visit = wiring.door.arrive(link.info().remote);
        let wiring = wiring.clone();
        let sessions = sessions.clone();
        handshakes.spawn(async move { shake_hands(&wiring, &sessions, link, visit).await });
        while handshakes.try_join_next().is_some() {}
    }
}

async fn shake_hands(wiring: &Wiring, sessions: &SessionsHandle, link: Link, visit: Visit) {
    let remote = link.info().remote;
    let mut stages = Stages::new(visit, link.bounds());
    match session::respond(wiring, sessions, link, &mut stages).await {
        Ok((record, accepted)) => {
            stages.count(Outcome::Accepted);
            sessions.adopt(record, accepted);
        }
        Err(failure) => {
            count(&stages, &failure);
            if matches!(
                failure,
                HandshakeFailure::Refused(_) | HandshakeFailure::Store(_)
            ) {
                tracing::debug!(target: "packhorse::link", %remote, error = %failure, "no session");
            } else {
                // A flood must not fill the log; what became of each is counted.
                tracing::trace!(target: "packhorse::link", %remote, error = %failure, "no session");
            }
        }
    }
}

/// Each failure ends in one counter.
fn count(stages: &Stages, failure: &HandshakeFailure) {
    let outcome = match (failure, stages.has_knocked()) {
        (HandshakeFailure::Refused(refusal), _) => return stages.count_refusal(refusal.class),
        // Counted where it was decided.
        (HandshakeFailure::Crowded(_), _) => return,
        (HandshakeFailure::TurnedAway(outcome), _) => *outcome,
        (HandshakeFailure::Stranger, false) => Outcome::KnockedWrong,
        (HandshakeFailure::Stranger | HandshakeFailure::Protocol(_), _) => Outcome::ProofBad,
        (HandshakeFailure::NoCommonVersion, _) => Outcome::Versions,
        (HandshakeFailure::TimedOut(_), false) => Outcome::Silent,
        (HandshakeFailure::TimedOut(_), true) => Outcome::ProofMissing,
        (HandshakeFailure::Link(_), _) => Outcome::Lost,
        // What only a dialler is told.
        (HandshakeFailure::NotThem(_) | HandshakeFailure::NotPackhorse, _) => Outcome::Lost,
        (HandshakeFailure::Store(_), _) => Outcome::Failed,
    };
    stages.count(outcome);
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
