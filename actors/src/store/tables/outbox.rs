//! Messages that wait for their recipient.
//!
//! A message is in exactly one place: in the outbox while it waits, nowhere when its recipient has
//! it, among the dead letters when it was given up. So there is no table of receipts; a receipt's
//! state follows from where the message is, and from what the recipient said of its end.
//! Nothing here knows of sessions. Taking rows out for one is `loading.rs`, deleting them
//! `settling.rs`, giving them up `sweep.rs` and `dead.rs`.
//!
//! ```text
//! Outbox  key  32 ‖ peer u32 ‖ lane u8 ‖ boot u32 ‖ sequence u64
//!         value layout u8 = 2 ‖ bytes before u64 ‖ failures born u32 ‖ expires: 0, or 1 ‖ ms u64 ‖ message
//!         layout 1 has neither failures born (read as 0) nor expires (read as none)
//! message = class u8 ‖ born ms u64 ‖ topic ‖ headers u32 × (name ‖ value) ‖ payload;  text = length u32 ‖ bytes
//! ```
//!
//! `bytes before` is the weight of everything accepted in the line before this message, so that
//! the weight of what waits is known from the oldest row alone; a row that was given up or replaced
//! meanwhile makes it inexact until the line is empty. `failures born` is how often reaching the
//! peer had failed when the row was accepted.

use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Epoch, Lane, Position};
use packhorse_protocol::limits::KEY_BYTES_MAX;
use packhorse_protocol::message::{DeliveryClass, Message};

use crate::store::engine::end_of;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::receipt::ReceiptId;
use crate::store::view::{Source, View};

use super::dead::Dead;
use super::idempotency::{self, Use};
use super::lines::{self, Line};
use super::outcomes::{self, Outcome};
use super::peers::{self, PeerNumber};
use super::settling::own_line;
use super::sweep;
use super::{done, held, letters, read, unsettled};

pub use super::filter::{Filter, Listing};
pub use super::new_message::NewMessage;

/// How many retries of one message a receipt is followed through.
const RETRIES_FOLLOWED_MAX: usize = 64;

/// A message that is safe here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its name.
    pub id: ReceiptId,
    /// Where it is now.
    pub state: ReceiptState,
    /// Its name had been given out before, under the same key; also when it was replaced.
    pub repeated: bool,
}

/// How far a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReceiptState {
    /// Safe here.
    Accepted,
    /// Safe there.
    Stored,
    /// Handled there.
    Done,
    /// Given up, here or there.
    Failed,
}

/// What is known of a message that was accepted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRecord {
    /// Its name.
    pub id: ReceiptId,
    /// How far it came.
    pub state: ReceiptState,
    /// Why it failed.
    pub reason: Option<String>,
    /// The message, while it is here.
    pub message: Option<Message>,
    /// What its handler there wrote, when it wrote something.
    pub output: Option<Vec<u8>>,
    /// When that became known here, where it is known.
    pub at_ms: Option<u64>,
}

/// One row of a listing of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// The message's name; holds peer, lane and position.
    pub id: ReceiptId,
    /// The message.
    pub message: Message,
    /// When it is given up if it still waits, in wall milliseconds.
    pub expires_ms: Option<u64>,
    /// Failed attempts to reach the peer since it was accepted.
    pub failures: u32,
    /// It has certainly not left this node.
    pub unoffered: bool,
}

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) bytes_before: u64,
    pub(crate) failures_born: u32,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) message: Message,
}

impl Stored {
    /// Whether its own end has passed.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.expires_ms
            .is_some_and(|expires_ms| expires_ms <= now_ms)
    }
}

pub(super) fn encode_row(
    bytes_before: u64,
    failures_born: u32,
    expires_ms: Option<u64>,
    message: &Message,
) -> Vec<u8> {
    // 80: the fixed fields of the row and of the message, with a few headers' lengths.
    Pen::new(2, 80 + message.weight())
        .u64(bytes_before)
        .u32(failures_born)
        .maybe_u64(expires_ms)
        .message(message)
        .done()
}

pub(super) fn decode_row(bytes: &[u8]) -> Result<Stored, Malformed> {
    let (layout, mut cursor) = Cursor::of_layouts(1..=2, bytes)?;
    let bytes_before = cursor.u64()?;
    let (failures_born, expires_ms) = if layout == 1 {
        (0, None)
    } else {
        (cursor.u32()?, cursor.maybe_u64()?)
    };
    let message = cursor.message()?;
    cursor.end()?;
    Ok(Stored {
        bytes_before,
        failures_born,
        expires_ms,
        message,
    })
}

