//! The ring of the last 100,000 facts.
//!
//! Facts of a batch are written when the batch is closed, so that no job is refused for the ring's
//! sake: a ring that cannot be read is begun anew behind its last number. Numbers are never reused.
//!
//! ```text
//! Event   key 16 ‖ number u64    value layout u8 = 1 ‖ at ms u64 ‖ kind u16 ‖ maybe peer u32 ‖ count u64 ‖ list of text
//! Meta 7  key  3 ‖ 7             value layout u8 = 1 ‖ first number u64 ‖ next number u64
//! ```

use std::ops::ControlFlow;

use crate::events::{Event, EventPage, Fact, FactParts};
use crate::store::engine::end_of;
use crate::store::error::ReadFault;
use crate::store::keys::{Key, Meta, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Note, Source, View};

use super::peers::PeerNumber;
use super::read;

/// How many facts are kept: 100,000 × about 150 bytes = 15 MB of disk.
pub(crate) const EVENTS_KEPT: u64 = 100_000;
/// Events in one page.
const PAGE_MAX: usize = 1_024;
/// Texts in one fact; more is damage.
const TEXTS_MAX: u32 = 16;

/// Which numbers the ring holds: `first..next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) first: u64,
    pub(crate) next: u64,
}

impl Ring {
    pub(super) fn encode(self) -> Vec<u8> {
        Pen::new(1, 16).u64(self.first).u64(self.next).done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let ring = Self {
            first: cursor.u64()?,
            next: cursor.u64()?,
        };
        cursor.end()?;
        // Numbers begin with 1, and a ring never ends before it begins.
        match ring.first >= 1 && ring.next >= ring.first {
            true => Ok(ring),
            false => Err(Malformed),
        }
    }
}

pub(super) fn encode(at_ms: u64, fact: &Fact) -> Vec<u8> {
    let parts = fact.to_parts();
    let room = parts.texts.iter().map(|text| 4 + text.len()).sum::<usize>();
    let mut pen = Pen::new(1, 32 + room);
    pen.u64(at_ms).u16(parts.kind);
    match parts.peer {
        None => pen.u8(0),
        Some(peer) => pen.u8(1).u32(peer.0),
    };
    pen.u64(parts.count).texts(&parts.texts).done()
}

pub(super) fn decode(number: u64, bytes: &[u8]) -> Result<Event, Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    let (at_ms, kind) = (cursor.u64()?, cursor.u16()?);
    let peer = match cursor.u8()? {
        0 => None,
        1 => Some(PeerNumber(cursor.u32()?)),
        _ => return Err(Malformed),
    };
    let count = cursor.u64()?;
    let texts = cursor.texts()?;
    if texts.len() > TEXTS_MAX as usize {
        return Err(Malformed);
    }
    cursor.end()?;
    let fact = Fact::from_parts(FactParts {
        kind,
        peer,
        count,
        texts,
    });
    Ok(Event {
        number,
        at_ms,
        fact,
    })
}

/// Which numbers the ring holds.
pub(crate) fn ring(source: &impl Source) -> Result<Ring, ReadFault> {
    let found = read(source, &Key::meta(Meta::Events), Ring::decode);
    match found {
        Ok(ring) => Ok(ring.unwrap_or(Ring { first: 1, next: 1 })),
        Err(fault) if fault.is_damage() => mended(source),
        Err(fault) => Err(fault),
    }
}

/// The ring as its events show it. Reads all their keys; only for a ring whose record is damaged.
fn mended(source: &impl Source) -> Result<Ring, ReadFault> {
    let mut ring = Ring { first: 1, next: 1 };
    source.scan_prefix(&Key::table(Table::Event), &mut |key, _| {
        let number = key.last_u64();
        if ring.next == 1 {
            ring.first = number;
        }
        ring.next = number.saturating_add(1);
        ControlFlow::Continue(())
    })?;
    Ok(ring)
}

/// Writes the facts of a batch that is about to be closed, and drops as many of the oldest as do
/// not fit any more.
pub(crate) fn append(view: &mut View, facts: Vec<(u64, Fact)>) -> Result<(), ReadFault> {
    append_keeping(view, facts, EVENTS_KEPT)
}

fn append_keeping(view: &mut View, facts: Vec<(u64, Fact)>, kept: u64) -> Result<(), ReadFault> {
    let mut ring = ring(view)?;
    for (at_ms, fact) in facts {
        view.put(Key::event(ring.next), encode(at_ms, &fact));
        ring.next += 1;
    }
    while ring.next - ring.first > kept {
        view.delete(Key::event(ring.first));
        ring.first += 1;
    }
    view.put(Key::meta(Meta::Events), ring.encode());
    view.note(Note::Event(ring.next - 1));
    Ok(())
}

