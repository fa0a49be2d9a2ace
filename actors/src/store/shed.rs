//! Gives space back that the engine holds for nothing, when the disk is short.
//!
//! Delivered messages lie in tables and journals until the engine has a reason to rewrite them,
//! and a node that takes no new work gives it none: it would stay full of its own leavings.
//! This runs beside the writer, one at a time and seldom, because it reads and writes what is kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::engine::Engine;
use super::pause;

/// How long after one began the next may begin.
const EVERY_MS: u64 = 30_000;
/// How often, and at most how many times, a close looks whether one is under way: 10 s in all.
const END_POLL: Duration = Duration::from_millis(5);
const END_POLLS_MAX: u128 = 2_000;

/// Whether one is under way, and when the next may begin.
#[derive(Debug, Default)]
pub(crate) struct Shed {
    is_under_way: Arc<AtomicBool>,
    next_ms: AtomicU64,
}

impl Shed {
    /// Begins one unless one is under way or was begun lately. `live` is what the boxes hold.
    pub(crate) fn ask(&self, engine: &Arc<dyn Engine>, live: u64, monotonic_ms: u64) {
        if monotonic_ms < self.next_ms.load(Ordering::Acquire)
            || self.is_under_way.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.next_ms
            .store(monotonic_ms.saturating_add(EVERY_MS), Ordering::Release);
        let (engine, is_under_way) = (Arc::clone(engine), Arc::clone(&self.is_under_way));
        let begun = std::thread::Builder::new()
            .name("packhorse-shed".into())
            .spawn(move || {
                // A panic of the engine's is its own; the flag must fall all the same.
                let shed = catch_unwind(AssertUnwindSafe(|| engine.shed(live)));
                // ORDER: the engine is let go before anybody waits no more for it.
                drop(engine);
                is_under_way.store(false, Ordering::Release);
                if shed.is_err() {
                    tracing::warn!("giving space back panicked");
                }
            });
        if let Err(error) = begun {
            self.is_under_way.store(false, Ordering::Release);
            tracing::warn!(%error, "space is not given back");
        }
    }

    /// Waits for one that is under way: it keeps the database open.
    pub(crate) fn wait(&self) {
        let is_over = || !self.is_under_way.load(Ordering::Acquire);
        if !pause::poll(END_POLLS_MAX, END_POLL, is_over) {
            tracing::warn!("giving space back outlives the store");
        }
    }
}
