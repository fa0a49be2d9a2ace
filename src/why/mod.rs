//! What a peer or a message waits for, in one sentence.
//!
//! [`Why`] is the published answer; it is made by pure functions over plain facts, which
//! `Node::why_peer` and `Node::why_message` gather. A sentence says only what the facts hold:
//! what is not known is left out, never guessed.
//!
//! Read `PeerFacts` and `MessageFacts` first, then the table in the tests.

mod words;

use serde::{Deserialize, Serialize};

use crate::dead::DeadState;
use crate::peer::Keep;
use crate::status::{PeerFault, PeerState};
use crate::time::WallTime;
use crate::{ReceiptId, text};

use self::words::{are, heard, ms_text, quoted, sentence, span, until, wait, wait_for_it};

/// The answer to "why".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// `peer NAME` or `message ID`.
    pub subject: String,
    /// What is waited for, since when, and what comes next.
    pub sentence: String,
    /// A word for programs.
    pub state: String,
    /// The other node's name here.
    pub peer: String,
    /// What the message is about, as long as it is here.
    pub topic: Option<String>,
    /// Since when it is so.
    pub since: Option<WallTime>,
    /// When something is tried next, where that is planned.
    pub next_attempt: Option<WallTime>,
    /// The name under which a dead letter was accepted anew.
    #[serde(with = "text::option")]
    pub retried_as: Option<ReceiptId>,
}

/// What is known of a peer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PeerFacts {
    pub(crate) now: WallTime,
    pub(crate) name: String,
    pub(crate) state: PeerState,
    pub(crate) since: Option<WallTime>,
    pub(crate) link: Option<String>,
    /// Whether there is anything to dial.
    pub(crate) has_address: bool,
    /// When a link to it is kept.
    pub(crate) keep: Keep,
    pub(crate) waiting: u64,
    pub(crate) oldest_ms: Option<u64>,
    /// Why the peer takes nothing now, in its own words.
    pub(crate) paused: Option<String>,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<PeerFault>,
    pub(crate) last_seen: Option<WallTime>,
    pub(crate) next_attempt: Option<WallTime>,
    /// A copy or a store that was set back, until it is over.
    pub(crate) trouble: Option<String>,
}

/// What is known of a message, by where it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MessageFacts {
    /// In the outbox.
    Waiting {
        peer: PeerFacts,
        topic: String,
        born: WallTime,
        /// Messages for the same peer that go before it.
        ahead: u64,
        expires: Option<WallTime>,
    },
    /// A dead letter on its way out.
    Dead {
        now: WallTime,
        peer: String,
        topic: Option<String>,
        state: DeadState,
        /// The next session tells how it ended.
        is_open: bool,
        reason: String,
        at: WallTime,
    },
    /// On the peer's disk, and nothing more was heard.
    Stored { peer: String },
    /// Handled there.
    Done {
        now: WallTime,
        peer: String,
        at: Option<WallTime>,
        output: Option<Vec<u8>>,
    },
    /// Given up there, or dropped here.
    Failed {
        now: WallTime,
        peer: String,
        at: Option<WallTime>,
        reason: String,
    },
    /// Accepted anew.
    Retried { peer: String, receipt: ReceiptId },
    /// In the inbox.
    Inbox {
        now: WallTime,
        sender: String,
        topic: String,
        claim: ClaimFacts,
    },
    /// It arrived and is here no more.
    Left { sender: Option<String> },
    /// A dead letter that had come in.
    DeadHere {
        now: WallTime,
        sender: String,
        topic: String,
        reason: String,
        at: WallTime,
    },
}

/// Who has a message of the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClaimFacts {
    /// Nobody.
    Free {
        /// Whether its sender may have commands run for it.
        may_execute: bool,
        /// How often its handlers failed so far.
        failures: u32,
    },
    /// A consumer, until its lease ends.
    Leased { until: WallTime, attempts: u32 },
    /// Nobody before this moment.
    Backoff {
        until: WallTime,
        failures: u32,
        reason: String,
    },
}

/// Why a peer is as it is.
pub(crate) fn of_peer(facts: &PeerFacts) -> Why {
    let (state, mut clause) = peer_clause(facts);
    if let Some(trouble) = &facts.trouble {
        clause.push_str(&format!(". Look at this first: {trouble}"));
    }
    Why {
        subject: format!("peer {}", facts.name),
        sentence: sentence(&clause),
        state: state.to_owned(),
        peer: facts.name.clone(),
        topic: None,
        since: facts.since,
        next_attempt: facts.next_attempt,
        retried_as: None,
    }
}

/// Why a message is where it is.
pub(crate) fn of_message(id: &ReceiptId, facts: &MessageFacts) -> Why {
    let mut why = Why {
        subject: format!("message {id}"),
        sentence: String::new(),
        state: String::new(),
        peer: String::new(),
        topic: None,
        since: None,
        next_attempt: None,
        retried_as: None,
    };
    let clause = message_clause(facts, &mut why);
    why.sentence = sentence(&clause);
    why
}

