//! The books of a scenario: what loads sent, what consumers got, and what is wrong between the two.
//!
//! A load numbers its messages from 1 and repeats each under its key until it is accepted, so a number
//! is accepted or never was. A consumer may be handed one message twice, when it dies between taking
//! and acknowledging; that is no fault, but it is one when the node has said that the message is
//! acknowledged. What counts is the inbox: each number has one place in it, and the places rise with
//! the numbers.
//!
//! It is pure arithmetic, and too simple to be wrong.

mod book;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use self::book::Book;
pub use self::tally::Tally;

/// The first word of every payload of a load.
const MARK: &str = "lab";

/// One pair's part of one load.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stream {
    /// Which load of the scenario: the first one is 1.
    pub load: u32,
    /// What it is about.
    pub topic: String,
    /// Who sends.
    pub from: String,
    /// Who receives.
    pub to: String,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.topic, self.from, self.to)
    }
}

/// The payload of a load's message: `lab LOAD FROM TO NUMBER xxxx`, of at least so many bytes.
#[must_use]
pub fn payload(stream: &Stream, number: u64, bytes: usize) -> Vec<u8> {
    let Stream { load, from, to, .. } = stream;
    let mut payload = format!("{MARK} {load} {from} {to} {number} ").into_bytes();
    payload.resize(payload.len().max(bytes), b'x');
    payload
}

/// Whose payload it is, and its number; `None` for one that no load sent.
#[must_use]
pub fn read_payload(topic: &str, payload: &[u8]) -> Option<(Stream, u64)> {
    let head = payload.get(..payload.len().min(160))?;
    let head = String::from_utf8_lossy(head);
    let mut words = head.split(' ');
    if words.next() != Some(MARK) {
        return None;
    }
    let load = words.next()?.parse().ok()?;
    let (from, to) = (words.next()?.to_owned(), words.next()?.to_owned());
    let number = words.next()?.parse().ok()?;
    let stream = Stream {
        load,
        topic: topic.to_owned(),
        from,
        to,
    };
    Some((stream, number))
}

/// All books of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    books: BTreeMap<Stream, Book>,
    /// Nodes and topics that a worker handles.
    worked: BTreeSet<(String, String)>,
    /// By node, the places of its inbox that were acknowledged for good.
    acknowledged: BTreeMap<String, BTreeSet<u64>>,
    /// What single sends of the scenario sent, by recipient, topic and payload.
    singles: BTreeMap<(String, String, Vec<u8>), Single>,
    /// Payloads that nothing of this scenario sent.
    foreign: u64,
}

/// A payload that was sent by hand, once or more.
#[derive(Clone, Debug, Default)]
struct Single {
    sent: usize,
    places: BTreeSet<u64>,
}

impl Ledger {
    /// Begins a book.
    pub fn open(&mut self, stream: Stream) {
        let is_worked = self
            .worked
            .contains(&(stream.to.clone(), stream.topic.clone()));
        self.books.entry(stream).or_default().is_worked |= is_worked;
    }

    /// The next number of a stream was accepted; it is returned.
    pub fn accept(&mut self, stream: &Stream) -> u64 {
        let book = self.books.entry(stream.clone()).or_default();
        book.accepted += 1;
        book.accepted
    }

    /// A worker on `node` handles this topic from now on, also for loads that begin later, so no
    /// consumer of the lab sees it all.
    pub fn worked(&mut self, node: &str, topic: &str) {
        self.worked.insert((node.to_owned(), topic.to_owned()));
        for (stream, book) in &mut self.books {
            book.is_worked |= stream.to == node && stream.topic == topic;
        }
    }

    /// Something beside a load may have sent this payload to `node`: a consumer may get it once more.
    pub fn sent(&mut self, node: &str, topic: &str, payload: &[u8]) {
        let single = (node.to_owned(), topic.to_owned(), payload.to_owned());
        self.singles.entry(single).or_default().sent += 1;
    }

    /// How far the messages of a stream came, as its sender knows it.
    pub fn climbed(&mut self, stream: &Stream, stored: u64, done: u64) {
        if let Some(book) = self.books.get_mut(stream) {
            book.climb(stored, done);
        }
    }

    /// A consumer on `node` got a message from this place of its inbox.
    pub fn receive(&mut self, node: &str, arrival: u64, topic: &str, payload: &[u8]) {
        let read = read_payload(topic, payload);
        let book = read.and_then(|(stream, number)| {
            let is_here = stream.to == node;
            let book = self.books.get_mut(&stream).filter(|_| is_here)?;
            Some((book, number))
        });
        if let Some((book, number)) = book {
            let places = self.acknowledged.get(node);
            let was_acknowledged = places.is_some_and(|places| places.contains(&arrival));
            book.receive(arrival, number, was_acknowledged);
            return;
        }
        let single = (node.to_owned(), topic.to_owned(), payload.to_owned());
        let single = self.singles.get_mut(&single);
        let is_known = single.is_some_and(|single| {
            single.places.insert(arrival);
            single.places.len() <= single.sent
        });
        self.foreign += u64::from(!is_known);
    }

