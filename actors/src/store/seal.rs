//! Sealing and opening of values, and the keyed hashes that stand in for text in keys.
//!
//! A value on disk is: format u8 ‖ boot u32 ‖ counter u64 ‖ ciphertext ‖ tag 16 (AES-256-GCM).
//! The key is derived per boot and table from a salt that is drawn at every open, the nonce is the
//! counter, and the associated data is the record's key, whose first byte is its table. So no
//! nonce repeats under a key even when an old copy of the folder is put back, and a value that was
//! moved does not open.
//! Nothing here decides what happens to a value that does not open.
//!
//! Read [`Vault::seal`] and [`Vault::open`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use zeroize::Zeroizing;

use super::error::EngineError;
use super::keys::Key;

/// First byte of every sealed value.
const SEALED_FORMAT: u8 = 1;
/// format 1 + boot 4 + counter 8.
const HEAD_BYTES: usize = 13;
const TAG_BYTES: usize = 16;
/// What sealing adds to a value.
pub(crate) const SEAL_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// What one open of the store draws.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BootRecord {
    pub(crate) salt: [u8; 32],
    pub(crate) nonce: u64,
}

impl fmt::Debug for BootRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootRecord")
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}

/// Bytes of a boot record on disk: salt 32 ‖ nonce 8 ‖ MAC 16.
const BOOT_RECORD_BYTES: usize = 56;

/// A value was not sealed by this store under this key, or was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotOpened;

/// Table numbers are below this; the keys of the present boot lie in an array of as many.
const TABLES_MAX: usize = 64;
/// Derived keys kept for earlier boots: about 600 bytes each, so 600 KiB.
const EARLIER_KEYS_MAX: usize = 1_024;

/// Holds the store secret's derivatives and seals under the present boot.
pub(crate) struct Vault {
    secret: hkdf::Prk,
    store_secret: Zeroizing<[u8; 32]>,
    index_key: hmac::Key,
    boot_key: hmac::Key,
    boot: u32,
    counter: AtomicU64,
    present: [OnceLock<LessSafeKey>; TABLES_MAX],
    salts: RwLock<HashMap<u32, [u8; 32]>>,
    earlier: RwLock<HashMap<(u32, u8), Arc<LessSafeKey>>>,
}

impl Vault {
    /// A vault that can open nothing and seal nothing until it has a boot.
    pub(crate) fn new(store_secret: &[u8; 32]) -> Self {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(store_secret);
        let index_key = hmac::Key::new(
            hmac::HMAC_SHA256,
            &*expand(&secret, &[b"packhorse index 1"]),
        );
        let boot_key = hmac::Key::new(
            hmac::HMAC_SHA256,
            &*expand(&secret, &[b"packhorse boots 1"]),
        );
        Self {
            secret,
            store_secret: Zeroizing::new(*store_secret),
            index_key,
            boot_key,
            boot: 0,
            counter: AtomicU64::new(0),
            present: [const { OnceLock::new() }; TABLES_MAX],
            salts: RwLock::default(),
            earlier: RwLock::default(),
        }
    }

    /// From now on seals under `boot`, whose record must be durable before the first value is.
    pub(crate) fn begin(&mut self, boot: u32, record: &BootRecord) {
        self.boot = boot;
        self.counter = AtomicU64::new(0);
        self.present = [const { OnceLock::new() }; TABLES_MAX];
        self.learn(boot, record.salt);
    }

    /// Remembers the salt of an earlier boot.
    pub(crate) fn learn(&self, boot: u32, salt: [u8; 32]) {
        self.salts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(boot, salt);
    }

