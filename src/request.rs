//! Pairing without a ticket, as callers see it: who asks here, and whom this node asks.
//!
//! Plain values; what becomes of a request is decided by a person, or by the application's own
//! function, see [`NodeBuilder::decide_strangers`](crate::NodeBuilder::decide_strangers).

use serde::{Deserialize, Serialize};

use crate::peer::PeerInfo;
use crate::time::WallTime;
use crate::{Grant, NodeId, text};

/// How to ask a node to be paired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// What it is called here; without one its own name is taken.
    pub name: Option<String>,
    /// What it may do here once it is a peer.
    pub grants: Vec<Grant>,
    /// What the person there reads; at most 256 bytes, perhaps nothing.
    pub message: String,
}

/// How to say yes to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approval {
    /// What the node is called here; without one its own name is taken.
    pub name: Option<String>,
    /// What it may do here.
    pub grants: Vec<Grant>,
}

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RequestState {
    /// The other side has not heard it yet.
    Unheard,
    /// It waits for a decision.
    Waiting,
    /// Somebody said yes.
    Approved,
    /// Somebody said no, or nobody answered in time.
    Rejected,
}

impl RequestState {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            RequestState::Unheard => "unheard",
            RequestState::Waiting => "waiting",
            RequestState::Approved => "approved",
            RequestState::Rejected => "rejected",
        }
    }
}

/// A request, in either direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestInfo {
    /// The other node.
    #[serde(with = "text")]
    pub id: NodeId,
    /// What it calls itself, or what it is to be called here; empty when neither is known.
    pub name: String,
    /// What the person who decides reads.
    pub message: String,
    /// How far it came.
    pub state: RequestState,
    /// Where it came from, or where it goes.
    pub addresses: Vec<String>,
    /// When it was made.
    pub asked: WallTime,
    /// When the nodes spoke about it last, as far as they did.
    pub last: Option<WallTime>,
    /// What the other side answered last, or why it was not reached.
    pub answer: Option<String>,
    /// When the other side is asked next.
    pub next: Option<WallTime>,
    /// What the other node may do here once it is a peer.
    #[serde(with = "text::list")]
    pub grants: Vec<Grant>,
}

/// The requests of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Whether this node takes requests.
    pub open: bool,
    /// Who asks here; the oldest first.
    pub received: Vec<RequestInfo>,
    /// Whom this node asks; the oldest first.
    pub sent: Vec<RequestInfo>,
}

/// How far asking came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Both sides are paired.
    Paired(PeerInfo),
    /// The node goes on asking.
    Waits(RequestInfo),
    /// The answer was no, or none came in time.
    Refused(RequestInfo),
}
