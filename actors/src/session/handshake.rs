//! The answering side of the handshake over a real link: bytes in and out of the protocol's
//! machine, with deadlines. `greeting` is the dialling side.
//!
//! It learns who came, asks the store whether that node is a peer (or holds a ticket), asks the
//! session supervisor whether a session may begin now, and only then says its verdict.
//! Until the verdict nothing of the other side's is trusted but what was verified.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::BytesMut;
use packhorse_protocol::{
    error_class::ErrorClass,
    generation::SessionSecrets,
    grant::Grants,
    handshake::{
        Decision, HELLO_BYTES, HandshakeError, HelloRejected, Introduction, LinkKind, PROOF_BYTES,
        Responder, SessionId, VerdictRefusal,
    },
    node_id::NodeId,
    stream::Side,
};

use super::{
    Admission, SessionsHandle, Wiring,
    exit::{self, Blame},
    requests,
};
use crate::{
    events::Fact,
    link::{Link, LinkError, ReceiveHalf, SendHalf},
    listener::{Full, Outcome, Stages},
    store::{EpochVerdict, Noted, PairJoiner, PeerRecord, Refused, StoreError},
};

/// From the first byte to the verdict.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a refused dialler may take to read why.
const REFUSAL_READ_WITHIN: Duration = Duration::from_secs(1);
/// One code for every link that became no session: it tells a stranger nothing.
pub(super) const STRANGER_CLOSED: u16 = ErrorClass::Authentication.to_u16();
/// What is said of a ticket to who did not prove its secret, and to who is denied.
const NO_SUCH_TICKET: &str = "the ticket is not known here, or its secret is wrong";
/// A stranger's Hello must be whole within this time.
const HELLO_WITHIN: Duration = Duration::from_secs(2);

/// A link whose other end is known, and what the handshake agreed on.
#[derive(Debug)]
pub struct Accepted {
    /// The link; its handshake stream is finished.
    pub(crate) link: Link,
    /// Which end of the link this is.
    pub(crate) side: Side,
    /// The session's keys.
    pub(crate) secrets: SessionSecrets,
    /// Names the session, for both sides.
    pub(crate) session: SessionId,
    /// What the other side said about itself, with its verified id.
    pub(crate) peer: Introduction,
    /// What the other side lets this node do, as far as it said.
    pub(crate) granted: Grants,
    /// What two people read to each other.
    pub(crate) compare: String,
    /// Orders sessions dialled by one node in one boot.
    pub(crate) dial_counter: u64,
    /// Where the other side was told in it to dial this node.
    pub(crate) said: Vec<String>,
    /// The hint by which a dial came here.
    pub(crate) hint: Option<String>,
}

/// Why a handshake gave no session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// The link ended in the middle.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The other side is not the node it was dialled as, or broke the protocol.
    #[error(transparent)]
    Protocol(#[from] HandshakeError),
    /// The other side knows who asks, and said no.
    #[error("refused: {}", .0.reason)]
    Refused(VerdictRefusal),
    /// A stranger's Hello; closed without a word.
    #[error("not a Hello for this node")]
    Stranger,
    /// A Hello of a node that knows this one and speaks other versions; it was told so.
    #[error("no version in common")]
    NoCommonVersion,
    /// What answers at the address does not answer to the id that was dialled: another node, or
    /// this one under another id. Look whether the address is still the right one.
    #[error("something answers, but not as {0}")]
    NotThem(NodeId),
    /// What answers at the address sends what no node sends.
    #[error("what answers does not speak this protocol")]
    NotPackhorse,
    /// Too many strangers are being answered; closed without a word.
    #[error("too many handshakes: {0:?}")]
    Crowded(Full),
    /// A stranger's link that lost its place or sent too much; closed without a word.
    #[error("turned away: {}", .0.word())]
    TurnedAway(Outcome),
    /// Too slow.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The store could not say who this is.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl HandshakeFailure {
    /// Who can act, and how dials go on.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Link(LinkError::Closed(code)) => exit::class_of(*code),
            Self::Link(_) | Self::TimedOut(_) => ErrorClass::Disconnected,
            Self::Protocol(error) => error.class(),
            Self::Stranger | Self::NotThem(_) | Self::Crowded(_) | Self::TurnedAway(_) => {
                ErrorClass::Authentication
            }
            Self::NoCommonVersion | Self::NotPackhorse => ErrorClass::Protocol,
            Self::Refused(refusal) => refusal.class,
            Self::Store(_) => ErrorClass::Internal,
        }
    }

    /// What a dialler is told about the address where this happened.
    pub(super) fn at(&self, address: SocketAddr) -> String {
        match self {
            Self::NotThem(id) => {
                format!("something answers at {address}, but not as {id}, or it is too busy to say")
            }
            Self::Protocol(HandshakeError::WrongResponder { expected, actual }) => {
                format!("something answers at {address}, but not as {expected}: it is {actual}")
            }
            Self::NotPackhorse => {
                format!("something answers at {address}, but it does not speak this protocol")
            }
            Self::Link(LinkError::Closed(code)) if exit::class_of(*code) == ErrorClass::Busy => {
                format!("what answers at {address} is too busy for new links")
            }
            other => format!("{address}: {other}"),
        }
    }

    /// Whose doing it was.
    pub(crate) fn blame(&self) -> Blame {
        let class = self.class();
        match self {
            Self::Link(_) | Self::Refused(_) | Self::NotThem(_) | Self::NotPackhorse => {
                Blame::ended_there(class)
            }
            Self::Protocol(_)
            | Self::Stranger
            | Self::NoCommonVersion
            | Self::Crowded(_)
            | Self::TurnedAway(_)
            | Self::TimedOut(_)
            | Self::Store(_) => Blame::ended_here(class),
        }
    }

    /// When the other side wants to be asked again.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Refused(refusal) if refusal.retry_after_ms > 0 => {
                Some(u64::from(refusal.retry_after_ms))
            }
            _ => None,
        }
    }
}

