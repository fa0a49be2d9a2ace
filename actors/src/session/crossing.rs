//! A dial of this node's and one of the same peer's that cross: which of them goes on.
//!
//! Of the own dial only one step matters to the other one: Proof, behind which the peer may begin a
//! session on it. Whether that step is still taken is decided here, once, by whoever comes first:
//! the dial that wants to take it, or the peer's dial that wants to be let in.
//! `slots` holds the rule for two dials that have both come that far.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use packhorse_protocol::error_class::ErrorClass;
#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{self, Mutant};

use crate::link::LinkHandle;

/// A link that was let in becomes a session within this time, or is lost: a verdict and two commits.
pub(super) const LET_IN_WITHIN: Duration = Duration::from_secs(2);

/// How far a dial is.
#[derive(Debug, Default)]
enum Stage {
    /// The peer does not know yet who dials.
    #[default]
    Greeting,
    /// The peer may have begun a session on this link.
    Proving(LinkHandle),
    /// A dial of the peer's was let in first: this one proves nothing.
    GaveWay,
}

/// One dial's part in a crossing.
#[derive(Debug, Default)]
pub(super) struct Crossing(Mutex<Stage>);

impl Crossing {
    /// From the dial: may it say over this link who it is?
    pub(super) fn prove(&self, link: LinkHandle) -> bool {
        let mut stage = self.lock();
        #[cfg(feature = "sim")]
        if mutant::is(Mutant::BothCrossingLinks) {
            return true;
        }
        if matches!(*stage, Stage::GaveWay) {
            return false;
        }
        *stage = Stage::Proving(link);
        true
    }

    /// From the dial: nothing came of the link on which it said who it is; it tries others.
    pub(super) fn greet_again(&self) {
        *self.lock() = Stage::Greeting;
    }

    /// From the supervisor, which is about to let a dial of the peer's in. `false`: this dial has
    /// gone too far to give way.
    pub(super) fn give_way(&self) -> bool {
        let mut stage = self.lock();
        if matches!(*stage, Stage::Proving(_)) {
            return false;
        }
        *stage = Stage::GaveWay;
        true
    }

    /// From the supervisor: the dial is given up. ORDER: closed with a reason before the link is
    /// dropped, because a link that only ends looks to the peer like one that was lost.
    pub(super) fn close(&self, class: ErrorClass) {
        if let Stage::Proving(link) = &*self.lock() {
            link.close(class.to_u16());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
