//! One file per table: the bytes of its records, and what is done with them.
//!
//! Functions that take a `View` run on the writer thread inside a job and decide writes; functions
//! that take a `Source` only read and run anywhere.

pub(crate) mod asking;
pub(crate) mod census;
pub(crate) mod checkup;
pub(crate) mod dead;
pub(crate) mod dead_in;
pub(crate) mod deny;
pub(crate) mod done;
pub(crate) mod events;
pub(crate) mod filter;
pub(crate) mod fix;
pub(crate) mod forgetting;
#[cfg(test)]
mod golden;
pub(crate) mod head;
pub(crate) mod held;
pub(crate) mod idempotency;
pub(crate) mod inbox;
pub(crate) mod inbox_search;
pub(crate) mod inbox_settle;
pub(crate) mod invites;
pub(crate) mod leaving;
pub(crate) mod letters;
pub(crate) mod lines;
pub(crate) mod loading;
pub(crate) mod marks;
pub(crate) mod new_message;
pub(crate) mod outbox;
pub(crate) mod outcomes;
pub(crate) mod pairing;
pub(crate) mod peers;
pub(crate) mod place;
pub(crate) mod receipts;
pub(crate) mod requests;
pub(crate) mod settling;
pub(crate) mod sweep;
pub(crate) mod tries;
pub(crate) mod unsettled;

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
