//! The frames of an ephemeral stream: one message each.
//!
//! The message stands alone in its frame and needs no length of its own. One that cannot be read
//! costs itself and not the session, as in a batch.

use super::{CodecError, Cursor, Message, decode_arrival, encode_into, kind, message_length};
use crate::message::Arrival;

/// The plaintext of a frame of an ephemeral stream.
#[must_use]
pub fn encode_ephemeral(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode_ephemeral_into(message, &mut out);
    out
}

/// As [`encode_ephemeral`], appended to a buffer that the caller reuses.
pub fn encode_ephemeral_into(message: &Message, out: &mut Vec<u8>) {
    out.reserve(1 + message_length(message));
    out.push(kind::EPHEMERAL);
    encode_into(message, out);
}

/// The message of a frame of an ephemeral stream, or why it can be none; `None` for an optional
/// kind that may be ignored.
pub fn decode_ephemeral(bytes: &[u8]) -> Result<Option<Arrival>, CodecError> {
    let Some((kind, cursor)) = Cursor::open(bytes, "ephemeral")? else {
        return Ok(None);
    };
    match kind {
        kind::EPHEMERAL => Ok(Some(decode_arrival(cursor.rest))),
        kind => Err(CodecError::UnknownKind {
            kind,
            stream: "ephemeral",
        }),
    }
}