fn peer_clause(facts: &PeerFacts) -> (&'static str, String) {
    let name = &facts.name;
    let ago = facts.since.map(|since| span(since, facts.now));
    let for_long = ago
        .as_ref()
        .map(|ago| format!(" for {ago}"))
        .unwrap_or_default();
    let next = facts
        .next_attempt
        .map(|next| format!(", and it is dialled again {}", until(facts.now, next)))
        .unwrap_or_default();
    let error = facts
        .last_error
        .as_ref()
        .map(|fault| format!("{}: {}", fault.class, fault.text));
    let because = error
        .as_ref()
        .map(|error| format!(" (last error: {error})"))
        .unwrap_or_default();
    match facts.state {
        PeerState::Connected => {
            let link = facts
                .link
                .as_ref()
                .map(|link| format!(" over {link}"))
                .unwrap_or_default();
            match (&facts.paused, facts.waiting) {
                (Some(reason), waiting) => (
                    "paused",
                    format!(
                        "{name} is connected{link} but takes no messages now ({reason}); {} until it does",
                        wait(waiting)
                    ),
                ),
                (None, 0) => (
                    "connected",
                    format!("{name} is connected{link}{for_long} and nothing waits for it"),
                ),
                (None, waiting) => {
                    let oldest = facts
                        .oldest_ms
                        .map(|ms| format!(", the oldest accepted {} ago", ms_text(ms)))
                        .unwrap_or_default();
                    (
                        "connected",
                        format!(
                            "{name} is connected{link}{for_long} and {} being sent to it{oldest}",
                            are(waiting)
                        ),
                    )
                }
            }
        }
        PeerState::Dialling => {
            let dialled = match ago {
                Some(ago) => format!("has been dialled for {ago}"),
                None => "is being dialled now".to_owned(),
            };
            (
                "dialling",
                format!("{name} {dialled}{because} and {}", wait_for_it(facts)),
            )
        }
        PeerState::Refused => {
            let said = error.map(|error| format!(" ({error})")).unwrap_or_default();
            (
                "refused",
                format!(
                    "{name} does not accept this node{said}{next}; {}",
                    wait_for_it(facts)
                ),
            )
        }
        PeerState::Waiting | PeerState::Idle | PeerState::NeverSeen
            if facts.keep == Keep::Never || !facts.has_address =>
        {
            let seen = facts
                .last_seen
                .map(|seen| format!(", last seen {} ago", span(seen, facts.now)))
                .unwrap_or_default();
            let (state, cause) = match facts.keep {
                Keep::Never => (
                    "not dialled",
                    format!("{name} is never dialled from here, as `peers keep` says"),
                ),
                Keep::Auto | Keep::Always => {
                    ("no address", format!("no address of {name} is known here"))
                }
            };
            (
                state,
                format!(
                    "{cause}, so it has to dial this node{seen}; {}",
                    wait_for_it(facts)
                ),
            )
        }
        PeerState::Waiting => {
            let attempts = match facts.failures {
                0 => String::new(),
                1 => " after 1 failed attempt".to_owned(),
                failures => format!(" after {failures} failed attempts"),
            };
            let next = match facts.next_attempt {
                Some(next) => format!("is dialled again {}", until(facts.now, next)),
                None => "is dialled again soon".to_owned(),
            };
            (
                "waiting",
                format!(
                    "{name} {next}{attempts}{because}, and {}",
                    wait_for_it(facts)
                ),
            )
        }
        PeerState::Idle | PeerState::NeverSeen => {
            let seen = match facts.last_seen {
                Some(seen) => format!("last seen {} ago", span(seen, facts.now)),
                None => "never seen since it was paired".to_owned(),
            };
            let state = facts.state.word();
            match facts.waiting {
                0 => (
                    state,
                    format!(
                        "nothing waits for {name} and no session with it is alive ({seen}){next}"
                    ),
                ),
                waiting => (
                    state,
                    format!(
                        "{} for {name} and no session with it is alive ({seen}){next}",
                        wait(waiting)
                    ),
                ),
            }
        }
    }
}

