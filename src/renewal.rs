//! Another identity over the same store: what a copied machine needs.
//!
//! It takes the store's lock, so no daemon runs meanwhile; opening the store for it is a boot as any
//! other. What only the recipients could have told becomes letters first, because they know the new
//! identity as another peer; then the identity file is written. The store learns of it at its next
//! start.

use std::path::{Path, PathBuf};

use packhorse_actors::env::Env;
use packhorse_actors::store::{OpenError, Opened, Store, StoreConfig};

use crate::NodeId;
use crate::identity::{Change, Passphrase};
use crate::peer::PeerInfo;
use crate::start::StartError;
use crate::translate::{from_store, peer_info};

/// What became of the identity.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Renewal {
    /// Who the node was.
    pub old: NodeId,
    /// Who it is from now on.
    pub new: NodeId,
    /// Where the old identity file is kept.
    pub kept: PathBuf,
    /// Who has to be paired with again, by name.
    pub peers: Vec<PeerInfo>,
    /// Messages that wait for them, and go out once they are paired again.
    pub waiting: u64,
    /// Messages and letters that may have been delivered under the old identity, and are letters.
    pub unanswered: u64,
}

/// Gives the node of a data folder a new identity. The passphrase opens the old file and seals the
/// new one.
///
/// # Errors
/// [`StartError`]; the identity is the old one then. The store is locked while a daemon runs.
pub async fn renew(data_dir: &Path, passphrase: Option<Passphrase>) -> Result<Renewal, StartError> {
    let folder = data_dir.to_owned();
    let opening = tokio::task::spawn_blocking(move || {
        let change = Change::begin(&folder)?;
        let file = change.file()?;
        let passphrase = passphrase.filter(|_| file.is_sealed());
        let identity = file.unlock(passphrase.as_ref())?;
        let config = StoreConfig::new(
            &folder,
            identity.id(),
            *identity.store_secret(),
            Env::system(),
        );
        let store = Store::open(&config)?;
        Ok::<_, StartError>((change, identity, passphrase, store))
    });
    let panicked = |error: tokio::task::JoinError| StartError::Panicked(error.to_string());
    let (change, identity, passphrase, store) = opening.await.map_err(panicked)??;
    let started = store.start_writer().map_err(|source| OpenError::Io {
        what: "start the thread that writes".to_owned(),
        source,
    });
    let mut writer = started?;
    // CRASH: behind this the old identity goes on, and these letters stay as they are.
    let left = store.handle().leave_identity().await;
    let (mut peers, waiting) = look(&store).await;
    writer.stop();
    writer.ended().await;
    let unanswered = left.map_err(from_store)?;
    peers.sort_by(|one, two| one.name.cmp(&two.name));
    let old = identity.id();
    let writing = tokio::task::spawn_blocking(move || {
        let renewed = identity.renewed()?;
        // ORDER: written while the store is locked, so no daemon runs under the old identity.
        let kept = change.renew(old, &renewed, passphrase.as_ref())?;
        if let Err(error) = store.close() {
            tracing::warn!(%error, "the store was not closed cleanly");
        }
        Ok::<_, StartError>((renewed.id(), kept))
    });
    let (new, kept) = writing.await.map_err(panicked)??;
    Ok(Renewal {
        old,
        new,
        kept,
        peers,
        waiting,
        unanswered,
    })
}

/// What is shown; a store that cannot be read keeps nobody from taking a new identity.
async fn look(store: &Opened) -> (Vec<PeerInfo>, u64) {
    let handle = store.handle();
    let peers = handle.peers().await.unwrap_or_default();
    let waiting = handle.outbox_list(0).await.map_or(0, |list| list.total);
    let now_ms = Env::system().now_ms();
    let peers = peers.into_iter().map(|peer| peer_info(peer, now_ms));
    (peers.collect(), waiting)
}
