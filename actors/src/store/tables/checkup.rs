//! What is wrong with the records of a store, and what would set that right.
//!
//! Looking only reads. A plan is made of fixes, each of which leaves the store no worse, so that
//! carrying it out is mechanical and may stop anywhere: the next look plans what is left.
//! Nothing is made up: a counter is counted again, an index is made from its rows, a record that
//! does not open is set aside with its bytes, and a message of which nothing is left becomes a dead
//! letter that says so. Nothing is counted, deleted or made anew from rows that were not all seen:
//! where a part of the files cannot be read, or the record of a boot is gone, what is there is left as
//! it is.
//!
//! Read [`plan`]; what is there stands in `census.rs`, and what is done about it in `fix.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::store::doctor::{Finding, Severity};
use crate::store::error::ReadFault;
use crate::store::keys::{Key, Meta, Space, Table};
use crate::store::layout::Pen;
use crate::store::reader::Reader;
use crate::store::view::Source;

use super::census::{LineKey, NAMED_MAX, Rows, Seen, look};
use super::fix::{is_buried, mend_damaged, rebuilt};
use super::head::{decode_u32, encode_u32};
use super::inbox::{self, Topic, Totals};
use super::lines::Line;
use super::peers::{self, PeerNumber};
use super::{held, idempotency, outbox, read};

pub(crate) use super::fix::{Fix, apply, apply_all};

/// What is wrong, and what would set it right.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What the fixes mend.
    pub(crate) findings: Vec<Finding>,
    /// What nothing here mends.
    pub(crate) left: Vec<Finding>,
    pub(crate) fixes: Vec<Fix>,
}

const REPAIR: &str = "run `packhorse doctor --repair` while the node is stopped";

/// Reads everything.
pub(crate) fn plan(source: &Reader) -> Result<Plan, ReadFault> {
    let seen = look(source)?;
    let mut plan = Plan::default();
    plan.unseen(&seen);
    plan.damaged(source, &seen)?;
    // Lines, peers and counters are judged by what is not there.
    if seen.is_whole(Space::Small) {
        plan.lines(source, &seen)?;
        plan.inbox(source, &seen)?;
        plan.peers(source, &seen)?;
        plan.idempotency(source, &seen)?;
    }
    if Space::ALL.into_iter().all(|space| seen.is_whole(space)) {
        plan.counters(source)?;
    }
    if seen.quarantined > 0 {
        let count = seen.quarantined;
        let text = format!(
            "{count} records that did not open were set aside; their bytes are kept for whoever wants to look into them"
        );
        plan.left.push(Finding::well("quarantine", text));
    }
    Ok(plan)
}

/// Whether something lies under the number of a row that a scan did not show.
fn is_there(source: &Reader, seen: &Seen, row: &Key) -> Result<bool, ReadFault> {
    match read(source, row, outbox::decode_row) {
        Ok(Some(_)) => Ok(true),
        Ok(None) => is_buried(source, row),
        Err(fault) if fault.is_damage() => {
            Ok(seen.sealed_away(source, row).is_some() || is_buried(source, row)?)
        }
        Err(fault) => Err(fault),
    }
}

impl Plan {
    fn wrong(&mut self, check: &'static str, text: String, fixes: impl IntoIterator<Item = Fix>) {
        let finding = Finding::new(check, Severity::Warning, text, REPAIR);
        self.findings.push(finding);
        self.fixes.extend(fixes);
    }

    /// What was not seen, and is left as it is.
    fn unseen(&mut self, seen: &Seen) {
        for space in Space::ALL {
            let torn = seen.torn[space as usize];
            if torn > 0 {
                let text = format!(
                    "{torn} parts of the keyspace {} cannot be read, and what lies behind them may not have been seen; nothing is counted or made anew from it",
                    space.name()
                );
                let advice = "look at the disk and its log, and restore a backup; what can be read is served meanwhile";
                let finding = Finding::new("engine", Severity::Damage, text, advice);
                self.left.push(finding);
            }
        }
        for (boot, count) in &seen.sealed_away {
            let text = format!(
                "the record of boot {boot} is damaged or gone, and {count} records do not open without it; nothing is set aside or made anew meanwhile"
            );
            let advice = "restore a backup: the record of a boot is the same in every copy of the folder that is not older";
            let finding = Finding::new("records", Severity::Damage, text, advice);
            self.left
                .push(finding.at(format!("boot {}", Key::boot(*boot))));
        }
    }

