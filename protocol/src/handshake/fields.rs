//! Fixed fields, written and read one after the other.
//!
//! A text stands in a slot of fixed size: its length as u16, its bytes, zeros up to the end.
//! Numbers are big-endian. A reader never reads past its message and never panics.

use super::{HandshakeError, Local};
use crate::epoch::Epoch;
use crate::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, NAME_BYTES_MAX};
use crate::text::{self, TextError};

/// Bytes of name, addresses and epoch together.
pub(super) const LOCAL_BYTES: usize =
    slot_bytes(NAME_BYTES_MAX) + 1 + ADDRESSES_MAX * slot_bytes(ADDRESS_BYTES_MAX) + 12;

/// Bytes that a text of at most `bytes_max` takes.
pub(super) const fn slot_bytes(bytes_max: usize) -> usize {
    2 + bytes_max
}

/// Appends a text slot; the text was checked to fit.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str, bytes_max: usize) {
    debug_assert!(text.len() <= bytes_max);
    let end = out.len() + slot_bytes(bytes_max);
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    out.resize(end, 0);
}

/// Appends what a node says about itself; it was checked.
pub(super) fn push_local(out: &mut Vec<u8>, local: &Local) {
    push_text(out, &local.name, NAME_BYTES_MAX);
    out.push(local.addresses.len() as u8);
    for index in 0..ADDRESSES_MAX {
        let address = local.addresses.get(index).map_or("", String::as_str);
        push_text(out, address, ADDRESS_BYTES_MAX);
    }
    out.extend_from_slice(&local.epoch.boot.to_be_bytes());
    out.extend_from_slice(&local.epoch.nonce.to_be_bytes());
}

/// Reads the fields of one message.
pub(super) struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            message,
            rest: bytes,
        }
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], HandshakeError> {
        let (&bytes, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.malformed(field))?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn slice(
        &mut self,
        field: &'static str,
        count: usize,
    ) -> Result<&'a [u8], HandshakeError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| self.malformed(field))?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, HandshakeError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, HandshakeError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, HandshakeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, HandshakeError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    /// A text in its slot. Its characters are for the caller to check.
    pub(super) fn text(
        &mut self,
        field: &'static str,
        bytes_max: usize,
    ) -> Result<&'a str, HandshakeError> {
        let length = usize::from(self.u16(field)?);
        let slot = self.slice(field, bytes_max)?;
        let (text, padding) = slot
            .split_at_checked(length)
            .ok_or_else(|| self.malformed(field))?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(self.malformed(field));
        }
        Ok(str::from_utf8(text).map_err(|_| TextError::NotUtf8 { what: field })?)
    }

    /// What the other side says about itself, checked.
    pub(super) fn local(&mut self) -> Result<Local, HandshakeError> {
        let name = self.text("name", NAME_BYTES_MAX)?.to_owned();
        let count = usize::from(self.u8("address count")?);
        if count > ADDRESSES_MAX {
            return Err(self.malformed("address count"));
        }
        let mut addresses = Vec::with_capacity(count);
        for index in 0..ADDRESSES_MAX {
            let address = self.text("address", ADDRESS_BYTES_MAX)?;
            if index < count {
                addresses.push(address.to_owned());
            } else if !address.is_empty() {
                return Err(self.malformed("address"));
            }
        }
        let epoch = Epoch {
            boot: self.u32("boot")?,
            nonce: self.u64("epoch nonce")?,
        };
        text::check_name(&name)?;
        text::check_addresses(&addresses)?;
        Ok(Local {
            name,
            addresses,
            epoch,
        })
    }

    pub(super) fn malformed(&self, field: &'static str) -> HandshakeError {
        HandshakeError::Malformed {
            message: self.message,
            field,
        }
    }
}
