//! What a repair may do to a record, and what would set one right that does not open.
//!
//! Every fix is one step: nothing is taken out of the way before what takes its place is there, and
//! nothing that does not open goes without its bytes being kept.
//! Where only being there says something, as with a denial, the record stays or is made anew, and
//! never goes.
//!
//! Read [`Fix`], then [`mend_damaged`].

use std::collections::BTreeMap;

use packhorse_protocol::epoch::{Epoch, Lane, Position, RefusalCode};

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Meta, Space, Table};
use crate::store::layout::Pen;
use crate::store::reader::Reader;
use crate::store::receipt::ReceiptId;
use crate::store::view::{Source, View};

use super::census::{LineKey, Seen};
use super::dead::{self, DAMAGED_HERE, Dead};
use super::deny::{self, Denied};
use super::head::encode_u64;
use super::lines::Line;
use super::loading::is_dead;
use super::peers::PeerNumber;
use super::unsettled::Doubt;
use super::{forgetting, held, idempotency};

/// One change of one record, with what has to be written in the same step.
#[derive(Clone, Debug)]
pub(crate) enum Fix {
    /// Write it.
    Put(Key, Vec<u8>),
    /// Delete it.
    Delete(Key),
    /// Keep its bytes in the quarantine, then delete it.
    SetAside(Key),
    /// Keep its bytes in the quarantine, and write this in its place.
    ///
    /// CRASH: a line that was set aside and not yet written anew would hide all of its messages.
    Replace(Key, Vec<u8>),
    /// A row or a letter, of which nothing is left but its place, becomes a letter that says so.
    Bury(Key),
}

impl Fix {
    /// The record that it changes, and what it writes there.
    pub(crate) fn key(&self) -> (&Key, usize) {
        match self {
            Fix::Put(key, plain) | Fix::Replace(key, plain) => (key, plain.len()),
            Fix::Delete(key) | Fix::SetAside(key) | Fix::Bury(key) => (key, 0),
        }
    }
}

/// Carries out fixes, and tells of the messages that were given up by them.
pub(crate) fn apply_all(view: &mut View, fixes: Vec<Fix>) -> Result<(), Refused> {
    let mut buried: BTreeMap<PeerNumber, usize> = BTreeMap::new();
    for fix in fixes {
        if let Fix::Bury(key) = &fix {
            *buried.entry(key.peer_number()).or_default() += 1;
        }
        apply(view, fix)?;
    }
    for (peer, count) in buried {
        let codes = std::iter::repeat_n(DAMAGED_HERE, count);
        dead::facts_given_up(view, peer, codes);
    }
    Ok(())
}

/// Carries out one fix.
pub(crate) fn apply(view: &mut View, fix: Fix) -> Result<(), Refused> {
    match fix {
        Fix::Put(key, plain) => view.put(key, plain),
        Fix::Delete(key) => view.delete(key),
        Fix::SetAside(key) => {
            dead::set_aside(view, &key)?;
            view.delete(key);
        }
        Fix::Replace(key, plain) => {
            dead::set_aside(view, &key)?;
            view.put(key, plain);
        }
        Fix::Bury(key) => bury(view, &key)?,
    }
    Ok(())
}

fn bury(view: &mut View, key: &Key) -> Result<(), Refused> {
    let (peer, lane, boot) = (key.peer_number(), key.lane(), key.boot_number());
    let letter = Key::dead(peer, lane, boot, key.last_u64());
    dead::set_aside(view, key)?;
    if *key != letter {
        let gone = held::weight_of_damaged(view, key);
        held::Change::default().outbox(0, gone).write(view)?;
        view.delete(*key);
    }
    // A letter that is there holds more than one that is made here.
    if *key == letter || !is_buried(view, key)? {
        view.put(letter, Dead::damaged(view.now_ms()).encode());
    }
    Ok(())
}

/// Whether there is a letter under the number of a row.
pub(super) fn is_buried(source: &impl Source, row: &Key) -> Result<bool, ReadFault> {
    let epoch = Epoch {
        boot: row.boot_number(),
        nonce: 0,
    };
    let sequence = row.last_u64();
    let at = Position { epoch, sequence };
    is_dead(source, row.peer_number(), row.lane(), at)
}

