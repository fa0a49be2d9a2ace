//! Where peers are dialled, and when: what somebody here says about it.

use crate::error::{ErrorKind, NodeError};
use crate::node::Node;
use crate::peer::{Keep, PeerInfo};
use crate::settings::Advertised;
use crate::translate::{from_store, peer_info};

impl Node {
    /// Adds an address at which a peer is dialled before those it announces, and dials it now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer, [`ErrorKind::Usage`] for one address too many.
    pub async fn add_address(
        &self,
        peer: &str,
        address: &Advertised,
    ) -> Result<PeerInfo, NodeError> {
        let number = self.peer(peer).await?.number;
        let store = &self.tree.store;
        let record = store
            .add_own_address(number, address.hint())
            .await
            .map_err(from_store)?;
        self.tree.retry.wake(Some(number));
        Ok(peer_info(record, self.env.now_ms()))
    }

    /// Takes such an address back. A session that lives over it goes on.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer, and for an address that was not added here.
    pub async fn remove_address(
        &self,
        peer: &str,
        address: &Advertised,
    ) -> Result<PeerInfo, NodeError> {
        let record = self.peer(peer).await?;
        let store = &self.tree.store;
        let removed = store
            .remove_own_address(record.number, address.hint())
            .await
            .map_err(from_store)?;
        match removed {
            Some(record) => Ok(peer_info(record, self.env.now_ms())),
            None => Err(NodeError::new(
                ErrorKind::NotFound,
                format!("`{address}` was not added here for `{}`", record.name),
            )),
        }
    }

    /// Says when a link to a peer is kept; it counts at once.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer.
    pub async fn keep(&self, peer: &str, keep: Keep) -> Result<PeerInfo, NodeError> {
        let number = self.peer(peer).await?.number;
        let record = self
            .tree
            .store
            .set_keep(number, keep.into())
            .await
            .map_err(from_store)?;
        self.tree.retry.kept(number);
        Ok(peer_info(record, self.env.now_ms()))
    }

    /// What others are told to dial, as `quic://HOST:PORT`.
    #[must_use]
    pub fn advertise(&self) -> Vec<String> {
        self.tree.me.announced.current()
    }
}
