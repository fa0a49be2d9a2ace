//! Asking other nodes to be paired with them, until they answer.
//!
//! Whom to ask stands in the store, so that asking goes on after a restart; one task of the session
//! supervisor dials who is due, a few at once, and writes down what came of it. A node that says
//! yes is paired in the same step that ends the asking; one that says no is not dialled again.
//! Nothing here decides whether a node is asked, and nothing here waits for a person.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use packhorse_protocol::{
    backoff,
    error_class::ErrorClass,
    grant::Grants,
    handshake::{DialIntent, Pairing},
    node_id::NodeId,
};
use tokio::task::JoinSet;

use super::{
    SessionsHandle, Wiring,
    crossing::Crossing,
    dial::{self, DialError},
    handshake::{Accepted, HandshakeFailure},
    join::Alive,
};
use crate::{
    link::QuicDialler,
    retry::{RetryHandle, RetryMsg},
    store::{
        ASKING_MS_MAX, AskingAnswer, AskingRecord, AskingState, PeerRecord, Refused, StoreError,
    },
};

/// Nodes dialled at once for this: nobody waits for them at a terminal.
const DIALS_MAX: usize = 4;
/// Before the next dial of who was not reached: the first ceiling, the last one, and the least.
const DELAY_FIRST_MS: u64 = 15_000;
const DELAY_MAX_MS: u64 = 600_000;
const DELAY_MIN_MS: u64 = 3_000;
/// The least that a busy node is left alone.
const BUSY_MS_MIN: u64 = 300;
/// A store that cannot be read is asked again after this.
const STORE_AGAIN: Duration = Duration::from_secs(5);

/// What asking needs of the session supervisor.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) wiring: Wiring,
    pub(super) dialler: Arc<QuicDialler>,
    pub(super) dials: Arc<AtomicU64>,
    pub(super) alive: Alive,
    pub(super) retry: RetryHandle,
    pub(super) sessions: SessionsHandle,
}

/// Dials under way.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    ids: HashMap<tokio::task::Id, AskingRecord>,
}

