//! The payload of a report: the canonical bytes of its fields, one after the other.

use crate::epoch::{Epoch, Position};
use crate::receipt::{
    DONE, FAILED, OUTCOMES_MAX, OUTPUT_BYTES_MAX, OutcomeReport, RANGES_MAX, Receipts, USER_LANE,
};

use super::{CodecError, Cursor, clean_reason, encode};

/// An epoch takes 2 bytes at least, the two numbers 1 each.
const RANGE_BYTES_MIN: usize = 4;
/// A position takes 3 bytes at least, the state 1, two lengths 1 each.
const OUTCOME_BYTES_MIN: usize = 6;

/// The bytes of a report. Texts are cleaned and cut to their limits; the lists are the caller's.
#[must_use]
pub fn encode_receipts(receipts: &Receipts) -> Vec<u8> {
    let mut clean = receipts.clone();
    for outcome in &mut clean.outcomes {
        outcome.reason = clean_reason(&outcome.reason);
        outcome.output.truncate(OUTPUT_BYTES_MAX);
    }
    encode(&clean)
}

/// A report from its bytes, which must be exactly those that [`encode_receipts`] writes.
///
/// # Errors
/// [`CodecError`]: a limit, a number that means nothing, or bytes in another form.
pub fn decode_receipts(bytes: &[u8]) -> Result<Receipts, CodecError> {
    let mut cursor = Cursor { rest: bytes };
    let lane: u8 = cursor.value()?;
    if lane != USER_LANE {
        return Err(CodecError::Invalid { what: "a lane" });
    }
    let done = cursor.list::<(Epoch, u64, u64)>("ranges", RANGES_MAX, RANGE_BYTES_MIN)?;
    if done
        .iter()
        .any(|&(_, first, last)| first == 0 || first > last)
    {
        return Err(CodecError::Invalid { what: "a range" });
    }
    let count = cursor.count("outcomes", OUTCOMES_MAX, OUTCOME_BYTES_MIN)?;
    let mut outcomes = Vec::with_capacity(count);
    for _ in 0..count {
        let at: Position = cursor.value()?;
        let state: u8 = cursor.value()?;
        if at.sequence == 0 || ![DONE, FAILED].contains(&state) {
            return Err(CodecError::Invalid { what: "an outcome" });
        }
        let reason = cursor.reason()?;
        let output = cursor.bytes()?;
        if output.len() > OUTPUT_BYTES_MAX {
            return Err(CodecError::TooLong {
                bytes: output.len(),
                limit: OUTPUT_BYTES_MAX,
            });
        }
        outcomes.push(OutcomeReport {
            at,
            state,
            reason,
            output: output.to_vec(),
        });
    }
    cursor.close()?;
    let receipts = Receipts {
        lane,
        done,
        outcomes,
    };
    // Numbers can be written with more bytes than they need: one report, one form.
    if encode(&receipts) == bytes {
        Ok(receipts)
    } else {
        Err(CodecError::NotCanonical)
    }
}
