//! What the handle says about pairing without a ticket: who asks here, and whom this node asks.

use packhorse_protocol::grant::Grants;
use packhorse_protocol::handshake::Introduction;
use packhorse_protocol::node_id::NodeId;

use super::error::StoreError;
use super::handle::StoreHandle;
use super::tables::asking::{self, AskingAnswer, AskingRecord};
use super::tables::pairing;
use super::tables::peers::PeerRecord;
use super::tables::requests::{self, NewRequest, RequestRecord, Requested};

impl StoreHandle {
    /// Takes up the request of a node that is no peer.
    pub async fn request(&self, new: NewRequest) -> Result<Requested, StoreError> {
        self.write(0, move |view| requests::ask(view, new)).await
    }

    /// Every request that waits or was decided within a day, the oldest first.
    pub async fn requests(&self, now_ms: u64) -> Result<Vec<RequestRecord>, StoreError> {
        self.read(move |reader| Ok(requests::current(reader, now_ms)?))
            .await
    }

    /// Makes who asked a peer; it is one the next time it dials.
    pub async fn approve_request(
        &self,
        id: NodeId,
        name: Option<String>,
        grants: Grants,
    ) -> Result<PeerRecord, StoreError> {
        self.write(0, move |view| {
            requests::approve(view, id, name.as_deref(), &grants)
        })
        .await
    }

    /// Rejects a request; with `deny` its node is denied for good.
    pub async fn reject_request(&self, id: NodeId, deny: bool) -> Result<(), StoreError> {
        self.write(0, move |view| requests::reject(view, id, deny))
            .await
    }

    /// Makes a node a peer that the application accepted.
    pub async fn pair_asker(
        &self,
        introduction: Introduction,
        grants: Grants,
    ) -> Result<PeerRecord, StoreError> {
        self.write(0, move |view| {
            pairing::pair_asker(view, &introduction, None, &grants)
        })
        .await
    }

    /// Begins to ask a node to be paired, or begins anew.
    pub async fn begin_asking(&self, record: AskingRecord) -> Result<AskingRecord, StoreError> {
        self.write(0, move |view| asking::begin(view, record)).await
    }

    /// Writes down what came of a dial of a node that is asked.
    pub async fn asking_answered(
        &self,
        id: NodeId,
        begun_ms: u64,
        answer: AskingAnswer,
    ) -> Result<(), StoreError> {
        self.write(0, move |view| asking::answered(view, id, begun_ms, answer))
            .await
    }

    /// Makes the node that was asked a peer; `None` when it is not asked, or not any more.
    pub async fn pair_asked(
        &self,
        introduction: Introduction,
        granted: Grants,
    ) -> Result<Option<PeerRecord>, StoreError> {
        self.write(0, move |view| asking::pair(view, &introduction, &granted))
            .await
    }

    /// Stops asking a node.
    pub async fn withdraw_asking(&self, id: NodeId) -> Result<(), StoreError> {
        self.write(0, move |view| asking::withdraw(view, id)).await
    }

    /// How far asking a node came; `None` when it is not asked.
    pub async fn asking(&self, id: NodeId) -> Result<Option<AskingRecord>, StoreError> {
        self.read(move |reader| Ok(asking::asking(reader, &id)?))
            .await
    }

    /// Everybody who is asked, or answered no within a day; the oldest first.
    pub async fn askings(&self, now_ms: u64) -> Result<Vec<AskingRecord>, StoreError> {
        self.read(move |reader| Ok(asking::current(reader, now_ms)?))
            .await
    }
}
