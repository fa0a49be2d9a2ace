//! What a node does for whoever sends: it accepts messages, or hands them to a live session.
//!
//! Nothing here waits for a peer; a message that was accepted is carried by the tree alone.

use packhorse_actors::store::{NewMessage, PeerRecord};
use packhorse_protocol::epoch::Lane;
use packhorse_protocol::message::{DeliveryClass, Message};

use crate::error::{ErrorKind, NodeError};
use crate::message::{EphemeralSent, EphemeralState, Outgoing, Sent};
use crate::node::Node;
use crate::receipt::{Durability, Output, Receipt};
use crate::translate::{from_ephemeral, from_store, millis, public_id, state};

impl Node {
    /// Accepts one message: it is fsynced when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer, [`ErrorKind::Usage`] over a limit or for a message
    /// that is ephemeral and therefore has no receipt, [`ErrorKind::Refused`] for a key used with
    /// other bytes or a message that is too late to be replaced, [`ErrorKind::Full`].
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
        self.accept(&record, messages).await
    }

    /// Sends a message as its class says: stored first, or now over the live session and never
    /// stored.
    ///
    /// # Errors
    /// As [`Node::send`]; [`ErrorKind::Unsent`] for an ephemeral message without a live session.
    pub async fn dispatch(&self, peer: &str, message: Outgoing) -> Result<Sent, NodeError> {
        let record = self.peer(peer).await?;
        if self.class_for(&record, &message) == DeliveryClass::Ephemeral {
            let sent = self.send_now(&record, message).await?;
            return Ok(Sent::Ephemeral(sent));
        }
        let mut receipts = self.accept(&record, vec![message]).await?;
        let receipt = receipts
            .pop()
            .ok_or_else(|| NodeError::new(ErrorKind::Internal, "no receipt came back"))?;
        Ok(Sent::Accepted(receipt))
    }

    fn class_for(&self, peer: &PeerRecord, message: &Outgoing) -> DeliveryClass {
        let recipient = (peer.name.as_str(), peer.id);
        self.rules.class(&message.topic, recipient, message.class)
    }

    async fn accept(
        &self,
        peer: &PeerRecord,
        messages: Vec<Outgoing>,
    ) -> Result<Vec<Receipt>, NodeError> {
        self.check_admission()?;
        let born_ms = self.env.now_ms();
        let mut heads = Vec::with_capacity(messages.len());
        let mut rows = Vec::with_capacity(messages.len());
        for outgoing in messages {
            outgoing.check()?;
            let class = self.class_for(peer, &outgoing);
            let message = message(
                &outgoing.topic,
                class,
                born_ms,
                outgoing.headers,
                outgoing.payload,
            )?;
            heads.push((outgoing.topic, class));
            rows.push(NewMessage {
                message,
                key: outgoing.key,
                expires_ms: outgoing
                    .expires
                    .map(|expires| born_ms.saturating_add(millis(expires))),
                replace: outgoing.replace,
            });
        }
        let accepted = self
            .tree
            .store
            .accept(peer.number, Lane::User, rows)
            .await
            .map_err(from_store)?;
        let receipts = accepted
            .into_iter()
            .zip(heads)
            .map(|(accepted, (topic, class))| Receipt {
                id: public_id(peer.id, accepted.id),
                peer: peer.name.clone(),
                topic: Some(topic),
                class: Some(class),
                state: state(accepted.state),
                durability: Durability::Fsync,
                reason: None,
                at: None,
                output: Output::default(),
            });
        Ok(receipts.collect())
    }

    async fn send_now(
        &self,
        peer: &PeerRecord,
        outgoing: Outgoing,
    ) -> Result<EphemeralSent, NodeError> {
        self.check_admission()?;
        outgoing.check()?;
        let stored_only = [
            ("an idempotency key", outgoing.key.is_some()),
            ("an expiry", outgoing.expires.is_some()),
        ];
        if let Some((what, _)) = stored_only.into_iter().find(|(_, is_given)| *is_given) {
            return Err(NodeError::new(
                ErrorKind::Usage,
                format!("an ephemeral message is never stored, so {what} means nothing for it"),
            ));
        }
        let class = DeliveryClass::Ephemeral;
        let born_ms = self.env.now_ms();
        let message = message(
            &outgoing.topic,
            class,
            born_ms,
            outgoing.headers,
            outgoing.payload,
        )?;
        self.tree
            .sessions
            .send_ephemeral(peer.number, message)
            .await
            .map_err(|error| from_ephemeral(error, &peer.name))?;
        Ok(EphemeralSent {
            peer: peer.name.clone(),
            topic: outgoing.topic,
            class,
            state: EphemeralState::Sent,
        })
    }
}

fn message(
    topic: &str,
    class: DeliveryClass,
    born_ms: u64,
    headers: Vec<(String, String)>,
    payload: Vec<u8>,
) -> Result<Message, NodeError> {
    let message = Message {
        class,
        topic: topic.to_owned(),
        born_ms,
        headers,
        payload,
    };
    match message.check() {
        Ok(()) => Ok(message),
        Err(fault) => Err(NodeError::new(ErrorKind::Usage, fault.to_string())),
    }
}
