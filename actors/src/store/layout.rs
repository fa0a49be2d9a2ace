//! Writing and reading the bytes inside a record.
//!
//! Numbers are big-endian and of fixed width, texts and lists carry their length in front, and
//! every record begins with the version of its own layout. Records do not use the wire's codec: a
//! new wire version must not change what lies on disk.
//!
//! Read [`Pen`], then [`Cursor`], which is its mirror.

use std::ops::RangeInclusive;

use packhorse_protocol::message::{DeliveryClass, Message};

/// Appends fields to a record.
#[derive(Debug, Default)]
pub(crate) struct Pen {
    bytes: Vec<u8>,
}

impl Pen {
    /// A record of layout `version`, with room for `bytes`.
    pub(crate) fn new(version: u8, bytes: usize) -> Self {
        let mut pen = Self {
            bytes: Vec::with_capacity(bytes + 1),
        };
        pen.u8(version);
        pen
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// A presence byte, then the number.
    pub(crate) fn maybe_u64(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            None => self.u8(0),
            Some(value) => self.u8(1).u64(value),
        }
    }

    pub(crate) fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }

    /// Length u32, then the bytes.
    pub(crate) fn blob(&mut self, value: &[u8]) -> &mut Self {
        let length = u32::try_from(value.len()).expect("records are below 4 GiB by their limits");
        self.u32(length).raw(value)
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.blob(value.as_bytes())
    }

    /// Count u32, then the texts.
    pub(crate) fn texts<S: AsRef<str>>(&mut self, values: &[S]) -> &mut Self {
        self.u32(u32::try_from(values.len()).expect("lists in records are short by their limits"));
        for value in values {
            self.text(value.as_ref());
        }
        self
    }

    pub(crate) fn message(&mut self, message: &Message) -> &mut Self {
        self.u8(message.class.to_u8())
            .u64(message.born_ms)
            .text(&message.topic);
        self.u32(u32::try_from(message.headers.len()).expect("headers are at most 4 KiB"));
        for (name, value) in &message.headers {
            self.text(name).text(value);
        }
        self.blob(&message.payload)
    }

    pub(crate) fn done(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// The bytes are not a record of the expected layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Takes fields off a record, in the order in which [`Pen`] wrote them.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts behind the layout version, which must be `version`.
    pub(crate) fn new(version: u8, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Self { bytes };
        if cursor.u8()? == version {
            Ok(cursor)
        } else {
            Err(Malformed)
        }
    }

    /// Starts behind the layout version, which must be one of `versions`, and tells it.
    pub(crate) fn of_layouts(
        versions: RangeInclusive<u8>,
        bytes: &'a [u8],
    ) -> Result<(u8, Self), Malformed> {
        let mut cursor = Self { bytes };
        let version = cursor.u8()?;
        if versions.contains(&version) {
            Ok((version, cursor))
        } else {
            Err(Malformed)
        }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.bytes.split_at_checked(length).ok_or(Malformed)?;
        self.bytes = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.bytes.split_first_chunk::<N>().ok_or(Malformed)?;
        self.bytes = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn maybe_u64(&mut self) -> Result<Option<u64>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            1 => Ok(Some(self.u64()?)),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn blob(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.blob()?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| Malformed)
    }

    pub(crate) fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        let count = self.u32()? as usize;
        // Four bytes is the least that a text takes: a false count allocates nothing big.
        if count > self.bytes.len() / 4 {
            return Err(Malformed);
        }
        (0..count).map(|_| self.text()).collect()
    }

    pub(crate) fn message(&mut self) -> Result<Message, Malformed> {
        let class = DeliveryClass::from_u8(self.u8()?).ok_or(Malformed)?;
        let born_ms = self.u64()?;
        let topic = self.text()?;
        let count = self.u32()? as usize;
        if count > self.bytes.len() / 8 {
            return Err(Malformed);
        }
        let headers = (0..count)
            .map(|_| Ok((self.text()?, self.text()?)))
            .collect::<Result<Vec<_>, Malformed>>()?;
        let payload = self.blob()?.to_vec();
        Ok(Message {
            class,
            topic,
            born_ms,
            headers,
            payload,
        })
    }

    /// Nothing may be left over.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            class: DeliveryClass::Moderate,
            topic: "a.b".into(),
            born_ms: 7,
            headers: vec![("reply-to".into(), "c".into())],
            payload: vec![1, 2, 3],
        }
    }

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let bytes = Pen::new(1, 64).message(&message()).done();
        let mut cursor = Cursor::new(1, &bytes).unwrap();
        assert_eq!(cursor.message().unwrap(), message());
        assert_eq!(cursor.end(), Ok(()));
    }

    #[test]
    fn every_shortened_record_is_refused() {
        let bytes = Pen::new(1, 64).message(&message()).done();
        for length in 0..bytes.len() {
            let read = Cursor::new(1, &bytes[..length]).and_then(|mut cursor| cursor.message());
            assert_eq!(read, Err(Malformed), "{length} bytes");
        }
    }

    #[test]
    fn a_huge_count_is_refused_before_anything_is_allocated() {
        let bytes = Pen::new(1, 8).u32(u32::MAX).done();
        assert_eq!(Cursor::new(1, &bytes).unwrap().texts(), Err(Malformed));
    }
}
