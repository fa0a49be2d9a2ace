//! A 32-byte secret and the two HKDF-SHA256 steps, shared by everything that derives keys.
//!
//! A secret lives on the heap, so moving it copies no key bytes, and is wiped when dropped.
//! It is never printed, compared, or handed out of this crate except where a caller must store it.
//!
//! Read [`joined`] first: every label and every part of every derivation, signature and MAC
//! of this protocol goes through it, so no two different inputs can ever give the same bytes.
//! ring does not wipe the key schedules it builds from a secret; they live as long as one call,
//! or as long as a stream.

use std::fmt;

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::{hkdf, hmac};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// 32 bytes of key material.
pub(crate) struct Secret(Box<[u8; 32]>);

impl Secret {
    /// Takes over a copy of the bytes; the caller wipes its own.
    pub(crate) fn copy_of(bytes: &[u8; 32]) -> Self {
        Self(Box::new(*bytes))
    }

    /// HKDF-Extract (RFC 5869, section 2.2), which is HMAC of the input key under the salt.
    pub(crate) fn extract(salt: &[u8], input_key: &[u8]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), input_key);
        let mut bytes = Box::new([0; 32]);
        bytes.copy_from_slice(tag.as_ref());
        Self(bytes)
    }

    /// HKDF-Expand (RFC 5869, section 2.3) to another secret.
    pub(crate) fn expand(&self, label: &str, parts: &[&[u8]]) -> Self {
        let mut bytes = Box::new([0; 32]);
        self.fill(label, parts, &mut bytes[..]);
        Self(bytes)
    }

    /// HKDF-Expand into `out`, which is at most 255 × 32 bytes.
    pub(crate) fn fill(&self, label: &str, parts: &[&[u8]], out: &mut [u8]) {
        let info = joined(label, parts);
        let length = Length(out.len());
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &self.0[..])
            .expand(&[&info], length)
            .and_then(|okm| okm.fill(out))
            .expect("every output of this protocol is far below 255 blocks");
    }

    /// HMAC-SHA256 under this secret.
    pub(crate) fn mac(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.mac_key(), &joined(label, parts)).as_ref());
        bytes
    }

    /// Whether `mac` is the one that [`Secret::mac`] gives, compared in constant time.
    pub(crate) fn mac_matches(&self, label: &str, parts: &[&[u8]], mac: &[u8; 32]) -> bool {
        hmac::verify(&self.mac_key(), &joined(label, parts), mac).is_ok()
    }

    /// This secret as an AES-256-GCM key.
    pub(crate) fn aead(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0[..]).expect("an AES-256 key is 32 bytes");
        LessSafeKey::new(key)
    }

    /// The bytes, for whoever must seal and keep them.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn mac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0[..])
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The label and the parts, each behind its length as a big-endian u32.
pub(crate) fn joined(label: &str, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length = 4 + label.len() + parts.iter().map(|part| 4 + part.len()).sum::<usize>();
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    push_part(&mut out, label.as_bytes());
    for part in parts {
        push_part(&mut out, part);
    }
    out
}

fn push_part(out: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).expect("no part of a derivation reaches 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(part);
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869, appendix A, test case 1: pins extract to the specification, not to itself.
    #[test]
    fn extract_is_the_one_of_rfc_5869() {
        let salt: Vec<u8> = (0..13).collect();
        let secret = Secret::extract(&salt, &[0x0b; 22]);
        assert_eq!(secret.bytes()[..4], [0x07, 0x77, 0x09, 0x36]);
        assert_eq!(secret.bytes()[28..], [0xd7, 0xc2, 0xb3, 0xe5]);
    }

    #[test]
    fn parts_that_run_together_differ() {
        let left = joined("label", &[b"ab", b"c"]);
        let right = joined("label", &[b"a", b"bc"]);
        assert_ne!(left, right);
        assert_ne!(joined("labela", &[b"b"]), joined("label", &[b"ab"]));
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        assert_eq!(format!("{:?}", Secret::copy_of(&[7; 32])), "Secret(..)");
    }
}
