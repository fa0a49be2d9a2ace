//! Which nodes there are, who knows whom, what each may do at the other, and who consumes what.

use std::fmt;

use super::dice::Dice;

/// A machine of the simulation, by its index. A copy of a machine has the index of its original.
pub(crate) type Node = usize;

/// What is read by readers, everywhere.
pub(crate) const NEWS: &str = "news";
/// What workers run.
pub(crate) const JOBS: &str = "jobs";
/// Where large payloads go; read everywhere.
pub(crate) const BULK: &str = "bulk/parts";
/// What some peers may not send. Read where it arrives.
pub(crate) const SECRET: &str = "secret";
/// What nobody takes out: it waits in the inbox to the end.
pub(crate) const IDLE: &str = "idle";

/// One machine.
#[derive(Clone, Debug)]
pub(crate) struct NodePlan {
    /// Whether it can be dialled.
    pub(crate) listens: bool,
    /// Its boxes have the smallest quotas that are allowed.
    pub(crate) has_tight_quotas: bool,
    /// What its wall clock is ahead of true time; negative behind it.
    pub(crate) clock_ahead_ms: i64,
    /// Who takes messages out here.
    pub(crate) consumers: Vec<Consumer>,
}

/// Somebody who takes messages of one topic out of the inbox, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) topic: &'static str,
    /// A worker begins and settles one by one; a reader acknowledges all that it was handed.
    pub(crate) is_worker: bool,
    /// How many it asks for at once.
    pub(crate) count: usize,
    pub(crate) lease_ms: u64,
    /// When it starts, so that something waits before.
    pub(crate) begins_ms: u64,
    /// How long it thinks between being handed something and saying what became of it.
    pub(crate) thinks_ms: (u64, u64),
    /// It takes nothing between these, by virtual time.
    pub(crate) pauses: Vec<(u64, u64)>,
}

/// Two machines that know each other.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    /// `a` was told where to dial `b`.
    pub(crate) a_knows_b: bool,
    pub(crate) b_knows_a: bool,
    /// What `b` may do at `a`, in the text form of grants.
    pub(crate) at_a: Vec<&'static str>,
    /// What `a` may do at `b`.
    pub(crate) at_b: Vec<&'static str>,
}

/// How the network is when nothing is done to it.
#[derive(Clone, Debug)]
pub(crate) struct NetworkPlan {
    pub(crate) latency_ms: (u64, u64),
    /// Packets lost of a thousand.
    pub(crate) loss_permille: u64,
}

/// Machines, pairs, grants, network.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    pub(crate) nodes: Vec<NodePlan>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) network: NetworkPlan,
}

impl Topology {
    pub(crate) fn of(seed: u64, work_ms: u64) -> Self {
        let mut dice = Dice::of(seed, "topology");
        // Each further machine costs handshakes and processor time; two show most of what can go
        // wrong between two.
        let weights = [
            (40, 2),
            (28, 3),
            (14, 4),
            (8, 5),
            (4, 6),
            (3, 7),
            (2, 8),
            (1, 9_usize),
        ];
        let count = dice.weighted(&weights);
        let edges = edges(&mut dice, count);
        let listens = listeners(&mut dice, count, &edges);
        let mut grants = Dice::of(seed, "grants");
        let pairs = edges
            .into_iter()
            .map(|(a, b)| pair(&mut grants, &listens, a, b))
            .collect();
        let mut consumers = Dice::of(seed, "consumers");
        let is_tight = dice.chance(60);
        let nodes = listens
            .into_iter()
            .map(|listens| NodePlan {
                listens,
                has_tight_quotas: is_tight && dice.chance(500),
                clock_ahead_ms: clock(&mut dice),
                consumers: consumers_of(&mut consumers, work_ms),
            })
            .collect();
        Self {
            nodes,
            pairs,
            network: network(&mut Dice::of(seed, "network")),
        }
    }

    /// The others that a machine is paired with.
    pub(crate) fn peers_of(&self, node: Node) -> Vec<Node> {
        let other = |pair: &Pair| match node {
            node if node == pair.a => Some(pair.b),
            node if node == pair.b => Some(pair.a),
            _ => None,
        };
        self.pairs.iter().filter_map(other).collect()
    }

