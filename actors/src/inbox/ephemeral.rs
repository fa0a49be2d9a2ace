//! Messages that are written down nowhere, for as long as somebody may still take them.
//!
//! Bounded in time, number and bytes; the oldest give way, and what is lost is counted. They come
//! from peers that hold the grant for it, which the session has checked.

use std::collections::VecDeque;

use packhorse_protocol::epoch::{Epoch, Lane, Position};
use packhorse_protocol::message::Message;

use crate::store::{InboxRow, PeerNumber};

/// How long one is kept.
const KEPT_MS: u64 = 10_000;
/// How many are kept.
const COUNT_MAX: usize = 1_024;
/// And how many bytes of them.
const BYTES_MAX: usize = 4 << 20;
/// Set in the arrival numbers of messages that lie in no store.
const NUMBER_BIT: u64 = 1 << 52;

#[derive(Debug)]
struct Kept {
    at_ms: u64,
    row: InboxRow,
}

/// The messages, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    kept: VecDeque<Kept>,
    bytes: usize,
    numbered: u64,
    lost: u64,
}

impl Ring {
    /// Keeps a message; the oldest make room.
    pub(super) fn offer(&mut self, now_ms: u64, peer: PeerNumber, message: Message) {
        self.expire(now_ms);
        self.numbered += 1;
        self.bytes += message.weight();
        let row = InboxRow {
            arrival: NUMBER_BIT | self.numbered,
            peer,
            lane: Lane::User,
            position: Position {
                epoch: Epoch { boot: 0, nonce: 0 },
                sequence: self.numbered,
            },
            message,
        };
        self.kept.push_back(Kept { at_ms: now_ms, row });
        while self.kept.len() > COUNT_MAX || (self.bytes > BYTES_MAX && self.kept.len() > 1) {
            self.lose_oldest();
        }
    }

    /// Takes messages of a topic out, oldest first, of those senders that `may` names.
    pub(super) fn take(
        &mut self,
        now_ms: u64,
        topic: &str,
        count: usize,
        bytes_max: usize,
        may: impl Fn(PeerNumber) -> bool,
    ) -> Vec<InboxRow> {
        self.expire(now_ms);
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut index = 0;
        while taken.len() < count && bytes < bytes_max {
            let Some(kept) = self.kept.get(index) else {
                break;
            };
            if kept.row.message.topic != topic || !may(kept.row.peer) {
                index += 1;
                continue;
            }
            if let Some(Kept { row, .. }) = self.kept.remove(index) {
                self.bytes = self.bytes.saturating_sub(row.message.weight());
                bytes += row.message.weight();
                taken.push(row);
            }
        }
        taken
    }

    /// Who sent messages of a topic that are here.
    pub(super) fn senders(&self, topic: &str) -> Vec<PeerNumber> {
        let of_topic = |kept: &&Kept| kept.row.message.topic == topic;
        let mut senders: Vec<PeerNumber> = self
            .kept
            .iter()
            .filter(of_topic)
            .map(|kept| kept.row.peer)
            .collect();
        senders.sort_unstable();
        senders.dedup();
        senders
    }

    /// Puts messages back that nobody took, as the oldest.
    pub(super) fn put_back(&mut self, now_ms: u64, rows: Vec<InboxRow>) {
        for row in rows.into_iter().rev() {
            self.bytes += row.message.weight();
            self.kept.push_front(Kept { at_ms: now_ms, row });
        }
        while self.kept.len() > COUNT_MAX || (self.bytes > BYTES_MAX && self.kept.len() > 1) {
            self.lose_oldest();
        }
    }

    /// Drops what a peer sent. Returns how many.
    pub(super) fn drop_of(&mut self, peer: PeerNumber) -> usize {
        let before = self.kept.len();
        self.kept.retain(|kept| kept.row.peer != peer);
        self.bytes = self.kept.iter().map(|kept| kept.row.message.weight()).sum();
        before - self.kept.len()
    }

