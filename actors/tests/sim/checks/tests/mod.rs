//! Made-up histories: for each rule some that pass, and some that it catches.

mod arriving;
mod machines;
mod sending;

use std::collections::BTreeMap;

use packhorse_actors::store::{DeadState, PeerNumber, ReceiptId, ReceiptState};
use packhorse_protocol::epoch::{Epoch, Lane, Position};
use packhorse_protocol::message::DeliveryClass;

use crate::checks::*;
use crate::ledger::*;
use crate::plan::topology::*;
use crate::plan::*;

/// When each made-up history ends.
const END_MS: u64 = 100_000;

// Ops of the plan below, all of node 0 for node 1.
/// To `news`, 1 to 9.
const NEWS_OP: Op = 1;
/// To `jobs`.
const JOB: Op = 10;
/// To `secret`, which node 1 lets nobody send.
const SECRET_OP: Op = 11;
/// Moderate, to `news`.
const MODERATE: Op = 12;
const EPHEMERAL: Op = 13;
/// Two letters under one key.
const KEYED: Op = 14;
const REPLACING: Op = 15;
/// With an end of its own.
const EXPIRING: Op = 16;
/// To `idle`.
const LEFT: Op = 17;

fn letter(op: Op, topic: &'static str) -> Letter {
    Letter {
        op,
        topic,
        class: DeliveryClass::Critical,
        size: 20,
        header_bytes: 0,
        key: None,
        replace: false,
        expires_in_ms: None,
    }
}

fn plan() -> Plan {
    let mut letters: Vec<Letter> = (NEWS_OP..JOB).map(|op| letter(op, NEWS)).collect();
    let keyed = |op| Letter {
        key: Some("key".to_owned()),
        ..letter(op, NEWS)
    };
    letters.extend([
        letter(JOB, JOBS),
        letter(SECRET_OP, SECRET),
        Letter {
            class: DeliveryClass::Moderate,
            ..letter(MODERATE, NEWS)
        },
        Letter {
            class: DeliveryClass::Ephemeral,
            ..letter(EPHEMERAL, NEWS)
        },
        keyed(KEYED),
        Letter {
            replace: true,
            ..keyed(REPLACING)
        },
        Letter {
            expires_in_ms: Some(500),
            ..letter(EXPIRING, NEWS)
        },
        letter(LEFT, IDLE),
    ]);
    let act = Act {
        at_ms: 0,
        node: 0,
        deed: Deed::Send { to: 1, letters },
    };
    let consumer = |topic, is_worker| Consumer {
        topic,
        is_worker,
        count: 10,
        lease_ms: 3_000,
        begins_ms: 0,
        thinks_ms: (0, 0),
        pauses: Vec::new(),
    };
    let node = NodePlan {
        listens: true,
        has_tight_quotas: false,
        clock_ahead_ms: 0,
        consumers: vec![consumer(NEWS, false), consumer(JOBS, true)],
    };
    let pair = Pair {
        a: 0,
        b: 1,
        a_knows_b: true,
        b_knows_a: true,
        at_a: vec!["message.send:*"],
        at_b: vec!["message.send:*", "message.send:!secret", "execute:jobs"],
    };
    let topology = Topology {
        nodes: vec![node.clone(), node],
        pairs: vec![pair],
        network: NetworkPlan {
            latency_ms: (1, 1),
            loss_permille: 0,
        },
    };
    Plan::new(1, 50_000, topology, vec![act], Vec::new(), Vec::new())
}

/// A place in a lane of node 0, of the first life unless said otherwise.
fn at(sequence: u64) -> Position {
    Position {
        epoch: Epoch { boot: 1, nonce: 7 },
        sequence,
    }
}

fn id(sequence: u64) -> ReceiptId {
    ReceiptId {
        peer: PeerNumber(1),
        lane: Lane::User,
        position: at(sequence),
    }
}

fn node(node: Node) -> Place {
    Place {
        node,
        life: 1,
        is_copy: false,
    }
}

/// A history under construction.
struct Run {
    plan: Plan,
    ledger: Ledger,
    end: Final,
}

impl Run {
    /// Two machines of which nothing is known but that they run.
    fn new() -> Self {
        let quiet = NodeFinal {
            read_ms: END_MS,
            actors: vec![("root".to_owned(), true)],
            ..NodeFinal::default()
        };
        Self {
            plan: plan(),
            ledger: Ledger::default(),
            end: Final {
                at_ms: END_MS,
                unrest: None,
                nodes: vec![quiet.clone(), quiet],
            },
        }
    }

    fn note(&mut self, at_ms: u64, place: Place, what: What) {
        self.ledger.note(at_ms, place, what);
    }

