//! Documents of tickets.

use serde::{Deserialize, Serialize};

use crate::peer::InviteInfo;
use crate::time::WallTime;
use crate::{Grant, Ticket, text};

/// The body of `POST /v1/invites`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// What whoever uses the ticket may do here.
    #[serde(default, with = "text::list")]
    pub grants: Vec<Grant>,
    /// How long the ticket lives.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// How many nodes may use it.
    #[serde(default)]
    pub uses: Option<u32>,
    /// How long the grants last, from the moment of joining; for ever when not given.
    #[serde(default)]
    pub grants_for_ms: Option<u64>,
}

/// The answer: a new ticket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invited {
    /// The ticket: a secret until it is used.
    #[serde(with = "text")]
    pub ticket: Ticket,
    /// The beginning of its id, which is no secret.
    #[serde(default)]
    pub id: String,
    /// What whoever uses the ticket may do here.
    #[serde(with = "text::list")]
    pub grants: Vec<Grant>,
    /// How long the grants last, from the moment of joining; for ever when null.
    #[serde(default)]
    pub grants_for_ms: Option<u64>,
    /// When it ends.
    pub expires: WallTime,
    /// How many nodes may use it.
    pub uses: u32,
}

/// The answer of `GET /v1/invites`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Invites {
    /// Every ticket that is remembered, the newest last.
    pub invites: Vec<InviteInfo>,
}

/// The body of `POST /v1/invites/revoke`: ids or all, not both.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeInvitesRequest {
    /// Ids of tickets, or beginnings of them.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Every ticket.
    #[serde(default)]
    pub all: bool,
}

/// The answer to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RevokedInvites {
    /// Those that could still have paired somebody.
    pub revoked: Vec<String>,
}
