//! Judges a run by its plan, its ledger and its end.
//!
//! Pure: each rule is a function from a history to what breaks it. A rule's doc says exactly what it
//! holds and which faults weaken it; weakening goes by what really happened, so a fault of the plan
//! that was not carried out weakens nothing.
//! Copies of a machine are judged as far as they have sessions and ephemeral messages; what they
//! accepted and took is lost with them.
//!
//! Read [`RULES`].

mod doubts;
mod durable;
mod end;
mod grants;
mod history;
mod inboxes;
mod liveness;
mod machines;
mod once;
mod receipts;

use std::fmt;

pub(crate) use end::{Final, InRow, LetterRow, NodeFinal, OutRow, ReceiptEnd};
use history::History;
pub(crate) use liveness::KEPT_BACK_MS_MAX;

use crate::ledger::Ledger;
use crate::plan::Plan;

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) text: String,
}

impl Violation {
    fn new(rule: &'static str, text: String) -> Self {
        Self { rule, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.rule, self.text)
    }
}

type Rule = fn(&History<'_>) -> Vec<Violation>;

/// All rules.
const RULES: [Rule; 24] = [
    durable::receipts_are_known,
    durable::accepted_is_accounted_for,
    durable::seen_is_accounted_for,
    once::stored_once,
    once::in_order,
    once::keys_have_one_receipt,
    once::arrives_as_sent,
    once::refused_is_not_stored,
    once::ephemeral_is_now_or_never,
    grants::nothing_is_stored_without_a_grant,
    grants::nothing_is_run_without_execute,
    receipts::receipts_only_climb,
    receipts::ends_are_told,
    receipts::letters_have_causes,
    inboxes::settled_is_gone,
    inboxes::attempts_climb,
    inboxes::one_holder_at_a_time,
    machines::events_keep_their_numbers,
    machines::alarms_are_true,
    machines::one_session_per_peer,
    machines::a_displaced_session_does_nothing,
    machines::queues_keep_their_limits,
    machines::permits_return,
    machines::counters_are_right,
];

/// Everything that is wrong with a run, in the order of the rules.
pub(crate) fn judge(plan: &Plan, ledger: &Ledger, end: &Final) -> Vec<Violation> {
    let history = History::new(plan, ledger, end);
    let mut found: Vec<Violation> = RULES.iter().flat_map(|rule| rule(&history)).collect();
    found.extend(liveness::everything_comes_to_rest(&history));
    found
}