/// One call of [`accept`] under way.
struct Accepting {
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
    /// The line that new messages go into. Written at the end.
    line: Line,
    /// Keys that this call has used.
    uses: Vec<([u8; 16], Use)>,
    failures: u32,
    /// Weight of what it adds, and of what it takes the place of.
    added: u64,
    replaced: u64,
    /// Whether anything is new here.
    is_new_work: bool,
}

/// Accepts messages for one peer and lane, all or none.
pub(crate) fn accept(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    messages: Vec<NewMessage>,
) -> Result<Vec<Accepted>, Refused> {
    accept_all(view, peer, lane, messages, false)
}

/// The same for a message that was among the dead letters.
pub(super) fn accept_again(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    message: NewMessage,
) -> Result<Vec<Accepted>, Refused> {
    accept_all(view, peer, lane, vec![message], true)
}

fn accept_all(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    messages: Vec<NewMessage>,
    is_retry: bool,
) -> Result<Vec<Accepted>, Refused> {
    let failures = peers::failures(view, peer)?.ok_or(Refused::NoSuchPeer(peer))?;
    let epoch = view.epoch();
    let before = lines::line(view, peer, lane, epoch.boot)?.unwrap_or(Line::new(epoch.nonce));
    let mut call = Accepting {
        peer,
        lane,
        epoch,
        line: before,
        uses: Vec::new(),
        failures,
        added: 0,
        replaced: 0,
        is_new_work: false,
    };
    let mut accepted = Vec::with_capacity(messages.len());
    for new in messages {
        check(&new.message, new.key.as_deref())?;
        accepted.push(call.take(view, &new)?);
    }
    // ORDER: after all of them were looked at, because one that is here already needs no room. What
    // the nodes tell each other is never held up: it is what ends old work.
    if call.is_new_work && lane == Lane::User {
        let more = call.added.saturating_sub(call.replaced);
        held::check_sending(view, more, is_retry)?;
    }
    let change = held::Change::default().outbox(call.added, call.replaced);
    change.write(view)?;
    idempotency::remember(view, &call.uses)?;
    if call.line != before {
        let grown = call.line.next - before.next;
        lines::put(view, peer, lane, epoch.boot, &call.line, grown, 0)?;
    }
    Ok(accepted)
}

impl Accepting {
    fn take(&mut self, view: &mut View, new: &NewMessage) -> Result<Accepted, Refused> {
        let key = match &new.key {
            None => None,
            Some(key) => {
                let hash = idempotency::hash(view, self.peer, key);
                let content = idempotency::content(view, &new.message);
                // Within one call a key may come twice as well.
                let within = self.uses.iter().position(|(known, _)| *known == hash);
                let used = match within.and_then(|index| self.uses.get(index)) {
                    Some((_, used)) => Some(*used),
                    None => idempotency::find(view, hash)?,
                };
                match used {
                    Some(used) if used.content == content => return self.repeated(view, &used),
                    Some(used) if new.replace => {
                        return self.replace(view, new, hash, Use { content, ..used });
                    }
                    Some(used) => {
                        return Err(Refused::KeyConflict {
                            receipt: used.receipt.to_string(),
                        });
                    }
                    None => Some((hash, content)),
                }
            }
        };
        check_end(view, new)?;
        let id = self.append(view, new);
        if let Some((hash, content)) = key {
            let (receipt, at_ms) = (id, view.now_ms());
            let used = Use {
                receipt,
                content,
                at_ms,
            };
            self.uses.push((hash, used));
        }
        Ok(Accepted {
            id,
            state: ReceiptState::Accepted,
            repeated: false,
        })
    }

    fn append(&mut self, view: &mut View, new: &NewMessage) -> ReceiptId {
        let Accepting {
            peer,
            lane,
            epoch,
            line,
            failures,
            ..
        } = self;
        let sequence = line.next;
        let row = encode_row(line.bytes_accepted, *failures, new.expires_ms, &new.message);
        view.put(Key::outbox(*peer, *lane, epoch.boot, sequence), row);
        if line.waiting() == 0 {
            line.oldest_born_ms = Some(new.message.born_ms);
        }
        if !line.is_limited() {
            line.limited_first = sequence;
            line.due_ms = None;
        }
        match sweep::first_due(&new.message, new.expires_ms) {
            Some(due_ms) => line.limit(sequence, due_ms),
            // None of those before has a limit, nor has this one.
            None if line.limited_first == sequence => line.limited_first += 1,
            None => {}
        }
        line.bytes_accepted += new.message.weight() as u64;
        line.next += 1;
        self.added += held::weight(&new.message);
        self.is_new_work = true;
        ReceiptId {
            peer: *peer,
            lane: *lane,
            position: Position {
                epoch: *epoch,
                sequence,
            },
        }
    }

