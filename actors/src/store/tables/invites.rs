//! Tickets that were given out.
//!
//! Only the key derived from a ticket's secret is kept, sealed. It goes a day after the ticket
//! ended: until then whoever proves the secret is told what became of the ticket, and nobody else.
//! A used-up ticket stays, because the node that used it may come again after a lost verdict.
//!
//! ```text
//! Invite  key  6 ‖ ticket id 16
//!         value layout u8 = 2 ‖ ticket key 32 ‖ grants ‖ made ms u64 ‖ expires ms u64 ‖ uses left u32
//!               ‖ users u32 × id 32 ‖ grants for ms: 0 or 1 ‖ u64 ‖ revoked ms: 0 or 1 ‖ u64
//!               ‖ compares: count u32 ‖ texts, in the order of the users
//!         layout 1 ends behind the users
//! ```

use std::ops::ControlFlow;

use data_encoding::BASE32_NOPAD;
use packhorse_protocol::grant::Grants;
use packhorse_protocol::node_id::NodeId;
use packhorse_protocol::ticket::TicketKey;

use crate::events::Fact;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Table};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::peers::{node_id, put_grants, take_grants};
use super::read;

/// A ticket as its inviter keeps it.
#[derive(Clone, Debug)]
pub struct InviteRecord {
    /// The ticket's id.
    pub ticket_id: [u8; 16],
    /// What proves that somebody holds the ticket.
    pub key: TicketKey,
    /// What its user may do here.
    pub grants: Grants,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// When it ends.
    pub expires_ms: u64,
    /// How many more nodes may use it.
    pub uses_left: u32,
    /// Who used it: they may come again.
    pub users: Vec<NodeId>,
    /// How long the grants last from the moment of joining; for ever when not given.
    pub grants_for_ms: Option<u64>,
    /// When it was taken back, in milliseconds since the Unix epoch.
    pub revoked_ms: Option<u64>,
    /// What two people compare, per user; empty while the handshake is not over.
    pub compares: Vec<String>,
}

/// Tickets whose records are kept: a record is up to 4,096 users of 32 bytes, and a compare string
/// of each; most have one.
const INVITES_MAX: usize = 1_024;
/// How many nodes may use one ticket. Its record is written with every use.
pub const TICKET_USES_MAX: u32 = 4_096;
/// For how long a ticket that has ended is remembered.
const REMEMBERED_MS: u64 = 24 * 3_600 * 1_000;

impl InviteRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut pen = Pen::new(2, 128);
        pen.raw(self.key.as_bytes());
        put_grants(&mut pen, &self.grants);
        pen.u64(self.made_ms)
            .u64(self.expires_ms)
            .u32(self.uses_left);
        pen.u32(u32::try_from(self.users.len()).expect("a ticket has fewer than 2^32 uses"));
        for user in &self.users {
            pen.raw(user.as_bytes());
        }
        pen.maybe_u64(self.grants_for_ms).maybe_u64(self.revoked_ms);
        pen.texts(&self.compares);
        pen.done()
    }

    pub(super) fn decode(ticket_id: [u8; 16], bytes: &[u8]) -> Result<Self, Malformed> {
        let (layout, mut cursor) = Cursor::of_layouts(1..=2, bytes)?;
        let key = TicketKey::from_bytes(&cursor.array()?);
        let grants = take_grants(&mut cursor)?;
        let (made_ms, expires_ms) = (cursor.u64()?, cursor.u64()?);
        let uses_left = cursor.u32()?;
        let users = (0..cursor.u32()?)
            .map(|_| node_id(&mut cursor))
            .collect::<Result<Vec<_>, _>>()?;
        let (grants_for_ms, revoked_ms, compares) = match layout {
            1 => (None, None, Vec::new()),
            _ => (cursor.maybe_u64()?, cursor.maybe_u64()?, cursor.texts()?),
        };
        cursor.end()?;
        Ok(Self {
            ticket_id,
            key,
            grants,
            made_ms,
            expires_ms,
            uses_left,
            users,
            grants_for_ms,
            revoked_ms,
            compares,
        })
    }

    /// What stands against another node using it now; `None` when nothing does.
    #[must_use]
    pub fn ended(&self, now_ms: u64) -> Option<TicketRefusal> {
        if self.revoked_ms.is_some() {
            Some(TicketRefusal::Revoked)
        } else if now_ms >= self.expires_ms {
            Some(TicketRefusal::Expired)
        } else if self.uses_left == 0 {
            Some(TicketRefusal::UsedUp)
        } else {
            None
        }
    }
}

/// Why a ticket pairs nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketRefusal {
    /// It was never given out here, or ended long ago.
    #[error("the ticket is not known here")]
    Unknown,
    /// Its time is over. Ask for another.
    #[error("the ticket has expired")]
    Expired,
    /// All its uses are spent. Ask for another.
    #[error("the ticket is used up")]
    UsedUp,
    /// It was taken back. Ask for another.
    #[error("the ticket was revoked")]
    Revoked,
}

pub(crate) fn invite(
    source: &impl Source,
    ticket_id: [u8; 16],
) -> Result<Option<InviteRecord>, ReadFault> {
    read(source, &Key::invite(ticket_id), |bytes| {
        InviteRecord::decode(ticket_id, bytes)
    })
}

