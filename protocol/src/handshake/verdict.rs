//! Verdict: under seal, whether the responder wants this session.
//!
//! ```text
//! sealed, 4,096 bytes; accepted:
//!    0  u8     1
//!    1  66     name: u16 length ‖ 64 bytes, zeros behind the text
//!   67  u8     count of addresses, at most 4
//!   68  1,044  four times: u16 length ‖ 259 bytes, zeros behind the text
//! 1112  u32    boot
//! 1116  u64    epoch nonce
//! 1124  u8     count of grants, at most 64
//! 1125  2,176  that many times: u16 length ‖ text, then zeros
//! 3301  779    sent as zeros, ignored
//! 4080
//! refused:
//!    0  u8     2
//!    1  u16    error class
//!    3  u16    code
//!    5  u32    retry after, in milliseconds
//!    9  258    reason: u16 length ‖ 256 bytes, zeros behind the text
//!  267  3,813  sent as zeros, ignored
//! 4080
//! ```
//!
//! It comes from the node whose signature in Reply was verified: only that node has the key.
//! A refusal is as long as an acceptance, so nobody on the wire sees which it is.
//! The grants are what the responder says it gave; they bind only the responder.

use super::fields::{LOCAL_BYTES, Reader, push_local, push_text, slot_bytes};
use super::schedule::{Opened, TAG_BYTES};
use super::{HandshakeError, Local};
use crate::error_class::ErrorClass;
use crate::grant::{Grant, Grants};
use crate::limits::{GRANTS_BYTES_MAX, GRANTS_MAX, REASON_BYTES_MAX};
use crate::text::{self, TextError};

/// The length of Verdict.
pub const VERDICT_BYTES: usize = PLAIN_VERDICT_BYTES + TAG_BYTES;

const PLAIN_VERDICT_BYTES: usize = 4_080;
const GRANTS_AREA_BYTES: usize = GRANTS_MAX * 2 + GRANTS_BYTES_MAX;
const ACCEPTED_BYTES: usize = 1 + LOCAL_BYTES + 1 + GRANTS_AREA_BYTES;
const REFUSED_BYTES: usize = 1 + 2 + 2 + 4 + slot_bytes(REASON_BYTES_MAX);
const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;

const _: () = assert!(ACCEPTED_BYTES == 3_301);
const _: () = assert!(REFUSED_BYTES == 267);

/// Why a responder does not want this session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused ({class}, code {code}): {reason}")]
pub struct VerdictRefusal {
    /// Steers the retry.
    pub class: ErrorClass,
    /// Numbered by whoever refuses, within the class.
    pub code: u16,
    /// What a person is told: at most 256 bytes, no control characters.
    pub reason: String,
    /// How long to wait at least; 0 says nothing.
    pub retry_after_ms: u32,
}

impl VerdictRefusal {
    /// Within authentication: this dialler may not have a session here.
    pub const NOT_ALLOWED: u16 = 1;
    /// Within authentication: its request to be paired waits for a decision.
    pub const ASKED: u16 = 4;
    /// Within busy: no more requests to be paired are taken for now.
    pub const REQUESTS_FULL: u16 = 6;

    /// Whether the dialler's request waits for a decision, rather than being refused.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.class == ErrorClass::Authentication && self.code == Self::ASKED
    }
}

/// What Verdict says.
pub(super) enum PlainVerdict {
    Accepted { local: Local, granted: Grants },
    Refused(VerdictRefusal),
}

pub(super) fn write_accepted(local: &Local, granted: &Grants) -> Result<Vec<u8>, HandshakeError> {
    local.check()?;
    let texts: Vec<String> = granted.iter().map(ToString::to_string).collect();
    let bytes = texts.iter().map(String::len).sum();
    // Grants keep these limits where they are built; ones that were read back from a store
    // written under other limits might not.
    if texts.len() > GRANTS_MAX || bytes > GRANTS_BYTES_MAX {
        return Err(HandshakeError::Grants {
            count: texts.len(),
            bytes,
        });
    }
    let mut out = Vec::with_capacity(VERDICT_BYTES);
    out.push(ACCEPTED);
    push_local(&mut out, local);
    out.push(texts.len() as u8);
    for text in &texts {
        out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    debug_assert!(out.len() <= ACCEPTED_BYTES);
    out.resize(PLAIN_VERDICT_BYTES, 0);
    Ok(out)
}

/// The reason is made fit, since a refusal must always be sayable.
pub(super) fn write_refused(refusal: &VerdictRefusal) -> Vec<u8> {
    let mut out = Vec::with_capacity(VERDICT_BYTES);
    out.push(REFUSED);
    out.extend_from_slice(&refusal.class.to_u16().to_be_bytes());
    out.extend_from_slice(&refusal.code.to_be_bytes());
    out.extend_from_slice(&refusal.retry_after_ms.to_be_bytes());
    push_text(&mut out, &text::clipped(&refusal.reason), REASON_BYTES_MAX);
    debug_assert_eq!(out.len(), REFUSED_BYTES);
    out.resize(PLAIN_VERDICT_BYTES, 0);
    out
}

impl PlainVerdict {
    pub(super) fn read(plaintext: &Opened) -> Result<Self, HandshakeError> {
        let mut reader = Reader::new("verdict", plaintext);
        match reader.u8("kind")? {
            ACCEPTED => {
                let local = reader.local()?;
                Ok(Self::Accepted {
                    local,
                    granted: read_grants(&mut reader)?,
                })
            }
            REFUSED => {
                let class = reader.u16("class")?;
                let class = ErrorClass::from_u16(class).ok_or_else(|| reader.malformed("class"))?;
                let code = reader.u16("code")?;
                let retry_after_ms = reader.u32("retry after")?;
                let reason = reader.text("reason", REASON_BYTES_MAX)?.to_owned();
                text::check("reason", &reason, REASON_BYTES_MAX)?;
                Ok(Self::Refused(VerdictRefusal {
                    class,
                    code,
                    reason,
                    retry_after_ms,
                }))
            }
            _ => Err(reader.malformed("kind")),
        }
    }
}

fn read_grants(reader: &mut Reader<'_>) -> Result<Grants, HandshakeError> {
    let count = usize::from(reader.u8("grant count")?);
    let mut area = Reader::new("verdict", reader.slice("grants", GRANTS_AREA_BYTES)?);
    if count > GRANTS_MAX {
        return Err(reader.malformed("grant count"));
    }
    let mut granted = Grants::none();
    for _ in 0..count {
        let length = usize::from(area.u16("grant")?);
        let text = str::from_utf8(area.slice("grant", length)?)
            .map_err(|_| TextError::NotUtf8 { what: "grant" })?;
        text::check("grant", text, GRANTS_BYTES_MAX)?;
        // A newer responder may grant what this version cannot ask for; that is no error.
        if let Ok(grant) = text.parse::<Grant>() {
            granted
                .insert(grant)
                .map_err(|_| area.malformed("grants"))?;
        }
    }
    Ok(granted)
}
