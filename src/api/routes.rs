//! What the local API answers: every route is one call of the node with bounds around it.
//!
//! Bodies, waits and calls all have limits; nothing here decides what may be sent or by whom.
//! Extractors of the framework are avoided where their refusals would not be our error document.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use packhorse_protocol::limits::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use packhorse_protocol::message::DeliveryClass;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::api::documents::{
    ANSWER_PAYLOAD_BYTES_TARGET, AcknowledgeRequest, Acknowledged, Document, InviteRequest,
    Invited, JSON_BODY_BYTES_MAX, JoinRequest, LINES_BODY_BYTES_MAX, LINES_COUNT_MAX,
    LISTING_COUNT_DEFAULT, LISTING_COUNT_MAX, LinesAccepted, LinesQuery, ListQuery, Peers,
    RECEIVE_COUNT_MAX, ReceiptQuery, ReceiveRequest, ReceivedMessages, SendQuery, schema, whole_ms,
};
use crate::api::error::{ApiError, ErrorBody};
use crate::error::NodeError;
use crate::listing::Listing;
use crate::message::Outgoing;
use crate::node::Node;
use crate::peer::{Invite, Join, TICKET_EXPIRES_DEFAULT};
use crate::receipt::{Receipt, ReceiptState};
use crate::time::{DURATION_MAX, WallTime};
use crate::{ErrorKind, ReceiptId};

/// How long the whole body of a request may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// How long the node may take for anything that is answered from its own store.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long the node may take to pair: a dial, a handshake and a commit on both sides.
const JOIN_WITHIN: Duration = Duration::from_secs(60);
/// Longest wait for a receipt in one request; who wants more asks again.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);
/// The wait when a state but no timeout is given.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// Messages taken from the node at once while an answer of `receive` fills up:
/// 64 × 1 MiB is the most that an answer may pass its target by.
const RECEIVE_STEP: usize = 64;

/// What every route needs.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) node: Arc<Node>,
    pub(crate) default_class: DeliveryClass,
    /// True once the server drains; long waits end then.
    pub(crate) draining: watch::Receiver<bool>,
}

pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/messages", post(send))
        .route("/v1/lines", post(lines))
        .route("/v1/receipts/{id}", get(receipt))
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/outbox", get(outbox))
        .route("/v1/inbox", get(inbox))
        .route("/v1/invites", post(invite))
        .route("/v1/join", post(join))
        .route("/v1/receive", post(receive))
        .route("/v1/acknowledge", post(acknowledge))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
}

type Answer = Result<Response, ApiError>;

async fn send(State(api): State<Api>, RawQuery(query): RawQuery, body: Body) -> Answer {
    let query: SendQuery = parse_query(query)?;
    let payload = read_body(body, PAYLOAD_BYTES_MAX, "the payload").await?;
    let message = Outgoing {
        topic: query.topic,
        payload: payload.into(),
        class: query.class.unwrap_or(api.default_class),
        key: query.id,
    };
    let receipt = within(ANSWER_WITHIN, api.node.send(&query.peer, message)).await?;
    let receipt = match query.wait {
        Some(state) => wait_for(&api, receipt, state, query.timeout_ms).await?,
        None => receipt,
    };
    answer(schema::RECEIPT, receipt)
}

async fn lines(State(api): State<Api>, RawQuery(query): RawQuery, body: Body) -> Answer {
    let query: LinesQuery = parse_query(query)?;
    let body = read_body(body, LINES_BODY_BYTES_MAX, "the lines").await?;
    let class = query.class.unwrap_or(api.default_class);
    let messages = split_lines(&query, class, &body)?;
    let accepted = if messages.is_empty() {
        0
    } else {
        within(ANSWER_WITHIN, api.node.send_many(&query.peer, messages))
            .await?
            .len()
    };
    let accepted = u64::try_from(accepted).unwrap_or(u64::MAX);
    answer(
        schema::LINES,
        LinesAccepted {
            peer: query.peer,
            topic: query.topic,
            accepted,
        },
    )
}

