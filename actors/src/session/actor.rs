//! One session's life.
//!
//! * owns: the driver task, and with it the link
//! * listens to: its driver's end, its supervisor's wish to end
//! * tells: its supervisor how the session ended
//! * dies when: the session is over, or its driver panicked (then as a failure)
//! * comes back with: nothing; the next session is another actor over another link

use std::time::Duration;

use packhorse_protocol::error_class::ErrorClass;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{sync::watch, task::JoinSet};

use super::{
    SessionsMsg, Wiring,
    driver::{Command, Driver},
    exit::SessionExit,
    granted,
    handshake::Accepted,
    outlet::Inlet,
};
use crate::store::PeerNumber;

/// The session actor's messages.
#[derive(Debug)]
pub(super) enum SessionMsg {
    /// From the supervisor: finish what is being committed, say goodbye, end.
    Drain,
    /// From the supervisor: a newer session takes over.
    Displace,
    /// From the supervisor: the peer was forgotten.
    Revoke,
    /// From the driver's wrapper: it is over; `Err` when it panicked.
    Ended(Result<SessionExit, String>),
}

/// The session actor.
#[derive(Debug)]
pub(super) struct SessionActor {
    pub(super) wiring: Wiring,
    pub(super) peer: PeerNumber,
    pub(super) supervisor: ActorRef<SessionsMsg>,
}

/// Dropping it ends the session: the driver dies with the set.
#[derive(Debug)]
pub(super) struct SessionState {
    commands: watch::Sender<Command>,
    _driver: JoinSet<()>,
    /// It waits for its supervisor to stop it.
    is_over: bool,
}

/// Opening five streams takes one round trip at most.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Opens the session's streams and runs it. A peer that allows no streams is not waited for.
async fn drive(
    wiring: Wiring,
    peer: PeerNumber,
    (accepted, inlet): (Accepted, Inlet),
    mut commanded: watch::Receiver<Command>,
) -> SessionExit {
    let link = accepted.link.handle();
    let store = wiring.store.clone();
    let started = tokio::select! {
        started = tokio::time::timeout(START_WITHIN, Driver::start(wiring, peer, accepted, inlet)) => {
            started.unwrap_or_else(|_| {
                let reason = format!("no streams within {} s", START_WITHIN.as_secs());
                Err(SessionExit::new(ErrorClass::Protocol, reason))
            })
        }
        command = commanded.wait_for(|command| *command != Command::Run) => Err(match command {
            // What it is told decides whether it dials again at once.
            Ok(command) if *command == Command::Revoke => granted::revoked(),
            _ => SessionExit::new(ErrorClass::Displaced, "ended before it began"),
        })
    };
    match started {
        Ok(driver) => {
            let exit = driver.run(commanded).await;
            // ORDER: before anybody hears of the end, since the next session may begin then. One
            // that took this one's place has begun already, and knows itself what it offers.
            if exit.class != ErrorClass::Displaced
                && let Err(error) = store.session_over(peer).await
            {
                tracing::debug!(target: "packhorse::session", peer = peer.0, %error, "what was not handed out stays offered");
            }
            exit
        }
        Err(exit) => {
            link.close(exit.class.to_u16());
            exit
        }
    }
}

impl Actor for SessionActor {
    type Msg = SessionMsg;
    type State = SessionState;
    type Arguments = (Accepted, Inlet);

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let (commands, commanded) = watch::channel(Command::Run);
        let wiring = self.wiring.clone();
        let peer = self.peer;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let mut inner = JoinSet::new();
            inner.spawn(drive(wiring, peer, arguments, commanded));
            let ended = match inner.join_next().await {
                Some(Ok(exit)) => Ok(exit),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("the driver did not run".to_owned()),
            };
            // Nobody hears it when the actor is gone already; then its supervisor knows that.
            let _ = myself.cast(SessionMsg::Ended(ended));
        });
        Ok(SessionState {
            commands,
            _driver: driver,
            is_over: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SessionMsg::Drain if state.is_over => myself.stop(Some("over".to_owned())),
            SessionMsg::Drain => {
                state.commands.send_replace(Command::Drain);
            }
            SessionMsg::Displace => {
                state.commands.send_replace(Command::Displace);
            }
            SessionMsg::Revoke => {
                state.commands.send_replace(Command::Revoke);
            }
            SessionMsg::Ended(Ok(exit)) => {
                state.is_over = true;
                // The supervisor stops this actor once it has noted how the session ended.
                let actor: ActorId = myself.get_id();
                let ended = SessionsMsg::Ended {
                    peer: self.peer,
                    actor,
                    exit,
                };
                if self.supervisor.cast(ended).is_err() {
                    myself.stop(Some("no supervisor".to_owned()));
                }
            }
            SessionMsg::Ended(Err(panic)) => return Err(panic.into()),
        }
        Ok(())
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
}