    fn ask(&mut self, at_ms: u64, op: Op) -> Call {
        let call = self.ledger.call();
        let ops = vec![op];
        self.note(at_ms, node(0), What::Asked { call, to: 1, ops });
        call
    }

    fn answer(&mut self, at_ms: u64, call: Call, answer: Answer) {
        self.note(at_ms, node(0), What::Answered { call, answer });
    }

    /// Node 0 accepts an op for node 1 under a sequence, a millisecond after it was asked.
    fn accept(&mut self, at_ms: u64, op: Op, sequence: u64) {
        self.accept_again(at_ms, op, sequence, false);
    }

    fn accept_again(&mut self, at_ms: u64, op: Op, sequence: u64, repeated: bool) {
        let call = self.ask(at_ms, op);
        let accepted = AcceptedHere {
            op,
            id: id(sequence),
            state: ReceiptState::Accepted,
            repeated,
        };
        self.answer(at_ms + 1, call, Answer::Accepted(vec![accepted]));
    }

    fn seen(&self, arrival: u64, sequence: u64, op: Op) -> Seen {
        Seen {
            topic: self.plan.letter(op).unwrap().2.topic.to_owned(),
            arrival,
            from: 0,
            position: at(sequence),
            op: Some(op),
            is_intact: true,
            token: 1,
            lease_ms: 3_000,
            attempts: 0,
            failures: 0,
            is_worker: false,
            is_ephemeral: false,
        }
    }

    /// A consumer of node 1 is handed a message.
    fn saw(&mut self, at_ms: u64, arrival: u64, sequence: u64, op: Op) {
        let seen = self.seen(arrival, sequence, op);
        self.note(at_ms, node(1), What::Saw(seen));
    }

    /// A consumer of node 1 says what became of it, and is answered a millisecond later.
    fn settle(&mut self, at_ms: u64, arrival: u64, verdict: Verdict, outcome: Said<Outcome>) {
        let call = self.ledger.call();
        let arrivals = vec![arrival];
        let settling = What::Settling {
            call,
            arrivals,
            verdict,
        };
        self.note(at_ms, node(1), settling);
        self.note(at_ms + 1, node(1), What::Settled { call, outcome });
    }

    fn done(&mut self, at_ms: u64, arrival: u64) {
        self.settle(at_ms, arrival, Verdict::Done, Said::Yes(Outcome::Done));
    }

    /// Somebody does something by hand and is answered a millisecond later.
    fn by_hand(&mut self, at_ms: u64, of: Node, deed: ByHand) {
        let call = self.ledger.call();
        self.note(at_ms, node(of), What::Doing { call, deed });
        let answer = Said::Yes(1);
        self.note(at_ms + 1, node(of), What::Did { call, answer });
    }

    /// Node 0 sends a letter again, under another sequence.
    fn retry(&mut self, at_ms: u64, old: u64, new: u64) {
        let call = self.ledger.call();
        let deed = ByHand::RetryDead { id: id(old) };
        self.note(at_ms, node(0), What::Doing { call, deed });
        let answer = Said::Yes(id(new));
        self.note(at_ms + 1, node(0), What::Retried { call, answer });
    }

    fn receipt(&mut self, at_ms: u64, sequence: u64, state: Option<ReceiptState>) {
        let what = What::Receipt {
            id: id(sequence),
            state,
            reason: None,
        };
        self.note(at_ms, node(0), what);
    }

    /// What the receipt says at the end.
    fn ends(&mut self, sequence: u64, state: ReceiptState) {
        let end = ReceiptEnd {
            state,
            reason: None,
        };
        self.end.nodes[0].receipts.insert(id(sequence), Some(end));
    }

    fn in_row(&self, arrival: u64, sequence: u64, op: Op) -> InRow {
        InRow {
            from: 0,
            arrival,
            position: at(sequence),
            op: Some(op),
            topic: self.plan.letter(op).unwrap().2.topic.to_owned(),
            weight: 0,
            is_intact: true,
            kept_back_ms: 0,
            reason: String::new(),
        }
    }

    /// It is in the inbox of node 1 at the end.
    fn waits_there(&mut self, arrival: u64, sequence: u64, op: Op) {
        let row = self.in_row(arrival, sequence, op);
        self.end.nodes[1].inbox.push(row);
    }

    /// It was given up at node 1 and lies there.
    fn dead_there(&mut self, sequence: u64, op: Op) {
        let row = self.in_row(0, sequence, op);
        self.end.nodes[1].letters_in.push(row);
    }