/// The events behind `after`. One that does not open is passed over: its number is missing.
pub(crate) fn since(
    source: &impl Source,
    after: u64,
    limit: usize,
) -> Result<EventPage, ReadFault> {
    let ring = ring(source)?;
    let asked = after.saturating_add(1);
    let from = asked.max(ring.first);
    let limit = limit.min(PAGE_MAX);
    let mut events = Vec::new();
    if limit > 0 && from < ring.next {
        let end = end_of(Key::table(Table::Event).as_bytes());
        source.scan(&Key::event(from), &end, &mut |key, plain| {
            let event = plain.ok().map(|plain| decode(key.last_u64(), &plain));
            if let Some(Ok(event)) = event {
                events.push(event);
            }
            match events.len() >= limit {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
    }
    Ok(EventPage {
        events,
        gap: (asked < ring.first).then(|| (asked, ring.first - 1)),
        newest: ring.next - 1,
    })
}

#[cfg(test)]
mod tests {
    use packhorse_protocol::identity::IdentityKey;

    use super::*;
    use crate::env::testing;
    use crate::store::{EngineKind, MemoryDisk, Opened, Store, StoreConfig, StoreHandle, Writer};

    fn open(disk: &MemoryDisk) -> (Opened, StoreHandle, Writer) {
        let (env, _) = testing::env(1);
        let id = IdentityKey::from_seed(&[1; 32]).id();
        let mut config = StoreConfig::new("/nowhere", id, [7; 32], env);
        config.engine = EngineKind::Memory(disk.clone());
        let opened = Store::open(&config).expect("it opens");
        let writer = opened.start_writer().expect("a thread starts");
        let store = opened.handle();
        (opened, store, writer)
    }

    async fn close((opened, _, mut writer): (Opened, StoreHandle, Writer)) {
        writer.stop();
        writer.ended().await;
        opened.close().expect("it closes");
    }

    fn lost(counts: std::ops::Range<u64>) -> Vec<(u64, Fact)> {
        counts
            .map(|count| (count, Fact::FactsLost { count }))
            .collect()
    }

    fn numbers(page: &EventPage) -> Vec<u64> {
        page.events.iter().map(|event| event.number).collect()
    }

    #[tokio::test]
    async fn a_full_ring_drops_its_oldest_and_says_what_a_cursor_has_missed() {
        let opened = open(&MemoryDisk::new(1));
        let store = &opened.1;
        assert_eq!(store.events_since(0, 10).await.expect("reads").newest, 0);
        for from in [0, 7, 14] {
            let job = move |view: &mut View| Ok(append_keeping(view, lost(from..from + 7), 10)?);
            store.write(0, job).await.expect("writes");
        }
        let page = store.events_since(0, 4).await.expect("reads");
        assert_eq!((page.gap, page.newest), (Some((1, 11)), 21));
        assert_eq!(numbers(&page), [12, 13, 14, 15]);
        assert_eq!(page.events[0].fact, Fact::FactsLost { count: 11 });
        let page = store.events_since(19, 100).await.expect("reads");
        assert_eq!((page.gap, numbers(&page)), (None, vec![20, 21]));
        let page = store.events_since(500, 100).await.expect("reads");
        assert_eq!((numbers(&page), page.newest), (vec![], 21));
        close(opened).await;
    }

    #[tokio::test]
    async fn facts_commit_with_their_job_and_a_refused_job_tells_nothing() {
        let disk = MemoryDisk::new(2);
        let opened = open(&disk);
        let store = &opened.1;
        let mut newest = store.newest_event();
        let refused = store
            .write(0, |view: &mut View| {
                view.fact(Fact::NetworkChanged);
                Err::<(), _>(crate::store::Refused::Exhausted("test"))
            })
            .await;
        assert!(refused.is_err());
        store
            .write(0, |view: &mut View| {
                view.fact(Fact::NodeStopping);
                Ok(())
            })
            .await
            .expect("writes");
        assert_eq!(*newest.borrow_and_update(), 1);
        close(opened).await;
        let opened = open(&disk);
        let page = opened.1.events_since(0, 10).await.expect("reads");
        assert_eq!(numbers(&page), [1], "after a restart");
        assert_eq!(page.events[0].fact, Fact::NodeStopping);
        assert_eq!(*opened.1.newest_event().borrow(), 1, "counted on");
        close(opened).await;
    }

    #[tokio::test]
    async fn a_ring_whose_record_is_damaged_goes_on_behind_its_last_number() {
        let opened = open(&MemoryDisk::new(3));
        let store = &opened.1;
        store.append_facts(lost(0..5)).await.expect("writes");
        let spoil = |view: &mut View| {
            view.put(Key::meta(Meta::Events), vec![9, 9]);
            Ok(())
        };
        store.write(0, spoil).await.expect("writes");
        store.append_facts(lost(5..6)).await.expect("writes");
        let page = store.events_since(0, 10).await.expect("reads");
        assert_eq!((page.gap, numbers(&page)), (None, vec![1, 2, 3, 4, 5, 6]));
        close(opened).await;
    }
}
