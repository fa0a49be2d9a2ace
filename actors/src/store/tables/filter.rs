//! What a listing is asked for, and what it gives.

use super::peers::PeerNumber;

/// Which messages are meant. What is not named is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this peer.
    pub peer: Option<PeerNumber>,
    /// Only of exactly this topic.
    pub topic: Option<String>,
}

impl Filter {
    pub(super) fn takes_peer(&self, peer: PeerNumber) -> bool {
        self.peer.is_none_or(|wanted| wanted == peer)
    }

    pub(super) fn takes_topic(&self, topic: &str) -> bool {
        self.topic.as_deref().is_none_or(|wanted| wanted == topic)
    }
}

/// Some rows of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// How many there are in all.
    pub total: u64,
    /// The first of them.
    pub rows: Vec<T>,
}
