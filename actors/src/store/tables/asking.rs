//! Nodes that this node asks to be paired with, until they answer.
//!
//! The other side of `requests`: what a person here wants is kept, so that the node goes on asking
//! after a restart and pairs by itself once the other side says yes. The row goes in the same step
//! that makes the peer.
//!
//! ```text
//! Asking  key  25 ‖ hash of ("asking", id) 16
//!         value layout u8 = 1 ‖ id 32 ‖ hints ‖ text ‖ name ‖ grants ‖ ends of the grants
//!               ‖ begun ms u64 ‖ tries u32 ‖ next ms u64
//!               ‖ state u8: 0 not heard there yet, 1 waits there, 2 refused ‖ answer ‖ at ms u64
//! ```

use std::ops::ControlFlow;

use packhorse_protocol::grant::Grants;
use packhorse_protocol::handshake::Introduction;
use packhorse_protocol::limits::REQUEST_BYTES_MAX;
use packhorse_protocol::node_id::NodeId;
use packhorse_protocol::text;

use crate::events::Fact;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::pairing::PairInviter;
use super::peers::{PeerRecord, node_id, put_ends, put_grants, take_ends, take_grants};
use super::{deny, pairing, peers, read};

/// Nodes that may be asked at once.
pub const ASKINGS_MAX: usize = 32;
/// Who gives no answer for this long is asked no more.
pub const ASKING_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;
/// An answer of no is shown for this long.
const REFUSED_MS: u64 = 24 * 60 * 60 * 1_000;

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AskingState {
    /// The other side has not heard it yet.
    Unheard = 0,
    /// The other side has it and waits for a person.
    Waits = 1,
    /// The answer was no, or none came in time.
    Refused = 2,
}

impl AskingState {
    fn from_u8(value: u8) -> Result<Self, Malformed> {
        match value {
            0 => Ok(Self::Unheard),
            1 => Ok(Self::Waits),
            2 => Ok(Self::Refused),
            _ => Err(Malformed),
        }
    }
}

/// A node that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskingRecord {
    /// Who is asked.
    pub id: NodeId,
    /// Where.
    pub hints: Vec<String>,
    /// What a person there reads.
    pub text: String,
    /// What it is to be called here; empty for its own name.
    pub name: String,
    /// What it may do here once it is a peer.
    pub grants: Grants,
    /// Since when, in milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// How often it was dialled.
    pub tries: u32,
    /// When it is dialled next.
    pub next_ms: u64,
    /// How far it came.
    pub state: AskingState,
    /// What was answered last, or why nothing was; empty before the first dial.
    pub answer: String,
    /// When.
    pub answer_ms: u64,
}

impl AskingRecord {
    /// A node that was not asked yet.
    #[must_use]
    pub fn new(id: NodeId, hints: Vec<String>) -> Self {
        Self {
            id,
            hints,
            text: String::new(),
            name: String::new(),
            grants: Grants::none(),
            begun_ms: 0,
            tries: 0,
            next_ms: 0,
            state: AskingState::Unheard,
            answer: String::new(),
            answer_ms: 0,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut pen = Pen::new(1, 256);
        pen.raw(self.id.as_bytes())
            .texts(&self.hints)
            .text(&self.text)
            .text(&self.name);
        put_grants(&mut pen, &self.grants);
        put_ends(&mut pen, &self.grants);
        pen.u64(self.begun_ms)
            .u32(self.tries)
            .u64(self.next_ms)
            .u8(self.state as u8)
            .text(&self.answer)
            .u64(self.answer_ms);
        pen.done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let id = node_id(&mut cursor)?;
        let mut record = Self {
            hints: cursor.texts()?,
            text: cursor.text()?,
            name: cursor.text()?,
            grants: take_grants(&mut cursor)?,
            ..Self::new(id, Vec::new())
        };
        take_ends(&mut cursor, &mut record.grants)?;
        record.begun_ms = cursor.u64()?;
        record.tries = cursor.u32()?;
        record.next_ms = cursor.u64()?;
        record.state = AskingState::from_u8(cursor.u8()?)?;
        record.answer = cursor.text()?;
        record.answer_ms = cursor.u64()?;
        cursor.end()?;
        Ok(record)
    }

    /// Whether the node is to be dialled, now or later.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != AskingState::Refused
    }

    fn is_over(&self, now_ms: u64) -> bool {
        !self.is_open() && now_ms.saturating_sub(self.answer_ms) >= REFUSED_MS
    }
}

/// What came of one dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskingAnswer {
    /// How far it came.
    pub state: AskingState,
    /// What was answered, or why nothing was.
    pub text: String,
    /// When it is dialled next.
    pub next_ms: u64,
}

fn key(source: &impl Source, id: &NodeId) -> Key {
    Key::asking(source.vault().index_hash(b"asking", &[id.as_bytes()]))
}

