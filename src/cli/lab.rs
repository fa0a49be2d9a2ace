//! `lab`: clusters of real nodes on this machine, driven by scenario files.
//!
//! The scenario language, the runner and the reports are the library's; here they meet files and
//! a terminal. A failed scenario ends with 1, a file that is wrong with 2.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use packhorse::Exit;
use packhorse::lab::report::{Live, Outcome, RunReport, Size, junit, schema as documents};
use packhorse::lab::runner::{self, Happening, RunOptions};
use packhorse::lab::{Scenario, ScenarioError};
use packhorse::time::WallTime;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::cli::display::printable;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum LabCommand {
    /// Run scenarios on real nodes, one after the other; a signal takes the nodes down, a second one
    /// ends it at once
    Run(RunArgs),
    /// Read scenarios and say everything that is wrong with them; nothing is started
    Check {
        /// Scenario files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Write a scenario to begin with; nothing is overwritten
    New {
        /// Its name, and its file's without `.toml`
        #[arg(value_name = "NAME", default_value = "scenario")]
        name: String,
    },
    /// Print the JSON schema of scenario files, for editors
    Schema,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Scenario files
    #[arg(value_name = "SCENARIO", required = true)]
    files: Vec<PathBuf>,
    /// Repeat the choices of a former run; drawn unless given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Leave folders and logs behind although all went well
    #[arg(long)]
    keep: bool,
    /// Run this program instead of this one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// End with 1 when a scenario was skipped because this machine cannot do what it needs
    #[arg(long)]
    fail_skipped: bool,
    /// Print one JSON document for each step and each scenario, on lines of their own
    #[arg(long)]
    jsonl: bool,
}

/// What `check --json` prints.
#[derive(Debug, Serialize)]
struct Checked {
    files: Vec<CheckedFile>,
}

#[derive(Debug, Serialize)]
struct CheckedFile {
    file: PathBuf,
    problems: Vec<CheckedProblem>,
}

#[derive(Debug, Serialize)]
struct CheckedProblem {
    line: usize,
    column: usize,
    text: String,
}

pub(crate) async fn run(command: LabCommand, screen: &Screen) -> Result<Exit, Failure> {
    match command {
        LabCommand::Run(args) => Box::pin(run_all(args, screen)).await,
        LabCommand::Check { files } => check(&files, screen),
        LabCommand::New { name } => new(&name, screen),
        LabCommand::Schema => {
            let schema = packhorse::lab::schema::schema();
            screen.data(&format!("{schema:#}"))?;
            Ok(Exit::Done)
        }
    }
}

async fn run_all(args: RunArgs, screen: &Screen) -> Result<Exit, Failure> {
    // ORDER: all files are read before anything is started, and signals count before that.
    let mut stops = Stops::install()?;
    let scenarios = load_all(&args.files).map_err(|wrong| refused(&wrong, screen))?;
    if let Some(path) = &args.junit {
        // Before the first scenario: a report that nobody can write is found out at once.
        write_junit(path, &[])?;
    }
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let (cancel, cancelled) = watch::channel(false);
    let options = RunOptions {
        seed,
        program: args.program.map(in_this_folder),
        keep: args.keep,
        scratch: None,
        cancel: cancelled,
    };
    let mut reports = Vec::new();
    for scenario in &scenarios {
        let running = run_one(scenario, &options, args.jsonl || screen.is_json());
        let mut running = pin!(running);
        let report = loop {
            tokio::select! {
                report = &mut running => break report,
                () = stops.next() => {
                    if cancel.send_replace(true) {
                        // Told twice: whoever waits has waited long enough.
                        return Ok(Exit::Interrupted);
                    }
                }
            }
        };
        reports.push(report);
        if let Some(path) = &args.junit {
            write_junit(path, &reports)?;
        }
        if *cancel.borrow() {
            // Told to stop in the middle is no success.
            return Ok(Exit::Interrupted);
        }
    }
    verdict(&reports, args.fail_skipped, screen)
}

/// What all scenarios together come to.
fn verdict(reports: &[RunReport], fails_skipped: bool, screen: &Screen) -> Result<Exit, Failure> {
    let names = |is_it: fn(&Outcome) -> bool| -> Vec<Cow<'_, str>> {
        let reports = reports.iter().filter(|report| is_it(&report.outcome));
        reports.map(|report| printable(&report.scenario)).collect()
    };
    let failed = names(Outcome::is_failure);
    let skipped = names(|outcome| matches!(outcome, Outcome::Skipped(_)));
    let all = reports.len();
    if let (Some(first), false) = (reports.first(), failed.is_empty()) {
        let text = format!("{} of {all} failed: {}", failed.len(), failed.join(", "));
        return Err(Failure::new(Exit::Failure, text)
            .with_hint(format!("the same choices again: --seed {}", first.seed)));
    }
    if skipped.is_empty() {
        return Ok(Exit::Done);
    }
    let text = format!("{} of {all} skipped: {}", skipped.len(), skipped.join(", "));
    if fails_skipped {
        return Err(Failure::new(Exit::Failure, text));
    }
    if skipped.len() == all {
        screen.note(&format!("{text}; nothing was tested"));
    }
    Ok(Exit::Done)
}

