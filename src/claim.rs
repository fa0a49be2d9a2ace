//! Messages in the hands of who handles them: how they are claimed, and what came of it.
//!
//! Plain values; the leases behind them live in the inbox.
//! [`Claim`] goes into `Node::claim`, [`Claimed`] comes out, [`Verdict`] ends it.

use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::listing::Payload;
use crate::time::WallTime;
use crate::{DeliveryClass, NodeId, ReceiptId, class, headers, text};

/// How long a message is lent out unless told otherwise.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// Shortest lease: below it a busy machine loses messages that are being handled.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// Longest lease: nobody waits longer than this for what a dead consumer held.
pub const LEASE_MAX: Duration = Duration::from_secs(60 * 60);
/// Bytes of a handler's output that travel in the receipt.
pub const OUTPUT_BYTES_MAX: usize = 4_096;

/// Which messages to claim, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The topic, exactly.
    pub topic: String,
    /// At most this many.
    pub count: usize,
    /// For how long each is lent out.
    pub lease: Duration,
    /// Whether a command is started for each: then only messages of senders with the grant
    /// `execute` for the topic are handed out, and attempts are counted.
    pub executes: bool,
    /// How long to wait for the first message when none is there.
    pub wait: Duration,
}

impl Claim {
    /// What waits now, up to this many, for the default lease.
    #[must_use]
    pub fn new(topic: impl Into<String>, count: usize) -> Claim {
        Claim {
            topic: topic.into(),
            count,
            lease: LEASE_DEFAULT,
            executes: false,
            wait: Duration::ZERO,
        }
    }
}

/// A message that was lent out to this consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// Its number in this inbox.
    pub arrival: u64,
    /// Shows that this lease is meant; another lease of the same message has another one.
    pub token: u64,
    /// The receipt id, as the sender has it; an ephemeral message has none.
    #[serde(with = "text::option")]
    pub id: Option<ReceiptId>,
    /// The sender's name here.
    pub sender: String,
    /// The sender's node id; none when the peer was forgotten meanwhile.
    #[serde(with = "text::option")]
    pub sender_id: Option<NodeId>,
    /// What it is about.
    pub topic: String,
    /// How hard the sender tried.
    #[serde(with = "class")]
    pub class: DeliveryClass,
    /// Names and values for applications, in the sender's order.
    #[serde(with = "headers")]
    pub headers: Vec<(String, String)>,
    /// What it carries.
    #[serde(flatten)]
    pub payload: Payload,
    /// When the sender accepted it, by the sender's clock.
    pub born: WallTime,
    /// How often a handler ran for it so far.
    pub attempts: u32,
    /// How many of those failed.
    pub failures: u32,
    /// Whether it was never stored: there is nothing to acknowledge then.
    pub is_ephemeral: bool,
}

/// A claimed message by its number and its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The number in this inbox.
    pub arrival: u64,
    /// Which lease of it.
    pub token: u64,
}

impl Claimed {
    /// The lease that it was claimed with.
    #[must_use]
    pub const fn lease(&self) -> Lease {
        Lease {
            arrival: self.arrival,
            token: self.token,
        }
    }
}

/// What came of handling a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It is done; the sender hears so.
    Done {
        /// What the handler said.
        #[serde(rename = "output_base64", with = "base64")]
        output: Vec<u8>,
    },
    /// It was not the message's fault: again later, and no failure is counted.
    Retry {
        /// Not before this time has passed; the inbox chooses when it is left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay_ms: Option<u64>,
        /// Why.
        reason: String,
    },
    /// It failed: again after a pause that grows, until the limit makes a dead letter of it.
    Failed {
        /// Why.
        reason: String,
        /// What the handler said.
        #[serde(rename = "output_base64", with = "base64")]
        output: Vec<u8>,
    },
    /// It can never be handled: a dead letter at once; the sender hears so.
    Dead {
        /// Why.
        reason: String,
        /// What the handler said.
        #[serde(rename = "output_base64", with = "base64")]
        output: Vec<u8>,
    },
}

mod base64 {
    use serde::de::{Deserializer, Error as _};
    use serde::ser::Serializer;

    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_has_the_published_shape() {
        let verdict = Verdict::Failed {
            reason: "exit 1".into(),
            output: b"no".to_vec(),
        };
        let text = serde_json::to_string(&verdict).expect("plain values");
        assert_eq!(
            text,
            r#"{"verdict":"failed","reason":"exit 1","output_base64":"bm8="}"#
        );
        let again: Verdict = serde_json::from_str(&text).expect("its own text");
        assert_eq!(again, verdict);
        let text = r#"{"verdict":"retry","reason":"later"}"#;
        let verdict: Verdict = serde_json::from_str(text).expect("the delay may be left out");
        assert_eq!(
            verdict,
            Verdict::Retry {
                delay_ms: None,
                reason: "later".into()
            }
        );
    }
}
