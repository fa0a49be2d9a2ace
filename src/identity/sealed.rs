//! An identity file that a passphrase seals: format 2.
//!
//! ```text
//! packhorse identity 2
//! node phn1…                        in clear, so that `id` needs no passphrase
//! argon2id 65536 3 1                KiB of memory, passes, lanes
//! salt <32 hex digits>
//! sealed <184 hex digits>           nonce 12 ‖ seed 32 and store secret 32 under AES-256-GCM ‖ tag 16
//! sum <32 hex digits>               first half of SHA-256 over the lines before
//! ```
//!
//! The key is argon2id of the passphrase; the first four lines are authenticated with the secrets.
//! The sum protects nothing: it tells a damaged file from a wrong passphrase.

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use zeroize::{Zeroize, Zeroizing};

use super::{Identity, draw_random};
use crate::NodeId;
use crate::identity::error::IdentityError;
use crate::identity::passphrase::Passphrase;

pub(super) const HEAD: &str = "packhorse identity 2";

const SALT_BYTES: usize = 16;
const SUM_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const SEALED_BYTES: usize = NONCE_LEN + 64 + TAG_BYTES;

/// RFC 9106, section 4, second recommended option, but with one lane: this program would run four
/// of them one after the other, so they would cost its owner the same and a guesser with more
/// processors less. The 64 MiB are given back before the store opens; a machine with less than
/// that to spare cannot carry a node's own limits either.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
const LANES: u32 = 1;

/// What a file may ask for: four times as much of each as is written now. A damaged or planted
/// file must not take the machine's memory before anybody has proved anything.
const MEMORY_KIB_MAX: u32 = 4 * MEMORY_KIB;
const PASSES_MAX: u32 = 4 * PASSES;
const LANES_MAX: u32 = 4 * LANES;

/// A sealed identity as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) node: NodeId,
    cost: Cost,
    salt: [u8; SALT_BYTES],
    sealed: [u8; SEALED_BYTES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Sealed {
    pub(super) fn seal(
        identity: &Identity,
        passphrase: &Passphrase,
    ) -> Result<Sealed, IdentityError> {
        let mut random = [0; 32];
        draw_random(&mut random)?;
        let mut salt = [0; SALT_BYTES];
        let mut nonce = [0; NONCE_LEN];
        salt.copy_from_slice(&random[..SALT_BYTES]);
        nonce.copy_from_slice(&random[SALT_BYTES..SALT_BYTES + NONCE_LEN]);
        let mut sealed = Sealed {
            node: identity.id(),
            cost: Cost {
                memory_kib: MEMORY_KIB,
                passes: PASSES,
                lanes: LANES,
            },
            salt,
            sealed: [0; SEALED_BYTES],
        };
        let key = sealed.key(passphrase)?;
        let mut secrets = Zeroizing::new([0; 64]);
        secrets[..32].copy_from_slice(&identity.seed[..]);
        secrets[32..].copy_from_slice(&identity.store_secret[..]);
        let aad = Aad::from(sealed.clear_lines());
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut secrets[..])
            .map_err(|_| IdentityError::NoKey("it does not seal".to_owned()))?;
        sealed.sealed[..NONCE_LEN].copy_from_slice(&nonce);
        sealed.sealed[NONCE_LEN..NONCE_LEN + 64].copy_from_slice(&secrets[..]);
        sealed.sealed[NONCE_LEN + 64..].copy_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The identity, or `None` when this is not its passphrase.
    pub(super) fn open(&self, passphrase: &Passphrase) -> Result<Option<Identity>, IdentityError> {
        let key = self.key(passphrase)?;
        let (nonce, ciphertext) = self.sealed.split_at(NONCE_LEN);
        let mut nonce_bytes = [0; NONCE_LEN];
        nonce_bytes.copy_from_slice(nonce);
        let mut secrets = Zeroizing::new(ciphertext.to_vec());
        let nonce = Nonce::assume_unique_for_key(nonce_bytes);
        let aad = Aad::from(self.clear_lines());
        let Ok(plain) = key.open_in_place(nonce, aad, &mut secrets) else {
            return Ok(None);
        };
        let mut identity = Identity {
            seed: Zeroizing::new([0; 32]),
            store_secret: Zeroizing::new([0; 32]),
        };
        identity.seed.copy_from_slice(&plain[..32]);
        identity.store_secret.copy_from_slice(&plain[32..]);
        Ok((identity.id() == self.node).then_some(identity))
    }

    fn key(&self, passphrase: &Passphrase) -> Result<LessSafeKey, IdentityError> {
        let failed = |error: argon2::Error| IdentityError::NoKey(error.to_string());
        let Cost {
            memory_kib,
            passes,
            lanes,
        } = self.cost;
        let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(failed)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &self.salt, &mut key[..])
            .map_err(failed)?;
        let key = UnboundKey::new(&AES_256_GCM, &key[..])
            .map_err(|_| IdentityError::NoKey("it has a wrong length".to_owned()))?;
        Ok(LessSafeKey::new(key))
    }

    /// What is authenticated beside the secrets.
    fn clear_lines(&self) -> String {
        let Cost {
            memory_kib,
            passes,
            lanes,
        } = self.cost;
        let salt = HEXLOWER.encode(&self.salt);
        let node = self.node;
        format!("{HEAD}\nnode {node}\nargon2id {memory_kib} {passes} {lanes}\nsalt {salt}\n")
    }

    pub(super) fn to_text(&self) -> String {
        let sealed = HEXLOWER.encode(&self.sealed);
        let mut text = format!("{}sealed {sealed}\n", self.clear_lines());
        let sum = sum(&text);
        text.push_str(&sum);
        text
    }

    /// `None` for what is damaged.
    pub(super) fn from_text(path: &Path, text: &str) -> Result<Option<Sealed>, IdentityError> {
        let Some(sealed) = parse(text) else {
            return Ok(None);
        };
        for (what, value, limit) in [
            ("KiB of memory", sealed.cost.memory_kib, MEMORY_KIB_MAX),
            ("passes", sealed.cost.passes, PASSES_MAX),
            ("lanes", sealed.cost.lanes, LANES_MAX),
        ] {
            if value > limit {
                return Err(IdentityError::TooCostly {
                    path: path.to_owned(),
                    what,
                    value,
                    limit,
                });
            }
        }
        Ok(Some(sealed))
    }
}

