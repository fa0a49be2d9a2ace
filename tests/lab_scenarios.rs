//! `packhorse lab` as people and their build servers use it: files in, an exit code and reports out.
//!
//! Goal: every scenario that is shipped is understood; what is wrong in one is told by line and
//! column before anything starts; a run ends with the right code, leaves behind what it should and
//! nothing else, and says the same to people, to programs and to JUnit.
//! Method: the built binary on files; its scratch folders lie in the test's own, so that what a
//! failure keeps goes with the test.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::command::{Output, Running, run};
use support::deadline::{SOON, until};
use support::{Lab, skip};

/// Longer than any scenario here takes; each has 60 s by its own deadline.
const RUN_WITHIN: Duration = Duration::from_secs(90);

/// Where the shipped scenarios lie.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lab")
}

/// The scenarios in a folder.
fn scenarios_in(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of scenarios");
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|word| word == "toml"))
        .collect()
}

/// `packhorse lab` with its scratch folders in an empty folder of the test.
fn command(lab: &Lab) -> (Command, PathBuf) {
    let scratch = lab.file("scratch");
    fs::create_dir_all(&scratch).expect("a folder");
    let mut command = lab.command();
    command
        .arg("lab")
        .env("TMPDIR", &scratch)
        .current_dir(lab.path());
    (command, scratch)
}

fn run_lab(lab: &Lab, words: &[&str]) -> Output {
    let (mut command, _) = command(lab);
    command.args(words);
    Running::start(command, Vec::new()).finish(RUN_WITHIN)
}

