//! A node's store as the delivery machines see it, as plain ordered maps.
//!
//! Everything in it is durable: what is lost in a crash is a request that was not answered
//! yet, and that lies with whoever queues the requests. A clone is a backup. It is the
//! reference for what a real store must answer, and it asserts what only a bug can break.

use std::collections::BTreeMap;

use crate::epoch::{Epoch, Lane, Mark, Position, Refusal, RefusalCode, Span};
use crate::message::Message;
use crate::outbox::{Inbound, Row};
use crate::session::{Input, Output};

/// The store of one node with one peer.
#[derive(Clone, Debug)]
pub struct ModelStore {
    /// What messages are numbered under now.
    pub epoch: Epoch,
    /// The highest epoch the peer has shown.
    pub peer_epoch: Option<Epoch>,
    /// By the lane's index.
    pub lanes: [LaneTables; 2],
}

/// One lane, in both directions.
#[derive(Clone, Debug, Default)]
pub struct LaneTables {
    /// Own epochs.
    pub lines: BTreeMap<Epoch, LineRecord>,
    /// The outbox.
    pub rows: BTreeMap<Position, Message>,
    /// What was given up or refused.
    pub dead: Vec<DeadLetter>,
    /// How far the peer's epochs have come.
    pub marks: BTreeMap<Epoch, u64>,
    /// What this node refused and the peer has not confirmed.
    pub refusals: BTreeMap<(Epoch, u64), RefusalCode>,
    /// What arrived, in order.
    pub inbox: Vec<Arrived>,
}

/// One own epoch of one lane.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineRecord {
    /// Last sequence given out.
    pub last: u64,
    /// Highest the peer acknowledged.
    pub acknowledged: u64,
    /// No row above it has left since the last opening.
    pub offered: u64,
}

/// How far ahead rows are noted as offered; small, so that many a letter is in doubt.
const OFFER_STEP: u64 = 8;

/// A message that will not be sent any more.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Its name.
    pub position: Position,
    /// The message.
    pub message: Message,
    /// Why; `None` when it was given up here.
    pub refused: Option<RefusalCode>,
    /// Whether it may have been delivered; the peer's word tells.
    pub is_open: bool,
}

/// A message of the inbox.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its name at the sender.
    pub position: Position,
    /// The message.
    pub message: Message,
}

/// What `accept` answers.
pub type Accepted = Position;

impl ModelStore {
    /// An empty store, opened for the first time.
    #[must_use]
    pub fn new(nonce: u64) -> ModelStore {
        ModelStore {
            epoch: Epoch { boot: 1, nonce },
            peer_epoch: None,
            lanes: Default::default(),
        }
    }

    /// Opens the store again: a new epoch, above every boot number that it knows of itself.
    pub fn open(&mut self, boot_above: u32, nonce: u64) {
        let boot = self.epoch.boot.max(boot_above) + 1;
        self.epoch = Epoch { boot, nonce };
    }

    /// Numbers a message and keeps it.
    pub fn accept(&mut self, lane: Lane, message: Message) -> Accepted {
        let epoch = self.epoch;
        let tables = self.lane_mut(lane);
        let line = tables.lines.entry(epoch).or_default();
        line.last += 1;
        let position = Position {
            epoch,
            sequence: line.last,
        };
        tables.rows.insert(position, message);
        position
    }

    /// Gives a waiting message up.
    pub fn give_up(&mut self, lane: Lane, position: Position) {
        let tables = self.lane_mut(lane);
        let line = tables.lines.entry(position.epoch).or_default();
        let is_open = position.sequence <= line.offered;
        if let Some(message) = tables.rows.remove(&position) {
            tables.dead.push(DeadLetter {
                position,
                message,
                refused: None,
                is_open,
            });
        }
    }