async fn receipt(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query: ReceiptQuery = parse_query(query)?;
    let id: ReceiptId = id
        .parse()
        .map_err(|error| ApiError::usage(format!("{id:?} is no receipt: {error}")))?;
    let receipt = within(ANSWER_WITHIN, api.node.receipt(&id)).await?;
    let receipt = match query.wait {
        Some(state) => wait_for(&api, receipt, state, query.timeout_ms).await?,
        None => receipt,
    };
    answer(schema::RECEIPT, receipt)
}

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

async fn outbox(State(api): State<Api>, RawQuery(query): RawQuery) -> Answer {
    let limit = listing_limit(query)?;
    let listing = within(ANSWER_WITHIN, api.node.outbox(limit)).await?;
    answer(schema::OUTBOX, bounded_listing(listing))
}

async fn inbox(State(api): State<Api>, RawQuery(query): RawQuery) -> Answer {
    let limit = listing_limit(query)?;
    let listing = within(ANSWER_WITHIN, api.node.inbox(limit)).await?;
    answer(schema::INBOX, bounded_listing(listing))
}

async fn invite(State(api): State<Api>, body: Body) -> Answer {
    let request: InviteRequest = parse_body(body).await?;
    let expires = request
        .expires_ms
        .map_or(TICKET_EXPIRES_DEFAULT, Duration::from_millis);
    if expires.is_zero() || expires > DURATION_MAX {
        let days = DURATION_MAX.as_secs() / 86_400;
        return Err(ApiError::usage(format!(
            "a ticket cannot live for {} ms: the limits are 1 ms and {days} days",
            expires.as_millis()
        )));
    }
    let uses = request.uses.unwrap_or(1);
    if uses == 0 {
        return Err(ApiError::usage(
            "a ticket with 0 uses is no ticket: the least is 1",
        ));
    }
    let invite = Invite {
        grants: request.grants.clone(),
        expires,
        uses,
    };
    let ticket = within(ANSWER_WITHIN, api.node.invite(invite)).await?;
    let expires = WallTime(WallTime::now().0.saturating_add(whole_ms(expires)));
    answer(
        schema::INVITE,
        Invited {
            ticket,
            grants: request.grants,
            expires,
            uses,
        },
    )
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

/// Waits until the receipt reached the state, the time is over, or the server drains.
async fn wait_for(
    api: &Api,
    receipt: Receipt,
    state: ReceiptState,
    timeout_ms: Option<u64>,
) -> Result<Receipt, ApiError> {
    if receipt.state.has_reached(state) || receipt.state.is_final() {
        return Ok(receipt);
    }
    let timeout = timeout_ms
        .map_or(WAIT_DEFAULT, Duration::from_millis)
        .min(WAIT_MAX);
    let mut draining = api.draining.clone();
    tokio::select! {
        receipt = within(timeout + ANSWER_WITHIN, api.node.wait(receipt.clone(), state, timeout)) => receipt,
        _ = draining.wait_for(|draining| *draining) => Ok(receipt),
    }
}

/// One message per line; the keys come from the prefix and the lines' numbers.
fn split_lines(
    query: &LinesQuery,
    class: DeliveryClass,
    body: &[u8],
) -> Result<Vec<Outgoing>, ApiError> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    // The newline ends a line rather than separating two, so the last one adds no empty message.
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let mut messages = Vec::new();
    for (line, number) in body.split(|byte| *byte == b'\n').zip(query.first..) {
        if messages.len() == LINES_COUNT_MAX {
            return Err(ApiError::usage(format!(
                "more than {LINES_COUNT_MAX} lines in one request"
            )));
        }
        if line.len() > PAYLOAD_BYTES_MAX {
            return Err(ApiError::usage(format!(
                "line {number} has {} bytes, the limit is {PAYLOAD_BYTES_MAX}",
                line.len()
            )));
        }
        let key = query.id.as_ref().map(|prefix| format!("{prefix}-{number}"));
        if let Some(key) = key.as_ref().filter(|key| key.len() > KEY_BYTES_MAX) {
            return Err(ApiError::usage(format!(
                "the key of line {number} has {} bytes, the limit is {KEY_BYTES_MAX}",
                key.len()
            )));
        }
        messages.push(Outgoing {
            topic: query.topic.clone(),
            payload: line.to_vec(),
            class,
            key,
        });
    }
    Ok(messages)
}