fn write(lab: &Lab, name: &str, text: &str) -> String {
    let path = lab.file(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("a plain path").to_owned()
}

fn documents(output: &Output) -> Vec<Value> {
    let lines = output.text().lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a document a line"))
        .collect()
}

/// What lies in a folder.
fn left_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn every_shipped_scenario_is_understood() {
    let lab = Lab::new();
    let mut files = scenarios_in(&shipped());
    assert!(files.len() >= 12, "{files:?}");
    files.extend(scenarios_in(&shipped().join("fault")));
    let (mut command, scratch) = command(&lab);
    command.args(["check", "--json"]).args(&files);
    let checked = run(command, "").expect(0);
    let checked = checked.document("packhorse.lab.check.v1");
    let entries = checked["files"].as_array().expect("a list");
    assert_eq!(entries.len(), files.len());
    for entry in entries {
        assert_eq!(entry["problems"], Value::Array(Vec::new()), "{entry}");
    }
    assert_eq!(left_in(&scratch), Vec::<PathBuf>::new(), "nothing starts");
}

#[test]
fn what_is_wrong_in_a_scenario_is_told_by_line_and_column_before_anything_starts() {
    let lab = Lab::new();
    let wrong = "name = \"wrong\"\nnodes = [\"left\"]\nsteps = [\n  { strat = \"left\" },\n  { kill = \"middle\" },\n]\n";
    let file = write(&lab, "wrong.toml", wrong);
    let right = shipped().join("revoked_peer.toml");
    let right = right.to_str().expect("a plain path");
    let checked = run_lab(&lab, &["check", right, &file]).expect(2);
    let lines = checked.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with(&format!("{file}:4:3: ")) && lines[0].contains("`start`"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with(&format!("{file}:5:12: ")) && lines[1].contains("`middle`"),
        "{lines:?}"
    );
    let checked = run_lab(&lab, &["check", "--json", &file]).expect(2);
    let problem = &checked.document("packhorse.lab.check.v1")["files"][0]["problems"][0];
    assert_eq!(
        (&problem["line"], &problem["column"]),
        (&4.into(), &3.into())
    );
    // What cannot be read is one problem among the others.
    let checked = run_lab(&lab, &["check", "--json", "nowhere.toml", &file]).expect(2);
    let files = &checked.document("packhorse.lab.check.v1")["files"];
    let text = files[0]["problems"][0]["text"].as_str().expect("a text");
    assert!(text.starts_with("cannot read nowhere.toml: "), "{text}");
    assert_eq!(files[1]["problems"].as_array().map(Vec::len), Some(2));
    let junit = lab.file("junit.xml");
    let words = [
        "run",
        right,
        "nowhere.toml",
        &file,
        "--junit",
        junit.to_str().expect("plain"),
    ];
    run_lab(&lab, &words)
        .expect(2)
        .says("cannot read nowhere.toml")
        .says("wrong.toml:4:3")
        .prints_nothing();
    assert!(!junit.exists() && left_in(&lab.file("scratch")).is_empty());
}

/// Runs a shipped scenario and holds its reports against each other.
fn passes(test: &str, file: &str) {
    let lab = Lab::new();
    let path = shipped().join(file);
    let path = path.to_str().expect("a plain path");
    let words = [
        "run",
        path,
        "--seed",
        "7",
        "--jsonl",
        "--junit",
        "junit.xml",
    ];
    let output = run_lab(&lab, &words).expect(0);
    let documents = documents(&output);
    let [begin, steps @ .., report] = documents.as_slice() else {
        panic!("{documents:?}");
    };
    assert_eq!(begin["schema"], "packhorse.lab.begin.v1");
    assert_eq!(begin["seed"], 7);
    assert_eq!(report["schema"], "packhorse.lab.run.v1");
    assert_eq!(report["seed"], 7);
    if report["outcome"] == "skipped" {
        skip::skipped(test, report["reason"].as_str().unwrap_or_default());
        return;
    }
    assert_eq!(report["outcome"], "passed", "{report}");
    assert_eq!(report["folder"], Value::Null);
    assert_eq!(report["steps_count"], steps.len());
    for step in steps {
        assert_eq!(step["schema"], "packhorse.lab.step.v1");
        assert_eq!(step["outcome"], "passed", "{step}");
    }
    let junit = fs::read_to_string(lab.file("junit.xml")).expect("a report");
    let counts = format!("tests=\"{}\" failures=\"0\" errors=\"0\"", steps.len());
    assert!(junit.contains(&counts), "{junit}");
    assert_eq!(left_in(&lab.file("scratch")), Vec::<PathBuf>::new());
}

#[test]
fn the_scenario_of_a_revoked_peer_passes() {
    passes("the_scenario_of_a_revoked_peer_passes", "revoked_peer.toml");
}

#[test]
fn a_new_scenario_passes_and_is_not_written_over() {
    let lab = Lab::new();
    let made = run_lab(&lab, &["new", "first"]).expect(0);
    assert_eq!(made.text(), "first.toml\n");
    run_lab(&lab, &["new", "first"])
        .expect(1)
        .says("first.toml");
    let schema = run_lab(&lab, &["schema"]).expect(0);
    let schema: Value = serde_json::from_str(schema.text()).expect("a schema");
    assert!(schema["definitions"]["step_settle"].is_object());
    let ran = run_lab(&lab, &["run", "first.toml"]).expect(0);
    ran.says("passed first in ").prints_nothing();
    assert_eq!(left_in(&lab.file("scratch")), Vec::<PathBuf>::new());
}

#[test]
fn a_scenario_that_fails_says_where_and_keeps_what_explains_it() {
    let lab = Lab::new();
    let text = "name = \"hopeless\"\nnodes = [\"left\"]\nsteps = [\n  { start = \"left\" },\n  { assert = \"status\", on = \"left\", that = \"$.peers.count() == 7\" },\n]\n";
    let file = write(&lab, "hopeless.toml", text);
    let words = [
        "run",
        &file,
        "--seed",
        "3",
        "--jsonl",
        "--junit",
        "junit.xml",
    ];
    let output = run_lab(&lab, &words).expect(1).says("--seed 3");
    let documents = documents(&output);
    let [begin, started, asserted, report] = documents.as_slice() else {
        panic!("{documents:?}");
    };
    assert_eq!(
        (&begin["seed"], &begin["folder"]),
        (&report["seed"], &report["folder"])
    );
    assert_eq!(started["outcome"], "passed");
    assert_eq!(
        (&asserted["outcome"], &asserted["line"]),
        (&"failed".into(), &5.into())
    );
    assert_eq!(report["outcome"], "failed", "{report}");
    let junit = fs::read_to_string(lab.file("junit.xml")).expect("a report");
    assert!(
        junit.contains("file=\"") && junit.contains("hopeless.toml\" line=\"5\""),
        "{junit}"
    );
    assert!(junit.contains("<failure message="), "{junit}");
    let folder = PathBuf::from(report["folder"].as_str().expect("a folder"));
    assert!(folder.starts_with(lab.path()), "{folder:?}");
    let of_node = |what: &str| {
        let text = fs::read_to_string(folder.join(format!("left.{what}.json")));
        let text = text.expect("what the node said");
        serde_json::from_str::<Value>(&text).expect("a document")
    };
    assert_eq!(of_node("status")["schema"], "packhorse.status.v1");
    assert_eq!(of_node("tree")["schema"], "packhorse.tree.v1");
    let events = of_node("events");
    assert!(
        !events["events"].as_array().expect("a list").is_empty(),
        "{events}"
    );
    assert!(folder.join("left").is_dir() && folder.join("network.txt").exists());
}

/// Runs a scenario of these steps with two nodes, which must fail for this reason.
fn fails(steps: &str, reason: &str) -> Value {
    let lab = Lab::new();
    let text = format!(
        "name = \"wrong\"\nnodes = [\"left\", \"right\"]\nsteps = [\n  {{ start = \"*\" }},\n{steps}]\n"
    );
    let file = write(&lab, "wrong.toml", &text);
    let output = run_lab(&lab, &["run", &file, "--seed", "5", "--jsonl"]).expect(1);
    let documents = documents(&output);
    let report = documents.last().expect("a report").clone();
    let told = report["reason"].as_str().expect("a reason");
    assert!(told.contains(reason), "{told}");
    let folder = PathBuf::from(report["folder"].as_str().expect("a folder"));
    let kept = fs::read_to_string(folder.join("report.json")).expect("the report");
    let kept: Value = serde_json::from_str(&kept).expect("a document");
    assert_eq!(kept["reason"], report["reason"]);
    let kept = fs::read_to_string(folder.join("scenario.toml"));
    assert_eq!(kept.expect("the scenario"), text);
    report
}

#[test]
fn a_receive_of_exactly_these_fails_when_there_is_one_more() {
    let steps = r#"
  { pair = "*" },
  { send = "orders", from = "left", to = "right", payload = "one", until = "stored" },
  { send = "orders", from = "left", to = "right", payload = "two", until = "stored" },
  { receive = "orders", on = "right", payloads = ["one"] },
"#;
    fails(steps, "[\"one\",\"two\"] came, expected [\"one\"]");
}

#[test]
fn a_start_that_is_to_fail_fails_when_the_node_runs() {
    let steps = "  { start = \"left\", exit = 7 },\n";
    fails(
        steps,
        "`left` runs already, expected that it ends with exit 7",
    );
}

#[test]
fn a_load_that_no_settle_judged_is_no_success() {
    let steps = r#"
  { pair = "*" },
  { load = "orders", from = "any *", to = "any *", rate = 50, count = 3 },
  { wait = "inbox list", on = "any *", that = "$.total >= 0" },
  { choose = [{ settle = "20s" }, { sleep = "1ms", why = "no settle" }], weights = [1, 100000] },
"#;
    let report = fails(steps, "and no `settle` after that");
    assert_eq!(report["tally"]["lost"], 0, "{report}");
}

#[test]
fn a_node_that_ends_by_itself_fails_the_scenario_although_it_is_started_again() {
    let lab = Lab::new();
    let text = "name = \"strange\"\nnodes = [\"left\", \"right\"]\nsteps = [\n  { start = \"*\" },\n  { repeat = \"50s\", steps = [{ sleep = \"20ms\", why = \"it runs\" }, { start = \"*\" }] },\n]\n";
    let file = write(&lab, "strange.toml", text);
    let (mut command, scratch) = command(&lab);
    command.args(["run", &file]);
    let running = Running::start(command, Vec::new());
    let pid = until("the node runs", SOON, || {
        let folders = left_in(&scratch);
        let folder = folders.first()?.join("left/node");
        answers(&folder.join("api.sock")).then(|| process_of(&folder))?
    });
    rustix::process::kill_process(pid, Signal::KILL).expect("it runs");
    let output = running.finish(SOON).expect(1);
    output.says("`left` ended by itself with signal 9, and no step told it to");
}

/// The process that runs on a data folder.
fn process_of(folder: &Path) -> Option<rustix::process::Pid> {
    let entries = fs::read_dir("/proc").expect("processes");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let folder = folder.as_os_str().as_encoded_bytes();
        words.contains(&folder) && words.contains(&b"up".as_slice())
    };
    let pid = pids.into_iter().find(is_it)?;
    rustix::process::Pid::from_raw(pid)
}

