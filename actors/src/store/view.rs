//! What jobs read and write: the committed rows, and over them what earlier jobs of the batch wrote.
//!
//! A job sees its own writes and those of the jobs before it in the batch, and nothing that is not
//! either committed or about to be committed with it. A job that refuses, or panics, leaves no
//! trace. Values are kept here in plain and are sealed once, when the batch is closed, however
//! often they were rewritten.
//! Only the writer thread touches a view.
//!
//! Read [`View`] and [`Source`], which readers share with it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use packhorse_protocol::epoch::{Epoch, Lane};

use super::engine::{Change, Snapshot, end_of};
use super::error::{EngineError, ReadFault, Refused};
use super::keys::{Key, Space, Table};
use super::quarantine::Quarantine;
use super::quota::{Quotas, Room};
use super::seal::{self, NotOpened, SEAL_BYTES, Vault};
use super::space::Shortage;
use super::tables::peers::PeerNumber;
use crate::events::Fact;

/// Records of the small keyspace that stay known in plain from one batch to the next.
const SMALL_KEPT_MAX: usize = 4_096;

/// Something that plain records can be read from.
pub(crate) trait Source {
    /// The plain record under a key.
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadFault>;

    /// Visits the plain records from `from` to `end`, in order, until told to stop. A record that
    /// does not open is visited as such.
    fn scan(&self, from: &Key, end: &[u8], visit: &mut Visit<'_>) -> Result<(), ReadFault>;

    /// The vault, for keyed hashes.
    fn vault(&self) -> &Vault;

    /// Visits all records whose keys begin with `prefix`.
    fn scan_prefix(&self, prefix: &Key, visit: &mut Visit<'_>) -> Result<(), ReadFault> {
        self.scan(prefix, &end_of(prefix.as_bytes()), visit)
    }
}

/// Called with each record of a scan.
pub(crate) type Visit<'a> = dyn FnMut(Key, Result<Vec<u8>, NotOpened>) -> ControlFlow<()> + 'a;

/// Whether values of this table lie on disk as they are.
pub(crate) fn is_clear(key: &Key) -> bool {
    const CLEAR: [u8; 4] = [
        Table::Head as u8,
        Table::Boot as u8,
        Table::Quarantine as u8,
        Table::InboxTopic as u8,
    ];
    CLEAR.contains(&key.as_bytes()[0])
}

/// Turns a value of the engine into a plain record.
pub(crate) fn open(
    vault: &Vault,
    snapshot: &dyn Snapshot,
    key: &Key,
    value: &[u8],
) -> Result<Result<Vec<u8>, NotOpened>, EngineError> {
    if is_clear(key) {
        return Ok(Ok(value.to_vec()));
    }
    seal::open_value(vault, key, value, |boot| {
        snapshot.get(Space::Small, Key::boot(boot).as_bytes())
    })
}

/// A record as the batch knows it.
#[derive(Clone, Debug)]
struct Slot {
    /// `None`: there is none, or it is deleted.
    plain: Option<Vec<u8>>,
    /// Differs from what is committed.
    dirty: bool,
}

/// What a committed batch means to those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// How a line stands after a job.
    Line {
        peer: PeerNumber,
        lane: Lane,
        boot: u32,
        waiting: u64,
        oldest_born_ms: Option<u64>,
        due_ms: Option<u64>,
        grown: u64,
        settled: u64,
    },
    /// Messages arrived, the last of them under this number.
    Arrived(u64),
    /// The newest event's number.
    Event(u64),
    /// So many times it became known what a peer did with messages of ours.
    Outcomes { peer: PeerNumber, count: u64 },
    /// A peer spoke of so many messages that it was never sent.
    UnknownReceipts { peer: PeerNumber, count: u64 },
}

/// The rows a job sees and changes.
pub(crate) struct View {
    vault: Arc<Vault>,
    quarantine: Arc<Quarantine>,
    epoch: Epoch,
    now_ms: u64,
    snapshot: Option<Box<dyn Snapshot>>,
    small: RefCell<BTreeMap<Key, Slot>>,
    rows: BTreeMap<Key, Slot>,
    undo: Vec<(Key, Option<Slot>)>,
    notes: Vec<Note>,
    /// Written when the batch is closed, so that no job is refused for their sake.
    facts: Vec<(u64, Fact)>,
    room: Room,
    /// Why jobs were refused for want of room. Not taken back with them.
    refused: RefCell<Vec<Shortage>>,
    changes: usize,
    changed_bytes: usize,
    /// Notes, changes, bytes and facts as the job found them.
    before: (usize, usize, usize, usize),
    /// For a mutant: reports that were put off, and whether they are being sent.
    #[cfg(feature = "sim")]
    pub(crate) late: Vec<super::tables::receipts::Report>,
    #[cfg(feature = "sim")]
    pub(crate) sends_late: bool,
}