    /// Whether values of this boot can be opened.
    pub(crate) fn knows(&self, boot: u32) -> bool {
        self.salts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&boot)
    }

    /// Says which store secret this is, without saying what it is.
    pub(crate) fn fingerprint(&self) -> [u8; 16] {
        first_16(&*expand(&self.secret, &[b"packhorse fingerprint 1"]))
    }

    /// A boot record as it lies on disk.
    pub(crate) fn boot_record_bytes(&self, boot: u32, record: &BootRecord) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BOOT_RECORD_BYTES);
        bytes.extend_from_slice(&record.salt);
        bytes.extend_from_slice(&record.nonce.to_be_bytes());
        let mac = self.boot_mac(boot, &bytes);
        bytes.extend_from_slice(&mac);
        bytes
    }

    /// Reads a boot record back; a changed one is not opened.
    pub(crate) fn boot_record(&self, boot: u32, bytes: &[u8]) -> Result<BootRecord, NotOpened> {
        let bytes: &[u8; BOOT_RECORD_BYTES] = bytes.try_into().map_err(|_| NotOpened)?;
        let (body, mac) = bytes.split_at(40);
        // Who can write the disk is outside of what this protects; damage is what it finds.
        if self.boot_mac(boot, body) != mac {
            return Err(NotOpened);
        }
        let salt = body.first_chunk::<32>().copied().ok_or(NotOpened)?;
        let nonce = body.last_chunk::<8>().copied().ok_or(NotOpened)?;
        Ok(BootRecord {
            salt,
            nonce: u64::from_be_bytes(nonce),
        })
    }

    fn boot_mac(&self, boot: u32, body: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.boot_key);
        context.update(&boot.to_be_bytes());
        context.update(body);
        first_16(context.sign().as_ref())
    }

    /// What a key of the database carries instead of text: nobody without the secret can tell
    /// which text it was. `kind` keeps hashes of different tables apart.
    pub(crate) fn index_hash(&self, kind: &[u8], parts: &[&[u8]]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.index_key);
        context.update(kind);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        first_16(context.sign().as_ref())
    }

    /// Appends the sealed form of `plain` to `out`.
    pub(crate) fn seal(&self, key: &Key, plain: &[u8], out: &mut Vec<u8>) {
        let table = key.as_bytes()[0];
        let sealing = self.present_key(table).expect("the vault has begun a boot");
        // ORDER: taken before the bytes exist anywhere, never given back, also not after a failed
        // commit: a nonce is used once.
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        out.push(SEALED_FORMAT);
        out.extend_from_slice(&self.boot.to_be_bytes());
        out.extend_from_slice(&counter.to_be_bytes());
        let from = out.len();
        out.extend_from_slice(plain);
        let body = &mut out[from..];
        let tag = sealing
            .seal_in_place_separate_tag(nonce(counter), Aad::from(key.as_bytes()), body)
            .expect("AES-GCM seals everything up to 64 GiB");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens a value. The salt of its boot must be known; see [`sealed_boot`].
    pub(crate) fn open(&self, key: &Key, value: &[u8]) -> Result<Vec<u8>, NotOpened> {
        let (head, body) = value.split_first_chunk::<HEAD_BYTES>().ok_or(NotOpened)?;
        let [format, b0, b1, b2, b3, count @ ..] = *head;
        if format != SEALED_FORMAT {
            return Err(NotOpened);
        }
        let boot = u32::from_be_bytes([b0, b1, b2, b3]);
        let table = key.as_bytes()[0];
        let earlier;
        let opening = if boot == self.boot {
            self.present_key(table).ok_or(NotOpened)?
        } else {
            earlier = self.earlier_key(boot, table).ok_or(NotOpened)?;
            &*earlier
        };
        let mut body = body.to_vec();
        let length = opening
            .open_in_place(
                nonce(u64::from_be_bytes(count)),
                Aad::from(key.as_bytes()),
                &mut body,
            )
            .map_err(|_| NotOpened)?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn present_key(&self, table: u8) -> Option<&LessSafeKey> {
        let slot = self.present.get(usize::from(table))?;
        if let Some(key) = slot.get() {
            return Some(key);
        }
        let derived = self.derive(self.boot, table)?;
        Some(slot.get_or_init(|| derived))
    }

    fn earlier_key(&self, boot: u32, table: u8) -> Option<Arc<LessSafeKey>> {
        let known = self.earlier.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = known.get(&(boot, table)) {
            return Some(key.clone());
        }
        drop(known);
        let key = Arc::new(self.derive(boot, table)?);
        let mut known = self.earlier.write().unwrap_or_else(PoisonError::into_inner);
        // Rows of many boots are read one boot after the other: starting over costs little.
        if known.len() >= EARLIER_KEYS_MAX {
            known.clear();
        }
        known.insert((boot, table), key.clone());
        Some(key)
    }

    fn derive(&self, boot: u32, table: u8) -> Option<LessSafeKey> {
        let salts = self.salts.read().unwrap_or_else(PoisonError::into_inner);
        let salt = *salts.get(&boot)?;
        drop(salts);
        let salted = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(&*self.store_secret);
        let bytes = expand(&salted, &[b"packhorse store 1 ", &[table]]);
        let unbound = UnboundKey::new(&AES_256_GCM, &*bytes).expect("the key has 32 bytes");
        Some(LessSafeKey::new(unbound))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("boot", &self.boot)
            .finish_non_exhaustive()
    }
}

/// The boot under which a value says it was sealed.
pub(crate) fn sealed_boot(value: &[u8]) -> Option<u32> {
    let boot = value.get(1..5)?.first_chunk::<4>()?;
    (value.first() == Some(&SEALED_FORMAT)).then(|| u32::from_be_bytes(*boot))
}

/// Opens a value, reading the salt of its boot first where that is not known yet.
pub(crate) fn open_value(
    vault: &Vault,
    key: &Key,
    value: &[u8],
    boot_record: impl FnOnce(u32) -> Result<Option<bytes::Bytes>, EngineError>,
) -> Result<Result<Vec<u8>, NotOpened>, EngineError> {
    let Some(boot) = sealed_boot(value) else {
        return Ok(Err(NotOpened));
    };
    if !vault.knows(boot) {
        let Some(bytes) = boot_record(boot)? else {
            return Ok(Err(NotOpened));
        };
        match vault.boot_record(boot, &bytes) {
            Ok(record) => vault.learn(boot, record.salt),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(vault.open(key, value))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn first_16(bytes: &[u8]) -> [u8; 16] {
    bytes
        .first_chunk::<16>()
        .copied()
        .expect("hashes have 32 bytes")
}

fn expand(secret: &hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    secret
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *bytes))
        .expect("32 bytes is one block of SHA-256");
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn vault() -> Vault {
        let mut vault = Vault::new(&[7; 32]);
        vault.begin(
            3,
            &BootRecord {
                salt: [9; 32],
                nonce: 1,
            },
        );
        vault
    }

    fn sealed(vault: &Vault, key: &Key) -> Vec<u8> {
        let mut out = Vec::new();
        vault.seal(key, b"load", &mut out);
        out
    }

    #[test]
    fn a_value_opens_only_under_its_own_key() {
        let vault = vault();
        let value = sealed(&vault, &Key::inbox(1));
        assert_eq!(value.len(), 4 + SEAL_BYTES);
        assert_eq!(vault.open(&Key::inbox(1), &value).unwrap(), b"load");
        assert_eq!(vault.open(&Key::inbox(2), &value), Err(NotOpened));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let vault = vault();
        let value = sealed(&vault, &Key::inbox(1));
        for bit in 0..value.len() * 8 {
            let mut changed = value.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                vault.open(&Key::inbox(1), &changed),
                Err(NotOpened),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn one_nonce_is_never_used_twice_by_one_boot() {
        let vault = vault();
        assert_ne!(
            sealed(&vault, &Key::inbox(1)),
            sealed(&vault, &Key::inbox(1))
        );
    }

    #[test]
    fn a_boot_with_another_salt_has_other_keys() {
        let old = vault();
        let value = sealed(&old, &Key::inbox(1));
        let mut new = Vault::new(&[7; 32]);
        new.begin(
            3,
            &BootRecord {
                salt: [8; 32],
                nonce: 1,
            },
        );
        assert_eq!(new.open(&Key::inbox(1), &value), Err(NotOpened));
    }

    #[test]
    fn a_changed_boot_record_is_not_believed() {
        let vault = vault();
        let record = BootRecord {
            salt: [1; 32],
            nonce: 5,
        };
        let mut bytes = vault.boot_record_bytes(4, &record);
        assert_eq!(vault.boot_record(4, &bytes), Ok(record));
        assert_eq!(vault.boot_record(5, &bytes), Err(NotOpened));
        bytes[0] ^= 1;
        assert_eq!(vault.boot_record(4, &bytes), Err(NotOpened));
    }
}
