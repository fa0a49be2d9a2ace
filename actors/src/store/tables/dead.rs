//! Messages that were given up, with the reason.
//!
//! A letter is written in the same batch that deletes its row, so a message is never in two places
//! and never in none. Letters are kept until somebody deals with them; nothing here does.
//!
//! ```text
//! Dead  key  13 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ sequence u64
//!       value layout u8 = 1 ‖ at ms u64 ‖ code u16 ‖ 0, or 1 ‖ message
//! ```

use packhorse_protocol::epoch::{Lane, Position, Refusal, RefusalCode};
use packhorse_protocol::message::Message;

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::View;

use super::outbox::{decode_row, find_oldest, is_dead, own_line};
use super::peers::PeerNumber;
use super::{lines, read};

/// A letter that was given up.
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

/// A code of our own, above all that travel: the row does not open here.
const DAMAGED_HERE: RefusalCode = RefusalCode(0xff01);

/// What a person is told.
pub(super) fn reason(code: RefusalCode) -> &'static str {
    if code == DAMAGED_HERE {
        "the message was damaged in this node's store before it was delivered"
    } else {
        code.reason()
    }
}

/// Moves a refused message to the dead letters.
pub(super) fn bury(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    refusal: &Refusal,
) -> Result<(), Refused> {
    let (boot, sequence) = (refusal.epoch.boot, refusal.sequence);
    let is_ours = match own_line(view, peer, lane, refusal.epoch)? {
        Some(line) => sequence < line.next,
        None => false,
    };
    let row = Key::outbox(peer, lane, boot, sequence);
    if !is_ours {
        // Repeated until confirmed, so it comes again after its line has become past.
        return Ok(());
    }
    let message = match read(view, &row, decode_row) {
        Ok(Some((_, message))) => Some(message),
        Ok(None) => return Ok(()),
        Err(ReadFault::Damaged { .. }) => {
            set_aside(view, &row)?;
            None
        }
        Err(fault) => return Err(fault.into()),
    };
    let dead = Dead {
        at_ms: view.now_ms(),
        code: refusal.code,
        message,
    };
    view.put(Key::dead(peer, lane, boot, sequence), dead.encode());
    view.delete(row);
    Ok(())
}

/// A waiting row that does not open becomes a dead letter, and its bytes go to the quarantine, so
/// that those behind it can be sent.
pub(crate) fn bury_damaged(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    position: Position,
) -> Result<(), Refused> {
    let (boot, sequence) = (position.epoch.boot, position.sequence);
    let row = Key::outbox(peer, lane, boot, sequence);
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
    // Else a line whose last row was damaged would seem to wait for ever.
    if let Some(mut line) = own_line(view, peer, lane, position.epoch)?
        && line.first == sequence
    {
        find_oldest(view, peer, lane, boot, &mut line)?;
        lines::put(view, peer, lane, boot, &line, 0, 1)?;
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