    /// `node` said that these places of its inbox are done with: it may not hand them out again.
    pub fn acknowledged(&mut self, node: &str, arrivals: &[u64]) {
        let places = self.acknowledged.entry(node.to_owned()).or_default();
        places.extend(arrivals);
    }

    /// An older store was put under `node`, which may hand out again what it does not know to be done.
    pub fn restored(&mut self, node: &str) {
        self.acknowledged.remove(node);
    }

    /// The load that sends to a topic of a node, if one does.
    #[must_use]
    pub fn load_to(&self, node: &str, topic: &str) -> Option<&Stream> {
        let mut streams = self.books.keys();
        streams.find(|stream| stream.to == node && stream.topic == topic)
    }

    /// All is well with everything that was accepted so far.
    pub fn settle(&mut self) {
        self.books.values_mut().for_each(Book::settle);
    }

    /// Streams that began or went on after all was well last, or were never judged.
    #[must_use]
    pub fn unjudged(&self) -> Vec<String> {
        self.books
            .iter()
            .filter(|(_, book)| !book.is_judged())
            .map(|(stream, book)| format!("{stream}: {}, and no `settle` after that", book.tally()))
            .collect()
    }

    /// Streams, with what was accepted of each.
    pub fn streams(&self) -> impl Iterator<Item = (&Stream, u64)> {
        self.books
            .iter()
            .map(|(stream, book)| (stream, book.accepted))
    }

    /// What one stream's book says.
    #[must_use]
    pub fn tally_of(&self, stream: &Stream) -> Tally {
        self.books.get(stream).map(Book::tally).unwrap_or_default()
    }

