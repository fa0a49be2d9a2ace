//! The handshake over a real link: bytes in and out of the protocol's machines, with deadlines.
//!
//! The dialling side knows whom it wants; the answering side learns who came, asks the store
//! whether that node is a peer (or holds a ticket), asks the session supervisor whether a session
//! may begin now, and only then says its verdict.
//! Until the verdict nothing of the other side's is trusted but what was verified.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use packhorse_protocol::{
    error_class::ErrorClass,
    generation::SessionSecrets,
    grant::Grants,
    handshake::{
        Answer, Decision, DialIntent, HELLO_BYTES, HandshakeError, HelloRejected, Initiator,
        Introduction, LinkKind, PROOF_BYTES, Responder, SessionId, VERDICT_BYTES, VerdictRefusal,
        answer_bytes,
    },
    node_id::NodeId,
    stream::Side,
};

use super::{
    Admission, SessionsHandle, Wiring,
    exit::{self, Blame},
};
use crate::{
    events::Fact,
    link::{Link, LinkError, ReceiveHalf, SendHalf},
    store::{EpochVerdict, PairJoiner, PeerRecord, StoreError},
};

/// From the first byte to the verdict.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a refused dialler may take to read why.
const REFUSAL_READ_WITHIN: Duration = Duration::from_secs(1);
/// One code for every link that became no session: it tells a stranger nothing.
const STRANGER_CLOSED: u16 = ErrorClass::Authentication.to_u16();
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
            Self::Stranger => ErrorClass::Authentication,
            Self::Refused(refusal) => refusal.class,
            Self::Store(_) => ErrorClass::Internal,
        }
    }

    /// Whose doing it was.
    pub(crate) fn blame(&self) -> Blame {
        let class = self.class();
        match self {
            Self::Link(_) | Self::Refused(_) => Blame::ended_there(class),
            Self::Protocol(_) | Self::Stranger | Self::TimedOut(_) | Self::Store(_) => {
                Blame::ended_here(class)
            }
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

/// Dials' side: proves who this node is to `responder`, and nobody else.
/// `past_hello` is set once the responder has shown that it is who was dialled.
pub(super) async fn initiate(
    wiring: &Wiring,
    mut link: Link,
    responder: NodeId,
    intent: DialIntent,
    past_hello: &AtomicBool,
) -> Result<Accepted, HandshakeFailure> {
    let dial_counter = intent.dial_counter;
    let exchange = async {
        let (mut send, mut receive) = link.open().await?;
        let random = wiring.env.random_bytes();
        let me = &wiring.me;
        let binding = link.info().binding;
        let (initiator, hello) = Initiator::start(
            &me.identity,
            responder,
            LinkKind::Quic,
            binding,
            me.local(),
            intent,
            random,
        )?;
        send.send(hello.into()).await?;
        let reply = read_reply(&mut receive).await?;
        let (awaiting, proof) = initiator.on_reply(&reply)?;
        past_hello.store(true, Ordering::Release);
        send.send(proof.into()).await?;
        let verdict = receive.read_exact(VERDICT_BYTES).await?;
        // The responder has left the stream already; the verdict is all that mattered.
        let _ = send.finish();
        Ok::<_, HandshakeFailure>(awaiting.on_verdict(&verdict)?)
    };
    let answer = tokio::time::timeout(HANDSHAKE_WITHIN, exchange)
        .await
        .map_err(|_| HandshakeFailure::TimedOut(HANDSHAKE_WITHIN))??;
    match answer {
        Answer::Accepted {
            peer,
            granted,
            established,
        } => Ok(Accepted {
            link,
            side: Side::Dialler,
            session: established.session,
            compare: established.compare,
            secrets: SessionSecrets::new(established.secret),
            peer,
            granted,
            dial_counter,
        }),
        Answer::Refused(refusal) => {
            link.close(STRANGER_CLOSED);
            Err(HandshakeFailure::Refused(refusal))
        }
    }
}

/// The answer to Hello says by its first byte how long it is.
async fn read_reply(receive: &mut ReceiveHalf) -> Result<Vec<u8>, LinkError> {
    let kind = receive.read_exact(1).await?;
    let Some(bytes) = kind.first().copied().and_then(answer_bytes) else {
        return Err(LinkError::Lost(
            "what answered does not speak this protocol".to_owned(),
        ));
    };
    let rest = receive.read_exact(bytes - kind.len()).await?;
    Ok([&kind[..], &rest[..]].concat())
}

/// Answers' side: learns who dialled, decides, says the verdict.
pub(crate) async fn respond(
    wiring: &Wiring,
    sessions: &SessionsHandle,
    mut link: Link,
) -> Result<(PeerRecord, Accepted), HandshakeFailure> {
    let exchange = async {
        let (mut send, mut receive, hello) = tokio::time::timeout(HELLO_WITHIN, async {
            let (send, mut receive) = link.accept().await?;
            let hello = receive.read_exact(HELLO_BYTES).await?;
            Ok::<_, HandshakeFailure>((send, receive, hello))
        })
        .await
        .map_err(|_| HandshakeFailure::TimedOut(HELLO_WITHIN))??;
        let random = wiring.env.random_bytes();
        let binding = link.info().binding;
        let responder = Responder::new(&wiring.me.identity, LinkKind::Quic, binding);
        let (awaiting, reply) = match responder.on_hello(&hello, random) {
            Ok(replied) => replied,
            Err(HelloRejected::NoCommonVersion(answer)) => {
                send.send(answer.into()).await?;
                send.finish()?;
                return Err(HandshakeFailure::Stranger);
            }
            Err(_) => return Err(HandshakeFailure::Stranger),
        };
        send.send(reply.into()).await?;
        let proof = receive.read_exact(PROOF_BYTES).await?;
        let decision = awaiting.on_proof(&proof)?;
        decide(wiring, sessions, decision, &mut send).await
    };
    let decided = tokio::time::timeout(HANDSHAKE_WITHIN, exchange)
        .await
        .unwrap_or(Err(HandshakeFailure::TimedOut(HANDSHAKE_WITHIN)));
    let decided = match decided {
        Ok(decided) => decided,
        Err(failure) => {
            if matches!(failure, HandshakeFailure::Refused(_)) {
                // The dialler closes when it has read why; the wait is short and bounded.
                let _ = tokio::time::timeout(REFUSAL_READ_WITHIN, link.accept()).await;
            }
            // ORDER: an explicit close. A link that is only dropped lingers until its other end
            // has acknowledged everything, which a stranger need never do.
            link.close(STRANGER_CLOSED);
            return Err(failure);
        }
    };
    let Decided {
        record,
        peer,
        dial_counter,
        established,
    } = decided;
    let accepted = Accepted {
        link,
        side: Side::Listener,
        session: established.session,
        compare: established.compare,
        secrets: SessionSecrets::new(established.secret),
        peer,
        granted: record.granted.clone(),
        dial_counter,
    };
    Ok((record, accepted))
}

struct Decided {
    record: PeerRecord,
    peer: Introduction,
    dial_counter: u64,
    established: packhorse_protocol::handshake::Established,
}

/// Pairing commits before the verdict: an accepted verdict means that this side has it durably.
async fn decide(
    wiring: &Wiring,
    sessions: &SessionsHandle,
    decision: Decision,
    send: &mut SendHalf,
) -> Result<Decided, HandshakeFailure> {
    let peer = decision.peer().clone();
    let record = match recognise(wiring, &decision).await? {
        Ok(record) => record,
        Err(refusal) => return refuse(decision, send, refusal).await,
    };
    let record = remember(wiring, record, &peer, None).await;
    let admission = sessions
        .admit(
            record.number,
            &peer,
            decision.dial_counter(),
            decision.alive(),
        )
        .await
        .unwrap_or_else(|error| Admission::Refused(internal(&error.to_string())));
    if let Admission::Refused(refusal) = admission {
        return refuse(decision, send, refusal).await;
    }
    let dial_counter = decision.dial_counter();
    let (verdict, established) = decision.accept(wiring.me.local(), &record.grants)?;
    send.send(verdict.into()).await?;
    send.finish()?;
    Ok(Decided {
        record,
        peer,
        dial_counter,
        established,
    })
}

async fn refuse(
    decision: Decision,
    send: &mut SendHalf,
    refusal: VerdictRefusal,
) -> Result<Decided, HandshakeFailure> {
    send.send(decision.refuse(refusal.clone()).into()).await?;
    send.finish()?;
    Err(HandshakeFailure::Refused(refusal))
}

/// Writes down what a peer said about itself, and tells when it runs on a copy of its store.
///
/// A store that is full or restarting must not keep sessions from beginning: what cannot be
/// written is said in the log, and the record stays as it was.
pub(super) async fn remember(
    wiring: &Wiring,
    record: PeerRecord,
    peer: &Introduction,
    granted: Option<Grants>,
) -> PeerRecord {
    let addresses = peer.addresses.clone();
    let now_ms = wiring.env.now_ms();
    let update = wiring.store.update_peer(record.number, move |record| {
        // A peer that announces nothing keeps the hints that led to it once.
        if !addresses.is_empty() {
            record.addresses = addresses;
        }
        record.granted = granted.unwrap_or_else(|| record.granted.clone());
        record.last_seen_ms = Some(now_ms);
    });
    // Asked together, they share one sync.
    let (updated, verdict) =
        tokio::join!(update, wiring.store.judge_epoch(record.number, peer.epoch));
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
    updated.unwrap_or(record)
}

/// A peer by its verified id, or a stranger who holds a ticket.
async fn recognise(
    wiring: &Wiring,
    decision: &Decision,
) -> Result<Result<PeerRecord, VerdictRefusal>, StoreError> {
    if let Some(ticket_id) = decision.ticket_id() {
        let Some(invite) = wiring.store.invite(ticket_id).await? else {
            return Ok(Err(not_allowed(
                "the ticket is not known here: expired, used up or revoked",
            )));
        };
        if !decision.ticket_matches(&invite.key) {
            return Ok(Err(not_allowed("the ticket's secret is wrong")));
        }
        let pairing = PairJoiner {
            ticket_id,
            introduction: decision.peer().clone(),
            now_ms: wiring.env.now_ms(),
        };
        return match wiring.store.pair_joiner(pairing).await {
            Ok(record) => Ok(Ok(record)),
            Err(StoreError::Refused(refused)) => Ok(Err(not_allowed(&refused.to_string()))),
            // What ails the store is not the stranger's business.
            Err(error) => {
                tracing::warn!(target: "packhorse::session", %error, "a pairing was not committed");
                Ok(Err(internal("the store does not answer")))
            }
        };
    }
    match wiring.store.peer_by_id(decision.peer().id).await? {
        Some(record) => Ok(Ok(record)),
        None => Ok(Err(not_allowed("not paired with this node"))),
    }
}

fn not_allowed(reason: &str) -> VerdictRefusal {
    VerdictRefusal {
        class: ErrorClass::Authentication,
        code: 1,
        reason: reason.to_owned(),
        retry_after_ms: 0,
    }
}

fn internal(reason: &str) -> VerdictRefusal {
    VerdictRefusal {
        class: ErrorClass::Internal,
        code: 2,
        reason: reason.to_owned(),
        retry_after_ms: 1_000,
    }
}
