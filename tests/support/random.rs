//! Seeded choices: which node dies, and when.
//!
//! A failing run prints its seed; `PACKHORSE_TEST_SEED` takes it back.
//! The choices repeat with the seed, the interleaving of real processes only roughly.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

pub(crate) use packhorse::lab::Random;

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
