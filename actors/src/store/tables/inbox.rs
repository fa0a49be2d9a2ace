//! Messages that arrived, in the order in which they did.
//!
//! A message enters in one step with the mark that says so, once; whether its sender may send to
//! its topic is decided here, inside the write, on the stored peer. An index by topic and a small
//! record per topic make sure that nothing is ever scanned over what was handled before.
//! The system lane ends here too, in `receipts.rs`: it never reaches the inbox and needs no grant.
//! Leases are no business of this table; what is handed out is looked for in `inbox_search.rs`,
//! and how a message leaves stands in `inbox_settle.rs`.
//!
//! ```text
//! Inbox       key  48 ‖ arrival u64
//!             value layout u8 = 1 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ nonce u64 ‖ sequence u64 ‖ message
//! InboxTopic  key  49 ‖ hash of (lane, topic) 16 ‖ arrival u64          value empty, in clear
//! Topic       key  14 ‖ hash of (lane, topic) 16                        value layout u8 = 1 ‖ first u64 ‖ waiting u64
//! Meta 5      key   3 ‖ 5                                               value layout u8 = 1 ‖ next u64 ‖ first u64 ‖ waiting u64
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Epoch, Lane, Mark, Position, Refusal, RefusalCode};
use packhorse_protocol::grant::{Capability, Grants};
use packhorse_protocol::limits::{REFUSALS_UNCONFIRMED_MAX, WINDOW_MESSAGES};
use packhorse_protocol::message::{Arrival, DeliveryClass, Message};
#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{self, Mutant};
use packhorse_protocol::outbox::Inbound;

use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Meta, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Note, Source, View};

use super::dead::set_aside;
use super::outbox::Listing;
use super::peers::{self, PeerNumber};
use super::{held, marks, read, receipts};

/// A receiver stops reading at the first of these; what was under way then may still come.
const REFUSALS_MAX: usize = REFUSALS_UNCONFIRMED_MAX + WINDOW_MESSAGES;

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRow {
    /// Its number here, rising in the order of arrival.
    pub arrival: u64,
    /// Who sent it.
    pub peer: PeerNumber,
    /// In which lane it came.
    pub lane: Lane,
    /// Its place in that lane, numbered by its sender.
    pub position: Position,
    /// The message.
    pub message: Message,
}

pub(super) fn encode_row(peer: PeerNumber, lane: Lane, at: Position, message: &Message) -> Vec<u8> {
    // 80: the fixed fields of the row and of the message, with a few headers' lengths.
    Pen::new(1, 80 + message.weight())
        .u32(peer.0)
        .u8(lane as u8)
        .u32(at.epoch.boot)
        .u64(at.epoch.nonce)
        .u64(at.sequence)
        .message(message)
        .done()
}

pub(super) fn decode_row(arrival: u64, bytes: &[u8]) -> Result<InboxRow, Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    let peer = PeerNumber(cursor.u32()?);
    let number = cursor.u8()?;
    let lane = Lane::ALL
        .into_iter()
        .find(|lane| *lane as u8 == number)
        .ok_or(Malformed)?;
    let epoch = Epoch {
        boot: cursor.u32()?,
        nonce: cursor.u64()?,
    };
    let position = Position {
        epoch,
        sequence: cursor.u64()?,
    };
    let message = cursor.message()?;
    cursor.end()?;
    Ok(InboxRow {
        arrival,
        peer,
        lane,
        position,
        message,
    })
}

/// The inbox as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) next: u64,
    pub(super) first: u64,
    pub(super) waiting: u64,
}

impl Totals {
    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 24)
            .u64(self.next)
            .u64(self.first)
            .u64(self.waiting)
            .done()
    }
}

pub(super) fn totals(source: &impl Source) -> Result<Totals, ReadFault> {
    let totals = read(source, &Key::meta(Meta::Inbox), |bytes| {
        let mut cursor = Cursor::new(1, bytes)?;
        let totals = Totals {
            next: cursor.u64()?,
            first: cursor.u64()?,
            waiting: cursor.u64()?,
        };
        cursor.end()?;
        Ok(totals)
    })?;
    Ok(totals.unwrap_or(Totals {
        next: 1,
        first: 1,
        waiting: 0,
    }))
}

/// How many messages wait.
pub(crate) fn waiting_count(source: &impl Source) -> Result<u64, ReadFault> {
    Ok(totals(source)?.waiting)
}

fn put_totals(view: &mut View, totals: Totals) {
    view.put(Key::meta(Meta::Inbox), totals.encode());
}

/// One topic of the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) first: u64,
    pub(super) waiting: u64,
}

