//! What travels: messages, the frames of a lane, the frames of the control stream.
//!
//! These types say nothing about bytes; `codec.rs` does. The two directions of a lane are
//! two types, so a frame can be neither built nor decoded for the side that may not send it.
//! Read [`Message`], then [`SenderFrame`] and [`ReceiverFrame`] side by side from top to
//! bottom: that is the order of a session.

use bincode::{Decode, Encode};

use crate::epoch::{Epoch, Mark, Refusal, RefusalCode, Span};
use crate::error_class::ErrorClass;
use crate::limits;

/// How hard a message is tried. Numbered by hand; a number is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryClass {
    /// Until delivered.
    Critical = 1,
    /// A retry budget, then dead letter.
    Moderate = 2,
    /// Now or never, not stored.
    Ephemeral = 3,
}

impl DeliveryClass {
    /// The number that travels and is stored.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        self as u8
    }

    /// The class of a number, if this version knows it.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<DeliveryClass> {
        match number {
            1 => Some(DeliveryClass::Critical),
            2 => Some(DeliveryClass::Moderate),
            3 => Some(DeliveryClass::Ephemeral),
            _ => None,
        }
    }
}

/// A payload for one peer on a topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Message {
    /// How hard it is tried.
    pub class: DeliveryClass,
    /// What it is about; grants are checked against it.
    pub topic: String,
    /// When the sender accepted it, in milliseconds since the Unix epoch. Untrusted.
    pub born_ms: u64,
    /// Names and values for applications.
    pub headers: Vec<(String, String)>,
    /// The load.
    pub payload: Vec<u8>,
}

impl Message {
    /// Bytes that count against windows and quotas.
    #[must_use]
    pub fn weight(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.topic.len() + headers + self.payload.len()
    }

    /// Whether the message keeps every limit; checked before it is accepted here and again
    /// when it arrives there.
    pub fn check(&self) -> Result<(), MessageFault> {
        check_topic(&self.topic)?;
        if self.headers.len() > limits::HEADERS_MAX {
            return Err(MessageFault::TooManyHeaders {
                count: self.headers.len(),
            });
        }
        let mut bytes = 0;
        for (name, value) in &self.headers {
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(MessageFault::HeaderName { name: name.clone() });
            }
            bytes += name.len() + value.len();
        }
        if bytes > limits::HEADER_BYTES_MAX {
            return Err(MessageFault::HeadersTooLarge { bytes });
        }
        if self.payload.len() > limits::PAYLOAD_BYTES_MAX {
            return Err(MessageFault::PayloadTooLarge {
                bytes: self.payload.len(),
            });
        }
        Ok(())
    }
}

/// Whether a topic is one: not empty, short enough for a line of a log, no control characters.
pub fn check_topic(topic: &str) -> Result<(), MessageFault> {
    if topic.is_empty() {
        return Err(MessageFault::TopicEmpty);
    }
    if topic.len() > limits::TOPIC_BYTES_MAX {
        return Err(MessageFault::TopicTooLong { bytes: topic.len() });
    }
    if topic.chars().any(char::is_control) {
        return Err(MessageFault::TopicControl);
    }
    Ok(())
}

/// Why a message is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageFault {
    /// The caller gave no topic.
    #[error("the topic is empty")]
    TopicEmpty,
    /// Choose a shorter topic.
    #[error("the topic has {bytes} bytes, more than {}", limits::TOPIC_BYTES_MAX)]
    TopicTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A topic stands in one line of a log.
    #[error("the topic holds a control character")]
    TopicControl,
    /// Fewer, larger headers.
    #[error("{count} headers, more than {}", limits::HEADERS_MAX)]
    TooManyHeaders {
        /// How many there are.
        count: usize,
    },
    /// A header's name is empty or holds a control character.
    #[error("the header name {name:?} is empty or holds a control character")]
    HeaderName {
        /// The name.
        name: String,
    },
    /// Move data from the headers into the payload.
    #[error(
        "the headers have {bytes} bytes, more than {}",
        limits::HEADER_BYTES_MAX
    )]
    HeadersTooLarge {
        /// Sum of names and values.
        bytes: usize,
    },
    /// Send a file instead.
    #[error(
        "the payload has {bytes} bytes, more than {}; send a file instead",
        limits::PAYLOAD_BYTES_MAX
    )]
    PayloadTooLarge {
        /// Its length.
        bytes: usize,
    },
}