fn message_clause(facts: &MessageFacts, why: &mut Why) -> String {
    match facts {
        MessageFacts::Waiting {
            peer,
            topic,
            born,
            ahead,
            expires,
        } => {
            why.state = "accepted".to_owned();
            why.peer.clone_from(&peer.name);
            why.topic = Some(topic.clone());
            why.since = Some(*born);
            why.next_attempt = peer.next_attempt;
            let behind = match ahead {
                0 => "is the next to be sent".to_owned(),
                1 => "waits behind 1 other".to_owned(),
                ahead => format!("waits behind {ahead} others"),
            };
            let ends = expires
                .map(|expires| format!(", expires {}", until(peer.now, expires)))
                .unwrap_or_default();
            let (_, clause) = peer_clause(peer);
            format!(
                "it was accepted {} ago for {} and {behind}{ends}: {clause}",
                span(*born, peer.now),
                peer.name
            )
        }
        MessageFacts::Dead {
            now,
            peer,
            topic,
            state,
            is_open,
            reason,
            at,
        } => {
            why.state = state.word().to_owned();
            why.peer.clone_from(peer);
            why.topic.clone_from(topic);
            why.since = Some(*at);
            let ago = span(*at, *now);
            match state {
                DeadState::Refused => {
                    format!(
                        "{peer} refused it ({reason}), as this node learnt {ago} ago; it waits among the dead letters"
                    )
                }
                DeadState::MayBeDelivered if !is_open => format!(
                    "it was given up {ago} ago ({reason}), so nobody can tell whether it was delivered to {peer}; it waits among the dead letters"
                ),
                DeadState::MayBeDelivered => format!(
                    "it was given up {ago} ago ({reason}) while it was on its way, and the next session with {peer} tells whether it was delivered"
                ),
                DeadState::NotDelivered | DeadState::NotHandled => format!(
                    "it was given up {ago} ago ({reason}) and certainly not delivered to {peer}; it waits among the dead letters"
                ),
            }
        }
        MessageFacts::Stored { peer } => {
            why.state = "stored".to_owned();
            why.peer.clone_from(peer);
            format!("it is stored on the disk of {peer}, which has not said that it was handled")
        }
        MessageFacts::Done {
            now,
            peer,
            at,
            output,
        } => {
            why.state = "done".to_owned();
            why.peer.clone_from(peer);
            why.since = *at;
            let output = match output.as_deref() {
                None => String::new(),
                Some([]) => " without output".to_owned(),
                Some(output) => format!(" with the output {:?}", quoted(output)),
            };
            format!("it was handled by {peer}{output}{}", heard(*at, *now))
        }
        MessageFacts::Failed {
            now,
            peer,
            at,
            reason,
        } => {
            why.state = "failed".to_owned();
            why.peer.clone_from(peer);
            why.since = *at;
            format!("it failed at {peer} ({reason}){}", heard(*at, *now))
        }
        MessageFacts::Retried { peer, receipt } => {
            why.state = "retried".to_owned();
            why.peer.clone_from(peer);
            why.retried_as = Some(*receipt);
            format!("it was given up and accepted anew for {peer} as {receipt}")
        }
        MessageFacts::Inbox {
            now,
            sender,
            topic,
            claim,
        } => {
            why.peer.clone_from(sender);
            why.topic = Some(topic.clone());
            inbox_clause(*now, (sender, topic), claim, why)
        }
        MessageFacts::Left { sender } => {
            why.state = "left".to_owned();
            let from = match sender {
                Some(sender) => {
                    why.peer.clone_from(sender);
                    format!(" from {sender}")
                }
                None => String::new(),
            };
            format!("it arrived here{from} and is here no more: it was handled, refused or dropped")
        }
        MessageFacts::DeadHere {
            now,
            sender,
            topic,
            reason,
            at,
        } => {
            why.state = DeadState::NotHandled.word().to_owned();
            why.peer.clone_from(sender);
            why.topic = Some(topic.clone());
            why.since = Some(*at);
            format!(
                "it came from {sender}, was given up here {} ago ({reason}) and waits among the dead letters",
                span(*at, *now)
            )
        }
    }
}

fn inbox_clause(
    now: WallTime,
    (sender, topic): (&str, &str),
    claim: &ClaimFacts,
    why: &mut Why,
) -> String {
    match claim {
        ClaimFacts::Free {
            may_execute,
            failures,
        } => {
            why.state = "waiting here".to_owned();
            let who = if *may_execute {
                String::new()
            } else {
                format!(
                    "; only `receive` gets it, because {sender} has no grant execute for this topic"
                )
            };
            let failed = match failures {
                0 => String::new(),
                1 => "; its handler failed once so far".to_owned(),
                failures => format!("; its handlers failed {failures} times so far"),
            };
            format!("it came from {sender} and waits here for a consumer of `{topic}`{who}{failed}")
        }
        ClaimFacts::Leased {
            until: end,
            attempts,
        } => {
            why.state = "claimed here".to_owned();
            let runs = match attempts {
                0 => String::new(),
                1 => ", whose handler ran once".to_owned(),
                attempts => format!(", after {attempts} runs of a handler"),
            };
            format!(
                "it came from {sender} and a consumer of `{topic}` has it{runs}; its claim ends {} unless it is extended",
                until(now, *end)
            )
        }
        ClaimFacts::Backoff {
            until: end,
            failures,
            reason,
        } => {
            why.state = "in backoff here".to_owned();
            why.next_attempt = Some(*end);
            let failed = match failures {
                0 => "its handler asked for more time".to_owned(),
                1 => "its handler failed once".to_owned(),
                failures => format!("its handlers failed {failures} times"),
            };
            let because = if reason.is_empty() {
                String::new()
            } else {
                format!(" ({reason})")
            };
            format!(
                "it came from {sender} and {failed}{because}; it is handed out again {}",
                until(now, *end)
            )
        }
    }
}

#[cfg(test)]
mod tests;
