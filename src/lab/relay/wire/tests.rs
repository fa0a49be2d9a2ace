//! The core in virtual time: what each impairment does to a thousand datagrams.

use super::*;
use crate::lab::relay::impairment::{Rate, Share};

const MS: Duration = Duration::from_millis(1);

fn judge(impairment: Impairment) -> Judge {
    let mut judge = Judge::new(Random::new(7));
    judge.set(Duration::ZERO, impairment);
    judge
}

/// The fates of so many datagrams of 1,000 bytes that come a millisecond apart.
fn fates(impairment: Impairment, count: u32) -> Vec<Fate> {
    let mut judge = judge(impairment);
    (0..count).map(|at| judge.decide(at * MS, 1_000)).collect()
}

fn share(percent: f64) -> Share {
    Share::percent(percent).expect("a share")
}

#[test]
fn without_an_impairment_everything_passes_at_once() {
    for (at, fate) in fates(Impairment::NONE, 100).into_iter().enumerate() {
        let at = u32::try_from(at).expect("a hundred") * MS;
        let expected = Fate::Carried {
            leaves: at,
            at,
            again_at: None,
            is_held_back: false,
        };
        assert_eq!(fate, expected);
    }
}

#[test]
fn a_seed_decides_alike_and_another_one_does_not() {
    let impairment = Impairment {
        latency: 10 * MS,
        jitter: 5 * MS,
        loss: share(20.0),
        duplicate: share(20.0),
        reorder: share(20.0),
        ..Impairment::NONE
    };
    assert_eq!(fates(impairment, 500), fates(impairment, 500));
    let mut other = Judge::new(Random::new(8));
    other.set(Duration::ZERO, impairment);
    let others: Vec<Fate> = (0..500).map(|at| other.decide(at * MS, 1_000)).collect();
    assert_ne!(fates(impairment, 500), others);
}

#[test]
fn loss_takes_its_share_and_changing_another_value_changes_none_of_it() {
    let lossy = Impairment {
        loss: share(10.0),
        ..Impairment::NONE
    };
    let lost = |impairment| -> Vec<bool> {
        let fates = fates(impairment, 10_000).into_iter();
        fates
            .map(|fate| fate == Fate::Dropped(Dropped::Lost))
            .collect()
    };
    let taken = lost(lossy);
    let count = taken.iter().filter(|taken| **taken).count();
    assert!((850..1_150).contains(&count), "{count} of 10,000");
    let worse = Impairment {
        latency: 30 * MS,
        duplicate: share(50.0),
        ..lossy
    };
    assert_eq!(taken, lost(worse));
}

#[test]
fn jitter_stays_within_its_span_and_keeps_the_order() {
    let impairment = Impairment {
        latency: 20 * MS,
        jitter: 50 * MS,
        ..Impairment::NONE
    };
    let mut latest = Duration::ZERO;
    for (index, fate) in fates(impairment, 1_000).into_iter().enumerate() {
        let Fate::Carried { at, again_at, .. } = fate else {
            panic!("nothing is dropped: {fate:?}");
        };
        let came = u32::try_from(index).expect("a thousand") * MS;
        assert!(at >= latest && at >= came + 20 * MS && at <= came + 70 * MS);
        assert_eq!(again_at, None);
        latest = at;
    }
}

#[test]
fn what_is_held_back_is_overtaken_and_nothing_else_is() {
    let impairment = Impairment {
        reorder: share(10.0),
        ..Impairment::NONE
    };
    let mut held_back = 0;
    for (index, fate) in fates(impairment, 1_000).into_iter().enumerate() {
        let came = u32::try_from(index).expect("a thousand") * MS;
        match fate {
            Fate::Carried {
                at,
                is_held_back: true,
                ..
            } => {
                held_back += 1;
                assert!(at >= came + HELD_BACK_MIN && at < came + 25 * MS);
            }
            Fate::Carried { at, .. } => assert_eq!(at, came),
            Fate::Dropped(_) => panic!("nothing is dropped"),
        }
    }
    assert!((50..150).contains(&held_back), "{held_back}");
}

#[test]
fn a_rate_spaces_datagrams_and_drops_what_its_buffer_does_not_hold() {
    let rate = Rate::bytes_per_second(100_000).expect("a rate");
    let mut judge = judge(Impairment {
        rate: Some(rate),
        ..Impairment::NONE
    });
    // 1,000 bytes take 10 ms; its buffer of 32 KiB holds 328 ms.
    let mut last = Duration::ZERO;
    let mut passed = 0;
    while let Fate::Carried { at, .. } = judge.decide(Duration::ZERO, 1_000) {
        assert_eq!(at, last + 10 * MS);
        last = at;
        passed += 1;
    }
    assert_eq!(passed, 33);
    let full = judge.decide(Duration::ZERO, 1_000);
    assert_eq!(full, Fate::Dropped(Dropped::Congested));
    // Time empties it.
    assert!(matches!(judge.decide(last, 1_000), Fate::Carried { at, .. } if at == last + 10 * MS));
}

