//! What goes wrong, and when.
//!
//! Each seed has another mixture of kinds, so that some runs have one kind alone and some have
//! many that meet. Everything is over when the work is.

use super::dice::Dice;
use super::topology::{Node, Topology};
use super::workload::{Act, Deed};

/// Something that goes wrong at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) at_ms: u64,
    pub(crate) kind: FaultKind,
}

/// What goes wrong. Durations are of virtual time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// Nothing passes between these and all others.
    Partition { side: Vec<Node>, for_ms: u64 },
    /// Nothing passes from one to the other; the way back works.
    OneWay { from: Node, to: Node, for_ms: u64 },
    /// So many packets of a thousand are lost between two, both ways.
    Loss {
        a: Node,
        b: Node,
        permille: u64,
        for_ms: u64,
    },
    /// Packets between two take so long.
    Delay {
        a: Node,
        b: Node,
        latency_ms: (u64, u64),
        for_ms: u64,
    },
    /// The process dies, as by SIGKILL, and is started again.
    Crash { node: Node, down_ms: u64 },
    /// The process is stopped in order, and started again.
    Stop { node: Node, down_ms: u64 },
    /// The power goes so many steps of commits later; what was not synced may be gone.
    PowerCut {
        node: Node,
        after_steps: u64,
        down_ms: u64,
    },
    /// An actor dies.
    Death {
        node: Node,
        actor: Actor,
        moment: Moment,
        manner: Manner,
    },
    /// The wall clock jumps, and stays there.
    ClockJump { node: Node, by_ms: i64 },
    /// No room for new work; what ends old work goes on.
    StorageFull { node: Node, for_ms: u64 },
    /// Every commit fails for want of space, so the process ends and cannot go on before there is.
    DiskFull { node: Node, for_ms: u64 },
    /// Each commit takes so much longer.
    SlowDisk {
        node: Node,
        sync_ms: u64,
        for_ms: u64,
    },
    /// A second machine runs on a copy of the disk, taken now and started later.
    Clone {
        node: Node,
        begins_after_ms: u64,
        for_ms: u64,
    },
    /// The disk as it is now is put back later, in place of the one that went on.
    SetBack {
        node: Node,
        back_after_ms: u64,
        down_ms: u64,
    },
    /// A peer is forgotten, and paired again later.
    Forget { node: Node, peer: Node, for_ms: u64 },
}

/// Which actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    Store,
    /// The thread that writes.
    Writer,
    EventBus,
    Inbox,
    Sessions,
    /// The session with this peer.
    Session(Node),
    Retry,
    Listener,
}

/// When it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    BeforeMessage,
    AfterMessage,
    Idle,
    /// Of the writer: a batch was run and is not committed.
    BeforeCommit,
    /// Of the writer: a batch is committed and nobody was told.
    BeforeAnswer,
}

/// How it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Panic,
    Error,
    Kill,
}

/// The kinds that a seed has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Partition,
    OneWay,
    Loss,
    Delay,
    Crash,
    Stop,
    PowerCut,
    Death,
    ClockJump,
    StorageFull,
    DiskFull,
    SlowDisk,
    Clone,
    SetBack,
    Forget,
}

impl Trouble {
    /// Every kind, with how often in a thousand seeds it is on. Copies and stores that are set back
    /// weaken what can be checked about their node, so they are rare.
    const ALL: [(Trouble, u64); 15] = [
        (Trouble::Partition, 330),
        (Trouble::OneWay, 330),
        (Trouble::Loss, 330),
        (Trouble::Delay, 330),
        (Trouble::Crash, 330),
        (Trouble::Stop, 200),
        (Trouble::PowerCut, 400),
        (Trouble::Death, 330),
        (Trouble::ClockJump, 250),
        (Trouble::StorageFull, 200),
        (Trouble::DiskFull, 120),
        (Trouble::SlowDisk, 200),
        (Trouble::Clone, 70),
        (Trouble::SetBack, 100),
        (Trouble::Forget, 80),
    ];

    /// How many of it there are at most.
    const fn most(self) -> u64 {
        match self {
            Trouble::Death => 8,
            Trouble::Partition | Trouble::OneWay | Trouble::Crash | Trouble::PowerCut => 4,
            Trouble::Loss | Trouble::Delay => 3,
            Trouble::Stop | Trouble::ClockJump | Trouble::StorageFull | Trouble::SlowDisk => 2,
            Trouble::DiskFull | Trouble::Clone | Trouble::SetBack | Trouble::Forget => 1,
        }
    }
}

