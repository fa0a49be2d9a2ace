//! One run of the command: a shell in a process group of its own.
//!
//! The payload goes to its stdin while its output is read, so that neither side can wait for
//! the other for ever. A command that does not read is no failure.
//! CRASH: when the worker itself is killed the command runs on; its message is handed out again.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use packhorse::Claimed;
use packhorse::claim::OUTPUT_BYTES_MAX;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::task::JoinSet;

/// How long a command may take between SIGTERM and SIGKILL.
const TERMINATE_WITHIN: Duration = Duration::from_secs(5);
/// How long output may follow the end of the command: what it left in the background may hold
/// the pipe open for ever.
const OUTPUT_WITHIN: Duration = Duration::from_millis(250);
/// How long a piece of output waits for a reader of the worker's own stderr. Who does not read must
/// not hold the commands of all slots.
const PASS_ON_WITHIN: Duration = Duration::from_millis(250);
/// Bytes read from the command at once.
const READ_BYTES: usize = 8 << 10;

/// A command that runs; dropped, it is killed with everything in its group.
#[derive(Debug)]
pub(crate) struct Child {
    child: tokio::process::Child,
    group: Option<Pid>,
    output: Arc<Mutex<Vec<u8>>>,
    reading: JoinSet<()>,
    /// Feeds the payload; ends with this value.
    _feeding: JoinSet<()>,
}

impl Child {
    /// Starts the command for a message.
    pub(crate) fn start(line: &str, message: &Claimed, attempt: u32) -> io::Result<Child> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(line)
            .env("PACKHORSE_MESSAGE_ID", text_of(message.id.as_ref()))
            .env("PACKHORSE_ATTEMPT", attempt.to_string())
            .env("PACKHORSE_TOPIC", &message.topic)
            .env("PACKHORSE_SENDER", &message.sender)
            .env("PACKHORSE_SENDER_ID", text_of(message.sender_id.as_ref()))
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let mut child = command.spawn()?;
        // ORDER: the command holds the pipe's other end until it is dropped.
        drop(command);
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let mut feeding = JoinSet::new();
        if let Some(mut stdin) = child.stdin.take() {
            let payload = message.payload.0.clone();
            feeding.spawn(async move {
                // Who closes its stdin early does not want the rest.
                let _ = stdin.write_all(&payload).await;
            });
        }
        let output = Arc::new(Mutex::new(Vec::new()));
        let mut reading = JoinSet::new();
        let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        reading.spawn(read(reader, Arc::clone(&output)));
        Ok(Child {
            child,
            group,
            output,
            reading,
            _feeding: feeding,
        })
    }

    /// Waits for the end of the command; may be called off and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group = None;
        Ok(status)
    }

    /// Ends the command: SIGTERM to its group, SIGKILL when that is not enough or when `hurry`
    /// resolves.
    pub(crate) async fn stop(&mut self, hurry: impl Future<Output = ()>) -> io::Result<ExitStatus> {
        let group = self.group;
        self.signal(group, Signal::TERM);
        let status = tokio::select! {
            status = tokio::time::timeout(TERMINATE_WITHIN, self.wait()) => status.ok(),
            () = hurry => None,
        };
        // Also when the command itself ended: what it started may have ignored the first signal.
        self.signal(group, Signal::KILL);
        match status {
            Some(status) => status,
            None => self.wait().await,
        }
    }

    /// What it said until now, cut at the limit; to be asked when it has ended.
    pub(crate) async fn output(mut self) -> Vec<u8> {
        let ended = async { while self.reading.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(OUTPUT_WITHIN, ended).await;
        let output = self.output.lock();
        std::mem::take(&mut output.unwrap_or_else(PoisonError::into_inner))
    }

    fn signal(&self, group: Option<Pid>, signal: Signal) {
        if let Some(group) = group {
            // Gone already is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(self.group, Signal::KILL);
    }
}

/// Keeps the beginning of the output, and passes all of it on as long as somebody reads.
async fn read(mut reader: pipe::Receiver, output: Arc<Mutex<Vec<u8>>>) {
    let mut stderr = tokio::io::stderr();
    let mut buffer = vec![0; READ_BYTES];
    let mut is_read = true;
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        let Some(read) = buffer.get(..count) else {
            break;
        };
        {
            let mut kept = output.lock().unwrap_or_else(PoisonError::into_inner);
            let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
            kept.extend(read.iter().take(room));
        }
        let passed = async {
            // Nobody to tell is no reason to fail.
            let _ = stderr.write_all(read).await;
            let _ = stderr.flush().await;
        };
        is_read = is_read && tokio::time::timeout(PASS_ON_WITHIN, passed).await.is_ok();
    }
}

fn text_of(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
