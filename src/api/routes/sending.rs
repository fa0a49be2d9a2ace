//! Routes of what goes out: messages and lines, receipts, outbox, dead letters, and why.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{get, post};
use packhorse_protocol::limits::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX};

use crate::ReceiptId;
use crate::api::documents::{
    BoxRequest, DeadQuery, Dropped, Flushed, LINES_BODY_BYTES_MAX, LINES_COUNT_MAX, LinesAccepted,
    LinesQuery, ListQuery, ReceiptQuery, SendQuery, schema,
};
use crate::api::error::ApiError;
use crate::api::routes::{
    ANSWER_WITHIN, Answer, Api, answer, bounded, bounded_listing, checked_limit, parse_body,
    parse_query, read_body, within,
};
use crate::dead::Selection;
use crate::message::{Outgoing, Sent};
use crate::receipt::{Receipt, ReceiptState};

/// Longest wait for a receipt in one request; who wants more asks again.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);
/// The wait when a state but no timeout is given.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// How long dealing with a whole box may take: a sync for every message of it.
const BOX_WITHIN: Duration = Duration::from_secs(60 * 60);

pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/v1/messages", post(send))
        .route("/v1/lines", post(lines))
        .route("/v1/receipts/{id}", get(receipt))
        .route("/v1/outbox", get(outbox))
        .route("/v1/outbox/drop", post(outbox_drop))
        .route("/v1/outbox/flush", post(outbox_flush))
        .route("/v1/dead", get(dead))
        .route("/v1/dead/retry", post(dead_retry))
        .route("/v1/dead/drop", post(dead_drop))
        .route("/v1/why/peers/{name}", get(why_peer))
        .route("/v1/why/messages/{id}", get(why_message))
}

async fn send(State(api): State<Api>, RawQuery(query): RawQuery, body: Body) -> Answer {
    let query: SendQuery = parse_query(query)?;
    let payload = read_body(body, PAYLOAD_BYTES_MAX, "the payload").await?;
    let message = Outgoing {
        topic: query.topic,
        payload: payload.into(),
        class: query.class,
        key: query.id,
        headers: query.headers,
        expires: query.expires_ms.map(Duration::from_millis),
        replace: query.replace,
    };
    // Somebody who waits needs a receipt, and only a message that is stored has one.
    let wants_receipt = query
        .wait
        .is_some_and(|wanted| wanted != ReceiptState::Accepted);
    let sent = if wants_receipt {
        let receipt = within(ANSWER_WITHIN, api.node.send(&query.peer, message)).await?;
        Sent::Accepted(receipt)
    } else {
        within(ANSWER_WITHIN, api.node.dispatch(&query.peer, message)).await?
    };
    match (sent, query.wait) {
        (Sent::Ephemeral(sent), _) => answer(schema::EPHEMERAL, sent),
        (Sent::Accepted(receipt), None) => answer(schema::RECEIPT, receipt),
        (Sent::Accepted(receipt), Some(state)) => {
            let receipt = wait_for(&api, receipt, state, query.timeout_ms).await?;
            answer(schema::RECEIPT, receipt)
        }
    }
}

async fn lines(State(api): State<Api>, RawQuery(query): RawQuery, body: Body) -> Answer {
    let query: LinesQuery = parse_query(query)?;
    let body = read_body(body, LINES_BODY_BYTES_MAX, "the lines").await?;
    let messages = split_lines(&query, &body)?;
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
    id: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query: ReceiptQuery = parse_query(query)?;
    let id = parse_id(&part(id)?)?;
    let receipt = within(ANSWER_WITHIN, api.node.receipt(&id)).await?;
    let receipt = match query.wait {
        Some(state) => wait_for(&api, receipt, state, query.timeout_ms).await?,
        None => receipt,
    };
    answer(schema::RECEIPT, receipt)
}

async fn outbox(State(api): State<Api>, RawQuery(query): RawQuery) -> Answer {
    let query: ListQuery = parse_query(query)?;
    let limit = checked_limit(query.limit)?;
    let selection = Selection {
        peer: query.peer,
        topic: query.topic,
        ids: Vec::new(),
    };
    let listing = within(ANSWER_WITHIN, api.node.outbox_of(&selection, limit)).await?;
    answer(schema::OUTBOX, bounded_listing(listing))
}

async fn outbox_drop(State(api): State<Api>, body: Body) -> Answer {
    let selection = selection(parse_body(body).await?)?;
    let dropped = within(BOX_WITHIN, api.node.outbox_drop(&selection)).await?;
    answer(schema::DROPPED, Dropped { dropped })
}

async fn outbox_flush(State(api): State<Api>, body: Body) -> Answer {
    let request: BoxRequest = parse_body(body).await?;
    if request.topic.is_some() || !request.ids.is_empty() {
        return Err(ApiError::usage(
            "peers are dialled, not messages: a flush takes `peer` or nothing",
        ));
    }
    let peers = within(ANSWER_WITHIN, api.node.flush(request.peer.as_deref())).await?;
    answer(schema::FLUSHED, Flushed { peers })
}

async fn dead(State(api): State<Api>, RawQuery(query): RawQuery) -> Answer {
    let query: DeadQuery = parse_query(query)?;
    let limit = checked_limit(query.limit)?;
    let selection = Selection {
        peer: query.peer,
        topic: query.topic,
        ids: Vec::new(),
    };
    let listed = api.node.dead(&selection, query.direction, limit);
    let mut listing = within(ANSWER_WITHIN, listed).await?;
    bounded(&mut listing.messages, |message| message.payload.0.len());
    answer(schema::DEAD, listing)
}

