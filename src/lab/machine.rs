//! One node of a lab: its folder always, its process while it runs.
//!
//! Everything is done the way a person or a service manager does it: the program is started and
//! signalled, commands are run, the local API is asked. A machine never looks into a store.
//! What a node prints and logs is kept in files beside its folder, over all its lives.
//!
//! Everything takes `&self`: steps that run beside each other may start, kill and ask one node, and
//! a kill does not wait for a start to be over.
//!
//! Read [`NodeSpec`] for what a node can be, [`Machine::start`] and what follows it for its life.

mod asking;
mod command;
mod process;
mod signal;
mod spec;
mod storage;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::command::{OUTPUT_BYTES_MAX, Output};
pub use self::process::{Ended, Ready};
use self::process::{Phase, Process};
pub use self::signal::{Signal, SignalError};
pub use self::spec::NodeSpec;
use super::disk::Disk;
use super::error::LabError;
use super::network::Network;
use super::relay::line::Target;
use crate::api::SocketPath;
use crate::api::socket::{SOCKET_FILE, SOCKET_PATH_BYTES_MAX};
use crate::settings::SETTINGS_FILE;

/// How long a node may take until it is ready; a second on an idle machine.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take to stop: its own deadlines add up to 42 s.
pub const STOP_WITHIN: Duration = Duration::from_secs(50);
/// How long a killed process may take to be gone.
const KILLED_WITHIN: Duration = Duration::from_secs(20);
/// How long a paused process may take until the last of its threads stands still.
const PAUSED_WITHIN: Duration = Duration::from_secs(20);
/// Of a node's log in an error.
const LOG_TOLD_BYTES: usize = 4 << 10;
/// What a node of a lab announces: an address to which this machine has no way, so that a dial to
/// it fails at once and no datagram leaves. What works are the relays, which peers are told.
pub(super) const NOWHERE: &str = "255.255.255.255:9";

/// A node of a lab.
#[derive(Debug)]
pub struct Machine {
    spec: NodeSpec,
    program: PathBuf,
    /// Its disk is mounted over the home, if it has one.
    places: Places,
    socket: SocketPath,
    target: Arc<Target>,
    // ORDER: fields go in their order, and a disk is unmounted behind the process.
    life: Mutex<Life>,
    disk: Mutex<Option<Arc<Disk>>>,
}

#[derive(Debug, Default)]
struct Life {
    process: Option<Process>,
    starts: u32,
    /// How long the log was when the process was started last, in bytes.
    log_bytes_before: u64,
}

/// Where everything of a node lies.
#[derive(Debug)]
struct Places {
    home: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    printed: PathBuf,
}

impl Machine {
    /// Makes the node's folder in the lab's; nothing runs yet.
    pub(super) fn new(
        spec: NodeSpec,
        program: &Path,
        scratch: &Path,
        network: &Network,
    ) -> Result<Machine, LabError> {
        let wrong = |reason: String| LabError::Name {
            name: spec.name.clone(),
            reason,
        };
        spec.check_name().map_err(wrong)?;
        let home = scratch.join(&spec.name);
        let data_dir = home.join("node");
        let Ok(socket) = SocketPath::in_folder(&data_dir) else {
            return Err(too_deep(scratch, &spec.name));
        };
        make_folder(&home)?;
        let disk = spec.disk_bytes.map(|bytes| Disk::mount(&home, bytes));
        let disk = disk.transpose().map_err(|source| LabError::Disk {
            node: spec.name.clone(),
            source,
        })?;
        let beside = |end: &str| scratch.join(format!("{}.{end}", spec.name));
        let places = Places {
            log: beside("log"),
            printed: beside("out"),
            home,
            data_dir,
        };
        let target = network.target(&spec.name)?;
        Machine::at(spec, program, places, socket, target, disk)
    }

