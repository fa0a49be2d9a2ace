//! What is asked of the store about messages that arrive, wait here and leave.
//!
//! Every method is one job or one read of the tables; the order of the calls is their callers'.

use std::sync::Arc;

use packhorse_protocol::epoch::{Epoch, Lane, Mark, Position, Refusal};
use packhorse_protocol::message::Message;
#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{self, Mutant};
use packhorse_protocol::outbox::Inbound;

use super::error::StoreError;
use super::handle::StoreHandle;
use super::tables::dead_in::{self, DeadInLetter};
use super::tables::inbox::{self, InboxRow};
use super::tables::inbox_search::{self, Found, InboxTopic, Search};
use super::tables::inbox_settle::{self, Begun, Settled, Verdict, Whereabouts};
use super::tables::marks;
use super::tables::outbox::{Filter, Listing};
use super::tables::peers::PeerNumber;
#[cfg(feature = "sim")]
use super::tables::receipts;
use super::tables::tries::{self, Tries};
use super::view::View;

/// Rows that one read looks at while a message is searched for by its place.
const FIND_ROWS: usize = 1_024;
/// How much later reports are written that a mutant puts off.
#[cfg(feature = "sim")]
const LATE: std::time::Duration = std::time::Duration::from_millis(100);

impl StoreHandle {
    /// How far these epochs of a peer are settled here, and what it has not confirmed.
    pub async fn marks(
        &self,
        peer: PeerNumber,
        lane: Lane,
        epochs: Vec<Epoch>,
    ) -> Result<(Vec<Mark>, Vec<Refusal>), StoreError> {
        // ORDER: through the queue, behind what an earlier session of the peer still stores.
        self.write(0, move |view| {
            Ok(marks::of_lane(view, peer, lane, &epochs)?)
        })
        .await
    }

    /// Stores what a peer sent, with its marks and refusals. Returns the marks of the epochs that
    /// were touched, and all unconfirmed refusals.
    pub async fn store_inbound(
        &self,
        peer: PeerNumber,
        lane: Lane,
        items: impl Into<Arc<Vec<Inbound>>>,
    ) -> Result<(Vec<Mark>, Vec<Refusal>), StoreError> {
        let items = items.into();
        let bytes = items.iter().map(inbound_bytes).sum();
        self.write(bytes, move |view| inbox::store(view, peer, lane, &items))
            .await
    }

    /// Forgets refusals that the sender has made dead letters.
    pub async fn confirm_refusals(
        &self,
        peer: PeerNumber,
        lane: Lane,
        confirmed: Vec<(Epoch, u64)>,
    ) -> Result<(), StoreError> {
        let job = move |view: &mut View| {
            marks::confirm(view, peer, lane, &confirmed);
            Ok(())
        };
        self.write(0, job).await
    }

    /// Waiting messages of one topic that arrived after `after_arrival`, oldest first, until
    /// `count` or `bytes_max` of weight is met; the first one always comes.
    pub async fn inbox_waiting(
        &self,
        topic: String,
        after_arrival: u64,
        count: usize,
        bytes_max: usize,
    ) -> Result<Vec<InboxRow>, StoreError> {
        let asked = topic.clone();
        let waiting = self
            .read(move |reader| {
                Ok(inbox::waiting(
                    reader,
                    Lane::User,
                    &asked,
                    after_arrival,
                    count,
                    bytes_max,
                )?)
            })
            .await?;
        for arrival in waiting.damaged {
            let topic = topic.clone();
            let job =
                move |view: &mut View| inbox::set_damaged_aside(view, Lane::User, &topic, arrival);
            self.write(0, job).await?;
        }
        Ok(waiting.rows)
    }

    /// Deletes messages that were handled, and tells their senders. Repeating it is harmless.
    pub async fn inbox_done(&self, arrivals: Vec<u64>) -> Result<(), StoreError> {
        self.write(0, move |view| inbox_settle::done(view, arrivals))
            .await?;
        #[cfg(feature = "sim")]
        self.send_late().await?;
        Ok(())
    }

    /// For a mutant: reports that were put off follow a moment later.
    #[cfg(feature = "sim")]
    async fn send_late(&self) -> Result<(), StoreError> {
        if mutant::is(Mutant::ReceiptOutsideBatch) {
            tokio::time::sleep(LATE).await;
            self.write(0, receipts::send_late).await?;
        }
        Ok(())
    }

