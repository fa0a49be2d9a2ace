//! How everything stands once the faults are over and nothing moves any more.
//!
//! Read from each machine by whoever ends the run; pure data.

use std::collections::BTreeMap;

use packhorse_actors::store::{DeadState, ReceiptId, ReceiptState};
use packhorse_protocol::epoch::Position;

use crate::ledger::Depths;
use crate::plan::{Node, Op};

/// The end of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Final {
    /// When it was read, in virtual time.
    pub(crate) at_ms: u64,
    /// What still moved when the time was up; `None` when nothing did before.
    pub(crate) unrest: Option<String>,
    /// By index of the machine.
    pub(crate) nodes: Vec<NodeFinal>,
}

/// One machine at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFinal {
    /// When it was read, in virtual time.
    pub(crate) read_ms: u64,
    pub(crate) outbox: Vec<OutRow>,
    pub(crate) inbox: Vec<InRow>,
    pub(crate) letters: Vec<LetterRow>,
    pub(crate) letters_in: Vec<InRow>,
    /// Of every receipt that the ledger names for this machine.
    pub(crate) receipts: BTreeMap<ReceiptId, Option<ReceiptEnd>>,
    /// What waits for each peer, by lane.
    pub(crate) waiting: Vec<(Node, [u64; 2])>,
    /// What the store counts for outbox, inbox, dead letters of both kinds, in bytes.
    pub(crate) held: [u64; 3],
    /// Why new work is refused now.
    pub(crate) shortages: Vec<String>,
    /// The least of a few looks, because timers tick also at rest.
    pub(crate) depths: Depths,
    /// Every actor of the census: its name, whether it runs.
    pub(crate) actors: Vec<(String, bool)>,
    /// Peers with which the board shows a session.
    pub(crate) connected: Vec<Node>,
    /// Arrivals of the inbox that somebody has.
    pub(crate) leased: Vec<u64>,
    /// Records that were found and do not open.
    pub(crate) quarantined: u64,
}

impl NodeFinal {
    /// It ran and could be asked.
    pub(crate) fn is_read(&self) -> bool {
        !self.actors.is_empty()
    }
}

/// A message that waits for its recipient.
#[derive(Clone, Debug)]
pub(crate) struct OutRow {
    pub(crate) to: Node,
    pub(crate) id: ReceiptId,
    pub(crate) op: Option<Op>,
    pub(crate) weight: u64,
}

/// A message that arrived: it waits, or was given up here.
#[derive(Clone, Debug)]
pub(crate) struct InRow {
    pub(crate) from: Node,
    /// Where it waits; 0 for one that was given up.
    pub(crate) arrival: u64,
    pub(crate) position: Position,
    pub(crate) op: Option<Op>,
    pub(crate) topic: String,
    pub(crate) weight: u64,
    pub(crate) is_intact: bool,
    /// For how long it is kept back still, by the wall clock, before anybody is handed it again.
    pub(crate) kept_back_ms: u64,
    /// Why it was given up.
    pub(crate) reason: String,
}

/// A dead letter of a message that was accepted here.
#[derive(Clone, Debug)]
pub(crate) struct LetterRow {
    pub(crate) to: Node,
    pub(crate) id: ReceiptId,
    pub(crate) op: Option<Op>,
    pub(crate) state: DeadState,
    pub(crate) is_open: bool,
    pub(crate) code: u16,
    /// When it was given up and when it was born, by the wall clock.
    pub(crate) at_ms: u64,
    pub(crate) born_ms: u64,
    pub(crate) weight: u64,
}

/// A receipt as it was read last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReceiptEnd {
    pub(crate) state: ReceiptState,
    pub(crate) reason: Option<String>,
}
