//! The count of records that are there and do not open.
//!
//! Each is counted once and logged with its key; what becomes of it is decided where it was met.
//! Keys are kept up to a bound; beyond it only the count goes on.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::error::EngineError;
use super::keys::Key;

/// Keys kept: 1,024 × 32 bytes.
const KEYS_KEPT_MAX: usize = 1_024;

/// What was found damaged since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeSet<Key>,
    count: u64,
    told: u64,
    unreadable: u64,
}

impl Quarantine {
    /// Counts a record that does not open, once.
    pub(crate) fn note(&self, key: &Key) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.keys.contains(key) {
            return;
        }
        if state.keys.len() < KEYS_KEPT_MAX {
            state.keys.insert(*key);
        }
        state.count += 1;
        tracing::error!(%key, "a record of the store does not open and is passed over");
    }

    /// Counts a part of the engine's files that cannot be read.
    pub(crate) fn note_unreadable(&self, error: &EngineError) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        state.unreadable += 1;
        tracing::error!(%error, "a part of the store cannot be read and is passed over");
    }

    /// How often a scan met a part of the engine's files that cannot be read.
    pub(crate) fn unreadable(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unreadable
    }

    /// How many were found since this was asked last.
    pub(crate) fn untold(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = state.count - state.told;
        state.told = state.count;
        untold
    }

    /// How many, and the keys of the first of them in hex.
    pub(crate) fn found(&self) -> (u64, Vec<String>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.count, state.keys.iter().map(Key::to_string).collect())
    }
}
