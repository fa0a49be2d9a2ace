//! Seeded choices: which node dies, and when.
//!
//! A failing run prints its seed; `PACKHORSE_TEST_SEED` takes it back.
//! The choices repeat with the seed, the interleaving of real processes only roughly.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// The seed of this run, printed so that a failure can be run again.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("PACKHORSE_TEST_SEED") {
        Ok(text) => text
            .parse()
            .expect("PACKHORSE_TEST_SEED must be a number in decimal"),
        Err(_) => RandomState::new().hash_one("a fresh seed"),
    };
    println!("PACKHORSE_TEST_SEED={seed}");
    seed
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough to choose moments.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to just below the bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn millis_below(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }

    /// A generator of its own for another thread.
    pub(crate) fn fork(&mut self) -> Random {
        Random(self.next())
    }
}
