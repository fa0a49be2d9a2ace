//! From a table of the file to a [`Step`].
//!
//! The names of keys and their kinds stand in [`docs`](super::docs); what a step is made of here must
//! agree with them, which the test that parses every example holds.

use std::time::Duration;

use packhorse_actors::inbox::{LEASE_MS_MAX, LEASE_MS_MIN};
use packhorse_protocol::message::DeliveryClass;
use toml::de::DeArray;

use super::docs::{CORRUPT_MAX, JOBS_MAX, RATE_MAX, STEPS, StepDoc};
use super::{Action, Change, Load, Run, Send, Step, Wanted, Work};
use crate::lab::scenario::fields::{Fields, Found, Nodes, Reader, describe, listed, shown};
use crate::lab::scenario::kind::{FAULTS, FieldDoc, need};
use crate::lab::scenario::place::{self, nearest};
use crate::lab::{Impairment, ImpairmentError};
use crate::time::short_duration;

/// Steps in one list; more is a program, and belongs into the library.
const STEPS_COUNT_MAX: usize = 500;
/// Lists in lists: deeper ones cannot be read any more, and would let a file exhaust the stack.
const DEPTH_MAX: usize = 8;
const RATE_DEFAULT: u64 = 50;
const BYTES_DEFAULT: u64 = 64;
const BYTES_MAX: u64 = 1 << 20;
const CORRUPT_DEFAULT: u64 = 16;
/// One weight; all of a list together are far from what a number holds.
pub(crate) const WEIGHT_MAX: u64 = 1_000_000;
/// Name of a copy.
const COPY_BYTES_MAX: usize = 64;
/// Letters of what a report says of a step.
const TITLE_CHARS_MAX: usize = 120;
/// What pairing grants unless told otherwise.
const GRANT_DEFAULT: &str = "message.send:*";

/// Reads a list of steps; `at` is its name for paths, as `steps` or `steps[3].parallel`.
pub(crate) fn steps(reader: &Reader<'_>, found: &Found<'_>, at: &str) -> Vec<Step> {
    let depth = at.matches('[').count();
    let start = found.span().start;
    let Some(items) = found.get_ref().as_array() else {
        let text = format!(
            "expected a list of steps, found {}",
            describe(found.get_ref())
        );
        reader.report(start, text);
        return Vec::new();
    };
    if depth >= DEPTH_MAX {
        reader.report(
            start,
            format!("steps stand in steps {DEPTH_MAX} times at most"),
        );
        return Vec::new();
    }
    if items.is_empty() {
        reader.report(start, "the list of steps is empty");
    }
    if items.len() > STEPS_COUNT_MAX {
        let text = format!(
            "{} steps in one list, the limit is {STEPS_COUNT_MAX}",
            items.len()
        );
        reader.report(start, text);
        return Vec::new();
    }
    read_items(reader, items, at)
}

fn read_items(reader: &Reader<'_>, items: &DeArray<'_>, at: &str) -> Vec<Step> {
    items
        .iter()
        .enumerate()
        .take_while(|_| !reader.is_full())
        .filter_map(|(index, item)| step(reader, item, format!("{at}[{index}]")))
        .collect()
}

fn step(reader: &Reader<'_>, found: &Found<'_>, path: String) -> Option<Step> {
    let start = found.span().start;
    let Some(table) = found.get_ref().as_table() else {
        let text = format!(
            "expected a step, such as {}, found {}",
            STEPS[0].example,
            describe(found.get_ref())
        );
        reader.report(start, text);
        return None;
    };
    let all = Fields::new(reader, table, start, "a step");
    let mut named = all
        .keys()
        .filter_map(|(key, span)| Some((StepDoc::find(key)?, span)));
    let Some((doc, place)) = named.next() else {
        reader.report(start, no_action(&all));
        return None;
    };
    if let Some((other, place)) = named.next() {
        let text = format!(
            "a step does one thing, but here stand `{}` and `{}`: make two steps of them",
            doc.name, other.name
        );
        reader.report(place.start, text);
        return None;
    }
    let what = format!("`{}`", doc.name);
    let fields = Fields::new(reader, table, start, &what);
    let own = need(doc.name, doc.value, doc.about);
    let docs: Vec<FieldDoc> = std::iter::once(own)
        .chain(doc.all_fields().copied())
        .collect();
    fields.check(&docs);
    let within = match doc.within_seconds {
        Some(seconds) => fields
            .duration("within")
            .or_else(|| (seconds > 0).then(|| Duration::from_secs(seconds))),
        None => None,
    };
    let note = fields.text("note");
    let note = note.map(|note| place::shown(&note, TITLE_CHARS_MAX));
    let action = action(doc.name, &fields, &path)?;
    let value = all.found(doc.name).map(|value| value.get_ref());
    let title = note.unwrap_or_else(|| title(doc.name, value));
    Some(Step {
        path,
        place: reader.place(&place),
        name: doc.name,
        title,
        within,
        action,
    })
}

