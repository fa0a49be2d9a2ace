//! The name of a message for people and scripts.
//!
//! A receipt id is the message's recipient, lane and position with a short checksum, so that the
//! state of a message is found without a table of receipts and a mistyped id is told from an
//! unknown one. It is not a secret and proves nothing.
//!
//! ```text
//! "r" ‖ lower-case base32 of: peer u32 ‖ lane u8 ‖ boot u32 ‖ nonce u64 ‖ sequence u64 ‖ SHA-256 of these 25 bytes, first 5
//! ```

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use packhorse_protocol::epoch::{Epoch, Lane, Position};
use ring::digest::{SHA256, digest};
use std::sync::LazyLock;

use super::tables::peers::PeerNumber;

const BODY_BYTES: usize = 25;
/// 5 bytes make the whole 30, which base32 writes in 48 characters without padding.
const SUM_BYTES: usize = 5;

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification
        .encoding()
        .expect("the alphabet has 32 different characters")
});

/// The name of a message that this node accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptId {
    /// For whom the message is.
    pub peer: PeerNumber,
    /// In which lane it goes.
    pub lane: Lane,
    /// Its place in that lane.
    pub position: Position,
}

impl ReceiptId {
    fn body(&self) -> [u8; BODY_BYTES] {
        let mut body = [0; BODY_BYTES];
        body[..4].copy_from_slice(&self.peer.0.to_be_bytes());
        body[4] = self.lane as u8;
        body[5..9].copy_from_slice(&self.position.epoch.boot.to_be_bytes());
        body[9..17].copy_from_slice(&self.position.epoch.nonce.to_be_bytes());
        body[17..].copy_from_slice(&self.position.sequence.to_be_bytes());
        body
    }

    /// The id as records hold it.
    pub(crate) fn to_bytes(self) -> [u8; BODY_BYTES] {
        self.body()
    }

    /// Reads an id from a record.
    pub(crate) fn from_bytes(body: &[u8; BODY_BYTES]) -> Option<Self> {
        let [p0, p1, p2, p3, lane, b0, b1, b2, b3, rest @ ..] = *body;
        let (nonce, sequence) = (rest.first_chunk::<8>()?, rest.last_chunk::<8>()?);
        let lane = Lane::ALL.into_iter().find(|known| *known as u8 == lane)?;
        Some(Self {
            peer: PeerNumber(u32::from_be_bytes([p0, p1, p2, p3])),
            lane,
            position: Position {
                epoch: Epoch {
                    boot: u32::from_be_bytes([b0, b1, b2, b3]),
                    nonce: u64::from_be_bytes(*nonce),
                },
                sequence: u64::from_be_bytes(*sequence),
            },
        })
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        let mut bytes = [0; BODY_BYTES + SUM_BYTES];
        bytes[..BODY_BYTES].copy_from_slice(&body);
        bytes[BODY_BYTES..].copy_from_slice(&digest(&SHA256, &body).as_ref()[..SUM_BYTES]);
        write!(f, "r{}", BASE32.encode(&bytes))
    }
}

/// A text that is no receipt id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a receipt id: {problem}")]
pub struct NotAReceipt {
    text: String,
    problem: &'static str,
}

impl FromStr for ReceiptId {
    type Err = NotAReceipt;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |problem| NotAReceipt {
            text: text.chars().take(64).collect(),
            problem,
        };
        let digits = text
            .strip_prefix('r')
            .ok_or_else(|| wrong("it does not begin with r"))?;
        let bytes = BASE32
            .decode(digits.as_bytes())
            .map_err(|_| wrong("it has characters of no id"))?;
        let (body, sum) = bytes
            .split_first_chunk::<BODY_BYTES>()
            .ok_or_else(|| wrong("it is too short"))?;
        if sum.len() != SUM_BYTES || &digest(&SHA256, body).as_ref()[..SUM_BYTES] != sum {
            return Err(wrong("its checksum does not match"));
        }
        Self::from_bytes(body).ok_or_else(|| wrong("it names an unknown lane"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn id() -> ReceiptId {
        ReceiptId {
            peer: PeerNumber(3),
            lane: Lane::System,
            position: Position {
                epoch: Epoch {
                    boot: 7,
                    nonce: u64::MAX - 1,
                },
                sequence: 99,
            },
        }
    }

    #[test]
    fn an_id_reads_back_from_its_text() {
        let text = id().to_string();
        assert_eq!(text.len(), 49);
        assert_eq!(text.parse(), Ok(id()));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = id().to_string();
        for index in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[index] = if changed[index] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed.parse::<ReceiptId>().is_err(), "{changed}");
        }
        assert!("".parse::<ReceiptId>().is_err());
        assert!("r".parse::<ReceiptId>().is_err());
    }
}
