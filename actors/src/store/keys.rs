//! The tables and their keys.
//!
//! A key is its table's byte followed by fixed-width big-endian numbers or a keyed hash, so that
//! keys sort the way they are read and none carries text that a user chose.
//! Nothing here knows what a value holds.
//!
//! Read [`Table`] for the list, then one constructor of [`Key`] per table.

use std::fmt;

use packhorse_protocol::epoch::{Epoch, Lane, Position};

use super::PeerNumber;

/// What lies under a key. The numbers are on disk and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Table {
    /// Format version and fingerprint of the store secret, in clear, twice.
    Head = 1,
    /// Boot number → salt, epoch nonce, MAC; in clear.
    Boot = 2,
    /// Counters and other single values of the whole store.
    Meta = 3,
    /// Peer number → peer.
    Peer = 4,
    /// Keyed hash of a peer's id or name → peer number.
    PeerIndex = 5,
    /// Ticket id → invite.
    Invite = 6,
    /// Messages for one peer, lane and own epoch: how far they are.
    Line = 7,
    /// The same for epochs of which nothing waits any more.
    Past = 8,
    /// Keyed hash of (peer, idempotency key) → receipt.
    Idempotency = 9,
    /// Running number → idempotency hash, so that old ones can be dropped.
    IdempotencyOrder = 10,
    /// How far a sender's epoch was settled here.
    Mark = 11,
    /// Refusals that the sender has not confirmed.
    Refusal = 12,
    /// Messages that were given up.
    Dead = 13,
    /// Keyed hash of (lane, topic) → how many wait, and from which arrival on.
    Topic = 14,
    /// Key of a value that did not open → that value as it was found.
    Quarantine = 15,
    /// Number → fact.
    Event = 16,
    /// Dead letters of which it is not known whether they were delivered.
    Unsettled = 17,
    /// Messages that arrived here and were given up here.
    DeadIn = 18,
    /// What became of a message there, where its line does not say it.
    Outcome = 19,
    /// Running number → receipt, so that old outcomes can be dropped.
    OutcomeOrder = 20,
    /// Stretches of messages that their recipient has handled.
    DoneRange = 21,
    /// Arrival → how often a message was tried, and from when on it may be tried again.
    Try = 22,
    /// Keyed hash of an identity that pairs no more → that identity.
    Deny = 23,
    /// Keyed hash of an identity → its request to be paired with this node.
    Request = 24,
    /// Keyed hash of an identity → what this node asks it for.
    Asking = 25,
    /// Peer number → what its messages take of the inbox.
    InboxShare = 27,
    /// Messages that wait for their recipient.
    Outbox = 32,
    /// Messages that arrived.
    Inbox = 48,
    /// Keyed hash of (lane, topic) ‖ arrival → nothing.
    InboxTopic = 49,
}

/// The keyspaces of the engine: few, because every one holds its own write buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Small records, written often.
    Small = 0,
    /// Outbox rows.
    Outbox = 1,
    /// Inbox rows and their index.
    Inbox = 2,
}

impl Space {
    /// All keyspaces in the order of their numbers.
    pub const ALL: [Space; 3] = [Space::Small, Space::Outbox, Space::Inbox];

    /// The keyspace's name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Space::Small => "small",
            Space::Outbox => "outbox",
            Space::Inbox => "inbox",
        }
    }
}

/// Longest key: a quarantined refusal's (1 + 26 bytes), rounded up so that [`Key`] is 32 bytes.
const KEY_BYTES_MAX: usize = 31;

/// A key, held in place: jobs make hundreds of them a batch.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    length: u8,
}

impl Table {
    /// The table of a key; `None` when this version does not know it.
    pub(crate) fn of(key: &Key) -> Option<Table> {
        const ALL: [Table; 29] = [
            Table::Head,
            Table::Boot,
            Table::Meta,
            Table::Peer,
            Table::PeerIndex,
            Table::Invite,
            Table::Line,
            Table::Past,
            Table::Idempotency,
            Table::IdempotencyOrder,
            Table::Mark,
            Table::Refusal,
            Table::Dead,
            Table::Topic,
            Table::Quarantine,
            Table::Event,
            Table::Unsettled,
            Table::DeadIn,
            Table::Outcome,
            Table::OutcomeOrder,
            Table::DoneRange,
            Table::Try,
            Table::Deny,
            Table::Request,
            Table::Asking,
            Table::InboxShare,
            Table::Outbox,
            Table::Inbox,
            Table::InboxTopic,
        ];
        let byte = key.as_bytes().first()?;
        ALL.into_iter().find(|table| *table as u8 == *byte)
    }
}

