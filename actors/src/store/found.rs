//! What lies in an engine that was just opened: nothing, a store of ours, or what is in the way.
//!
//! Reads only; whose store it is and whether it is whole is answered before anything is written.

use super::engine::{Snapshot, end_of};
use super::error::{EngineError, OpenError};
use super::keys::{Key, Meta, Space, Table};
use super::open::StoreConfig;
use super::quarantine::Quarantine;
use super::seal::{NotOpened, Vault};
use super::tables::head::{FORMAT, Head, decode_u64};
use super::view;

pub(super) fn is_empty(snapshot: &dyn Snapshot) -> Result<bool, OpenError> {
    for space in Space::ALL {
        if let Some(pair) = snapshot.scan(space, &[0], &[0xff; 32]).next() {
            pair.map_err(engine_failed)?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// A wrong key is told from damage, and neither is taken for a new store.
pub(super) fn check_heads(
    config: &StoreConfig,
    snapshot: &dyn Snapshot,
    vault: &Vault,
    quarantine: &Quarantine,
) -> Result<(), OpenError> {
    let mut heads = Vec::new();
    for copy in [1, 2] {
        let key = Key::head(copy);
        let bytes = snapshot
            .get(Space::Small, key.as_bytes())
            .map_err(engine_failed)?;
        let head = bytes.and_then(|bytes| Head::decode(&bytes).ok());
        heads.push((key, head));
    }
    if let Some(head) = heads
        .iter()
        .filter_map(|(_, head)| *head)
        .find(|head| head.format > FORMAT)
    {
        return Err(OpenError::TooNew {
            found: head.format,
            known: FORMAT,
        });
    }
    let ours = Head {
        format: FORMAT,
        fingerprint: vault.fingerprint(),
    };
    match heads.as_slice() {
        [(_, Some(a)), (_, Some(b))] if a == b && *a != ours => Err(OpenError::WrongKey {
            folder: config.folder.clone(),
        }),
        heads if heads.iter().any(|(_, head)| *head == Some(ours)) => {
            for (key, _) in heads.iter().filter(|(_, head)| *head != Some(ours)) {
                quarantine.note(key);
            }
            Ok(())
        }
        _ => Err(OpenError::Damaged {
            what: "neither copy of the store's head reads".into(),
        }),
    }
}

/// The highest boot number that was ever begun, whether or not its record reads.
pub(super) fn highest_boot(snapshot: &dyn Snapshot) -> Result<u32, OpenError> {
    let from = Key::table(Table::Boot);
    let mut highest = 0;
    for pair in snapshot.scan(Space::Small, from.as_bytes(), &end_of(from.as_bytes())) {
        let (key, _) = pair.map_err(engine_failed)?;
        highest = Key::from_bytes(&key).map_or(highest, |key| highest.max(key.last_u32()));
    }
    Ok(highest)
}

pub(super) fn commit_number(snapshot: &dyn Snapshot, vault: &Vault) -> Result<u64, OpenError> {
    let key = Key::meta(Meta::Commit);
    let damaged = || OpenError::Damaged {
        what: "the commit number does not open".into(),
    };
    let value = snapshot
        .get(Space::Small, key.as_bytes())
        .map_err(engine_failed)?;
    let value = value.ok_or_else(damaged)?;
    let plain = view::open(vault, snapshot, &key, &value).map_err(engine_failed)?;
    let plain = plain.map_err(|NotOpened| damaged())?;
    decode_u64(&plain).map_err(|_| damaged())
}

pub(super) fn engine_failed(error: EngineError) -> OpenError {
    match error {
        EngineError::Full => OpenError::Io {
            what: "write to the store".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        },
        other => OpenError::Damaged {
            what: other.to_string(),
        },
    }
}
