//! Two nodes, one link between them, and everything that can go wrong, in virtual time.
//!
//! A step does one small thing: deliver one frame, commit one request, accept a message,
//! kill a node. Frames pass through the codec. The checks compare both stores with a plain
//! list of what was accepted; they never look into a machine.
//!
//! Read [`World::step`], then [`World::check`].

mod checks;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, VecDeque};

use self::checks::id_of;
use self::wire::{Wire, decode, encode};
use crate::epoch::{Epoch, Lane, Position, RefusalCode};
use crate::error_class::ErrorClass;
use crate::limits;
use crate::message::{DeliveryClass, Message};
use crate::session::{Input, Output, Session, SessionEvent, State};
use crate::stream::Side;
use crate::testing::{ModelStore, Random};

/// One of the two nodes, and what lives in its process.
#[derive(Debug)]
pub struct Node {
    /// What survives.
    pub store: ModelStore,
    /// The live session and its number.
    pub session: Option<(u64, Session)>,
    /// Requests that change the store, and reads that must see earlier ones. In order.
    writes: VecDeque<(u64, Output)>,
    /// Reads of a snapshot, taken when they run.
    reads: VecDeque<(u64, Output)>,
    /// What was done or read and not told to the session yet.
    answers: VecDeque<(u64, Input)>,
    /// Frames on their way to this node.
    wire: Wire,
    backup: Option<Backup>,
    /// What the node's sessions told, with the step.
    pub events: Vec<(u64, SessionEvent)>,
    /// When the store was replaced by an older one: (step, step of that backup).
    pub restores: Vec<(u64, u64)>,
    is_full: bool,
}

#[derive(Clone, Debug)]
struct Backup {
    store: ModelStore,
    step: u64,
}

/// What can go wrong; each is the chance per step, once in so many, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chaos {
    /// The link is lost, with some of what is on it.
    pub lose_link: usize,
    /// A process dies.
    pub crash: usize,
    /// A backup is made.
    pub back_up: usize,
    /// A process dies and its store is replaced by the backup.
    pub restore: usize,
    /// A waiting message is given up.
    pub give_up: usize,
    /// All waiting messages for the peer are given up and the link is cut; marks survive.
    pub forget: usize,
    /// A store is full, or no longer.
    pub fill: usize,
    /// A node ends its session by intent.
    pub drain: usize,
    /// A node grants another window.
    pub grant: usize,
    /// Per message: the recipient refuses it.
    pub refuse: usize,
    /// Per frame: it comes again later.
    pub duplicate: usize,
    /// Per frame: it changes its place with the one before it on its stream.
    pub swap: usize,
    /// Per frame: others pass it, of its stream and of the other streams.
    pub hold: usize,
    /// Per frame: it comes on a stream for other kinds of frames.
    pub divert: usize,
}

/// A message as the world knows it.
#[derive(Clone, Copy, Debug)]
struct Sent {
    from: usize,
    lane: Lane,
    step: u64,
}

/// Two nodes and what happened to them.
#[derive(Debug)]
pub struct World {
    /// The nodes.
    pub nodes: [Node; 2],
    /// Steps done.
    pub steps: u64,
    /// Virtual milliseconds.
    pub now_ms: u64,
    random: Random,
    chaos: Chaos,
    /// Sessions that ended because their frames came wrong: (step, reason).
    pub faults: Vec<(u64, String)>,
    link_is_up: bool,
    next_session: u64,
    next_message: u64,
    sent: BTreeMap<u64, Sent>,
    /// When the recipient's store decided about a message, the last time: (step, stored).
    decided: BTreeMap<u64, (u64, bool)>,
    /// When its sender gave a message up, the first time.
    given_up: BTreeMap<u64, u64>,
}

impl World {
    /// Two new nodes that have never met.
    #[must_use]
    pub fn new(seed: u64, chaos: Chaos) -> World {
        let mut random = Random::new(seed);
        let nodes = [0, 1].map(|_| Node {
            store: ModelStore::new(random.draw()),
            session: None,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            answers: VecDeque::new(),
            wire: Wire::default(),
            backup: None,
            events: Vec::new(),
            restores: Vec::new(),
            is_full: false,
        });
        World {
            nodes,
            steps: 0,
            now_ms: 1_000,
            random,
            chaos,
            faults: Vec::new(),
            link_is_up: false,
            next_session: 1,
            next_message: 1,
            sent: BTreeMap::new(),
            decided: BTreeMap::new(),
            given_up: BTreeMap::new(),
        }
    }

