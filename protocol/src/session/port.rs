//! What goes into a session and what comes out of it.
//!
//! Everything a session learns is an [`Input`], everything it wants is an [`Output`]; there
//! is no third way. Each request to the store is answered by exactly one input, which the
//! documentation of the request names; until then no second request of the same kind is made
//! for the same lane.

use std::sync::Arc;

use crate::epoch::{Epoch, Lane, Mark, Position, Refusal, Span};
use crate::error_class::ErrorClass;
use crate::message::{ControlFrame, ReceiverFrame, SenderFrame};
use crate::outbox::{Inbound, Row};

/// What a session learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A frame of the control stream.
    Control(ControlFrame),
    /// A frame on the lane stream that the peer opened.
    FromSender(Lane, SenderFrame),
    /// A frame on the lane stream that this side opened.
    FromReceiver(Lane, ReceiverFrame),
    /// The peer's bytes could not be read, opened or accepted: the text of the error.
    Malformed(String),
    /// Answers [`Output::ReadLines`]: every epoch with waiting rows or with dead letters that
    /// may have been delivered, the one this node numbers under now, and the newest one of
    /// which anything was acknowledged.
    Lines {
        /// The lane.
        lane: Lane,
        /// In any order.
        spans: Vec<Span>,
    },
    /// Answers [`Output::Load`].
    Rows {
        /// The lane.
        lane: Lane,
        /// Rows that exist, in (boot, sequence) order; empty only with `exhausted`. That they
        /// may leave this node, and that missing ones between them never did, is durable.
        rows: Vec<Row>,
        /// Nothing lies behind the last of them.
        exhausted: bool,
    },
    /// Answers [`Output::Settle`]: committed.
    Settled {
        /// The lane.
        lane: Lane,
    },
    /// Answers [`Output::ReadMarks`].
    MarksRead {
        /// The lane.
        lane: Lane,
        /// One per epoch asked for; a missing one is at 0.
        marks: Vec<Mark>,
        /// Every unconfirmed refusal of this peer and lane, of any epoch.
        refusals: Vec<Refusal>,
    },
    /// Answers [`Output::Store`]: committed.
    Stored {
        /// The lane.
        lane: Lane,
        /// The mark now of every epoch the request touched.
        marks: Vec<Mark>,
        /// Every unconfirmed refusal among the sequences of the request, also of those that
        /// had been settled before.
        refusals: Vec<Refusal>,
    },
    /// Answers [`Output::Store`]: full, nothing was committed. The machine asks again.
    StorePaused {
        /// The lane.
        lane: Lane,
        /// What people on both sides are told.
        reason: String,
    },
    /// Answers [`Output::Confirm`]: committed.
    Confirmed {
        /// The lane.
        lane: Lane,
    },
    /// New rows of the outbox are durable.
    Grew {
        /// The lane.
        lane: Lane,
    },
    /// The peer gets another window on this lane than the full one.
    Grant {
        /// The lane.
        lane: Lane,
        /// Messages.
        messages: u32,
        /// Bytes.
        bytes: u32,
    },
    /// A request to the store failed for good, or another fault of this side.
    Failed(String),
    /// A stream beside control and lanes brought a frame: the peer lives.
    Heard,
    /// Somebody wants to know the round trip now: a heartbeat goes out at once.
    Ping,
    /// End by intent: take nothing new, finish the commit that is out, say goodbye.
    Drain,
    /// Time has passed.
    Tick,
    /// The link is gone: why.
    LinkLost(String),
}

impl Input {
    /// The lane it concerns, if one.
    #[must_use]
    pub const fn lane(&self) -> Option<Lane> {
        match self {
            Input::FromSender(lane, _)
            | Input::FromReceiver(lane, _)
            | Input::Lines { lane, .. }
            | Input::Rows { lane, .. }
            | Input::Settled { lane }
            | Input::MarksRead { lane, .. }
            | Input::Stored { lane, .. }
            | Input::StorePaused { lane, .. }
            | Input::Confirmed { lane }
            | Input::Grew { lane }
            | Input::Grant { lane, .. } => Some(*lane),
            Input::Control(_)
            | Input::Malformed(_)
            | Input::Failed(_)
            | Input::Heard
            | Input::Ping
            | Input::Drain
            | Input::Tick
            | Input::LinkLost(_) => None,
        }
    }
}

