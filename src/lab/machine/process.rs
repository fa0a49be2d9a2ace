//! The process of one node, from its start to its end, kept by one task.
//!
//! That task owns the child and alone reaps it. Its number is given to somebody else only after
//! that, and reaping and signalling exclude each other, so no signal ever goes to a stranger.
//! Everybody else holds a [`Handle`], signals through it, and watches the phase.
//!
//! CRASH: when the lab is killed the child's stdin closes, and the node stops by itself. One that is
//! paused then hears of it when it goes on. The system sees to that where the process that inherits
//! the child is in another session, as a machine's init is; where it is in the lab's own, as in many
//! containers, the child stays paused until somebody sends it SIGCONT or SIGKILL.

use std::fmt;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::signal::Signal;
use crate::lab::relay::line::Target;

/// Longest ready line: an id, a name, and eight addresses.
const READY_BYTES_MAX: u64 = 16 << 10;
/// How long what a process printed may take to be read once it has ended: a stranger that holds its
/// stdout open holds up nobody for longer.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// What a node says when it is ready.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Ready {
    /// Its node id.
    pub node: String,
    /// The name that it announces.
    pub name: String,
    /// Where it listens, as `quic://ADDRESS:PORT`. No node of the lab is ever told it.
    pub listen: Vec<String>,
    /// The whole document.
    #[serde(skip)]
    pub document: Value,
}

impl Ready {
    /// The first address that it listens on.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let listen = self.listen.first()?;
        listen.strip_prefix("quic://")?.parse().ok()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it, when it has no code.
    pub signal: Option<i32>,
}

impl Ended {
    pub(crate) fn of(status: Option<ExitStatus>) -> Ended {
        Ended {
            code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => f.pad(&format!("exit {code}")),
            (None, Some(signal)) => f.pad(&format!("signal {signal}")),
            (None, None) => f.pad("an end that nobody saw"),
        }
    }
}

/// Where a process stands.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Starting,
    Ready(Arc<Ready>),
    /// It runs, and its first line is none of ours.
    Strange(String),
    Ended(Ended),
}

/// A process with its keeper; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    handle: Handle,
    /// The keeper and the reader of stdout.
    _tasks: JoinSet<()>,
}

/// How a process is watched and signalled.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    pid: Option<Pid>,
    phase: watch::Receiver<Phase>,
    state: Arc<Mutex<State>>,
}

/// What signals and the end of a process have to agree about.
#[derive(Debug, Default)]
struct State {
    /// It was reaped, or given up: its number may be a stranger's.
    is_gone: bool,
    /// It was told to stand still, and not to go on since.
    is_paused: bool,
    /// It was told to end.
    is_ordered: bool,
    stdin: Option<ChildStdin>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Each field is right by itself.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    /// Starts a command whose first line says that it is ready; everything it prints is appended to
    /// `printed`. `target` leads to it for as long as it listens.
    pub(super) fn spawn(
        mut command: Command,
        printed: File,
        target: Arc<Target>,
    ) -> io::Result<Process> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id();
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let stdout = child.stdout.take();
        let state = Arc::new(Mutex::new(State {
            stdin: child.stdin.take(),
            ..State::default()
        }));
        let (told, phase) = watch::channel(Phase::Starting);
        let (first, first_line) = oneshot::channel();
        let (read_out, all_read) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            read(stdout, first, printed).await;
            let _ = read_out.send(());
        });
        let keeper = Keeper {
            child,
            state: Arc::clone(&state),
            target,
            told,
        };
        tasks.spawn(keeper.keep(first_line, all_read));
        Ok(Process {
            handle: Handle { pid, phase, state },
            _tasks: tasks,
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The tasks are only told to end by this, and the child dies when they do. A folder is
        // removed behind it, so it has to be dead sooner.
        let _ = self.handle.signal(Signal::Kill);
    }
}

impl Handle {
    pub(super) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub(super) fn process_id(&self) -> Option<u32> {
        let pid = self.pid.filter(|_| self.runs())?;
        u32::try_from(pid.as_raw_nonzero().get()).ok()
    }

    pub(super) fn runs(&self) -> bool {
        !matches!(*self.phase.borrow(), Phase::Ended(_))
    }

    /// Whether it was told to stand still, and not to go on since.
    pub(super) fn is_paused(&self) -> bool {
        self.runs() && lock(&self.state).is_paused
    }

    /// How it ended, if nobody told it to.
    pub(super) fn unordered_end(&self) -> Option<Ended> {
        match self.phase() {
            Phase::Ended(ended) if !lock(&self.state).is_ordered => Some(ended),
            _ => None,
        }
    }

    /// Waits until it is more than starting.
    pub(super) async fn started(&self) -> Phase {
        self.when(|phase| !matches!(phase, Phase::Starting)).await
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) -> Ended {
        match self.when(|phase| matches!(phase, Phase::Ended(_))).await {
            Phase::Ended(ended) => ended,
            _ => Ended::of(None),
        }
    }

