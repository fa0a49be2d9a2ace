//! Where time, randomness and the knowledge of one's own addresses come from.
//!
//! [`Env`] is handed to everything that needs one of them, so that a test or a simulation can own
//! all three.
//! Nothing else in this crate reads a clock, asks the operating system for random bytes, or looks
//! at the machine's network interfaces.
//!
//! Read [`Env::system`] for what a real node uses and [`testing`] for what a test uses.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::JoinError;

/// The two clocks of a node.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Milliseconds since the Unix epoch. May jump in both directions.
    fn now_ms(&self) -> u64;
    /// Milliseconds since some fixed instant. Never runs backwards.
    fn monotonic_ms(&self) -> u64;
    /// The same in microseconds, for measuring round trips.
    fn monotonic_us(&self) -> u64 {
        self.monotonic_ms().saturating_mul(1_000)
    }
}

/// A source of bytes that nobody else can predict.
pub trait Random: fmt::Debug + Send + Sync {
    /// Overwrites all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The machine's own addresses.
pub trait Network: fmt::Debug + Send + Sync {
    /// Every address of every interface that is up, without loopback and link-local ones: those
    /// come and go without the machine having moved. `None` when the system does not say.
    fn addresses(&self) -> Option<BTreeSet<IpAddr>>;
}

/// What a node runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platform {
    /// Threads, sockets and routes of the operating system.
    #[default]
    System,
    /// A simulated machine: it has one thread, time that passes only while nothing is left to do,
    /// and sockets of a simulated network.
    #[cfg(feature = "sim")]
    Simulated,
}

/// The surroundings of a node: its clocks, its randomness, its place in the network.
#[derive(Clone, Debug)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Addresses.
    pub network: Arc<dyn Network>,
    /// Threads and sockets.
    pub platform: Platform,
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
            network: Arc::new(SystemNetwork),
            platform: Platform::System,
        }
    }

    /// Whether the machine is a simulated one.
    #[must_use]
    pub(crate) fn is_simulated(&self) -> bool {
        self.platform != Platform::System
    }

    /// Runs what blocks where it holds up nobody else: on a thread of its own.
    ///
    /// # Errors
    /// When the work panicked.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        #[cfg(feature = "sim")]
        if self.is_simulated() {
            // Whoever else is ready goes first, and now and then the disk takes its time.
            match self.random_u64() % 4 {
                0 => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                _ => tokio::task::yield_now().await,
            }
            return Ok(work());
        }
        tokio::task::spawn_blocking(work).await
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

    /// Microseconds on the clock that never runs backwards.
    #[must_use]
    pub fn monotonic_us(&self) -> u64 {
        self.clock.monotonic_us()
    }

    /// The machine's own addresses; see [`Network::addresses`].
    #[must_use]
    pub fn addresses(&self) -> Option<BTreeSet<IpAddr>> {
        self.network.addresses()
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

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
struct SystemNetwork;

impl Network for SystemNetwork {
    fn addresses(&self) -> Option<BTreeSet<IpAddr>> {
        let interfaces = if_addrs::get_if_addrs().ok()?;
        let usable = interfaces
            .iter()
            .filter(|interface| interface.is_oper_up())
            .filter(|interface| !interface.is_loopback() && !interface.is_link_local());
        Some(usable.map(if_addrs::Interface::ip).collect())
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

/// Time that stands still until told otherwise, randomness from a seed, and a network that a test
/// moves the machine in.
pub mod testing {
    use std::collections::BTreeSet;
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{Clock, Env, Network, Platform, Random};

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

    /// Addresses that a test gives and takes.
    #[derive(Debug, Default)]
    pub struct ManualNetwork {
        addresses: Mutex<BTreeSet<IpAddr>>,
    }

    impl ManualNetwork {
        /// The machine has these addresses from now on.
        pub fn set(&self, addresses: impl IntoIterator<Item = IpAddr>) {
            *self
                .addresses
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = addresses.into_iter().collect();
        }
    }

    impl Network for ManualNetwork {
        fn addresses(&self) -> Option<BTreeSet<IpAddr>> {
            let addresses = self.addresses.lock();
            Some(addresses.unwrap_or_else(PoisonError::into_inner).clone())
        }
    }

    /// A manual clock at a fixed date, the randomness of `seed`, no addresses.
    #[must_use]
    pub fn env(seed: u64) -> (Env, Arc<ManualClock>) {
        let clock = ManualClock::at(1_750_000_000_000);
        (
            Env {
                clock: clock.clone(),
                random: SeededRandom::new(seed),
                network: Arc::new(ManualNetwork::default()),
                platform: Platform::System,
            },
            clock,
        )
    }
}
