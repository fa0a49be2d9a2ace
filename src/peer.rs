//! Peers and how nodes become peers, as callers see it.
//!
//! Plain values; pairing itself is the handshake's and the store's work.
//! `grants` is always what the *peer* may do *here*; `granted` is what *we* may do *there*.

use std::collections::BTreeMap;
use std::time::Duration;

use packhorse_protocol::grant::Revocation;
use serde::{Deserialize, Serialize};

use crate::time::WallTime;
use crate::{Grant, NodeId, text};

/// How long a ticket lives unless told otherwise.
pub const TICKET_EXPIRES_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// A node that this one has paired with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its name here.
    pub name: String,
    /// Its node id.
    #[serde(with = "text")]
    pub id: NodeId,
    /// Where it was reached or says that it can be reached, the latter first. What it said before
    /// stays behind until it was met where it says that it is.
    pub addresses: Vec<String>,
    /// Where it is dialled first, because somebody here said so.
    #[serde(default)]
    pub own_addresses: Vec<String>,
    /// When a link to it is kept.
    #[serde(default)]
    pub keep: Keep,
    /// What it may do here.
    #[serde(with = "text::list")]
    pub grants: Vec<Grant>,
    /// When those of them end that do not last for ever.
    #[serde(default)]
    pub ends: BTreeMap<String, WallTime>,
    /// What this node may do there.
    #[serde(with = "text::list")]
    pub granted: Vec<Grant>,
}

/// When a link to a peer is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Dialled once at start and when the network changes, and while something waits for it; held
    /// all the time by a node that nobody can dial.
    #[default]
    Auto,
    /// Dialled whenever there is no session.
    Always,
    /// Never dialled, whatever waits for it: it has to dial this node.
    Never,
}

impl Keep {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Keep::Auto => "auto",
            Keep::Always => "always",
            Keep::Never => "never",
        }
    }
}

/// What came of taking grants away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The peer as it is now.
    pub peer: PeerInfo,
    /// What it holds no more.
    #[serde(with = "text::list")]
    pub revoked: Vec<Grant>,
    /// What it did not hold.
    #[serde(with = "text::list")]
    pub missing: Vec<Revocation>,
}

/// What came of forgetting a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Its name here.
    pub name: String,
    /// Its node id, which pairs no more.
    #[serde(with = "text")]
    pub id: NodeId,
    /// Tickets it came by that could still have paired somebody, and were taken back.
    pub tickets: usize,
    /// Messages for it that are dead letters now.
    pub outgoing: u64,
    /// Messages of it that are dead letters now.
    pub incoming: u64,
    /// Ephemeral messages of it that were dropped.
    pub ephemeral: usize,
}

/// An identity that pairs no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// Which one.
    #[serde(with = "text")]
    pub id: NodeId,
    /// What it was called here.
    pub name: String,
    /// Since when.
    pub at: WallTime,
}

/// Whether a ticket pairs, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteState {
    /// It pairs.
    Open,
    /// All its uses are spent.
    UsedUp,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

impl InviteState {
    /// As people read it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            InviteState::Open => "open",
            InviteState::UsedUp => "used up",
            InviteState::Expired => "expired",
            InviteState::Revoked => "revoked",
        }
    }
}

impl std::fmt::Display for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// A word that says nothing about keeping links.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no way to keep a link: auto, always or never")]
pub struct KeepError {
    text: String,
}

impl std::str::FromStr for Keep {
    type Err = KeepError;

    fn from_str(text: &str) -> Result<Keep, KeepError> {
        let all = [Keep::Auto, Keep::Always, Keep::Never];
        let found = all.into_iter().find(|keep| keep.word() == text);
        found.ok_or_else(|| KeepError {
            text: text.to_owned(),
        })
    }
}

/// A ticket that was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteInfo {
    /// The beginning of its id; it is no secret.
    pub id: String,
    /// Whether it pairs.
    pub state: InviteState,
    /// What whoever uses it may do here.
    #[serde(with = "text::list")]
    pub grants: Vec<Grant>,
    /// How long the grants last from the moment of joining; for ever when null.
    pub grants_for_ms: Option<u64>,
    /// When it was made.
    pub made: WallTime,
    /// When it ends.
    pub expires: WallTime,
    /// How many more nodes may use it.
    pub uses_left: u32,
    /// Who used it, in that order.
    pub users: Vec<InviteUser>,
}

/// A node that used a ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteUser {
    /// Which one.
    #[serde(with = "text")]
    pub id: NodeId,
    /// Its name here; empty when nothing is known of it any more.
    pub name: String,
    /// Both sides show the same text; people who care compare it.
    pub compare: Option<String>,
}

/// What a new ticket gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// What whoever uses the ticket may do here.
    pub grants: Vec<Grant>,
    /// How long the ticket lives.
    pub expires: Duration,
    /// How many nodes may use it.
    pub uses: u32,
    /// How long the grants last, from the moment of joining; for ever when not given.
    pub grants_for: Option<Duration>,
}

impl Default for Invite {
    /// Nothing granted, ten minutes, one use.
    fn default() -> Invite {
        Invite {
            grants: Vec::new(),
            expires: TICKET_EXPIRES_DEFAULT,
            uses: 1,
            grants_for: None,
        }
    }
}

/// How to use a ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// The inviter's name here; without one its own name is taken.
    pub name: Option<String>,
    /// What the inviter may do here.
    pub grants: Vec<Grant>,
}

/// A pairing that both sides have committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The inviter, as it is known here now.
    pub peer: PeerInfo,
    /// Both sides show the same text; people who care compare it.
    pub compare: String,
}
