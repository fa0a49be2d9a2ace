//! What travels over the local API, and what `--json` prints: one document each, with its schema.
//!
//! A shape that is published is never changed, only widened; a change that breaks readers
//! gets the next number in its schema. Requests refuse fields that they do not know.

mod addresses;
mod grants;
mod invites;
pub mod requests;
mod sending;

use std::time::Duration;

use data_encoding::BASE64;
use packhorse_protocol::limits::PAYLOAD_BYTES_MAX;
use packhorse_protocol::message::DeliveryClass;
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::message::Received;
use crate::peer::PeerInfo;
use crate::time::WallTime;
use crate::{Grant, NodeId, ReceiptId, Ticket, class, headers, text};

pub use self::addresses::{AddressRequest, KeepRequest, PeerAnswer};
pub use self::grants::{
    AllowRequest, Allowed, DeniedList, ForgetRequest, GrantRequest, RenameRequest, RevokeRequest,
};
pub use self::invites::{InviteRequest, Invited, Invites, RevokeInvitesRequest, RevokedInvites};
pub use self::sending::{
    BoxRequest, DeadQuery, Dropped, Flushed, LinesAccepted, LinesQuery, ListQuery, ReceiptQuery,
    SendQuery,
};

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
    /// What went out over a live session without being stored.
    pub const EPHEMERAL: &str = "packhorse.ephemeral.v1";
    /// A page of the outbox.
    pub const OUTBOX: &str = "packhorse.outbox.v1";
    /// How many messages were dropped.
    pub const DROPPED: &str = "packhorse.dropped.v1";
    /// Who is dialled now.
    pub const FLUSHED: &str = "packhorse.flushed.v1";
    /// A page of the dead letters.
    pub const DEAD: &str = "packhorse.dead.v1";
    /// What became of dead letters that were retried.
    pub const RETRIED: &str = "packhorse.retried.v1";
    /// What a peer or a message waits for.
    pub const WHY: &str = "packhorse.why.v1";
    /// A page of the inbox.
    pub const INBOX: &str = "packhorse.inbox.v1";
    /// The node and its peers.
    pub const STATUS: &str = "packhorse.status.v1";
    /// Every peer.
    pub const PEERS: &str = "packhorse.peers.v1";
    /// One peer after a change.
    pub const PEER: &str = "packhorse.peer.v1";
    /// What a peer may do no more.
    pub const REVOKED: &str = "packhorse.revoked.v1";
    /// What came of forgetting a peer.
    pub const FORGOTTEN: &str = "packhorse.forgotten.v1";
    /// Identities that pair no more.
    pub const DENIED: &str = "packhorse.denied.v1";
    /// An identity that may pair again.
    pub const ALLOWED: &str = "packhorse.allowed.v1";
    /// Every ticket.
    pub const INVITES: &str = "packhorse.invites.v1";
    /// Tickets that were taken back.
    pub const REVOKED_INVITES: &str = "packhorse.revoked_invites.v1";
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
    /// A node that took a new identity.
    pub const ID_NEW: &str = "packhorse.id.new.v1";
    /// Whether a passphrase seals the identity.
    pub const PASSPHRASE: &str = "packhorse.passphrase.v1";
    /// A new identity.
    pub const INIT: &str = "packhorse.init.v1";
    /// What doctor found.
    pub const DOCTOR: &str = "packhorse.doctor.v1";
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

/// The answer of `GET /v1/peers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// Every peer, by name.
    pub peers: Vec<PeerInfo>,
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
        #[serde(with = "text::option")]
        message: Option<ReceiptId>,
        topic: String,
        sender: String,
        #[serde(with = "text::option")]
        sender_id: Option<NodeId>,
        #[serde(with = "class")]
        class: DeliveryClass,
        born: WallTime,
        #[serde(with = "headers")]
        headers: Vec<(String, String)>,
        attempts: u32,
        ephemeral: bool,
        payload_base64: String,
    }

    pub(super) fn serialize<S: Serializer>(
        messages: &[Received],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(messages.iter().map(|message| Row {
            arrival: message.arrival,
            message: message.message,
            topic: message.topic.clone(),
            sender: message.sender.clone(),
            sender_id: message.sender_id,
            class: message.class,
            born: message.born,
            headers: message.headers.clone(),
            attempts: message.attempts,
            ephemeral: message.is_ephemeral,
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
                message: row.message,
                topic: row.topic,
                sender: row.sender,
                sender_id: row.sender_id,
                class: row.class,
                born: row.born,
                headers: row.headers,
                attempts: row.attempts,
                is_ephemeral: row.ephemeral,
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
    fn received_payloads_travel_as_base64() {
        let received = ReceivedMessages {
            messages: vec![Received {
                arrival: 9,
                message: Some(crate::testing::receipt_id()),
                topic: "orders".into(),
                sender: "left".into(),
                sender_id: Some(crate::testing::node_id()),
                class: DeliveryClass::Critical,
                born: WallTime(1_763_724_600_123),
                headers: vec![("reply-to".into(), "answers".into())],
                attempts: 2,
                is_ephemeral: false,
                payload: vec![0, 255],
            }],
        };
        let text = serde_json::to_string(&received).expect("plain values");
        assert_eq!(
            text,
            format!(
                r#"{{"messages":[{{"arrival":9,"message":"{}","topic":"orders","sender":"left","sender_id":"{}","class":"critical","born":"2025-11-21T11:30:00.123Z","headers":{{"reply-to":"answers"}},"attempts":2,"ephemeral":false,"payload_base64":"AP8="}}]}}"#,
                crate::testing::receipt_id(),
                crate::testing::node_id()
            )
        );
        let back: ReceivedMessages = serde_json::from_str(&text).expect("its own text");
        assert_eq!(back.messages, received.messages);
    }
}