/// Answers' side: learns who dialled, decides, says the verdict.
///
/// `stages` hears how far it came and may end it: what a link may cost grows with what it has
/// shown.
pub(crate) async fn respond(
    wiring: &Wiring,
    sessions: &SessionsHandle,
    mut link: Link,
    stages: &mut Stages,
) -> Result<(PeerRecord, Accepted), HandshakeFailure> {
    let decided = tokio::time::timeout(HANDSHAKE_WITHIN, async {
        let (streams, hello) = first(stages, hello(&mut link)).await?;
        let (mut send, mut receive) = streams;
        let binding = link.info().binding;
        let responder = Responder::new(&wiring.me.identity, LinkKind::Quic, binding);
        // ORDER: the bounds are asked before the key agreement, which is what costs.
        if !responder.knocks(&hello) {
            return Err(HandshakeFailure::Stranger);
        }
        stages.knocked().map_err(HandshakeFailure::Crowded)?;
        let random = wiring.env.random_bytes();
        let (awaiting, reply) = match responder.on_hello(&hello, random) {
            Ok(replied) => replied,
            Err(HelloRejected::NoCommonVersion(answer)) => {
                send.send_last(answer.into()).await?;
                return Err(HandshakeFailure::NoCommonVersion);
            }
            Err(_) => return Err(HandshakeFailure::Stranger),
        };
        send.send(reply.into()).await?;
        let proof = async { Ok(receive.read_exact(PROOF_BYTES).await?) };
        let proof = first(stages, proof).await?;
        let decision = awaiting.on_proof(&proof)?;
        decide(wiring, sessions, decision, &mut send, stages).await
    })
    .await
    .unwrap_or(Err(HandshakeFailure::TimedOut(HANDSHAKE_WITHIN)));
    let decided = match decided {
        Ok(decided) => decided,
        Err(failure) => {
            if matches!(
                failure,
                HandshakeFailure::Refused(_) | HandshakeFailure::NoCommonVersion
            ) {
                // The dialler closes when it has read why; the wait is short and bounded.
                let read = async {
                    let _ = link.accept().await;
                    Ok(())
                };
                let _ = tokio::time::timeout(REFUSAL_READ_WITHIN, first(stages, read)).await;
            }
            let code = match failure {
                // Told behind a valid knock only: who knows the id learns nothing by it.
                HandshakeFailure::Crowded(_) => ErrorClass::Busy.to_u16(),
                _ => STRANGER_CLOSED,
            };
            // ORDER: an explicit close. A link that is only dropped lingers until its other end
            // has acknowledged everything, which a stranger need never do.
            link.close(code);
            return Err(failure);
        }
    };
    let Decided {
        record,
        peer,
        dial_counter,
        said,
        established,
    } = decided;
    // ORDER: only what is said by who was let in is written down, and before its session begins.
    let from = stages.remote().ip().to_string();
    let record = remember(wiring, record, &peer, move |record, now_ms| {
        // Links from there find a place in a flood.
        record.seen_from = Some(Noted {
            text: from,
            at_ms: now_ms,
        });
    })
    .await;
    let accepted = Accepted {
        link,
        side: Side::Listener,
        session: established.session,
        compare: established.compare,
        secrets: SessionSecrets::new(established.secret),
        peer,
        granted: record.granted.clone(),
        dial_counter,
        said,
        hint: None,
    };
    Ok((record, accepted))
}

