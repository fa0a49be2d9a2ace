//! The demonstration itself, smaller: it keeps its promises, says so, and leaves nothing behind.
//!
//! Its folder is made in `TMPDIR`, which is the otherwise empty scratch folder of the test.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use support::command::run;
use support::deadline::SOON;
use support::{Lab, Running, until};

fn demo(lab: &Lab, words: &[&str]) -> Command {
    let mut command = lab.command();
    command.arg("demo").args(words).env("TMPDIR", lab.path());
    command
}

/// What is in a folder; nothing when it is not there.
fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

#[test]
fn the_demo_keeps_every_promise_and_leaves_nothing_behind() {
    let lab = Lab::new();
    let command = demo(&lab, &["--messages", "3000", "--json"]);
    let report = run(command, "").expect(0).document("packhorse.demo.v1");
    assert_eq!(report["kept"], true);
    assert_eq!(report["roads"][0]["received"], 3_000);
    assert_eq!(report["kills"].as_array().map(Vec::len), Some(3));
    assert!(inside(lab.path()).is_empty());
}

#[test]
fn a_demo_that_is_interrupted_at_once_removes_its_folder() {
    check_interrupted("the folder of the demo", |scratch| {
        !inside(scratch).is_empty()
    });
}

#[test]
fn an_interrupted_demo_stops_its_nodes_and_removes_its_folder() {
    check_interrupted("a node of the demo", |scratch| {
        let mut nodes = inside(scratch).into_iter().flat_map(|demo| inside(&demo));
        nodes.any(|node| node.join("api.sock").exists())
    });
}

/// Interrupts a demo in the moment in which this is there in the scratch folder.
#[track_caller]
fn check_interrupted(what: &str, is_there: impl Fn(&Path) -> bool) {
    let lab = Lab::new();
    let demo = Running::start(demo(&lab, &["--messages", "1000000"]), Vec::new());
    until(what, SOON, || is_there(lab.path()).then_some(()));
    demo.signal(Signal::INT);
    let output = demo.finish(SOON).expect(130).prints_nothing();
    // The first line names the folder, for whoever wants to look into it meanwhile.
    let first = output.stderr.lines().next().unwrap_or_default();
    assert!(first.contains(&*lab.path().to_string_lossy()), "{first}");
    assert!(inside(lab.path()).is_empty(), "something was left behind");
}
