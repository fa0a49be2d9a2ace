//! One run of the binary: started, fed, waited for with a deadline, killed when dropped.
//!
//! Output is read by threads to its end, so that a full pipe never stands between
//! a command and its exit, and the end of both streams is the event that is waited for.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::deadline::{Deadline, SOON};

/// Variables by which the tester's own shell would reach the binary.
const OF_THE_SHELL: [&str; 9] = [
    "PACKHORSE_DATA_DIR",
    "STATE_DIRECTORY",
    "XDG_STATE_HOME",
    "RUST_LOG",
    "NO_COLOR",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "CREDENTIALS_DIRECTORY",
];

/// The binary under test at home in this folder, free of what the tester's own shell has set.
pub(crate) fn at_home(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_packhorse"));
    for variable in OF_THE_SHELL {
        command.env_remove(variable);
    }
    command.env("HOME", home);
    command
}

/// The same on a data folder, at home in the folder around it.
pub(crate) fn packhorse(data_dir: &Path) -> Command {
    let home = data_dir.parent().expect("a place in the scratch folder");
    let mut command = at_home(home);
    command.arg("--data-dir").arg(data_dir);
    command
}

/// A command under way.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    line: String,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

impl Running {
    pub(crate) fn start(mut command: Command, stdin: Vec<u8>) -> Running {
        let line = line_of(&command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let mut input = child.stdin.take().expect("stdin is piped");
        std::thread::spawn(move || {
            // A command that ends before it read everything is judged by its exit, not here.
            let _ = input.write_all(&stdin);
        });
        let stdout = read_to_end(child.stdout.take().expect("stdout is piped"));
        let stderr = read_to_end(child.stderr.take().expect("stderr is piped"));
        Running {
            child,
            line,
            stdout,
            stderr,
        }
    }

    /// The output of a command that ended within the limit; the command goes on otherwise.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Option<Output> {
        let stdout = match self.stdout.recv_timeout(limit) {
            Ok(stdout) => stdout,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => panic!("{}: asked twice", self.line),
        };
        // Whoever closed stdout is about to exit; the rest comes at once.
        let stderr = self.stderr.recv_timeout(SOON).expect("stderr ends too");
        let status = self.child.wait().expect("our own child");
        Some(Output {
            line: self.line.clone(),
            code: status.code(),
            stdout,
            stderr: String::from_utf8(stderr).expect("text on stderr"),
        })
    }

    /// The output; panics if the command takes too long.
    pub(crate) fn finish(mut self, limit: Duration) -> Output {
        match self.ended_within(limit) {
            Some(output) => output,
            None => panic!("{}: still running after {limit:?}", self.line),
        }
    }

    /// A signal; how it ends is seen by waiting for it.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child");
    }

    /// SIGKILL; whatever it was doing stops here.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Output {
    line: String,
    /// None when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Output {
    /// The same output, after checking how the command ended.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Output {
        assert_eq!(
            self.code,
            Some(code),
            "exit of: {}\nstdout: {}\nstderr: {}",
            self.line,
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }

    /// The same output, after looking for these words on stderr.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Output {
        assert!(
            self.stderr.contains(words),
            "no {words:?} on stderr of: {}\n{}",
            self.line,
            self.stderr
        );
        self
    }

    /// The same output, after checking that stdout stayed empty.
    #[track_caller]
    pub(crate) fn prints_nothing(self) -> Output {
        assert_eq!(self.text(), "", "stdout of: {}", self.line);
        self
    }

    /// Stdout as text.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text on stdout")
    }

    /// Stdout as lines.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<String> {
        self.text().lines().map(ToOwned::to_owned).collect()
    }

    /// Stdout as the one line with one document that `--json` promises, its schema in front.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let text = self.text();
        let (document, rest) = text.split_once('\n').unwrap_or((text, ""));
        assert_eq!(rest, "", "more than one line from: {}", self.line);
        let head = "{\"schema\":\"packhorse.";
        assert!(
            text.starts_with(head),
            "{}: {text}{}",
            self.line,
            self.stderr
        );
        serde_json::from_str(document).unwrap_or_else(|error| {
            panic!(
                "{}: {error}\nstdout: {text}\nstderr: {}",
                self.line, self.stderr
            )
        })
    }

    /// The same under this schema.
    #[track_caller]
    pub(crate) fn document(&self, schema: &str) -> Value {
        let document = self.json();
        assert_eq!(document["schema"], schema, "{}", self.line);
        document
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command, stdin: impl Into<Vec<u8>>) -> Output {
    // The longest that a command waits by itself (60 s for a join) and what comes after.
    Running::start(command, stdin.into()).finish(SOON * 3)
}

/// Reads a stream in a thread; the bytes come when it ends.
pub(crate) fn read_to_end(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// The command as a person would type it, with long arguments cut.
pub(crate) fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name();
    let mut line = program.unwrap_or_default().to_string_lossy().into_owned();
    for word in command.get_args() {
        let word = word.to_string_lossy();
        line.push(' ');
        line.extend(word.chars().take(120));
    }
    line
}

/// Receives with the time that a deadline leaves.
pub(crate) fn receive_by<T>(receiver: &Receiver<T>, deadline: Deadline) -> Option<T> {
    receiver.recv_timeout(deadline.left()).ok()
}
