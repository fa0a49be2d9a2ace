//! Bytes for everything that travels, and back.
//!
//! This is the only file that calls into bincode, so that another implementation of the same
//! bytes can take its place: golden files under `tests/golden/` hold them fast. It never
//! allocates for a promised length before the bytes that fulfil it are there, and it never
//! judges a frame beyond its form and its limits.
//!
//! Read the list of kinds first, then `encode_sender` beside `decode_sender`.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::de::{BorrowDecode, Decode, Decoder};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, Encoder, EncoderImpl};
use bincode::error::{AllowedEnumVariants, DecodeError, EncodeError};

use crate::epoch::{Epoch, Mark, Refusal, RefusalCode, Span};
use crate::limits;
use crate::message::{Arrival, DeliveryClass, Message, MessageFault, ReceiverFrame, SenderFrame};
use crate::text;

mod control;
mod ephemeral;
mod error;
pub mod kind;
mod receipts;

pub use control::{decode_control, encode_control};
pub use ephemeral::{decode_ephemeral, encode_ephemeral, encode_ephemeral_into};
pub use error::CodecError;
pub use receipts::{decode_receipts, encode_receipts};

impl From<DecodeError> for CodecError {
    fn from(error: DecodeError) -> CodecError {
        match error {
            DecodeError::UnexpectedEnd { .. } | DecodeError::LimitExceeded => CodecError::Truncated,
            DecodeError::UnexpectedVariant { .. } => CodecError::Invalid { what: "a variant" },
            DecodeError::Utf8 { .. } => CodecError::Invalid { what: "a text" },
            _ => CodecError::Invalid { what: "a value" },
        }
    }
}

// ---------------------------------------------------------------------------------------
// Values in general.

/// The bytes of a value.
#[must_use]
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(value, &mut out);
    out
}

/// Appends the bytes of a value.
///
/// # Panics
/// Never for the plain values of Packhorse: writing into memory has no way to fail.
pub fn encode_into<T: Encode>(value: &T, out: &mut Vec<u8>) {
    let mut encoder = EncoderImpl::new(Out(out), bincode::config::standard());
    value
        .encode(&mut encoder)
        .expect("plain values written into memory have no way to fail");
}

/// The value of bytes, all of which it must need, and which may be `bytes_max` at most.
///
/// Memory taken stays in proportion to the bytes that are there, whatever they promise.
pub fn decode<T: Decode<()>>(bytes: &[u8], bytes_max: usize) -> Result<T, CodecError> {
    if bytes.len() > bytes_max {
        return Err(CodecError::TooLong {
            bytes: bytes.len(),
            limit: bytes_max,
        });
    }
    let (value, used) = decode_prefix(bytes)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::Trailing { bytes: left }),
    }
}

/// As [`decode`], and the bytes must be exactly those that [`encode`] writes.
///
/// For what was signed or hashed: bincode reads a number written with more bytes than it
/// needs, so without this one value would have many names.
pub fn decode_canonical<T: Decode<()> + Encode>(
    bytes: &[u8],
    bytes_max: usize,
) -> Result<T, CodecError> {
    let value = decode(bytes, bytes_max)?;
    if encode(&value) == bytes {
        Ok(value)
    } else {
        Err(CodecError::NotCanonical)
    }
}

/// bincode's limit counts the bytes that values take in memory, and it is part of the type.
/// A list of the widest small elements, pairs of texts, takes 48 bytes in memory for 2 on the
/// wire, so the steps leave a factor of 32 and more above the length of the input.
fn decode_prefix<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    type Step<const N: usize> = Configuration<LittleEndian, Varint, Limit<N>>;
    fn step<T: Decode<()>, const N: usize>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
        let config: Step<N> = bincode::config::standard().with_limit::<N>();
        Ok(bincode::decode_from_slice(bytes, config)?)
    }
    match bytes.len() {
        0..=256 => step::<T, { 8 << 10 }>(bytes),
        257..=4_096 => step::<T, { 128 << 10 }>(bytes),
        4_097..=65_536 => step::<T, { 2 << 20 }>(bytes),
        _ => step::<T, { 64 << 20 }>(bytes),
    }
}

