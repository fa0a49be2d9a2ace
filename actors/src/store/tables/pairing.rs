//! Becoming peers: ticket, peer and grants in one step.
//!
//! Both sides end here, each with its own record. Pairing again with a known node adds to what was
//! granted and never takes away: of two ends of a grant the later one counts, and taking away is
//! `revoke`'s. What was asked, here or there, is over with it.

use packhorse_protocol::grant::{Grants, Held};
use packhorse_protocol::handshake::Introduction;
use packhorse_protocol::limits::{ADDRESSES_MAX, NAME_BYTES_MAX};
use packhorse_protocol::text;

use crate::events::Fact;
use crate::store::error::Refused;
use crate::store::view::View;

use super::peers::{self, PeerRecord};
use super::{asking, deny, head, invites, requests};

/// Tickets that one peer's record names; older ones are told by the tickets themselves.
const TICKETS_MAX: usize = 16;

/// What the inviter commits when a joiner has proven a ticket.
#[derive(Clone, Debug)]
pub struct PairJoiner {
    /// The ticket it proved.
    pub ticket_id: [u8; 16],
    /// Who it is.
    pub introduction: Introduction,
    /// When it came, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// What the joiner commits when the inviter has accepted it.
#[derive(Clone, Debug)]
pub struct PairInviter {
    /// Who the inviter is.
    pub introduction: Introduction,
    /// What the operator calls it; else the name it announced.
    pub name: Option<String>,
    /// What it may do here.
    pub grants: Grants,
    /// What this node may do there.
    pub granted: Grants,
    /// Where the ticket said that it is.
    pub hints: Vec<String>,
}

/// Spends a use of the ticket and makes the joiner a peer.
pub(crate) fn pair_joiner(view: &mut View, pair: &PairJoiner) -> Result<PeerRecord, Refused> {
    let who = &pair.introduction;
    let (invite, is_first) = invites::spend(view, pair.ticket_id, who.id, pair.now_ms)?;
    let mut grants = Grants::none();
    if is_first {
        let until_ms = invite
            .grants_for_ms
            .map(|ms| pair.now_ms.saturating_add(ms));
        for grant in invite.grants.iter() {
            grants
                .insert_until(grant.clone(), until_ms)
                .map_err(Refused::Grants)?;
        }
    }
    // A peer that announces no address is dialled by nobody: it dials.
    let pairing = Pairing {
        who,
        name: None,
        grants: &grants,
        granted: &Grants::none(),
        addresses: &who.addresses,
        ticket: Some(pair.ticket_id),
        now_ms: pair.now_ms,
    };
    pairing.commit(view)
}

/// Makes a node a peer that asked for it, as a person or the application decided.
pub(crate) fn pair_asker(
    view: &mut View,
    who: &Introduction,
    name: Option<&str>,
    grants: &Grants,
) -> Result<PeerRecord, Refused> {
    let pairing = Pairing {
        who,
        name,
        grants,
        granted: &Grants::none(),
        addresses: &who.addresses,
        ticket: None,
        now_ms: view.now_ms(),
    };
    pairing.commit(view)
}

/// Makes the inviter a peer.
pub(crate) fn pair_inviter(view: &mut View, pair: &PairInviter) -> Result<PeerRecord, Refused> {
    let who = &pair.introduction;
    let mut addresses = who.addresses.clone();
    // The hints led here once, so they are worth keeping behind what the inviter says itself.
    for hint in &pair.hints {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(hint) {
            addresses.push(hint.clone());
        }
    }
    let pairing = Pairing {
        who,
        name: pair.name.as_deref(),
        grants: &pair.grants,
        granted: &pair.granted,
        addresses: &addresses,
        ticket: None,
        now_ms: view.now_ms(),
    };
    pairing.commit(view)
}

/// What both sides have in common.
struct Pairing<'a> {
    who: &'a Introduction,
    name: Option<&'a str>,
    grants: &'a Grants,
    granted: &'a Grants,
    addresses: &'a [String],
    ticket: Option<[u8; 16]>,
    now_ms: u64,
}