impl View {
    pub(crate) fn new(vault: Arc<Vault>, quarantine: Arc<Quarantine>, epoch: Epoch) -> Self {
        Self {
            vault,
            quarantine,
            epoch,
            now_ms: 0,
            snapshot: None,
            small: RefCell::default(),
            rows: BTreeMap::new(),
            undo: Vec::new(),
            notes: Vec::new(),
            facts: Vec::new(),
            room: Room {
                disk: None,
                quotas: Quotas::default(),
            },
            refused: RefCell::default(),
            changes: 0,
            changed_bytes: 0,
            before: (0, 0, 0, 0),
            #[cfg(feature = "sim")]
            late: Vec::new(),
            #[cfg(feature = "sim")]
            sends_late: false,
        }
    }

    /// Begins a batch over what is committed now.
    pub(crate) fn begin_batch(&mut self, snapshot: Box<dyn Snapshot>) {
        self.snapshot = Some(snapshot);
        let small = self.small.get_mut();
        if small.len() > SMALL_KEPT_MAX {
            small.clear();
        }
    }

    /// Tells the jobs of a batch how much room there is.
    pub(crate) fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// How much room there is for new work.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// A job is refused for want of room, and that is told.
    pub(crate) fn refuse(&self, shortage: Shortage) -> Refused {
        self.refused.borrow_mut().push(shortage);
        Refused::Full(shortage)
    }

    /// Why jobs were refused for want of room since this was asked last.
    pub(crate) fn take_refused(&mut self) -> Vec<Shortage> {
        std::mem::take(self.refused.get_mut())
    }

    /// Begins a job: from here on everything can be taken back.
    pub(crate) fn begin_job(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.undo.clear();
        self.before = (
            self.notes.len(),
            self.changes,
            self.changed_bytes,
            self.facts.len(),
        );
    }

    /// Takes back everything since the job began.
    pub(crate) fn undo_job(&mut self) {
        for (key, slot) in self.undo.drain(..).rev() {
            let slots = slots(&mut self.rows, self.small.get_mut(), &key);
            match slot {
                Some(slot) => slots.insert(key, slot),
                None => slots.remove(&key),
            };
        }
        let (notes, changes, changed_bytes, facts) = self.before;
        self.notes.truncate(notes);
        self.facts.truncate(facts);
        self.changes = changes;
        self.changed_bytes = changed_bytes;
    }

    /// How many changes the batch has so far, counting each rewrite of one record.
    pub(crate) fn changes(&self) -> usize {
        self.changes
    }

    /// How many plain bytes the batch writes so far.
    pub(crate) fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Closes the batch: all changes, sealed, in the order of their keys.
    pub(crate) fn close_batch(&mut self) -> Vec<Change> {
        // Readers of the memory engine pay for a snapshot held across a commit.
        self.snapshot = None;
        let mut changes = Vec::with_capacity(self.rows.len() + 16);
        for (key, slot) in self
            .small
            .get_mut()
            .iter_mut()
            .filter(|(_, slot)| slot.dirty)
        {
            slot.dirty = false;
            let value = slot.plain.as_ref().map(|plain| {
                let mut value = Vec::with_capacity(plain.len() + SEAL_BYTES);
                put_value(&self.vault, key, plain, &mut value);
                Bytes::from(value)
            });
            let key = Bytes::copy_from_slice(key.as_bytes());
            changes.push(Change {
                space: Space::Small,
                key,
                value,
            });
        }
        for space in [Space::Outbox, Space::Inbox] {
            self.seal_rows(space, &mut changes);
        }
        // INVARIANT: between batches a view has no changes, or the next one would repeat them.
        self.rows.clear();
        self.changes = 0;
        self.changed_bytes = 0;
        changes
    }

