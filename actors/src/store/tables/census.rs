//! What is there: every record of a store read once, as far as it says how the rest should be.
//!
//! A scan shows nothing of a block that cannot be read, and may show nothing of what lies behind it;
//! and without the record of a boot nothing opens that was sealed under it, though all of it is
//! whole. Both are noted, so that nobody takes what was not seen for what is not there.
//!
//! Read [`Seen`], then [`look`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Epoch, Lane};

use crate::store::error::ReadFault;
use crate::store::keys::{Key, Meta, Space, Table};
use crate::store::reader::Reader;
use crate::store::seal::{NotOpened, sealed_boot};
use crate::store::view::Source;

use super::asking::AskingRecord;
use super::dead::Dead;
use super::dead_in::DeadInLetter;
use super::deny::Denied;
use super::head::{decode_u32, decode_u64};
use super::inbox::{self, Topic};
use super::invites::InviteRecord;
use super::lines::{Line, Past};
use super::outcomes::{Entry, Kept};
use super::peers::{PeerNumber, PeerRecord};
use super::requests::RequestRecord;
use super::tries::Tries;
use super::unsettled::Doubt;
use super::{events, forgetting, held, idempotency, outbox};

/// Damaged records and gone messages that one look names and mends; more take another look.
pub(super) const NAMED_MAX: usize = 10_000;

/// Peer, lane and own boot.
pub(super) type LineKey = (PeerNumber, Lane, u32);

/// What was seen of one line's rows and letters.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) waiting: BTreeSet<u64>,
    pub(super) letters: BTreeSet<u64>,
    pub(super) open: u64,
    /// Where the next row would begin, by the last one's weight.
    pub(super) bytes: u64,
}

/// Everything that is there, as far as it says how the rest should be.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) damaged: Vec<Key>,
    pub(super) damaged_count: u64,
    /// By keyspace: parts that cannot be read.
    pub(super) torn: [u64; Space::ALL.len()],
    /// Boot whose record is damaged or gone → records that were sealed under it.
    pub(super) sealed_away: BTreeMap<u32, u64>,
    pub(super) rows: BTreeMap<LineKey, Rows>,
    pub(super) lines: BTreeMap<LineKey, Line>,
    pub(super) pasts: BTreeSet<LineKey>,
    pub(super) arrivals: BTreeSet<u64>,
    /// From rows: (hash of lane and topic, arrival).
    pub(super) topics: BTreeSet<([u8; 16], u64)>,
    pub(super) index: BTreeSet<([u8; 16], u64)>,
    pub(super) topic_records: BTreeMap<[u8; 16], Topic>,
    /// The highest sequence of an epoch that is certainly settled here.
    pub(super) settled: BTreeMap<(PeerNumber, Lane, Epoch), u64>,
    pub(super) peers: Vec<PeerRecord>,
    /// The highest number of a peer that any key or record names, whether it opens or not.
    pub(super) highest_peer: u32,
    pub(super) peer_index: BTreeMap<Key, u32>,
    pub(super) keys: BTreeMap<[u8; 16], u64>,
    /// Idempotency keys by the order of their age, and when each was used.
    pub(super) ordered: BTreeMap<[u8; 16], u64>,
    pub(super) order: Option<(u64, u64)>,
    pub(super) outcome_order: Option<(u64, u64)>,
    pub(super) nonces: BTreeMap<u32, u64>,
    highest_boot: u32,
    pub(super) quarantined: u64,
}

/// Reads everything.
pub(super) fn look(source: &Reader) -> Result<Seen, ReadFault> {
    let mut seen = Seen::default();
    // Each keyspace from its first table to behind its last one.
    for (space, first, end) in [
        (Space::Small, Table::Head, Table::Outbox as u8),
        (Space::Outbox, Table::Outbox, Table::Outbox as u8 + 1),
        (Space::Inbox, Table::Inbox, Table::InboxTopic as u8 + 1),
    ] {
        let before = source.unreadable();
        source.scan(&Key::table(first), &[end], &mut |key, plain| {
            seen.note(source, key, plain);
            ControlFlow::Continue(())
        })?;
        seen.torn[space as usize] = source.unreadable() - before;
    }
    Ok(seen)
}

