//! The session supervisor: one slot per peer.
//!
//! * owns: the slots, the dials and joins under way
//! * listens to: the retry scheduler (dial), listeners (admit, adopt), its sessions' ends
//! * tells: the retry scheduler who is up and who is over, the board what people see
//! * dies when: never by a peer's doing; a session's failure ends that session only
//! * comes back with: empty slots; peers redial, and newer sessions displace what was left
//!
//! A session is temporary: it is never restarted, the next one is a new dial.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{self, Mutant};
use packhorse_protocol::{error_class::ErrorClass, stream::Side};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    SessionsHandle, Wiring,
    actor::{SessionActor, SessionMsg},
    admission::IS_COPY,
    asking::Asker,
    crossing::Crossing,
    dial::{self, DialError},
    exit::SessionExit,
    handle::SessionsMsg,
    handshake::Accepted,
    join::{Alive, Joining},
    outlet::{Ask, Outlet},
    slot::{DialUnderWay, Live, Slot},
    slots::LiveFacts,
};
use crate::{
    board::{LastError, PeerState},
    events::Fact,
    link::QuicDialler,
    retry::{RetryHandle, RetryMsg},
    store::{PeerNumber, PeerRecord},
    supervise::{Birth, Life, SESSIONS},
};

/// Dials under way at once.
const DIALS_MAX: usize = 32;
/// A displaced session is killed when it does not end within this time.
const DISPLACE_WITHIN: Duration = Duration::from_secs(2);
/// Draining sessions get the protocol's drain limit and a moment for the goodbye.
const DRAIN_WITHIN: Duration = Duration::from_millis(4_000);

/// The session supervisor actor.
#[derive(Debug)]
pub struct SessionSupervisor {
    /// Shared by all sessions.
    pub(crate) wiring: Wiring,
    /// Outgoing links.
    pub(crate) dialler: Arc<QuicDialler>,
    /// Told who is up and who is over.
    pub(crate) retry: RetryHandle,
    /// The way to this actor that counts what waits; its own tasks take it too.
    sessions: SessionsHandle,
    /// Orders this boot's dials, across incarnations of this actor.
    dials: Arc<AtomicU64>,
    /// Which sessions live, for joins under way.
    alive: Alive,
    /// Dials at once: each costs an ML-KEM key, a name look-up and a link's windows.
    turns: Arc<Semaphore>,
}

impl SessionSupervisor {
    /// One incarnation; `dials` counts on across incarnations.
    pub(crate) fn new(
        wiring: Wiring,
        dialler: Arc<QuicDialler>,
        retry: RetryHandle,
        sessions: SessionsHandle,
        dials: Arc<AtomicU64>,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(DIALS_MAX));
        Self {
            wiring,
            dialler,
            retry,
            sessions,
            dials,
            alive: Alive::default(),
            turns,
        }
    }
}

/// The slots, and the tasks that die with them.
#[derive(Debug, Default)]
pub struct SessionSupervisorState {
    pub(super) slots: BTreeMap<PeerNumber, Slot>,
    pub(super) tasks: JoinSet<()>,
}

impl SessionSupervisor {
    fn dial(
        &self,
        myself: &ActorRef<SessionsMsg>,
        state: &mut SessionSupervisorState,
        peer: PeerNumber,
    ) {
        let slot = state.slots.entry(peer).or_default();
        if slot.live.is_some() || slot.dial.is_some() {
            return;
        }
        let now_ms = self.wiring.env.now_ms();
        self.wiring.board.update(peer, |line| {
            line.set_state(PeerState::Dialling, now_ms);
        });
        let number = self.dials.fetch_add(1, Ordering::Relaxed) + 1;
        let crossing = Arc::new(Crossing::default());
        if slot.expects_link(self.wiring.env.monotonic_ms()) {
            crossing.give_way();
        }
        let wiring = self.wiring.clone();
        let dialler = Arc::clone(&self.dialler);
        let myself = myself.clone();
        let at = Arc::clone(&crossing);
        let turns = Arc::clone(&self.turns);
        let task = state.tasks.spawn(async move {
            let Ok(_turn) = turns.acquire().await else {
                return;
            };
            // A panic must end the dial like any other failure, or the peer is never dialled again.
            let mut inner = JoinSet::new();
            inner.spawn(async move { dial::dial_peer(&wiring, &dialler, peer, number, &at).await });
            let result = match inner.join_next().await {
                Some(Ok(result)) => result,
                Some(Err(panic)) => Err(DialError::Panicked(panic.to_string())),
                None => Err(DialError::Panicked("it did not run".to_owned())),
            };
            // Nobody hears it when the supervisor is gone; the link is dropped with the message.
            let _ = myself.cast(SessionsMsg::Dialled {
                peer,
                dial: number,
                result: Box::new(result),
            });
        });
        slot.dial = Some(DialUnderWay {
            number,
            crossing,
            task,
        });
    }

