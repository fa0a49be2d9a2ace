//! One line per peer, lane and own epoch: how far the messages in it are, in one small record.
//!
//! A line is why no row is ever read to know how many wait, and why a queue is scanned from its
//! first live row instead of over everything that was deleted before it. Sequences of an epoch are
//! given out without gaps, so what waits is `first..next`. When nothing of an earlier epoch waits
//! any more its line becomes a shorter record of the past, which still answers for receipts.
//!
//! ```text
//! Line   key  7 ‖ peer u32 ‖ lane u8 ‖ boot u32
//!        value layout u8 = 1 ‖ nonce u64 ‖ next u64 ‖ first u64 ‖ acknowledged u64
//!              ‖ bytes accepted u64 ‖ bytes gone u64 ‖ oldest born: 0 or 1 ‖ ms u64
//! Past   key  8 ‖ peer u32 ‖ lane u8 ‖ boot u32
//!        value layout u8 = 1 ‖ nonce u64 ‖ last u64 ‖ acknowledged u64
//! ```

use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Epoch, Lane, Span};
use packhorse_protocol::limits::EPOCHS_KEPT_MAX;

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Note, Source, View};

use super::peers::PeerNumber;
use super::read;

/// How far the messages of one epoch are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) nonce: u64,
    /// Sequence of the next message accepted.
    pub(crate) next: u64,
    /// Sequence of the oldest message that waits; `next` when none does.
    pub(crate) first: u64,
    /// Highest sequence that the recipient has settled.
    pub(crate) acknowledged: u64,
    /// Weight of all messages ever accepted here.
    pub(crate) bytes_accepted: u64,
    /// Weight of those among them that wait no more.
    pub(crate) bytes_gone: u64,
    pub(crate) oldest_born_ms: Option<u64>,
}

impl Line {
    pub(crate) fn new(nonce: u64) -> Self {
        Self {
            nonce,
            next: 1,
            first: 1,
            acknowledged: 0,
            bytes_accepted: 0,
            bytes_gone: 0,
            oldest_born_ms: None,
        }
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.next - self.first
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 57)
            .u64(self.nonce)
            .u64(self.next)
            .u64(self.first)
            .u64(self.acknowledged)
            .u64(self.bytes_accepted)
            .u64(self.bytes_gone)
            .maybe_u64(self.oldest_born_ms)
            .done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let line = Self {
            nonce: cursor.u64()?,
            next: cursor.u64()?,
            first: cursor.u64()?,
            acknowledged: cursor.u64()?,
            bytes_accepted: cursor.u64()?,
            bytes_gone: cursor.u64()?,
            oldest_born_ms: cursor.maybe_u64()?,
        };
        cursor.end()?;
        // Checked when read as well as when written: what follows subtracts these.
        if line.first == 0 || line.first > line.next || line.acknowledged >= line.next {
            return Err(Malformed);
        }
        Ok(line)
    }
}

/// What is left of an epoch of which nothing waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) nonce: u64,
    /// The last sequence that was given out.
    pub(crate) last: u64,
    pub(crate) acknowledged: u64,
}

impl Past {
    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 24)
            .u64(self.nonce)
            .u64(self.last)
            .u64(self.acknowledged)
            .done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let past = Self {
            nonce: cursor.u64()?,
            last: cursor.u64()?,
            acknowledged: cursor.u64()?,
        };
        cursor.end()?;
        Ok(past)
    }
}

pub(crate) fn line(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
) -> Result<Option<Line>, ReadFault> {
    read(source, &Key::line(peer, lane, boot), Line::decode)
}

pub(crate) fn past(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
) -> Result<Option<Past>, ReadFault> {
    read(source, &Key::past(peer, lane, boot), Past::decode)
}

