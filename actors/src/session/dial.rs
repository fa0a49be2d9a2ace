//! Dialling one peer: resolve its hints, try each address, shake hands.
//!
//! A dial ends in a session or in one error that names the last address tried.
//! It never retries by itself; the retry scheduler decides when there is another one.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use packhorse_protocol::{error_class::ErrorClass, handshake::DialIntent, node_id::NodeId};

use super::{
    Wiring,
    exit::{Blame, SessionExit},
    handshake::{self, Accepted, HandshakeFailure},
};
use crate::{
    link::{Link, LinkError, QuicDialler, check_route},
    store::{PeerNumber, PeerRecord, StoreError},
};

/// One address answers in this time or the next one is tried.
const CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// Addresses tried in one dial.
const ADDRESSES_TRIED_MAX: usize = 8;

/// Why a dial gave no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No address of the peer is known: it has to dial this node.
    #[error("no address of this peer is known")]
    NoAddress,
    /// No address answered; the last one's error.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The peer's record could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The dial's task panicked: a fault of this program.
    #[error("the dial failed: {0}")]
    Panicked(String),
    /// Something answered, but not with a session.
    #[error("{address}: {failure}")]
    Handshake {
        /// Who answered.
        address: SocketAddr,
        /// What went wrong.
        failure: HandshakeFailure,
    },
}

impl From<&DialError> for SessionExit {
    fn from(error: &DialError) -> Self {
        Self::blaming(error.blame(), error.class(), error.to_string())
    }
}

impl DialError {
    /// Who can act, and how dials go on.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::NoAddress | Self::Link(_) => ErrorClass::Disconnected,
            Self::Store(_) | Self::Panicked(_) => ErrorClass::Internal,
            Self::Handshake { failure, .. } => failure.class(),
        }
    }

    /// Whose doing it was. A dial that did not leave this machine is nobody's failure but its own.
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Self::NoAddress
            | Self::Link(
                LinkError::Resolve { .. }
                | LinkError::NoRoute { .. }
                | LinkError::Socket(_)
                | LinkError::Listen { .. }
                | LinkError::Tls(_),
            )
            | Self::Store(_)
            | Self::Panicked(_) => Blame::Here,
            Self::Link(
                LinkError::Unreachable { .. }
                | LinkError::NoBinding(_)
                | LinkError::Lost(_)
                | LinkError::Closed(_),
            ) => Blame::There,
            Self::Handshake { failure, .. } => failure.blame(),
        }
    }

    /// Whether the other side knows who asks, and said no.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Handshake {
                failure: HandshakeFailure::Refused(_),
                ..
            }
        )
    }

    /// When the other side wants to be asked again.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Handshake { failure, .. } => failure.retry_after_ms(),
            _ => None,
        }
    }
}

/// Dials a peer at the addresses in its record, and writes down what it says about itself.
pub(super) async fn dial_peer(
    wiring: &Wiring,
    dialler: &QuicDialler,
    peer: PeerNumber,
    dial_counter: u64,
    past_hello: &AtomicBool,
) -> Result<(PeerRecord, Accepted), DialError> {
    let record = wiring.store.peer(peer).await?.ok_or(DialError::NoAddress)?;
    let intent = DialIntent {
        dial_counter,
        alive: None,
        pairing: None,
    };
    let accepted = dial(
        wiring,
        dialler,
        record.id,
        &record.addresses,
        intent,
        past_hello,
    )
    .await?;
    let granted = Some(accepted.granted.clone());
    let record = handshake::remember(wiring, record, &accepted.peer, granted).await;
    Ok((record, accepted))
}

