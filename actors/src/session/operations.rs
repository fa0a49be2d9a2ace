//! What a session's machine asks of the store, one task per question.
//!
//! Each ends in the one input that answers it; a store that is full is an answer too.

use packhorse_protocol::session::{Input, Output};

use super::driver::Driver;
use crate::store::StoreError;

impl Driver {
    /// Store operations run beside the driver; the machine allows one of each kind per lane.
    pub(super) fn on_operation(&mut self, output: Output) {
        let store = self.wiring.store.clone();
        let peer = self.peer;
        #[cfg(feature = "sim")]
        self.tell_work(&output);
        match output {
            Output::ReadLines { lane } => self.operations.spawn(async move {
                let spans = store.lines(peer, lane).await?;
                Ok(Input::Lines { lane, spans })
            }),
            Output::Load {
                lane,
                after,
                count_max,
                bytes_max,
            } => self.operations.spawn(async move {
                let (rows, exhausted) = store.load(peer, lane, after, count_max, bytes_max).await?;
                Ok(Input::Rows {
                    lane,
                    rows,
                    exhausted,
                })
            }),
            Output::ReadMarks { lane, epochs } => self.operations.spawn(async move {
                let (marks, refusals) = store.marks(peer, lane, epochs).await?;
                Ok(Input::MarksRead {
                    lane,
                    marks,
                    refusals,
                })
            }),
            Output::Store { lane, items } => self.operations.spawn(async move {
                match store.store_inbound(peer, lane, items).await {
                    Ok((marks, refusals)) => Ok(Input::Stored {
                        lane,
                        marks,
                        refusals,
                    }),
                    Err(error @ StoreError::Full { .. }) => Ok(Input::StorePaused {
                        lane,
                        reason: error.to_string(),
                    }),
                    Err(error) => Err(error),
                }
            }),
            Output::Settle {
                lane,
                opening,
                marks,
                refusals,
            } => self.operations.spawn(async move {
                if opening {
                    store.settle_opening(peer, lane, marks, refusals).await?;
                } else {
                    store.settle(peer, lane, marks, refusals).await?;
                }
                Ok(Input::Settled { lane })
            }),
            Output::Confirm { lane, refusals } => self.operations.spawn(async move {
                store.confirm_refusals(peer, lane, refusals).await?;
                Ok(Input::Confirmed { lane })
            }),
            _ => return,
        };
    }

    /// For whoever holds that a session which was displaced does nothing.
    #[cfg(feature = "sim")]
    fn tell_work(&self, output: &Output) {
        let what = match output {
            Output::Load { .. } => "load",
            Output::Store { .. } => "store",
            Output::Settle { .. } => "settle",
            Output::Confirm { .. } => "confirm",
            _ => return,
        };
        let (name, wiring) = (format!("session {}", self.peer.0), &self.wiring);
        let works = crate::supervise::Life::Works(what);
        wiring.probe.tell(&name, wiring.incarnation, works);
    }
}
