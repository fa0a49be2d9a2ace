//! The inbox: hands waiting messages to consumers, one consumer at a time each.
//!
//! Storing what arrives is not its work: sessions do that through the store. What a consumer says
//! about a message is written by the store as well; the actor only knows who has what, in memory.
//! So a crash of it loses no message and no acknowledgement, and a consumer that waits, or a write
//! that takes long, holds up nobody else: both happen in the caller, outside of the actor.
//!
//! Read [`InboxHandle`] for what can be asked, then `actor.rs`.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use packhorse_protocol::message::Message;
use tokio::sync::watch;

use crate::env::Env;
use crate::store::{InboxRow, PeerNumber, Refused, StoreError, StoreHandle};
use crate::supervise::{Address, AddressError, Post};

mod actor;
mod desk;
mod ephemeral;
mod leases;

pub use crate::store::{Begun, FAILURES_MAX, Settled, UNENDED_MAX, Verdict};
pub use actor::{Inbox, InboxMsg, InboxState};
use ephemeral::Ring;

/// How long a consumer has a message when it does not say.
pub const LEASE_MS_DEFAULT: u64 = 30_000;
/// The shortest lease: below it a consumer loses messages to its own scheduling.
pub const LEASE_MS_MIN: u64 = 1_000;
/// The longest lease: so long a message of a dead consumer is held back.
pub const LEASE_MS_MAX: u64 = 3_600_000;
/// Messages handed out by one claim.
pub const CLAIM_COUNT_MAX: usize = 1_024;
/// Payload bytes handed out by one claim; a single message may weigh more.
const CLAIM_BYTES_MAX: usize = 8 << 20;
/// Messages that one job acknowledges: a batch of the store takes them with their index.
const ACKNOWLEDGE_MAX: usize = 1_024;
/// How long a consumer waits for the inbox to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The longest pause of a waiting consumer that is woken again and again for others' messages.
const PAUSE_MS_MAX: u64 = 64;

/// Who asks for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// A reader: gets whatever arrived.
    Receive,
    /// A worker, which starts a command by each message: gets only those of senders that hold
    /// `execute` for the topic.
    Work,
}

/// What a consumer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The topic, exactly.
    pub topic: String,
    /// At most this many; never more than [`CLAIM_COUNT_MAX`].
    pub count: usize,
    /// For how long; [`LEASE_MS_MIN`] to [`LEASE_MS_MAX`].
    pub lease_ms: u64,
    /// For what.
    pub mode: Mode,
}

impl ClaimRequest {
    /// A reader's claim with the usual lease.
    #[must_use]
    pub fn new(topic: &str, count: usize) -> Self {
        Self {
            topic: topic.to_owned(),
            count,
            lease_ms: LEASE_MS_DEFAULT,
            mode: Mode::Receive,
        }
    }
}

/// A message that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The message.
    pub row: InboxRow,
    /// Proves who has it; below 2^53, so that every reader of JSON keeps it.
    pub token: u64,
    /// How often a handler was begun so far.
    pub attempts: u32,
    /// How often one failed.
    pub failures: u32,
    /// It lies nowhere but here: there is nothing to acknowledge.
    pub is_ephemeral: bool,
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
    /// Another consumer has the message by now, or it waits for its next attempt, or it is gone.
    #[error("the lease of arrival {arrival} is lost: it ended before this was said")]
    LeaseLost {
        /// The message.
        arrival: u64,
    },
    /// It is among the dead letters now; put it back by hand once its handler is mended.
    #[error(
        "arrival {arrival} was given up: {UNENDED_MAX} attempts in a row ended without a verdict"
    )]
    GivenUp {
        /// The message.
        arrival: u64,
    },
    /// Choose a lease in between.
    #[error("a lease of {lease_ms} ms, it has to be {LEASE_MS_MIN} to {LEASE_MS_MAX} ms")]
    LeaseLength {
        /// What was asked for.
        lease_ms: u64,
    },
    /// Too much is handed out. Acknowledge first, or wait for leases to end.
    #[error("{count} messages are handed out, the limit is {}", leases::LEASES_MAX)]
    TooManyLeases {
        /// How many.
        count: usize,
    },
}