    /// The tables of a lane.
    #[must_use]
    pub fn lane(&self, lane: Lane) -> &LaneTables {
        let [user, system] = &self.lanes;
        match lane {
            Lane::User => user,
            Lane::System => system,
        }
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneTables {
        let [user, system] = &mut self.lanes;
        match lane {
            Lane::User => user,
            Lane::System => system,
        }
    }

    /// Does what an output asks of the store and answers it; `None` if it asks nothing.
    /// `refuse` judges each message that would be stored.
    pub fn answer(
        &mut self,
        output: &Output,
        refuse: impl FnMut(&Message) -> Option<RefusalCode>,
    ) -> Option<Input> {
        Some(match output {
            Output::ReadLines { lane } => Input::Lines {
                lane: *lane,
                spans: self.lines(*lane),
            },
            Output::Load {
                lane,
                after,
                count_max,
                bytes_max,
            } => {
                let (rows, exhausted) = self.load(*lane, *after, *count_max, *bytes_max);
                Input::Rows {
                    lane: *lane,
                    rows,
                    exhausted,
                }
            }
            Output::Settle {
                lane,
                opening,
                marks,
                refusals,
            } => {
                self.settle(*lane, *opening, marks, refusals);
                Input::Settled { lane: *lane }
            }
            Output::ReadMarks { lane, epochs } => {
                let (marks, refusals) = self.marks(*lane, epochs);
                Input::MarksRead {
                    lane: *lane,
                    marks,
                    refusals,
                }
            }
            Output::Store { lane, items } => {
                let (marks, refusals) = self.store(*lane, items, refuse);
                Input::Stored {
                    lane: *lane,
                    marks,
                    refusals,
                }
            }
            Output::Confirm { lane, refusals } => {
                for name in refusals {
                    self.lane_mut(*lane).refusals.remove(name);
                }
                Input::Confirmed { lane: *lane }
            }
            _ => return None,
        })
    }

    /// Every epoch with waiting rows or open letters, the current one, the newest one before it, and the
    /// newest that was acknowledged at all: that one shows a recipient that was set back.
    #[must_use]
    pub fn lines(&self, lane: Lane) -> Vec<Span> {
        let tables = self.lane(lane);
        let newest_acknowledged = tables
            .lines
            .iter()
            .rev()
            .find(|(_, line)| line.acknowledged > 0)
            .map(|(e, _)| *e);
        let newest_before = tables
            .lines
            .keys()
            .rev()
            .find(|epoch| **epoch != self.epoch)
            .copied();
        let waiting = |epoch: Epoch| {
            let from = Position { epoch, sequence: 0 };
            let to = Position {
                epoch,
                sequence: u64::MAX,
            };
            tables
                .rows
                .range(from..=to)
                .next()
                .map(|(position, _)| position.sequence)
        };
        let mut epochs: Vec<Epoch> = tables.lines.keys().copied().collect();
        epochs.push(self.epoch);
        epochs.sort_unstable();
        epochs.dedup();
        epochs
            .into_iter()
            .filter_map(|epoch| {
                let line = tables.lines.get(&epoch).copied().unwrap_or_default();
                let first = waiting(epoch);
                let is_open =
                    |letter: &DeadLetter| letter.is_open && letter.position.epoch == epoch;
                let is_listed = first.is_some()
                    || tables.dead.iter().any(is_open)
                    || epoch == self.epoch
                    || Some(epoch) == newest_before
                    || Some(epoch) == newest_acknowledged;
                is_listed.then_some(Span {
                    epoch,
                    first: first.unwrap_or(line.last + 1),
                    last: line.last,
                    acknowledged: line.acknowledged,
                })
            })
            .collect()
    }

    /// Waiting rows after a position. Notes that they may leave, and that letters which the
    /// session was not handed never did.
    pub fn load(
        &mut self,
        lane: Lane,
        after: Option<Position>,
        count_max: usize,
        bytes_max: usize,
    ) -> (Vec<Row>, bool) {
        let (rows, exhausted) = self.peek(lane, after, count_max, bytes_max);
        let tables = self.lane_mut(lane);
        for letter in &mut tables.dead {
            letter.is_open &= after.is_some_and(|after| letter.position <= after);
        }
        for row in &rows {
            let line = tables.lines.entry(row.position.epoch).or_default();
            let step = row.position.sequence.div_ceil(OFFER_STEP) * OFFER_STEP;
            line.offered = line.offered.max(step);
        }
        (rows, exhausted)
    }

    fn peek(
        &self,
        lane: Lane,
        after: Option<Position>,
        count_max: usize,
        bytes_max: usize,
    ) -> (Vec<Row>, bool) {
        let mut rows = Vec::new();
        let mut bytes = 0;
        for (position, message) in &self.lane(lane).rows {
            if after.is_some_and(|after| *position <= after) {
                continue;
            }
            bytes += message.weight();
            if rows.len() == count_max || (!rows.is_empty() && bytes > bytes_max) {
                return (rows, false);
            }
            rows.push(Row {
                position: *position,
                message: message.clone(),
            });
        }
        (rows, true)
    }

    /// Turns refused rows into dead letters, then deletes what is acknowledged, and tells the
    /// end of open letters: an opening tells it of all.
    pub fn settle(&mut self, lane: Lane, is_opening: bool, marks: &[Mark], refusals: &[Refusal]) {
        let tables = self.lane_mut(lane);
        for refusal in refusals {
            let position = Position {
                epoch: refusal.epoch,
                sequence: refusal.sequence,
            };
            if let Some(message) = tables.rows.remove(&position) {
                let refused = Some(refusal.code);
                tables.dead.push(DeadLetter {
                    position,
                    message,
                    refused,
                    is_open: false,
                });
            }
            let is_it = |letter: &&mut DeadLetter| letter.is_open && letter.position == position;
            if let Some(letter) = tables.dead.iter_mut().find(is_it) {
                letter.refused = Some(refusal.code);
                letter.is_open = false;
            }
        }
        for mark in marks {
            let line = tables.lines.entry(mark.epoch).or_default();
            assert!(
                mark.settled <= line.last,
                "settled beyond the last number given out"
            );
            line.acknowledged = line.acknowledged.max(mark.settled);
            tables.rows.retain(|position, _| {
                position.epoch != mark.epoch || position.sequence > mark.settled
            });
            let is_here = |letter: &DeadLetter| letter.position.epoch == mark.epoch;
            tables.dead.retain(|letter| {
                let is_settled = letter.position.sequence <= mark.settled;
                !(letter.is_open && is_here(letter) && is_settled)
            });
            if is_opening {
                line.offered = line.offered.min(mark.settled);
                let here = tables.dead.iter_mut().filter(|letter| is_here(letter));
                here.for_each(|letter| letter.is_open = false);
            }
        }
    }

    /// How far these epochs have come, and all refusals.
    #[must_use]
    pub fn marks(&self, lane: Lane, epochs: &[Epoch]) -> (Vec<Mark>, Vec<Refusal>) {
        let tables = self.lane(lane);
        let settled = |epoch| tables.marks.get(epoch).copied().unwrap_or(0);
        let marks = epochs
            .iter()
            .map(|e| Mark {
                epoch: *e,
                settled: settled(e),
            })
            .collect();
        let refusals = tables.refusals.iter();
        let refusals = refusals
            .map(|(&(epoch, sequence), &code)| Refusal {
                epoch,
                sequence,
                code,
            })
            .collect();
        (marks, refusals)
    }

    /// Commits the steps of one `Store`.
    pub fn store(
        &mut self,
        lane: Lane,
        items: &[Inbound],
        mut refuse: impl FnMut(&Message) -> Option<RefusalCode>,
    ) -> (Vec<Mark>, Vec<Refusal>) {
        let tables = self.lane_mut(lane);
        let mut touched = BTreeMap::new();
        let mut refusals = Vec::new();
        for item in items {
            match item {
                Inbound::Base { epoch, first } => {
                    let mark = tables.marks.entry(*epoch).or_default();
                    *mark = (*mark).max(first - 1);
                    touched.insert(*epoch, *mark);
                }
                Inbound::Messages {
                    epoch,
                    first,
                    messages,
                } => {
                    let epoch = *epoch;
                    let mark = tables.marks.entry(epoch).or_default();
                    for (sequence, arrival) in (*first..).zip(messages) {
                        let name = (epoch, sequence);
                        if sequence > *mark {
                            assert_eq!(sequence, *mark + 1, "a gap reached the store");
                            *mark = sequence;
                            let position = Position { epoch, sequence };
                            match arrival.as_ref().map(|message| (message, refuse(message))) {
                                Ok((message, None)) => {
                                    let message = message.clone();
                                    tables.inbox.push(Arrived { position, message });
                                }
                                Ok((_, Some(code))) | Err(&code) => {
                                    tables.refusals.insert(name, code);
                                }
                            }
                        }
                        if let Some(&code) = tables.refusals.get(&name) {
                            refusals.push(Refusal {
                                epoch,
                                sequence,
                                code,
                            });
                        }
                    }
                    touched.insert(epoch, *mark);
                }
            }
        }
        let marks = touched
            .into_iter()
            .map(|(epoch, settled)| Mark { epoch, settled })
            .collect();
        (marks, refusals)
    }
}