/// What a session wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A frame for the control stream.
    SendControl(ControlFrame),
    /// A frame for my lane stream, to the peer's receiving end.
    SendToReceiver(Lane, SenderFrame),
    /// A frame for the peer's lane stream, to its sending end.
    SendToSender(Lane, ReceiverFrame),
    /// To the store: what is held, per epoch. Answer: [`Input::Lines`].
    ///
    /// The read must see every `Settle` that earlier sessions with this peer have handed over,
    /// so it goes through the writer's queue. Otherwise such a late one deletes rows that
    /// Start calls waiting, and a recipient that was set back loses them without a report.
    ReadLines {
        /// The lane.
        lane: Lane,
    },
    /// To the store: waiting rows, oldest first. Answer: [`Input::Rows`].
    Load {
        /// The lane.
        lane: Lane,
        /// Only rows above this; all when `None`.
        after: Option<Position>,
        /// Most rows.
        count_max: usize,
        /// Most bytes of weight, except that the first row always comes.
        bytes_max: usize,
    },
    /// To the store: turn refused rows into dead letters, then delete the rows at or below
    /// the marks, in one commit. Answer: [`Input::Settled`].
    Settle {
        /// The lane.
        lane: Lane,
        /// The first of this session on this lane, straight after Marks: it names the mark of
        /// every epoch of Start, moved or not. Nothing above them is at the recipient and
        /// nothing is on its way, so the store settles by it what it did not know the end of.
        opening: bool,
        /// Highest acknowledged sequence per epoch.
        marks: Vec<Mark>,
        /// What the recipient refused. One without a row was settled before: nothing to do.
        refusals: Vec<Refusal>,
    },
    /// To the store: how far the peer's epochs have come. Answer: [`Input::MarksRead`].
    ///
    /// The read must see every `Store` that earlier sessions with this peer have handed over,
    /// so it goes through the writer's queue. Otherwise such a late one refuses messages that
    /// this session then acknowledges as stored.
    ReadMarks {
        /// The lane.
        lane: Lane,
        /// The epochs asked for.
        epochs: Vec<Epoch>,
    },
    /// To the store: commit these steps. Answer: [`Input::Stored`] or [`Input::StorePaused`].
    ///
    /// Shared, so that a store that was full can be asked again without copying a payload.
    Store {
        /// The lane.
        lane: Lane,
        /// The steps, in order.
        items: Arc<Vec<Inbound>>,
    },
    /// To the store: forget these refusals. Answer: [`Input::Confirmed`].
    Confirm {
        /// The lane.
        lane: Lane,
        /// (epoch, sequence) of each.
        refusals: Vec<(Epoch, u64)>,
    },
    /// Derive this generation: the peer may open streams under it from now on.
    AdvanceGeneration {
        /// One more than before.
        generation: u16,
    },
    /// The peer has derived this generation too: open streams under it, rekey live ones.
    UseGeneration {
        /// The one of the last `AdvanceGeneration`.
        generation: u16,
    },
    /// Nothing needs the secret of this generation any more.
    EraseGeneration {
        /// One less than the current one.
        generation: u16,
    },
    /// A heartbeat came back.
    RoundTrip {
        /// The heartbeat's number.
        number: u64,
        /// How long it took.
        ms: u64,
        /// The peer's wall clock minus ours, by its word. Untrusted.
        skew_ms: i64,
    },
    /// A fact for people, metrics and the retry scheduler.
    Event(SessionEvent),
    /// The last output: flush, then close the link with this class.
    Close {
        /// Who has to act.
        class: ErrorClass,
        /// For people, and for the peer.
        reason: String,
    },
}

/// A fact about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Both lanes have started in both directions.
    Ready,
    /// What the peer lets this node do, by its word.
    Granted {
        /// Each in its text form. Unchecked.
        grants: Vec<String>,
    },
    /// Where the peer is to be dialled from now on, by its word.
    Addresses {
        /// Within the limits of the handshake's.
        addresses: Vec<String>,
    },
    /// The peer has seen this epoch of ours, and regards it as newer than the one we show.
    SeenEpoch {
        /// By the peer's word. Unchecked.
        epoch: Epoch,
    },
    /// The peer said goodbye.
    PeerLeaves {
        /// Why, in a form that steers the retry.
        class: ErrorClass,
        /// Why, in its words.
        reason: String,
    },
    /// As sender: the peer had acknowledged `from..=to` and no longer has it.
    PeerRolledBack {
        /// The lane.
        lane: Lane,
        /// One of our epochs.
        epoch: Epoch,
        /// First lost sequence.
        from: u64,
        /// Last lost sequence.
        to: u64,
    },
    /// As recipient: by the peer's word we had acknowledged `from..=to`, and we no longer
    /// have it.
    RolledBack {
        /// The lane.
        lane: Lane,
        /// One of the peer's epochs.
        epoch: Epoch,
        /// First lost sequence.
        from: u64,
        /// Last lost sequence.
        to: u64,
    },
    /// As recipient: the peer once numbered up to `mark` in an epoch whose last sequence it
    /// now believes to be `last`: it runs on a copy or an older state of its store.
    PeerOnCopy {
        /// The lane.
        lane: Lane,
        /// One of the peer's epochs.
        epoch: Epoch,
        /// The last it knows of.
        last: u64,
        /// The last we settled.
        mark: u64,
    },
    /// As sender: the same about ourselves. If `epoch` is the one this node numbers under
    /// now, the store must be opened again before it accepts more.
    OnCopy {
        /// The lane.
        lane: Lane,
        /// One of our epochs.
        epoch: Epoch,
        /// The last we know of.
        last: u64,
        /// The last the peer settled.
        mark: u64,
    },
    /// As sender: the peer takes nothing for now; counts as no failed attempt.
    PeerPaused {
        /// The lane.
        lane: Lane,
        /// Why, in the peer's words.
        reason: String,
    },
    /// As sender: the peer takes messages again.
    PeerResumed {
        /// The lane.
        lane: Lane,
    },
    /// As recipient: our store takes nothing for now.
    StorePaused {
        /// The lane.
        lane: Lane,
        /// Why.
        reason: String,
    },
    /// As recipient: our store takes messages again.
    StoreResumed {
        /// The lane.
        lane: Lane,
    },
}
