//! How long to wait before the next attempt.
//!
//! Full jitter: a uniform draw between nothing and a ceiling that doubles with each
//! failure up to a cap. It spreads a herd better than a fixed delay with a little noise,
//! because two nodes that failed together do not meet again.
//! This file never draws the randomness and never counts the attempts; both come in.

use std::time::Duration;

/// The delay before attempt number `attempt`, counted from 0 for the first retry.
///
/// The result lies between 0 and `min(cap_ms, base_ms × 2^attempt)`, both included;
/// `random` is one uniform draw of 64 bits.
#[must_use]
pub fn delay(attempt: u32, base_ms: u64, cap_ms: u64, random: u64) -> Duration {
    let ceiling_ms = ceiling_ms(attempt, base_ms, cap_ms);
    // The high half of the product maps 64 random bits evenly to 0..=ceiling, without
    // the bias of a remainder and without an overflow at a ceiling of u64::MAX.
    let scaled = u128::from(random) * (u128::from(ceiling_ms) + 1);
    Duration::from_millis((scaled >> 64) as u64)
}

/// The longest delay that [`delay`] can answer for this attempt.
#[must_use]
pub fn ceiling_ms(attempt: u32, base_ms: u64, cap_ms: u64) -> u64 {
    let factor = 1_u64.checked_shl(attempt).unwrap_or(u64::MAX);
    base_ms.saturating_mul(factor).min(cap_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_and_stops_at_the_cap() {
        let ceilings: Vec<u64> = (0..9)
            .map(|attempt| ceiling_ms(attempt, 1_000, 60_000))
            .collect();
        assert_eq!(
            ceilings,
            [
                1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000
            ]
        );
    }

    #[test]
    fn a_delay_reaches_both_ends_of_its_range_and_never_leaves_it() {
        for attempt in [0, 1, 5, 6, 63, 64, u32::MAX] {
            let ceiling = ceiling_ms(attempt, 1_000, 60_000);
            assert_eq!(delay(attempt, 1_000, 60_000, 0), Duration::ZERO);
            assert_eq!(
                delay(attempt, 1_000, 60_000, u64::MAX),
                Duration::from_millis(ceiling)
            );
            assert!(delay(attempt, 1_000, 60_000, u64::MAX / 3) <= Duration::from_millis(ceiling));
        }
    }

    #[test]
    fn huge_bases_and_caps_do_not_overflow() {
        assert_eq!(ceiling_ms(40, u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(
            delay(1, u64::MAX, u64::MAX, u64::MAX),
            Duration::from_millis(u64::MAX)
        );
        assert_eq!(delay(7, 0, 60_000, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn draws_spread_evenly_over_the_range() {
        let mut counts = [0_u32; 4];
        for step in 0..4_096_u64 {
            let ms = delay(2, 1_000, 60_000, step.wrapping_mul(u64::MAX / 4_096)).as_millis();
            if let Some(count) = counts.get_mut((ms / 1_001) as usize) {
                *count += 1;
            }
        }
        assert!(
            counts.iter().all(|count| (1_000..=1_050).contains(count)),
            "{counts:?}"
        );
    }
}
