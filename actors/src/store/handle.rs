//! What everybody else holds of the store.
//!
//! Writing sends a job to the writer and waits until it is durable; reading takes a snapshot on
//! one of a few blocking workers. An answer that is lost means that the outcome is unknown.
//! Nothing here decides a write: checks stand in the jobs.
//!
//! Read [`StoreHandle::write`] and [`StoreHandle::read`]; the rest are calls of these two.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use packhorse_protocol::epoch::Epoch;
use packhorse_protocol::node_id::NodeId;
use tokio::sync::{broadcast, oneshot, watch};

use super::error::{Refused, StoreError};
use super::reader::Reader;
use super::shared::{Envelope, Job, QUEUE_BYTES_MAX, QUEUE_JOBS_MAX, Shared};
use super::signals::OutboxCounts;
use super::space::Storage;
use super::tables::head;
use super::tables::invites::{self, InviteRecord};
use super::tables::pairing::{self, PairInviter, PairJoiner};
use super::tables::peers::{self, EpochVerdict, PeerNumber, PeerRecord};
use super::view::View;

/// What a job costs of the queue's bytes beside what it carries.
const JOB_BYTES: usize = 256;

/// A way to the store. Clones are the same store; it outlives every actor.
#[derive(Clone, Debug)]
pub struct StoreHandle {
    pub(super) shared: Arc<Shared>,
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
        let work = move || {
            let answer = shared.reader().and_then(|reader| question(&reader));
            drop(permit);
            answer
        };
        let answer = self.shared.env.block(work).await;
        answer.unwrap_or(Err(StoreError::Unknown))
    }

    /// The same for a listing, which waits behind other listings before it waits behind reads.
    pub(crate) async fn list<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    {
        let permit = self.shared.listings.acquire().await;
        let _permit = permit.map_err(|_| StoreError::Closed)?;
        self.read(question).await
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

    /// How much room there is, and why new work is refused if it is; now and whenever it changes.
    #[must_use]
    pub fn storage(&self) -> watch::Receiver<Storage> {
        self.shared.storage.subscribe()
    }

    // Peers and tickets.

    /// All peers, by number.
    pub async fn peers(&self) -> Result<Vec<PeerRecord>, StoreError> {
        self.read(|reader| Ok(peers::all(reader)?)).await
    }

    /// All peers, and what is left of those that were forgotten.
    pub async fn every_peer(&self) -> Result<Vec<PeerRecord>, StoreError> {
        self.read(|reader| Ok(peers::every(reader)?)).await
    }

    /// A record by its number, also of a peer that was forgotten.
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

    /// Writes down that a peer or this node runs on a copy, or on a store that was set back.
    pub async fn note_trouble(&self, number: PeerNumber, text: String) -> Result<(), StoreError> {
        self.write(0, move |view| peers::note_trouble(view, number, &text))
            .await
    }

    /// Forgets a trouble with a peer of which nothing was seen for an hour. For who has a live
    /// session with it.
    pub async fn calm(&self, number: PeerNumber) -> Result<(), StoreError> {
        self.write(0, move |view| peers::calm(view, number)).await
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

#[cfg(test)]
mod tests {
    use std::{
        path::PathBuf,
        sync::{Mutex, mpsc::sync_channel},
        time::Duration,
    };

    use packhorse_protocol::identity::IdentityKey;
    use tokio::{task::JoinSet, time::timeout};

    use super::*;
    use crate::{
        env::testing,
        store::{EngineKind, MemoryDisk, Store, StoreConfig, shared::LISTINGS_MAX},
    };

    #[tokio::test]
    async fn listings_that_take_long_leave_reads_to_others() {
        let (env, _) = testing::env(7);
        let id = IdentityKey::from_seed(&[99; 32]).id();
        let mut config = StoreConfig::new(PathBuf::from("/nowhere"), id, [7; 32], env);
        config.engine = EngineKind::Memory(MemoryDisk::new(1));
        let opened = Store::open(&config).unwrap();
        let store = opened.handle();
        let (release, wait) = sync_channel::<()>(0);
        let wait = Arc::new(Mutex::new(wait));
        let (begin, mut begun) = tokio::sync::mpsc::channel(16);
        let mut listings = JoinSet::new();
        for _ in 0..8 {
            let (store, wait, begin) = (store.clone(), wait.clone(), begin.clone());
            let listing = move |_: &Reader| {
                begin.blocking_send(()).unwrap();
                // Until the sender is dropped.
                let _ = wait.lock().unwrap().recv();
                Ok(())
            };
            listings.spawn(async move { store.list(listing).await });
        }
        for _ in 0..LISTINGS_MAX {
            begun.recv().await.unwrap();
        }
        let read = store.read(|_| Ok(7));
        let answer = timeout(Duration::from_secs(20), read).await.unwrap();
        assert_eq!(answer.unwrap(), 7);
        drop(release);
        while let Some(listing) = listings.join_next().await {
            listing.unwrap().unwrap();
        }
    }
}