impl Topic {
    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 16).u64(self.first).u64(self.waiting).done()
    }
}

pub(super) fn decode_topic(bytes: &[u8]) -> Result<Topic, Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    let topic = Topic {
        first: cursor.u64()?,
        waiting: cursor.u64()?,
    };
    cursor.end()?;
    Ok(topic)
}

pub(super) fn topic(source: &impl Source, hash: [u8; 16]) -> Result<Option<Topic>, ReadFault> {
    read(source, &Key::topic(hash), decode_topic)
}

fn put_topic(view: &mut View, hash: [u8; 16], topic: Topic) {
    if topic.waiting == 0 {
        // A topic of which nothing waits needs no record: they would grow with every name used.
        view.delete(Key::topic(hash));
    } else {
        view.put(Key::topic(hash), topic.encode());
    }
}

pub(super) fn topic_hash(source: &impl Source, lane: Lane, topic: &str) -> [u8; 16] {
    source
        .vault()
        .index_hash(b"topic", &[&[lane as u8], topic.as_bytes()])
}

/// Stores what a peer sent: messages, their marks, and refusals, in one step.
///
/// Returns the marks of the epochs that were touched and all unconfirmed refusals.
pub(crate) fn store(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    items: &[Inbound],
) -> Result<(Vec<Mark>, Vec<Refusal>), Refused> {
    let record = peers::live(view, peer)?.ok_or(Refused::NoSuchPeer(peer))?;
    let mut intake = Intake::new(view, peer, lane, record.grants)?;
    let mut touched: Vec<(Epoch, u64, bool)> = Vec::new();
    for item in items {
        let epoch = match item {
            Inbound::Base { epoch, .. } | Inbound::Messages { epoch, .. } => *epoch,
        };
        let at = match touched.iter().position(|(known, ..)| *known == epoch) {
            Some(at) => at,
            None => {
                let mark = marks::mark(view, peer, lane, epoch)?;
                #[cfg(feature = "sim")]
                let mark = marks::or_of_another(view, peer, lane, mark, item)?;
                touched.push((epoch, mark.unwrap_or(0), mark.is_none()));
                touched.len() - 1
            }
        };
        let Some((_, settled, _)) = touched.get_mut(at) else {
            continue;
        };
        match item {
            Inbound::Base { first, .. } => *settled = (*settled).max(first.saturating_sub(1)),
            Inbound::Messages {
                first, messages, ..
            } => {
                intake.take(view, epoch, settled, *first, messages)?;
            }
        }
    }
    for (epoch, settled, _) in &touched {
        #[cfg(feature = "sim")]
        if mutant::is(Mutant::BaseWithoutCommit) && items.iter().all(is_base) {
            marks::raise_unwritten(view, peer, lane, *epoch, *settled);
            continue;
        }
        marks::raise(view, peer, lane, *epoch, *settled);
    }
    if touched.iter().any(|(.., is_new)| *is_new) {
        marks::forget_oldest(view, peer, lane)?;
    }
    let refused = intake.refused;
    intake.finish(view)?;
    let refusals = marks::refusals(view, peer, lane)?;
    if refused > 0 && refusals.len() > REFUSALS_MAX {
        let waiting = refusals.len();
        return Err(Refused::RefusalsUnconfirmed {
            waiting,
            limit: REFUSALS_MAX,
        });
    }
    let marks = touched
        .into_iter()
        .map(|(epoch, settled, _)| Mark { epoch, settled })
        .collect();
    Ok((marks, refusals))
}

#[cfg(feature = "sim")]
fn is_base(item: &Inbound) -> bool {
    matches!(item, Inbound::Base { .. })
}

/// One job's worth of arriving messages.
struct Intake {
    peer: PeerNumber,
    lane: Lane,
    grants: Grants,
    now_ms: u64,
    before: Totals,
    totals: Totals,
    topics: BTreeMap<[u8; 16], Topic>,
    /// Batches are mostly of one topic: its hash is made once.
    last_topic: (String, [u8; 16]),
    refused: usize,
    /// Weight of what was kept.
    kept: u64,
}

impl Intake {
    fn new(view: &View, peer: PeerNumber, lane: Lane, grants: Grants) -> Result<Self, Refused> {
        let totals = totals(view)?;
        Ok(Self {
            peer,
            lane,
            grants,
            now_ms: view.now_ms(),
            before: totals,
            totals,
            topics: BTreeMap::new(),
            last_topic: (String::new(), [0; 16]),
            refused: 0,
            kept: 0,
        })
    }

