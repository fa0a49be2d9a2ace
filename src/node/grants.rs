//! What peers may do here, and what they are called.
//!
//! A change is in effect when it is answered: whatever uses a grant reads it inside its own write.
//! A live session tells its peer, and who waits for work looks again.

use std::time::Duration;

use packhorse_protocol::grant::{Grant, Held, Revocation};

use crate::error::NodeError;
use crate::node::Node;
use crate::peer::{PeerInfo, Revoked};
use crate::translate::{from_store, millis, peer_info};

impl Node {
    /// Gives a peer grants, for a while or for ever; one that it holds gets the new end.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for the peer,
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for more grants than one peer may hold.
    pub async fn grant(
        &self,
        peer: &str,
        grants: Vec<Grant>,
        expires: Option<Duration>,
    ) -> Result<PeerInfo, NodeError> {
        let number = self.peer(peer).await?.number;
        let until_ms = expires.map(|expires| self.env.now_ms().saturating_add(millis(expires)));
        let held = grants.into_iter().map(|grant| Held { grant, until_ms });
        let granted = self.tree.store.grant(number, held.collect()).await;
        let record = granted.map_err(from_store)?;
        self.grants_changed(&record);
        Ok(peer_info(record, self.env.now_ms()))
    }

    /// Takes grants away from a peer, and says what it did not hold.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for the peer.
    pub async fn revoke(
        &self,
        peer: &str,
        revocations: Vec<Revocation>,
    ) -> Result<Revoked, NodeError> {
        let number = self.peer(peer).await?.number;
        let revoked = self.tree.store.revoke(number, revocations).await;
        let revoked = revoked.map_err(from_store)?;
        if !revoked.taken.is_empty() {
            self.grants_changed(&revoked.peer);
        }
        Ok(Revoked {
            peer: peer_info(revoked.peer, self.env.now_ms()),
            revoked: revoked.taken,
            missing: revoked.missing,
        })
    }

    /// Gives a peer another name here.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for the peer,
    /// [`ErrorKind::Usage`](crate::ErrorKind::Usage) for a name that is taken or none.
    pub async fn rename(&self, peer: &str, name: &str) -> Result<PeerInfo, NodeError> {
        let number = self.peer(peer).await?.number;
        let renamed = self.tree.store.rename(number, name.to_owned()).await;
        Ok(peer_info(renamed.map_err(from_store)?, self.env.now_ms()))
    }

    fn grants_changed(&self, record: &packhorse_actors::store::PeerRecord) {
        self.tree.sessions.grants_changed(record.number);
        self.tree.inbox.grants_changed();
    }
}
