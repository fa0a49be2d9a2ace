//! What is asked of the store about what peers may do, and about tickets.
//!
//! Every decision stands in a job: what a peer holds is read where it is changed. A change is in
//! effect when it is answered, because whatever uses a grant reads it inside its own write.

use packhorse_protocol::grant::{Grant, Held, Revocation};
use packhorse_protocol::node_id::NodeId;

use crate::events::Fact;

use super::error::{Refused, StoreError};
use super::handle::StoreHandle;
use super::tables::invites::{self, InviteRecord};
use super::tables::peers::{self, PeerNumber, PeerRecord};
use super::view::View;

/// What came of taking grants away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The peer as it is now.
    pub peer: PeerRecord,
    /// What it holds no more.
    pub taken: Vec<Grant>,
    /// What it did not hold.
    pub missing: Vec<Revocation>,
}

impl StoreHandle {
    /// Gives a peer grants; one that it holds gets the new end. Grants that have ended go.
    ///
    /// # Errors
    /// [`Refused::NoSuchPeer`], [`Refused::Grants`], and whatever ails the store.
    pub async fn grant(
        &self,
        peer: PeerNumber,
        grants: Vec<Held>,
    ) -> Result<PeerRecord, StoreError> {
        self.write(0, move |view| grant(view, peer, grants)).await
    }

    /// Takes grants away from a peer.
    ///
    /// # Errors
    /// [`Refused::NoSuchPeer`], and whatever ails the store.
    pub async fn revoke(
        &self,
        peer: PeerNumber,
        revocations: Vec<Revocation>,
    ) -> Result<Revoked, StoreError> {
        self.write(0, move |view| revoke(view, peer, revocations))
            .await
    }

    /// Gives a peer another name here.
    ///
    /// # Errors
    /// [`Refused::NameTaken`], [`Refused::Text`], [`Refused::NoSuchPeer`], and whatever ails the
    /// store.
    pub async fn rename(&self, peer: PeerNumber, name: String) -> Result<PeerRecord, StoreError> {
        self.write(0, move |view| rename(view, peer, name)).await
    }

    /// Every ticket that is remembered, the newest last.
    pub async fn invites(&self) -> Result<Vec<InviteRecord>, StoreError> {
        self.read(|reader| Ok(invites::all(reader)?)).await
    }

    /// Takes a ticket back. Returns whether it could still have paired somebody.
    ///
    /// # Errors
    /// [`Refused::Ticket`] when it is not remembered, and whatever ails the store.
    pub async fn revoke_invite(&self, ticket_id: [u8; 16]) -> Result<bool, StoreError> {
        self.write(0, move |view| invites::revoke(view, ticket_id))
            .await
    }

    /// Notes what two people may compare about a pairing by this ticket.
    pub async fn note_compare(
        &self,
        ticket_id: [u8; 16],
        user: NodeId,
        compare: String,
    ) -> Result<(), StoreError> {
        self.write(0, move |view| {
            invites::note_compare(view, ticket_id, user, &compare)
        })
        .await
    }
}

fn grant(view: &mut View, peer: PeerNumber, grants: Vec<Held>) -> Result<PeerRecord, Refused> {
    let before = peers::live(view, peer)?.ok_or(Refused::NoSuchPeer(peer))?;
    let mut after = before.clone();
    after.grants = before.grants.alive(view.now_ms());
    let mut given = Vec::new();
    for Held { grant, until_ms } in grants {
        let is_changed = after
            .grants
            .insert_until(grant.clone(), until_ms)
            .map_err(Refused::Grants)?;
        if is_changed {
            given.push(grant);
        }
    }
    peers::put(view, &before, &after)?;
    tell(view, peer, "granted", &given);
    Ok(after)
}

fn revoke(
    view: &mut View,
    peer: PeerNumber,
    revocations: Vec<Revocation>,
) -> Result<Revoked, Refused> {
    let before = peers::live(view, peer)?.ok_or(Refused::NoSuchPeer(peer))?;
    let mut after = before.clone();
    let (mut taken, mut missing) = (Vec::new(), Vec::new());
    for revocation in revocations {
        let meant: Vec<Grant> = after
            .grants
            .iter()
            .filter(|held| revocation.means(held))
            .cloned()
            .collect();
        if meant.is_empty() {
            missing.push(revocation);
        }
        for grant in meant {
            after.grants.remove(&grant);
            taken.push(grant);
        }
    }
    peers::put(view, &before, &after)?;
    tell(view, peer, "revoked", &taken);
    Ok(Revoked {
        peer: after,
        taken,
        missing,
    })
}

fn tell(view: &mut View, peer: PeerNumber, what: &str, grants: &[Grant]) {
    if grants.is_empty() {
        return;
    }
    let words: Vec<String> = grants.iter().map(Grant::to_string).collect();
    let text = format!("{what} {}", words.join(" "));
    view.fact(Fact::GrantsChanged { peer, text });
}

fn rename(view: &mut View, peer: PeerNumber, name: String) -> Result<PeerRecord, Refused> {
    let before = peers::live(view, peer)?.ok_or(Refused::NoSuchPeer(peer))?;
    let after = PeerRecord {
        name,
        ..before.clone()
    };
    peers::put(view, &before, &after)?;
    if before.name != after.name {
        view.fact(Fact::Renamed {
            peer,
            text: format!("{} is now named {}", before.name, after.name),
        });
    }
    Ok(after)
}
