//! Hello: the dialler's keys, in clear, behind a knock.
//!
//! ```text
//!    0  9      magic, `packhorse`
//!    9  u16    lowest version
//!   11  u16    highest version
//!   13  32     nonce
//!   45  1,184  ML-KEM-768 encapsulation key
//! 1229  32     X25519 public key
//! 1261  16     knock
//! 1277
//! ```
//!
//! Magic, versions, length and the knock's place are the same in all versions; what lies between
//! versions and knock belongs to the version. Nothing in Hello may be believed: the knock says
//! only that the sender knows whom it dials, the rest only goes into T1.

use ml_kem::array::Array;
use ml_kem::{DecapsulationKey, EncapsulationKey, KeyExport, MlKem768};

use super::fields::Reader;
use super::schedule::{self, Place};
use crate::limits::{VERSION_HIGHEST, VERSION_LOWEST};
use crate::node_id::NodeId;

/// The length of Hello.
pub const HELLO_BYTES: usize = KNOCK_AT + 16;

pub(super) const KEM_KEY_BYTES: usize = 1_184;
const MAGIC: [u8; 9] = *b"packhorse";
const KNOCK_AT: usize = 9 + 2 + 2 + 32 + KEM_KEY_BYTES + 32;

const _: () = assert!(HELLO_BYTES == 1_277);

/// Hello as the dialler writes it.
pub(super) fn write(
    responder: NodeId,
    place: &Place,
    nonce: &[u8; 32],
    kem_key: &DecapsulationKey<MlKem768>,
    x25519_public: &[u8; 32],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(HELLO_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION_LOWEST.to_be_bytes());
    out.extend_from_slice(&VERSION_HIGHEST.to_be_bytes());
    out.extend_from_slice(nonce);
    out.extend_from_slice(kem_key.encapsulation_key().to_bytes().as_slice());
    out.extend_from_slice(x25519_public);
    let knock = schedule::knock(responder, place, &out);
    out.extend_from_slice(&knock);
    debug_assert_eq!(out.len(), HELLO_BYTES);
    out
}

/// A Hello whose sender knows this node's id.
pub(super) struct Knocked<'a> {
    pub(super) lowest: u16,
    pub(super) highest: u16,
    body: &'a [u8],
}

impl<'a> Knocked<'a> {
    /// Checks length, magic and knock, in this order; nothing dearer than one BLAKE3 of 1.3 KiB.
    pub(super) fn read(own: NodeId, place: &Place, hello: &'a [u8]) -> Option<Self> {
        let hello: &[u8; HELLO_BYTES] = hello.try_into().ok()?;
        let (before, knock) = hello.split_last_chunk::<16>()?;
        let mut reader = Reader::new("hello", before);
        let magic: [u8; 9] = reader.array("magic").ok()?;
        if magic != MAGIC || !schedule::knock_matches(knock, &schedule::knock(own, place, before)) {
            return None;
        }
        let lowest = reader.u16("lowest version").ok()?;
        let highest = reader.u16("highest version").ok()?;
        let body = reader.slice("body", 32 + KEM_KEY_BYTES + 32).ok()?;
        (lowest <= highest).then_some(Self {
            lowest,
            highest,
            body,
        })
    }

    /// The highest version that both sides speak.
    pub(super) fn common_version(&self) -> Option<u16> {
        let highest = self.highest.min(VERSION_HIGHEST);
        (highest >= self.lowest.max(VERSION_LOWEST)).then_some(highest)
    }

    /// The body as version 1 lays it out, with the check of FIPS 203, section 7.2.
    pub(super) fn keys(&self) -> Option<HelloKeys> {
        let mut reader = Reader::new("hello", self.body);
        reader.slice("nonce", 32).ok()?;
        let kem_key = reader.slice("kem key", KEM_KEY_BYTES).ok()?;
        let x25519_public = reader.array("x25519 key").ok()?;
        let kem_key = EncapsulationKey::new(&Array::try_from(kem_key).ok()?).ok()?;
        Some(HelloKeys {
            kem_key,
            x25519_public,
        })
    }
}

/// The dialler's ephemeral keys.
pub(super) struct HelloKeys {
    pub(super) kem_key: EncapsulationKey<MlKem768>,
    pub(super) x25519_public: [u8; 32],
}
