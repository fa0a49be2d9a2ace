//! Who may send, and start commands: by what was granted and taken away, as far as it is certain.

use std::collections::BTreeSet;

use packhorse_protocol::grant::{Capability, Grant, Grants};

use super::Violation;
use super::history::History;
use crate::ledger::{ByHand, Said, What};
use crate::plan::{Node, Plan};

/// What one peer may hold, and when.
type Held = BTreeSet<String>;

/// One thing that a peer may have held, from when until when at the most.
#[derive(Clone, Debug)]
struct Spell {
    from_ms: u64,
    until_ms: u64,
    held: Held,
}

/// All that a peer may have held at a machine, over time. Where an answer was lost, both.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    spells: Vec<Spell>,
}

impl Timeline {
    /// What `peer` may have held at `node`.
    pub(crate) fn of(history: &History<'_>, node: Node, peer: Node) -> Self {
        let first = history.plan.topology.grants(node, peer).unwrap_or_default();
        let held: Held = first.iter().map(|grant| (*grant).to_owned()).collect();
        let mut timeline = Self {
            spells: vec![Spell {
                from_ms: 0,
                until_ms: u64::MAX,
                held,
            }],
        };
        // Where the disk was put back any of them may hold again.
        let is_loose = !history.doubts.is_spotless(node);
        let of_peer = history.deeds.iter().filter(|deed| deed.node == node);
        for deed in of_peer {
            let is_of_peer = match deed.deed {
                ByHand::Revoke { from, .. } => *from == peer,
                ByHand::Grant { to, .. } => *to == peer,
                ByHand::Forget { peer: forgotten } => *forgotten == peer,
                ByHand::Readmit { peer: again, .. } => *again == peer,
                _ => continue,
            };
            if !is_of_peer || !deed.is_maybe_done() {
                continue;
            }
            let is_certain = matches!(deed.answer, Some((_, Said::Yes(_)))) && !is_loose;
            timeline.change(deed.asked_ms, deed.answered_ms(), is_certain, deed.deed);
        }
        timeline
    }

    fn change(&mut self, asked_ms: u64, answered_ms: u64, is_certain: bool, deed: &ByHand) {
        let open: Vec<Held> = self
            .spells
            .iter_mut()
            .filter(|spell| spell.until_ms == u64::MAX)
            .map(|spell| {
                if is_certain {
                    spell.until_ms = answered_ms;
                }
                spell.held.clone()
            })
            .collect();
        for before in open {
            self.spells.push(Spell {
                from_ms: asked_ms,
                until_ms: u64::MAX,
                held: after(before, deed),
            });
        }
    }

    /// Whether something may have been allowed at some time between the two.
    pub(crate) fn may_allow(
        &self,
        what: Capability,
        topic: &str,
        from_ms: u64,
        until_ms: u64,
    ) -> bool {
        self.between(from_ms, until_ms)
            .any(|spell| allows(&spell.held, what, topic))
    }

    /// Whether something may have been denied at some time between the two.
    pub(crate) fn may_deny(
        &self,
        what: Capability,
        topic: &str,
        from_ms: u64,
        until_ms: u64,
    ) -> bool {
        self.between(from_ms, until_ms)
            .any(|spell| !allows(&spell.held, what, topic))
    }

    fn between(&self, from_ms: u64, until_ms: u64) -> impl Iterator<Item = &Spell> {
        let spells = self.spells.iter();
        spells.filter(move |spell| spell.from_ms <= until_ms && from_ms <= spell.until_ms)
    }
}

fn after(mut held: Held, deed: &ByHand) -> Held {
    match deed {
        ByHand::Revoke { grant, .. } => {
            held.remove(grant);
        }
        ByHand::Grant { grant, .. } => {
            held.insert(grant.clone());
        }
        ByHand::Forget { .. } => held.clear(),
        ByHand::Readmit { grants, .. } => held = grants.iter().cloned().collect(),
        _ => {}
    }
    held
}

fn allows(held: &Held, what: Capability, topic: &str) -> bool {
    let grants: Vec<Grant> = held.iter().filter_map(|text| text.parse().ok()).collect();
    Grants::new(grants).is_ok_and(|grants| grants.allows(what, topic, 0))
}

