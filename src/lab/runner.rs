//! Runs the steps of a scenario on a cluster, one after the other, and says what came of it.
//!
//! Every step has a deadline, and the scenario has one. A step that fails ends the scenario: its path,
//! its line, and what was seen last are the reason. So does what goes wrong beside the steps, such as
//! a node that ends without being told to. What the seed chooses depends on the seed, the path of the
//! step and its round alone.
//!
//! Read [`run`] first; `perform`, `wires` and `asking` hold what the single steps do, `background` what
//! runs beside them, `lives` whether the nodes do, `settle` how the books are closed, `evidence` what
//! is kept of a failure.

mod asking;
mod background;
mod evidence;
mod follow;
mod lives;
mod perform;
mod settle;
mod trouble;
mod turn;
mod watching;
mod wires;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use self::background::Background;
use self::lives::Lives;
use self::trouble::Trouble;
use self::turn::{Scope, Turn};
use super::ledger::Tally;
use super::machine::Machine;
use super::report::{Outcome, RunReport, StepRecord};
use super::scenario::fields::Times;
use super::step::{Action, Step};
use super::together::{self, all};
use super::{Cluster, LabError, NodeSpec, Scenario};

/// Steps of which a report keeps records; a storm of kills has many more, and its failures are kept.
const RECORDS_COUNT_MAX: usize = 5_000;
/// Rounds of a `repeat` that lasts for a time and whose steps take none.
const ROUND_MIN: Duration = Duration::from_millis(1);
/// How long after a step failed the reason of it may still come to light, such as a node's death.
const REASON_WITHIN: Duration = Duration::from_millis(200);

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Decides everything that is chosen.
    pub seed: u64,
    /// The program that the nodes run; this one unless given.
    pub program: Option<PathBuf>,
    /// Leaves folders and logs behind although it passed.
    pub keep: bool,
    /// Where the scratch folder is made.
    pub scratch: Option<PathBuf>,
    /// Becomes true when the run is to be broken off: everything is taken down then, and the report
    /// says that it was interrupted. Without a sender it never does.
    pub cancel: watch::Receiver<bool>,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions {
            seed: 0,
            program: None,
            keep: false,
            scratch: None,
            cancel: watch::channel(false).1,
        }
    }
}

/// What happens while a scenario runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Happening<'a> {
    /// The nodes are made, and nothing runs yet.
    Built {
        /// What decides everything that is chosen.
        seed: u64,
        /// Where everything of the run lies.
        folder: &'a Path,
        /// The nodes.
        nodes: &'a [Arc<Machine>],
    },
    /// Time passes, so much since the scenario began.
    Tick {
        /// When.
        at: Duration,
        /// The nodes.
        nodes: &'a [Arc<Machine>],
        /// The books.
        tally: Tally,
    },
    /// A step begins, so long after the scenario did.
    Began {
        /// The step.
        step: &'a Step,
        /// Which round, outermost first.
        rounds: &'a [u64],
        /// When.
        at: Duration,
    },
    /// A step ended.
    Ended(&'a StepRecord),
}

