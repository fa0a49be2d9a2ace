//! What a seed decides: machines, pairs, grants, consumers, what clients do, what goes wrong.
//!
//! Pure: the same seed gives the same plan for ever, and nothing here knows how it is carried out.
//! Each concern draws from a stream of its own, so that a change of one leaves the others alone.
//!
//! Read [`Plan`], then `topology.rs`, `workload.rs`, `faults.rs`, `scenes.rs`.

use std::collections::BTreeMap;
use std::fmt;

mod dice;
mod faults;
mod scenes;
pub(crate) mod topology;
mod workload;

pub(crate) use dice::{Dice, mixed};
pub(crate) use faults::{Actor, Fault, FaultKind, Manner, Moment, Trouble};
pub(crate) use topology::{Consumer, IDLE, JOBS, Node, Topology};
pub(crate) use workload::{Act, Deed, Handling, Letter, Op, op_of};

/// How long it may take until everything stands still once all is healed. The longest single wait
/// is that for a dead session (45 s) or for the next dial (60 s); a few of them may follow another.
const CONVERGES_MS: u64 = 300_000;

/// One run, decided.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) topology: Topology,
    /// Which kinds of faults it has.
    pub(crate) troubles: Vec<Trouble>,
    /// By time.
    pub(crate) acts: Vec<Act>,
    /// By time.
    pub(crate) faults: Vec<Fault>,
    /// When the work ends; then everything is healed.
    pub(crate) work_ms: u64,
    /// And how long it may take from then on.
    pub(crate) converges_ms: u64,
    letters: BTreeMap<Op, (Node, Node, Letter)>,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let work_ms = Dice::of(seed, "time").between(40_000, 90_000);
        let topology = Topology::of(seed, work_ms);
        let mut acts = workload::acts(seed, work_ms, &topology);
        let troubles = faults::troubles(seed);
        let mut faults = faults::faults(seed, work_ms, &topology, &acts, &troubles);
        scenes::add(seed, work_ms, &topology, &mut acts, &mut faults);
        Self::new(seed, work_ms, topology, acts, troubles, faults)
    }

    /// A plan of given parts, for tests of what judges it.
    pub(crate) fn new(
        seed: u64,
        work_ms: u64,
        topology: Topology,
        acts: Vec<Act>,
        troubles: Vec<Trouble>,
        faults: Vec<Fault>,
    ) -> Self {
        let mut known = BTreeMap::new();
        for act in &acts {
            if let Deed::Send { to, letters } = &act.deed {
                for letter in letters {
                    // Repeated ones differ in nothing that matters.
                    let of = (act.node, *to, letter.clone());
                    known.entry(letter.op).or_insert(of);
                }
            }
        }
        Self {
            seed,
            topology,
            troubles,
            acts,
            faults,
            work_ms,
            converges_ms: CONVERGES_MS,
            letters: known,
        }
    }

    /// Who sends a letter, to whom, and what it is.
    pub(crate) fn letter(&self, op: Op) -> Option<&(Node, Node, Letter)> {
        self.letters.get(&op)
    }

    /// The wall clock of a machine is set back at some time: what is kept back until a moment of it
    /// may be so for that much longer.
    pub(crate) fn sets_clock_back(&self, node: Node) -> bool {
        self.faults.iter().any(|fault| match fault.kind {
            FaultKind::ClockJump { node: of, by_ms } => of == node && by_ms < 0,
            _ => false,
        })
    }

    /// How a consumer deals with a letter that it was handed for the `time`th time, from 1. Once
    /// the work is over everybody does their best.
    pub(crate) fn handling(&self, node: Node, op: Op, time: u32, now_ms: u64) -> Handling {
        let best = Handling::Done { output: 0 };
        // A few bad ends each, then a good one: the pauses behind failures double.
        if now_ms >= self.work_ms || time > 4 {
            return best;
        }
        let mut temper = mixed(self.seed, "temper", &[node as u64, op]);
        if temper.chance(550) {
            let output = temper.weighted(&[(70, 0), (20, 60), (8, 4_096), (2, 9_000)]);
            return Handling::Done { output };
        }
        let mut dice = mixed(self.seed, "handling", &[node as u64, op, u64::from(time)]);
        let retry = Handling::Retry {
            delay_ms: dice.chance(500).then_some(dice.clone().below(3_000)),
        };
        dice.weighted(&[
            (30, best),
            (6, Handling::Twice),
            (18, Handling::Fail),
            (12, retry),
            (8, Handling::Dead),
            (18, Handling::Die),
            (8, Handling::Late),
        ])
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, work_ms, .. } = self;
        writeln!(out, "seed {seed}, work {work_ms} ms, {:?}", self.troubles)?;
        write!(out, "{}", self.topology)?;
        for act in &self.acts {
            match &act.deed {
                Deed::Send { to, letters } => {
                    writeln!(out, "{:>6} ms node {} sends to {to}", act.at_ms, act.node)?;
                    for letter in letters {
                        writeln!(out, "          {letter:?}")?;
                    }
                }
                deed => writeln!(out, "{:>6} ms node {} {deed:?}", act.at_ms, act.node)?,
            }
        }
        for fault in &self.faults {
            writeln!(out, "{:>6} ms fault {:?}", fault.at_ms, fault.kind)?;
        }
        Ok(())
    }
}
