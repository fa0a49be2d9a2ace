//! One running node, for embedding: the handle that commands, API and applications share.
//!
//! [`Node::builder`] opens or makes the data folder and starts the actor tree; every method asks
//! the tree and says what came of it in this crate's own words.
//! It holds no policy: what is refused, stored or retried is decided below.
//!
//! Two nodes live well in one process, and nothing global is installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use packhorse_actors::env::Env;
use packhorse_actors::session::JoinOptions;
use packhorse_actors::store::{self, InviteRecord, NewMessage, PeerNumber, PeerRecord};
use packhorse_actors::supervise::{Cause, TreeEnd};
use packhorse_actors::tree::Tree;
use packhorse_protocol::epoch::Lane;
use packhorse_protocol::message::{DeliveryClass, Message};

use crate::error::{ErrorKind, NodeError};
use crate::exit::Exit;
use crate::listing::Listing;
use crate::message::{Outgoing, Received};
use crate::peer::{Invite, Join, Joined, PeerInfo};
use crate::receipt::{Durability, Receipt, ReceiptState};
use crate::receipt_id;
use crate::start::NodeBuilder;
use crate::status::{PeerFault, PeerState, PeerStatus, Status};
use crate::time::WallTime;
use crate::translate::{
    from_inbox, from_join, from_store, grants, listed, millis, no_receipt, peer_info, peer_state,
    public_id, state,
};
use crate::{NodeId, ReceiptId, Ticket};

/// Why a node gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The actor whose restart budget is spent.
    pub actor: String,
    /// What it said last.
    pub reason: String,
    /// The code that the process ends with.
    pub exit: Exit,
}

