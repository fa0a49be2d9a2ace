//! Steps that send, take, ask and wait: what a person does with commands, and looks at.

use std::time::Duration;

use serde_json::Value;

use super::{Cursor, Run, State, Trouble, Turn};
use crate::Exit;
use crate::api::documents::AcknowledgeRequest;
use crate::api::work::ClaimRequest;
use crate::lab::condition::{Condition, shown};
use crate::lab::machine::Machine;
use crate::lab::scenario::fields::Nodes;
use crate::lab::step::{Run as RunPlan, Send, Wanted};

/// Between two looks at a document.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A look with less time than this ends before it has seen anything.
const LOOK_MIN: Duration = Duration::from_millis(500);
/// How long one claim of `receive` waits.
const CLAIM_WAIT_MS: u64 = 1_000;
/// What a command that waits needs to say that it waited in vain.
const SAY_WITHIN: Duration = Duration::from_secs(1);
/// How long a node may take to name its newest event.
const NEWEST_WITHIN: Duration = Duration::from_secs(2);
/// How `send` ends when the message was accepted, or may have been.
const ACCEPTED_BY: [Exit; 3] = [Exit::Done, Exit::NotYet, Exit::TimedOut];

impl Run<'_> {
    pub(super) async fn send(&self, plan: &Send, turn: &Turn<'_>) -> Result<(), Trouble> {
        let limit = turn.limit();
        let (from, to) = turn.pick_two(&plan.from, &plan.to);
        let Some((from, to)) = from.first().zip(to.first()) else {
            return Ok(());
        };
        let mut words: Vec<String> = ["send", to, &plan.topic, "-"].map(ToOwned::to_owned).into();
        let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
        if let Some(class) = plan.class {
            add("--class", crate::class::class_word(class).to_owned());
        }
        if let Some(key) = &plan.key {
            add("--id", key.clone());
        }
        if let Some(expires) = plan.expires {
            add("--expires", format!("{}ms", expires.as_millis()));
        }
        if let Some(state) = plan.until {
            add("--wait", state.to_owned());
            // It has to say itself how far the message came.
            let patience = limit.saturating_sub(SAY_WITHIN).max(limit / 2);
            add("--timeout", format!("{}ms", patience.as_millis()));
        }
        let node = self.cluster.node(from)?;
        if ACCEPTED_BY.iter().any(|exit| exit.code() == plan.exit) {
            // ORDER: a consumer may have it before the command has ended.
            let mut ledger = self.background.shared().ledger();
            ledger.sent(to, &plan.topic, plan.payload.as_bytes());
        }
        turn.saw(format!("`{from}` {}", words.join(" ")));
        let output = node.run(&words, plan.payload.as_bytes(), limit).await?;
        output.expect(i32::from(plan.exit))?;
        Ok(())
    }

    pub(super) async fn receive(
        &self,
        topic: &str,
        on: &Nodes,
        wanted: &Wanted,
        turn: &Turn<'_>,
    ) -> Result<(), Trouble> {
        for node in self.machines(on, turn)? {
            self.check_unbooked(node, topic, turn)?;
            let mut client = node.client();
            let mut came: Vec<String> = Vec::new();
            turn.saw(format!("nothing of `{topic}` on `{}`", node.name()));
            loop {
                let (missing, is_waiting) = match wanted {
                    Wanted::All => (usize::MAX, false),
                    Wanted::Count(count) => {
                        let count = usize::try_from(*count).unwrap_or(usize::MAX);
                        (count.saturating_sub(came.len()), true)
                    }
                    // Exactly these: behind the last one nothing may be.
                    Wanted::Payloads(payloads) if came.len() >= payloads.len() => (1, false),
                    Wanted::Payloads(payloads) => (payloads.len() - came.len(), true),
                };
                if missing == 0 {
                    break;
                }
                let request = ClaimRequest {
                    topic: topic.to_owned(),
                    count: missing.min(256),
                    lease_ms: None,
                    executes: false,
                    wait_ms: if is_waiting { CLAIM_WAIT_MS } else { 0 },
                    lender: None,
                };
                let claimed = client.claim(&request).await;
                let claimed = claimed.map_err(|error| format!("`{}`: {error}", node.name()))?;
                if claimed.messages.is_empty() && !is_waiting {
                    break;
                }
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                came.extend(
                    claimed
                        .messages
                        .iter()
                        .map(|message| text(&message.payload.0)),
                );
                let stored = claimed
                    .messages
                    .iter()
                    .filter(|message| !message.is_ephemeral);
                let request = AcknowledgeRequest {
                    arrivals: stored.map(|message| message.arrival).collect(),
                    released: Vec::new(),
                };
                if !request.arrivals.is_empty() {
                    let told = client.acknowledge(&request).await;
                    told.map_err(|error| format!("`{}`: {error}", node.name()))?;
                }
                turn.saw(format!(
                    "{} messages: {}",
                    came.len(),
                    shown(&Value::from(came.clone()))
                ));
                if let Wanted::Payloads(payloads) = wanted
                    && !payloads.starts_with(&came)
                {
                    let (came, payloads) = (Value::from(came), Value::from(payloads.clone()));
                    let text = format!("{} came, expected {}", shown(&came), shown(&payloads));
                    return Err(text.into());
                }
            }
        }
        Ok(())
    }

    /// What a load sends is in the books, and a `receive` would take it past them.
    fn check_unbooked(&self, node: &Machine, topic: &str, turn: &Turn<'_>) -> Result<(), Trouble> {
        let name = node.name();
        if let Some(stream) = self.background.shared().ledger().load_to(name, topic) {
            let from = &stream.from;
            return Err(Trouble::wrong(format!(
                "`receive` of `{topic}` on `{name}`: a `load` from `{from}` sends these, and `settle` would miss what is taken here; use another topic, or `consume`"
            )));
        }
        let inbox = (name.to_owned(), topic.to_owned());
        self.state().received.insert(inbox, turn.path.to_owned());
        Ok(())
    }

    // --- commands and documents ---

    pub(super) async fn command(&self, plan: &RunPlan, turn: &Turn<'_>) -> Result<(), Trouble> {
        let words: Result<Vec<String>, String> =
            plan.words.iter().map(|word| self.filled_in(word)).collect();
        let mut words = words?;
        if plan.that.is_some() && !words.iter().any(|word| word == "--json") {
            words.push("--json".to_owned());
        }
        for node in self.machines(&plan.on, turn)? {
            turn.saw(format!("`{}` {}", node.name(), words.join(" ")));
            let stdin = plan.stdin.as_bytes();
            let output = node.run(&words, stdin, turn.limit()).await?;
            let output = output.expect(i32::from(plan.exit))?;
            if let Some(that) = &plan.that {
                judge(node, &words, that, &output.json()?)?;
            }
            if let Some(name) = &plan.save {
                let text = output.text().trim_end().to_owned();
                self.state().saved.insert(name.clone(), text);
            }
        }
        Ok(())
    }

    /// The word with `${name}` replaced by what was saved.
    fn filled_in(&self, word: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = word;
        while let Some((before, behind)) = rest.split_once("${") {
            let Some((name, behind)) = behind.split_once('}') else {
                return Err(format!("`{word}`: the brace is not closed"));
            };
            let state = self.state();
            let Some(value) = state.saved.get(name) else {
                return Err(format!("`{word}`: nothing was saved as `{name}` before"));
            };
            filled.push_str(before);
            filled.push_str(value);
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    pub(super) async fn wait(
        &self,
        words: &[String],
        on: &Nodes,
        that: &Condition,
        turn: &Turn<'_>,
    ) -> Result<(), Trouble> {
        for node in self.machines(on, turn)? {
            turn.saw(format!("`{}` {}", node.name(), words.join(" ")));
            loop {
                let limit = turn.limit();
                let judged = match document(node, words, limit).await {
                    Ok(document) => judge(node, words, that, &document),
                    // A node that is away may be back in time.
                    Err(error) => Err(error),
                };
                match judged {
                    Ok(()) => break,
                    Err(trouble) if limit >= LOOK_MIN => turn.saw(trouble.reason),
                    // Cut short by the deadline: what was seen before says more.
                    Err(_) => {}
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    pub(super) async fn wait_event(
        &self,
        node: &Machine,
        kind: &str,
        that: Option<&Condition>,
        turn: &Turn<'_>,
    ) -> Result<(), Trouble> {
        let name = node.name().to_owned();
        let mut last = match self.state().cursors.get(&name) {
            Some(cursor) => cursor.number,
            None => 0,
        };
        turn.saw(format!("no event of `{name}`"));
        loop {
            let asked = node
                .get(&format!("/v1/events?after={last}&wait_ms=500"))
                .await;
            let events = asked.unwrap_or_else(|error| {
                // A node that is away may be back in time.
                turn.saw(error.to_string());
                Value::Null
            });
            let events = events["events"].as_array().cloned().unwrap_or_default();
            for event in &events {
                let number = event["number"].as_u64().unwrap_or_default();
                if number <= last {
                    continue;
                }
                last = number;
                turn.saw(format!("`{name}`: {}", shown(event)));
                let is_it =
                    event["kind"] == kind && that.is_none_or(|that| that.judge(event).is_ok());
                if is_it {
                    self.state().found_event(name, number);
                    return Ok(());
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Before something happens to nodes or the network: a first `wait_event` on a node reads on
    /// from here, so that it finds what comes of it, and nothing older.
    pub(super) async fn mark_events(&self, turn: &Turn<'_>) {
        let is_open = |name: &String| {
            let state = self.state();
            state
                .cursors
                .get(name)
                .is_none_or(|cursor| !cursor.is_found)
        };
        let names: Vec<String> = self.watched().into_iter().filter(is_open).collect();
        for name in names {
            let Ok(node) = self.cluster.node(&name) else {
                continue;
            };
            // One that does not run, or stands still, has no newer event than it had.
            if !node.is_running() || node.is_paused() {
                continue;
            }
            turn.saw(format!("the newest event of `{name}`"));
            let asked = node.get("/v1/events?limit=1");
            let Ok(Ok(newest)) = tokio::time::timeout(NEWEST_WITHIN, asked).await else {
                continue;
            };
            let events = newest["events"].as_array();
            let newest = events.and_then(|events| events.last()?["number"].as_u64());
            if let Some(number) = newest {
                self.state().mark_event(name, number);
            }
        }
    }
}

impl State {
    /// A `wait_event` found this one; of two at a time the later one counts.
    fn found_event(&mut self, node: String, number: u64) {
        let before = self.cursors.get(&node).filter(|cursor| cursor.is_found);
        let number = before.map_or(number, |before| before.number.max(number));
        let is_found = true;
        self.cursors.insert(node, Cursor { number, is_found });
    }

    /// This one is the newest, and no `wait_event` looked at the node yet.
    fn mark_event(&mut self, node: String, number: u64) {
        let is_found = false;
        let cursor = Cursor { number, is_found };
        let cursor = self.cursors.entry(node).or_insert(cursor);
        if !cursor.is_found {
            cursor.number = number;
        }
    }
}

/// The condition must hold now.
pub(super) async fn assert_once(
    node: &Machine,
    words: &[String],
    that: &Condition,
    limit: Duration,
) -> Result<(), Trouble> {
    let document = document(node, words, limit).await?;
    judge(node, words, that, &document)
}

/// The document of a command that succeeds.
async fn document(node: &Machine, words: &[String], limit: Duration) -> Result<Value, Trouble> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    if !words.contains(&"--json") {
        words.push("--json");
    }
    let output = node.run(&words, b"", limit).await?;
    Ok(output.expect(0)?.json()?)
}

fn judge(
    node: &Machine,
    words: &[String],
    that: &Condition,
    document: &Value,
) -> Result<(), Trouble> {
    let seen = that.judge(document);
    seen.map_err(|seen| {
        let words = words.join(" ");
        Trouble::wrong(format!("`{}` {words}: {seen}; wanted {that}", node.name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wait_reads_on_from_what_happened_last_and_then_from_what_was_found() {
        let mut state = State::default();
        let cursor = |state: &State| state.cursors["left"].number;
        for newest in [3, 8] {
            state.mark_event("left".into(), newest);
            assert_eq!(cursor(&state), newest);
        }
        for (found, expected) in [(12, 12), (10, 12), (14, 14)] {
            // Two waits beside each other may find theirs in any order.
            state.found_event("left".into(), found);
            assert_eq!(cursor(&state), expected);
        }
        state.mark_event("left".into(), 20);
        assert_eq!(cursor(&state), 14, "nothing between two waits is missed");
    }
}
