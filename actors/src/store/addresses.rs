//! Where a peer is dialled: what somebody here said, and what the peer says.
//!
//! The two lists never touch each other. How often the list of own addresses may be added to is
//! checked in the job that writes.
//!
//! Behind what a peer announces now stands what it announced before, until it was met where it says
//! that it is: its word about itself may be wrong, or that of a copy which is gone again.

use packhorse_protocol::text;

use super::error::{Refused, StoreError};
use super::handle::StoreHandle;
use super::tables::peers::{self, Keep, PeerNumber, PeerRecord};

/// Former addresses of a peer that are dialled behind the announced ones. They may be somebody
/// else's by now, so they are few.
pub(crate) const FORMER_ADDRESSES_MAX: usize = 4;

impl PeerRecord {
    /// Takes what the peer announces now; what it announced before stays behind it, the latest
    /// first. An empty list takes nothing back. Whether it is to be dialled elsewhere than before.
    pub(crate) fn announces(&mut self, said: &[String]) -> bool {
        if said.is_empty() {
            return false;
        }
        let is_elsewhere = !self.addresses.starts_with(said);
        let former = self.addresses.iter().filter(|known| !said.contains(known));
        let former = former.take(FORMER_ADDRESSES_MAX);
        self.addresses = said.iter().chain(former).cloned().collect();
        is_elsewhere
    }

    /// A dial has met the peer at an address, here as each of the hints that name it. Where that is
    /// one that the peer announces now, the former ones have served.
    ///
    /// Not while two machines show its identity: meeting one of them says nothing of the other.
    pub(crate) fn was_met(&mut self, said: &[String], at: &[String]) {
        if self.trouble.is_none() && said.iter().any(|said| at.contains(said)) {
            self.addresses = said.to_vec();
        }
    }
}

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
    /// Where it was dialled before, if that was elsewhere.
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
            let mut after = before.clone();
            let is_elsewhere = after.announces(&addresses);
            peers::put(view, &before, &after)?;
            Ok(is_elsewhere.then_some(before.addresses))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use packhorse_protocol::identity::IdentityKey;

    use super::*;
    use crate::store::tables::peers::Noted;

    fn peer(addresses: &[&str]) -> PeerRecord {
        let id = IdentityKey::from_seed(&[1; 32]).id();
        PeerRecord {
            addresses: texts(addresses),
            ..PeerRecord::new(PeerNumber(1), id, "peer", 1)
        }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn former_addresses_stay_behind_the_announced_ones_the_latest_first_and_few() {
        let mut peer = peer(&["a"]);
        assert!(!peer.announces(&[]), "nothing is said");
        assert!(!peer.announces(&texts(&["a"])), "the same is said");
        assert_eq!(peer.addresses, ["a"]);
        assert!(peer.announces(&texts(&["b", "c"])));
        assert_eq!(peer.addresses, ["b", "c", "a"]);
        assert!(peer.announces(&texts(&["a"])));
        assert_eq!(peer.addresses, ["a", "b", "c"]);
        assert!(peer.announces(&texts(&["d", "e", "f", "g"])));
        assert_eq!(peer.addresses, ["d", "e", "f", "g", "a", "b", "c"]);
        assert!(peer.announces(&texts(&["h", "i", "j", "k"])));
        let all = ["h", "i", "j", "k", "d", "e", "f", "g"];
        assert_eq!(peer.addresses, all, "no more of them than the limit");
        assert!(!peer.announces(&texts(&["h", "i", "j", "k"])));
        assert_eq!(peer.addresses, all);
    }

    #[test]
    fn former_addresses_go_once_the_peer_was_met_where_it_says_that_it_is() {
        let said = texts(&["b", "c"]);
        let mut peer = peer(&["b", "c", "a"]);
        peer.was_met(&said, &texts(&["a"]));
        peer.was_met(&[], &texts(&["a"]));
        assert_eq!(peer.addresses, ["b", "c", "a"], "met at a former one");
        // Two machines show its identity: the other one may be there.
        let (text, at_ms) = ("a copy".to_owned(), 1);
        peer.trouble = Some(Noted { text, at_ms });
        peer.was_met(&said, &texts(&["c"]));
        assert_eq!(peer.addresses, ["b", "c", "a"]);
        peer.trouble = None;
        peer.was_met(&said, &texts(&["name", "c"]));
        assert_eq!(peer.addresses, said);
    }
}
