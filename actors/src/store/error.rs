//! What can go wrong with the store, one enum per kind of call.
//!
//! Opening, a job's refusal, and a call on the running store are three questions with three
//! answers. "It may have happened" is always its own variant.
//!
//! Read [`StoreError`] first: it is what callers see.

use std::path::PathBuf;

use packhorse_protocol::grant::GrantError;
use packhorse_protocol::limits::KEY_BYTES_MAX;
use packhorse_protocol::message::MessageFault;
use packhorse_protocol::node_id::NodeId;
use packhorse_protocol::text::TextError;

use super::space::{Bytes, Shortage};
use super::tables::asking::ASKINGS_MAX;
use super::tables::invites::TicketRefusal;
use super::tables::peers::PeerNumber;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process holds the store. Stop it, or name another data folder.
    #[error("the store in {} is held by another process", .folder.display())]
    Locked {
        /// The data folder.
        folder: PathBuf,
    },
    /// The store was sealed under another secret. Put the `identity.key` back that belongs to it.
    #[error("the store in {} was sealed under another key", .folder.display())]
    WrongKey {
        /// The data folder.
        folder: PathBuf,
    },
    /// The key is right and something does not read. Restore a backup, or look with `doctor`.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What does not read.
        what: String,
    },
    /// Commits that were durable are gone. The journals as they were found lie in `aside`.
    #[error("commits are lost: {recovered} recovered, {marked} were durable; the journals as they were found are kept in {}", .aside.display())]
    LostCommits {
        /// Number of the last commit that could be read.
        recovered: u64,
        /// Number of the last commit that had been made durable.
        marked: u64,
        /// Where the journals were copied before anything touched them.
        aside: PathBuf,
    },
    /// No room is left on the disk for opening. Nothing is lost; make room and start again.
    #[error("the disk under {} is full ({} free): make room on it and start again; what the store holds is safe", .folder.display(), Bytes(*.free))]
    Full {
        /// The data folder.
        folder: PathBuf,
        /// Bytes free on it, the reserve given up.
        free: u64,
    },
    /// A newer version of this program wrote the store. Use that version, or a newer one.
    #[error("the store has format {found}, this version knows {known}")]
    TooNew {
        /// The store's format.
        found: u16,
        /// The newest format known here.
        known: u16,
    },
    /// Others may read or write what only this user should. Run `fix`.
    #[error("{} has mode {mode:04o}, which is too wide; run: {fix}", .path.display())]
    WideMode {
        /// The folder or file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The command that mends it.
        fix: String,
    },
    /// The operating system refused. The message says what was tried.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it answered.
        source: std::io::Error,
    },
}

