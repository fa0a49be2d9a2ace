//! What consumers are told: what left stays away, attempts are counted, one holder at a time.

use std::collections::BTreeMap;

use super::Violation;
use super::history::History;
use crate::ledger::{Said, What};
use crate::plan::Node;

/// What a consumer was handed before another one's word was written it may hear of this much later.
const HANDING_MS: u64 = 1_000;
/// A lease begins when a message is handed out, which is noted a little later.
const NOTING_MS: u64 = 500;

/// What the inbox confirmed as gone is not handed out in a later life, nor in the same one more than
/// a second later, and is not in the inbox at the end.
///
/// Weakened: a disk that was put back brings back what had left within its window.
pub(crate) fn settled_is_gone(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for ((node, arrival), words) in &history.words {
        let left = words
            .iter()
            .filter_map(|word| Some((word.life, word.left_ms()?)))
            .find(|(_, left_ms)| !history.doubts.is_undone(*node, *left_ms, u64::MAX));
        let Some((life, left_ms)) = left else {
            continue;
        };
        let again = history.arrived.iter().find(|arrived| {
            let is_later = arrived.life > life || arrived.at_ms > left_ms + HANDING_MS;
            (arrived.node, arrived.arrival) == (*node, *arrival)
                && is_later
                && arrived.at_ms >= left_ms
        });
        if let Some(again) = again {
            found.push(Violation::new(
                "settled-is-gone",
                format!(
                    "arrival {arrival} of node {node} left at {left_ms} ms in life {life} and was there again at {} ms in life {}",
                    again.at_ms, again.life
                ),
            ));
        }
    }
    found
}

/// Each attempt at a message has a higher number than the one before, whatever died between.
///
/// Weakened: not compared across the moment in which the disk was put back.
pub(crate) fn attempts_climb(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut asked = BTreeMap::new();
    let mut last: BTreeMap<(Node, u64), (u64, u32)> = BTreeMap::new();
    for entry in history.entries() {
        let node = entry.place.node;
        match &entry.what {
            What::Beginning { call, arrival } => {
                asked.insert(*call, *arrival);
            }
            What::Begun {
                call,
                attempt: Said::Yes(attempt),
            } => {
                let Some(arrival) = asked.get(call) else {
                    continue;
                };
                let before = last.insert((node, *arrival), (entry.at_ms, *attempt));
                if let Some((before_ms, before)) = before
                    && before >= *attempt
                    && !history.doubts.is_undone(node, before_ms, entry.at_ms)
                {
                    found.push(Violation::new(
                        "attempts-climb",
                        format!("arrival {arrival} of node {node}: attempt {before} at {before_ms} ms, attempt {attempt} at {} ms", entry.at_ms),
                    ));
                }
            }
            _ => {}
        }
    }
    found
}

/// While a consumer has a message nobody else is handed it, unless something was said of it, it was
/// given back, or the inbox or the whole process was started again in between.
pub(crate) fn one_holder_at_a_time(history: &History<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    // Who has it: when it was handed out, for how long.
    let mut held: BTreeMap<(Node, u32, u64), (u64, u64)> = BTreeMap::new();
    for entry in history.entries() {
        let (node, life) = (entry.place.node, entry.place.life);
        match &entry.what {
            What::Saw(seen) if !seen.is_ephemeral => {
                let key = (node, life, seen.arrival);
                let before = held.insert(key, (entry.at_ms, seen.lease_ms));
                if let Some((from_ms, lease_ms)) = before
                    && entry.at_ms + NOTING_MS < from_ms + lease_ms
                {
                    found.push(Violation::new(
                        "one-holder-at-a-time",
                        format!(
                            "arrival {} of node {node} was handed out at {from_ms} ms for {lease_ms} ms and again at {} ms",
                            seen.arrival, entry.at_ms
                        ),
                    ));
                }
            }
            What::Settling { arrivals, .. } | What::Released { arrivals } => {
                for arrival in arrivals {
                    held.remove(&(node, life, *arrival));
                }
            }
            What::Life { actor, .. } if actor == "inbox" => {
                held.retain(|(of, ..), _| *of != node);
            }
            What::LifeMissed => held.retain(|(of, ..), _| *of != node),
            _ => {}
        }
    }
    found
}
