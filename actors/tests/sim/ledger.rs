//! What clients asked, were told and saw, in the order in which it happened.
//!
//! Everything is one list of entries, so that a trace is the ledger itself. It judges nothing.
//! Whoever writes translates what the node says: peers stand here by their index in the plan, and
//! messages by their op.
//!
//! INVARIANT: what is asked is noted before the call and what is answered behind it, so that a
//! question without an answer is one whose outcome nobody knows.
//!
//! Read [`What`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packhorse_actors::store::{DeadState, ReceiptId, ReceiptState};
use packhorse_protocol::epoch::{Epoch, Position};

use crate::plan::{Node, Op};

/// Numbers the questions of all clients, so that an answer finds its question.
pub(crate) type Call = u64;

/// Which process of which machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) node: Node,
    /// Counts the starts of the process, from 1.
    pub(crate) life: u32,
    /// It is a second machine that runs on a copy of the disk.
    pub(crate) is_copy: bool,
}

/// Something that was noted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Virtual time since the run began.
    pub(crate) at_ms: u64,
    pub(crate) place: Place,
    pub(crate) what: What,
}

/// What was noted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    // The process.
    /// It runs, under this epoch.
    Started { epoch: Epoch },
    /// It runs no more; why, for people.
    Ended { how: String },
    /// Its disk is the one that was copied then; everything since is undone. Noted before it starts.
    SetBack { copied_ms: u64 },
    /// A second machine begins with the disk of then. Its own entries say `is_copy`.
    CopyBegun { copied_ms: u64 },
    /// The second machine is gone for ever.
    CopyOver,
    /// A fault of the plan, by its index, begins or is over.
    Fault { index: usize, is_over: bool },

    // Sending.
    /// A client hands letters in.
    Asked { call: Call, to: Node, ops: Vec<Op> },
    /// And is told about all of them.
    Answered { call: Call, answer: Answer },
    /// An ephemeral letter is handed in.
    AskedEphemeral { call: Call, to: Node, op: Op },
    /// It went into a session, or why not.
    AnsweredEphemeral {
        call: Call,
        sent: Result<(), String>,
    },

    // Consumers.
    /// A consumer was handed a message.
    Saw(Seen),
    /// A worker says that it begins.
    Beginning { call: Call, arrival: u64 },
    /// The number of the attempt.
    Begun { call: Call, attempt: Said<u32> },
    /// A consumer says what became of messages.
    Settling {
        call: Call,
        arrivals: Vec<u64>,
        verdict: Verdict,
    },
    /// What the inbox made of it.
    Settled { call: Call, outcome: Said<Outcome> },
    /// Somebody gave messages back that were not looked at.
    Released { arrivals: Vec<u64> },

    // By hand.
    /// Asked for: everything of a kind that changes what the rules expect.
    Doing { call: Call, deed: ByHand },
    /// How it went: how many, where it counts something.
    Did { call: Call, answer: Said<u64> },
    /// A dead letter is accepted anew under another receipt.
    Retried { call: Call, answer: Said<ReceiptId> },

    // Observers.
    /// A receipt was read.
    Receipt {
        id: ReceiptId,
        state: Option<ReceiptState>,
        reason: Option<String>,
    },
    /// A row of the outbox was seen.
    OutRow {
        to: Node,
        id: ReceiptId,
        op: Option<Op>,
    },
    /// A row of the inbox was seen.
    InRow {
        from: Node,
        arrival: u64,
        position: Position,
        op: Option<Op>,
    },
    /// A dead letter was seen.
    Letter {
        to: Node,
        id: ReceiptId,
        op: Option<Op>,
        state: DeadState,
        code: u16,
    },
    /// An event was read under its number.
    Event {
        number: u64,
        event_ms: u64,
        kind: &'static str,
        peer: Option<Node>,
        text: String,
    },
    /// An actor's life, as the probe tells it.
    Life {
        actor: String,
        incarnation: u64,
        life: Life,
    },
    /// The probe was not heard for a while.
    LifeMissed,
    /// A session asks the store to write for it. Only where the tree says so.
    SessionWork {
        actor: String,
        incarnation: u64,
        what: &'static str,
    },
    /// How full everything is.
    Depth(Depths),
}

/// The answer to a question that may be refused, or of which the outcome stays unknown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said<T> {
    Yes(T),
    /// Nothing was done.
    No(String),
    /// It was done or not.
    Unknown(String),
}

