//! The scheduler itself.
//!
//! * owns: one agenda of due times, one timer, the watch on the surroundings
//! * listens to: the store (something waits, something may be given up), the session supervisor
//!   (up, over), the surroundings (another network, another time)
//! * tells: the session supervisor whom to dial, the store what to count and to give up, the board
//!   when
//! * dies when: the store cannot be read
//! * comes back with: an agenda rebuilt from the store; every peer is dialled once
//!
//! It never opens a link itself, and it never sleeps: one timer stands for the earliest due time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{Mutant, broken_or};
use packhorse_protocol::{backoff, error_class::ErrorClass};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{
    sync::{Mutex, broadcast::error::RecvError},
    task::JoinSet,
    time::MissedTickBehavior,
};

use super::{
    RetryMsg,
    agenda::{Agenda, Task},
    budget::Sweeping,
};
use crate::{
    board::{Board, PeerLine, PeerState},
    env::Env,
    events::{EventsHandle, Fact},
    session::{SessionExit, SessionsHandle},
    store::{Keep, PeerNumber, PeerRecord, StoreHandle},
    surroundings::{Change, LOOK_EVERY, Surroundings},
};

/// The first retry comes within this time.
const DELAY_FIRST_MS: u64 = 1_000;
/// No peer for which something waits is left alone for longer.
const DELAY_MAX_MS: u64 = 60_000;
/// Nobody is dialled again sooner, whatever the dice say.
const DELAY_MIN_MS: u64 = 100;
/// A peer cannot put this node off for longer.
const ASKED_MAX_MS: u64 = 10 * 60_000;
/// Whoever has waiting messages and, by whatever mishap, no plan is found again this often.
const LOOK_AT_ALL_EVERY: Duration = Duration::from_secs(60);
/// A peer that refuses this node will hardly change its mind within seconds.
const DELAY_REFUSED_MS: u64 = 60_000;
/// All waiting dials at once are spread over this time.
const WAKE_WITHIN_MS: u64 = 500;

/// The retry scheduler actor.
#[derive(Debug)]
pub struct Retry {
    /// Time, randomness, network.
    pub(crate) env: Env,
    /// Who waits.
    pub(crate) store: StoreHandle,
    /// Who dials.
    pub(crate) sessions: SessionsHandle,
    /// What people see.
    pub(crate) board: Board,
    /// What people can look up later.
    pub(crate) events: EventsHandle,
    /// Nobody can dial this node, so it keeps its links up itself.
    pub(crate) hold_links: bool,
}

/// The agenda, and how each peer stands.
#[derive(Debug, Default)]
pub struct RetryState {
    peers: BTreeMap<PeerNumber, Standing>,
    pub(super) agenda: Agenda,
    /// Holds the one timer; dies with the actor.
    timers: JoinSet<()>,
    /// Watches and questions to the store; they die with the actor.
    tasks: JoinSet<()>,
    putting_aside: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
pub(super) struct Standing {
    attempt: u32,
    connected_since_ms: Option<u64>,
    keep: Keep,
    /// The network changed since it was dialled last: one more dial, whatever waits.
    is_owed: bool,
    is_watched: bool,
    /// Nobody dials it until it is paired again.
    is_forgotten: bool,
    pub(super) sweeping: Sweeping,
}

impl Standing {
    /// Nothing is planned for it, and what was said of its links is void: a peer that is paired
    /// again begins anew.
    fn forget(&mut self) {
        self.is_forgotten = true;
        self.attempt = 0;
        self.keep = Keep::default();
        self.is_owed = false;
    }
}

impl RetryState {
    pub(super) fn standing(&mut self, peer: PeerNumber) -> &mut Standing {
        self.peers.entry(peer).or_default()
    }

    /// Every peer with a sweep planned, and when it is due by the wall clock.
    pub(super) fn sweeps(&self) -> Vec<(PeerNumber, u64)> {
        let due = |(peer, standing): (&PeerNumber, &Standing)| {
            standing.sweeping.due_ms().map(|due_ms| (*peer, due_ms))
        };
        self.peers.iter().filter_map(due).collect()
    }

