//! Nodes without a ticket that ask to be paired: what the listening side makes of them.
//!
//! A node takes no requests unless it was told to. Then a request waits in the store for a person,
//! or the application's own function decides at once; that function runs on a blocking worker with
//! a deadline, so that it never holds up a handshake of somebody else.
//! Nothing here is told to a node that is denied, but what every stranger is told.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use packhorse_protocol::{
    error_class::ErrorClass,
    grant::Grants,
    handshake::{Decision, VerdictRefusal},
    node_id::NodeId,
};
use tokio::sync::{Semaphore, watch};

use super::{Wiring, handshake};
use crate::store::{NewRequest, PeerRecord, Refused, Requested, StoreError};

/// How long the application may take to decide: half of what a stranger's handshake may take.
const DECIDE_WITHIN: Duration = Duration::from_secs(3);
/// Decisions of the application under way at once; who finds none free asks again.
const DECISIONS_MAX: usize = 4;
/// Who waits for a person asks again after an eighth of the time it has waited, within these.
const AGAIN_MS_MIN: u64 = 30_000;
const AGAIN_MS_MAX: u64 = 600_000;

/// A node that is no peer, has no ticket, and asks to be paired.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stranger {
    /// Its id: proven by its signature.
    pub id: NodeId,
    /// What it calls itself.
    pub name: String,
    /// What it says to who decides; may be empty.
    pub text: String,
    /// The address that it comes from.
    pub address: IpAddr,
}

/// What the application makes of a stranger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrangerDecision {
    /// It hears what it would hear if no requests were taken.
    Refuse,
    /// A person decides: it goes to the list.
    Queue,
    /// It is a peer from now on.
    Accept {
        /// What it may do here.
        grants: Grants,
    },
}

/// The application's own decision about strangers.
pub type DecideStranger = Arc<dyn Fn(&Stranger) -> StrangerDecision + Send + Sync>;

/// Whether requests are taken, and who decides.
#[derive(Clone, Default)]
pub struct RequestPolicy {
    /// Requests wait for a person.
    pub accepts: bool,
    /// The application decides first; with it, requests are taken.
    pub decide: Option<DecideStranger>,
}

impl fmt::Debug for RequestPolicy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RequestPolicy")
            .field("accepts", &self.accepts)
            .field("decides", &self.decide.is_some())
            .finish()
    }
}

/// What sessions and the node share about requests.
#[derive(Clone, Debug)]
pub struct RequestsHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policy: RequestPolicy,
    turns: Arc<Semaphore>,
    changed: watch::Sender<u64>,
}

/// The application took too long.
struct Undecided;

impl RequestsHandle {
    pub(crate) fn new(policy: RequestPolicy) -> Self {
        Self {
            shared: Arc::new(Shared {
                policy,
                turns: Arc::new(Semaphore::new(DECISIONS_MAX)),
                changed: watch::Sender::default(),
            }),
        }
    }

    /// Whether requests are taken.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.policy.accepts || self.shared.policy.decide.is_some()
    }

    /// Says that something about requests was written: who waits looks again, and who is to be
    /// asked is dialled.
    pub fn touch(&self) {
        self.shared.changed.send_modify(|count| *count += 1);
    }

    /// What the application makes of a stranger; nothing when it has no say.
    async fn decide(&self, stranger: Stranger) -> Result<StrangerDecision, Undecided> {
        let Some(decide) = self.shared.policy.decide.clone() else {
            return Ok(StrangerDecision::Queue);
        };
        let turns = Arc::clone(&self.shared.turns);
        let decided = async move {
            let turn = turns.acquire_owned().await;
            let asked = tokio::task::spawn_blocking(move || {
                let decision = decide(&stranger);
                // ORDER: a call that outlives its deadline keeps its place until it returns.
                drop(turn);
                decision
            });
            asked.await
        };
        match tokio::time::timeout(DECIDE_WITHIN, decided).await {
            Ok(Ok(decision)) => Ok(decision),
            Ok(Err(error)) => {
                tracing::error!(target: "packhorse::session", %error, "the decision about a stranger failed: it is refused");
                Ok(StrangerDecision::Refuse)
            }
            Err(_) => Err(Undecided),
        }
    }

    /// Changes whenever something about requests may have.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }
}

