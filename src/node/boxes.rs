//! What a person does with messages that wait or were given up: look, drop, hurry, retry.
//!
//! Everything here is by hand; no message depends on it. What is dropped from the outbox becomes a
//! dead letter first, so that only `dead drop` ends a message for good.

use std::collections::{BTreeMap, BTreeSet};

use packhorse_actors::store::{
    self, DeadInLetter, DeadLetter, Filter, Keep, OutboxRow, PeerNumber, PeerRecord, Refused,
    StoreError, Whereabouts,
};
use packhorse_protocol::epoch::Lane;

use crate::dead::{
    DeadDirection, DeadListing, DeadMessage, DeadState, Retried, RetriedMessage, Selection,
};
use crate::error::{ErrorKind, NodeError};
use crate::listing::{ListedMessage, Listing, Payload};
use crate::node::Node;
use crate::receipt::ReceiptState;
use crate::time::WallTime;
use crate::translate::{bare_reason, dead_state, from_store, listed, public_id, stored_id};
use crate::{NodeId, ReceiptId, receipt_id};

/// Dead letters read at once while all that match are dealt with: few enough that their payloads
/// of up to 1 MiB do no harm.
const DEAD_STEP: usize = 64;
/// Retried letters that an answer names; the rest is only counted.
const RETRIED_SHOWN_MAX: usize = 1_000;

/// What a dead letter is that the nodes had for each other.
const REPORT: &str = "a report on handled messages";

type Peers = BTreeMap<PeerNumber, PeerRecord>;