    /// Rows of one keyspace share one allocation: they die together, when their write buffer does.
    /// Rows of different keyspaces do not, because one small record would keep them all.
    fn seal_rows(&self, space: Space, changes: &mut Vec<Change>) {
        let rows = || self.rows.iter().filter(|(key, _)| key.space() == space);
        let room = rows()
            .map(|(key, slot)| {
                key.as_bytes().len()
                    + slot
                        .plain
                        .as_ref()
                        .map_or(0, |plain| plain.len() + SEAL_BYTES)
            })
            .sum();
        let mut arena = Vec::with_capacity(room);
        let mut ends = Vec::new();
        for (key, slot) in rows() {
            arena.extend_from_slice(key.as_bytes());
            let key_end = arena.len();
            if let Some(plain) = &slot.plain {
                put_value(&self.vault, key, plain, &mut arena);
            }
            ends.push((key_end, arena.len(), slot.plain.is_some()));
        }
        let arena = Bytes::from(arena);
        let mut from = 0;
        for (key_end, value_end, lives) in ends {
            let value = lives.then(|| arena.slice(key_end..value_end));
            changes.push(Change {
                space,
                key: arena.slice(from..key_end),
                value,
            });
            from = value_end;
        }
    }

    /// What to publish, now that the batch is durable.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// The time at which the job runs.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The store's own epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Writes a record.
    pub(crate) fn put(&mut self, key: Key, plain: Vec<u8>) {
        self.changed_bytes += plain.len();
        self.change(key, Some(plain));
    }

    /// As [`Self::put`], but only in memory: whoever asks this view finds it, the disk never does.
    #[cfg(feature = "sim")]
    pub(crate) fn put_unwritten(&mut self, key: Key, plain: Vec<u8>) {
        let dirty = matches!(self.small.get_mut().get(&key), Some(slot) if slot.dirty);
        self.put(key, plain.clone());
        let slot = Slot {
            plain: Some(plain),
            dirty,
        };
        self.small.get_mut().insert(key, slot);
    }

    /// Deletes a record.
    pub(crate) fn delete(&mut self, key: Key) {
        self.change(key, None);
    }

    /// Tells watchers, once the batch is durable.
    pub(crate) fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Adds a fact to the event ring; it is committed with the batch, and taken back with the job.
    pub(crate) fn fact(&mut self, fact: Fact) {
        self.fact_at(self.now_ms, fact);
    }

    /// The same for a fact of an earlier moment.
    pub(crate) fn fact_at(&mut self, at_ms: u64, fact: Fact) {
        self.facts.push((at_ms, fact));
    }

    /// The batch's facts, once, when it is about to be closed.
    pub(crate) fn take_facts(&mut self) -> Vec<(u64, Fact)> {
        std::mem::take(&mut self.facts)
    }

    /// A record is taken out of the way because it does not open; it is counted once, and told.
    pub(crate) fn note_damaged(&self, key: &Key) {
        self.quarantine.note(key);
    }

    /// The value of a row as it lies on disk, for the quarantine.
    pub(crate) fn raw(&self, key: &Key) -> Result<Option<Bytes>, ReadFault> {
        Ok(self.snapshot()?.get(key.space(), key.as_bytes())?)
    }

    fn change(&mut self, key: Key, plain: Option<Vec<u8>>) {
        self.changes += 1;
        let slots = slots(&mut self.rows, self.small.get_mut(), &key);
        let before = slots.insert(key, Slot { plain, dirty: true });
        self.undo.push((key, before));
    }

    fn snapshot(&self) -> Result<&dyn Snapshot, EngineError> {
        self.snapshot.as_deref().ok_or(EngineError::Gone)
    }
}

/// What this batch wrote in a range of the small keyspace, copied in pages, so that a visitor may
/// read from the view meanwhile and one that stops at once has paid for little.
struct SmallOverlay<'a> {
    view: &'a View,
    /// Where the next page begins; `None` behind the last one.
    from: Option<Bound<Key>>,
    end: Bound<Key>,
    page: std::vec::IntoIter<(Key, Slot)>,
    page_max: usize,
}

impl<'a> SmallOverlay<'a> {
    fn new(view: &'a View, from: &Key, end: &[u8]) -> Self {
        let (from, end) = bounds(from, end);
        Self {
            view,
            from: Some(from),
            end,
            page: Vec::new().into_iter(),
            page_max: 4,
        }
    }
}

