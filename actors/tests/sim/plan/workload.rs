//! What clients ask of their nodes, and when.
//!
//! Every letter has a number of its own, the op: it stands for these bytes to this peer. A letter
//! that is sent again under its key has the same op; what replaces it has another.

use packhorse_protocol::limits::PAYLOAD_BYTES_MAX;
use packhorse_protocol::message::{DeliveryClass, Message};

use super::dice::Dice;
use super::topology::{BULK, IDLE, JOBS, NEWS, Node, SECRET, Topology};

/// The header that names a letter whose payload is too short for it.
pub(crate) const OP_HEADER: &str = "op";

/// Names one content for ever; drawn from 1 on.
pub(crate) type Op = u64;

/// One message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) op: Op,
    pub(crate) topic: &'static str,
    pub(crate) class: DeliveryClass,
    /// Bytes of its payload.
    pub(crate) size: usize,
    /// Bytes of further headers.
    pub(crate) header_bytes: usize,
    pub(crate) key: Option<String>,
    pub(crate) replace: bool,
    /// Its own end, counted from when it is sent, by its node's clock.
    pub(crate) expires_in_ms: Option<u64>,
}

impl Letter {
    /// The message as it is handed to the node. Everything but the time follows from the letter.
    pub(crate) fn message(&self, born_ms: u64) -> Message {
        let mut headers = Vec::new();
        if self.size < 8 {
            headers.push((OP_HEADER.to_owned(), self.op.to_string()));
        }
        if self.header_bytes > 0 {
            headers.push(("pad".to_owned(), "x".repeat(self.header_bytes)));
        }
        Message {
            class: self.class,
            topic: self.topic.to_owned(),
            born_ms,
            headers,
            payload: payload(self.op, self.size),
        }
    }
}

/// The number first, then bytes that follow from it.
fn payload(op: Op, size: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(size + 8);
    let mut word = op;
    while payload.len() < size {
        payload.extend_from_slice(&word.to_be_bytes());
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(op);
    }
    payload.truncate(size);
    payload
}

/// Which letter a message is; `None` for one that no client of the simulation sent.
pub(crate) fn op_of(message: &Message) -> Option<Op> {
    match message.payload.first_chunk::<8>() {
        Some(number) => Some(Op::from_be_bytes(*number)),
        None => {
            let named = message.headers.iter().find(|(name, _)| name == OP_HEADER);
            named.and_then(|(_, number)| number.parse().ok())
        }
    }
}

/// Something that a client of a node does at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) at_ms: u64,
    pub(crate) node: Node,
    pub(crate) deed: Deed,
}

/// What it does.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// Hands letters in, all or none. An ephemeral letter comes alone.
    Send {
        to: Node,
        letters: Vec<Letter>,
    },
    /// Takes waiting messages back: the oldest so many, or without a number all.
    DropWaiting {
        to: Option<Node>,
        count: Option<usize>,
    },
    /// Sends dead letters again: the first so many that may be.
    RetryDead {
        count: usize,
    },
    /// Deletes dead letters.
    DropDead {
        count: usize,
    },
    /// Puts arrivals that were given up back into the inbox.
    RetryDeadIn {
        count: usize,
    },
    DropDeadIn {
        count: usize,
    },
    /// Takes a grant from a peer. What it was is given back by a later `Grant`.
    Revoke {
        from: Node,
        grant: &'static str,
    },
    /// Gives a peer a grant; looks at the inbox before it does.
    Grant {
        to: Node,
        grant: &'static str,
    },
    /// Measures a round trip, which says nothing and must not disturb anything.
    Ping {
        to: Node,
    },
}

/// How a consumer deals with one message, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handling {
    /// It is handled; so many bytes of output.
    Done {
        output: usize,
    },
    /// It is handled and said twice.
    Twice,
    Fail,
    Retry {
        delay_ms: Option<u64>,
    },
    Dead,
    /// Nothing is said any more: the consumer died. Its lease ends by itself.
    Die,
    /// It is handled, and said only when the lease is over.
    Late,
}

/// All that clients do, by time.
pub(crate) fn acts(seed: u64, work_ms: u64, topology: &Topology) -> Vec<Act> {
    let mut maker = Maker {
        dice: Dice::of(seed, "workload"),
        work_ms,
        topology,
        next_op: 1,
        keyed: Vec::new(),
        large_left: 0,
        acts: Vec::new(),
    };
    if maker.dice.chance(250) {
        maker.large_left = maker.dice.between(1, 3);
    }
    let rounds = maker
        .dice
        .weighted(&[(20, 15), (50, 35), (25, 60), (5, 110)]);
    for _ in 0..rounds {
        maker.send();
    }
    if maker.dice.chance(450) {
        maker.burst();
    }
    let by_hand = maker.dice.weighted(&[(35, 0), (35, 3), (30, 10)]);
    for _ in 0..by_hand {
        maker.by_hand();
    }
    if maker.dice.chance(330) {
        for _ in 0..maker.dice.between(1, 3) {
            maker.revoke();
        }
    }
    let mut acts = maker.acts;
    acts.sort_by_key(|act| act.at_ms);
    acts
}

/// A letter that went out under a key, and what may be done with the key again.
struct Keyed {
    node: Node,
    to: Node,
    at_ms: u64,
    letter: Letter,
}

struct Maker<'a> {
    dice: Dice,
    work_ms: u64,
    topology: &'a Topology,
    next_op: Op,
    keyed: Vec<Keyed>,
    /// How many letters near the limit may still come: they cost most of a run.
    large_left: u64,
    acts: Vec<Act>,
}

