//! One file per table: the bytes of its records, and what is done with them.
//!
//! Functions that take a `View` run on the writer thread inside a job and decide writes; functions
//! that take a `Source` only read and run anywhere.

pub(crate) mod dead;
#[cfg(test)]
mod golden;
pub(crate) mod head;
pub(crate) mod idempotency;
pub(crate) mod inbox;
pub(crate) mod invites;
pub(crate) mod lines;
pub(crate) mod marks;
pub(crate) mod outbox;
pub(crate) mod pairing;
pub(crate) mod peers;

use super::error::ReadFault;
use super::keys::Key;
use super::layout::Malformed;
use super::view::Source;

/// Reads and decodes one record. One that opens and does not decode is damage as well.
pub(crate) fn read<T>(
    source: &impl Source,
    key: &Key,
    decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, ReadFault> {
    let Some(plain) = source.get(key)? else {
        return Ok(None);
    };
    decode(&plain)
        .map(Some)
        .map_err(|Malformed| ReadFault::Damaged {
            key: key.to_string(),
        })
}
