//! The ledger and the end, sorted by what the rules ask for.
//!
//! Nothing is judged here. What a copy of a machine noted is left out everywhere except in
//! `started`: it is nobody's store of record.

use std::collections::{BTreeMap, BTreeSet};

use packhorse_actors::store::ReceiptId;
use packhorse_protocol::epoch::{Lane, Position};

use super::doubts::Doubts;
use super::end::Final;
use crate::ledger::{
    AcceptedHere, Answer, ByHand, Call, Entry, Ledger, Outcome, Said, Seen, Verdict, What,
};
use crate::plan::{Node, Op, Plan};

/// One call of a client that hands letters in.
#[derive(Clone, Debug)]
pub(crate) struct Sent<'a> {
    pub(crate) from: Node,
    pub(crate) to: Node,
    pub(crate) ops: &'a [Op],
    pub(crate) asked_ms: u64,
    /// When it was answered, and how; `None` when the answer never came.
    pub(crate) answer: Option<(u64, &'a Answer)>,
}

impl Sent<'_> {
    /// What was accepted.
    pub(crate) fn accepted(&self) -> &[AcceptedHere] {
        match self.answer {
            Some((_, Answer::Accepted(accepted))) => accepted,
            _ => &[],
        }
    }

    /// It is certain that nothing was accepted.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.answer, Some((_, Answer::Refused(_))))
    }

    /// It may have been accepted, and nobody was told.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.answer, None | Some((_, Answer::Unknown(_))))
    }
}

/// That a receipt was given out for an op.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) op: Op,
    pub(crate) to: Node,
    pub(crate) asked_ms: u64,
    pub(crate) answered_ms: u64,
    /// Its name had been given out before.
    pub(crate) repeated: bool,
}

/// That a message was seen at its recipient.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<'a> {
    pub(crate) at_ms: u64,
    pub(crate) node: Node,
    pub(crate) life: u32,
    pub(crate) from: Node,
    /// 0 for one that lies among the letters of what was given up there.
    pub(crate) arrival: u64,
    pub(crate) position: Position,
    pub(crate) op: Option<Op>,
    /// As a consumer had it.
    pub(crate) seen: Option<&'a Seen>,
    pub(crate) is_intact: bool,
}

/// What a consumer said of an arrival.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<'a> {
    pub(crate) verdict: Verdict,
    pub(crate) life: u32,
    pub(crate) asked_ms: u64,
    pub(crate) answer: Option<(u64, &'a Said<Outcome>)>,
}

impl Word<'_> {
    /// When the inbox confirmed that the message left by it or was gone before.
    pub(crate) fn left_ms(&self) -> Option<u64> {
        let (at_ms, said) = self.answer?;
        let is_gone = matches!(
            said,
            Said::Yes(Outcome::Done | Outcome::Dead | Outcome::Gone)
        );
        (self.verdict.is_last() && is_gone).then_some(at_ms)
    }
}

/// What a person did by hand.
#[derive(Clone, Debug)]
pub(crate) struct Deed<'a> {
    pub(crate) node: Node,
    pub(crate) asked_ms: u64,
    pub(crate) deed: &'a ByHand,
    pub(crate) answer: Option<(u64, &'a Said<u64>)>,
    /// The new receipt of a letter that was sent again.
    pub(crate) retried: Option<(u64, &'a Said<ReceiptId>)>,
}

impl Deed<'_> {
    /// It was done, or nobody knows.
    pub(crate) fn is_maybe_done(&self) -> bool {
        let is_refused = matches!(self.answer, Some((_, Said::No(_))));
        !is_refused && !matches!(self.retried, Some((_, Said::No(_))))
    }

    /// When its answer came; never, when none did.
    pub(crate) fn answered_ms(&self) -> u64 {
        let answer = self.answer.map(|(at_ms, _)| at_ms);
        let retried = self.retried.map(|(at_ms, _)| at_ms);
        answer.or(retried).unwrap_or(u64::MAX)
    }
}

/// Everything, sorted.
#[derive(Debug)]
pub(crate) struct History<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) ledger: &'a Ledger,
    pub(crate) end: &'a Final,
    pub(crate) doubts: Doubts,
    pub(crate) sends: Vec<Sent<'a>>,
    /// By machine and receipt, in the order of their answers.
    pub(crate) taken: BTreeMap<(Node, ReceiptId), Vec<Taken>>,
    /// Letters that were sent again: the old receipt and, where it is known, the new one.
    pub(crate) retries: Vec<(Node, ReceiptId, Option<ReceiptId>)>,
    /// Which ops a receipt may stand for, by whatever showed it.
    pub(crate) ops: BTreeMap<(Node, ReceiptId), BTreeSet<Op>>,
    /// Stored messages seen at their recipients, also at the end, in the order of time.
    pub(crate) arrived: Vec<Arrived<'a>>,
    /// What was said of an arrival, in the order of asking.
    pub(crate) words: BTreeMap<(Node, u64), Vec<Word<'a>>>,
    pub(crate) deeds: Vec<Deed<'a>>,
}