/// The timelines of all pairs.
pub(crate) fn timelines(history: &History<'_>, plan: &Plan) -> Vec<(Node, Node, Timeline)> {
    let mut timelines = Vec::new();
    for pair in &plan.topology.pairs {
        for (node, peer) in [(pair.a, pair.b), (pair.b, pair.a)] {
            timelines.push((node, peer, Timeline::of(history, node, peer)));
        }
    }
    timelines
}

fn find(timelines: &[(Node, Node, Timeline)], node: Node, peer: Node) -> Option<&Timeline> {
    let found = timelines
        .iter()
        .find(|(one, other, _)| (*one, *other) == (node, peer));
    found.map(|(_, _, timeline)| timeline)
}

/// A message is seen at its recipient only if a grant for its topic stood there at some time between
/// the moment in which a client first asked for it to be sent and the moment in which it was seen. So
/// what is asked for after a revocation was answered, and is seen before the grant is given back, is
/// caught. The same holds for ephemeral ones.
///
/// Weakened: where an answer about a grant was lost, both outcomes are allowed for; at a machine
/// whose disk was copied or put back all grants that it ever gave that peer may stand.
pub(crate) fn nothing_is_stored_without_a_grant(history: &History<'_>) -> Vec<Violation> {
    let timelines = timelines(history, history.plan);
    let mut found = Vec::new();
    let ephemeral = history.entries().filter_map(|entry| match &entry.what {
        What::Saw(seen) if seen.is_ephemeral => {
            Some((entry.place.node, seen.from, seen.op, entry.at_ms))
        }
        _ => None,
    });
    let stored = history.arrived.iter();
    let stored = stored.map(|one| (one.node, one.from, one.op, one.at_ms));
    for (node, from, op, at_ms) in stored.chain(ephemeral) {
        let Some((op, (_, _, letter))) = op.and_then(|op| Some((op, history.plan.letter(op)?)))
        else {
            continue;
        };
        let Some(timeline) = find(&timelines, node, from) else {
            continue;
        };
        let asked_ms = first_asked(history, op);
        if !timeline.may_allow(Capability::MessageSend, letter.topic, asked_ms, at_ms) {
            found.push(Violation::new(
                "nothing-is-stored-without-a-grant",
                format!(
                    "node {node} has op {op} on {} of node {from} at {at_ms} ms, sent from {asked_ms} ms on, and no grant stood",
                    letter.topic
                ),
            ));
        }
    }
    found
}

fn first_asked(history: &History<'_>, op: u64) -> u64 {
    let mut first_ms = u64::MAX;
    for entry in &history.ledger.entries {
        let is_it = match &entry.what {
            What::Asked { ops, .. } => ops.contains(&op),
            What::AskedEphemeral { op: asked, .. } => *asked == op,
            _ => false,
        };
        if is_it {
            first_ms = first_ms.min(entry.at_ms);
        }
    }
    match first_ms {
        // Never asked for: told by another rule.
        u64::MAX => 0,
        first_ms => first_ms,
    }
}

/// A worker begins with a message only if `execute` for its topic stood at some time since it was
/// handed out.
///
/// Weakened: as for what is stored.
pub(crate) fn nothing_is_run_without_execute(history: &History<'_>) -> Vec<Violation> {
    let timelines = timelines(history, history.plan);
    let mut found = Vec::new();
    let mut asked = std::collections::BTreeMap::new();
    for entry in history.entries() {
        match &entry.what {
            What::Beginning { call, arrival } => {
                asked.insert(*call, (entry.at_ms, *arrival));
            }
            What::Begun {
                call,
                attempt: Said::Yes(_),
            } => {
                let node = entry.place.node;
                let Some((asked_ms, arrival)) = asked.get(call) else {
                    continue;
                };
                // Numbers are given out again when a disk was put back.
                let seen = history.arrived.iter().rev().find(|arrived| {
                    let is_it = (arrived.node, arrived.arrival) == (node, *arrival);
                    is_it && arrived.seen.is_some() && arrived.at_ms <= *asked_ms
                });
                let Some(seen) = seen.and_then(|arrived| arrived.seen) else {
                    continue;
                };
                let Some(timeline) = find(&timelines, node, seen.from) else {
                    continue;
                };
                if !timeline.may_allow(Capability::Execute, &seen.topic, *asked_ms, entry.at_ms) {
                    let text = format!(
                        "node {node} let arrival {arrival} of node {} be begun at {asked_ms} ms",
                        seen.from
                    );
                    found.push(Violation::new("nothing-is-run-without-execute", text));
                }
            }
            _ => {}
        }
    }
    found
}
