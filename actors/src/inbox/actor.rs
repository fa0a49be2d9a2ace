//! The inbox actor.
//!
//! * owns: the leases on messages that were handed out, and how far each topic was looked through
//! * listens to: consumers, through their handle
//! * tells: who waits for messages, that some are free again
//! * dies when: nothing of its own; it takes no input that it could fail on
//! * comes back with: no leases; what was handed out and not acknowledged is handed out again,
//!   unless who had it says so first
//!
//! It never writes: what consumers say about messages goes to the store past it.

use std::sync::Arc;

use packhorse_protocol::epoch::Lane;
use packhorse_protocol::grant::Capability;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};

use super::desk::{Desk, Desks};
use super::leases::{LEASES_MAX, Leases};
use super::{ClaimRequest, Claimed, Handed, InboxHandle, Mode, Shared};
use crate::env::Env;
use crate::store::{InboxRow, PeerNumber, Search, StoreError, StoreHandle};

/// Places of a topic's index that one question looks at.
const PLACES_MAX: usize = 4_096;
/// A message about which something is being written stays with its consumer until that is over,
/// and for this long at most: a lease of a second must not end in the middle of a slow write.
const WRITE_MS: u64 = 15_000;
/// Tokens stay below 2^53, so that every reader of JSON keeps them.
const TOKEN_BITS: u32 = 53;

/// The inbox's messages.
#[derive(Debug)]
pub enum InboxMsg {
    /// From a consumer: hand messages out.
    Claim {
        /// Which, to whom.
        request: ClaimRequest,
        /// Until they weigh this much.
        bytes_max: usize,
        /// Who asked.
        reply: RpcReplyPort<Result<Handed, StoreError>>,
    },
    /// From a consumer: (arrival, token) are being worked on. Answers with those that are lost.
    Hold {
        /// Which.
        arrivals: Vec<(u64, u64)>,
        /// For how long from now.
        lease_ms: u64,
        /// Who asked.
        reply: RpcReplyPort<Vec<u64>>,
    },
    /// From a consumer's handle: something is about to be written about this. Answers whether it is
    /// the consumer's.
    Write {
        /// Which.
        arrival: u64,
        /// Whose it is.
        token: u64,
        /// Who asked.
        reply: RpcReplyPort<bool>,
    },
    /// From a consumer's handle: that is written, and the consumer goes on with it.
    Written {
        /// Which.
        arrival: u64,
        /// Whose it is.
        token: u64,
    },
    /// From a consumer's handle: these have left the inbox.
    Forget {
        /// Which.
        arrivals: Vec<u64>,
    },
    /// From a consumer's handle: this is kept back in the store.
    KeepBack {
        /// Which.
        arrival: u64,
        /// Whose it was.
        token: u64,
        /// For how long from now.
        wait_ms: u64,
    },
    /// From a person: for how long does somebody have this message?
    Leased {
        /// Which.
        arrival: u64,
        /// Milliseconds from now; none when nobody has it.
        reply: RpcReplyPort<Option<u64>>,
    },
    /// From a consumer: these were not looked at; hand them out again, in their order.
    Release {
        /// Which.
        arrivals: Vec<u64>,
    },
}

/// The inbox actor.
#[derive(Debug)]
pub struct Inbox {
    /// Time and randomness.
    pub(crate) env: Env,
    /// Where the messages are.
    pub(crate) store: StoreHandle,
    /// Those who wait for messages.
    pub(crate) handle: InboxHandle,
}

/// Who has what.
#[derive(Debug, Default)]
pub struct InboxState {
    leases: Leases,
    desks: Desks,
}

impl Inbox {
    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// Ends what is over. Whether anything can be handed out that could not before.
    fn turn(&self, state: &mut InboxState) {
        let freed = state.leases.turn(self.env.monotonic_ms());
        for one in freed {
            state.desks.free(one);
        }
    }

