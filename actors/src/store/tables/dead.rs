//! Messages that were given up, with the reason.
//!
//! A letter is written in the same batch that deletes its row, so a message is never in two places
//! and never in none. Letters are kept until the recipient turns out to have the message, or until
//! somebody sends it again or drops it. A letter's state is not in its record: it is refused when
//! the code is the recipient's, may be delivered while `unsettled.rs` lists it as offered or when
//! this store was set back over it or left its identity, else not delivered.
//! A letter that is dropped or sent again while its line has not passed it leaves a stub: code
//! 0xff04 without a message.
//!
//! ```text
//! Dead  key  13 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ sequence u64
//!       value layout u8 = 1 ‖ at ms u64 ‖ code u16 ‖ 0, or 1 ‖ message
//! ```

use std::collections::BTreeMap;

use packhorse_protocol::epoch::{Lane, Position, Refusal, RefusalCode};
use packhorse_protocol::message::Message;

use crate::events::Fact;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::receipt::ReceiptId;
use crate::store::view::View;

use super::lines::{self, Line};
use super::loading::is_dead;
use super::outbox::decode_row;
use super::peers::PeerNumber;
use super::settling::{Work, find_oldest, own_line};
use super::unsettled::{self, Doubt};
use super::{held, read};

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
    /// The next session with the recipient tells how it ended.
    pub is_open: bool,
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
/// Its recipient was forgotten.
pub(super) const REVOKED: RefusalCode = RefusalCode(0xff05);
/// This store was set back, and by its recipient's mark the message had left it before that, or had
/// been given up before that.
pub(super) const SET_BACK: RefusalCode = RefusalCode(0xff06);
/// This store was set back, and another message had left it under this number before that.
pub(super) const NUMBER_TAKEN: RefusalCode = RefusalCode(0xff07);
/// This node took another identity before the recipient had told the end of it.
pub(super) const NEW_IDENTITY: RefusalCode = RefusalCode(0xff08);
/// The least of our own codes.
pub(super) const OWN_FROM: u16 = 0xff00;

/// What a person is told.
pub(super) fn reason(code: RefusalCode) -> &'static str {
    match code {
        DAMAGED_HERE => "the message was damaged in this node's store before it was delivered",
        GAVE_UP => "it could not be delivered within 3 attempts and a minute, or within a day",
        EXPIRED => "it expired before it was delivered",
        DROPPED => "dropped by hand",
        REVOKED => "revoked: its recipient was forgotten",
        SET_BACK => {
            "this node's store was set back to an older state: the message had been delivered or given up before that"
        }
        NUMBER_TAKEN => {
            "this node's store was set back to an older state: the message that this one replaced had left before that"
        }
        NEW_IDENTITY => "this node took a new identity before its recipient had answered",
        code => code.reason(),
    }
}

/// Whether a record only says that there was a letter: it was dropped or sent again before its line
/// had passed it, and without the record its sequence would count as damaged.
pub(super) fn is_stub(plain: &[u8]) -> bool {
    Dead::decode(plain).is_ok_and(|dead| dead.is_stub())
}

impl Dead {
    /// A letter of which nothing but its place is left.
    pub(super) fn damaged(at_ms: u64) -> Self {
        Self {
            at_ms,
            code: DAMAGED_HERE,
            message: None,
        }
    }

