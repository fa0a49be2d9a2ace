//! The client's questions about the node's inside.

use std::time::Duration;

use crate::api::client::{Client, ClientError, with_query};
use crate::api::insight::{DrainRequest, EventsQuery, PingRequest, TreeAnswer};
use crate::insight::{Drained, Events, Pinged};

impl Client {
    /// Asks for the actor tree.
    pub async fn tree(&mut self) -> Result<TreeAnswer, ClientError> {
        self.get("/v1/tree", Duration::ZERO).await
    }

    /// Asks for events, or waits for the first one.
    pub async fn events(&mut self, query: &EventsQuery) -> Result<Events, ClientError> {
        let wait = Duration::from_millis(query.wait_ms.unwrap_or_default());
        self.get(&with_query("/v1/events", query), wait).await
    }

    /// Measures one round trip.
    pub async fn ping(&mut self, request: &PingRequest) -> Result<Pinged, ClientError> {
        self.post_document("/v1/ping", request).await
    }

    /// Sends what can be sent, and ends the daemon.
    pub async fn drain(&mut self, request: &DrainRequest) -> Result<Drained, ClientError> {
        let wait = Duration::from_millis(request.timeout_ms);
        self.post_document_within("/v1/drain", request, wait).await
    }
}