/// What a client is told about letters that it handed in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// All of them, in their order.
    Accepted(Vec<AcceptedHere>),
    /// None of them.
    Refused(Refusal),
    /// All or none.
    Unknown(String),
}

/// One of the letters that were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedHere {
    pub(crate) op: Op,
    pub(crate) id: ReceiptId,
    pub(crate) state: ReceiptState,
    pub(crate) repeated: bool,
}

/// Why letters were not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    KeyConflict,
    TooLate,
    Full,
    Expired,
    NoSuchPeer,
    /// The store is closed or takes no more writes; the job was certainly not carried out.
    Closed,
    Other(String),
}

/// A message in a consumer's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) topic: String,
    pub(crate) arrival: u64,
    pub(crate) from: Node,
    pub(crate) position: Position,
    pub(crate) op: Option<Op>,
    /// It is byte for byte what the letter says.
    pub(crate) is_intact: bool,
    pub(crate) token: u64,
    pub(crate) lease_ms: u64,
    pub(crate) attempts: u32,
    pub(crate) failures: u32,
    pub(crate) is_worker: bool,
    pub(crate) is_ephemeral: bool,
}

/// What a consumer says of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A reader took them.
    Acknowledged,
    Done,
    Retry,
    Failed,
    Dead,
}

impl Verdict {
    /// Whether it asks for the message to leave, whoever has it.
    pub(crate) const fn is_last(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Done | Self::Dead)
    }
}

/// What the inbox made of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Later,
    Dead,
    Gone,
    LeaseLost,
}

/// What a person does by hand.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ByHand {
    /// Makes waiting messages dead letters: these, or all that match.
    DropWaiting {
        to: Option<Node>,
        ids: Vec<ReceiptId>,
    },
    RetryDead {
        id: ReceiptId,
    },
    DropDead {
        id: ReceiptId,
    },
    RetryDeadIn {
        from: Node,
        position: Position,
    },
    DropDeadIn {
        from: Node,
        position: Position,
    },
    Revoke {
        from: Node,
        grant: String,
    },
    Grant {
        to: Node,
        grant: String,
    },
    Forget {
        peer: Node,
    },
    /// Allows the identity again and pairs, with these grants.
    Readmit {
        peer: Node,
        grants: Vec<String>,
    },
}

/// The stations of an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Started,
    Exited(String),
    Restarting,
    GivenUp,
}

/// How full queues are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depths {
    pub(crate) jobs: usize,
    pub(crate) job_bytes: usize,
    /// The deepest mailbox, and whose.
    pub(crate) mailbox: (u64, String),
    pub(crate) outbox_bytes: u64,
    pub(crate) inbox_bytes: u64,
    pub(crate) dead_bytes: u64,
    pub(crate) half_open: usize,
    pub(crate) cheap: usize,
    pub(crate) costly: usize,
}

/// All that was noted, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: Vec<Entry>,
    calls: Call,
}

impl Ledger {
    /// Notes something.
    pub(crate) fn note(&mut self, at_ms: u64, place: Place, what: What) {
        self.entries.push(Entry { at_ms, place, what });
    }

    /// Every receipt of a machine that anything here names: to be read at the end.
    pub(crate) fn receipts_of(&self, node: Node) -> BTreeSet<ReceiptId> {
        let of_node = self
            .entries
            .iter()
            .filter(|entry| entry.place.node == node && !entry.place.is_copy);
        let ids = of_node.flat_map(|entry| match &entry.what {
            What::Answered {
                answer: Answer::Accepted(accepted),
                ..
            } => accepted.iter().map(|one| one.id).collect(),
            What::Retried {
                answer: Said::Yes(id),
                ..
            } => vec![*id],
            What::OutRow { id, .. } | What::Letter { id, .. } | What::Receipt { id, .. } => {
                vec![*id]
            }
            _ => Vec::new(),
        });
        ids.collect()
    }

    /// A number for the next question.
    pub(crate) fn call(&mut self) -> Call {
        self.calls += 1;
        self.calls
    }
}

/// The ledger as all tasks of a run share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    pub(crate) fn note(&self, at_ms: u64, place: Place, what: What) {
        self.lock().note(at_ms, place, what);
    }

    pub(crate) fn call(&self) -> Call {
        self.lock().call()
    }

    /// What was noted so far.
    pub(crate) fn read(&self) -> MutexGuard<'_, Ledger> {
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copy = if self.is_copy { " copy" } else { "" };
        write!(out, "node {}.{}{copy}", self.node, self.life)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:>7} {}: {:?}", self.at_ms, self.place, self.what)
    }
}
