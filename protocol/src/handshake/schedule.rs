//! The key schedule: what is hashed, what is derived from what, and in which order.
//!
//! ```text
//! T1  = BLAKE3(packhorse 1 T1 ‖ kind ‖ binding ‖ Hello ‖ clear Reply)
//! PRK = HKDF-Extract(salt T1, ML-KEM secret ‖ X25519 secret)
//! T2  = BLAKE3(packhorse 1 T2 ‖ T1 ‖ Reply ciphertext)
//! T3  = BLAKE3(packhorse 1 T3 ‖ T2 ‖ Proof ciphertext)
//! reply box   = HKDF-Expand(PRK, packhorse 1 reply)             associated data T1
//! proof box   = HKDF-Expand(PRK, packhorse 1 proof ‖ T2)        associated data T2
//! verdict box = HKDF-Expand(PRK, packhorse 1 verdict ‖ T3)      associated data T3
//! session     = HKDF-Expand(PRK, packhorse 1 session ‖ T3 ‖ BLAKE3(Verdict ciphertext))
//! ```
//!
//! Every label and every part stands behind its length as u32, in hashes as in derivations.
//! A box key is derived at the call that uses it, used once with nonce 0, and wiped there.
//! Nothing here knows what the messages mean.

use ring::aead::{Aad, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use super::{Established, LinkKind, SessionId, SessionSecret};
use crate::compare::compare_string;
use crate::node_id::NodeId;
use crate::secret::{Secret, joined};

const T1: &str = "packhorse 1 T1";
const T2: &str = "packhorse 1 T2";
const T3: &str = "packhorse 1 T3";
const REPLY: &str = "packhorse 1 reply";
const PROOF: &str = "packhorse 1 proof";
const VERDICT: &str = "packhorse 1 verdict";
const SESSION: &str = "packhorse 1 session";
/// What the pairing proof in Proof is a MAC of.
pub(super) const PAIRING: &str = "packhorse 1 pairing";
/// The knock's key. No version: a responder must understand the knock of every version.
const KNOCK: &str = "packhorse knock";

/// Bytes that sealing adds.
pub(super) const TAG_BYTES: usize = 16;

/// A transcript hash.
pub(super) type Transcript = [u8; 32];

/// Where a handshake runs; equal on both ends of one link, different on any other link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) kind: LinkKind,
    pub(super) binding: [u8; 32],
}

/// The first 16 bytes of a keyed BLAKE3 over everything in Hello before it, kind and binding.
pub(super) fn knock(responder: NodeId, place: &Place, before: &[u8]) -> [u8; 16] {
    let key = blake3::derive_key(KNOCK, responder.as_bytes());
    let input = joined(KNOCK, &[before, &[place.kind as u8], &place.binding]);
    let full = blake3::keyed_hash(&key, &input);
    let mut knock = [0; 16];
    knock.copy_from_slice(&full.as_bytes()[..16]);
    knock
}

/// Equality in constant time, by way of BLAKE3's hash type, which promises that.
pub(super) fn knock_matches(left: &[u8; 16], right: &[u8; 16]) -> bool {
    let widen = |knock: &[u8; 16]| {
        let mut wide = [0; 32];
        wide[..16].copy_from_slice(knock);
        blake3::Hash::from_bytes(wide)
    };
    widen(left) == widen(right)
}

/// T1: what was said in clear, and on which link.
pub(super) fn t1(place: &Place, hello: &[u8], clear_reply: &[u8]) -> Transcript {
    hash(
        T1,
        &[&[place.kind as u8], &place.binding, hello, clear_reply],
    )
}

/// T2: T1 and the responder's sealed part.
pub(super) fn t2(t1: &Transcript, reply_ciphertext: &[u8]) -> Transcript {
    hash(T2, &[t1, reply_ciphertext])
}

/// T3: T2 and the dialler's sealed part; its beginning names the session.
pub(super) fn t3(t2: &Transcript, proof_ciphertext: &[u8]) -> Transcript {
    hash(T3, &[t2, proof_ciphertext])
}

/// The session's name.
pub(super) fn session_id(t3: &Transcript) -> SessionId {
    let mut id = [0; 16];
    id.copy_from_slice(&t3[..16]);
    SessionId(id)
}

/// PRK, from which all keys of one handshake come.
#[derive(Debug)]
pub(super) struct Schedule {
    prk: Secret,
}

impl Schedule {
    pub(super) fn new(t1: &Transcript, kem_secret: &[u8; 32], x25519_secret: &[u8; 32]) -> Self {
        let mut input_key = Zeroizing::new([0; 64]);
        input_key[..32].copy_from_slice(kem_secret);
        input_key[32..].copy_from_slice(x25519_secret);
        Self {
            prk: Secret::extract(t1, &input_key[..]),
        }
    }

    pub(super) fn seal_reply(&self, t1: &Transcript, plaintext: Vec<u8>) -> Vec<u8> {
        seal(&self.prk.expand(REPLY, &[]), t1, plaintext)
    }

    pub(super) fn open_reply(&self, t1: &Transcript, sealed: &[u8]) -> Option<Opened> {
        open(&self.prk.expand(REPLY, &[]), t1, sealed)
    }

    pub(super) fn seal_proof(&self, t2: &Transcript, plaintext: Vec<u8>) -> Vec<u8> {
        seal(&self.prk.expand(PROOF, &[t2]), t2, plaintext)
    }

    pub(super) fn open_proof(&self, t2: &Transcript, sealed: &[u8]) -> Option<Opened> {
        open(&self.prk.expand(PROOF, &[t2]), t2, sealed)
    }

    pub(super) fn seal_verdict(&self, t3: &Transcript, plaintext: Vec<u8>) -> Vec<u8> {
        seal(&self.prk.expand(VERDICT, &[t3]), t3, plaintext)
    }

    pub(super) fn open_verdict(&self, t3: &Transcript, sealed: &[u8]) -> Option<Opened> {
        open(&self.prk.expand(VERDICT, &[t3]), t3, sealed)
    }

    /// The end of the handshake; PRK is wiped with `self`.
    pub(super) fn establish(
        self,
        t3: &Transcript,
        verdict: &[u8],
        responder: NodeId,
        dialler: NodeId,
    ) -> Established {
        let secret = self
            .prk
            .expand(SESSION, &[t3, blake3::hash(verdict).as_bytes()]);
        let compare = compare_string(&secret, responder, dialler);
        Established {
            session: session_id(t3),
            secret: SessionSecret(secret),
            compare,
        }
    }
}

/// A plaintext, wiped when dropped.
pub(super) type Opened = Zeroizing<Vec<u8>>;

fn hash(label: &str, parts: &[&[u8]]) -> Transcript {
    *blake3::hash(&joined(label, parts)).as_bytes()
}

/// Seals in place: the plaintext's memory becomes the ciphertext's.
fn seal(key: &Secret, associated: &Transcript, mut message: Vec<u8>) -> Vec<u8> {
    // Room for the tag was taken by the layouts; growing would leave a copy of the plaintext.
    debug_assert!(message.capacity() >= message.len() + TAG_BYTES);
    key.aead()
        .seal_in_place_append_tag(nonce(), Aad::from(associated), &mut message)
        .expect("AES-GCM seals whatever is shorter than 64 GiB");
    message
}

fn open(key: &Secret, associated: &Transcript, sealed: &[u8]) -> Option<Opened> {
    let mut message = Zeroizing::new(sealed.to_vec());
    let length = key
        .aead()
        .open_in_place(nonce(), Aad::from(associated), &mut message)
        .ok()?
        .len();
    message.truncate(length);
    Some(message)
}

/// Every key here seals exactly one message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
