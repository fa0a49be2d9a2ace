//! The handle's side of the event ring.

use tokio::sync::watch;

use crate::events::{EventPage, Fact};

use super::error::StoreError;
use super::handle::StoreHandle;
use super::tables::events;

impl StoreHandle {
    /// Writes facts that were told, each with the time at which it was.
    pub(crate) async fn append_facts(&self, facts: Vec<(u64, Fact)>) -> Result<(), StoreError> {
        self.write(0, move |view| {
            for (at_ms, fact) in facts {
                view.fact_at(at_ms, fact);
            }
            Ok(())
        })
        .await
    }

    /// Answers when the writer has run an empty job: it lives, and it is not stuck.
    pub(crate) async fn pulse(&self) -> Result<(), StoreError> {
        self.write(0, |_| Ok(())).await
    }

    /// The events behind number `after`, oldest first, at most `limit` and at most 1,024.
    pub async fn events_since(&self, after: u64, limit: usize) -> Result<EventPage, StoreError> {
        self.read(move |reader| Ok(events::since(reader, after, limit)?))
            .await
    }

    /// The newest event's number, now and whenever it grows; 0 before the first.
    #[must_use]
    pub fn newest_event(&self) -> watch::Receiver<u64> {
        self.shared.signals.newest_event()
    }
}

#[cfg(feature = "fault")]
impl StoreHandle {
    /// Deaths of the writer that a test orders.
    pub(crate) fn faults(&self) -> crate::fault::FaultPlan {
        self.shared.faults.clone()
    }
}
