//! The gate against random visitors, and each rule on its own.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::*;
use crate::env::testing::SeededRandom;

const START: Now = Now {
    monotonic_ms: 1_000,
    wall_ms: 1_750_000_000_000,
};

fn later(ms: u64) -> Now {
    Now {
        monotonic_ms: START.monotonic_ms + ms,
        wall_ms: START.wall_ms + ms,
    }
}

fn prefix(number: u32) -> Prefix {
    Prefix::V4(Ipv4Addr::from(0x0a00_0000 + number))
}

/// Enters as often as it can at one moment.
fn drain(gate: &mut Gate, prefixes: impl Iterator<Item = Prefix>, now: Now) -> u64 {
    let mut entered = 0;
    for prefix in prefixes {
        while gate.enter(prefix, now).is_ok() {
            entered += 1;
        }
    }
    entered
}

#[test]
fn an_address_that_is_only_claimed_gets_a_quarter_and_then_has_to_be_shown() {
    let mut gate = Gate::new(START);
    let mut allowed = 0;
    // A hundred neighbours, so that no bucket of a single one matters.
    for number in 0..100 {
        match gate.offer(prefix(number), START) {
            Offer::Allow => allowed += 1,
            Offer::Retry => {}
            Offer::Drop(full) => panic!("dropped: {full:?}"),
        }
    }
    assert_eq!(allowed, LINKS.per_s / 4);
    // Who shows its address goes on to where the quarter of known prefixes begins.
    let entered = drain(&mut gate, (0..100).map(prefix), START);
    assert_eq!(entered, LINKS.per_s / 2);
    assert_eq!(
        gate.offer(prefix(500), START),
        Offer::Drop(Full::Links),
        "no token is left that it could get"
    );
}

#[test]
fn nobody_can_spend_a_neighbour_s_tokens_by_claiming_its_address() {
    let mut gate = Gate::new(START);
    for _ in 0..1_000 {
        let _ = gate.offer(prefix(1), START);
    }
    assert_eq!(gate.offer(prefix(1), START), Offer::Retry);
    let entered = drain(&mut gate, [prefix(1)].into_iter(), START);
    assert!(entered >= 7, "{entered} of 10 tokens were left for itself");
    assert_eq!(
        gate.enter(prefix(1), START),
        Err(Full::LinksOfPrefix),
        "and no more than that"
    );
    assert!(gate.enter(prefix(2), START).is_ok());
}

#[test]
fn a_known_prefix_finds_a_place_that_no_flood_can_take() {
    let mut gate = Gate::new(START);
    gate.note_known(prefix(9_999), START.wall_ms);
    drain(&mut gate, (0..1_000).map(prefix), START);
    assert_eq!(gate.enter(prefix(1_001), START), Err(Full::Links));
    for _ in 0..LINKS_PER_PREFIX.per_s {
        assert_eq!(gate.enter(prefix(9_999), START), Ok(()));
    }
    assert_eq!(gate.enter(prefix(9_999), START), Err(Full::LinksOfPrefix));
    let week_later = later(KNOWN_FOR.as_millis() as u64);
    drain(&mut gate, (0..1_000).map(prefix), week_later);
    assert_eq!(gate.enter(prefix(9_999), week_later), Err(Full::Links));
}

#[test]
fn many_half_open_handshakes_make_everybody_show_its_address() {
    let mut gate = Gate::new(START);
    let mut begun = Vec::new();
    for number in 0..HALF_OPEN_UNPROVEN_MAX {
        assert_eq!(gate.offer(prefix(number as u32), START), Offer::Allow);
        begun.push(gate.begin(prefix(number as u32), START));
    }
    assert_eq!(gate.offer(prefix(900), START), Offer::Retry);
    assert_eq!(gate.offer(Prefix::Here, START), Offer::Allow);
    gate.end(begun[0]);
    assert_eq!(gate.offer(prefix(900), START), Offer::Allow);
    // Whatever their number, strangers leave a quarter of the places.
    for number in 0..2_000 {
        let at = later(u64::from(number) * 20);
        if gate.enter(prefix(number), at).is_ok() {
            gate.begin(prefix(number), at);
        }
    }
    assert_eq!(gate.half_open().len(), HALF_OPEN.strangers());
    let at = later(50_000);
    assert_eq!(gate.enter(prefix(7_000), at), Err(Full::HalfOpen));
    gate.note_known(prefix(7_000), at.wall_ms);
    assert_eq!(gate.enter(prefix(7_000), at), Ok(()));
}

#[test]
fn the_oldest_stranger_gives_way_to_a_new_link_and_a_known_one_does_not() {
    let mut gate = Gate::new(START);
    gate.note_known(prefix(9_999), START.wall_ms);
    let (known, _) = gate.arrive(prefix(9_999), START);
    let (first, _) = gate.arrive(prefix(0), START);
    for number in 1..CHEAP.strangers() as u32 {
        assert_eq!(gate.arrive(prefix(number), START).1, []);
    }
    assert_eq!(gate.arrive(prefix(5_000), START).1, [first]);
    for _ in 0..CHEAP.all {
        let (_, evicted) = gate.arrive(prefix(5_001), START);
        assert!(!evicted.contains(&known));
    }
    assert_eq!(gate.cheap().of_prefix(prefix(5_001)), CHEAP.per_prefix);
    assert_eq!(gate.cheap().of_strangers(), CHEAP.strangers());
}