impl Pairing<'_> {
    fn commit(&self, view: &mut View) -> Result<PeerRecord, Refused> {
        deny::check(view, &self.who.id)?;
        requests::forget(view, &self.who.id);
        // Whoever wanted it asked wanted this of it.
        let mut grants = self.grants.clone();
        let asked = asking::forget(view, &self.who.id)?;
        add_grants(&mut grants, &asked, self.now_ms)?;
        match peers::record_of(view, &self.who.id)? {
            Some(before) if before.is_peer() => self.pair_again(view, &before, &grants),
            before => self.pair_first(view, before, grants),
        }
    }

    /// A node that was forgotten and is allowed again takes the number it had: marks lie under it.
    fn pair_first(
        &self,
        view: &mut View,
        forgotten: Option<PeerRecord>,
        grants: Grants,
    ) -> Result<PeerRecord, Refused> {
        let name = self.free_name(view)?;
        let (number, failures, highest) = match &forgotten {
            Some(record) => (record.number, record.failures, record.highest),
            None => (head::next_peer(view)?, 0, None),
        };
        let peer = PeerRecord {
            addresses: self.addresses.to_vec(),
            grants,
            granted: self.granted.clone(),
            last_seen_ms: Some(self.now_ms),
            highest: highest.or(Some(self.who.epoch)),
            failures,
            tickets: self.ticket.into_iter().collect(),
            ..PeerRecord::new(number, self.who.id, name, self.now_ms)
        };
        peers::add(view, &peer);
        view.fact(Fact::Paired { peer: peer.number });
        Ok(peer)
    }

    fn pair_again(
        &self,
        view: &mut View,
        before: &PeerRecord,
        grants: &Grants,
    ) -> Result<PeerRecord, Refused> {
        let mut after = before.clone();
        if let Some(name) = self.name {
            name.clone_into(&mut after.name);
        }
        after.announces(self.addresses);
        add_grants(&mut after.grants, grants, self.now_ms)?;
        add_grants(&mut after.granted, self.granted, self.now_ms)?;
        after.last_seen_ms = Some(self.now_ms);
        if let Some(ticket) = self.ticket.filter(|id| !after.tickets.contains(id)) {
            if after.tickets.len() >= TICKETS_MAX {
                after.tickets.remove(0);
            }
            after.tickets.push(ticket);
        }
        peers::put(view, before, &after)?;
        Ok(after)
    }

    /// A name that was asked for is taken or refused; an announced one gets a suffix.
    fn free_name(&self, view: &View) -> Result<String, Refused> {
        if let Some(name) = self.name {
            text::check_name(name).map_err(Refused::Text)?;
            return match peers::by_name(view, name)? {
                None => Ok(name.to_owned()),
                Some(_) => Err(Refused::NameTaken(name.to_owned())),
            };
        }
        text::check_name(&self.who.name).map_err(Refused::Text)?;
        let mut name = self.who.name.clone();
        let mut count = 1_u32;
        while peers::by_name(view, &name)?.is_some() {
            count += 1;
            name = with_suffix(&self.who.name, count);
        }
        Ok(name)
    }
}

/// `name-2`, shortened so that the whole stays a name.
fn with_suffix(name: &str, count: u32) -> String {
    let suffix = format!("-{count}");
    let mut end = name.len().min(NAME_BYTES_MAX - suffix.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", name.get(..end).unwrap_or_default())
}

/// Adds grants; one that is held keeps the later of its ends. Those that have ended take no room.
fn add_grants(held: &mut Grants, more: &Grants, now_ms: u64) -> Result<(), Refused> {
    *held = held.alive(now_ms);
    for Held { grant, until_ms } in more.held() {
        let known = held.held().find(|known| known.grant == *grant);
        let until_ms = match known {
            // No end is the latest.
            Some(known) => known.until_ms.zip(*until_ms).map(|(one, two)| one.max(two)),
            None => *until_ms,
        };
        held.insert_until(grant.clone(), until_ms)
            .map_err(Refused::Grants)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_keeps_the_name_within_its_limit() {
        assert_eq!(with_suffix("anna", 2), "anna-2");
        let long = "ä".repeat(32);
        let named = with_suffix(&long, 10);
        assert!(named.len() <= NAME_BYTES_MAX);
        assert!(named.ends_with("ä-10"));
    }
}
