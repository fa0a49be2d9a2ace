//! Tickets that were given out and still live.
//!
//! Only the key derived from a ticket's secret is kept, sealed, and it goes when the ticket ends.
//! A used-up ticket stays until it expires, because the node that used it may come again after a
//! lost verdict.
//!
//! ```text
//! Invite  key  6 ‖ ticket id 16
//!         value layout u8 = 1 ‖ ticket key 32 ‖ grants ‖ made ms u64 ‖ expires ms u64 ‖ uses left u32
//!               ‖ users u32 × id 32
//! ```

use std::ops::ControlFlow;

use packhorse_protocol::grant::Grants;
use packhorse_protocol::node_id::NodeId;
use packhorse_protocol::ticket::TicketKey;

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
}

impl InviteRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut pen = Pen::new(1, 128);
        pen.raw(self.key.as_bytes());
        put_grants(&mut pen, &self.grants);
        pen.u64(self.made_ms)
            .u64(self.expires_ms)
            .u32(self.uses_left);
        pen.u32(u32::try_from(self.users.len()).expect("a ticket has fewer than 2^32 uses"));
        for user in &self.users {
            pen.raw(user.as_bytes());
        }
        pen.done()
    }

    pub(super) fn decode(ticket_id: [u8; 16], bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let key = TicketKey::from_bytes(&cursor.array()?);
        let grants = take_grants(&mut cursor)?;
        let (made_ms, expires_ms) = (cursor.u64()?, cursor.u64()?);
        let uses_left = cursor.u32()?;
        let users = (0..cursor.u32()?)
            .map(|_| node_id(&mut cursor))
            .collect::<Result<Vec<_>, _>>()?;
        cursor.end()?;
        Ok(Self {
            ticket_id,
            key,
            grants,
            made_ms,
            expires_ms,
            uses_left,
            users,
        })
    }
}

/// Why a ticket pairs nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketRefusal {
    /// It was never given out here, was revoked, or expired long ago.
    #[error("the ticket is not known here")]
    Unknown,
    /// Its time is over. Ask for another.
    #[error("the ticket has expired")]
    Expired,
    /// All its uses are spent. Ask for another.
    #[error("the ticket is used up")]
    UsedUp,
}

pub(crate) fn invite(
    source: &impl Source,
    ticket_id: [u8; 16],
) -> Result<Option<InviteRecord>, ReadFault> {
    read(source, &Key::invite(ticket_id), |bytes| {
        InviteRecord::decode(ticket_id, bytes)
    })
}

/// Keeps a new ticket, and forgets those that have ended.
pub(crate) fn add(view: &mut View, invite: &InviteRecord) -> Result<(), Refused> {
    forget_expired(view)?;
    view.put(Key::invite(invite.ticket_id), invite.encode());
    Ok(())
}

/// Counts a use by `user`; a node that used the ticket before comes again for nothing.
pub(crate) fn spend(
    view: &mut View,
    ticket_id: [u8; 16],
    user: NodeId,
    now_ms: u64,
) -> Result<InviteRecord, Refused> {
    let mut found = invite(view, ticket_id)?.ok_or(Refused::Ticket(TicketRefusal::Unknown))?;
    if now_ms >= found.expires_ms {
        return Err(Refused::Ticket(TicketRefusal::Expired));
    }
    if found.users.contains(&user) {
        return Ok(found);
    }
    found.uses_left = found
        .uses_left
        .checked_sub(1)
        .ok_or(Refused::Ticket(TicketRefusal::UsedUp))?;
    found.users.push(user);
    view.put(Key::invite(ticket_id), found.encode());
    Ok(found)
}

pub(crate) fn forget_expired(view: &mut View) -> Result<(), Refused> {
    let now_ms = view.now_ms();
    let mut expired = Vec::new();
    view.scan_prefix(&Key::table(Table::Invite), &mut |key, plain| {
        let ticket_id = key
            .as_bytes()
            .last_chunk::<16>()
            .copied()
            .unwrap_or_default();
        if let Ok(Ok(invite)) = plain.map(|plain| InviteRecord::decode(ticket_id, &plain))
            && now_ms >= invite.expires_ms
        {
            expired.push(key);
        }
        ControlFlow::Continue(())
    })?;
    for key in expired {
        view.delete(key);
    }
    Ok(())
}