/// What is read, unless the link has to go before.
async fn first<T>(
    stages: &mut Stages,
    read: impl Future<Output = Result<T, HandshakeFailure>>,
) -> Result<T, HandshakeFailure> {
    tokio::select! {
        biased;
        read = read => read,
        over = stages.over() => Err(HandshakeFailure::TurnedAway(over)),
    }
}

/// The first stream, and Hello on it.
async fn hello(link: &mut Link) -> Result<((SendHalf, ReceiveHalf), BytesMut), HandshakeFailure> {
    tokio::time::timeout(HELLO_WITHIN, async {
        let (send, mut receive) = link.accept().await?;
        let hello = receive.read_exact(HELLO_BYTES).await?;
        Ok(((send, receive), hello))
    })
    .await
    .unwrap_or(Err(HandshakeFailure::TimedOut(HELLO_WITHIN)))
}

struct Decided {
    record: PeerRecord,
    peer: Introduction,
    dial_counter: u64,
    said: Vec<String>,
    established: packhorse_protocol::handshake::Established,
}

/// Pairing commits before the verdict: an accepted verdict means that this side has it durably.
async fn decide(
    wiring: &Wiring,
    sessions: &SessionsHandle,
    decision: Decision,
    send: &mut SendHalf,
    stages: &mut Stages,
) -> Result<Decided, HandshakeFailure> {
    let from = stages.remote();
    // The store, a hook of the application and the supervisor take their time: meanwhile the link
    // is held to its bounds as before.
    let judged = first(stages, judge(wiring, sessions, &decision, from)).await?;
    let record = match judged {
        Ok(record) => record,
        Err(refusal) => return refuse(decision, send, refusal).await,
    };
    let peer = decision.peer().clone();
    let dial_counter = decision.dial_counter();
    let ticket_id = decision.ticket_id();
    let grants = record.grants.alive(wiring.env.now_ms());
    let local = wiring.me.local();
    let said = local.addresses.clone();
    let (verdict, established) = decision.accept(local, &grants)?;
    stages.accepted();
    send.send_last(verdict.into()).await?;
    if let Some(ticket_id) = ticket_id {
        let compare = established.compare.clone();
        let noted = wiring.store.note_compare(ticket_id, peer.id, compare);
        if let Err(error) = noted.await {
            tracing::debug!(target: "packhorse::session", peer = record.name, %error, "the compare string is not kept");
        }
    }
    Ok(Decided {
        record,
        peer,
        dial_counter,
        said,
        established,
    })
}

/// Whose session this is to be, if it may begin now.
async fn judge(
    wiring: &Wiring,
    sessions: &SessionsHandle,
    decision: &Decision,
    from: SocketAddr,
) -> Result<Result<PeerRecord, VerdictRefusal>, HandshakeFailure> {
    let record = match recognise(wiring, decision, from.ip()).await? {
        Ok(record) => record,
        Err(refusal) => return Ok(Err(refusal)),
    };
    wiring.door.note_known(from, wiring.env.now_ms());
    let (counter, alive) = (decision.dial_counter(), decision.alive());
    let admission = sessions
        .admit(record.number, decision.peer(), counter, alive)
        .await
        .unwrap_or_else(|error| Admission::Refused(internal(&error.to_string())));
    Ok(match admission {
        Admission::Granted => Ok(record),
        Admission::Refused(refusal) => Err(refusal),
    })
}

async fn refuse(
    decision: Decision,
    send: &mut SendHalf,
    refusal: VerdictRefusal,
) -> Result<Decided, HandshakeFailure> {
    let verdict = decision.refuse(refusal.clone());
    send.send_last(verdict.into()).await?;
    Err(HandshakeFailure::Refused(refusal))
}

/// Writes down what a peer said about itself where this node dialled it.
pub(super) async fn remember_dialled(
    wiring: &Wiring,
    record: PeerRecord,
    accepted: &Accepted,
) -> PeerRecord {
    let (peer, granted) = (&accepted.peer, accepted.granted.clone());
    let said = peer.addresses.clone();
    // By its name, or by the address that an own name of it led to.
    let url = accepted.link.info().url();
    let at: Vec<_> = accepted.hint.iter().cloned().chain([url]).collect();
    remember(wiring, record, peer, move |record, _| {
        record.granted = granted;
        record.was_met(&said, &at);
    })
    .await
}

