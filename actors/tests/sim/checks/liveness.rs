//! Once the faults are over, everything comes to its end.

use packhorse_protocol::grant::Capability;

use super::Violation;
use super::grants::Timeline;
use super::history::History;
use crate::ledger::ByHand;
use crate::plan::{IDLE, Node};

/// A worker of the plan puts nothing off for longer, nor do the few failures that there are.
pub(crate) const KEPT_BACK_MS_MAX: u64 = 60_000;

/// Within the bound of the plan nothing moves any more; then nothing waits for any peer, neither
/// messages nor reports, and no inbox holds anything but what nobody takes and jobs whose sender may
/// not start them.
///
/// Weakened: what waits for a peer that was forgotten and not paired again, in either direction;
/// what waits for a machine that says that it has no room; what a worker put off until a moment of a
/// wall clock that was set back since.
pub(crate) fn everything_comes_to_rest(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(unrest) = &history.end.unrest {
        let text = format!("at {} ms: {unrest}", history.end.at_ms);
        found.push(Violation::new("everything-comes-to-rest", text));
    }
    for (node, end) in history.end.nodes.iter().enumerate() {
        let mut wrong = |what: String| {
            found.push(Violation::new(
                "everything-comes-to-rest",
                format!("node {node}: {what}"),
            ));
        };
        if !end.is_read() {
            wrong("it does not run".to_owned());
            continue;
        }
        for (to, lanes) in &end.waiting {
            let there = history.end.nodes.get(*to);
            let has_room = there.is_none_or(|there| there.shortages.is_empty());
            let is_cut = is_gone(history, node, *to) || is_gone(history, *to, node);
            if lanes.iter().sum::<u64>() > 0 && has_room && !is_cut {
                wrong(format!("{lanes:?} wait for node {to}, by lane"));
            }
        }
        for row in &end.inbox {
            let is_put_off =
                row.kept_back_ms > KEPT_BACK_MS_MAX && history.plan.sets_clock_back(node);
            if row.topic == IDLE || is_put_off {
                continue;
            }
            let consumers = &history.plan.topology.nodes[node].consumers;
            let mut of_topic = consumers.iter().filter(|one| one.topic == row.topic);
            let is_run_only = of_topic.all(|consumer| consumer.is_worker);
            let now_ms = history.end.at_ms;
            let timeline = Timeline::of(history, node, row.from);
            let may_deny = timeline.may_deny(Capability::Execute, &row.topic, now_ms, now_ms);
            if !(is_run_only && may_deny) {
                wrong(format!(
                    "arrival {} of node {}, op {:?} on {}, is not taken",
                    row.arrival, row.from, row.op, row.topic
                ));
            }
        }
    }
    found
}

/// Whether `node` may have forgotten `peer` and not paired with it again.
fn is_gone(history: &History<'_>, node: Node, peer: Node) -> bool {
    let mut is_gone = false;
    for deed in history.deeds.iter().filter(|deed| deed.node == node) {
        match deed.deed {
            ByHand::Forget { peer: forgotten } if *forgotten == peer => {
                is_gone |= deed.is_maybe_done();
            }
            // One that was asked for last and answered decides.
            ByHand::Readmit { peer: again, .. } if *again == peer => {
                is_gone &= deed.answered_ms() == u64::MAX || !deed.is_maybe_done();
            }
            _ => {}
        }
    }
    is_gone
}