    /// What `peer` may do at `node` from the beginning; none when they are not paired.
    pub(crate) fn grants(&self, node: Node, peer: Node) -> Option<&[&'static str]> {
        self.pairs.iter().find_map(|pair| {
            if (pair.a, pair.b) == (node, peer) {
                Some(&pair.at_a[..])
            } else if (pair.b, pair.a) == (node, peer) {
                Some(&pair.at_b[..])
            } else {
                None
            }
        })
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "network {:?}", self.network)?;
        for (index, node) in self.nodes.iter().enumerate() {
            writeln!(
                out,
                "node {index} listens={} tight={} ahead={} ms",
                node.listens, node.has_tight_quotas, node.clock_ahead_ms
            )?;
            for consumer in &node.consumers {
                writeln!(out, "node {index} {consumer:?}")?;
            }
        }
        for pair in &self.pairs {
            writeln!(out, "{pair:?}")?;
        }
        Ok(())
    }
}

/// A tree over all, so that everybody is paired with somebody, and some edges more.
fn edges(dice: &mut Dice, count: usize) -> Vec<(Node, Node)> {
    let mut edges: Vec<(Node, Node)> = (1..count).map(|b| (dice.index(b), b)).collect();
    let more = if count <= 3 { 700 } else { 150 };
    for a in 0..count {
        for b in a + 1..count {
            if !edges.contains(&(a, b)) && dice.chance(more) {
                edges.push((a, b));
            }
        }
    }
    edges
}

/// Of two that are paired at least one can be dialled. In about a third of the pairs it is one alone:
/// where both dial, each makes up for the other.
fn listeners(dice: &mut Dice, count: usize, edges: &[(Node, Node)]) -> Vec<bool> {
    let mut listens = vec![true; count];
    for node in 0..count {
        let is_needed = edges
            .iter()
            .any(|(a, b)| (*a == node && !listens[*b]) || (*b == node && !listens[*a]));
        if !is_needed && dice.chance(220) {
            listens[node] = false;
        }
    }
    listens
}

/// Whoever can be dialled is known where to: both are told when they pair.
fn pair(grants: &mut Dice, listens: &[bool], a: Node, b: Node) -> Pair {
    Pair {
        a,
        b,
        a_knows_b: listens[b],
        b_knows_a: listens[a],
        at_a: grants_of(grants),
        at_b: grants_of(grants),
    }
}

fn grants_of(dice: &mut Dice) -> Vec<&'static str> {
    let choices: [(u64, &[&str]); 5] = [
        (35, &["message.send:*", "execute:jobs"]),
        (40, &["message.send:*", "message.send:!secret", "execute:*"]),
        (
            12,
            &["message.send:news", "message.send:jobs", "execute:jobs"],
        ),
        (9, &["message.send:*"]),
        (4, &[]),
    ];
    dice.weighted(&choices).to_vec()
}

fn clock(dice: &mut Dice) -> i64 {
    let ahead_ms = [0, 0, 0, 350, -350, 40_000, -40_000, 90_000_000, -3_000_000];
    *dice.pick(&ahead_ms)
}

fn network(dice: &mut Dice) -> NetworkPlan {
    // Windows in which something is on its way are as wide as a round trip.
    let latency_ms = dice.weighted(&[
        (30, (1, 3)),
        (25, (5, 40)),
        (30, (40, 120)),
        (15, (100, 300)),
    ]);
    NetworkPlan {
        latency_ms,
        loss_permille: dice.weighted(&[(70, 0), (20, 5), (8, 20), (2, 60)]),
    }
}

fn consumers_of(dice: &mut Dice, work_ms: u64) -> Vec<Consumer> {
    let mut consumers = Vec::new();
    for (topic, is_worker, most) in [
        (NEWS, false, 2),
        (JOBS, true, 3),
        (BULK, false, 1),
        (SECRET, false, 1),
    ] {
        for _ in 0..dice.between(1, most) {
            consumers.push(consumer(dice, topic, is_worker, work_ms));
        }
    }
    consumers
}

fn consumer(dice: &mut Dice, topic: &'static str, is_worker: bool, work_ms: u64) -> Consumer {
    let begins_ms = match dice.chance(700) {
        true => dice.below(2_000),
        false => dice.below(work_ms / 2),
    };
    let mut pauses = Vec::new();
    if dice.chance(300) {
        let from_ms = dice.below(work_ms);
        pauses.push((from_ms, from_ms + dice.between(1_000, work_ms / 3)));
    }
    Consumer {
        topic,
        is_worker,
        count: match is_worker {
            true => dice.weighted(&[(70, 1), (25, 3), (5, 10)]),
            false => dice.weighted(&[(30, 1), (40, 10), (30, 100)]),
        },
        lease_ms: dice.weighted(&[(30, 1_000), (40, 3_000), (30, 8_000)]),
        begins_ms,
        thinks_ms: dice.weighted(&[
            (40, (0, 0)),
            (40, (0, 200)),
            (15, (50, 1_500)),
            (5, (500, 4_000)),
        ]),
        pauses,
    }
}
