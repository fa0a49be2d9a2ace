//! Messages that arrived here and that their handlers gave up, with the reason.
//!
//! A letter is written in the same batch that takes its message out of the inbox, and its sender is
//! told in that batch too. Letters are kept until somebody puts them back or drops them.
//!
//! ```text
//! DeadIn  key  18 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ nonce u64 ‖ sequence u64
//!         value layout u8 = 1 ‖ at ms u64 ‖ reason text ‖ message
//! ```

use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Lane, Position};
use packhorse_protocol::message::Message;

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::outbox::{Filter, Listing};
use super::peers::PeerNumber;
use super::{held, read};

/// A message that arrived and was given up here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadInLetter {
    /// Who sent it.
    pub peer: PeerNumber,
    /// In which lane it came.
    pub lane: Lane,
    /// Its place in that lane, numbered by its sender.
    pub position: Position,
    /// When it was given up.
    pub at_ms: u64,
    /// Why.
    pub reason: String,
    /// The message.
    pub message: Message,
}

impl DeadInLetter {
    fn key(&self) -> Key {
        Key::dead_in(self.peer, self.lane, self.position)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 96 + self.message.weight())
            .u64(self.at_ms)
            .text(&self.reason)
            .message(&self.message)
            .done()
    }

    pub(super) fn decode(key: &Key, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let letter = Self {
            peer: key.peer_number(),
            lane: key.lane(),
            position: key.position().ok_or(Malformed)?,
            at_ms: cursor.u64()?,
            reason: cursor.text()?,
            message: cursor.message()?,
        };
        cursor.end()?;
        Ok(letter)
    }
}

pub(crate) fn put(view: &mut View, letter: &DeadInLetter) -> Result<(), Refused> {
    let weight = held::weight(&letter.message);
    held::Change::default().dead(weight, 0).write(view)?;
    view.put(letter.key(), letter.encode());
    Ok(())
}

pub(crate) fn find(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    at: Position,
) -> Result<Option<DeadInLetter>, ReadFault> {
    let key = Key::dead_in(peer, lane, at);
    read(source, &key, |bytes| DeadInLetter::decode(&key, bytes))
}

/// The letters that match, by peer and place, and how many there are of them.
pub(crate) fn list(
    source: &impl Source,
    filter: &Filter,
    limit: usize,
) -> Result<Listing<DeadInLetter>, ReadFault> {
    let mut listing = Listing {
        total: 0,
        rows: Vec::new(),
    };
    let prefix = match filter.peer {
        Some(peer) => Key::dead_in_of(peer),
        None => Key::table(Table::DeadIn),
    };
    source.scan_prefix(&prefix, &mut |key, plain| {
        if let Ok(Ok(letter)) = plain.map(|plain| DeadInLetter::decode(&key, &plain))
            && filter
                .topic
                .as_ref()
                .is_none_or(|topic| letter.message.topic == *topic)
        {
            listing.total += 1;
            if listing.rows.len() < limit {
                listing.rows.push(letter);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(listing)
}