    async fn claim(
        &self,
        state: &mut InboxState,
        request: &ClaimRequest,
        bytes_max: usize,
    ) -> Result<Handed, StoreError> {
        let mut handed = Handed::default();
        if state.leases.count() >= LEASES_MAX {
            handed.leases = Some(state.leases.count());
            handed.next_ms = self.next_ms(state, None);
            return Ok(handed);
        }
        let ephemeral = self.take_ephemeral(request, bytes_max).await?;
        let weight: usize = ephemeral.iter().map(|row| row.message.weight()).sum();
        let (count, bytes_left) = (
            request.count.saturating_sub(ephemeral.len()),
            bytes_max.saturating_sub(weight),
        );
        let (topic, mode) = (state.desks.name(&request.topic), request.mode);
        let searched = self.search(state, &topic, mode, count, bytes_left).await;
        let (rows, is_more) = match searched {
            Ok(found) => found,
            Err(error) => {
                let now_ms = self.env.monotonic_ms();
                self.shared().ring().put_back(now_ms, ephemeral);
                return Err(error);
            }
        };
        handed.is_more = is_more;
        handed.claimed = ephemeral.into_iter().map(ephemeral_claim).collect();
        let now_ms = self.env.monotonic_ms();
        for (row, tries) in rows {
            let token = (self.env.random_u64() >> (u64::BITS - TOKEN_BITS)).max(1);
            state
                .leases
                .lend(row.arrival, token, now_ms, request.lease_ms, topic.clone());
            handed.claimed.push(Claimed {
                row,
                token,
                attempts: tries.attempts,
                failures: tries.failures,
                is_ephemeral: false,
            });
        }
        let rescan_ms = state.desks.at(&topic, mode).rescan_ms;
        handed.next_ms = self.next_ms(state, rescan_ms);
        Ok(handed)
    }

    fn next_ms(&self, state: &InboxState, rescan_ms: Option<u64>) -> Option<u64> {
        let next = state.leases.next_ms().into_iter().chain(rescan_ms).min()?;
        // At least one: a due time that is reached wakes once, not in a circle.
        Some(next.saturating_sub(self.env.monotonic_ms()).max(1))
    }

    /// Runs in the handler on purpose: two searches that overlapped could hand out one message
    /// twice. Bounded in places and bytes, so that it is short; whether there is more is answered.
    async fn search(
        &self,
        state: &mut InboxState,
        topic: &Arc<str>,
        mode: Mode,
        count: usize,
        bytes_max: usize,
    ) -> Result<(Vec<(InboxRow, crate::store::Tries)>, bool), StoreError> {
        if count == 0 || bytes_max == 0 {
            return Ok((Vec::new(), false));
        }
        let now_ms = self.env.monotonic_ms();
        let InboxState { leases, desks } = state;
        let desk = desks.at(topic, mode);
        if desk.rescan_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            *desk = Desk::default();
        }
        let mut found = loop {
            // A consumer of the other kind may have it by now; it comes again when it is free.
            desk.again.retain(|arrival| !leases.has(*arrival));
            let search = Search {
                lane: Lane::User,
                topic: topic.to_string(),
                again: desk.again.iter().copied().take(PLACES_MAX).collect(),
                from: desk.next,
                taken: leases.from(desk.next),
                count,
                bytes_max,
                places_max: PLACES_MAX,
                needs_execute: mode == Mode::Work,
                denied: desk.denied.clone(),
                now_ms: self.env.now_ms(),
            };
            let found = self.store.inbox_search(search).await?;
            if !found.is_stale {
                break found;
            }
            // INVARIANT: ends, because a desk that was passed over nothing is never stale.
            *desk = Desk::default();
        };
        for _ in 0..found.again_seen {
            desk.again.pop_first();
        }
        desk.next = found.next;
        desk.denied.append(&mut found.denied);
        let is_more = !found.is_end || !desk.again.is_empty();
        for (arrival, wait_ms) in found.later {
            let due_ms = now_ms.saturating_add(wait_ms);
            if !leases.rest(arrival, due_ms, topic.clone()) {
                desks.rescan(topic, due_ms);
            }
        }
        let weights = found.rows.iter().map(|(row, _)| row.message.weight());
        let is_full = found.rows.len() >= count || weights.sum::<usize>() >= bytes_max;
        Ok((found.rows, is_more && !is_full))
    }

    async fn take_ephemeral(
        &self,
        request: &ClaimRequest,
        bytes_max: usize,
    ) -> Result<Vec<InboxRow>, StoreError> {
        let senders = self.shared().ring().senders(&request.topic);
        let mut may: Vec<PeerNumber> = Vec::with_capacity(senders.len());
        for peer in senders {
            let record = self.store.peer(peer).await?;
            // Of a peer that was forgotten one may have come in behind that.
            let Some(record) = record.filter(|record| record.forgotten_ms.is_none()) else {
                continue;
            };
            let (topic, now_ms) = (&*request.topic, self.env.now_ms());
            let may_execute = || record.grants.allows(Capability::Execute, topic, now_ms);
            if request.mode == Mode::Receive || may_execute() {
                may.push(peer);
            }
        }
        if may.is_empty() {
            return Ok(Vec::new());
        }
        let now_ms = self.env.monotonic_ms();
        let mut ring = self.shared().ring();
        Ok(
            ring.take(now_ms, &request.topic, request.count, bytes_max, |peer| {
                may.contains(&peer)
            }),
        )
    }

    /// Hands back what was lent to somebody who is gone.
    fn take_back(&self, state: &mut InboxState, claimed: Vec<Claimed>) {
        let (ephemeral, stored): (Vec<_>, Vec<_>) =
            claimed.into_iter().partition(|one| one.is_ephemeral);
        let rows = ephemeral.into_iter().map(|one| one.row).collect();
        let now_ms = self.env.monotonic_ms();
        self.shared().ring().put_back(now_ms, rows);
        for one in stored {
            if let Some(freed) = state.leases.take_own(one.row.arrival, one.token) {
                state.desks.free(freed);
            }
        }
        self.shared().free();
    }

    fn hold(&self, state: &mut InboxState, arrivals: &[(u64, u64)], lease_ms: u64) -> Vec<u64> {
        let now_ms = self.env.monotonic_ms();
        let mut lost = Vec::new();
        for (arrival, token) in arrivals {
            if !state.leases.hold(*arrival, *token, now_ms, lease_ms) {
                lost.push(*arrival);
            }
        }
        lost
    }

    fn keep_back(&self, state: &mut InboxState, arrival: u64, token: u64, wait_ms: u64) {
        let Some(freed) = state.leases.take_own(arrival, token) else {
            return;
        };
        let due_ms = self.env.monotonic_ms().saturating_add(wait_ms);
        match freed.topic.clone() {
            Some(topic) if wait_ms > 0 => {
                if !state.leases.rest(arrival, due_ms, topic.clone()) {
                    state.desks.rescan(&topic, due_ms);
                }
            }
            // The store knows until when it is kept back.
            _ => state.desks.free(freed),
        }
        // Who waits has to hear of the new time.
        self.shared().free();
    }
}