    /// A node beside any network, in this data folder, which may be there already; it is made by the
    /// node itself, or here when the node has settings. What it logs and prints is kept beside the
    /// folder. Its disk is the folder's: one in `spec` counts for nothing.
    ///
    /// # Errors
    /// A folder with nothing around it, or too deep for a socket; settings that cannot be written.
    pub fn in_folder(spec: NodeSpec, program: &Path, data_dir: &Path) -> Result<Machine, LabError> {
        let socket = SocketPath::in_folder(data_dir).map_err(|source| LabError::Socket {
            node: spec.name.clone(),
            source,
        })?;
        let Some(home) = data_dir.parent() else {
            let what = format!("no data folder of a node: {}", data_dir.display());
            let source = io::Error::new(io::ErrorKind::InvalidInput, "there is none around it");
            return Err(LabError::files(what, source));
        };
        let places = Places {
            home: home.to_owned(),
            data_dir: data_dir.to_owned(),
            log: data_dir.with_extension("log"),
            printed: data_dir.with_extension("out"),
        };
        Machine::at(spec, program, places, socket, Arc::default(), None)
    }

    fn at(
        spec: NodeSpec,
        program: &Path,
        places: Places,
        socket: SocketPath,
        target: Arc<Target>,
        disk: Option<Disk>,
    ) -> Result<Machine, LabError> {
        if let Some(settings) = &spec.settings {
            let folder = &places.data_dir;
            if !folder.is_dir() {
                make_folder(folder)?;
            }
            let path = folder.join(SETTINGS_FILE);
            std::fs::write(&path, settings)
                .map_err(|source| LabError::files(format!("no {}", path.display()), source))?;
        }
        Ok(Machine {
            program: spec.program.clone().unwrap_or_else(|| program.to_owned()),
            places,
            socket,
            target,
            life: Mutex::default(),
            disk: Mutex::new(disk.map(Arc::new)),
            spec,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What it is.
    #[must_use]
    pub const fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Its data folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.places.data_dir
    }

    /// The file with everything that it logged.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.places.log
    }

    /// The file with everything that its process printed.
    #[must_use]
    pub fn printed_path(&self) -> &Path {
        &self.places.printed
    }

    // --- life ---

    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// It runs already, does not start, ends before it is ready, or takes longer than
    /// [`READY_WITHIN`], and is killed then.
    pub async fn start(&self) -> Result<Arc<Ready>, LabError> {
        let process = {
            let mut life = self.lock();
            if life.process.as_ref().is_some_and(|it| it.handle().runs()) {
                return Err(LabError::AlreadyRuns { node: self.node() });
            }
            let log = open(&self.places.log)?;
            life.log_bytes_before = log.metadata().map_or(0, |metadata| metadata.len());
            let process = self.spawn(log)?;
            let handle = process.handle();
            life.process = Some(process);
            life.starts += 1;
            handle
        };
        let error = match tokio::time::timeout(READY_WITHIN, process.started()).await {
            Ok(Phase::Ready(ready)) => return Ok(ready),
            Ok(Phase::Strange(reason)) => LabError::NotReady {
                node: self.node(),
                reason,
            },
            Ok(phase) => {
                return Err(LabError::EndedEarly {
                    node: self.node(),
                    ended: match phase {
                        Phase::Ended(ended) => ended,
                        _ => Ended::of(None),
                    },
                    log: self.told_log(),
                });
            }
            Err(_) => self.late("being ready", READY_WITHIN),
        };
        // Whoever is told that it did not start finds nothing that runs.
        let _ = process.signal(Signal::Kill);
        let _ = tokio::time::timeout(KILLED_WITHIN, process.ended()).await;
        Err(error)
    }

    /// SIGTERM, and waits for the end. A paused node goes on first, or it could not hear it.
    ///
    /// # Errors
    /// It does not run, or runs on after [`STOP_WITHIN`].
    pub async fn stop(&self) -> Result<Ended, LabError> {
        self.end_by(Signal::Term, STOP_WITHIN).await
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self) -> Result<Ended, LabError> {
        self.end_by(Signal::Kill, KILLED_WITHIN).await
    }

    /// Stops it and starts it again.
    ///
    /// # Errors
    /// As [`Machine::stop`] and [`Machine::start`].
    pub async fn restart(&self) -> Result<Arc<Ready>, LabError> {
        self.stop().await?;
        self.start().await
    }

    /// Sends a signal and waits for nothing.
    ///
    /// # Errors
    /// It does not run, or may not be signalled.
    pub async fn signal(&self, signal: Signal) -> Result<(), LabError> {
        match self.send(&self.process()?, signal)? {
            true => Ok(()),
            false => Err(LabError::NotRunning { node: self.node() }),
        }
    }

    /// SIGSTOP, and waits until the last of its threads stands still, like a machine that sleeps.
    ///
    /// # Errors
    /// It does not run, may not be signalled, or is told to go on meanwhile.
    pub async fn pause(&self) -> Result<(), LabError> {
        self.signal(Signal::Stop).await?;
        match self.stopped(&self.latest()?).await? {
            true => Ok(()),
            false => Err(LabError::NotRunning { node: self.node() }),
        }
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// As [`Machine::signal`].
    pub async fn resume(&self) -> Result<(), LabError> {
        self.signal(Signal::Cont).await
    }

    /// Closes its stdin, which asks it to stop, and waits for the end. A paused node goes on, or it
    /// could not hear it.
    ///
    /// # Errors
    /// As [`Machine::stop`].
    pub async fn close_stdin(&self) -> Result<Ended, LabError> {
        let process = self.process()?;
        process.close_stdin();
        if process.is_paused() {
            self.send(&process, Signal::Cont)?;
        }
        self.over(&process, "its end after its stdin was closed", STOP_WITHIN)
            .await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It was not started, or runs on after `limit`.
    pub async fn ended(&self, limit: Duration) -> Result<Ended, LabError> {
        let process = self.latest()?;
        self.over(&process, "its end", limit).await
    }

    // --- questions ---

    /// Whether its process runs; it may not be ready yet.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let life = self.lock();
        life.process.as_ref().is_some_and(|it| it.handle().runs())
    }

    /// Whether it was paused and not resumed.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.latest().is_ok_and(|process| process.is_paused())
    }

    /// Whether its process runs and has said that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let life = self.lock();
        let process = life.process.as_ref();
        process.is_some_and(|it| matches!(it.handle().phase(), Phase::Ready(_)))
    }

