//! What the local API answers: every route is one call of the node with bounds around it.
//!
//! Bodies, waits and calls all have limits; nothing here decides what may be sent or by whom.
//! Extractors of the framework are avoided where their refusals would not be our error document.

mod addresses;
mod grants;
mod invites;
mod requests;
mod sending;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};

use crate::ErrorKind;
use crate::api::documents::{
    ANSWER_PAYLOAD_BYTES_TARGET, AcknowledgeRequest, Acknowledged, Document, JSON_BODY_BYTES_MAX,
    JoinRequest, LISTING_COUNT_DEFAULT, LISTING_COUNT_MAX, ListQuery, Peers, RECEIVE_COUNT_MAX,
    ReceiveRequest, ReceivedMessages, schema,
};
use crate::api::error::{ApiError, ErrorBody};
use crate::api::metrics::Meter;
use crate::api::{insight, metrics, work};
use crate::error::NodeError;
use crate::listing::Listing;
use crate::node::Node;
use crate::peer::Join;

/// How long the whole body of a request may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// How long the node may take for anything that is answered from its own store.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long the node may take to pair: a dial, a handshake and a commit on both sides.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// Messages taken from the node at once while an answer of `receive` fills up:
/// 64 × 1 MiB is the most that an answer may pass its target by.
const RECEIVE_STEP: usize = 64;

/// What every route needs.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) node: Arc<Node>,
    /// True once the server drains; long waits end then.
    pub(crate) draining: watch::Receiver<bool>,
    /// Places for requests that wait for something to happen.
    pub(crate) waits: Arc<Semaphore>,
    /// Places for requests that wait for a receipt.
    pub(crate) receipt_waits: Arc<Semaphore>,
    /// What the metrics have added up so far.
    pub(crate) meter: Meter,
}

pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .merge(sending::router())
        .merge(grants::router())
        .merge(invites::router())
        .merge(requests::router())
        .merge(addresses::router())
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/inbox", get(inbox))
        .route("/v1/join", post(join))
        .route("/v1/receive", post(receive))
        .route("/v1/acknowledge", post(acknowledge))
        .merge(work::routes())
        .merge(insight::routes())
        .merge(metrics::routes())
        .merge(fault_routes())
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
}

#[cfg(feature = "fault")]
fn fault_routes() -> Router<Api> {
    crate::api::fault::routes()
}

#[cfg(not(feature = "fault"))]
fn fault_routes() -> Router<Api> {
    Router::new()
}

pub(crate) type Answer = Result<Response, ApiError>;

async fn status(State(api): State<Api>) -> Answer {
    answer(
        schema::STATUS,
        within(ANSWER_WITHIN, api.node.status()).await?,
    )
}

async fn peers(State(api): State<Api>) -> Answer {
    let peers = within(ANSWER_WITHIN, api.node.peers()).await?;
    answer(schema::PEERS, Peers { peers })
}

async fn inbox(State(api): State<Api>, RawQuery(query): RawQuery) -> Answer {
    let limit = listing_limit(query)?;
    let listing = within(ANSWER_WITHIN, api.node.inbox(limit)).await?;
    answer(schema::INBOX, bounded_listing(listing))
}

async fn join(State(api): State<Api>, body: Body) -> Answer {
    let request: JoinRequest = parse_body(body).await?;
    let join = Join {
        name: request.name,
        grants: request.grants,
    };
    let joined = within(JOIN_WITHIN, api.node.join(&request.ticket, join)).await?;
    answer(schema::JOIN, joined)
}

async fn receive(State(api): State<Api>, body: Body) -> Answer {
    let request: ReceiveRequest = parse_body(body).await?;
    let count = request.count.min(RECEIVE_COUNT_MAX);
    let mut messages = Vec::new();
    let mut payload_bytes = 0;
    while messages.len() < count && payload_bytes < ANSWER_PAYLOAD_BYTES_TARGET {
        let step = RECEIVE_STEP.min(count - messages.len());
        let claimed = within(ANSWER_WITHIN, api.node.receive(&request.topic, step)).await?;
        let is_last = claimed.len() < step;
        payload_bytes += claimed
            .iter()
            .map(|message| message.payload.len())
            .sum::<usize>();
        messages.extend(claimed);
        if is_last {
            break;
        }
    }
    answer(schema::RECEIVED, ReceivedMessages { messages })
}