impl<'a> History<'a> {
    pub(crate) fn new(plan: &'a Plan, ledger: &'a Ledger, end: &'a Final) -> Self {
        let mut history = Self {
            plan,
            ledger,
            end,
            doubts: Doubts::of(ledger),
            sends: Vec::new(),
            taken: BTreeMap::new(),
            retries: Vec::new(),
            ops: BTreeMap::new(),
            arrived: Vec::new(),
            words: BTreeMap::new(),
            deeds: Vec::new(),
        };
        let answers = Answers::of(ledger);
        for entry in history.entries() {
            history.take(entry, &answers);
        }
        history.take_sends();
        history.take_retries();
        history.take_end();
        history
    }

    /// What the machines themselves noted, without their copies.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let entries = self.ledger.entries.iter();
        entries.filter(|entry| !entry.place.is_copy)
    }

    fn take(&mut self, entry: &'a Entry, answers: &Answers<'a>) {
        let (at_ms, node, life) = (entry.at_ms, entry.place.node, entry.place.life);
        match &entry.what {
            What::Asked { call, to, ops } => self.sends.push(Sent {
                from: node,
                to: *to,
                ops,
                asked_ms: at_ms,
                answer: answers.answered.get(call).copied(),
            }),
            What::Saw(seen) if !seen.is_ephemeral => self.arrived.push(Arrived {
                at_ms,
                node,
                life,
                from: seen.from,
                arrival: seen.arrival,
                position: seen.position,
                op: seen.op,
                seen: Some(seen),
                is_intact: seen.is_intact,
            }),
            What::InRow {
                from,
                arrival,
                position,
                op,
            } => self.arrived.push(Arrived {
                at_ms,
                node,
                life,
                from: *from,
                arrival: *arrival,
                position: *position,
                op: *op,
                seen: None,
                is_intact: true,
            }),
            What::Settling {
                call,
                arrivals,
                verdict,
            } => {
                for arrival in arrivals {
                    self.words.entry((node, *arrival)).or_default().push(Word {
                        verdict: *verdict,
                        life,
                        asked_ms: at_ms,
                        answer: answers.settled.get(call).copied(),
                    });
                }
            }
            What::Doing { call, deed } => self.deeds.push(Deed {
                node,
                asked_ms: at_ms,
                deed,
                answer: answers.did.get(call).copied(),
                retried: answers.retried.get(call).copied(),
            }),
            What::OutRow { id, op, .. } | What::Letter { id, op, .. } => self.name(node, *id, *op),
            _ => {}
        }
    }

    fn name(&mut self, node: Node, id: ReceiptId, op: Option<Op>) {
        self.ops.entry((node, id)).or_default().extend(op);
    }

    fn take_sends(&mut self) {
        let mut named = Vec::new();
        for sent in &self.sends {
            let Some((answered_ms, _)) = sent.answer else {
                continue;
            };
            for accepted in sent.accepted() {
                named.push((sent.from, accepted.id, accepted.op));
                let taken = self.taken.entry((sent.from, accepted.id)).or_default();
                taken.push(Taken {
                    op: accepted.op,
                    to: sent.to,
                    asked_ms: sent.asked_ms,
                    answered_ms,
                    repeated: accepted.repeated,
                });
            }
        }
        for (node, id, op) in named {
            self.name(node, id, Some(op));
        }
        self.take_unknown();
    }

    /// What may have taken the place of another letter with its key, without anybody being told.
    fn take_unknown(&mut self) {
        let key = |op: Op| {
            self.plan
                .letter(op)
                .and_then(|(_, _, letter)| letter.key.as_ref())
        };
        let mut named = Vec::new();
        for sent in self.sends.iter().filter(|sent| sent.is_unknown()) {
            for op in sent.ops.iter().filter(|op| key(**op).is_some()) {
                let of_key = self.taken.iter().filter(|((node, _), taken)| {
                    let is_it = |taken: &Taken| taken.to == sent.to && key(taken.op) == key(*op);
                    *node == sent.from && taken.iter().any(is_it)
                });
                named.extend(of_key.map(|((node, id), _)| (*node, *id, *op)));
            }
        }
        for (node, id, op) in named {
            self.name(node, id, Some(op));
        }
    }

    fn take_retries(&mut self) {
        for deed in self.deeds.clone() {
            let ByHand::RetryDead { id } = deed.deed else {
                continue;
            };
            if !deed.is_maybe_done() {
                continue;
            }
            let new = match deed.retried {
                Some((_, Said::Yes(new))) => Some(*new),
                _ => None,
            };
            self.retries.push((deed.node, *id, new));
            let Some(new) = new else {
                continue;
            };
            for op in self.ops_of(deed.node, *id) {
                self.name(deed.node, new, Some(op));
                let Some((_, to, _)) = self.plan.letter(op) else {
                    continue;
                };
                let taken = self.taken.entry((deed.node, new)).or_default();
                taken.push(Taken {
                    op,
                    to: *to,
                    asked_ms: deed.asked_ms,
                    answered_ms: deed.answered_ms(),
                    repeated: false,
                });
            }
        }
    }

    fn take_end(&mut self) {
        let end = self.end;
        for (node, state) in end.nodes.iter().enumerate() {
            for row in state.inbox.iter().chain(&state.letters_in) {
                self.arrived.push(Arrived {
                    at_ms: state.read_ms,
                    node,
                    life: u32::MAX,
                    from: row.from,
                    arrival: row.arrival,
                    position: row.position,
                    op: row.op,
                    seen: None,
                    is_intact: row.is_intact,
                });
            }
            for row in &state.outbox {
                self.name(node, row.id, row.op);
            }
            for row in &state.letters {
                self.name(node, row.id, row.op);
            }
        }
    }

    /// When a client asked first for any of these ops to be sent; never, when nobody did.
    pub(crate) fn first_asked(&self, ops: &BTreeSet<Op>) -> u64 {
        let sends = self.sends.iter();
        let of_ops = sends.filter(|sent| sent.ops.iter().any(|op| ops.contains(op)));
        of_ops.map(|sent| sent.asked_ms).min().unwrap_or(0)
    }

    /// Both ends of a way know the whole truth about these ops: no window of theirs was open when
    /// they were first asked for, or later. A key that is repeated behind a window names what was
    /// accepted before it.
    pub(crate) fn is_clear(&self, from: Node, to: Node, ops: &BTreeSet<Op>) -> bool {
        let asked_ms = self.first_asked(ops);
        self.doubts.is_clear(from, asked_ms) && self.doubts.is_clear(to, asked_ms)
    }

    /// What a receipt may stand for.
    pub(crate) fn ops_of(&self, node: Node, id: ReceiptId) -> BTreeSet<Op> {
        self.ops.get(&(node, id)).cloned().unwrap_or_default()
    }

    /// Whether a letter of one of these ops may have been sent again by `node` between the two.
    pub(crate) fn is_retried(
        &self,
        node: Node,
        ops: &BTreeSet<Op>,
        from_ms: u64,
        until_ms: u64,
    ) -> bool {
        self.deeds.iter().any(|deed| {
            let ByHand::RetryDead { id } = deed.deed else {
                return false;
            };
            let is_within = deed.asked_ms <= until_ms && deed.answered_ms() >= from_ms;
            let is_of_them = || self.ops_of(node, *id).iter().any(|op| ops.contains(op));
            deed.node == node && is_within && deed.is_maybe_done() && is_of_them()
        })
    }

    /// How often a message that was given up at its recipient may have been put back there.
    pub(crate) fn put_back(&self, node: Node, sender: Node, at: Position) -> usize {
        let is_it = |deed: &&Deed<'_>| match deed.deed {
            ByHand::RetryDeadIn { from, position } => {
                deed.node == node && *from == sender && *position == at && deed.is_maybe_done()
            }
            _ => false,
        };
        self.deeds.iter().filter(is_it).count()
    }

    /// Whether a letter of a message that was given up at its recipient may have been dropped there.
    pub(crate) fn is_dropped_there(&self, node: Node, sender: Node, at: Position) -> bool {
        self.deeds.iter().any(|deed| match deed.deed {
            ByHand::DropDeadIn { from, position } => {
                deed.node == node && *from == sender && *position == at && deed.is_maybe_done()
            }
            _ => false,
        })
    }

    /// What was said of an arrival.
    pub(crate) fn words_of(&self, node: Node, arrival: u64) -> &[Word<'a>] {
        self.words.get(&(node, arrival)).map_or(&[], Vec::as_slice)
    }

    /// The receipt under which a machine knows a position of its own.
    pub(crate) fn receipt_at(&self, sender: Node, to: Node, at: Position) -> Option<ReceiptId> {
        let known = self.taken.iter().find(|((node, id), taken)| {
            *node == sender
                && id.lane == Lane::User
                && id.position == at
                && taken.iter().any(|taken| taken.to == to)
        });
        known.map(|((_, id), _)| *id)
    }
}

/// Answers by the number of their question.
#[derive(Debug, Default)]
struct Answers<'a> {
    answered: BTreeMap<Call, (u64, &'a Answer)>,
    settled: BTreeMap<Call, (u64, &'a Said<Outcome>)>,
    did: BTreeMap<Call, (u64, &'a Said<u64>)>,
    retried: BTreeMap<Call, (u64, &'a Said<ReceiptId>)>,
}

impl<'a> Answers<'a> {
    fn of(ledger: &'a Ledger) -> Self {
        let mut answers = Self::default();
        for entry in &ledger.entries {
            let at_ms = entry.at_ms;
            match &entry.what {
                What::Answered { call, answer } => {
                    answers.answered.insert(*call, (at_ms, answer));
                }
                What::Settled { call, outcome } => {
                    answers.settled.insert(*call, (at_ms, outcome));
                }
                What::Did { call, answer } => {
                    answers.did.insert(*call, (at_ms, answer));
                }
                What::Retried { call, answer } => {
                    answers.retried.insert(*call, (at_ms, answer));
                }
                _ => {}
            }
        }
        answers
    }
}
