//! What travels: messages, the frames of a lane, the frames of the control stream.
//!
//! These types say nothing about bytes; `codec.rs` does.
//! Read [`Message`], then [`LaneFrame`] from top to bottom: that is the order of a session.

use bincode::{Decode, Encode};

use crate::epoch::{Epoch, Mark, Refusal, Span};

/// How hard a message is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum DeliveryClass {
    /// Until delivered.
    Critical,
    /// A retry budget, then dead letter.
    Moderate,
    /// Now or never, not stored.
    Ephemeral,
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
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.topic.len() + headers + self.payload.len()
    }
}

/// A frame on a lane's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneFrame {
    /// Sender, first: what it holds, per epoch, in (boot, nonce) order.
    Start(Vec<Span>),
    /// Receiver, in answer: how far it is in each of those epochs, and what it refused.
    Marks {
        /// One per epoch of Start.
        marks: Vec<Mark>,
        /// Every refusal the sender has not confirmed.
        refusals: Vec<Refusal>,
    },
    /// Sender: everything of `epoch` below `first` that is not settled will never come.
    Base {
        /// The epoch.
        epoch: Epoch,
        /// The next sequence that will come.
        first: u64,
    },
    /// Sender: consecutive messages.
    Batch {
        /// The epoch.
        epoch: Epoch,
        /// Sequence of the first message.
        first: u64,
        /// The messages, without a gap.
        messages: Vec<Message>,
    },
    /// Receiver: settled up to here, durably.
    Acknowledge {
        /// How far.
        mark: Mark,
        /// Every refusal the sender has not confirmed.
        refusals: Vec<Refusal>,
    },
    /// Sender: these refusals are dead letters now, durably; the receiver may forget them.
    Confirm(Vec<(Epoch, u64)>),
    /// Receiver: no window until Resumed; counts as no failed attempt.
    Paused {
        /// What a person is told.
        reason: String,
    },
    /// Receiver: go on.
    Resumed,
}

/// A frame on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
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
    /// The session ends by intent.
    Goodbye {
        /// A number of the handshake's error classes.
        class: u16,
        /// At most 256 bytes, no control characters.
        reason: String,
    },
}