/// Hears what happens; must not block.
pub type Watch<'w> = &'w (dyn Fn(Happening<'_>) + Send + Sync);

/// Runs a scenario to its end and takes everything down.
pub async fn run(scenario: &Scenario, options: &RunOptions, watch: Watch<'_>) -> RunReport {
    let began = Instant::now();
    let cluster = match build(scenario, options).await {
        Ok(cluster) => cluster,
        Err(error) => return unbegun(scenario, options, began, &Trouble::from(error)),
    };
    let run = Run {
        scenario,
        cluster: &cluster,
        seed: options.seed,
        began,
        watch,
        cancel: options.cancel.clone(),
        state: Mutex::default(),
        lives: Lives::new(scenario),
        background: Background::default(),
    };
    watch(Happening::Built {
        seed: options.seed,
        folder: cluster.folder(),
        nodes: cluster.nodes(),
    });
    let outcome = watching::watched(&run, run.all()).await;
    run.background.abandon().await;
    let tally = run.background.tally();
    let State {
        records,
        steps_count,
        kills,
        ..
    } = run
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let is_failure = outcome.is_failure();
    let is_kept = options.keep || is_failure;
    let mut report = RunReport {
        scenario: scenario.name.clone(),
        file: scenario.path.clone(),
        seed: options.seed,
        outcome,
        took: began.elapsed(),
        steps: records,
        steps_count,
        kills,
        tally,
        folder: is_kept.then(|| cluster.folder().to_owned()),
    };
    if is_failure {
        evidence::collect(&cluster, scenario, &report).await;
    }
    cluster.keep(is_kept);
    match cluster.end().await {
        Ok(folder) => report.folder = folder,
        Err(LabError::End { troubles, kept }) => {
            report.folder = kept;
            // What failed first says more.
            if !is_failure {
                report.outcome = Outcome::Failed(troubles);
            }
        }
        Err(error) if !is_failure => report.outcome = Outcome::Failed(error.to_string()),
        Err(_) => {}
    }
    report
}

async fn build(scenario: &Scenario, options: &RunOptions) -> Result<Cluster, LabError> {
    let mut builder = Cluster::builder().seed(options.seed).keep(options.keep);
    if let Some(program) = &options.program {
        builder = builder.program(program);
    }
    if let Some(scratch) = &options.scratch {
        builder = builder.scratch_in(scratch);
    }
    for plan in &scenario.nodes {
        let mut spec = NodeSpec::new(&plan.name);
        spec.is_silent = !plan.listens;
        spec.arguments.clone_from(&plan.args);
        spec.variables.clone_from(&plan.env);
        spec.settings.clone_from(&plan.settings);
        spec.disk_bytes = plan.disk_bytes;
        builder = builder.node(spec);
    }
    builder.build().await
}

/// The report of a scenario whose nodes could not even be made.
fn unbegun(
    scenario: &Scenario,
    options: &RunOptions,
    began: Instant,
    trouble: &Trouble,
) -> RunReport {
    RunReport {
        scenario: scenario.name.clone(),
        file: scenario.path.clone(),
        seed: options.seed,
        outcome: trouble.outcome(),
        took: began.elapsed(),
        steps: Vec::new(),
        steps_count: 0,
        kills: 0,
        tally: Tally::default(),
        folder: None,
    }
}

/// One run under way.
pub(crate) struct Run<'a> {
    scenario: &'a Scenario,
    cluster: &'a Cluster,
    seed: u64,
    began: Instant,
    watch: Watch<'a>,
    cancel: watch::Receiver<bool>,
    state: Mutex<State>,
    lives: Lives,
    background: Background,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<StepRecord>,
    steps_count: u64,
    kills: u64,
    /// What `run` kept.
    saved: BTreeMap<String, String>,
    /// Behind which event of a node a `wait_event` reads on.
    cursors: BTreeMap<String, Cursor>,
    /// Nodes and topics out of which `receive` took something, with the path of that step.
    received: BTreeMap<(String, String), String>,
}

/// Behind which event of a node a `wait_event` reads on.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    number: u64,
    /// A `wait_event` found it; otherwise it was the newest when the last thing happened.
    is_found: bool,
}

type Doing<'f> = together::Doing<'f, Trouble>;

