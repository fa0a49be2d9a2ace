//! The core of a relay: what becomes of every datagram that goes one way, and when.
//!
//! Sans-IO: `now` comes in, verdicts and due datagrams come out; nothing here reads a clock or
//! touches a socket. The same seed, impairments and moments give the same verdicts.
//! Every datagram draws the same count of random numbers whatever the impairment is, so that
//! changing one of its values changes nothing about the others.
//! Jitter is no matter of datagrams: it is a delay that moves with time, for all of them alike.
//!
//! Read [`Judge::decide`] for what an impairment does, then [`Wire`] for what waits.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use serde::Serialize;

use super::impairment::{Impairment, Rate};
use crate::lab::random::{Random, part_of};

/// Most datagrams that wait on one wire. With [`WAITING_BYTES_MAX`] enough for 50 MB/s over 120 ms.
pub const WAITING_COUNT_MAX: usize = 4_096;
/// Most bytes that wait on one wire.
pub const WAITING_BYTES_MAX: usize = 6 << 20;

/// How long a datagram is held back at least, when those behind are to overtake it.
const HELD_BACK_MIN: Duration = Duration::from_millis(5);
/// And up to so much longer.
const HELD_BACK_SPAN: Duration = Duration::from_millis(20);
/// How long after the first the second one of a doubled datagram comes, at most.
const TWICE_WITHIN: Duration = Duration::from_millis(5);

/// Jitter takes at least so long from one drawn value to the next.
const SWAY_MIN: Duration = Duration::from_millis(10);

/// What a wire did so far. Each datagram that was offered, and each copy that was made of one, still
/// waits or is in exactly one of those counts that [`WireCounts::ended`] adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WireCounts {
    /// Datagrams that came to the wire.
    pub offered: u64,
    /// Their bytes.
    pub offered_bytes: u64,
    /// Copies that were made.
    pub duplicated: u64,
    /// Datagrams and copies that were handed to the system. A recipient that reads too slowly
    /// loses some behind that, uncounted.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Of the offered ones, how many were held back for others to overtake them.
    pub reordered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Offered while the wire was cut, or under way when it was.
    pub cut: u64,
    /// No room in the buffer of a wire with a rate.
    pub congested: u64,
    /// No room in the relay itself: [`WAITING_COUNT_MAX`] or [`WAITING_BYTES_MAX`].
    pub overflowed: u64,
    /// Larger than a relay carries.
    pub too_large: u64,
    /// The recipient was not there, or the system did not take it.
    pub undeliverable: u64,
    /// The relay had no socket for who dialled: this process may open no more files.
    pub starved: u64,
}

impl WireCounts {
    /// What has an end, however it ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.delivered
            + self.lost
            + self.cut
            + self.congested
            + self.overflowed
            + self.too_large
            + self.undeliverable
            + self.starved
    }
}

/// Why a datagram goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Cut,
    Lost,
    Congested,
}

/// What becomes of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Dropped(Dropped),
    Carried {
        /// When a wire with a rate has done with it; the delay begins then.
        leaves: Duration,
        /// When it arrives.
        at: Duration,
        /// When it arrives once more.
        again_at: Option<Duration>,
        /// Those behind it may overtake it.
        is_held_back: bool,
    },
}

/// Decides about datagrams, one after the other.
#[derive(Debug)]
pub(crate) struct Judge {
    impairment: Impairment,
    random: Random,
    /// What jitter is drawn from.
    sway_seed: u64,
    /// When the latest arrives of those that may not be overtaken.
    latest: Duration,
    /// When a wire with a rate has done with what it was given.
    free_at: Duration,
}

/// What a change does to datagrams that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// They arrive as was decided.
    None,
    /// They are lost.
    Cut,
    /// What has not left yet leaves at the pace of another rate.
    Pace {
        from: Rate,
        /// At once without one.
        to: Option<Rate>,
    },
}

impl Change {
    /// When something leaves now that was to leave then.
    fn leaves(self, now: Duration, then: Duration) -> Duration {
        let Change::Pace { from, to } = self else {
            return then;
        };
        let waits = then.saturating_sub(now);
        match to {
            _ if waits.is_zero() => then,
            Some(to) => now.saturating_add(from.same_bytes_at(to, waits)),
            None => now,
        }
    }
}

impl Judge {
    pub(crate) fn new(mut random: Random) -> Judge {
        Judge {
            impairment: Impairment::NONE,
            sway_seed: random.next(),
            random,
            latest: Duration::ZERO,
            free_at: Duration::ZERO,
        }
    }

    pub(crate) const fn impairment(&self) -> Impairment {
        self.impairment
    }

