//! Where a peer is dialled: what somebody here said, and what the peer says.
//!
//! The two lists never touch each other. How often the list of own addresses may be added to is
//! checked in the job that writes.

use packhorse_protocol::text;

use super::error::{Refused, StoreError};
use super::handle::StoreHandle;
use super::tables::peers::{self, Keep, PeerNumber, PeerRecord};

impl StoreHandle {
    /// Adds an address behind the own ones of a peer. One that is there already stays where it is.
    ///
    /// # Errors
    /// One more than the limit, or an address over its limits.
    pub async fn add_own_address(
        &self,
        number: PeerNumber,
        address: String,
    ) -> Result<PeerRecord, StoreError> {
        self.write(address.len(), move |view| {
            let before = peers::live(view, number)?.ok_or(Refused::NoSuchPeer(number))?;
            let mut after = before.clone();
            if !after.own_addresses.contains(&address) {
                after.own_addresses.push(address);
            }
            text::check_addresses(&after.own_addresses).map_err(Refused::Text)?;
            peers::put(view, &before, &after)?;
            Ok(after)
        })
        .await
    }

    /// Takes an address from the own ones of a peer; `None` when it was not there.
    ///
    /// # Errors
    /// No such peer.
    pub async fn remove_own_address(
        &self,
        number: PeerNumber,
        address: String,
    ) -> Result<Option<PeerRecord>, StoreError> {
        self.write(0, move |view| {
            let before = peers::live(view, number)?.ok_or(Refused::NoSuchPeer(number))?;
            let mut after = before.clone();
            after.own_addresses.retain(|own| *own != address);
            peers::put(view, &before, &after)?;
            Ok((after != before).then_some(after))
        })
        .await
    }

    /// Says when a link to a peer is kept.
    ///
    /// # Errors
    /// No such peer.
    pub async fn set_keep(&self, number: PeerNumber, keep: Keep) -> Result<PeerRecord, StoreError> {
        self.update_peer(number, move |record| record.keep = keep)
            .await
    }

    /// Notes where a peer says that it is to be dialled. An empty list takes nothing back.
    /// What it said before, if that was something else.
    ///
    /// # Errors
    /// No such peer.
    pub(crate) async fn peer_announces(
        &self,
        number: PeerNumber,
        addresses: Vec<String>,
    ) -> Result<Option<Vec<String>>, StoreError> {
        self.write(0, move |view| {
            let before = peers::live(view, number)?.ok_or(Refused::NoSuchPeer(number))?;
            if addresses.is_empty() || before.addresses == addresses {
                return Ok(None);
            }
            let mut after = before.clone();
            after.addresses = addresses;
            peers::put(view, &before, &after)?;
            Ok(Some(before.addresses))
        })
        .await
    }
}
