//! Two stores side by side; what one has for the other is carried over by hand, so every step can
//! be repeated, lost or cut.

use packhorse_actors::store::{PeerNumber, ReceiptId, ReceiptState, Verdict};
use packhorse_protocol::codec;
use packhorse_protocol::epoch::{Lane, Mark, Position, Refusal};
use packhorse_protocol::message::Message;
use packhorse_protocol::outbox::Inbound;
use packhorse_protocol::receipt::{Receipts, TOPIC};

use super::{Node, Place, epoch, message};

/// Carries everything that `from` has for `to` over, settles it, and tells the refusals.
pub(crate) async fn carry(
    from: &Node,
    to: &Node,
    peer: PeerNumber,
    back: PeerNumber,
    lane: Lane,
) -> Vec<Refusal> {
    let (marks, refusals) = offer(from, to, peer, back, lane).await;
    let settled = from.store.settle(peer, lane, marks, refusals.clone());
    settled.await.unwrap();
    refusals
}

/// Carries it over and loses the acknowledgement.
pub(crate) async fn offer(
    from: &Node,
    to: &Node,
    peer: PeerNumber,
    back: PeerNumber,
    lane: Lane,
) -> (Vec<Mark>, Vec<Refusal>) {
    let load = from.store.load(peer, lane, None, usize::MAX, usize::MAX);
    let (rows, _) = load.await.unwrap();
    let mut items = Vec::new();
    for row in rows {
        let Position { epoch, sequence } = row.position;
        items.push(Inbound::Base {
            epoch,
            first: sequence,
        });
        items.push(Inbound::Messages {
            epoch,
            first: sequence,
            messages: vec![Ok(row.message)],
        });
    }
    to.store.store_inbound(back, lane, items).await.unwrap()
}

/// A sender and a recipient that know each other, in memory.
pub(crate) struct Pair {
    pub(crate) sender_place: Place,
    pub(crate) recipient_place: Place,
    pub(crate) sender: Node,
    pub(crate) recipient: Node,
    /// The recipient, as the sender numbers it.
    pub(crate) peer: PeerNumber,
    /// The sender, as the recipient numbers it.
    pub(crate) back: PeerNumber,
}

impl Pair {
    pub(crate) async fn new(grants: &[&str]) -> Self {
        let (mut sender_place, mut recipient_place) = (Place::memory(1), Place::memory(2));
        let (sender, recipient) = (sender_place.open(), recipient_place.open());
        let peer = sender.pair(2, &[]).await;
        let back = recipient.pair(3, grants).await;
        Self {
            sender_place,
            recipient_place,
            sender,
            recipient,
            peer,
            back,
        }
    }

    /// Sends messages all the way into the inbox.
    pub(crate) async fn send(&self, texts: &[&str]) -> Vec<ReceiptId> {
        let accepted = self.sender.accept(self.peer, texts).await;
        self.there(Lane::User).await;
        accepted.iter().map(|accepted| accepted.id).collect()
    }

    pub(crate) async fn there(&self, lane: Lane) -> Vec<Refusal> {
        carry(&self.sender, &self.recipient, self.peer, self.back, lane).await
    }

    /// Carries the recipient's reports to the sender.
    pub(crate) async fn reports(&self) -> Vec<Refusal> {
        carry(
            &self.recipient,
            &self.sender,
            self.back,
            self.peer,
            Lane::System,
        )
        .await
    }

    pub(crate) async fn state(&self, id: &ReceiptId) -> ReceiptState {
        self.sender.store.receipt(*id).await.unwrap().unwrap().state
    }

    pub(crate) async fn states(&self, ids: &[ReceiptId]) -> Vec<ReceiptState> {
        let mut states = Vec::new();
        for id in ids {
            states.push(self.state(id).await);
        }
        states
    }

    pub(crate) async fn arrivals(&self) -> Vec<u64> {
        let listing = self.recipient.store.inbox_list(usize::MAX).await.unwrap();
        listing.rows.iter().map(|row| row.arrival).collect()
    }

    /// How many reports wait at the recipient.
    pub(crate) fn reports_waiting(&self) -> u64 {
        let counts = self.recipient.store.outbox_counts(self.back);
        let waiting = counts.borrow().waiting;
        waiting[Lane::System.index()]
    }

    /// Hands a report to the sender as if the recipient had made it.
    pub(crate) async fn report(&self, sequence: u64, message: Message) -> Vec<Refusal> {
        let items = vec![Inbound::Messages {
            epoch: epoch(9, 9),
            first: sequence,
            messages: vec![Ok(message)],
        }];
        let stored = self
            .sender
            .store
            .store_inbound(self.peer, Lane::System, items);
        stored.await.unwrap().1
    }
}

pub(crate) fn report_of(receipts: &Receipts) -> Message {
    let mut message = message("");
    message.topic = TOPIC.into();
    message.payload = codec::encode_receipts(receipts);
    message
}

pub(crate) fn failed(reason: &str) -> Verdict {
    Verdict::Failed {
        reason: reason.into(),
        output: vec![],
    }
}