    /// From now on, and what that does to what is under way.
    ///
    /// What comes from now on may overtake what is under way where the wire got faster by itself, or
    /// one that is well again would go on as the slow one that it was.
    pub(crate) fn set(&mut self, now: Duration, impairment: Impairment) -> Change {
        let before = self.impairment;
        self.impairment = impairment;
        if impairment.cut {
            self.latest = Duration::ZERO;
            self.free_at = Duration::ZERO;
            return Change::Cut;
        }
        if impairment.latency < before.latency || impairment.jitter < before.jitter {
            self.latest = Duration::ZERO;
        }
        match (before.rate, impairment.rate) {
            (Some(from), to) if to != Some(from) => {
                let change = Change::Pace { from, to };
                self.free_at = change.leaves(now, self.free_at);
                change
            }
            _ => Change::None,
        }
    }

    /// What jitter adds to a delay at a moment: a line from one drawn value to the next. It falls at
    /// most half as fast as time goes by, so nothing overtakes by it, and what it adds is half of
    /// the span on average, however many datagrams come.
    fn sway(&self, at: Duration) -> Duration {
        let span = self.impairment.jitter;
        if span.is_zero() {
            return Duration::ZERO;
        }
        let step = SWAY_MIN.max(span * 2).as_nanos();
        let drawn = |number: u128| {
            // The stream of a generator, at any place of it.
            let place = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let drawn = Random::new(self.sway_seed.wrapping_add(place)).next();
            part(span, drawn).as_nanos()
        };
        let (number, into) = (at.as_nanos() / step, at.as_nanos() % step);
        let sum = drawn(number) * (step - into) + drawn(number + 1) * into;
        // No more than the span, which is far below 2^64 ns.
        Duration::from_nanos((sum / step) as u64)
    }

    /// What becomes of a datagram of so many bytes that comes now.
    pub(crate) fn decide(&mut self, now: Duration, bytes: usize) -> Fate {
        // INVARIANT: as many numbers for every datagram, and always in this order.
        let lost = self.random.next();
        let doubled = self.random.next();
        let held_back = self.random.next();
        let held_back_by = self.random.next();
        let again_after = self.random.next();
        let impairment = self.impairment;
        if impairment.cut {
            return Fate::Dropped(Dropped::Cut);
        }
        if impairment.loss.holds(lost) {
            return Fate::Dropped(Dropped::Lost);
        }
        let is_doubled = impairment.duplicate.holds(doubled);
        let (leaves, copy_leaves) = match impairment.rate {
            None => (now, now),
            Some(rate) => {
                let begins = self.free_at.max(now);
                if begins.saturating_sub(now) > rate.buffer() {
                    return Fate::Dropped(Dropped::Congested);
                }
                let leaves = begins.saturating_add(rate.time_of(bytes));
                let copy_leaves = leaves.saturating_add(rate.time_of(bytes));
                self.free_at = if is_doubled { copy_leaves } else { leaves };
                (leaves, copy_leaves)
            }
        };
        let delay = impairment.latency + self.sway(leaves);
        let due = leaves.saturating_add(delay).max(self.latest);
        let is_held_back = impairment.reorder.holds(held_back);
        let at = if is_held_back {
            due + HELD_BACK_MIN + part(HELD_BACK_SPAN, held_back_by)
        } else {
            self.latest = due;
            due
        };
        let copy_at = at + (copy_leaves - leaves) + part(TWICE_WITHIN, again_after);
        Fate::Carried {
            leaves,
            at,
            again_at: is_doubled.then_some(copy_at),
            is_held_back,
        }
    }
}

fn part(whole: Duration, drawn: u64) -> Duration {
    let whole = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(part_of(whole, drawn))
}

/// What is to be done with a datagram that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// Its time is now and nothing waits before it: hand it on, and say what came of it.
    PassesNow,
    /// The wire keeps it until its time, or dropped it.
    Settled,
}

/// One direction of traffic, with what is under way.
#[derive(Debug)]
pub(crate) struct Wire<P> {
    judge: Judge,
    waiting: BinaryHeap<Reverse<Waiting<P>>>,
    waiting_bytes: usize,
    /// Tells datagrams of one moment apart, in the order in which they came.
    order: u64,
    counts: WireCounts,
}

/// A datagram under way.
#[derive(Debug)]
struct Waiting<P> {
    due: Duration,
    /// When it has left a wire with a rate.
    leaves: Duration,
    /// Whether it may neither overtake nor be overtaken.
    is_in_line: bool,
    order: u64,
    bytes: usize,
    parcel: P,
}

impl<P> Wire<P> {
    pub(crate) fn new(random: Random) -> Wire<P> {
        Wire {
            judge: Judge::new(random),
            waiting: BinaryHeap::new(),
            waiting_bytes: 0,
            order: 0,
            counts: WireCounts {
                offered: 0,
                offered_bytes: 0,
                duplicated: 0,
                delivered: 0,
                delivered_bytes: 0,
                reordered: 0,
                lost: 0,
                cut: 0,
                congested: 0,
                overflowed: 0,
                too_large: 0,
                undeliverable: 0,
                starved: 0,
            },
        }
    }

