//! Dialling one peer: resolve its hints, try their addresses, shake hands.
//!
//! A dial ends in a session or in one error that names the last address tried.
//! It never retries by itself; the retry scheduler decides when there is another one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use packhorse_protocol::{error_class::ErrorClass, handshake::DialIntent, node_id::NodeId};
use tokio::task::JoinSet;

use super::{
    Wiring,
    exit::{Blame, SessionExit},
    greeting::{self, Greeted},
    handshake::{self, Accepted, HandshakeFailure},
};
use crate::{
    link::{Link, LinkError, QuicDialler, check_route},
    store::{PeerNumber, PeerRecord, StoreError},
};

/// One address answers in this time or not at all; a name is resolved in this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// The next address is tried this long after the one before, if that has not answered or failed:
/// longer than most round trips, and 16 of them are little more than one address may take.
const APART: Duration = Duration::from_millis(300);
/// Addresses tried in one dial: two for each of the 4 + 4 hints that a peer can have.
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
            Self::Store(_) | Self::Panicked(_) => ErrorClass::Internal,
            Self::Handshake { failure, .. } => failure.class(),
        }
    }

    /// Whose doing it was. A dial that did not leave this machine is nobody's failure but its own.
    pub(crate) fn blame(&self) -> Blame {
        match self {
            Self::Several { told, .. } => told.blame(),
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
    past_hello: &AtomicBool,
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
    let accepted = dial(wiring, dialler, record.id, &hints, intent, past_hello).await?;
    let granted = Some(accepted.granted.clone());
    let record = handshake::remember(wiring, record, &accepted.peer, granted).await;
    Ok((record, accepted))
}

/// What somebody here said goes before what the peer says; each once.
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
/// `past_hello` is set once the responder has shown who it is.
pub(super) async fn dial(
    wiring: &Wiring,
    dialler: &Arc<QuicDialler>,
    responder: NodeId,
    hints: &[String],
    intent: DialIntent,
    past_hello: &AtomicBool,
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
                    past_hello.store(true, Ordering::Release);
                    match greeting::prove(greeted).await {
                        Ok(accepted) => return Ok(accepted),
                        // Sealed by the responder: its word, whatever the address.
                        Err(failure @ HandshakeFailure::Refused(_)) => {
                            return Err(DialError::Handshake { address, failure });
                        }
                        Err(failure) => failed.note(DialError::Handshake { address, failure }),
                    }
                    past_hello.store(false, Ordering::Release);
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
    tried: BTreeSet<SocketAddr>,
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
        for addresses in self.places.values_mut() {
            match addresses {
                None if is_due => {}
                None => return None,
                Some(addresses) if is_idle || is_due => {
                    while let Some(address) = addresses.pop_front() {
                        if self.tried.len() < ADDRESSES_TRIED_MAX && self.tried.insert(address) {
                            return Some(address);
                        }
                    }
                }
                Some(_) => return None,
            }
        }
        None
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
    use packhorse_protocol::{handshake::VerdictRefusal, identity::IdentityKey};

    use super::*;

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 7))
    }

    #[test]
    fn what_somebody_here_said_goes_first_and_nothing_is_dialled_twice() {
        let id = IdentityKey::from_seed(&[1; 32]).id();
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let record = PeerRecord {
            addresses: texts(&["quic://a:1", "quic://b:1"]),
            own_addresses: texts(&["quic://c:1", "quic://b:1"]),
            ..PeerRecord::new(PeerNumber(1), id, "peer", 1)
        };
        assert_eq!(
            hints_of(&record),
            ["quic://c:1", "quic://b:1", "quic://a:1"]
        );
    }

    #[test]
    fn both_families_are_tried_in_turn() {
        let found = vec![v6(1), v6(2), v6(3), v4(1)];
        assert_eq!(interleaved(found), [v6(1), v4(1), v6(2), v6(3)]);
        assert_eq!(
            interleaved(vec![v4(1), v6(1), v4(2)]),
            [v4(1), v6(1), v4(2)]
        );
        assert_eq!(interleaved(Vec::new()), []);
    }

    #[test]
    fn addresses_have_their_turn_in_the_order_of_the_hints() {
        let mut candidates = Candidates::default();
        (0..3).for_each(|place| candidates.expect(place));
        candidates.found(1, vec![v4(1), v4(2)]);
        // The first hint may still lead somewhere.
        assert_eq!(candidates.next(true, false), None);
        assert_eq!(candidates.next(true, true), Some(v4(1)));
        // Another one is under way, and its moment is not over.
        candidates.found(0, vec![v4(1), v4(3)]);
        assert_eq!(candidates.next(false, false), None);
        assert_eq!(candidates.next(false, true), Some(v4(3)), "each once");
        assert_eq!(candidates.next(true, false), Some(v4(2)));
        assert_eq!(candidates.next(true, false), None, "one is being resolved");
        candidates.found(2, (1..=9).map(v4).collect());
        let rest: Vec<_> = std::iter::from_fn(|| candidates.next(true, false)).collect();
        assert_eq!(
            rest,
            [v4(4)],
            "four of one name, three of them tried before"
        );
    }

    #[test]
    fn a_dial_tries_no_more_than_its_limit() {
        let mut candidates = Candidates::default();
        for place in 0..8 {
            candidates.expect(place);
            let place = u8::try_from(place).unwrap();
            candidates.found(
                place.into(),
                (1..=4).map(|last| v4(place * 4 + last)).collect(),
            );
        }
        let tried = std::iter::from_fn(|| candidates.next(true, true)).count();
        assert_eq!(tried, ADDRESSES_TRIED_MAX);
    }

    #[test]
    fn the_error_that_left_this_machine_counts_and_the_others_are_named() {
        let resolve = |hint: &str| LinkError::Resolve {
            hint: hint.to_owned(),
            reason: "unknown".to_owned(),
        };
        let unreachable = |address| LinkError::Unreachable {
            address,
            reason: "nothing within 4 s".to_owned(),
        };
        let mut failed = Failed::default();
        failed.note(resolve("quic://barn:7").into());
        assert_eq!(
            failed.told().to_string(),
            "cannot resolve quic://barn:7: unknown"
        );
        let mut failed = Failed::default();
        failed.note(unreachable(v4(1)).into());
        failed.note(resolve("quic://barn:7").into());
        let told = failed.told();
        assert_eq!(told.blame(), Blame::There);
        assert_eq!(
            told.to_string(),
            "no answer from 192.0.2.1:7: nothing within 4 s; cannot resolve quic://barn:7: unknown"
        );
        let mut failed = Failed::default();
        (1..=16).for_each(|last| failed.note(unreachable(v4(last)).into()));
        let text = failed.told().to_string();
        assert!(text.ends_with("; and 10 more"), "{text}");
        assert!(text.len() < 400);
    }

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
