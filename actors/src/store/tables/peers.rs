//! The nodes that this node has paired with.
//!
//! A peer has a number here that is never reused: keys of other tables carry it instead of the id,
//! and marks outlive the pairing under it. Names and ids are looked up by a keyed hash.
//!
//! ```text
//! Peer       key  4 ‖ peer u32
//!            value layout u8 = 2 ‖ id 32 ‖ name ‖ addresses ‖ grants ‖ granted ‖ paired ms u64
//!                  ‖ last seen: 0 or 1 ‖ ms u64 ‖ highest epoch: 0 or 1 ‖ boot u32 ‖ nonce u64
//!                  ‖ failures u32 ‖ last error: 0 or 1 ‖ class u16 ‖ text ‖ at ms u64
//!                  ‖ ends of the grants: u32 × (0 or 1 ‖ ms u64) ‖ own addresses ‖ keep u8
//!                  ‖ tickets u32 × 16 ‖ seen from: 0 or 1 ‖ text ‖ at ms u64
//!                  ‖ trouble: 0 or 1 ‖ text ‖ at ms u64 ‖ forgotten ms: 0 or 1 ‖ u64
//!            layout 1 ends behind the last error
//! PeerIndex  key  5 ‖ hash of ("peer id", id) or ("peer name", name) 16       value layout u8 = 1 ‖ peer u32
//! text = length u32 ‖ bytes;  lists = count u32 ‖ texts;  grants are written as their text
//! ```

use std::fmt;
use std::ops::ControlFlow;

use packhorse_protocol::epoch::Epoch;
use packhorse_protocol::grant::{Grant, Grants};
use packhorse_protocol::node_id::NodeId;
use packhorse_protocol::text;

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::head::{decode_u32, encode_u32};
use super::read;

/// A peer's number in this store. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerNumber(pub u32);

impl fmt::Display for PeerNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why the last attempt to reach a peer failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerError {
    /// A number of the handshake's error classes.
    pub class: u16,
    /// What a person is told.
    pub text: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// When this node keeps a link to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Keep {
    /// Dialled once at start and when the network changes, and while something waits for it.
    #[default]
    Auto = 0,
    /// Dialled whenever there is no session.
    Always = 1,
    /// Never dialled; it may dial this node.
    Never = 2,
}

impl Keep {
    fn from_u8(value: u8) -> Result<Self, Malformed> {
        match value {
            0 => Ok(Self::Auto),
            1 => Ok(Self::Always),
            2 => Ok(Self::Never),
            _ => Err(Malformed),
        }
    }
}

/// The same trouble seen again is not written down within this time.
const TROUBLE_YOUNG_MS: u64 = 60 * 1_000;
/// A trouble of which no sign was seen for this long is over, once a session lives.
const TROUBLE_CALM_MS: u64 = 60 * 60 * 1_000;

/// Something about a peer, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What.
    pub text: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A node that this node has paired with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its number here.
    pub number: PeerNumber,
    /// Its identity.
    pub id: NodeId,
    /// Its name here.
    pub name: String,
    /// Where it may be dialled: what it announces, then what it announced before.
    pub addresses: Vec<String>,
    /// What it may do here.
    pub grants: Grants,
    /// What this node may do there.
    pub granted: Grants,
    /// When it was paired with first.
    pub paired_ms: u64,
    /// When a session with it was alive last.
    pub last_seen_ms: Option<u64>,
    /// The epoch with the highest boot number that it has shown.
    pub highest: Option<Epoch>,
    /// Failed attempts to reach it. Only rises.
    pub failures: u32,
    /// Why the last attempt failed.
    pub last_error: Option<PeerError>,
    /// Where it may be dialled because somebody here said so; tried before `addresses`, and
    /// untouched by what the peer announces.
    pub own_addresses: Vec<String>,
    /// When a link to it is kept.
    pub keep: Keep,
    /// The tickets it came by, the newest last.
    pub tickets: Vec<[u8; 16]>,
    /// The address from which it authenticated last as a dialler.
    pub seen_from: Option<Noted>,
    /// A copy or a store that was set back, as this node learnt it last.
    pub trouble: Option<Noted>,
    /// When it was forgotten; then it is no peer, and the record only keeps its number.
    pub forgotten_ms: Option<u64>,
}

