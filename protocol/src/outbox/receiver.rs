//! The receiving end of one lane.
//!
//! It answers Start with how far the store is (Marks), gathers what arrives while a commit is
//! out, hands it to the store as one commit, and acknowledges only what that commit made
//! durable. It never acknowledges ahead of the store, never forgets a refusal before the
//! sender confirmed it, and never holds more than one window.
//!
//! Read [`Receiver::on_frame`], then `Receiver::store_next`, then [`Receiver::on_stored`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::epoch::{Epoch, Lane, Mark, Refusal, RefusalCode, Span};
use crate::limits;
use crate::message::{Arrival, Message, ReceiverFrame, SenderFrame};
#[cfg(feature = "mutants")]
use crate::mutant::{Mutant, broken_or};
use crate::outbox::{Fault, Inbound};
use crate::session::{Output, SessionEvent};

pub use crate::outbox::phase::ReceiverPhase;

/// The receiving end of one lane, for one session.
#[derive(Debug)]
pub struct Receiver {
    lane: Lane,
    phase: ReceiverPhase,
    /// What Start said, until the store answers.
    spans: Vec<Span>,
    /// The next sequence per epoch of the peer, counting what is gathered.
    expected: BTreeMap<Epoch, u64>,
    /// Stored and not confirmed by the sender.
    refusals: BTreeMap<(Epoch, u64), RefusalCode>,
    /// Arrived and not handed to the store.
    gathered: VecDeque<Inbound>,
    gathered_amount: Amount,
    storing: Option<Storing>,
    confirm: Confirm,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    messages: usize,
    bytes: usize,
}

/// The commit that is out, or that the full store sent back.
#[derive(Debug)]
struct Storing {
    items: Arc<Vec<Inbound>>,
    amount: Amount,
    /// When the store is asked again; `None` while it works.
    retry_at_ms: Option<u64>,
    /// The peer was told Paused and not yet Resumed.
    told_paused: bool,
}

/// The forgetting of refusals: at most one request is out.
#[derive(Debug, Default)]
struct Confirm {
    outstanding: Option<Vec<(Epoch, u64)>>,
    due: BTreeSet<(Epoch, u64)>,
}

impl Receiver {
    /// A receiver that waits for the peer's Start.
    #[must_use]
    pub fn new(lane: Lane) -> Receiver {
        Receiver {
            lane,
            phase: ReceiverPhase::AwaitingStart,
            spans: Vec::new(),
            expected: BTreeMap::new(),
            refusals: BTreeMap::new(),
            gathered: VecDeque::new(),
            gathered_amount: Amount::default(),
            storing: None,
            confirm: Confirm::default(),
            stopped: false,
        }
    }

    /// A frame of the peer's sending end.
    pub fn on_frame(
        &mut self,
        frame: SenderFrame,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        use ReceiverPhase::{AwaitingStart, Running};
        match (self.phase, frame) {
            (AwaitingStart, SenderFrame::Start(spans)) => self.on_start(spans, out),
            (Running, SenderFrame::Base { epoch, first }) => self.on_base(epoch, first, out),
            (
                Running,
                SenderFrame::Batch {
                    epoch,
                    first,
                    messages,
                },
            ) => self.on_batch(epoch, first, messages, out),
            (Running, SenderFrame::Confirm(names)) => {
                self.on_confirm(&names, out);
                Ok(())
            }
            (phase, frame) => {
                let frame = match frame {
                    SenderFrame::Start(_) => "start",
                    SenderFrame::Base { .. } => "base",
                    SenderFrame::Batch { .. } => "batch",
                    SenderFrame::Confirm(_) => "confirm",
                };
                Err(Fault::OutOfTurn {
                    frame,
                    phase: phase.name(),
                })
            }
        }
    }

