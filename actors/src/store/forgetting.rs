//! What is asked of the store when a peer is forgotten, and when its identity is allowed again.
//!
//! Read [`StoreHandle::forget`], then [`StoreHandle::put_aside`], which whoever forgets calls next
//! and the retry scheduler repeats for what a crash or a lost caller left.

use packhorse_protocol::epoch::{Epoch, Lane};
use packhorse_protocol::node_id::NodeId;

use super::error::StoreError;
use super::handle::StoreHandle;
use super::tables::deny::{self, Denied};
use super::tables::forgetting::{self, Forgotten, PutAside};
use super::tables::peers::PeerNumber;
use super::view::View;

impl StoreHandle {
    /// Makes a peer none, denies its identity, and takes the tickets back that it came by. Its
    /// number and marks stay. What waits is put aside by [`Self::put_aside`].
    ///
    /// # Errors
    /// [`Refused::NoSuchPeer`](super::Refused::NoSuchPeer), and whatever ails the store.
    pub async fn forget(&self, peer: PeerNumber) -> Result<Forgotten, StoreError> {
        self.write(0, move |view| forgetting::forget(view, peer))
            .await
    }

    /// Makes what waits for a peer that was forgotten, and what it sent and nobody handled, dead
    /// letters, in jobs of bounded size; tells of each arrival that left. Repeating it is harmless.
    ///
    /// # Errors
    /// Whatever ails the store; what is left is put aside by the next call.
    pub async fn put_aside(
        &self,
        peer: PeerNumber,
        mut left: impl FnMut(Vec<u64>),
    ) -> Result<PutAside, StoreError> {
        let mut put_aside = PutAside::default();
        let lines = self
            .read(move |reader| Ok(forgetting::lines_of(reader, peer)?))
            .await?;
        let mut outgoing = Ok(());
        for (lane, epoch) in lines {
            // What one line lacks is no reason to leave the others, nor the inbox, as they are.
            if let Err(error) = self.line_aside(peer, lane, epoch, &mut put_aside).await {
                outgoing = Err(error);
            }
        }
        let mut from = Some(0);
        while let Some(start) = from {
            // INVARIANT: nothing of this peer has come in since it was forgotten.
            let job = move |view: &mut View| forgetting::incoming_page(view, peer, start);
            let (taken, next) = self.write(0, job).await?;
            from = next;
            put_aside.incoming += taken.len() as u64;
            if !taken.is_empty() {
                left(taken);
            }
        }
        outgoing?;
        self.write(0, move |view| forgetting::over(view, peer))
            .await?;
        Ok(put_aside)
    }

    async fn line_aside(
        &self,
        peer: PeerNumber,
        lane: Lane,
        epoch: Epoch,
        put_aside: &mut PutAside,
    ) -> Result<(), StoreError> {
        loop {
            let job = move |view: &mut View| forgetting::outgoing_page(view, peer, lane, epoch);
            let (count, is_empty) = self.write(0, job).await?;
            put_aside.outgoing += count;
            if is_empty {
                return Ok(());
            }
        }
    }

    /// Peers that were forgotten and of which something may be left to be put aside.
    pub async fn forgetting(&self) -> Result<Vec<PeerNumber>, StoreError> {
        self.read(|reader| Ok(forgetting::under_way(reader)?)).await
    }

    /// Whether an identity pairs no more.
    pub async fn is_denied(&self, id: NodeId) -> Result<bool, StoreError> {
        self.read(move |reader| Ok(deny::is_denied(reader, &id)?))
            .await
    }

    /// Every identity that pairs no more, the oldest entry first.
    pub async fn denied(&self) -> Result<Vec<Denied>, StoreError> {
        self.read(|reader| Ok(deny::all(reader)?)).await
    }

    /// Denies an identity that is no peer, whatever ticket it shows.
    ///
    /// # Errors
    /// [`Refused::AlreadyPaired`](super::Refused::AlreadyPaired) for a peer, which is forgotten
    /// instead, and whatever ails the store.
    pub async fn deny(&self, id: NodeId, name: String) -> Result<(), StoreError> {
        self.write(name.len(), move |view| deny::deny(view, id, &name))
            .await
    }

    /// Lets an identity pair again; `false` when it was not denied. It takes the number it had.
    ///
    /// # Errors
    /// [`Refused::StillForgetting`](super::Refused::StillForgetting) while something of it is
    /// being put aside, and whatever ails the store.
    pub async fn allow(&self, id: NodeId) -> Result<bool, StoreError> {
        self.write(0, move |view| forgetting::allow(view, &id))
            .await
    }
}
