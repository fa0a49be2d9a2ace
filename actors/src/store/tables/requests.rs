//! Nodes without a ticket that ask to be paired, until a person decides.
//!
//! Whoever knows this node's id may write here, so everything is bounded: how many wait, how many
//! come from one prefix in a day, how long each is kept. A node that asks again changes
//! nothing but the time of its request. What was decided is kept for a day, so that who was
//! rejected does not come back to the list at once.
//!
//! ```text
//! Request  key  24 ‖ hash of ("request", id) 16
//!          value layout u8 = 1 ‖ id 32 ‖ name ‖ text ‖ addresses ‖ boot u32 ‖ nonce u64 ‖ from
//!                ‖ asked ms u64 ‖ last ms u64 ‖ state u8: 0 waits, 1 approved, 2 rejected
//!                ‖ decided: 0 or 1 ‖ ms u64
//! ```

use std::net::IpAddr;
use std::ops::ControlFlow;

use packhorse_protocol::epoch::Epoch;
use packhorse_protocol::grant::Grants;
use packhorse_protocol::handshake::Introduction;
use packhorse_protocol::node_id::NodeId;

use crate::events::Fact;
use crate::listener::Prefix;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::peers::{PeerRecord, node_id};
use super::{deny, pairing, peers, read};

/// The time of a request that is made again is written at most this often.
const AGAIN_MS: u64 = 60 * 1_000;
/// Requests that may wait at once: what a person still reads.
pub const REQUESTS_WAITING_MAX: usize = 32;
/// New requests from one prefix of addresses in a day.
pub const REQUESTS_NEAR_MAX: usize = 4;
/// A request that nobody decided about ends after this long.
pub const REQUEST_MS_MAX: u64 = 7 * DAY_MS;
/// What was decided is kept for this long.
const DECIDED_MS: u64 = DAY_MS;
/// Decided requests that are kept; the oldest go first.
const DECIDED_MAX: usize = 256;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Whether somebody decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestState {
    /// Nobody did.
    Waiting = 0,
    /// It is a peer now, or was made one.
    Approved = 1,
    /// It is not wanted.
    Rejected = 2,
}

impl RequestState {
    fn from_u8(value: u8) -> Result<Self, Malformed> {
        match value {
            0 => Ok(Self::Waiting),
            1 => Ok(Self::Approved),
            2 => Ok(Self::Rejected),
            _ => Err(Malformed),
        }
    }
}

/// A node that asks to be paired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// Who it is, verified, and what it says about itself.
    pub introduction: Introduction,
    /// What it says to the person who decides; may be empty.
    pub text: String,
    /// The address from which it asked first.
    pub from: IpAddr,
    /// When it asked first, in milliseconds since the Unix epoch.
    pub asked_ms: u64,
    /// When it asked last.
    pub last_ms: u64,
    /// What was decided.
    pub state: RequestState,
    /// When.
    pub decided_ms: Option<u64>,
}

impl RequestRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let who = &self.introduction;
        let mut pen = Pen::new(1, 256);
        pen.raw(who.id.as_bytes())
            .text(&who.name)
            .text(&self.text)
            .texts(&who.addresses)
            .u32(who.epoch.boot)
            .u64(who.epoch.nonce)
            .text(&self.from.to_string())
            .u64(self.asked_ms)
            .u64(self.last_ms)
            .u8(self.state as u8)
            .maybe_u64(self.decided_ms);
        pen.done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let id = node_id(&mut cursor)?;
        let (name, text) = (cursor.text()?, cursor.text()?);
        let introduction = Introduction {
            id,
            name,
            addresses: cursor.texts()?,
            epoch: Epoch {
                boot: cursor.u32()?,
                nonce: cursor.u64()?,
            },
        };
        let record = Self {
            introduction,
            text,
            from: cursor.text()?.parse().map_err(|_| Malformed)?,
            asked_ms: cursor.u64()?,
            last_ms: cursor.u64()?,
            state: RequestState::from_u8(cursor.u8()?)?,
            decided_ms: cursor.maybe_u64()?,
        };
        cursor.end()?;
        Ok(record)
    }

    /// Whether it is over for good, and may go.
    fn is_over(&self, now_ms: u64) -> bool {
        match self.decided_ms {
            None => now_ms.saturating_sub(self.asked_ms) >= REQUEST_MS_MAX,
            Some(decided_ms) => now_ms.saturating_sub(decided_ms) >= DECIDED_MS,
        }
    }
}

/// What a node asks with.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// Who it is, verified, and what it says about itself.
    pub introduction: Introduction,
    /// What it says to the person who decides.
    pub text: String,
    /// Where it comes from.
    pub from: IpAddr,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// It waits for a decision, since then.
    Waits {
        /// In milliseconds since the Unix epoch.
        asked_ms: u64,
    },
    /// A person rejected it within a day.
    Rejected,
    /// As many wait as may wait.
    Full,
    /// As many came from its prefix of addresses today as may come.
    TooMany,
}

fn key(source: &impl Source, id: &NodeId) -> Key {
    Key::request(source.vault().index_hash(b"request", &[id.as_bytes()]))
}

