//! A token bucket, in thousandths of a token, so that it needs no fractions.

/// How fast a bucket fills, which is also how much it holds: one second's worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second.
    pub per_s: u64,
}

impl Rate {
    const fn full(self) -> u64 {
        self.per_s * TOKEN
    }
}

/// One token in the bucket's unit.
const TOKEN: u64 = 1_000;

/// A bucket that is full when new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    rate: Rate,
    level: u64,
    /// Where the level was right, on a clock that never runs backwards.
    at_ms: u64,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate: Rate, now_ms: u64) -> Self {
        Self {
            rate,
            level: rate.full(),
            at_ms: now_ms,
        }
    }

    /// Lets time pass. A clock that stands or steps back adds nothing.
    pub fn fill(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        // A token a second is a thousandth of one a millisecond.
        let more = passed_ms.saturating_mul(self.rate.per_s);
        self.level = self.level.saturating_add(more).min(self.rate.full());
    }

    /// Whether a token can be taken and `quarters` of the bucket remain.
    #[must_use]
    pub const fn has(&self, quarters: u64) -> bool {
        self.level >= self.rate.full() / 4 * quarters + TOKEN
    }

    /// Takes a token; of an empty bucket nothing is taken.
    pub const fn take(&mut self) {
        self.level = self.level.saturating_sub(TOKEN);
    }

    /// Whether a new bucket would be the same.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.level >= self.rate.full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_second_s_worth_at_once_and_then_its_rate() {
        let mut bucket = Bucket::new(Rate { per_s: 10 }, 0);
        let mut taken = 0;
        while bucket.has(0) {
            bucket.take();
            taken += 1;
        }
        assert_eq!(taken, 10);
        bucket.fill(99);
        assert!(!bucket.has(0), "a tenth of a second is not over");
        bucket.fill(100);
        assert!(bucket.has(0));
        bucket.fill(u64::MAX);
        assert!(bucket.is_full());
        bucket.fill(5);
        assert!(bucket.is_full(), "a clock that steps back takes nothing");
    }

    #[test]
    fn quarters_are_left_for_whoever_may_have_them() {
        let mut bucket = Bucket::new(Rate { per_s: 100 }, 0);
        let mut spent = 0;
        while bucket.has(3) {
            bucket.take();
            spent += 1;
        }
        assert_eq!(spent, 25);
        while bucket.has(1) {
            bucket.take();
            spent += 1;
        }
        assert_eq!(spent, 75);
    }
}