impl Maker<'_> {
    /// A machine and one of its peers.
    fn way(&mut self) -> (Node, Node) {
        let pair = self.dice.pick(&self.topology.pairs);
        match self.dice.chance(500) {
            true => (pair.a, pair.b),
            false => (pair.b, pair.a),
        }
    }

    fn push(&mut self, at_ms: u64, node: Node, deed: Deed) {
        let at_ms = at_ms.min(self.work_ms);
        self.acts.push(Act { at_ms, node, deed });
    }

    fn send(&mut self) {
        let (node, to) = self.way();
        let at_ms = self.dice.below(self.work_ms);
        if !self.keyed.is_empty() && self.dice.chance(180) {
            return self.again();
        }
        if self.dice.chance(70) {
            let letter = Letter {
                class: DeliveryClass::Ephemeral,
                key: None,
                expires_in_ms: None,
                ..self.letter()
            };
            let letters = vec![letter];
            return self.push(at_ms, node, Deed::Send { to, letters });
        }
        let count = self.dice.weighted(&[(60, 1), (30, 4), (8, 12), (2, 40)]);
        let count = self.dice.between(1, count);
        let letters: Vec<Letter> = (0..count).map(|_| self.letter()).collect();
        for letter in letters.iter().filter(|letter| letter.key.is_some()) {
            let letter = letter.clone();
            self.keyed.push(Keyed {
                node,
                to,
                at_ms,
                letter,
            });
        }
        self.push(at_ms, node, Deed::Send { to, letters });
    }

    /// Many at once to one peer, so that a session is in the middle of it for a while.
    fn burst(&mut self) {
        let (node, to) = self.way();
        let at_ms = self.dice.below(self.work_ms);
        for step in 0..self.dice.between(2, 5) {
            let letters = (0..40).map(|_| Letter {
                key: None,
                size: 16,
                ..self.letter()
            });
            let letters = letters.collect();
            let at_ms = at_ms + step * self.dice.below(60);
            self.push(at_ms, node, Deed::Send { to, letters });
        }
    }

    /// A key that was used before: the same bytes, others, or others in their place.
    fn again(&mut self) {
        let index = self.dice.index(self.keyed.len());
        let Keyed {
            node,
            to,
            at_ms,
            letter,
        } = &self.keyed[index];
        let (node, to, before_ms, mut letter) = (*node, *to, *at_ms, letter.clone());
        let what = self.dice.weighted(&[(60, 0), (25, 1), (15, 2)]);
        if what > 0 {
            letter.op = self.op();
            letter.replace = what == 1;
        }
        // Soon, while it may wait, or much later.
        let most = if self.dice.chance(500) { 300 } else { 30_000 };
        let at_ms = before_ms + 1 + self.dice.below(most);
        let letters = vec![letter];
        self.push(at_ms, node, Deed::Send { to, letters });
    }

    fn op(&mut self) -> Op {
        self.next_op += 1;
        self.next_op - 1
    }

    fn letter(&mut self) -> Letter {
        let op = self.op();
        let mut topic =
            self.dice
                .weighted(&[(44, NEWS), (33, JOBS), (4, BULK), (15, SECRET), (4, IDLE)]);
        let mut size = match self.dice.below(100) {
            0..3 => 0,
            3..7 => self.dice.index(8),
            7..93 => 8 + self.dice.index(292),
            93..99 => 300 + self.dice.index(4_000),
            _ => 4_300 + self.dice.index(60_000),
        };
        if self.large_left > 0 && self.dice.chance(60) {
            self.large_left -= 1;
            topic = BULK;
            size = match self.dice.chance(500) {
                true => PAYLOAD_BYTES_MAX,
                false => self.dice.index(PAYLOAD_BYTES_MAX),
            };
        }
        let class = match self.dice.chance(150) {
            true => DeliveryClass::Moderate,
            false => DeliveryClass::Critical,
        };
        Letter {
            op,
            topic,
            class,
            size,
            header_bytes: match self.dice.chance(20) {
                true => 1 + self.dice.index(3_900),
                false => 0,
            },
            key: self.dice.chance(250).then(|| format!("key {op}")),
            replace: false,
            expires_in_ms: self.end(),
        }
    }

    /// Mostly so soon that a crash of its recipient outlasts it.
    fn end(&mut self) -> Option<u64> {
        let most_ms = self.dice.weighted(&[(70, 5_000), (30, 60_000)]);
        let in_ms = self.dice.between(500, most_ms);
        self.dice.chance(120).then_some(in_ms)
    }

    fn by_hand(&mut self) {
        let (node, to) = self.way();
        let at_ms = self.dice.below(self.work_ms);
        let count = 1 + self.dice.index(3);
        let deed = match self.dice.below(12) {
            0..3 => Deed::DropWaiting {
                to: self.dice.chance(500).then_some(to),
                count: self.dice.chance(800).then_some(count),
            },
            3..7 => Deed::RetryDead { count: count * 3 },
            7 => Deed::DropDead { count },
            8..10 => Deed::RetryDeadIn { count },
            10 => Deed::DropDeadIn { count },
            _ => Deed::Ping { to },
        };
        self.push(at_ms, node, deed);
    }

    /// Takes a grant away and gives it back a while later, with something on its way meanwhile.
    fn revoke(&mut self) {
        let (node, from) = self.way();
        let grants = self.topology.grants(node, from).unwrap_or_default();
        if grants.is_empty() {
            return;
        }
        let grant = *self.dice.pick(grants);
        let at_ms = self.dice.below(self.work_ms);
        self.push(at_ms, node, Deed::Revoke { from, grant });
        for _ in 0..self.dice.between(1, 4) {
            let at_ms = at_ms + self.dice.below(1_500);
            let letters = vec![self.letter()];
            self.push(at_ms, from, Deed::Send { to: node, letters });
        }
        let back_ms = at_ms + self.dice.between(500, 15_000);
        self.push(back_ms, node, Deed::Grant { to: from, grant });
    }
}
