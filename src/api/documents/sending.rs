//! Documents of what goes out: messages and lines, receipts, outbox and dead letters.

use packhorse_protocol::message::DeliveryClass;
use serde::{Deserialize, Serialize};

use crate::dead::DeadDirection;
use crate::receipt::ReceiptState;
use crate::{ReceiptId, class, headers, text};

/// The query of `POST /v1/messages`; the body is the payload.
///
/// The answer is a receipt, or for an ephemeral message a document that says that it was sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendQuery {
    /// Name or id of the recipient.
    pub peer: String,
    /// What it is about.
    pub topic: String,
    /// How hard it is tried; the settings decide when it is left out, and may decide otherwise.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "class::option"
    )]
    pub class: Option<DeliveryClass>,
    /// The idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether it takes the place of the message that has the key.
    #[serde(default, skip_serializing_if = "is_false")]
    pub replace: bool,
    /// How long it may take to be stored there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Names and values for the application, as the text of a JSON object.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        with = "headers::query"
    )]
    pub headers: Vec<(String, String)>,
    /// The state to wait for; ephemeral messages are refused then, since they have none.
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinesQuery {
    /// Name or id of the recipient.
    pub peer: String,
    /// What they are about.
    pub topic: String,
    /// How hard they are tried; the settings decide when it is left out, and may decide otherwise.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "class::option"
    )]
    pub class: Option<DeliveryClass>,
    /// Prefix of the idempotency keys: a line's key is the prefix, `-` and its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether they take the places of the messages that have the keys.
    #[serde(default, skip_serializing_if = "is_false")]
    pub replace: bool,
    /// How long each may take to be stored there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Names and values for the application, of every line alike.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        with = "headers::query"
    )]
    pub headers: Vec<(String, String)>,
    /// The number of the body's first line.
    #[serde(default = "first_line")]
    pub first: u64,
}

fn first_line() -> u64 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde asks for"
)]
fn is_false(value: &bool) -> bool {
    !*value
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Only those of this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Only those on this topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Most messages to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The query of `GET /v1/dead`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadQuery {
    /// Only those of this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Only those on this topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Only those that were on their way out, or in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<DeadDirection>,
    /// Most messages to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Which messages of a box a request is about: the body of `POST /v1/outbox/drop`,
/// `POST /v1/outbox/flush`, `POST /v1/dead/retry` and `POST /v1/dead/drop`.
///
/// Without ids all that match; without anything nothing but an error, so that a forgotten filter
/// never empties a box.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxRequest {
    /// These.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "text::list")]
    pub ids: Vec<ReceiptId>,
    /// Only those of this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Only those on this topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Every one, by intent.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all: bool,
}

/// The answer to dropping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many.
    pub dropped: u64,
}

/// The answer to a flush.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// Who is dialled now; nothing changes where a session is alive.
    pub peers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_survives_the_way_through_a_url() {
        let query = SendQuery {
            peer: "left & right".into(),
            topic: "a/b?c=%+ü".into(),
            class: Some(DeliveryClass::Moderate),
            replace: true,
            expires_ms: Some(1),
            headers: vec![
                ("a=&".into(), "\"ü\u{1}".into()),
                ("b".into(), String::new()),
            ],
            wait: Some(ReceiptState::Stored),
            timeout_ms: Some(30_000),
            ..SendQuery::default()
        };
        let url = serde_urlencoded::to_string(&query).expect("plain values");
        let back: SendQuery = serde_urlencoded::from_str(&url).expect("its own text");
        assert_eq!(format!("{back:?}"), format!("{query:?}"));
    }

    #[test]
    fn headers_at_their_limits_fit_into_a_url() {
        use packhorse_protocol::limits::{HEADER_BYTES_MAX, HEADERS_MAX, TOPIC_BYTES_MAX};
        // What grows most on its way: control characters, written \u0001 and then escaped again.
        let query = SendQuery {
            peer: "ü".repeat(64),
            topic: "ü".repeat(TOPIC_BYTES_MAX / 2),
            id: Some("ü".repeat(128)),
            headers: (0..HEADERS_MAX)
                .map(|_| {
                    (
                        String::new(),
                        "\u{1}".repeat(HEADER_BYTES_MAX / HEADERS_MAX),
                    )
                })
                .collect(),
            ..SendQuery::default()
        };
        let url = serde_urlencoded::to_string(&query).expect("plain values");
        // The longest address that the http crate takes.
        assert!(url.len() < usize::from(u16::MAX) - 1_024, "{}", url.len());
    }

    #[test]
    fn an_unknown_field_of_a_request_is_refused() {
        let error = serde_urlencoded::from_str::<SendQuery>("peer=a&topic=b&clas=critical")
            .expect_err("misspelt");
        assert!(error.to_string().contains("clas"), "{error}");
    }
}