/// Reads all files, and tells what is wrong in each of them.
fn load_all(files: &[PathBuf]) -> Result<Vec<Scenario>, Vec<String>> {
    let mut scenarios = Vec::new();
    let mut wrong = Vec::new();
    for path in files {
        match Scenario::load(path) {
            Ok(scenario) => scenarios.push(scenario),
            Err(error) => wrong.extend(error.to_string().lines().map(str::to_owned)),
        }
    }
    match wrong.is_empty() {
        true => Ok(scenarios),
        false => Err(wrong),
    }
}

/// What is wrong in files, a line each.
fn refused(wrong: &[String], screen: &Screen) -> Failure {
    if let [only] = wrong {
        return Failure::usage(only);
    }
    for line in wrong {
        screen.note(line);
    }
    Failure::usage("nothing was started, for the reasons above")
}

/// A program is a file: its name alone means this folder, and is not looked for in `PATH`.
fn in_this_folder(program: PathBuf) -> PathBuf {
    std::path::absolute(&program).unwrap_or(program)
}

/// Everything that tells a run to stop, also that its terminal is closed.
struct Stops([Signal; 4]);

impl Stops {
    fn install() -> Result<Stops, Failure> {
        let install = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failure, format!("signals cannot be watched: {error}"))
            })
        };
        Ok(Stops([
            install(SignalKind::interrupt())?,
            install(SignalKind::terminate())?,
            install(SignalKind::hangup())?,
            install(SignalKind::quit())?,
        ]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// The terminal that stderr is.
fn terminal_size() -> Size {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    Size {
        width: size.map_or(80, |size| size.ws_col.into()),
        height: size.map_or(24, |size| size.ws_row.into()),
    }
}

async fn run_one(scenario: &Scenario, options: &RunOptions, is_lines: bool) -> RunReport {
    let live = if is_lines {
        Live::lines(Out::Data)
    } else if Screen::new(false).draws_progress() {
        Live::terminal(Out::Notes, terminal_size)
    } else {
        Live::plain(Out::Notes)
    };
    let live = Mutex::new(live);
    let watch = |happening: Happening<'_>| {
        let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
        live.happens(scenario, &happening);
    };
    let report = runner::run(scenario, options, &watch).await;
    let mut live = live.into_inner().unwrap_or_else(PoisonError::into_inner);
    live.finished(&report);
    if let Outcome::Skipped(reason) = &report.outcome {
        // By name, and where the runner of all checks collects it.
        list_skipped(&report.scenario, reason);
    }
    report
}

/// Names a file in which what was skipped is listed; `scripts/check.sh` sets it.
const SKIPPED_LIST: &str = "CHECK_SKIPPED";

fn list_skipped(scenario: &str, reason: &str) {
    let Some(path) = std::env::var_os(SKIPPED_LIST) else {
        return;
    };
    if let Ok(mut list) = OpenOptions::new().create(true).append(true).open(path) {
        let _ = list.write_all(format!("SKIPPED lab {scenario}: {reason}\n").as_bytes());
    }
}

/// Where reports go: documents to stdout, everything for people to stderr.
#[derive(Debug)]
enum Out {
    Data,
    Notes,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Out::Data => io::stdout().write(bytes),
            Out::Notes => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Out::Data => io::stdout().flush(),
            Out::Notes => io::stderr().flush(),
        }
    }
}

fn write_junit(path: &Path, reports: &[RunReport]) -> Result<(), Failure> {
    std::fs::write(path, junit(reports)).map_err(|error| {
        let text = format!("cannot write {}: {error}", path.display());
        Failure::new(Exit::Failure, text)
    })
}