    async fn on_dialled(
        &self,
        myself: &ActorRef<SessionsMsg>,
        state: &mut SessionSupervisorState,
        peer: PeerNumber,
        dial: u64,
        result: Result<(PeerRecord, Accepted), DialError>,
    ) -> Result<(), ActorProcessingErr> {
        let slot = state.slots.entry(peer).or_default();
        if slot
            .dial
            .as_ref()
            .is_none_or(|current| current.number != dial)
        {
            return Ok(());
        }
        slot.dial = None;
        match result {
            Ok((record, accepted)) => self.adopt(myself, state, record, accepted).await,
            // A session that the peer dialled meanwhile is what counts.
            Err(_) if slot.live.is_some() => Ok(()),
            // The scheduler did not hear of it, or planned the dial before.
            Err(DialError::Forgotten) => {
                self.retry.removed(peer);
                Ok(())
            }
            Err(error) => {
                if SessionExit::from(&error).class == ErrorClass::IdentityInUse {
                    self.alarm(state, peer, IS_COPY.to_owned());
                }
                let retry_after_ms = error.retry_after_ms();
                self.over(peer, SessionExit::from(&error), retry_after_ms);
                Ok(())
            }
        }
    }

    /// Gives the slot to an authenticated link; what lived there is displaced and awaited first.
    async fn adopt(
        &self,
        myself: &ActorRef<SessionsMsg>,
        state: &mut SessionSupervisorState,
        record: PeerRecord,
        accepted: Accepted,
    ) -> Result<(), ActorProcessingErr> {
        let peer = record.number;
        let slot = state.slots.entry(peer).or_default();
        let newcomer = facts(&accepted);
        let held = match (&slot.next, &slot.live) {
            (Some((_, next)), _) => Some(facts(next)),
            (None, live) => live.as_ref().map(|live| live.facts),
        };
        if held.is_some_and(|held| held.is_newer_than(newcomer)) {
            // Leave was given before the newer one came.
            accepted.link.close(ErrorClass::Displaced.to_u16());
            return Ok(());
        }
        #[cfg(feature = "sim")]
        if mutant::is(Mutant::BothCrossingLinks) && held.is_none_or(|at| at.side != newcomer.side) {
            return self.begin(myself, slot, record, accepted).await;
        }
        slot.let_in_ms = None;
        if let Some(dial) = slot.dial.take() {
            dial.give_up(ErrorClass::Displaced);
        }
        if let Some((_, never_lived)) = slot.next.take() {
            never_lived.link.close(ErrorClass::Displaced.to_u16());
        }
        if let Some(live) = &slot.live {
            let actor = live.actor.get_id();
            let _ = live.actor.cast(SessionMsg::Displace);
            myself.send_after(DISPLACE_WITHIN, move || SessionsMsg::Overdue {
                peer,
                actor,
            });
            slot.next = Some((record, accepted));
            return Ok(());
        }
        self.begin(myself, slot, record, accepted).await
    }

