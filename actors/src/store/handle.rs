//! What everybody else holds of the store.
//!
//! Writing sends a job to the writer and waits until it is durable; reading takes a snapshot on
//! one of a few blocking workers. An answer that is lost means that the outcome is unknown.
//! Nothing here decides a write: checks stand in the jobs.
//!
//! Read [`StoreHandle::write`] and [`StoreHandle::read`]; the rest are calls of these two.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use packhorse_protocol::epoch::{Epoch, Lane, Mark, Position, Refusal, Span};
use packhorse_protocol::message::Message;
use packhorse_protocol::node_id::NodeId;
use packhorse_protocol::outbox::{Inbound, Row};
use tokio::sync::{broadcast, oneshot, watch};

use super::error::{Refused, StoreError};
use super::reader::Reader;
use super::receipt::ReceiptId;
use super::shared::{Envelope, Job, QUEUE_BYTES_MAX, QUEUE_JOBS_MAX, Shared};
use super::signals::OutboxCounts;
use super::tables::inbox::{self, InboxRow};
use super::tables::invites::{self, InviteRecord};
use super::tables::outbox::{self, Accepted, Listing, NewMessage, OutboxRow, ReceiptRecord};
use super::tables::pairing::{self, PairInviter, PairJoiner};
use super::tables::peers::{self, EpochVerdict, PeerNumber, PeerRecord};
use super::tables::{dead, head, lines, marks};
use super::view::View;

/// What a job costs of the queue's bytes beside what it carries.
const JOB_BYTES: usize = 256;

/// A way to the store. Clones are the same store; it outlives every actor.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    shared: Arc<Shared>,
}

struct TypedJob<T, F> {
    job: Option<F>,
    result: Option<Result<T, Refused>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for TypedJob<T, F>
where
    T: Send,
    F: FnOnce(&mut View) -> Result<T, Refused> + Send,
{
    fn run(&mut self, view: &mut View) -> bool {
        let Some(job) = self.job.take() else {
            return false;
        };
        let result = job(view);
        let is_done = result.is_ok();
        self.result = Some(result);
        is_done
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let answer = match (outcome, self.result) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(result)) => result.map_err(StoreError::from),
            (Ok(()), None) => Err(StoreError::Unknown),
        };
        // The caller may have given up; the job is done all the same.
        let _ = self.answer.send(answer);
    }
}

