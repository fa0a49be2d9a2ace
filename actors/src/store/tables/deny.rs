//! Identities that pair no more: nodes that were forgotten, and those a person rejected for good.
//!
//! An entry overrides every ticket; it goes only when a person allows the identity again. Entries
//! are found by a keyed hash and listed by a scan, since there are few and they are read rarely.
//!
//! ```text
//! Deny  key  23 ‖ hash of ("deny", id) 16
//!       value layout u8 = 1 ‖ id 32 ‖ at ms u64 ‖ name text
//! ```

use std::ops::ControlFlow;

use packhorse_protocol::node_id::NodeId;

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::peers::node_id;
use super::{asking, peers, read, requests};

/// An identity that is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Which one.
    pub id: NodeId,
    /// Since when, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What it was called here; may be empty.
    pub name: String,
}

impl Denied {
    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 64)
            .raw(self.id.as_bytes())
            .u64(self.at_ms)
            .text(&self.name)
            .done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let denied = Self {
            id: node_id(&mut cursor)?,
            at_ms: cursor.u64()?,
            name: cursor.text()?,
        };
        cursor.end()?;
        Ok(denied)
    }
}

pub(super) fn key(source: &impl Source, id: &NodeId) -> Key {
    Key::deny(source.vault().index_hash(b"deny", &[id.as_bytes()]))
}

/// Whether an identity is denied. An entry that does not open denies all the same.
pub(crate) fn is_denied(source: &impl Source, id: &NodeId) -> Result<bool, ReadFault> {
    match read(source, &key(source, id), Denied::decode) {
        Ok(found) => Ok(found.is_some()),
        Err(ReadFault::Damaged { .. }) => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// Refuses a job that would pair an identity that is denied.
pub(crate) fn check(view: &View, id: &NodeId) -> Result<(), Refused> {
    if is_denied(view, id)? {
        return Err(Refused::Denied(*id));
    }
    Ok(())
}

/// Denies an identity from now on: it is asked no more, and what it asked is over.
pub(super) fn add(view: &mut View, id: NodeId, name: &str) -> Result<(), Refused> {
    asking::forget(view, &id)?;
    requests::forget(view, &id);
    let denied = Denied {
        id,
        at_ms: view.now_ms(),
        name: name.to_owned(),
    };
    view.put(key(view, &id), denied.encode());
    Ok(())
}

/// Denies an identity that is no peer: one that is would go on with all that it may do.
pub(crate) fn deny(view: &mut View, id: NodeId, name: &str) -> Result<(), Refused> {
    match peers::by_id(view, &id)? {
        Some(peer) => Err(Refused::AlreadyPaired(peer.name)),
        None => add(view, id, name),
    }
}

/// Lifts the denial; `false` when there was none.
pub(crate) fn lift(view: &mut View, id: &NodeId) -> Result<bool, Refused> {
    let was_denied = is_denied(view, id)?;
    if was_denied {
        view.delete(key(view, id));
    }
    Ok(was_denied)
}

/// Every denied identity, the oldest first. One that does not open is passed over.
pub(crate) fn all(source: &impl Source) -> Result<Vec<Denied>, ReadFault> {
    let mut all = Vec::new();
    source.scan_prefix(&Key::table(Table::Deny), &mut |_, plain| {
        if let Ok(Ok(denied)) = plain.map(|plain| Denied::decode(&plain)) {
            all.push(denied);
        }
        ControlFlow::Continue(())
    })?;
    all.sort_unstable_by_key(|denied| denied.at_ms);
    Ok(all)
}