impl Seen {
    /// Whether everything of a keyspace was seen and may be judged: what is not here is not there.
    pub(super) fn is_whole(&self, space: Space) -> bool {
        self.sealed_away.is_empty() && self.torn[space as usize] == 0
    }

    /// The boot without whose record a value does not open. A number that no boot ever had is
    /// damage of the value itself.
    pub(super) fn sealed_away(&self, source: &Reader, key: &Key) -> Option<u32> {
        let raw = source.raw(key).ok().flatten()?;
        let boot = sealed_boot(&raw)?;
        let is_lost = boot <= self.highest_boot && !self.nonces.contains_key(&boot);
        is_lost.then_some(boot)
    }

    fn note(&mut self, source: &Reader, key: Key, plain: Result<Vec<u8>, NotOpened>) {
        let boot = match &plain {
            Ok(_) => None,
            Err(NotOpened) => self.sealed_away(source, &key),
        };
        if let Some(boot) = boot {
            *self.sealed_away.entry(boot).or_default() += 1;
        }
        let is_read = plain.is_ok_and(|plain| self.take(source, &key, &plain).is_some());
        self.note_key(&key, is_read || boot.is_some());
        if !is_read && boot.is_none() {
            self.damaged_count += 1;
            if self.damaged.len() < NAMED_MAX {
                self.damaged.push(key);
            }
        }
    }

    /// What the key alone says, which counts whether the record opens or not.
    fn note_key(&mut self, key: &Key, is_kept: bool) {
        let line = (key.peer_number(), key.lane(), key.boot_number());
        let table = Table::of(key);
        match table {
            Some(Table::Outbox) if is_kept => {
                let rows = self.rows.entry(line).or_default();
                rows.waiting.insert(key.last_u64());
            }
            Some(Table::Outbox | Table::Dead) => {
                let rows = self.rows.entry(line).or_default();
                rows.letters.insert(key.last_u64());
            }
            Some(Table::Unsettled) => self.rows.entry(line).or_default().open += 1,
            Some(Table::Past) => drop(self.pasts.insert(line)),
            Some(Table::Boot) => self.highest_boot = self.highest_boot.max(key.last_u32()),
            Some(Table::InboxTopic) => {
                if let Some(hash) = key.as_bytes().get(1..).and_then(<[u8]>::first_chunk) {
                    self.index.insert((*hash, key.last_u64()));
                }
            }
            Some(Table::Refusal | Table::DeadIn) => {
                if let Some(at) = key.position() {
                    self.note_settled(line.0, line.1, at.epoch, at.sequence);
                }
            }
            Some(Table::Quarantine) => self.quarantined += 1,
            _ => {}
        }
        let names_a_peer = matches!(
            table,
            Some(
                Table::Peer
                    | Table::Line
                    | Table::Past
                    | Table::Mark
                    | Table::Refusal
                    | Table::Dead
                    | Table::Unsettled
                    | Table::DeadIn
                    | Table::Outcome
                    | Table::DoneRange
                    | Table::InboxShare
                    | Table::Outbox
            )
        );
        if names_a_peer {
            self.highest_peer = self.highest_peer.max(line.0.0);
        }
    }

    fn note_settled(&mut self, peer: PeerNumber, lane: Lane, epoch: Epoch, sequence: u64) {
        let settled = self.settled.entry((peer, lane, epoch)).or_default();
        *settled = sequence.max(*settled);
    }