/// bincode's writer over a growing buffer.
struct Out<'a>(&'a mut Vec<u8>);

impl Writer for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

impl Encode for DeliveryClass {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.to_u8().encode(encoder)
    }
}

impl<Context> Decode<Context> for DeliveryClass {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let number = u8::decode(decoder)?;
        DeliveryClass::from_u8(number).ok_or(DecodeError::UnexpectedVariant {
            type_name: "DeliveryClass",
            allowed: &AllowedEnumVariants::Range { min: 1, max: 3 },
            found: u32::from(number),
        })
    }
}

bincode::impl_borrow_decode!(DeliveryClass);

// ---------------------------------------------------------------------------------------
// Frames of a lane, from its sending side.

/// The plaintext of a frame from the sending side of a lane.
pub fn encode_sender(frame: &SenderFrame) -> Vec<u8> {
    let mut out = Vec::new();
    encode_sender_into(frame, &mut out);
    out
}

/// As [`encode_sender`], appended to a buffer that the caller reuses.
pub fn encode_sender_into(frame: &SenderFrame, out: &mut Vec<u8>) {
    match frame {
        SenderFrame::Start(spans) => {
            out.push(kind::START);
            encode_into(spans, out);
        }
        SenderFrame::Base { epoch, first } => {
            out.push(kind::BASE);
            encode_into(&(epoch, first), out);
        }
        SenderFrame::Batch {
            epoch,
            first,
            messages,
        } => {
            let weight: usize = messages.iter().flatten().map(Message::weight).sum();
            out.reserve(weight + messages.len() * 32 + 64);
            out.push(kind::BATCH);
            encode_into(&(epoch, first, messages.len() as u64), out);
            for message in messages {
                encode_arrival(message, out);
            }
        }
        SenderFrame::Confirm(refusals) => {
            out.push(kind::CONFIRM);
            encode_into(refusals, out);
        }
    }
}

/// A frame from the sending side of a lane; `None` for an optional kind that may be ignored.
pub fn decode_sender(bytes: &[u8]) -> Result<Option<SenderFrame>, CodecError> {
    let Some((kind, mut cursor)) = Cursor::open(bytes, "lane sender")? else {
        return Ok(None);
    };
    let frame = match kind {
        kind::START => {
            // Three bytes is the shortest span: boot, nonce, first, last, acknowledged.
            SenderFrame::Start(cursor.list::<Span>("spans", limits::EPOCHS_KEPT_MAX, 5)?)
        }
        kind::BASE => SenderFrame::Base {
            epoch: cursor.value()?,
            first: cursor.value()?,
        },
        kind::BATCH => {
            let (epoch, first) = (cursor.value()?, cursor.value()?);
            let count = cursor.count("messages", limits::BATCH_MESSAGES_MAX, 1)?;
            let mut messages = Vec::with_capacity(count);
            for _ in 0..count {
                messages.push(decode_arrival(cursor.bytes()?));
            }
            SenderFrame::Batch {
                epoch,
                first,
                messages,
            }
        }
        kind::CONFIRM => SenderFrame::Confirm(cursor.list::<(Epoch, u64)>(
            "confirmations",
            limits::REFUSALS_UNCONFIRMED_MAX,
            3,
        )?),
        kind => {
            return Err(CodecError::UnknownKind {
                kind,
                stream: "lane sender",
            });
        }
    };
    cursor.close()?;
    Ok(Some(frame))
}

/// One place of a batch: the length of the message's bytes, then those bytes.
///
/// The length stands in front so that a message that cannot be read costs one sequence and
/// not the session. A place that was refused already is written empty and stays refused.
fn encode_arrival(arrival: &Arrival, out: &mut Vec<u8>) {
    match arrival {
        Ok(message) => {
            let length = message_length(message);
            encode_into(&(length as u64), out);
            let start = out.len();
            encode_into(message, out);
            debug_assert_eq!(
                out.len() - start,
                length,
                "the length written before a message"
            );
        }
        Err(_) => out.push(0),
    }
}

fn decode_arrival(bytes: &[u8]) -> Arrival {
    match read_message(bytes) {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(fault)) => Err(fault.code()),
        Err(CodecError::TooMany { .. }) => Err(RefusalCode::TOO_LARGE),
        Err(_) => Err(RefusalCode::UNDECODABLE),
    }
}

