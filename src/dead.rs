//! Dead letters: messages that were given up, out there or in here, and may be taken up again.
//!
//! Plain values in the shape of the published documents; the store keeps them.
//! A dead letter never blocks a living message, and none is deleted but by hand.

use std::fmt;
use std::str::FromStr;

use packhorse_protocol::message::DeliveryClass;
use serde::{Deserialize, Serialize};

use crate::listing::Payload;
use crate::time::WallTime;
use crate::{ReceiptId, class, headers, text};

/// Which way a dead letter was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadDirection {
    /// From here to a peer.
    Out,
    /// From a peer to a handler here.
    In,
}

impl DeadDirection {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            DeadDirection::Out => "out",
            DeadDirection::In => "in",
        }
    }
}

impl fmt::Display for DeadDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word that names no direction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no direction `{0}`: out or in")]
pub struct UnknownDirection(pub String);

impl FromStr for DeadDirection {
    type Err = UnknownDirection;

    fn from_str(word: &str) -> Result<DeadDirection, UnknownDirection> {
        match word {
            "out" => Ok(DeadDirection::Out),
            "in" => Ok(DeadDirection::In),
            _ => Err(UnknownDirection(word.to_owned())),
        }
    }
}

/// What is known of a dead letter's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DeadState {
    /// The recipient certainly does not have it.
    #[serde(rename = "not delivered")]
    NotDelivered,
    /// It was on its way when it was given up; the next session with the peer tells.
    #[serde(rename = "may be delivered")]
    MayBeDelivered,
    /// The recipient refused it.
    #[serde(rename = "refused")]
    Refused,
    /// It arrived here and its handler failed or gave it up.
    #[serde(rename = "not handled")]
    NotHandled,
}

impl DeadState {
    /// The words for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            DeadState::NotDelivered => "not delivered",
            DeadState::MayBeDelivered => "may be delivered",
            DeadState::Refused => "refused",
            DeadState::NotHandled => "not handled",
        }
    }
}

impl fmt::Display for DeadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Some of the dead letters, and the count of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadListing {
    /// How many there are, shown or not.
    pub total: u64,
    /// Some of them: first those that were going out, then those that had come in.
    pub messages: Vec<DeadMessage>,
}

/// One dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadMessage {
    /// Its name.
    #[serde(with = "text")]
    pub id: ReceiptId,
    /// Which way it was going.
    pub direction: DeadDirection,
    /// The other node's name here.
    pub peer: String,
    /// What it is about; empty when the message had become unreadable.
    pub topic: String,
    /// How hard it was tried.
    #[serde(with = "class::option")]
    pub class: Option<DeliveryClass>,
    /// What is known of its end.
    pub state: DeadState,
    /// Why it was given up.
    pub reason: String,
    /// When.
    pub at: WallTime,
    /// When its sender had accepted it, by the sender's clock.
    pub born: Option<WallTime>,
    /// Names and values for the application.
    #[serde(with = "headers")]
    pub headers: Vec<(String, String)>,
    /// What it carries.
    #[serde(flatten)]
    pub payload: Payload,
}

/// Which messages of a box are meant; what is not named is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only those of this peer, by name or id.
    pub peer: Option<String>,
    /// Only those on exactly this topic.
    pub topic: Option<String>,
    /// Only these; all that match when it is empty.
    pub ids: Vec<ReceiptId>,
}

/// What became of dead letters that were taken up again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// How many are under way again.
    pub retried: u64,
    /// How many were left alone, because nobody knows yet whether they were delivered.
    pub unsettled: u64,
    /// How many are gone for good: their messages do not open any more.
    pub damaged: u64,
    /// How many were left alone, because their recipients were forgotten.
    #[serde(default)]
    pub forgotten: u64,
    /// The first of those under way again.
    pub messages: Vec<RetriedMessage>,
}

/// One dead letter that is under way again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetriedMessage {
    /// What the dead letter was called.
    #[serde(with = "text")]
    pub id: ReceiptId,
    /// Its name from now on.
    #[serde(with = "text")]
    pub receipt: ReceiptId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_has_the_published_shape() {
        let id = crate::testing::receipt_id();
        let listing = DeadListing {
            total: 3,
            messages: vec![DeadMessage {
                id,
                direction: DeadDirection::Out,
                peer: "left".into(),
                topic: "orders".into(),
                class: Some(DeliveryClass::Moderate),
                state: DeadState::MayBeDelivered,
                reason: "expired".into(),
                at: WallTime(1_763_724_600_123),
                born: None,
                headers: Vec::new(),
                payload: Payload(b"hay".to_vec()),
            }],
        };
        let text = serde_json::to_string(&listing).expect("plain values");
        assert_eq!(
            text,
            format!(
                r#"{{"total":3,"messages":[{{"id":"{id}","direction":"out","peer":"left","topic":"orders","class":"moderate","state":"may be delivered","reason":"expired","at":"2025-11-21T11:30:00.123Z","born":null,"headers":{{}},"payload":"hay","payload_base64":"aGF5"}}]}}"#
            )
        );
        assert_eq!(
            serde_json::from_str::<DeadListing>(&text).expect("its own text"),
            listing
        );
    }

    #[test]
    fn words_are_those_of_the_document() {
        for state in [
            DeadState::NotDelivered,
            DeadState::MayBeDelivered,
            DeadState::Refused,
            DeadState::NotHandled,
        ] {
            let text = serde_json::to_string(&state).expect("a plain word");
            assert_eq!(text, format!("\"{}\"", state.word()));
        }
        for direction in [DeadDirection::Out, DeadDirection::In] {
            assert_eq!(direction.word().parse(), Ok(direction));
        }
        assert!("up".parse::<DeadDirection>().is_err());
    }
}
