//! The server's side of the local API: one listener, bounded connections, an end with a deadline.
//!
//! It owns the socket file while it runs and removes it when it ends.
//! It never decides whether another daemon lives: who holds the store's lock binds,
//! so a socket file that is found then was left behind by a dead one.
//!
//! Read [`Server::bind`], [`Server::start`], [`ServerHandle::drain`]: that is its life.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::api::metrics::Meter;
use crate::api::routes::{Api, router};
use crate::api::socket::SocketPath;
use crate::node::Node;

/// Connections served at once; further ones wait in the system's backlog.
pub const CONNECTIONS_MAX: usize = 256;
/// Requests that may wait for messages or events at once: half of the connections, so that
/// consumers who wait never keep a command from being answered.
pub const WAITS_MAX: usize = CONNECTIONS_MAX / 2;
/// Requests that may wait for receipts at once, beside the former: together they leave a quarter
/// of the connections to those who wait for nothing.
pub const RECEIPT_WAITS_MAX: usize = CONNECTIONS_MAX / 4;
/// How long a connection may take to send the head of its next request, idle time included.
pub const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// How long requests under way may take to end when the server drains.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// Pause after the system refused a connection, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket that serves nobody yet.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: SocketPath,
}

impl Server {
    /// Binds the socket, in place of one that a dead daemon left behind.
    ///
    /// ORDER: call it only while this process holds the lock of the data folder's store.
    pub fn bind(path: &SocketPath) -> Result<Server, BindError> {
        let bind_error = |source| BindError::Io {
            path: path.as_path().to_owned(),
            source,
        };
        remove_stale(path.as_path())?;
        let listener = UnixListener::bind(path.as_path()).map_err(bind_error)?;
        // Until this line the folder's mode, 0700, keeps others out.
        std::fs::set_permissions(path.as_path(), Permissions::from_mode(0o600))
            .map_err(bind_error)?;
        Ok(Server {
            listener,
            path: path.clone(),
        })
    }

    /// Serves the node until drained or dropped.
    #[must_use]
    pub fn start(self, node: Arc<Node>) -> ServerHandle {
        let (drain, draining) = watch::channel(false);
        let meter = Meter::after(node.newest_event());
        let router = router(Api {
            node,
            meter,
            draining: draining.clone(),
            waits: Arc::new(Semaphore::new(WAITS_MAX)),
            receipt_waits: Arc::new(Semaphore::new(RECEIPT_WAITS_MAX)),
        });
        let mut task = JoinSet::new();
        task.spawn(accept(self.listener, router, draining));
        ServerHandle {
            drain,
            task,
            path: self.path,
        }
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct ServerHandle {
    drain: watch::Sender<bool>,
    /// One task that accepts; it owns the connections.
    task: JoinSet<()>,
    path: SocketPath,
}

impl ServerHandle {
    /// Resolves when the server ended without being asked to, which only a bug can bring about.
    pub async fn ended(&mut self) -> String {
        match self.task.join_next().await {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "the accept loop returned".to_owned(),
        }
    }

    /// Takes no further request, lets those under way end within [`DRAIN_WITHIN`], and leaves.
    pub async fn drain(mut self) {
        // The file goes first: from here on commands say at once that no daemon is there.
        let _ = std::fs::remove_file(self.path.as_path());
        let _ = self.drain.send(true);
        let ended = async { while self.task.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_WITHIN, ended).await.is_err() {
            tracing::warn!("api requests were cut off when the daemon stopped");
        }
    }
}

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Something that is no socket has its name: move it away.
    #[error("{} is in the way and is no socket", path.display())]
    InTheWay {
        /// The socket's path.
        path: PathBuf,
    },
    /// The disk or its permissions.
    #[error("cannot listen on {}: {source}", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let removed = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::InTheWay {
                path: path.to_owned(),
            });
        }
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.map_err(|source| BindError::Io {
        path: path.to_owned(),
        source,
    })
}

async fn accept(listener: UnixListener, router: Router, mut draining: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            // The permit is taken before the connection, so that those who wait cost nothing.
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = begun(&mut draining) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (permit, accepted) = next => match accepted {
                Ok((stream, _)) => {
                    let connection = serve(stream, router.clone(), draining.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an api connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // The listener closes before the connections are waited for: a late client is refused, not kept.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(stream: UnixStream, router: Router, mut draining: watch::Receiver<bool>) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = begun(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // A command that was interrupted leaves like this; it is no fault of the daemon.
        tracing::debug!(%error, "an api connection ended early");
    }
}

/// Resolves when the server drains, or when its handle is gone.
async fn begun(draining: &mut watch::Receiver<bool>) {
    let _ = draining.wait_for(|draining| *draining).await;
}