fn ephemeral_claim(row: InboxRow) -> Claimed {
    Claimed {
        row,
        token: 0,
        attempts: 0,
        failures: 0,
        is_ephemeral: true,
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
        // The first incarnation says where the messages are; the later ones have the same.
        let _ = self
            .shared()
            .roots
            .set((self.env.clone(), self.store.clone()));
        // What the last one had handed out is free.
        self.shared().free();
        Ok(InboxState::default())
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        self.turn(state);
        match message {
            InboxMsg::Claim {
                request,
                bytes_max,
                reply,
            } => {
                // Who asked may be gone, and nothing is lent to nobody.
                if reply.is_closed() {
                    return Ok(());
                }
                let handed = self.claim(state, &request, bytes_max).await;
                let claimed = match &handed {
                    Ok(handed) => handed.claimed.clone(),
                    Err(_) => Vec::new(),
                };
                if reply.send(handed).is_err() {
                    // Nobody took them: the next one who asks gets them, in order.
                    self.take_back(state, claimed);
                }
            }
            InboxMsg::Hold {
                arrivals,
                lease_ms,
                reply,
            } => {
                let _ = reply.send(self.hold(state, &arrivals, lease_ms));
            }
            InboxMsg::Write {
                arrival,
                token,
                reply,
            } => {
                let now_ms = self.env.monotonic_ms();
                let writing_ms = now_ms.saturating_add(WRITE_MS);
                let is_own = state.leases.write(arrival, token, now_ms, writing_ms);
                let _ = reply.send(is_own);
            }
            InboxMsg::Written { arrival, token } => {
                let now_ms = self.env.monotonic_ms();
                if state.leases.written(arrival, token, now_ms) {
                    // Who waits has to hear of the new time.
                    self.shared().free();
                }
            }
            InboxMsg::Forget { arrivals } => {
                for arrival in arrivals {
                    state.leases.take(arrival);
                    state.leases.wake(arrival);
                }
            }
            InboxMsg::KeepBack {
                arrival,
                token,
                wait_ms,
            } => self.keep_back(state, arrival, token, wait_ms),
            InboxMsg::Leased { arrival, reply } => {
                let now_ms = self.env.monotonic_ms();
                let until_ms = state.leases.until_ms(arrival);
                let _ = reply.send(until_ms.map(|until_ms| until_ms.saturating_sub(now_ms)));
            }
            InboxMsg::Release { arrivals } => {
                for arrival in arrivals {
                    if let Some(freed) = state.leases.take(arrival) {
                        state.desks.free(freed);
                    }
                }
                self.shared().free();
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
