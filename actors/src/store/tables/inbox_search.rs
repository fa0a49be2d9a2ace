//! Which waiting messages can be handed out next.
//!
//! One search looks at a bounded number of places and says where to go on, so that no question
//! holds the store for long, however many messages lie in between that cannot be handed out. Who
//! asks keeps that place: what was passed over once is not looked at again until it is due.
//! Nothing is written here, and nothing is known of who asks.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use packhorse_protocol::epoch::Lane;
use packhorse_protocol::grant::{Capability, Grants};

use crate::store::engine::end_of;
use crate::store::error::ReadFault;
use crate::store::keys::{Key, Table};
use crate::store::view::Source;

use super::inbox::{self, InboxRow, decode_row, topic_hash};
use super::peers::{self, PeerNumber};
use super::read;
use super::tries::{self, Tries};

/// What is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    pub(crate) lane: Lane,
    pub(crate) topic: String,
    /// Places that were passed and are worth another look, in order; they come first.
    pub(crate) again: Vec<u64>,
    /// From this arrival on.
    pub(crate) from: u64,
    /// Not these.
    pub(crate) taken: BTreeSet<u64>,
    pub(crate) count: usize,
    pub(crate) bytes_max: usize,
    /// Places that are looked at.
    pub(crate) places_max: usize,
    /// Only from senders that may start a command by this topic.
    pub(crate) needs_execute: bool,
    /// What senders were allowed when messages of theirs were passed over for that.
    pub(crate) denied: BTreeMap<PeerNumber, Grants>,
    pub(crate) now_ms: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) rows: Vec<(InboxRow, Tries)>,
    /// Kept back: arrival and for how long still, in ms.
    pub(crate) later: Vec<(u64, u64)>,
    /// How many of `again` were looked at.
    pub(crate) again_seen: usize,
    /// Where to go on.
    pub(crate) next: u64,
    /// Nothing lies behind `next`.
    pub(crate) is_end: bool,
    /// Arrivals whose rows do not open.
    pub(crate) damaged: Vec<u64>,
    /// Senders whose messages were passed over because they may not start a command.
    pub(crate) denied: BTreeMap<PeerNumber, Grants>,
    /// Senders in `denied` are allowed other things now: nothing was looked at, and what was
    /// passed over before has to be looked at again.
    pub(crate) is_stale: bool,
}

/// Looks for messages, oldest first.
pub(crate) fn search(source: &impl Source, search: &Search) -> Result<Found, ReadFault> {
    let mut found = Found {
        next: search.from,
        ..Found::default()
    };
    let mut grants = BTreeMap::new();
    for (peer, before) in &search.denied {
        if allowed(source, &mut grants, *peer, search.now_ms)? != before {
            found.is_stale = true;
            return Ok(found);
        }
    }
    let mut bytes = 0;
    let mut places = 0;
    let is_full = |found: &Found, bytes: usize, places: usize| {
        found.rows.len() >= search.count || bytes >= search.bytes_max || places >= search.places_max
    };
    for arrival in &search.again {
        if is_full(&found, bytes, places) {
            return Ok(found);
        }
        places += 1;
        found.again_seen += 1;
        // Gone since then: it was handled.
        bytes += look(source, search, &mut grants, *arrival, &mut found)?.unwrap_or(0);
    }
    let hash = topic_hash(source, search.lane, &search.topic);
    let Some(topic) = inbox::topic(source, hash)? else {
        found.is_end = true;
        return Ok(found);
    };
    let mut arrivals = Vec::new();
    found.is_end = true;
    let from = Key::inbox_topic(hash, topic.first.max(search.from));
    let end = end_of(Key::inbox_topic(hash, u64::MAX).as_bytes());
    source.scan(&from, &end, &mut |key, _| {
        if places + arrivals.len() >= search.places_max {
            found.is_end = false;
            return ControlFlow::Break(());
        }
        arrivals.push(key.last_u64());
        ControlFlow::Continue(())
    })?;
    // An index that shows nothing while its topic counts messages is damaged; to say that nothing
    // is there would hide them.
    if arrivals.is_empty() && found.is_end && search.from <= topic.first && topic.waiting > 0 {
        return Err(ReadFault::Damaged {
            key: Key::topic(hash).to_string(),
        });
    }
    for arrival in arrivals {
        if is_full(&found, bytes, places) {
            found.is_end = false;
            return Ok(found);
        }
        places += 1;
        found.next = arrival.saturating_add(1);
        if search.taken.contains(&arrival) {
            continue;
        }
        match look(source, search, &mut grants, arrival, &mut found)? {
            Some(weight) => bytes += weight,
            // One snapshot shows index and row, so an index without a row is damage.
            None => found.damaged.push(arrival),
        }
    }
    Ok(found)
}