    /// Records that do not open.
    fn damaged(&mut self, source: &Reader, seen: &Seen) -> Result<(), ReadFault> {
        for key in &seen.damaged {
            let fixes = mend_damaged(source, seen, key)?;
            let (text, advice) = match Table::of(key) {
                Some(Table::Boot) => (
                    "the record of a boot does not open, and nothing that was sealed under it does",
                    "restore a backup; nothing here can mend it",
                ),
                Some(Table::Mark) => (
                    "how far a sender was taken in does not open, so nothing more of it is taken",
                    "run `packhorse doctor --repair` while the node is stopped; what of that sender was handled may arrive again",
                ),
                Some(Table::Peer) => (
                    "the record of a peer does not open, so nothing is sent to it and nothing is taken from it",
                    "restore a backup; or run `packhorse doctor --repair` while the node is stopped and pair with it again: what waits for it is kept and not sent",
                ),
                Some(Table::Deny) => (
                    "a denial does not open; it denies all the same",
                    "nothing; `packhorse peers allow NODEID` lifts it",
                ),
                _ if fixes.is_empty() => (
                    "a record does not open",
                    "nothing: what else is found says how it is mended, or that it is not",
                ),
                _ => (
                    "a record does not open",
                    "run `packhorse doctor --repair` while the node is stopped: its bytes are kept",
                ),
            };
            let is_harmless = fixes.is_empty() && Table::of(key) == Some(Table::Deny);
            let severity = match is_harmless {
                true => Severity::Warning,
                false => Severity::Damage,
            };
            let finding = Finding::new("records", severity, text, advice);
            let finding = finding.at(format!("{} {key}", word(key)));
            if fixes.is_empty() {
                self.left.push(finding);
            } else {
                self.findings.push(finding);
                self.fixes.extend(fixes);
            }
        }
        let more = seen.damaged_count - seen.damaged.len() as u64;
        if more > 0 {
            self.left.push(Finding::new(
                "records",
                Severity::Damage,
                format!("{more} more records do not open"),
                "repair what is named, then look again",
            ));
        }
        Ok(())
    }

    /// Lines against their rows and letters. Letters and lines were all seen; rows may not have been.
    fn lines(&mut self, source: &Reader, seen: &Seen) -> Result<(), ReadFault> {
        let none = Rows::default();
        let mut gone_left = NAMED_MAX;
        for (at, line) in &seen.lines {
            let (peer, lane, boot) = *at;
            let rows = seen.rows.get(at).unwrap_or(&none);
            let range = line.first..line.next;
            let letters = rows.letters.range(range.clone()).count() as u64;
            let waiting = rows.waiting.range(range.clone()).count() as u64;
            let mut fixes = Vec::new();
            if range.end - range.start > letters + waiting {
                let range = range.start..=range.end - 1;
                let missing = missing(source, seen, *at, rows, range, gone_left)?;
                gone_left -= missing.len();
                fixes.extend(missing.into_iter().map(Fix::Bury));
            }
            let gone = fixes.len() as u64;
            if gone > 0 {
                let number = peer.0;
                self.findings.push(Finding::new(
                    "outbox",
                    Severity::Damage,
                    format!("{gone} messages for peer number {number} that were accepted under boot {boot} are gone"),
                    "run `packhorse doctor --repair` while the node is stopped: each becomes a dead letter that says so",
                ));
            }
            let right = Line {
                holes: letters + gone,
                unsettled: rows.open,
                ..*line
            };
            if right == *line && fixes.is_empty() {
                continue;
            }
            fixes.push(Fix::Put(Key::line(peer, lane, boot), right.encode()));
            let text = format!(
                "the line of peer number {}, {lane:?} lane, boot {boot} counts {} waiting messages and {} open letters; there are {} and {}",
                peer.0,
                line.waiting(),
                line.unsettled,
                right.waiting(),
                rows.open
            );
            self.wrong("outbox", text, fixes);
        }
        self.lines_gone(seen);
        Ok(())
    }

    /// Messages whose line is gone, or whose peer is.
    fn lines_gone(&mut self, seen: &Seen) {
        for (at, rows) in &seen.rows {
            let (peer, lane, boot) = *at;
            let key = Key::line(peer, lane, boot);
            let is_known = seen.lines.contains_key(at) || seen.pasts.contains(at);
            // One that does not open was dealt with already.
            if is_known || rows.waiting.is_empty() || seen.damaged.contains(&key) {
                continue;
            }
            let count = rows.waiting.len();
            let text = format!(
                "{count} messages for peer number {} that were accepted under boot {boot} are in no line, so they are neither sent nor counted",
                peer.0
            );
            match rebuilt(seen, *at) {
                Some(line) => self.wrong("outbox", text, [Fix::Put(key, line.encode())]),
                None => self.left.push(Finding::new(
                    "outbox",
                    Severity::Damage,
                    text,
                    "restore a backup: too little of this store can be read to make the line anew",
                )),
            }
        }
        let known: BTreeSet<PeerNumber> = seen.peers.iter().map(|peer| peer.number).collect();
        let mut orphans: BTreeMap<PeerNumber, u64> = BTreeMap::new();
        for ((peer, ..), line) in &seen.lines {
            if !known.contains(peer) {
                *orphans.entry(*peer).or_default() += line.waiting();
            }
        }
        for (peer, count) in orphans.into_iter().filter(|(_, count)| *count > 0) {
            self.left.push(Finding::new(
                "peers",
                Severity::Damage,
                format!("{count} messages wait for peer number {}, of which there is no record; they are kept and not sent", peer.0),
                "restore a backup, or send them again to a peer that is paired anew",
            ));
        }
    }

