//! What was left when a node had sent what it could.

use serde::{Deserialize, Serialize};

use crate::status::PeerState;

/// The end of a drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Messages that were still on their way to somebody reachable when the time was over.
    pub cut_off: u64,
    /// Messages that stay for a later start.
    pub waiting: u64,
    /// Who they wait for.
    pub peers: Vec<DrainedPeer>,
}

/// A peer for which messages stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedPeer {
    /// Its name here.
    pub name: String,
    /// What was going on with it.
    pub state: PeerState,
    /// How many wait.
    pub waiting: u64,
}
