//! What only shows when a scenario is looked at as a whole.

use std::time::Duration;

use super::fields::{Nodes, Reader, listed, shown};
use super::place::nearest;
use super::{Scenario, Times};
use crate::lab::step::{Action, Step};
use crate::time::short_duration;
use packhorse_actors::events::Fact;

/// Reports what the steps cannot do with these nodes, in this time, or with each other.
pub(super) fn check(reader: &Reader<'_>, scenario: &Scenario, timeout_at: usize) {
    // Names are known by steps; where one was not understood they would be missed for that.
    if reader.is_clean() {
        check_names(reader, scenario);
    }
    check_books(reader, scenario);
    check_time(reader, scenario, timeout_at);
    for step in all(&scenario.steps) {
        match &step.action {
            Action::Fill { nodes, .. } | Action::Free { nodes } => {
                check_disks(reader, scenario, step, nodes);
            }
            Action::Pair { nodes, with, .. } => {
                check_pair(reader, scenario, step, nodes, with.as_ref());
            }
            Action::WaitEvent { kind, .. } => check_event(reader, step, kind),
            _ => {}
        }
    }
}

/// Every step, also those inside others, in the order of the file.
fn all(steps: &[Step]) -> Vec<&Step> {
    let mut found = Vec::new();
    let mut open: Vec<&Step> = steps.iter().rev().collect();
    while let Some(step) = open.pop() {
        found.push(step);
        open.extend(step.inner().iter().rev());
    }
    found
}

/// A load whose books nobody looks at shows nothing.
fn check_books(reader: &Reader<'_>, scenario: &Scenario) {
    let is_load = |action: &Action| matches!(action, Action::Load(_));
    let is_settle = |action: &Action| matches!(action, Action::Settle { .. });
    let last_load = scenario.steps.iter().rposition(|step| step.any(&is_load));
    let last_settle = scenario.steps.iter().rposition(|step| step.any(&is_settle));
    let unread = last_load.filter(|load| last_settle.is_none_or(|settle| settle < *load));
    let Some(step) = unread.and_then(|load| scenario.steps.get(load)) else {
        return;
    };
    let mut inside = all(std::slice::from_ref(step)).into_iter();
    let load = inside.rfind(|step| is_load(&step.action));
    reader.report_at(
        load.unwrap_or(step).place,
        "nobody looks at the books of this load: end the scenario with { settle = \"30s\" }",
    );
}

/// Only a disk of its own can be filled.
fn check_disks(reader: &Reader<'_>, scenario: &Scenario, step: &Step, nodes: &Nodes) {
    let has_disk = |name: &String| {
        let mut plans = scenario.nodes.iter();
        plans.any(|node| node.name == *name && node.disk_bytes.is_some())
    };
    if let Some(name) = nodes.names.iter().find(|name| !has_disk(name)) {
        let text = format!(
            "`{name}` has no disk of its own, which `{}` needs: write {{ name = \"{name}\", disk = \"320MiB\" }} in `nodes`",
            step.name
        );
        reader.report_at(step.place, text);
    }
}

/// Of two nodes one must be there to be dialled.
fn check_pair(
    reader: &Reader<'_>,
    scenario: &Scenario,
    step: &Step,
    nodes: &Nodes,
    with: Option<&Nodes>,
) {
    let listens = |name: &str| {
        let mut plans = scenario.nodes.iter();
        plans.any(|node| node.name == name && node.listens)
    };
    let silent = |nodes: &Nodes| -> Vec<String> {
        let names = nodes.names.iter().filter(|name| !listens(name));
        names.cloned().collect()
    };
    let is_chosen = nodes.is_any || with.is_some_and(|with| with.is_any);
    let (ones, others) = (silent(nodes), silent(with.unwrap_or(nodes)));
    // What the seed chooses is wrong here only if every choice is.
    let is_hopeless =
        ones.len() == nodes.names.len() && others.len() == with.unwrap_or(nodes).names.len();
    if is_chosen && !is_hopeless {
        return;
    }
    let pair = ones.iter().find_map(|one| {
        let other = others.iter().find(|other| *other != one)?;
        Some((one, other))
    });
    if let Some((one, other)) = pair {
        let text =
            format!("`{one}` and `{other}` both have `listen = false`: neither can dial the other");
        reader.report_at(step.place, text);
    }
}

