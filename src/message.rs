//! Messages on their way out of and into an application.
//!
//! Plain values; nothing here is stored or sent.
//! [`Outgoing`] goes into `Node::send`, [`Received`] comes out of `Node::receive`.

use std::time::Duration;

use packhorse_protocol::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use packhorse_protocol::message::{DeliveryClass, MessageFault, check_topic};
use serde::{Deserialize, Serialize};

use crate::receipt::Receipt;
use crate::time::{DURATION_MAX, WallTime};
use crate::{ErrorKind, NodeError, NodeId, ReceiptId, class};

/// The header that names the topic on which an answer is expected.
pub const REPLY_TO: &str = "reply-to";

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What it is about; the recipient's grant is checked against it.
    pub topic: String,
    /// What it carries, at most 1 MiB.
    pub payload: Vec<u8>,
    /// How hard it is tried; the node's rules decide when it is left out, and may decide otherwise.
    pub class: Option<DeliveryClass>,
    /// Makes a repeated send return the first receipt.
    pub key: Option<String>,
    /// Names and values for the application, at most 4 KiB, no name twice.
    pub headers: Vec<(String, String)>,
    /// It is given up when it is not stored there by then.
    pub expires: Option<Duration>,
    /// Put it in the place of the message that has its key, if that certainly never left.
    pub replace: bool,
}

impl Outgoing {
    /// A message without headers or a key, of the class that the node's rules give it.
    #[must_use]
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Outgoing {
        Outgoing {
            topic: topic.into(),
            payload: payload.into(),
            class: None,
            key: None,
            headers: Vec::new(),
            expires: None,
            replace: false,
        }
    }

    /// Whether it can be sent at all; what depends on the store is not looked at.
    pub(crate) fn check(&self) -> Result<(), NodeError> {
        let usage = |text: String| Err(NodeError::new(ErrorKind::Usage, text));
        if let Some(expires) = self.expires
            && (expires.is_zero() || expires > DURATION_MAX)
        {
            return usage(format!(
                "a message cannot expire after {} ms: the limits are 1 ms and {} days",
                expires.as_millis(),
                DURATION_MAX.as_secs() / 86_400
            ));
        }
        if let Some(key) = &self.key
            && (key.is_empty() || key.chars().any(char::is_control))
        {
            // An empty one is mostly a variable of a script that was never set.
            return usage(format!(
                "the key {key:?} is empty or holds a control character"
            ));
        }
        if self.replace && self.key.is_none() {
            return usage("only a message with a key can replace another: name it".to_owned());
        }
        check_headers(&self.headers).map_err(|text| NodeError::new(ErrorKind::Usage, text))
    }
}

/// Whether these may be the headers of one message, before anything is sent anywhere.
pub fn check_headers(headers: &[(String, String)]) -> Result<(), String> {
    if headers.len() > HEADERS_MAX {
        let count = headers.len();
        return Err(MessageFault::TooManyHeaders { count }.to_string());
    }
    let bytes = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(MessageFault::HeadersTooLarge { bytes }.to_string());
    }
    for (index, (name, value)) in headers.iter().enumerate() {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(MessageFault::HeaderName { name: name.clone() }.to_string());
        }
        if headers.iter().take(index).any(|(other, _)| other == name) {
            return Err(format!("the header {name:?} is given twice"));
        }
        if name == REPLY_TO {
            check_topic(value).map_err(|fault| format!("the header {REPLY_TO:?}: {fault}"))?;
        }
    }
    Ok(())
}

/// What became of a message that was handed to the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is stored here and stays under way.
    Accepted(Receipt),
    /// It went out over the live session; nobody keeps it and nothing more will be heard of it.
    Ephemeral(EphemeralSent),
}

/// A message that went out without being stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EphemeralSent {
    /// The recipient's name here.
    pub peer: String,
    /// What it is about.
    pub topic: String,
    /// Always ephemeral.
    #[serde(with = "class")]
    pub class: DeliveryClass,
    /// Always `sent`: handed to the live session.
    pub state: EphemeralState,
}

/// How far an ephemeral message came, as far as anybody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EphemeralState {
    /// Handed to the live session.
    Sent,
}

/// A message that waits to be handled, claimed by who received it.
///
/// It comes again unless it is acknowledged before its claim ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number in this inbox; what is acknowledged.
    pub arrival: u64,
    /// Its name, the same that its sender has on the receipt; none for an ephemeral message.
    pub message: Option<ReceiptId>,
    /// What it is about.
    pub topic: String,
    /// The sender's name here.
    pub sender: String,
    /// The sender's node id, as long as it is known here.
    pub sender_id: Option<NodeId>,
    /// How hard the sender tried.
    pub class: DeliveryClass,
    /// When the sender accepted it, by the sender's clock.
    pub born: WallTime,
    /// Names and values for the application.
    pub headers: Vec<(String, String)>,
    /// How often a handler ran for it.
    pub attempts: u32,
    /// It is kept nowhere and cannot be acknowledged.
    pub is_ephemeral: bool,
    /// What it carries.
    pub payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &Outgoing) -> String {
        message.check().expect_err("it cannot be sent").to_string()
    }

    fn with_headers(headers: &[(&str, &str)]) -> Outgoing {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Outgoing {
            headers: headers.iter().map(own).collect(),
            ..Outgoing::new("orders", "hay")
        }
    }

    #[test]
    fn what_cannot_be_sent_names_value_and_limit() {
        let mut message = Outgoing::new("orders", "hay");
        assert!(message.check().is_ok());
        message.expires = Some(Duration::ZERO);
        assert_eq!(
            refused(&message),
            "a message cannot expire after 0 ms: the limits are 1 ms and 366 days"
        );
        message.expires = None;
        message.replace = true;
        assert!(refused(&message).contains("with a key"));
        for key in ["", "a\nb"] {
            message.key = Some(key.to_owned());
            assert!(refused(&message).contains("the key"), "{key:?}");
        }
        message.key = Some("k".to_owned());
        assert!(message.check().is_ok());
    }

    #[test]
    fn headers_keep_their_limits() {
        assert!(
            with_headers(&[("a", "b"), ("reply-to", "answers")])
                .check()
                .is_ok()
        );
        assert_eq!(
            refused(&with_headers(&[("a", "b"), ("a", "c")])),
            "the header \"a\" is given twice"
        );
        assert_eq!(
            refused(&with_headers(&[("", "b")])),
            "the header name \"\" is empty or holds a control character"
        );
        assert_eq!(
            refused(&with_headers(&[("reply-to", "")])),
            "the header \"reply-to\": the topic is empty"
        );
        let long = "v".repeat(HEADER_BYTES_MAX - 1);
        assert!(with_headers(&[("a", &long)]).check().is_ok());
        assert_eq!(
            refused(&with_headers(&[("ab", &long)])),
            "the headers have 4097 bytes, more than 4096"
        );
        let names: Vec<String> = (0..=HEADERS_MAX).map(|number| number.to_string()).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(refused(&with_headers(&many)), "65 headers, more than 64");
    }
}