/// One running node.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    name: String,
    data_dir: PathBuf,
    is_new: bool,
    tree: Tree,
    env: Env,
    started_ms: u64,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        name: String,
        data_dir: PathBuf,
        is_new: bool,
        tree: Tree,
        env: Env,
    ) -> Node {
        let started_ms = env.monotonic_ms();
        Node {
            id,
            name,
            data_dir,
            is_new,
            tree,
            env,
            started_ms,
        }
    }

    /// A node that keeps everything in this folder.
    #[must_use]
    pub fn builder(data_dir: impl Into<PathBuf>) -> NodeBuilder {
        NodeBuilder::new(data_dir.into())
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The name that it announces.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, as `quic://HOST:PORT`.
    #[must_use]
    pub fn listen(&self) -> Vec<String> {
        self.tree
            .listening
            .iter()
            .map(|address| format!("quic://{address}"))
            .collect()
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether this start made the identity.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Makes a ticket: whoever joins with it may do what `invite` grants.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] without a listener, [`ErrorKind::Usage`] for limits of the ticket.
    pub async fn invite(&self, invite: Invite) -> Result<Ticket, NodeError> {
        let hints = &self.tree.me.addresses;
        if hints.is_empty() {
            return Err(NodeError::new(
                ErrorKind::Refused,
                "this node listens nowhere, so nobody can join it",
            )
            .with_hint("packhorse up --listen 0.0.0.0:7433"));
        }
        let grants = grants(invite.grants)?;
        let usage =
            |error: &dyn std::error::Error| NodeError::new(ErrorKind::Usage, error.to_string());
        let ticket = Ticket::new(
            self.id,
            self.env.random_bytes(),
            self.env.random_bytes(),
            hints.clone(),
        )
        .map_err(|error| usage(&error))?;
        let now_ms = self.env.now_ms();
        let expires_ms = now_ms.saturating_add(millis(invite.expires));
        let record = InviteRecord {
            ticket_id: ticket.id(),
            key: ticket.key(),
            grants,
            made_ms: now_ms,
            expires_ms,
            uses_left: invite.uses,
            users: Vec::new(),
        };
        self.tree
            .store
            .add_invite(record)
            .await
            .map_err(from_store)?;
        Ok(ticket)
    }

    /// Pairs with the inviter of a ticket; returns once both sides have committed it.
    ///
    /// # Errors
    /// The inviter's refusal, or why it was not reached; joining again is safe.
    pub async fn join(&self, ticket: &Ticket, join: Join) -> Result<Joined, NodeError> {
        let options = JoinOptions {
            name: join.name,
            grants: grants(join.grants)?,
        };
        let joined = self
            .tree
            .sessions
            .join(ticket.clone(), options)
            .await
            .map_err(from_join)?;
        Ok(Joined {
            peer: peer_info(joined.record),
            compare: joined.compare,
        })
    }

    /// Every peer, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NodeError> {
        let mut peers: Vec<_> = self
            .tree
            .store
            .peers()
            .await
            .map_err(from_store)?
            .into_iter()
            .map(peer_info)
            .collect();
        peers.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(peers)
    }

    /// Accepts one message: it is fsynced when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer, [`ErrorKind::Usage`] over a limit,
    /// [`ErrorKind::Refused`] for a key used with other bytes, [`ErrorKind::Full`].
    pub async fn send(&self, peer: &str, message: Outgoing) -> Result<Receipt, NodeError> {
        let mut receipts = self.send_many(peer, vec![message]).await?;
        receipts
            .pop()
            .ok_or_else(|| NodeError::new(ErrorKind::Internal, "no receipt came back"))
    }

    /// Accepts messages in order, with one sync for all; all of them or none.
    ///
    /// # Errors
    /// As [`Node::send`].
    pub async fn send_many(
        &self,
        peer: &str,
        messages: Vec<Outgoing>,
    ) -> Result<Vec<Receipt>, NodeError> {
        let record = self.peer(peer).await?;
        let born_ms = self.env.now_ms();
        let heads: Vec<_> = messages
            .iter()
            .map(|message| (message.topic.clone(), message.class))
            .collect();
        let mut rows = Vec::with_capacity(messages.len());
        for Outgoing {
            topic,
            payload,
            class,
            key,
        } in messages
        {
            let message = Message {
                class,
                topic,
                born_ms,
                headers: Vec::new(),
                payload,
            };
            message
                .check()
                .map_err(|fault| NodeError::new(ErrorKind::Usage, fault.to_string()))?;
            rows.push(NewMessage { message, key });
        }
        let accepted = self
            .tree
            .store
            .accept(record.number, Lane::User, rows)
            .await
            .map_err(from_store)?;
        let receipts = accepted
            .into_iter()
            .zip(heads)
            .map(|(accepted, (topic, class))| Receipt {
                id: public_id(record.id, accepted.id),
                peer: record.name.clone(),
                topic,
                class,
                state: state(accepted.state),
                durability: Durability::Fsync,
                reason: None,
            });
        Ok(receipts.collect())
    }

    /// The receipt when it reached the state or failed, or as it is at the end of the timeout.
    ///
    /// # Errors
    /// As [`Node::receipt`].
    pub async fn wait(
        &self,
        receipt: Receipt,
        wanted: ReceiptState,
        timeout: Duration,
    ) -> Result<Receipt, NodeError> {
        let id = receipt.id;
        let peer = self.recipient(&id).await?;
        let mut counts = self.tree.store.outbox_counts(peer.number);
        let reached = async {
            loop {
                // ORDER: mark the signal as seen before looking, so that no change is missed.
                counts.borrow_and_update();
                let now = self.receipt_for(&id, &peer).await?;
                if now.state.has_reached(wanted) || now.state.is_final() {
                    return Ok(now);
                }
                if counts.changed().await.is_err() {
                    return Ok(now);
                }
            }
        };
        let now = match tokio::time::timeout(timeout, reached).await {
            Ok(now) => now?,
            Err(_) => self.receipt_for(&id, &peer).await?,
        };
        // What a delivered message was about is known only to who has its first receipt.
        Ok(Receipt {
            state: now.state,
            reason: now.reason,
            ..receipt
        })
    }

    /// The receipt as it is now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when this node never gave it out or keeps it no longer.
    pub async fn receipt(&self, id: &ReceiptId) -> Result<Receipt, NodeError> {
        let peer = self.recipient(id).await?;
        self.receipt_for(id, &peer).await
    }

    async fn receipt_for(&self, id: &ReceiptId, peer: &PeerRecord) -> Result<Receipt, NodeError> {
        let stored = store::ReceiptId {
            peer: peer.number,
            lane: id.lane,
            position: id.position,
        };
        let record = self.tree.store.receipt(stored).await.map_err(from_store)?;
        let record = record.ok_or_else(|| no_receipt(id))?;
        // The message itself is gone once it is stored there; only its name is kept.
        let (topic, class) = record
            .message
            .map_or((None, DeliveryClass::Critical), |message| {
                (Some(message.topic), message.class)
            });
        Ok(Receipt {
            id: *id,
            peer: peer.name.clone(),
            topic: topic.unwrap_or_default(),
            class,
            state: state(record.state),
            durability: Durability::Fsync,
            reason: record.reason,
        })
    }

    /// The oldest messages that wait for their recipients.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn outbox(&self, limit: usize) -> Result<Listing, NodeError> {
        let listing = self
            .tree
            .store
            .outbox_list(limit)
            .await
            .map_err(from_store)?;
        let peers = self.peers_by_number().await?;
        let messages = listing.rows.into_iter().map(|row| {
            let peer = peers.get(&row.id.peer);
            let recipient = peer.map_or(self.id, |peer| peer.id);
            listed(
                public_id(recipient, row.id),
                peer,
                ReceiptState::Accepted,
                row.message,
            )
        });
        Ok(Listing {
            total: listing.total,
            messages: messages.collect(),
        })
    }

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
        let messages = listing.rows.into_iter().map(|row| {
            let id = ReceiptId {
                recipient: receipt_id::tag(self.id),
                lane: row.lane,
                position: row.position,
            };
            listed(id, peers.get(&row.peer), ReceiptState::Stored, row.message)
        });
        Ok(Listing {
            total: listing.total,
            messages: messages.collect(),
        })
    }

    /// Claims waiting messages of a topic, oldest first, for 30 s.
    ///
    /// # Errors
    /// When the inbox or the store does not answer; asking again is safe.
    pub async fn receive(&self, topic: &str, count: usize) -> Result<Vec<Received>, NodeError> {
        let rows = self
            .tree
            .inbox
            .claim(topic, count)
            .await
            .map_err(from_inbox)?;
        let peers = self.peers_by_number().await?;
        let received = rows.into_iter().map(|row| Received {
            arrival: row.arrival,
            topic: row.message.topic,
            sender: peers
                .get(&row.peer)
                .map(|peer| peer.name.clone())
                .unwrap_or_default(),
            payload: row.message.payload,
        });
        Ok(received.collect())
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

    /// The node and its peers as they are now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn status(&self) -> Result<Status, NodeError> {
        let now_ms = self.env.now_ms();
        let mut peers: Vec<_> = self
            .tree
            .store
            .peers()
            .await
            .map_err(from_store)?
            .into_iter()
            .map(|record| self.peer_status(record, now_ms))
            .collect();
        peers.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(Status {
            node: self.id,
            name: self.name.clone(),
            version: crate::VERSION.to_owned(),
            uptime_ms: self.env.monotonic_ms().saturating_sub(self.started_ms),
            peers,
        })
    }

    /// Resolves when the tree gave up, never on ordinary shutdown.
    pub async fn ended(&self) -> Ended {
        match self.tree.ended().await {
            TreeEnd::GaveUp {
                actor,
                cause,
                reason,
            } => Ended {
                actor: actor.to_owned(),
                reason,
                exit: match cause {
                    Cause::StorageFull => Exit::Full,
                    Cause::StorageFailed => Exit::Damaged,
                    Cause::Budget => Exit::Internal,
                },
            },
            TreeEnd::Asked => std::future::pending().await,
        }
    }

    /// Stops the sessions and actors in order and closes the store: what was accepted stays.
    pub async fn shutdown(&self) {
        self.tree.shutdown().await;
    }

    async fn peer(&self, name: &str) -> Result<PeerRecord, NodeError> {
        let found = self
            .tree
            .store
            .peer_by_name_or_id(name)
            .await
            .map_err(from_store)?;
        found.ok_or_else(|| {
            NodeError::new(ErrorKind::NotFound, format!("no peer `{name}`"))
                .with_hint("packhorse peers")
        })
    }

    async fn peers_by_number(&self) -> Result<BTreeMap<PeerNumber, PeerRecord>, NodeError> {
        let peers = self.tree.store.peers().await.map_err(from_store)?;
        Ok(peers.into_iter().map(|peer| (peer.number, peer)).collect())
    }

    /// The peer that a receipt of this node's is about.
    async fn recipient(&self, id: &ReceiptId) -> Result<PeerRecord, NodeError> {
        let peers = self.tree.store.peers().await.map_err(from_store)?;
        let found = peers
            .into_iter()
            .find(|peer| receipt_id::tag(peer.id) == id.recipient);
        found.ok_or_else(|| no_receipt(id))
    }

    fn peer_status(&self, record: PeerRecord, now_ms: u64) -> PeerStatus {
        let line = self.tree.board.line(record.number);
        let counts = *self.tree.store.outbox_counts(record.number).borrow();
        let last_seen_ms = line.last_seen_ms.or(record.last_seen_ms);
        PeerStatus {
            name: record.name,
            id: record.id,
            state: match (line.state, last_seen_ms) {
                (packhorse_actors::board::PeerState::NeverSeen, Some(_)) => PeerState::Idle,
                (state, _) => peer_state(state),
            },
            link: line.link,
            key_exchange: line.key_exchange,
            round_trip_ms: line.round_trip_ms,
            outbox: counts.waiting.iter().sum(),
            oldest_waiting_ms: counts
                .oldest_born_ms
                .map(|born_ms| now_ms.saturating_sub(born_ms)),
            last_seen: last_seen_ms.map(WallTime),
            last_error: line.last_error.map(|error| PeerFault {
                class: error.class.name().to_owned(),
                text: error.text,
            }),
            next_attempt: line.next_attempt_ms.map(WallTime),
        }
    }
}