#[test]
fn after_a_knock_there_are_few_places_and_nobody_gives_way() {
    let mut gate = Gate::new(START);
    gate.note_known(prefix(9_999), START.wall_ms);
    let mut held = Vec::new();
    for _ in 0..COSTLY.per_prefix {
        let (slot, _) = gate.arrive(prefix(1), START);
        assert_eq!(gate.knock(slot, prefix(1), START), Ok(()));
        held.push(slot);
    }
    let (slot, _) = gate.arrive(prefix(1), START);
    assert_eq!(gate.knock(slot, prefix(1), START), Err(Full::Costly));
    assert_eq!(gate.cheap().len(), 0, "it holds no place any more");
    let mut number = 1;
    while gate.costly().len() < COSTLY.strangers() {
        number += 1;
        let (slot, _) = gate.arrive(prefix(number), START);
        assert_eq!(gate.knock(slot, prefix(number), START), Ok(()));
    }
    let (slot, _) = gate.arrive(prefix(8_000), later(1_000));
    assert_eq!(
        gate.knock(slot, prefix(8_000), later(1_000)),
        Err(Full::Costly)
    );
    let (slot, _) = gate.arrive(prefix(9_999), later(1_000));
    assert_eq!(gate.knock(slot, prefix(9_999), later(1_000)), Ok(()));
    for slot in held {
        gate.leave(slot);
    }
    let (slot, _) = gate.arrive(prefix(8_000), later(1_000));
    assert_eq!(gate.knock(slot, prefix(8_000), later(1_000)), Ok(()));
}

#[test]
fn knocks_are_bounded_in_a_second_also_where_places_are_free() {
    let mut gate = Gate::new(START);
    let mut knocked = 0;
    for number in 0..200 {
        let (slot, _) = gate.arrive(prefix(number), START);
        match gate.knock(slot, prefix(number), START) {
            Ok(()) => knocked += 1,
            Err(full) => assert_eq!(full, Full::Knocks),
        }
        gate.leave(slot);
    }
    assert_eq!(knocked, KNOCKS.per_s / 4 * 3);
    let (slot, _) = gate.arrive(Prefix::Here, START);
    assert_eq!(gate.knock(slot, Prefix::Here, START), Ok(()));
}

/// Random visitors for a random time; after every step all bounds hold.
#[test]
fn whatever_strangers_do_no_bound_is_passed() {
    for seed in 0..16 {
        let random = SeededRandom::new(seed);
        let mut gate = Gate::new(START);
        let known = prefix(1);
        gate.note_known(known, START.wall_ms);
        let (mut at_ms, mut entered) = (0, 0_u64);
        let mut by_prefix: BTreeMap<Prefix, u64> = BTreeMap::new();
        let (mut begun, mut places) = (Vec::new(), Vec::new());
        let neighbours = 1 + random.below(600);
        for step in 0..2_000 {
            at_ms += random.below(8);
            let now = later(at_ms);
            let from = match random.below(20) {
                0 => Prefix::Here,
                1 => known,
                _ => prefix(2 + u32::try_from(random.below(neighbours)).expect("small")),
            };
            let may_begin = match random.below(8) {
                0..3 => gate.offer(from, now) == Offer::Allow,
                3..5 => gate.enter(from, now).is_ok(),
                5 => {
                    let (slot, evicted) = gate.arrive(from, now);
                    places.retain(|(held, _)| !evicted.contains(held));
                    places.push((slot, from));
                    false
                }
                6 if !places.is_empty() => {
                    let index = random.below(places.len() as u64) as usize;
                    let (slot, from) = places[index];
                    if random.below(2) == 0 || gate.knock(slot, from, now).is_err() {
                        gate.leave(slot);
                        places.swap_remove(index);
                    }
                    false
                }
                _ if !begun.is_empty() => {
                    let index = random.below(begun.len() as u64) as usize;
                    gate.end(begun.swap_remove(index));
                    false
                }
                _ => false,
            };
            if may_begin {
                begun.push(gate.begin(from, now));
                if from != Prefix::Here {
                    entered += 1;
                    *by_prefix.entry(from).or_default() += 1;
                }
            }
            let seconds = at_ms / 1_000 + 1;
            assert!(
                entered <= LINKS.per_s * (1 + seconds),
                "seed {seed}, step {step}"
            );
            let most = by_prefix.values().max().copied().unwrap_or_default();
            assert!(
                most <= LINKS_PER_PREFIX.per_s * (1 + seconds),
                "seed {seed}, step {step}"
            );
            assert!(gate.busy_prefixes() <= 200, "seed {seed}, step {step}");
            for (slots, limits) in [
                (gate.half_open(), HALF_OPEN),
                (gate.cheap(), CHEAP),
                (gate.costly(), COSTLY),
            ] {
                assert!(slots.len() <= limits.all, "seed {seed}, step {step}");
                assert!(
                    slots.of_strangers() <= limits.strangers(),
                    "seed {seed}, step {step}"
                );
                assert!(slots.of_prefix(from) <= limits.per_prefix || from == Prefix::Here);
            }
        }
    }
}
