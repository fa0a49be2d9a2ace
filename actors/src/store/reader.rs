//! Reading what is committed.
//!
//! A reader is a snapshot: what it shows does not change and was durable before it could be seen.
//! It never sees what a batch in the making holds.
//!
//! Read [`Reader`]; the questions themselves stand with their tables.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::Snapshot;
use super::error::ReadFault;
use super::keys::Key;
use super::quarantine::Quarantine;
use super::seal::{NotOpened, Vault};
use super::view::{self, Source, Visit};

/// Unreadable blocks in a row after which a scan gives up: it would go on for ever otherwise.
const UNREADABLE_MAX: usize = 1_000;

/// The committed rows of one moment, opened.
pub(crate) struct Reader {
    snapshot: Box<dyn Snapshot>,
    vault: Arc<Vault>,
    quarantine: Arc<Quarantine>,
}

impl Reader {
    pub(crate) fn new(
        snapshot: Box<dyn Snapshot>,
        vault: Arc<Vault>,
        quarantine: Arc<Quarantine>,
    ) -> Self {
        Self {
            snapshot,
            vault,
            quarantine,
        }
    }

    /// A value as it lies on disk.
    pub(crate) fn raw(&self, key: &Key) -> Result<Option<Bytes>, ReadFault> {
        Ok(self.snapshot.get(key.space(), key.as_bytes())?)
    }

    /// How often a scan met what cannot be read. It shows nothing of what lies there, and may show
    /// nothing of what lies behind it.
    pub(crate) fn unreadable(&self) -> u64 {
        self.quarantine.unreadable()
    }
}

impl Source for Reader {
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadFault> {
        let Some(value) = self.snapshot.get(key.space(), key.as_bytes())? else {
            return Ok(None);
        };
        match view::open(&self.vault, &*self.snapshot, key, &value)? {
            Ok(plain) => Ok(Some(plain)),
            Err(NotOpened) => {
                self.quarantine.note(key);
                Err(ReadFault::Damaged {
                    key: key.to_string(),
                })
            }
        }
    }

    fn scan(&self, from: &Key, end: &[u8], visit: &mut Visit<'_>) -> Result<(), ReadFault> {
        let mut unreadable = 0;
        for pair in self.snapshot.scan(from.space(), from.as_bytes(), end) {
            let (key, value) = match pair {
                Ok(pair) => pair,
                // A block with a wrong checksum. The engine's iterator ends there, so the rows behind
                // it are not shown either: whoever must not miss one counts what it was shown.
                Err(error) => {
                    self.quarantine.note_unreadable(&error);
                    unreadable += 1;
                    if unreadable >= UNREADABLE_MAX {
                        return Err(error.into());
                    }
                    continue;
                }
            };
            let Some(key) = Key::from_bytes(&key) else {
                continue;
            };
            let opened = view::open(&self.vault, &*self.snapshot, &key, &value)?;
            if opened.is_err() {
                self.quarantine.note(&key);
            }
            if let ControlFlow::Break(()) = visit(key, opened) {
                break;
            }
        }
        Ok(())
    }

    fn vault(&self) -> &Vault {
        &self.vault
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}