#[test]
fn a_wire_hands_on_in_the_order_of_due_times_and_counts_everything_once() {
    let mut wire: Wire<u32> = Wire::new(Random::new(7));
    let impairment = Impairment {
        latency: 10 * MS,
        jitter: 3 * MS,
        loss: share(10.0),
        duplicate: share(10.0),
        reorder: share(10.0),
        ..Impairment::NONE
    };
    wire.set(Duration::ZERO, impairment, |_| {});
    let mut taken = 0;
    for number in 0..2_000 {
        let now = number * MS;
        assert_eq!(wire.offer(now, 100, || number), Offered::Settled);
        while wire.take_due(now).is_some() {
            wire.note_delivered(100);
            taken += 1;
        }
        assert!(wire.next_due().is_none_or(|due| due > now));
    }
    let counts = wire.counts();
    assert_eq!(counts.delivered, taken);
    assert_eq!(
        counts.offered + counts.duplicated,
        counts.ended() + wire.waiting_count() as u64
    );
    assert!(counts.lost > 100 && counts.duplicated > 100 && counts.reordered > 100);
    assert_eq!(counts.offered_bytes, 200_000);
}

#[test]
fn what_passes_at_once_is_never_packed_and_overtakes_nothing_that_is_due() {
    let mut wire: Wire<u32> = Wire::new(Random::new(7));
    let now = 5 * MS;
    let packed = wire.offer(now, 100, || panic!("nothing is kept of it"));
    assert_eq!(packed, Offered::PassesNow);
    let late = Impairment {
        latency: 2 * MS,
        ..Impairment::NONE
    };
    wire.set(now, late, |_| {});
    assert_eq!(wire.offer(now, 100, || 1), Offered::Settled);
    wire.set(now, Impairment::NONE, |_| {});
    // The first is due and nobody has taken it yet.
    assert_eq!(wire.offer(now + 2 * MS, 100, || 2), Offered::Settled);
    let due: Vec<u32> = std::iter::from_fn(|| wire.take_due(now + 2 * MS)).collect();
    assert_eq!(due, [1, 2]);
}

#[test]
fn a_cut_takes_what_is_under_way_and_a_wire_that_is_well_again_carries_at_once() {
    let mut wire: Wire<u32> = Wire::new(Random::new(7));
    let late = Impairment {
        latency: 50 * MS,
        ..Impairment::NONE
    };
    wire.set(Duration::ZERO, late, |_| {});
    (0..3).for_each(|number| {
        wire.offer(Duration::ZERO, 100, || number);
    });
    let mut lost = Vec::new();
    wire.set(MS, Impairment { cut: true, ..late }, |parcel| {
        lost.push(parcel);
    });
    lost.sort_unstable();
    assert_eq!(lost, [0, 1, 2]);
    assert_eq!(wire.offer(MS, 100, || 3), Offered::Settled);
    assert_eq!(wire.counts().cut, 4);
    assert_eq!(wire.take_due(1_000 * MS), None);
    wire.set(2 * MS, Impairment::NONE, |_| {});
    assert_eq!(wire.offer(2 * MS, 100, || 4), Offered::PassesNow);
}

#[test]
fn room_ends_at_a_count_and_at_bytes_and_what_finds_none_is_counted() {
    let late = Impairment {
        latency: 50 * MS,
        ..Impairment::NONE
    };
    for (bytes, room) in [(1, WAITING_COUNT_MAX), (9_000, WAITING_BYTES_MAX / 9_000)] {
        let mut wire: Wire<()> = Wire::new(Random::new(7));
        wire.set(Duration::ZERO, late, |()| {});
        for _ in 0..=room {
            wire.offer(Duration::ZERO, bytes, || ());
        }
        assert_eq!(wire.waiting_count(), room);
        assert_eq!(wire.counts().overflowed, 1);
        // What leaves makes room.
        assert!(wire.take_due(50 * MS).is_some());
        wire.offer(Duration::ZERO, bytes, || ());
        assert_eq!(wire.counts().overflowed, 1);
    }
}

#[test]
fn what_is_too_large_is_counted_and_draws_nothing() {
    let mut wire: Wire<()> = Wire::new(Random::new(7));
    wire.refuse_large(10_000);
    assert_eq!(wire.counts().too_large, 1);
    assert_eq!(wire.counts().offered_bytes, 10_000);
    assert_eq!(wire.counts().ended(), 1);
}

#[test]
fn jitter_adds_half_of_its_span_on_average_however_many_datagrams_come() {
    let impairment = Impairment {
        latency: 20 * MS,
        jitter: 50 * MS,
        ..Impairment::NONE
    };
    for per_second in [100, 5_000] {
        let mut judge = judge(impairment);
        let count = 60 * per_second;
        let mut sum = Duration::ZERO;
        let mut latest = Duration::ZERO;
        for number in 0..count {
            let came = Duration::from_secs(1) * number / per_second;
            let Fate::Carried { at, .. } = judge.decide(came, 100) else {
                panic!("nothing is dropped");
            };
            assert!(at >= latest, "{at:?} behind {latest:?}");
            latest = at;
            sum += at - came;
        }
        let mean = sum / count;
        assert!(
            (42 * MS..48 * MS).contains(&mean),
            "{per_second}/s: {mean:?}"
        );
    }
}