fn parse(text: &str) -> Option<Sealed> {
    let mut lines = text.lines();
    if lines.next()? != HEAD {
        return None;
    }
    let node = lines.next()?.strip_prefix("node ")?.parse().ok()?;
    let mut cost = lines.next()?.strip_prefix("argon2id ")?.split(' ');
    let cost = Cost {
        memory_kib: cost.next()?.parse().ok()?,
        passes: cost.next()?.parse().ok()?,
        lanes: cost.next()?.parse().ok()?,
    };
    let salt = bytes(lines.next()?.strip_prefix("salt ")?)?;
    let sealed = bytes(lines.next()?.strip_prefix("sealed ")?)?;
    let sealed = Sealed {
        node,
        cost,
        salt,
        sealed,
    };
    // Written again it has to be the same, sum and all: one comparison for whatever is left over.
    (sealed.to_text() == text).then_some(sealed)
}

fn sum(text: &str) -> String {
    let sum = digest(&SHA256, text.as_bytes());
    let (half, _) = sum.as_ref().split_at(SUM_BYTES);
    format!("sum {}\n", HEXLOWER.encode(half))
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
    let array = <[u8; N]>::try_from(bytes.as_slice()).ok();
    bytes.zeroize();
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text).expect("a passphrase")
    }

    #[test]
    fn an_identity_comes_back_with_its_passphrase_and_with_no_other() {
        let identity = Identity::draw().expect("randomness");
        let sealed = Sealed::seal(&identity, &passphrase("right")).expect("memory");
        let text = sealed.to_text();
        let path = Path::new("identity.key");
        let read = Sealed::from_text(path, &text).expect("within limits");
        let read = read.expect("its own text");
        assert_eq!(read.node, identity.id());
        let opened = read.open(&passphrase("right")).expect("memory");
        let opened = opened.expect("the right passphrase");
        assert_eq!(opened.store_secret(), identity.store_secret());
        assert_eq!(opened.id(), identity.id());
        assert!(read.open(&passphrase("wrong")).expect("memory").is_none());
    }

    #[test]
    fn any_changed_byte_is_damage_and_a_planted_cost_is_refused_before_it_is_paid() {
        let identity = Identity::draw().expect("randomness");
        let sealed = Sealed::seal(&identity, &passphrase("right")).expect("memory");
        let (path, text) = (Path::new("identity.key"), sealed.to_text());
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).expect("one bit keeps it text");
            let read = Sealed::from_text(path, &changed).expect("not taken for costly");
            assert_eq!(read, None, "at {at}");
        }
        let mut costly = sealed;
        costly.cost.memory_kib = MEMORY_KIB_MAX + 1;
        let error = Sealed::from_text(path, &costly.to_text()).expect_err("too costly");
        assert_eq!(error.exit(), Exit::Damaged);
        assert!(
            error.to_string().contains("262145 KiB of memory"),
            "{error}"
        );
        assert!(error.to_string().contains("limit is 262144"), "{error}");
    }
}
