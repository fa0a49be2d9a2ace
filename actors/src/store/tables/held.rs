//! How many bytes of messages the boxes hold, for their quotas.
//!
//! One small record for the whole store and one per sender, changed in the batch that changes the
//! boxes. A message counts by its weight: topic, headers and payload.
//! What a record that does not open had weighed is estimated; so these numbers may drift where
//! records were damaged, and are made anew when a box is empty at an open, when one of these records
//! is damaged or missing at an open, and by `doctor --repair`.
//! A counter that does not open counts nothing until then: no message is held up by one.
//! Nothing is decided here: who asks compares with a quota.
//!
//! ```text
//! Meta 9  key  3 ‖ 9               value layout u8 = 1 ‖ outbox u64 ‖ inbox u64 ‖ dead u64
//! Share   key  27 ‖ peer u32       value layout u8 = 1 ‖ inbox u64
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use packhorse_protocol::message::Message;

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Meta, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::seal::SEAL_BYTES;
use crate::store::space::Shortage;
use crate::store::view::{Source, View, Visit};

use super::checkup::{self, Fix};
use super::dead::Dead;
use super::dead_in::DeadInLetter;
use super::peers::PeerNumber;
use super::{inbox, outbox, read};

/// The fixed fields of an inbox row and of a message without headers: 26 and 21 bytes, about as many
/// as an outbox row has beside its message.
const FIELDS_BYTES: usize = 47;

/// What the boxes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Messages that wait for their recipients.
    pub(crate) outbox: u64,
    /// Messages that wait to be handled.
    pub(crate) inbox: u64,
    /// Messages that were given up, here or on their way.
    pub(crate) dead: u64,
}

impl Held {
    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 24)
            .u64(self.outbox)
            .u64(self.inbox)
            .u64(self.dead)
            .done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let held = Self {
            outbox: cursor.u64()?,
            inbox: cursor.u64()?,
            dead: cursor.u64()?,
        };
        cursor.end()?;
        Ok(held)
    }
}

pub(super) fn encode_share(bytes: u64) -> Vec<u8> {
    Pen::new(1, 8).u64(bytes).done()
}

pub(super) fn decode_share(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    let share = cursor.u64()?;
    cursor.end()?;
    Ok(share)
}

pub(crate) fn held(source: &impl Source) -> Result<Held, ReadFault> {
    or_nothing(read(source, &Key::meta(Meta::Held), Held::decode))
}

/// What a counter says; nothing where it is missing or does not open.
fn or_nothing<T: Default>(counter: Result<Option<T>, ReadFault>) -> Result<T, ReadFault> {
    match counter {
        Ok(counter) => Ok(counter.unwrap_or_default()),
        Err(fault) if fault.is_damage() => Ok(T::default()),
        Err(fault) => Err(fault),
    }
}

/// What the messages of one sender take of the inbox.
pub(crate) fn share(source: &impl Source, peer: PeerNumber) -> Result<u64, ReadFault> {
    or_nothing(read(source, &Key::inbox_share(peer), decode_share))
}

/// What a message counts.
pub(super) fn weight(message: &Message) -> u64 {
    message.weight() as u64
}

/// What a message had counted of which only the sealed record is left.
pub(super) fn weight_of_damaged(view: &View, key: &Key) -> u64 {
    let raw = view.raw(key).ok().flatten();
    raw.map_or(0, |raw| {
        raw.len().saturating_sub(SEAL_BYTES + FIELDS_BYTES) as u64
    })
}

/// How one job changes what the boxes hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    outbox: i64,
    inbox: i64,
    dead: i64,
}

impl Change {
    pub(super) fn outbox(mut self, more: u64, less: u64) -> Self {
        self.outbox += signed(more) - signed(less);
        self
    }

    pub(super) fn inbox(mut self, more: u64, less: u64) -> Self {
        self.inbox += signed(more) - signed(less);
        self
    }

    pub(super) fn dead(mut self, more: u64, less: u64) -> Self {
        self.dead += signed(more) - signed(less);
        self
    }