impl Iterator for SmallOverlay<'_> {
    type Item = (Key, Slot);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(next) = self.page.next() {
            return Some(next);
        }
        let small = self.view.small.borrow();
        let written = small
            .range((self.from.take()?, self.end))
            .filter(|(_, slot)| slot.dirty)
            .map(|(key, slot)| (*key, slot.clone()));
        let page: Vec<_> = written.take(self.page_max).collect();
        if page.len() == self.page_max {
            self.from = page.last().map(|(key, _)| Bound::Excluded(*key));
        }
        self.page_max *= 2;
        self.page = page.into_iter();
        self.page.next()
    }
}

fn slots<'a>(
    rows: &'a mut BTreeMap<Key, Slot>,
    small: &'a mut BTreeMap<Key, Slot>,
    key: &Key,
) -> &'a mut BTreeMap<Key, Slot> {
    if key.space() == Space::Small {
        small
    } else {
        rows
    }
}

/// The end is a key like any other, or beyond all of them.
fn bounds(from: &Key, end: &[u8]) -> (Bound<Key>, Bound<Key>) {
    let end = Key::from_bytes(end).map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(*from), end)
}

fn put_value(vault: &Vault, key: &Key, plain: &[u8], out: &mut Vec<u8>) {
    if is_clear(key) {
        out.extend_from_slice(plain);
    } else {
        vault.seal(key, plain, out);
    }
}

impl Source for View {
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, ReadFault> {
        let is_small = key.space() == Space::Small;
        if is_small {
            if let Some(slot) = self.small.borrow().get(key) {
                return Ok(slot.plain.clone());
            }
        } else if let Some(slot) = self.rows.get(key) {
            return Ok(slot.plain.clone());
        }
        let snapshot = self.snapshot()?;
        let plain = match snapshot.get(key.space(), key.as_bytes())? {
            None => None,
            Some(value) => match open(&self.vault, snapshot, key, &value)? {
                Ok(plain) => Some(plain),
                // Taking it for absent would decide the write on a falsehood.
                Err(NotOpened) => {
                    self.quarantine.note(key);
                    return Err(ReadFault::Damaged {
                        key: key.to_string(),
                    });
                }
            },
        };
        if is_small {
            self.small.borrow_mut().insert(
                *key,
                Slot {
                    plain: plain.clone(),
                    dirty: false,
                },
            );
        }
        Ok(plain)
    }

    fn scan(&self, from: &Key, end: &[u8], visit: &mut Visit<'_>) -> Result<(), ReadFault> {
        let snapshot = self.snapshot()?;
        let over: Box<dyn Iterator<Item = (Key, Cow<'_, Slot>)>> = match from.space() {
            Space::Small => {
                let written = SmallOverlay::new(self, from, end);
                Box::new(written.map(|(key, slot)| (key, Cow::Owned(slot))))
            }
            _ => {
                let written = self.rows.range(bounds(from, end));
                Box::new(written.map(|(key, slot)| (*key, Cow::Borrowed(slot))))
            }
        };
        let mut over = over.peekable();
        let mut under = snapshot.scan(from.space(), from.as_bytes(), end);
        let mut next_under = under.next().transpose()?;
        loop {
            let overlaid = match (over.peek(), &next_under) {
                (None, None) => return Ok(()),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((key, _)), Some((under_key, _))) => key.as_bytes() <= &under_key[..],
            };
            let flow = if overlaid {
                let Some((key, slot)) = over.next() else {
                    return Ok(());
                };
                if next_under
                    .as_ref()
                    .is_some_and(|(under_key, _)| key.as_bytes() == &under_key[..])
                {
                    next_under = under.next().transpose()?;
                }
                match &slot.plain {
                    Some(plain) => visit(key, Ok(plain.clone())),
                    None => ControlFlow::Continue(()),
                }
            } else {
                let Some((key, value)) = next_under.take() else {
                    return Ok(());
                };
                // After the visit: what cannot be read behind a row hides no row before it.
                let flow = match Key::from_bytes(&key) {
                    Some(key) => visit(key, open(&self.vault, snapshot, &key, &value)?),
                    None => ControlFlow::Continue(()),
                };
                if flow.is_continue() {
                    next_under = under.next().transpose()?;
                }
                flow
            };
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    fn vault(&self) -> &Vault {
        &self.vault
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}