    fn letter_row(sequence: u64, op: Op, code: u16, state: DeadState) -> LetterRow {
        LetterRow {
            to: 1,
            id: id(sequence),
            op: Some(op),
            state,
            is_open: false,
            code,
            at_ms: 70_000,
            born_ms: 1_000,
            weight: 0,
        }
    }

    /// Node 0 has a dead letter at the end.
    fn dead_here(&mut self, sequence: u64, op: Op, code: u16, state: DeadState) {
        let row = Self::letter_row(sequence, op, code, state);
        self.end.nodes[0].letters.push(row);
    }

    fn rules(&self) -> Vec<&'static str> {
        let found = judge(&self.plan, &self.ledger, &self.end);
        let mut rules: Vec<_> = found.iter().map(|violation| violation.rule).collect();
        rules.dedup();
        rules
    }

    #[track_caller]
    fn passes(&self) {
        let found = judge(&self.plan, &self.ledger, &self.end);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    /// That rule, and maybe others that follow.
    #[track_caller]
    fn is_caught_by(&self, rule: &str) {
        let rules = self.rules();
        assert!(rules.contains(&rule), "{rule} is not among {rules:?}");
    }

    /// Nothing but that rule.
    #[track_caller]
    fn is_caught_only_by(&self, rule: &str) {
        assert_eq!(self.rules(), [rule]);
    }

    /// Node 1 has it and hands it out, and it is handled and told, all within 10 ms.
    fn handled(&mut self, at_ms: u64, arrival: u64, sequence: u64, op: Op) {
        self.saw(at_ms, arrival, sequence, op);
        self.done(at_ms + 5, arrival);
        self.ends(sequence, ReceiptState::Done);
    }
}

/// A course in which much happens, and all of it is right.
fn sound() -> Run {
    let mut run = Run::new();
    for sequence in 1..=3 {
        run.accept(1_000 + sequence, NEWS_OP + sequence - 1, sequence);
        run.handled(
            2_000 + sequence * 10,
            sequence,
            sequence,
            NEWS_OP + sequence - 1,
        );
    }
    // A job whose first worker died.
    run.accept(3_000, JOB, 4);
    run.saw(3_100, 4, 4, JOB);
    run.saw(9_000, 4, 4, JOB);
    run.done(9_100, 4);
    run.ends(4, ReceiptState::Done);
    // One that is refused there, one that is given up, one that is sent again.
    run.accept(4_000, SECRET_OP, 5);
    run.ends(5, ReceiptState::Failed);
    run.dead_here(5, SECRET_OP, 1, DeadState::Refused);
    run.accept(5_000, MODERATE, 6);
    run.ends(6, ReceiptState::Failed);
    run.dead_here(6, MODERATE, 0xff02, DeadState::NotDelivered);
    run.accept(6_000, NEWS_OP + 3, 7);
    let ids = vec![id(7)];
    run.by_hand(6_500, 0, ByHand::DropWaiting { to: Some(1), ids });
    run.receipt(6_600, 7, Some(ReceiptState::Failed));
    run.retry(7_000, 7, 8);
    run.handled(8_000, 5, 8, NEWS_OP + 3);
    run.receipt(8_100, 7, Some(ReceiptState::Done));
    run.ends(7, ReceiptState::Done);
    // A key that is used twice, one that is replaced, one that nobody takes out.
    run.accept(10_000, KEYED, 9);
    run.accept_again(10_100, KEYED, 9, true);
    run.accept_again(10_200, REPLACING, 9, true);
    run.handled(11_000, 6, 9, REPLACING);
    run.accept(12_000, LEFT, 10);
    run.waits_there(7, 10, LEFT);
    run.ends(10, ReceiptState::Stored);
    run
}

#[test]
fn a_sound_history_passes() {
    sound().passes();
}

#[test]
fn every_rule_has_a_name_and_a_history_that_it_catches() {
    // The histories are in the files beside this one; here, that none is forgotten.
    let texts = [
        include_str!("arriving.rs"),
        include_str!("machines.rs"),
        include_str!("sending.rs"),
    ];
    let rules = [
        include_str!("../durable.rs"),
        include_str!("../once.rs"),
        include_str!("../grants.rs"),
        include_str!("../receipts.rs"),
        include_str!("../inboxes.rs"),
        include_str!("../machines.rs"),
        include_str!("../liveness.rs"),
    ];
    let mut named = BTreeMap::new();
    for text in rules {
        for part in text.split("Violation::new(").skip(1) {
            let name = part.split('"').nth(1).unwrap();
            named.insert(name, texts.iter().any(|text| text.contains(name)));
        }
    }
    assert!(named.len() > 20, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|(_, is_tested)| !**is_tested).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