    pub(super) fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(task);
    }

    fn is_connected(&self, peer: PeerNumber) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|standing| standing.connected_since_ms.is_some())
    }

    fn is_unplanned(&self, peer: PeerNumber) -> bool {
        !self.is_connected(peer) && self.agenda.at(peer, Task::Dial).is_none()
    }

    /// When a link to a peer is kept; to one that was forgotten never.
    fn keep(&self, peer: PeerNumber) -> Keep {
        match self.peers.get(&peer) {
            Some(standing) if standing.is_forgotten => Keep::Never,
            Some(standing) => standing.keep,
            None => Keep::default(),
        }
    }
}

impl Retry {
    /// Whether something waits for a peer.
    pub(super) fn is_awaited(&self, peer: PeerNumber) -> bool {
        self.store.outbox_counts(peer).borrow().total() > 0
    }

    fn on_waiting(&self, state: &mut RetryState, peer: PeerNumber) {
        if state.keep(peer) != Keep::Never && state.is_unplanned(peer) {
            let now_ms = self.env.monotonic_ms();
            state.agenda.set(peer, Task::Dial, Some(now_ms));
        }
    }

    fn on_over(
        &self,
        state: &mut RetryState,
        peer: PeerNumber,
        exit: &SessionExit,
        retry_after_ms: Option<u64>,
    ) {
        let class = exit.class;
        let now_ms = self.env.monotonic_ms();
        let standing = state.standing(peer);
        let since_ms = standing.connected_since_ms.take();
        // A session that dies at once is no success, or it would be redialled without end.
        if since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= DELAY_MAX_MS) {
            standing.attempt = 0;
        }
        let jittered = backoff::delay(
            standing.attempt,
            DELAY_FIRST_MS,
            DELAY_MAX_MS,
            self.env.random_u64(),
        );
        let jittered_ms = u64::try_from(jittered.as_millis())
            .unwrap_or(DELAY_MAX_MS)
            .max(DELAY_MIN_MS);
        // The other side's word, within reason.
        let asked_ms = retry_after_ms.map(|ms| ms.clamp(DELAY_MIN_MS, ASKED_MAX_MS));
        let delay_ms = match class {
            // Not a failure: the other side says when.
            ErrorClass::Busy if since_ms.is_none() => asked_ms.unwrap_or(DELAY_FIRST_MS),
            ErrorClass::Authentication | ErrorClass::IdentityInUse => {
                standing.attempt = standing.attempt.saturating_add(1);
                asked_ms
                    .unwrap_or(0)
                    .max(DELAY_REFUSED_MS / 2 + jittered_ms / 2)
            }
            _ => {
                standing.attempt = standing.attempt.saturating_add(1);
                asked_ms.unwrap_or(0).max(jittered_ms)
            }
        };
        let planned = self
            .is_wanted(state, peer)
            .then(|| now_ms.saturating_add(delay_ms));
        #[cfg(feature = "sim")]
        let planned = broken_or(Mutant::LoseRetryTimer, planned.map(|_| u64::MAX), planned);
        state.agenda.set(peer, Task::Dial, planned);
        let refused = matches!(
            class,
            ErrorClass::Authentication | ErrorClass::IdentityInUse
        );
        let wall_ms = self.env.now_ms();
        self.board.update(peer, |line| {
            line.next_attempt_ms = planned.map(|_| wall_ms.saturating_add(delay_ms));
            // A session that began since was written here by its supervisor, ahead of this message.
            if line.link.is_some() {
                return;
            }
            let doing = match (refused, planned, line.last_seen_ms) {
                (true, ..) => PeerState::Refused,
                (false, Some(_), _) => PeerState::Waiting,
                (false, None, Some(_)) => PeerState::Idle,
                (false, None, None) => PeerState::NeverSeen,
            };
            line.set_state(doing, wall_ms);
        });
    }

    /// Whether there is a reason to dial a peer.
    fn is_wanted(&self, state: &RetryState, peer: PeerNumber) -> bool {
        let standing = state.peers.get(&peer);
        match state.keep(peer) {
            Keep::Always => true,
            Keep::Never => false,
            Keep::Auto => {
                self.hold_links
                    || self.is_awaited(peer)
                    || standing.is_some_and(|standing| standing.is_owed)
            }
        }
    }

    /// Somebody said when a link to this peer is kept. It counts from now on: a plan that nobody
    /// wants any more is dropped, and one that is wanted now is due now. A session that lives is
    /// left alone; its end is what counts.
    async fn on_kept(
        &self,
        state: &mut RetryState,
        peer: PeerNumber,
    ) -> Result<(), ActorProcessingErr> {
        // Read here rather than told, so that of two changes the later one stands.
        let Some(record) = self.store.peer(peer).await? else {
            return Ok(());
        };
        state.standing(peer).keep = record.keep;
        let wall_ms = self.env.now_ms();
        if !self.is_wanted(state, peer) {
            state.agenda.set(peer, Task::Dial, None);
            self.board.update(peer, |line| {
                line.next_attempt_ms = None;
                if matches!(line.state, PeerState::Waiting | PeerState::Refused) {
                    line.set_state(PeerState::Idle, wall_ms);
                }
            });
        } else if !state.is_connected(peer) {
            let now_ms = self.env.monotonic_ms();
            state.agenda.set(peer, Task::Dial, Some(now_ms));
        }
        Ok(())
    }

    fn on_connected(&self, state: &mut RetryState, peer: PeerNumber) {
        state.agenda.set(peer, Task::Dial, None);
        let standing = state.standing(peer);
        standing.connected_since_ms = Some(self.env.monotonic_ms());
        // Who came by itself knows where this machine is.
        standing.is_owed = false;
        self.board.update(peer, |line| line.next_attempt_ms = None);
    }

    fn on_all_over(&self, state: &mut RetryState) {
        let now_ms = self.env.monotonic_ms();
        let wall_ms = self.env.now_ms();
        let peers: Vec<_> = state.peers.keys().copied().collect();
        for peer in peers {
            state.standing(peer).connected_since_ms = None;
            self.board.update(peer, |line| {
                *line = PeerLine {
                    since_ms: wall_ms,
                    last_seen_ms: line.last_seen_ms,
                    last_error: line.last_error.take(),
                    failures: line.failures,
                    last_exit: line.last_exit.take(),
                    ephemeral_dropped: line.ephemeral_dropped,
                    ..PeerLine::default()
                };
            });
            let planned = (state.keep(peer) != Keep::Never).then_some(now_ms);
            state.agenda.set(peer, Task::Dial, planned);
        }
    }

    /// Dials one peer at once, or all that are wanted within a moment. Nobody is dialled to whom
    /// no link is to be kept.
    fn on_wake(&self, state: &mut RetryState, peer: Option<PeerNumber>) {
        let now_ms = self.env.monotonic_ms();
        if let Some(peer) = peer {
            if state.keep(peer) != Keep::Never && !state.is_connected(peer) {
                state.agenda.set(peer, Task::Dial, Some(now_ms));
            }
            return;
        }
        let peers: Vec<_> = state.peers.keys().copied().collect();
        for peer in peers {
            if !state.is_connected(peer) && self.is_wanted(state, peer) {
                let at_ms = now_ms.saturating_add(self.env.random_u64() % WAKE_WITHIN_MS);
                state.agenda.set(peer, Task::Dial, Some(at_ms));
            }
        }
    }

    /// Another network or another time: what was learnt about who can be reached is void.
    fn on_changed(&self, state: &mut RetryState, change: Change) {
        tracing::info!(target: "packhorse::retry", ?change, "the surroundings changed");
        match change {
            Change::Network => {
                self.events.tell(Fact::NetworkChanged);
                self.sessions.moved();
                // Also those that nothing waits for: what waits at their end cannot come here.
                for standing in state.peers.values_mut() {
                    standing.is_owed = true;
                }
            }
            Change::Clock { jumped_ms } => {
                self.events.tell(Fact::ClockJumped { ms: jumped_ms });
                self.replan_sweeps(state);
            }
        }
        for standing in state.peers.values_mut() {
            standing.attempt = 0;
        }
        self.sessions.prove_alive();
        self.on_wake(state, None);
    }

    fn do_due(&self, myself: &ActorRef<RetryMsg>, state: &mut RetryState) {
        for (peer, task) in state.agenda.take_due(self.env.monotonic_ms()) {
            match task {
                Task::Dial => self.dial(state, peer),
                Task::Sweep => self.sweep(myself, state, peer),
            }
        }
    }

    fn dial(&self, state: &mut RetryState, peer: PeerNumber) {
        state.standing(peer).is_owed = false;
        self.board.update(peer, |line| line.next_attempt_ms = None);
        if !self.sessions.dial(peer) {
            // The supervisor is being restarted; its new incarnation is asked again.
            let again_ms = self.env.monotonic_ms().saturating_add(DELAY_FIRST_MS);
            state.agenda.set(peer, Task::Dial, Some(again_ms));
        }
    }

    /// Keeps one timer for the earliest due time. A timer that was set for a later time is stale.
    fn set_timer(&self, myself: &ActorRef<RetryMsg>, state: &mut RetryState) {
        let Some((timer, due_ms)) = state.agenda.next_timer() else {
            return;
        };
        let wait = Duration::from_millis(due_ms.saturating_sub(self.env.monotonic_ms()));
        let myself = myself.clone();
        // Sweeps are due in a day, dials in a second: a timer that is not taken back would wait
        // that day for nothing, and there would be one more with every dial.
        state.timers.abort_all();
        while state.timers.try_join_next().is_some() {}
        // A task of this actor, so that no timer outlives it.
        state.timers.spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = myself.cast(RetryMsg::Due(timer));
        });
    }

    fn look_at_all_now_and_then(&self, myself: &ActorRef<RetryMsg>, state: &mut RetryState) {
        let myself = myself.clone();
        state.run(async move {
            loop {
                tokio::time::sleep(LOOK_AT_ALL_EVERY).await;
                if myself.cast(RetryMsg::WaitingUnknown).is_err() {
                    return;
                }
            }
        });
    }

    fn listen_to_store(&self, myself: &ActorRef<RetryMsg>, state: &mut RetryState) {
        let mut grew = self.store.outbox_grew();
        let myself = myself.clone();
        state.run(async move {
            loop {
                let message = match grew.recv().await {
                    Ok(peer) => RetryMsg::Waiting(peer),
                    Err(RecvError::Lagged(_)) => RetryMsg::WaitingUnknown,
                    Err(RecvError::Closed) => return,
                };
                if myself.cast(message).is_err() {
                    return;
                }
            }
        });
    }

    /// Lets a peer that was forgotten be one again when the store says that it is. What is told
    /// says nothing about it: a message or a session may have been on its way when it was forgotten.
    async fn look_again(
        &self,
        state: &mut RetryState,
        peer: PeerNumber,
    ) -> Result<(), ActorProcessingErr> {
        if state.standing(peer).is_forgotten {
            let record = self.store.peer(peer).await?;
            if let Some(record) = record.filter(PeerRecord::is_peer) {
                let standing = state.standing(peer);
                standing.is_forgotten = false;
                standing.keep = record.keep;
            }
        }
        Ok(())
    }

    /// Goes on with what is left of peers that were forgotten: who forgot them may be gone before
    /// their sessions were ended and their messages put aside.
    fn put_rest_aside(&self, state: &mut RetryState) {
        let (store, turn) = (self.store.clone(), state.putting_aside.clone());
        let sessions = self.sessions.clone();
        state.run(async move {
            let Ok(_one_at_a_time) = turn.try_lock() else {
                return;
            };
            let Ok(peers) = store.forgetting().await else {
                return;
            };
            for peer in &peers {
                sessions.forgotten(*peer);
            }
            for peer in peers {
                // Those that are lent out are gone for whoever has them; the store says so.
                if let Err(error) = store.put_aside(peer, drop).await {
                    tracing::warn!(target: "packhorse::retry", peer = peer.0, %error, "what is left of a forgotten peer");
                }
            }
        });
    }

    /// Hears of messages with an end, from now on. Once per peer.
    fn watch(&self, myself: &ActorRef<RetryMsg>, state: &mut RetryState, peer: PeerNumber) {
        if std::mem::replace(&mut state.standing(peer).is_watched, true) {
            return;
        }
        let mut counts = self.store.outbox_counts(peer);
        let myself = myself.clone();
        state.run(async move {
            let mut told = None;
            loop {
                let due_ms = counts.borrow_and_update().due_ms;
                if due_ms != told {
                    told = due_ms;
                    let limited = due_ms.map(|due_ms| RetryMsg::Limited { peer, due_ms });
                    if limited.is_some_and(|limited| myself.cast(limited).is_err()) {
                        return;
                    }
                }
                if counts.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    fn watch_surroundings(&self, myself: &ActorRef<RetryMsg>, state: &mut RetryState) {
        let (env, myself) = (self.env.clone(), myself.clone());
        state.run(async move {
            let mut surroundings = Surroundings::of(&env);
            let mut looks = tokio::time::interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                for change in surroundings.look(&env) {
                    if myself.cast(RetryMsg::Changed(change)).is_err() {
                        return;
                    }
                }
            }
        });
    }
}

impl Actor for Retry {
    type Msg = RetryMsg;
    type State = RetryState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        (): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut state = RetryState::default();
        // ORDER: listen before reading, so that nothing falls between the two.
        self.listen_to_store(&myself, &mut state);
        let now_ms = self.env.monotonic_ms();
        for peer in self.store.peers().await? {
            let number = peer.number;
            self.watch(&myself, &mut state, number);
            state.standing(number).keep = peer.keep;
            let planned = (peer.keep != Keep::Never).then_some(now_ms);
            state.agenda.set(number, Task::Dial, planned);
            self.board.update(number, |line| {
                line.failures = line.failures.max(peer.failures);
            });
        }
        let wall_ms = self.env.now_ms();
        for (peer, _) in self.store.dues().await? {
            // At once, whatever was noted: a sweep of the former incarnation may have been cut
            // short, and what was accepted since then notes only its own time.
            self.on_limited(&mut state, peer, wall_ms);
        }
        for peer in self.store.forgetting().await? {
            state.standing(peer).forget();
        }
        self.put_rest_aside(&mut state);
        self.watch_surroundings(&myself, &mut state);
        self.set_timer(&myself, &mut state);
        self.look_at_all_now_and_then(&myself, &mut state);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RetryMsg::Removed(peer) => {
                state.agenda.set(peer, Task::Dial, None);
                state.standing(peer).forget();
            }
            RetryMsg::Waiting(peer) | RetryMsg::Added(peer) => {
                self.look_again(state, peer).await?;
                self.watch(&myself, state, peer);
                self.on_waiting(state, peer);
            }
            RetryMsg::Kept(peer) => self.on_kept(state, peer).await?,
            RetryMsg::WaitingUnknown => {
                for peer in self.store.waiting_peers() {
                    self.look_again(state, peer).await?;
                    self.watch(&myself, state, peer);
                    self.on_waiting(state, peer);
                }
                self.put_rest_aside(state);
            }
            RetryMsg::AllOver => self.on_all_over(state),
            RetryMsg::Connected(peer) => {
                self.look_again(state, peer).await?;
                self.watch(&myself, state, peer);
                self.on_connected(state, peer);
            }
            RetryMsg::Over {
                peer,
                exit,
                retry_after_ms,
            } => {
                self.on_over(state, peer, &exit, retry_after_ms);
                self.count(&myself, state, peer, exit);
            }
            RetryMsg::Wake(peer) => self.on_wake(state, peer),
            RetryMsg::Changed(change) => self.on_changed(state, change),
            RetryMsg::Limited { peer, due_ms } => self.on_limited(state, peer, due_ms),
            RetryMsg::Counted { peer, result } => self.on_counted(state, peer, result),
            RetryMsg::Swept { peer, result } => self.on_swept(state, peer, result),
            RetryMsg::Due(timer) => {
                if !state.agenda.on_timer(timer) {
                    return Ok(());
                }
            }
        }
        self.do_due(&myself, state);
        self.set_timer(&myself, state);
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
