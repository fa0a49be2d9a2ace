//! The inbox: hands waiting messages to consumers, one consumer at a time each.
//!
//! * owns: the claims on messages that were handed out and not acknowledged yet
//! * listens to: consumers, through its handle
//! * tells: nobody
//! * dies when: the store cannot be read
//! * comes back with: no claims; what was handed out and not acknowledged is handed out again
//!
//! Storing what arrives is not its work: sessions do that through the store.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use crate::{
    env::Env,
    store::{InboxRow, StoreError, StoreHandle},
    supervise::{Address, AddressError},
};

/// A claim that is neither acknowledged nor renewed ends after this time.
const CLAIM: Duration = Duration::from_secs(30);
/// Messages handed out by one call.
const CLAIM_COUNT_MAX: usize = 1_024;
/// How long a consumer waits for the inbox to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Rows read at a time while looking for unclaimed ones.
const PAGE: usize = 1_024;
/// Payload bytes handed out by one call; a single message may weigh more.
const CLAIM_BYTES_MAX: usize = 8 << 20;

/// The inbox's messages.
#[derive(Debug)]
pub enum InboxMsg {
    /// From a consumer: hand out up to `count` messages of a topic, oldest first.
    Claim {
        /// The topic, exactly.
        topic: String,
        /// At most this many.
        count: usize,
        /// Who asked.
        reply: RpcReplyPort<Result<Vec<InboxRow>, StoreError>>,
    },
    /// From a consumer: these were dealt with; forget them durably.
    Acknowledge {
        /// The messages' arrival numbers.
        arrivals: Vec<u64>,
        /// Who asked.
        reply: RpcReplyPort<Result<(), StoreError>>,
    },
    /// From a consumer: these were not dealt with; hand them out again, in their order.
    Release {
        /// The messages' arrival numbers.
        arrivals: Vec<u64>,
    },
}

/// Why the inbox did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// The inbox is being restarted, or its answer was lost: repeat the question.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reaches the inbox, across its incarnations.
#[derive(Clone, Debug)]
pub struct InboxHandle {
    address: Arc<Address<InboxMsg>>,
}

impl Default for InboxHandle {
    fn default() -> Self {
        Self {
            address: Arc::new(Address::vacant()),
        }
    }
}

impl InboxHandle {
    /// Hands out up to `count` waiting messages of `topic`, oldest first, for 30 s each.
    ///
    /// # Errors
    /// [`InboxError`]; asking again is safe.
    pub async fn claim(&self, topic: &str, count: usize) -> Result<Vec<InboxRow>, InboxError> {
        let claim = |reply| InboxMsg::Claim {
            topic: topic.to_owned(),
            count,
            reply,
        };
        Ok(self.address.call("inbox", ANSWER_WITHIN, claim).await??)
    }

    /// Takes messages out of the inbox, durably. Unknown arrivals are ignored, so a repeated
    /// acknowledgement is harmless.
    ///
    /// # Errors
    /// [`InboxError`]; asking again is safe.
    pub async fn acknowledge(&self, arrivals: Vec<u64>) -> Result<(), InboxError> {
        let acknowledge = |reply| InboxMsg::Acknowledge { arrivals, reply };
        Ok(self
            .address
            .call("inbox", ANSWER_WITHIN, acknowledge)
            .await??)
    }

    /// Gives claimed messages back at once, instead of when their claim ends.
    pub fn release(&self, arrivals: Vec<u64>) {
        // While the inbox is being restarted nothing is claimed, so nothing is to be given back.
        self.address.cast(InboxMsg::Release { arrivals });
    }

    /// For the supervisor: publishes a new incarnation.
    pub(crate) fn publish(&self, incarnation: ActorRef<InboxMsg>) {
        self.address.publish(incarnation);
    }

    /// For the supervisor: the incarnation is gone.
    pub(crate) fn vacate(&self) {
        self.address.vacate();
    }
}

/// The inbox actor.
#[derive(Debug)]
pub struct Inbox {
    /// Time.
    pub(crate) env: Env,
    /// Where the messages are.
    pub(crate) store: StoreHandle,
}

/// Claims: arrival number to monotonic end. Bounded by `CLAIM_COUNT_MAX` a call and `CLAIM`.
#[derive(Debug, Default)]
pub struct InboxState {
    claims: BTreeMap<u64, u64>,
}

impl Inbox {
    /// Runs in the handler on purpose: two claims that overlapped could hand out one message twice.
    async fn claim(
        &self,
        state: &mut InboxState,
        topic: &str,
        count: usize,
    ) -> Result<Vec<InboxRow>, StoreError> {
        let now_ms = self.env.monotonic_ms();
        state.claims.retain(|_, until_ms| *until_ms > now_ms);
        let until_ms = now_ms.saturating_add(CLAIM.as_millis().try_into().unwrap_or(u64::MAX));
        let wanted = count.min(CLAIM_COUNT_MAX);
        let mut claimed = Vec::new();
        let mut bytes = 0;
        let mut after = 0;
        'pages: while claimed.len() < wanted {
            let left = CLAIM_BYTES_MAX - bytes;
            let page = self
                .store
                .inbox_waiting(topic.to_owned(), after, PAGE, left)
                .await?;
            let Some(last) = page.last() else { break };
            after = last.arrival;
            for row in page {
                if state.claims.contains_key(&row.arrival) {
                    continue;
                }
                bytes += row.message.weight();
                claimed.push(row);
                if claimed.len() >= wanted || bytes >= CLAIM_BYTES_MAX {
                    break 'pages;
                }
            }
        }
        // Claimed only now: a page that could not be read must not lock those before it away.
        for row in &claimed {
            state.claims.insert(row.arrival, until_ms);
        }
        Ok(claimed)
    }

    async fn acknowledge(
        &self,
        state: &mut InboxState,
        arrivals: Vec<u64>,
    ) -> Result<(), StoreError> {
        self.store.inbox_done(arrivals.clone()).await?;
        for arrival in arrivals {
            state.claims.remove(&arrival);
        }
        Ok(())
    }
}

impl Actor for Inbox {
    type Msg = InboxMsg;
    type State = InboxState;
    type Arguments = ();

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        (): Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(InboxState::default())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // Nobody waits any more: the answer would be lost, and a claim would lock messages away.
        match message {
            InboxMsg::Claim {
                topic,
                count,
                reply,
            } if !reply.is_closed() => {
                let claimed = self.claim(state, &topic, count).await;
                let arrivals: Vec<u64> = claimed.iter().flatten().map(|row| row.arrival).collect();
                if reply.send(claimed).is_err() {
                    // Nobody took them: the next one who asks gets them, in order.
                    for arrival in arrivals {
                        state.claims.remove(&arrival);
                    }
                }
            }
            InboxMsg::Acknowledge { arrivals, reply } => {
                let done = self.acknowledge(state, arrivals).await;
                let _ = reply.send(done);
            }
            InboxMsg::Claim { .. } => {}
            InboxMsg::Release { arrivals } => {
                for arrival in arrivals {
                    state.claims.remove(&arrival);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        _event: SupervisionEvent,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // It has no children; without this, ractor's default would stop it for a stray event.
        Ok(())
    }
}
