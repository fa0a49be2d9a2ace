//! The few things that the store asks of a storage engine.
//!
//! A commit is durable first and visible second, as one step: an engine that shows a row which a
//! power cut could take back is wrong. Engines never look into values and never order by anything
//! but key bytes. Calls block; none is made on an async thread.
//!
//! Read [`Engine`], then the two implementations, `fjall_engine` and `memory_engine`.

use std::fmt;

use bytes::Bytes;

use super::error::EngineError;
use super::keys::Space;

/// One change of one key.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Where.
    pub(crate) space: Space,
    /// Which.
    pub(crate) key: Bytes,
    /// The new value; `None` deletes.
    pub(crate) value: Option<Bytes>,
}

/// Key and value as they lie in the engine.
pub(crate) type Pair = (Bytes, Bytes);

/// An ordered map per keyspace with atomic, durable batches.
pub(crate) trait Engine: fmt::Debug + Send + Sync {
    /// Makes all changes durable, then visible, then notes `number` beside the data.
    ///
    /// After an error nothing of the batch has become visible in this life; a later open may
    /// find it or not.
    fn commit(&self, number: u64, changes: Vec<Change>) -> Result<(), EngineError>;

    /// Hands a batch to the disk that [`Engine::commit`] will sync. Says how long the disk takes,
    /// in milliseconds: until the sync, and from there to its answer.
    #[cfg(feature = "sim")]
    fn write_ahead(&self, changes: &[Change]) -> (u64, u64) {
        let _ = changes;
        (0, 0)
    }

    /// What is committed now, unchanging.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError>;

    /// From now on the end is not clean, durably, and nothing above `number` is expected.
    fn note_open(&self, number: u64) -> Result<(), EngineError>;

    /// Writes out what makes the next open fast, and says beside the data that the end was clean.
    fn settle_down(&self, number: u64) -> Result<(), EngineError>;
}

/// The committed rows of one moment.
pub(crate) trait Snapshot: Send + Sync {
    /// The value under a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// All pairs from `from` (included) to `end` (excluded), in order of their keys.
    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        end: &[u8],
    ) -> Box<dyn Iterator<Item = Result<Pair, EngineError>> + 'a>;
}

/// The first key behind all keys that begin with `prefix`.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if let Some(next) = last.checked_add(1) {
            *last = next;
            return end;
        }
        end.pop();
    }
    // Only 0xff bytes: no table is numbered 255, so every key is below this.
    vec![0xff; 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_sibling() {
        assert_eq!(end_of(&[7, 1]), [7, 2]);
        assert_eq!(end_of(&[7, 0xff]), [8]);
        assert_eq!(end_of(&[7, 0xff, 0xff]), [8]);
    }
}
