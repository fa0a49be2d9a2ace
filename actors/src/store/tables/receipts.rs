//! What nodes tell each other about messages that were dealt with.
//!
//! The recipient's side makes one message of the system lane per peer and job, in the batch that
//! takes the messages out of the inbox: so a report exists exactly when the message is gone. The
//! sender's side takes it in the batch that stores it. Reports are never reported on.
//! Neither side trusts the other: what was never sent there is counted and dropped.

use std::collections::BTreeMap;

use packhorse_protocol::codec;
use packhorse_protocol::epoch::{Epoch, Lane, Position, RefusalCode};
use packhorse_protocol::message::{DeliveryClass, Message};
#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{self, Mutant};
use packhorse_protocol::receipt::{
    self, DONE, FAILED, OUTCOMES_MAX, OutcomeReport, RANGES_MAX, Receipts, USER_LANE,
};

use crate::store::error::{ReadFault, Refused};
use crate::store::receipt::ReceiptId;
use crate::store::view::{Note, View};

use super::outbox::{self, NewMessage};
use super::outcomes::{self, Outcome};
use super::peers::{self, PeerNumber};
use super::{done, lines};

// The recipient's side.

/// Gathers what one job has to tell, by peer.
#[derive(Debug, Default)]
pub(crate) struct Report {
    done: BTreeMap<PeerNumber, Vec<Position>>,
    outcomes: BTreeMap<PeerNumber, Vec<OutcomeReport>>,
}

impl Report {
    /// A message was handled.
    pub(crate) fn done(&mut self, peer: PeerNumber, at: Position, output: Vec<u8>) {
        if output.is_empty() {
            self.done.entry(peer).or_default().push(at);
        } else {
            self.outcome(peer, at, DONE, String::new(), output);
        }
    }

    /// A message was given up.
    pub(crate) fn failed(&mut self, peer: PeerNumber, at: Position, reason: &str, output: Vec<u8>) {
        self.outcome(peer, at, FAILED, reason.to_owned(), output);
    }

    fn outcome(
        &mut self,
        peer: PeerNumber,
        at: Position,
        state: u8,
        reason: String,
        output: Vec<u8>,
    ) {
        self.outcomes.entry(peer).or_default().push(OutcomeReport {
            at,
            state,
            reason,
            output,
        });
    }

    /// Puts what was gathered into the outbox: one message per peer, more only when one cannot
    /// hold it.
    pub(crate) fn send(self, view: &mut View) -> Result<(), Refused> {
        #[cfg(feature = "sim")]
        if mutant::is(Mutant::ReceiptOutsideBatch) && !view.sends_late {
            view.late.push(self);
            return Ok(());
        }
        let mut parts: BTreeMap<PeerNumber, Vec<Receipts>> = BTreeMap::new();
        for (peer, positions) in self.done {
            for ranges in ranges_of(positions).chunks(RANGES_MAX) {
                parts.entry(peer).or_default().push(Receipts {
                    lane: USER_LANE,
                    done: ranges.to_vec(),
                    outcomes: Vec::new(),
                });
            }
        }
        for (peer, outcomes) in self.outcomes {
            let parts = parts.entry(peer).or_default();
            for (number, outcomes) in outcomes.chunks(OUTCOMES_MAX).enumerate() {
                match parts.get_mut(number) {
                    Some(part) => part.outcomes = outcomes.to_vec(),
                    None => parts.push(Receipts {
                        lane: USER_LANE,
                        done: Vec::new(),
                        outcomes: outcomes.to_vec(),
                    }),
                }
            }
        }
        for (peer, parts) in parts {
            // Nobody is left to be told.
            if peers::failures(view, peer)?.is_none() {
                continue;
            }
            let born_ms = view.now_ms();
            let messages = parts
                .iter()
                .map(|part| NewMessage::new(message(part, born_ms)))
                .collect();
            outbox::accept(view, peer, Lane::System, messages)?;
        }
        Ok(())
    }
}

/// For a mutant: what was put off.
#[cfg(feature = "sim")]
pub(crate) fn send_late(view: &mut View) -> Result<(), Refused> {
    view.sends_late = true;
    let late = std::mem::take(&mut view.late);
    let sent = late.into_iter().try_for_each(|report| report.send(view));
    view.sends_late = false;
    sent
}

