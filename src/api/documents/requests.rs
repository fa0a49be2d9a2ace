//! Documents of pairing without a ticket.

use serde::{Deserialize, Serialize};

use crate::peer::PeerInfo;
use crate::request::{Asked, RequestInfo, RequestState};
use crate::{Grant, NodeId, text};

/// Names of the documents.
pub mod schema {
    /// Who asks here, and whom this node asks.
    pub const REQUESTS: &str = "packhorse.requests.v1";
    /// How far asking came.
    pub const ASKED: &str = "packhorse.asked.v1";
    /// A request that was approved.
    pub const APPROVED: &str = "packhorse.approved.v1";
    /// A request that was rejected.
    pub const REJECTED: &str = "packhorse.rejected.v1";
}

/// The body of `POST /v1/requests`; the answer is [`AskedAnswer`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskRequest {
    /// Who is asked.
    #[serde(with = "text")]
    pub node: NodeId,
    /// Where, as `HOST:PORT`.
    pub address: String,
    /// What the person there reads.
    #[serde(default)]
    pub message: String,
    /// What it is called here.
    #[serde(default)]
    pub name: Option<String>,
    /// What it may do here once it is a peer.
    #[serde(default, with = "text::list")]
    pub grants: Vec<Grant>,
}

/// The query of `GET /v1/requests/asked`; the answer is [`AskedAnswer`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedQuery {
    /// Who is asked.
    #[serde(with = "text")]
    pub node: NodeId,
    /// How long to wait for a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// How far asking came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedAnswer {
    /// `approved` once both are paired.
    pub state: RequestState,
    /// The peer, once it is one.
    pub peer: Option<PeerInfo>,
    /// The request, until then.
    pub request: Option<RequestInfo>,
}

impl From<Asked> for AskedAnswer {
    fn from(asked: Asked) -> AskedAnswer {
        match asked {
            Asked::Paired(peer) => AskedAnswer {
                state: RequestState::Approved,
                peer: Some(peer),
                request: None,
            },
            Asked::Waits(request) | Asked::Refused(request) => AskedAnswer {
                state: request.state,
                peer: None,
                request: Some(request),
            },
        }
    }
}

/// The body of `POST /v1/requests/approve`; the answer is [`Approved`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// Its id, the beginning of it, or its name.
    pub request: String,
    /// What the node is called here.
    #[serde(default)]
    pub name: Option<String>,
    /// What it may do here.
    #[serde(default, with = "text::list")]
    pub grants: Vec<Grant>,
}

/// The answer: a new peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// It, as it is known here now.
    pub peer: PeerInfo,
}

/// The body of `POST /v1/requests/reject`; the answer is [`Rejected`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectRequest {
    /// Its id, the beginning of it, or its name.
    pub request: String,
    /// Whether its node is denied for good.
    #[serde(default)]
    pub deny: bool,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Whose request it was, or to whom.
    #[serde(with = "text")]
    pub node: NodeId,
    /// Whether the node is denied for good.
    pub denied: bool,
}
