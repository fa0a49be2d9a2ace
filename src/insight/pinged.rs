//! One round trip to a peer.

use serde::{Deserialize, Serialize};

/// What a ping measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pinged {
    /// The peer's name here.
    pub peer: String,
    /// There and back.
    pub round_trip_ms: f64,
    /// The peer's clock minus this machine's, by the peer's word.
    pub skew_ms: i64,
}