async fn dead_retry(State(api): State<Api>, body: Body) -> Answer {
    let selection = selection(parse_body(body).await?)?;
    let retried = within(BOX_WITHIN, api.node.dead_retry(&selection)).await?;
    answer(schema::RETRIED, retried)
}

async fn dead_drop(State(api): State<Api>, body: Body) -> Answer {
    let selection = selection(parse_body(body).await?)?;
    let dropped = within(BOX_WITHIN, api.node.dead_drop(&selection)).await?;
    answer(schema::DROPPED, Dropped { dropped })
}

async fn why_peer(State(api): State<Api>, name: Result<Path<String>, PathRejection>) -> Answer {
    let name = part(name)?;
    let why = within(ANSWER_WITHIN, api.node.why_peer(&name)).await?;
    answer(schema::WHY, why)
}

async fn why_message(State(api): State<Api>, id: Result<Path<String>, PathRejection>) -> Answer {
    let id = parse_id(&part(id)?)?;
    let why = within(ANSWER_WITHIN, api.node.why_message(&id)).await?;
    answer(schema::WHY, why)
}

/// The variable part of a path; one that is no text is refused with our own document.
fn part(part: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    match part {
        Ok(Path(part)) => Ok(part),
        Err(rejection) => Err(ApiError::usage(format!(
            "the path is not understood: {}",
            rejection.body_text()
        ))),
    }
}

fn parse_id(text: &str) -> Result<ReceiptId, ApiError> {
    text.parse()
        .map_err(|error| ApiError::usage(format!("{text:?} is no receipt: {error}")))
}

/// What a request is about, once it says that much.
fn selection(request: BoxRequest) -> Result<Selection, ApiError> {
    let is_filtered = request.peer.is_some() || request.topic.is_some();
    match (request.ids.is_empty(), is_filtered, request.all) {
        (true, false, false) => Err(ApiError::usage(
            "name messages, a peer or a topic, or say that all are meant",
        )),
        (false, true, _) | (false, _, true) => Err(ApiError::usage(
            "name messages or a filter, not both: what is named is meant",
        )),
        _ => Ok(Selection {
            peer: request.peer,
            topic: request.topic,
            ids: request.ids,
        }),
    }
}

/// Waits until the receipt reached the state, the time is over, or the server drains.
/// When too many wait already it does not: who asked learns how far the message is now, and may
/// ask again. An error would hide the receipt of a message that was accepted.
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
    let Ok(_place) = api.receipt_waits.try_acquire() else {
        return Ok(receipt);
    };
    let mut draining = api.draining.clone();
    tokio::select! {
        receipt = within(timeout + ANSWER_WITHIN, api.node.wait(receipt.clone(), state, timeout)) => receipt,
        _ = draining.wait_for(|draining| *draining) => Ok(receipt),
    }
}

/// Lines are numbered on from the first without an end.
const LINE_NUMBER_MAX: u64 = u64::MAX - LINES_COUNT_MAX as u64;

/// One message per line; the keys come from the prefix and the lines' numbers.
fn split_lines(query: &LinesQuery, body: &[u8]) -> Result<Vec<Outgoing>, ApiError> {
    if query.first == 0 || query.first > LINE_NUMBER_MAX {
        return Err(ApiError::usage(format!(
            "a first line with number {}: the limits are 1 and {LINE_NUMBER_MAX}",
            query.first
        )));
    }
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
            class: query.class,
            key,
            headers: query.headers.clone(),
            expires: query.expires_ms.map(Duration::from_millis),
            replace: query.replace,
        });
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(id: Option<&str>, first: u64) -> LinesQuery {
        LinesQuery {
            peer: "left".into(),
            topic: "orders".into(),
            id: id.map(ToOwned::to_owned),
            first,
            ..LinesQuery::default()
        }
    }

    fn payloads(body: &[u8]) -> Vec<String> {
        split_lines(&query(None, 1), body)
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
        let messages = split_lines(&query(Some("run"), 41), b"a\nb\n").expect("within the limits");
        let keys: Vec<_> = messages
            .into_iter()
            .filter_map(|message| message.key)
            .collect();
        assert_eq!(keys, ["run-41", "run-42"]);
    }

    #[test]
    fn lines_at_the_limits_are_taken_and_those_over_them_named() {
        let check = |id: Option<&str>, body: &[u8]| {
            split_lines(&query(id, 7), body)
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
    fn a_box_is_never_dealt_with_whole_by_accident() {
        let named = BoxRequest {
            ids: vec![crate::testing::receipt_id()],
            ..BoxRequest::default()
        };
        let filtered = BoxRequest {
            topic: Some("orders".into()),
            ..BoxRequest::default()
        };
        let all = BoxRequest {
            all: true,
            ..BoxRequest::default()
        };
        assert!(selection(BoxRequest::default()).is_err());
        assert!(selection(named.clone()).is_ok());
        assert!(selection(filtered.clone()).is_ok());
        assert!(selection(all).is_ok());
        let both = BoxRequest {
            topic: filtered.topic,
            ..named.clone()
        };
        assert!(selection(both).is_err());
        assert!(selection(BoxRequest { all: true, ..named }).is_err());
    }
}