    /// Totals, topics and index of the inbox against its rows.
    fn inbox(&mut self, source: &Reader, seen: &Seen) -> Result<(), ReadFault> {
        if !seen.is_whole(Space::Inbox) {
            return Ok(());
        }
        let known = match inbox::totals(source) {
            Ok(totals) => Some(totals),
            Err(fault) if fault.is_damage() => None,
            Err(fault) => return Err(fault),
        };
        let waiting = seen.arrivals.len() as u64;
        let behind = seen.arrivals.last().map_or(1, |last| last + 1);
        let next = known.map_or(behind, |known| known.next.max(behind));
        // The first live arrival may lie below the first row, never above it.
        let first = match (seen.arrivals.first(), known) {
            (None, _) => next,
            (Some(first), Some(known)) if known.first <= *first => known.first,
            (Some(first), _) => *first,
        };
        let right = Totals {
            next,
            first,
            waiting,
        };
        if known != Some(right) {
            let says = known.map_or("do not open".to_owned(), |known| {
                format!(
                    "say {} from {} on, next {}",
                    known.waiting, known.first, known.next
                )
            });
            let text = format!(
                "the inbox holds {waiting} messages from {first} on, next {next}; its counters {says}"
            );
            self.wrong(
                "inbox",
                text,
                [Fix::Put(Key::meta(Meta::Inbox), right.encode())],
            );
        }
        let mut topics: BTreeMap<[u8; 16], Topic> = BTreeMap::new();
        for (hash, arrival) in &seen.topics {
            let topic = topics.entry(*hash).or_insert(Topic {
                first: *arrival,
                waiting: 0,
            });
            topic.waiting += 1;
        }
        let mut fixes = Vec::new();
        for (hash, right) in &topics {
            let known = seen.topic_records.get(hash);
            let is_well = known
                .is_some_and(|known| known.waiting == right.waiting && known.first <= right.first);
            if !is_well {
                fixes.push(Fix::Put(Key::topic(*hash), right.encode()));
            }
        }
        for hash in seen.topic_records.keys() {
            if !topics.contains_key(hash) {
                fixes.push(Fix::Delete(Key::topic(*hash)));
            }
        }
        for (hash, arrival) in seen.topics.difference(&seen.index) {
            fixes.push(Fix::Put(Key::inbox_topic(*hash, *arrival), Vec::new()));
        }
        for (hash, arrival) in seen.index.difference(&seen.topics) {
            fixes.push(Fix::Delete(Key::inbox_topic(*hash, *arrival)));
        }
        if !fixes.is_empty() {
            let text = format!(
                "{} entries of the index by topic do not fit the messages of the inbox",
                fixes.len()
            );
            self.wrong("inbox topics", text, fixes);
        }
        Ok(())
    }

    /// The index by id and name against the peers.
    fn peers(&mut self, source: &Reader, seen: &Seen) -> Result<(), ReadFault> {
        let mut right = BTreeSet::new();
        for peer in &seen.peers {
            let mut keys = vec![peers::id_key(source, &peer.id)];
            // Who was forgotten keeps its id, and gave its name back.
            if peer.forgotten_ms.is_none() {
                keys.push(peers::name_key(source, &peer.name));
            }
            for key in keys {
                right.insert((key, peer.number.0));
                let number = match source.get(&key) {
                    Ok(found) => found.and_then(|plain| decode_u32(&plain).ok()),
                    Err(fault) if fault.is_damage() => None,
                    Err(fault) => return Err(fault),
                };
                if number != Some(peer.number.0) {
                    let text = format!("peer {} is not found by its name or id", peer.name);
                    let bytes = encode_u32(peer.number.0);
                    self.wrong("peers", text, [Fix::Put(key, bytes)]);
                }
            }
        }
        let is_peer_damaged = |key: &Key| Table::of(key) == Some(Table::Peer);
        if !seen.damaged.iter().any(is_peer_damaged) {
            let names = right.iter().map(|(key, _)| *key).collect::<BTreeSet<_>>();
            for key in seen.peer_index.keys().filter(|key| !names.contains(key)) {
                let text = format!("the entry {key} of the peers' index leads to no peer");
                self.wrong("peers", text, [Fix::Delete(*key)]);
            }
        }
        self.next_peer(source, seen)
    }

