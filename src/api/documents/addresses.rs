//! Documents of where peers are dialled, and when.

use serde::{Deserialize, Serialize};

use crate::peer::{Keep, PeerInfo};

/// The body of `POST /v1/peers/addresses` and of `POST /v1/peers/addresses/remove`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressRequest {
    /// Name or id of the peer.
    pub peer: String,
    /// `HOST:PORT`, an IPv6 address in brackets.
    pub address: String,
}

/// The body of `POST /v1/peers/keep`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepRequest {
    /// Name or id of the peer.
    pub peer: String,
    /// When a link to it is kept.
    pub keep: Keep,
}

/// The answer to whatever changes a peer: the peer as it is known now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAnswer {
    /// The peer.
    pub peer: PeerInfo,
}