#[test]
fn a_report_that_cannot_be_written_is_found_out_before_anything_starts() {
    let lab = Lab::new();
    let right = shipped().join("revoked_peer.toml");
    let right = right.to_str().expect("a plain path");
    run_lab(&lab, &["run", right, "--junit", "no/such/folder.xml"])
        .expect(1)
        .says("cannot write no/such/folder.xml")
        .prints_nothing();
    assert_eq!(left_in(&lab.file("scratch")), Vec::<PathBuf>::new());
}

#[test]
fn a_scenario_that_cannot_be_run_here_is_a_failure_where_that_is_asked_for() {
    let lab = Lab::new();
    let text = "name = \"deadly\"\nnodes = [\"left\"]\nsteps = [\n  { start = \"left\" },\n  { crash = \"inbox\", on = \"left\" },\n]\n";
    let file = write(&lab, "deadly.toml", text);
    if cfg!(feature = "fault") {
        // This program can do it.
        run_lab(&lab, &["run", &file, "--fail-skipped"]).expect(0);
        return;
    }
    run_lab(&lab, &["run", &file])
        .expect(0)
        .says("1 of 1 skipped: deadly; nothing was tested");
    run_lab(&lab, &["run", &file, "--fail-skipped"])
        .expect(1)
        .says("1 of 1 skipped: deadly");
}

