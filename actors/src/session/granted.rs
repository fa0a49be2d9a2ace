//! What a session tells its peer about what it may do here, and its end when the peer was forgotten.

use packhorse_protocol::error_class::ErrorClass;

use super::exit::SessionExit;
use crate::store::{PeerNumber, StoreHandle};

/// What is to be told.
#[derive(Debug)]
pub(super) enum Granted {
    /// These grants count now.
    These(Vec<String>),
    /// The peer is none any more.
    Forgotten,
    /// The store did not say. That ends no session: what the peer may do is checked inside each
    /// write.
    Unknown,
}

/// Looks it up, as it is committed.
pub(super) async fn look_up(store: &StoreHandle, peer: PeerNumber, now_ms: u64) -> Granted {
    match store.peer(peer).await {
        Ok(Some(record)) if !record.is_peer() => Granted::Forgotten,
        Ok(Some(record)) => {
            let grants = record.grants.alive(now_ms);
            Granted::These(grants.iter().map(ToString::to_string).collect())
        }
        Ok(None) | Err(_) => Granted::Unknown,
    }
}

/// How the session of a peer that was forgotten ends.
pub(super) fn revoked() -> SessionExit {
    SessionExit::new(ErrorClass::Authentication, "the peer was forgotten here")
}