    /// The store's answer to `ReadMarks`: Marks goes out.
    pub fn on_marks_read(
        &mut self,
        marks: &[Mark],
        refusals: &[Refusal],
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        if self.phase != ReceiverPhase::ReadingMarks {
            return Err(Fault::UnexpectedAnswer { answer: "marks" });
        }
        if refusals.len() > limits::REFUSALS_UNCONFIRMED_MAX {
            return Err(Fault::TooManyRefusals {
                count: refusals.len(),
            });
        }
        let known: BTreeMap<Epoch, u64> = marks
            .iter()
            .map(|mark| (mark.epoch, mark.settled))
            .collect();
        let spans = std::mem::take(&mut self.spans);
        let mut answer = Vec::with_capacity(spans.len());
        for span in &spans {
            let settled = known.get(&span.epoch).copied().unwrap_or(0);
            self.compare(span, settled, out);
            self.expected.insert(span.epoch, settled.saturating_add(1));
            answer.push(Mark {
                epoch: span.epoch,
                settled,
            });
        }
        #[cfg(feature = "mutants")]
        let refusals = broken_or::<&[_]>(Mutant::RefusalNotRepeated, &[], refusals);
        self.add_refusals(refusals);
        self.phase = ReceiverPhase::Running;
        let frame = ReceiverFrame::Marks {
            marks: answer,
            refusals: self.list_refusals(),
        };
        out.push_back(Output::SendToSender(self.lane, frame));
        Ok(())
    }

    /// The store's answer to `Store`: committed.
    ///
    /// `refusals` names at least every refusal, new or old, among the sequences of the commit.
    pub fn on_stored(
        &mut self,
        marks: &[Mark],
        refusals: &[Refusal],
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        let Some(storing) = self
            .storing
            .take_if(|storing| storing.retry_at_ms.is_none())
        else {
            return Err(Fault::UnexpectedAnswer { answer: "stored" });
        };
        self.add_refusals(refusals);
        for &Mark { epoch, settled } in marks {
            // A commit of an earlier session may have carried the mark beyond what this
            // session received; the sender would take that for a lie.
            let received = self.expected.get(&epoch).map_or(0, |expected| expected - 1);
            let mark = Mark {
                epoch,
                settled: settled.min(received),
            };
            let refusals = self.list_refusals();
            out.push_back(Output::SendToSender(
                self.lane,
                ReceiverFrame::Acknowledge { mark, refusals },
            ));
        }
        if storing.told_paused {
            out.push_back(Output::Event(SessionEvent::StoreResumed {
                lane: self.lane,
            }));
            out.push_back(Output::SendToSender(self.lane, ReceiverFrame::Resumed));
        }
        self.store_next(out);
        Ok(())
    }

    /// The store's answer to `Store`: nothing was committed, it is full.
    pub fn on_store_paused(
        &mut self,
        reason: String,
        now_ms: u64,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        let Some(storing) = self
            .storing
            .as_mut()
            .filter(|storing| storing.retry_at_ms.is_none())
        else {
            return Err(Fault::UnexpectedAnswer {
                answer: "store paused",
            });
        };
        if self.stopped {
            self.storing = None;
            return Ok(());
        }
        storing.retry_at_ms = Some(now_ms.saturating_add(limits::PAUSE_RETRY_MS));
        if !storing.told_paused {
            storing.told_paused = true;
            let event = SessionEvent::StorePaused {
                lane: self.lane,
                reason: reason.clone(),
            };
            out.push_back(Output::Event(event));
            out.push_back(Output::SendToSender(
                self.lane,
                ReceiverFrame::Paused { reason },
            ));
        }
        Ok(())
    }

    /// The store's answer to `Confirm`: the refusals are forgotten.
    pub fn on_confirmed(&mut self, out: &mut VecDeque<Output>) -> Result<(), Fault> {
        let Some(names) = self.confirm.outstanding.take() else {
            return Err(Fault::UnexpectedAnswer {
                answer: "confirmed",
            });
        };
        for name in &names {
            self.refusals.remove(name);
        }
        self.confirm_next(out);
        self.store_next(out);
        Ok(())
    }

    /// Grants another window than the full one.
    pub fn grant(&mut self, messages: u32, bytes: u32, out: &mut VecDeque<Output>) {
        out.push_back(Output::SendToSender(
            self.lane,
            ReceiverFrame::Window { messages, bytes },
        ));
    }

    /// Asks a store that was full again, when it is time.
    pub fn on_time(&mut self, now_ms: u64, out: &mut VecDeque<Output>) {
        if let Some(storing) = &mut self.storing
            && storing.retry_at_ms.is_some_and(|at| at <= now_ms)
        {
            storing.retry_at_ms = None;
            let items = Arc::clone(&storing.items);
            out.push_back(Output::Store {
                lane: self.lane,
                items,
            });
        }
    }

