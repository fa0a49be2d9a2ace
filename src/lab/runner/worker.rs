//! A `packhorse work` beside the steps: it is told to end in order, and what it started ends with it.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Child;

use crate::lab::Machine;
use crate::lab::step::Work;

/// How long a worker may take to end: it gives its commands 10 s.
const END_WITHIN: Duration = Duration::from_secs(12);
/// Of its log in a trouble.
const LOG_TOLD_BYTES: usize = 4 << 10;

/// A worker with everything that it started; dead when it is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    group: Group,
    node: String,
    log: PathBuf,
}

impl Worker {
    /// Starts one on a node; what it says is appended to `NAME.work.log` beside the node's log.
    pub(super) fn start(node: &Machine, plan: &Work) -> Result<Worker, String> {
        let name = node.name().to_owned();
        let failed = |error: io::Error| format!("no worker on `{name}`: {error}");
        let log = node.log_path().with_file_name(format!("{name}.work.log"));
        let opened = OpenOptions::new().create(true).append(true).open(&log);
        let jobs = plan.jobs.to_string();
        let mut command = node.command();
        command.args(["work", &plan.topic, "--exec", &plan.exec, "--jobs", &jobs]);
        if let Some(lease) = plan.lease {
            command.args(["--lease", &format!("{}ms", lease.as_millis())]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(opened.map_err(failed)?)
            // Its number names the group of everything that it starts.
            .process_group(0);
        let child = command.spawn().map_err(failed)?;
        Ok(Worker {
            group: Group::of(&child),
            child,
            node: name,
            log,
        })
    }

    /// Lets it run until it is told to stop; what is wrong if it does not run so long.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) -> Option<String> {
        tokio::select! {
            ended = self.child.wait() => Some(self.ended_by_itself(ended)),
            () = stop => {
                self.group.ask();
                // One that does not end in time is killed with its commands.
                let _ = tokio::time::timeout(END_WITHIN, self.child.wait()).await;
                None
            }
        }
    }

    fn ended_by_itself(&self, ended: io::Result<ExitStatus>) -> String {
        let ended = ended.map_or_else(|error| error.to_string(), |it| it.to_string());
        let head = format!("the worker on `{}` ended by itself: {ended}", self.node);
        match tail(&self.log).trim_end() {
            "" => head,
            log => format!("{head}\n--- log of the worker ---\n{log}"),
        }
    }
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let start = bytes.len().saturating_sub(LOG_TOLD_BYTES);
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
}

/// The processes of a worker; killed when it is dropped.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Group(pid.and_then(Pid::from_raw))
    }

    /// Asks the worker itself to end; its commands are its own to end.
    fn ask(&self) {
        if let Some(pid) = self.0 {
            // One that is gone hears nothing.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Nobody may be left.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