impl Key {
    fn start(table: Table) -> Self {
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes[0] = table as u8;
        Self { bytes, length: 1 }
    }

    fn with(mut self, part: &[u8]) -> Self {
        let from = usize::from(self.length);
        self.bytes[from..from + part.len()].copy_from_slice(part);
        self.length += part.len() as u8;
        self
    }

    fn with_lane(self, peer: PeerNumber, lane: Lane) -> Self {
        self.with(&peer.0.to_be_bytes()).with(&[lane as u8])
    }

    fn with_epoch(self, epoch: Epoch) -> Self {
        self.with(&epoch.boot.to_be_bytes())
            .with(&epoch.nonce.to_be_bytes())
    }

    /// The key as it lies on disk.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The keyspace that holds this key.
    pub(crate) fn space(&self) -> Space {
        space_of(self.bytes[0])
    }

    /// A key read back from disk; `None` when it is longer than any key can be.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX {
            return None;
        }
        Some(
            Self {
                bytes: [0; KEY_BYTES_MAX],
                length: 0,
            }
            .with(bytes),
        )
    }

    /// The start of a whole table.
    pub(crate) fn table(table: Table) -> Self {
        Self::start(table)
    }

    /// One of the two copies of the head.
    pub(crate) fn head(copy: u8) -> Self {
        Self::start(Table::Head).with(&[copy])
    }

    pub(crate) fn boot(boot: u32) -> Self {
        Self::start(Table::Boot).with(&boot.to_be_bytes())
    }

    pub(crate) fn meta(name: Meta) -> Self {
        Self::start(Table::Meta).with(&[name as u8])
    }

    pub(crate) fn peer(peer: PeerNumber) -> Self {
        Self::start(Table::Peer).with(&peer.0.to_be_bytes())
    }

    pub(crate) fn peer_index(hash: [u8; 16]) -> Self {
        Self::start(Table::PeerIndex).with(&hash)
    }

    pub(crate) fn invite(ticket_id: [u8; 16]) -> Self {
        Self::start(Table::Invite).with(&ticket_id)
    }

    /// All lines of one peer and lane.
    pub(crate) fn lines(peer: PeerNumber, lane: Lane) -> Self {
        Self::start(Table::Line).with_lane(peer, lane)
    }

    pub(crate) fn line(peer: PeerNumber, lane: Lane, boot: u32) -> Self {
        Self::lines(peer, lane).with(&boot.to_be_bytes())
    }

    /// All past epochs of one peer and lane.
    pub(crate) fn pasts(peer: PeerNumber, lane: Lane) -> Self {
        Self::start(Table::Past).with_lane(peer, lane)
    }

    pub(crate) fn past(peer: PeerNumber, lane: Lane, boot: u32) -> Self {
        Self::pasts(peer, lane).with(&boot.to_be_bytes())
    }

    pub(crate) fn idempotency(hash: [u8; 16]) -> Self {
        Self::start(Table::Idempotency).with(&hash)
    }

    pub(crate) fn idempotency_order(number: u64) -> Self {
        Self::start(Table::IdempotencyOrder).with(&number.to_be_bytes())
    }

    /// All marks of one peer and lane.
    pub(crate) fn marks(peer: PeerNumber, lane: Lane) -> Self {
        Self::start(Table::Mark).with_lane(peer, lane)
    }

    pub(crate) fn mark(peer: PeerNumber, lane: Lane, epoch: Epoch) -> Self {
        Self::marks(peer, lane).with_epoch(epoch)
    }

    /// All unconfirmed refusals of one peer and lane.
    pub(crate) fn refusals(peer: PeerNumber, lane: Lane) -> Self {
        Self::start(Table::Refusal).with_lane(peer, lane)
    }

    pub(crate) fn refusal(peer: PeerNumber, lane: Lane, at: Position) -> Self {
        Self::refusals(peer, lane)
            .with_epoch(at.epoch)
            .with(&at.sequence.to_be_bytes())
    }

    /// All dead letters.
    pub(crate) fn dead(peer: PeerNumber, lane: Lane, boot: u32, sequence: u64) -> Self {
        Self::start(Table::Dead)
            .with_lane(peer, lane)
            .with(&boot.to_be_bytes())
            .with(&sequence.to_be_bytes())
    }

    /// A letter that arrived from a peer and was given up here.
    pub(crate) fn dead_in(peer: PeerNumber, lane: Lane, at: Position) -> Self {
        Self::start(Table::DeadIn)
            .with_lane(peer, lane)
            .with_epoch(at.epoch)
            .with(&at.sequence.to_be_bytes())
    }

    /// All letters that arrived from one peer and were given up here.
    pub(crate) fn dead_in_of(peer: PeerNumber) -> Self {
        Self::start(Table::DeadIn).with(&peer.0.to_be_bytes())
    }

    /// All dead letters of one peer, whatever their lane.
    pub(crate) fn dead_of(peer: PeerNumber) -> Self {
        Self::start(Table::Dead).with(&peer.0.to_be_bytes())
    }

    /// A dead letter that may have been delivered.
    pub(crate) fn unsettled(peer: PeerNumber, lane: Lane, boot: u32, sequence: u64) -> Self {
        Self::start(Table::Unsettled)
            .with_lane(peer, lane)
            .with(&boot.to_be_bytes())
            .with(&sequence.to_be_bytes())
    }

    pub(crate) fn outcome(peer: PeerNumber, lane: Lane, boot: u32, sequence: u64) -> Self {
        Self::start(Table::Outcome)
            .with_lane(peer, lane)
            .with(&boot.to_be_bytes())
            .with(&sequence.to_be_bytes())
    }

    pub(crate) fn outcome_order(number: u64) -> Self {
        Self::start(Table::OutcomeOrder).with(&number.to_be_bytes())
    }

    /// All handled stretches of one peer and lane.
    pub(crate) fn done_ranges(peer: PeerNumber, lane: Lane) -> Self {
        Self::start(Table::DoneRange).with_lane(peer, lane)
    }

    /// A stretch is found by its end.
    pub(crate) fn done_range(peer: PeerNumber, lane: Lane, boot: u32, end: u64) -> Self {
        Self::done_ranges(peer, lane)
            .with(&boot.to_be_bytes())
            .with(&end.to_be_bytes())
    }

    pub(crate) fn tries(arrival: u64) -> Self {
        Self::start(Table::Try).with(&arrival.to_be_bytes())
    }

    pub(crate) fn deny(hash: [u8; 16]) -> Self {
        Self::start(Table::Deny).with(&hash)
    }

    pub(crate) fn request(hash: [u8; 16]) -> Self {
        Self::start(Table::Request).with(&hash)
    }

    pub(crate) fn asking(hash: [u8; 16]) -> Self {
        Self::start(Table::Asking).with(&hash)
    }

    pub(crate) fn topic(hash: [u8; 16]) -> Self {
        Self::start(Table::Topic).with(&hash)
    }

    pub(crate) fn event(number: u64) -> Self {
        Self::start(Table::Event).with(&number.to_be_bytes())
    }

    pub(crate) fn quarantine(key: &Key) -> Self {
        Self::start(Table::Quarantine).with(key.as_bytes())
    }

    pub(crate) fn inbox_share(peer: PeerNumber) -> Self {
        Self::start(Table::InboxShare).with(&peer.0.to_be_bytes())
    }

    /// Our own epochs need no nonce here: one store gives a boot number out once.
    pub(crate) fn outbox(peer: PeerNumber, lane: Lane, boot: u32, sequence: u64) -> Self {
        Self::start(Table::Outbox)
            .with_lane(peer, lane)
            .with(&boot.to_be_bytes())
            .with(&sequence.to_be_bytes())
    }

    pub(crate) fn inbox(arrival: u64) -> Self {
        Self::start(Table::Inbox).with(&arrival.to_be_bytes())
    }

    pub(crate) fn inbox_topic(hash: [u8; 16], arrival: u64) -> Self {
        Self::start(Table::InboxTopic)
            .with(&hash)
            .with(&arrival.to_be_bytes())
    }

    /// The boot number behind peer and lane, where the key names them.
    pub(crate) fn boot_number(&self) -> u32 {
        let bytes = self.as_bytes().get(6..10);
        let bytes = bytes.and_then(|part| part.first_chunk::<4>());
        u32::from_be_bytes(bytes.copied().unwrap_or_default())
    }

    /// The last eight bytes as a number; the last field of most keys.
    pub(crate) fn last_u64(&self) -> u64 {
        let bytes = self.as_bytes();
        let tail = bytes.last_chunk::<8>().copied().unwrap_or_default();
        u64::from_be_bytes(tail)
    }

    /// The last four bytes as a number.
    pub(crate) fn last_u32(&self) -> u32 {
        let tail = self
            .as_bytes()
            .last_chunk::<4>()
            .copied()
            .unwrap_or_default();
        u32::from_be_bytes(tail)
    }

    /// The four bytes behind the table's: the peer, where the key names one.
    pub(crate) fn peer_number(&self) -> PeerNumber {
        let bytes = self
            .as_bytes()
            .get(1..5)
            .and_then(|part| part.first_chunk::<4>());
        PeerNumber(u32::from_be_bytes(bytes.copied().unwrap_or_default()))
    }

    /// The byte behind the peer's: the lane, where the key names one.
    pub(crate) fn lane(&self) -> Lane {
        if self.as_bytes().get(5) == Some(&(Lane::System as u8)) {
            Lane::System
        } else {
            Lane::User
        }
    }

    /// (boot, nonce) as the key of a mark ends.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        let bytes = self.as_bytes();
        let boot = bytes.get(6..10)?.first_chunk::<4>().copied()?;
        let nonce = bytes.get(10..18)?.first_chunk::<8>().copied()?;
        Some(Epoch {
            boot: u32::from_be_bytes(boot),
            nonce: u64::from_be_bytes(nonce),
        })
    }

    /// (boot, nonce, sequence) as the keys of a refusal and of an arrived dead letter end.
    pub(crate) fn position(&self) -> Option<Position> {
        let bytes = self.as_bytes();
        let boot = bytes.get(6..10)?.first_chunk::<4>().copied()?;
        let nonce = bytes.get(10..18)?.first_chunk::<8>().copied()?;
        let sequence = bytes.get(18..26)?.first_chunk::<8>().copied()?;
        Some(Position {
            epoch: Epoch {
                boot: u32::from_be_bytes(boot),
                nonce: u64::from_be_bytes(nonce),
            },
            sequence: u64::from_be_bytes(sequence),
        })
    }
}