    /// How it ended last, if it did not start again since.
    #[must_use]
    pub fn last_end(&self) -> Option<Ended> {
        let process = self.latest().ok()?;
        match process.phase() {
            Phase::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// How it ended last, if it did not start again since and nobody told it to end: no signal that
    /// ends a process was sent, and its stdin was not closed.
    #[must_use]
    pub fn unordered_end(&self) -> Option<Ended> {
        self.latest().ok()?.unordered_end()
    }

    /// The number of its process.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process().ok()?.process_id()
    }

    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.lock().starts
    }

    /// What it said when it was ready; nothing before that, and nothing once it has ended.
    #[must_use]
    pub fn ready(&self) -> Option<Arc<Ready>> {
        match self.latest().ok()?.phase() {
            Phase::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    /// The end of its log over all its lives, from a whole line on where there is one.
    #[must_use]
    pub fn log_tail(&self, bytes_max: usize) -> String {
        end_of(&self.places.log, 0, bytes_max as u64).unwrap_or_default()
    }

    // --- parts ---

    fn spawn(&self, log: File) -> Result<Process, LabError> {
        let Places { home, data_dir, .. } = &self.places;
        let mut command = command::program(&self.spec.under, &self.program, home, data_dir);
        command.envs(self.spec.variables.iter().cloned());
        command.args(["up", "--json", "--stop-with-stdin", "--name", self.name()]);
        if !self.spec.is_silent {
            // Another port in every life: relays find it, and nobody waits for one to be free.
            command.args(["--listen", "127.0.0.1:0", "--advertise", NOWHERE]);
        }
        command.args(&self.spec.arguments);
        command.stderr(log);
        let program = command
            .as_std()
            .get_program()
            .to_string_lossy()
            .into_owned();
        let printed = open(&self.places.printed)?;
        Process::spawn(command, printed, Arc::clone(&self.target)).map_err(|source| {
            LabError::Spawn {
                node: self.node(),
                program,
                source,
            }
        })
    }

    async fn end_by(&self, signal: Signal, limit: Duration) -> Result<Ended, LabError> {
        let process = self.process()?;
        // One that is gone by now has ended in time.
        self.send(&process, signal)?;
        if process.is_paused() && signal != Signal::Kill {
            self.send(&process, Signal::Cont)?;
        }
        self.over(&process, &format!("its end after SIG{signal}"), limit)
            .await
    }

    /// Whether the process was still there.
    fn send(&self, process: &process::Handle, signal: Signal) -> Result<bool, LabError> {
        let sent = process.signal(signal);
        sent.map_err(|source| self.signal_error(signal, source))
    }

    /// Waits until a process that was paused stands still; false when it has ended or goes on.
    async fn stopped(&self, process: &process::Handle) -> Result<bool, LabError> {
        let stopped = tokio::time::timeout(PAUSED_WITHIN, process.stands_still()).await;
        stopped
            .map_err(|_| self.late("standing still after SIGSTOP", PAUSED_WITHIN))?
            .map_err(|source| self.signal_error(Signal::Stop, source))
    }

    fn signal_error(&self, signal: Signal, source: io::Error) -> LabError {
        LabError::Signal {
            node: self.node(),
            signal,
            source,
        }
    }

    async fn over(
        &self,
        process: &process::Handle,
        what: &str,
        limit: Duration,
    ) -> Result<Ended, LabError> {
        let ended = tokio::time::timeout(limit, process.ended()).await;
        ended.map_err(|_| self.late(what, limit))
    }

    /// The process that runs.
    fn process(&self) -> Result<process::Handle, LabError> {
        let process = self.latest()?;
        match process.runs() {
            true => Ok(process),
            false => Err(LabError::NotRunning { node: self.node() }),
        }
    }

    /// The process that was started last.
    fn latest(&self) -> Result<process::Handle, LabError> {
        let life = self.lock();
        let process = life.process.as_ref().map(Process::handle);
        process.ok_or_else(|| LabError::NotRunning { node: self.node() })
    }

    fn late(&self, what: &str, limit: Duration) -> LabError {
        LabError::TimedOut {
            node: self.node(),
            what: what.to_owned(),
            limit,
            log: self.told_log(),
        }
    }

    /// The end of what this life logged, as an error tells it.
    fn told_log(&self) -> String {
        let before = self.lock().log_bytes_before;
        let tail = end_of(&self.places.log, before, LOG_TOLD_BYTES as u64).unwrap_or_default();
        match tail.trim_end() {
            "" => String::new(),
            tail => format!("\n--- log of {} ---\n{tail}", self.name()),
        }
    }

    fn node(&self) -> String {
        self.spec.name.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        // Each field is right by itself.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Dead before its disk goes, and then the disk, whoever is still filling it.
        self.lock().process = None;
        self.unmount_disk();
    }
}

/// The folder of a lab lies so deep that the socket of this node has no room.
fn too_deep(scratch: &Path, name: &str) -> LabError {
    let bytes = |path: &Path| path.as_os_str().as_bytes().len();
    let below = Path::new("/").join(name).join("node").join(SOCKET_FILE);
    LabError::TooDeep {
        path: scratch.to_owned(),
        bytes: bytes(scratch),
        name: name.to_owned(),
        limit_bytes: SOCKET_PATH_BYTES_MAX.saturating_sub(bytes(&below)),
    }
}

fn make_folder(path: &Path) -> Result<(), LabError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| LabError::files(format!("no folder {}", path.display()), source))
}

fn open(path: &Path) -> Result<File, LabError> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| LabError::files(format!("no file {}", path.display()), source))
}

/// The end of a file from this byte on, and from a whole line on where something is left out.
fn end_of(path: &Path, from: u64, bytes_max: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let begin = length.saturating_sub(bytes_max).max(from);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, whole)) if begin > from => whole.to_owned(),
        _ => text,
    })
}
