//! Opening and closing a store.
//!
//! Opening answers three questions before anything is written: is this store ours alone, is this
//! its key, and is everything there that had been made durable. Then it draws an epoch and makes
//! it durable before any value is sealed under it.
//! It never takes a store for empty because it cannot read it.
//!
//! Read [`Store::open`].

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use packhorse_protocol::epoch::Epoch;
use packhorse_protocol::node_id::NodeId;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::env::Env;
use crate::events::Fact;

use super::engine::Engine;
use super::error::{OpenError, ReadFault, Refused, StoreError};
use super::fjall_engine::FjallEngine;
use super::folder::Folder;
use super::found::{check_heads, commit_number, engine_failed, highest_boot, is_empty};
use super::handed::Handed;
use super::handle::StoreHandle;
use super::keys::{Key, Meta, Space};
use super::mark_file::{Mark, MarkFile};
use super::memory_engine::MemoryDisk;
use super::pause;
use super::quarantine::Quarantine;
use super::quota::Quotas;
use super::reader::Reader;
use super::reserve::Keeper;
use super::room::RoomKeeper;
use super::seal::{BootRecord, Vault};
use super::shared::{Envelope, LISTINGS_MAX, QUEUE_BYTES_MAX, QUEUE_JOBS_MAX, READS_MAX, Shared};
use super::signals::Signals;
use super::space::FolderVolume;
use super::tables::head::{self, FORMAT, Head, decode_u32, encode_u64};
use super::tables::{events, held, inbox, invites, lines};
use super::view::{self, Source, View};
use super::writer::{self, Writer};

/// How long a lock that another process holds is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How often, and at most how many times, closing looks whether reads are still under way: 10 s
/// in all.
const READS_POLL: Duration = Duration::from_millis(1);
const READS_POLLS_MAX: u128 = 10_000;

/// On what a store lies.
#[derive(Clone, Debug)]
pub enum EngineKind {
    /// Files in the data folder.
    Fjall,
    /// Memory, for tests and simulation; the folder is not touched.
    Memory(MemoryDisk),
}

/// How to open a store.
#[derive(Clone)]
pub struct StoreConfig {
    /// The data folder.
    pub folder: PathBuf,
    /// Whose store it is.
    pub node_id: NodeId,
    /// What everything in it is sealed under.
    pub store_secret: [u8; 32],
    /// On what it lies.
    pub engine: EngineKind,
    /// Time and randomness.
    pub env: Env,
    /// How long a lock that another process holds is waited for.
    pub lock_wait: Duration,
    /// Opens although commits that had been durable are gone.
    pub accept_lost_commits: bool,
    /// What the boxes may hold.
    pub quotas: Quotas,
}

impl StoreConfig {
    /// A store in files, with the waits of a real node.
    #[must_use]
    pub fn new(
        folder: impl Into<PathBuf>,
        node_id: NodeId,
        store_secret: [u8; 32],
        env: Env,
    ) -> Self {
        Self {
            folder: folder.into(),
            node_id,
            store_secret,
            engine: EngineKind::Fjall,
            env,
            lock_wait: LOCK_WAIT,
            accept_lost_commits: false,
            quotas: Quotas::default(),
        }
    }
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("folder", &self.folder)
            .field("node_id", &self.node_id)
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// Where stores come from.
#[derive(Debug)]
pub struct Store;

/// An open store. It belongs to `main` and outlives every actor.
#[derive(Debug)]
pub struct Opened {
    shared: Arc<Shared>,
    is_new: bool,
    changed_hands: bool,
    // Unlocked when the store is closed.
    folder: Mutex<Option<Folder>>,
}

impl Store {
    /// Opens or creates a store. Blocks; call it on a blocking thread.
    pub fn open(config: &StoreConfig) -> Result<Opened, OpenError> {
        let opening = Opening::begin(config)?;
        let volume = opening.keeper.volume();
        opening.finish(config).map_err(|error| match error {
            OpenError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                OpenError::Full {
                    folder: config.folder.clone(),
                    free: volume.free().unwrap_or(0),
                }
            }
            error => error,
        })
    }
}

/// A store whose engine is open and about which nothing is known yet.
pub(super) struct Opening {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) folder: Option<Folder>,
    pub(super) mark: Option<Mark>,
    pub(super) keeper: Keeper,
}

