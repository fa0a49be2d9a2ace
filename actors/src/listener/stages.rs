//! What a handshake tells about how far it came, and what that changes for its link.

use std::net::SocketAddr;

use packhorse_protocol::error_class::ErrorClass;

use super::{door::Visit, gate::Full, tally::Outcome};
use crate::link::LinkBounds;

/// Bytes on the first stream before the knock: Hello takes 1,277.
pub(super) const BYTES_BEFORE_KNOCK_MAX: u64 = 2 << 10;
/// Bytes on the first stream before Verdict: Hello and Proof take 3,325.
const BYTES_BEFORE_VERDICT_MAX: u64 = 8 << 10;

/// One handshake's way from a link to its Verdict.
#[derive(Debug)]
pub struct Stages {
    visit: Visit,
    bounds: LinkBounds,
    has_knocked: bool,
}

impl Stages {
    /// A link that has shown nothing yet.
    pub(super) fn new(visit: Visit, bounds: LinkBounds) -> Self {
        Self {
            visit,
            bounds,
            has_knocked: false,
        }
    }

    /// The other end's address.
    pub(crate) const fn remote(&self) -> SocketAddr {
        self.visit.remote()
    }

    /// A valid Hello is here. ORDER: asked before the inner key agreement, which is what costs.
    ///
    /// # Errors
    /// The bound that keeps it out; the link is to be closed without a word.
    pub(crate) fn knocked(&mut self) -> Result<(), Full> {
        self.has_knocked = true;
        self.visit.knocked()?;
        self.bounds.allow(BYTES_BEFORE_VERDICT_MAX);
        Ok(())
    }

    /// An accepting Verdict is about to be sent. ORDER: told before it is, because the dialler may
    /// open its streams as soon as it has read it.
    pub(crate) fn accepted(&mut self) {
        self.bounds.lift();
    }

    /// Resolves when the link has to go: its place went to another, or it sent too much.
    pub(crate) async fn over(&mut self) -> Outcome {
        tokio::select! {
            () = self.bounds.exceeded() => Outcome::Excess,
            () = self.visit.evicted() => Outcome::Evicted,
        }
    }

    /// Whether a valid Hello was here.
    pub(super) const fn has_knocked(&self) -> bool {
        self.has_knocked
    }

    /// How it ended.
    pub(super) fn count(&self, outcome: Outcome) {
        self.visit.count(outcome);
    }

    /// It ended with a refusing Verdict.
    pub(super) fn count_refusal(&self, class: ErrorClass) {
        self.visit.count_refusal(class);
    }
}
