//! The scenarios that are shipped, each run as a user would run it.
//!
//! Goal: each passes within its minute, and leaves nothing behind. Those that crash single actors
//! need the build with the feature `fault` and run in that one.
//! Method: the built binary with a fixed seed; its scratch folders lie in the test's own.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::command::Running;
use support::{Lab, skip};

/// A scenario has 60 s by its own deadline; beside it nodes start and end.
const RUN_WITHIN: Duration = Duration::from_secs(100);

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lab")
}

/// Runs a scenario, which has to pass, or to say why this machine cannot.
fn passes(test: &str, file: &str) {
    let lab = Lab::new();
    let scratch = lab.file("scratch");
    fs::create_dir_all(&scratch).expect("a folder");
    let path = shipped().join(file);
    let mut command = lab.command();
    command
        .args(["lab", "run", "--seed", "7", "--jsonl"])
        .arg(&path)
        .env("TMPDIR", &scratch);
    let output = Running::start(command, Vec::new()).finish(RUN_WITHIN);
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(last).unwrap_or_default();
    if report["outcome"] == "skipped" {
        skip::skipped(test, report["reason"].as_str().unwrap_or_default());
        return;
    }
    assert_eq!(report["outcome"], "passed", "{path:?}: {text}");
    let left: Vec<_> = fs::read_dir(&scratch).expect("a folder").collect();
    assert!(left.is_empty(), "{path:?} left behind: {left:?}");
}

/// One test for each file, and the names of all of them.
macro_rules! scenarios {
    ($folder:literal: $($name:ident)*) => {
        const ALL: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                super::passes(stringify!($name), &format!("{}{}.toml", $folder, stringify!($name)));
            }
        )*

        #[test]
        fn each_has_a_test() {
            super::each_has_a_test($folder, ALL);
        }
    };
}

fn each_has_a_test(folder: &str, tests: &[&str]) {
    let entries = fs::read_dir(shipped().join(folder)).expect("a folder of scenarios");
    let files: BTreeSet<String> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|word| word == "toml"))
        .map(|path| {
            path.with_extension("")
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let tests: BTreeSet<String> = tests.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tests, files);
}

mod plain {
    scenarios! { "":
        asymmetric_loss
        cloned_disk
        flapping_link
        full_disk_and_back
        hub_with_50_spokes
        kill_storm
        laptop_that_sleeps
        moderate_to_a_dead_peer
        restored_backup
        revoked_peer
        rolling_restart
        slow_consumer
    }
}

#[cfg(feature = "fault")]
mod fault {
    scenarios! { "fault/":
        every_actor_dies
        one_session_dies
        session_storm
    }
}
