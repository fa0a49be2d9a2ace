//! Peers and how nodes become peers, as callers see it.
//!
//! Plain values; pairing itself is the handshake's and the store's work.
//! `grants` is always what the *peer* may do *here*; `granted` is what *we* may do *there*.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// Where it was reached or says that it can be reached.
    pub addresses: Vec<String>,
    /// What it may do here.
    #[serde(with = "text::list")]
    pub grants: Vec<Grant>,
    /// What this node may do there.
    #[serde(with = "text::list")]
    pub granted: Vec<Grant>,
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
}

impl Default for Invite {
    /// Nothing granted, ten minutes, one use.
    fn default() -> Invite {
        Invite {
            grants: Vec::new(),
            expires: TICKET_EXPIRES_DEFAULT,
            uses: 1,
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