/// Takes a request up, or says why not. A node that is denied is refused like any stranger.
pub(crate) fn ask(view: &mut View, new: NewRequest) -> Result<Requested, Refused> {
    let id = new.introduction.id;
    deny::check(view, &id)?;
    let now_ms = view.now_ms();
    let key = key(view, &id);
    let before = read(view, &key, RequestRecord::decode)?;
    match before.filter(|before| !before.is_over(now_ms)) {
        Some(before) if before.state == RequestState::Rejected => return Ok(Requested::Rejected),
        Some(before) if before.state == RequestState::Waiting => {
            let asked_ms = before.asked_ms;
            // Who waits comes every few seconds, and a write each time would be its to order.
            if now_ms.abs_diff(before.last_ms) >= AGAIN_MS {
                let after = RequestRecord {
                    last_ms: now_ms,
                    ..before
                };
                view.put(key, after.encode());
            }
            return Ok(Requested::Waits { asked_ms });
        }
        // Approved once, and no peer any more: it asks anew.
        Some(_) | None => {}
    }
    prune(view)?;
    let kept = all(view)?;
    let waiting = kept
        .iter()
        .filter(|kept| kept.state == RequestState::Waiting);
    if waiting.count() >= REQUESTS_WAITING_MAX {
        return Ok(Requested::Full);
    }
    let near = Prefix::of(new.from);
    // On this machine's own loopback whole clusters are tried out.
    if near != Prefix::Here {
        let today = kept.iter().filter(|kept| {
            Prefix::of(kept.from) == near && now_ms.saturating_sub(kept.asked_ms) < DAY_MS
        });
        if today.count() >= REQUESTS_NEAR_MAX {
            return Ok(Requested::TooMany);
        }
    }
    let record = RequestRecord {
        introduction: new.introduction,
        text: new.text,
        from: new.from,
        asked_ms: now_ms,
        last_ms: now_ms,
        state: RequestState::Waiting,
        decided_ms: None,
    };
    view.put(key, record.encode());
    view.fact(Fact::RequestWaiting {
        text: said(&record),
    });
    Ok(Requested::Waits { asked_ms: now_ms })
}

/// Makes who asked a peer: the next time it dials, it is one.
pub(crate) fn approve(
    view: &mut View,
    id: NodeId,
    name: Option<&str>,
    grants: &Grants,
) -> Result<PeerRecord, Refused> {
    let record = live(view, &id)?;
    let peer = pairing::pair_asker(view, &record.introduction, name, grants)?;
    decide(view, record, RequestState::Approved, "approved");
    Ok(peer)
}

/// Rejects a request; with `deny` its node is denied for good. One that is a peer by now is not
/// rejected, it is forgotten.
pub(crate) fn reject(view: &mut View, id: NodeId, deny: bool) -> Result<(), Refused> {
    let record = live(view, &id)?;
    if record.state == RequestState::Approved {
        return Err(Refused::NoSuchRequest(id));
    }
    if let Some(peer) = peers::by_id(view, &id)? {
        return Err(Refused::AlreadyPaired(peer.name));
    }
    if deny {
        deny::add(view, id, &record.introduction.name)?;
    }
    let how = if deny {
        "rejected and denied"
    } else {
        "rejected"
    };
    decide(view, record, RequestState::Rejected, how);
    Ok(())
}

fn decide(view: &mut View, before: RequestRecord, state: RequestState, how: &str) {
    let who = &before.introduction;
    view.fact(Fact::RequestDecided {
        text: format!("the request of {} ({}) was {how}", who.name, who.id.short()),
    });
    let after = RequestRecord {
        state,
        decided_ms: Some(view.now_ms()),
        ..before
    };
    view.put(key(view, &after.introduction.id), after.encode());
}

/// Nothing is to be decided about a node any more: it is a peer, or denied.
pub(super) fn forget(view: &mut View, id: &NodeId) {
    view.delete(key(view, id));
}

/// A request that is not over.
fn live(view: &mut View, id: &NodeId) -> Result<RequestRecord, Refused> {
    prune(view)?;
    read(view, &key(view, id), RequestRecord::decode)?.ok_or(Refused::NoSuchRequest(*id))
}

/// Every request that is kept, the oldest first. One that does not open is passed over.
pub(crate) fn all(source: &impl Source) -> Result<Vec<RequestRecord>, ReadFault> {
    let mut all = Vec::new();
    source.scan_prefix(&Key::table(Table::Request), &mut |_, plain| {
        if let Ok(Ok(record)) = plain.map(|plain| RequestRecord::decode(&plain)) {
            all.push(record);
        }
        ControlFlow::Continue(())
    })?;
    all.sort_unstable_by_key(|record: &RequestRecord| (record.asked_ms, record.introduction.id));
    Ok(all)
}

/// Every request that counts at this time.
pub(crate) fn current(source: &impl Source, now_ms: u64) -> Result<Vec<RequestRecord>, ReadFault> {
    let mut all = all(source)?;
    all.retain(|record| !record.is_over(now_ms));
    Ok(all)
}

/// Lets go of what is over.
fn prune(view: &mut View) -> Result<(), Refused> {
    let now_ms = view.now_ms();
    let (over, mut kept): (Vec<_>, Vec<_>) = all(view)?
        .into_iter()
        .partition(|record| record.is_over(now_ms));
    kept.retain(|record| record.decided_ms.is_some());
    kept.sort_unstable_by_key(|record| record.decided_ms);
    let too_many = kept.len().saturating_sub(DECIDED_MAX);
    for record in over.iter().chain(kept.iter().take(too_many)) {
        view.delete(key(view, &record.introduction.id));
    }
    Ok(())
}

fn said(record: &RequestRecord) -> String {
    let who = &record.introduction;
    let asks = format!(
        "{} ({}) at {} asks to be paired",
        who.name,
        who.id.short(),
        record.from
    );
    match record.text.as_str() {
        "" => asks,
        text => format!("{asks}: {text}"),
    }
}