fn check_event(reader: &Reader<'_>, step: &Step, kind: &str) {
    let known = Fact::kinds();
    if known.clone().any(|word| word == kind) {
        return;
    }
    let text = match nearest(kind, known.clone()) {
        Some(meant) => format!(
            "no event is called `{}`; did you mean `{meant}`?",
            shown(kind)
        ),
        None => format!(
            "no event is called `{}`; there are {}",
            shown(kind),
            listed(known)
        ),
    };
    reader.report_at(step.place, text);
}

/// A copy that is restored is made somewhere, and what is filled in is saved somewhere.
fn check_names(reader: &Reader<'_>, scenario: &Scenario) {
    let steps = all(&scenario.steps);
    let copies = steps.iter().filter_map(|step| match &step.action {
        Action::CopyStore { copy, .. } => Some(copy.as_str()),
        _ => None,
    });
    let saved = steps.iter().filter_map(|step| match &step.action {
        Action::Run(run) => run.save.as_deref(),
        _ => None,
    });
    let (copies, saved): (Vec<&str>, Vec<&str>) = (copies.collect(), saved.collect());
    for step in &steps {
        match &step.action {
            Action::RestoreStore { copy, .. } if !copies.contains(&copy.as_str()) => {
                let text = format!("no `copy_store` makes a copy as `{}`", shown(copy));
                reader.report_at(step.place, text);
            }
            Action::Run(run) => {
                let wrong = run.words.iter().find_map(|word| unfilled(word, &saved));
                if let Some(text) = wrong {
                    reader.report_at(step.place, text);
                }
            }
            _ => {}
        }
    }
}

/// What is wrong with the `${name}` of a word.
fn unfilled(word: &str, saved: &[&str]) -> Option<String> {
    word.split("${")
        .skip(1)
        .find_map(|rest| match rest.split_once('}') {
            None => Some(format!("`{}`: the brace is not closed", shown(word))),
            Some((name, _)) if !saved.contains(&name) => Some(format!(
                "`{}`: no `run` saves anything as `{}`",
                shown(word),
                shown(name)
            )),
            Some(_) => None,
        })
}

/// What takes longer than the scenario may can only fail.
fn check_time(reader: &Reader<'_>, scenario: &Scenario, timeout_at: usize) {
    let limit = short_duration(scenario.timeout);
    let is_over = |step: &&Step| least(step) > scenario.timeout;
    let over = all(&scenario.steps).into_iter().filter(is_over);
    // Whatever is around it takes as long.
    let innermost = over.filter(|step| !step.inner().iter().any(|step| is_over(&step)));
    let mut is_told = false;
    for step in innermost {
        let text = format!(
            "`{}` takes {} at least, and the `timeout` of the scenario is {limit}",
            step.name,
            short_duration(least(step))
        );
        reader.report_at(step.place, text);
        is_told = true;
    }
    let all: Duration = sum(&scenario.steps);
    if !is_told && all > scenario.timeout {
        let text = format!(
            "the steps take {} at least, and the `timeout` of the scenario is {limit}",
            short_duration(all)
        );
        reader.report(timeout_at, text);
    }
}

fn sum(steps: &[Step]) -> Duration {
    let times = steps.iter().map(least);
    times.fold(Duration::ZERO, Duration::saturating_add)
}

