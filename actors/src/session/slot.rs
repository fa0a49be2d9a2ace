//! One peer's slot: the session that lives, the one that takes its place, the dial under way.
//!
//! Only the session supervisor holds slots; what may enter one is decided in `slots`.

use std::sync::{Arc, atomic::AtomicBool};

use packhorse_protocol::{handshake::SessionId, node_id::NodeId};
use ractor::ActorRef;
use tokio::task::AbortHandle;

use super::{
    actor::SessionMsg, exit::SessionExit, handshake::Accepted, outlet::Outlet, slots::LiveFacts,
};
use crate::store::PeerRecord;

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) live: Option<Live>,
    /// Takes the place of `live` once that has ended.
    pub(super) next: Option<(PeerRecord, Accepted)>,
    pub(super) dial: Option<DialUnderWay>,
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
    pub(super) past_hello: Arc<AtomicBool>,
    pub(super) task: AbortHandle,
}

impl Live {
    pub(super) fn facts(&self, now_ms: u64) -> LiveFacts {
        LiveFacts {
            age_ms: now_ms.saturating_sub(self.since_ms),
            ..self.facts
        }
    }
}