/// Looks at one place. `None` when there is no message; else what it cost to read, in bytes.
fn look(
    source: &impl Source,
    search: &Search,
    grants: &mut BTreeMap<PeerNumber, Grants>,
    arrival: u64,
    found: &mut Found,
) -> Result<Option<usize>, ReadFault> {
    let tries = tries::of(source, arrival)?;
    let wait_ms = tries.wait_ms(search.now_ms);
    if wait_ms > 0 {
        found.later.push((arrival, wait_ms));
        return Ok(Some(0));
    }
    let row = match read(source, &Key::inbox(arrival), |bytes| {
        decode_row(arrival, bytes)
    }) {
        Ok(Some(row)) => row,
        Ok(None) => return Ok(None),
        Err(fault) if fault.is_damage() => {
            found.damaged.push(arrival);
            return Ok(Some(0));
        }
        Err(fault) => return Err(fault),
    };
    let weight = row.message.weight();
    if search.needs_execute {
        let allowed = allowed(source, grants, row.peer, search.now_ms)?;
        if !allowed.allows(Capability::Execute, &row.message.topic, search.now_ms) {
            found.denied.insert(row.peer, allowed.clone());
            return Ok(Some(weight));
        }
    }
    found.rows.push((row, tries));
    Ok(Some(weight))
}

/// What a sender may do, read once a search.
fn allowed<'a>(
    source: &impl Source,
    known: &'a mut BTreeMap<PeerNumber, Grants>,
    peer: PeerNumber,
    now_ms: u64,
) -> Result<&'a Grants, ReadFault> {
    match known.entry(peer) {
        Entry::Occupied(place) => Ok(place.into_mut()),
        Entry::Vacant(place) => {
            let grants = match peers::peer(source, peer) {
                // Only what counts now: the end of an exclusion has to be noticed too.
                Ok(record) => record.map_or_else(Grants::none, |peer| peer.grants.alive(now_ms)),
                // Who cannot be read may do nothing.
                Err(fault) if fault.is_damage() => Grants::none(),
                Err(fault) => return Err(fault),
            };
            Ok(place.insert(grants))
        }
    }
}

/// A topic of which messages wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxTopic {
    /// Its name.
    pub topic: String,
    /// How many wait.
    pub waiting: u64,
}

/// The topics of which messages wait, by name. One whose oldest message does not open is left out.
pub(crate) fn topics(source: &impl Source) -> Result<Vec<InboxTopic>, ReadFault> {
    let mut places = Vec::new();
    source.scan_prefix(&Key::table(Table::Topic), &mut |_, plain| {
        if let Ok(Ok(topic)) = plain.map(|plain| inbox::decode_topic(&plain)) {
            places.push((topic.first, topic.waiting));
        }
        ControlFlow::Continue(())
    })?;
    let mut topics = Vec::new();
    for (first, waiting) in places {
        let row = match read(source, &Key::inbox(first), |bytes| decode_row(first, bytes)) {
            Ok(row) => row.filter(|row| row.lane == Lane::User),
            Err(fault) if fault.is_damage() => None,
            Err(fault) => return Err(fault),
        };
        topics.extend(row.map(|row| InboxTopic {
            topic: row.message.topic,
            waiting,
        }));
    }
    topics.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
    Ok(topics)
}
