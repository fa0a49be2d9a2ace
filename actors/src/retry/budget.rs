//! What the scheduler asks of the store: to count failed attempts, and to give up what is due.
//!
//! Each question runs in a task of its own and comes back as a message, so that a store which is
//! busy delays no dial. One sweep of a peer runs at a time, and two of them are a second apart.

use ractor::ActorRef;

use super::{
    RetryMsg,
    actor::{Retry, RetryState},
    agenda::Task,
};
use crate::{
    session::SessionExit,
    store::{PeerError, PeerNumber, StoreError, Swept},
};

/// Two sweeps of a peer are at least this far apart.
const SWEEPS_APART_MS: u64 = 1_000;
/// A sweep that the store did not do is tried again after this time.
const SWEEP_AGAIN_MS: u64 = 60_000;

/// One peer's sweeps.
#[derive(Debug, Default)]
pub(super) struct Sweeping {
    is_running: bool,
    /// By the wall clock; kept so that a clock that jumps can be followed.
    due_ms: Option<u64>,
    /// When the last one ended, by the monotonic clock.
    last_ms: Option<u64>,
}

impl Retry {
    /// Counts a failed attempt if it is one: somebody else's doing, without an acknowledgement,
    /// and with something waiting.
    pub(super) fn count(
        &self,
        myself: &ActorRef<RetryMsg>,
        state: &mut RetryState,
        peer: PeerNumber,
        exit: SessionExit,
    ) {
        if !exit.counts() || !self.is_awaited(peer) {
            return;
        }
        let error = PeerError {
            class: exit.class.to_u16(),
            text: exit.reason,
            at_ms: self.env.now_ms(),
        };
        let (store, myself) = (self.store.clone(), myself.clone());
        state.run(async move {
            let result = store.peer_failed(peer, error).await;
            // Nobody hears it when the scheduler is gone; the store has it.
            let _ = myself.cast(RetryMsg::Counted { peer, result });
        });
    }

    pub(super) fn on_counted(
        &self,
        state: &mut RetryState,
        peer: PeerNumber,
        result: Result<Option<u32>, StoreError>,
    ) {
        match result {
            Ok(Some(failures)) => {
                self.board.update(peer, |line| line.failures = failures);
                // The count may have been the last that a message's budget had.
                let now_ms = self.env.now_ms();
                self.plan_sweep(state, peer, Some(now_ms));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(target: "packhorse::retry", peer = peer.0, %error, "a failed attempt was not counted");
            }
        }
    }

    /// Plans the next sweep for a time of the wall clock. An earlier plan stands.
    pub(super) fn on_limited(&self, state: &mut RetryState, peer: PeerNumber, due_ms: u64) {
        let planned = state.standing(peer).sweeping.due_ms;
        if planned.is_none_or(|planned| due_ms < planned) {
            self.plan_sweep(state, peer, Some(due_ms));
        }
    }

    /// Plans the next sweep, in place of what was planned.
    pub(super) fn plan_sweep(&self, state: &mut RetryState, peer: PeerNumber, due_ms: Option<u64>) {
        let sweeping = &mut state.standing(peer).sweeping;
        sweeping.due_ms = due_ms;
        if sweeping.is_running {
            // Its end plans the next one.
            return;
        }
        let not_before_ms = sweeping
            .last_ms
            .map_or(0, |last_ms| last_ms.saturating_add(SWEEPS_APART_MS));
        let at_ms = due_ms.map(|due_ms| {
            let wait_ms = due_ms.saturating_sub(self.env.now_ms());
            let at_ms = self.env.monotonic_ms().saturating_add(wait_ms);
            at_ms.max(not_before_ms)
        });
        state.agenda.set(peer, Task::Sweep, at_ms);
    }

    /// The wall clock jumped, and with it every due time of a sweep.
    pub(super) fn replan_sweeps(&self, state: &mut RetryState) {
        for (peer, due_ms) in state.sweeps() {
            self.plan_sweep(state, peer, Some(due_ms));
        }
    }

    pub(super) fn sweep(
        &self,
        myself: &ActorRef<RetryMsg>,
        state: &mut RetryState,
        peer: PeerNumber,
    ) {
        let sweeping = &mut state.standing(peer).sweeping;
        sweeping.is_running = true;
        sweeping.due_ms = None;
        let (store, myself) = (self.store.clone(), myself.clone());
        state.run(async move {
            let result = store.sweep(peer).await;
            let _ = myself.cast(RetryMsg::Swept { peer, result });
        });
    }

    pub(super) fn on_swept(
        &self,
        state: &mut RetryState,
        peer: PeerNumber,
        result: Result<Swept, StoreError>,
    ) {
        let next_due_ms = match result {
            Ok(swept) => swept.next_due_ms,
            Err(error) => {
                tracing::warn!(target: "packhorse::retry", peer = peer.0, %error, "nothing was swept");
                Some(self.env.now_ms().saturating_add(SWEEP_AGAIN_MS))
            }
        };
        let now_ms = self.env.monotonic_ms();
        let sweeping = &mut state.standing(peer).sweeping;
        sweeping.is_running = false;
        sweeping.last_ms = Some(now_ms);
        // What was asked for while it ran may be earlier than what it found.
        let asked_ms = sweeping.due_ms.take();
        let due_ms = asked_ms.into_iter().chain(next_due_ms).min();
        self.plan_sweep(state, peer, due_ms);
    }
}

impl Sweeping {
    /// When the next one is due, by the wall clock.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }
}