    /// One small thing happens.
    pub fn step(&mut self) {
        self.steps += 1;
        let node = self.random.below(2);
        let chaos = self.chaos;
        if self.happens(chaos.lose_link) {
            self.lose_link();
        }
        if self.happens(chaos.crash) {
            self.crash(node);
        }
        if self.happens(chaos.back_up) {
            self.back_up(node);
        }
        if self.happens(chaos.restore) {
            self.restore(node);
        }
        if self.happens(chaos.give_up) {
            self.give_up_one(node);
        }
        if self.happens(chaos.forget) {
            self.forget(node);
        }
        if self.happens(chaos.fill) {
            self.nodes[node].is_full ^= true;
        }
        if self.happens(chaos.drain) {
            self.input(node, Input::Drain);
        }
        if self.happens(chaos.grant) {
            let messages = self.random.below(limits::WINDOW_MESSAGES) as u32 + 1;
            let bytes = self.random.below(limits::WINDOW_BYTES) as u32;
            let lane = self.lane();
            self.input(
                node,
                Input::Grant {
                    lane,
                    messages,
                    bytes,
                },
            );
        }
        // Most steps are work: a session needs some twenty of them to start its lanes.
        for _ in 0..4 {
            let node = self.random.below(2);
            self.work(node);
        }
    }

    /// One of the two nodes does one of the things that it has to do.
    fn work(&mut self, node: usize) {
        match self.random.below(16) {
            0 if self.random.once_in(2) => {
                let lane = self.lane();
                // Mostly one, sometimes more than a batch.
                let count = match self.random.below(40) {
                    0 => 300,
                    1..=6 => self.random.below(20),
                    _ => 1,
                };
                self.accept(node, lane, count);
            }
            1 => self.connect(),
            2..=3 => self.run_write(node),
            4 => self.run_read(node),
            5..=7 => self.tell_answer(node),
            8 => {
                let ms = 1 + self.random.below(400) as u64;
                self.pass_time(ms);
            }
            _ => self.deliver(node),
        }
    }

    /// Everything goes well from now on, until nothing is left to do.
    ///
    /// # Panics
    /// If that takes unreasonably long: the nodes have got stuck.
    pub fn settle(&mut self) {
        self.chaos = Chaos {
            refuse: self.chaos.refuse,
            ..Chaos::default()
        };
        for node in &mut self.nodes {
            node.is_full = false;
        }
        if !self.link_is_up {
            self.notice();
        }
        for round in 0.. {
            assert!(round < 20_000, "the nodes are stuck: {self:#?}");
            self.steps += 1;
            self.connect();
            for node in 0..2 {
                for _ in 0..8 {
                    self.deliver(node);
                }
                self.run_write(node);
                self.run_read(node);
                self.tell_answer(node);
                self.tell_answer(node);
            }
            if self.is_quiet() {
                let waits = self.nodes.iter().any(|node| {
                    node.store
                        .lanes
                        .iter()
                        .any(|lane| !lane.rows.is_empty() || !lane.refusals.is_empty())
                });
                if !waits {
                    return;
                }
                self.pass_time(500);
            }
        }
    }

    /// Accepts messages for the other node.
    pub fn accept(&mut self, node: usize, lane: Lane, count: usize) {
        for _ in 0..count {
            let id = self.next_message;
            self.next_message += 1;
            let message = Message {
                class: DeliveryClass::Critical,
                topic: "t".to_owned(),
                born_ms: self.now_ms,
                headers: Vec::new(),
                payload: id.to_be_bytes().to_vec(),
            };
            self.nodes[node].store.accept(lane, message);
            self.sent.insert(
                id,
                Sent {
                    from: node,
                    lane,
                    step: self.steps,
                },
            );
        }
        if count > 0 {
            self.input(node, Input::Grew { lane });
        }
    }

    /// A link comes up, if both sides know that there is none.
    pub fn connect(&mut self) {
        if self.link_is_up || self.nodes.iter().any(|node| node.session.is_some()) {
            return;
        }
        self.greet(0);
        self.greet(1);
        self.link_is_up = true;
        for (node, side) in [(0, Side::Dialler), (1, Side::Listener)] {
            self.nodes[node].wire = Wire::default();
            let session = Session::new(side, self.now_ms, self.now_ms + 77);
            self.nodes[node].session = Some((self.next_session, session));
        }
        self.next_session += 1;
        self.drain_outputs(0);
        self.drain_outputs(1);
    }