/// What outlives the inbox's incarnations.
#[derive(Debug)]
struct Shared {
    /// Rises when something can be handed out that could not before, other than by arriving.
    freed: watch::Sender<u64>,
    ring: Mutex<Ring>,
    /// Set by the first incarnation.
    roots: OnceLock<(Env, StoreHandle)>,
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self) {
        self.freed.send_modify(|count| *count += 1);
    }
}

/// Reaches the inbox, across its incarnations.
#[derive(Clone, Debug)]
pub struct InboxHandle {
    address: Arc<Address<InboxMsg>>,
    shared: Arc<Shared>,
}

impl Default for InboxHandle {
    fn default() -> Self {
        Self {
            address: Arc::new(Address::vacant()),
            shared: Arc::new(Shared {
                freed: watch::Sender::new(0),
                ring: Mutex::default(),
                roots: OnceLock::new(),
            }),
        }
    }
}

/// What the actor answers to one claim.
#[derive(Debug, Default)]
pub struct Handed {
    claimed: Vec<Claimed>,
    /// It stopped looking before the end.
    is_more: bool,
    /// When something that is held back can be handed out, from now.
    next_ms: Option<u64>,
    /// So many are handed out that nothing more is.
    leases: Option<usize>,
}

impl InboxHandle {
    /// Hands out waiting messages of a topic, oldest first. Each is the caller's until its lease
    /// ends, unless this node is restarted: then it is handed out again.
    ///
    /// # Errors
    /// [`InboxError`]; asking again is safe.
    pub async fn claim(&self, request: ClaimRequest) -> Result<Vec<Claimed>, InboxError> {
        check_lease(request.lease_ms)?;
        Ok(self.hand_out(&request).await?.claimed)
    }

