//! Tickets: made, listed, taken back.

use packhorse_actors::store::{InviteRecord, TICKET_USES_MAX, TicketRefusal, short_id};
use packhorse_protocol::limits::ADDRESSES_MAX;

use crate::Ticket;
use crate::error::{ErrorKind, NodeError};
use crate::node::Node;
use crate::peer::{Invite, InviteInfo, InviteState, InviteUser};
use crate::time::WallTime;
use crate::translate::{from_store, grants, millis};

/// What names tickets to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviteChoice {
    /// Those with these ids, or the beginnings of them.
    Ids(Vec<String>),
    /// Every one that can still pair somebody.
    All,
}

impl Node {
    /// Makes a ticket: whoever joins with it may do what `invite` grants.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] without a listener, [`ErrorKind::Usage`] for limits of the ticket.
    pub async fn invite(&self, invite: Invite) -> Result<Ticket, NodeError> {
        let hints = self.tree.me.announced.current();
        if hints.is_empty() {
            return Err(NodeError::new(
                ErrorKind::Refused,
                "this node listens nowhere, so nobody can join it",
            )
            .with_hint("packhorse up --listen 0.0.0.0:7433"));
        }
        let usage =
            |error: &dyn std::error::Error| NodeError::new(ErrorKind::Usage, error.to_string());
        if invite.uses > TICKET_USES_MAX {
            return Err(NodeError::new(
                ErrorKind::Usage,
                format!(
                    "a ticket with {} uses, the limit is {TICKET_USES_MAX}",
                    invite.uses
                ),
            ));
        }
        let grants = grants(invite.grants)?;
        let hints = hints.iter().take(ADDRESSES_MAX).cloned().collect();
        let ticket = Ticket::new(
            self.id,
            self.env.random_bytes(),
            self.env.random_bytes(),
            hints,
        )
        .map_err(|error| usage(&error))?;
        let now_ms = self.env.now_ms();
        let record = InviteRecord {
            ticket_id: ticket.id(),
            key: ticket.key(),
            grants,
            made_ms: now_ms,
            expires_ms: now_ms.saturating_add(millis(invite.expires)),
            uses_left: invite.uses,
            users: Vec::new(),
            grants_for_ms: invite.grants_for.map(millis),
            revoked_ms: None,
            compares: Vec::new(),
        };
        let added = self.tree.store.add_invite(record).await;
        added.map_err(from_store)?;
        Ok(ticket)
    }

    /// Every ticket that is remembered, the newest last: also those that ended within a day.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn invites(&self) -> Result<Vec<InviteInfo>, NodeError> {
        let records = self.tree.store.invites().await.map_err(from_store)?;
        let peers = self.tree.store.every_peer().await.map_err(from_store)?;
        let now_ms = self.env.now_ms();
        let user = |(index, id): (usize, &crate::NodeId), compares: &[String]| InviteUser {
            id: *id,
            name: peers
                .iter()
                .find(|peer| peer.id == *id)
                .map(|peer| peer.name.clone())
                .unwrap_or_default(),
            compare: compares.get(index).filter(|text| !text.is_empty()).cloned(),
        };
        Ok(records
            .into_iter()
            .map(|record| InviteInfo {
                id: short_id(record.ticket_id),
                state: invite_state(&record, now_ms),
                grants: record.grants.iter().cloned().collect(),
                grants_for_ms: record.grants_for_ms,
                made: WallTime(record.made_ms),
                expires: WallTime(record.expires_ms),
                uses_left: record.uses_left,
                users: record
                    .users
                    .iter()
                    .enumerate()
                    .map(|one| user(one, &record.compares))
                    .collect(),
            })
            .collect())
    }

    /// Takes tickets back: they pair nobody from now on. Who was paired by them stays a peer.
    /// Returns the ids of those that could still have paired somebody.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an id that no ticket has, [`ErrorKind::Usage`] for the beginning
    /// of several; nothing was taken back then.
    pub async fn revoke_invites(&self, choice: InviteChoice) -> Result<Vec<String>, NodeError> {
        let records = self.tree.store.invites().await.map_err(from_store)?;
        let chosen = match choice {
            InviteChoice::All => records.iter().map(|record| record.ticket_id).collect(),
            InviteChoice::Ids(ids) => ids
                .iter()
                .map(|id| chosen(&records, id))
                .collect::<Result<Vec<_>, _>>()?,
        };
        let mut revoked = Vec::new();
        for ticket_id in chosen {
            match self.tree.store.revoke_invite(ticket_id).await {
                Ok(true) => revoked.push(short_id(ticket_id)),
                Ok(false) => {}
                Err(error) => return Err(from_store(error)),
            }
        }
        Ok(revoked)
    }
}

fn invite_state(record: &InviteRecord, now_ms: u64) -> InviteState {
    match record.ended(now_ms) {
        None => InviteState::Open,
        Some(TicketRefusal::Revoked) => InviteState::Revoked,
        Some(TicketRefusal::UsedUp) => InviteState::UsedUp,
        Some(_) => InviteState::Expired,
    }
}

/// The one ticket whose id begins like this.
fn chosen(records: &[InviteRecord], id: &str) -> Result<[u8; 16], NodeError> {
    let mut matching = records
        .iter()
        .filter(|record| !id.is_empty() && short_id(record.ticket_id).starts_with(id));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one.ticket_id),
        (Some(_), Some(_)) => Err(NodeError::new(
            ErrorKind::Usage,
            format!("several tickets have an id that begins with `{id}`"),
        )
        .with_hint("packhorse invites list")),
        (None, _) => Err(NodeError::new(
            ErrorKind::NotFound,
            format!("no ticket `{id}` is known here"),
        )
        .with_hint("packhorse invites list")),
    }
}
