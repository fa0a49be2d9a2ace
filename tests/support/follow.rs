//! A command that prints line by line for as long as it runs.
//!
//! Lines are taken one at a time with a deadline; a test that takes none leaves the command
//! with a full pipe in the end, which is how a stuck reader is made.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::command::{line_of, read_to_end};
use super::deadline::{Deadline, SOON};

/// Lines read ahead of the test.
const LINES_AHEAD: usize = 16;

/// A command whose output is followed.
#[derive(Debug)]
pub(crate) struct Follower {
    child: Child,
    line: String,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

impl Follower {
    /// Starts the command; its stdin is empty. A line ends with this byte.
    pub(crate) fn start(mut command: Command, end: u8) -> Follower {
        let line = line_of(&command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, receiver) = sync_channel(LINES_AHEAD);
        std::thread::spawn(move || {
            loop {
                let mut line = Vec::new();
                match stdout.read_until(end, &mut line) {
                    Ok(1..) if sender.send(line).is_ok() => {}
                    _ => break,
                }
            }
        });
        let stderr = read_to_end(child.stderr.take().expect("stderr is piped"));
        Follower {
            child,
            line,
            stdout: receiver,
            stderr,
        }
    }

    /// The next line with its end.
    #[track_caller]
    pub(crate) fn next_bytes(&mut self) -> Vec<u8> {
        match self.stdout.recv_timeout(SOON) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                self.end();
                let stderr = self.stderr.recv_timeout(SOON).unwrap_or_default();
                panic!(
                    "no line from: {}\n{}",
                    self.line,
                    String::from_utf8_lossy(&stderr)
                );
            }
            Err(RecvTimeoutError::Disconnected) => {
                let stderr = self.stderr.recv_timeout(SOON).unwrap_or_default();
                panic!("{} ended: {}", self.line, String::from_utf8_lossy(&stderr));
            }
        }
    }

    /// The next line as text without its end.
    #[track_caller]
    pub(crate) fn next_line(&mut self) -> String {
        let mut line = String::from_utf8(self.next_bytes()).expect("text on stdout");
        line.pop();
        line
    }

    /// The next line as a document.
    #[track_caller]
    pub(crate) fn next_json(&mut self) -> Value {
        let line = self.next_line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{}: {error}: {line}", self.line))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child");
    }

    /// How it ended after a signal or by itself: the code, and what it said on stderr.
    /// Lines that were not taken are dropped.
    #[track_caller]
    pub(crate) fn ended(mut self, limit: Duration) -> (Option<i32>, String) {
        let deadline = Deadline::after(limit);
        loop {
            match self.stdout.recv_timeout(deadline.left()) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{}: still running", self.line),
            }
        }
        let stderr = self.stderr.recv_timeout(SOON).expect("stderr ends too");
        let status = self.child.wait().expect("our own child");
        let stderr = String::from_utf8(stderr).expect("text on stderr");
        (status.code(), stderr)
    }

    /// Waits for its end whatever it left behind holds open; for one that was killed.
    pub(crate) fn ended_or_killed(mut self) -> Option<i32> {
        self.child.wait().expect("our own child").code()
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        // A signal to nobody fails only once somebody has waited for it: ask the system.
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap_or_default();
        state.is_empty() || state.starts_with('Z')
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.end();
    }
}
