//! Gathers what is known of a peer or a message, so that [`crate::why`] can say it in a sentence.
//!
//! It only reads. The facts come from several places and are not one snapshot: a message may move
//! on between two looks, and the sentence then tells of the moment before.

use packhorse_actors::store::{PeerNumber, PeerRecord, SentPlace, Whereabouts};
use packhorse_protocol::grant::{Capability, Grants};

use crate::error::{ErrorKind, NodeError};
use crate::node::Node;
use crate::receipt::ReceiptState;
use crate::status::PeerStatus;
use crate::time::WallTime;
use crate::translate::{
    bare_reason, dead_state, from_inbox, from_store, public_id, state, stored_id,
};
use crate::why::{self, ClaimFacts, MessageFacts, PeerFacts, Why};
use crate::{ReceiptId, receipt_id};

impl Node {
    /// What a peer is waited for, in one sentence.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer.
    pub async fn why_peer(&self, name: &str) -> Result<Why, NodeError> {
        let record = self.peer(name).await?;
        Ok(why::of_peer(&self.peer_facts(record)))
    }

    /// What a message waits for or what became of it, in one sentence.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a message that was never here or is forgotten.
    pub async fn why_message(&self, id: &ReceiptId) -> Result<Why, NodeError> {
        let facts = if id.recipient == receipt_id::tag(self.id) {
            self.arrived_facts(id).await?
        } else {
            self.sent_facts(id).await?
        };
        match facts {
            Some(facts) => Ok(why::of_message(id, &facts)),
            None => Err(NodeError::new(
                ErrorKind::NotFound,
                format!("no message {id} is known here: it never was, or it is gone and forgotten"),
            )),
        }
    }

    fn peer_facts(&self, record: PeerRecord) -> PeerFacts {
        let now_ms = self.env.now_ms();
        let has_address = !(record.addresses.is_empty() && record.own_addresses.is_empty());
        let PeerStatus {
            name,
            state,
            link,
            outbox,
            oldest_waiting_ms,
            last_seen,
            last_error,
            next_attempt,
            since,
            failures,
            paused,
            keep,
            trouble,
            ..
        } = self.peer_status(record, now_ms);
        PeerFacts {
            now: WallTime(now_ms),
            name,
            state,
            since,
            link,
            has_address,
            keep,
            waiting: outbox,
            oldest_ms: oldest_waiting_ms,
            paused,
            failures,
            last_error,
            last_seen,
            next_attempt,
            trouble: trouble.map(|trouble| trouble.text),
        }
    }

    /// A message that this node accepted for somebody else.
    async fn sent_facts(&self, id: &ReceiptId) -> Result<Option<MessageFacts>, NodeError> {
        let Some(peer) = self.find_recipient(id).await? else {
            return Ok(None);
        };
        let stored = stored_id(peer.number, id);
        let record = self.tree.store.receipt(stored).await.map_err(from_store)?;
        let Some(record) = record else {
            return Ok(None);
        };
        let place = self
            .tree
            .store
            .sent_place(stored)
            .await
            .map_err(from_store)?;
        let now = WallTime(self.env.now_ms());
        let name = peer.name.clone();
        let reason = record
            .reason
            .unwrap_or_else(|| "no reason was given".to_owned());
        let (at, output) = (record.at_ms.map(WallTime), record.output);
        Ok(Some(match (place, record.message, state(record.state)) {
            (SentPlace::Retried(next), ..) => MessageFacts::Retried {
                receipt: public_id(peer.id, next),
                peer: name,
            },
            (SentPlace::Dead { state, is_open }, message, _) => MessageFacts::Dead {
                now,
                peer: name,
                reason: bare_reason(reason),
                topic: message.map(|message| message.topic),
                state: dead_state(state),
                is_open,
                at: at.unwrap_or(now),
            },
            (SentPlace::Waiting { ahead, expires_ms }, Some(message), _) => MessageFacts::Waiting {
                born: WallTime(message.born_ms),
                topic: message.topic,
                ahead,
                expires: expires_ms.map(WallTime),
                peer: self.peer_facts(peer),
            },
            (_, _, ReceiptState::Done) => MessageFacts::Done {
                now,
                peer: name,
                at,
                output,
            },
            (_, _, ReceiptState::Failed) => MessageFacts::Failed {
                now,
                peer: name,
                at,
                reason,
            },
            // It left the outbox between the two looks, so it is there.
            (_, _, ReceiptState::Accepted | ReceiptState::Stored) => {
                MessageFacts::Stored { peer: name }
            }
        }))
    }

    /// A message that somebody sent to this node.
    async fn arrived_facts(&self, id: &ReceiptId) -> Result<Option<MessageFacts>, NodeError> {
        // Whose epoch it is says who sent it, as long as nobody copied a store.
        let found = self
            .tree
            .store
            .inbox_find(None, id.position)
            .await
            .map_err(from_store)?;
        let now = WallTime(self.env.now_ms());
        Ok(match found {
            None => None,
            Some(Whereabouts::Left) => Some(MessageFacts::Left { sender: None }),
            Some(Whereabouts::Dead(letter)) => Some(MessageFacts::DeadHere {
                now,
                sender: self.sender(letter.peer).await?.0,
                topic: letter.message.topic,
                reason: letter.reason,
                at: WallTime(letter.at_ms),
            }),
            Some(Whereabouts::Waiting { row, tries }) => {
                let (sender, grants) = self.sender(row.peer).await?;
                let topic = row.message.topic;
                let leased_ms = self
                    .tree
                    .inbox
                    .leased_ms(row.arrival)
                    .await
                    .map_err(from_inbox)?;
                let claim = if let Some(leased_ms) = leased_ms {
                    ClaimFacts::Leased {
                        until: WallTime(now.0.saturating_add(leased_ms)),
                        attempts: tries.attempts,
                    }
                } else if tries.wait_ms(now.0) > 0 {
                    ClaimFacts::Backoff {
                        until: WallTime(tries.not_before_ms),
                        failures: tries.failures,
                        reason: tries.reason,
                    }
                } else {
                    ClaimFacts::Free {
                        may_execute: grants.allows(Capability::Execute, &topic, now.0),
                        failures: tries.failures,
                    }
                };
                Some(MessageFacts::Inbox {
                    now,
                    sender,
                    topic,
                    claim,
                })
            }
        })
    }

    /// A sender's name and what it may do here.
    async fn sender(&self, number: PeerNumber) -> Result<(String, Grants), NodeError> {
        let record = self.tree.store.peer(number).await.map_err(from_store)?;
        Ok(record
            .map(|record| (record.name, record.grants))
            .unwrap_or_default())
    }
}