    /// Writes the counters that were changed.
    fn finish(self, view: &mut View) -> Result<(), Refused> {
        held::change_share(view, self.peer, self.kept, 0)?;
        held::Change::default().inbox(self.kept, 0).write(view)?;
        for (hash, topic) in self.topics {
            put_topic(view, hash, topic);
        }
        if self.totals != self.before {
            put_totals(view, self.totals);
            view.note(Note::Arrived(self.totals.next - 1));
        }
        Ok(())
    }

    fn take(
        &mut self,
        view: &mut View,
        epoch: Epoch,
        settled: &mut u64,
        first: u64,
        messages: &[Arrival],
    ) -> Result<(), Refused> {
        if first > *settled + 1 {
            return Err(Refused::Gap {
                expected: *settled + 1,
                found: first,
            });
        }
        for (sequence, message) in (first..).zip(messages) {
            // Repeated after a lost acknowledgement: it is here already.
            if sequence <= *settled {
                continue;
            }
            let at = Position { epoch, sequence };
            let taken = match (message, self.lane) {
                (Err(code), _) => Err(*code),
                (Ok(message), Lane::System) => receipts::take(view, self.peer, message)?,
                (Ok(message), Lane::User) => match self.admit(message) {
                    Ok(message) => {
                        // Once for the batch: what is under way is taken whole.
                        if self.kept == 0 {
                            held::check_intake(view, Some(self.peer))?;
                        }
                        self.keep(view, at, message)?;
                        Ok(())
                    }
                    Err(code) => Err(code),
                },
            };
            if let Err(code) = taken {
                marks::refuse(view, self.peer, self.lane, at, code);
                self.refused += 1;
            }
            *settled = sequence;
        }
        Ok(())
    }

    /// What no grant allows is refused.
    fn admit<'a>(&self, message: &'a Message) -> Result<&'a Message, RefusalCode> {
        message.check().map_err(|fault| fault.code())?;
        if message.class == DeliveryClass::Ephemeral {
            return Err(RefusalCode::UNDECODABLE);
        }
        #[cfg(feature = "sim")]
        if mutant::is(Mutant::SkipGrantCheck) {
            return Ok(message);
        }
        if !self
            .grants
            .allows(Capability::MessageSend, &message.topic, self.now_ms)
        {
            return Err(RefusalCode::NO_GRANT);
        }
        Ok(message)
    }

    fn keep(&mut self, view: &mut View, at: Position, message: &Message) -> Result<(), Refused> {
        if self.last_topic.0 != message.topic || self.topics.is_empty() {
            let hash = topic_hash(view, self.lane, &message.topic);
            self.last_topic = (message.topic.clone(), hash);
            if let Entry::Vacant(place) = self.topics.entry(hash) {
                let known = topic(view, hash)?;
                place.insert(known.unwrap_or(Topic {
                    first: 0,
                    waiting: 0,
                }));
            }
        }
        let hash = self.last_topic.1;
        let arrival = self.totals.next;
        view.put(
            Key::inbox(arrival),
            encode_row(self.peer, self.lane, at, message),
        );
        view.put(Key::inbox_topic(hash, arrival), Vec::new());
        if let Some(topic) = self.topics.get_mut(&hash) {
            if topic.waiting == 0 {
                topic.first = arrival;
            }
            topic.waiting += 1;
        }
        if self.totals.waiting == 0 {
            self.totals.first = arrival;
        }
        self.totals.waiting += 1;
        self.totals.next += 1;
        self.kept += held::weight(message);
        Ok(())
    }
}

/// Puts a message back that had left the inbox, behind everything that waits.
pub(super) fn put_back(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    at: Position,
    message: &Message,
) -> Result<(), Refused> {
    let mut intake = Intake::new(view, peer, lane, Grants::none())?;
    intake.keep(view, at, message)?;
    intake.finish(view)
}

/// What a search for waiting messages found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) rows: Vec<InboxRow>,
    /// Arrivals whose rows do not open.
    pub(crate) damaged: Vec<u64>,
}

