//! Documents of what peers may do here, of forgetting them, and of what they are called.

use serde::{Deserialize, Serialize};

use crate::peer::Denied;
use crate::{Grant, NodeId, Revocation, text};

/// The body of `POST /v1/grants`; the answer is a [`PeerAnswer`](super::PeerAnswer).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// Name or id of the peer.
    pub peer: String,
    /// What it may do from now on.
    #[serde(with = "text::list")]
    pub grants: Vec<Grant>,
    /// For how long; for ever when not given.
    #[serde(default)]
    pub expires_ms: Option<u64>,
}

/// The body of `POST /v1/grants/revoke`; the answer is [`Revoked`](crate::Revoked).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Name or id of the peer.
    pub peer: String,
    /// What it may do no more: grants as they were given, or capabilities for all of theirs.
    #[serde(with = "text::list")]
    pub grants: Vec<Revocation>,
}

/// The body of `POST /v1/peers/rename`; the answer is a [`PeerAnswer`](super::PeerAnswer).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameRequest {
    /// Name or id of the peer.
    pub peer: String,
    /// Its new name.
    pub name: String,
}

/// The body of `POST /v1/peers/forget`; the answer is [`Forgotten`](crate::Forgotten).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    /// Name or id of the peer.
    pub peer: String,
}

/// The body of `POST /v1/denied/allow`, and its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRequest {
    /// Whose denial is lifted.
    #[serde(with = "text")]
    pub id: NodeId,
}

/// The answer to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Allowed {
    /// Whose denial was lifted.
    #[serde(with = "text")]
    pub id: NodeId,
}

/// The answer of `GET /v1/denied`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeniedList {
    /// Every identity that pairs no more, the oldest entry first.
    pub denied: Vec<Denied>,
}
