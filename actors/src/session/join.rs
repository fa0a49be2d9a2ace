//! Pairing with the inviter of a ticket.
//!
//! A join is a dial that shows the ticket; it ends when both sides have committed the pairing.
//! The ticket's secret never travels, and a join that was cut off is safe to repeat.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use packhorse_protocol::{
    error_class::ErrorClass,
    grant::Grants,
    handshake::{DialIntent, Pairing, SessionId},
    node_id::NodeId,
    ticket::Ticket,
};
use ractor::RpcReplyPort;

use super::{
    SessionsHandle, Wiring,
    crossing::Crossing,
    dial::{self, DialError},
    handshake::Accepted,
};
use crate::{
    link::QuicDialler,
    retry::{RetryHandle, RetryMsg},
    store::{PairInviter, PeerRecord, StoreError},
    supervise::AddressError,
};

/// How long pairing may take as a whole.
pub(super) const JOIN_WITHIN: Duration = Duration::from_secs(30);
/// A join that crossed the inviter's own dial is tried again after what the inviter asks for,
/// within these bounds.
const AGAIN_MS_MIN: u64 = 300;
const AGAIN_MS_MAX: u64 = 3_000;

/// What the joining side decides.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// What the inviter is called here; its own name when not given.
    pub name: Option<String>,
    /// What the inviter may do here.
    pub grants: Grants,
}

/// A pairing that both sides have committed.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The inviter as it is stored here.
    pub record: PeerRecord,
    /// What two people read to each other.
    pub compare: String,
}

/// Why a pairing did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The inviter was not reached, or said no. The ticket is not used up by that.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The inviter said yes, but this side could not commit it: join again with the same ticket.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Too slow, or the supervisor was being restarted: join again with the same ticket.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The inviter was busy all the time: join again with the same ticket.
    #[error("the inviter did not answer within {} s", JOIN_WITHIN.as_secs())]
    TimedOut,
    /// A ticket of this very node.
    #[error("the ticket is this node's own")]
    Own,
}

/// Which sessions live, by peer, for joins that dial a node they already talk to.
pub(super) type Alive = Arc<Mutex<BTreeMap<NodeId, SessionId>>>;

/// One pairing under way.
pub(super) struct Joining {
    pub(super) wiring: Wiring,
    pub(super) dialler: Arc<QuicDialler>,
    pub(super) dials: Arc<AtomicU64>,
    pub(super) alive: Alive,
    pub(super) ticket: Ticket,
}

impl Joining {
    /// Pairs, hands the session that came of it to the supervisor, and tells who asked.
    pub(super) async fn answer(
        self,
        options: JoinOptions,
        sessions: SessionsHandle,
        retry: RetryHandle,
        reply: RpcReplyPort<Result<Joined, JoinError>>,
    ) {
        let joined = self.run(options).await;
        let answer = joined.map(|(joined, accepted)| {
            let peer = joined.record.number;
            sessions.adopt(joined.record.clone(), accepted);
            retry.tell(RetryMsg::Added(peer));
            joined
        });
        // The asker gave up waiting; the pairing stands, and the same ticket shows it.
        let _ = reply.send(answer);
    }

    /// Dials until the inviter says yes or no, at most [`JOIN_WITHIN`]; then commits.
    ///
    /// The inviter has committed when its verdict is here; this side commits before it answers.
    async fn run(self, options: JoinOptions) -> Result<(Joined, Accepted), JoinError> {
        if self.ticket.inviter() == self.wiring.me.identity.id() {
            return Err(JoinError::Own);
        }
        let accepted = tokio::time::timeout(JOIN_WITHIN, self.dial())
            .await
            .map_err(|_| JoinError::TimedOut)??;
        let record = self
            .wiring
            .store
            .pair_inviter(PairInviter {
                introduction: accepted.peer.clone(),
                name: options.name,
                grants: options.grants,
                granted: accepted.granted.clone(),
                hints: self.ticket.hints().to_vec(),
            })
            .await?;
        let compare = accepted.compare.clone();
        Ok((Joined { record, compare }, accepted))
    }

    async fn dial(&self) -> Result<Accepted, DialError> {
        let inviter = self.ticket.inviter();
        loop {
            let alive = self
                .alive
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&inviter)
                .copied();
            let pairing = Pairing::Ticket {
                ticket_id: self.ticket.id(),
                key: self.ticket.key(),
            };
            let intent = DialIntent {
                dial_counter: self.dials.fetch_add(1, Ordering::Relaxed) + 1,
                alive,
                pairing: Some(pairing),
            };
            let crossing = Crossing::default();
            let hints = self.ticket.hints();
            let dialled = dial::dial(
                &self.wiring,
                &self.dialler,
                inviter,
                hints,
                intent,
                &crossing,
            )
            .await;
            match dialled {
                // Not a no: the inviter's own dial to this node crossed this one.
                Err(error) if matches!(error.class(), ErrorClass::Busy | ErrorClass::Displaced) => {
                    let asked_ms = error.retry_after_ms().unwrap_or(AGAIN_MS_MIN);
                    let wait_ms = asked_ms.clamp(AGAIN_MS_MIN, AGAIN_MS_MAX);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                ended => return ended,
            }
        }
    }
}