/// What would set a record right that does not open; nothing where that is found otherwise, or where
/// it is better left.
pub(super) fn mend_damaged(source: &Reader, seen: &Seen, key: &Key) -> Result<Vec<Fix>, ReadFault> {
    let (peer, lane, boot) = (key.peer_number(), key.lane(), key.boot_number());
    if !seen.is_whole(key.space()) || !seen.is_whole(Space::Small) {
        return Ok(Vec::new());
    }
    let Some(table) = Table::of(key) else {
        return Ok(Vec::new());
    };
    let replace = |plain: Vec<u8>| vec![Fix::Replace(*key, plain)];
    Ok(match table {
        // They decide whether the store opens at all, and it did; they are mended by that, or are
        // compared with what they count.
        Table::Head | Table::Boot => Vec::new(),
        Table::Meta if *key == Key::meta(Meta::Forgetting) => {
            // Putting aside what was put aside does nothing.
            let forgotten = seen.peers.iter().filter(|peer| !peer.is_peer());
            let numbers: Vec<_> = forgotten.map(|peer| peer.number).collect();
            replace(forgetting::encode(&numbers))
        }
        Table::Meta => Vec::new(),
        Table::Outbox | Table::Dead => vec![Fix::Bury(*key)],
        // What of it is here says how far it certainly was.
        Table::Mark if !seen.is_whole(Space::Inbox) => Vec::new(),
        Table::Mark => {
            let settled = key
                .epoch()
                .and_then(|epoch| seen.settled.get(&(peer, lane, epoch)));
            match settled {
                Some(settled) => replace(encode_u64(*settled)),
                None => vec![Fix::SetAside(*key)],
            }
        }
        Table::Line if !seen.is_whole(Space::Outbox) => Vec::new(),
        Table::Line => match rebuilt(seen, (peer, lane, boot)) {
            Some(line) => replace(line.encode()),
            None => vec![Fix::SetAside(*key)],
        },
        // Without it the sender would be told that it is stored.
        Table::Refusal => replace(Pen::new(1, 2).u16(RefusalCode::UNDECODABLE.0).done()),
        // Without it the letter would certainly not have been delivered, and could be sent again.
        Table::Unsettled => replace(Doubt::Offered.encode()),
        // Without it the identity could pair again.
        Table::Deny => {
            let denied = seen
                .peers
                .iter()
                .find(|peer| deny::key(source, &peer.id) == *key);
            denied.map_or(Vec::new(), |peer| {
                let denied = Denied {
                    id: peer.id,
                    at_ms: peer.forgotten_ms.unwrap_or(0),
                    name: peer.name.clone(),
                };
                replace(denied.encode())
            })
        }
        // Without it a message that is sent again would be another one.
        Table::Idempotency => replace(unknown_use(seen, key).encode()),
        Table::Peer
        | Table::PeerIndex
        | Table::Invite
        | Table::Past
        | Table::IdempotencyOrder
        | Table::Topic
        | Table::Quarantine
        | Table::Event
        | Table::DeadIn
        | Table::Outcome
        | Table::OutcomeOrder
        | Table::DoneRange
        | Table::Try
        | Table::Request
        | Table::Asking
        | Table::InboxShare
        | Table::Inbox
        | Table::InboxTopic => vec![Fix::SetAside(*key)],
    })
}

/// An idempotency key of which only that it was used is known: no message is the one that it was
/// used for.
fn unknown_use(seen: &Seen, key: &Key) -> idempotency::Use {
    let hash = key
        .as_bytes()
        .get(1..)
        .and_then(<[u8]>::first_chunk::<16>)
        .copied();
    let at_ms = hash.and_then(|hash| seen.ordered.get(&hash).copied());
    let newest = || seen.ordered.values().max().copied();
    idempotency::Use {
        receipt: ReceiptId {
            peer: PeerNumber(0),
            lane: Lane::User,
            position: Position {
                epoch: Epoch { boot: 0, nonce: 0 },
                sequence: 0,
            },
        },
        content: [0; 16],
        at_ms: at_ms.or_else(newest).unwrap_or(0),
    }
}

/// A line of which only rows and letters are left. All of it counts as offered, and all of it may
/// have a limit, as in a line that an older version wrote. `None` where not all of it was seen.
pub(super) fn rebuilt(seen: &Seen, at: LineKey) -> Option<Line> {
    let rows = seen.rows.get(&at)?;
    let nonce = *seen.nonces.get(&at.2)?;
    if !seen.is_whole(Space::Outbox) {
        return None;
    }
    let all = || rows.waiting.iter().chain(&rows.letters);
    let next = all().max().map_or(1, |last| last + 1);
    let first = rows.waiting.first().copied().unwrap_or(next);
    Some(Line {
        next,
        first,
        acknowledged: first - 1,
        bytes_accepted: rows.bytes,
        offered: next - 1,
        limited_first: first,
        due_ms: Some(0),
        holes: rows.letters.range(first..next).count() as u64,
        unsettled: rows.open,
        ..Line::new(nonce)
    })
}