    /// The handshake's part: epochs are shown, and who shows an old boot number with another
    /// nonce takes a new one above everything seen.
    fn greet(&mut self, node: usize) {
        let nonce = self.random.draw();
        let [one, two] = &mut self.nodes;
        let (me, peer) = if node == 0 { (one, two) } else { (two, one) };
        let shown = me.store.epoch;
        if let Some(seen) = peer.store.peer_epoch
            && shown.boot <= seen.boot
            && shown.nonce != seen.nonce
        {
            me.store.open(seen.boot, nonce);
        }
        peer.store.peer_epoch = Some(me.store.epoch);
    }

    /// The link is gone; each side may still read some of what was on it, and notices later.
    pub fn lose_link(&mut self) {
        self.link_is_up = false;
        for node in 0..2 {
            self.nodes[node].wire.cut(&mut self.random);
        }
    }

    /// The process dies: its requests are lost, its store is opened again.
    pub fn crash(&mut self, node: usize) {
        self.lose_link();
        let nonce = self.random.draw();
        let node = &mut self.nodes[node];
        node.session = None;
        node.writes.clear();
        node.reads.clear();
        node.answers.clear();
        node.wire.clear();
        node.store.open(0, nonce);
    }

    /// Copies the store.
    pub fn back_up(&mut self, node: usize) {
        let step = self.steps;
        let node = &mut self.nodes[node];
        node.backup = Some(Backup {
            store: node.store.clone(),
            step,
        });
    }

    /// The process dies and comes back on the copy.
    pub fn restore(&mut self, node: usize) {
        let Some(backup) = self.nodes[node].backup.clone() else {
            return;
        };
        self.nodes[node].store = backup.store;
        self.nodes[node].restores.push((self.steps, backup.step));
        self.crash(node);
    }

    /// The node forgets its peer and they pair again: numbers and marks outlive it.
    pub fn forget(&mut self, node: usize) {
        self.lose_link();
        for lane in Lane::ALL {
            let rows = self.nodes[node].store.lane(lane).rows.keys().copied();
            for position in rows.collect::<Vec<_>>() {
                self.give_up(node, lane, position);
            }
        }
    }

    fn give_up_one(&mut self, node: usize) {
        let lane = self.lane();
        let rows = &self.nodes[node].store.lane(lane).rows;
        let index = self.random.below(rows.len());
        if let Some(position) = rows.keys().nth(index).copied() {
            self.give_up(node, lane, position);
        }
    }

    fn give_up(&mut self, node: usize, lane: Lane, position: Position) {
        if let Some(message) = self.nodes[node].store.lane(lane).rows.get(&position) {
            self.given_up.entry(id_of(message)).or_insert(self.steps);
        }
        self.nodes[node].store.give_up(lane, position);
    }

    /// Both sides learn that the link is gone.
    fn notice(&mut self) {
        for node in &mut self.nodes {
            if let Some((_, session)) = &mut node.session {
                session.handle(Input::LinkLost("lost".to_owned()), self.now_ms);
            }
            node.session = None;
        }
    }

    /// Delivers one frame, or the news that there will be none.
    fn deliver(&mut self, node: usize) {
        if self.nodes[node].session.is_none() {
            return;
        }
        if !self.link_is_up && self.random.once_in(8) {
            self.input(node, Input::LinkLost("lost".to_owned()));
            self.nodes[node].session = None;
            return;
        }
        if let Some((stream, bytes)) = self.nodes[node].wire.pop(&mut self.random) {
            self.input(node, decode(stream, &bytes));
        }
    }

    fn run_write(&mut self, node: usize) {
        let Some((session, request)) = self.nodes[node].writes.pop_front() else {
            return;
        };
        if let Output::Store { lane, .. } = request
            && self.nodes[node].is_full
        {
            let reason = "full".to_owned();
            return self.answer(node, session, Input::StorePaused { lane, reason });
        }
        let World {
            nodes,
            random,
            chaos,
            decided,
            steps,
            ..
        } = self;
        let refuse = |message: &Message| {
            let is_refused = chaos.refuse > 0 && random.once_in(chaos.refuse);
            decided.insert(id_of(message), (*steps, !is_refused));
            is_refused.then_some(RefusalCode::NO_GRANT)
        };
        if let Some(answer) = nodes[node].store.answer(&request, refuse) {
            self.answer(node, session, answer);
        }
    }

