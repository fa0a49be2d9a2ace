//! Worlds of many seeds, each with another mixture of what can go wrong.

use crate::epoch::Lane;
use crate::testing::{Chaos, World};

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
    ..CALM
};

/// What happens to frames only where no seal holds them to their place.
const UNSEALED: Chaos = Chaos {
    duplicate: 40,
    swap: 20,
    hold: 40,
    divert: 1_000,
    ..CALM
};

const CALM: Chaos = Chaos {
    lose_link: 0,
    crash: 0,
    back_up: 0,
    restore: 0,
    give_up: 0,
    forget: 0,
    fill: 0,
    drain: 0,
    grant: 0,
    refuse: 0,
    duplicate: 0,
    swap: 0,
    hold: 0,
    divert: 0,
};

/// Runs `runs` worlds of one kind; `PACKHORSE_SEED` repeats one of them alone and
/// `PACKHORSE_RUNS` changes how many there are. Returns why sessions ended that were faulty.
fn run(name: &str, runs: u64, steps: u64, chaos: Chaos) -> Vec<String> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("PACKHORSE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PACKHORSE_RUNS").unwrap_or(runs),
    };
    let mut faults = Vec::new();
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
            world.faults
        });
        match outcome {
            Ok(found) => faults.extend(found.into_iter().map(|(_, reason)| reason)),
            Err(panic) => {
                eprintln!("{name}: failed with PACKHORSE_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    faults
}

#[test]
fn everything_arrives_once_and_in_order_when_nothing_goes_wrong() {
    run("calm", 100, 500, CALM);
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
            ..CALM
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
        let mut world = World::new(seed, Chaos { refuse, ..CALM });
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

#[test]
fn frames_that_come_twice_late_or_astray_are_noticed_and_cost_nothing() {
    let chaos = Chaos {
        lose_link: 300,
        fill: 150,
        grant: 200,
        refuse: 8,
        ..UNSEALED
    };
    let faults = run("unsealed", 400, 600, chaos);
    if std::env::var_os("PACKHORSE_SEED").is_some() {
        return;
    }
    for (sign, what) in [
        ("again, where", "a batch twice"),
        ("and no base", "a batch before another"),
        ("base", "a base twice or late"),
        ("while the lane is", "a start or marks twice"),
        ("after", "an acknowledgement behind a later one"),
        ("frame kind", "a frame of another stream"),
    ] {
        let is_found = faults.iter().any(|reason| reason.contains(sign));
        assert!(is_found, "no session ended by {what}: {faults:#?}");
    }
}

#[test]
fn frames_that_come_twice_late_or_astray_cost_nothing_whatever_else_happens() {
    let chaos = Chaos {
        duplicate: 100,
        swap: 50,
        hold: 100,
        divert: 3_000,
        ..EVERYTHING
    };
    run("unsealed everything", 400, 600, chaos);
}

/// The mixture that shows whether every loss of a recipient that was set back is told.
#[test]
fn nothing_is_lost_without_a_report_by_recipients_that_are_often_set_back() {
    let chaos = Chaos {
        lose_link: 40,
        crash: 150,
        back_up: 60,
        restore: 400,
        give_up: 15,
        ..EVERYTHING
    };
    run("set back", 400, 500, chaos);
}
