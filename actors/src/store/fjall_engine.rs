//! The engine of a real node: one fjall database with three keyspaces.
//!
//! Every batch is committed with `durability(SyncData)`, the only form in which fjall syncs before
//! it publishes; `commit` followed by `persist` would show rows that a power cut takes back.
//! fjall sleeps its caller under pressure, so this is called from the writer thread and from
//! blocking readers only.
//!
//! Memory, by configuration (fjall enforces no total, so each part is bounded by itself):
//!
//! ```text
//! write buffers   small 4 MiB + outbox 8 MiB + inbox 8 MiB, active           20 MiB
//!                 one sealed of each while it is flushed                     20 MiB
//!                 bookkeeping of the skip lists, about 0.4 of the above      16 MiB
//! block cache                                                                 8 MiB
//! pinned filters and first-level indexes, 10 bits and a few bytes a row,
//!                 200,000 rows                                                1 MiB
//! worst case                                                                 65 MiB
//! idle, after a start                                     cache and buffers empty
//! disk            journals: 64 MiB active (preallocated) + 64 MiB sealed
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy};
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable,
};

use super::engine::{Change, Engine, Pair, Snapshot};
use super::engine_files;
use super::error::{EngineError, OpenError};
use super::keys::Space;
use super::mark_file::MarkFile;
use super::pause;
use super::reserve::Levels;

const MIB: u64 = 1 << 20;
/// fjall's least. Sealed journals beyond it push idle keyspaces to flush.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 64 * MIB;
/// Point reads are of small, hot records; scans of queues are read once.
const CACHE_BYTES: u64 = 8 * MIB;
/// Values from here on lie apart from their keys, so that compaction does not copy them again.
const SEPARATED_FROM_BYTES: u32 = 4 << 10;
/// Smaller files are given back sooner once a queue was read.
const SEPARATED_FILE_BYTES: u64 = 16 * MIB;
/// Open files kept: tables are few and the default of 900 is most of a process's limit.
const FILES_CACHED_MAX: usize = 128;
/// How often, and at most how many times, a clean end looks whether buffers have reached their
/// tables: 10 s in all.
const FLUSH_POLL: Duration = Duration::from_millis(2);
const FLUSH_POLLS_MAX: u128 = 5_000;

/// The largest of the write buffers.
pub(crate) const WRITE_BUFFER_BYTES_MAX: u64 = write_buffer_bytes(Space::Outbox);
/// All of them.
pub(crate) const WRITE_BUFFERS_BYTES: u64 = write_buffer_bytes(Space::Small)
    + write_buffer_bytes(Space::Outbox)
    + write_buffer_bytes(Space::Inbox);

const fn write_buffer_bytes(space: Space) -> u64 {
    match space {
        Space::Small => 4 * MIB,
        Space::Outbox | Space::Inbox => 8 * MIB,
    }
}

/// A fjall database and its commit mark.
pub(crate) struct FjallEngine {
    spaces: [Keyspace; 3],
    database: Database,
    path: PathBuf,
    mark: MarkFile,
    failed: OnceLock<EngineError>,
}

impl FjallEngine {
    /// Opens or creates the database in `path`.
    pub(crate) fn open(path: &Path, mark: MarkFile, folder: &Path) -> Result<Self, OpenError> {
        engine_files::check(path)?;
        // fjall asserts while it recovers; for us that is damage like any other.
        let opened = std::panic::catch_unwind(|| open_database(path));
        let (database, spaces) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return Err(open_error(error, folder)),
            Err(_) => {
                let what = "the database gave up while it recovered its journals".into();
                return Err(OpenError::Damaged { what });
            }
        };
        Ok(Self {
            spaces,
            database,
            path: path.to_owned(),
            mark,
            failed: OnceLock::new(),
        })
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    fn write_failed(&self, error: &fjall::Error) -> EngineError {
        let found = if self.is_full(error) {
            EngineError::Full
        } else {
            EngineError::Poisoned(error.to_string())
        };
        // The first failure is the cause; what follows only says "poisoned".
        self.failed.get_or_init(|| found).clone()
    }

    /// Also a poisoned database is asked for its disk: a background thread may have met the end
    /// of the space first, and then the foreground never sees the error itself.
    fn is_full(&self, error: &fjall::Error) -> bool {
        if let fjall::Error::Io(error) = error
            && error.kind() == io::ErrorKind::StorageFull
        {
            return true;
        }
        rustix::fs::statvfs(&self.path).is_ok_and(|stat| {
            let levels = Levels::of(stat.f_blocks.saturating_mul(stat.f_frsize));
            // What the failed flush had written is given back when it fails.
            let full_below = levels.line + WRITE_BUFFER_BYTES_MAX;
            stat.f_bavail.saturating_mul(stat.f_frsize) < full_below
        })
    }
}