/// What was found in the store before anything is written.
pub(super) struct Found {
    is_new: bool,
    /// Number of the last commit.
    pub(super) recovered: u64,
    highest_boot: u32,
}

impl Opening {
    pub(super) fn begin(config: &StoreConfig) -> Result<Self, OpenError> {
        match &config.engine {
            EngineKind::Memory(disk) => {
                let locked = || OpenError::Locked {
                    folder: config.folder.clone(),
                };
                let (engine, mark) = disk.open().ok_or_else(locked)?;
                Ok(Self {
                    engine: Arc::new(engine),
                    folder: None,
                    mark,
                    keeper: Keeper::new(Arc::new(disk.clone())),
                })
            }
            EngineKind::Fjall => {
                let folder = Folder::take(&config.folder, config.lock_wait)?;
                let volume = FolderVolume::new(folder.path(), folder.reserve());
                let keeper = Keeper::new(Arc::new(volume));
                let free = keeper.before_open();
                let (engine, mark) =
                    open_files(&folder, &keeper, free).map_err(|error| match error {
                        error if keeper.is_without_room() => {
                            tracing::error!(%error, "the store does not open on a full disk");
                            OpenError::Full {
                                folder: config.folder.clone(),
                                free,
                            }
                        }
                        error => error,
                    })?;
                Ok(Self {
                    engine: Arc::new(engine),
                    folder: Some(folder),
                    mark,
                    keeper,
                })
            }
        }
    }

    fn finish(self, config: &StoreConfig) -> Result<Opened, OpenError> {
        let quarantine = Arc::new(Quarantine::default());
        let mut vault = Vault::new(&config.store_secret);
        let found = self.look(config, &vault, &quarantine)?;

        let floor = self.boot_floor(&vault, &quarantine, &found)?;
        let boot = found
            .highest_boot
            .max(floor)
            .checked_add(1)
            .ok_or_else(|| OpenError::Damaged {
                what: "the boot number has reached its end".into(),
            })?;
        let record = BootRecord {
            salt: config.env.random_bytes(),
            nonce: config.env.random_u64(),
        };
        let epoch = Epoch {
            boot,
            nonce: record.nonce,
        };
        vault.begin(boot, &record);
        let vault = Arc::new(vault);

        // CRASH: until the first commit, which tells of them, lost commits are found missing again.
        let marked = self.mark.map_or(0, |mark| mark.number);
        self.engine
            .note_open(found.recovered.max(marked))
            .map_err(engine_failed)?;
        let mut view = View::new(vault.clone(), quarantine.clone(), epoch);
        let changed_hands = self.first_commit(config, &mut view, &found, boot, &record)?;
        let committed = self.tidy(config, &mut view, found.recovered + 1)?;

        if let Some(folder) = &self.folder
            && let Err(error) = folder.drop_old_copies()
        {
            tracing::warn!(%error, "old copies of journals could not be removed");
        }
        let snapshot = self.engine.snapshot().map_err(engine_failed)?;
        let reader = Reader::new(snapshot, vault.clone(), quarantine.clone());
        let newest_event = events::ring(&reader).map_err(read_failed)?.next - 1;
        let signals = Signals::new(lines::all(&reader).map_err(read_failed)?, newest_event);
        let held = held::held(&reader).map_err(read_failed)?;
        drop(reader);
        let mut room = RoomKeeper::new(self.keeper, config.quotas);
        room.look_at_open();

        let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let shared = Shared {
            engine: RwLock::new(Some(self.engine)),
            vault,
            quarantine,
            signals,
            handed: Handed::default(),
            storage: watch::Sender::new(room.storage(held)),
            room: Mutex::new(room),
            epoch,
            env: config.env.clone(),
            jobs,
            queue: Mutex::new(queue),
            queue_bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            listings: Arc::new(Semaphore::new(LISTINGS_MAX)),
            failed: OnceLock::new(),
            closed: AtomicBool::new(false),
            #[cfg(feature = "fault")]
            faults: crate::fault::FaultPlan::default(),
            #[cfg(feature = "sim")]
            turn: tokio::sync::Mutex::new(()),
            committed: AtomicU64::new(committed),
        };
        Ok(Opened {
            shared: Arc::new(shared),
            is_new: found.is_new,
            changed_hands,
            folder: Mutex::new(self.folder),
        })
    }