impl Run<'_> {
    async fn all(&self) -> Outcome {
        if self.scenario.needs_faults()
            && let Err(trouble) = self.check_faults().await
        {
            return trouble.outcome();
        }
        let scope = Scope::scenario(self.began, self.scenario.timeout);
        let done = tokio::select! {
            biased;
            () = self.watch_lives() => Ok(()),
            done = self.sequence(&self.scenario.steps, scope) => done,
        };
        match done.and_then(|()| self.is_well()) {
            Ok(()) => Outcome::Passed,
            Err(trouble) => trouble.outcome(),
        }
    }

    /// Whether nothing is wrong behind the last step.
    fn is_well(&self) -> Result<(), Trouble> {
        for node in self.cluster.nodes() {
            self.no_stray_end(node)?;
        }
        if let Some(trouble) = self.background.trouble() {
            return Err(Trouble::wrong(trouble));
        }
        let starved = self.cluster.network().starved();
        if starved > 0 {
            return Err(Trouble::wrong(format!(
                "{starved} datagrams were lost because the lab may open no more files: raise the limit (ulimit -n), or take fewer nodes"
            )));
        }
        let ledger = self.background.shared().ledger();
        let wrong = [ledger.faults(), ledger.unjudged()].concat();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Trouble::wrong(wrong.join("\n"))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that panics holds it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sequence(&self, steps: &[Step], scope: Scope<'_>) -> Result<(), Trouble> {
        for step in steps {
            self.step(step, scope).await?;
        }
        Ok(())
    }

    /// Runs one step within its deadline, and tells of it.
    fn step<'f>(&'f self, step: &'f Step, scope: Scope<'f>) -> Doing<'f> {
        Box::pin(async move {
            let began = self.began.elapsed();
            (self.watch)(Happening::Began {
                step,
                rounds: scope.rounds,
                at: began,
            });
            let within = match step.action {
                Action::Settle { within } => Some(within),
                _ => step.within,
            };
            let turn = Turn::new(self.seed, &step.path, scope.of(step, within));
            let done = match &step.action {
                Action::Sequence { steps } => self.sequence(steps, turn.scope).await,
                Action::Parallel { steps } => {
                    let doings = steps.iter().map(|step| self.step(step, turn.scope));
                    all(doings.collect()).await
                }
                Action::Repeat { times, steps } => self.repeat(*times, steps, &turn).await,
                Action::Choose { steps, weights } => match turn.choose(steps, weights) {
                    Some(step) => self.step(step, turn.scope).await,
                    None => Ok(()),
                },
                action => self.guarded(action, &turn).await,
            };
            let done = done.map_err(|trouble| self.placed(step, trouble));
            self.note(step, scope.rounds, began, &done);
            done
        })
    }

    /// Carries out a step that holds no others, until its deadline, or until something goes wrong
    /// beside it, or everything is to end.
    async fn guarded(&self, action: &Action, turn: &Turn<'_>) -> Result<(), Trouble> {
        let act = tokio::time::timeout_at(turn.until(), self.perform(action, turn));
        let done = tokio::select! {
            biased;
            done = act => done.unwrap_or_else(|_| Err(Trouble::wrong(turn.late()))),
            trouble = self.background.troubled() => Err(Trouble::wrong(trouble)),
            () = self.cancelled() => {
                return Err(Trouble::wrong(format!("interrupted{}", turn.seen_last())));
            }
        };
        if let Err(trouble) = done {
            // The end of a node may be the reason, and may be noticed a moment later.
            let other = tokio::time::timeout(REASON_WITHIN, self.background.troubled());
            return Err(match other.await {
                Ok(other) => trouble.and(&other),
                Err(_) => trouble,
            });
        }
        match self.background.trouble() {
            None => Ok(()),
            Some(trouble) => Err(Trouble::wrong(trouble)),
        }
    }

    /// Waits until the run is to be broken off.
    async fn cancelled(&self) {
        let mut cancel = self.cancel.clone();
        if cancel.wait_for(|is_over| *is_over).await.is_err() {
            // Nobody is left who could say so.
            std::future::pending::<()>().await;
        }
    }

    /// Puts path and line in front of a reason, once.
    fn placed(&self, step: &Step, trouble: Trouble) -> Trouble {
        if trouble.is_placed {
            return trouble;
        }
        let file = self.scenario.path.display();
        Trouble {
            reason: format!(
                "{} ({file}:{}): {}",
                step.path, step.place.line, trouble.reason
            ),
            is_placed: true,
            ..trouble
        }
    }

    fn note(&self, step: &Step, rounds: &[u64], began: Duration, done: &Result<(), Trouble>) {
        let record = StepRecord {
            path: step.path.clone(),
            rounds: rounds.to_vec(),
            line: step.place,
            step: step.name,
            title: step.title.clone(),
            began,
            took: self.began.elapsed().saturating_sub(began),
            outcome: match done {
                Ok(()) => Outcome::Passed,
                Err(trouble) => trouble.outcome(),
            },
        };
        (self.watch)(Happening::Ended(&record));
        let mut state = self.state();
        state.steps_count += 1;
        if state.records.len() < RECORDS_COUNT_MAX || record.outcome != Outcome::Passed {
            state.records.push(record);
        }
    }

    async fn repeat(&self, times: Times, steps: &[Step], turn: &Turn<'_>) -> Result<(), Trouble> {
        let began = Instant::now();
        let mut round = 0;
        loop {
            let is_over = match times {
                Times::Rounds(rounds) => round >= rounds,
                Times::For(time) => began.elapsed() >= time,
            };
            if is_over {
                return Ok(());
            }
            round += 1;
            let round_began = Instant::now();
            let rounds: Vec<u64> = turn.scope.rounds.iter().copied().chain([round]).collect();
            self.sequence(steps, turn.scope.in_round(&rounds)).await?;
            if round_began.elapsed() < ROUND_MIN {
                // Steps that take no time must not keep everything else from running.
                tokio::time::sleep(ROUND_MIN).await;
            }
        }
    }

    /// Nodes that a `wait_event` of the scenario looks at.
    fn watched(&self) -> BTreeSet<String> {
        let mut watched = BTreeSet::new();
        lives::each(&self.scenario.steps, &mut |action| {
            if let Action::WaitEvent { on, .. } = action {
                watched.extend(on.names.iter().cloned());
            }
        });
        watched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_of_parallel_steps_ends_the_others() {
        let doings: Vec<Doing<'_>> = vec![
            Box::pin(std::future::pending()),
            Box::pin(async { Ok(()) }),
            Box::pin(async { Err(Trouble::wrong("no")) }),
        ];
        assert_eq!(all(doings).await, Err(Trouble::wrong("no")));
        let none: Vec<Doing<'_>> = Vec::new();
        assert!(all(none).await.is_ok());
    }

    #[tokio::test]
    async fn an_interrupted_run_says_where_it_was_and_keeps_what_explains_it() {
        let scratch = tempfile::tempdir().expect("a folder");
        let text = "name = \"t\"\nnodes = [\"left\"]\nsteps = [{ sleep = \"50s\", why = \"it is interrupted\" }]\n";
        let scenario = Scenario::parse("t.toml".as_ref(), text.as_bytes()).expect("it is whole");
        let (sender, cancel) = watch::channel(false);
        let options = RunOptions {
            scratch: Some(scratch.path().to_owned()),
            cancel,
            ..RunOptions::default()
        };
        // Interrupted as soon as the step has begun.
        let watch = |_: Happening<'_>| {
            sender.send_replace(true);
        };
        let report = run(&scenario, &options, &watch).await;
        let expected = "steps[0] (t.toml:3): interrupted; seen last: a sleep of 50 s";
        assert_eq!(report.outcome, Outcome::Failed(expected.to_owned()));
        assert_eq!(report.steps.len(), 1);
        let folder = report.folder.expect("it is kept");
        for file in ["report.json", "left.status.json", "network.txt"] {
            assert!(folder.join(file).exists(), "{file}");
        }
    }
}