fn open_database(path: &Path) -> fjall::Result<(Database, [Keyspace; 3])> {
    let database = Database::builder(path)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .max_cached_files(Some(FILES_CACHED_MAX))
        .worker_threads(1)
        .open()?;
    let open = |space: Space| database.keyspace(space.name(), || options(space));
    let spaces = [
        open(Space::Small)?,
        open(Space::Outbox)?,
        open(Space::Inbox)?,
    ];
    Ok((database, spaces))
}

fn options(space: Space) -> KeyspaceCreateOptions {
    // Rows of the queues are looked up only where they are, so a filter would answer nothing. Whole
    // filters of a large table also would not stay in a small cache: each look-up would read a
    // megabyte.
    let filter = match space {
        Space::Small => FilterPolicy::all(FilterPolicyEntry::Bloom(
            BloomConstructionPolicy::BitsPerKey(10.0),
        )),
        Space::Outbox | Space::Inbox => FilterPolicy::disabled(),
    };
    let separation = match space {
        Space::Small => None,
        Space::Outbox | Space::Inbox => Some(
            KvSeparationOptions::default()
                .separation_threshold(SEPARATED_FROM_BYTES)
                .file_target_size(SEPARATED_FILE_BYTES),
        ),
    };
    KeyspaceCreateOptions::default()
        .max_memtable_size(write_buffer_bytes(space))
        .filter_policy(filter)
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
        .with_kv_separation(separation)
}

impl Engine for FjallEngine {
    fn commit(&self, number: u64, changes: Vec<Change>) -> Result<(), EngineError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), changes.len())
            .durability(Some(PersistMode::SyncData));
        for change in changes {
            let keyspace = self.keyspace(change.space);
            match change.value {
                Some(value) => batch.insert(keyspace, change.key, value),
                None => batch.remove(keyspace, change.key),
            }
        }
        // CRASH: before the sync inside, none or all of the batch is found at the next open.
        batch.commit().map_err(|error| self.write_failed(&error))?;
        // ORDER: after the sync, so that the mark never leads. CRASH: between the two the mark
        // lags by one, which says nothing and hides nothing but the loss of this one commit.
        if let Err(error) = self.mark.note(number) {
            tracing::warn!(number, %error, "commit.mark could not be written");
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        Ok(Box::new(FjallSnapshot {
            snapshot: self.database.snapshot(),
            spaces: self.spaces.clone(),
        }))
    }

    fn note_open(&self, number: u64) -> Result<(), EngineError> {
        self.mark.reset(number).map_err(mark_error)
    }

    fn settle_down(&self, number: u64) -> Result<(), EngineError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        for keyspace in &self.spaces {
            keyspace
                .rotate_memtable()
                .map_err(|error| self.write_failed(&error))?;
        }
        // fjall's own wait never ends when its worker has died.
        pause::poll(FLUSH_POLLS_MAX, FLUSH_POLL, || {
            self.spaces
                .iter()
                .all(|keyspace| keyspace.sealed_memtable_count() == 0)
        });
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(|error| self.write_failed(&error))?;
        self.mark.note_end(number).map_err(mark_error)
    }
}

impl fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallEngine")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    spaces: [Keyspace; 3],
}

impl Snapshot for FjallSnapshot {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self
            .snapshot
            .get(&self.spaces[space as usize], key)
            .map_err(read_error)?;
        Ok(found.map(Bytes::from))
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        end: &[u8],
    ) -> Box<dyn Iterator<Item = Result<Pair, EngineError>> + 'a> {
        let range = self.snapshot.range(&self.spaces[space as usize], from..end);
        Box::new(range.map(|guard| {
            let (key, value) = guard.into_inner().map_err(read_error)?;
            Ok((Bytes::from(key), Bytes::from(value)))
        }))
    }
}

fn mark_error(error: io::Error) -> EngineError {
    if error.kind() == io::ErrorKind::StorageFull {
        return EngineError::Full;
    }
    EngineError::Poisoned(format!("commit.mark: {error}"))
}

fn read_error(error: fjall::Error) -> EngineError {
    EngineError::Read(error.to_string())
}

fn open_error(error: fjall::Error, folder: &Path) -> OpenError {
    match error {
        fjall::Error::Locked => OpenError::Locked {
            folder: folder.to_owned(),
        },
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
            OpenError::Io {
                what: "open the database".into(),
                source,
            }
        }
        other => OpenError::Damaged {
            what: other.to_string(),
        },
    }
}