/// Begins to ask, or begins anew.
pub(crate) fn begin(view: &mut View, record: AskingRecord) -> Result<AskingRecord, Refused> {
    let id = record.id;
    deny::check(view, &id)?;
    text::check_addresses(&record.hints).map_err(Refused::Text)?;
    text::check("request", &record.text, REQUEST_BYTES_MAX).map_err(Refused::Text)?;
    if let Some(peer) = peers::by_id(view, &id)? {
        return Err(Refused::AlreadyPaired(peer.name));
    }
    if !record.name.is_empty() {
        text::check_name(&record.name).map_err(Refused::Text)?;
        if peers::by_name(view, &record.name)?.is_some() {
            return Err(Refused::NameTaken(record.name));
        }
    }
    let now_ms = view.now_ms();
    let kept = all(view)?;
    for over in kept.iter().filter(|kept| kept.is_over(now_ms)) {
        view.delete(key(view, &over.id));
    }
    let others = kept.iter().filter(|kept| kept.is_open() && kept.id != id);
    if others.count() >= ASKINGS_MAX {
        return Err(Refused::TooManyAskings);
    }
    let record = AskingRecord {
        begun_ms: now_ms,
        next_ms: now_ms,
        ..record
    };
    view.put(key(view, &id), record.encode());
    Ok(record)
}

/// Writes down what came of a dial; nothing when the asking was withdrawn or begun anew meanwhile.
pub(crate) fn answered(
    view: &mut View,
    id: NodeId,
    begun_ms: u64,
    answer: AskingAnswer,
) -> Result<(), Refused> {
    let key = key(view, &id);
    let Some(before) = read(view, &key, AskingRecord::decode)? else {
        return Ok(());
    };
    if before.begun_ms != begun_ms {
        return Ok(());
    }
    if answer.state == AskingState::Refused {
        view.fact(Fact::RequestDecided {
            text: format!("{} refused to be paired: {}", id.short(), answer.text),
        });
    }
    let after = AskingRecord {
        tries: before.tries.saturating_add(1),
        next_ms: answer.next_ms,
        state: answer.state,
        answer: answer.text,
        answer_ms: view.now_ms(),
        ..before
    };
    view.put(key, after.encode());
    Ok(())
}

/// Makes the node that was asked a peer; `None` when it is not asked, or not any more.
pub(crate) fn pair(
    view: &mut View,
    introduction: &Introduction,
    granted: &Grants,
) -> Result<Option<PeerRecord>, Refused> {
    let Some(record) = asking(view, &introduction.id)?.filter(AskingRecord::is_open) else {
        return Ok(None);
    };
    // Since the name was chosen another peer may have got it; the pairing is worth more.
    let is_free = !record.name.is_empty() && peers::by_name(view, &record.name)?.is_none();
    let peer = pairing::pair_inviter(
        view,
        &PairInviter {
            introduction: introduction.clone(),
            name: is_free.then_some(record.name),
            grants: record.grants,
            granted: granted.clone(),
            hints: record.hints,
        },
    )?;
    Ok(Some(peer))
}

/// Asks a node no more, whatever came of it. Returns what it was to be granted, if it was asked still.
pub(super) fn forget(view: &mut View, id: &NodeId) -> Result<Grants, Refused> {
    let key = key(view, id);
    let found = match read(view, &key, AskingRecord::decode) {
        Ok(found) => found,
        Err(fault) if fault.is_damage() => None,
        Err(fault) => return Err(fault.into()),
    };
    view.delete(key);
    let open = found.filter(AskingRecord::is_open);
    Ok(open.map_or_else(Grants::none, |record| record.grants))
}

/// Stops asking.
pub(crate) fn withdraw(view: &mut View, id: NodeId) -> Result<(), Refused> {
    let key = key(view, &id);
    if read(view, &key, AskingRecord::decode)?.is_none() {
        return Err(Refused::NoSuchRequest(id));
    }
    view.delete(key);
    Ok(())
}

/// Who is asked under this id, or was.
pub(crate) fn asking(source: &impl Source, id: &NodeId) -> Result<Option<AskingRecord>, ReadFault> {
    read(source, &key(source, id), AskingRecord::decode)
}

/// Everybody who is asked, or was lately; the oldest first. One that does not open is passed over.
pub(crate) fn all(source: &impl Source) -> Result<Vec<AskingRecord>, ReadFault> {
    let mut all = Vec::new();
    source.scan_prefix(&Key::table(Table::Asking), &mut |_, plain| {
        if let Ok(Ok(record)) = plain.map(|plain| AskingRecord::decode(&plain)) {
            all.push(record);
        }
        ControlFlow::Continue(())
    })?;
    all.sort_unstable_by_key(|record: &AskingRecord| (record.begun_ms, record.id));
    Ok(all)
}

/// The same without those that are over.
pub(crate) fn current(source: &impl Source, now_ms: u64) -> Result<Vec<AskingRecord>, ReadFault> {
    let mut all = all(source)?;
    all.retain(|record| !record.is_over(now_ms));
    Ok(all)
}