/// Writes down what a peer said about itself, and `more`; tells when it runs on a copy of its store.
///
/// A store that is full or restarting must not keep sessions from beginning: what cannot be
/// written is said in the log, and the record stays as it was.
async fn remember(
    wiring: &Wiring,
    record: PeerRecord,
    peer: &Introduction,
    more: impl FnOnce(&mut PeerRecord, u64) + Send + 'static,
) -> PeerRecord {
    let addresses = peer.addresses.clone();
    let now_ms = wiring.env.now_ms();
    let update = wiring.store.update_peer(record.number, move |record| {
        // A peer that announces nothing keeps the hints that led to it once.
        record.announces(&addresses);
        record.last_seen_ms = Some(now_ms);
        more(record, now_ms);
    });
    // ORDER: the epoch first, because a copy that it shows keeps the former addresses.
    // Asked together, they share one sync.
    let judged = wiring.store.judge_epoch(record.number, peer.epoch);
    let (verdict, updated) = tokio::join!(biased; judged, update);
    match verdict {
        Ok(EpochVerdict::Copy { highest }) => {
            tracing::warn!(
                target: "packhorse::session",
                peer = record.name,
                shown = ?peer.epoch,
                ?highest,
                "the peer runs on an older or copied store"
            );
            let (shown, highest) = (peer.epoch.boot, highest.boot);
            wiring.events.tell(Fact::CopySeen {
                peer: record.number,
                text: format!("it shows boot {shown} after boot {highest}"),
            });
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(target: "packhorse::session", peer = record.name, %error),
    }
    let Ok(updated) = updated else {
        return record;
    };
    if !record.addresses.is_empty() && !record.addresses.starts_with(&peer.addresses) {
        wiring.events.tell(Fact::AddressesChanged {
            peer: record.number,
            text: peer.addresses.join(" "),
        });
    }
    updated
}

/// A peer by its verified id, or a stranger who holds a ticket or may ask.
async fn recognise(
    wiring: &Wiring,
    decision: &Decision,
    from: IpAddr,
) -> Result<Result<PeerRecord, VerdictRefusal>, StoreError> {
    // A node that is denied hears what any stranger would.
    let is_denied = wiring.store.is_denied(decision.peer().id).await?;
    if let Some(ticket_id) = decision.ticket_id() {
        let invite = wiring.store.invite(ticket_id).await?;
        // Whoever did not prove the secret is not told whether there is such a ticket.
        if is_denied || !invite.is_some_and(|invite| decision.ticket_matches(&invite.key)) {
            return Ok(Err(not_allowed(NO_SUCH_TICKET)));
        }
        let pairing = PairJoiner {
            ticket_id,
            introduction: decision.peer().clone(),
            now_ms: wiring.env.now_ms(),
        };
        return match wiring.store.pair_joiner(pairing).await {
            Ok(record) => Ok(Ok(record)),
            // Denied since it was asked.
            Err(StoreError::Refused(Refused::Denied(_))) => Ok(Err(not_allowed(NO_SUCH_TICKET))),
            Err(StoreError::Refused(refused)) => Ok(Err(not_allowed(&refused.to_string()))),
            // What ails the store is not the stranger's business.
            Err(error) => {
                tracing::warn!(target: "packhorse::session", %error, "a pairing was not committed");
                Ok(Err(internal("the store does not answer")))
            }
        };
    }
    match wiring.store.peer_by_id(decision.peer().id).await? {
        Some(record) if !is_denied => Ok(Ok(record)),
        None if !is_denied => requests::consider(wiring, decision, from).await,
        Some(_) | None => Ok(Err(not_allowed("not paired with this node"))),
    }
}

pub(super) fn not_allowed(reason: &str) -> VerdictRefusal {
    VerdictRefusal {
        class: ErrorClass::Authentication,
        code: VerdictRefusal::NOT_ALLOWED,
        reason: reason.to_owned(),
        retry_after_ms: 0,
    }
}

pub(super) fn internal(reason: &str) -> VerdictRefusal {
    VerdictRefusal {
        class: ErrorClass::Internal,
        code: 2,
        reason: reason.to_owned(),
        retry_after_ms: 1_000,
    }
}