impl Node {
    /// The oldest messages that wait for their recipients.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn outbox(&self, limit: usize) -> Result<Listing, NodeError> {
        self.outbox_of(&Selection::default(), limit).await
    }

    /// The oldest of those that match; ids are not looked at.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer.
    pub async fn outbox_of(
        &self,
        selection: &Selection,
        limit: usize,
    ) -> Result<Listing, NodeError> {
        let filter = self.filter(selection).await?;
        let listing = self
            .tree
            .store
            .outbox_list_of(filter, limit)
            .await
            .map_err(from_store)?;
        let peers = self.peers_by_number().await?;
        let messages = listing
            .rows
            .into_iter()
            .map(|row| waiting(self.id, &peers, row));
        Ok(Listing {
            total: listing.total,
            messages: messages.collect(),
        })
    }

    /// Makes waiting messages dead letters: these, or without ids all that match.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer or an id that this node never gave out.
    pub async fn outbox_drop(&self, selection: &Selection) -> Result<u64, NodeError> {
        let filter = self.filter(selection).await?;
        let ids = self.stored_ids(&selection.ids).await?;
        self.tree
            .store
            .outbox_drop(filter, ids)
            .await
            .map_err(from_store)
    }

    /// Dials a peer now, or every one for which something waits, whatever was planned.
    ///
    /// Returns their names.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer.
    pub async fn flush(&self, peer: Option<&str>) -> Result<Vec<String>, NodeError> {
        if let Some(peer) = peer {
            let record = self.peer(peer).await?;
            if record.keep == Keep::Never {
                return Err(NodeError::new(
                    ErrorKind::Refused,
                    format!("`{}` is never dialled from here", record.name),
                )
                .with_hint(format!("packhorse peers keep {} auto", record.name)));
            }
            self.tree.retry.wake(Some(record.number));
            return Ok(vec![record.name]);
        }
        let waiting = self.tree.store.waiting_peers();
        self.tree.retry.wake(None);
        let peers = self.peers_by_number().await?;
        let mut names: Vec<_> = waiting
            .iter()
            .filter_map(|number| peers.get(number))
            .filter(|peer| peer.keep != Keep::Never)
            .map(|peer| peer.name.clone())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Dead letters that match: first those that were going out, then those that had come in.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer.
    pub async fn dead(
        &self,
        selection: &Selection,
        direction: Option<DeadDirection>,
        limit: usize,
    ) -> Result<DeadListing, NodeError> {
        let filter = self.filter(selection).await?;
        let peers = self.peers_by_number().await?;
        let mut listing = DeadListing::default();
        if direction != Some(DeadDirection::In) {
            let letters = self.dead_out(&filter, limit).await?;
            listing.total += letters.total;
            let letters = letters.rows.into_iter();
            listing
                .messages
                .extend(letters.map(|letter| dead_out(self.id, &peers, letter)));
        }
        if direction != Some(DeadDirection::Out) {
            let left = limit.saturating_sub(listing.messages.len());
            let letters = self.dead_in(&filter, left).await?;
            listing.total += letters.total;
            let letters = letters.rows.into_iter();
            listing
                .messages
                .extend(letters.map(|letter| dead_in(self.id, &peers, letter)));
        }
        Ok(listing)
    }

    /// Takes dead letters up again: these, or without ids all that match.
    ///
    /// One that was going out is accepted anew under a new receipt.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer or an id that names no dead letter,
    /// [`ErrorKind::Refused`] for one of which it is not known whether it was delivered, and while
    /// the node drains.
    pub async fn dead_retry(&self, selection: &Selection) -> Result<Retried, NodeError> {
        self.check_admission()?;
        let mut retried = Retried::default();
        for id in &selection.ids {
            if id.recipient == receipt_id::tag(self.id) {
                self.retry_in(&self.find_dead_in(id).await?).await?;
                count_retried(&mut retried, *id, *id);
                continue;
            }
            let stored = self.stored_id(id).await?;
            let accepted = self
                .tree
                .store
                .dead_retry(stored)
                .await
                .map_err(|error| letter_error(error, id))?;
            count_retried(&mut retried, *id, public(*id, accepted.id));
        }
        if selection.ids.is_empty() {
            let filter = self.filter(selection).await?;
            self.retry_all(&filter, &mut retried).await?;
            self.retry_all_in(&filter, &mut retried).await?;
        }
        Ok(retried)
    }

    async fn retry_all_in(&self, filter: &Filter, retried: &mut Retried) -> Result<(), NodeError> {
        let begun_ms = self.env.now_ms();
        // What is given up again meanwhile is another letter; chasing it might never end.
        let mut later = 0;
        loop {
            let before = retried.retried;
            let letters = self.dead_in(filter, DEAD_STEP + later).await?.rows;
            later = letters
                .iter()
                .filter(|letter| letter.at_ms > begun_ms)
                .count();
            for letter in letters {
                if letter.at_ms > begun_ms {
                    continue;
                }
                let id = arrived_id(self.id, &letter);
                match self.retry_in(&letter).await {
                    Ok(()) => count_retried(retried, id, id),
                    // Somebody else was faster.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            if retried.retried == before {
                return Ok(());
            }
        }
    }

    async fn retry_in(&self, letter: &DeadInLetter) -> Result<(), NodeError> {
        let (peer, lane, position) = (letter.peer, letter.lane, letter.position);
        let retried = self.tree.store.dead_in_retry(peer, lane, position).await;
        retried.map_err(|error| letter_error(error, &arrived_id(self.id, letter)))
    }

    async fn drop_in(&self, letter: &DeadInLetter) -> Result<(), NodeError> {
        let (peer, lane, position) = (letter.peer, letter.lane, letter.position);
        let dropped = self.tree.store.dead_in_drop(peer, lane, position).await;
        dropped.map_err(|error| letter_error(error, &arrived_id(self.id, letter)))
    }

    /// A letter that had come in; its name does not say from whom.
    async fn find_dead_in(&self, id: &ReceiptId) -> Result<DeadInLetter, NodeError> {
        let found = self.tree.store.inbox_find(None, id.position).await;
        match found.map_err(from_store)? {
            Some(Whereabouts::Dead(letter)) => Ok(letter),
            _ => Err(no_letter(id)),
        }
    }

    async fn retry_all(&self, filter: &Filter, retried: &mut Retried) -> Result<(), NodeError> {
        let peers = self.peers_by_number().await?;
        let begun_ms = self.env.now_ms();
        // What cannot be retried stays where it is, so it is read again with every page.
        let mut left_alone = BTreeSet::new();
        loop {
            let page = DEAD_STEP + left_alone.len();
            let letters = self.dead_out(filter, page).await?.rows;
            // What is given up again meanwhile is another letter; chasing it might never end.
            let later = letters.iter().filter(|letter| letter.at_ms > begun_ms);
            let skipped = left_alone.len();
            left_alone.extend(later.map(|letter| letter.id));
            let fresh: Vec<_> = letters
                .into_iter()
                .map(|letter| letter.id)
                .filter(|id| !left_alone.contains(id))
                .collect();
            if fresh.is_empty() && left_alone.len() == skipped {
                return Ok(());
            }
            for stored in fresh {
                let recipient = peers.get(&stored.peer).map_or(self.id, |peer| peer.id);
                match self.tree.store.dead_retry(stored).await {
                    Ok(accepted) => count_retried(
                        retried,
                        public_id(recipient, stored),
                        public_id(recipient, accepted.id),
                    ),
                    Err(StoreError::Refused(Refused::Unsettled { .. })) => {
                        retried.unsettled += 1;
                        left_alone.insert(stored);
                    }
                    Err(StoreError::Refused(Refused::LetterDamaged { .. })) => {
                        retried.damaged += 1;
                        left_alone.insert(stored);
                    }
                    Err(StoreError::Refused(Refused::NoSuchPeer(_))) => {
                        retried.forgotten += 1;
                        left_alone.insert(stored);
                    }
                    // Somebody else was faster.
                    Err(StoreError::Refused(Refused::NoSuchLetter { .. })) => {
                        left_alone.insert(stored);
                    }
                    Err(error) => return Err(from_store(error)),
                }
            }
        }
    }

    /// Deletes dead letters for good: these, or without ids all that match.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer or an id that names no dead letter.
    pub async fn dead_drop(&self, selection: &Selection) -> Result<u64, NodeError> {
        let mut dropped = 0;
        for id in &selection.ids {
            if id.recipient == receipt_id::tag(self.id) {
                self.drop_in(&self.find_dead_in(id).await?).await?;
                dropped += 1;
                continue;
            }
            let stored = self.stored_id(id).await?;
            self.tree
                .store
                .dead_drop(stored)
                .await
                .map_err(|error| letter_error(error, id))?;
            dropped += 1;
        }
        if !selection.ids.is_empty() {
            return Ok(dropped);
        }
        let filter = self.filter(selection).await?;
        loop {
            let before = dropped;
            for letter in self.dead_out(&filter, DEAD_STEP).await?.rows {
                match self.tree.store.dead_drop(letter.id).await {
                    Ok(()) => dropped += 1,
                    Err(StoreError::Refused(Refused::NoSuchLetter { .. })) => {}
                    Err(error) => return Err(from_store(error)),
                }
            }
            // Nothing is left, or nothing that can be dropped.
            if dropped == before {
                break;
            }
        }
        loop {
            let before = dropped;
            for letter in self.dead_in(&filter, DEAD_STEP).await?.rows {
                match self.drop_in(&letter).await {
                    Ok(()) => dropped += 1,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            if dropped == before {
                return Ok(dropped);
            }
        }
    }

    async fn dead_in(
        &self,
        filter: &Filter,
        limit: usize,
    ) -> Result<store::Listing<DeadInLetter>, NodeError> {
        self.tree
            .store
            .dead_in(filter.clone(), limit)
            .await
            .map_err(from_store)
    }

    async fn dead_out(
        &self,
        filter: &Filter,
        limit: usize,
    ) -> Result<store::Listing<DeadLetter>, NodeError> {
        self.tree
            .store
            .dead_letters(filter.clone(), limit)
            .await
            .map_err(from_store)
    }

    pub(crate) async fn filter(&self, selection: &Selection) -> Result<Filter, NodeError> {
        let peer = match &selection.peer {
            Some(name) => Some(self.peer_or_former(name).await?.number),
            None => None,
        };
        Ok(Filter {
            peer,
            topic: selection.topic.clone(),
        })
    }

    async fn stored_ids(&self, ids: &[ReceiptId]) -> Result<Vec<store::ReceiptId>, NodeError> {
        let mut stored = Vec::with_capacity(ids.len());
        for id in ids {
            stored.push(self.stored_id(id).await?);
        }
        Ok(stored)
    }

    async fn stored_id(&self, id: &ReceiptId) -> Result<store::ReceiptId, NodeError> {
        Ok(stored_id(self.recipient(id).await?.number, id))
    }
}

fn waiting(own: NodeId, peers: &Peers, row: OutboxRow) -> ListedMessage {
    let peer = peers.get(&row.id.peer);
    let recipient = peer.map_or(own, |peer| peer.id);
    ListedMessage {
        expires: row.expires_ms.map(WallTime),
        failures: row.failures,
        ..listed(
            public_id(recipient, row.id),
            peer,
            ReceiptState::Accepted,
            row.message,
        )
    }
}

fn dead_out(own: NodeId, peers: &Peers, letter: DeadLetter) -> DeadMessage {
    let peer = peers.get(&letter.id.peer);
    let recipient = peer.map_or(own, |peer| peer.id);
    let class = letter.message.as_ref().map(|message| message.class);
    let born = letter
        .message
        .as_ref()
        .map(|message| WallTime(message.born_ms));
    let (topic, headers, payload) = letter
        .message
        .map(|message| (message.topic, message.headers, message.payload))
        .unwrap_or_default();
    let mut reason = bare_reason(letter.reason);
    if letter.id.lane == Lane::System {
        // Nobody here sent it: it must not look like a message of theirs.
        reason = format!("{REPORT}: {reason}");
    }
    DeadMessage {
        id: public_id(recipient, letter.id),
        direction: DeadDirection::Out,
        peer: peer.map(|peer| peer.name.clone()).unwrap_or_default(),
        topic,
        class,
        state: dead_state(letter.state),
        reason,
        at: WallTime(letter.at_ms),
        born,
        headers,
        payload: Payload(payload),
    }
}

fn dead_in(own: NodeId, peers: &Peers, letter: DeadInLetter) -> DeadMessage {
    let peer = peers.get(&letter.peer);
    DeadMessage {
        id: arrived_id(own, &letter),
        direction: DeadDirection::In,
        peer: peer.map(|peer| peer.name.clone()).unwrap_or_default(),
        topic: letter.message.topic,
        class: Some(letter.message.class),
        state: DeadState::NotHandled,
        reason: letter.reason,
        at: WallTime(letter.at_ms),
        born: Some(WallTime(letter.message.born_ms)),
        headers: letter.message.headers,
        payload: Payload(letter.message.payload),
    }
}

/// What sender and recipient call a message that came here.
fn arrived_id(own: NodeId, letter: &DeadInLetter) -> ReceiptId {
    ReceiptId {
        recipient: receipt_id::tag(own),
        lane: letter.lane,
        position: letter.position,
    }
}

/// Another message to the same recipient.
fn public(like: ReceiptId, id: store::ReceiptId) -> ReceiptId {
    ReceiptId {
        recipient: like.recipient,
        lane: id.lane,
        position: id.position,
    }
}

fn count_retried(retried: &mut Retried, id: ReceiptId, receipt: ReceiptId) {
    retried.retried += 1;
    if retried.messages.len() < RETRIED_SHOWN_MAX {
        retried.messages.push(RetriedMessage { id, receipt });
    }
}

/// The store's refusal with the name that the caller knows.
fn letter_error(error: StoreError, id: &ReceiptId) -> NodeError {
    let (kind, text) = match &error {
        StoreError::Refused(Refused::NoSuchLetter { .. } | Refused::NoSuchArrivedLetter) => {
            return no_letter(id).with_source(error);
        }
        StoreError::Refused(Refused::Unsettled { .. }) => (
            ErrorKind::Refused,
            format!("{id} may have been delivered: the next session with its recipient tells"),
        ),
        StoreError::Refused(Refused::NoSuchPeer(_)) => (
            ErrorKind::NotFound,
            format!("the recipient of {id} was forgotten, so it cannot be sent again"),
        ),
        StoreError::Refused(Refused::LetterDamaged { .. }) => (
            ErrorKind::Refused,
            format!("the message of {id} was damaged and cannot be sent again"),
        ),
        _ => return from_store(error),
    };
    NodeError::new(kind, text).with_source(error)
}

fn no_letter(id: &ReceiptId) -> NodeError {
    NodeError::new(ErrorKind::NotFound, format!("there is no dead letter {id}"))
}
