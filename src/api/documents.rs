//! What travels over the local API, and what `--json` prints: one document each, with its schema.
//!
//! A shape that is published is never changed, only widened; a change that breaks readers
//! gets the next number in its schema. Requests refuse fields that they do not know.

use std::time::Duration;

use data_encoding::BASE64;
use packhorse_protocol::limits::PAYLOAD_BYTES_MAX;
use packhorse_protocol::message::DeliveryClass;
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::message::Received;
use crate::peer::PeerInfo;
use crate::receipt::ReceiptState;
use crate::time::WallTime;
use crate::{Grant, Ticket, class, text};

/// Most messages in one listing.
pub const LISTING_COUNT_MAX: usize = 10_000;
/// Messages in a listing unless told otherwise.
pub const LISTING_COUNT_DEFAULT: usize = 100;
/// Most messages in one answer of `receive`.
pub const RECEIVE_COUNT_MAX: usize = 1_024;
/// Most lines in one request, and so in one sync.
pub const LINES_COUNT_MAX: usize = 1_024;
/// Bytes of lines after which a request is closed.
pub const LINES_BYTES_TARGET: usize = 256 << 10;
/// Largest body of lines: a request just under its target and one more line at its longest.
pub const LINES_BODY_BYTES_MAX: usize = LINES_BYTES_TARGET + PAYLOAD_BYTES_MAX + 1;
/// Largest body that is a JSON document; 1,024 arrivals of 20 digits take 21 KiB.
pub const JSON_BODY_BYTES_MAX: usize = 64 << 10;
/// Payload bytes after which an answer holds no further message.
pub const ANSWER_PAYLOAD_BYTES_TARGET: usize = 8 << 20;
/// Largest answer that the client takes. In a listing every payload stands twice, as escaped text
/// (up to six bytes for one) and as base64, and the last one may pass the target;
/// an answer of `receive` holds base64 only, of up to 64 payloads past the target.
pub const ANSWER_BYTES_MAX: usize = 192 << 20;

const _: () = assert!(LINES_BYTES_TARGET >= LINES_COUNT_MAX);
const _: () = assert!(RECEIVE_COUNT_MAX * 21 < JSON_BODY_BYTES_MAX);
const _: () = assert!((ANSWER_PAYLOAD_BYTES_TARGET + PAYLOAD_BYTES_MAX) * 8 < ANSWER_BYTES_MAX);
const _: () =
    assert!((ANSWER_PAYLOAD_BYTES_TARGET + 64 * PAYLOAD_BYTES_MAX) / 2 * 3 < ANSWER_BYTES_MAX);

/// Names of the documents.
pub mod schema {
    /// The ready line of `up`.
    pub const UP: &str = "packhorse.up.v1";
    /// A message's receipt.
    pub const RECEIPT: &str = "packhorse.receipt.v1";
    /// How many lines were accepted.
    pub const LINES: &str = "packhorse.lines.v1";
    /// A page of the outbox.
    pub const OUTBOX: &str = "packhorse.outbox.v1";
    /// A page of the inbox.
    pub const INBOX: &str = "packhorse.inbox.v1";
    /// The node and its peers.
    pub const STATUS: &str = "packhorse.status.v1";
    /// Every peer.
    pub const PEERS: &str = "packhorse.peers.v1";
    /// A new ticket.
    pub const INVITE: &str = "packhorse.invite.v1";
    /// A new pairing.
    pub const JOIN: &str = "packhorse.join.v1";
    /// Messages to be handled.
    pub const RECEIVED: &str = "packhorse.received.v1";
    /// How many messages were acknowledged.
    pub const ACKNOWLEDGED: &str = "packhorse.acknowledged.v1";
    /// A node id.
    pub const ID: &str = "packhorse.id.v1";
    /// A new identity.
    pub const INIT: &str = "packhorse.init.v1";
    /// What the demonstration found.
    pub const DEMO: &str = "packhorse.demo.v1";
}

/// A value with its schema before it.
#[derive(Clone, Debug, Serialize)]
pub struct Document<T> {
    schema: &'static str,
    #[serde(flatten)]
    value: T,
}

impl<T: Serialize> Document<T> {
    /// The value under this schema.
    pub const fn new(schema: &'static str, value: T) -> Document<T> {
        Document { schema, value }
    }
}

/// The query of `POST /v1/messages`; the body is the payload.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendQuery {
    /// Name or id of the recipient.
    pub peer: String,
    /// What it is about.
    pub topic: String,
    /// How hard it is tried; the settings decide when it is left out.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "class::option"
    )]
    pub class: Option<DeliveryClass>,
    /// The idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The state to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<ReceiptState>,
    /// How long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The query of `GET /v1/receipts/ID`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptQuery {
    /// The state to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<ReceiptState>,
    /// How long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The query of `POST /v1/lines`; every line of the body is a payload, its newline not among it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinesQuery {
    /// Name or id of the recipient.
    pub peer: String,
    /// What they are about.
    pub topic: String,
    /// How hard they are tried; the settings decide when it is left out.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "class::option"
    )]
    pub class: Option<DeliveryClass>,
    /// Prefix of the idempotency keys: a line's key is the prefix, `-` and its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The number of the body's first line.
    #[serde(default = "first_line")]
    pub first: u64,
}

