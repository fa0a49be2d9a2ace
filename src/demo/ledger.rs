//! Counts what arrived against what was sent: lost, duplicated, reordered.
//!
//! Every payload carries its number; nothing else of it is looked at.
//! It is too simple to be wrong: one flag per number and the highest number so far.

/// What goes over one road.
const PAYLOAD_HEAD: &str = "bale ";

/// The payload with this number.
pub(crate) fn payload(number: u64) -> String {
    format!("{PAYLOAD_HEAD}{number:06}")
}

/// The payloads from one number to another, each with its newline.
pub(crate) fn lines(first: u64, last: u64) -> Vec<u8> {
    let mut lines = Vec::new();
    for number in first..=last {
        lines.extend_from_slice(payload(number).as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// What arrived on one road so far.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Whether number `index + 1` arrived.
    seen: Vec<bool>,
    highest: u64,
    received: u64,
    duplicated: u64,
    reordered: u64,
    /// Payloads that were never sent.
    unknown: u64,
}

/// What a ledger says at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) unknown: u64,
}

impl Ledger {
    /// A ledger for the numbers from 1 to this one.
    pub(crate) fn new(sent: u64) -> Ledger {
        let seen = vec![false; usize::try_from(sent).unwrap_or(usize::MAX)];
        Ledger {
            seen,
            highest: 0,
            received: 0,
            duplicated: 0,
            reordered: 0,
            unknown: 0,
        }
    }

    /// Enters one payload, in the order of arrival.
    pub(crate) fn enter(&mut self, payload: &[u8]) {
        self.received += 1;
        let number = number_of(payload);
        let slot = number
            .and_then(|number| usize::try_from(number).ok()?.checked_sub(1))
            .and_then(|index| self.seen.get_mut(index));
        let (Some(number), Some(seen)) = (number, slot) else {
            self.unknown += 1;
            return;
        };
        if *seen {
            self.duplicated += 1;
            return;
        }
        *seen = true;
        if number < self.highest {
            self.reordered += 1;
        }
        self.highest = self.highest.max(number);
    }

    /// What it comes to.
    pub(crate) fn count(&self) -> Count {
        Count {
            received: self.received,
            lost: self.seen.iter().filter(|seen| !**seen).count() as u64,
            duplicated: self.duplicated,
            reordered: self.reordered,
            unknown: self.unknown,
        }
    }
}

fn number_of(payload: &[u8]) -> Option<u64> {
    std::str::from_utf8(payload)
        .ok()?
        .strip_prefix(PAYLOAD_HEAD)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: u64, arrived: &[u64], expected: Count) {
        let mut ledger = Ledger::new(sent);
        for number in arrived {
            ledger.enter(payload(*number).as_bytes());
        }
        assert_eq!(ledger.count(), expected, "{arrived:?}");
    }

    #[test]
    fn all_in_order_is_a_clean_count() {
        check(
            3,
            &[1, 2, 3],
            Count {
                received: 3,
                ..Count::default()
            },
        );
        check(0, &[], Count::default());
    }

    #[test]
    fn every_broken_promise_is_counted_under_its_name() {
        check(
            3,
            &[1, 3],
            Count {
                received: 2,
                lost: 1,
                ..Count::default()
            },
        );
        check(
            3,
            &[1, 2, 2, 3],
            Count {
                received: 4,
                duplicated: 1,
                ..Count::default()
            },
        );
        check(
            3,
            &[2, 1, 3],
            Count {
                received: 3,
                reordered: 1,
                ..Count::default()
            },
        );
        check(
            3,
            &[1, 2, 3, 4],
            Count {
                received: 4,
                unknown: 1,
                ..Count::default()
            },
        );
        check(
            3,
            &[0, 1, 2, 3],
            Count {
                received: 4,
                unknown: 1,
                ..Count::default()
            },
        );
    }

    #[test]
    fn a_payload_that_was_never_sent_is_unknown() {
        let mut ledger = Ledger::new(1);
        ledger.enter(b"straw 1");
        ledger.enter(&[0xff]);
        assert_eq!(
            ledger.count(),
            Count {
                received: 2,
                lost: 1,
                unknown: 2,
                ..Count::default()
            }
        );
    }

    #[test]
    fn lines_hold_every_number_once() {
        assert_eq!(lines(9, 11), b"bale 000009\nbale 000010\nbale 000011\n");
        assert!(lines(2, 1).is_empty());
    }
}
