//! Frames of the control stream.
//!
//! Read `encode_control` beside `decode_control`. The optional kinds are known here and on no other
//! stream.

use super::{CodecError, Cursor, clean_reason, encode_into, kind};
use crate::error_class::ErrorClass;
use crate::limits;
use crate::message::ControlFrame;
use crate::text;

/// Optional kinds that are known here.
const OPTIONAL_KNOWN: [u8; 2] = [kind::ADDRESSES, kind::SEEN_EPOCH];

/// The plaintext of a control frame.
#[must_use]
pub fn encode_control(frame: &ControlFrame) -> Vec<u8> {
    let mut out = Vec::new();
    match frame {
        ControlFrame::Heartbeat { number, sent_ms } => {
            out.push(kind::HEARTBEAT);
            encode_into(&(number, sent_ms), &mut out);
        }
        ControlFrame::HeartbeatReply { number, sent_ms } => {
            out.push(kind::HEARTBEAT_REPLY);
            encode_into(&(number, sent_ms), &mut out);
        }
        ControlFrame::Generation { generation } => {
            out.push(kind::GENERATION);
            encode_into(generation, &mut out);
        }
        ControlFrame::GenerationReady { generation } => {
            out.push(kind::GENERATION_READY);
            encode_into(generation, &mut out);
        }
        ControlFrame::Granted { grants } => {
            out.push(kind::GRANTED);
            encode_into(grants, &mut out);
        }
        ControlFrame::Addresses { addresses } => {
            out.push(kind::ADDRESSES);
            encode_into(addresses, &mut out);
        }
        ControlFrame::SeenEpoch { epoch } => {
            out.push(kind::SEEN_EPOCH);
            encode_into(epoch, &mut out);
        }
        ControlFrame::Goodbye { class, reason } => {
            out.push(kind::GOODBYE);
            encode_into(&(class.to_u16(), clean_reason(reason)), &mut out);
        }
    }
    out
}

/// A control frame; `None` for an optional kind that may be ignored.
pub fn decode_control(bytes: &[u8]) -> Result<Option<ControlFrame>, CodecError> {
    let Some((kind, mut cursor)) = Cursor::open_with(bytes, "control", &OPTIONAL_KNOWN)? else {
        return Ok(None);
    };
    let frame = match kind {
        kind::HEARTBEAT => ControlFrame::Heartbeat {
            number: cursor.value()?,
            sent_ms: cursor.value()?,
        },
        kind::HEARTBEAT_REPLY => ControlFrame::HeartbeatReply {
            number: cursor.value()?,
            sent_ms: cursor.value()?,
        },
        kind::GENERATION => ControlFrame::Generation {
            generation: cursor.value()?,
        },
        kind::GENERATION_READY => ControlFrame::GenerationReady {
            generation: cursor.value()?,
        },
        kind::GRANTED => {
            let count = cursor.count("grants", limits::GRANTS_MAX, 1)?;
            let mut grants = Vec::with_capacity(count);
            for _ in 0..count {
                grants.push(cursor.text()?.to_owned());
            }
            ControlFrame::Granted { grants }
        }
        kind::ADDRESSES => {
            let count = cursor.count("addresses", limits::ADDRESSES_MAX, 1)?;
            let mut addresses = Vec::with_capacity(count);
            for _ in 0..count {
                addresses.push(cursor.text()?.to_owned());
            }
            text::check_addresses(&addresses)
                .map_err(|_| CodecError::Invalid { what: "an address" })?;
            ControlFrame::Addresses { addresses }
        }
        kind::SEEN_EPOCH => ControlFrame::SeenEpoch {
            epoch: cursor.value()?,
        },
        kind::GOODBYE => ControlFrame::Goodbye {
            class: ErrorClass::from_u16(cursor.value()?).ok_or(CodecError::Invalid {
                what: "an error class",
            })?,
            reason: cursor.reason()?,
        },
        kind => {
            return Err(CodecError::UnknownKind {
                kind,
                stream: "control",
            });
        }
    };
    cursor.close()?;
    Ok(Some(frame))
}
