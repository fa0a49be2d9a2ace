//! The API for whoever handles messages: claim, begin, renew, settle.
//!
//! A claim may wait for its first message; such waits are counted, so that consumers alone can
//! never take all connections away from everybody else.
//! Repeating any of these requests is harmless, except that a repeated `begin` counts twice.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;

use crate::api::documents::RECEIVE_COUNT_MAX;
use crate::api::error::ApiError;
use crate::api::routes::{ANSWER_WITHIN, Answer, Api, answer, parse_body, within};
use crate::claim::{Claim, Claimed, LEASE_DEFAULT, Lease, Verdict};
use crate::error::NodeError;
use crate::listing::Payload;
use crate::time::WallTime;
use crate::{ErrorKind, ReceiptId, headers, text};

/// Longest wait in one request; who wants more asks again.
pub const CLAIM_WAIT_MAX: Duration = Duration::from_secs(60);
/// Most leases that one request renews.
pub const LEASES_COUNT_MAX: usize = 1_024;

/// Names of the documents.
pub mod schema {
    /// Messages that were lent out.
    pub const CLAIMED: &str = "packhorse.claimed.v1";
    /// The number of an attempt.
    pub const BEGUN: &str = "packhorse.begun.v1";
    /// Leases that are lost.
    pub const RENEWED: &str = "packhorse.renewed.v1";
    /// What a verdict led to.
    pub const SETTLED: &str = "packhorse.settled.v1";
    /// One message, as `receive --jsonl` prints it.
    pub const MESSAGE: &str = "packhorse.message.v1";
}

/// The body of `POST /v1/claim`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Which messages.
    pub topic: String,
    /// How many at most; an answer may hold fewer than there are.
    pub count: usize,
    /// How long each is lent out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Whether a command is started for each.
    #[serde(default)]
    pub executes: bool,
    /// How long to wait for the first one.
    #[serde(default)]
    pub wait_ms: u64,
    /// Who gave out the leases that the asker holds. An inbox that is not the same any more knows
    /// nothing of them: it hands out nothing and says who it is, so that they are renewed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lender: Option<String>,
}

/// The answer to it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClaimedMessages {
    /// Who gives out leases now: another word after every restart of the inbox.
    pub lender: String,
    /// In the order of their arrival.
    pub messages: Vec<Claimed>,
}

/// One message, as `receive --jsonl` prints it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MessageLine<'a> {
    #[serde(with = "text::option")]
    id: &'a Option<ReceiptId>,
    sender: &'a str,
    topic: &'a str,
    #[serde(with = "headers")]
    headers: &'a [(String, String)],
    #[serde(flatten)]
    payload: &'a Payload,
    born: WallTime,
    attempts: u32,
}

impl MessageLine<'_> {
    /// What is shown of a message.
    #[must_use]
    pub fn of(message: &Claimed) -> MessageLine<'_> {
        MessageLine {
            id: &message.id,
            sender: &message.sender,
            topic: &message.topic,
            headers: &message.headers,
            payload: &message.payload,
            born: message.born,
            attempts: message.attempts,
        }
    }
}

/// The answer of `POST /v1/begin`, whose body is a [`Lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Which run of a handler this is: 1 is the first.
    pub attempt: u32,
}

/// The body of `POST /v1/renew`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// What is still being handled.
    pub leases: Vec<Lease>,
    /// For how long from now.
    pub lease_ms: u64,
}

/// The answer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// Who knows these leases now.
    pub lender: String,
    /// Arrivals that are lent to somebody else, or gone.
    pub lost: Vec<u64>,
}

/// The body of `POST /v1/settle`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SettleRequest {
    /// Which message.
    #[serde(flatten)]
    pub lease: Lease,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// What became of the message: `done`, `waiting`, `dead`, or `gone` when it had left the inbox before.
    pub state: String,
}

/// The routes of this file.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/claim", post(claim))
        .route("/v1/begin", post(begin))
        .route("/v1/renew", post(renew))
        .route("/v1/settle", post(settle))
}