    /// Sends a signal. Whether the process was still there.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<bool> {
        let mut state = lock(&self.state);
        let Some(pid) = self.pid.filter(|_| !state.is_gone) else {
            return Ok(false);
        };
        match kill_process(pid, signal.system()) {
            Ok(()) => {}
            Err(Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        match signal {
            Signal::Stop => state.is_paused = true,
            Signal::Cont => state.is_paused = false,
            Signal::Hup => {}
            Signal::Term | Signal::Int | Signal::Kill | Signal::Quit | Signal::Abrt => {
                state.is_ordered = true;
            }
        }
        Ok(true)
    }

    /// Waits until it stands still after SIGSTOP, all of its threads; false when it has ended or was
    /// told to go on instead. SIGSTOP itself only asks for that.
    pub(super) async fn stands_still(&self) -> io::Result<bool> {
        // Listened to first, or what changes between a look and that would be missed.
        let mut children = signal(SignalKind::child())?;
        loop {
            if let Some(stands_still) = self.look_whether_it_stands_still()? {
                return Ok(stands_still);
            }
            tokio::select! {
                _ = children.recv() => {}
                _ = self.ended() => return Ok(false),
            }
        }
    }

    fn look_whether_it_stands_still(&self) -> io::Result<Option<bool>> {
        let state = lock(&self.state);
        let Some(pid) = self.pid.filter(|_| !state.is_gone && state.is_paused) else {
            return Ok(Some(false));
        };
        // Said once the last thread has stopped, and not taken from whoever asks next.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), options) {
            Ok(stopped) => Ok(stopped.map(|_| true)),
            // Killed meanwhile, and not reaped yet: it will never stand still.
            Err(Errno::CHILD) => Ok(Some(false)),
            Err(error) => Err(error.into()),
        }
    }

    /// Closes its stdin, which asks it to stop.
    pub(super) fn close_stdin(&self) {
        let mut state = lock(&self.state);
        state.stdin = None;
        state.is_ordered |= !state.is_gone;
    }

    async fn when(&self, is_it: impl FnMut(&Phase) -> bool) -> Phase {
        let mut phase = self.phase.clone();
        match phase.wait_for(is_it).await {
            Ok(phase) => phase.clone(),
            // The keeper is gone, and with it the child.
            Err(_) => Phase::Ended(Ended::of(None)),
        }
    }
}

/// Owns the child.
struct Keeper {
    child: Child,
    state: Arc<Mutex<State>>,
    target: Arc<Target>,
    told: watch::Sender<Phase>,
}

impl Keeper {
    async fn keep(
        mut self,
        mut first_line: oneshot::Receiver<String>,
        all_read: oneshot::Receiver<()>,
    ) {
        let mut is_starting = true;
        let status = loop {
            tokio::select! {
                status = reaped(&mut self.child, &self.state) => break status,
                line = &mut first_line, if is_starting => {
                    is_starting = false;
                    let phase = phase_of(&line.unwrap_or_default());
                    if let Phase::Ready(ready) = &phase {
                        self.target.set(ready.address());
                    }
                    self.told.send_replace(phase);
                }
            }
        };
        // ORDER: whoever sees the end may start the next one, which listens elsewhere, and may read
        // what this one printed.
        self.target.set(None);
        let _ = tokio::time::timeout(READ_WITHIN, all_read).await;
        self.told.send_replace(Phase::Ended(Ended::of(status.ok())));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The child goes with it, killed and reaped by somebody else when it still runs.
        let mut state = lock(&self.state);
        state.is_gone = true;
        state.stdin = None;
        self.told.send_if_modified(|phase| {
            let is_over = matches!(phase, Phase::Ended(_));
            if !is_over {
                *phase = Phase::Ended(Ended::of(None));
            }
            !is_over
        });
    }
}

/// The end of a child, which is reaped here, and never while somebody signals it.
async fn reaped(child: &mut Child, state: &Mutex<State>) -> io::Result<ExitStatus> {
    let mut wait = pin!(child.wait());
    poll_fn(|context| {
        let mut state = lock(state);
        let polled = wait.as_mut().poll(context);
        state.is_gone |= polled.is_ready();
        polled
    })
    .await
}

fn phase_of(line: &str) -> Phase {
    match ready_of(line) {
        Ok(ready) => Phase::Ready(Arc::new(ready)),
        // It ends without a word: how it ended says more than that.
        Err(_) if line.is_empty() => Phase::Starting,
        Err(error) => {
            let begin: String = line.chars().take(120).collect();
            Phase::Strange(format!("{error} in `{}`", begin.escape_debug()))
        }
    }
}

fn ready_of(line: &str) -> Result<Ready, serde_json::Error> {
    let document: Value = serde_json::from_str(line)?;
    let ready = Ready::deserialize(&document)?;
    Ok(Ready { document, ..ready })
}