    /// What all books say together.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut all = Tally {
            strange: self.foreign,
            ..Tally::default()
        };
        for book in self.books.values() {
            all.add(&book.tally());
        }
        all
    }

    /// What is wrong for good, stream by stream: no waiting mends it.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self
            .books
            .iter()
            .filter_map(|(stream, book)| Some(format!("{stream}: {}", book.fault()?)))
            .collect();
        if self.foreign > 0 {
            let count = self.foreign;
            faults.push(format!(
                "{count} messages came that nothing in this scenario sent"
            ));
        }
        faults
    }

    /// What is not yet as it should be at the end, stream by stream.
    #[must_use]
    pub fn unsettled(&self) -> Vec<String> {
        let mut unsettled = Vec::new();
        for (stream, book) in &self.books {
            let tally = book.tally();
            if !tally.is_settled() {
                unsettled.push(format!("{stream}: {tally}{}", book.examples()));
            }
        }
        unsettled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream {
            load: 1,
            topic: "orders".into(),
            from: "left".into(),
            to: "right".into(),
        }
    }

    /// A ledger with so many accepted, and these numbers at places 10, 11, ...
    fn ledger(accepted: u64, came: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.open(stream());
        for _ in 0..accepted {
            ledger.accept(&stream());
        }
        for (place, number) in (10..).zip(came) {
            ledger.receive("right", place, "orders", &payload(&stream(), *number, 64));
        }
        ledger
    }

    #[track_caller]
    fn check(accepted: u64, came: &[u64], lost: u64, doubled: u64, reordered: u64, strange: u64) {
        let tally = {
            let mut ledger = ledger(accepted, came);
            ledger.climbed(&stream(), 0, 0);
            ledger.tally()
        };
        assert_eq!(
            (tally.lost, tally.doubled, tally.reordered, tally.strange),
            (lost, doubled, reordered, strange),
            "{accepted} {came:?}"
        );
    }

    #[test]
    fn what_is_lost_twice_out_of_order_or_strange_is_counted() {
        check(0, &[], 0, 0, 0, 0);
        check(3, &[1, 2, 3], 0, 0, 0, 0);
        check(3, &[1, 3], 1, 0, 0, 0);
        check(3, &[1, 2, 2, 3], 0, 1, 0, 0);
        check(3, &[1, 3, 2], 0, 0, 1, 0);
        check(3, &[2, 1, 3, 1], 0, 1, 1, 0);
        check(3, &[1, 2, 3, 4, 0], 0, 0, 0, 2);
        check(3, &[], 3, 0, 0, 0);
    }

    #[test]
    fn the_same_place_handed_out_twice_unacknowledged_is_no_fault() {
        let mut ledger = ledger(2, &[1, 2]);
        ledger.receive("right", 11, "orders", &payload(&stream(), 2, 64));
        let tally = ledger.tally();
        assert_eq!(
            (tally.redelivered, tally.doubled, tally.received),
            (1, 0, 2)
        );
        assert_eq!(ledger.faults(), Vec::<String>::new());
    }

    #[test]
    fn a_place_handed_out_after_it_was_acknowledged_came_twice() {
        let mut ledger = ledger(2, &[1, 2]);
        ledger.acknowledged("right", &[10]);
        ledger.receive("right", 10, "orders", &payload(&stream(), 1, 64));
        assert_eq!(ledger.tally().doubled, 1);
        assert_eq!(ledger.faults(), ["orders from left to right: 1 twice"]);
        // Place 11 was not acknowledged; and an older store does not know of what was.
        ledger.receive("right", 11, "orders", &payload(&stream(), 2, 64));
        ledger.restored("right");
        ledger.receive("right", 10, "orders", &payload(&stream(), 1, 64));
        let tally = ledger.tally();
        assert_eq!((tally.doubled, tally.redelivered), (1, 2));
    }

    #[test]
    fn a_worker_counts_whether_the_load_or_it_came_first() {
        for is_first in [true, false] {
            let mut ledger = Ledger::default();
            if is_first {
                ledger.worked("right", "orders");
            }
            ledger.open(stream());
            if !is_first {
                ledger.worked("right", "orders");
            }
            ledger.accept(&stream());
            ledger.climbed(&stream(), 1, 1);
            assert_eq!(ledger.unsettled(), Vec::<String>::new(), "{is_first}");
        }
    }

    #[test]
    fn what_was_sent_by_hand_may_come_as_often_as_it_was_sent() {
        let mut ledger = ledger(0, &[]);
        ledger.sent("right", "orders", b"two bales");
        for arrival in [1, 1] {
            ledger.receive("right", arrival, "orders", b"two bales");
        }
        assert_eq!(ledger.faults(), Vec::<String>::new());
        ledger.receive("right", 2, "orders", b"two bales");
        assert_eq!(ledger.tally().strange, 1);
    }

    #[test]
    fn what_is_accepted_after_the_last_settle_is_unjudged() {
        let mut ledger = ledger(2, &[1, 2]);
        assert_eq!(ledger.unjudged().len(), 1);
        ledger.settle();
        assert_eq!(ledger.unjudged(), Vec::<String>::new());
        ledger.accept(&stream());
        assert_eq!(
            ledger.unjudged(),
            [
                "orders from left to right: accepted 3, received 2, twice 0, out of order 0, and no `settle` after that"
            ]
        );
    }

    #[test]
    fn what_is_under_way_is_not_lost() {
        let mut ledger = ledger(3, &[1]);
        assert_eq!(ledger.tally().lost, 0);
        ledger.climbed(&stream(), 1, 1);
        assert_eq!(ledger.tally().lost, 2);
    }

    #[test]
    fn two_numbers_at_one_place_both_count() {
        // As after a backup was put back: the inbox counts from an earlier place again.
        let mut ledger = ledger(4, &[1, 2]);
        ledger.receive("right", 11, "orders", &payload(&stream(), 3, 64));
        let tally = ledger.tally();
        assert_eq!((tally.received, tally.doubled, tally.reordered), (3, 0, 0));
    }

    #[test]
    fn it_is_settled_when_everything_is_stored_done_and_here() {
        let mut ledger = ledger(3, &[1, 2, 3]);
        assert!(!ledger.tally().is_settled());
        ledger.climbed(&stream(), 3, 2);
        assert_eq!(
            ledger.unsettled(),
            [
                "orders from left to right: accepted 3, stored 3, done 2, received 3, lost 0, twice 0, out of order 0"
            ]
        );
        ledger.climbed(&stream(), 3, 3);
        assert!(ledger.tally().is_settled());
        assert_eq!(ledger.unsettled(), Vec::<String>::new());
    }

    #[test]
    fn a_fault_names_the_stream_and_what_is_missing() {
        assert_eq!(
            ledger(4, &[1, 3, 3]).faults(),
            ["orders from left to right: 1 twice; missing 2, 4"]
        );
    }

    #[test]
    fn payloads_of_others_and_at_the_wrong_node_are_strange() {
        let mut ledger = ledger(1, &[]);
        ledger.receive("right", 1, "orders", b"two bales");
        ledger.receive("hub", 2, "orders", &payload(&stream(), 1, 64));
        ledger.receive("right", 3, "other", &payload(&stream(), 1, 64));
        assert_eq!(ledger.tally().strange, 3);
        assert_eq!(
            ledger.faults(),
            ["3 messages came that nothing in this scenario sent"]
        );
    }

    #[test]
    fn a_payload_has_its_length_and_leads_back() {
        for bytes in [0, 64, 4_096] {
            let payload = payload(&stream(), 7, bytes);
            assert!(payload.len() >= bytes);
            assert_eq!(read_payload("orders", &payload), Some((stream(), 7)));
        }
        assert_eq!(read_payload("orders", b"lab 1 left"), None);
        assert_eq!(read_payload("orders", b""), None);
    }
}
