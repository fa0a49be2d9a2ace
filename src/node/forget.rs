//! Forgetting peers, and lifting the denial that this leaves.

use packhorse_actors::store::PeerNumber;

use crate::NodeId;
use crate::error::{ErrorKind, NodeError};
use crate::node::Node;
use crate::peer::{Denied, Forgotten};
use crate::time::WallTime;
use crate::translate::from_store;

impl Node {
    /// Forgets a peer: its session ends, its identity pairs no more, whatever ticket it shows, and
    /// what waits for it or came from it becomes dead letters. Its number and marks stay.
    ///
    /// When this is cut off after it began, the node goes on with it by itself within a minute.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer, and whatever ails the store.
    pub async fn forget(&self, peer: &str) -> Result<Forgotten, NodeError> {
        let number = self.peer(peer).await?.number;
        let forgotten = self.tree.store.forget(number).await.map_err(from_store)?;
        // ORDER: after the commit, so that whoever looks now finds no peer.
        self.tree.sessions.forgotten(number);
        self.tree.retry.removed(number);
        let ephemeral = self.tree.inbox.drop_ephemeral_of(number);
        if let Some(seen) = &forgotten.peer.seen_from {
            self.tree.forget_origin(seen).await;
        }
        let put_aside = self.put_aside(number).await?;
        Ok(Forgotten {
            name: forgotten.peer.name,
            id: forgotten.peer.id,
            tickets: forgotten.tickets,
            outgoing: put_aside.outgoing,
            incoming: put_aside.incoming,
            ephemeral,
        })
    }

    async fn put_aside(
        &self,
        peer: PeerNumber,
    ) -> Result<packhorse_actors::store::PutAside, NodeError> {
        let inbox = &self.tree.inbox;
        let store = &self.tree.store;
        store
            .put_aside(peer, |arrivals| inbox.left(arrivals))
            .await
            .map_err(from_store)
    }

    /// Identities that pair no more, the oldest entry first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn denied(&self) -> Result<Vec<Denied>, NodeError> {
        let denied = self.tree.store.denied().await.map_err(from_store)?;
        Ok(denied
            .into_iter()
            .map(|denied| Denied {
                id: denied.id,
                name: denied.name,
                at: WallTime(denied.at_ms),
            })
            .collect())
    }

    /// Lets an identity pair again. It is no peer by that: it needs a ticket as any stranger.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not denied, [`ErrorKind::Refused`] while what is left of
    /// it is still being put aside.
    pub async fn allow(&self, id: NodeId) -> Result<(), NodeError> {
        if self.tree.store.allow(id).await.map_err(from_store)? {
            return Ok(());
        }
        Err(
            NodeError::new(ErrorKind::NotFound, format!("{id} is not denied here"))
                .with_hint("packhorse peers denied"),
        )
    }
}
