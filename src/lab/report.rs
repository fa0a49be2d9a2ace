//! What came of a scenario: every step with its outcome and time, the books, and where to look.
//!
//! The runner makes it; [`junit()`] and [`Live`] only write it down. Nothing here decides anything.

mod board;
mod junit;
mod live;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::ledger::Tally;
use super::scenario::place::Place;

pub use self::board::Size;
pub use self::junit::junit;
pub use self::live::Live;

/// Names of the documents.
pub mod schema {
    /// A scenario whose nodes are about to start, with its seed and folder: the first line of
    /// `lab run --jsonl`.
    pub const BEGIN: &str = "packhorse.lab.begin.v1";
    /// A step that ended, as `lab run --jsonl` prints it.
    pub const STEP: &str = "packhorse.lab.step.v1";
    /// A scenario that ended.
    pub const RUN: &str = "packhorse.lab.run.v1";
    /// What `lab check` found.
    pub const CHECK: &str = "packhorse.lab.check.v1";
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "lowercase")]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Otherwise, with the reason.
    Failed(String),
    /// Not done here, with the reason: this machine cannot do what it needs.
    Skipped(String),
}

impl Outcome {
    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed(_) => "failed",
            Outcome::Skipped(_) => "skipped",
        }
    }

    /// Whether it failed.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        matches!(self, Outcome::Failed(_))
    }
}

/// One run of a step that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepRecord {
    /// Where in the scenario: `steps[3].parallel[1]`.
    pub path: String,
    /// Which round, outermost first, where it stands in `repeat`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<u64>,
    /// Line in the file.
    #[serde(serialize_with = "line_of")]
    pub line: Place,
    /// Its name.
    pub step: &'static str,
    /// What it did.
    pub title: String,
    /// When it began, since the scenario did.
    #[serde(rename = "began_ms", serialize_with = "whole_ms")]
    pub began: Duration,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "whole_ms")]
    pub took: Duration,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// One run of a scenario that ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// What the scenario is called.
    pub scenario: String,
    /// Its file.
    pub file: PathBuf,
    /// The seed, which makes the same choices again.
    pub seed: u64,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "whole_ms")]
    pub took: Duration,
    /// Steps that ended, as far as they are kept; the first that failed is always among them.
    #[serde(skip)]
    pub steps: Vec<StepRecord>,
    /// How many steps ended.
    pub steps_count: u64,
    /// How often nodes were killed, all together.
    pub kills: u64,
    /// The books.
    pub tally: Tally,
    /// Every node's folder, log, events, status and tree, when it failed or was told to keep them.
    pub folder: Option<PathBuf>,
}

impl RunReport {
    /// The step that made it fail.
    #[must_use]
    pub fn failed_step(&self) -> Option<&StepRecord> {
        // The innermost one ends first, and its reason is the real one.
        self.steps.iter().find(|step| step.outcome.is_failure())
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let seconds = self.took.as_secs_f64();
        let head = format!(
            "{} {} in {seconds:.1} s, seed {}",
            self.outcome.word(),
            self.scenario,
            self.seed
        );
        match &self.outcome {
            Outcome::Passed if self.tally.accepted == 0 => head,
            Outcome::Passed => format!("{head}: {}", self.tally),
            Outcome::Failed(reason) | Outcome::Skipped(reason) => format!("{head}: {reason}"),
        }
    }
}

/// Minutes and seconds since the beginning.
fn clock(ms: u128) -> String {
    let seconds = ms / 1_000;
    format!(
        "{:>3}:{:02}.{}",
        seconds / 60,
        seconds % 60,
        ms % 1_000 / 100
    )
}

fn line_of<S: Serializer>(place: &Place, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(place.line).unwrap_or(u64::MAX))
}

fn whole_ms<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    pub(in crate::lab) fn step(path: &str, outcome: Outcome) -> StepRecord {
        StepRecord {
            path: path.into(),
            rounds: Vec::new(),
            line: Place { line: 7, column: 3 },
            step: "kill",
            title: "kill left".into(),
            began: Duration::from_millis(250),
            took: Duration::from_millis(1_500),
            outcome,
        }
    }

    pub(in crate::lab) fn run(outcome: Outcome, steps: Vec<StepRecord>) -> RunReport {
        RunReport {
            scenario: "flapping link".into(),
            file: "flap.toml".into(),
            seed: 7,
            outcome,
            took: Duration::from_millis(12_340),
            steps_count: u64::try_from(steps.len()).unwrap_or(0),
            steps,
            kills: 3,
            tally: Tally::default(),
            folder: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{run, step};
    use super::*;

    #[test]
    fn documents_have_the_published_shape() {
        let failed = step("steps[0]", Outcome::Failed("no".into()));
        assert_eq!(
            serde_json::to_string(&failed).expect("plain values"),
            r#"{"path":"steps[0]","line":7,"step":"kill","title":"kill left","began_ms":250,"took_ms":1500,"outcome":"failed","reason":"no"}"#
        );
        let run = serde_json::to_string(&run(Outcome::Passed, vec![failed])).expect("plain values");
        assert!(
            run.starts_with(r#"{"scenario":"flapping link","file":"flap.toml","seed":7,"outcome":"passed","took_ms":12340,"steps_count":1,"kills":3,"tally":{"#),
            "{run}"
        );
    }

    #[test]
    fn the_summary_says_how_it_ended_and_why() {
        assert_eq!(
            run(Outcome::Passed, Vec::new()).summary(),
            "passed flapping link in 12.3 s, seed 7"
        );
        assert_eq!(
            run(Outcome::Failed("steps[0]: no".into()), Vec::new()).summary(),
            "failed flapping link in 12.3 s, seed 7: steps[0]: no"
        );
    }
}