/// Keeps a new ticket, and forgets those that ended long ago.
pub(crate) fn add(view: &mut View, invite: &InviteRecord) -> Result<(), Refused> {
    forget_expired(view)?;
    let kept = all(view)?;
    if kept.len() >= INVITES_MAX {
        // Those that pair nobody any more are remembered for the sake of a better answer only.
        let now_ms = view.now_ms();
        let is_over = |kept: &&InviteRecord| kept.revoked_ms.is_some() || now_ms >= kept.expires_ms;
        let mut left = kept.len();
        for over in kept.iter().filter(is_over) {
            view.delete(Key::invite(over.ticket_id));
            left -= 1;
        }
        if left >= INVITES_MAX {
            return Err(Refused::TooManyTickets {
                count: left + 1,
                limit: INVITES_MAX,
            });
        }
    }
    view.put(Key::invite(invite.ticket_id), invite.encode());
    Ok(())
}

/// Counts a use by `user`. A node that used the ticket before comes again for nothing, and gets
/// nothing anew: what it was given then may have been taken back since.
pub(crate) fn spend(
    view: &mut View,
    ticket_id: [u8; 16],
    user: NodeId,
    now_ms: u64,
) -> Result<(InviteRecord, bool), Refused> {
    let mut found = invite(view, ticket_id)?.ok_or(Refused::Ticket(TicketRefusal::Unknown))?;
    let was_used = found.users.contains(&user);
    match found.ended(now_ms) {
        None => {}
        Some(TicketRefusal::UsedUp) if was_used => {}
        Some(refusal) => return Err(Refused::Ticket(refusal)),
    }
    if was_used {
        return Ok((found, false));
    }
    found.uses_left = found
        .uses_left
        .checked_sub(1)
        .ok_or(Refused::Ticket(TicketRefusal::UsedUp))?;
    found.users.push(user);
    view.put(Key::invite(ticket_id), found.encode());
    Ok((found, true))
}

/// Notes what two people may compare about the pairing of `user`.
pub(crate) fn note_compare(
    view: &mut View,
    ticket_id: [u8; 16],
    user: NodeId,
    compare: &str,
) -> Result<(), Refused> {
    let Some(mut found) = invite(view, ticket_id)? else {
        return Ok(());
    };
    let Some(at) = found.users.iter().position(|known| *known == user) else {
        return Ok(());
    };
    if found.compares.len() <= at {
        found.compares.resize(at + 1, String::new());
    }
    if let Some(known) = found.compares.get_mut(at) {
        compare.clone_into(known);
    }
    view.put(Key::invite(ticket_id), found.encode());
    Ok(())
}

/// Takes a ticket back. Returns whether it could still have paired somebody.
pub(crate) fn revoke(view: &mut View, ticket_id: [u8; 16]) -> Result<bool, Refused> {
    let mut found = invite(view, ticket_id)?.ok_or(Refused::Ticket(TicketRefusal::Unknown))?;
    let now_ms = view.now_ms();
    if found.revoked_ms.is_some() {
        return Ok(false);
    }
    // One that has expired as well: a clock that goes back would make it pair again.
    found.revoked_ms = Some(now_ms);
    view.put(Key::invite(ticket_id), found.encode());
    if now_ms >= found.expires_ms {
        return Ok(false);
    }
    view.fact(Fact::InviteRevoked {
        text: short_id(ticket_id),
    });
    Ok(true)
}

/// Takes every ticket back that `user` came by. Returns how many could still have paired somebody.
pub(crate) fn revoke_of(view: &mut View, user: &NodeId) -> Result<usize, Refused> {
    let mut revoked = 0;
    for invite in all(view)? {
        if invite.users.contains(user) && revoke(view, invite.ticket_id)? {
            revoked += 1;
        }
    }
    Ok(revoked)
}

/// A ticket's id as people write it: ten characters of base 32.
#[must_use]
pub fn short_id(ticket_id: [u8; 16]) -> String {
    let mut text = BASE32_NOPAD.encode(&ticket_id).to_ascii_lowercase();
    text.truncate(10);
    text
}

/// Every ticket that is remembered, the newest last. One that does not open is passed over.
pub(crate) fn all(source: &impl Source) -> Result<Vec<InviteRecord>, ReadFault> {
    let mut all = Vec::new();
    source.scan_prefix(&Key::table(Table::Invite), &mut |key, plain| {
        let ticket_id = key
            .as_bytes()
            .last_chunk::<16>()
            .copied()
            .unwrap_or_default();
        if let Ok(Ok(invite)) = plain.map(|plain| InviteRecord::decode(ticket_id, &plain)) {
            all.push(invite);
        }
        ControlFlow::Continue(())
    })?;
    all.sort_by_key(|invite| (invite.made_ms, invite.ticket_id));
    Ok(all)
}

/// Drops the tickets that ended more than a day ago.
pub(crate) fn forget_expired(view: &mut View) -> Result<(), Refused> {
    let now_ms = view.now_ms();
    for invite in all(view)? {
        if now_ms >= invite.expires_ms.saturating_add(REMEMBERED_MS) {
            view.delete(Key::invite(invite.ticket_id));
        }
    }
    Ok(())
}
