//! The small words of a sentence: counts, spans of time, quotes.

use std::time::Duration;

use crate::time::{WallTime, short_duration};
use crate::why::PeerFacts;

/// Characters of a handler's output that a sentence quotes.
const OUTPUT_CHARS_MAX: usize = 60;

/// The clause as a sentence; names keep their case.
pub(super) fn sentence(clause: &str) -> String {
    let begins = ["it ", "no ", "nothing "];
    let mut sentence = String::with_capacity(clause.len() + 1);
    let mut chars = clause.chars();
    match chars.next() {
        Some(first) if begins.iter().any(|word| clause.starts_with(word)) => {
            sentence.extend(first.to_uppercase());
        }
        Some(first) => sentence.push(first),
        None => {}
    }
    sentence.push_str(chars.as_str());
    sentence.push('.');
    sentence
}

pub(super) fn wait(count: u64) -> String {
    match count {
        0 => "nothing waits".to_owned(),
        1 => "1 message waits".to_owned(),
        count => format!("{count} messages wait"),
    }
}

/// What waits for the peer, and since when.
pub(super) fn wait_for_it(facts: &PeerFacts) -> String {
    let waits = wait(facts.waiting);
    match (facts.waiting, facts.oldest_ms) {
        (0, _) | (_, None) => format!("{waits} for it"),
        (1, Some(ms)) => format!("{waits} for it, accepted {} ago", ms_text(ms)),
        (_, Some(ms)) => format!("{waits} for it, the oldest accepted {} ago", ms_text(ms)),
    }
}

pub(super) fn are(count: u64) -> String {
    match count {
        1 => "1 message is".to_owned(),
        count => format!("{count} messages are"),
    }
}

/// From then until now; a clock that was set back makes it nothing.
pub(super) fn span(then: WallTime, now: WallTime) -> String {
    ms_text(now.0.saturating_sub(then.0))
}

pub(super) fn until(now: WallTime, then: WallTime) -> String {
    match then.0.checked_sub(now.0) {
        Some(0) | None => "now".to_owned(),
        Some(ms) => format!("in {}", ms_text(ms)),
    }
}

pub(super) fn ms_text(ms: u64) -> String {
    short_duration(Duration::from_millis(ms))
}

pub(super) fn heard(at: Option<WallTime>, now: WallTime) -> String {
    at.map(|at| format!(", as this node learnt {} ago", span(at, now)))
        .unwrap_or_default()
}

/// The head of an output as text.
pub(super) fn quoted(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim_end();
    let mut head: String = text.chars().take(OUTPUT_CHARS_MAX).collect();
    if text.chars().count() > OUTPUT_CHARS_MAX {
        head.push('…');
    }
    head
}
