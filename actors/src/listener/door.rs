//! The door: one gate for all listeners of a node, with the node's clocks, counted.
//!
//! Everybody who meets a stranger asks here; each answer is given at once, under a lock that is
//! held for microseconds and never across an await.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use packhorse_protocol::error_class::ErrorClass;
use tokio::sync::oneshot;

use super::{
    gate::{Full, Gate, Now, Offer},
    prefix::Prefix,
    slots::SlotId,
    tally::{Outcome, StrangerCounts, Tally},
};
use crate::{
    env::Env,
    link::{BeginEnd, Doorkeeper, Welcome},
};

/// The node's door; clones are the same door.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    env: Env,
    state: Mutex<State>,
}

struct State {
    gate: Gate,
    tally: Tally,
    /// Who holds a cheap place, so that it hears of losing it.
    visitors: BTreeMap<SlotId, oneshot::Sender<()>>,
}

impl Door {
    /// Nobody is here yet.
    #[must_use]
    pub fn new(env: Env) -> Self {
        let gate = Gate::new(now(&env));
        let state = Mutex::new(State {
            gate,
            tally: Tally::default(),
            visitors: BTreeMap::new(),
        });
        Self(Arc::new(Inner { env, state }))
    }

    /// A link is up; it holds a place until its visit is dropped.
    #[must_use]
    pub fn arrive(&self, remote: SocketAddr) -> Visit {
        let prefix = Prefix::of(remote.ip());
        let (told, evicted) = oneshot::channel();
        let now = now(&self.0.env);
        let mut state = self.lock();
        let (slot, losers) = state.gate.arrive(prefix, now);
        state.visitors.insert(slot, told);
        state.tally.count(Outcome::Arrived, now.monotonic_ms);
        for loser in losers {
            // Dropping the sender is what tells it.
            state.visitors.remove(&loser);
        }
        drop(state);
        Visit {
            door: self.clone(),
            remote,
            slot,
            evicted,
        }
    }

    /// A peer authenticated from there, so links from there find a place also in a flood.
    pub fn note_known(&self, remote: SocketAddr, at_ms: u64) {
        self.lock().gate.note_known(Prefix::of(remote.ip()), at_ms);
    }

    /// Links from there are a stranger's again.
    pub fn forget_known(&self, remote: SocketAddr) {
        self.lock().gate.forget_known(Prefix::of(remote.ip()));
    }

    /// Something became of a stranger.
    pub fn count(&self, outcome: Outcome) {
        let at_ms = self.0.env.monotonic_ms();
        self.lock().tally.count(outcome, at_ms);
    }

    /// A dialler who proved who it is was refused by verdict.
    pub fn count_refusal(&self, class: ErrorClass) {
        self.lock().tally.count_refusal(class);
    }

    /// What was counted so far, and what is going on now.
    #[must_use]
    pub fn counts(&self) -> StrangerCounts {
        let at_ms = self.0.env.monotonic_ms();
        let mut state = self.lock();
        StrangerCounts {
            half_open: state.gate.half_open().len(),
            cheap: state.gate.cheap().len(),
            costly: state.gate.costly().len(),
            known_prefixes: state.gate.known().count(),
            ..state.tally.counts(at_ms)
        }
    }

    /// How many were turned away in the minute that is over, if they were many; each minute once.
    #[must_use]
    pub fn flood(&self) -> Option<u64> {
        let at_ms = self.0.env.monotonic_ms();
        self.lock().tally.flood(at_ms)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole before the lock is given back; a panic leaves counts, no broken map.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Door")
    }
}

impl Doorkeeper for Door {
    fn on_offer(&self, remote: SocketAddr) -> Welcome {
        let now = now(&self.0.env);
        let mut state = self.lock();
        let (outcome, welcome) = match state.gate.offer(Prefix::of(remote.ip()), now) {
            Offer::Allow => (Outcome::Admitted, Welcome::Allow),
            Offer::Retry => (Outcome::Retried, Welcome::Prove),
            Offer::Drop(full) => (dropped(full), Welcome::Ignore),
        };
        state.tally.count(outcome, now.monotonic_ms);
        welcome
    }

    fn has_room(&self, remote: SocketAddr) -> bool {
        let now = now(&self.0.env);
        let mut state = self.lock();
        match state.gate.room(Prefix::of(remote.ip()), now) {
            Ok(()) => true,
            Err(full) => {
                state.tally.count(dropped(full), now.monotonic_ms);
                false
            }
        }
    }

    fn on_proven(&self, remote: SocketAddr) -> bool {
        let now = now(&self.0.env);
        let mut state = self.lock();
        let entered = state.gate.enter(Prefix::of(remote.ip()), now);
        let outcome = entered.map_or_else(dropped, |()| Outcome::Admitted);
        state.tally.count(outcome, now.monotonic_ms);
        entered.is_ok()
    }

    fn on_begun(&self, remote: SocketAddr) -> u64 {
        let now = now(&self.0.env);
        self.lock().gate.begin(Prefix::of(remote.ip()), now).0
    }

    fn on_over(&self, begun: u64, end: BeginEnd) {
        let at_ms = self.0.env.monotonic_ms();
        let mut state = self.lock();
        state.gate.end(SlotId(begun));
        match end {
            BeginEnd::Link => {}
            BeginEnd::Failed => state.tally.count(Outcome::HalfOpenEnded, at_ms),
            BeginEnd::Cut => state.tally.count(Outcome::HalfOpenExcess, at_ms),
        }
    }
}

/// One link's stay between the transport and its Verdict.
///
/// It holds the link's place and gives it back when dropped.
pub struct Visit {
    door: Door,
    remote: SocketAddr,
    slot: SlotId,
    evicted: oneshot::Receiver<()>,
}

impl Visit {
    /// The other end's address.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Its Hello knocked: asked before anything dear is done about it.
    ///
    /// # Errors
    /// The bound that keeps it out; the link is to be closed without a word.
    pub fn knocked(&mut self) -> Result<(), Full> {
        let now = now(&self.door.0.env);
        let mut state = self.door.lock();
        let prefix = Prefix::of(self.remote.ip());
        let knocked = state.gate.knock(self.slot, prefix, now);
        let outcome = match knocked {
            Ok(()) => Outcome::Knocked,
            Err(Full::Knocks) => Outcome::TooManyKnocks,
            Err(_) => Outcome::CostlyFull,
        };
        state.tally.count(outcome, now.monotonic_ms);
        knocked
    }

    /// Resolves when a newer link took this one's place; never after a knock.
    pub async fn evicted(&mut self) {
        let _ = (&mut self.evicted).await;
    }

    /// What became of it.
    pub fn count(&self, outcome: Outcome) {
        self.door.count(outcome);
    }

    /// It was refused by verdict.
    pub fn count_refusal(&self, class: ErrorClass) {
        self.door.count_refusal(class);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut state = self.door.lock();
        state.gate.leave(self.slot);
        state.visitors.remove(&self.slot);
    }
}

impl fmt::Debug for Visit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Visit")
            .field("remote", &self.remote)
            .field("slot", &self.slot)
            .finish_non_exhaustive()
    }
}

fn now(env: &Env) -> Now {
    Now {
        monotonic_ms: env.monotonic_ms(),
        wall_ms: env.now_ms(),
    }
}

fn dropped(full: Full) -> Outcome {
    match full {
        Full::LinksOfPrefix => Outcome::DroppedPrefix,
        Full::HalfOpen => Outcome::DroppedHalfOpen,
        _ => Outcome::DroppedLinks,
    }
}