async fn claim(State(api): State<Api>, body: Body) -> Answer {
    let request: ClaimRequest = parse_body(body).await?;
    let wait = Duration::from_millis(request.wait_ms).min(CLAIM_WAIT_MAX);
    let _place = place_to_wait(&api, wait)?;
    let claim = Claim {
        topic: request.topic,
        count: request.count.min(RECEIVE_COUNT_MAX),
        lease: request
            .lease_ms
            .map_or(LEASE_DEFAULT, Duration::from_millis),
        executes: request.executes,
        wait,
    };
    let lender = api.node.lender();
    if request
        .lender
        .as_ref()
        .is_some_and(|known| *known != lender)
    {
        let messages = Vec::new();
        return answer(schema::CLAIMED, ClaimedMessages { lender, messages });
    }
    let mut draining = api.draining.clone();
    let mut messages = tokio::select! {
        messages = within(wait + ANSWER_WITHIN, api.node.claim(claim)) => messages?,
        // The daemon stops; who asked comes back when it runs again.
        _ = draining.wait_for(|draining| *draining) => Vec::new(),
    };
    let lender_now = api.node.lender();
    if request.lender.is_some() && lender_now != lender {
        // The inbox was restarted meanwhile: one of these may be what the asker has already.
        let arrivals: Vec<u64> = messages.iter().map(|message| message.arrival).collect();
        api.node.release(&arrivals);
        messages.clear();
    }
    let lender = lender_now;
    answer(schema::CLAIMED, ClaimedMessages { lender, messages })
}

async fn begin(State(api): State<Api>, body: Body) -> Answer {
    let lease: Lease = parse_body(body).await?;
    let attempt = within(ANSWER_WITHIN, api.node.begin(lease)).await?;
    answer(schema::BEGUN, Begun { attempt })
}

async fn renew(State(api): State<Api>, body: Body) -> Answer {
    let request: RenewRequest = parse_body(body).await?;
    let count = request.leases.len();
    if count > LEASES_COUNT_MAX {
        return Err(ApiError::usage(format!(
            "{count} leases in one request, the limit is {LEASES_COUNT_MAX}"
        )));
    }
    let lease = Duration::from_millis(request.lease_ms);
    // ORDER: asked before, so that an inbox that is restarted in between is not taken for one that
    // knows these leases.
    let lender = api.node.lender();
    let lost = within(ANSWER_WITHIN, api.node.renew(&request.leases, lease)).await?;
    answer(schema::RENEWED, Renewed { lender, lost })
}

async fn settle(State(api): State<Api>, body: Body) -> Answer {
    let request: SettleRequest = parse_body(body).await?;
    let settle = api.node.settle(request.lease, request.verdict);
    let state = within(ANSWER_WITHIN, settle).await?.to_owned();
    answer(schema::SETTLED, Settled { state })
}

/// A place among those who wait; who waits for nothing needs none.
pub(crate) fn place_to_wait(
    api: &Api,
    wait: Duration,
) -> Result<Option<SemaphorePermit<'_>>, ApiError> {
    if wait.is_zero() {
        return Ok(None);
    }
    let place = api.waits.try_acquire().map_err(|_| {
        NodeError::new(
            ErrorKind::Internal,
            "too many consumers and watchers wait already: try again later",
        )
    })?;
    Ok(Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settlement_has_the_published_shape() {
        let request = SettleRequest {
            lease: Lease {
                arrival: 7,
                token: 9,
            },
            verdict: Verdict::Done {
                output: b"ok".to_vec(),
            },
        };
        let text = serde_json::to_string(&request).expect("plain values");
        assert_eq!(
            text,
            r#"{"arrival":7,"token":9,"verdict":"done","output_base64":"b2s="}"#
        );
        let again: SettleRequest = serde_json::from_str(&text).expect("its own text");
        assert_eq!(again.verdict, request.verdict);
        assert_eq!(again.lease, request.lease);
    }
}