/// Another one every time, and short enough to be typed.
fn fresh_seed() -> u64 {
    let mut random = packhorse::lab::Random::new(WallTime::now().0);
    random.below(1_000_000_000)
}

fn check(files: &[PathBuf], screen: &Screen) -> Result<Exit, Failure> {
    let mut checked = Checked { files: Vec::new() };
    let mut is_wrong = false;
    for path in files {
        let mut problems = Vec::new();
        match Scenario::load(path) {
            Ok(scenario) if !screen.is_json() => screen.note(&format!(
                "{}: {} nodes, {} steps",
                path.display(),
                scenario.nodes.len(),
                scenario.steps.len()
            )),
            Ok(_) => {}
            Err(ScenarioError::Malformed {
                problems: found, ..
            }) => {
                is_wrong = true;
                for problem in found {
                    let (place, text) = (problem.place, problem.text);
                    if !screen.is_json() {
                        let path = printable(&path.to_string_lossy()).into_owned();
                        screen.data(&format!("{path}:{place}: {text}"))?;
                    }
                    problems.push(CheckedProblem {
                        line: place.line,
                        column: place.column,
                        text,
                    });
                }
            }
            Err(error) => {
                is_wrong = true;
                let text = error.to_string();
                if !screen.is_json() {
                    screen.data(&text)?;
                }
                // It is about the file as a whole.
                problems.push(CheckedProblem {
                    line: 1,
                    column: 1,
                    text,
                });
            }
        }
        checked.files.push(CheckedFile {
            file: path.clone(),
            problems,
        });
    }
    if screen.is_json() {
        screen.document(documents::CHECK, &checked)?;
    }
    Ok(if is_wrong { Exit::Usage } else { Exit::Done })
}

/// What `new` writes: short, complete, and it passes.
const TEMPLATE: &str = r#"# To have editors help: packhorse lab schema > scenario.schema.json
# and begin this file with the line: #:schema scenario.schema.json
name = "NAME"
about = "A node is killed while it is sent to, and nothing is lost"
timeout = "60s"

nodes = ["left", "right"]

steps = [
  { start = "*" },
  { pair = "*" },
  { load = "orders", from = "left", to = "right", rate = 100 },
  { consume = "orders", on = "right" },
  { repeat = 3, steps = [
    { sleep = "200ms..1s", why = "a random moment of the load" },
    { kill = "right" },
    { start = "right" },
  ] },
  { settle = "30s" },
  { assert = "dead list", on = "*", that = "$.total == 0" },
]
"#;

fn new(name: &str, screen: &Screen) -> Result<Exit, Failure> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(Failure::usage(format!(
            "`{name}` cannot name a scenario file: letters, digits, - and _"
        )));
    }
    let path = PathBuf::from(format!("{name}.toml"));
    let made = OpenOptions::new().write(true).create_new(true).open(&path);
    let text = TEMPLATE.replace("NAME", name);
    let written = made.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        Failure::new(
            Exit::Failure,
            format!("cannot write {}: {error}", path.display()),
        )
    })?;
    screen.data(&path.display().to_string())?;
    screen.next(&format!("packhorse lab run {}", path.display()));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_scenario() {
        let text = TEMPLATE.replace("NAME", "first");
        let scenario = Scenario::parse(Path::new("first.toml"), text.as_bytes());
        assert_eq!(scenario.expect("it is whole").name, "first");
    }

    #[test]
    fn every_file_that_is_wrong_is_told() {
        let files = ["/nowhere/a.toml", "/nowhere/b.toml"].map(PathBuf::from);
        let wrong = load_all(&files).expect_err("there are no such files");
        assert!(
            wrong[0].contains("a.toml") && wrong[1].contains("b.toml"),
            "{wrong:?}"
        );
    }

    #[test]
    fn every_scenario_of_the_repository_is_whole() {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lab");
        let mut count = 0;
        for folder in [scripts.clone(), scripts.join("fault")] {
            for entry in std::fs::read_dir(folder).expect("the folder is there") {
                let path = entry.expect("an entry").path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "toml")
                {
                    let scenario = Scenario::load(&path);
                    scenario.unwrap_or_else(|error| panic!("{error}"));
                    count += 1;
                }
            }
        }
        assert!(count >= 13, "{count} scenarios");
    }
}