    /// As [`Self::claim`], and waits up to `wait` for the first messages that come.
    ///
    /// # Errors
    /// [`InboxError`]; asking again is safe. An inbox that is being restarted is waited for.
    pub async fn claim_waiting(
        &self,
        request: ClaimRequest,
        wait: Duration,
    ) -> Result<Vec<Claimed>, InboxError> {
        check_lease(request.lease_ms)?;
        let deadline = tokio::time::Instant::now() + wait;
        let mut freed = self.shared.freed.subscribe();
        let mut pause_ms = 0;
        loop {
            // ORDER: watched before it is asked. What comes in between is not slept through.
            freed.borrow_and_update();
            let roots = self.shared.roots.get();
            let mut arrived = roots.map(|(_, store)| store.inbox_arrived());
            let handed = match self.hand_out(&request).await {
                Err(InboxError::Address(_)) if tokio::time::Instant::now() < deadline => {
                    // Asked while it ended; the next question waits for the next incarnation.
                    tokio::time::sleep(Duration::from_millis(PAUSE_MS_MAX)).await;
                    continue;
                }
                handed => handed?,
            };
            if !handed.claimed.is_empty() {
                return Ok(handed.claimed);
            }
            let Some(arrived) = &mut arrived else {
                continue;
            };
            let asleep = tokio::time::Instant::now();
            let held_back = async {
                match handed.next_ms {
                    Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return Ok(Vec::new()),
                () = held_back => {}
                _ = freed.changed() => {}
                changed = arrived.changed() => {
                    if changed.is_err() {
                        // The store is closed; nothing arrives any more.
                        return Err(StoreError::Closed.into());
                    }
                }
            }
            // Woken for what others wait for: the more often in a row, the longer it gathers.
            pause_ms = if asleep.elapsed() > Duration::from_secs(1) {
                0
            } else {
                (pause_ms * 2 + 1).min(PAUSE_MS_MAX)
            };
            let pause = tokio::time::Instant::now() + Duration::from_millis(pause_ms);
            tokio::time::sleep_until(pause.min(deadline)).await;
        }
    }

    /// Goes on asking while there is more to look at, so that no single question is long.
    async fn hand_out(&self, request: &ClaimRequest) -> Result<Handed, InboxError> {
        let mut all = Handed::default();
        let mut bytes_left = CLAIM_BYTES_MAX;
        let mut wanted = request.count.min(CLAIM_COUNT_MAX);
        loop {
            let request = ClaimRequest {
                count: wanted,
                ..request.clone()
            };
            let claim = |reply| InboxMsg::Claim {
                request,
                bytes_max: bytes_left,
                reply,
            };
            let handed = match self.address.call("inbox", ANSWER_WITHIN, claim).await {
                Ok(Ok(handed)) => handed,
                // What was handed out before counts; the fault comes again if it is one.
                _ if !all.claimed.is_empty() => return Ok(all),
                Ok(Err(error)) => return Err(error.into()),
                Err(error) => return Err(error.into()),
            };
            if let (Some(count), true) = (handed.leases, all.claimed.is_empty()) {
                return Err(InboxError::TooManyLeases { count });
            }
            let weights = handed.claimed.iter().map(|one| one.row.message.weight());
            bytes_left = bytes_left.saturating_sub(weights.sum());
            wanted = wanted.saturating_sub(handed.claimed.len());
            all.claimed.extend(handed.claimed);
            all.next_ms = handed.next_ms;
            if !handed.is_more || wanted == 0 || bytes_left == 0 {
                return Ok(all);
            }
        }
    }

    /// Counts an attempt, durably, before a handler runs. Returns its number, from 1.
    ///
    /// # Errors
    /// [`InboxError::LeaseLost`] when the message is another's or gone, [`InboxError::GivenUp`]
    /// when its handlers ended too often without a word: nothing may be started.
    pub async fn begin(&self, arrival: u64, token: u64) -> Result<u32, InboxError> {
        self.keep_for_write(arrival, token).await?;
        match self.roots()?.1.inbox_try_begin(arrival).await {
            Ok(Begun::Attempt(attempt)) => {
                // Nobody there: the next incarnation holds nothing that could be too long.
                self.address.cast(InboxMsg::Written { arrival, token });
                Ok(attempt)
            }
            Ok(Begun::GivenUp) => {
                self.forget(vec![arrival]);
                Err(InboxError::GivenUp { arrival })
            }
            Err(StoreError::Refused(Refused::NotInInbox(_))) => {
                self.forget(vec![arrival]);
                Err(InboxError::LeaseLost { arrival })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says of (arrival, token) that they are being worked on: each lease ends `lease_ms` from
    /// now. Returns the arrivals whose lease is lost.
    ///
    /// # Errors
    /// [`InboxError`]; asking again is safe.
    pub async fn progress(
        &self,
        arrivals: Vec<(u64, u64)>,
        lease_ms: u64,
    ) -> Result<Vec<u64>, InboxError> {
        check_lease(lease_ms)?;
        let progress = |reply| InboxMsg::Hold {
            arrivals,
            lease_ms,
            reply,
        };
        Ok(self.address.call("inbox", ANSWER_WITHIN, progress).await?)
    }

    /// Takes handled messages out of the inbox, durably, and tells their senders. Unknown arrivals
    /// are ignored, so a repeated acknowledgement is harmless.
    ///
    /// # Errors
    /// [`InboxError`]; asking again is safe.
    pub async fn acknowledge(&self, arrivals: Vec<u64>) -> Result<(), InboxError> {
        for arrivals in arrivals.chunks(ACKNOWLEDGE_MAX) {
            self.roots()?.1.inbox_done(arrivals.to_vec()).await?;
            self.forget(arrivals.to_vec());
        }
        Ok(())
    }

    /// Says what became of a message under its handler. That it was handled, or never can be,
    /// counts whoever has the lease; a failure counts unless another has it by now.
    ///
    /// # Errors
    /// [`InboxError::LeaseLost`], or asking again is safe.
    pub async fn settle(
        &self,
        arrival: u64,
        token: u64,
        verdict: Verdict,
    ) -> Result<Settled, InboxError> {
        if matches!(verdict, Verdict::Retry { .. } | Verdict::Failed { .. }) {
            self.keep_for_write(arrival, token).await?;
        }
        let (env, store) = self.roots()?;
        let random = env.random_u64();
        let settled = store.inbox_settle(arrival, verdict, random).await?;
        match settled {
            Settled::Later { delay_ms, .. } => {
                // Nobody there: the next incarnation reads in the store that it is kept back.
                self.address.cast(InboxMsg::KeepBack {
                    arrival,
                    token,
                    wait_ms: delay_ms,
                });
            }
            Settled::Done | Settled::Dead | Settled::Gone => self.forget(vec![arrival]),
        }
        Ok(settled)
    }

    /// Gives messages back that were claimed just now and not looked at, instead of when their
    /// lease ends. Who has had them for a while uses [`Self::settle`], which asks for the token.
    pub fn release(&self, arrivals: Vec<u64>) {
        // While the inbox is being restarted nothing is claimed, so nothing is to be given back.
        self.address.cast(InboxMsg::Release { arrivals });
    }

    /// Hands a message in that is written down nowhere. It is kept for 10 s, while there is room;
    /// the oldest make room.
    pub fn offer_ephemeral(&self, peer: PeerNumber, message: Message) {
        let Some((env, _)) = self.shared.roots.get() else {
            return;
        };
        self.shared.ring().offer(env.monotonic_ms(), peer, message);
        self.shared.free();
    }

    /// How many ephemeral messages were lost here: pushed out by others, or too old.
    #[must_use]
    pub fn ephemeral_lost(&self) -> u64 {
        self.shared.ring().lost()
    }

    /// For how long somebody has a message, in milliseconds; none when nobody has it.
    ///
    /// # Errors
    /// [`InboxError`]; asking again is safe.
    pub async fn leased_ms(&self, arrival: u64) -> Result<Option<u64>, InboxError> {
        let leased = |reply| InboxMsg::Leased { arrival, reply };
        Ok(self.address.call("inbox", ANSWER_WITHIN, leased).await?)
    }

    /// Nobody else gets the message until what follows is written.
    async fn keep_for_write(&self, arrival: u64, token: u64) -> Result<(), InboxError> {
        let write = |reply| InboxMsg::Write {
            arrival,
            token,
            reply,
        };
        match self.address.call("inbox", ANSWER_WITHIN, write).await? {
            true => Ok(()),
            false => Err(InboxError::LeaseLost { arrival }),
        }
    }

    /// What peers may do was changed: who waits looks again.
    pub fn grants_changed(&self) {
        self.shared.free();
    }

    /// A peer was forgotten: what it sent and nobody stores is dropped. Returns how many.
    pub fn drop_ephemeral_of(&self, peer: PeerNumber) -> usize {
        self.shared.ring().drop_of(peer)
    }

    /// These arrivals have left the inbox by another hand.
    pub fn left(&self, arrivals: Vec<u64>) {
        self.forget(arrivals);
    }

    fn forget(&self, arrivals: Vec<u64>) {
        // An incarnation that never hears of it finds no such message and hands nothing out.
        self.address.cast(InboxMsg::Forget { arrivals });
    }

    fn roots(&self) -> Result<&(Env, StoreHandle), AddressError> {
        self.shared.roots.get().ok_or(AddressError::Absent("inbox"))
    }

    /// For the supervisor: publishes a new incarnation.
    pub(crate) fn publish(&self, incarnation: Post<InboxMsg>) {
        self.address.publish(incarnation);
    }

    /// For the supervisor: the incarnation is gone.
    pub(crate) fn vacate(&self) {
        self.address.vacate();
    }
}

fn check_lease(lease_ms: u64) -> Result<(), InboxError> {
    if (LEASE_MS_MIN..=LEASE_MS_MAX).contains(&lease_ms) {
        Ok(())
    } else {
        Err(InboxError::LeaseLength { lease_ms })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