/// Hands out the first line, and writes what follows it to a file until the stream ends.
async fn read(stdout: Option<ChildStdout>, first: oneshot::Sender<String>, mut printed: File) {
    let Some(stdout) = stdout else { return };
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    let read = (&mut stdout)
        .take(READY_BYTES_MAX)
        .read_line(&mut line)
        .await;
    if read.is_err() {
        line.clear();
    }
    let _ = io::Write::write_all(&mut printed, line.as_bytes());
    let _ = first.send(line);
    let mut buffer = vec![0; 4 << 10];
    // Hardly anything comes here: a node prints one line. A disk that is full keeps it from nothing.
    while let Ok(bytes @ 1..) = stdout.read(&mut buffer).await {
        let _ = io::Write::write_all(&mut printed, buffer.get(..bytes).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const LINE: &str = r#"{"schema":"s","node":"n","name":"a","listen":["quic://127.0.0.1:7"]}"#;

    /// A shell that runs this, and what it prints.
    fn shell(script: &str) -> (Process, tempfile::NamedTempFile) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let printed = tempfile::NamedTempFile::new().expect("a scratch file");
        let file = printed.reopen().expect("a scratch file");
        let process = Process::spawn(command, file, Arc::default()).expect("sh is there");
        (process, printed)
    }

    async fn soon<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(SOON, what).await.expect("in time")
    }

    #[tokio::test]
    async fn whoever_sees_the_end_can_read_all_that_was_printed() {
        // More than a pipe holds, so that the reader is behind when the process ends.
        let script = format!("echo '{LINE}'; head -c 2000000 /dev/zero");
        let (process, printed) = shell(&script);
        let handle = process.handle();
        let Phase::Ready(ready) = soon(handle.started()).await else {
            panic!("{:?}", handle.phase());
        };
        assert_eq!(ready.document["schema"], "s");
        assert_eq!(ready.address(), "127.0.0.1:7".parse().ok());
        assert_eq!(soon(handle.ended()).await.code, Some(0));
        let mut bytes = Vec::new();
        let mut file = printed.reopen().expect("the scratch file");
        file.read_to_end(&mut bytes).expect("the scratch file");
        assert_eq!(bytes.len(), LINE.len() + 1 + 2_000_000);
    }

    #[tokio::test]
    async fn a_stranger_who_holds_stdout_open_hides_no_end() {
        let (process, _printed) = shell("sleep 5 2> /dev/null & exit 3");
        let handle = process.handle();
        assert_eq!(soon(handle.ended()).await.code, Some(3));
    }

    #[tokio::test]
    async fn an_end_is_ordered_or_not_and_nobody_signals_a_number_after_it() {
        let (process, _printed) = shell("exit 4");
        let handle = process.handle();
        let ended = soon(handle.ended()).await;
        assert_eq!(handle.unordered_end(), Some(ended));
        assert!(!handle.signal(Signal::Kill).expect("nobody is there"));
        handle.close_stdin();
        assert_eq!(handle.unordered_end(), Some(ended));

        let (process, _printed) = shell("exec sleep 60");
        let handle = process.handle();
        assert!(handle.signal(Signal::Kill).expect("our own child"));
        assert_eq!(soon(handle.ended()).await.signal, Some(9));
        assert_eq!(handle.unordered_end(), None);

        let (process, _printed) = shell("exec cat");
        let handle = process.handle();
        handle.close_stdin();
        assert_eq!(soon(handle.ended()).await.code, Some(0));
        assert_eq!(handle.unordered_end(), None);
    }

    #[tokio::test]
    async fn a_paused_process_stands_still_until_it_goes_on() {
        let (process, _printed) = shell("exec sleep 60");
        let handle = process.handle();
        let still = async || soon(handle.stands_still()).await.expect("our own child");
        assert!(!still().await, "it was not asked to");
        for _ in 0..2 {
            assert!(handle.signal(Signal::Stop).expect("our own child"));
            assert!(still().await && still().await);
            assert!(handle.is_paused());
            let stat = std::fs::read_to_string(format!(
                "/proc/{}/stat",
                handle.process_id().expect("it is there")
            ));
            if let Ok(stat) = stat {
                assert!(stat.contains(") T "), "{stat}");
            }
            assert!(handle.signal(Signal::Cont).expect("our own child"));
            assert!(!handle.is_paused() && !still().await);
        }
        handle.signal(Signal::Stop).expect("our own child");
        handle.signal(Signal::Kill).expect("our own child");
        soon(handle.ended()).await;
        assert!(!handle.is_paused() && !still().await);
    }

    #[tokio::test]
    async fn whoever_still_holds_a_handle_sees_the_end_of_a_process_that_was_dropped() {
        let (process, _printed) = shell("exec sleep 60");
        let handle = process.handle();
        drop(process);
        soon(handle.ended()).await;
        assert!(!handle.runs());
        assert!(!handle.signal(Signal::Term).expect("nobody is there"));
    }
}
