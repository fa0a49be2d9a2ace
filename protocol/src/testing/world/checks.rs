//! What the world promises, compared with a plain list of what was accepted.
//!
//! Nothing here looks into a machine, only into both stores and at what was told.
//!
//! Read [`World::check`].

use std::collections::{BTreeMap, BTreeSet};

use super::{Sent, World};
use crate::epoch::Lane;
use crate::limits;
use crate::message::Message;
use crate::session::SessionEvent;

impl World {
    /// What must hold at every moment.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_always(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            for lane in Lane::ALL {
                let tables = node.store.lane(lane);
                assert!(tables.refusals.len() <= limits::REFUSALS_UNCONFIRMED_MAX);
                let mut seen = BTreeSet::new();
                let mut before = 0;
                for id in tables.inbox.iter().map(|arrived| id_of(&arrived.message)) {
                    assert!(
                        seen.insert(id),
                        "node {index}: message {id} was stored twice"
                    );
                    let is_home = |sent: &Sent| (sent.from, sent.lane) == (1 - index, lane);
                    assert!(
                        self.sent.get(&id).is_some_and(is_home),
                        "node {index}: message {id} is not for its {lane:?} lane"
                    );
                    // Numbers of messages rise in the order of acceptance.
                    if !self.is_revived(id) {
                        assert!(
                            before < id,
                            "node {index}: message {id} stands behind {before}"
                        );
                        before = id;
                    }
                }
                let mut dead = BTreeSet::new();
                for letter in &tables.dead {
                    assert!(
                        dead.insert(letter.position),
                        "{:?} died twice",
                        letter.position
                    );
                }
            }
        }
    }

    /// What must hold when everything has been delivered.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn check(&self) {
        self.check_always();
        let lanes = || self.nodes.iter().flat_map(|node| &node.store.lanes);
        let stored: BTreeSet<u64> = lanes()
            .flat_map(|lane| &lane.inbox)
            .map(|arrived| id_of(&arrived.message))
            .collect();
        self.check_ends(&stored);
        let dead: BTreeMap<u64, bool> = lanes()
            .flat_map(|lane| &lane.dead)
            .map(|letter| (id_of(&letter.message), letter.refused.is_some()))
            .collect();
        for (id, sent) in &self.sent {
            let sender = &self.nodes[sent.from];
            let recipient = &self.nodes[1 - sent.from];
            let (is_stored, is_dead) = (stored.contains(id), dead.contains_key(id));
            let is_refused = dead.get(id).is_some_and(|is_refused| *is_refused);
            assert!(
                !(is_refused && is_stored),
                "message {id} was stored and refused"
            );
            assert!(
                is_stored || is_dead || self.is_excused(*id, sent),
                "message {id} vanished: {sent:?}, decided {:?}, given up {:?}, restores {:?} {:?}",
                self.decided.get(id),
                self.given_up.get(id),
                sender.restores,
                recipient.restores,
            );
        }
        for node in &self.nodes {
            for lane in &node.store.lanes {
                assert!(lane.rows.is_empty(), "messages still wait");
                assert!(lane.refusals.is_empty(), "refusals are still unconfirmed");
            }
        }
    }

    /// What was given up and is not in doubt has not arrived. Who was set back knows less.
    fn check_ends(&self, stored: &BTreeSet<u64>) {
        if self.nodes.iter().any(|node| !node.restores.is_empty()) {
            return;
        }
        let lanes = self.nodes.iter().flat_map(|node| &node.store.lanes);
        for letter in lanes.flat_map(|lane| &lane.dead) {
            let id = id_of(&letter.message);
            assert!(
                letter.is_open || !stored.contains(&id),
                "message {id} at {:?} was delivered, and called not delivered",
                letter.position
            );
        }
    }

    /// Whether later messages may stand before this one: it was given up, or its recipient
    /// was set back after storing it and said so, and then the sender was set back too, to
    /// when it still waited.
    fn is_revived(&self, id: u64) -> bool {
        let Some(sent) = self.sent.get(&id) else {
            return false;
        };
        let given_up = self.given_up.get(&id).copied();
        let set_back = self.nodes[1 - sent.from].restores.iter().map(|&(at, _)| at);
        let overtaken = set_back.filter(|at| sent.step <= *at).chain(given_up).min();
        let restores = &self.nodes[sent.from].restores;
        overtaken.is_some_and(|step| restores.iter().any(|&(at, _)| step <= at))
    }

    /// Whether a message may be missing: an operator put back an older store.
    fn is_excused(&self, id: u64, sent: &Sent) -> bool {
        let sender = &self.nodes[sent.from];
        let recipient = &self.nodes[1 - sent.from];
        // The sender's store forgot the message, or forgot the dead letter that it had become.
        let forgotten = sender.restores.iter().any(|&(at, copy)| {
            let was_accepted = copy <= sent.step && sent.step <= at;
            let refused = self
                .decided
                .get(&id)
                .is_some_and(|&(step, stored)| !stored && step <= at);
            let given_up = self.given_up.get(&id).is_some_and(|&step| step <= at);
            was_accepted || refused || given_up
        });
        // The recipient's store forgot it: then both sides have reported a loss since. One
        // exception: a sender that was set back itself sent an old epoch's message again after
        // newer ones, and Start names of fully settled epochs only the newest.
        let lane = sent.lane;
        let here = |event: &SessionEvent| matches!(event, SessionEvent::PeerRolledBack { lane: l, .. } if *l == lane);
        let there = |event: &SessionEvent| matches!(event, SessionEvent::RolledBack { lane: l, .. } if *l == lane);
        let set_back = recipient.restores.iter().any(|&(at, _)| {
            let was_stored = self.decided.get(&id).is_some_and(|&(step, _)| step <= at);
            let is_reported = sender.events.iter().any(|(step, e)| *step >= at && here(e))
                && recipient
                    .events
                    .iter()
                    .any(|(step, e)| *step >= at && there(e));
            let was_revived = sender
                .restores
                .iter()
                .any(|(s, _)| sent.step <= *s && *s <= at);
            was_stored && (is_reported || was_revived)
        });
        forgotten || set_back
    }
}

/// The number that the world gave a message.
pub(super) fn id_of(message: &Message) -> u64 {
    let bytes: [u8; 8] = message
        .payload
        .as_slice()
        .try_into()
        .expect("the world's own payload");
    u64::from_be_bytes(bytes)
}
