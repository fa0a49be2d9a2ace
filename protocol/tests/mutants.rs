//! The world of two nodes sees the mutants of this crate, and nothing else is wrong in it.
//!
//! Which mutant is chosen counts for the whole process, so this is one test. The mutants that live
//! in the store and in the actors are tried beside them.

use std::panic::{catch_unwind, set_hook, take_hook};

use packhorse_protocol::mutant::{self, Mutant};
use packhorse_protocol::testing::{Chaos, World};

/// Each of these worlds shows the mutant, so a few are enough.
const SEEDS: u64 = 20;

#[test]
fn a_refusal_that_is_not_repeated_is_seen_where_links_are_lost_and_only_there() {
    let calm = Chaos {
        refuse: 4,
        ..Chaos::default()
    };
    let stormy = Chaos {
        lose_link: 60,
        ..calm
    };
    assert_eq!(failed(stormy), 0, "nothing is broken");
    mutant::choose(Mutant::RefusalNotRepeated);
    assert_eq!(failed(calm), 0, "nothing goes wrong");
    // What these worlds say in their panics is long, and expected.
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let seen = failed(stormy);
    set_hook(hook);
    assert!(seen > 0, "it is not seen");
    mutant::clear();
    assert_eq!(failed(stormy), 0, "it was the mutant");
}

/// In how many worlds a promise was broken.
fn failed(chaos: Chaos) -> usize {
    let fails = |seed: &u64| catch_unwind(|| run(*seed, chaos)).is_err();
    (0..SEEDS).filter(fails).count()
}

fn run(seed: u64, chaos: Chaos) {
    let mut world = World::new(seed, chaos);
    for step in 0..600 {
        world.step();
        if step % 100 == 0 {
            world.check_always();
        }
    }
    world.settle();
    world.check();
}