    async fn begin(
        &self,
        myself: &ActorRef<SessionsMsg>,
        slot: &mut Slot,
        record: PeerRecord,
        accepted: Accepted,
    ) -> Result<(), ActorProcessingErr> {
        let peer = record.number;
        let facts = facts(&accepted);
        let session = accepted.session;
        let info = accepted.link.info().clone();
        let (outlet, inlet) = Outlet::new();
        let name = format!("session {}", peer.0);
        let watch = self.wiring.census.enter(SESSIONS, &name);
        let incarnation = watch.incarnation();
        let actor = SessionActor {
            wiring: Wiring {
                #[cfg(feature = "sim")]
                incarnation,
                ..self.wiring.clone()
            },
            peer,
            supervisor: myself.clone(),
        };
        let birth = Birth::new(myself.get_cell(), watch.clone(), self.wiring.life.clone());
        // All of a session's messages come from its driver and from here, and are few.
        let actor = match birth.spawn(actor, (accepted, inlet), |_| true).await {
            Ok(post) => post.actor().clone(),
            // A session that does not start is one that ended: nobody else pays for it.
            Err(error) => {
                let exit = SessionExit::new(ErrorClass::Internal, error.to_string());
                self.wiring.census.ended(&name, incarnation, &exit.reason);
                self.over(peer, exit, None);
                return Ok(());
            }
        };
        self.wiring.census.started(&watch, actor.get_cell());
        self.alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.id, session);
        slot.live = Some(Live {
            actor,
            incarnation,
            session,
            id: record.id,
            facts,
            since_ms: self.wiring.env.monotonic_ms(),
            outlet,
            exit: None,
        });
        tracing::info!(
            target: "packhorse::session",
            peer = record.name,
            link = info.url(),
            dialled = facts.side == Side::Dialler,
            "connected"
        );
        let now_ms = self.wiring.env.now_ms();
        let link = info.url();
        self.wiring.board.update(peer, |line| {
            line.set_state(PeerState::Connected, now_ms);
            // One session in the place of another is the same state and another link.
            line.since_ms = now_ms;
            line.link = Some(info.url());
            line.key_exchange = Some(info.key_exchange);
            line.round_trip_ms = None;
            line.skew_ms = None;
            line.paused = None;
            line.last_seen_ms = Some(now_ms);
            line.last_error = None;
        });
        self.wiring.probe.tell(&name, incarnation, Life::Started);
        self.wiring.events.tell(Fact::SessionStarted { peer, link });
        self.retry.tell(RetryMsg::Connected(peer));
        Ok(())
    }

    async fn on_exit(
        &self,
        myself: &ActorRef<SessionsMsg>,
        state: &mut SessionSupervisorState,
        actor: ActorId,
        crash: Option<String>,
    ) -> Result<(), ActorProcessingErr> {
        let found = state.slots.iter_mut().find(|(_, slot)| {
            slot.live
                .as_ref()
                .is_some_and(|live| live.actor.get_id() == actor)
        });
        let Some((peer, slot)) = found else {
            return Ok(());
        };
        let peer = *peer;
        let Some(live) = slot.live.take() else {
            return Ok(());
        };
        self.alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&live.id);
        let exit = live.exit.unwrap_or_else(|| {
            let reason = crash.unwrap_or_else(|| "the session was killed".to_owned());
            SessionExit::new(ErrorClass::Internal, reason)
        });
        let name = format!("session {}", peer.0);
        self.wiring
            .census
            .ended(&name, live.incarnation, &exit.reason);
        self.wiring
            .probe
            .tell(&name, live.incarnation, Life::Exited(exit.reason.clone()));
        self.wiring.events.tell(Fact::SessionEnded {
            peer,
            class: exit.class,
            reason: exit.reason.clone(),
        });
        tracing::debug!(target: "packhorse::session", session = ?live.session, "ended");
        self.wiring.board.update(peer, |line| {
            line.link = None;
            line.key_exchange = None;
            line.round_trip_ms = None;
            line.skew_ms = None;
            line.paused = None;
            line.last_exit = Some(exit.reason.clone());
        });
        match slot.next.take() {
            Some((record, accepted)) => self.begin(myself, slot, record, accepted).await,
            None => {
                self.over(peer, exit, None);
                Ok(())
            }
        }
    }

    fn over(&self, peer: PeerNumber, exit: SessionExit, retry_after_ms: Option<u64>) {
        tracing::info!(
            target: "packhorse::session",
            peer = peer.0,
            class = ?exit.class,
            blame = ?exit.blame,
            reason = exit.reason,
            "no session"
        );
        self.wiring.board.update(peer, |line| {
            line.last_error = Some(LastError {
                class: exit.class,
                text: exit.reason.clone(),
            });
        });
        self.retry.tell(RetryMsg::Over {
            peer,
            exit,
            retry_after_ms,
        });
    }

    /// Tells the end of every session that nobody else tells: each that was told to have begun ends
    /// for those who watch, too.
    fn tell_ended(&self, class: ErrorClass, reason: &str) {
        for peer in self.wiring.board.take_links() {
            let reason = reason.to_owned();
            self.wiring.events.tell(Fact::SessionEnded {
                peer,
                class,
                reason,
            });
        }
    }

    /// Works out what others should dial now, and tells it.
    fn on_moved(&self, state: &SessionSupervisorState) {
        let me = &self.wiring.me;
        if !me.announced.look(&self.wiring.env) {
            return;
        }
        tracing::info!(target: "packhorse::session", addresses = ?me.announced.current(), "announced");
        for live in state.slots.values().filter_map(|slot| slot.live.as_ref()) {
            live.outlet.ask(Ask::TellAddresses);
        }
    }
}

fn facts(accepted: &Accepted) -> LiveFacts {
    LiveFacts {
        side: accepted.side,
        peer_epoch: accepted.peer.epoch,
        dial_counter: accepted.dial_counter,
        age_ms: 0,
    }
}