fn no_action(fields: &Fields<'_, '_>) -> String {
    let names = STEPS.iter().map(|doc| doc.name);
    for (key, _) in fields.keys() {
        if let Some(meant) = nearest(key, names.clone()) {
            return format!(
                "no step is called `{}`; did you mean `{meant}`?",
                shown(key)
            );
        }
    }
    format!("this says nothing to do; the steps are {}", listed(names))
}

/// The name with its value where that is short: `kill left`.
fn title(name: &str, value: Option<&toml::de::DeValue<'_>>) -> String {
    use toml::de::DeValue;
    match value {
        Some(DeValue::String(text)) => format!("{name} {}", place::shown(text, TITLE_CHARS_MAX)),
        Some(DeValue::Integer(integer)) => format!("{name} {integer}"),
        Some(DeValue::Array(items)) => {
            let words: Option<Vec<&str>> =
                items.iter().map(|item| item.get_ref().as_str()).collect();
            words.map_or_else(
                || name.to_owned(),
                |words| {
                    let words = place::shown(&words.join(" "), TITLE_CHARS_MAX);
                    format!("{name} {words}")
                },
            )
        }
        _ => name.to_owned(),
    }
}

fn action(name: &str, f: &Fields<'_, '_>, path: &str) -> Option<Action> {
    let action = match name {
        "start" => Action::Start {
            nodes: f.nodes(name)?,
            exit: f.exit("exit"),
        },
        "stop" => Action::Stop {
            nodes: f.nodes(name)?,
            exit: f.exit("exit").unwrap_or(0),
        },
        "kill" => Action::Kill {
            nodes: f.nodes(name)?,
        },
        "restart" => Action::Restart {
            nodes: f.nodes(name)?,
        },
        "signal" => Action::Signal {
            nodes: f.nodes(name)?,
            signal: f.signal("with")?,
        },
        "pause" => Action::Pause {
            nodes: f.nodes(name)?,
        },
        "resume" => Action::Resume {
            nodes: f.nodes(name)?,
        },
        "ended" => Action::Ended {
            nodes: f.nodes(name)?,
            exit: f.exit("exit")?,
        },
        "pair" => pair(f)?,
        "send" => Action::Send(send(f)?),
        "load" => Action::Load(load(f)?),
        "receive" => receive(f)?,
        "consume" => Action::Consume {
            topic: f.text(name)?,
            on: f.nodes("on")?,
            rate: f.count_up_to("rate", RATE_MAX),
        },
        "work" => Action::Work(Work {
            topic: f.text(name)?,
            on: f.nodes("on")?,
            exec: f.text("exec")?,
            jobs: f.count_up_to("jobs", JOBS_MAX).unwrap_or(1),
            lease: lease(f),
        }),
        "end" => Action::End {
            topic: f.text(name)?,
            on: f.nodes("on"),
        },
        "run" => Action::Run(run(f)?),
        "partition" => partition(f)?,
        "heal" => Action::Heal {
            nodes: f.nodes(name)?,
            from: f.nodes("from"),
        },
        "impair" => impair(f)?,
        "fill" => Action::Fill {
            nodes: f.nodes(name)?,
            left: f.size("left")?,
        },
        "free" => Action::Free {
            nodes: f.nodes(name)?,
        },
        "corrupt" => Action::Corrupt {
            nodes: f.nodes(name)?,
            bytes: f
                .count_up_to("bytes", CORRUPT_MAX)
                .unwrap_or(CORRUPT_DEFAULT),
        },
        "copy_store" => Action::CopyStore {
            node: f.node(name)?,
            copy: copy_name(f, "as")?,
        },
        "restore_store" => Action::RestoreStore {
            node: f.node(name)?,
            copy: copy_name(f, "copy")?,
        },
        "wait" => Action::Wait {
            words: f.words(name)?,
            on: f.nodes("on")?,
            that: f.condition("that")?,
        },
        "wait_event" => Action::WaitEvent {
            kind: f.text(name)?,
            on: f.nodes("on")?,
            that: f.condition("that"),
        },
        "assert" => Action::Assert {
            words: f.words(name)?,
            on: f.nodes("on")?,
            that: f.condition("that")?,
        },
        "sleep" => Action::Sleep {
            pause: f.pause(name)?,
        },
        "sequence" => Action::Sequence {
            steps: inner(f, name, path)?,
        },
        "parallel" => Action::Parallel {
            steps: inner(f, name, path)?,
        },
        "repeat" => {
            let steps = inner(f, "steps", path);
            Action::Repeat {
                times: f.times(name)?,
                steps: steps?,
            }
        }
        "choose" => choose(f, path)?,
        "crash" => crash(f)?,
        "settle" => Action::Settle {
            within: f.duration(name)?,
        },
        _ => {
            // Every name of the table is above, which a test holds.
            f.reader.report(
                f.start,
                format!("the step `{name}` is not known to this version"),
            );
            return None;
        }
    };
    Some(action)
}

