//! The book of one stream: how far its numbers came, and where they lie in the inbox.

use std::collections::{BTreeMap, BTreeSet};

use super::tally::Tally;

/// The book of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// Numbers from 1 to this one were accepted.
    pub(super) accepted: u64,
    /// How many of these are stored and done, as the sender knows it; `None` until it was asked.
    climbed: Option<(u64, u64)>,
    /// Numbers by their place in the inbox.
    arrivals: BTreeMap<u64, u64>,
    /// Handed to a consumer more than once from the same place.
    redelivered: u64,
    /// The same after it was acknowledged.
    again: u64,
    /// How many were accepted when all was well last.
    settled: Option<u64>,
    /// A worker handles it: what is done is all that is seen of its handling.
    pub(super) is_worked: bool,
}

impl Book {
    /// How far the messages came, as their sender knows it.
    pub(super) fn climb(&mut self, stored: u64, done: u64) {
        self.climbed = Some((stored.min(self.accepted), done.min(self.accepted)));
    }

    /// All is well with what was accepted so far.
    pub(super) fn settle(&mut self) {
        self.settled = Some(self.accepted);
    }

    /// Whether nothing was accepted since all was well.
    pub(super) fn is_judged(&self) -> bool {
        self.settled == Some(self.accepted)
    }

    pub(super) fn receive(&mut self, arrival: u64, number: u64, was_acknowledged: bool) {
        match self.arrivals.insert(arrival, number) {
            None => {}
            Some(before) if before == number && was_acknowledged => self.again += 1,
            Some(before) if before == number => self.redelivered += 1,
            Some(before) => {
                // Two numbers at one place: the inbox was set back. Both count.
                let free = self.free_place(arrival);
                self.arrivals.insert(arrival, before);
                self.arrivals.insert(free, number);
            }
        }
    }

    /// A place just behind this one that nobody has.
    fn free_place(&self, arrival: u64) -> u64 {
        let taken = self.arrivals.range(arrival..).map(|(place, _)| *place);
        let mut free = arrival;
        for place in taken {
            if place > free {
                break;
            }
            free = place.saturating_add(1);
        }
        free
    }

    pub(super) fn tally(&self) -> Tally {
        let mut seen: BTreeSet<u64> = BTreeSet::new();
        let (mut doubled, mut reordered, mut strange) = (self.again, 0, 0);
        let mut highest = 0;
        for number in self.arrivals.values() {
            if *number == 0 || *number > self.accepted {
                strange += 1;
            } else if !seen.insert(*number) {
                doubled += 1;
            } else if *number < highest {
                reordered += 1;
            } else {
                highest = *number;
            }
        }
        let received = u64::try_from(seen.len()).unwrap_or(u64::MAX);
        let (stored, done) = self.climbed.unwrap_or_default();
        let came = match self.is_worked {
            true => done.max(received),
            false => received,
        };
        Tally {
            accepted: self.accepted,
            is_followed: self.climbed.is_some(),
            stored,
            done,
            received,
            lost: match self.climbed {
                Some(_) => self.accepted.saturating_sub(came),
                None => 0,
            },
            doubled,
            reordered,
            strange,
            redelivered: self.redelivered,
        }
    }

    /// What no waiting mends.
    pub(super) fn fault(&self) -> Option<String> {
        let Tally {
            doubled,
            reordered,
            strange,
            ..
        } = self.tally();
        let counts = [
            (doubled, "twice"),
            (reordered, "out of order"),
            (strange, "never accepted"),
        ];
        let words: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!words.is_empty()).then(|| format!("{}{}", words.join(", "), self.examples()))
    }

    /// The first numbers that are missing, for who has to look for them.
    pub(super) fn examples(&self) -> String {
        let came: BTreeSet<u64> = self.arrivals.values().copied().collect();
        if self.is_worked {
            return String::new();
        }
        let missing: Vec<String> = (1..=self.accepted)
            .filter(|number| !came.contains(number))
            .take(5)
            .map(|number| number.to_string())
            .collect();
        if missing.is_empty() {
            return String::new();
        }
        format!("; missing {}", missing.join(", "))
    }
}