    /// A datagram comes; `pack` makes what is kept of it, and is called only when something is.
    pub(crate) fn offer(
        &mut self,
        now: Duration,
        bytes: usize,
        mut pack: impl FnMut() -> P,
    ) -> Offered {
        self.count_offered(bytes);
        match self.judge.decide(now, bytes) {
            Fate::Dropped(why) => {
                *match why {
                    Dropped::Cut => &mut self.counts.cut,
                    Dropped::Lost => &mut self.counts.lost,
                    Dropped::Congested => &mut self.counts.congested,
                } += 1;
                Offered::Settled
            }
            Fate::Carried {
                leaves,
                at,
                again_at,
                is_held_back,
            } => {
                self.counts.reordered += u64::from(is_held_back);
                self.counts.duplicated += u64::from(again_at.is_some());
                let is_first = self.next_due().is_none_or(|due| due > now);
                let passes = at <= now && is_first;
                if !passes {
                    self.keep((leaves, at), !is_held_back, bytes, &mut pack);
                }
                if let Some(again_at) = again_at {
                    self.keep((leaves, again_at), false, bytes, &mut pack);
                }
                match passes {
                    true => Offered::PassesNow,
                    false => Offered::Settled,
                }
            }
        }
    }

    /// A datagram came that is larger than a relay carries.
    pub(crate) fn refuse_large(&mut self, bytes: usize) {
        self.count_offered(bytes);
        self.counts.too_large += 1;
    }

    /// The next datagram whose time has come. Say what came of it.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<P> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(next) = self.waiting.pop()?;
        self.waiting_bytes -= next.bytes;
        Some(next.parcel)
    }

    /// When the next datagram is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse(next)| next.due)
    }

    /// A datagram was handed on.
    pub(crate) fn note_delivered(&mut self, bytes: usize) {
        self.counts.delivered += 1;
        self.counts.delivered_bytes += bytes as u64;
    }

    /// There was nobody to hand it to.
    pub(crate) fn note_undeliverable(&mut self) {
        self.counts.undeliverable += 1;
    }

    pub(crate) fn impairment(&self) -> Impairment {
        self.judge.impairment()
    }

    /// A datagram came for which the relay has no socket.
    pub(crate) fn starve(&mut self, bytes: usize) {
        self.count_offered(bytes);
        self.counts.starved += 1;
    }

    /// From now on. A cut takes with it what is under way, handed to `lost`; another rate lets what
    /// has not left yet leave at its own pace.
    pub(crate) fn set(&mut self, now: Duration, impairment: Impairment, mut lost: impl FnMut(P)) {
        let change = self.judge.set(now, impairment);
        match change {
            Change::None => {}
            Change::Cut => {
                self.counts.cut += self.waiting.len() as u64;
                self.waiting_bytes = 0;
                for Reverse(waiting) in self.waiting.drain() {
                    lost(waiting.parcel);
                }
            }
            Change::Pace { .. } => self.repace(now, change),
        }
    }

    fn repace(&mut self, now: Duration, change: Change) {
        let mut all: Vec<Waiting<P>> = self.waiting.drain().map(|Reverse(it)| it).collect();
        all.sort_unstable_by_key(|waiting| waiting.order);
        let mut latest = Duration::ZERO;
        for waiting in &mut all {
            let delay = waiting.due.saturating_sub(waiting.leaves);
            waiting.leaves = change.leaves(now, waiting.leaves);
            waiting.due = waiting.leaves.saturating_add(delay);
            if waiting.is_in_line {
                waiting.due = waiting.due.max(latest);
                latest = waiting.due;
            }
        }
        if !self.judge.latest.is_zero() {
            self.judge.latest = latest;
        }
        self.waiting = all.into_iter().map(Reverse).collect();
    }

    pub(crate) const fn counts(&self) -> WireCounts {
        self.counts
    }

    /// How many are under way.
    #[cfg(test)]
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    fn count_offered(&mut self, bytes: usize) {
        self.counts.offered += 1;
        self.counts.offered_bytes += bytes as u64;
    }

    fn keep(
        &mut self,
        (leaves, due): (Duration, Duration),
        is_in_line: bool,
        bytes: usize,
        pack: &mut impl FnMut() -> P,
    ) {
        if self.waiting.len() >= WAITING_COUNT_MAX
            || self.waiting_bytes.saturating_add(bytes) > WAITING_BYTES_MAX
        {
            self.counts.overflowed += 1;
            return;
        }
        self.waiting_bytes += bytes;
        self.order += 1;
        self.waiting.push(Reverse(Waiting {
            due,
            leaves,
            is_in_line,
            order: self.order,
            bytes,
            parcel: pack(),
        }));
    }
}

impl<P> Ord for Waiting<P> {
    fn cmp(&self, other: &Waiting<P>) -> Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl<P> PartialOrd for Waiting<P> {
    fn partial_cmp(&self, other: &Waiting<P>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Waiting<P> {
    fn eq(&self, other: &Waiting<P>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Waiting<P> {}

#[cfg(test)]
mod tests;