/// Tries the hints in order until the responder itself answers.
///
/// Whatever else answers at an address is passed over: another node may listen there by now.
/// `past_hello` is set once the responder has shown who it is.
pub(super) async fn dial(
    wiring: &Wiring,
    dialler: &QuicDialler,
    responder: NodeId,
    hints: &[String],
    intent: DialIntent,
    past_hello: &AtomicBool,
) -> Result<Accepted, DialError> {
    // ORDER of what is told: of a dial that left this machine rather than of one that did not.
    let mut worst = DialError::NoAddress;
    let mut note = |error: DialError| {
        if worst.blame() == Blame::Here || error.blame() != Blame::Here {
            worst = error;
        }
    };
    let mut tried = 0;
    for hint in hints {
        let addresses = match resolve(hint).await {
            Ok(addresses) => addresses,
            Err(error) => {
                note(error.into());
                continue;
            }
        };
        let left = ADDRESSES_TRIED_MAX.saturating_sub(tried);
        for address in addresses.into_iter().take(left) {
            tried += 1;
            let link = match connect(dialler, address).await {
                Ok(link) => link,
                Err(error) => {
                    note(error.into());
                    continue;
                }
            };
            let intent = intent.clone();
            match handshake::initiate(wiring, link, responder, intent, past_hello).await {
                Ok(accepted) => return Ok(accepted),
                // Sealed by the responder: its word, whatever the address.
                Err(failure @ HandshakeFailure::Refused(_)) => {
                    return Err(DialError::Handshake { address, failure });
                }
                Err(failure) => note(DialError::Handshake { address, failure }),
            }
            past_hello.store(false, Ordering::Release);
        }
    }
    Err(worst)
}

async fn connect(dialler: &QuicDialler, address: SocketAddr) -> Result<Link, LinkError> {
    check_route(address)?;
    match tokio::time::timeout(CONNECT_WITHIN, dialler.dial(address)).await {
        Ok(connected) => connected,
        Err(_) => {
            let reason = format!("nothing within {} s", CONNECT_WITHIN.as_secs());
            Err(LinkError::Unreachable { address, reason })
        }
    }
}

/// A hint is `quic://HOST:PORT`; the host may be a DNS name.
async fn resolve(hint: &str) -> Result<Vec<SocketAddr>, LinkError> {
    let failed = |reason: String| LinkError::Resolve {
        hint: hint.to_owned(),
        reason,
    };
    let Some(host) = hint.strip_prefix("quic://") else {
        return Err(failed("this version dials quic:// only".to_owned()));
    };
    let found = tokio::time::timeout(CONNECT_WITHIN, tokio::net::lookup_host(host))
        .await
        .map_err(|_| failed(format!("no answer within {} s", CONNECT_WITHIN.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use packhorse_protocol::handshake::VerdictRefusal;

    use super::*;

    #[test]
    fn a_dial_that_did_not_leave_this_machine_is_not_the_peers_failure() {
        let address = SocketAddr::from(([192, 0, 2, 1], 1));
        let reason = || "why".to_owned();
        let handshake = |failure| DialError::Handshake { address, failure };
        let refused = |class| {
            handshake(HandshakeFailure::Refused(VerdictRefusal {
                class,
                code: 1,
                reason: reason(),
                retry_after_ms: 0,
            }))
        };
        let hint = reason();
        let table = [
            (DialError::NoAddress, Blame::Here),
            (DialError::Panicked(reason()), Blame::Here),
            (DialError::Store(StoreError::Closed), Blame::Here),
            (
                LinkError::Resolve {
                    hint,
                    reason: reason(),
                }
                .into(),
                Blame::Here,
            ),
            (
                LinkError::NoRoute {
                    address,
                    reason: reason(),
                }
                .into(),
                Blame::Here,
            ),
            (
                LinkError::Unreachable {
                    address,
                    reason: reason(),
                }
                .into(),
                Blame::There,
            ),
            (
                handshake(HandshakeFailure::TimedOut(CONNECT_WITHIN)),
                Blame::There,
            ),
            (handshake(LinkError::Lost(reason()).into()), Blame::There),
            (
                handshake(HandshakeFailure::Store(StoreError::Closed)),
                Blame::Here,
            ),
            (refused(ErrorClass::Authentication), Blame::There),
            (refused(ErrorClass::IdentityInUse), Blame::There),
            (refused(ErrorClass::Internal), Blame::There),
            (refused(ErrorClass::Busy), Blame::Nobody),
            (refused(ErrorClass::Displaced), Blame::Nobody),
            (refused(ErrorClass::ShuttingDown), Blame::Nobody),
        ];
        for (error, blame) in table {
            assert_eq!(error.blame(), blame, "{error:?}");
        }
    }
}
