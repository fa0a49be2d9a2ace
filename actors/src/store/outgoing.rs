//! What is asked of the store about messages that go out.
//!
//! Accepting, loading for a session, settling, giving up, and what a person does with messages
//! that wait or were given up. Every decision stands in a job of the tables.
//!
//! Read [`StoreHandle::accept`], [`StoreHandle::load`], [`StoreHandle::settle`], in this order.

use std::sync::Arc;

use packhorse_protocol::epoch::{Lane, Mark, Position, Refusal, Span};
use packhorse_protocol::outbox::Row;

use super::error::StoreError;
use super::handle::StoreHandle;
use super::receipt::ReceiptId;
use super::signals::earlier;
use super::tables::dead::{self, DeadLetter};
use super::tables::outbox::{
    self, Accepted, Filter, Listing, NewMessage, OutboxRow, ReceiptRecord,
};
use super::tables::peers::PeerNumber;
use super::tables::sweep::{self, Swept};
use super::tables::{leaving, letters, lines, loading, settling};
use super::view::View;

impl StoreHandle {
    /// Accepts messages for a peer, all or none, in their order.
    pub async fn accept(
        &self,
        peer: PeerNumber,
        lane: Lane,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<Accepted>, StoreError> {
        let bytes = messages.iter().map(|new| new.message.weight()).sum();
        self.write(bytes, move |view| {
            outbox::accept(view, peer, lane, messages)
        })
        .await
    }

    /// What waits for a peer, per epoch, in the order in which it is sent.
    pub async fn lines(&self, peer: PeerNumber, lane: Lane) -> Result<Vec<Span>, StoreError> {
        // ORDER: through the queue, behind what an earlier session of the peer still settles. A
        // snapshot could name rows that are about to go, and their loss would not be noticed.
        self.write(0, move |view| Ok(lines::spans(view, peer, lane)?))
            .await
    }

    /// Waiting messages behind `after`, and whether nothing lies behind them. What has passed its
    /// own end is given up instead.
    pub async fn load(
        &self,
        peer: PeerNumber,
        lane: Lane,
        after: Option<Position>,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        #[cfg(feature = "sim")]
        let after = after.or(self.shared.handed.stopped_at(peer, lane, self.epoch()));
        loop {
            let now_ms = self.shared.env.now_ms();
            let loaded = self
                .read(move |reader| {
                    Ok(loading::load(
                        reader, peer, lane, after, count_max, bytes_max, now_ms,
                    )?)
                })
                .await?;
            if !loaded.expired.is_empty() {
                // ORDER: given up before what lies behind it is handed out, and looked at again,
                // because a letter that may have left an earlier session has to be struck off too.
                self.expire(peer, lane, loaded.expired).await?;
                continue;
            }
            let (damaged, claims) = (loaded.damaged, loaded.claims);
            if !damaged.is_empty() {
                let buried = move |view: &mut View| {
                    damaged
                        .iter()
                        .try_for_each(|position| dead::bury_damaged(view, peer, lane, *position))
                };
                self.write(0, buried).await?;
            }
            // INVARIANT: nothing is handed out before what is claimed of it is durable.
            let is_right = claims.is_empty()
                || self
                    .write(0, move |view| loading::clear(view, peer, lane, &claims))
                    .await?;
            // Where nothing but damage was found, what lies behind it is asked for.
            if is_right && (!loaded.rows.is_empty() || loaded.exhausted) {
                let now = self.epoch();
                self.shared.handed.hand(peer, lane, &loaded.rows, now);
                return Ok((loaded.rows, loaded.exhausted));
            }
        }
    }

    async fn expire(
        &self,
        peer: PeerNumber,
        lane: Lane,
        positions: Vec<Position>,
    ) -> Result<(), StoreError> {
        let positions = Arc::new(positions);
        let mut from = 0;
        while from < positions.len() {
            let positions = positions.clone();
            let job = move |view: &mut View| {
                sweep::expire(view, peer, lane, positions.get(from..).unwrap_or_default())
            };
            from += self.write(0, job).await?;
        }
        Ok(())
    }

    /// Deletes what the recipient has settled; what it refused becomes dead letters.
    pub async fn settle(
        &self,
        peer: PeerNumber,
        lane: Lane,
        marks: Vec<Mark>,
        refusals: Vec<Refusal>,
    ) -> Result<(), StoreError> {
        self.settle_all(peer, lane, false, marks, refusals).await
    }

    /// The same at the opening of a session, with the mark of every epoch that [`Self::lines`]
    /// named: nothing above them is at the recipient, and nothing is on its way.
    pub async fn settle_opening(
        &self,
        peer: PeerNumber,
        lane: Lane,
        marks: Vec<Mark>,
        refusals: Vec<Refusal>,
    ) -> Result<(), StoreError> {
        let known = marks.clone();
        self.settle_all(peer, lane, true, marks, refusals).await?;
        self.shared.handed.open(peer, lane, &known);
        Ok(())
    }

    /// A session with a peer is over, and none has followed it yet: what it was never handed has
    /// not left this node. To be asked before the next one begins; without it the same is known
    /// only when the next one opens.
    pub async fn session_over(&self, peer: PeerNumber) -> Result<(), StoreError> {
        let handed = self.shared.handed.of(peer);
        if handed.is_empty() {
            return Ok(());
        }
        self.write(0, move |view| loading::withdraw(view, peer, &handed))
            .await
    }

    async fn settle_all(
        &self,
        peer: PeerNumber,
        lane: Lane,
        is_opening: bool,
        marks: Vec<Mark>,
        refusals: Vec<Refusal>,
    ) -> Result<(), StoreError> {
        let arguments = Arc::new((marks, refusals));
        loop {
            let arguments = arguments.clone();
            let job = move |view: &mut View| {
                settling::settle(view, peer, lane, is_opening, &arguments.0, &arguments.1)
            };
            if !self.write(0, job).await? {
                return Ok(());
            }
        }
    }

    /// What is known of a message that was accepted here; `None` when it never was.
    pub async fn receipt(&self, id: ReceiptId) -> Result<Option<ReceiptRecord>, StoreError> {
        self.read(move |reader| Ok(outbox::receipt(reader, &id)?))
            .await
    }

    /// The oldest waiting messages of every peer, and how many wait in all.
    pub async fn outbox_list(&self, limit: usize) -> Result<Listing<OutboxRow>, StoreError> {
        self.outbox_list_of(Filter::default(), limit).await
    }

    /// The oldest waiting messages that match, and how many match in all.
    pub async fn outbox_list_of(
        &self,
        filter: Filter,
        limit: usize,
    ) -> Result<Listing<OutboxRow>, StoreError> {
        self.list(move |reader| Ok(outbox::list(reader, &filter, limit)?))
            .await
    }

    /// Gives up what is due for a peer: moderate messages after their attempts or their age, and
    /// every message whose own end has passed. Costs one read when nothing has a limit.
    pub async fn sweep(&self, peer: PeerNumber) -> Result<Swept, StoreError> {
        let limited = self
            .read(move |reader| Ok(sweep::limited(reader, peer)?))
            .await?;
        let mut swept = Swept::default();
        for (lane, epoch) in limited {
            let mut progress = sweep::Progress::default();
            while !progress.is_done {
                let job = move |view: &mut View| sweep::page(view, peer, lane, epoch, progress);
                progress = self.write(0, job).await?;
            }
            swept.given_up += progress.given_up;
            swept.next_due_ms = earlier(swept.next_due_ms, progress.due_ms);
        }
        Ok(swept)
    }

    /// Before this node takes another identity: makes what was offered, and letters whose end is
    /// open, letters that may have been delivered for good, because nobody is left who could tell.
    /// Returns how many. Repeating it is harmless.
    pub async fn leave_identity(&self) -> Result<u64, StoreError> {
        let lines = self.read(|reader| Ok(leaving::unanswered(reader)?)).await?;
        let mut left = 0;
        for (peer, epoch) in lines {
            for page in [leaving::end_letters, leaving::bury_offered] {
                let mut from = Some(0);
                while let Some(start) = from {
                    let job = move |view: &mut View| page(view, peer, epoch, start);
                    let (count, next) = self.write(0, job).await?;
                    left += count;
                    from = next;
                }
            }
        }
        Ok(left)
    }

    /// Per peer, when the first message may be due: not later, maybe earlier. For a scheduler that
    /// begins.
    pub async fn dues(&self) -> Result<Vec<(PeerNumber, u64)>, StoreError> {
        self.read(|reader| Ok(sweep::dues(reader)?)).await
    }

    /// Makes waiting messages dead letters by hand: those of `ids` that match, or with no `ids` all
    /// that match and were accepted before. Returns how many.
    pub async fn outbox_drop(
        &self,
        filter: Filter,
        ids: Vec<ReceiptId>,
    ) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return self.outbox_drop_all(filter).await;
        }
        let (ids, filter) = (Arc::new(ids), Arc::new(filter));
        let (mut dropped, mut from) = (0, 0);
        while from < ids.len() {
            let (ids, filter) = (ids.clone(), filter.clone());
            let job = move |view: &mut View| {
                sweep::drop_ids(view, &filter, ids.get(from..).unwrap_or_default())
            };
            let (count, looked_at) = self.write(0, job).await?;
            dropped += count;
            from += looked_at;
        }
        Ok(dropped)
    }

    async fn outbox_drop_all(&self, filter: Filter) -> Result<u64, StoreError> {
        let filter = Arc::new(filter);
        let asked = filter.clone();
        let lines = self
            .read(move |reader| Ok(sweep::droppable(reader, &asked)?))
            .await?;
        let mut dropped = 0;
        for (peer, lane, epoch, last) in lines {
            let mut next = Some(1);
            while let Some(from) = next {
                let filter = filter.clone();
                let job = move |view: &mut View| {
                    sweep::drop_page(view, peer, lane, epoch, &filter, from, last)
                };
                let (count, after) = self.write(0, job).await?;
                dropped += count;
                next = after;
            }
        }
        Ok(dropped)
    }

    /// The dead letters that match, by peer and age, and how many match in all.
    pub async fn dead_letters(
        &self,
        filter: Filter,
        limit: usize,
    ) -> Result<Listing<DeadLetter>, StoreError> {
        self.list(move |reader| Ok(letters::letters(reader, &filter, limit)?))
            .await
    }

    /// Accepts the message of a dead letter anew, under a new receipt; the old one leads there.
    pub async fn dead_retry(&self, id: ReceiptId) -> Result<Accepted, StoreError> {
        self.write(0, move |view| letters::retry(view, &id)).await
    }

    /// Deletes a dead letter for good.
    pub async fn dead_drop(&self, id: ReceiptId) -> Result<(), StoreError> {
        self.write(0, move |view| letters::drop(view, &id)).await
    }
}
