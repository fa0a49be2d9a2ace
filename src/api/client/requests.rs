//! Questions about pairing without a ticket.

use std::time::Duration;

use super::{Client, ClientError, with_query};
use crate::api::documents::requests::{
    ApproveRequest, Approved, AskRequest, AskedAnswer, AskedQuery, RejectRequest, Rejected,
};
use crate::request::Requests;

impl Client {
    /// Asks a node to be paired.
    pub async fn ask(&mut self, request: &AskRequest) -> Result<AskedAnswer, ClientError> {
        self.post_document("/v1/requests", request).await
    }

    /// Asks how far asking a node came, or waits for its decision.
    pub async fn asked(&mut self, query: &AskedQuery) -> Result<AskedAnswer, ClientError> {
        let wait = Duration::from_millis(query.wait_ms.unwrap_or_default());
        self.get(&with_query("/v1/requests/asked", query), wait)
            .await
    }

    /// Asks who asks, and who is asked.
    pub async fn requests(&mut self) -> Result<Requests, ClientError> {
        self.get("/v1/requests", Duration::ZERO).await
    }

    /// Makes a node that asks a peer.
    pub async fn approve(&mut self, request: &ApproveRequest) -> Result<Approved, ClientError> {
        self.post_document("/v1/requests/approve", request).await
    }

    /// Rejects a request, or withdraws one.
    pub async fn reject(&mut self, request: &RejectRequest) -> Result<Rejected, ClientError> {
        self.post_document("/v1/requests/reject", request).await
    }
}