/// Messages of one topic behind `after_arrival`, oldest first.
pub(crate) fn waiting(
    source: &impl Source,
    lane: Lane,
    topic_name: &str,
    after_arrival: u64,
    count: usize,
    bytes_max: usize,
) -> Result<Waiting, ReadFault> {
    let hash = topic_hash(source, lane, topic_name);
    let mut found = Waiting::default();
    let Some(topic) = topic(source, hash)? else {
        return Ok(found);
    };
    let from = Key::inbox_topic(hash, topic.first.max(after_arrival.saturating_add(1)));
    let mut arrivals = Vec::new();
    source.scan(
        &from,
        &end_of(Key::inbox_topic(hash, u64::MAX).as_bytes()),
        &mut |key, _| {
            if arrivals.len() >= count {
                return ControlFlow::Break(());
            }
            arrivals.push(key.last_u64());
            ControlFlow::Continue(())
        },
    )?;
    // An index that shows nothing while its topic counts messages is damaged; to say that nothing
    // is there would hide them.
    let is_from_the_start = after_arrival == 0 && count > 0;
    if arrivals.is_empty() && is_from_the_start && topic.waiting > 0 {
        return Err(ReadFault::Damaged {
            key: Key::topic(hash).to_string(),
        });
    }
    let mut bytes = 0;
    for arrival in arrivals {
        // The first row always comes, whatever it weighs.
        if bytes >= bytes_max {
            break;
        }
        match read(source, &Key::inbox(arrival), |bytes| {
            decode_row(arrival, bytes)
        }) {
            Ok(Some(row)) => {
                bytes += row.message.weight();
                found.rows.push(row);
            }
            // Handled since the index was read; one snapshot shows both, so this is damage too.
            Ok(None) => found.damaged.push(arrival),
            Err(fault) if fault.is_damage() => found.damaged.push(arrival),
            Err(fault) => return Err(fault),
        }
    }
    Ok(found)
}

/// A message that does not open: its bytes go to the quarantine, its place is freed.
pub(crate) fn set_damaged_aside(
    view: &mut View,
    lane: Lane,
    topic_name: &str,
    arrival: u64,
) -> Result<(), Refused> {
    let key = Key::inbox(arrival);
    let hash = topic_hash(view, lane, topic_name);
    match read(view, &key, |bytes| decode_row(arrival, bytes)) {
        Ok(Some(_)) => return Ok(()),
        Ok(None) => {}
        Err(fault) if fault.is_damage() => {
            let gone = held::weight_of_damaged(view, &key);
            held::Change::default().inbox(0, gone).write(view)?;
            set_aside(view, &key)?;
            view.delete(key);
            take_from_totals(view, 1)?;
        }
        Err(fault) => return Err(fault.into()),
    }
    let index = Key::inbox_topic(hash, arrival);
    if view.get(&index)?.is_some() {
        view.delete(index);
        take_from_topic(view, hash, 1)?;
    }
    Ok(())
}

pub(super) fn take_from_topic(view: &mut View, hash: [u8; 16], count: u64) -> Result<(), Refused> {
    let Some(mut topic) = topic(view, hash)? else {
        return Ok(());
    };
    topic.waiting = topic.waiting.saturating_sub(count);
    if topic.waiting > 0 {
        let end = end_of(Key::inbox_topic(hash, u64::MAX).as_bytes());
        topic.first =
            first_live(view, &Key::inbox_topic(hash, topic.first), &end)?.unwrap_or(topic.first);
    }
    put_topic(view, hash, topic);
    Ok(())
}

pub(super) fn take_from_totals(view: &mut View, count: u64) -> Result<(), Refused> {
    if count == 0 {
        return Ok(());
    }
    let mut totals = totals(view)?;
    totals.waiting = totals.waiting.saturating_sub(count);
    totals.first = match totals.waiting {
        0 => totals.next,
        _ => first_live(
            view,
            &Key::inbox(totals.first),
            &end_of(&[Table::Inbox as u8]),
        )?
        .unwrap_or(totals.next),
    };
    put_totals(view, totals);
    Ok(())
}

/// The number at the end of the first key that exists from here on; where a block in front of it
/// cannot be read, it is not before `from`.
fn first_live(view: &View, from: &Key, end: &[u8]) -> Result<Option<u64>, ReadFault> {
    let mut found = None;
    let scanned = view.scan(from, end, &mut |key, _| {
        found = Some(key.last_u64());
        ControlFlow::Break(())
    });
    match scanned {
        Ok(()) => Ok(found),
        Err(fault) if fault.is_damage() => Ok(Some(from.last_u64())),
        Err(fault) => Err(fault),
    }
}

/// The oldest rows of the inbox.
pub(crate) fn list(source: &impl Source, limit: usize) -> Result<Listing<InboxRow>, ReadFault> {
    let totals = totals(source)?;
    let mut listing = Listing {
        total: totals.waiting,
        rows: Vec::new(),
    };
    let end = end_of(&[Table::Inbox as u8]);
    source.scan(&Key::inbox(totals.first), &end, &mut |key, plain| {
        if listing.rows.len() >= limit {
            return ControlFlow::Break(());
        }
        if let Ok(Ok(row)) = plain.map(|plain| decode_row(key.last_u64(), &plain)) {
            listing.rows.push(row);
        }
        ControlFlow::Continue(())
    })?;
    Ok(listing)
}
