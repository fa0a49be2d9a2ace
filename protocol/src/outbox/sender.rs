//! The sending end of one lane.
//!
//! It tells the peer what is held (Start), learns how far the peer is (Marks), settles what
//! is already there, and then keeps the window full: rows come from the store in
//! (boot, sequence) order, leave as batches, and are deleted when their acknowledgement has
//! been committed. It never sends what the store has not made durable, never deletes without
//! an acknowledgement, and holds no copy of a message that is on its way: after a lost link
//! the next session loads it again.
//!
//! Read `Sender::on_marks`, then `Sender::pump`, then `Sender::on_acknowledge`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::epoch::{Epoch, Lane, Mark, Position, Refusal, RefusalCode, Span};
use crate::limits;
use crate::message::{ReceiverFrame, SenderFrame};
use crate::outbox::{Fault, Row};
use crate::session::{Output, SessionEvent};

pub use crate::outbox::phase::SenderPhase;

/// The sending end of one lane, for one session.
#[derive(Debug)]
pub struct Sender {
    lane: Lane,
    phase: SenderPhase,
    /// What Start said, until Marks answers it.
    spans: Vec<Span>,
    lines: BTreeMap<Epoch, Line>,
    /// Loaded and not sent.
    pending: VecDeque<Row>,
    pending_bytes: usize,
    in_flight_messages: usize,
    in_flight_bytes: usize,
    window_messages: usize,
    window_bytes: usize,
    /// The last row that was loaded.
    cursor: Option<Position>,
    load: Load,
    settle: Settle,
    /// Bases that Marks called for, by epoch; each goes out when its epoch has its turn.
    opening_bases: BTreeMap<Epoch, u64>,
    /// Refusals that were settled and confirmed in this session and may still be repeated.
    handled: BTreeSet<(Epoch, u64)>,
    paused: bool,
    stopped: bool,
}

/// One epoch of ours within this session.
#[derive(Debug)]
struct Line {
    /// The next sequence the peer expects; everything below was sent, skipped or settled.
    next: u64,
    acknowledged: u64,
    /// Sequence and weight of what is on its way, oldest first.
    in_flight: VecDeque<(u64, u32)>,
}

/// The reading of rows: at most one request is out.
#[derive(Debug, Default)]
struct Load {
    outstanding: bool,
    /// The store said there is nothing after `cursor`.
    exhausted: bool,
    /// Rows were added while a request was out, so its `exhausted` may be old.
    grew: bool,
}

/// The deleting of rows: at most one request is out, what comes meanwhile is merged.
#[derive(Debug, Default)]
struct Settle {
    outstanding: Option<BTreeSet<(Epoch, u64)>>,
    marks: BTreeMap<Epoch, u64>,
    refusals: BTreeMap<(Epoch, u64), RefusalCode>,
}

impl Sender {
    /// A sender that asks the store for its lines at once.
    pub fn new(lane: Lane, out: &mut VecDeque<Output>) -> Sender {
        out.push_back(Output::ReadLines { lane });
        Sender {
            lane,
            phase: SenderPhase::ReadingLines,
            spans: Vec::new(),
            lines: BTreeMap::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            in_flight_messages: 0,
            in_flight_bytes: 0,
            window_messages: limits::WINDOW_MESSAGES,
            window_bytes: limits::WINDOW_BYTES,
            cursor: None,
            load: Load::default(),
            settle: Settle::default(),
            opening_bases: BTreeMap::new(),
            handled: BTreeSet::new(),
            paused: false,
            stopped: false,
        }
    }

    /// The store's answer to `ReadLines`: Start goes out.
    pub fn on_lines(
        &mut self,
        mut spans: Vec<Span>,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        if self.phase != SenderPhase::ReadingLines {
            return Err(Fault::UnexpectedAnswer { answer: "lines" });
        }
        spans.sort_by_key(|span| span.epoch);
        self.spans.clone_from(&spans);
        self.phase = SenderPhase::AwaitingMarks;
        out.push_back(Output::SendToReceiver(self.lane, SenderFrame::Start(spans)));
        Ok(())
    }

