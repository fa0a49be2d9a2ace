//! Commands of the program on a node's folder, run to their end.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::process::Ended;
use crate::lab::error::LabError;

/// Most bytes of either stream that are kept of one command.
pub const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Of stderr in an error.
const STDERR_TOLD_BYTES: usize = 2 << 10;

/// Variables by which the shell around the lab would reach the program.
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

/// What a command left behind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Output {
    /// On which node.
    pub node: String,
    /// The command as a person would type it, long words cut.
    pub line: String,
    /// How it ended.
    pub ended: Ended,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said beside that.
    pub stderr: String,
}

impl Output {
    /// The same, after looking at how it ended.
    ///
    /// # Errors
    /// [`LabError::Command`] with the end of stderr.
    pub fn expect(self, code: i32) -> Result<Output, LabError> {
        if self.ended.code == Some(code) {
            return Ok(self);
        }
        let stderr = tail(&self.stderr, STDERR_TOLD_BYTES);
        Err(LabError::Command {
            node: self.node,
            line: self.line,
            ended: self.ended,
            expected: code,
            stderr: match stderr.is_empty() {
                true => String::new(),
                false => format!("\n{}", stderr.trim_end()),
            },
        })
    }

    /// Stdout as text; what is no text is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stdout as the one document that `--json` promises.
    ///
    /// # Errors
    /// [`LabError::NotJson`].
    pub fn json(&self) -> Result<Value, LabError> {
        serde_json::from_slice(&self.stdout).map_err(|error| LabError::NotJson {
            node: self.node.clone(),
            line: self.line.clone(),
            reason: error.to_string(),
        })
    }
}

/// The program on a data folder, at home beside it, free of what the shell around the lab has set;
/// started by the words of `under` if there are any. It dies with its handle, and Ctrl-C is for the
/// lab.
pub(super) fn program(under: &[String], program: &Path, home: &Path, data_dir: &Path) -> Command {
    let mut command = match under.split_first() {
        None => Command::new(program),
        Some((first, further)) => {
            let mut command = Command::new(first);
            command.args(further).arg(program);
            command
        }
    };
    for variable in OF_THE_SHELL {
        command.env_remove(variable);
    }
    command
        .env("HOME", home)
        .arg("--data-dir")
        .arg(data_dir)
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Kills a command with everything that it has started, unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs a command to its end; it is killed with all that it started when that takes too long, or when
/// nobody waits for it any more.
pub(super) async fn run(
    node: &str,
    mut command: Command,
    stdin: &[u8],
    limit: Duration,
) -> Result<Output, LabError> {
    let line = line_of(&command);
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|source| LabError::Spawn {
        node: node.to_owned(),
        program: line.clone(),
        source,
    })?;
    // ORDER: goes before the child, whose number is its own until it is reaped.
    let mut group = Group(
        child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)),
    );
    let (input, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let fed = async {
        if let Some(mut input) = input {
            // A command that ends before it read everything is judged by its exit, not here.
            let _ = input.write_all(stdin).await;
        }
    };
    let streams = async { tokio::join!(fed, keep(stdout, &mut printed), keep(stderr, &mut said)) };
    let over = async {
        streams.await;
        let status = child.wait().await;
        group.0 = None;
        status
    };
    let over = tokio::time::timeout(limit, over).await;
    let stderr = String::from_utf8_lossy(&said).into_owned();
    let Ok(status) = over else {
        let told = tail(&stderr, STDERR_TOLD_BYTES).trim_end();
        return Err(LabError::TimedOut {
            node: node.to_owned(),
            what: format!("the end of {line}"),
            limit,
            log: match told.is_empty() {
                true => String::new(),
                false => format!("\n--- stderr ---\n{told}"),
            },
        });
    };
    if printed.len().max(said.len()) > OUTPUT_BYTES_MAX {
        return Err(LabError::OutputTooLong {
            node: node.to_owned(),
            line,
            limit_bytes: OUTPUT_BYTES_MAX,
        });
    }
    Ok(Output {
        node: node.to_owned(),
        line,
        ended: Ended::of(status.ok()),
        stdout: printed,
        stderr,
    })
}

/// Reads a stream to its end, or to just past the limit.
async fn keep(stream: Option<impl AsyncRead + Unpin>, bytes: &mut Vec<u8>) {
    if let Some(stream) = stream {
        let limit = OUTPUT_BYTES_MAX as u64 + 1;
        // A stream that breaks ends there, as the command does.
        let _ = stream.take(limit).read_to_end(bytes).await;
    }
}

/// The command as a person would type it, with long words cut.
fn line_of(command: &Command) -> String {
    let command = command.as_std();
    let program = Path::new(command.get_program()).file_name();
    let words = command.get_args();
    // Where the data folder is tells nobody anything.
    let words = words.skip_while(|word| *word == OsStr::new("--data-dir"));
    let mut line = program.unwrap_or_default().to_string_lossy().into_owned();
    for (place, word) in words.enumerate() {
        if place == 0 && Path::new(word).is_absolute() {
            continue;
        }
        line.push(' ');
        line.extend(word.to_string_lossy().chars().take(120));
    }
    line
}

/// The end of a text, from a whole character on.
pub(super) fn tail(text: &str, bytes_max: usize) -> &str {
    let mut begin = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(begin) {
        begin += 1;
    }
    text.get(begin..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).kill_on_drop(true);
        command
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_command_is_fed_and_its_end_and_both_streams_are_kept() {
        let output = run("a", shell("cat; echo no >&2; exit 3"), b"{\"n\":1}", LIMIT).await;
        let output = output.expect("sh is there");
        assert_eq!(output.text(), "{\"n\":1}");
        assert_eq!(output.json().expect("a document")["n"], 1);
        let error = output.expect(0).expect_err("exit 3").to_string();
        let expected = "`a`: sh -c cat; echo no >&2; exit 3 ended with exit 3, expected exit 0\nno";
        assert_eq!(error, expected);
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_named_and_one_that_is_none_too() {
        let short = Duration::from_millis(50);
        let error = run("a", shell("sleep 60"), b"", short)
            .await
            .expect_err("it sleeps");
        assert!(
            error.to_string().contains("did not happen within 50"),
            "{error}"
        );
        let nothing = Command::new("/nowhere/packhorse");
        let error = run("a", nothing, b"", LIMIT).await.expect_err("no program");
        assert!(matches!(error, LabError::Spawn { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_a_command_started_dies_with_it_and_what_it_said_is_told() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.expect("mkfifo is there").success());
        let script = format!("echo stuck >&2; sleep 60 > {} & wait", fifo.display());
        // Ends once nobody holds it open for writing any more.
        let read = tokio::task::spawn_blocking(move || std::fs::read(fifo));
        let short = Duration::from_secs(1);
        let error = run("a", shell(&script), b"", short).await;
        let error = error.expect_err("it waits").to_string();
        assert!(error.ends_with("\n--- stderr ---\nstuck"), "{error}");
        let read = tokio::time::timeout(LIMIT, read).await;
        let read = read.expect("no writer is left").expect("a read");
        assert_eq!(read.expect("the pipe"), b"");
    }

    #[test]
    fn a_line_hides_the_data_folder_and_a_tail_begins_at_a_character() {
        let mut command = program(
            &[],
            Path::new("/p/packhorse"),
            Path::new("/h"),
            Path::new("/h/d"),
        );
        command.args(["send", "left"]);
        assert_eq!(line_of(&command), "packhorse send left");
        assert_eq!(tail("häuser", 5), "user");
        assert_eq!(tail("häuser", 50), "häuser");
    }
}
