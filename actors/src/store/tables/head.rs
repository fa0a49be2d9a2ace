//! The records that say what this store is: heads, boots, and single values.
//!
//! Heads and boots lie in clear, because they are read before there is a key to open anything.
//!
//! ```text
//! head (twice)   layout u8 = 1 ‖ format u16 ‖ fingerprint 16
//! boot           salt 32 ‖ nonce u64 ‖ MAC 16                       see seal.rs
//! commit         layout u8 = 1 ‖ number u64
//! node id        layout u8 = 1 ‖ id 32
//! boot floor     layout u8 = 1 ‖ boot u32
//! peer next      layout u8 = 1 ‖ number u32
//! ```

use packhorse_protocol::node_id::NodeId;

use crate::events::Fact;
use crate::store::error::Refused;
use crate::store::keys::{Key, Meta};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::peers::{self, PeerNumber};
use super::read;

/// The store format that this version writes.
pub(crate) const FORMAT: u16 = 1;

/// How far the words of peers may push our boot number up during one boot. Without this bound
/// false words would spend all four thousand million of them.
const BOOT_RAISE_MAX: u32 = 1 << 20;

/// A head record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) format: u16,
    pub(crate) fingerprint: [u8; 16],
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 18)
            .u16(self.format)
            .raw(&self.fingerprint)
            .done()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let head = Self {
            format: cursor.u16()?,
            fingerprint: cursor.array()?,
        };
        cursor.end()?;
        Ok(head)
    }
}

pub(crate) fn encode_u64(value: u64) -> Vec<u8> {
    Pen::new(1, 8).u64(value).done()
}

pub(crate) fn decode_u64(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    let value = cursor.u64()?;
    cursor.end()?;
    Ok(value)
}

pub(crate) fn encode_u32(value: u32) -> Vec<u8> {
    Pen::new(1, 4).u32(value).done()
}

pub(crate) fn decode_u32(bytes: &[u8]) -> Result<u32, Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    let value = cursor.u32()?;
    cursor.end()?;
    Ok(value)
}

/// The next boot numbers will be above `seen`, which a peer has seen of this node: this node runs
/// on an older copy of its store. Returns the floor that holds from now on.
///
/// The bound counts from the boot that runs, so that all words of one open together raise it by
/// that much: a bound above the present floor would rise with each of them.
pub(crate) fn raise_boot_floor(view: &mut View, seen: u32) -> Result<u32, Refused> {
    let key = Key::meta(Meta::BootFloor);
    let boot = view.epoch().boot;
    let present = read(view, &key, decode_u32)?.unwrap_or(0).max(boot);
    let floor = seen.min(boot.saturating_add(BOOT_RAISE_MAX)).max(present);
    if floor > present {
        view.put(key, encode_u32(floor));
    }
    Ok(floor)
}

/// The next free peer number.
pub(crate) fn next_peer(view: &mut View) -> Result<PeerNumber, Refused> {
    let key = Key::meta(Meta::PeerNext);
    let number = read(view, &key, decode_u32)?.unwrap_or(1);
    let next = number
        .checked_add(1)
        .ok_or(Refused::Exhausted("peer number"))?;
    view.put(key, encode_u32(next));
    Ok(PeerNumber(number))
}

/// Records whose node the store belongs to. Returns whether it was another one before.
pub(crate) fn claim(view: &mut View, id: &[u8; 32]) -> Result<bool, Refused> {
    let key = Key::meta(Meta::NodeId);
    let bytes = Pen::new(1, 32).raw(id).done();
    let before = view.get(&key)?;
    if before.as_deref() == Some(&bytes[..]) {
        return Ok(false);
    }
    view.put(key, bytes);
    let Some(before) = before else {
        return Ok(false);
    };
    tell_new_identity(view, id, &before)?;
    Ok(true)
}

/// Nobody knows the new identity: every peer has to be paired with again, and people should see why
/// none of them answers.
fn tell_new_identity(view: &mut View, id: &[u8; 32], before: &[u8]) -> Result<(), Refused> {
    let short = |bytes: &[u8; 32]| match NodeId::from_bytes(*bytes) {
        Ok(id) => id.short(),
        Err(_) => "an unknown one".to_owned(),
    };
    let old = before.last_chunk().map_or("an unknown one".into(), short);
    let text = format!("{} in the place of {old}", short(id));
    for peer in peers::all(view)? {
        let text = format!("this node has a new identity, {text}: pair with it again");
        peers::note_trouble(view, peer.number, &text)?;
    }
    view.fact(Fact::NewIdentity { text });
    Ok(())
}