    /// A number that any record names was given out, and is never given out again.
    fn next_peer(&mut self, source: &Reader, seen: &Seen) -> Result<(), ReadFault> {
        let key = Key::meta(Meta::PeerNext);
        let known = match read(source, &key, decode_u32) {
            Ok(None) if seen.highest_peer == 0 => return Ok(()),
            Ok(known) => known,
            Err(fault) if fault.is_damage() => None,
            Err(fault) => return Err(fault),
        };
        let right = seen.highest_peer.saturating_add(1);
        if known.is_none_or(|known| known < right) {
            let text = format!("the next number of a peer is not known; it is {right}");
            self.wrong("peers", text, [Fix::Put(key, encode_u32(right))]);
        }
        Ok(())
    }

    /// The orders in which idempotency keys and outcomes are forgotten.
    fn idempotency(&mut self, source: &Reader, seen: &Seen) -> Result<(), ReadFault> {
        let (first, last) = seen.order.unwrap_or((0, 0));
        let behind = seen.order.map_or(0, |_| last + 1);
        let mut fixes = Vec::new();
        let known = match idempotency::order_range(source) {
            Ok(known) => Some(known),
            Err(fault) if fault.is_damage() => None,
            Err(fault) => return Err(fault),
        };
        let mut next = known.map_or(behind, |(_, next)| next.max(behind));
        for (hash, at_ms) in &seen.keys {
            if !seen.ordered.contains_key(hash) {
                let entry = idempotency::encode_entry(hash, *at_ms);
                fixes.push(Fix::Put(Key::idempotency_order(next), entry));
                next += 1;
            }
        }
        let oldest = known.map_or(first, |(oldest, _)| oldest);
        if known != Some((oldest, next)) {
            let bytes = Pen::new(1, 16).u64(oldest).u64(next).done();
            fixes.push(Fix::Put(Key::meta(Meta::Idempotency), bytes));
        }
        if !fixes.is_empty() {
            let text = "idempotency keys are not listed in the order of their age".to_owned();
            self.wrong("idempotency", text, fixes);
        }
        let is_damaged =
            matches!(source.get(&Key::meta(Meta::Outcomes)), Err(fault) if fault.is_damage());
        if is_damaged {
            let (oldest, last) = seen.outcome_order.unwrap_or((0, 0));
            let next = seen.outcome_order.map_or(0, |_| last + 1);
            let bytes = Pen::new(1, 16).u64(oldest).u64(next).done();
            let text = "the numbers of the outcomes do not open".to_owned();
            self.wrong(
                "outcomes",
                text,
                [Fix::Put(Key::meta(Meta::Outcomes), bytes)],
            );
        }
        Ok(())
    }

    /// The counters of the quotas.
    fn counters(&mut self, source: &Reader) -> Result<(), ReadFault> {
        let (right, shares) = held::count(source)?;
        let fixes = held::fixes(source, right, &shares)?;
        if !fixes.is_empty() {
            let text = format!(
                "the boxes hold {} bytes out, {} in and {} given up, and their counters say otherwise",
                right.outbox, right.inbox, right.dead
            );
            self.wrong("quota counters", text, fixes);
        }
        Ok(())
    }
}

/// Rows of a line that are neither there nor dead letters, at most so many.
fn missing(
    source: &Reader,
    seen: &Seen,
    (peer, lane, boot): LineKey,
    rows: &Rows,
    range: RangeInclusive<u64>,
    count_max: usize,
) -> Result<Vec<Key>, ReadFault> {
    let mut missing = Vec::new();
    let is_seen = |at: &u64| rows.waiting.contains(at) || rows.letters.contains(at);
    for sequence in range.filter(|at| !is_seen(at)) {
        if missing.len() == count_max {
            break;
        }
        let row = Key::outbox(peer, lane, boot, sequence);
        // A scan passes over what can still be read one by one.
        if seen.is_whole(Space::Outbox) || !is_there(source, seen, &row)? {
            missing.push(row);
        }
    }
    Ok(missing)
}

/// What lies in a key's table, for people.
fn word(key: &Key) -> &'static str {
    match Table::of(key) {
        Some(Table::Peer) => "peer",
        Some(Table::Line) => "line",
        Some(Table::Mark) => "mark",
        Some(Table::Dead) => "dead letter",
        Some(Table::DeadIn) => "dead letter in",
        Some(Table::Outbox) => "outbox message",
        Some(Table::Inbox) => "inbox message",
        Some(Table::Invite) => "invite",
        Some(Table::Event) => "event",
        Some(Table::Boot) => "boot",
        Some(Table::Deny) => "denial",
        Some(Table::Request | Table::Asking) => "request",
        _ => "record",
    }
}