impl StoreHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Runs a job on the writer thread and answers when what it wrote is durable.
    ///
    /// `bytes` is what the job carries. Waits while the queue is full.
    pub(crate) async fn write<T, F>(&self, bytes: usize, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut View) -> Result<T, Refused> + Send + 'static,
    {
        self.shared.check_writable()?;
        let bytes = u32::try_from((bytes + JOB_BYTES).min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let permits = self.shared.queue_bytes.clone();
        let permit = permits
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let job = Box::new(TypedJob {
            job: Some(job),
            result: None,
            answer,
        });
        if self
            .shared
            .jobs
            .send(Envelope::Job(job, permit))
            .await
            .is_err()
        {
            self.shared.check_writable()?;
            return Err(StoreError::Closed);
        }
        answered.await.unwrap_or(Err(StoreError::Unknown))
    }

    /// Asks what is committed, on a blocking worker. Waits while all of them are busy.
    pub(crate) async fn read<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = self
            .shared
            .reads
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| StoreError::Closed)?;
        let shared = self.shared.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let answer = shared.reader().and_then(|reader| question(&reader));
            drop(permit);
            answer
        });
        answer.await.unwrap_or(Err(StoreError::Unknown))
    }

    /// The epoch of this open of the store.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// How many commits are durable, counted over the store's whole life.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.committed.load(Ordering::Acquire)
    }

    /// Jobs and bytes that wait for the writer.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        let jobs = QUEUE_JOBS_MAX - self.shared.jobs.capacity();
        (
            jobs,
            QUEUE_BYTES_MAX - self.shared.queue_bytes.available_permits(),
        )
    }

    /// How many records were found that do not open, and the keys of the first 1,024 in hex.
    #[must_use]
    pub fn quarantined(&self) -> (u64, Vec<String>) {
        self.shared.quarantine.found()
    }

    // Messages out.

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

    /// Waiting messages behind `after`, and whether nothing lies behind them.
    pub async fn load(
        &self,
        peer: PeerNumber,
        lane: Lane,
        after: Option<Position>,
        count_max: usize,
        bytes_max: usize,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        loop {
            let loaded = self
                .read(move |reader| {
                    Ok(outbox::load(
                        reader, peer, lane, after, count_max, bytes_max,
                    )?)
                })
                .await?;
            let damaged = loaded.damaged;
            if damaged.is_empty() {
                return Ok((loaded.rows, loaded.exhausted));
            }
            let buried = move |view: &mut View| {
                damaged
                    .iter()
                    .try_for_each(|position| dead::bury_damaged(view, peer, lane, *position))
            };
            self.write(0, buried).await?;
            // Nothing but damage was found: what lies behind it is asked for.
            if !loaded.rows.is_empty() || loaded.exhausted {
                return Ok((loaded.rows, loaded.exhausted));
            }
        }
    }

    /// Deletes what the recipient has settled; what it refused becomes dead letters.
    pub async fn settle(
        &self,
        peer: PeerNumber,
        lane: Lane,
        marks: Vec<Mark>,
        refusals: Vec<Refusal>,
    ) -> Result<(), StoreError> {
        let arguments = Arc::new((marks, refusals));
        loop {
            let arguments = arguments.clone();
            let job =
                move |view: &mut View| outbox::settle(view, peer, lane, &arguments.0, &arguments.1);
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
        self.read(move |reader| Ok(outbox::list(reader, limit)?))
            .await
    }

    // Messages in.

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

    /// Deletes messages that were handled. Repeating it is harmless.
    pub async fn inbox_done(&self, arrivals: Vec<u64>) -> Result<(), StoreError> {
        self.write(0, move |view| inbox::done(view, &arrivals))
            .await
    }

    /// The oldest messages of the inbox, and how many there are in all.
    pub async fn inbox_list(&self, limit: usize) -> Result<Listing<InboxRow>, StoreError> {
        self.read(move |reader| Ok(inbox::list(reader, limit)?))
            .await
    }

    // Peers and tickets.

    /// All peers, by number.
    pub async fn peers(&self) -> Result<Vec<PeerRecord>, StoreError> {
        self.read(|reader| Ok(peers::all(reader)?)).await
    }

    /// A peer by its number.
    pub async fn peer(&self, number: PeerNumber) -> Result<Option<PeerRecord>, StoreError> {
        self.read(move |reader| Ok(peers::peer(reader, number)?))
            .await
    }

    /// A peer by its identity.
    pub async fn peer_by_id(&self, id: NodeId) -> Result<Option<PeerRecord>, StoreError> {
        self.read(move |reader| Ok(peers::by_id(reader, &id)?))
            .await
    }

    /// A peer by its name, its whole id, or its id's short form if no other has the same.
    pub async fn peer_by_name_or_id(&self, text: &str) -> Result<Option<PeerRecord>, StoreError> {
        let text = text.to_owned();
        self.read(move |reader| Ok(peers::by_name_or_id(reader, &text)?))
            .await
    }

    /// Changes a peer's record; its number and id stay. A new name must be free.
    pub async fn update_peer(
        &self,
        number: PeerNumber,
        change: impl FnOnce(&mut PeerRecord) + Send + 'static,
    ) -> Result<PeerRecord, StoreError> {
        self.write(0, move |view| peers::update(view, number, change))
            .await
    }

    /// Judges the epoch that a peer showed in an authenticated handshake, and remembers it when
    /// its boot number is the highest so far.
    pub async fn judge_epoch(
        &self,
        number: PeerNumber,
        shown: Epoch,
    ) -> Result<EpochVerdict, StoreError> {
        self.write(0, move |view| peers::judge_epoch(view, number, shown))
            .await
    }

    /// A peer has seen boot `seen` of this node: this store is an older copy. The next open gets a
    /// higher boot number. One call raises it by at most 1,048,576; returns the floor.
    pub async fn raise_boot_floor(&self, seen: u32) -> Result<u32, StoreError> {
        self.write(0, move |view| head::raise_boot_floor(view, seen))
            .await
    }

    /// Keeps a ticket that was made, and forgets those that have ended.
    pub async fn add_invite(&self, invite: InviteRecord) -> Result<(), StoreError> {
        self.write(0, move |view| invites::add(view, &invite)).await
    }

    /// A ticket that was given out here.
    pub async fn invite(&self, ticket_id: [u8; 16]) -> Result<Option<InviteRecord>, StoreError> {
        self.read(move |reader| Ok(invites::invite(reader, ticket_id)?))
            .await
    }

    /// Spends a use of a ticket and makes its user a peer, in one step.
    pub async fn pair_joiner(&self, pair: PairJoiner) -> Result<PeerRecord, StoreError> {
        self.write(0, move |view| pairing::pair_joiner(view, &pair))
            .await
    }

    /// Makes the node that accepted this one a peer.
    pub async fn pair_inviter(&self, pair: PairInviter) -> Result<PeerRecord, StoreError> {
        self.write(0, move |view| pairing::pair_inviter(view, &pair))
            .await
    }

    // Signals. All of them come after the sync that holds what they tell.

    /// What waits for a peer, now and whenever it changes.
    #[must_use]
    pub fn outbox_counts(&self, peer: PeerNumber) -> watch::Receiver<OutboxCounts> {
        self.shared.signals.counts(peer)
    }

    /// Peers for whom something waits where nothing did. Who lags asks [`Self::waiting_peers`].
    #[must_use]
    pub fn outbox_grew(&self) -> broadcast::Receiver<PeerNumber> {
        self.shared.signals.grew()
    }

    /// Peers for whom something waits.
    #[must_use]
    pub fn waiting_peers(&self) -> Vec<PeerNumber> {
        self.shared.signals.waiting_peers()
    }

    /// The number of the last arrival since the store was opened; 0 before the first.
    #[must_use]
    pub fn inbox_arrived(&self) -> watch::Receiver<u64> {
        self.shared.signals.arrived()
    }
}

fn inbound_bytes(item: &Inbound) -> usize {
    match item {
        Inbound::Base { .. } => 0,
        Inbound::Messages { messages, .. } => messages.iter().flatten().map(Message::weight).sum(),
    }
}
