//! What became of a message: receipts, and waiting for them.
//!
//! It reads and waits; it changes nothing.

use std::time::Duration;

use packhorse_actors::store::PeerRecord;

use crate::ReceiptId;
use crate::error::NodeError;
use crate::node::Node;
use crate::receipt::{Durability, Output, Receipt, ReceiptState};
use crate::receipt_id;
use crate::time::WallTime;
use crate::translate::{from_store, no_receipt, state, stored_id};

impl Node {
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
            at: now.at,
            output: now.output,
            ..receipt
        })
    }

    /// The receipt as it is now.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when this node never gave it out or keeps it no longer.
    pub async fn receipt(&self, id: &ReceiptId) -> Result<Receipt, NodeError> {
        let peer = self.recipient(id).await?;
        self.receipt_for(id, &peer).await
    }

    async fn receipt_for(&self, id: &ReceiptId, peer: &PeerRecord) -> Result<Receipt, NodeError> {
        let stored = stored_id(peer.number, id);
        let record = self.tree.store.receipt(stored).await.map_err(from_store)?;
        let record = record.ok_or_else(|| no_receipt(id))?;
        // The message itself is gone once it is stored there; only its name is kept.
        let (topic, class) = record
            .message
            .map(|message| (message.topic, message.class))
            .unzip();
        Ok(Receipt {
            id: *id,
            peer: peer.name.clone(),
            topic,
            class,
            state: state(record.state),
            durability: Durability::Fsync,
            reason: record.reason,
            at: record.at_ms.map(WallTime),
            output: Output(record.output),
        })
    }

    /// The peer that a receipt of this node's is about.
    pub(crate) async fn recipient(&self, id: &ReceiptId) -> Result<PeerRecord, NodeError> {
        let found = self.find_recipient(id).await?;
        found.ok_or_else(|| no_receipt(id))
    }

    pub(crate) async fn find_recipient(
        &self,
        id: &ReceiptId,
    ) -> Result<Option<PeerRecord>, NodeError> {
        let peers = self.tree.store.every_peer().await.map_err(from_store)?;
        Ok(peers
            .into_iter()
            .find(|peer| receipt_id::tag(peer.id) == id.recipient))
    }
}
