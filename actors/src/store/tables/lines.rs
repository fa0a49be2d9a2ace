//! One line per peer, lane and own epoch: how far the messages in it are, in one small record.
//!
//! A line is why no row is ever read to know how many wait, and why a queue is scanned from its
//! first live row instead of over everything that was deleted before it. Sequences of an epoch are
//! given out without gaps, so what waits is `first..next` less the holes that dead letters left in
//! it. When nothing of an earlier epoch waits and no letter of it is open any more its line becomes
//! a shorter record of the past, which still answers for receipts.
//!
//! ```text
//! Line   key  7 ‖ peer u32 ‖ lane u8 ‖ boot u32
//!        value layout u8 = 2 ‖ nonce u64 ‖ next u64 ‖ first u64 ‖ acknowledged u64
//!              ‖ bytes accepted u64 ‖ bytes gone u64 ‖ oldest born: 0 or 1 ‖ ms u64
//!              ‖ offered u64 ‖ edits u64 ‖ limited first u64 ‖ due: 0 or 1 ‖ ms u64 ‖ holes u64 ‖ unsettled u64
//!        layout 1 ends before `offered` and is read as: all of it offered, all of it limited
//! Past   key  8 ‖ peer u32 ‖ lane u8 ‖ boot u32
//!        value layout u8 = 1 ‖ nonce u64 ‖ last u64 ‖ acknowledged u64
//! ```

use std::ops::ControlFlow;

use packhorse_protocol::epoch::{Epoch, Lane, Span};
use packhorse_protocol::limits::EPOCHS_KEPT_MAX;

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::receipt::ReceiptId;
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
    /// No row above this sequence was ever handed to a session, or the last opening showed that
    /// none has arrived. Raised before rows are handed out, lowered when a session opens.
    pub(crate) offered: u64,
    /// How often a row above `offered` was taken away or rewritten. Who has read rows and then
    /// raises `offered` over them sees by it whether they still are what they were.
    pub(crate) edits: u64,
    /// Lowest sequence that may be given up by time or attempts; `next` when none may.
    pub(crate) limited_first: u64,
    /// Not later than the first of those is due. `None` with a limited row: a sweep is under way
    /// and writes it at its end.
    pub(crate) due_ms: Option<u64>,
    /// Sequences of `first..next` that do not wait any more.
    pub(crate) holes: u64,
    /// Dead letters of this epoch that may have been delivered.
    pub(crate) unsettled: u64,
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
            offered: 0,
            edits: 0,
            limited_first: 1,
            due_ms: None,
            holes: 0,
            unsettled: 0,
        }
    }

    pub(crate) fn waiting(&self) -> u64 {
        (self.next - self.first).saturating_sub(self.holes)
    }

    /// Whether a row may be given up by time or attempts.
    pub(crate) fn is_limited(&self) -> bool {
        self.limited_first.max(self.first) < self.next
    }

    /// When the first limited row may be due. After a sweep that never ended: now.
    pub(crate) fn due(&self) -> Option<u64> {
        self.is_limited().then(|| self.due_ms.unwrap_or(0))
    }

    /// Takes a row's limits into account.
    pub(crate) fn limit(&mut self, sequence: u64, due_ms: u64) {
        let before = self.due_ms.filter(|_| self.is_limited());
        self.due_ms = Some(before.map_or(due_ms, |before| before.min(due_ms)));
        self.limited_first = self.limited_first.min(sequence);
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(2, 114)
            .u64(self.nonce)
            .u64(self.next)
            .u64(self.first)
            .u64(self.acknowledged)
            .u64(self.bytes_accepted)
            .u64(self.bytes_gone)
            .maybe_u64(self.oldest_born_ms)
            .u64(self.offered)
            .u64(self.edits)
            .u64(self.limited_first)
            .maybe_u64(self.due_ms)
            .u64(self.holes)
            .u64(self.unsettled)
            .done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (layout, mut cursor) = Cursor::of_layouts(1..=2, bytes)?;
        let mut line = Self {
            nonce: cursor.u64()?,
            next: cursor.u64()?,
            first: cursor.u64()?,
            acknowledged: cursor.u64()?,
            bytes_accepted: cursor.u64()?,
            bytes_gone: cursor.u64()?,
            oldest_born_ms: cursor.maybe_u64()?,
            offered: 0,
            edits: 0,
            limited_first: 0,
            due_ms: None,
            holes: 0,
            unsettled: 0,
        };
        // Checked when read as well as when written: what follows subtracts these.
        if line.first == 0 || line.first > line.next || line.acknowledged >= line.next {
            return Err(Malformed);
        }
        if layout == 1 {
            // The version that wrote it did not note these, so nothing is certain.
            line.offered = line.next - 1;
            line.limited_first = line.first;
            line.due_ms = Some(0);
        } else {
            line.offered = cursor.u64()?;
            line.edits = cursor.u64()?;
            line.limited_first = cursor.u64()?;
            line.due_ms = cursor.maybe_u64()?;
            line.holes = cursor.u64()?;
            line.unsettled = cursor.u64()?;
        }
        cursor.end()?;
        if line.limited_first > line.next || line.holes > line.next - line.first {
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

/// The nonce of an own epoch, as long as its line or past is known.
pub(crate) fn nonce(
    source: &impl Source,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
) -> Result<Option<u64>, ReadFault> {
    if let Some(line) = line(source, peer, lane, boot)? {
        return Ok(Some(line.nonce));
    }
    Ok(past(source, peer, lane, boot)?.map(|past| past.nonce))
}

/// Whether a receipt speaks of another epoch with the same boot number, as one of a copy of this
/// store does.
pub(crate) fn is_foreign(source: &impl Source, id: &ReceiptId) -> Result<bool, ReadFault> {
    let Epoch { boot, nonce: named } = id.position.epoch;
    let known = nonce(source, id.peer, id.lane, boot)?;
    Ok(known.is_some_and(|known| known != named))
}

/// Writes a line back and says how it stands now. A line of an earlier epoch of which nothing
/// waits and no letter is open becomes a record of the past.
pub(crate) fn put(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    boot: u32,
    line: &Line,
    grown: u64,
    settled: u64,
) -> Result<(), Refused> {
    if line.waiting() == 0 && line.unsettled == 0 && boot != view.epoch().boot {
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
        due_ms: line.due_ms.filter(|_| line.is_limited()),
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

/// What the sender says in Start: every epoch of which something waits or a letter may have been
/// delivered (both still have lines), the present one if it has had messages, the newest one before it, and the newest of which anything was acknowledged. The
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
        if line.waiting() == 0 && line.unsettled == 0 && boot != view.epoch().boot {
            put(view, peer, lane, boot, &line, 0, 0)?;
        }
    }
    Ok(())
}
