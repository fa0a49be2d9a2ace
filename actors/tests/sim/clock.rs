//! A machine's clocks: the simulation's time, and a wall clock that somebody may set.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use packhorse_actors::env::Clock;

/// When every simulation begins, in wall milliseconds.
pub(crate) const BEGINNING_MS: u64 = 1_750_000_000_000;

/// Time as one machine sees it.
#[derive(Debug, Default)]
pub(crate) struct SimClock {
    ahead_ms: AtomicI64,
}

impl SimClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sets the wall clock forward, or back.
    pub(crate) fn jump(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        (BEGINNING_MS + now_ms()).saturating_add_signed(ahead)
    }

    fn monotonic_ms(&self) -> u64 {
        now_ms()
    }
}

/// Milliseconds since the simulation began.
pub(crate) fn now_ms() -> u64 {
    let elapsed = turmoil::sim_elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