    /// The oldest messages of the inbox, and how many there are in all.
    pub async fn inbox_list(&self, limit: usize) -> Result<Listing<InboxRow>, StoreError> {
        self.list(move |reader| Ok(inbox::list(reader, limit)?))
            .await
    }

    /// How often handlers ran for these messages and failed, in their order.
    pub async fn inbox_tries(&self, arrivals: Vec<u64>) -> Result<Vec<Tries>, StoreError> {
        self.read(move |reader| {
            let tries = arrivals.iter().map(|arrival| tries::of(reader, *arrival));
            Ok(tries.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Looks for messages that can be handed out; what does not open is set aside.
    pub(crate) async fn inbox_search(&self, search: Search) -> Result<Found, StoreError> {
        let (lane, topic) = (search.lane, search.topic.clone());
        let mut found = self
            .read(move |reader| Ok(inbox_search::search(reader, &search)?))
            .await?;
        for arrival in std::mem::take(&mut found.damaged) {
            let topic = topic.clone();
            let job = move |view: &mut View| inbox::set_damaged_aside(view, lane, &topic, arrival);
            self.write(0, job).await?;
        }
        Ok(found)
    }

    /// Counts an attempt before a handler runs, or gives the message up. Refused when the message is
    /// gone or its sender may not start a command by it.
    pub async fn inbox_try_begin(&self, arrival: u64) -> Result<Begun, StoreError> {
        self.write(0, move |view| inbox_settle::begin(view, arrival))
            .await
    }

    /// Carries out what a handler said about a message. `random` spreads what is kept back.
    pub async fn inbox_settle(
        &self,
        arrival: u64,
        verdict: Verdict,
        random: u64,
    ) -> Result<Settled, StoreError> {
        let job = move |view: &mut View| inbox_settle::settle(view, arrival, verdict, random);
        let settled = self.write(0, job).await?;
        #[cfg(feature = "sim")]
        self.send_late().await?;
        Ok(settled)
    }

    /// The topics of which messages wait, by name.
    pub async fn inbox_topics(&self) -> Result<Vec<InboxTopic>, StoreError> {
        self.read(|reader| Ok(inbox_search::topics(reader)?)).await
    }

    /// Where a message is that arrived here; `None` when it never did, or its epoch is forgotten.
    /// The inbox has no index by sender, so it is read from its oldest message on.
    pub async fn inbox_find(
        &self,
        peer: Option<PeerNumber>,
        at: Position,
    ) -> Result<Option<Whereabouts>, StoreError> {
        let mut from = 0;
        loop {
            let step = self
                .read(move |reader| {
                    Ok(inbox_settle::find_waiting(
                        reader, peer, at, from, FIND_ROWS,
                    )?)
                })
                .await?;
            match step {
                Ok((row, tries)) => return Ok(Some(Whereabouts::Waiting { row, tries })),
                Err(Some(next)) => from = next,
                Err(None) => break,
            }
        }
        self.read(move |reader| Ok(inbox_settle::find_left(reader, peer, at)?))
            .await
    }

    // What was given up here.

    /// Messages that arrived and were given up here, and how many there are of them.
    pub async fn dead_in(
        &self,
        filter: Filter,
        limit: usize,
    ) -> Result<Listing<DeadInLetter>, StoreError> {
        self.list(move |reader| Ok(dead_in::list(reader, &filter, limit)?))
            .await
    }

    /// Puts a dead letter back into the inbox, behind what waits, with nothing counted.
    pub async fn dead_in_retry(
        &self,
        peer: PeerNumber,
        lane: Lane,
        at: Position,
    ) -> Result<(), StoreError> {
        self.write(0, move |view| {
            inbox_settle::retry_dead(view, peer, lane, at)
        })
        .await
    }

    /// Deletes a dead letter. Its sender was told when it was given up.
    pub async fn dead_in_drop(
        &self,
        peer: PeerNumber,
        lane: Lane,
        at: Position,
    ) -> Result<(), StoreError> {
        self.write(0, move |view| inbox_settle::drop_dead(view, peer, lane, at))
            .await
    }
}

fn inbound_bytes(item: &Inbound) -> usize {
    match item {
        Inbound::Base { .. } => 0,
        Inbound::Messages { messages, .. } => messages.iter().flatten().map(Message::weight).sum(),
    }
}