    /// Takes what a record says. `None`: it does not decode.
    fn take(&mut self, source: &Reader, key: &Key, plain: &[u8]) -> Option<()> {
        let line = (key.peer_number(), key.lane(), key.boot_number());
        let hash = || key.as_bytes().get(1..)?.first_chunk::<16>().copied();
        // What another version wrote opens, and that is all that can be said of it.
        let Some(table) = Table::of(key) else {
            return Some(());
        };
        // Every table by name, so that a new one is not passed over unread.
        match table {
            Table::Head | Table::Quarantine | Table::InboxTopic => {}
            Table::Boot => {
                let record = source.vault().boot_record(key.last_u32(), plain).ok()?;
                self.nonces.insert(key.last_u32(), record.nonce);
            }
            Table::Meta => take_meta(key, plain)?,
            Table::Peer => {
                let peer = PeerRecord::decode(key.peer_number(), plain).ok()?;
                self.peers.push(peer);
            }
            Table::PeerIndex => {
                let number = decode_u32(plain).ok()?;
                self.highest_peer = self.highest_peer.max(number);
                self.peer_index.insert(*key, number);
            }
            Table::Invite => drop(InviteRecord::decode(hash()?, plain).ok()?),
            Table::Line => drop(self.lines.insert(line, Line::decode(plain).ok()?)),
            Table::Past => drop(Past::decode(plain).ok()?),
            Table::Idempotency => {
                let used = idempotency::Use::decode(plain).ok()?;
                self.keys.insert(hash()?, used.at_ms);
            }
            Table::IdempotencyOrder => {
                let (hash, at_ms) = idempotency::decode_entry(plain).ok()?;
                self.ordered.insert(hash, at_ms);
                widen(&mut self.order, key.last_u64());
            }
            Table::Mark | Table::DoneRange => drop(decode_u64(plain).ok()?),
            Table::Refusal => drop(super::marks::decode_code(plain).ok()?),
            Table::Dead => drop(Dead::decode(plain).ok()?),
            Table::Topic => {
                let topic = inbox::decode_topic(plain).ok()?;
                self.topic_records.insert(hash()?, topic);
            }
            Table::Event => drop(events::decode(key.last_u64(), plain).ok()?),
            Table::Unsettled => drop(Doubt::decode(plain).ok()?),
            Table::DeadIn => drop(DeadInLetter::decode(key, plain).ok()?),
            Table::Outcome => drop(Kept::decode(plain).ok()?),
            Table::OutcomeOrder => {
                Entry::decode(plain).ok()?;
                widen(&mut self.outcome_order, key.last_u64());
            }
            Table::Try => drop(Tries::decode(plain).ok()?),
            Table::Deny => drop(Denied::decode(plain).ok()?),
            Table::Request => drop(RequestRecord::decode(plain).ok()?),
            Table::Asking => drop(AskingRecord::decode(plain).ok()?),
            Table::InboxShare => drop(held::decode_share(plain).ok()?),
            Table::Outbox => {
                let row = outbox::decode_row(plain).ok()?;
                let rows = self.rows.entry(line).or_default();
                rows.bytes = row.bytes_before + held::weight(&row.message);
            }
            Table::Inbox => {
                let row = inbox::decode_row(key.last_u64(), plain).ok()?;
                let hash = inbox::topic_hash(source, row.lane, &row.message.topic);
                self.arrivals.insert(row.arrival);
                self.topics.insert((hash, row.arrival));
                self.highest_peer = self.highest_peer.max(row.peer.0);
                let at = row.position;
                self.note_settled(row.peer, row.lane, at.epoch, at.sequence);
            }
        }
        Some(())
    }
}

/// The others are read where they are compared with what they count.
fn take_meta(key: &Key, plain: &[u8]) -> Option<()> {
    if *key == Key::meta(Meta::Forgetting) {
        drop(forgetting::decode(plain).ok()?);
    } else if *key == Key::meta(Meta::Held) {
        held::Held::decode(plain).ok()?;
    } else if *key == Key::meta(Meta::Events) {
        events::Ring::decode(plain).ok()?;
    } else if *key == Key::meta(Meta::Commit) {
        decode_u64(plain).ok()?;
    } else if [Meta::BootFloor, Meta::PeerNext]
        .map(Key::meta)
        .contains(key)
    {
        decode_u32(plain).ok()?;
    }
    Some(())
}

fn widen(range: &mut Option<(u64, u64)>, number: u64) {
    let (first, last) = range.unwrap_or((number, number));
    *range = Some((first.min(number), last.max(number)));
}