    /// Hands nothing more to the store; the commit that is out is still acknowledged.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.gathered.clear();
        self.gathered_amount = Amount::default();
        self.storing
            .take_if(|storing| storing.retry_at_ms.is_some());
    }

    /// When [`Receiver::on_time`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.storing
            .as_ref()
            .and_then(|storing| storing.retry_at_ms)
    }

    /// Whether a commit is out.
    #[must_use]
    pub fn is_storing(&self) -> bool {
        self.storing.is_some()
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> ReceiverPhase {
        self.phase
    }

    /// Whether Start was answered.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.phase == ReceiverPhase::Running
    }

    /// Refusals that the sender has not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.refusals.len()
    }

    // -----------------------------------------------------------------------------------

    fn on_start(&mut self, spans: Vec<Span>, out: &mut VecDeque<Output>) -> Result<(), Fault> {
        let mut before = None;
        for span in &spans {
            let rises = before.is_none_or(|before| before < span.epoch);
            let sound =
                span.first >= 1 && span.last >= span.first - 1 && span.acknowledged <= span.last;
            if !(rises && sound) {
                return Err(Fault::BadSpan { epoch: span.epoch });
            }
            before = Some(span.epoch);
        }
        let epochs = spans.iter().map(|span| span.epoch).collect();
        self.spans = spans;
        self.phase = ReceiverPhase::ReadingMarks;
        out.push_back(Output::ReadMarks {
            lane: self.lane,
            epochs,
        });
        Ok(())
    }

    /// What one span says beside one mark. The span is the peer's word: it raises events
    /// and nothing else.
    fn compare(&self, span: &Span, mark: u64, out: &mut VecDeque<Output>) {
        let epoch = span.epoch;
        if mark > span.last {
            let event = SessionEvent::PeerOnCopy {
                lane: self.lane,
                epoch,
                last: span.last,
                mark,
            };
            out.push_back(Output::Event(event));
        }
        if mark < span.acknowledged {
            let event = SessionEvent::RolledBack {
                lane: self.lane,
                epoch,
                from: mark + 1,
                to: span.acknowledged,
            };
            out.push_back(Output::Event(event));
        }
    }

    fn on_base(
        &mut self,
        epoch: Epoch,
        first: u64,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        let expected = self.expected_in(epoch)?;
        if first <= *expected {
            return Err(Fault::BaseBackwards {
                epoch,
                expected: *expected,
                first,
            });
        }
        *expected = first;
        self.gather(Inbound::Base { epoch, first }, Amount::default())?;
        self.store_next(out);
        Ok(())
    }

    fn on_batch(
        &mut self,
        epoch: Epoch,
        first: u64,
        messages: Vec<Arrival>,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Fault> {
        let count = messages.len();
        let amount = Amount {
            messages: count,
            bytes: messages.iter().flatten().map(Message::weight).sum(),
        };
        let expected = self.expected_in(epoch)?;
        if first > *expected {
            return Err(Fault::Gap {
                epoch,
                expected: *expected,
                first,
            });
        }
        if first < *expected {
            return Err(Fault::Repeated {
                epoch,
                expected: *expected,
                first,
            });
        }
        let after = first.checked_add(count as u64);
        let Some(after) = after.filter(|_| count > 0 && count <= limits::BATCH_MESSAGES_MAX) else {
            return Err(Fault::BadBatch { first, count });
        };
        *expected = after;
        let storing = self
            .storing
            .as_ref()
            .map(|storing| storing.amount)
            .unwrap_or_default();
        let total = Amount {
            messages: self.gathered_amount.messages + storing.messages + amount.messages,
            bytes: self.gathered_amount.bytes + storing.bytes + amount.bytes,
        };
        if total.messages > limits::WINDOW_MESSAGES || total.bytes > limits::WINDOW_BYTES {
            let Amount { messages, bytes } = total;
            return Err(Fault::WindowExceeded { messages, bytes });
        }
        self.gather(
            Inbound::Messages {
                epoch,
                first,
                messages,
            },
            amount,
        )?;
        self.store_next(out);
        Ok(())
    }

    fn on_confirm(&mut self, names: &[(Epoch, u64)], out: &mut VecDeque<Output>) {
        // What is not known was confirmed twice, which a repeated acknowledgement causes.
        let known = names.iter().filter(|name| self.refusals.contains_key(name));
        self.confirm.due.extend(known.copied());
        self.confirm_next(out);
    }

    /// The place of the next sequence of an epoch. One that Start did not name begins at 1.
    fn expected_in(&mut self, epoch: Epoch) -> Result<&mut u64, Fault> {
        let is_full = self.expected.len() >= limits::EPOCHS_KEPT_MAX;
        if is_full && !self.expected.contains_key(&epoch) {
            return Err(Fault::TooManyEpochs);
        }
        Ok(self.expected.entry(epoch).or_insert(1))
    }

    fn gather(&mut self, item: Inbound, amount: Amount) -> Result<(), Fault> {
        if self.stopped {
            return Ok(());
        }
        // Bases weigh nothing, so the window does not bound them; a sender needs at most one
        // per epoch and one before each message.
        if self.gathered.len() >= limits::EPOCHS_KEPT_MAX + 2 * limits::WINDOW_MESSAGES {
            return Err(Fault::TooManySteps {
                count: self.gathered.len() + 1,
            });
        }
        self.gathered_amount.messages += amount.messages;
        self.gathered_amount.bytes += amount.bytes;
        self.gathered.push_back(item);
        Ok(())
    }

    /// Hands everything gathered to the store as one commit, if none is out.
    ///
    /// INVARIANT: unconfirmed refusals never exceed their limit, so that one frame can tell
    /// them all: no more messages are handed over than could be refused. At the limit the
    /// lane stands until confirmations come; the window then stops the sender.
    fn store_next(&mut self, out: &mut VecDeque<Output>) {
        if self.storing.is_some() || self.stopped || self.gathered.is_empty() {
            return;
        }
        let mut room = limits::REFUSALS_UNCONFIRMED_MAX.saturating_sub(self.refusals.len());
        let mut items = Vec::with_capacity(self.gathered.len());
        let mut amount = Amount::default();
        while let Some(item) = self.gathered.pop_front() {
            match item {
                base @ Inbound::Base { .. } => items.push(base),
                Inbound::Messages {
                    epoch,
                    first,
                    mut messages,
                } => {
                    if messages.len() > room {
                        let rest = messages.split_off(room);
                        let first = first + room as u64;
                        let rest = Inbound::Messages {
                            epoch,
                            first,
                            messages: rest,
                        };
                        self.gathered.push_front(rest);
                    }
                    let is_cut = messages.len() == room;
                    room -= messages.len();
                    if !messages.is_empty() {
                        amount.messages += messages.len();
                        amount.bytes += messages
                            .iter()
                            .flatten()
                            .map(Message::weight)
                            .sum::<usize>();
                        items.push(Inbound::Messages {
                            epoch,
                            first,
                            messages,
                        });
                    }
                    if is_cut {
                        break;
                    }
                }
            }
        }
        if items.is_empty() {
            return;
        }
        self.gathered_amount.messages -= amount.messages;
        self.gathered_amount.bytes -= amount.bytes;
        let items = Arc::new(items);
        self.storing = Some(Storing {
            items: Arc::clone(&items),
            amount,
            retry_at_ms: None,
            told_paused: false,
        });
        out.push_back(Output::Store {
            lane: self.lane,
            items,
        });
    }

    fn confirm_next(&mut self, out: &mut VecDeque<Output>) {
        if self.confirm.outstanding.is_some() || self.confirm.due.is_empty() {
            return;
        }
        let refusals: Vec<(Epoch, u64)> =
            std::mem::take(&mut self.confirm.due).into_iter().collect();
        self.confirm.outstanding = Some(refusals.clone());
        out.push_back(Output::Confirm {
            lane: self.lane,
            refusals,
        });
    }

    fn add_refusals(&mut self, refusals: &[Refusal]) {
        for &Refusal {
            epoch,
            sequence,
            code,
        } in refusals
        {
            self.refusals.insert((epoch, sequence), code);
        }
    }

    fn list_refusals(&self) -> Vec<Refusal> {
        self.refusals
            .iter()
            .map(|(&(epoch, sequence), &code)| Refusal {
                epoch,
                sequence,
                code,
            })
            .collect()
    }
}