/// What a step takes if everything in it goes as fast as it can.
fn least(step: &Step) -> Duration {
    match &step.action {
        Action::Sleep { pause } => pause.least,
        Action::Sequence { steps } => sum(steps),
        Action::Parallel { steps } => steps.iter().map(least).max().unwrap_or_default(),
        Action::Choose { steps, .. } => steps.iter().map(least).min().unwrap_or_default(),
        Action::Repeat { times, steps } => match times {
            Times::For(time) => (*time).max(sum(steps)),
            Times::Rounds(rounds) => {
                let rounds = u32::try_from(*rounds).unwrap_or(u32::MAX);
                sum(steps).saturating_mul(rounds)
            }
        },
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use crate::lab::Scenario;

    #[track_caller]
    fn judged(steps: &str) -> String {
        let text = format!(
            "name = \"t\"\nnodes = [\"left\", {{ name = \"mute\", count = 2, listen = false }}]\nsteps = [{steps}]\n"
        );
        match Scenario::parse("c.toml".as_ref(), text.as_bytes()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[track_caller]
    fn refused(steps: &str, expected: &str) {
        assert_eq!(judged(steps), expected, "{steps}");
    }

    #[test]
    fn names_that_nobody_gives_are_refused() {
        refused(
            "{ restore_store = \"left\", copy = \"monday\" }",
            "c.toml:3:12: no `copy_store` makes a copy as `monday`",
        );
        refused(
            "{ copy_store = \"left\", as = \"monday\" }, { restore_store = \"left\", copy = \"monday\" }",
            "",
        );
        refused(
            "{ run = \"send left t ${what}\", on = \"left\" }",
            "c.toml:3:12: `${what}`: no `run` saves anything as `what`",
        );
        refused(
            "{ run = \"id\", on = \"left\", save = \"what\" }, { run = \"x ${what}-${what\", on = \"left\" }",
            "c.toml:3:56: `${what}-${what`: the brace is not closed",
        );
        refused(
            "{ wait_event = \"sesion.started\", on = \"left\" }",
            "c.toml:3:12: no event is called `sesion.started`; did you mean `session.started`?",
        );
        refused("{ wait_event = \"storage.full\", on = \"left\" }", "");
    }

    #[test]
    fn two_nodes_that_nobody_can_dial_are_not_paired() {
        let expected = "c.toml:3:12: `mute1` and `mute2` both have `listen = false`: neither can dial the other";
        refused("{ pair = \"*\" }", expected);
        refused("{ pair = \"mute1\", with = \"mute2\" }", expected);
        refused("{ pair = \"mute*\", with = \"left\" }", "");
        refused("{ pair = \"mute1\", with = \"any *\" }", "");
    }

    #[test]
    fn what_takes_longer_than_the_scenario_is_refused() {
        refused(
            "{ parallel = [{ repeat = \"10m\", steps = [{ kill = \"left\" }] }] }",
            "c.toml:3:26: `repeat` takes 10m at least, and the `timeout` of the scenario is 1m",
        );
        refused(
            "{ repeat = 100, steps = [{ sleep = \"1s..2s\", why = \"w\" }] }",
            "c.toml:3:12: `repeat` takes 1m 40s at least, and the `timeout` of the scenario is 1m",
        );
        let two = "{ repeat = \"40s\", steps = [{ kill = \"left\" }] },".repeat(2);
        refused(
            &two,
            "c.toml:1:1: the steps take 1m 20s at least, and the `timeout` of the scenario is 1m",
        );
        refused("{ repeat = \"59s\", steps = [{ kill = \"left\" }] }", "");
    }

    #[test]
    fn a_load_and_a_disk_are_told_where_they_stand_inside_other_steps() {
        refused(
            "{ parallel = [{ kill = \"left\" }, { fill = \"mute*\", left = \"5MiB\" }] }",
            "c.toml:3:45: `mute1` has no disk of its own, which `fill` needs: write { name = \"mute1\", disk = \"320MiB\" } in `nodes`",
        );
        refused(
            "{ parallel = [{ kill = \"left\" }, { load = \"t\", from = \"left\", to = \"mute1\" }] }",
            "c.toml:3:45: nobody looks at the books of this load: end the scenario with { settle = \"30s\" }",
        );
    }
}