    /// Writes it down. A counter never falls below nothing: what it had missed is not there.
    pub(super) fn write(self, view: &mut View) -> Result<(), Refused> {
        if (self.outbox, self.inbox, self.dead) == (0, 0, 0) {
            return Ok(());
        }
        let before = held(view)?;
        let after = Held {
            outbox: before.outbox.saturating_add_signed(self.outbox),
            inbox: before.inbox.saturating_add_signed(self.inbox),
            dead: before.dead.saturating_add_signed(self.dead),
        };
        view.put(Key::meta(Meta::Held), after.encode());
        Ok(())
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Changes what one sender takes of the inbox.
pub(super) fn change_share(
    view: &mut View,
    peer: PeerNumber,
    more: u64,
    less: u64,
) -> Result<(), Refused> {
    let before = share(view, peer)?;
    let after = before.saturating_add(more).saturating_sub(less);
    if (more, less) == (0, 0) {
        return Ok(());
    }
    let key = Key::inbox_share(peer);
    match after {
        0 => view.delete(key),
        after => view.put(key, encode_share(after)),
    }
    Ok(())
}

/// Whether so many bytes of new messages may be accepted for others. `is_retry`: they come out of
/// the dead letters, which are no reason to keep them there.
pub(super) fn check_sending(view: &View, bytes: u64, is_retry: bool) -> Result<(), Refused> {
    let room = view.room();
    if let Some(shortage) = room.disk {
        return Err(view.refuse(shortage));
    }
    let held = held(view)?;
    let (used, limit) = (held.outbox, room.quotas.outbox);
    if used.saturating_add(bytes) > limit {
        return Err(view.refuse(Shortage::Outbox { used, limit }));
    }
    check_dead(view, held, is_retry)
}

/// Whether more may be taken in. A box that is not full yet takes a whole batch, so that one which is
/// smaller than a batch does not stand still for ever.
pub(super) fn check_intake(view: &View, from: Option<PeerNumber>) -> Result<(), Refused> {
    let room = view.room();
    if let Some(shortage) = room.disk {
        return Err(view.refuse(shortage));
    }
    let held = held(view)?;
    let (used, limit) = (held.inbox, room.quotas.inbox);
    if used >= limit {
        return Err(view.refuse(Shortage::Inbox { used, limit }));
    }
    if let Some(peer) = from {
        let (used, limit) = (share(view, peer)?, room.quotas.inbox_share);
        if used >= limit {
            return Err(view.refuse(Shortage::Share { peer, used, limit }));
        }
    }
    check_dead(view, held, from.is_none())
}

/// Every message that is taken may end among the dead letters.
fn check_dead(view: &View, held: Held, is_retry: bool) -> Result<(), Refused> {
    let (used, limit) = (held.dead, view.room().quotas.dead);
    if used >= limit && !is_retry {
        return Err(view.refuse(Shortage::Dead { used, limit }));
    }
    Ok(())
}

/// How much a shortage's box holds now; `None` when it is none of the boxes.
pub(crate) fn used_now(
    source: &impl Source,
    shortage: &Shortage,
) -> Result<Option<(u64, u64)>, ReadFault> {
    Ok(match *shortage {
        Shortage::Disk { .. } => None,
        Shortage::Outbox { limit, .. } => Some((held(source)?.outbox, limit)),
        Shortage::Inbox { limit, .. } => Some((held(source)?.inbox, limit)),
        Shortage::Share { peer, limit, .. } => Some((share(source, peer)?, limit)),
        Shortage::Dead { limit, .. } => Some((held(source)?.dead, limit)),
    })
}

/// What is really there, by reading all of it: for records that are missing or damaged. What cannot
/// be read is not counted.
pub(crate) fn count(source: &impl Source) -> Result<(Held, BTreeMap<PeerNumber, u64>), ReadFault> {
    let mut held = Held::default();
    let mut shares: BTreeMap<PeerNumber, u64> = BTreeMap::new();
    scan_what_opens(source, &Key::table(Table::Outbox), &mut |_, plain| {
        if let Ok(Ok(row)) = plain.map(|plain| outbox::decode_row(&plain)) {
            held.outbox += weight(&row.message);
        }
        ControlFlow::Continue(())
    })?;
    scan_what_opens(source, &Key::table(Table::Inbox), &mut |key, plain| {
        let row = plain.map(|plain| inbox::decode_row(key.last_u64(), &plain));
        if let Ok(Ok(row)) = row {
            held.inbox += weight(&row.message);
            *shares.entry(row.peer).or_default() += weight(&row.message);
        }
        ControlFlow::Continue(())
    })?;
    scan_what_opens(source, &Key::table(Table::Dead), &mut |_, plain| {
        if let Ok(Ok(dead)) = plain.map(|plain| Dead::decode(&plain)) {
            held.dead += dead.message.as_ref().map_or(0, weight);
        }
        ControlFlow::Continue(())
    })?;
    scan_what_opens(source, &Key::table(Table::DeadIn), &mut |key, plain| {
        if let Ok(Ok(letter)) = plain.map(|plain| DeadInLetter::decode(&key, &plain)) {
            held.dead += weight(&letter.message);
        }
        ControlFlow::Continue(())
    })?;
    Ok((held, shares))
}

/// A block that cannot be read ends a scan, and hides what lies behind it.
fn scan_what_opens(
    source: &impl Source,
    prefix: &Key,
    visit: &mut Visit<'_>,
) -> Result<(), ReadFault> {
    match source.scan_prefix(prefix, visit) {
        Err(fault) if fault.is_damage() => Ok(()),
        scanned => scanned,
    }
}

/// What makes the counters say what was counted.
pub(super) fn fixes(
    source: &impl Source,
    right: Held,
    shares: &BTreeMap<PeerNumber, u64>,
) -> Result<Vec<Fix>, ReadFault> {
    let mut fixes = Vec::new();
    let said = read(source, &Key::meta(Meta::Held), Held::decode);
    if said.ok().flatten() != Some(right) {
        fixes.push(Fix::Put(Key::meta(Meta::Held), right.encode()));
    }
    let mut known = BTreeMap::new();
    scan_what_opens(source, &Key::table(Table::InboxShare), &mut |key, plain| {
        let said = plain.ok().and_then(|plain| decode_share(&plain).ok());
        known.insert(key.peer_number(), said);
        ControlFlow::Continue(())
    })?;
    for peer in known.keys().filter(|peer| !shares.contains_key(peer)) {
        fixes.push(Fix::Delete(Key::inbox_share(*peer)));
    }
    for (peer, bytes) in shares {
        if known.get(peer) != Some(&Some(*bytes)) {
            fixes.push(Fix::Put(Key::inbox_share(*peer), encode_share(*bytes)));
        }
    }
    Ok(fixes)
}

/// Writes what was counted, and nothing where it says so already.
fn set(view: &mut View, held_now: Held, shares: &BTreeMap<PeerNumber, u64>) -> Result<(), Refused> {
    fixes(view, held_now, shares)?
        .into_iter()
        .try_for_each(|fix| checkup::apply(view, fix))
}

/// At open: makes the counters anew where they are missing or damaged, and sets those of empty boxes
/// right without reading a row.
pub(crate) fn mend(view: &mut View, waiting: u64, arrived: u64) -> Result<(), Refused> {
    let known = match read(view, &Key::meta(Meta::Held), Held::decode) {
        Ok(Some(known)) => known,
        Ok(None) => return recount(view),
        Err(fault) if fault.is_damage() => {
            tracing::warn!("the counters of the boxes do not open and are made anew");
            return recount(view);
        }
        Err(fault) => return Err(fault.into()),
    };
    if arrived > 0 && !do_shares_open(view)? {
        tracing::warn!("what a sender takes of the inbox does not open and is counted anew");
        return recount(view);
    }
    let mut right = known;
    if waiting == 0 {
        right.outbox = 0;
    }
    if arrived == 0 {
        right.inbox = 0;
        set(view, right, &BTreeMap::new())?;
    } else if right != known {
        view.put(Key::meta(Meta::Held), right.encode());
    }
    Ok(())
}

fn do_shares_open(view: &View) -> Result<bool, ReadFault> {
    let mut do_open = true;
    scan_what_opens(view, &Key::table(Table::InboxShare), &mut |_, plain| {
        do_open &= plain.is_ok_and(|plain| decode_share(&plain).is_ok());
        ControlFlow::Continue(())
    })?;
    Ok(do_open)
}

fn recount(view: &mut View) -> Result<(), Refused> {
    let (held, shares) = count(view)?;
    set(view, held, &shares)
}
