//! A scenario: nodes, and the steps that happen to them, read from a TOML file.
//!
//! What is not understood is refused with file, line and column, all of it at once, before anything
//! is started. Nothing here runs anything.
//!
//! ```toml
//! name = "flapping link"
//! about = "A link that comes and goes under load loses nothing"
//! timeout = "60s"                      # of the whole scenario; 60s unless given, 24h at most
//!
//! nodes = [
//!   "left",
//!   { name = "right", settings = "log = \"packhorse=debug\"" },
//!   { name = "spoke", count = 3 },     # spoke1, spoke2, spoke3
//! ]
//!
//! steps = [
//!   { start = "*" },
//!   { pair = "*" },
//!   { load = "orders", from = "left", to = "right", rate = 200 },
//!   { consume = "orders", on = "right" },
//!   { repeat = 5, steps = [
//!     { partition = "left", from = "right" },
//!     { sleep = "200ms..2s", why = "the link is down" },
//!     { heal = "left" },
//!     { wait = "status", on = "left", that = "$.peers[name=right].state == 'connected'" },
//!     { choose = [{ restart = "any *" }, { kill = "right" }], weights = [1, 3] },
//!     { start = "*" },
//!   ] },
//!   { settle = "30s" },                # accepted = stored = done, nothing lost, twice or out of order
//!   { assert = "dead list", on = "*", that = "$.total == 0" },
//! ]
//! ```
//!
//! A node is named by its name; `*` in a name stands for anything, `any ` in front lets the seed
//! choose one of those that fit. What the seed chooses depends on the seed and the place of the step
//! alone, so that parallel steps do not disturb each other.
//!
//! Errors look like this:
//!
//! ```text
//! flap.toml:15:5: no step is called `strat`; did you mean `start`?
//! flap.toml:21:44: `within` must be a duration, such as "10s" or "500ms", found the number 10
//! flap.toml:23:57: `that`: expected ==, !=, <, <=, >, >=, contains, exists or missing, found `=`
//! ```

mod checks;
pub(crate) mod fields;
pub(crate) mod kind;
mod nodes;
mod pattern;
pub(crate) mod place;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use self::fields::{Fields, Reader};
use self::kind::{FieldDoc, Kind, may, need};
use super::step::{self, Action, Step};
use crate::time::short_duration;

pub use self::fields::{Nodes, Pause, Times};
pub use self::nodes::NodePlan;
pub use self::place::{Place, Problem};

/// Largest scenario file that is read: some thousand steps with a remark for each.
pub const SCENARIO_BYTES_MAX: usize = 1 << 20;
/// How long a scenario may take unless it says otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Longest scenario: a day.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Keys of the file itself.
pub(crate) const FILE_FIELDS: &[FieldDoc] = &[
    need("name", Kind::Text, "what the scenario is called in reports"),
    may("about", Kind::Text, "what it shows, in a sentence"),
    may(
        "timeout",
        Kind::Duration,
        "how long all of it may take; 60s unless given",
    ),
    need(
        "nodes",
        Kind::Nodes,
        "the machines: names, or tables with a name",
    ),
    need("steps", Kind::Steps, "what happens, in this order"),
];

/// A scenario that was read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// What it shows.
    pub about: Option<String>,
    /// How long all of it may take.
    pub timeout: Duration,
    /// The machines, in the order of the file.
    pub nodes: Vec<NodePlan>,
    /// What happens.
    pub steps: Vec<Step>,
    /// The file.
    pub path: PathBuf,
}

impl Scenario {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
        // One byte over the limit is enough to know of; a device never ends.
        let limit = u64::try_from(SCENARIO_BYTES_MAX).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes));
        match read {
            Ok(_) => Scenario::parse(path, &bytes),
            Err(source) => Err(ScenarioError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Reads a scenario from the bytes of a file; the path only serves the errors.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Scenario, ScenarioError> {
        let malformed = |problems| ScenarioError::Malformed {
            path: path.to_owned(),
            problems,
        };
        if bytes.len() > SCENARIO_BYTES_MAX {
            return Err(ScenarioError::TooLarge {
                path: path.to_owned(),
            });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let place = Place::of(&String::from_utf8_lossy(valid), valid.len());
            malformed(vec![Problem::new(place, "the file is not UTF-8")])
        })?;
        let table = DeTable::parse(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            // The parser may explain over several lines; a message is one.
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            malformed(vec![Problem::new(Place::of(text, start), &message)])
        })?;
        let reader = Reader::new(text);
        let scenario = read(&reader, table.get_ref(), path);
        match scenario {
            Some(scenario) if reader.is_clean() => Ok(scenario),
            _ => Err(malformed(reader.into_problems())),
        }
    }

    /// Names of all nodes, in the order of the file.
    pub fn node_names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    /// Whether a step anywhere in it is such a one.
    #[must_use]
    pub fn any(&self, is: impl Fn(&Action) -> bool) -> bool {
        self.steps.iter().any(|step| step.any(&is))
    }

    /// Whether it makes single actors die, which needs a program with the feature `fault`.
    #[must_use]
    pub fn needs_faults(&self) -> bool {
        self.any(|action| matches!(action, Action::Crash { .. }))
    }
}