impl PeerRecord {
    /// A peer about which nothing is known but who it is.
    #[must_use]
    pub fn new(number: PeerNumber, id: NodeId, name: impl Into<String>, paired_ms: u64) -> Self {
        Self {
            number,
            id,
            name: name.into(),
            addresses: Vec::new(),
            grants: Grants::none(),
            granted: Grants::none(),
            paired_ms,
            last_seen_ms: None,
            highest: None,
            failures: 0,
            last_error: None,
            own_addresses: Vec::new(),
            keep: Keep::Auto,
            tickets: Vec::new(),
            seen_from: None,
            trouble: None,
            forgotten_ms: None,
        }
    }

    /// Whether it is a peer, and not the record of a node that was forgotten.
    #[must_use]
    pub const fn is_peer(&self) -> bool {
        self.forgotten_ms.is_none()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut pen = Pen::new(2, 256);
        pen.raw(self.id.as_bytes())
            .text(&self.name)
            .texts(&self.addresses);
        put_grants(&mut pen, &self.grants);
        put_grants(&mut pen, &self.granted);
        pen.u64(self.paired_ms).maybe_u64(self.last_seen_ms);
        match self.highest {
            None => pen.u8(0),
            Some(epoch) => pen.u8(1).u32(epoch.boot).u64(epoch.nonce),
        };
        pen.u32(self.failures);
        match &self.last_error {
            None => pen.u8(0),
            Some(error) => pen
                .u8(1)
                .u16(error.class)
                .text(&error.text)
                .u64(error.at_ms),
        };
        put_ends(&mut pen, &self.grants);
        pen.texts(&self.own_addresses).u8(self.keep as u8);
        pen.u32(u32::try_from(self.tickets.len()).expect("few tickets lead to one peer"));
        for ticket in &self.tickets {
            pen.raw(ticket);
        }
        put_noted(&mut pen, self.seen_from.as_ref());
        put_noted(&mut pen, self.trouble.as_ref());
        pen.maybe_u64(self.forgotten_ms);
        pen.done()
    }

    pub(super) fn decode(number: PeerNumber, bytes: &[u8]) -> Result<Self, Malformed> {
        let (layout, mut cursor) = Cursor::of_layouts(1..=2, bytes)?;
        let (id, name) = (node_id(&mut cursor)?, cursor.text()?);
        let mut record = Self {
            addresses: cursor.texts()?,
            grants: take_grants(&mut cursor)?,
            granted: take_grants(&mut cursor)?,
            paired_ms: cursor.u64()?,
            last_seen_ms: cursor.maybe_u64()?,
            highest: match cursor.u8()? {
                0 => None,
                1 => Some(Epoch {
                    boot: cursor.u32()?,
                    nonce: cursor.u64()?,
                }),
                _ => return Err(Malformed),
            },
            failures: cursor.u32()?,
            last_error: match cursor.u8()? {
                0 => None,
                1 => Some(PeerError {
                    class: cursor.u16()?,
                    text: cursor.text()?,
                    at_ms: cursor.u64()?,
                }),
                _ => return Err(Malformed),
            },
            ..Self::new(number, id, name, 0)
        };
        if layout == 2 {
            take_ends(&mut cursor, &mut record.grants)?;
            record.own_addresses = cursor.texts()?;
            record.keep = Keep::from_u8(cursor.u8()?)?;
            record.tickets = (0..cursor.u32()?)
                .map(|_| cursor.array())
                .collect::<Result<_, _>>()?;
            record.seen_from = take_noted(&mut cursor)?;
            record.trouble = take_noted(&mut cursor)?;
            record.forgotten_ms = cursor.maybe_u64()?;
        }
        cursor.end()?;
        Ok(record)
    }
}