impl Actor for SessionSupervisor {
    type Msg = SessionsMsg;
    type State = SessionSupervisorState;
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        (): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        // ORDER: before any session of this incarnation can begin. The board outlives them.
        self.tell_ended(
            ErrorClass::Internal,
            "it died with what supervises the sessions",
        );
        let mut state = SessionSupervisorState::default();
        let asker = Asker {
            wiring: self.wiring.clone(),
            dialler: Arc::clone(&self.dialler),
            dials: Arc::clone(&self.dials),
            alive: Arc::clone(&self.alive),
            retry: self.retry.clone(),
            sessions: self.sessions.clone(),
        };
        state.tasks.spawn(asker.run());
        // The machine may have moved while nobody listened.
        self.on_moved(&state);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // Ended tasks leave nothing behind but their place in the set.
        while state.tasks.try_join_next().is_some() {}
        match message {
            SessionsMsg::Dial(peer) => self.dial(&myself, state, peer),
            SessionsMsg::Admit {
                peer,
                introduction,
                dial_counter,
                alive,
                reply,
            } => {
                let _ = reply.send(self.admit(state, peer, &introduction, dial_counter, alive));
            }
            SessionsMsg::Adopt { record, accepted } => {
                self.adopt(&myself, state, *record, *accepted).await?;
            }
            SessionsMsg::Join {
                ticket,
                options,
                reply,
            } => {
                let joining = Joining {
                    wiring: self.wiring.clone(),
                    dialler: Arc::clone(&self.dialler),
                    dials: Arc::clone(&self.dials),
                    alive: Arc::clone(&self.alive),
                    ticket: *ticket,
                };
                let (sessions, retry) = (self.sessions.clone(), self.retry.clone());
                state
                    .tasks
                    .spawn(joining.answer(options, sessions, retry, reply));
            }
            SessionsMsg::Dialled { peer, dial, result } => {
                self.on_dialled(&myself, state, peer, dial, *result).await?;
            }
            SessionsMsg::Ended { peer, actor, exit } => {
                let live = state
                    .slots
                    .get_mut(&peer)
                    .and_then(|slot| slot.live.as_mut());
                if let Some(live) = live.filter(|live| live.actor.get_id() == actor) {
                    // ORDER: the exit is noted before the stop, because ractor hands a
                    // supervisor its children's ends before its messages.
                    live.actor.stop(Some(exit.reason.clone()));
                    live.exit = Some(exit);
                }
            }
            SessionsMsg::Outlet { peer, reply } => {
                let live = state.slots.get(&peer).and_then(|slot| slot.live.as_ref());
                // One that is over but not yet gone takes nothing more.
                let live = live.filter(|live| live.exit.is_none());
                let _ = reply.send(live.map(|live| live.outlet.clone()));
            }
            SessionsMsg::ProveAlive => {
                for live in state.slots.values().filter_map(|slot| slot.live.as_ref()) {
                    live.outlet.ask(Ask::ProveAlive);
                }
            }
            SessionsMsg::GrantsChanged(peer) => {
                if let Some(live) = state.slots.get(&peer).and_then(|slot| slot.live.as_ref()) {
                    live.outlet.ask(Ask::TellGrants);
                }
            }
            SessionsMsg::Forgotten(peer) => {
                if let Some(actor) = state.slots.get_mut(&peer).and_then(Slot::forget) {
                    myself.send_after(DISPLACE_WITHIN, move || SessionsMsg::Overdue {
                        peer,
                        actor,
                    });
                }
            }
            SessionsMsg::Moved => self.on_moved(state),
            SessionsMsg::Overdue { peer, actor } => {
                let live = state.slots.get(&peer).and_then(|slot| slot.live.as_ref());
                if let Some(live) = live.filter(|live| live.actor.get_id() == actor) {
                    live.actor.kill();
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                self.on_exit(&myself, state, cell.get_id(), Some(error.to_string()))
                    .await
            }
            SupervisionEvent::ActorTerminated(cell, rest, _) => {
                // The stopped actor's state holds its driver, and so its link: it goes first.
                drop(rest);
                self.on_exit(&myself, state, cell.get_id(), None).await
            }
            _ => Ok(()),
        }
    }

    /// Only an orderly stop comes here; after a crash the peers see their links close.
    async fn post_stop(
        &self,
        _myself: ActorRef<Self::Msg>,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        state.tasks.abort_all();
        let live: Vec<_> = state
            .slots
            .values()
            .filter_map(|slot| slot.live.as_ref())
            .collect();
        for session in &live {
            let _ = session.actor.cast(SessionMsg::Drain);
        }
        let drained = async {
            for session in &live {
                let _ = session.actor.wait(None).await;
            }
        };
        if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
            for session in &live {
                session.actor.kill();
            }
        }
        // Their ends come behind this actor's own.
        self.tell_ended(ErrorClass::ShuttingDown, "this node stops");
        Ok(())
    }
}