/// Which keyspace holds the keys that begin with this byte.
pub(crate) fn space_of(table: u8) -> Space {
    match table {
        t if t == Table::Outbox as u8 => Space::Outbox,
        t if t == Table::Inbox as u8 || t == Table::InboxTopic as u8 => Space::Inbox,
        _ => Space::Small,
    }
}

/// Names in the meta table. On disk, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Meta {
    /// Number of the last commit.
    Commit = 1,
    /// Identity of the node that opened the store last.
    NodeId = 2,
    /// The next boot number is above this.
    BootFloor = 3,
    /// Next peer number.
    PeerNext = 4,
    /// Next arrival, first live arrival, how many wait.
    Inbox = 5,
    /// Oldest and next number of the idempotency order.
    Idempotency = 6,
    /// First and next number of the event ring.
    Events = 7,
    /// Oldest and next number of the outcomes' order.
    Outcomes = 8,
    /// What the boxes hold, in bytes.
    Held = 9,
    /// Peers that were forgotten and of which something is left to be put aside. No version ever
    /// wrote 10 to 12.
    Forgetting = 13,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_found_by_its_number() {
        let known = |number: &u8| {
            let key = Key::from_bytes(&[*number]).and_then(|key| Table::of(&key));
            key.is_some_and(|table| table as u8 == *number)
        };
        // No version ever wrote 26.
        let right: Vec<u8> = (1..=25).chain([27, 32, 48, 49]).collect();
        assert_eq!((0..=255).filter(known).collect::<Vec<u8>>(), right);
    }
}
