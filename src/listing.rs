//! A page of the outbox or the inbox.
//!
//! Plain values in the shape of the published documents; the store fills them.
//! A listing shows messages without changing them: nothing is claimed or acknowledged by looking.

use data_encoding::BASE64;
use packhorse_protocol::epoch::Epoch;
use packhorse_protocol::message::DeliveryClass;
use serde::de::{Deserializer, Error as _};
use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use crate::receipt::ReceiptState;
use crate::time::WallTime;
use crate::{ReceiptId, class, headers, text};

/// Some of the messages of a box, oldest first, and the count of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// How many there are, shown or not.
    pub total: u64,
    /// The oldest of them.
    pub messages: Vec<ListedMessage>,
}

/// One message of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedMessage {
    /// The receipt id.
    #[serde(with = "text")]
    pub id: ReceiptId,
    /// The other node's name here: the recipient in the outbox, the sender in the inbox.
    pub peer: String,
    /// The sender's epoch in which it was accepted.
    #[serde(with = "epoch_text")]
    pub epoch: Epoch,
    /// Its number within that epoch.
    pub sequence: u64,
    /// What it is about.
    pub topic: String,
    /// How hard it is tried.
    #[serde(with = "class")]
    pub class: DeliveryClass,
    /// How far it came.
    pub state: ReceiptState,
    /// When the sender accepted it, by the sender's clock.
    pub born: WallTime,
    /// When it is given up, if it is not stored there by then.
    pub expires: Option<WallTime>,
    /// Failed attempts since it was born.
    pub failures: u32,
    /// Names and values for the application.
    #[serde(with = "headers")]
    pub headers: Vec<(String, String)>,
    /// What it carries.
    #[serde(flatten)]
    pub payload: Payload,
    /// Why it failed, or what it waits for.
    pub reason: Option<String>,
}

/// The load of a message; documents hold it as text where it is text, and always as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

impl Payload {
    /// The load as text, where it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Payload", 2)?;
        fields.serialize_field("payload", &self.as_text())?;
        fields.serialize_field("payload_base64", &BASE64.encode(&self.0))?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            payload_base64: String,
        }
        let fields = Fields::deserialize(deserializer)?;
        BASE64
            .decode(fields.payload_base64.as_bytes())
            .map(Payload)
            .map_err(D::Error::custom)
    }
}

/// An epoch as `boot-nonce`, the boot number in decimal and the nonce in 16 hex digits.
mod epoch_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        epoch: &Epoch,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}-{:016x}", epoch.boot, epoch.nonce))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Epoch, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.split_once('-').and_then(|(boot, nonce)| {
            Some(Epoch {
                boot: boot.parse().ok()?,
                nonce: u64::from_str_radix(nonce, 16).ok()?,
            })
        });
        parsed.ok_or_else(|| D::Error::custom(format_args!("`{text}` is no epoch")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8]) -> ListedMessage {
        ListedMessage {
            id: crate::testing::receipt_id(),
            peer: "left".into(),
            epoch: Epoch {
                boot: 3,
                nonce: 0xfeed,
            },
            sequence: 17,
            topic: "orders".into(),
            class: DeliveryClass::Moderate,
            state: ReceiptState::Accepted,
            born: WallTime(1_763_724_600_123),
            expires: Some(WallTime(1_763_724_700_123)),
            failures: 2,
            headers: vec![("a".into(), "b".into())],
            payload: Payload(payload.to_vec()),
            reason: None,
        }
    }

    #[test]
    fn a_listing_has_the_published_shape() {
        let id = crate::testing::receipt_id();
        let listing = Listing {
            total: 41,
            messages: vec![message(b"hay")],
        };
        let text = serde_json::to_string(&listing).expect("plain values");
        assert_eq!(
            text,
            format!(
                r#"{{"total":41,"messages":[{{"id":"{id}","peer":"left","epoch":"3-000000000000feed","sequence":17,"topic":"orders","class":"moderate","state":"accepted","born":"2025-11-21T11:30:00.123Z","expires":"2025-11-21T11:31:40.123Z","failures":2,"headers":{{"a":"b"}},"payload":"hay","payload_base64":"aGF5","reason":null}}]}}"#
            )
        );
        assert_eq!(
            serde_json::from_str::<Listing>(&text).expect("its own text"),
            listing
        );
    }

    #[test]
    fn a_payload_that_is_no_text_is_null_beside_its_base64() {
        let text = serde_json::to_string(&message(&[0xff, 0])).expect("plain values");
        assert!(
            text.contains(r#""payload":null,"payload_base64":"/wA=""#),
            "{text}"
        );
        let back: ListedMessage = serde_json::from_str(&text).expect("its own text");
        assert_eq!(back.payload.0, [0xff, 0]);
    }
}
