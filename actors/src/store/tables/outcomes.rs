//! What became of messages of ours where their place does not say it: what a handler there wrote,
//! why one failed, and as which message a dead letter was sent again.
//!
//! Kept for 30 days, at most a million of them. Behind that a message is told as its line and the
//! handled stretches have it.
//!
//! ```text
//! Outcome       key  19 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ sequence u64
//!               value layout u8 = 1 ‖ nonce u64 ‖ order u64 ‖ kind u8 ‖ fields
//!                     kind 1 done: at ms u64 ‖ output
//!                     kind 2 failed: at ms u64 ‖ reason text ‖ output
//!                     kind 3 sent again: receipt 25
//! OutcomeOrder  key  20 ‖ number u64          value layout u8 = 1 ‖ receipt 25 ‖ at ms u64
//! Meta 8        key   3 ‖ 8                   value layout u8 = 1 ‖ oldest number u64 ‖ next number u64
//! ```

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Meta};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::receipt::ReceiptId;
use crate::store::view::{Note, Source, View};

use super::read;

/// How long an outcome is kept.
const KEPT_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// How many are kept: 1,000,000 × about 250 bytes with their order, more with output.
const KEPT_COUNT: u64 = 1_000_000;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Handled there, and its handler wrote something.
    Done { output: Vec<u8>, at_ms: u64 },
    /// Given up there, or dropped here by hand.
    Failed {
        reason: String,
        output: Vec<u8>,
        at_ms: u64,
    },
    /// The dead letter was sent again under this name.
    RetriedAs(ReceiptId),
}

/// An outcome as it is kept: with the nonce of its epoch and its number in the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) nonce: u64,
    pub(super) order: u64,
    pub(super) outcome: Outcome,
}

impl Kept {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut pen = Pen::new(1, 64);
        pen.u64(self.nonce).u64(self.order);
        match &self.outcome {
            Outcome::Done { output, at_ms } => pen.u8(1).u64(*at_ms).blob(output),
            Outcome::Failed {
                reason,
                output,
                at_ms,
            } => pen.u8(2).u64(*at_ms).text(reason).blob(output),
            Outcome::RetriedAs(id) => pen.u8(3).raw(&id.to_bytes()),
        };
        pen.done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let (nonce, order) = (cursor.u64()?, cursor.u64()?);
        let outcome = match cursor.u8()? {
            1 => Outcome::Done {
                at_ms: cursor.u64()?,
                output: cursor.blob()?.to_vec(),
            },
            2 => Outcome::Failed {
                at_ms: cursor.u64()?,
                reason: cursor.text()?,
                output: cursor.blob()?.to_vec(),
            },
            3 => Outcome::RetriedAs(ReceiptId::from_bytes(&cursor.array()?).ok_or(Malformed)?),
            _ => return Err(Malformed),
        };
        cursor.end()?;
        Ok(Self {
            nonce,
            order,
            outcome,
        })
    }
}

fn key_of(id: &ReceiptId) -> Key {
    let at = id.position;
    Key::outcome(id.peer, id.lane, at.epoch.boot, at.sequence)
}

fn kept(source: &impl Source, id: &ReceiptId) -> Result<Option<Kept>, ReadFault> {
    let kept = read(source, &key_of(id), Kept::decode)?;
    Ok(kept.filter(|kept| kept.nonce == id.position.epoch.nonce))
}

/// What became of a message, where that was written down.
pub(crate) fn find(source: &impl Source, id: &ReceiptId) -> Result<Option<Outcome>, ReadFault> {
    Ok(kept(source, id)?.map(|kept| kept.outcome))
}

/// Writes down what became of a message, in the place of what was known before, and forgets as
/// many old ones as are due.
pub(crate) fn put(view: &mut View, id: &ReceiptId, outcome: &Outcome) -> Result<(), Refused> {
    let mut order = order(view)?;
    let number = order.next;
    let at_ms = view.now_ms();
    let entry = Entry { id: *id, at_ms };
    view.put(Key::outcome_order(number), entry.encode());
    write(view, id, number, outcome);
    order.next += 1;
    // Two for each new one, so that a backlog shrinks and no job has to clear all of it.
    for _ in 0..2 {
        if !forget_oldest(view, &mut order)? {
            break;
        }
    }
    put_order(view, order);
    Ok(())
}

/// The same for what a peer reports. One that speaks of the same message again and again takes
/// one place in the order, and pushes out nothing of others.
pub(crate) fn put_report(
    view: &mut View,
    id: &ReceiptId,
    outcome: &Outcome,
) -> Result<(), Refused> {
    let known = match kept(view, id) {
        Ok(known) => known,
        // Its number is lost with it.
        Err(fault) if fault.is_damage() => None,
        Err(fault) => return Err(fault.into()),
    };
    match known {
        Some(known) => {
            write(view, id, known.order, outcome);
            Ok(())
        }
        None => put(view, id, outcome),
    }
}

fn write(view: &mut View, id: &ReceiptId, number: u64, outcome: &Outcome) {
    let kept = Kept {
        nonce: id.position.epoch.nonce,
        order: number,
        outcome: outcome.clone(),
    };
    view.put(key_of(id), kept.encode());
    view.note(Note::Outcomes {
        peer: id.peer,
        count: 1,
    });
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Order {
    oldest: u64,
    next: u64,
}

fn order(source: &impl Source) -> Result<Order, ReadFault> {
    let order = read(source, &Key::meta(Meta::Outcomes), |bytes| {
        let mut cursor = Cursor::new(1, bytes)?;
        let order = Order {
            oldest: cursor.u64()?,
            next: cursor.u64()?,
        };
        cursor.end()?;
        Ok(order)
    })?;
    Ok(order.unwrap_or_default())
}

fn put_order(view: &mut View, order: Order) {
    let bytes = Pen::new(1, 16).u64(order.oldest).u64(order.next).done();
    view.put(Key::meta(Meta::Outcomes), bytes);
}

/// One number of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: ReceiptId,
    pub(super) at_ms: u64,
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 33)
            .raw(&self.id.to_bytes())
            .u64(self.at_ms)
            .done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let entry = Self {
            id: ReceiptId::from_bytes(&cursor.array()?).ok_or(Malformed)?,
            at_ms: cursor.u64()?,
        };
        cursor.end()?;
        Ok(entry)
    }
}

fn forget_oldest(view: &mut View, order: &mut Order) -> Result<bool, Refused> {
    if order.oldest == order.next {
        return Ok(false);
    }
    let key = Key::outcome_order(order.oldest);
    let entry = match read(view, &key, Entry::decode) {
        Ok(entry) => entry,
        // It says nothing any more, and what it spoke of is kept for longer. No report may be
        // refused for it: that would end the session, and the next one at the same place.
        Err(fault) if fault.is_damage() => {
            view.delete(key);
            None
        }
        Err(fault) => return Err(fault.into()),
    };
    if let Some(entry) = entry {
        let is_old = view.now_ms().saturating_sub(entry.at_ms) > KEPT_MS;
        if !is_old && order.next - order.oldest <= KEPT_COUNT {
            return Ok(false);
        }
        // One that was written again since then has a later number, and stays.
        let is_named = match kept(view, &entry.id) {
            Ok(kept) => kept.is_some_and(|kept| kept.order == order.oldest),
            Err(fault) if fault.is_damage() => true,
            Err(fault) => return Err(fault.into()),
        };
        if is_named {
            view.delete(key_of(&entry.id));
        }
        view.delete(key);
    }
    order.oldest += 1;
    Ok(true)
}