pub(crate) fn node_id(cursor: &mut Cursor<'_>) -> Result<NodeId, Malformed> {
    NodeId::from_bytes(cursor.array()?).map_err(|_| Malformed)
}

pub(crate) fn put_grants(pen: &mut Pen, grants: &Grants) {
    let texts: Vec<String> = grants.iter().map(Grant::to_string).collect();
    pen.texts(&texts);
}

pub(crate) fn take_grants(cursor: &mut Cursor<'_>) -> Result<Grants, Malformed> {
    let mut grants = Grants::none();
    for text in cursor.texts()? {
        let grant = text.parse().map_err(|_| Malformed)?;
        grants.insert(grant).map_err(|_| Malformed)?;
    }
    Ok(grants)
}

/// When each of these grants ends, in their order.
pub(crate) fn put_ends(pen: &mut Pen, grants: &Grants) {
    pen.u32(u32::try_from(grants.len()).expect("grants are few by their limit"));
    for held in grants.held() {
        pen.maybe_u64(held.until_ms);
    }
}

pub(crate) fn take_ends(cursor: &mut Cursor<'_>, grants: &mut Grants) -> Result<(), Malformed> {
    let given: Vec<Grant> = grants.iter().cloned().collect();
    if usize::try_from(cursor.u32()?) != Ok(given.len()) {
        return Err(Malformed);
    }
    for grant in given {
        let until_ms = cursor.maybe_u64()?;
        grants
            .insert_until(grant, until_ms)
            .map_err(|_| Malformed)?;
    }
    Ok(())
}

fn put_noted(pen: &mut Pen, noted: Option<&Noted>) {
    match noted {
        None => pen.u8(0),
        Some(noted) => pen.u8(1).text(&noted.text).u64(noted.at_ms),
    };
}

fn take_noted(cursor: &mut Cursor<'_>) -> Result<Option<Noted>, Malformed> {
    match cursor.u8()? {
        0 => Ok(None),
        1 => Ok(Some(Noted {
            text: cursor.text()?,
            at_ms: cursor.u64()?,
        })),
        _ => Err(Malformed),
    }
}

/// What an epoch that a peer shows says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochVerdict {
    /// The first one seen, or one with a higher boot number than any before.
    Newer,
    /// The one seen last.
    Same,
    /// A boot number at or below the highest seen, with another nonce: the peer runs on a copy of
    /// a store that has been used elsewhere or later.
    Copy {
        /// The highest that was seen.
        highest: Epoch,
    },
}

/// A record by its number, also that of a node that was forgotten.
pub(crate) fn peer(
    source: &impl Source,
    number: PeerNumber,
) -> Result<Option<PeerRecord>, ReadFault> {
    read(source, &Key::peer(number), |bytes| {
        PeerRecord::decode(number, bytes)
    })
}

/// A peer by its number: no node that was forgotten.
pub(crate) fn live(
    source: &impl Source,
    number: PeerNumber,
) -> Result<Option<PeerRecord>, ReadFault> {
    Ok(peer(source, number)?.filter(PeerRecord::is_peer))
}

/// How often reaching a peer has failed; `None` when there is no such peer, or none any more.
/// Passes over the rest of the record, because every accepted message asks.
pub(crate) fn failures(source: &impl Source, number: PeerNumber) -> Result<Option<u32>, ReadFault> {
    let read = read(source, &Key::peer(number), |bytes| {
        let (layout, mut cursor) = Cursor::of_layouts(1..=2, bytes)?;
        cursor.take(32)?;
        cursor.blob()?;
        for _ in 0..3 {
            pass_texts(&mut cursor)?;
        }
        cursor.u64()?;
        cursor.maybe_u64()?;
        if cursor.u8()? == 1 {
            cursor.take(12)?;
        }
        let failures = cursor.u32()?;
        if layout == 1 {
            return Ok(Some(failures));
        }
        if cursor.u8()? == 1 {
            cursor.take(2)?;
            cursor.blob()?;
            cursor.u64()?;
        }
        for _ in 0..cursor.u32()? {
            cursor.maybe_u64()?;
        }
        pass_texts(&mut cursor)?;
        cursor.u8()?;
        let tickets = cursor.u32()? as usize;
        cursor.take(tickets.checked_mul(16).ok_or(Malformed)?)?;
        for _ in 0..2 {
            if cursor.u8()? == 1 {
                cursor.blob()?;
                cursor.u64()?;
            }
        }
        let forgotten_ms = cursor.maybe_u64()?;
        Ok(forgotten_ms.is_none().then_some(failures))
    })?;
    Ok(read.flatten())
}

