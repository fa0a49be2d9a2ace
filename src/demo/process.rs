//! One node of the demonstration: a process of this very program.
//!
//! It owns the child, its folder and its port; a restarted node is found where it was before.
//! CRASH: when the demonstration itself is killed, the child's stdin closes and the node stops.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use packhorse::Exit;
use packhorse::api::{Client, SocketPath};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cli::Failure;

/// How long a node may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// How long a node may take to stop when it is asked to.
const STOP_WITHIN: Duration = Duration::from_secs(15);
/// Lines of a node's log that are shown when the demonstration fails.
const LOG_LINES_SHOWN: usize = 12;

/// A node that can be started, stopped and killed.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    name: &'static str,
    program: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    /// Any port at first, afterwards the one that it got.
    listen: String,
    child: Option<Child>,
    client: Client,
}

/// What is read of the ready line.
#[derive(Debug, Deserialize)]
struct Ready {
    listen: Vec<String>,
}

impl NodeProcess {
    /// A node that is not started yet.
    pub(crate) fn new(
        name: &'static str,
        program: &Path,
        scratch: &Path,
    ) -> Result<NodeProcess, Failure> {
        let data_dir = scratch.join(name);
        let client = Client::new(SocketPath::in_folder(&data_dir)?);
        Ok(NodeProcess {
            name,
            program: program.to_owned(),
            log: scratch.join(format!("{name}.log")),
            data_dir,
            listen: "127.0.0.1:0".to_owned(),
            child: None,
            client,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Speaks to the node.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// A further connection to the node, for what happens while something else does.
    pub(crate) fn second_client(&self) -> Result<Client, Failure> {
        Ok(Client::new(SocketPath::in_folder(&self.data_dir)?))
    }

    /// Starts the node and waits until it is ready.
    pub(crate) async fn start(&mut self) -> Result<(), Failure> {
        let log = self.open_log()?;
        let mut child = Command::new(&self.program)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["up", "--json", "--stop-with-stdin", "--name", self.name])
            .args(["--listen", &self.listen])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A group of its own: Ctrl-C is for the demonstration, which then stops its nodes.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.failure(&format!("does not start: {error}")))?;
        let stdout = child.stdout.take();
        self.child = Some(child);
        let stdout = stdout.ok_or_else(|| self.failure("has no stdout"))?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = tokio::time::timeout(READY_WITHIN, reader.read_line(&mut line)).await;
        match read {
            Ok(Ok(1..)) => {}
            Ok(_) => return Err(self.failure("ended before it was ready")),
            Err(_) => {
                let seconds = READY_WITHIN.as_secs();
                return Err(self.failure(&format!("was not ready within {seconds} s")));
            }
        }
        let ready: Ready = serde_json::from_str(&line)
            .map_err(|error| self.failure(&format!("said something else than ready: {error}")))?;
        let address = ready
            .listen
            .first()
            .and_then(|link| link.strip_prefix("quic://"));
        self.listen = address
            .ok_or_else(|| self.failure("listens nowhere"))?
            .to_owned();
        self.client = self.second_client()?;
        Ok(())
    }

    /// Asks the node to stop, and says how it ended.
    pub(crate) async fn stop(&mut self) -> Result<ExitStatus, Failure> {
        let mut child = self
            .child
            .take()
            .ok_or_else(|| self.failure("is to be stopped but does not run"))?;
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // A node that ended by itself a moment ago is told by its status.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(STOP_WITHIN, child.wait()).await {
            Ok(status) => {
                status.map_err(|error| self.failure(&format!("cannot be waited for: {error}")))
            }
            Err(_) => {
                let seconds = STOP_WITHIN.as_secs();
                Err(self.failure(&format!("did not stop within {seconds} s of SIGTERM")))
            }
        }
    }

    /// Kills the node: SIGKILL, at whatever it is doing.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .await
                .map_err(|error| self.failure(&format!("is not killed: {error}")))?;
        }
        Ok(())
    }

    /// Sends the node a signal that it does not end by.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let id = self.child.as_ref().and_then(Child::id);
        let pid = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| self.failure("is to get a signal but does not run"))?;
        kill_process(pid, signal).map_err(|error| self.failure(&format!("gets no signal: {error}")))
    }

    /// Starts a worker at this node; it ends with the returned value.
    pub(crate) fn start_worker(&self, topic: &str, command: &str) -> Result<Child, Failure> {
        Command::new(&self.program)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["work", topic, "--jobs", "4", "--exec", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.open_log()?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.failure(&format!("gets no worker: {error}")))
    }

    /// The last lines that the node logged.
    pub(crate) fn log_tail(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let shown = lines.len().saturating_sub(LOG_LINES_SHOWN);
        lines
            .into_iter()
            .skip(shown)
            .map(ToOwned::to_owned)
            .collect()
    }

    /// A failure that names this node.
    pub(crate) fn failure(&self, text: &str) -> Failure {
        Failure::new(Exit::Failure, format!("{} {text}", self.name))
    }

    fn open_log(&self) -> Result<File, Failure> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|error| self.failure(&format!("has no log: {error}")))
    }
}