impl MessageFault {
    /// How a recipient refuses such a message.
    #[must_use]
    pub const fn code(&self) -> RefusalCode {
        match self {
            MessageFault::TopicTooLong { .. }
            | MessageFault::TooManyHeaders { .. }
            | MessageFault::HeadersTooLarge { .. }
            | MessageFault::PayloadTooLarge { .. } => RefusalCode::TOO_LARGE,
            MessageFault::TopicEmpty
            | MessageFault::TopicControl
            | MessageFault::HeaderName { .. } => RefusalCode::UNDECODABLE,
        }
    }
}

/// One place of a batch as the recipient sees it: a message, or why it can be none.
///
/// A sender always wraps `Ok`. An `Err` takes its sequence like a message does and ends as a
/// refused one, so that one bad message never blocks those behind it.
pub type Arrival = Result<Message, RefusalCode>;

/// What the sending side of a lane says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderFrame {
    /// First, once: what it holds, per epoch, in rising order of epochs.
    Start(Vec<Span>),
    /// Everything of `epoch` below `first` that is not settled will never come.
    Base {
        /// The epoch.
        epoch: Epoch,
        /// The next sequence that will come.
        first: u64,
    },
    /// Consecutive messages.
    Batch {
        /// The epoch.
        epoch: Epoch,
        /// Sequence of the first message.
        first: u64,
        /// The messages, without a gap.
        messages: Vec<Arrival>,
    },
    /// These refusals are dead letters now, durably; the recipient may forget them.
    Confirm(Vec<(Epoch, u64)>),
}

/// What the receiving side of a lane says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverFrame {
    /// In answer to Start, once: how far it is in each of those epochs, and what it refused.
    Marks {
        /// One per epoch of Start, in the same order.
        marks: Vec<Mark>,
        /// Every refusal the sender has not confirmed, of any epoch.
        refusals: Vec<Refusal>,
    },
    /// Settled up to here, durably.
    Acknowledge {
        /// How far.
        mark: Mark,
        /// Every refusal the sender has not confirmed, of any epoch.
        refusals: Vec<Refusal>,
    },
    /// No window until Resumed; counts as no failed attempt.
    Paused {
        /// What a person is told.
        reason: String,
    },
    /// Go on.
    Resumed,
    /// How much may be unsettled from now on; never more than the limits of this version.
    Window {
        /// Messages.
        messages: u32,
        /// Bytes of their weight.
        bytes: u32,
    },
}

/// A frame on the control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlFrame {
    /// Asks for an answer; sent every 15 s by both sides.
    Heartbeat {
        /// Counts up within the session.
        number: u64,
        /// The sender's wall clock, for clock skew. Untrusted.
        sent_ms: u64,
    },
    /// The answer to a heartbeat.
    HeartbeatReply {
        /// The heartbeat's number.
        number: u64,
        /// The answering side's wall clock. Untrusted.
        sent_ms: u64,
    },
    /// Dialler: from now on new keys come from this secret generation.
    Generation {
        /// One more than the current.
        generation: u16,
    },
    /// Listener: the announced generation is in use here.
    GenerationReady {
        /// The announced generation.
        generation: u16,
    },
    /// What the sender of this frame lets its reader do; for people, nothing is decided by it.
    Granted {
        /// Each in its text form, at most 64.
        grants: Vec<String>,
    },
    /// Where the sender of this frame is to be dialled from now on.
    Addresses {
        /// As in the handshake; an empty list takes nothing back.
        addresses: Vec<String>,
    },
    /// The newest epoch of its reader that the sender of this frame has seen, told when the reader
    /// shows an older one: it runs on a copy, or its store was set back.
    SeenEpoch {
        /// By its sender's word.
        epoch: Epoch,
    },
    /// The session ends by intent.
    Goodbye {
        /// Why, in a form that steers the retry.
        class: ErrorClass,
        /// At most 256 bytes, no control characters.
        reason: String,
    },
}
