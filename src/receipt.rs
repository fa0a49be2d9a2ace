//! How far a message came, as `send` answers and documents show it.
//!
//! Plain values; the store derives them, nothing here decides anything.
//! Read [`ReceiptState`] first: a receipt climbs it and never falls back.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use packhorse_protocol::message::DeliveryClass;
use serde::de::{Deserializer, Error as _};
use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use crate::time::WallTime;
use crate::{ReceiptId, class, text};

/// How far a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptState {
    /// On the disk of this node.
    Accepted,
    /// On the disk of the recipient, in its inbox.
    Stored,
    /// Handled by the recipient.
    Done,
    /// Given up, refused, or its handling failed; the reason says which.
    Failed,
}

impl ReceiptState {
    /// Whether a receipt in this state satisfies who waited for `wanted`.
    #[must_use]
    pub fn has_reached(self, wanted: ReceiptState) -> bool {
        match (self, wanted) {
            (ReceiptState::Failed, ReceiptState::Failed) => true,
            // A failed message was accepted once, but whoever waits wants to hear of the failure.
            (ReceiptState::Failed, _) | (_, ReceiptState::Failed) => false,
            (reached, wanted) => reached >= wanted,
        }
    }

    /// Whether it can still change.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, ReceiptState::Done | ReceiptState::Failed)
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            ReceiptState::Accepted => "accepted",
            ReceiptState::Stored => "stored",
            ReceiptState::Done => "done",
            ReceiptState::Failed => "failed",
        }
    }
}

impl fmt::Display for ReceiptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word that names no state of a receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no receipt state `{0}`: accepted, stored, done or failed")]
pub struct UnknownState(pub String);

impl FromStr for ReceiptState {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<ReceiptState, UnknownState> {
        match word {
            "accepted" => Ok(ReceiptState::Accepted),
            "stored" => Ok(ReceiptState::Stored),
            "done" => Ok(ReceiptState::Done),
            "failed" => Ok(ReceiptState::Failed),
            _ => Err(UnknownState(word.to_owned())),
        }
    }
}

/// What an acknowledgement of this node rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Durability {
    /// The message was synced to disk before the receipt was given.
    #[default]
    Fsync,
}

/// The answer to `send`, and to later questions about the same message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Names the message for ever.
    #[serde(rename = "receipt", with = "text")]
    pub id: ReceiptId,
    /// The recipient's name here.
    pub peer: String,
    /// The message's topic, as long as this node still has the message.
    pub topic: Option<String>,
    /// How hard it is tried, as long as this node still has the message.
    #[serde(with = "class::option")]
    pub class: Option<DeliveryClass>,
    /// How far it came.
    pub state: ReceiptState,
    /// What the acceptance rests on.
    pub durability: Durability,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
    /// When it became done or failed, by this node's clock.
    pub at: Option<WallTime>,
    /// The first bytes of what its handler there printed.
    #[serde(flatten)]
    pub output: Output,
}

/// What a handler printed, as far as it travels: at most 4 KiB.
///
/// Documents hold it as text where it is text, and always as base64; both are null without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output(pub Option<Vec<u8>>);

impl Output {
    /// The output as text, where there is one and it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        self.0
            .as_deref()
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let base64 = self.0.as_deref().map(|bytes| BASE64.encode(bytes));
        let mut fields = serializer.serialize_struct("Output", 2)?;
        fields.serialize_field("output", &self.as_text())?;
        fields.serialize_field("output_base64", &base64)?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Output, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default)]
            output_base64: Option<String>,
        }
        let fields = Fields::deserialize(deserializer)?;
        let decode = |text: String| BASE64.decode(text.as_bytes()).map_err(D::Error::custom);
        fields.output_base64.map(decode).transpose().map(Output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_satisfies_those_below_it_and_failure_satisfies_none() {
        use ReceiptState::{Accepted, Done, Failed, Stored};
        assert!(Stored.has_reached(Accepted));
        assert!(Stored.has_reached(Stored));
        assert!(!Stored.has_reached(Done));
        assert!(Done.has_reached(Stored));
        assert!(!Failed.has_reached(Accepted));
        assert!(!Failed.has_reached(Done));
    }

    #[test]
    fn a_receipt_has_the_published_shape() {
        let id = crate::testing::receipt_id();
        let receipt = Receipt {
            id,
            peer: "left".into(),
            topic: Some("orders".into()),
            class: Some(DeliveryClass::Critical),
            state: ReceiptState::Accepted,
            durability: Durability::Fsync,
            reason: None,
            at: None,
            output: Output::default(),
        };
        let text = serde_json::to_string(&receipt).expect("plain values");
        assert_eq!(
            text,
            format!(
                r#"{{"receipt":"{id}","peer":"left","topic":"orders","class":"critical","state":"accepted","durability":"fsync","reason":null,"at":null,"output":null,"output_base64":null}}"#
            )
        );
        assert_eq!(
            serde_json::from_str::<Receipt>(&text).expect("its own text"),
            receipt
        );
    }

    #[test]
    fn an_output_that_is_no_text_is_null_beside_its_base64() {
        let output = Output(Some(vec![0xff, 0]));
        let text = serde_json::to_string(&output).expect("plain values");
        assert_eq!(text, r#"{"output":null,"output_base64":"/wA="}"#);
        assert_eq!(
            serde_json::from_str::<Output>(&text).expect("its own text"),
            output
        );
    }
}
