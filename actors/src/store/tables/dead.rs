//! Messages that were given up, with the reason.
//!
//! A letter is written in the same batch that deletes its row, so a message is never in two places
//! and never in none. Letters are kept until the recipient turns out to have the message, or until
//! somebody sends it again or drops it. A letter's state is not in its record: it is refused when
//! the code is the recipient's, may be delivered while `unsettled.rs` lists it, else not delivered.
//! A letter that is dropped or sent again while its line has not passed it leaves a stub: code
//! 0xff04 without a message.
//!
//! ```text
//! Dead  key  13 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ sequence u64
//!       value layout u8 = 1 ‖ at ms u64 ‖ code u16 ‖ 0, or 1 ‖ message
//! ```

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Epoch, Lane, Position, Refusal, RefusalCode};
use packhorse_protocol::message::Message;

use crate::events::Fact;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::receipt::ReceiptId;
use crate::store::view::{Source, View};

use super::lines::{self, Line};
use super::loading::is_dead;
use super::outbox::{self, Accepted, Filter, Listing, NewMessage, decode_row};
use super::outcomes::{self, Outcome};
use super::peers::PeerNumber;
use super::settling::{Work, find_oldest, own_line};
use super::{read, unsettled};

/// What is known of the end of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadState {
    /// The recipient certainly does not have it.
    NotDelivered,
    /// It was offered to the recipient; the next session tells.
    MayBeDelivered,
    /// The recipient refused it.
    Refused,
}

/// A message that was given up, for those who deal with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The receipt that the message was accepted under.
    pub id: ReceiptId,
    /// What is known of its end.
    pub state: DeadState,
    /// When it was given up.
    pub at_ms: u64,
    /// Why, as a number: the recipient's, or from 0xff00 one of ours.
    pub code: RefusalCode,
    /// Why, for people.
    pub reason: String,
    /// `None` when it had become unreadable.
    pub message: Option<Message>,
}

/// A letter as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) at_ms: u64,
    pub(crate) code: RefusalCode,
    /// `None` when the row had become unreadable; its bytes lie in the quarantine.
    pub(crate) message: Option<Message>,
}

impl Dead {
    pub(super) fn encode(&self) -> Vec<u8> {
        let weight = self.message.as_ref().map_or(0, Message::weight);
        let mut pen = Pen::new(1, 64 + weight);
        pen.u64(self.at_ms).u16(self.code.0);
        match &self.message {
            None => pen.u8(0),
            Some(message) => pen.u8(1).message(message),
        };
        pen.done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let (at_ms, code) = (cursor.u64()?, RefusalCode(cursor.u16()?));
        let message = match cursor.u8()? {
            0 => None,
            1 => Some(cursor.message()?),
            _ => return Err(Malformed),
        };
        cursor.end()?;
        Ok(Self {
            at_ms,
            code,
            message,
        })
    }
}

// Codes of our own, above all that travel. They are on disk and are never reused.

/// The row does not open here.
pub(super) const DAMAGED_HERE: RefusalCode = RefusalCode(0xff01);
/// It was moderate, and its attempts or its day are over.
pub(super) const GAVE_UP: RefusalCode = RefusalCode(0xff02);
/// The end that it was accepted with has passed.
pub(super) const EXPIRED: RefusalCode = RefusalCode(0xff03);
/// Somebody dropped it.
pub(super) const DROPPED: RefusalCode = RefusalCode(0xff04);
/// The least of our own codes.
const OWN_FROM: u16 = 0xff00;

/// What a person is told.
pub(super) fn reason(code: RefusalCode) -> &'static str {
    match code {
        DAMAGED_HERE => "the message was damaged in this node's store before it was delivered",
        GAVE_UP => "it could not be delivered within 3 attempts and a minute, or within a day",
        EXPIRED => "it expired before it was delivered",
        DROPPED => "dropped by hand",
        code => code.reason(),
    }
}