fn pass_texts(cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    for _ in 0..cursor.u32()? {
        cursor.blob()?;
    }
    Ok(())
}

/// All peers by number. One that does not open is passed over.
pub(crate) fn all(source: &impl Source) -> Result<Vec<PeerRecord>, ReadFault> {
    let mut peers = every(source)?;
    peers.retain(PeerRecord::is_peer);
    Ok(peers)
}

/// The same with those that were forgotten: for who shows what is left of them.
pub(crate) fn every(source: &impl Source) -> Result<Vec<PeerRecord>, ReadFault> {
    let mut peers = Vec::new();
    source.scan_prefix(&Key::table(Table::Peer), &mut |key, plain| {
        if let Ok(Ok(peer)) = plain.map(|plain| PeerRecord::decode(key.peer_number(), &plain)) {
            peers.push(peer);
        }
        ControlFlow::Continue(())
    })?;
    Ok(peers)
}

pub(super) fn id_key(source: &impl Source, id: &NodeId) -> Key {
    Key::peer_index(source.vault().index_hash(b"peer id", &[id.as_bytes()]))
}

pub(super) fn name_key(source: &impl Source, name: &str) -> Key {
    Key::peer_index(source.vault().index_hash(b"peer name", &[name.as_bytes()]))
}

pub(crate) fn by_id(source: &impl Source, id: &NodeId) -> Result<Option<PeerRecord>, ReadFault> {
    Ok(record_of(source, id)?.filter(PeerRecord::is_peer))
}

/// The record of an identity, also of one that was forgotten: pairing again takes its number.
pub(crate) fn record_of(
    source: &impl Source,
    id: &NodeId,
) -> Result<Option<PeerRecord>, ReadFault> {
    by_key(source, &id_key(source, id))
}

pub(crate) fn by_name(source: &impl Source, name: &str) -> Result<Option<PeerRecord>, ReadFault> {
    Ok(by_key(source, &name_key(source, name))?.filter(PeerRecord::is_peer))
}

fn by_key(source: &impl Source, key: &Key) -> Result<Option<PeerRecord>, ReadFault> {
    match read(source, key, decode_u32)? {
        Some(number) => peer(source, PeerNumber(number)),
        None => Ok(None),
    }
}

/// A peer by what a person calls it: its name, its whole id, or the short form of its id.
pub(crate) fn by_name_or_id(
    source: &impl Source,
    text: &str,
) -> Result<Option<PeerRecord>, ReadFault> {
    if let Some(peer) = by_name(source, text)? {
        return Ok(Some(peer));
    }
    if let Ok(id) = text.parse::<NodeId>() {
        return by_id(source, &id);
    }
    let mut short = all(source)?
        .into_iter()
        .filter(|peer| peer.id.short() == text);
    // Two ids with one short form: neither is meant.
    Ok(short.next().filter(|_| short.next().is_none()))
}

/// Writes a new peer, or one that was forgotten and is paired again, and its index.
pub(crate) fn add(view: &mut View, peer: &PeerRecord) {
    view.put(id_key(view, &peer.id), encode_u32(peer.number.0));
    view.put(name_key(view, &peer.name), encode_u32(peer.number.0));
    view.put(Key::peer(peer.number), peer.encode());
}

