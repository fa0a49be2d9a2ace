//! What the rest of the node may hand to a live session.
//!
//! An outlet is made with the session and dies with it: what is offered to the outlet of a session
//! that is over is refused, never kept for the next one.
//! Both queues are bounded, and a full one answers at once.

use tokio::sync::{mpsc, oneshot};

use super::ephemeral::{EphemeralQueue, Waiting};
use super::ping::Ping;

/// Questions that wait for the driver; it takes them between two frames.
const ASKS_MAX: usize = 64;

/// What the driver is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// Measure a round trip.
    Ping(oneshot::Sender<Ping>),
    /// The network or the wall clock changed: show that the peer still hears this node.
    ProveAlive,
    /// What the peer may do here was changed: tell it.
    TellGrants,
    /// What others should dial changed: tell the peer.
    TellAddresses,
}

/// Ways into a live session; clones lead into the same one.
#[derive(Clone, Debug)]
pub struct Outlet {
    asks: mpsc::Sender<Ask>,
    pub(super) ephemeral: EphemeralQueue,
}

/// The session's end of its outlet.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) ephemeral: mpsc::Receiver<Waiting>,
}

impl Outlet {
    /// Both ends.
    pub(super) fn new() -> (Self, Inlet) {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let (queue, ephemeral) = EphemeralQueue::new();
        let outlet = Self {
            asks,
            ephemeral: queue,
        };
        let inlet = Inlet {
            asks: asked,
            ephemeral,
        };
        (outlet, inlet)
    }

    /// Asks the driver; a session that does not get round to its questions is not asked more.
    pub(super) fn ask(&self, ask: Ask) {
        let _ = self.asks.try_send(ask);
    }
}