/// Why a job wrote nothing. It was decided on the writer thread and harms no other job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No peer has this number. It was never paired with.
    #[error("there is no peer number {}", .0.0)]
    NoSuchPeer(PeerNumber),
    /// The idempotency key was used with other bytes. Use another key, or send the same bytes.
    #[error("the key was used before for a message with other content (receipt {receipt})")]
    KeyConflict {
        /// The receipt of the message that has the key.
        receipt: String,
    },
    /// The message with this key may have left this node already, so it is not replaced. Send
    /// another one under another key.
    #[error("too late to replace: the message may have left this node (receipt {receipt})")]
    TooLate {
        /// The receipt of the message that has the key.
        receipt: String,
    },
    /// There is no dead letter of this receipt. It was retried, dropped, or never given up.
    #[error("there is no dead letter {receipt}")]
    NoSuchLetter {
        /// The receipt.
        receipt: String,
    },
    /// It is not known yet whether the dead letter was delivered. The next session with the peer
    /// tells; retry then.
    #[error("the letter {receipt} may have been delivered; the next session with the peer tells")]
    Unsettled {
        /// The receipt.
        receipt: String,
    },
    /// The dead letter's message does not open any more, so there is nothing to send again.
    #[error("the message of the letter {receipt} was damaged and cannot be sent again")]
    LetterDamaged {
        /// The receipt.
        receipt: String,
    },
    /// The message is over a limit, or is none. Mend it; over the payload's limit send a file.
    #[error(transparent)]
    Message(MessageFault),
    /// The idempotency key is too long. Use a shorter one.
    #[error("the key has {bytes} bytes, the limit is {KEY_BYTES_MAX}")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The message's own end is over already. Choose a later one, or look at the clock.
    #[error("the message expires at {expires_ms} ms, and it is {now_ms} ms already")]
    ExpiresPast {
        /// Its end, in wall milliseconds.
        expires_ms: u64,
        /// Now, in wall milliseconds.
        now_ms: u64,
    },
    /// Ephemeral messages are never written down.
    #[error("ephemeral messages are not stored")]
    Ephemeral,
    /// The peer left out sequences without saying so. A fault of the peer: close the session.
    #[error("expected sequence {expected}, got {found}")]
    Gap {
        /// The sequence that had to come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// The peer confirms no refusals. Take nothing from it until it does.
    #[error("{waiting} refusals are not confirmed, the limit is {limit}")]
    RefusalsUnconfirmed {
        /// How many.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// The ticket does not pair anybody.
    #[error("{0}")]
    Ticket(TicketRefusal),
    /// More tickets than are kept. Revoke some, or let them expire.
    #[error("{count} tickets, the limit is {limit}")]
    TooManyTickets {
        /// How many there would be.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// What is left of a node that was forgotten is still being put aside. Try again in a moment.
    #[error("what is left of {0} is still being put aside; try again in a moment")]
    StillForgetting(NodeId),
    /// A person forgot or rejected this node, and no ticket overrides that. Allow it first.
    #[error("{0} is denied here")]
    Denied(NodeId),
    /// Nobody with this identity asks to be paired, and nobody with it is asked.
    #[error("there is no request of {0}, and none to it")]
    NoSuchRequest(NodeId),
    /// The node that is to be asked, rejected or denied is a peer. To deny a peer, forget it.
    #[error("already paired with it, as {0:?}")]
    AlreadyPaired(String),
    /// As many nodes are asked as may be at once. Withdraw one.
    #[error("{ASKINGS_MAX} nodes are asked to be paired, which is the limit")]
    TooManyAskings,
    /// Another peer has this name. Choose another.
    #[error("another peer is named {0:?}")]
    NameTaken(String),
    /// A name or an address that cannot be one.
    #[error(transparent)]
    Text(TextError),
    /// More grants for one peer than are kept. Remove some.
    #[error(transparent)]
    Grants(GrantError),
    /// The message is not in the inbox: it was handled or given up.
    #[error("arrival {0} is not in the inbox")]
    NotInInbox(u64),
    /// The sender may send to this topic and may not start a command by it. Grant it `execute`.
    #[error("the sender holds no execute for this topic")]
    NoExecute,
    /// No such dead letter. It was put back or dropped.
    #[error("there is no such dead letter")]
    NoSuchArrivedLetter,
    /// There is no room for new work. What is here is kept, and it is taken again when there is.
    #[error("{0}")]
    Full(Shortage),
    /// The store has given out all its numbers of this kind.
    #[error("no {0} is left")]
    Exhausted(&'static str),
    /// A record that decides this write does not open. Nothing is decided without it.
    #[error("the record {key} does not open")]
    Damaged {
        /// The record's key.
        key: String,
    },
    /// The engine could not read. The next step is the operator's: the disk, or a restart.
    #[error("the store could not be read: {0}")]
    Unreadable(EngineError),
}

/// Why a call on the store gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The job was run and decided against it. Nothing was written.
    #[error(transparent)]
    Refused(Refused),
    /// There is no room for new work. Nothing of it was acknowledged; it is taken again when there
    /// is room.
    #[error("storage is full: {what}")]
    Full {
        /// What is full.
        what: String,
    },
    /// A write failed in the engine, which takes no more. Restart the node.
    #[error("the store takes no more writes after: {cause}")]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// The store is closed. The job was never run.
    #[error("the store is closed")]
    Closed,
    /// The answer was lost: the job may have been done or not. Repeat it under the same key.
    #[error("the answer was lost, the outcome is unknown")]
    Unknown,
    /// A record does not open, though the key is right. It is quarantined and counted.
    #[error("the store is damaged: {what}")]
    Damaged {
        /// What does not read.
        what: String,
    },
    /// The engine could not read.
    #[error("the store could not be read: {0}")]
    Unreadable(EngineError),
}

/// What an engine can fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No space is left on the disk. The engine is poisoned from here on.
    #[error("no space left on the disk")]
    Full,
    /// A write or sync failed, now or earlier.
    #[error("{0}")]
    Poisoned(String),
    /// A read failed.
    #[error("{0}")]
    Read(String),
    /// The power is off (simulation), or the store is closed.
    #[error("the engine is gone")]
    Gone,
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full => Self::Full {
                what: "the disk".into(),
            },
            EngineError::Poisoned(cause) => Self::Poisoned { cause },
            EngineError::Read(_) => Self::Unreadable(error),
            EngineError::Gone => Self::Poisoned {
                cause: error.to_string(),
            },
        }
    }
}

impl From<Refused> for StoreError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Damaged { key } => Self::Damaged {
                what: format!("the record {key}"),
            },
            Refused::Unreadable(error) => error.into(),
            Refused::Full(shortage) => Self::Full {
                what: shortage.to_string(),
            },
            other => Self::Refused(other),
        }
    }
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadFault {
    /// It is there and does not open.
    Damaged {
        /// Its key in hex.
        key: String,
    },
    /// The engine failed.
    Engine(EngineError),
}

impl ReadFault {
    /// Whether the record is what ails, and not the engine as a whole.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Engine(EngineError::Read(_))
        )
    }
}

impl From<EngineError> for ReadFault {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<ReadFault> for Refused {
    fn from(fault: ReadFault) -> Self {
        match fault {
            ReadFault::Damaged { key } => Self::Damaged { key },
            ReadFault::Engine(error) => Self::Unreadable(error),
        }
    }
}

impl From<ReadFault> for StoreError {
    fn from(fault: ReadFault) -> Self {
        Refused::from(fault).into()
    }
}