fn inner(f: &Fields<'_, '_>, key: &str, path: &str) -> Option<Vec<Step>> {
    let found = f.found(key)?;
    Some(steps(f.reader, found, &format!("{path}.{key}")))
}

/// The bounds of the node, which would refuse it in the middle of the scenario.
fn lease(f: &Fields<'_, '_>) -> Option<Duration> {
    let lease = f.duration("lease")?;
    let bounds = [LEASE_MS_MIN, LEASE_MS_MAX].map(Duration::from_millis);
    if lease < bounds[0] || lease > bounds[1] {
        let [least, most] = bounds.map(short_duration);
        let text = format!(
            "`lease` is {}, it must be from {least} to {most}",
            short_duration(lease)
        );
        f.reader.report(f.at("lease"), text);
        return None;
    }
    Some(lease)
}

/// A copy is a folder of this name.
fn copy_name(f: &Fields<'_, '_>, key: &str) -> Option<String> {
    let name = f.text(key)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.len() > COPY_BYTES_MAX || !name.chars().all(is_plain) {
        let text = format!(
            "`{key}`: `{}` cannot name a copy: {COPY_BYTES_MAX} letters, digits, - and _ at most",
            shown(&name)
        );
        f.reader.report(f.at(key), text);
        return None;
    }
    Some(name)
}

fn pair(f: &Fields<'_, '_>) -> Option<Action> {
    let nodes = f.nodes("pair")?;
    let with = f.nodes("with");
    let grants = f
        .texts("grants")
        .unwrap_or_else(|| vec![GRANT_DEFAULT.to_owned()]);
    for grant in &grants {
        if let Err(error) = grant.parse::<crate::Grant>() {
            f.reader
                .report(f.at("grants"), format!("`grants`: {error}"));
            return None;
        }
    }
    if with.is_none() && f.found("with").is_none() && nodes.names.len() < 2 {
        f.reader.report(
            f.at("pair"),
            "`pair` needs two nodes, or `with` for the other side",
        );
        return None;
    }
    Some(Action::Pair {
        nodes,
        with,
        grants,
    })
}

fn send(f: &Fields<'_, '_>) -> Option<Send> {
    Some(Send {
        topic: f.text("send")?,
        from: f.node("from")?,
        to: f.node("to")?,
        payload: f.payload("payload")?,
        class: f.class("class"),
        until: f.state("until"),
        key: f.text("key"),
        expires: f.duration("expires"),
        exit: f.exit("exit").unwrap_or(0),
    })
}

fn load(f: &Fields<'_, '_>) -> Option<Load> {
    let bytes = f.size("bytes").unwrap_or(BYTES_DEFAULT);
    if !(BYTES_DEFAULT..=BYTES_MAX).contains(&bytes) {
        let text = format!("`bytes` is {bytes}, it must be from {BYTES_DEFAULT} to {BYTES_MAX}");
        f.reader.report(f.at("bytes"), text);
        return None;
    }
    let load = Load {
        topic: f.text("load")?,
        from: f.nodes("from")?,
        to: f.nodes("to")?,
        rate: f.count_up_to("rate", RATE_MAX).unwrap_or(RATE_DEFAULT),
        count: f.count("count"),
        lasts: f.duration("for"),
        bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        class: f.class("class"),
    };
    if load.class == Some(DeliveryClass::Ephemeral) {
        f.reader.report(
            f.at("class"),
            "ephemeral messages are not stored, so a load has no books of them",
        );
        return None;
    }
    if !has_pair(&load.from, &load.to) {
        f.reader.report(
            f.at("to"),
            "`load` goes from a node to another one, and here they are the same",
        );
        return None;
    }
    Some(load)
}

