//! Who has which message, until when; and which messages wait for their next attempt.
//!
//! Times are monotonic milliseconds that come in as arguments. Nothing here reads a clock, and
//! nothing knows what a message holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{self, Mutant};

/// Messages that are handed out at one time, to all consumers together.
pub(super) const LEASES_MAX: usize = 262_144;
/// Kept-back messages that are remembered with their time; those of a topic beyond it are found
/// by looking the topic through again when the first of them is due.
const RESTING_MAX: usize = 65_536;

/// One message that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    token: u64,
    until_ms: u64,
    /// For how long it was asked, which is for how long a written attempt has it anew.
    lease_ms: u64,
    /// Nobody else gets the message before this: something is being written about it.
    writing_ms: u64,
    /// Not known of a lease that was taken up again after a restart.
    topic: Option<Arc<str>>,
}

impl Lease {
    fn end_ms(&self) -> u64 {
        #[cfg(feature = "sim")]
        if mutant::is(Mutant::LeaseNeverExpires) {
            return u64::MAX;
        }
        self.until_ms.max(self.writing_ms)
    }
}

/// A message that can be handed out again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) arrival: u64,
    pub(super) topic: Option<Arc<str>>,
}

/// All leases, and all rests.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: BTreeMap<u64, Lease>,
    ends: BTreeSet<(u64, u64)>,
    resting: BTreeMap<u64, (u64, Arc<str>)>,
    dues: BTreeSet<(u64, u64)>,
}

impl Leases {
    pub(super) fn count(&self) -> usize {
        self.leases.len()
    }

    /// Whether somebody has the message.
    pub(super) fn has(&self, arrival: u64) -> bool {
        self.leases.contains_key(&arrival)
    }

    /// When somebody's lease of the message ends.
    pub(super) fn until_ms(&self, arrival: u64) -> Option<u64> {
        self.leases.get(&arrival).map(Lease::end_ms)
    }

    /// Everything from `arrival` on that somebody has.
    pub(super) fn from(&self, arrival: u64) -> BTreeSet<u64> {
        self.leases.range(arrival..).map(|(at, _)| *at).collect()
    }

    /// Hands a message out.
    pub(super) fn lend(
        &mut self,
        arrival: u64,
        token: u64,
        now_ms: u64,
        lease_ms: u64,
        topic: Arc<str>,
    ) {
        self.wake(arrival);
        let lease = Lease {
            token,
            until_ms: now_ms.saturating_add(lease_ms),
            lease_ms,
            writing_ms: 0,
            topic: Some(topic),
        };
        self.put(arrival, lease);
    }

    fn put(&mut self, arrival: u64, lease: Lease) {
        let end_ms = lease.end_ms();
        self.ends.insert((end_ms, arrival));
        if let Some(before) = self.leases.insert(arrival, lease)
            && before.end_ms() != end_ms
        {
            self.ends.remove(&(before.end_ms(), arrival));
        }
    }

    /// Makes a lease end `lease_ms` from now, or later if it does already. A message that nobody
    /// has is taken up again by who had it, as after a restart of the inbox. `false`: it is
    /// another's, or waits for its next attempt.
    pub(super) fn hold(&mut self, arrival: u64, token: u64, now_ms: u64, lease_ms: u64) -> bool {
        let Some(mut lease) = self.own(arrival, token, lease_ms) else {
            return false;
        };
        lease.lease_ms = lease_ms;
        lease.until_ms = lease.until_ms.max(now_ms.saturating_add(lease_ms));
        self.put(arrival, lease);
        true
    }

    /// Keeps a message with its holder until `writing_ms`, however short the lease is, because
    /// something is about to be written. `false` as for [`Self::hold`].
    pub(super) fn write(&mut self, arrival: u64, token: u64, now_ms: u64, writing_ms: u64) -> bool {
        let unknown_ms = writing_ms.saturating_sub(now_ms);
        let Some(mut lease) = self.own(arrival, token, unknown_ms) else {
            return false;
        };
        lease.writing_ms = writing_ms;
        self.put(arrival, lease);
        true
    }

    /// What [`Self::write`] announced is written: the lease is as long as ever, from now on.
    /// Whether it ends sooner than it did.
    pub(super) fn written(&mut self, arrival: u64, token: u64, now_ms: u64) -> bool {
        let Some(lease) = self.leases.get(&arrival) else {
            return false;
        };
        if lease.token != token {
            return false;
        }
        let (before_ms, mut lease) = (lease.end_ms(), lease.clone());
        lease.writing_ms = 0;
        lease.until_ms = lease.until_ms.max(now_ms.saturating_add(lease.lease_ms));
        let is_sooner = lease.end_ms() < before_ms;
        self.put(arrival, lease);
        is_sooner
    }

    /// The lease with this token, or one to begin for a message that nobody has.
    fn own(&self, arrival: u64, token: u64, lease_ms: u64) -> Option<Lease> {
        match self.leases.get(&arrival) {
            Some(lease) => (lease.token == token).then(|| lease.clone()),
            None if self.resting.contains_key(&arrival) => None,
            // Whoever names messages that are none must not use up what there is to hand out.
            None if self.leases.len() >= LEASES_MAX => None,
            None => Some(Lease {
                token,
                until_ms: 0,
                lease_ms,
                writing_ms: 0,
                topic: None,
            }),
        }
    }

    /// Takes a lease away.
    pub(super) fn take(&mut self, arrival: u64) -> Option<Freed> {
        let lease = self.leases.remove(&arrival)?;
        self.ends.remove(&(lease.end_ms(), arrival));
        Some(Freed {
            arrival,
            topic: lease.topic,
        })
    }

