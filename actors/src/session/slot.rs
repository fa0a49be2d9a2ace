//! One peer's slot: the session that lives, the one that takes its place, the dial under way.
//!
//! Only the session supervisor holds slots; what may enter one is decided in `slots`.

use std::sync::Arc;

use packhorse_protocol::{error_class::ErrorClass, handshake::SessionId, node_id::NodeId};
use ractor::{ActorId, ActorRef};
use tokio::task::AbortHandle;

use super::{
    actor::SessionMsg,
    crossing::{Crossing, LET_IN_WITHIN},
    exit::SessionExit,
    handshake::Accepted,
    outlet::Outlet,
    slots::LiveFacts,
};
use crate::store::PeerRecord;

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) live: Option<Live>,
    /// Takes the place of `live` once that has ended.
    pub(super) next: Option<(PeerRecord, Accepted)>,
    pub(super) dial: Option<DialUnderWay>,
    /// When a dial of the peer's was let in whose link is not here yet.
    pub(super) let_in_ms: Option<u64>,
    /// The session that lives was asked to show that its peer does.
    pub(super) proof: Option<ProofOfLife>,
    /// When it was told last that two machines show one identity.
    pub(super) alarmed_ms: Option<u64>,
}

/// Which session was asked whether its peer lives, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProofOfLife {
    pub(super) session: SessionId,
    pub(super) asked_ms: u64,
}

#[derive(Debug)]
pub(super) struct Live {
    pub(super) actor: ActorRef<SessionMsg>,
    pub(super) incarnation: u64,
    pub(super) session: SessionId,
    pub(super) id: NodeId,
    pub(super) facts: LiveFacts,
    pub(super) since_ms: u64,
    pub(super) outlet: Outlet,
    pub(super) exit: Option<SessionExit>,
}

#[derive(Debug)]
pub(super) struct DialUnderWay {
    pub(super) number: u64,
    pub(super) crossing: Arc<Crossing>,
    pub(super) task: AbortHandle,
}

impl Slot {
    /// Whether a link of the peer's is about to become a session.
    pub(super) fn expects_link(&self, now_ms: u64) -> bool {
        self.let_in_ms.is_some_and(|let_in_ms| {
            u128::from(now_ms.saturating_sub(let_in_ms)) < LET_IN_WITHIN.as_millis()
        })
    }

    /// Ends what goes on with a peer that was forgotten; returns the session that is asked to end.
    /// A link that is adopted from here on ends when its session looks up whose it is.
    pub(super) fn forget(&mut self) -> Option<ActorId> {
        if let Some(dial) = self.dial.take() {
            dial.give_up(ErrorClass::Authentication);
        }
        if let Some((_, never_lived)) = self.next.take() {
            never_lived.link.close(ErrorClass::Authentication.to_u16());
        }
        let live = self.live.as_ref()?;
        let _ = live.actor.cast(SessionMsg::Revoke);
        Some(live.actor.get_id())
    }
}

impl DialUnderWay {
    /// Ends it; a peer that may have begun a session on its link is told why.
    pub(super) fn give_up(self, class: ErrorClass) {
        self.crossing.close(class);
        self.task.abort();
    }
}

impl Live {
    pub(super) fn facts(&self, now_ms: u64) -> LiveFacts {
        LiveFacts {
            age_ms: now_ms.saturating_sub(self.since_ms),
            ..self.facts
        }
    }
}
