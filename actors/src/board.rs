//! What every peer is doing right now, for status and for people.
//!
//! Sessions, the dialler and the retry scheduler write here; status reads.
//! Nobody decides anything from it: decisions travel in mailboxes.
//! It holds nothing that matters after a restart of the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use packhorse_protocol::error_class::ErrorClass;

use crate::store::PeerNumber;

/// What a peer is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerState {
    /// A session lives.
    Connected,
    /// A dial is under way.
    Dialling,
    /// The next dial is planned.
    Waiting,
    /// Nothing waits for it, no dial is planned.
    Idle,
    /// It refused this node; dials go on, slowly.
    Refused,
    /// No session with it has lived since it was paired.
    #[default]
    NeverSeen,
}

/// The last thing that went wrong with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// Who can act, and how dials go on.
    pub class: ErrorClass,
    /// What a person is told.
    pub text: String,
}

/// One peer's line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerLine {
    /// What it is doing.
    pub state: PeerState,
    /// The live link, for example `quic://192.0.2.7:7433`.
    pub link: Option<String>,
    /// The live link's key-exchange group.
    pub key_exchange: Option<String>,
    /// The last heartbeat's round trip in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// When it was last heard, in wall-clock milliseconds.
    pub last_seen_ms: Option<u64>,
    /// Kept until the next session lives.
    pub last_error: Option<LastError>,
    /// When it is dialled next, in wall-clock milliseconds.
    pub next_attempt_ms: Option<u64>,
}

/// The lines of all peers; clones show the same board.
#[derive(Clone, Debug, Default)]
pub struct Board {
    lines: Arc<Mutex<BTreeMap<PeerNumber, PeerLine>>>,
}

impl Board {
    /// Changes one peer's line.
    pub fn update(&self, peer: PeerNumber, change: impl FnOnce(&mut PeerLine)) {
        change(self.lock().entry(peer).or_default());
    }

    /// One peer's line as it is now.
    #[must_use]
    pub fn line(&self, peer: PeerNumber) -> PeerLine {
        self.lock().get(&peer).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerNumber, PeerLine>> {
        // A line is replaced field by field; a panic in between leaves a stale line, no broken one.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
