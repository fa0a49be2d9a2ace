//! The retry scheduler: who is dialled next, and when.
//!
//! * owns: one plan of due times, one timer
//! * listens to: the store ("something waits for this peer"), the session supervisor ("up", "over")
//! * tells: the session supervisor whom to dial, the board when
//! * dies when: the store cannot be read
//! * comes back with: a plan rebuilt from the store; every peer is dialled once
//!
//! It never opens a link itself, and it never sleeps: one timer stands for the earliest due time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use packhorse_protocol::{backoff, error_class::ErrorClass};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::{sync::broadcast::error::RecvError, task::JoinSet};

use crate::{
    board::{Board, PeerLine, PeerState},
    env::Env,
    session::SessionsHandle,
    store::{PeerNumber, StoreHandle},
    supervise::Address,
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
const SWEEP: Duration = Duration::from_secs(60);
/// A peer that refuses this node will hardly change its mind within seconds.
const DELAY_REFUSED_MS: u64 = 60_000;

/// The scheduler's messages.
#[derive(Debug)]
pub enum RetryMsg {
    /// From the store's signal: something waits for this peer that did not wait before.
    Waiting(PeerNumber),
    /// From the store's signal, after it had to skip some: look at all of them.
    WaitingUnknown,
    /// From the session supervisor: a session lives.
    Connected(PeerNumber),
    /// From the session supervisor: a session or a dial is over.
    Over {
        /// The peer.
        peer: PeerNumber,
        /// Why.
        class: ErrorClass,
        /// What the other side asked for.
        retry_after_ms: Option<u64>,
    },
    /// From the session supervisor's new incarnation: no session and no dial lives.
    AllOver,
    /// From the node: a peer was paired or its addresses changed.
    Added(PeerNumber),
    /// From its own timer; stale when the number is not the current one.
    Due(u64),
}

/// Reaches the retry scheduler, across its incarnations.
#[derive(Clone, Debug)]
pub struct RetryHandle {
    address: Arc<Address<RetryMsg>>,
}

impl Default for RetryHandle {
    fn default() -> Self {
        Self {
            address: Arc::new(Address::vacant()),
        }
    }
}

impl RetryHandle {
    /// Tells the scheduler something. While it is being restarted nothing is lost by a message that
    /// nobody hears: the new incarnation dials every peer once.
    pub(crate) fn tell(&self, message: RetryMsg) {
        self.address.cast(message);
    }

    /// For the supervisor: publishes a new incarnation.
    pub(crate) fn publish(&self, incarnation: ActorRef<RetryMsg>) {
        self.address.publish(incarnation);
    }

    /// For the supervisor: the incarnation is gone.
    pub(crate) fn vacate(&self) {
        self.address.vacate();
    }
}

/// The retry scheduler actor.
#[derive(Debug)]
pub struct Retry {
    /// Time and randomness.
    pub(crate) env: Env,
    /// Who waits.
    pub(crate) store: StoreHandle,
    /// Who dials.
    pub(crate) sessions: SessionsHandle,
    /// What people see.
    pub(crate) board: Board,
    /// Nobody can dial this node, so it keeps its links up itself.
    pub(crate) hold_links: bool,
}

/// The plan.
#[derive(Debug, Default)]
pub struct RetryState {
    peers: BTreeMap<PeerNumber, Plan>,
    due: BTreeSet<(u64, PeerNumber)>,
    timer: u64,
    timer_due_ms: Option<u64>,
    /// Dies with the actor.
    signals: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Plan {
    attempt: u32,
    due_ms: Option<u64>,
    connected_since_ms: Option<u64>,
}

impl RetryState {
    fn plan(&mut self, peer: PeerNumber, due_ms: Option<u64>) {
        let plan = self.peers.entry(peer).or_default();
        if let Some(old) = plan.due_ms.take() {
            self.due.remove(&(old, peer));
        }
        plan.due_ms = due_ms;
        if let Some(due_ms) = due_ms {
            self.due.insert((due_ms, peer));
        }
    }

    fn take_due(&mut self, now_ms: u64) -> Vec<PeerNumber> {
        let mut ready = Vec::new();
        while let Some((due_ms, peer)) = self.due.first().copied() {
            if due_ms > now_ms {
                break;
            }
            self.plan(peer, None);
            ready.push(peer);
        }
        ready
    }

    fn is_unplanned(&self, peer: PeerNumber) -> bool {
        self.peers
            .get(&peer)
            .is_none_or(|plan| plan.connected_since_ms.is_none() && plan.due_ms.is_none())
    }
}

impl Retry {
    fn on_waiting(&self, state: &mut RetryState, peer: PeerNumber) {
        if state.is_unplanned(peer) {
            state.plan(peer, Some(self.env.monotonic_ms()));
        }
    }

    fn on_over(
        &self,
        state: &mut RetryState,
        peer: PeerNumber,
        class: ErrorClass,
        retry_after_ms: Option<u64>,
    ) {
        let now_ms = self.env.monotonic_ms();
        let plan = state.peers.entry(peer).or_default();
        let since_ms = plan.connected_since_ms.take();
        // A session that dies at once is no success, or it would be redialled without end.
        if since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= DELAY_MAX_MS) {
            plan.attempt = 0;
        }
        let jittered = backoff::delay(
            plan.attempt,
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
                plan.attempt = plan.attempt.saturating_add(1);
                asked_ms
                    .unwrap_or(0)
                    .max(DELAY_REFUSED_MS / 2 + jittered_ms / 2)
            }
            _ => {
                plan.attempt = plan.attempt.saturating_add(1);
                asked_ms.unwrap_or(0).max(jittered_ms)
            }
        };
        let waits = self
            .store
            .outbox_counts(peer)
            .borrow()
            .waiting
            .iter()
            .any(|count| *count > 0);
        let planned = (waits || self.hold_links).then(|| now_ms.saturating_add(delay_ms));
        state.plan(peer, planned);
        let refused = matches!(
            class,
            ErrorClass::Authentication | ErrorClass::IdentityInUse
        );
        let next_attempt_ms = planned.map(|_| self.env.now_ms().saturating_add(delay_ms));
        self.board.update(peer, |line| {
            line.next_attempt_ms = next_attempt_ms;
            line.state = match (refused, planned, line.last_seen_ms) {
                (true, ..) => PeerState::Refused,
                (false, Some(_), _) => PeerState::Waiting,
                (false, None, Some(_)) => PeerState::Idle,
                (false, None, None) => PeerState::NeverSeen,
            };
        });
    }

    fn on_connected(&self, state: &mut RetryState, peer: PeerNumber) {
        state.plan(peer, None);
        let plan = state.peers.entry(peer).or_default();
        plan.connected_since_ms = Some(self.env.monotonic_ms());
        self.board.update(peer, |line| line.next_attempt_ms = None);
    }

    fn on_all_over(&self, state: &mut RetryState) {
        let now_ms = self.env.monotonic_ms();
        let peers: Vec<_> = state.peers.keys().copied().collect();
        for peer in peers {
            state.peers.entry(peer).or_default().connected_since_ms = None;
            self.board.update(peer, |line| {
                *line = PeerLine {
                    last_seen_ms: line.last_seen_ms,
                    last_error: line.last_error.take(),
                    ..PeerLine::default()
                };
            });
            state.plan(peer, Some(now_ms));
        }
    }

    fn dial_due(&self, state: &mut RetryState) {
        for peer in state.take_due(self.env.monotonic_ms()) {
            self.board.update(peer, |line| line.next_attempt_ms = None);
            if !self.sessions.dial(peer) {
                // The supervisor is being restarted; its new incarnation is asked again.
                let again_ms = self.env.monotonic_ms().saturating_add(DELAY_FIRST_MS);
                state.plan(peer, Some(again_ms));
            }
        }
    }

    /// Keeps one timer for the earliest due time. A timer that was set for a later time is stale.
    fn set_timer(&self, myself: &ActorRef<RetryMsg>, state: &mut RetryState) {
        let Some((due_ms, _)) = state.due.first().copied() else {
            return;
        };
        if state.timer_due_ms.is_some_and(|set| set <= due_ms) {
            return;
        }
        state.timer += 1;
        state.timer_due_ms = Some(due_ms);
        let timer = state.timer;
        let wait = Duration::from_millis(due_ms.saturating_sub(self.env.monotonic_ms()));
        myself.send_after(wait, move || RetryMsg::Due(timer));
    }

    fn listen_to_store(&self, myself: &ActorRef<RetryMsg>, state: &mut RetryState) {
        let mut grew = self.store.outbox_grew();
        let myself = myself.clone();
        state.signals.spawn(async move {
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
            state.plan(peer.number, Some(now_ms));
        }
        self.set_timer(&myself, &mut state);
        myself.send_interval(SWEEP, || RetryMsg::WaitingUnknown);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RetryMsg::Waiting(peer) | RetryMsg::Added(peer) => self.on_waiting(state, peer),
            RetryMsg::WaitingUnknown => {
                for peer in self.store.waiting_peers() {
                    self.on_waiting(state, peer);
                }
            }
            RetryMsg::AllOver => self.on_all_over(state),
            RetryMsg::Connected(peer) => self.on_connected(state, peer),
            RetryMsg::Over {
                peer,
                class,
                retry_after_ms,
            } => {
                self.on_over(state, peer, class, retry_after_ms);
            }
            RetryMsg::Due(timer) if timer == state.timer => state.timer_due_ms = None,
            RetryMsg::Due(_) => return Ok(()),
        }
        self.dial_due(state);
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