fn read(reader: &Reader<'_>, table: &DeTable<'_>, path: &Path) -> Option<Scenario> {
    let file = Fields::new(reader, table, 0, "a scenario");
    file.check(FILE_FIELDS);
    let timeout = file.duration("timeout").unwrap_or(TIMEOUT_DEFAULT);
    if timeout > TIMEOUT_MAX
        && let Some(found) = file.found("timeout")
    {
        let text = format!(
            "`timeout` is {}, the limit is {}",
            short_duration(timeout),
            short_duration(TIMEOUT_MAX)
        );
        reader.report(found.span().start, text);
    }
    let nodes = match file.found("nodes") {
        Some(found) => nodes::read(reader, found),
        None => Vec::new(),
    };
    reader.know_nodes(nodes.iter().map(|node| node.name.clone()).collect());
    let steps = match file.found("steps") {
        // Without nodes every step would be wrong, which helps nobody.
        Some(found) if !nodes.is_empty() => step::steps(reader, found, "steps"),
        _ => Vec::new(),
    };
    let scenario = Scenario {
        name: file.text("name")?,
        about: file.text("about"),
        timeout,
        nodes,
        steps,
        path: path.to_owned(),
    };
    checks::check(reader, &scenario, file.at("timeout"));
    Some(scenario)
}

/// Why a scenario was not taken. All of these end a command with exit 2.
#[derive(Debug)]
#[non_exhaustive]
pub enum ScenarioError {
    /// The file cannot be read: look at its name and mode.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Over [`SCENARIO_BYTES_MAX`]: split it.
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Unknown keys, wrong types, wrong values: everything that is wrong, in the order of the file.
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<Problem>,
    },
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScenarioError::Unreadable { path, source } => {
                write!(f, "cannot read {}: {source}", named(path))
            }
            ScenarioError::TooLarge { path } => write!(
                f,
                "{} has more than {SCENARIO_BYTES_MAX} bytes, the limit of a scenario",
                named(path)
            ),
            ScenarioError::Malformed { path, problems } => {
                for (index, problem) in problems.iter().enumerate() {
                    let newline = if index == 0 { "" } else { "\n" };
                    let Problem { place, text } = problem;
                    write!(f, "{newline}{}:{place}: {text}", named(path))?;
                }
                Ok(())
            }
        }
    }
}

/// Longest path that a system takes.
const PATH_CHARS_MAX: usize = 4_096;

/// A path as it may go to a terminal.
fn named(path: &Path) -> String {
    place::shown(&path.to_string_lossy(), PATH_CHARS_MAX)
}

