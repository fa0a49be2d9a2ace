//! Why a lab could not do what it was asked for.
//!
//! Each error names the node and the value that it is about, and the limit where there is one.
//! [`LabError::unsupported`] tells what this machine cannot do from what went wrong.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::disk::DiskError;
use super::image::ImageError;
use super::machine::{Ended, Signal};
use super::relay::impairment::ImpairmentError;
use crate::api::{ClientError, SocketPathError};
use crate::time::short_duration;

/// Most nodes of one lab: each is a process with a store, and its relays have sockets, of which
/// a process may have 1,024 by custom.
pub const NODES_MAX: usize = 128;

/// Why a lab could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// Write one of the names that there are.
    #[error("there is no node `{name}` in this lab, but {known}")]
    UnknownNode {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Give the node another name.
    #[error("`{name}` cannot be a node's name: {reason}")]
    Name {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Choose another folder for the lab: a socket's path must not be longer.
    #[error("the lab's folder {} has {bytes} bytes, the limit with a node `{name}` is {limit_bytes}: choose a shorter one", path.display())]
    TooDeep {
        /// The lab's folder.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// Which node.
        name: String,
        /// What it may have at most with a node of this name.
        limit_bytes: usize,
    },
    /// Choose another data folder.
    #[error("`{node}`: {source}")]
    Socket {
        /// Which node.
        node: String,
        /// What is wrong with it.
        source: SocketPathError,
    },
    /// Start fewer.
    #[error("{count} nodes, the limit of a lab is {NODES_MAX}")]
    TooManyNodes {
        /// What was asked for.
        count: usize,
    },
    /// Start fewer, or raise the limit of open files.
    #[error(
        "{nodes} nodes with {relays} relays between them need {needed} open files, the limit of this process is {limit}"
    )]
    OpenFiles {
        /// Nodes of the lab.
        nodes: usize,
        /// Relays that there would be.
        relays: usize,
        /// Open files that these take.
        needed: u64,
        /// What the system allows, after the soft limit was raised to the hard one.
        limit: u64,
    },
    /// A node has no way to itself.
    #[error("`{name}` stands on both sides")]
    SameNode {
        /// Who.
        name: String,
    },
    /// Call it from a task of a tokio runtime that drives time and IO.
    #[error("a lab lives in a tokio runtime, and there is none here")]
    NoRuntime,
    /// A value that no wire takes.
    #[error(transparent)]
    Impairment(#[from] ImpairmentError),
    /// No socket for a relay: the limit of open files may be too low.
    #[error("there can be no relay from `{from}` to `{to}`: {source}")]
    Relay {
        /// Who dials.
        from: String,
        /// Who is dialled.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder of the lab.
    #[error("{what}: {source}")]
    Files {
        /// What was to be done with which path.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Stop it first.
    #[error("`{node}` runs already")]
    AlreadyRuns {
        /// Which node.
        node: String,
    },
    /// Start it first.
    #[error("`{node}` does not run")]
    NotRunning {
        /// Which node.
        node: String,
    },
    /// The process may not be signalled: another user's, or a sandbox forbids it.
    #[error("`{node}` does not take SIG{signal}: {source}")]
    Signal {
        /// Which node.
        node: String,
        /// What was to be sent.
        signal: Signal,
        /// What the system said.
        source: io::Error,
    },
    /// Its files would change meanwhile: stop or pause it first.
    #[error("`{node}` runs: {what} needs it stopped{}", if *pause_will_do { " or paused" } else { "" })]
    Runs {
        /// Which node.
        node: String,
        /// What was to be done.
        what: &'static str,
        /// Whether pausing is enough.
        pause_will_do: bool,
    },
    /// The program did not start.
    #[error("`{node}`: {program} does not start: {source}")]
    Spawn {
        /// Which node.
        node: String,
        /// What was to be run.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It came to an end by itself.
    #[error("`{node}` ended before it was ready, with {ended}{log}")]
    EndedEarly {
        /// Which node.
        node: String,
        /// How.
        ended: Ended,
        /// The end of its log, on lines of its own.
        log: String,
    },
    /// Its first line is none of this program.
    #[error("the first line of `{node}` is no ready line: {reason}")]
    NotReady {
        /// Which node.
        node: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something took too long. What came of it is unknown.
    #[error("`{node}`: {what} did not happen within {}{log}", short_duration(*limit))]
    TimedOut {
        /// Which node.
        node: String,
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// The end of its log, on lines of its own; may be empty.
        log: String,
    },
    /// The node's local API said no, or nothing.
    #[error("`{node}`: {source}")]
    Client {
        /// Which node.
        node: String,
        /// What it said.
        source: ClientError,
    },
    /// A command ended otherwise than was expected.
    #[error("`{node}`: {line} ended with {ended}, expected exit {expected}{stderr}")]
    Command {
        /// Which node.
        node: String,
        /// The command.
        line: String,
        /// How it ended.
        ended: Ended,
        /// The exit code that was expected.
        expected: i32,
        /// The end of what it said, on lines of its own.
        stderr: String,
    },
    /// A command printed more than is kept.
    #[error("`{node}`: {line} printed more than {limit_bytes} bytes")]
    OutputTooLong {
        /// Which node.
        node: String,
        /// The command.
        line: String,
        /// What is kept.
        limit_bytes: usize,
    },
    /// A command printed no document.
    #[error("`{node}`: {line} printed no JSON document: {reason}")]
    NotJson {
        /// Which node.
        node: String,
        /// The command.
        line: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The node's disk.
    #[error("`{node}`: {source}")]
    Disk {
        /// Which node.
        node: String,
        /// What is wrong with it.
        source: DiskError,
    },
    /// A copy of a node's folder.
    #[error("`{node}`: {source}")]
    Image {
        /// Which node.
        node: String,
        /// What is wrong with it.
        source: ImageError,
    },
    /// Not everything of a lab is gone: look after what is named.
    #[error("the lab did not end cleanly: {troubles}")]
    End {
        /// Each with its node or path.
        troubles: String,
        /// Where its folder is, if it was to be kept.
        kept: Option<PathBuf>,
    },
    /// A ticket could not be led through a relay.
    #[error("the ticket of `{node}` cannot be led through a relay: {reason}")]
    Ticket {
        /// Who invited.
        node: String,
        /// Why.
        reason: String,
    },
}

impl LabError {
    /// What this machine cannot do, when that is all there is to it: whoever asked for it is skipped,
    /// and has to be named with this reason.
    #[must_use]
    pub fn unsupported(&self) -> Option<String> {
        match self {
            LabError::Disk { source, .. } if source.is_unsupported() => Some(source.to_string()),
            _ => None,
        }
    }

    /// The same for a path that was to be used for something.
    pub(crate) fn files(what: impl Into<String>, source: io::Error) -> LabError {
        LabError::Files {
            what: what.into(),
            source,
        }
    }
}
