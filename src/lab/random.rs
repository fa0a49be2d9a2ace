//! Seeded choices: what a relay does with a datagram, which node dies, which bit flips.
//!
//! The same seed and the same questions give the same answers on every machine.
//! It is no source of secrets: whoever sees a few numbers knows all that follow.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough for choices.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that begins at this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A generator for one named part of a lab: parts neither share numbers nor depend on the order
    /// in which they are made.
    #[must_use]
    pub fn named(seed: u64, names: &[&str]) -> Random {
        // FNV-1a, with a byte between the names that no name holds.
        let mut mixed = 0xcbf2_9ce4_8422_2325;
        for name in names {
            for byte in name.bytes().chain([0xff]) {
                mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        // One step apart from the seed, so that a name that mixes to nothing still counts.
        Random(Random(seed).next() ^ mixed)
    }

    /// Any number.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends, so an iterator would only add a question"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to just below the bound; 0 when there is none below it.
    pub fn below(&mut self, bound: u64) -> u64 {
        part_of(bound, self.next())
    }

    /// A duration from nothing to just below the bound.
    pub fn within(&mut self, bound: Duration) -> Duration {
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(bound))
    }

    /// A generator of its own for something that runs beside this.
    pub fn fork(&mut self) -> Random {
        Random(self.next())
    }
}

/// The part of `whole` that a random number stands for: `whole` × `drawn` / 2^64, so without the
/// lean towards small numbers that a remainder has.
pub(crate) fn part_of(whole: u64, drawn: u64) -> u64 {
    let product = u128::from(whole) * u128::from(drawn);
    // The upper half of a product of two such numbers is one again.
    (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_a_name_its_own() {
        let draw = |mut random: Random| [random.next(), random.next(), random.next()];
        assert_eq!(draw(Random::new(7)), draw(Random::new(7)));
        assert_ne!(draw(Random::new(7)), draw(Random::new(8)));
        let named = |names: &[&str]| draw(Random::named(7, names));
        assert_eq!(named(&["a", "b"]), named(&["a", "b"]));
        assert_ne!(named(&["a", "b"]), named(&["b", "a"]));
        assert_ne!(named(&["ab"]), named(&["a", "b"]));
        assert_ne!(named(&["a"]), draw(Random::named(8, &["a"])));
    }

    #[test]
    fn bounds_hold_and_every_number_below_comes() {
        let mut random = Random::new(1);
        let mut seen = [0; 5];
        for _ in 0..1_000 {
            seen[usize::try_from(random.below(5)).expect("below 5")] += 1;
        }
        assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
        assert_eq!(random.within(Duration::ZERO), Duration::ZERO);
        assert!(random.within(Duration::from_secs(3)) < Duration::from_secs(3));
    }
}