/// A wire of 100,000 bytes a second, of which 1,000 take 10 ms.
fn slow() -> (Wire<u32>, Impairment) {
    let mut wire = Wire::new(Random::new(7));
    let rate = Rate::bytes_per_second(100_000).expect("a rate");
    let slow = Impairment {
        rate: Some(rate),
        ..Impairment::NONE
    };
    wire.set(Duration::ZERO, slow, |_| {});
    (wire, slow)
}

/// What is due by then, in the order in which it comes.
fn due(wire: &mut Wire<u32>, by: Duration) -> Vec<u32> {
    std::iter::from_fn(|| wire.take_due(by)).collect()
}

#[test]
fn what_is_said_again_or_of_something_else_grants_no_byte_twice() {
    let (mut wire, slow) = slow();
    for number in 0..20 {
        wire.offer(Duration::ZERO, 1_000, || number);
        wire.set(Duration::ZERO, slow, |_| {});
        let latency = Duration::ZERO;
        let loss = share(0.000_1 * f64::from(number % 2));
        wire.set(
            Duration::ZERO,
            Impairment {
                latency,
                loss,
                ..slow
            },
            |_| {},
        );
    }
    assert_eq!(due(&mut wire, 100 * MS), (0..10).collect::<Vec<_>>());
    assert_eq!(due(&mut wire, 200 * MS), (10..20).collect::<Vec<_>>());
}

#[test]
fn what_waits_leaves_at_the_pace_of_another_rate_and_is_not_overtaken() {
    let (mut wire, slow) = slow();
    (0..20).for_each(|number| {
        wire.offer(Duration::ZERO, 1_000, || number);
    });
    let double = Impairment {
        rate: Some(Rate::bytes_per_second(200_000).expect("a rate")),
        ..Impairment::NONE
    };
    // To and fro: as if nothing had been.
    wire.set(Duration::ZERO, double, |_| {});
    wire.set(Duration::ZERO, slow, |_| {});
    assert_eq!(due(&mut wire, 50 * MS), [0, 1, 2, 3, 4]);
    wire.set(50 * MS, double, |_| {});
    wire.offer(50 * MS, 1_000, || 20);
    assert_eq!(due(&mut wire, 75 * MS), [5, 6, 7, 8, 9]);
    assert_eq!(due(&mut wire, 129 * MS), (10..20).collect::<Vec<_>>());
    assert_eq!(due(&mut wire, 130 * MS), [20]);
    // Without a rate nothing waits any more.
    wire.offer(200 * MS, 1_000, || 21);
    wire.set(200 * MS, Impairment::NONE, |_| {});
    assert_eq!(wire.offer(200 * MS, 1_000, || 22), Offered::Settled);
    assert_eq!(due(&mut wire, 200 * MS), [21, 22]);
}

#[test]
fn what_comes_twice_takes_its_time_twice() {
    let (mut wire, slow) = slow();
    let twice = Impairment {
        duplicate: Share::ALL,
        ..slow
    };
    wire.set(Duration::ZERO, twice, |_| {});
    (0..2).for_each(|number| {
        wire.offer(Duration::ZERO, 1_000, || number);
    });
    assert_eq!(due(&mut wire, 19 * MS), [0]);
    assert_eq!(due(&mut wire, 29 * MS), [0]);
    assert_eq!(due(&mut wire, 39 * MS), [1]);
    assert_eq!(due(&mut wire, 45 * MS), [1]);
}

#[test]
fn another_loss_lets_nothing_overtake_and_a_shorter_latency_does() {
    let mut wire: Wire<u32> = Wire::new(Random::new(7));
    let late = Impairment {
        latency: 50 * MS,
        jitter: 30 * MS,
        ..Impairment::NONE
    };
    wire.set(Duration::ZERO, late, |_| {});
    for number in 0..100 {
        let now = number * MS;
        let loss = share(0.000_1 * f64::from(number % 2));
        wire.set(now, Impairment { loss, ..late }, |_| {});
        wire.offer(now, 100, || number);
    }
    assert!(due(&mut wire, 1_000 * MS).is_sorted());
    wire.set(1_000 * MS, late, |_| {});
    wire.offer(1_000 * MS, 100, || 1);
    wire.set(1_000 * MS, Impairment::NONE, |_| {});
    assert_eq!(wire.offer(1_000 * MS, 100, || 2), Offered::PassesNow);
}

#[test]
fn what_finds_no_socket_is_counted() {
    let mut wire: Wire<()> = Wire::new(Random::new(7));
    wire.starve(100);
    assert_eq!((wire.counts().starved, wire.counts().ended()), (1, 1));
    assert_eq!(wire.counts().offered_bytes, 100);
}
