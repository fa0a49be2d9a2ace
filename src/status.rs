//! What a node tells about itself and its peers.
//!
//! Plain values in the shape of the published document `packhorse.status.v1`.
//! For every peer it answers one question: what is it waiting for?

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::insight::Strangers;
use crate::peer::Keep;
use crate::storage::StorageStatus;
use crate::time::WallTime;
use crate::{NodeId, text};

/// A node and all of its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node id.
    #[serde(with = "text")]
    pub node: NodeId,
    /// The name that it announces.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Since it was started.
    pub uptime_ms: u64,
    /// Where it listens, as `quic://HOST:PORT`.
    #[serde(default)]
    pub listen: Vec<String>,
    /// What it tells others to dial.
    #[serde(default)]
    pub advertise: Vec<String>,
    /// How much room it has.
    #[serde(default)]
    pub storage: StorageStatus,
    /// Every peer, by name.
    pub peers: Vec<PeerStatus>,
    /// What became of links whose other end was not known.
    #[serde(default)]
    pub strangers: Strangers,
}

/// One peer, as this node sees it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name here.
    pub name: String,
    /// Its node id.
    #[serde(with = "text")]
    pub id: NodeId,
    /// What is going on with it.
    pub state: PeerState,
    /// The live link, as `quic://HOST:PORT`.
    pub link: Option<String>,
    /// The key agreement of the live link: `X25519MLKEM768`.
    pub key_exchange: Option<String>,
    /// The last heartbeat's round trip on the live session.
    pub round_trip_ms: Option<f64>,
    /// Messages that wait for it.
    pub outbox: u64,
    /// Age of the oldest of them.
    pub oldest_waiting_ms: Option<u64>,
    /// When a session with it was last alive.
    pub last_seen: Option<WallTime>,
    /// Why the last attempt or session ended, until one succeeds.
    pub last_error: Option<PeerFault>,
    /// When it is dialled next.
    pub next_attempt: Option<WallTime>,
    /// Since when it is in this state.
    pub since: Option<WallTime>,
    /// Failed attempts to reach it since it was paired; the number only rises.
    pub failures: u32,
    /// Why it takes no messages now although it is connected, in its own words.
    pub paused: Option<String>,
    /// Its wall clock minus this node's, by its own word.
    pub skew_ms: Option<i64>,
    /// When a link to it is kept.
    #[serde(default)]
    pub keep: Keep,
    /// A copy or a store that was set back, until it is over.
    pub trouble: Option<PeerTrouble>,
}

/// What is going on with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PeerState {
    /// A session is alive.
    #[serde(rename = "connected")]
    Connected,
    /// A dial or handshake is under way.
    #[serde(rename = "dialling")]
    Dialling,
    /// Something waits for it; the next attempt has a time.
    #[serde(rename = "waiting")]
    Waiting,
    /// Nothing waits for it and no session is held.
    #[serde(rename = "idle")]
    Idle,
    /// It does not accept this node.
    #[serde(rename = "refused")]
    Refused,
    /// Paired, but no session ever was.
    #[serde(rename = "never seen")]
    NeverSeen,
}

impl PeerState {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            PeerState::Connected => "connected",
            PeerState::Dialling => "dialling",
            PeerState::Waiting => "waiting",
            PeerState::Idle => "idle",
            PeerState::Refused => "refused",
            PeerState::NeverSeen => "never seen",
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why a peer could not be reached or a session with it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFault {
    /// The class of the error, as the protocol names it: `disconnected`, `authentication`.
    pub class: String,
    /// What happened.
    pub text: String,
}

/// A copied machine or a store that was set back, here or at a peer: a person should look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerTrouble {
    /// What was seen.
    pub text: String,
    /// When it was seen last.
    pub at: WallTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_published_shape() {
        let id = crate::testing::node_id();
        let status = Status {
            node: id,
            name: "left".into(),
            version: "0.1.0".into(),
            uptime_ms: 1_500,
            listen: vec!["quic://0.0.0.0:7433".into()],
            advertise: vec!["quic://left.example:7433".into()],
            storage: StorageStatus::default(),
            peers: vec![PeerStatus {
                name: "right".into(),
                id,
                state: PeerState::NeverSeen,
                link: Some("quic://127.0.0.1:7433".into()),
                key_exchange: Some("X25519MLKEM768".into()),
                round_trip_ms: Some(0.25),
                outbox: 7,
                oldest_waiting_ms: Some(12),
                last_seen: Some(WallTime(1_763_724_600_123)),
                last_error: Some(PeerFault {
                    class: "disconnected".into(),
                    text: "gone".into(),
                }),
                next_attempt: None,
                since: Some(WallTime(1_763_724_600_123)),
                failures: 2,
                paused: None,
                skew_ms: Some(-7),
                keep: Keep::Always,
                trouble: Some(PeerTrouble {
                    text: "set back".into(),
                    at: WallTime(1_763_724_600_123),
                }),
            }],
            strangers: Strangers::default(),
        };
        let text = serde_json::to_string(&status).expect("plain values");
        assert_eq!(
            text,
            format!(
                r#"{{"node":"{id}","name":"left","version":"0.1.0","uptime_ms":1500,"listen":["quic://0.0.0.0:7433"],"advertise":["quic://left.example:7433"],"storage":{{"free_bytes":0,"line_bytes":0,"reserve_bytes":0,"reserved_bytes":0,"outbox_bytes":0,"inbox_bytes":0,"dead_bytes":0,"refusing":[]}},"peers":[{{"name":"right","id":"{id}","state":"never seen","link":"quic://127.0.0.1:7433","key_exchange":"X25519MLKEM768","round_trip_ms":0.25,"outbox":7,"oldest_waiting_ms":12,"last_seen":"2025-11-21T11:30:00.123Z","last_error":{{"class":"disconnected","text":"gone"}},"next_attempt":null,"since":"2025-11-21T11:30:00.123Z","failures":2,"paused":null,"skew_ms":-7,"keep":"always","trouble":{{"text":"set back","at":"2025-11-21T11:30:00.123Z"}}}}],"strangers":{{"turned_away_recently":0,"half_open":0,"cheap":0,"costly":0,"known_prefixes":0,"counts":{{}},"refused":{{}}}}}}"#
            )
        );
        assert_eq!(
            serde_json::from_str::<Status>(&text).expect("its own text"),
            status
        );
    }

    #[test]
    fn state_words_are_those_of_the_document() {
        for state in [
            PeerState::Connected,
            PeerState::Dialling,
            PeerState::Waiting,
            PeerState::Idle,
            PeerState::Refused,
            PeerState::NeverSeen,
        ] {
            let text = serde_json::to_string(&state).expect("a plain word");
            assert_eq!(text, format!("\"{}\"", state.word()));
        }
    }
}