/// Which kinds a seed has.
pub(crate) fn troubles(seed: u64) -> Vec<Trouble> {
    let mut dice = Dice::of(seed, "troubles");
    let mut on = Vec::new();
    for (trouble, permille) in Trouble::ALL {
        if dice.chance(permille) {
            on.push(trouble);
        }
    }
    // A disk that was copied while a peer was forgotten knows nothing of its having been let in again,
    // and nobody would tell it.
    if on.contains(&Trouble::SetBack) || on.contains(&Trouble::Clone) {
        on.retain(|trouble| *trouble != Trouble::Forget);
    }
    on
}

/// All that goes wrong, by time.
pub(crate) fn faults(
    seed: u64,
    work_ms: u64,
    topology: &Topology,
    acts: &[Act],
    troubles: &[Trouble],
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for trouble in troubles {
        // A stream for each kind, so that one kind less leaves the others where they are.
        let mut maker = Maker {
            dice: Dice::of(seed, &format!("fault {trouble:?}")),
            work_ms,
            topology,
            acts,
        };
        for _ in 0..maker.dice.between(1, trouble.most()) {
            let fault = maker.fault(*trouble);
            faults.extend(maker.again(&fault));
            faults.push(fault);
        }
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

struct Maker<'a> {
    dice: Dice,
    work_ms: u64,
    topology: &'a Topology,
    acts: &'a [Act],
}

impl Maker<'_> {
    /// When, and which machine. Mostly shortly after somebody sent something, at either end of it,
    /// because idle machines have little to lose.
    fn moment(&mut self) -> (u64, Node) {
        let (mut at_ms, mut node) = (self.dice.below(self.work_ms), self.node());
        if !self.acts.is_empty() && self.dice.chance(700) {
            let act = self.dice.pick(self.acts);
            let soon = self.dice.weighted(&[(35, 8), (35, 150), (30, 1_500)]);
            at_ms = act.at_ms + self.dice.below(soon);
            node = match &act.deed {
                Deed::Send { to, .. } if self.dice.chance(650) => *to,
                _ => act.node,
            };
        }
        (at_ms.min(self.work_ms.saturating_sub(1_000)), node)
    }

    /// A duration that ends before the work does.
    fn lasts(&mut self, at_ms: u64, usual: &[(u64, (u64, u64))]) -> u64 {
        let (least, most) = self.dice.weighted(usual);
        let left = self.work_ms.saturating_sub(at_ms).max(1);
        self.dice.between(least, most).min(left)
    }

    fn node(&mut self) -> Node {
        self.dice.index(self.topology.nodes.len())
    }

    fn pair(&mut self) -> (Node, Node) {
        let pair = self.dice.pick(&self.topology.pairs);
        match self.dice.chance(500) {
            true => (pair.a, pair.b),
            false => (pair.b, pair.a),
        }
    }

    fn fault(&mut self, trouble: Trouble) -> Fault {
        let (at_ms, node) = self.moment();
        // Below and above what a session bears without hearing its peer.
        const CUT: [(u64, (u64, u64)); 3] = [
            (40, (300, 4_000)),
            (30, (4_000, 20_000)),
            (30, (32_000, 75_000)),
        ];
        const DOWN: [(u64, (u64, u64)); 3] =
            [(50, (0, 500)), (35, (500, 6_000)), (15, (6_000, 40_000))];
        const WHILE: [(u64, (u64, u64)); 2] = [(60, (500, 5_000)), (40, (5_000, 30_000))];
        let kind = match trouble {
            Trouble::Partition => FaultKind::Partition {
                side: self.side(),
                for_ms: self.lasts(at_ms, &CUT),
            },
            Trouble::OneWay => {
                let (from, to) = self.pair();
                let for_ms = self.lasts(at_ms, &CUT);
                FaultKind::OneWay { from, to, for_ms }
            }
            Trouble::Loss => {
                let (a, b) = self.pair();
                FaultKind::Loss {
                    a,
                    b,
                    permille: self.dice.weighted(&[(50, 50), (35, 200), (15, 500)]),
                    for_ms: self.lasts(at_ms, &WHILE),
                }
            }
            Trouble::Delay => {
                let (a, b) = self.pair();
                FaultKind::Delay {
                    a,
                    b,
                    latency_ms: self.dice.weighted(&[
                        (50, (100, 400)),
                        (35, (10, 900)),
                        (15, (1_500, 4_000)),
                    ]),
                    for_ms: self.lasts(at_ms, &WHILE),
                }
            }
            Trouble::Crash => FaultKind::Crash {
                node,
                down_ms: self.lasts(at_ms, &DOWN),
            },
            Trouble::Stop => FaultKind::Stop {
                node,
                down_ms: self.lasts(at_ms, &DOWN),
            },
            Trouble::PowerCut => FaultKind::PowerCut {
                node,
                after_steps: self.dice.below(25),
                down_ms: self.lasts(at_ms, &DOWN),
            },
            Trouble::Death => self.death(),
            Trouble::ClockJump => FaultKind::ClockJump {
                node,
                by_ms: *self.dice.pick(&[
                    3_000, -3_000, 45_000, -45_000, 3_700_000, -3_700_000, 90_000_000,
                ]),
            },
            Trouble::StorageFull => FaultKind::StorageFull {
                node,
                for_ms: self.lasts(at_ms, &WHILE),
            },
            Trouble::DiskFull => FaultKind::DiskFull {
                node,
                for_ms: self.lasts(at_ms, &WHILE),
            },
            Trouble::SlowDisk => FaultKind::SlowDisk {
                node,
                sync_ms: self.dice.weighted(&[(60, 20), (30, 200), (10, 1_200)]),
                for_ms: self.lasts(at_ms, &WHILE),
            },
            Trouble::Clone => {
                let begins_after_ms = self.lasts(at_ms, &[(50, (0, 500)), (50, (500, 15_000))]);
                FaultKind::Clone {
                    node,
                    begins_after_ms,
                    for_ms: self.lasts(at_ms + begins_after_ms, &WHILE),
                }
            }
            Trouble::SetBack => {
                let back_after_ms = self.lasts(at_ms, &[(50, (500, 5_000)), (50, (5_000, 30_000))]);
                FaultKind::SetBack {
                    node,
                    back_after_ms,
                    down_ms: self.lasts(at_ms + back_after_ms, &DOWN),
                }
            }
            Trouble::Forget => {
                let (node, peer) = self.pair();
                let for_ms = self.lasts(at_ms, &WHILE);
                FaultKind::Forget { node, peer, for_ms }
            }
        };
        Fault { at_ms, kind }
    }

    /// Another one of the same machine soon after it is back, while it is still catching up.
    fn again(&mut self, fault: &Fault) -> Option<Fault> {
        let down_ms = match &fault.kind {
            FaultKind::Crash { down_ms, .. } | FaultKind::PowerCut { down_ms, .. } => *down_ms,
            _ => return None,
        };
        let at_ms = fault.at_ms + down_ms + self.dice.below(6_000);
        let is_again = self.dice.chance(350) && at_ms + 1_000 < self.work_ms;
        is_again.then(|| Fault {
            at_ms,
            kind: fault.kind.clone(),
        })
    }

    /// Some, and never all.
    fn side(&mut self) -> Vec<Node> {
        let count = self.topology.nodes.len();
        let alone = self.node();
        let with = self.dice.chance(400);
        let is_in = |node: &Node, dice: &mut Dice| {
            *node == alone || (with && *node != (alone + 1) % count && dice.chance(400))
        };
        (0..count)
            .filter(|node| is_in(node, &mut self.dice))
            .collect()
    }

    fn death(&mut self) -> FaultKind {
        let (node, peer) = self.pair();
        let actor = self.dice.weighted(&[
            (12, Actor::Store),
            (18, Actor::Writer),
            (5, Actor::EventBus),
            (15, Actor::Inbox),
            (12, Actor::Sessions),
            (25, Actor::Session(peer)),
            (8, Actor::Retry),
            (5, Actor::Listener),
        ]);
        let moment = match actor {
            Actor::Writer => *self
                .dice
                .pick(&[Moment::BeforeCommit, Moment::BeforeAnswer]),
            _ => self.dice.weighted(&[
                (40, Moment::BeforeMessage),
                (40, Moment::AfterMessage),
                (20, Moment::Idle),
            ]),
        };
        let manner = match actor {
            // What is committed cannot fail any more, and a thread cannot be killed.
            Actor::Writer => Manner::Panic,
            _ => *self
                .dice
                .pick(&[Manner::Panic, Manner::Error, Manner::Kill]),
        };
        FaultKind::Death {
            node,
            actor,
            moment,
            manner,
        }
    }
}