/// Decides about a node that is no peer, is not denied, and showed no ticket: whom this node asked itself is a
/// peer now, who asks may wait or become one, everybody else is refused.
///
/// # Errors
/// When the store could not be read.
pub(super) async fn consider(
    wiring: &Wiring,
    decision: &Decision,
    from: IpAddr,
) -> Result<Result<PeerRecord, VerdictRefusal>, StoreError> {
    let peer = decision.peer();
    // Who was asked and dials regards this node as paired, or asks it as well: both want it.
    if wiring.store.asking(peer.id).await?.is_some() {
        match wiring.store.pair_asked(peer.clone(), Grants::none()).await {
            Ok(Some(record)) => {
                wiring.requests.touch();
                return Ok(Ok(record));
            }
            Ok(None) => {}
            Err(error) => return Ok(Err(from_store(error))),
        }
    }
    let Some(text) = decision.request().filter(|_| wiring.requests.is_open()) else {
        return Ok(Err(not_paired()));
    };
    let stranger = Stranger {
        id: peer.id,
        name: peer.name.clone(),
        text: text.to_owned(),
        address: from,
    };
    match wiring.requests.decide(stranger).await {
        Ok(StrangerDecision::Refuse) => return Ok(Err(not_paired())),
        Ok(StrangerDecision::Accept { grants }) => {
            let paired = wiring.store.pair_asker(peer.clone(), grants).await;
            return Ok(paired.map_err(from_store));
        }
        Ok(StrangerDecision::Queue) => {}
        Err(Undecided) => return Ok(Err(busy("nobody decided in time: ask again", AGAIN_MS_MIN))),
    }
    let request = NewRequest {
        introduction: peer.clone(),
        text: text.to_owned(),
        from,
    };
    let refusal = match wiring.store.request(request).await {
        Ok(Requested::Waits { asked_ms }) => {
            let waited_ms = wiring.env.now_ms().saturating_sub(asked_ms);
            VerdictRefusal {
                class: ErrorClass::Authentication,
                code: VerdictRefusal::ASKED,
                reason: "asked: it waits for somebody to decide".to_owned(),
                retry_after_ms: again_ms(waited_ms / 8),
            }
        }
        Ok(Requested::Rejected) => VerdictRefusal {
            reason: "the request to be paired was rejected".to_owned(),
            ..not_paired()
        },
        Ok(Requested::Full) => busy("too many requests wait for a decision", AGAIN_MS_MAX),
        Ok(Requested::TooMany) => busy("too many requests came from this address", AGAIN_MS_MAX),
        Err(error) => from_store(error),
    };
    Ok(Err(refusal))
}

/// What ails the store is not the stranger's business.
fn from_store(error: StoreError) -> VerdictRefusal {
    match error {
        StoreError::Refused(Refused::Denied(_)) => not_paired(),
        error => {
            tracing::warn!(target: "packhorse::session", %error, "a request to be paired was not committed");
            handshake::internal("the store does not answer")
        }
    }
}

fn not_paired() -> VerdictRefusal {
    handshake::not_allowed("not paired with this node")
}

fn busy(reason: &str, retry_after_ms: u64) -> VerdictRefusal {
    VerdictRefusal {
        class: ErrorClass::Busy,
        code: VerdictRefusal::REQUESTS_FULL,
        reason: reason.to_owned(),
        retry_after_ms: again_ms(retry_after_ms),
    }
}

fn again_ms(wished_ms: u64) -> u32 {
    u32::try_from(wished_ms.clamp(AGAIN_MS_MIN, AGAIN_MS_MAX)).unwrap_or(u32::MAX)
}
