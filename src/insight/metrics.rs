//! Numbers for whoever watches many nodes.

use std::collections::BTreeMap;

use crate::insight::{Branch, Strangers};
use crate::status::Status;

/// Everything that is measured, as it is now.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The node and its peers.
    pub status: Status,
    /// Strangers.
    pub strangers: Strangers,
    /// The live actors.
    pub tree: Branch,
    /// Commits of the store that are durable.
    pub commits: u64,
    /// Jobs that wait for the store's writer, and their bytes.
    pub queued: (usize, usize),
    /// Records that do not open.
    pub quarantined: u64,
    /// Counted from what happened since the node started.
    pub happened: Happened,
}

/// What happened since the node started, as far as it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// The newest event that is in here.
    pub upto: u64,
    /// Sessions that began.
    pub sessions_started: u64,
    /// Sessions that ended, by class.
    pub sessions_ended: BTreeMap<String, u64>,
    /// Messages that became dead letters, by why: `given_up`, `refused_there`, `failed_here`.
    pub dead_letters: BTreeMap<String, u64>,
    /// Events that were gone before they could be counted.
    pub missed: u64,
}