    /// Reads what says whose store this is and whether it is whole. Writes nothing.
    pub(super) fn look(
        &self,
        config: &StoreConfig,
        vault: &Vault,
        quarantine: &Quarantine,
    ) -> Result<Found, OpenError> {
        let snapshot = self.engine.snapshot().map_err(engine_failed)?;
        if is_empty(&*snapshot)? {
            self.check_loss(config, 0)?;
            return Ok(Found {
                is_new: true,
                recovered: 0,
                highest_boot: 0,
            });
        }
        check_heads(config, &*snapshot, vault, quarantine)?;
        let highest_boot = highest_boot(&*snapshot)?;
        let recovered = commit_number(&*snapshot, vault)?;
        self.check_loss(config, recovered)?;
        Ok(Found {
            is_new: false,
            recovered,
            highest_boot,
        })
    }

    fn check_loss(&self, config: &StoreConfig, recovered: u64) -> Result<(), OpenError> {
        match self.loss(config, recovered) {
            None => Ok(()),
            Some(error) if config.accept_lost_commits => {
                tracing::error!(%error, "that is accepted");
                Ok(())
            }
            Some(error) => Err(error),
        }
    }

    /// What is missing of what had been durable.
    fn loss(&self, config: &StoreConfig, recovered: u64) -> Option<OpenError> {
        let marked = self.mark.map_or(0, |mark| mark.number);
        (recovered < marked).then(|| OpenError::LostCommits {
            recovered,
            marked,
            aside: match &self.folder {
                Some(folder) => folder.aside(marked),
                None => config.folder.clone(),
            },
        })
    }

    /// A store that does not say its floor cannot be trusted with a boot number.
    pub(super) fn boot_floor(
        &self,
        vault: &Vault,
        quarantine: &Quarantine,
        found: &Found,
    ) -> Result<u32, OpenError> {
        if found.is_new {
            return Ok(0);
        }
        let snapshot = self.engine.snapshot().map_err(engine_failed)?;
        let key = Key::meta(Meta::BootFloor);
        let value = snapshot
            .get(Space::Small, key.as_bytes())
            .map_err(engine_failed)?;
        let Some(value) = value else { return Ok(0) };
        let plain = view::open(vault, &*snapshot, &key, &value).map_err(engine_failed)?;
        plain
            .ok()
            .and_then(|plain| decode_u32(&plain).ok())
            .ok_or_else(|| {
                quarantine.note(&key);
                OpenError::Damaged {
                    what: "the floor of the boot number does not open".into(),
                }
            })
    }

    /// The first commit holds the boot's salt and is synced before any other is made.
    fn first_commit(
        &self,
        config: &StoreConfig,
        view: &mut View,
        found: &Found,
        boot: u32,
        record: &BootRecord,
    ) -> Result<bool, OpenError> {
        view.begin_batch(self.engine.snapshot().map_err(engine_failed)?);
        view.begin_job(config.env.now_ms());
        let head = Head {
            format: FORMAT,
            fingerprint: view.vault().fingerprint(),
        };
        // Both copies, every time: a damaged one is mended by its twin.
        view.put(Key::head(1), head.encode());
        view.put(Key::head(2), head.encode());
        let bytes = view.vault().boot_record_bytes(boot, record);
        view.put(Key::boot(boot), bytes);
        let changed_hands = head::claim(view, config.node_id.as_bytes()).map_err(refused)?;
        let lost = self.loss(config, found.recovered);
        if let Some(error) = &lost
            && let OpenError::LostCommits { marked, .. } = error
        {
            view.fact(Fact::LostCommits {
                count: marked.saturating_sub(found.recovered),
                text: error.to_string(),
            });
        }
        self.commit(view, found.recovered + 1)?;
        if lost.is_some() {
            // ORDER: after the commit that tells of the loss; the higher mark must not outlive it.
            let number = found.recovered + 1;
            self.engine.note_open(number).map_err(engine_failed)?;
        }
        Ok(changed_hands)
    }

    /// Clears what earlier boots left over. Returns the number of the last commit.
    fn tidy(
        &self,
        config: &StoreConfig,
        view: &mut View,
        committed: u64,
    ) -> Result<u64, OpenError> {
        view.begin_batch(self.engine.snapshot().map_err(engine_failed)?);
        view.begin_job(config.env.now_ms());
        lines::retire_empty(view).map_err(refused)?;
        invites::forget_expired(view).map_err(refused)?;
        mend_counters(view).map_err(refused)?;
        // Nobody watches yet, and what waits is read from the lines.
        view.take_notes();
        if view.changes() == 0 {
            return Ok(committed);
        }
        self.commit(view, committed + 1)?;
        Ok(committed + 1)
    }

