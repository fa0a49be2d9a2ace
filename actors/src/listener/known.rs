//! Prefixes from which a peer has authenticated lately.

use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::prefix::Prefix;

/// How long a prefix stays known after a peer authenticated from it.
pub const KNOWN_FOR: Duration = Duration::from_hours(7 * 24);
/// Prefixes remembered; those that were seen longest ago go first. 3,000 machines, each at an
/// address of its own, fit.
pub const KNOWN_MAX: u64 = 4_096;

/// The known prefixes. Only peers get in, so no stranger can push one out.
#[derive(Debug)]
pub struct Known {
    /// The wall-clock time of the last authentication. The cache bounds the count and forgets in
    /// time; the value makes the answer exact, also for what was read from the store at the start.
    seen: Cache<Prefix, u64>,
}

impl Default for Known {
    fn default() -> Self {
        let seen = Cache::builder()
            .max_capacity(KNOWN_MAX)
            .time_to_live(KNOWN_FOR)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { seen }
    }
}

impl Known {
    /// A peer authenticated from there at `at_ms` on the wall clock.
    pub fn note(&self, prefix: Prefix, at_ms: u64) {
        if prefix != Prefix::Here && self.seen.get(&prefix).is_none_or(|seen| seen < at_ms) {
            self.seen.insert(prefix, at_ms);
        }
    }

    /// Whoever authenticated from there is no peer any more.
    pub fn forget(&self, prefix: Prefix) {
        self.seen.invalidate(&prefix);
    }

    /// Whether that is less than a week ago. A wall clock that was set back changes nothing.
    #[must_use]
    pub fn has(&self, prefix: Prefix, wall_ms: u64) -> bool {
        let known_for_ms = u64::try_from(KNOWN_FOR.as_millis()).unwrap_or(u64::MAX);
        self.seen
            .get(&prefix)
            .is_some_and(|seen| wall_ms.saturating_sub(seen) < known_for_ms)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.seen.run_pending_tasks();
        self.seen.entry_count()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn prefix(number: u32) -> Prefix {
        Prefix::V4(Ipv4Addr::from(number))
    }

    #[test]
    fn a_prefix_is_known_for_a_week() {
        let known = Known::default();
        let week_ms = 7 * 24 * 3_600_000;
        known.note(prefix(1), 1_000);
        assert!(known.has(prefix(1), 1_000));
        assert!(known.has(prefix(1), 999 + week_ms));
        assert!(!known.has(prefix(1), 1_000 + week_ms));
        assert!(!known.has(prefix(2), 1_000));
        known.note(prefix(1), 500);
        assert!(known.has(prefix(1), 999 + week_ms), "the later time counts");
        known.note(prefix(2), 1_000);
        known.forget(prefix(1));
        assert!(!known.has(prefix(1), 1_000));
        assert!(known.has(prefix(2), 1_000));
    }

    #[test]
    fn the_number_of_known_prefixes_is_bounded_and_this_machine_is_none() {
        let known = Known::default();
        known.note(Prefix::Here, 1);
        assert!(!known.has(Prefix::Here, 1));
        for number in 0..3 * u32::try_from(KNOWN_MAX).expect("small") {
            known.note(prefix(number), 1);
        }
        assert!(known.count() <= KNOWN_MAX);
    }
}
