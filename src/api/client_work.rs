//! The client's questions about messages that are handled.

use std::time::Duration;

use crate::api::client::{Client, ClientError};
use crate::api::work::{
    Begun, ClaimRequest, ClaimedMessages, RenewRequest, Renewed, SettleRequest, Settled,
};
use crate::claim::Lease;

impl Client {
    /// Claims messages, or waits for the first one.
    pub async fn claim(&mut self, request: &ClaimRequest) -> Result<ClaimedMessages, ClientError> {
        let wait = Duration::from_millis(request.wait_ms);
        self.post_document_within("/v1/claim", request, wait).await
    }

    /// Counts an attempt, before the handler runs.
    pub async fn begin(&mut self, lease: &Lease) -> Result<Begun, ClientError> {
        self.post_document("/v1/begin", lease).await
    }

    /// Says that messages are still being handled.
    pub async fn renew(&mut self, request: &RenewRequest) -> Result<Renewed, ClientError> {
        self.post_document("/v1/renew", request).await
    }

    /// Says what came of a message.
    pub async fn settle(&mut self, request: &SettleRequest) -> Result<Settled, ClientError> {
        self.post_document("/v1/settle", request).await
    }
}