/// Whether a record only says that there was a letter: it was dropped or sent again before its line
/// had passed it, and without the record its sequence would count as damaged.
pub(super) fn is_stub(plain: &[u8]) -> bool {
    Dead::decode(plain).is_ok_and(|dead| dead.is_stub())
}

impl Dead {
    fn stub(at_ms: u64) -> Self {
        Self {
            at_ms,
            code: DROPPED,
            message: None,
        }
    }

    /// A letter that was dropped from the outbox has its message; only a stub has none.
    pub(super) fn is_stub(&self) -> bool {
        self.code == DROPPED && self.message.is_none()
    }
}

/// Tells that messages were given up, once per job and reason.
pub(super) fn facts_given_up(
    view: &mut View,
    peer: PeerNumber,
    codes: impl Iterator<Item = RefusalCode>,
) {
    let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
    codes.for_each(|code| *counts.entry(code.0).or_default() += 1);
    for (code, count) in counts {
        facts(view, peer, RefusalCode(code), count);
    }
}

fn facts(view: &mut View, peer: PeerNumber, code: RefusalCode, count: u64) {
    let reason = reason(code).to_owned();
    view.fact(if code.0 < OWN_FROM {
        Fact::RefusedThere {
            peer,
            count,
            reason,
        }
    } else {
        Fact::GivenUp {
            peer,
            count,
            reason,
        }
    });
}

/// Makes a waiting row a dead letter: one that was offered may have been delivered. The caller
/// writes the line.
#[expect(
    clippy::too_many_arguments,
    reason = "the key of a row, its line, and why"
)]
pub(super) fn give_up(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    line: &mut Line,
    sequence: u64,
    code: RefusalCode,
    message: Message,
) {
    let dead = Dead {
        at_ms: view.now_ms(),
        code,
        message: Some(message),
    };
    view.put(Key::dead(peer, lane, boot, sequence), dead.encode());
    view.delete(Key::outbox(peer, lane, boot, sequence));
    line.holes += 1;
    if sequence > line.offered {
        line.edits += 1;
    } else {
        unsettled::add(view, peer, lane, boot, sequence);
        line.unsettled += 1;
    }
}

/// Makes a refused message a dead letter, or tells by the refusal how a letter that was given up
/// here has ended. Returns whether it was news.
pub(super) fn bury(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    refusal: &Refusal,
    work: &mut Work,
) -> Result<bool, Refused> {
    let (boot, sequence) = (refusal.epoch.boot, refusal.sequence);
    if sequence >= work.line.next {
        return Ok(false);
    }
    let row = Key::outbox(peer, lane, boot, sequence);
    let letter = Key::dead(peer, lane, boot, sequence);
    let code = refusal.code;
    let message = match read(view, &row, decode_row) {
        Ok(Some(row)) => Some(row.message),
        Ok(None) => return end_by_refusal(view, &letter, peer, lane, refusal, work),
        Err(ReadFault::Damaged { .. }) => {
            set_aside(view, &row)?;
            None
        }
        Err(fault) => return Err(fault.into()),
    };
    let at_ms = view.now_ms();
    let dead = Dead {
        at_ms,
        code,
        message,
    };
    view.put(letter, dead.encode());
    view.delete(row);
    work.line.holes += 1;
    work.settled += 1;
    work.is_torn = true;
    Ok(true)
}

fn end_by_refusal(
    view: &mut View,
    letter: &Key,
    peer: PeerNumber,
    lane: Lane,
    refusal: &Refusal,
    work: &mut Work,
) -> Result<bool, Refused> {
    let position = Position {
        epoch: refusal.epoch,
        sequence: refusal.sequence,
    };
    let id = ReceiptId {
        peer,
        lane,
        position,
    };
    if work.line.unsettled == 0 || !unsettled::is_open(view, &id)? {
        return Ok(false);
    }
    if let Some(dead) = read(view, letter, Dead::decode)? {
        let code = refusal.code;
        view.put(*letter, Dead { code, ..dead }.encode());
    }
    close(view, &id, &mut work.line);
    Ok(true)
}