    fn repeated(&self, view: &View, used: &Use) -> Result<Accepted, Refused> {
        // The line of this call is not written yet, so it could not answer for it.
        let state = if self.uses.iter().any(|(_, known)| known == used) {
            ReceiptState::Accepted
        } else {
            state(view, &used.receipt)?.unwrap_or(ReceiptState::Stored)
        };
        Ok(Accepted {
            id: used.receipt,
            state,
            repeated: true,
        })
    }

    /// Rewrites a row that has certainly not left this node. `used` names its receipt and the new
    /// content.
    fn replace(
        &mut self,
        view: &mut View,
        new: &NewMessage,
        hash: [u8; 16],
        used: Use,
    ) -> Result<Accepted, Refused> {
        check_end(view, new)?;
        let id = used.receipt;
        let too_late = || Refused::TooLate {
            receipt: id.to_string(),
        };
        let Position { epoch, sequence } = id.position;
        let is_this_line = (id.lane, epoch) == (self.lane, self.epoch);
        let mut line = if is_this_line {
            self.line
        } else {
            own_line(view, id.peer, id.lane, epoch)?.ok_or_else(too_late)?
        };
        if !(line.first.max(line.offered + 1)..line.next).contains(&sequence) {
            return Err(too_late());
        }
        let key = Key::outbox(id.peer, id.lane, epoch.boot, sequence);
        let before = read(view, &key, decode_row)?.ok_or_else(too_late)?;
        let row = encode_row(
            before.bytes_before,
            self.failures,
            new.expires_ms,
            &new.message,
        );
        view.put(key, row);
        self.added += held::weight(&new.message);
        self.replaced += held::weight(&before.message);
        self.is_new_work = true;
        line.edits += 1;
        unsettled::doubt_rewritten(view, &id, &mut line)?;
        if let Some(due_ms) = sweep::first_due(&new.message, new.expires_ms) {
            line.limit(sequence, due_ms);
        }
        if sequence == line.first {
            line.oldest_born_ms = Some(new.message.born_ms);
        }
        if is_this_line {
            self.line = line;
        } else {
            lines::put(view, id.peer, id.lane, epoch.boot, &line, 0, 0)?;
        }
        match self.uses.iter_mut().find(|(known, _)| *known == hash) {
            Some((_, known)) => *known = used,
            None => idempotency::rewrite(view, hash, &used),
        }
        Ok(Accepted {
            id,
            state: ReceiptState::Accepted,
            repeated: true,
        })
    }
}

/// A message that is over before it begins is a mistake of whoever sends it. Not asked of one that
/// was accepted before: repeating it has to give its receipt.
fn check_end(view: &View, new: &NewMessage) -> Result<(), Refused> {
    let now_ms = view.now_ms();
    match new.expires_ms {
        Some(expires_ms) if expires_ms <= now_ms => {
            Err(Refused::ExpiresPast { expires_ms, now_ms })
        }
        _ => Ok(()),
    }
}

fn check(message: &Message, key: Option<&str>) -> Result<(), Refused> {
    if message.class == DeliveryClass::Ephemeral {
        return Err(Refused::Ephemeral);
    }
    message.check().map_err(Refused::Message)?;
    let bytes = key.map_or(0, str::len);
    if bytes > KEY_BYTES_MAX {
        return Err(Refused::KeyTooLong { bytes });
    }
    Ok(())
}

/// How far a message came; `None` when this store never accepted it or has forgotten its epoch.
pub(crate) fn state(
    source: &impl Source,
    id: &ReceiptId,
) -> Result<Option<ReceiptState>, ReadFault> {
    Ok(receipt(source, id)?.map(|record| record.state))
}

/// What is known of a message.
pub(crate) fn receipt(
    source: &impl Source,
    id: &ReceiptId,
) -> Result<Option<ReceiptRecord>, ReadFault> {
    if lines::is_foreign(source, id)? {
        return Ok(None);
    }
    let mut asked = *id;
    for _ in 0..RETRIES_FOLLOWED_MAX {
        match outcomes::find(source, &asked)? {
            Some(Outcome::RetriedAs(next)) => asked = next,
            Some(Outcome::Done { output, at_ms }) => {
                return Ok(Some(ReceiptRecord {
                    output: Some(output),
                    at_ms: Some(at_ms),
                    ..plain_record(*id, ReceiptState::Done)
                }));
            }
            // INVARIANT: handled is the last word. It failed before and was put back there, or it
            // was dropped here after it had arrived.
            Some(Outcome::Failed { .. }) if is_done(source, &asked)? => {
                return Ok(Some(plain_record(*id, ReceiptState::Done)));
            }
            Some(Outcome::Failed {
                reason,
                output,
                at_ms,
            }) => {
                return Ok(Some(ReceiptRecord {
                    reason: Some(reason),
                    output: Some(output).filter(|output| !output.is_empty()),
                    at_ms: Some(at_ms),
                    ..plain_record(*id, ReceiptState::Failed)
                }));
            }
            None => break,
        }
    }
    Ok(by_place(source, &asked)?.map(|record| ReceiptRecord { id: *id, ..record }))
}

