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

use crate::store::{PeerNumber, PeerRecord};

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
    /// Since when, in wall-clock milliseconds; 0 when it never changed.
    pub since_ms: u64,
    /// The live link, for example `quic://192.0.2.7:7433`.
    pub link: Option<String>,
    /// The live link's key-exchange group.
    pub key_exchange: Option<String>,
    /// The last heartbeat's round trip in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// The peer's wall clock minus this node's, by the peer's word. Untrusted.
    pub skew_ms: Option<i64>,
    /// When it was last heard, in wall-clock milliseconds.
    pub last_seen_ms: Option<u64>,
    /// Kept until the next session lives.
    pub last_error: Option<LastError>,
    /// When it is dialled next, in wall-clock milliseconds.
    pub next_attempt_ms: Option<u64>,
    /// Failed attempts by the store's count, as far as this process has counted; the record in the
    /// store has the whole truth.
    pub failures: u32,
    /// The live session's peer takes no messages for now: why, in its words.
    pub paused: Option<String>,
    /// How the last session ended.
    pub last_exit: Option<String>,
    /// Ephemeral messages of its that were dropped on arrival since the process began.
    pub ephemeral_dropped: u64,
}

impl PeerLine {
    /// It does something else now; the moment is kept when it really is something else.
    pub fn set_state(&mut self, state: PeerState, now_ms: u64) {
        if self.state != state {
            self.state = state;
            self.since_ms = now_ms;
        }
    }

    /// The last thing that went wrong: what this process saw, or what an earlier one wrote down and
    /// no session has lived after.
    #[must_use]
    pub fn last_error_with(&self, record: &PeerRecord) -> Option<LastError> {
        if self.state == PeerState::Connected || self.last_error.is_some() {
            return self.last_error.clone();
        }
        let seen_ms = self.last_seen_ms.max(record.last_seen_ms);
        let noted = record.last_error.as_ref();
        let noted = noted.filter(|error| Some(error.at_ms) >= seen_ms)?;
        Some(LastError {
            // A number of a newer version: what is certain is that it did not work.
            class: ErrorClass::from_u16(noted.class).unwrap_or(ErrorClass::Disconnected),
            text: noted.text.clone(),
        })
    }
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

    /// Whose sessions live, as far as is known here; nobody's from now on.
    pub(crate) fn take_links(&self) -> Vec<PeerNumber> {
        let mut lines = self.lock();
        let linked = lines
            .iter_mut()
            .filter_map(|(peer, line)| line.link.take().map(|_| *peer));
        linked.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerNumber, PeerLine>> {
        // A line is replaced field by field; a panic in between leaves a stale line, no broken one.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use packhorse_protocol::identity::IdentityKey;

    use super::*;
    use crate::store::PeerError;

    fn record(last_seen_ms: Option<u64>, failed_ms: Option<u64>) -> PeerRecord {
        let id = IdentityKey::from_seed(&[1; 32]).id();
        PeerRecord {
            last_seen_ms,
            failures: 1,
            last_error: failed_ms.map(|at_ms| PeerError {
                class: ErrorClass::Protocol.to_u16(),
                text: "noted".to_owned(),
                at_ms,
            }),
            ..PeerRecord::new(PeerNumber(1), id, "peer", 1)
        }
    }

    #[test]
    fn what_an_earlier_run_noted_is_told_until_a_session_lives_after_it() {
        let text = |line: &PeerLine, record| line.last_error_with(&record).map(|error| error.text);
        let noted = Some("noted".to_owned());
        let mut line = PeerLine::default();
        assert_eq!(text(&line, record(None, None)), None);
        assert_eq!(text(&line, record(None, Some(5))), noted);
        assert_eq!(text(&line, record(Some(4), Some(5))), noted);
        assert_eq!(text(&line, record(Some(6), Some(5))), None);
        line.last_seen_ms = Some(6);
        assert_eq!(text(&line, record(None, Some(5))), None);
        line.last_error = Some(LastError {
            class: ErrorClass::Disconnected,
            text: "now".to_owned(),
        });
        assert_eq!(text(&line, record(None, Some(7))), Some("now".to_owned()));
        line = PeerLine {
            state: PeerState::Connected,
            ..PeerLine::default()
        };
        assert_eq!(text(&line, record(None, Some(5))), None);
    }
}