    fn commit(&self, view: &mut View, number: u64) -> Result<(), OpenError> {
        let facts = view.take_facts();
        if !facts.is_empty() {
            events::append(view, facts).map_err(read_failed)?;
        }
        view.put(Key::meta(Meta::Commit), encode_u64(number));
        self.engine
            .commit(number, view.close_batch())
            .map_err(engine_failed)
    }
}

fn open_files(
    folder: &Folder,
    keeper: &Keeper,
    free: u64,
) -> Result<(FjallEngine, Option<Mark>), OpenError> {
    let (file, mark) = MarkFile::open(&folder.mark()).map_err(|source| OpenError::Io {
        what: "open commit.mark".into(),
        source,
    })?;
    // ORDER: before the engine opens, which may truncate what it cannot read.
    if let Some(mark) = mark
        && !mark.clean
    {
        let room = free.saturating_sub(keeper.levels().critical);
        // Without a copy nothing is cut: what is there is all that a person could look at.
        if folder.copy_journals_aside(mark.number, room)? {
            folder.cut_newest_journal()?;
        }
    }
    let engine = FjallEngine::open(&folder.database(), file, folder.path())?;
    Ok((engine, mark))
}

/// The counters of the boxes, as far as they are seen to be wrong without reading a row.
fn mend_counters(view: &mut View) -> Result<(), Refused> {
    let waiting = lines::all(view)?
        .iter()
        .map(|(.., line)| line.waiting())
        .sum();
    match inbox::waiting_count(view) {
        Ok(arrived) => held::mend(view, waiting, arrived),
        // Nothing that is asked for yet depends on it.
        Err(fault) if fault.is_damage() => Ok(()),
        Err(fault) => Err(fault.into()),
    }
}

fn read_failed(fault: ReadFault) -> OpenError {
    refused(fault.into())
}

fn refused(refused: Refused) -> OpenError {
    OpenError::Damaged {
        what: refused.to_string(),
    }
}

impl Opened {
    /// The epoch of this open.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// Whether there was no store before.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the store belonged to another identity before.
    #[must_use]
    pub fn changed_hands(&self) -> bool {
        self.changed_hands
    }

    /// A way to this store.
    #[must_use]
    pub fn handle(&self) -> StoreHandle {
        StoreHandle::new(self.shared.clone())
    }

    /// Starts the writer. One at a time writes: a second one waits until the first has ended, and
    /// takes up the queue where that one left it.
    pub fn start_writer(&self) -> std::io::Result<Writer> {
        Writer::start(self.shared.clone())
    }

    /// Ends the store: the writer runs what waits now and stops, then the engine flushes, syncs and
    /// unlocks. Blocks; call it on a blocking thread. Repeating it is harmless.
    pub fn close(&self) -> Result<(), StoreError> {
        self.shared.closed.store(true, Ordering::Release);
        // A full queue needs no waking: the writer is about to look at it.
        let _ = self.shared.jobs.try_send(Envelope::Wake);
        let mut queue = self
            .shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        writer::answer_all(&mut queue, &StoreError::Closed);
        drop(queue);
        let engine = self
            .shared
            .engine
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(engine) = engine else { return Ok(()) };
        self.wait_for_reads();
        let outcome = match self.shared.failed.get() {
            Some(error) => Err(error.clone()),
            None => engine.settle_down(self.shared.committed.load(Ordering::Acquire)),
        };
        drop(engine);
        // ORDER: the lock goes last, or the next process would meet ours in the database.
        self.folder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        outcome.map_err(StoreError::from)
    }

    /// A snapshot keeps the database open, and its files locked.
    fn wait_for_reads(&self) {
        self.shared.reads.close();
        if self.shared.env.is_simulated() {
            // Nothing runs beside this, and the snapshots of memory lock no file.
            return;
        }
        let is_quiet = || self.shared.reads.available_permits() == READS_MAX;
        if !pause::poll(READS_POLLS_MAX, READS_POLL, is_quiet) {
            tracing::warn!("a read outlives the store");
        }
    }
}