async fn acknowledge(State(api): State<Api>, body: Body) -> Answer {
    let request: AcknowledgeRequest = parse_body(body).await?;
    api.node.release(&request.released);
    within(ANSWER_WITHIN, api.node.acknowledge(&request.arrivals)).await?;
    answer(
        schema::ACKNOWLEDGED,
        Acknowledged {
            acknowledged: request.arrivals.len(),
        },
    )
}

async fn no_such_route(uri: Uri) -> ApiError {
    ApiError::from(NodeError::new(
        ErrorKind::NotFound,
        format!("no route {}", uri.path()),
    ))
}

async fn no_such_method(method: Method, uri: Uri) -> Response {
    let error = ApiError::usage(format!("{} is not asked with {method}", uri.path()));
    (StatusCode::METHOD_NOT_ALLOWED, Json(ErrorBody { error })).into_response()
}

/// Cuts a listing where its payloads would make the answer too large; the total stays.
fn bounded_listing(mut listing: Listing) -> Listing {
    bounded(&mut listing.messages, |message| message.payload.0.len());
    listing
}

/// Cuts a list after the payload that passes the target.
fn bounded<T>(messages: &mut Vec<T>, payload_bytes: impl Fn(&T) -> usize) {
    let mut bytes = 0;
    let fitting = messages.iter().take_while(|message| {
        let fits = bytes < ANSWER_PAYLOAD_BYTES_TARGET;
        bytes += payload_bytes(message);
        fits
    });
    let kept = fitting.count();
    messages.truncate(kept);
}

fn listing_limit(query: Option<String>) -> Result<usize, ApiError> {
    let query: ListQuery = parse_query(query)?;
    if query.peer.is_some() || query.topic.is_some() {
        return Err(ApiError::usage("this listing takes no filter but `limit`"));
    }
    checked_limit(query.limit)
}

fn checked_limit(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(LISTING_COUNT_DEFAULT);
    if limit > LISTING_COUNT_MAX {
        return Err(ApiError::usage(format!(
            "a listing of {limit} messages is over the limit of {LISTING_COUNT_MAX}"
        )));
    }
    Ok(limit)
}

pub(crate) fn parse_query<T: DeserializeOwned>(query: Option<String>) -> Result<T, ApiError> {
    serde_urlencoded::from_str(query.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::usage(format!("the query is not understood: {error}")))
}

pub(crate) async fn parse_body<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = read_body(body, JSON_BODY_BYTES_MAX, "the body").await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::usage(format!("the body is not understood: {error}")))
}

async fn read_body(body: Body, bytes_max: usize, what: &str) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // A broken connection ends here as well, but then nobody reads the answer.
        Ok(Err(_)) => Err(ApiError::usage(format!(
            "{what} is over the limit of {bytes_max} bytes"
        ))),
        Err(_) => Err(ApiError::timed_out(format!(
            "{what} did not arrive within {} s",
            BODY_WITHIN.as_secs()
        ))),
    }
}

pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, NodeError>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(ApiError::from),
        Err(_) => Err(ApiError::timed_out(format!(
            "the node did not answer within {} s; what came of it is unknown",
            limit.as_secs()
        ))),
    }
}

pub(crate) fn answer<T: Serialize>(schema: &'static str, value: T) -> Answer {
    let mut body = serde_json::to_vec(&Document::new(schema, value)).map_err(|error| {
        ApiError::from(NodeError::new(
            ErrorKind::Internal,
            format!("no answer: {error}"),
        ))
    })?;
    // For people who ask with curl: the prompt stands on a line of its own.
    body.push(b'\n');
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::{ListedMessage, Payload};
    use crate::receipt::ReceiptState;
    use crate::time::WallTime;
    use packhorse_protocol::limits::PAYLOAD_BYTES_MAX;
    use packhorse_protocol::message::DeliveryClass;

    #[test]
    fn a_listing_is_cut_where_its_payloads_pass_the_target() {
        let message = |bytes| ListedMessage {
            id: crate::testing::receipt_id(),
            peer: "left".into(),
            epoch: crate::Epoch { boot: 1, nonce: 2 },
            sequence: 1,
            topic: "orders".into(),
            class: DeliveryClass::Critical,
            state: ReceiptState::Accepted,
            born: WallTime(0),
            expires: None,
            failures: 0,
            headers: Vec::new(),
            payload: Payload(vec![0; bytes]),
            reason: None,
        };
        let messages = (0..12).map(|_| message(PAYLOAD_BYTES_MAX)).collect();
        let listing = bounded_listing(Listing {
            total: 500,
            messages,
        });
        assert_eq!(listing.total, 500);
        assert_eq!(listing.messages.len(), 8);
    }
}
