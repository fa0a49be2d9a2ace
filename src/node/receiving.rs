//! What a node does for whoever handles messages: claim, acknowledge, settle, give back.
//!
//! Leases live in the inbox; this file only asks it.

use std::time::Duration;

use packhorse_actors::inbox::{self, ClaimRequest, Mode};

use packhorse_protocol::message::check_topic;

use crate::ReceiptId;
use crate::claim::{Claim, Claimed, LEASE_MAX, LEASE_MIN, Lease, Verdict};
use crate::error::{ErrorKind, NodeError};
use crate::listing::{ListedMessage, Listing, Payload};
use crate::message::Received;
use crate::node::Node;
use crate::receipt::ReceiptState;
use crate::receipt_id;
use crate::time::WallTime;
use crate::translate::{from_inbox, from_store, listed, millis};

impl Node {
    /// The oldest messages that wait to be handled here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn inbox(&self, limit: usize) -> Result<Listing, NodeError> {
        let listing = self
            .tree
            .store
            .inbox_list(limit)
            .await
            .map_err(from_store)?;
        let peers = self.peers_by_number().await?;
        let arrivals = listing.rows.iter().map(|row| row.arrival).collect();
        let tries = self.tree.store.inbox_tries(arrivals).await;
        let tries = tries.map_err(from_store)?;
        let messages = listing.rows.into_iter().zip(tries).map(|(row, tries)| {
            let id = ReceiptId {
                recipient: receipt_id::tag(self.id),
                lane: row.lane,
                position: row.position,
            };
            let peer = peers.get(&row.peer);
            ListedMessage {
                failures: tries.failures,
                reason: Some(tries.reason).filter(|reason| !reason.is_empty()),
                ..listed(id, peer, ReceiptState::Stored, row.message)
            }
        });
        Ok(Listing {
            total: listing.total,
            messages: messages.collect(),
        })
    }

    /// Who gives out leases now. Leases live in memory, so another lender knows nothing of them.
    pub(crate) fn lender(&self) -> String {
        let epoch = self.tree.me.epoch;
        let tree = self.tree.census();
        let inbox = tree.children.iter().find(|child| child.actor == "inbox");
        let incarnation = inbox.map_or(0, |inbox| inbox.incarnation);
        format!("{}-{:016x}-{incarnation}", epoch.boot, epoch.nonce)
    }

    /// Claims waiting messages of a topic, oldest first, for 30 s.
    ///
    /// # Errors
    /// When the inbox or the store does not answer; asking again is safe.
    pub async fn receive(&self, topic: &str, count: usize) -> Result<Vec<Received>, NodeError> {
        let claimed = self.claim(Claim::new(topic, count)).await?;
        let received = claimed.into_iter().map(|message| Received {
            arrival: message.arrival,
            message: message.id,
            topic: message.topic,
            sender: message.sender,
            sender_id: message.sender_id,
            class: message.class,
            born: message.born,
            headers: message.headers,
            attempts: message.attempts,
            is_ephemeral: message.is_ephemeral,
            payload: message.payload.0,
        });
        Ok(received.collect())
    }

    /// Claims messages, or waits for the first one; empty when none came in time.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] over a limit, [`ErrorKind::Refused`] while the node drains;
    /// when the inbox or the store does not answer, asking again is safe.
    pub async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>, NodeError> {
        self.check_admission()?;
        check_lease(claim.lease)?;
        check_topic(&claim.topic)
            .map_err(|fault| NodeError::new(ErrorKind::Usage, fault.to_string()))?;
        let request = ClaimRequest {
            topic: claim.topic,
            count: claim.count,
            lease_ms: millis(claim.lease),
            mode: if claim.executes {
                Mode::Work
            } else {
                Mode::Receive
            },
        };
        let claimed = tokio::select! {
            claimed = async {
                if claim.wait.is_zero() {
                    self.tree.inbox.claim(request).await
                } else {
                    self.tree.inbox.claim_waiting(request, claim.wait).await
                }
            } => claimed.map_err(from_inbox)?,
            () = self.drain_begun() => {
                self.check_admission()?;
                Vec::new()
            }
        };
        let peers = self.peers_by_number().await?;
        let claimed = claimed.into_iter().map(|claimed| {
            let row = claimed.row;
            let peer = peers.get(&row.peer);
            let id = ReceiptId {
                recipient: receipt_id::tag(self.id),
                lane: row.lane,
                position: row.position,
            };
            Claimed {
                arrival: row.arrival,
                token: claimed.token,
                id: (!claimed.is_ephemeral).then_some(id),
                sender: peer.map(|peer| peer.name.clone()).unwrap_or_default(),
                sender_id: peer.map(|peer| peer.id),
                topic: row.message.topic,
                class: row.message.class,
                headers: row.message.headers,
                payload: Payload(row.message.payload),
                born: WallTime(row.message.born_ms),
                attempts: claimed.attempts,
                failures: claimed.failures,
                is_ephemeral: claimed.is_ephemeral,
            }
        });
        Ok(claimed.collect())
    }

    /// Counts an attempt durably, before a handler runs; returns its number.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when the lease is another's or over.
    pub async fn begin(&self, lease: Lease) -> Result<u32, NodeError> {
        let begun = self.tree.inbox.begin(lease.arrival, lease.token).await;
        begun.map_err(from_inbox)
    }

    /// Renews leases; returns the arrivals whose lease is another's or over.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for the length of the lease; when the inbox does not answer.
    pub async fn renew(&self, leases: &[Lease], length: Duration) -> Result<Vec<u64>, NodeError> {
        check_lease(length)?;
        let leases = leases.iter().map(|lease| (lease.arrival, lease.token));
        let lost = self.tree.inbox.progress(leases.collect(), millis(length));
        lost.await.map_err(from_inbox)
    }

    /// Says what came of a message; returns what became of it in a word.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when the lease is another's or over, unless it is done or dead.
    pub async fn settle(&self, lease: Lease, verdict: Verdict) -> Result<&'static str, NodeError> {
        let settled = self
            .tree
            .inbox
            .settle(lease.arrival, lease.token, in_the_trees_words(verdict))
            .await
            .map_err(from_inbox)?;
        Ok(match settled {
            inbox::Settled::Done => "done",
            inbox::Settled::Later { .. } => "waiting",
            inbox::Settled::Dead => "dead",
            inbox::Settled::Gone => "gone",
        })
    }

    /// Takes messages out of the inbox, durably.
    ///
    /// # Errors
    /// As [`Node::receive`]; repeating an acknowledgement is harmless.
    pub async fn acknowledge(&self, arrivals: &[u64]) -> Result<(), NodeError> {
        self.tree
            .inbox
            .acknowledge(arrivals.to_vec())
            .await
            .map_err(from_inbox)
    }

    /// Gives claimed messages back: the next [`Node::receive`] gets them, in their order.
    pub fn release(&self, arrivals: &[u64]) {
        self.tree.inbox.release(arrivals.to_vec());
    }
}

fn check_lease(lease: Duration) -> Result<(), NodeError> {
    if (LEASE_MIN..=LEASE_MAX).contains(&lease) {
        return Ok(());
    }
    Err(NodeError::new(
        ErrorKind::Usage,
        format!(
            "a lease of {} ms: the limits are {} ms and {} ms",
            lease.as_millis(),
            LEASE_MIN.as_millis(),
            LEASE_MAX.as_millis()
        ),
    ))
}

fn in_the_trees_words(verdict: Verdict) -> inbox::Verdict {
    match verdict {
        Verdict::Done { output } => inbox::Verdict::Done { output },
        Verdict::Retry { delay_ms, reason } => inbox::Verdict::Retry { delay_ms, reason },
        Verdict::Failed { reason, output } => inbox::Verdict::Failed { reason, output },
        Verdict::Dead { reason, output } => inbox::Verdict::Dead { reason, output },
    }
}
