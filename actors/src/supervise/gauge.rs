//! How many messages wait in a mailbox.
//!
//! ractor's mailboxes have no length that can be asked, so senders raise a gauge and the wrapper
//! around the actor lowers it. What an actor tells itself is not counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The depth of one incarnation's mailbox; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge {
    depth: Arc<AtomicU64>,
}

impl Gauge {
    pub(super) fn raise(&self) {
        self.depth.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lower(&self) {
        // A message that was sent around the gauge must not make it wrap.
        let _ = self
            .depth
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |depth| {
                depth.checked_sub(1)
            });
    }

    pub(super) fn now(&self) -> u64 {
        self.depth.load(Ordering::Relaxed)
    }
}