fn message(receipts: &Receipts, born_ms: u64) -> Message {
    Message {
        class: DeliveryClass::Critical,
        topic: receipt::TOPIC.to_owned(),
        born_ms,
        headers: Vec::new(),
        payload: codec::encode_receipts(receipts),
    }
}

/// The stretches that these positions make.
fn ranges_of(mut positions: Vec<Position>) -> Vec<(Epoch, u64, u64)> {
    positions.sort_unstable();
    let mut ranges: Vec<(Epoch, u64, u64)> = Vec::new();
    for Position { epoch, sequence } in positions {
        match ranges.last_mut() {
            Some((known, _, last)) if *known == epoch && sequence <= last.saturating_add(1) => {
                *last = sequence;
            }
            _ => ranges.push((epoch, sequence, sequence)),
        }
    }
    ranges
}

// The sender's side.

/// Takes what a peer sent in the system lane. It needs no grant and never reaches the inbox.
///
/// # Errors
/// Outside: the store. Inside: why the message is refused.
pub(crate) fn take(
    view: &mut View,
    peer: PeerNumber,
    message: &Message,
) -> Result<Result<(), RefusalCode>, Refused> {
    if message.topic != receipt::TOPIC {
        return Ok(Err(RefusalCode::UNDECODABLE));
    }
    let Ok(receipts) = codec::decode_receipts(&message.payload) else {
        return Ok(Err(RefusalCode::UNDECODABLE));
    };
    let (mut news, mut unknown) = (0, 0);
    for (epoch, first, last) in receipts.done {
        let known = offered(view, peer, epoch)?.min(last);
        if known < first {
            unknown += 1;
            continue;
        }
        unknown += u64::from(known < last);
        let is_new = done::insert(view, peer, Lane::User, epoch.boot, first, known)?;
        news += u64::from(is_new);
    }
    for report in receipts.outcomes {
        if report.at.sequence > offered(view, peer, report.at.epoch)? {
            unknown += 1;
        } else {
            take_outcome(view, peer, report)?;
        }
    }
    if news > 0 {
        done::forget_oldest(view, peer, Lane::User)?;
        view.note(Note::Outcomes { peer, count: news });
    }
    if unknown > 0 {
        view.note(Note::UnknownReceipts {
            peer,
            count: unknown,
        });
    }
    Ok(Ok(()))
}

fn take_outcome(view: &mut View, peer: PeerNumber, report: OutcomeReport) -> Result<(), Refused> {
    let id = ReceiptId {
        peer,
        lane: Lane::User,
        position: report.at,
    };
    // What was sent again is told by the new message; the peer has no say in that.
    match outcomes::find(view, &id) {
        Ok(Some(Outcome::RetriedAs(_))) => return Ok(()),
        Ok(_) => {}
        // It is replaced by what is known now.
        Err(fault) if fault.is_damage() => {}
        Err(fault) => return Err(fault.into()),
    }
    let at_ms = view.now_ms();
    let (boot, sequence) = (report.at.epoch.boot, report.at.sequence);
    let outcome = if report.state == DONE {
        done::insert(view, peer, Lane::User, boot, sequence, sequence)?;
        Outcome::Done {
            output: report.output,
            at_ms,
        }
    } else if done::covers(view, peer, Lane::User, boot, sequence)? {
        // An old report that was sent again by hand, or a recipient that was set back. What was
        // handled once stays handled.
        return Ok(());
    } else {
        Outcome::Failed {
            reason: report.reason,
            output: report.output,
            at_ms,
        }
    };
    outcomes::put_report(view, &id, &outcome)
}

/// The highest sequence of an epoch of ours that this peer can have got; 0 when there is none.
fn offered(view: &View, peer: PeerNumber, epoch: Epoch) -> Result<u64, ReadFault> {
    if let Some(line) = lines::line(view, peer, Lane::User, epoch.boot)? {
        let is_ours = line.nonce == epoch.nonce;
        let offered = line.offered.min(line.next - 1);
        return Ok(if is_ours { offered } else { 0 });
    }
    let past = lines::past(view, peer, Lane::User, epoch.boot)?;
    Ok(past
        .filter(|past| past.nonce == epoch.nonce)
        .map_or(0, |past| past.last))
}
