//! Two nodes that have a link make a session: Hello, Reply, Proof, Verdict.
//!
//! Both sides prove their node ids, agree on a secret that neither a recorder with a quantum
//! computer nor the link itself knows, and the responder says whether it wants the dialler.
//! Nothing here waits, reads a clock, draws randomness or decides whom to accept.
//!
//! Read [`Initiator`] and [`Responder`]: each step consumes the one before it, so no step can
//! be taken twice, and dropping a step at any point wipes its secrets.
//! The four layouts stand in `hello.rs`, `reply.rs`, `proof.rs` and `verdict.rs`, the keys in
//! `schedule.rs`.
//!
//! ```text
//! dialler                                  responder
//!   Hello    versions, keys, knock      →
//!            ←  Reply    keys, sealed: who I am, signature
//!   Proof    sealed: who I am, signature, ticket or request  →
//!            ←  Verdict  sealed: accepted or refused
//! ```

mod fields;
mod hello;
mod initiator;
mod proof;
mod reply;
mod responder;
mod schedule;
mod verdict;

use std::fmt;

pub use hello::HELLO_BYTES;
pub use initiator::{Answer, AwaitVerdict, Initiator};
pub use proof::PROOF_BYTES;
pub use reply::{NO_COMMON_VERSION_BYTES, REPLY_BYTES, answer_bytes};
pub use responder::{AwaitProof, Decision, HelloRejected, Responder};
pub use verdict::{VERDICT_BYTES, VerdictRefusal};

use crate::epoch::Epoch;
use crate::error_class::ErrorClass;
use crate::limits::{REQUEST_BYTES_MAX, VERSION_HIGHEST, VERSION_LOWEST};
use crate::node_id::{BadSignature, NodeId, NodeIdError};
use crate::secret::Secret;
use crate::text::{self, TextError};
use crate::ticket::TicketKey;

/// What carries the streams. Both ends must see the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// QUIC; the binding is the TLS exporter's value.
    Quic = 1,
    /// WebSocket, with or without TLS; the binding is 32 bytes that the listener sent first.
    WebSocket = 2,
}

/// What a node says about itself in Proof or Verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// 1 to 64 bytes.
    pub name: String,
    /// Where it may be dialled, at most four.
    pub addresses: Vec<String>,
    /// The open store's epoch.
    pub epoch: Epoch,
}

impl Local {
    fn check(&self) -> Result<(), TextError> {
        text::check_name(&self.name)?;
        text::check_addresses(&self.addresses)
    }
}

/// What was learnt about the other side. Only `id` is proven; the rest is what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Whose signature was verified.
    pub id: NodeId,
    /// Its name for itself, checked for length and characters.
    pub name: String,
    /// Where it says it may be dialled, checked for length and characters.
    pub addresses: Vec<String>,
    /// Its open store's epoch.
    pub epoch: Epoch,
}

/// Why and how this dial is made.
#[derive(Clone, Debug)]
pub struct DialIntent {
    /// Rises with every dial of this boot; among sessions of one dialler the higher one wins.
    pub dial_counter: u64,
    /// The session with this peer that the dialler still regards as alive.
    pub alive: Option<SessionId>,
    /// How to become a peer, for who is none yet.
    pub pairing: Option<Pairing>,
}

/// How a dialler that is no peer yet asks to become one.
#[derive(Clone, Debug)]
pub enum Pairing {
    /// It shows a ticket.
    Ticket {
        /// Which ticket.
        ticket_id: [u8; 16],
        /// What proves it.
        key: TicketKey,
    },
    /// It has none and asks: what a person there reads, at most 256 bytes, perhaps none.
    Request {
        /// The text.
        text: String,
    },
}

impl Pairing {
    fn check(&self) -> Result<(), TextError> {
        match self {
            Pairing::Ticket { .. } => Ok(()),
            Pairing::Request { text } => text::check("request", text, REQUEST_BYTES_MAX),
        }
    }
}

/// The name of a session: the first 16 bytes of its transcript hash T3. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// The secret of a session; every stream key comes from it. Wiped when dropped.
#[derive(Debug)]
pub struct SessionSecret(pub(crate) Secret);

impl SessionSecret {
    /// A session secret out of thin air, for tests and benches of what comes after a handshake.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::copy_of(bytes))
    }
}

/// What both ends have after an accepted Verdict.
#[derive(Debug)]
pub struct Established {
    /// The session's name.
    pub session: SessionId,
    /// The session's secret.
    pub secret: SessionSecret,
    /// What two people compare after a pairing.
    pub compare: String,
}

/// Why a handshake ended without a Verdict. The link is closed; nothing more is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The other end is this node itself, or says that it is.
    #[error("the other side has this node's own id")]
    OwnId,
    /// What this node says about itself breaks a limit, or what the other side says does.
    #[error(transparent)]
    Text(#[from] TextError),
    /// What this node grants does not fit into a Verdict.
    #[error("the grants do not fit into a verdict: {count} grants, {bytes} bytes")]
    Grants {
        /// How many grants.
        count: usize,
        /// How much text.
        bytes: usize,
    },
    /// A message of another length than it must have.
    #[error("{message} is {bytes} bytes long, it must be {expected}")]
    Length {
        /// Which message.
        message: &'static str,
        /// Its length.
        bytes: usize,
        /// The length it must have.
        expected: usize,
    },
    /// The answer to Hello is neither Reply nor a version answer.
    #[error("unknown answer {0} to hello")]
    UnknownAnswer(u8),
    /// The responder speaks other versions. It said so unauthenticated: believe it slowly.
    #[error(
        "no common version: the other side speaks versions {lowest} to {highest}, this node {VERSION_LOWEST} to {VERSION_HIGHEST}"
    )]
    NoCommonVersion {
        /// Its lowest version.
        lowest: u16,
        /// Its highest version.
        highest: u16,
    },
    /// The responder chose a version that was not offered.
    #[error("the other side chose version {0}, which was not offered")]
    Version(u16),
    /// The X25519 secret came out as zero: the other side sent a point of low order.
    #[error("the key agreement gave a zero secret")]
    WeakExchange,
    /// A sealed part does not open: tampered with, or not meant for this handshake.
    #[error("{message} cannot be opened")]
    Sealed {
        /// Which message.
        message: &'static str,
    },
    /// Somebody else answered, with a valid handshake.
    #[error("{actual} answered instead of {expected}")]
    WrongResponder {
        /// Who was dialled.
        expected: NodeId,
        /// Who answered.
        actual: NodeId,
    },
    /// The other side's id is no usable key.
    #[error(transparent)]
    Id(#[from] NodeIdError),
    /// The other side does not own the id it shows.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// A field holds what this version does not allow.
    #[error("the field `{field}` of {message} is malformed")]
    Malformed {
        /// Which message.
        message: &'static str,
        /// Which field.
        field: &'static str,
    },
}

impl HandshakeError {
    /// How the attempt is to be counted and retried.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            HandshakeError::OwnId
            | HandshakeError::Sealed { .. }
            | HandshakeError::WrongResponder { .. }
            | HandshakeError::WeakExchange
            | HandshakeError::Id(_)
            | HandshakeError::Signature(_) => ErrorClass::Authentication,
            HandshakeError::Text(_)
            | HandshakeError::Length { .. }
            | HandshakeError::UnknownAnswer(_)
            | HandshakeError::NoCommonVersion { .. }
            | HandshakeError::Version(_)
            | HandshakeError::Malformed { .. } => ErrorClass::Protocol,
            HandshakeError::Grants { .. } => ErrorClass::Internal,
        }
    }
}