    /// A frame of the peer's receiving end.
    pub fn on_frame(
        &mut self,
        frame: ReceiverFrame,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        use SenderPhase::{AwaitingMarks, Running, Settling};
        match (self.phase, frame) {
            (AwaitingMarks, ReceiverFrame::Marks { marks, refusals }) => {
                self.on_marks(&marks, &refusals, out)
            }
            (Settling | Running, ReceiverFrame::Acknowledge { mark, refusals }) => {
                self.on_acknowledge(mark, &refusals, out)
            }
            // A pause answers something that was sent. One that comes when all of it is
            // acknowledged is over already, and nothing would ever end it.
            (_, ReceiverFrame::Paused { .. }) if !self.is_awaited() => Ok(()),
            (_, ReceiverFrame::Paused { reason }) => {
                self.paused = true;
                out.push_back(Output::Event(SessionEvent::PeerPaused {
                    lane: self.lane,
                    reason,
                }));
                Ok(())
            }
            (_, ReceiverFrame::Resumed) => {
                self.resume(out);
                self.pump(out)
            }
            (_, ReceiverFrame::Window { messages, bytes }) => {
                self.window_messages = (messages as usize).min(limits::WINDOW_MESSAGES);
                self.window_bytes = (bytes as usize).min(limits::WINDOW_BYTES);
                self.pump(out)
            }
            (phase, ReceiverFrame::Marks { .. }) => Err(Fault::OutOfTurn {
                frame: "marks",
                phase: phase.name(),
            }),
            (phase, ReceiverFrame::Acknowledge { .. }) => Err(Fault::OutOfTurn {
                frame: "acknowledge",
                phase: phase.name(),
            }),
        }
    }

    /// The store's answer to `Load`.
    pub fn on_rows(
        &mut self,
        rows: Vec<Row>,
        exhausted: bool,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        if !std::mem::take(&mut self.load.outstanding) {
            return Err(Fault::UnexpectedAnswer { answer: "rows" });
        }
        if rows.is_empty() && !exhausted {
            return Err(Fault::RowsOutOfOrder);
        }
        if self.stopped {
            return Ok(());
        }
        self.load.exhausted = exhausted && !std::mem::take(&mut self.load.grew);
        for row in rows {
            if self.cursor.is_some_and(|cursor| row.position <= cursor) {
                return Err(Fault::RowsOutOfOrder);
            }
            self.cursor = Some(row.position);
            self.pending_bytes += row.message.weight();
            self.pending.push_back(row);
        }
        self.pump(out)
    }

    /// New rows are durable.
    pub fn on_grew(&mut self, out: &mut VecDeque<Output>) -> Result<(), Fault> {
        self.load.exhausted = false;
        self.load.grew = self.load.outstanding;
        self.pump(out)
    }

    /// The store's answer to `Settle`: the rows are gone and the dead letters are written.
    pub fn on_settled(&mut self, out: &mut VecDeque<Output>) -> Result<(), Fault> {
        let Some(refusals) = self.settle.outstanding.take() else {
            return Err(Fault::UnexpectedAnswer { answer: "settled" });
        };
        if !refusals.is_empty() {
            let names: Vec<(Epoch, u64)> = refusals.iter().copied().collect();
            self.handled.extend(refusals);
            out.push_back(Output::SendToReceiver(
                self.lane,
                SenderFrame::Confirm(names),
            ));
        }
        self.settle_next(out);
        if self.phase == SenderPhase::Settling {
            self.phase = SenderPhase::Running;
        }
        self.pump(out)
    }

    /// Loads and sends nothing more; acknowledgements are still settled.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.pending.clear();
        self.pending_bytes = 0;
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> SenderPhase {
        self.phase
    }

