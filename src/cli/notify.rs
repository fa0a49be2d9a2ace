//! What a service manager is told: ready, a status line, signs of life, stopping.
//!
//! The protocol is systemd's: datagrams to the socket that `NOTIFY_SOCKET` names; without that
//! variable nothing here does anything.
//! A sign of life follows the tree's own answer, never a timer alone: a daemon whose store or
//! inbox hangs falls silent, and the manager restarts it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use packhorse::{Node, PeerState};
use sd_notify::NotifyState;
use tokio::task::JoinSet;

/// How often the status line is renewed where no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// A watchdog that asks for more than this is served at this pace.
const BEAT_MIN: Duration = Duration::from_millis(50);
/// A manager that does not take a datagram for so long is not waited for.
const TELL_WITHIN: Duration = Duration::from_secs(1);

/// Speaks to the service manager while the node runs; its end stops the signs of life.
#[derive(Debug)]
pub(crate) struct Notifier {
    is_asked: bool,
    beats: JoinSet<()>,
}

impl Notifier {
    pub(crate) fn new() -> Notifier {
        Notifier {
            is_asked: std::env::var_os("NOTIFY_SOCKET").is_some(),
            beats: JoinSet::new(),
        }
    }

    /// Says that the node serves, and begins with status lines and signs of life.
    pub(crate) async fn ready(&mut self, node: Arc<Node>) {
        if !self.is_asked {
            return;
        }
        let status = status_line(&node).await;
        tell(move || sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)])).await;
        let watchdog = sd_notify::watchdog_enabled();
        self.beats.spawn(beat(node, watchdog));
    }

    /// Says that the node stops: from here on silence is no fault.
    pub(crate) async fn stopping(&mut self) {
        self.beats.shutdown().await;
        if self.is_asked {
            let status = NotifyState::Status("stopping");
            tell(move || sd_notify::notify(&[NotifyState::Stopping, status])).await;
        }
    }
}

async fn beat(node: Arc<Node>, watchdog: Option<Duration>) {
    // Half of the limit, as systemd recommends: one late sign of life is no reason for a restart.
    let every = watchdog.map_or(STATUS_EVERY, |limit| {
        (limit / 2).clamp(BEAT_MIN, STATUS_EVERY)
    });
    loop {
        // The pulse may use up the whole period, which is the pause as well.
        let pause = tokio::time::sleep(every);
        match node.pulse(every).await {
            Ok(()) => {
                let status = status_line(&node).await;
                tell(move || {
                    let status = NotifyState::Status(&status);
                    match watchdog {
                        Some(_) => sd_notify::notify(&[NotifyState::Watchdog, status]),
                        None => sd_notify::notify(&[status]),
                    }
                })
                .await;
            }
            Err(error) => {
                tracing::warn!(%error, "no sign of life is given: the node is stuck");
                let status = format!("stuck: {error}");
                tell(move || sd_notify::notify(&[NotifyState::Status(&status)])).await;
            }
        }
        pause.await;
    }
}

/// The node in one line, as `systemctl status` shows it.
async fn status_line(node: &Node) -> String {
    let Ok(status) = node.status().await else {
        return "the store does not answer".to_owned();
    };
    let peers = status.peers.len();
    let connected = status
        .peers
        .iter()
        .filter(|peer| peer.state == PeerState::Connected)
        .count();
    let waiting: u64 = status.peers.iter().map(|peer| peer.outbox).sum();
    format!("{connected} of {peers} peers connected, {waiting} messages wait")
}

/// Sending blocks while the manager's queue is full, so it is done beside the runtime.
async fn tell(say: impl FnOnce() -> io::Result<()> + Send + 'static) {
    let told = tokio::task::spawn_blocking(say);
    match tokio::time::timeout(TELL_WITHIN, told).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the service manager was not told"),
        Ok(Err(_)) | Err(_) => tracing::warn!("the service manager does not listen"),
    }
}
