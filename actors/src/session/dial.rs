//! Dialling one peer: resolve its hints, try their addresses, shake hands.
//!
//! A dial ends in a session or in one error that names the last address tried.
//! It never retries by itself; the retry scheduler decides when there is another one.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use packhorse_protocol::{error_class::ErrorClass, handshake::DialIntent, node_id::NodeId};
use tokio::task::JoinSet;

use super::{
    Wiring,
    crossing::{Crossing, LET_IN_WITHIN},
    exit::{Blame, SessionExit},
    greeting::{self, Greeted},
    handshake::{self, Accepted, HandshakeFailure},
};
use crate::{
    link::{Link, LinkError, QuicDialler},
    store::{PeerNumber, PeerRecord, StoreError},
};

/// One address answers in this time or not at all; a name is resolved in this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// The next address is tried this long after the one before, if that has not answered or failed:
/// longer than most round trips, and 16 of them are little more than one address may take.
const APART: Duration = Duration::from_millis(300);
/// Addresses tried in one dial, of 4 own, 4 announced and 4 former hints that a peer can have.
const ADDRESSES_TRIED_MAX: usize = 16;
/// Of one name.
const ADDRESSES_PER_HINT_MAX: usize = 4;
/// What is told of addresses beside the one that counts: the sentence has to fit in a line.
const OTHERS_BYTES_MAX: usize = 240;

/// Why a dial gave no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No address of the peer is known: it has to dial this node.
    #[error("no address of this peer is known")]
    NoAddress,
    /// This node has no such peer any more.
    #[error("the peer was forgotten")]
    Forgotten,
    /// No address answered; the last one's error.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A dial of the peer's was let in meanwhile, and no session came of that.
    #[error("the peer dialled too, and no session came of it in time")]
    GaveWay,
    /// The peer's record could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The dial's task panicked: a fault of this program.
    #[error("the dial failed: {0}")]
    Panicked(String),
    /// Nothing came of several addresses. The first error counts, the others are for people.
    #[error("{told}{others}")]
    Several {
        /// What counts.
        told: Box<DialError>,
        /// Each begins with a semicolon.
        others: String,
    },
    /// Something answered, but not with a session.
    #[error("{}", failure.at(*address))]
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
            Self::Link(LinkError::OtherProtocol { .. }) => ErrorClass::Protocol,
            Self::Several { told, .. } => told.class(),
            Self::NoAddress | Self::Forgotten | Self::Link(_) => ErrorClass::Disconnected,
            Self::GaveWay => ErrorClass::Busy,
            Self::Store(_) | Self::Panicked(_) => ErrorClass::Internal,
            Self::Handshake { failure, .. } => failure.class(),
        }
    }

    /// Whose doing it was. A dial that did not leave this machine is nobody's failure but its own.
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Self::Several { told, .. } => told.blame(),
            Self::GaveWay => Blame::Nobody,
            Self::NoAddress
            | Self::Forgotten
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
                | LinkError::OtherProtocol { .. }
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
            Self::Several { told, .. } => told.retry_after_ms(),
            Self::Handshake { failure, .. } => failure.retry_after_ms(),
            _ => None,
        }
    }
}

/// Dials a peer at the addresses in its record, and writes down what it says about itself.
pub(super) async fn dial_peer(
    wiring: &Wiring,
    dialler: &Arc<QuicDialler>,
    peer: PeerNumber,
    dial_counter: u64,
    crossing: &Crossing,
) -> Result<(PeerRecord, Accepted), DialError> {
    let record = wiring.store.peer(peer).await?;
    let record = record
        .filter(PeerRecord::is_peer)
        .ok_or(DialError::Forgotten)?;
    let intent = DialIntent {
        dial_counter,
        alive: None,
        pairing: None,
    };
    let hints = hints_of(&record);
    let accepted = dial(wiring, dialler, record.id, &hints, intent, crossing).await?;
    let record = handshake::remember_dialled(wiring, record, &accepted).await;
    Ok((record, accepted))
}

/// What somebody here said goes before what the peer says, and that before what it said once; each
/// once.
fn hints_of(record: &PeerRecord) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for hint in record.own_addresses.iter().chain(&record.addresses) {
        if !hints.contains(hint) {
            hints.push(hint.clone());
        }
    }
    hints
}

