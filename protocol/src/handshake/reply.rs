//! Reply: the responder's keys in clear, and under seal who it is.
//!
//! ```text
//!    0  u8     1
//!    1  u16    version, the highest that both speak
//!    3  32     nonce
//!   35  1,088  ML-KEM-768 ciphertext
//! 1123  32     X25519 public key
//! 1155  120    sealed:   0  32   responder's node id
//!                       32  u64  features, unknown bits are ignored
//!                       40  64   signature: packhorse 1 responder ‖ T1 ‖ responder id
//!                      104
//! 1275
//! ```
//!
//! The answer to Hello begins with one byte that says what follows: 1 this, 2 the version
//! answer (`2`, lowest u16, highest u16), which nobody has signed and which only explains.
//! The clear part goes into T1; nothing of it may be believed before the signature is verified.

use super::HandshakeError;
use super::fields::Reader;
use super::schedule::TAG_BYTES;
use crate::limits::{VERSION_HIGHEST, VERSION_LOWEST};
use crate::node_id::NodeId;

/// The length of Reply.
pub const REPLY_BYTES: usize = CLEAR_REPLY_BYTES + PLAIN_REPLY_BYTES + TAG_BYTES;
/// The length of the version answer.
pub const NO_COMMON_VERSION_BYTES: usize = 5;

pub(super) const CLEAR_REPLY_BYTES: usize = 1 + 2 + 32 + KEM_CIPHERTEXT_BYTES + 32;
pub(super) const KEM_CIPHERTEXT_BYTES: usize = 1_088;
const PLAIN_REPLY_BYTES: usize = 32 + 8 + 64;
const REPLY: u8 = 1;
const NO_COMMON_VERSION: u8 = 2;

const _: () = assert!(REPLY_BYTES == 1_275);

/// How long the whole answer to Hello is that begins with this byte; none if nothing does.
#[must_use]
pub const fn answer_bytes(first: u8) -> Option<usize> {
    match first {
        REPLY => Some(REPLY_BYTES),
        NO_COMMON_VERSION => Some(NO_COMMON_VERSION_BYTES),
        _ => None,
    }
}

/// The version answer.
pub(super) fn write_no_common_version() -> Vec<u8> {
    let mut out = vec![NO_COMMON_VERSION];
    out.extend_from_slice(&VERSION_LOWEST.to_be_bytes());
    out.extend_from_slice(&VERSION_HIGHEST.to_be_bytes());
    out
}

/// The clear part of Reply, with room for the rest.
pub(super) fn write_clear(
    version: u16,
    nonce: &[u8; 32],
    kem_ciphertext: &[u8],
    x25519_public: &[u8; 32],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(REPLY_BYTES);
    out.push(REPLY);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(nonce);
    out.extend_from_slice(kem_ciphertext);
    out.extend_from_slice(x25519_public);
    debug_assert_eq!(out.len(), CLEAR_REPLY_BYTES);
    out
}

/// The sealed part of Reply, before it is sealed.
pub(super) fn write_plain(responder: NodeId, signature: &[u8; 64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PLAIN_REPLY_BYTES + TAG_BYTES);
    out.extend_from_slice(responder.as_bytes());
    out.extend_from_slice(&super::proof::FEATURES.to_be_bytes());
    out.extend_from_slice(signature);
    debug_assert_eq!(out.len(), PLAIN_REPLY_BYTES);
    out
}

/// Reply, cut into its parts.
pub(super) struct ReplyParts<'a> {
    pub(super) clear: &'a [u8],
    pub(super) kem_ciphertext: &'a [u8],
    pub(super) x25519_public: [u8; 32],
    pub(super) sealed: &'a [u8],
}

impl<'a> ReplyParts<'a> {
    /// Reads an answer to Hello.
    pub(super) fn read(answer: &'a [u8]) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new("reply", answer);
        let kind = reader.u8("kind")?;
        let expected = answer_bytes(kind).ok_or(HandshakeError::UnknownAnswer(kind))?;
        if answer.len() != expected {
            let bytes = answer.len();
            return Err(HandshakeError::Length {
                message: "reply",
                bytes,
                expected,
            });
        }
        if kind == NO_COMMON_VERSION {
            let (lowest, highest) = (reader.u16("lowest")?, reader.u16("highest")?);
            return Err(HandshakeError::NoCommonVersion { lowest, highest });
        }
        let version = reader.u16("version")?;
        if !(VERSION_LOWEST..=VERSION_HIGHEST).contains(&version) {
            return Err(HandshakeError::Version(version));
        }
        reader.slice("nonce", 32)?;
        let kem_ciphertext = reader.slice("kem ciphertext", KEM_CIPHERTEXT_BYTES)?;
        let x25519_public = reader.array("x25519 key")?;
        let (clear, sealed) = answer
            .split_at_checked(CLEAR_REPLY_BYTES)
            .ok_or_else(|| reader.malformed("sealed"))?;
        Ok(Self {
            clear,
            kem_ciphertext,
            x25519_public,
            sealed,
        })
    }
}

/// What the sealed part says. Not to be believed before the signature is verified.
pub(super) struct PlainReply {
    pub(super) responder: [u8; 32],
    pub(super) signature: [u8; 64],
}

impl PlainReply {
    pub(super) fn read(plaintext: &[u8]) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new("reply", plaintext);
        let responder = reader.array("responder id")?;
        reader.u64("features")?;
        Ok(Self {
            responder,
            signature: reader.array("signature")?,
        })
    }
}