    fn run_read(&mut self, node: usize) {
        let Some((session, request)) = self.nodes[node].reads.pop_front() else {
            return;
        };
        if let Some(answer) = self.nodes[node].store.answer(&request, |_| None) {
            self.answer(node, session, answer);
        }
    }

    fn answer(&mut self, node: usize, asked_by: u64, answer: Input) {
        self.nodes[node].answers.push_back((asked_by, answer));
    }

    /// The oldest answer goes to the session that asked, if it still lives.
    fn tell_answer(&mut self, node: usize) {
        let Some((asked_by, answer)) = self.nodes[node].answers.pop_front() else {
            return;
        };
        let session = self.nodes[node].session.as_ref();
        if session.is_some_and(|(number, _)| *number == asked_by) {
            self.input(node, answer);
        }
    }

    fn pass_time(&mut self, ms: u64) {
        self.now_ms += ms;
        for node in 0..2 {
            self.input(node, Input::Tick);
        }
    }

    /// Hands an input to a node's session and carries its outputs away.
    pub fn input(&mut self, node: usize, input: Input) {
        if let Some((_, session)) = &mut self.nodes[node].session {
            session.handle(input, self.now_ms);
            self.drain_outputs(node);
        }
    }

    fn drain_outputs(&mut self, node: usize) {
        let mut is_over = false;
        while let Some((number, session)) = &mut self.nodes[node].session
            && let Some(output) = session.poll()
        {
            let number = *number;
            let (peer, step) = (1 - node, self.steps);
            match output {
                Output::SendControl(_) | Output::SendToReceiver(..) | Output::SendToSender(..) => {
                    let (stream, bytes) = encode(&output);
                    if self.link_is_up {
                        let wire = &mut self.nodes[peer].wire;
                        wire.push(stream, bytes, &self.chaos, &mut self.random);
                    }
                }
                Output::Load { .. } => {
                    self.nodes[node].reads.push_back((number, output));
                }
                Output::ReadLines { .. }
                | Output::Settle { .. }
                | Output::ReadMarks { .. }
                | Output::Store { .. }
                | Output::Confirm { .. } => {
                    self.nodes[node].writes.push_back((number, output));
                }
                Output::Event(event) => self.nodes[node].events.push((step, event)),
                Output::Close { class, reason } => {
                    // Nothing that happens in this world is either side's fault, but what is
                    // done to frames looks like the peer's.
                    let is_fault = matches!(class, ErrorClass::Protocol | ErrorClass::Internal);
                    let is_expected = class == ErrorClass::Protocol && self.is_disturbed();
                    assert!(
                        !is_fault || is_expected,
                        "closed at step {step}: {class}: {reason}"
                    );
                    if is_fault {
                        self.faults.push((step, reason));
                    }
                    is_over = true;
                }
                Output::RoundTrip { .. }
                | Output::AdvanceGeneration { .. }
                | Output::UseGeneration { .. }
                | Output::EraseGeneration { .. } => {}
            }
        }
        if is_over {
            let state = self.nodes[node]
                .session
                .as_ref()
                .map(|(_, session)| session.state());
            assert!(matches!(state, Some(State::Closed(_))));
            self.nodes[node].session = None;
            self.lose_link();
        }
    }

    /// Whether frames of this link came as no link brings them.
    fn is_disturbed(&self) -> bool {
        self.nodes.iter().any(|node| node.wire.disturbances > 0)
    }

    fn is_quiet(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.writes.is_empty()
                && node.reads.is_empty()
                && node.answers.is_empty()
                && node.wire.is_empty()
        })
    }

    fn happens(&mut self, one_in: usize) -> bool {
        one_in > 0 && self.random.once_in(one_in)
    }

    fn lane(&mut self) -> Lane {
        if self.random.once_in(3) {
            Lane::System
        } else {
            Lane::User
        }
    }

    /// The epochs that a node has numbered under, for tests that look at events.
    #[must_use]
    pub fn epochs(&self, node: usize, lane: Lane) -> Vec<Epoch> {
        self.nodes[node]
            .store
            .lane(lane)
            .lines
            .keys()
            .copied()
            .collect()
    }
}