    pub(super) fn stub(at_ms: u64) -> Self {
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
/// writes the line, and what the boxes hold.
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
) -> Result<(), Refused> {
    let dead = Dead {
        at_ms: view.now_ms(),
        code,
        message: Some(message),
    };
    view.put(Key::dead(peer, lane, boot, sequence), dead.encode());
    view.delete(Key::outbox(peer, lane, boot, sequence));
    line.holes += 1;
    if sequence <= line.offered {
        if unsettled::add(view, peer, lane, boot, sequence)? {
            line.unsettled += 1;
        }
        return Ok(());
    }
    line.edits += 1;
    if boot != view.epoch().boot
        && unsettled::add_doubt(view, peer, lane, boot, sequence, Doubt::GivenUp)?
    {
        line.unsettled += 1;
    }
    Ok(())
}

/// A message that this store never offered, and by the recipient's mark something had left under
/// its number: it becomes a letter that says so, or its letter does. The caller strikes it off the
/// list and writes the line.
pub(super) fn bury_taken(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    sequence: u64,
    doubt: Doubt,
    work: &mut Work,
) -> Result<Option<RefusalCode>, Refused> {
    let letter = Key::dead(peer, lane, boot, sequence);
    let code = match doubt {
        Doubt::Offered => {
            delete(view, letter)?;
            return Ok(None);
        }
        Doubt::GivenUp => SET_BACK,
        Doubt::Rewritten => NUMBER_TAKEN,
    };
    let row = Key::outbox(peer, lane, boot, sequence);
    let mut change = held::Change::default();
    let dead = match read(view, &row, decode_row) {
        Ok(Some(row)) => {
            let at_ms = view.now_ms();
            let weight = held::weight(&row.message);
            change = change.outbox(0, weight).dead(weight, 0);
            Some(Dead {
                at_ms,
                code,
                message: Some(row.message),
            })
        }
        Ok(None) => {
            let dead = match read(view, &letter, Dead::decode) {
                Ok(dead) => dead.filter(|dead| !dead.is_stub()),
                // It stays as it is: one that says nothing must not hold up what comes behind it.
                Err(fault) if fault.is_damage() => None,
                Err(fault) => return Err(fault.into()),
            };
            if let Some(dead) = dead {
                view.put(letter, Dead { code, ..dead }.encode());
                return Ok(Some(code));
            }
            None
        }
        Err(ReadFault::Damaged { .. }) => {
            change = change.outbox(0, held::weight_of_damaged(view, &row));
            set_aside(view, &row)?;
            let at_ms = view.now_ms();
            Some(Dead {
                at_ms,
                code: DAMAGED_HERE,
                message: None,
            })
        }
        Err(fault) => return Err(fault.into()),
    };
    let Some(dead) = dead else { return Ok(None) };
    change.write(view)?;
    view.put(letter, dead.encode());
    view.delete(row);
    work.line.holes += 1;
    work.settled += 1;
    work.is_torn = true;
    Ok(Some(dead.code))
}

/// Takes a letter away with what it holds. Returns what that weighed.
pub(super) fn delete(view: &mut View, letter: Key) -> Result<u64, Refused> {
    let gone = match read(view, &letter, Dead::decode) {
        Ok(dead) => weight_of(dead.as_ref()),
        Err(fault) if fault.is_damage() => held::weight_of_damaged(view, &letter),
        Err(fault) => return Err(fault.into()),
    };
    held::Change::default().dead(0, gone).write(view)?;
    view.delete(letter);
    Ok(gone)
}

fn weight_of(dead: Option<&Dead>) -> u64 {
    let message = dead.and_then(|dead| dead.message.as_ref());
    message.map_or(0, held::weight)
}

/// Takes a waiting row away without a letter: a report for a peer that was forgotten is nobody's.
/// The caller writes the line, and what the boxes hold.
pub(super) fn erase(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    line: &mut Line,
    sequence: u64,
) {
    let stub = Dead::stub(view.now_ms());
    view.put(Key::dead(peer, lane, boot, sequence), stub.encode());
    view.delete(Key::outbox(peer, lane, boot, sequence));
    line.holes += 1;
    if sequence > line.offered {
        line.edits += 1;
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
    let (message, gone) = match read(view, &row, decode_row) {
        Ok(Some(row)) => {
            let weight = held::weight(&row.message);
            (Some(row.message), weight)
        }
        Ok(None) => return end_by_refusal(view, &letter, peer, lane, refusal, work),
        Err(ReadFault::Damaged { .. }) => {
            let gone = held::weight_of_damaged(view, &row);
            set_aside(view, &row)?;
            (None, gone)
        }
        Err(fault) => return Err(fault.into()),
    };
    let kept = message.as_ref().map_or(0, held::weight);
    let change = held::Change::default().outbox(0, gone).dead(kept, 0);
    change.write(view)?;
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
    let doubt = match work.line.unsettled {
        0 => None,
        _ => unsettled::doubt(view, &id)?,
    };
    if !matches!(doubt, Some(Doubt::Offered | Doubt::GivenUp)) {
        return Ok(false);
    }
    match read(view, letter, Dead::decode) {
        Ok(Some(dead)) => {
            let code = refusal.code;
            view.put(*letter, Dead { code, ..dead }.encode());
        }
        Ok(None) => {}
        // It stays as it is.
        Err(fault) if fault.is_damage() => {}
        Err(fault) => return Err(fault.into()),
    }
    close(view, &id, &mut work.line);
    Ok(true)
}

/// Strikes a letter off the open ones. The caller writes the line.
pub(super) fn close(view: &mut View, id: &ReceiptId, line: &mut Line) {
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
    let gone = held::weight_of_damaged(view, &row);
    held::Change::default().outbox(0, gone).write(view)?;
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

/// Keeps the bytes of a record that does not open.
pub(crate) fn set_aside(view: &mut View, key: &Key) -> Result<(), Refused> {
    // Counted and told also where its block cannot be read and nothing of it is left.
    view.note_damaged(key);
    match view.raw(key) {
        Ok(Some(raw)) => view.put(Key::quarantine(key), raw.to_vec()),
        // The block that held it cannot be read: there are no bytes to keep.
        Ok(None) => {}
        Err(fault) if fault.is_damage() => {}
        Err(fault) => return Err(fault.into()),
    }
    Ok(())
}
