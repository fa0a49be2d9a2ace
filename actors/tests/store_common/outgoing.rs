//! What the tests of outgoing messages share: messages with limits, and short ways to ask.

use packhorse_actors::store::{
    DeadLetter, DeadState, Filter, NewMessage, PeerNumber, PeerRecord, ReceiptId, ReceiptState,
};
use packhorse_protocol::epoch::{Epoch, Lane, Mark};
use packhorse_protocol::message::DeliveryClass;

use super::{Node, keyed, message, new};

pub(crate) const SECOND: u64 = 1_000;
pub(crate) const HOUR: u64 = 3_600 * SECOND;
pub(crate) const BORN: u64 = 1_750_000_000_000;

pub(crate) fn moderate(text: &str, born_ms: u64) -> NewMessage {
    let mut message = message(text);
    message.class = DeliveryClass::Moderate;
    message.born_ms = born_ms;
    NewMessage::new(message)
}

pub(crate) fn expiring(text: &str, expires_ms: u64) -> NewMessage {
    NewMessage {
        expires_ms: Some(expires_ms),
        ..new(text)
    }
}

pub(crate) fn replacing(text: &str, key: &str) -> NewMessage {
    NewMessage {
        replace: true,
        ..keyed(text, key)
    }
}

impl Node {
    pub(crate) async fn send(&self, peer: PeerNumber, new: NewMessage) -> ReceiptId {
        let sent = self.store.accept(peer, Lane::User, vec![new]).await;
        sent.unwrap()[0].id
    }

    pub(crate) async fn fail(&self, peer: PeerNumber, times: u32) {
        let change = move |peer: &mut PeerRecord| peer.failures += times;
        self.store.update_peer(peer, change).await.unwrap();
    }

    pub(crate) async fn given_up(&self, peer: PeerNumber) -> u64 {
        self.store.sweep(peer).await.unwrap().given_up
    }

    pub(crate) async fn letters(&self) -> Vec<DeadLetter> {
        let listing = self.store.dead_letters(Filter::default(), 99).await;
        let listing = listing.unwrap();
        assert_eq!(listing.total, listing.rows.len() as u64);
        listing.rows
    }

    pub(crate) async fn states(&self) -> Vec<(String, DeadState)> {
        let letters = self.letters().await.into_iter();
        let text = |letter: &DeadLetter| letter.message.clone().unwrap().payload;
        letters
            .map(|letter| (String::from_utf8(text(&letter)).unwrap(), letter.state))
            .collect()
    }

    pub(crate) async fn open_session(&self, peer: PeerNumber, epoch: Epoch, settled: u64) {
        let marks = vec![Mark { epoch, settled }];
        let opening = self.store.settle_opening(peer, Lane::User, marks, vec![]);
        opening.await.unwrap();
    }

    pub(crate) async fn acknowledge(&self, peer: PeerNumber, epoch: Epoch, settled: u64) {
        let marks = vec![Mark { epoch, settled }];
        let settle = self.store.settle(peer, Lane::User, marks, vec![]);
        settle.await.unwrap();
    }

    pub(crate) async fn drop_rows(&self, ids: Vec<ReceiptId>) -> u64 {
        self.store
            .outbox_drop(Filter::default(), ids)
            .await
            .unwrap()
    }

    pub(crate) async fn state(&self, id: ReceiptId) -> ReceiptState {
        self.store.receipt(id).await.unwrap().unwrap().state
    }

    pub(crate) async fn total(&self) -> u64 {
        self.store.outbox_list(0).await.unwrap().total
    }
}
