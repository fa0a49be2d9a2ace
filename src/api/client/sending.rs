//! Questions about what goes out: messages and lines, receipts, outbox, dead letters, and why.

use std::time::Duration;

use axum::body::Bytes;
use serde::Deserialize;

use super::{Client, ClientError, with_query};
use crate::ReceiptId;
use crate::api::documents::{
    BoxRequest, DeadQuery, Dropped, Flushed, LinesAccepted, LinesQuery, ListQuery, ReceiptQuery,
    SendQuery,
};
use crate::dead::{DeadListing, Retried};
use crate::listing::Listing;
use crate::message::{EphemeralSent, Sent};
use crate::receipt::Receipt;
use crate::why::Why;

/// Longest that dealing with a whole box may take.
const BOX_WAIT: Duration = Duration::from_secs(60 * 60);

/// The two answers to a message, told apart by their schema.
#[derive(Deserialize)]
#[serde(tag = "schema")]
enum SentAnswer {
    #[serde(rename = "packhorse.receipt.v1")]
    Accepted(Receipt),
    #[serde(rename = "packhorse.ephemeral.v1")]
    Ephemeral(EphemeralSent),
}

impl Client {
    /// Sends one message.
    pub async fn send(&mut self, query: &SendQuery, payload: Bytes) -> Result<Sent, ClientError> {
        let wait = Duration::from_millis(query.timeout_ms.unwrap_or_default());
        let target = with_query("/v1/messages", query);
        Ok(match self.post(&target, payload, wait).await? {
            SentAnswer::Accepted(receipt) => Sent::Accepted(receipt),
            SentAnswer::Ephemeral(sent) => Sent::Ephemeral(sent),
        })
    }

    /// Sends lines, all of them or none.
    pub async fn lines(
        &mut self,
        query: &LinesQuery,
        lines: Bytes,
    ) -> Result<LinesAccepted, ClientError> {
        self.post(&with_query("/v1/lines", query), lines, Duration::ZERO)
            .await
    }

    /// Asks how far a message came, or waits for it.
    pub async fn receipt(
        &mut self,
        id: &ReceiptId,
        query: &ReceiptQuery,
    ) -> Result<Receipt, ClientError> {
        let wait = Duration::from_millis(query.timeout_ms.unwrap_or_default());
        self.get(&with_query(&format!("/v1/receipts/{id}"), query), wait)
            .await
    }

    /// Asks for the oldest messages of the outbox.
    pub async fn outbox(&mut self, limit: Option<usize>) -> Result<Listing, ClientError> {
        let query = ListQuery {
            limit,
            ..ListQuery::default()
        };
        self.outbox_of(&query).await
    }

    /// The same for those that match.
    pub async fn outbox_of(&mut self, query: &ListQuery) -> Result<Listing, ClientError> {
        self.get(&with_query("/v1/outbox", query), Duration::ZERO)
            .await
    }

    /// Makes waiting messages dead letters.
    pub async fn outbox_drop(&mut self, request: &BoxRequest) -> Result<Dropped, ClientError> {
        self.post_box("/v1/outbox/drop", request).await
    }

    /// Has peers dialled now.
    pub async fn outbox_flush(&mut self, request: &BoxRequest) -> Result<Flushed, ClientError> {
        self.post_document("/v1/outbox/flush", request).await
    }

    /// Asks for dead letters.
    pub async fn dead(&mut self, query: &DeadQuery) -> Result<DeadListing, ClientError> {
        self.get(&with_query("/v1/dead", query), Duration::ZERO)
            .await
    }

    /// Takes dead letters up again.
    pub async fn dead_retry(&mut self, request: &BoxRequest) -> Result<Retried, ClientError> {
        self.post_box("/v1/dead/retry", request).await
    }

    /// Deletes dead letters for good.
    pub async fn dead_drop(&mut self, request: &BoxRequest) -> Result<Dropped, ClientError> {
        self.post_box("/v1/dead/drop", request).await
    }

    /// Asks what a peer is waited for.
    pub async fn why_peer(&mut self, name: &str) -> Result<Why, ClientError> {
        let target = format!("/v1/why/peers/{}", path_segment(name));
        self.get(&target, Duration::ZERO).await
    }

    /// Asks what a message waits for.
    pub async fn why_message(&mut self, id: &ReceiptId) -> Result<Why, ClientError> {
        self.get(&format!("/v1/why/messages/{id}"), Duration::ZERO)
            .await
    }

    async fn post_box<A: serde::de::DeserializeOwned>(
        &mut self,
        target: &str,
        request: &BoxRequest,
    ) -> Result<A, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Malformed {
            text: error.to_string(),
        })?;
        self.post(target, body.into(), BOX_WAIT).await
    }
}

/// A name as one part of a path, whatever characters it holds.
fn path_segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_part_of_a_path() {
        assert_eq!(path_segment("left-1_2"), "left-1_2");
        assert_eq!(path_segment("../a b/ü?"), "%2E%2E%2Fa%20b%2F%C3%BC%3F");
    }
}