impl Asker {
    /// Asks whoever is to be asked, for as long as this incarnation lives.
    pub(super) async fn run(self) {
        let mut changed = self.wiring.requests.changed();
        let mut under_way = UnderWay::default();
        loop {
            // ORDER: mark the signal as seen before looking, so that no change is missed.
            changed.borrow_and_update();
            let pause = self.begin_due(&mut under_way).await;
            tokio::select! {
                Some(ended) = under_way.tasks.join_next_with_id() => {
                    let (id, panic) = match ended {
                        Ok((id, ())) => (id, None),
                        Err(error) => (error.id(), Some(error.to_string())),
                    };
                    if let (Some(record), Some(text)) = (under_way.ids.remove(&id), panic) {
                        tracing::error!(target: "packhorse::session", text, "asking a node failed");
                        self.later(&record, text, DELAY_MAX_MS).await;
                    }
                    self.wiring.requests.touch();
                }
                _ = changed.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Begins to dial whoever is due, and says how long nobody else will be.
    async fn begin_due(&self, under_way: &mut UnderWay) -> Duration {
        let now_ms = self.wiring.env.now_ms();
        let records = match self.wiring.store.askings(now_ms).await {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(target: "packhorse::session", %error, "whom to ask is not known");
                return STORE_AGAIN;
            }
        };
        let dialled: BTreeSet<NodeId> = under_way.ids.values().map(|record| record.id).collect();
        let mut pause_ms = DELAY_MAX_MS;
        for record in records {
            if !record.is_open() || dialled.contains(&record.id) {
                continue;
            }
            // A wall clock that was set back must not put a node off for longer than any rule.
            let wait_ms = record.next_ms.saturating_sub(now_ms);
            if wait_ms > 0 && wait_ms <= DELAY_MAX_MS {
                pause_ms = pause_ms.min(wait_ms);
            } else if under_way.ids.len() < DIALS_MAX {
                let (asker, asked) = (self.clone(), record.clone());
                let task = under_way.tasks.spawn(async move { asker.ask(asked).await });
                under_way.ids.insert(task.id(), record);
            }
        }
        Duration::from_millis(pause_ms)
    }

    /// One dial, and what came of it.
    async fn ask(&self, record: AskingRecord) {
        let store = &self.wiring.store;
        // Paired by a ticket meanwhile: another dial would only displace the session.
        if let Ok(Some(_)) = store.peer_by_id(record.id).await {
            // Pairing ends the asking too, so there may be nothing left to end.
            if let Err(error) = store.withdraw_asking(record.id).await
                && !matches!(error, StoreError::Refused(Refused::NoSuchRequest(_)))
            {
                tracing::warn!(target: "packhorse::session", %error, "a peer is still asked");
                tokio::time::sleep(STORE_AGAIN).await;
            }
            return;
        }
        let now_ms = self.wiring.env.now_ms();
        if now_ms.saturating_sub(record.begun_ms) >= ASKING_MS_MAX {
            let answer = AskingAnswer {
                state: AskingState::Refused,
                text: "no yes came within 7 days".to_owned(),
                next_ms: 0,
            };
            return self.write(&record, answer).await;
        }
        match self.dial(&record).await {
            Ok(accepted) => self.accepted(&record, accepted).await,
            Err(error) => self.refused(&record, &error).await,
        }
    }

    async fn dial(&self, record: &AskingRecord) -> Result<Accepted, DialError> {
        let alive = self
            .alive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&record.id)
            .copied();
        let intent = DialIntent {
            dial_counter: self.dials.fetch_add(1, Ordering::Relaxed) + 1,
            alive,
            pairing: Some(Pairing::Request {
                text: record.text.clone(),
            }),
        };
        let crossing = Crossing::default();
        dial::dial(
            &self.wiring,
            &self.dialler,
            record.id,
            &record.hints,
            intent,
            &crossing,
        )
        .await
    }

    /// The other side has made this node a peer; this one does the same before anything is sent.
    async fn accepted(&self, record: &AskingRecord, accepted: Accepted) {
        let granted: Grants = accepted.granted.clone();
        let paired = self
            .wiring
            .store
            .pair_asked(accepted.peer.clone(), granted)
            .await;
        match paired {
            Ok(Some(peer)) => self.adopt(peer, accepted),
            // Paired by another dial, whose session this one has displaced at the other side by
            // now, or withdrawn while it was dialled.
            Ok(None) => match self.wiring.store.peer_by_id(record.id).await {
                Ok(Some(peer)) => self.adopt(peer, accepted),
                _ => accepted.link.close(ErrorClass::Displaced.to_u16()),
            },
            Err(StoreError::Refused(refused)) => {
                accepted.link.close(ErrorClass::Authentication.to_u16());
                let answer = AskingAnswer {
                    state: AskingState::Refused,
                    text: refused.to_string(),
                    next_ms: 0,
                };
                self.write(record, answer).await;
            }
            Err(error) => {
                accepted.link.close(ErrorClass::Internal.to_u16());
                self.later(record, error.to_string(), DELAY_FIRST_MS).await;
            }
        }
    }

    fn adopt(&self, peer: PeerRecord, accepted: Accepted) {
        let number = peer.number;
        self.sessions.adopt(peer, accepted);
        self.retry.tell(RetryMsg::Added(number));
    }

    async fn refused(&self, record: &AskingRecord, error: &DialError) {
        let asked_ms = error.retry_after_ms();
        let refusal = match error {
            DialError::Handshake {
                failure: HandshakeFailure::Refused(refusal),
                ..
            } => Some(refusal),
            _ => None,
        };
        let again_ms = match refusal {
            Some(refusal) if refusal.is_asked() => {
                let wait_ms = asked_ms.unwrap_or(DELAY_FIRST_MS);
                let answer = AskingAnswer {
                    state: AskingState::Waits,
                    text: refusal.reason.clone(),
                    next_ms: self.at(wait_ms.clamp(DELAY_MIN_MS, DELAY_MAX_MS)),
                };
                return self.write(record, answer).await;
            }
            Some(refusal) if refusal.class == ErrorClass::Authentication => {
                let answer = AskingAnswer {
                    state: AskingState::Refused,
                    text: refusal.reason.clone(),
                    next_ms: 0,
                };
                return self.write(record, answer).await;
            }
            Some(_) => asked_ms
                .unwrap_or(DELAY_FIRST_MS)
                .clamp(BUSY_MS_MIN, DELAY_MAX_MS),
            None => {
                let random = self.wiring.env.random_u64();
                let delay = backoff::delay(record.tries, DELAY_FIRST_MS, DELAY_MAX_MS, random);
                u64::try_from(delay.as_millis())
                    .unwrap_or(DELAY_MAX_MS)
                    .max(DELAY_MIN_MS)
            }
        };
        let text = refusal.map_or_else(|| error.to_string(), |refusal| refusal.reason.clone());
        self.later(record, text, again_ms).await;
    }

    /// No answer yet: what was known before stays.
    async fn later(&self, record: &AskingRecord, text: String, wait_ms: u64) {
        let answer = AskingAnswer {
            state: record.state,
            text,
            next_ms: self.at(wait_ms),
        };
        self.write(record, answer).await;
    }

    async fn write(&self, record: &AskingRecord, answer: AskingAnswer) {
        tracing::info!(
            target: "packhorse::session",
            node = record.id.short(),
            answer = answer.text,
            "asked to be paired"
        );
        let store = &self.wiring.store;
        if let Err(error) = store
            .asking_answered(record.id, record.begun_ms, answer)
            .await
        {
            tracing::warn!(target: "packhorse::session", %error, "an answer is not written down");
            // The row still says that it is due: without a pause it would be dialled at once.
            tokio::time::sleep(STORE_AGAIN).await;
        }
    }

    fn at(&self, wait_ms: u64) -> u64 {
        self.wiring.env.now_ms().saturating_add(wait_ms)
    }
}