    /// As [`Self::take`], if the token fits.
    pub(super) fn take_own(&mut self, arrival: u64, token: u64) -> Option<Freed> {
        let is_own = self
            .leases
            .get(&arrival)
            .is_some_and(|lease| lease.token == token);
        if is_own { self.take(arrival) } else { None }
    }

    /// Keeps a message back until `due_ms`. `false` when no more are remembered.
    pub(super) fn rest(&mut self, arrival: u64, due_ms: u64, topic: Arc<str>) -> bool {
        self.wake(arrival);
        if self.resting.len() >= RESTING_MAX {
            return false;
        }
        self.resting.insert(arrival, (due_ms, topic));
        self.dues.insert((due_ms, arrival));
        true
    }

    /// The message is gone, or is due at once.
    pub(super) fn wake(&mut self, arrival: u64) {
        if let Some((due_ms, _)) = self.resting.remove(&arrival) {
            self.dues.remove(&(due_ms, arrival));
        }
    }

    /// Ends what is over.
    pub(super) fn turn(&mut self, now_ms: u64) -> Vec<Freed> {
        let mut freed = Vec::new();
        while let Some((end_ms, arrival)) = self.ends.first().copied()
            && end_ms <= now_ms
        {
            freed.extend(self.take(arrival));
        }
        while let Some((due_ms, arrival)) = self.dues.first().copied()
            && due_ms <= now_ms
        {
            self.dues.pop_first();
            if let Some((_, topic)) = self.resting.remove(&arrival) {
                let topic = Some(topic);
                freed.push(Freed { arrival, topic });
            }
        }
        freed
    }

    /// When the next lease or rest ends.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let ends = self.ends.first().map(|(at_ms, _)| *at_ms);
        let dues = self.dues.first().map(|(at_ms, _)| *at_ms);
        ends.into_iter().chain(dues).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> Arc<str> {
        "a".into()
    }

    fn arrivals(freed: &[Freed]) -> Vec<u64> {
        freed.iter().map(|one| one.arrival).collect()
    }

    #[test]
    fn a_lease_ends_at_its_time_and_not_before() {
        let mut leases = Leases::default();
        leases.lend(1, 7, 0, 100, topic());
        leases.lend(2, 8, 0, 200, topic());
        assert_eq!(leases.next_ms(), Some(100));
        assert!(leases.turn(99).is_empty());
        assert_eq!(arrivals(&leases.turn(100)), [1]);
        assert!(!leases.has(1) && leases.has(2));
        assert_eq!(leases.from(0), BTreeSet::from([2]));
    }

    #[test]
    fn a_lease_is_held_by_its_own_token_only_and_never_shortened() {
        let mut leases = Leases::default();
        leases.lend(1, 7, 0, 100, topic());
        assert!(!leases.hold(1, 8, 0, 900));
        assert!(leases.hold(1, 7, 0, 50));
        assert_eq!(leases.next_ms(), Some(100));
        assert!(leases.hold(1, 7, 0, 300));
        assert!(leases.turn(299).is_empty());
        assert_eq!(leases.take_own(1, 8), None);
        assert_eq!(arrivals(&leases.turn(300)), [1]);
    }

    #[test]
    fn a_write_keeps_a_lease_for_as_long_as_it_takes_and_no_longer() {
        let mut leases = Leases::default();
        leases.lend(1, 7, 0, 100, topic());
        assert!(!leases.write(1, 8, 50, 1_050), "another's token");
        assert!(leases.write(1, 7, 50, 1_050));
        assert!(leases.turn(1_049).is_empty());
        // It took longer than the lease: nobody else was given the message meanwhile.
        assert!(leases.written(1, 7, 500));
        assert_eq!(leases.until_ms(1), Some(600));
        assert!(leases.turn(599).is_empty());
        assert_eq!(arrivals(&leases.turn(600)), [1]);
        assert!(!leases.written(1, 7, 600), "it is over");
        assert!(!leases.has(1));
        // A lease longer than the allowance is not shortened by it.
        leases.lend(2, 7, 0, 5_000, topic());
        assert!(leases.write(2, 7, 50, 1_050));
        assert_eq!(leases.until_ms(2), Some(5_000));
        assert!(!leases.written(2, 7, 60));
        assert_eq!(leases.until_ms(2), Some(5_060));
        // One that is never heard of again ends by itself.
        assert!(leases.write(3, 7, 50, 1_050));
        assert_eq!(arrivals(&leases.turn(1_050)), [3]);
    }

    #[test]
    fn what_nobody_has_is_taken_up_again_unless_it_rests() {
        let mut leases = Leases::default();
        assert!(leases.hold(1, 7, 0, 100));
        assert!(!leases.hold(1, 8, 0, 100));
        assert!(leases.rest(2, 500, topic()));
        assert!(!leases.hold(2, 7, 0, 100));
        assert_eq!(arrivals(&leases.turn(500)), [1, 2]);
        assert!(leases.hold(2, 7, 0, 600));
        assert_eq!(leases.next_ms(), Some(600));
    }

    #[test]
    fn no_more_are_taken_up_than_may_be_handed_out() {
        let mut leases = Leases::default();
        for arrival in 0..LEASES_MAX as u64 {
            assert!(leases.hold(arrival, 7, 0, 100));
        }
        assert!(!leases.hold(u64::MAX, 7, 0, 100));
        assert_eq!(leases.count(), LEASES_MAX);
        assert!(leases.hold(0, 7, 0, 200), "one that is held is held on");
    }

    #[test]
    fn nothing_is_left_of_what_is_gone() {
        let mut leases = Leases::default();
        leases.lend(1, 7, 0, 100, topic());
        leases.rest(2, 100, topic());
        leases.take(1);
        leases.wake(2);
        assert_eq!(leases.next_ms(), None);
        assert!(leases.turn(1_000).is_empty());
    }
}