/// Writes a line back and says how it stands now. A line of an earlier epoch of which nothing
/// waits becomes a record of the past.
pub(crate) fn put(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    line: &Line,
    grown: u64,
    settled: u64,
) -> Result<(), Refused> {
    if line.waiting() == 0 && boot != view.epoch().boot {
        let past = Past {
            nonce: line.nonce,
            last: line.next - 1,
            acknowledged: line.acknowledged,
        };
        view.delete(Key::line(peer, lane, boot));
        view.put(Key::past(peer, lane, boot), past.encode());
        forget_oldest_past(view, peer, lane)?;
    } else {
        view.put(Key::line(peer, lane, boot), line.encode());
    }
    view.note(Note::Line {
        peer,
        lane,
        boot,
        waiting: line.waiting(),
        oldest_born_ms: line.oldest_born_ms,
        grown,
        settled,
    });
    Ok(())
}

/// Receipts of epochs older than the last 4,096 that had messages are not known any more.
fn forget_oldest_past(view: &mut View, peer: PeerNumber, lane: Lane) -> Result<(), Refused> {
    let mut count = 0;
    let mut oldest = None;
    view.scan_prefix(&Key::pasts(peer, lane), &mut |key, _| {
        oldest.get_or_insert(key);
        count += 1;
        ControlFlow::Continue(())
    })?;
    if count > EPOCHS_KEPT_MAX
        && let Some(oldest) = oldest
    {
        view.delete(oldest);
    }
    Ok(())
}

/// The lines of one peer and lane by boot number. One that does not open is passed over.
pub(crate) fn of_lane(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
) -> Result<Vec<(u32, Line)>, ReadFault> {
    let mut lines = Vec::new();
    source.scan_prefix(&Key::lines(peer, lane), &mut |key, plain| {
        if let Ok(Ok(line)) = plain.map(|plain| Line::decode(&plain)) {
            lines.push((key.last_u32(), line));
        }
        ControlFlow::Continue(())
    })?;
    Ok(lines)
}

/// All lines of the store: (peer, lane, boot, line).
pub(crate) fn all(source: &impl Source) -> Result<Vec<(PeerNumber, Lane, u32, Line)>, ReadFault> {
    let mut lines = Vec::new();
    source.scan_prefix(&Key::table(Table::Line), &mut |key, plain| {
        if let Ok(Ok(line)) = plain.map(|plain| Line::decode(&plain)) {
            lines.push((key.peer_number(), key.lane(), key.last_u32(), line));
        }
        ControlFlow::Continue(())
    })?;
    Ok(lines)
}

/// What the sender says in Start: every epoch of which something waits, the present one if it has
/// had messages, the newest one before it, and the newest of which anything was acknowledged. The
/// latter two show a peer that was set back although nothing waits for it.
pub(crate) fn spans(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
) -> Result<Vec<Span>, ReadFault> {
    let mut spans: Vec<Span> = of_lane(source, peer, lane)?
        .into_iter()
        .map(|(boot, line)| Span {
            epoch: Epoch {
                boot,
                nonce: line.nonce,
            },
            first: line.first,
            last: line.next - 1,
            acknowledged: line.acknowledged,
        })
        .collect();
    let mut newest = None;
    let mut newest_acknowledged = None;
    source.scan_prefix(&Key::pasts(peer, lane), &mut |key, plain| {
        if let Ok(Ok(past)) = plain.map(|plain| Past::decode(&plain)) {
            let span = Span {
                epoch: Epoch {
                    boot: key.last_u32(),
                    nonce: past.nonce,
                },
                first: past.last + 1,
                last: past.last,
                acknowledged: past.acknowledged,
            };
            newest = Some(span);
            if past.acknowledged > 0 {
                newest_acknowledged = Some(span);
            }
        }
        ControlFlow::Continue(())
    })?;
    let is_known =
        |spans: &[Span], span: &Span| spans.iter().any(|known| known.epoch == span.epoch);
    for span in [newest, newest_acknowledged].into_iter().flatten() {
        if !is_known(&spans, &span) {
            spans.push(span);
        }
    }
    spans.sort_unstable_by_key(|span| span.epoch);
    Ok(spans)
}

/// At open: empty lines of earlier boots become records of the past.
pub(crate) fn retire_empty(view: &mut View) -> Result<(), Refused> {
    for (peer, lane, boot, line) in all(view)? {
        if line.waiting() == 0 && boot != view.epoch().boot {
            put(view, peer, lane, boot, &line, 0, 0)?;
        }
    }
    Ok(())
}