    /// How many nobody took.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn expire(&mut self, now_ms: u64) {
        while let Some(oldest) = self.kept.front()
            && now_ms.saturating_sub(oldest.at_ms) > KEPT_MS
        {
            self.lose_oldest();
        }
    }

    fn lose_oldest(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.bytes = self.bytes.saturating_sub(kept.row.message.weight());
            self.lost += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use packhorse_protocol::message::DeliveryClass;

    use super::*;

    const PEER: PeerNumber = PeerNumber(1);

    fn message(topic: &str, bytes: usize) -> Message {
        Message {
            class: DeliveryClass::Ephemeral,
            topic: topic.to_owned(),
            born_ms: 0,
            headers: Vec::new(),
            payload: vec![0; bytes],
        }
    }

    fn take(ring: &mut Ring, now_ms: u64, topic: &str) -> usize {
        let all = ring.take(now_ms, topic, usize::MAX, usize::MAX, |_| true);
        all.len()
    }

    #[test]
    fn a_message_is_taken_once_and_only_by_its_topic() {
        let mut ring = Ring::default();
        ring.offer(0, PEER, message("a", 1));
        ring.offer(0, PEER, message("b", 1));
        assert_eq!(take(&mut ring, 0, "c"), 0);
        assert_eq!(take(&mut ring, 0, "b"), 1);
        assert_eq!(take(&mut ring, 0, "b"), 0);
        assert_eq!(take(&mut ring, 0, "a"), 1);
        assert_eq!((ring.bytes, ring.lost()), (0, 0));
    }

    #[test]
    fn it_is_kept_for_ten_seconds() {
        let mut ring = Ring::default();
        ring.offer(5, PEER, message("a", 1));
        ring.offer(6, PEER, message("a", 1));
        assert_eq!(take(&mut ring, 5 + KEPT_MS + 1, "a"), 1);
        assert_eq!((ring.bytes, ring.lost()), (0, 1));
    }

    #[test]
    fn the_oldest_make_room_for_number_and_bytes() {
        let mut ring = Ring::default();
        for _ in 0..COUNT_MAX + 3 {
            ring.offer(0, PEER, message("a", 0));
        }
        assert_eq!((ring.kept.len(), ring.lost()), (COUNT_MAX, 3));
        assert_eq!(
            ring.kept.front().map(|kept| kept.row.position.sequence),
            Some(4)
        );
        for _ in 0..5 {
            ring.offer(0, PEER, message("b", 1 << 20));
        }
        assert!(ring.bytes <= BYTES_MAX, "{} bytes", ring.bytes);
        assert_eq!(take(&mut ring, 0, "b"), 3);
        let rows = ring.take(0, "a", 9, usize::MAX, |_| true);
        assert!(rows.is_empty());
    }

    #[test]
    fn what_nobody_took_is_the_oldest_again() {
        let mut ring = Ring::default();
        for bytes in 1..=3 {
            ring.offer(0, PEER, message("a", bytes));
        }
        let taken = ring.take(0, "a", 2, usize::MAX, |_| true);
        ring.put_back(0, taken);
        let again = ring.take(0, "a", 9, usize::MAX, |_| true);
        let bytes: Vec<usize> = again.iter().map(|row| row.message.payload.len()).collect();
        assert_eq!(bytes, [1, 2, 3]);
        assert_eq!(ring.bytes, 0);
    }

    #[test]
    fn who_may_not_is_left_where_it_is() {
        let mut ring = Ring::default();
        ring.offer(0, PeerNumber(1), message("a", 1));
        ring.offer(0, PeerNumber(2), message("a", 1));
        assert_eq!(ring.senders("a"), [PeerNumber(1), PeerNumber(2)]);
        let taken = ring.take(0, "a", 9, 99, |peer| peer == PeerNumber(2));
        assert_eq!(taken.len(), 1);
        assert_eq!(ring.senders("a"), [PeerNumber(1)]);
    }
}