#[test]
fn a_lab_that_is_stopped_or_killed_takes_its_nodes_along() {
    let text = "name = \"long\"\nnodes = [\"left\", \"right\"]\nsteps = [\n  { start = \"*\" },\n  { sleep = \"50s\", why = \"the test ends the lab meanwhile\" },\n]\n";
    for signal in [Signal::TERM, Signal::HUP, Signal::KILL] {
        let lab = Lab::new();
        let file = write(&lab, "long.toml", text);
        let (mut command, scratch) = command(&lab);
        command.args(["run", &file]);
        let mut running = Running::start(command, Vec::new());
        let sockets = || -> Vec<PathBuf> {
            let labs = left_in(&scratch).into_iter();
            let nodes = labs.flat_map(|lab| ["left", "right"].map(|node| lab.join(node)));
            let sockets = nodes.map(|node| node.join("node/api.sock"));
            sockets.filter(|socket| answers(socket)).collect()
        };
        let sockets = until("both nodes answer", SOON, || {
            let sockets = sockets();
            (sockets.len() == 2).then_some(sockets)
        });
        running.signal(signal);
        let output = running.ended_within(SOON).expect("it ends at once");
        let expected = (signal != Signal::KILL).then_some(130);
        assert_eq!(output.code, expected, "{}", output.stderr);
        // Killed, it could end nothing; its nodes end by themselves.
        until("no node answers any more", SOON, || {
            let is_over = sockets.iter().all(|socket| !answers(socket));
            is_over.then_some(())
        });
        // The seed was shown first, so that the same can be done again; the folder tells what was.
        assert!(output.stderr.contains("long, seed "), "{}", output.stderr);
        assert_eq!(left_in(&scratch).len(), 1);
        let is_told = output.stderr.contains("interrupted");
        assert_eq!(is_told, signal != Signal::KILL, "{}", output.stderr);
    }
}

/// Whether a node listens there.
fn answers(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// A worker's command is a process of its own group, which a killed worker would leave behind.
#[test]
fn what_a_worker_runs_ends_with_the_lab() {
    let lab = Lab::new();
    let text = r#"name = "work"
nodes = ["left", "right"]
steps = [
  { start = "*" },
  { pair = "*", grants = ["message.send:*", "execute:jobs"] },
  { work = "jobs", on = "right", exec = "echo $$ > \"$PID_FILE\"; exec sleep 3600" },
  { send = "jobs", from = "left", to = "right", payload = "two bales" },
  { sleep = "4s", why = "the command runs" },
]
"#;
    let file = write(&lab, "work.toml", text);
    let pid_file = lab.file("pid");
    let (mut command, scratch) = command(&lab);
    command.args(["run", &file]).env("PID_FILE", &pid_file);
    let running = Running::start(command, Vec::new());
    let pid = until("the command runs", SOON, || {
        let text = fs::read_to_string(&pid_file).ok()?;
        text.trim().parse::<u32>().ok()
    });
    let process = PathBuf::from(format!("/proc/{pid}"));
    assert!(process.exists(), "it ended by itself");
    running.finish(RUN_WITHIN).expect(0);
    until("the command is gone", SOON, || {
        (!process.exists()).then_some(())
    });
    assert_eq!(left_in(&scratch), Vec::<PathBuf>::new());
}
