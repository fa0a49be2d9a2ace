//! Who a node is: its Ed25519 public key, written as one word that begins with `phn1`.
//!
//! An id says nothing about where the node is or what it is called.
//! It is proven only by a signature ([`NodeId::verify`]); holding an id proves nothing.
//!
//! An id read from text or from the wire is a canonical point that is not of low order,
//! see [`NodeId::from_bytes`]; one read back from this node's own store is taken as it was
//! written, and [`NodeId::verify`] checks the point again.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use ed25519_dalek::{Signature, VerifyingKey};

use crate::purpose::Purpose;
use crate::secret::joined;
use crate::ticket::Ticket;
use crate::word::{self, WordError};

/// A node's Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// What a node id's text begins with, before the `1`.
    pub const PREFIX: &'static str = "phn";

    /// Accepts the bytes if they are a key that only its owner can sign for.
    ///
    /// # Errors
    /// [`NodeIdError::NotAKey`] for what is no canonical point of the curve,
    /// [`NodeIdError::Weak`] for a point of low order, under which anybody can sign.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, NodeIdError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| NodeIdError::NotAKey)?;
        // The decoder reduces y modulo p, so a few points have a second spelling. Two ids for
        // one key would be two peers for one node.
        if key.to_edwards().compress().to_bytes() != bytes {
            return Err(NodeIdError::NotAKey);
        }
        if key.is_weak() {
            return Err(NodeIdError::Weak);
        }
        Ok(Self(bytes))
    }

    /// The public key's 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 10 characters after `phn1`: enough to tell nodes apart by eye, not to trust.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()
            .chars()
            .skip(Self::PREFIX.len() + 1)
            .take(10)
            .collect()
    }

    /// Whether this node signed these parts for this purpose.
    ///
    /// # Errors
    /// [`BadSignature`] if it did not; there is nothing more to know.
    pub fn verify(
        &self,
        purpose: Purpose,
        parts: &[&[u8]],
        signature: &[u8; 64],
    ) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        key.verify_strict(
            &joined(purpose.label(), parts),
            &Signature::from_bytes(signature),
        )
        .map_err(|_| BadSignature)
    }

    /// For a key that was just computed from its private half.
    pub(crate) const fn of_own_key(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = word::encode(Self::PREFIX, &self.0).map_err(|_| fmt::Error)?;
        f.pad(&word)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        if word::has_prefix(Ticket::PREFIX, text) {
            return Err(NodeIdError::Ticket);
        }
        let bytes = word::decode(Self::PREFIX, text)?;
        let count = bytes.len();
        Self::from_bytes(
            bytes
                .try_into()
                .map_err(|_| NodeIdError::Length { bytes: count })?,
        )
    }
}

/// Why something is not a node id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeIdError {
    /// The text is not such a word.
    #[error("not a node id: {0}")]
    Word(#[from] WordError),
    /// A ticket was given in its place; it is a secret, so be careful where it goes.
    #[error("that is a ticket; a node id begins with `{}1`", NodeId::PREFIX)]
    Ticket,
    /// The word is whole but of another length.
    #[error("not a node id: it holds {bytes} bytes instead of 32")]
    Length {
        /// How many bytes it holds.
        bytes: usize,
    },
    /// No point of the curve, or not written the one way it is written.
    #[error("not a node id: its 32 bytes are no Ed25519 public key")]
    NotAKey,
    /// A point of low order.
    #[error("not a node id: the key is weak, anybody could sign for it")]
    Weak,
}

/// A signature is not by this key, or not over these bytes, or not for this purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKey;

    fn id() -> NodeId {
        IdentityKey::from_seed(&[1; 32]).id()
    }

    #[test]
    fn text_round_trips_in_both_cases() {
        let text = id().to_string();
        assert!(text.starts_with("phn1"));
        assert_eq!(text.len(), 3 + 1 + 52 + 6);
        assert_eq!(text.parse(), Ok(id()));
        assert_eq!(text.to_ascii_uppercase().parse(), Ok(id()));
        assert_eq!(id().short(), text[4..14]);
    }

    #[test]
    fn every_single_wrong_character_is_noticed() {
        let text = id().to_string();
        for at in 4..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'q' { b'p' } else { b'q' };
            let typed = String::from_utf8(typed).expect("ASCII");
            assert_eq!(
                typed.parse::<NodeId>(),
                Err(NodeIdError::Word(WordError::Checksum)),
                "character {at}"
            );
        }
    }

    #[test]
    fn other_words_are_named_for_what_is_wrong() {
        let text = id().to_string();
        let mixed = format!("phn1{}", text[4..].replacen(char::is_alphabetic, "Q", 1));
        let cases = [
            (String::new(), WordError::Prefix { expected: "phn" }),
            (String::from("phn"), WordError::Prefix { expected: "phn" }),
            (
                text.replacen("phn", "pho", 1),
                WordError::Prefix { expected: "phn" },
            ),
            (mixed, WordError::MixedCase),
            (format!("{text}b"), WordError::Character('b')),
            (
                format!("phn1{}", "q".repeat(1_020)),
                WordError::TooLong { chars: 1_024 },
            ),
        ];
        let ticket = text.replacen("phn", "pht", 1);
        assert_eq!(ticket.parse::<NodeId>(), Err(NodeIdError::Ticket));
        for (text, error) in cases {
            assert_eq!(
                text.parse::<NodeId>(),
                Err(NodeIdError::Word(error)),
                "{text}"
            );
        }
        let short = word::encode("phn", &[1; 31]).expect("31 bytes fit");
        assert_eq!(
            short.parse::<NodeId>(),
            Err(NodeIdError::Length { bytes: 31 })
        );
    }

    #[test]
    fn weak_keys_and_second_spellings_are_refused() {
        // The neutral point; a point of order 8 (RFC 8032 curve, from libsodium's blocklist).
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(NodeId::from_bytes(neutral), Err(NodeIdError::Weak));
        assert_eq!(NodeId::from_bytes([0; 32]), Err(NodeIdError::Weak));
        let order_8 = [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ];
        assert_eq!(NodeId::from_bytes(order_8), Err(NodeIdError::Weak));
        // p + y spells the point with that y a second time; some of these y are on the curve.
        let mut on_curve = 0;
        for y in 2..19 {
            let mut first = [0; 32];
            first[0] = y;
            on_curve += u32::from(NodeId::from_bytes(first).is_ok());
            let mut second = [0xff; 32];
            second[0] = 0xed + y;
            second[31] = 0x7f;
            assert_eq!(NodeId::from_bytes(second), Err(NodeIdError::NotAKey), "{y}");
        }
        assert!(on_curve > 4);
    }

    #[test]
    fn debug_shows_the_short_form() {
        assert_eq!(format!("{:?}", id()), format!("NodeId({})", id().short()));
    }
}
