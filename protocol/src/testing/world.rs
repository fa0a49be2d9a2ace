//! Two nodes, one link between them, and everything that can go wrong, in virtual time.
//!
//! A step does one small thing: deliver one frame, commit one request, accept a message,
//! kill a node. Frames pass through the codec. The checks compare both stores with a plain
//! list of what was accepted; they never look into a machine.
//!
//! Read [`World::step`], then [`World::check`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::codec;
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
    /// Frames on their way to this node, per stream, in order.
    streams: [VecDeque<Vec<u8>>; 5],
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
            streams: Default::default(),
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
            self.nodes[node].streams = Default::default();
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
            for stream in 0..5 {
                let queue = &mut self.nodes[node].streams[stream];
                let keep = self.random.below(queue.len() + 1);
                queue.truncate(keep);
            }
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
        node.streams = Default::default();
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
        let start = self.random.below(5);
        for stream in (start..5).chain(0..start) {
            if let Some(bytes) = self.nodes[node].streams[stream].pop_front() {
                self.input(node, decode(stream, &bytes));
                return;
            }
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
                        self.nodes[peer].streams[stream].push_back(bytes);
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
                    // Nothing that happens in this world is either side's fault.
                    let is_fault = matches!(class, ErrorClass::Protocol | ErrorClass::Internal);
                    assert!(!is_fault, "closed at step {step}: {class}: {reason}");
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

    fn is_quiet(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.writes.is_empty()
                && node.reads.is_empty()
                && node.answers.is_empty()
                && node.streams.iter().all(VecDeque::is_empty)
        })
    }

    /// What must hold at every moment.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_always(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            for lane in Lane::ALL {
                let tables = node.store.lane(lane);
                assert!(tables.refusals.len() <= limits::REFUSALS_UNCONFIRMED_MAX);
                let mut seen = BTreeSet::new();
                let mut before = 0;
                for id in tables.inbox.iter().map(|arrived| id_of(&arrived.message)) {
                    assert!(
                        seen.insert(id),
                        "node {index}: message {id} was stored twice"
                    );
                    // Numbers of messages rise in the order of acceptance.
                    if !self.is_revived(id) {
                        assert!(
                            before < id,
                            "node {index}: message {id} stands behind {before}"
                        );
                        before = id;
                    }
                }
                let mut dead = BTreeSet::new();
                for letter in &tables.dead {
                    assert!(
                        dead.insert(letter.position),
                        "{:?} died twice",
                        letter.position
                    );
                }
            }
        }
    }

    /// What must hold when everything has been delivered.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn check(&self) {
        self.check_always();
        let lanes = || self.nodes.iter().flat_map(|node| &node.store.lanes);
        let stored: BTreeSet<u64> = lanes()
            .flat_map(|lane| &lane.inbox)
            .map(|arrived| id_of(&arrived.message))
            .collect();
        self.check_ends(&stored);
        let dead: BTreeMap<u64, bool> = lanes()
            .flat_map(|lane| &lane.dead)
            .map(|letter| (id_of(&letter.message), letter.refused.is_some()))
            .collect();
        for (id, sent) in &self.sent {
            let sender = &self.nodes[sent.from];
            let recipient = &self.nodes[1 - sent.from];
            let (is_stored, is_dead) = (stored.contains(id), dead.contains_key(id));
            let is_refused = dead.get(id).is_some_and(|is_refused| *is_refused);
            assert!(
                !(is_refused && is_stored),
                "message {id} was stored and refused"
            );
            assert!(
                is_stored || is_dead || self.is_excused(*id, sent),
                "message {id} vanished: {sent:?}, decided {:?}, given up {:?}, restores {:?} {:?}",
                self.decided.get(id),
                self.given_up.get(id),
                sender.restores,
                recipient.restores,
            );
        }
        for node in &self.nodes {
            for lane in &node.store.lanes {
                assert!(lane.rows.is_empty(), "messages still wait");
                assert!(lane.refusals.is_empty(), "refusals are still unconfirmed");
            }
        }
    }

    /// What was given up and is not in doubt has not arrived. Who was set back knows less.
    fn check_ends(&self, stored: &BTreeSet<u64>) {
        if self.nodes.iter().any(|node| !node.restores.is_empty()) {
            return;
        }
        let lanes = self.nodes.iter().flat_map(|node| &node.store.lanes);
        for letter in lanes.flat_map(|lane| &lane.dead) {
            let id = id_of(&letter.message);
            assert!(
                letter.is_open || !stored.contains(&id),
                "message {id} at {:?} was delivered, and called not delivered",
                letter.position
            );
        }
    }

    /// Whether later messages may stand before this one: it was given up, or its recipient
    /// was set back after storing it and said so, and then the sender was set back too, to
    /// when it still waited.
    fn is_revived(&self, id: u64) -> bool {
        let Some(sent) = self.sent.get(&id) else {
            return false;
        };
        let given_up = self.given_up.get(&id).copied();
        let set_back = self.nodes[1 - sent.from].restores.iter().map(|&(at, _)| at);
        let overtaken = set_back.filter(|at| sent.step <= *at).chain(given_up).min();
        let restores = &self.nodes[sent.from].restores;
        overtaken.is_some_and(|step| restores.iter().any(|&(at, _)| step <= at))
    }

    /// Whether a message may be missing: an operator put back an older store.
    fn is_excused(&self, id: u64, sent: &Sent) -> bool {
        let sender = &self.nodes[sent.from];
        let recipient = &self.nodes[1 - sent.from];
        // The sender's store forgot the message, or forgot the dead letter that it had become.
        let forgotten = sender.restores.iter().any(|&(at, copy)| {
            let was_accepted = copy <= sent.step && sent.step <= at;
            let refused = self
                .decided
                .get(&id)
                .is_some_and(|&(step, stored)| !stored && step <= at);
            let given_up = self.given_up.get(&id).is_some_and(|&step| step <= at);
            was_accepted || refused || given_up
        });
        // The recipient's store forgot it: then both sides have reported a loss since. One
        // exception: a sender that was set back itself sent an old epoch's message again after
        // newer ones, and Start names of fully settled epochs only the newest.
        let lane = sent.lane;
        let here = |event: &SessionEvent| matches!(event, SessionEvent::PeerRolledBack { lane: l, .. } if *l == lane);
        let there = |event: &SessionEvent| matches!(event, SessionEvent::RolledBack { lane: l, .. } if *l == lane);
        let set_back = recipient.restores.iter().any(|&(at, _)| {
            let was_stored = self.decided.get(&id).is_some_and(|&(step, _)| step <= at);
            let is_reported = sender.events.iter().any(|(step, e)| *step >= at && here(e))
                && recipient
                    .events
                    .iter()
                    .any(|(step, e)| *step >= at && there(e));
            let was_revived = sender
                .restores
                .iter()
                .any(|(s, _)| sent.step <= *s && *s <= at);
            was_stored && (is_reported || was_revived)
        });
        forgotten || set_back
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

fn id_of(message: &Message) -> u64 {
    let bytes: [u8; 8] = message
        .payload
        .as_slice()
        .try_into()
        .expect("the world's own payload");
    u64::from_be_bytes(bytes)
}

/// The stream of a frame at its destination, and its bytes.
fn encode(output: &Output) -> (usize, Vec<u8>) {
    match output {
        Output::SendToReceiver(lane, frame) => (1 + lane.index(), codec::encode_sender(frame)),
        Output::SendToSender(lane, frame) => (3 + lane.index(), codec::encode_receiver(frame)),
        Output::SendControl(frame) => (0, codec::encode_control(frame)),
        other => unreachable!("{other:?} is no frame"),
    }
}

fn decode(stream: usize, bytes: &[u8]) -> Input {
    let lane = |first| {
        if stream == first {
            Lane::User
        } else {
            Lane::System
        }
    };
    let known = "a frame of this version";
    match stream {
        0 => Input::Control(codec::decode_control(bytes).expect(known).expect(known)),
        1 | 2 => {
            let frame = codec::decode_sender(bytes).expect(known).expect(known);
            Input::FromSender(lane(1), frame)
        }
        _ => {
            let frame = codec::decode_receiver(bytes).expect(known).expect(known);
            Input::FromReceiver(lane(3), frame)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Chaos = Chaos {
        lose_link: 150,
        crash: 250,
        back_up: 200,
        restore: 600,
        give_up: 60,
        forget: 1_500,
        fill: 300,
        drain: 500,
        grant: 200,
        refuse: 8,
    };

    /// Runs `runs` worlds of one kind; `PACKHORSE_SEED` repeats one of them alone and
    /// `PACKHORSE_RUNS` changes how many there are.
    fn run(name: &str, runs: u64, steps: u64, chaos: Chaos) {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let seeds = match number("PACKHORSE_SEED") {
            Some(seed) => seed..seed + 1,
            None => 0..number("PACKHORSE_RUNS").unwrap_or(runs),
        };
        for seed in seeds {
            let outcome = std::panic::catch_unwind(|| {
                let mut world = World::new(seed, chaos);
                for step in 0..steps {
                    world.step();
                    if step % 100 == 0 {
                        world.check_always();
                    }
                }
                world.settle();
                world.check();
            });
            if let Err(panic) = outcome {
                eprintln!("{name}: failed with PACKHORSE_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }

    #[test]
    fn everything_arrives_once_and_in_order_when_nothing_goes_wrong() {
        run("calm", 100, 500, Chaos::default());
    }

    #[test]
    fn everything_arrives_once_and_in_order_across_lost_links() {
        run(
            "links",
            300,
            600,
            Chaos {
                lose_link: 60,
                refuse: 10,
                ..Chaos::default()
            },
        );
    }

    #[test]
    fn everything_arrives_once_and_in_order_whoever_dies_whenever() {
        let chaos = Chaos {
            lose_link: 200,
            crash: 80,
            refuse: 10,
            give_up: 80,
            ..EVERYTHING
        };
        run(
            "crashes",
            400,
            600,
            Chaos {
                restore: 0,
                ..chaos
            },
        );
    }

    #[test]
    fn nothing_is_lost_without_a_report_whatever_happens() {
        run("everything", 1_700, 500, EVERYTHING);
    }

    #[test]
    fn floods_larger_than_the_window_arrive_and_a_flood_of_refusals_is_told_in_full() {
        for (seed, refuse) in [(1, 0), (2, 2), (3, 1)] {
            let mut world = World::new(
                seed,
                Chaos {
                    refuse,
                    ..Chaos::default()
                },
            );
            world.accept(0, Lane::User, 5_000);
            world.accept(1, Lane::User, 3_000);
            for _ in 0..2_000 {
                world.step();
            }
            world.settle();
            world.check();
        }
    }

    #[test]
    fn a_busy_pair_survives_long_histories() {
        run("long", 4, 8_000, EVERYTHING);
    }
}