/// Whether two sets hold two different nodes.
fn has_pair(from: &Nodes, to: &Nodes) -> bool {
    from.names
        .iter()
        .any(|from| to.names.iter().any(|to| from != to))
}

fn receive(f: &Fields<'_, '_>) -> Option<Action> {
    let wanted = match (f.texts("payloads"), f.count("count")) {
        (Some(_), Some(_)) => {
            f.reader.report(
                f.at("count"),
                "`receive` takes `payloads` or `count`, not both",
            );
            return None;
        }
        (Some(payloads), None) => Wanted::Payloads(payloads),
        (None, Some(count)) => Wanted::Count(count),
        (None, None) => Wanted::All,
    };
    Some(Action::Receive {
        topic: f.text("receive")?,
        on: f.node("on")?,
        wanted,
    })
}

fn run(f: &Fields<'_, '_>) -> Option<Run> {
    Some(Run {
        words: f.words("run")?,
        on: f.nodes("on")?,
        exit: f.exit("exit").unwrap_or(0),
        that: f.condition("that"),
        stdin: f.payload("stdin").unwrap_or_default(),
        save: f.text("save"),
    })
}

fn partition(f: &Fields<'_, '_>) -> Option<Action> {
    let sides = f.sides("partition")?;
    let from = f.nodes("from");
    let is_one_way = f.flag("one_way").unwrap_or(false);
    if sides.len() > 1 && (from.is_some() || is_one_way) {
        let text = "sides are cut from each other, both ways: `from` and `one_way` go with one set of nodes";
        let key = if from.is_some() { "from" } else { "one_way" };
        f.reader.report(f.at(key), text);
        return None;
    }
    let mut seen: Vec<&String> = Vec::new();
    for name in sides.iter().flat_map(|side| &side.names) {
        if seen.contains(&name) {
            f.reader
                .report(f.at("partition"), format!("`{name}` stands on two sides"));
            return None;
        }
        seen.push(name);
    }
    Some(Action::Partition {
        sides,
        from,
        is_one_way,
    })
}

fn impair(f: &Fields<'_, '_>) -> Option<Action> {
    let change = Change {
        latency: f.duration("latency"),
        jitter: f.duration("jitter"),
        loss: f.percent("loss"),
        duplicate: f.percent("duplicate"),
        reorder: f.percent("reorder"),
        rate: f.rate("rate"),
    };
    let is_said = |key: &&str| f.found(key).is_some();
    let keys = ["latency", "jitter", "loss", "duplicate", "reorder", "rate"];
    if !keys.iter().any(is_said) {
        let text =
            "`impair` says nothing of how: latency, jitter, loss, duplicate, reorder or rate";
        f.reader.report(f.at("impair"), text);
        return None;
    }
    if let Err(error) = change.of(Impairment::NONE).check() {
        let key = match error {
            ImpairmentError::Delay { what, .. } => what,
            _ => "impair",
        };
        f.reader.report(f.at(key), error.to_string());
        return None;
    }
    Some(Action::Impair {
        nodes: f.nodes("impair")?,
        to: f.nodes("to"),
        change,
        is_one_way: f.flag("one_way").unwrap_or(false),
    })
}

fn choose(f: &Fields<'_, '_>, path: &str) -> Option<Action> {
    let steps = inner(f, "choose", path)?;
    let count = f
        .found("choose")
        .and_then(|found| found.get_ref().as_array())
        .map_or(0, |items| items.len());
    let weights = f.weights("weights").unwrap_or_else(|| vec![1; count]);
    if let Some(weight) = weights.iter().find(|weight| **weight > WEIGHT_MAX) {
        let text = format!("`weights` holds {weight}, the limit of each is {WEIGHT_MAX}");
        f.reader.report(f.at("weights"), text);
        return None;
    }
    if weights.len() != count || weights.iter().all(|weight| *weight == 0) {
        let text = format!("`weights` needs one number for each of the {count} steps, not all 0");
        f.reader.report(f.at("weights"), text);
        return None;
    }
    Some(Action::Choose { steps, weights })
}

fn crash(f: &Fields<'_, '_>) -> Option<Action> {
    let fault = f.fault("fault").unwrap_or(FAULTS[0]).to_owned();
    Some(Action::Crash {
        actor: f.text("crash")?,
        on: f.nodes("on")?,
        fault,
        when: f.text("when"),
    })
}

#[cfg(test)]
mod tests;