/// Cuts a listing where its payloads would make the answer too large; the total stays.
fn bounded_listing(mut listing: Listing) -> Listing {
    let mut payload_bytes = 0;
    let kept = listing
        .messages
        .iter()
        .take_while(|message| {
            let fits = payload_bytes < ANSWER_PAYLOAD_BYTES_TARGET;
            payload_bytes += message.payload.0.len();
            fits
        })
        .count();
    listing.messages.truncate(kept);
    listing
}

fn listing_limit(query: Option<String>) -> Result<usize, ApiError> {
    let query: ListQuery = parse_query(query)?;
    let limit = query.limit.unwrap_or(LISTING_COUNT_DEFAULT);
    if limit > LISTING_COUNT_MAX {
        return Err(ApiError::usage(format!(
            "a listing of {limit} messages is over the limit of {LISTING_COUNT_MAX}"
        )));
    }
    Ok(limit)
}

fn parse_query<T: DeserializeOwned>(query: Option<String>) -> Result<T, ApiError> {
    serde_urlencoded::from_str(query.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::usage(format!("the query is not understood: {error}")))
}

async fn parse_body<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
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

async fn within<T>(
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

fn answer<T: Serialize>(schema: &'static str, value: T) -> Answer {
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

    fn query(id: Option<&str>, first: u64) -> LinesQuery {
        LinesQuery {
            peer: "left".into(),
            topic: "orders".into(),
            class: None,
            id: id.map(ToOwned::to_owned),
            first,
        }
    }

    fn payloads(body: &[u8]) -> Vec<String> {
        split_lines(&query(None, 1), DeliveryClass::Critical, body)
            .expect("within the limits")
            .into_iter()
            .map(|message| String::from_utf8(message.payload).expect("text"))
            .collect()
    }

    #[test]
    fn a_newline_ends_a_line_and_begins_none() {
        assert!(payloads(b"").is_empty());
        assert_eq!(payloads(b"a"), ["a"]);
        assert_eq!(payloads(b"a\n"), ["a"]);
        assert_eq!(payloads(b"a\nb"), ["a", "b"]);
        assert_eq!(payloads(b"\n"), [""]);
        assert_eq!(payloads(b"a\n\nb\n"), ["a", "", "b"]);
    }

    #[test]
    fn every_line_has_its_own_key_from_the_prefix() {
        let messages = split_lines(&query(Some("run"), 41), DeliveryClass::Critical, b"a\nb\n")
            .expect("within the limits");
        let keys: Vec<_> = messages
            .into_iter()
            .filter_map(|message| message.key)
            .collect();
        assert_eq!(keys, ["run-41", "run-42"]);
    }

    #[test]
    fn lines_at_the_limits_are_taken_and_those_over_them_named() {
        let check = |id: Option<&str>, body: &[u8]| {
            split_lines(&query(id, 7), DeliveryClass::Critical, body)
                .map(|messages| messages.len())
                .map_err(|error| error.text)
        };
        let many = "x\n".repeat(LINES_COUNT_MAX);
        assert_eq!(check(None, many.as_bytes()), Ok(LINES_COUNT_MAX));
        assert!(check(None, format!("{many}x").as_bytes()).is_err());
        let long = vec![b'x'; PAYLOAD_BYTES_MAX];
        assert_eq!(check(None, &long), Ok(1));
        let error = check(None, &[b"a\n".as_slice(), &long, b"x"].concat()).expect_err("too long");
        assert_eq!(error, "line 8 has 1048577 bytes, the limit is 1048576");
        let prefix = "p".repeat(KEY_BYTES_MAX - 2);
        assert_eq!(check(Some(&prefix), b"a"), Ok(1));
        assert!(check(Some(&format!("{prefix}p")), b"a").is_err());
    }

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
            failures: 0,
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
