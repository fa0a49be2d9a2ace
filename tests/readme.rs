//! The README is a promise: its commands are run as a newcomer types them, and must say what it says.
//!
//! Every block marked `sh` is run in order in a scratch folder, by a shell that finds the binary
//! under test as `packhorse`. A block with `up` stays in the foreground, like in a terminal of its own.
//! Two things are changed: fixed ports become free ones, and nodes end with this test.
//! Blocks that build are not run; what they build is what runs here.

mod support;

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use support::command::{Output, receive_by, run};
use support::deadline::SOON;
use support::node::first_line;
use support::{Deadline, Lab};

const README: &str = include_str!("../README.md");

/// What the README lets a reader expect: words that name a block, and lines that it prints.
/// Each names exactly one block, so that a README which changes takes this table along.
const PROMISES: [(&str, &[&str]); 6] = [
    ("join \"$ticket\"", &["paired with left"]),
    ("receive orders", &["stored", "two bales of hay"]),
    ("seq 1 1000", &["1000", "1000"]),
    ("receive numbers", &["stored", "1", "2", "3"]),
    ("left status", &["connected", "numbers"]),
    ("curl", &["packhorse.receipt.v1", "packhorse.status.v1"]),
];

/// The blocks marked `sh`, each with its lines.
fn blocks() -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in README.lines() {
        match (line, open.as_mut()) {
            ("```sh", None) => open = Some(String::new()),
            ("```", Some(_)) => blocks.extend(open.take()),
            (line, Some(block)) => {
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    assert!(open.is_none(), "a block of the README has no end");
    blocks
}

fn builds(block: &str) -> bool {
    block.contains("cargo ") || block.contains("scripts/")
}

fn is_daemon(block: &str) -> bool {
    block.split_whitespace().any(|word| word == "up")
}

/// A shell as the reader has it: in the scratch folder, with `packhorse` on its path.
#[derive(Debug)]
struct Shell<'a> {
    folder: &'a Path,
    ports: [(&'static str, String); 2],
}

impl Shell<'_> {
    fn command(&self, script: &str) -> Command {
        let mut script = script.to_owned();
        for (written, free) in &self.ports {
            script = script.replace(written, free);
        }
        let mut path = OsString::from(self.folder.join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command
            .args(["-e", "-c", &script])
            .current_dir(self.folder)
            .env("PATH", path)
            .env_remove("PACKHORSE_DATA_DIR");
        command
    }

    fn run(&self, block: &str) -> Output {
        run(self.command(block), "")
    }

    /// Runs a block that stays in the foreground, until it said that it is ready.
    fn open(&self, block: &str) -> Terminal {
        // `exec`, so that ending the shell ends the node.
        let script = format!("exec {} --stop-with-stdin", block.trim_end());
        let mut child = self
            .command(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let stdin = child.stdin.take().expect("stdin is piped");
        let (first, _rest) = first_line(child.stdout.take().expect("stdout is piped"));
        let terminal = Terminal {
            child,
            _stdin: stdin,
        };
        let line = receive_by(&first, Deadline::after(SOON)).unwrap_or_default();
        assert!(line.starts_with("node "), "{line:?} from: {block}");
        terminal
    }
}

/// A node in the foreground.
#[derive(Debug)]
struct Terminal {
    child: Child,
    _stdin: ChildStdin,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has_curl() -> bool {
    let mut command = Command::new("curl");
    let command = command.arg("--version").stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let mut lab = Lab::new();
    let bin = lab.file("bin");
    std::fs::create_dir(&bin).expect("a folder in the scratch folder");
    symlink(env!("CARGO_BIN_EXE_packhorse"), bin.join("packhorse")).expect("a link");
    let ports = [":7433", ":7434"].map(|written| (written, format!(":{}", lab.port())));
    let shell = Shell {
        folder: lab.path(),
        ports,
    };
    let mut terminals = Vec::new();
    let mut kept = [0; PROMISES.len()];
    for block in blocks().iter().filter(|block| !builds(block)) {
        if is_daemon(block) {
            terminals.push(shell.open(block));
            continue;
        }
        if block.contains("curl") && !has_curl() {
            println!("there is no curl here: not run:\n{block}");
            continue;
        }
        let output = shell.run(block).expect(0);
        for ((words, lines), kept) in PROMISES.iter().zip(&mut kept) {
            if block.contains(words) {
                check_lines(block, output.text(), lines);
                *kept += 1;
            }
        }
    }
    assert_eq!(terminals.len(), 2, "the README starts two nodes");
    for ((words, _), kept) in PROMISES.iter().zip(kept) {
        let is_skipped = *words == "curl" && !has_curl();
        assert!(kept == 1 || is_skipped, "{kept} blocks with {words:?}");
    }
}

/// Checks that the lines contain these words, one after the other.
#[track_caller]
fn check_lines(block: &str, text: &str, expected: &[&str]) {
    let mut lines = text.lines();
    for words in expected {
        assert!(
            lines.any(|line| line.contains(words)),
            "no {words:?} in its turn\n--- block ---\n{block}--- printed ---\n{text}"
        );
    }
}

#[test]
fn the_first_command_of_the_readme_is_the_demonstration() {
    let first = blocks().into_iter().next().expect("a block");
    assert_eq!(first, "cargo run --release -- demo\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_packhorse"));
    command.args(["demo", "--help"]);
    run(command, "").expect(0);
}

#[test]
fn the_exit_codes_of_the_readme_are_those_of_the_program() {
    let documented: Vec<u8> = README
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|row| row.split(' ').next()?.parse().ok())
        .collect();
    let all: Vec<u8> = packhorse::Exit::ALL
        .iter()
        .map(|exit| exit.code())
        .collect();
    assert_eq!(documented, all);
}
