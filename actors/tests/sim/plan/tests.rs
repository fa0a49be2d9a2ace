//! What every plan keeps.

use std::collections::BTreeMap;

use packhorse_protocol::limits::PAYLOAD_BYTES_MAX;

use crate::plan::*;

const SEEDS: u64 = 2_000;

#[test]
fn a_seed_gives_one_plan_and_neighbours_give_others() {
    assert_eq!(Plan::of(7).to_string(), Plan::of(7).to_string());
    assert_ne!(Plan::of(7).acts.len(), 0);
    assert_ne!(Plan::of(7).to_string(), Plan::of(8).to_string());
}

#[test]
fn every_plan_can_be_carried_out() {
    for seed in 0..SEEDS {
        let plan = Plan::of(seed);
        let count = plan.topology.nodes.len();
        assert!((2..=9).contains(&count), "seed {seed}");
        for node in 0..count {
            assert!(!plan.topology.peers_of(node).is_empty(), "seed {seed}");
        }
        for pair in &plan.topology.pairs {
            let nodes = &plan.topology.nodes;
            assert!(pair.a_knows_b || pair.b_knows_a, "seed {seed}: {pair:?}");
            assert!(!pair.a_knows_b || nodes[pair.b].listens, "seed {seed}");
            assert!(!pair.b_knows_a || nodes[pair.a].listens, "seed {seed}");
        }
        for fault in &plan.faults {
            assert!(fault.at_ms < plan.work_ms, "seed {seed}");
            if let FaultKind::Partition { side, .. } = &fault.kind {
                assert!(!side.is_empty() && side.len() < count, "seed {seed}");
            }
        }
        for act in &plan.acts {
            if let Deed::Send { to, letters } = &act.deed {
                let peers = plan.topology.peers_of(act.node);
                assert!(peers.contains(to), "seed {seed}");
                for letter in letters {
                    let message = letter.message(1);
                    assert_eq!(message.check(), Ok(()), "seed {seed}: {letter:?}");
                    assert_eq!(op_of(&message), Some(letter.op), "seed {seed}");
                }
            }
        }
    }
}

#[test]
fn seeds_together_bring_about_everything_and_cost_little() {
    let (mut nodes, mut letters, mut bytes) = (0, 0, 0);
    let mut kinds = BTreeMap::new();
    for seed in 0..SEEDS {
        let plan = Plan::of(seed);
        nodes += plan.topology.nodes.len();
        for act in &plan.acts {
            if let Deed::Send { letters: sent, .. } = &act.deed {
                letters += sent.len();
                bytes += sent.iter().map(|letter| letter.size).sum::<usize>();
                assert!(sent.iter().all(|letter| letter.size <= PAYLOAD_BYTES_MAX));
            }
        }
        for trouble in &plan.troubles {
            *kinds.entry(format!("{trouble:?}")).or_insert(0) += 1;
        }
        let has = |trouble| plan.troubles.contains(&trouble);
        let is_copied = has(Trouble::SetBack) || has(Trouble::Clone);
        assert!(!is_copied || !has(Trouble::Forget), "seed {seed}");
        if plan.troubles.is_empty() {
            *kinds.entry("none".to_owned()).or_insert(0) += 1;
        }
    }
    let mean = |sum: usize| sum as f64 / SEEDS as f64;
    assert!((3.0..3.7).contains(&mean(nodes)), "{}", mean(nodes));
    assert!((60.0..220.0).contains(&mean(letters)), "{}", mean(letters));
    assert!(mean(bytes) < 700_000.0, "{}", mean(bytes));
    // All kinds, and runs without any.
    assert_eq!(kinds.len(), 16, "{kinds:?}");
}

#[test]
fn concerns_do_not_move_each_other() {
    let mut one = Dice::of(3, "faults");
    let mut other = Dice::of(3, "workload");
    assert_ne!(one.next(), other.next());
    assert_eq!(Dice::of(3, "faults").next(), Dice::of(3, "faults").next());
}

#[test]
fn handlers_end_well_once_the_work_is_over() {
    let plan = Plan::of(5);
    for op in 0..500 {
        let best = Handling::Done { output: 0 };
        assert_eq!(plan.handling(0, op, 1, plan.work_ms), best);
        assert_eq!(plan.handling(0, op, 5, 0), best);
    }
}
