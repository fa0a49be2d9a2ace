//! The queues to a session's streams, and what happens when one is full or gone.

use packhorse_protocol::error_class::ErrorClass;
use tokio::sync::mpsc;

use super::{
    exit::SessionExit,
    stream::{FRAMES_QUEUED_MAX, Outgoing},
};

/// Control frames that wait for the control stream: a heartbeat each 15 s, a goodbye.
pub(super) const EARLY_MAX: usize = 8;

/// Queues to the streams' writers.
#[derive(Debug, Default)]
pub(super) struct Writers {
    pub(super) control: Option<mpsc::Sender<Outgoing>>,
    /// The listener's first heartbeat is due before the dialler's control stream is here.
    pub(super) early: Vec<Outgoing>,
    pub(super) mine: [Option<mpsc::Sender<Outgoing>>; 2],
    pub(super) theirs: [Option<mpsc::Sender<Outgoing>>; 2],
}

impl Writers {
    pub(super) fn all(&self) -> impl Iterator<Item = &mpsc::Sender<Outgoing>> {
        self.mine
            .iter()
            .chain(&self.theirs)
            .chain([&self.control])
            .flatten()
    }
}

/// Queues a frame; a peer that does not read its stream is not waited for.
pub(super) fn send(queue: Option<&mpsc::Sender<Outgoing>>, frame: Outgoing) -> Option<SessionExit> {
    let Some(queue) = queue else {
        // The machine answers only on streams that brought something.
        return Some(SessionExit::new(
            ErrorClass::Protocol,
            "a stream was not opened in time",
        ));
    };
    match queue.try_send(frame) {
        Ok(()) => None,
        Err(mpsc::error::TrySendError::Full(_)) => Some(SessionExit::new(
            ErrorClass::Protocol,
            format!("the peer left {FRAMES_QUEUED_MAX} frames of a stream unread"),
        )),
        Err(mpsc::error::TrySendError::Closed(_)) => Some(SessionExit::new(
            ErrorClass::Disconnected,
            "a stream of the session ended",
        )),
    }
}