/// Reads the same bytes as `Message::decode`, but borrows first: limits are checked before
/// anything is copied, and no list is larger than the bytes that are there.
fn read_message(bytes: &[u8]) -> Result<Result<Message, MessageFault>, CodecError> {
    let mut cursor = Cursor { rest: bytes };
    let class = cursor.value()?;
    let topic = cursor.text()?;
    let born_ms = cursor.value()?;
    let count = cursor.count("headers", limits::HEADERS_MAX, 2)?;
    let mut headers = Vec::with_capacity(count);
    let mut header_bytes = 0;
    for _ in 0..count {
        let (name, value) = (cursor.text()?, cursor.text()?);
        header_bytes += name.len() + value.len();
        if header_bytes > limits::HEADER_BYTES_MAX {
            return Ok(Err(MessageFault::HeadersTooLarge {
                bytes: header_bytes,
            }));
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    let payload = cursor.bytes()?;
    cursor.close()?;
    if topic.len() > limits::TOPIC_BYTES_MAX {
        return Ok(Err(MessageFault::TopicTooLong { bytes: topic.len() }));
    }
    if payload.len() > limits::PAYLOAD_BYTES_MAX {
        return Ok(Err(MessageFault::PayloadTooLarge {
            bytes: payload.len(),
        }));
    }
    let message = Message {
        class,
        topic: topic.to_owned(),
        born_ms,
        headers,
        payload: payload.to_vec(),
    };
    Ok(message.check().map(|()| message))
}

/// How many bytes `Message::encode` writes, without writing them.
fn message_length(message: &Message) -> usize {
    let text = |text: &str| varint_length(text.len() as u64) + text.len();
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| text(name) + text(value))
        .sum();
    1 + text(&message.topic)
        + varint_length(message.born_ms)
        + varint_length(message.headers.len() as u64)
        + headers
        + varint_length(message.payload.len() as u64)
        + message.payload.len()
}

/// bincode's variable integer: one byte up to 250, else a marker and 2, 4 or 8 bytes.
const fn varint_length(number: u64) -> usize {
    match number {
        0..=250 => 1,
        251..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

// ---------------------------------------------------------------------------------------
// Frames of a lane, from its receiving side.

/// The plaintext of a frame from the receiving side of a lane.
pub fn encode_receiver(frame: &ReceiverFrame) -> Vec<u8> {
    let mut out = Vec::new();
    encode_receiver_into(frame, &mut out);
    out
}

/// As [`encode_receiver`], appended to a buffer that the caller reuses.
pub fn encode_receiver_into(frame: &ReceiverFrame, out: &mut Vec<u8>) {
    match frame {
        ReceiverFrame::Marks { marks, refusals } => {
            out.push(kind::MARKS);
            encode_into(&(marks, refusals), out);
        }
        ReceiverFrame::Acknowledge { mark, refusals } => {
            out.push(kind::ACKNOWLEDGE);
            encode_into(&(mark, refusals), out);
        }
        ReceiverFrame::Paused { reason } => {
            out.push(kind::PAUSED);
            encode_into(&clean_reason(reason), out);
        }
        ReceiverFrame::Resumed => out.push(kind::RESUMED),
        ReceiverFrame::Window { messages, bytes } => {
            out.push(kind::WINDOW);
            encode_into(&(messages, bytes), out);
        }
    }
}

/// A frame from the receiving side of a lane; `None` for an optional kind that may be ignored.
pub fn decode_receiver(bytes: &[u8]) -> Result<Option<ReceiverFrame>, CodecError> {
    let Some((kind, mut cursor)) = Cursor::open(bytes, "lane receiver")? else {
        return Ok(None);
    };
    let frame = match kind {
        kind::MARKS => ReceiverFrame::Marks {
            marks: cursor.list::<Mark>("marks", limits::EPOCHS_KEPT_MAX, 3)?,
            refusals: cursor.refusals()?,
        },
        kind::ACKNOWLEDGE => ReceiverFrame::Acknowledge {
            mark: cursor.value()?,
            refusals: cursor.refusals()?,
        },
        kind::PAUSED => ReceiverFrame::Paused {
            reason: cursor.reason()?,
        },
        kind::RESUMED => ReceiverFrame::Resumed,
        kind::WINDOW => ReceiverFrame::Window {
            messages: cursor.value()?,
            bytes: cursor.value()?,
        },
        kind => {
            return Err(CodecError::UnknownKind {
                kind,
                stream: "lane receiver",
            });
        }
    };
    cursor.close()?;
    Ok(Some(frame))
}

/// A reason as it may travel: no control characters, cut at a character below the limit.
///
/// The text comes from errors of our own side; a long one must not end a session.
fn clean_reason(reason: &str) -> String {
    let mut clean = String::new();
    for letter in reason.chars() {
        let letter = if letter.is_control() { ' ' } else { letter };
        if clean.len() + letter.len_utf8() > limits::REASON_BYTES_MAX {
            break;
        }
        clean.push(letter);
    }
    clean
}

// ---------------------------------------------------------------------------------------

/// Reads values from the front of a slice.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Checks the length of a frame and takes its kind off; `None` for an optional unknown one.
    fn open(bytes: &'a [u8], stream: &'static str) -> Result<Option<(u8, Self)>, CodecError> {
        Self::open_with(bytes, stream, &[])
    }

    /// The same where some optional kinds are known.
    fn open_with(
        bytes: &'a [u8],
        stream: &'static str,
        known: &[u8],
    ) -> Result<Option<(u8, Self)>, CodecError> {
        if bytes.len() > limits::FRAME_PLAINTEXT_BYTES_MAX {
            let limit = limits::FRAME_PLAINTEXT_BYTES_MAX;
            return Err(CodecError::TooLong {
                bytes: bytes.len(),
                limit,
            });
        }
        match bytes.split_first() {
            None => Err(CodecError::Truncated),
            Some((kind, _)) if *kind >= kind::OPTIONAL_FIRST && !known.contains(kind) => Ok(None),
            Some((&0, _)) => Err(CodecError::UnknownKind { kind: 0, stream }),
            Some((&kind, rest)) => Ok(Some((kind, Cursor { rest }))),
        }
    }

    /// One small value without lists.
    fn value<T: BorrowDecode<'a, ()>>(&mut self) -> Result<T, CodecError> {
        let config = bincode::config::standard().with_limit::<128>();
        let (value, used) = bincode::borrow_decode_from_slice(self.rest, config)?;
        self.rest = self.rest.get(used..).unwrap_or_default();
        Ok(value)
    }

    /// A length that its limit and the bytes that are left both allow.
    fn count(
        &mut self,
        what: &'static str,
        limit: usize,
        bytes_each: usize,
    ) -> Result<usize, CodecError> {
        let count: u64 = self.value()?;
        match usize::try_from(count) {
            Ok(count) if count <= limit && count * bytes_each <= self.rest.len() => Ok(count),
            Ok(within) if within <= limit => Err(CodecError::Truncated),
            _ => Err(CodecError::TooMany { what, count, limit }),
        }
    }

    fn list<T: BorrowDecode<'a, ()>>(
        &mut self,
        what: &'static str,
        limit: usize,
        bytes_each: usize,
    ) -> Result<Vec<T>, CodecError> {
        let count = self.count(what, limit, bytes_each)?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(self.value()?);
        }
        Ok(list)
    }

    fn refusals(&mut self) -> Result<Vec<Refusal>, CodecError> {
        self.list("refusals", limits::REFUSALS_UNCONFIRMED_MAX, 4)
    }

    fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let length: u64 = self.value()?;
        let length = usize::try_from(length).map_err(|_| CodecError::Truncated)?;
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, CodecError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::Invalid { what: "a text" })
    }

    fn reason(&mut self) -> Result<String, CodecError> {
        let reason = self.text()?;
        match text::check("a reason", reason, limits::REASON_BYTES_MAX) {
            Ok(()) => Ok(reason.to_owned()),
            Err(_) => Err(CodecError::Invalid { what: "a reason" }),
        }
    }

    fn close(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(CodecError::Trailing { bytes }),
        }
    }
}

#[cfg(test)]
mod tests;