fn is_done(source: &impl Source, id: &ReceiptId) -> Result<bool, ReadFault> {
    let Position { epoch, sequence } = id.position;
    done::covers(source, id.peer, id.lane, epoch.boot, sequence)
}

fn plain_record(id: ReceiptId, state: ReceiptState) -> ReceiptRecord {
    ReceiptRecord {
        id,
        state,
        reason: None,
        message: None,
        output: None,
        at_ms: None,
    }
}

/// What follows from where a message is.
fn by_place(source: &impl Source, id: &ReceiptId) -> Result<Option<ReceiptRecord>, ReadFault> {
    let Position { epoch, sequence } = id.position;
    let (nonce, first, last) = match lines::line(source, id.peer, id.lane, epoch.boot)? {
        Some(line) => (line.nonce, line.first, line.next - 1),
        None => match lines::past(source, id.peer, id.lane, epoch.boot)? {
            Some(past) => (past.nonce, past.last + 1, past.last),
            None => return Ok(None),
        },
    };
    if nonce != epoch.nonce || sequence == 0 || sequence > last {
        return Ok(None);
    }
    // The recipient's word is newer than a letter of ours that may have been delivered.
    if is_done(source, id)? {
        return Ok(Some(plain_record(*id, ReceiptState::Done)));
    }
    let key = Key::dead(id.peer, id.lane, epoch.boot, sequence);
    if let Some(dead) = read(source, &key, Dead::decode)? {
        let letter = letters::letter(source, *id, dead)?;
        return Ok(Some(ReceiptRecord {
            reason: Some(letter.reason),
            message: letter.message,
            at_ms: Some(letter.at_ms),
            ..plain_record(*id, ReceiptState::Failed)
        }));
    }
    if sequence >= first {
        let key = Key::outbox(id.peer, id.lane, epoch.boot, sequence);
        let message = read(source, &key, decode_row)?.map(|row| row.message);
        return Ok(Some(ReceiptRecord {
            message,
            ..plain_record(*id, ReceiptState::Accepted)
        }));
    }
    Ok(Some(plain_record(*id, ReceiptState::Stored)))
}

/// The oldest rows that match of all lines of the user lane, line by line.
///
/// What the nodes tell each other is no message of anybody's, so it is neither shown nor counted.
pub(crate) fn list(
    source: &impl Source,
    filter: &Filter,
    limit: usize,
) -> Result<Listing<OutboxRow>, ReadFault> {
    let mut listing = Listing {
        total: 0,
        rows: Vec::new(),
    };
    for (peer, lane, boot, line) in lines::all(source)? {
        if lane != Lane::User || !filter.takes_peer(peer) || line.waiting() == 0 {
            continue;
        }
        // Only rows tell their topics; without one the line knows.
        let counts_rows = filter.topic.is_some();
        if !counts_rows {
            listing.total += line.waiting();
            if listing.rows.len() >= limit {
                continue;
            }
        }
        let failures = peers::failures(source, peer)?.unwrap_or(0);
        let epoch = Epoch {
            boot,
            nonce: line.nonce,
        };
        let from = Key::outbox(peer, lane, boot, line.first);
        let end = end_of(Key::outbox(peer, lane, boot, line.next - 1).as_bytes());
        source.scan(&from, &end, &mut |key, plain| {
            if listing.rows.len() >= limit && !counts_rows {
                return ControlFlow::Break(());
            }
            let Ok(Ok(row)) = plain.map(|plain| decode_row(&plain)) else {
                return ControlFlow::Continue(());
            };
            if !filter.takes_topic(&row.message.topic) {
                return ControlFlow::Continue(());
            }
            listing.total += u64::from(counts_rows);
            if listing.rows.len() < limit {
                let sequence = key.last_u64();
                let position = Position { epoch, sequence };
                listing.rows.push(OutboxRow {
                    id: ReceiptId {
                        peer,
                        lane,
                        position,
                    },
                    message: row.message,
                    expires_ms: row.expires_ms,
                    failures: failures.saturating_sub(row.failures_born),
                    unoffered: sequence > line.offered,
                });
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(listing)
}