impl std::error::Error for ScenarioError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ScenarioError::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scenario of the module documentation, which is the first one that people read.
    fn example() -> String {
        let source = include_str!("scenario.rs");
        source
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| {
                line.trim_start_matches("//!")
                    .strip_prefix(' ')
                    .unwrap_or_default()
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        Scenario::parse(Path::new("flap.toml"), text.as_bytes())
    }

    #[track_caller]
    fn refused(text: &str, expected: &[&str]) {
        let error = parse(text).expect_err("a wrong scenario").to_string();
        let found: Vec<&str> = error.lines().collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn the_example_of_the_documentation_is_a_scenario() {
        let scenario = parse(&example()).expect("a scenario");
        assert_eq!(scenario.name, "flapping link");
        assert_eq!(
            scenario.node_names().collect::<Vec<_>>(),
            ["left", "right", "spoke1", "spoke2", "spoke3"]
        );
        assert_eq!(scenario.steps.len(), 7);
        assert_eq!(scenario.steps[4].inner()[4].path, "steps[4].steps[4]");
        assert_eq!(scenario.timeout, Duration::from_secs(60));
        assert!(!scenario.needs_faults());
    }

    const HEAD: &str = "name = \"t\"\nnodes = [\"left\", \"right\"]\n";

    #[test]
    fn a_misspelt_step_or_key_is_refused_where_it_stands() {
        refused(
            &format!("{HEAD}steps = [\n  {{ strat = \"*\" }},\n]\n"),
            &["flap.toml:4:3: no step is called `strat`; did you mean `start`?"],
        );
        refused(
            &format!("{HEAD}steps = [{{ kill = \"left\", witin = \"1s\" }}]\n"),
            &["flap.toml:3:27: `kill` takes no key `witin`; did you mean `within`?"],
        );
        refused(
            &format!("{HEAD}steps = [{{ kill = \"left\", start = \"left\" }}]\n"),
            &[
                "flap.toml:3:27: a step does one thing, but here stand `kill` and `start`: make two steps of them",
            ],
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        refused(
            &format!(
                "{HEAD}timeot = 1\nsteps = [\n  {{ start = \"rigth\" }},\n  {{ wait = \"status\", on = \"left\", within = 10, that = \"$.a = 1\" }},\n  {{ send = \"t\", from = \"left\", to = \"*\" }},\n]\n"
            ),
            &[
                "flap.toml:3:1: a scenario takes no key `timeot`; did you mean `timeout`?",
                "flap.toml:5:13: no node is called `rigth`; did you mean `right`?",
                "flap.toml:6:44: `within` must be a duration, such as \"10s\" or \"500ms\", found the number 10",
                "flap.toml:6:60: `that`: expected ==, !=, <, <=, >, >=, contains, exists or missing, found `=`",
                "flap.toml:7:3: `send` needs the key `payload`: a text, which may be empty",
                "flap.toml:7:37: `to` must be one node, but this fits 2: `left`, `right`; `any ` in front lets the seed choose",
            ],
        );
    }

    #[test]
    fn a_timeout_over_the_limit_is_refused_with_both() {
        refused(
            &format!("timeout = \"48h\"\n{HEAD}steps = [{{ kill = \"left\" }}]\n"),
            &["flap.toml:1:11: `timeout` is 2d, the limit is 1d"],
        );
    }

    #[test]
    fn a_load_that_nobody_settles_is_refused() {
        refused(
            &format!(
                "{HEAD}steps = [\n  {{ load = \"t\", from = \"left\", to = \"right\" }},\n]\n"
            ),
            &[
                "flap.toml:4:5: nobody looks at the books of this load: end the scenario with { settle = \"30s\" }",
            ],
        );
    }

    #[test]
    fn a_disk_that_is_not_there_cannot_be_filled() {
        refused(
            &format!("{HEAD}steps = [{{ fill = \"left\", left = \"5MiB\" }}]\n"),
            &[
                "flap.toml:3:12: `left` has no disk of its own, which `fill` needs: write { name = \"left\", disk = \"320MiB\" } in `nodes`",
            ],
        );
    }

    #[test]
    fn a_file_without_end_and_a_list_without_end_are_refused_at_once() {
        if Path::new("/dev/zero").exists() {
            let error = Scenario::load(Path::new("/dev/zero")).expect_err("too large");
            let expected = "/dev/zero has more than 1048576 bytes, the limit of a scenario";
            assert_eq!(error.to_string(), expected);
        }
        // Half a megabyte of it on one line: each report would look through all of it.
        let many = "{x=1},".repeat(80_000);
        refused(
            &format!("{HEAD}steps = [{many}]\n"),
            &["flap.toml:3:9: 80000 steps in one list, the limit is 500"],
        );
        let many = "{x=1},".repeat(500);
        let many = format!("{{parallel=[{many}]}},").repeat(300);
        let error = parse(&format!("{HEAD}steps = [{many}]\n")).expect_err("all wrong");
        let error = error.to_string();
        assert_eq!(error.lines().count(), fields::PROBLEMS_COUNT_MAX + 1);
        let last = error.lines().last().unwrap_or_default();
        assert!(
            last.ends_with(": there may be more: the first 50 are told"),
            "{last}"
        );
        let many = "\"left\",".repeat(100_000);
        let error = parse(&format!("name = \"t\"\nnodes = [{many}]\nsteps = []\n"));
        let error = error.expect_err("all wrong").to_string();
        assert_eq!(error.lines().count(), fields::PROBLEMS_COUNT_MAX + 1);
    }

    #[test]
    fn what_a_file_says_cannot_steer_the_terminal() {
        let long = "y".repeat(1 << 19);
        let text = format!(
            "{HEAD}steps = [{{ sleep = \"\\u001b[2J\", why = \"x\" }}, {{ settle = \"{long}\" }}]\n"
        );
        let shown = parse(&text).expect_err("no durations").to_string();
        assert!(shown.contains("`\\u{1b}[2J` is no duration"), "{shown}");
        assert!(
            shown.contains("found the text \"yyy") && shown.len() < 1_000,
            "{shown}"
        );
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_place() {
        let error = parse("name = \nnodes = []\n")
            .expect_err("no TOML")
            .to_string();
        assert!(error.starts_with("flap.toml:1:8: "), "{error}");
        let error = Scenario::parse(Path::new("a.toml"), b"\nx\xff").expect_err("no UTF-8");
        assert_eq!(error.to_string(), "a.toml:2:2: the file is not UTF-8");
        refused(
            "",
            &[
                "flap.toml:1:1: a scenario needs the key `name`: a text, such as \"orders\"",
                "flap.toml:1:1: a scenario needs the key `nodes`: nodes, such as \"left\", \"spoke*\", \"any *\" or [\"left\", \"right\"]",
                "flap.toml:1:1: a scenario needs the key `steps`: a list of steps, such as [{ kill = \"left\" }, { start = \"left\" }]",
            ],
        );
    }

    #[test]
    fn steps_below_a_table_header_are_said_to_stand_there() {
        // Behind `[[nodes]]` every key belongs to the node.
        let error = parse("name = \"t\"\n[[nodes]]\nname = \"left\"\nsteps = []\n")
            .expect_err("steps in a node")
            .to_string();
        assert!(
            error.contains(
                "flap.toml:4:1: a node takes no key `steps`: it stands below the node's header"
            ),
            "{error}"
        );
    }
}