/// Tries the hints until the responder itself answers: in their order, each a moment after the one
/// before unless that has failed sooner. So one that is dead costs a moment and not its timeout.
///
/// Whatever else answers at an address is passed over: another node may listen there by now.
/// Once the responder has shown who it is, `crossing` says whether it is told who dials.
pub(super) async fn dial(
    wiring: &Wiring,
    dialler: &Arc<QuicDialler>,
    responder: NodeId,
    hints: &[String],
    intent: DialIntent,
    crossing: &Crossing,
) -> Result<Accepted, DialError> {
    let mut failed = Failed::default();
    let mut candidates = Candidates::default();
    // Tasks of this dial: they end with it.
    let mut resolving = JoinSet::new();
    let mut connecting = JoinSet::new();
    for (place, hint) in hints.iter().enumerate() {
        candidates.expect(place);
        let hint = hint.clone();
        resolving.spawn(async move { (place, resolve(&hint).await) });
    }
    let mut moment = pin!(tokio::time::sleep(APART));
    let mut is_due = false;
    loop {
        // Nobody waits for a moment while nothing is under way.
        if let Some(address) = candidates.next(connecting.is_empty(), is_due) {
            let (wiring, dialler) = (wiring.clone(), Arc::clone(dialler));
            let intent = intent.clone();
            // Up to Reply: what answers there and then says nothing holds up no other address.
            connecting.spawn(async move {
                let greeted = greet(&wiring, &dialler, address, responder, intent).await;
                (address, greeted)
            });
            moment.set(tokio::time::sleep(APART));
            is_due = false;
        } else if resolving.is_empty() && connecting.is_empty() {
            return Err(failed.told());
        }
        tokio::select! {
            Some(resolved) = resolving.join_next() => match resolved {
                Ok((place, Ok(addresses))) => candidates.found(place, addresses),
                Ok((place, Err(error))) => {
                    candidates.found(place, Vec::new());
                    failed.note(error.into());
                }
                Err(panic) => return Err(DialError::Panicked(panic.to_string())),
            },
            Some(connected) = connecting.join_next() => match connected {
                Ok((address, Ok(greeted))) => {
                    if !crossing.prove(greeted.link()) {
                        greeted.link().close(ErrorClass::Displaced.to_u16());
                        // The peer's link ends this dial when it is here.
                        tokio::time::sleep(LET_IN_WITHIN).await;
                        return Err(DialError::GaveWay);
                    }
                    match greeting::prove(greeted).await {
                        Ok(accepted) => {
                            let hint = candidates.place_of(address);
                            let hint = hint.and_then(|place| hints.get(place)).cloned();
                            return Ok(Accepted { hint, ..accepted });
                        }
                        // Sealed by the responder: its word, whatever the address.
                        Err(failure @ HandshakeFailure::Refused(_)) => {
                            return Err(DialError::Handshake { address, failure });
                        }
                        Err(failure) => failed.note(DialError::Handshake { address, failure }),
                    }
                    crossing.greet_again();
                }
                Ok((_, Err(error))) => failed.note(error),
                Err(panic) => return Err(DialError::Panicked(panic.to_string())),
            },
            () = &mut moment, if !is_due => is_due = true,
            else => {}
        }
    }
}

/// What can be tried, by the place of the hint that led to it.
#[derive(Debug, Default)]
struct Candidates {
    /// `None` while a hint is being resolved.
    places: BTreeMap<usize, Option<VecDeque<SocketAddr>>>,
    /// What was tried, and the place of the hint that led to it first.
    tried: BTreeMap<SocketAddr, usize>,
}

impl Candidates {
    fn expect(&mut self, place: usize) {
        self.places.insert(place, None);
    }

    fn found(&mut self, place: usize, addresses: Vec<SocketAddr>) {
        let mut addresses = interleaved(addresses);
        addresses.truncate(ADDRESSES_PER_HINT_MAX);
        self.places.insert(place, Some(addresses.into()));
    }

    /// The next address to try now. Its turn has come when nothing else is under way and no hint
    /// before it is still being resolved, or when the moment is over.
    fn next(&mut self, is_idle: bool, is_due: bool) -> Option<SocketAddr> {
        for (place, addresses) in &mut self.places {
            match addresses {
                None if is_due => {}
                None => return None,
                Some(addresses) if is_idle || is_due => {
                    while let Some(address) = addresses.pop_front() {
                        if self.tried.len() < ADDRESSES_TRIED_MAX
                            && !self.tried.contains_key(&address)
                        {
                            self.tried.insert(address, *place);
                            return Some(address);
                        }
                    }
                }
                Some(_) => return None,
            }
        }
        None
    }

    fn place_of(&self, tried: SocketAddr) -> Option<usize> {
        self.tried.get(&tried).copied()
    }
}

/// Both families in turn, beginning with the one that the system prefers, so that one family that
/// leads nowhere does not stand before the other one.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let count = addresses.len();
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == first_is_v4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut out = Vec::with_capacity(count);
    while out.len() < count {
        out.extend(first.next());
        out.extend(second.next());
    }
    out
}

/// What went wrong so far, the error that counts apart.
#[derive(Debug, Default)]
struct Failed {
    told: Option<DialError>,
    others: Vec<String>,
}

impl Failed {
    fn note(&mut self, error: DialError) {
        tracing::debug!(target: "packhorse::dial", %error, "an address led nowhere");
        // A dial that left this machine says more than one that did not.
        let counts = self
            .told
            .as_ref()
            .is_none_or(|told| told.blame() == Blame::Here || error.blame() != Blame::Here);
        let other = match counts {
            true => self.told.replace(error),
            false => Some(error),
        };
        self.others.extend(other.map(|other| other.to_string()));
    }

    fn told(self) -> DialError {
        let told = self.told.unwrap_or(DialError::NoAddress);
        if self.others.is_empty() {
            return told;
        }
        let mut others = String::new();
        let count = self.others.len();
        for (index, other) in self.others.iter().enumerate() {
            if others.len() + other.len() > OTHERS_BYTES_MAX {
                others.push_str(&format!("; and {} more", count - index));
                break;
            }
            others.push_str("; ");
            others.push_str(other);
        }
        DialError::Several {
            told: Box::new(told),
            others,
        }
    }
}

/// A link to one address, at whose end the responder itself answers.
async fn greet(
    wiring: &Wiring,
    dialler: &QuicDialler,
    address: SocketAddr,
    responder: NodeId,
    intent: DialIntent,
) -> Result<Greeted, DialError> {
    let link = connect(dialler, address).await?;
    greeting::greet(wiring, link, responder, intent)
        .await
        .map_err(|failure| DialError::Handshake { address, failure })
}

async fn connect(dialler: &QuicDialler, address: SocketAddr) -> Result<Link, LinkError> {
    dialler.check_route(address)?;
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
mod tests;