/// Strikes a letter off the open ones. The caller writes the line.
fn close(view: &mut View, id: &ReceiptId, line: &mut Line) {
    let Position { epoch, sequence } = id.position;
    view.delete(Key::unsettled(id.peer, id.lane, epoch.boot, sequence));
    line.unsettled = line.unsettled.saturating_sub(1);
}

/// A waiting row that does not open becomes a dead letter, and its bytes go to the quarantine, so
/// that those behind it can be sent. It was never handed to a session that still runs, so it is
/// not delivered.
pub(crate) fn bury_damaged(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    position: Position,
) -> Result<(), Refused> {
    let (boot, sequence) = (position.epoch.boot, position.sequence);
    let row = Key::outbox(peer, lane, boot, sequence);
    let Some(mut line) = own_line(view, peer, lane, position.epoch)? else {
        return Ok(());
    };
    // It may have been settled since it was read.
    if !(line.first..line.next).contains(&sequence) {
        return Ok(());
    }
    match read(view, &row, decode_row) {
        Ok(Some(_)) => return Ok(()),
        Ok(None) if is_dead(view, peer, lane, position)? => return Ok(()),
        Ok(None) => {}
        Err(fault) if fault.is_damage() => set_aside(view, &row)?,
        Err(fault) => return Err(fault.into()),
    }
    let dead = Dead {
        at_ms: view.now_ms(),
        code: DAMAGED_HERE,
        message: None,
    };
    view.put(Key::dead(peer, lane, boot, sequence), dead.encode());
    view.delete(row);
    line.holes += 1;
    // Else a line whose last row was damaged would seem to wait for ever.
    find_oldest(view, peer, lane, boot, &mut line)?;
    lines::put(view, peer, lane, boot, &line, 0, 1)?;
    facts(view, peer, DAMAGED_HERE, 1);
    Ok(())
}

/// A letter as people see it.
pub(super) fn letter(
    source: &impl Source,
    id: ReceiptId,
    dead: Dead,
) -> Result<DeadLetter, ReadFault> {
    let (state, note) = if dead.code.0 < OWN_FROM {
        (DeadState::Refused, "")
    } else if unsettled::is_open(source, &id)? {
        (DeadState::MayBeDelivered, "; it may have been delivered")
    } else {
        (DeadState::NotDelivered, "")
    };
    Ok(DeadLetter {
        id,
        state,
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
        let (peer, lane, boot) = (key.peer_number(), key.lane(), key.boot_of_letter());
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
    let new = vec![NewMessage::new(message)];
    let accepted = outbox::accept(view, id.peer, id.lane, new)?;
    let [accepted] = accepted[..] else {
        return Err(Refused::Exhausted("sequence"));
    };
    remove(view, id)?;
    outcomes::put(view, id, &Outcome::RetriedAs(accepted.id))?;
    Ok(accepted)
}

/// Deletes a letter for good.
pub(crate) fn drop(view: &mut View, id: &ReceiptId) -> Result<(), Refused> {
    find(view, id)?;
    if unsettled::is_open(view, id)?
        && let Some(mut line) = own_line(view, id.peer, id.lane, id.position.epoch)?
    {
        close(view, id, &mut line);
        // ORDER: before the record goes, because a line that is past needs no stub.
        lines::put(view, id.peer, id.lane, id.position.epoch.boot, &line, 0, 0)?;
    }
    remove(view, id)?;
    let outcome = Outcome::Failed {
        reason: reason(DROPPED).to_owned(),
        output: Vec::new(),
        at_ms: view.now_ms(),
    };
    outcomes::put(view, id, &outcome)
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

/// Keeps the bytes of a record that does not open.
pub(crate) fn set_aside(view: &mut View, key: &Key) -> Result<(), Refused> {
    match view.raw(key) {
        Ok(Some(raw)) => view.put(Key::quarantine(key), raw.to_vec()),
        // The block that held it cannot be read: there are no bytes to keep.
        Ok(None) => {}
        Err(fault) if fault.is_damage() => {}
        Err(fault) => return Err(fault.into()),
    }
    Ok(())
}
