//! Where time and randomness come from.
//!
//! [`Env`] is handed to everything that needs either, so that a test or a simulation can own both.
//! Nothing else in this crate reads a clock or asks the operating system for random bytes.
//!
//! Read [`Env::system`] for what a real node uses and [`testing`] for what a test uses.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};

/// The two clocks of a node.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Milliseconds since the Unix epoch. May jump in both directions.
    fn now_ms(&self) -> u64;
    /// Milliseconds since some fixed instant. Never runs backwards.
    fn monotonic_ms(&self) -> u64;
}

/// A source of bytes that nobody else can predict.
pub trait Random: fmt::Debug + Send + Sync {
    /// Overwrites all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The surroundings of a node: its clocks and its randomness.
#[derive(Clone, Debug)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Env {
    /// The machine's clocks and the operating system's random generator.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this file is where the time comes from"
    )]
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock {
                started: Instant::now(),
            }),
            random: Arc::new(OsRandom {
                source: SystemRandom::new(),
            }),
        }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Milliseconds on a clock that never runs backwards.
    #[must_use]
    pub fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    /// `N` random bytes.
    #[must_use]
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes);
        bytes
    }

    /// A random number, every value as likely as any other.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        u64::from_be_bytes(self.random_bytes())
    }
}

#[derive(Debug)]
struct SystemClock {
    started: Instant,
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this file is where the time comes from"
    )]
    fn now_ms(&self) -> u64 {
        // A clock set before 1970 reads as 1970: ages come out wrong, nothing breaks.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

struct OsRandom {
    source: SystemRandom,
}

impl fmt::Debug for OsRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OsRandom")
    }
}

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // Going on with bytes that are not random would be worse than ending this task.
        self.source
            .fill(bytes)
            .expect("the operating system gives random bytes");
    }
}

/// Time that stands still until told otherwise, and randomness from a seed.
pub mod testing {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{Clock, Env, Random};

    /// A clock that moves only when told to.
    #[derive(Debug)]
    pub struct ManualClock {
        now_ms: AtomicU64,
        monotonic_ms: AtomicU64,
    }

    impl ManualClock {
        /// A clock that shows `now_ms`.
        #[must_use]
        pub fn at(now_ms: u64) -> Arc<Self> {
            Arc::new(Self {
                now_ms: AtomicU64::new(now_ms),
                monotonic_ms: AtomicU64::new(0),
            })
        }

        /// Lets `ms` milliseconds pass on both clocks.
        pub fn advance(&self, ms: u64) {
            self.now_ms.fetch_add(ms, Ordering::SeqCst);
            self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
        }

        /// Sets the wall clock, as an operator might.
        pub fn set_wall(&self, now_ms: u64) {
            self.now_ms.store(now_ms, Ordering::SeqCst);
        }
    }

    impl Clock for ManualClock {
        fn now_ms(&self) -> u64 {
            self.now_ms.load(Ordering::SeqCst)
        }

        fn monotonic_ms(&self) -> u64 {
            self.monotonic_ms.load(Ordering::SeqCst)
        }
    }

    /// A repeatable stream of bytes (SplitMix64). Not a secret to anybody.
    #[derive(Debug)]
    pub struct SeededRandom {
        state: Mutex<u64>,
    }

    impl SeededRandom {
        /// The stream of `seed`.
        #[must_use]
        pub fn new(seed: u64) -> Arc<Self> {
            Arc::new(Self {
                state: Mutex::new(seed),
            })
        }

        /// The next number of the stream.
        pub fn next_u64(&self) -> u64 {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        /// A number below `bound`, which must not be zero.
        pub fn below(&self, bound: u64) -> u64 {
            self.next_u64() % bound
        }
    }

    impl Random for SeededRandom {
        fn fill(&self, bytes: &mut [u8]) {
            for chunk in bytes.chunks_mut(8) {
                let word = self.next_u64().to_be_bytes();
                chunk.copy_from_slice(&word[..chunk.len()]);
            }
        }
    }

    /// A manual clock at a fixed date and the randomness of `seed`.
    #[must_use]
    pub fn env(seed: u64) -> (Env, Arc<ManualClock>) {
        let clock = ManualClock::at(1_750_000_000_000);
        (
            Env {
                clock: clock.clone(),
                random: SeededRandom::new(seed),
            },
            clock,
        )
    }
}
