//! The API for whoever looks inside: tree, events, ping, drain, and the two probes.
//!
//! Probes answer in plain text, because what asks them knows no documents.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use crate::api::error::ApiError;
use crate::api::routes::{ANSWER_WITHIN, Answer, Api, answer, parse_body, parse_query, within};
use crate::api::work::place_to_wait;
use crate::insight::Branch;

/// Most events in one answer.
pub const EVENTS_COUNT_MAX: usize = 1_000;
/// Events in one answer unless told otherwise.
pub const EVENTS_COUNT_DEFAULT: usize = 100;
/// Longest wait for events in one request; who wants more asks again.
pub const EVENTS_WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest drain.
pub const DRAIN_MAX: Duration = Duration::from_secs(60 * 60);

/// Names of the documents.
pub mod schema {
    /// The actor tree.
    pub const TREE: &str = "packhorse.tree.v1";
    /// Some events.
    pub const EVENTS: &str = "packhorse.events.v1";
    /// One event, as `events --jsonl` prints it.
    pub const EVENT: &str = "packhorse.event.v1";
    /// One round trip.
    pub const PING: &str = "packhorse.ping.v1";
    /// What was left when the node had sent what it could.
    pub const DRAIN: &str = "packhorse.drain.v1";
}

/// The answer of `GET /v1/tree`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeAnswer {
    /// The top of the tree.
    pub root: Branch,
}

/// The query of `GET /v1/events`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Those with higher numbers; the newest ones when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Most events to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// How long to wait for the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// The body of `POST /v1/ping`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// Name or id of the peer.
    pub peer: String,
}

/// The body of `POST /v1/drain`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// How long to go on sending.
    pub timeout_ms: u64,
}

/// The routes of this file.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/tree", get(tree))
        .route("/v1/events", get(events))
        .route("/v1/ping", post(ping))
        .route("/v1/drain", post(drain))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
}

async fn tree(State(api): State<Api>) -> Answer {
    let root = within(ANSWER_WITHIN, api.node.tree()).await?;
    answer(schema::TREE, TreeAnswer { root })
}

async fn events(State(api): State<Api>, RawQuery(query): RawQuery) -> Answer {
    let query: EventsQuery = parse_query(query)?;
    let limit = query.limit.unwrap_or(EVENTS_COUNT_DEFAULT);
    if limit == 0 || limit > EVENTS_COUNT_MAX {
        return Err(ApiError::usage(format!(
            "{limit} events in one answer: the limits are 1 and {EVENTS_COUNT_MAX}"
        )));
    }
    let wait = Duration::from_millis(query.wait_ms.unwrap_or_default()).min(EVENTS_WAIT_MAX);
    let _place = place_to_wait(&api, wait)?;
    let after = match query.after {
        Some(after) => after,
        None => api
            .node
            .newest_event()
            .saturating_sub(u64::try_from(limit).unwrap_or(u64::MAX)),
    };
    let mut draining = api.draining.clone();
    let wait = async {
        let limit = tokio::time::sleep(wait);
        tokio::select! {
            () = limit => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
    };
    let events = api.node.events(after, limit, wait);
    let events = within(EVENTS_WAIT_MAX + ANSWER_WITHIN, events).await?;
    answer(schema::EVENTS, events)
}

async fn ping(State(api): State<Api>, body: Body) -> Answer {
    let request: PingRequest = parse_body(body).await?;
    let pinged = within(ANSWER_WITHIN, api.node.ping(&request.peer)).await?;
    answer(schema::PING, pinged)
}

async fn drain(State(api): State<Api>, body: Body) -> Answer {
    let request: DrainRequest = parse_body(body).await?;
    let timeout = Duration::from_millis(request.timeout_ms);
    if timeout > DRAIN_MAX {
        return Err(ApiError::usage(format!(
            "a drain of {} ms is over the limit of {} ms",
            timeout.as_millis(),
            DRAIN_MAX.as_millis()
        )));
    }
    let drained = within(timeout + ANSWER_WITHIN, api.node.drain(timeout)).await?;
    answer(schema::DRAIN, drained)
}

/// Alive is whoever answers; whether it can do its work is the other probe's question.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(api): State<Api>, RawQuery(query): RawQuery) -> Response {
    let health = api.node.health().await;
    let is_verbose = query.is_some_and(|query| {
        query
            .split('&')
            .any(|word| word.split('=').next() == Some("verbose"))
    });
    let status = if health.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let text = match (is_verbose, health.is_ready()) {
        (true, _) => health.to_string(),
        (false, true) => "ready\n".to_owned(),
        (false, false) => "not ready\n".to_owned(),
    };
    (status, text).into_response()
}
