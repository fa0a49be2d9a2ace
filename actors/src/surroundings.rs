//! What changes around a node without a word: its addresses, and the time of day.
//!
//! [`Surroundings`] compares what is with what was; whoever owns it decides when to look and what
//! to do. A machine that slept shows itself here too: its wall clock has run on and its monotonic
//! clock has not.
//! Nothing here waits or dials.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use crate::env::Env;

/// How often somebody should look.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A wall clock that is corrected by less than this has not jumped.
const JUMP_MS: i64 = 5_000;

/// What is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The machine's addresses are others than before.
    Network,
    /// The wall clock went forward by this much, or back, beside the time that passed.
    Clock {
        /// Milliseconds; negative when it was set back.
        jumped_ms: i64,
    },
}

/// What was seen last.
#[derive(Debug)]
pub struct Surroundings {
    /// `None` until the system has said so once.
    addresses: Option<BTreeSet<IpAddr>>,
    /// Wall clock minus monotonic clock.
    offset_ms: i64,
}

impl Surroundings {
    /// As they are now.
    #[must_use]
    pub fn of(env: &Env) -> Self {
        Self {
            addresses: env.addresses(),
            offset_ms: offset_ms(env),
        }
    }

    /// Looks again, and tells what changed since the last look.
    pub fn look(&mut self, env: &Env) -> Vec<Change> {
        let mut changes = Vec::new();
        // A system that does not answer for once has not moved.
        if let Some(addresses) = env.addresses() {
            let before = self.addresses.replace(addresses);
            if before.is_some() && before != self.addresses {
                changes.push(Change::Network);
            }
        }
        let offset_ms = offset_ms(env);
        let jumped_ms = offset_ms.saturating_sub(self.offset_ms);
        if jumped_ms.abs() > JUMP_MS {
            changes.push(Change::Clock { jumped_ms });
        }
        // Also below the limit: what drifts slowly is no jump, however far it comes.
        self.offset_ms = offset_ms;
        changes
    }
}

fn offset_ms(env: &Env) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(env.now_ms()).saturating_sub(signed(env.monotonic_ms()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::testing::{self, ManualNetwork};

    fn at(last: u8) -> [IpAddr; 1] {
        [IpAddr::from([192, 0, 2, last])]
    }

    #[test]
    fn a_clock_that_jumps_either_way_is_told_once_and_one_that_drifts_is_not() {
        let (env, clock) = testing::env(1);
        let mut surroundings = Surroundings::of(&env);
        clock.advance(3_600_000);
        assert_eq!(surroundings.look(&env), []);
        for drift in 1..=100 {
            clock.advance(5_000);
            clock.set_wall(env.now_ms() + 1_000 * (drift % 5));
            assert_eq!(surroundings.look(&env), []);
        }
        for jumped_ms in [5_001, -5_001, 8 * 3_600_000, -86_400_000] {
            clock.set_wall(env.now_ms().checked_add_signed(jumped_ms).unwrap());
            assert_eq!(surroundings.look(&env), [Change::Clock { jumped_ms }]);
            assert_eq!(surroundings.look(&env), []);
        }
    }

    #[test]
    fn other_addresses_are_another_network() {
        let (mut env, _) = testing::env(1);
        let network = Arc::new(ManualNetwork::default());
        env.network = network.clone();
        let mut surroundings = Surroundings::of(&env);
        assert_eq!(surroundings.look(&env), []);
        for addresses in [at(1).to_vec(), at(2).to_vec(), Vec::new()] {
            network.set(addresses);
            assert_eq!(surroundings.look(&env), [Change::Network]);
            assert_eq!(surroundings.look(&env), []);
        }
    }
}