    /// Whether Start has been answered.
    #[must_use]
    pub fn is_started(&self) -> bool {
        matches!(self.phase, SenderPhase::Settling | SenderPhase::Running)
    }

    /// Messages that were sent and not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight_messages
    }

    /// Whether the peer said that it takes nothing for now.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    // -----------------------------------------------------------------------------------

    fn on_marks(
        &mut self,
        marks: &[Mark],
        refusals: &[Refusal],
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        let spans = std::mem::take(&mut self.spans);
        let answers = spans.len() == marks.len()
            && spans
                .iter()
                .zip(marks)
                .all(|(span, mark)| span.epoch == mark.epoch);
        if !answers {
            return Err(Fault::MarksMismatch {
                spans: spans.len(),
                marks: marks.len(),
            });
        }
        for (span, mark) in spans.iter().zip(marks) {
            self.begin_line(span, mark.settled, out);
        }
        self.note_refusals(refusals)?;
        // ORDER: rows are loaded only after the settled ones are gone, so that the cursor
        // need not step around them. Sent also when nothing moved: that nothing moved is what
        // the store has to know of letters whose end is open.
        self.phase = SenderPhase::Settling;
        self.settle_now(true, out);
        Ok(())
    }

    /// What one mark says about one epoch that we hold.
    fn begin_line(&mut self, span: &Span, mark: u64, out: &mut VecDeque<Output>) {
        let epoch = span.epoch;
        if mark > span.last {
            let event = SessionEvent::OnCopy {
                lane: self.lane,
                epoch,
                last: span.last,
                mark,
            };
            out.push_back(Output::Event(event));
        }
        if mark < span.acknowledged {
            let event = SessionEvent::PeerRolledBack {
                lane: self.lane,
                epoch,
                from: mark + 1,
                to: span.acknowledged,
            };
            out.push_back(Output::Event(event));
        }
        // INVARIANT: never above the last sequence of Start. What was accepted since then
        // cannot have been settled, whatever a mark says that counts another copy's numbers.
        self.settle.marks.insert(epoch, mark.min(span.last));
        let next = mark.saturating_add(1);
        if next < span.first {
            // ORDER: behind the opening settle. A base raises the recipient's mark over what
            // was given up here; after a crash in between that mark would read as delivered.
            self.opening_bases.insert(epoch, span.first);
        }
        let acknowledged = mark;
        self.lines.insert(
            epoch,
            Line {
                next,
                acknowledged,
                in_flight: VecDeque::new(),
            },
        );
    }

    fn on_acknowledge(
        &mut self,
        mark: Mark,
        refusals: &[Refusal],
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        let Mark { epoch, settled } = mark;
        let line = self
            .lines
            .get_mut(&epoch)
            .ok_or(Fault::UnknownEpoch { epoch })?;
        if settled >= line.next {
            return Err(Fault::AcknowledgedUnsent {
                epoch,
                settled,
                sent: line.next - 1,
            });
        }
        if settled < line.acknowledged {
            let before = line.acknowledged;
            return Err(Fault::AcknowledgedBackwards {
                epoch,
                settled,
                before,
            });
        }
        if settled > line.acknowledged {
            line.acknowledged = settled;
            while let Some(&(sequence, weight)) = line.in_flight.front()
                && sequence <= settled
            {
                line.in_flight.pop_front();
                self.in_flight_messages -= 1;
                self.in_flight_bytes -= weight as usize;
            }
            self.settle.marks.insert(epoch, settled);
            // The peer has stored something, so it takes messages, whatever order it says so in.
            self.resume(out);
        }
        self.note_refusals(refusals)?;
        self.settle_next(out);
        self.pump(out)
    }

    /// Whether the peer owes an acknowledgement.
    fn is_awaited(&self) -> bool {
        self.lines
            .values()
            .any(|line| line.next > line.acknowledged.saturating_add(1))
    }

    /// The peer takes messages again.
    fn resume(&mut self, out: &mut VecDeque<Output>) {
        if std::mem::take(&mut self.paused) {
            out.push_back(Output::Event(SessionEvent::PeerResumed { lane: self.lane }));
        }
    }

    /// Remembers refusals that are new to this session.
    ///
    /// The list names every unconfirmed one, so what it no longer names has been forgotten
    /// over there and need not be remembered here either; that bounds `handled`.
    fn note_refusals(&mut self, refusals: &[Refusal]) -> Result<(), Fault> {
        if refusals.is_empty() {
            self.handled.clear();
            return Ok(());
        }
        let mut repeated = BTreeSet::new();
        for refusal in refusals {
            let Refusal {
                epoch,
                sequence,
                code,
            } = *refusal;
            if let Some(line) = self.lines.get(&epoch)
                && sequence >= line.next
            {
                return Err(Fault::AcknowledgedUnsent {
                    epoch,
                    settled: sequence,
                    sent: line.next - 1,
                });
            }
            let name = (epoch, sequence);
            let is_settling = self
                .settle
                .outstanding
                .as_ref()
                .is_some_and(|names| names.contains(&name));
            if self.handled.contains(&name) {
                repeated.insert(name);
            } else if !is_settling {
                self.settle.refusals.insert(name, code);
            }
        }
        self.handled = repeated;
        // None of these has been confirmed, so the peer breaks its own limit if there are
        // more; without this check it could fill the memory here while a settle is out.
        let settling = self.settle.outstanding.as_ref().map_or(0, BTreeSet::len);
        let count = settling + self.settle.refusals.len();
        if count > limits::REFUSALS_UNCONFIRMED_MAX {
            return Err(Fault::RefusalsExceeded { count });
        }
        Ok(())
    }

    /// Asks for the next settle, if none is out and there is something to settle.
    fn settle_next(&mut self, out: &mut VecDeque<Output>) {
        let settle = &self.settle;
        let is_idle = settle.outstanding.is_none();
        if is_idle && !(settle.marks.is_empty() && settle.refusals.is_empty()) {
            self.settle_now(false, out);
        }
    }

    fn settle_now(&mut self, opening: bool, out: &mut VecDeque<Output>) {
        let settle = &mut self.settle;
        let marks = std::mem::take(&mut settle.marks)
            .into_iter()
            .map(|(epoch, settled)| Mark { epoch, settled })
            .collect();
        let refusals: Vec<Refusal> = std::mem::take(&mut settle.refusals)
            .into_iter()
            .map(|((epoch, sequence), code)| Refusal {
                epoch,
                sequence,
                code,
            })
            .collect();
        settle.outstanding = Some(
            refusals
                .iter()
                .map(|refusal| (refusal.epoch, refusal.sequence))
                .collect(),
        );
        out.push_back(Output::Settle {
            lane: self.lane,
            opening,
            marks,
            refusals,
        });
    }

    /// Sends what the window allows and asks for more rows in time.
    fn pump(&mut self, out: &mut VecDeque<Output>) -> Result<(), Fault> {
        if self.phase != SenderPhase::Running || self.stopped || self.paused {
            return Ok(());
        }
        while self.send_batch(out)? {}
        if self.pending.is_empty() && self.load.exhausted {
            self.send_opening_bases(None, out);
        }
        let low = self.pending.len() < limits::LOAD_BELOW_MESSAGES
            && self.pending_bytes < limits::LOAD_BELOW_BYTES;
        if low && !self.load.outstanding && !self.load.exhausted {
            self.load.outstanding = true;
            let after = self.cursor;
            let count_max = limits::LOAD_MESSAGES_MAX - self.pending.len();
            let bytes_max = limits::LOAD_BYTES_MAX - self.pending_bytes;
            out.push_back(Output::Load {
                lane: self.lane,
                after,
                count_max,
                bytes_max,
            });
        }
        Ok(())
    }

    /// Sends the opening's bases up to an epoch, or all.
    ///
    /// ORDER: not before the messages of older epochs. Start names, of the epochs that are
    /// settled, only the newest of which anything was acknowledged; a base that goes ahead
    /// makes that its own epoch, and the loss of the older ones' messages is then not seen.
    fn send_opening_bases(&mut self, up_to: Option<Epoch>, out: &mut VecDeque<Output>) {
        while let Some(entry) = self.opening_bases.first_entry()
            && up_to.is_none_or(|up_to| *entry.key() <= up_to)
        {
            let (epoch, first) = entry.remove_entry();
            if let Some(line) = self.lines.get_mut(&epoch) {
                line.next = first;
            }
            let base = SenderFrame::Base { epoch, first };
            out.push_back(Output::SendToReceiver(self.lane, base));
        }
    }

    /// Sends one batch if the window has room for its first message.
    fn send_batch(&mut self, out: &mut VecDeque<Output>) -> Result<bool, Fault> {
        let Some(front) = self.pending.front() else {
            return Ok(false);
        };
        if !self.has_room(front.message.weight()) {
            return Ok(false);
        }
        let Position {
            epoch,
            sequence: first,
        } = front.position;
        self.send_opening_bases(Some(epoch), out);
        let count_epochs = self.lines.len();
        let line = match self.lines.entry(epoch) {
            Entry::Occupied(entry) => entry.into_mut(),
            // The first message of an epoch that Start did not name: its numbers begin at 1.
            Entry::Vacant(_) if count_epochs >= limits::EPOCHS_KEPT_MAX => {
                return Err(Fault::TooManyEpochs);
            }
            Entry::Vacant(entry) => entry.insert(Line {
                next: 1,
                acknowledged: 0,
                in_flight: VecDeque::new(),
            }),
        };
        if first < line.next {
            return Err(Fault::NumberReused {
                epoch,
                sequence: first,
            });
        }
        if first > line.next {
            // Rows between were given up or dropped since: the peer must not wait for them.
            line.next = first;
            let base = SenderFrame::Base { epoch, first };
            out.push_back(Output::SendToReceiver(self.lane, base));
        }
        let mut messages = Vec::with_capacity(self.pending.len().min(limits::BATCH_MESSAGES_MAX));
        let mut bytes = 0;
        while let Some(row) = self.pending.front() {
            let weight = row.message.weight();
            let follows = row.position
                == Position {
                    epoch,
                    sequence: line.next,
                };
            let fits = messages.len() < limits::BATCH_MESSAGES_MAX
                && (messages.is_empty() || bytes + weight <= limits::BATCH_BYTES_TARGET);
            let has_room = self.in_flight_messages < self.window_messages
                && self.in_flight_bytes + weight <= self.window_bytes;
            if !(follows && fits && (has_room || messages.is_empty())) {
                break;
            }
            let Some(row) = self.pending.pop_front() else {
                break;
            };
            line.in_flight.push_back((line.next, weight as u32));
            line.next += 1;
            bytes += weight;
            self.in_flight_messages += 1;
            self.in_flight_bytes += weight;
            messages.push(Ok(row.message));
        }
        self.pending_bytes -= bytes;
        out.push_back(Output::SendToReceiver(
            self.lane,
            SenderFrame::Batch {
                epoch,
                first,
                messages,
            },
        ));
        Ok(true)
    }

    /// Whether one more message of this weight may be on its way.
    ///
    /// With nothing on its way one message always may, or a window in bytes that is smaller
    /// than a message would hold the lane for ever; a window of no messages still holds it.
    fn has_room(&self, weight: usize) -> bool {
        self.in_flight_messages < self.window_messages
            && (self.in_flight_messages == 0 || self.in_flight_bytes + weight <= self.window_bytes)
    }
}
