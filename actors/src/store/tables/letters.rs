//! Dead letters as people ask for them: shown, sent again, dropped.
//!
//! What a letter is and how one is written stands in `dead.rs`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Epoch, Lane, Position};

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::receipt::ReceiptId;
use crate::store::view::{Source, View};

use super::dead::{
    DROPPED, Dead, DeadLetter, DeadState, NEW_IDENTITY, OWN_FROM, SET_BACK, close, reason,
};
use super::outbox::{self, Accepted, Filter, Listing, NewMessage};
use super::outcomes::{self, Outcome};
use super::settling::own_line;
use super::{held, lines, read, unsettled};

/// A letter as people see it.
pub(super) fn letter(
    source: &impl Source,
    id: ReceiptId,
    dead: Dead,
) -> Result<DeadLetter, ReadFault> {
    let is_open = dead.code.0 >= OWN_FROM && unsettled::is_open(source, &id)?;
    let (state, note) = if dead.code.0 < OWN_FROM {
        (DeadState::Refused, "")
    } else if is_open {
        (DeadState::MayBeDelivered, "; it may have been delivered")
    } else if dead.code == SET_BACK {
        (DeadState::MayBeDelivered, "")
    } else if dead.code == NEW_IDENTITY {
        (DeadState::MayBeDelivered, "; it may have been delivered")
    } else {
        (DeadState::NotDelivered, "")
    };
    Ok(DeadLetter {
        id,
        state,
        is_open,
        at_ms: dead.at_ms,
        code: dead.code,
        reason: format!("{}{note}", reason(dead.code)),
        message: dead.message,
    })
}

/// The letters that match, by peer, lane and sequence, and how many match in all.
pub(crate) fn letters(
    source: &impl Source,
    filter: &Filter,
    limit: usize,
) -> Result<Listing<DeadLetter>, ReadFault> {
    let prefix = filter.peer.map_or(Key::table(Table::Dead), Key::dead_of);
    let mut total = 0;
    let mut found = Vec::new();
    source.scan_prefix(&prefix, &mut |key, plain| {
        if let Ok(Ok(dead)) = plain.map(|plain| Dead::decode(&plain)) {
            let topic = dead.message.as_ref().map(|message| &*message.topic);
            let is_meant = match (&filter.topic, topic) {
                (None, _) => true,
                (Some(_), None) => false,
                // A topic is a word of users: a report's own is none of theirs.
                (Some(_), Some(topic)) => key.lane() == Lane::User && filter.takes_topic(topic),
            };
            if is_meant && !dead.is_stub() {
                total += 1;
                if found.len() < limit {
                    found.push((key, dead));
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    let mut nonces = BTreeMap::new();
    let mut rows = Vec::with_capacity(found.len());
    for (key, dead) in found {
        let (peer, lane, boot) = (key.peer_number(), key.lane(), key.boot_number());
        let nonce = match nonces.get(&(peer, lane, boot)) {
            Some(nonce) => *nonce,
            None => {
                let nonce = lines::nonce(source, peer, lane, boot)?.unwrap_or(0);
                nonces.insert((peer, lane, boot), nonce);
                nonce
            }
        };
        let position = Position {
            epoch: Epoch { boot, nonce },
            sequence: key.last_u64(),
        };
        let id = ReceiptId {
            peer,
            lane,
            position,
        };
        rows.push(letter(source, id, dead)?);
    }
    Ok(Listing { total, rows })
}

/// Accepts a letter's message anew, as new in every respect: its own number, age and attempts.
pub(crate) fn retry(view: &mut View, id: &ReceiptId) -> Result<Accepted, Refused> {
    let dead = find(view, id)?;
    if unsettled::is_open(view, id)? {
        return Err(Refused::Unsettled {
            receipt: id.to_string(),
        });
    }
    let mut message = dead.message.ok_or_else(|| Refused::LetterDamaged {
        receipt: id.to_string(),
    })?;
    message.born_ms = view.now_ms();
    let gone = held::weight(&message);
    let new = NewMessage::new(message);
    let accepted = outbox::accept_again(view, id.peer, id.lane, new)?;
    held::Change::default().dead(0, gone).write(view)?;
    let [accepted] = accepted[..] else {
        return Err(Refused::Exhausted("sequence"));
    };
    strike_off(view, id)?;
    remove(view, id)?;
    outcomes::put(view, id, &Outcome::RetriedAs(accepted.id))?;
    Ok(accepted)
}

/// Deletes a letter for good.
pub(crate) fn drop(view: &mut View, id: &ReceiptId) -> Result<(), Refused> {
    let dead = find(view, id)?;
    let gone = dead.message.as_ref().map_or(0, held::weight);
    held::Change::default().dead(0, gone).write(view)?;
    strike_off(view, id)?;
    remove(view, id)?;
    let outcome = Outcome::Failed {
        reason: reason(DROPPED).to_owned(),
        output: Vec::new(),
        at_ms: view.now_ms(),
    };
    outcomes::put(view, id, &outcome)
}

/// Nobody asks any more what became of a letter.
fn strike_off(view: &mut View, id: &ReceiptId) -> Result<(), Refused> {
    if unsettled::doubt(view, id)?.is_some()
        && let Some(mut line) = own_line(view, id.peer, id.lane, id.position.epoch)?
    {
        close(view, id, &mut line);
        // ORDER: before the record goes, because a line that is past needs no stub.
        lines::put(view, id.peer, id.lane, id.position.epoch.boot, &line, 0, 0)?;
    }
    Ok(())
}

fn find(view: &View, id: &ReceiptId) -> Result<Dead, Refused> {
    let missing = || Refused::NoSuchLetter {
        receipt: id.to_string(),
    };
    if lines::is_foreign(view, id)? {
        return Err(missing());
    }
    let Position { epoch, sequence } = id.position;
    let key = Key::dead(id.peer, id.lane, epoch.boot, sequence);
    read(view, &key, Dead::decode)?
        .filter(|dead| !dead.is_stub())
        .ok_or_else(missing)
}

/// Takes a letter's record away, or leaves a stub where the line has not passed it.
fn remove(view: &mut View, id: &ReceiptId) -> Result<(), Refused> {
    let Position { epoch, sequence } = id.position;
    let key = Key::dead(id.peer, id.lane, epoch.boot, sequence);
    let line = own_line(view, id.peer, id.lane, epoch)?;
    if line.is_some_and(|line| sequence >= line.first) {
        let stub = Dead::stub(view.now_ms());
        view.put(key, stub.encode());
    } else {
        view.delete(key);
    }
    Ok(())
}
