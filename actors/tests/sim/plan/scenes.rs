//! Courses of acts and faults that hardly come about by chance, because they need a quiet line.
//!
//! A scene adds to what the other streams drew, and keeps a way free for as long as it needs it.

use packhorse_protocol::message::DeliveryClass;

use super::dice::Dice;
use super::faults::{Fault, FaultKind};
use super::topology::{NEWS, Node, Topology};
use super::workload::{Act, Deed, Letter, Op};

/// Ops of scenes begin here; the workload draws from 1 on and never so many.
const FIRST_OP: Op = 1_000_000;
/// How long a scene may last.
const SCENE_MS: u64 = 10_000;

/// Puts scenes into a plan, mostly none.
pub(super) fn add(
    seed: u64,
    work_ms: u64,
    topology: &Topology,
    acts: &mut Vec<Act>,
    faults: &mut Vec<Fault>,
) {
    let mut dice = Dice::of(seed, "scenes");
    if dice.chance(250) {
        given_up_alone(&mut dice, work_ms, topology, acts, faults);
    }
    acts.sort_by_key(|act| act.at_ms);
    faults.sort_by_key(|fault| fault.at_ms);
}

/// What was given up while its recipient was away is all that the recipient is told of when it is
/// back: that it will never come. Then the recipient crashes again.
fn given_up_alone(
    dice: &mut Dice,
    work_ms: u64,
    topology: &Topology,
    acts: &mut Vec<Act>,
    faults: &mut Vec<Fault>,
) {
    let pair = dice.pick(&topology.pairs);
    let (from, to) = match dice.chance(500) {
        true => (pair.a, pair.b),
        false => (pair.b, pair.a),
    };
    let at_ms = dice.between(work_ms / 3, work_ms - SCENE_MS);
    keep_free(acts, from, to, at_ms..at_ms + SCENE_MS);
    let down_ms = dice.between(1_500, 2_500);
    let node = to;
    faults.push(Fault {
        at_ms,
        kind: FaultKind::Crash { node, down_ms },
    });
    for number in 0..dice.between(1, 3) {
        let letter = Letter {
            op: FIRST_OP + number,
            topic: NEWS,
            class: DeliveryClass::Critical,
            size: 30,
            header_bytes: 0,
            key: None,
            replace: false,
            expires_in_ms: Some(dice.between(300, 900)),
        };
        let letters = vec![letter];
        acts.push(Act {
            at_ms: at_ms + 200 + number * 50,
            node: from,
            deed: Deed::Send { to, letters },
        });
    }
    // By then they have met again.
    let at_ms = at_ms + down_ms + dice.between(800, 4_500);
    let down_ms = dice.below(500);
    faults.push(Fault {
        at_ms,
        kind: FaultKind::Crash { node, down_ms },
    });
}

/// Nobody sends anything from one to the other for a while.
fn keep_free(acts: &mut Vec<Act>, from: Node, to: Node, while_ms: std::ops::Range<u64>) {
    acts.retain(|act| match &act.deed {
        Deed::Send { to: of, .. } => {
            (act.node, *of) != (from, to) || !while_ms.contains(&act.at_ms)
        }
        Deed::RetryDead { .. } => act.node != from || !while_ms.contains(&act.at_ms),
        _ => true,
    });
}