/// Makes a peer none any more: its name is free, and its number and its identity stay together.
/// What it was allowed and where it was dialled go.
pub(crate) fn retire(view: &mut View, before: &PeerRecord) {
    let after = PeerRecord {
        last_seen_ms: before.last_seen_ms,
        highest: before.highest,
        failures: before.failures,
        forgotten_ms: Some(view.now_ms()),
        ..PeerRecord::new(before.number, before.id, &*before.name, before.paired_ms)
    };
    view.delete(name_key(view, &before.name));
    view.put(Key::peer(after.number), after.encode());
}

/// Writes a peer back; a new name must be free.
pub(crate) fn put(view: &mut View, before: &PeerRecord, after: &PeerRecord) -> Result<(), Refused> {
    if before.name != after.name {
        text::check_name(&after.name).map_err(Refused::Text)?;
        if by_name(view, &after.name)?.is_some() {
            return Err(Refused::NameTaken(after.name.clone()));
        }
        view.delete(name_key(view, &before.name));
        view.put(name_key(view, &after.name), encode_u32(after.number.0));
    }
    if before != after {
        view.put(Key::peer(after.number), after.encode());
    }
    Ok(())
}

/// Changes what a closure changes; number and id stay what they are.
pub(crate) fn update(
    view: &mut View,
    number: PeerNumber,
    change: impl FnOnce(&mut PeerRecord),
) -> Result<PeerRecord, Refused> {
    let before = live(view, number)?.ok_or(Refused::NoSuchPeer(number))?;
    let mut after = before.clone();
    change(&mut after);
    after.number = before.number;
    after.id = before.id;
    after.forgotten_ms = None;
    put(view, &before, &after)?;
    Ok(after)
}

/// Writes down that a peer or this store runs on a copy, or was set back. Trouble that was seen
/// before with the same words only becomes younger, at most once a minute.
pub(crate) fn note_trouble(view: &mut View, number: PeerNumber, text: &str) -> Result<(), Refused> {
    let Some(before) = live(view, number)? else {
        return Ok(());
    };
    let at_ms = view.now_ms();
    let is_known = before.trouble.as_ref().is_some_and(|known| {
        known.text == text && at_ms.saturating_sub(known.at_ms) < TROUBLE_YOUNG_MS
    });
    if !is_known {
        let text = text.to_owned();
        let after = PeerRecord {
            trouble: Some(Noted { text, at_ms }),
            ..before.clone()
        };
        put(view, &before, &after)?;
    }
    Ok(())
}

/// Forgets a trouble of which nothing was seen for an hour.
pub(crate) fn calm(view: &mut View, number: PeerNumber) -> Result<(), Refused> {
    let Some(before) = live(view, number)? else {
        return Ok(());
    };
    let now_ms = view.now_ms();
    let is_now = before.trouble.as_ref().is_some_and(|trouble| {
        // One that seems to come from the future was noted by a clock that went back.
        (trouble.at_ms..trouble.at_ms.saturating_add(TROUBLE_CALM_MS)).contains(&now_ms)
    });
    if !is_now {
        let after = PeerRecord {
            trouble: None,
            ..before.clone()
        };
        put(view, &before, &after)?;
    }
    Ok(())
}

/// Judges the epoch that a peer showed in an authenticated handshake, and remembers it when its
/// boot number is the highest so far.
pub(crate) fn judge_epoch(
    view: &mut View,
    number: PeerNumber,
    shown: Epoch,
) -> Result<EpochVerdict, Refused> {
    let before = live(view, number)?.ok_or(Refused::NoSuchPeer(number))?;
    match before.highest {
        Some(highest) if highest == shown => Ok(EpochVerdict::Same),
        Some(highest) if shown.boot <= highest.boot => {
            let text = format!(
                "it shows boot {} after boot {}: a copied disk, or a store that was set back",
                shown.boot, highest.boot
            );
            note_trouble(view, number, &text)?;
            Ok(EpochVerdict::Copy { highest })
        }
        _ => {
            let after = PeerRecord {
                highest: Some(shown),
                ..before.clone()
            };
            put(view, &before, &after)?;
            Ok(EpochVerdict::Newer)
        }
    }
}
