//! The name of a message, the same on both sides.
//!
//! It holds what names a message for ever (lane, epoch, sequence) and a tag of its recipient's id,
//! so that sender and recipient print the same text for the same message without having told each
//! other. It is no secret and proves nothing.
//!
//! ```text
//! text = "r" ‖ base32(lower case, no padding) of
//!        recipient tag [6] ‖ boot u32 ‖ nonce u64 ‖ lane in the top bit, sequence in 47 bits [6] ‖ check [2]
//! ```
//!
//! The tag is the head of the recipient's node id; the check is CRC-16/ARC over what stands before
//! it, so that a mistyped id is not taken for an unknown one.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use packhorse_protocol::epoch::{Epoch, Lane, Position};
use packhorse_protocol::node_id::NodeId;

const BODY_BYTES: usize = 24;
const BYTES: usize = BODY_BYTES + 2;
const LANE_BIT: u64 = 1 << 47;

/// The first six bytes of a recipient's id; tells a sender's peers apart, and no more.
pub type RecipientTag = [u8; 6];

/// The name of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptId {
    /// For whom the message is.
    pub recipient: RecipientTag,
    /// In which lane it is numbered.
    pub lane: Lane,
    /// Its place there.
    pub position: Position,
}

/// The text is not the name of a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no receipt id: `r` and 42 letters and digits as `send` prints them")]
pub struct NotAReceiptId(String);

/// What tells recipients apart in receipt ids.
#[must_use]
pub fn tag(recipient: NodeId) -> RecipientTag {
    let [a, b, c, d, e, f, ..] = *recipient.as_bytes();
    [a, b, c, d, e, f]
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&self.recipient);
        bytes.extend_from_slice(&self.position.epoch.boot.to_be_bytes());
        bytes.extend_from_slice(&self.position.epoch.nonce.to_be_bytes());
        let lane = if self.lane == Lane::System {
            LANE_BIT
        } else {
            0
        };
        let [_, _, sequence @ ..] = ((self.position.sequence % LANE_BIT) | lane).to_be_bytes();
        bytes.extend_from_slice(&sequence);
        bytes.extend_from_slice(&check(&bytes).to_be_bytes());
        write!(f, "r{}", encoding().encode(&bytes))
    }
}

impl FromStr for ReceiptId {
    type Err = NotAReceiptId;

    fn from_str(text: &str) -> Result<ReceiptId, NotAReceiptId> {
        parse(text).ok_or_else(|| NotAReceiptId(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<ReceiptId> {
    let bytes = encoding().decode(text.strip_prefix('r')?.as_bytes()).ok()?;
    let bytes: [u8; BYTES] = bytes.try_into().ok()?;
    let (body, sum) = bytes.split_first_chunk::<BODY_BYTES>()?;
    if check(body).to_be_bytes() != sum {
        return None;
    }
    let (recipient, rest) = body.split_first_chunk::<6>()?;
    let (boot, rest) = rest.split_first_chunk::<4>()?;
    let (nonce, rest) = rest.split_first_chunk::<8>()?;
    let sequence = rest
        .iter()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte));
    Some(ReceiptId {
        recipient: *recipient,
        lane: if sequence & LANE_BIT == 0 {
            Lane::User
        } else {
            Lane::System
        },
        position: Position {
            epoch: Epoch {
                boot: u32::from_be_bytes(*boot),
                nonce: u64::from_be_bytes(*nonce),
            },
            sequence: sequence % LANE_BIT,
        },
    })
}

fn encoding() -> Encoding {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 different symbols")
}

/// CRC-16/ARC: polynomial 0x8005 reflected, start 0.
fn check(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte), |sum, _| {
            if sum & 1 == 1 {
                (sum >> 1) ^ 0xa001
            } else {
                sum >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(lane: Lane, sequence: u64) -> ReceiptId {
        let epoch = Epoch {
            boot: 3,
            nonce: 0xfeed,
        };
        ReceiptId {
            recipient: [1, 2, 3, 4, 5, 6],
            lane,
            position: Position { epoch, sequence },
        }
    }

    #[test]
    fn a_receipt_id_comes_back_from_its_text() {
        for id in [receipt(Lane::User, 1), receipt(Lane::System, LANE_BIT - 1)] {
            let text = id.to_string();
            assert_eq!(text.len(), 43, "{text}");
            assert_eq!(text.parse(), Ok(id));
        }
    }

    #[test]
    fn a_mistyped_receipt_id_is_refused_and_named() {
        let text = receipt(Lane::User, 7).to_string();
        for at in 1..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[at] = if typo[at] == b'a' { b'b' } else { b'a' };
            let typo = String::from_utf8(typo).expect("ascii");
            assert_eq!(
                typo.parse::<ReceiptId>(),
                Err(NotAReceiptId(typo.clone())),
                "{typo}"
            );
        }
        for wrong in ["", "r", "x", &text[1..], &text[..42]] {
            assert!(wrong.parse::<ReceiptId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_check_is_the_published_one() {
        // The check value of CRC-16/ARC in the usual catalogue.
        assert_eq!(check(b"123456789"), 0xbb3d);
    }
}