fn first_line() -> u64 {
    1
}

/// The answer to lines: all of them, or an error and none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesAccepted {
    /// The recipient.
    pub peer: String,
    /// What they are about.
    pub topic: String,
    /// How many.
    pub accepted: u64,
}

/// The query of `GET /v1/outbox` and `GET /v1/inbox`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Most messages to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The answer of `GET /v1/peers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Every peer, by name.
    pub peers: Vec<PeerInfo>,
}

/// The body of `POST /v1/invites`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// What whoever uses the ticket may do here.
    #[serde(default, with = "text::list")]
    pub grants: Vec<Grant>,
    /// How long the ticket lives.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// How many nodes may use it.
    #[serde(default)]
    pub uses: Option<u32>,
}

/// The answer: a new ticket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Invited {
    /// The ticket: a secret until it is used.
    #[serde(with = "text")]
    pub ticket: Ticket,
    /// What whoever uses the ticket may do here.
    #[serde(with = "text::list")]
    pub grants: Vec<Grant>,
    /// When it ends.
    pub expires: WallTime,
    /// How many nodes may use it.
    pub uses: u32,
}

/// The body of `POST /v1/join`; the answer is [`Joined`](crate::Joined).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The ticket.
    #[serde(with = "text")]
    pub ticket: Ticket,
    /// The inviter's name here.
    #[serde(default)]
    pub name: Option<String>,
    /// What the inviter may do here.
    #[serde(default, with = "text::list")]
    pub grants: Vec<Grant>,
}

/// The body of `POST /v1/receive`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiveRequest {
    /// Which messages.
    pub topic: String,
    /// How many at most; an answer may hold fewer than there are.
    pub count: usize,
}

/// The answer: messages that are claimed for 30 s.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReceivedMessages {
    /// In the order of their arrival.
    #[serde(with = "received_list")]
    pub messages: Vec<Received>,
}

/// The body of `POST /v1/acknowledge`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeRequest {
    /// The arrivals that were handled.
    pub arrivals: Vec<u64>,
    /// The messages that were claimed and not handled: they are handed out again.
    #[serde(default)]
    pub released: Vec<u64>,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Acknowledged {
    /// How many.
    pub acknowledged: usize,
}

/// A duration in whole milliseconds, as queries and bodies hold it.
#[must_use]
pub fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Received messages with their payloads as base64.
mod received_list {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Row {
        arrival: u64,
        topic: String,
        sender: String,
        payload_base64: String,
    }

    pub(super) fn serialize<S: Serializer>(
        messages: &[Received],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(messages.iter().map(|message| Row {
            arrival: message.arrival,
            topic: message.topic.clone(),
            sender: message.sender.clone(),
            payload_base64: BASE64.encode(&message.payload),
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Received>, D::Error> {
        let read = |row: Row| {
            let payload = BASE64
                .decode(row.payload_base64.as_bytes())
                .map_err(D::Error::custom)?;
            Ok(Received {
                arrival: row.arrival,
                topic: row.topic,
                sender: row.sender,
                payload,
            })
        };
        Vec::<Row>::deserialize(deserializer)?
            .into_iter()
            .map(read)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_stands_first() {
        let document = Document::new(schema::PEERS, Peers::default());
        let text = serde_json::to_string(&document).expect("plain values");
        assert_eq!(text, r#"{"schema":"packhorse.peers.v1","peers":[]}"#);
    }

    #[test]
    fn a_query_survives_the_way_through_a_url() {
        let query = SendQuery {
            peer: "left & right".into(),
            topic: "a/b?c=%+ü".into(),
            class: Some(DeliveryClass::Moderate),
            id: None,
            wait: Some(ReceiptState::Stored),
            timeout_ms: Some(30_000),
        };
        let url = serde_urlencoded::to_string(&query).expect("plain values");
        let back: SendQuery = serde_urlencoded::from_str(&url).expect("its own text");
        assert_eq!(back.peer, query.peer);
        assert_eq!(back.topic, query.topic);
        assert_eq!(back.class, query.class);
        assert_eq!(back.id, query.id);
        assert_eq!(back.wait, query.wait);
        assert_eq!(back.timeout_ms, query.timeout_ms);
    }

    #[test]
    fn an_unknown_field_of_a_request_is_refused() {
        let error = serde_urlencoded::from_str::<SendQuery>("peer=a&topic=b&clas=critical")
            .expect_err("misspelt");
        assert!(error.to_string().contains("clas"), "{error}");
    }

    #[test]
    fn received_payloads_travel_as_base64() {
        let received = ReceivedMessages {
            messages: vec![Received {
                arrival: 9,
                topic: "orders".into(),
                sender: "left".into(),
                payload: vec![0, 255],
            }],
        };
        let text = serde_json::to_string(&received).expect("plain values");
        assert_eq!(
            text,
            r#"{"messages":[{"arrival":9,"topic":"orders","sender":"left","payload_base64":"AP8="}]}"#
        );
        let back: ReceivedMessages = serde_json::from_str(&text).expect("its own text");
        assert_eq!(back.messages, received.messages);
    }
}
