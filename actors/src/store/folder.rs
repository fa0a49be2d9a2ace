//! The data folder: its mode, its lock, and where things lie in it.
//!
//! Folders are 0700 and files 0600; wider modes are refused together with the command that mends
//! them, never narrowed silently, because then somebody may have read already.
//! This file never looks into the database.
//!
//! ```text
//! DATA/            0700
//!   lock           held by flock for as long as the store is open
//!   commit.mark    see mark_file.rs
//!   reserve        space set aside, see reserve.rs
//!   db/            the engine's
//!   aside/NUMBER/  journals as they were found after an unclean end, NUMBER = commit.mark's
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::OpenError;
use super::journal_tail;
use super::pause;

/// How often a held lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How many sets of journals are kept: the last two unclean ends.
const ASIDE_KEPT: usize = 2;

/// The locked data folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    // Held for its lock alone; the operating system frees it when the process ends.
    _lock: File,
}

impl Folder {
    /// Creates the folder where needed, checks modes, and takes the lock, waiting for `lock_wait`.
    pub(crate) fn take(path: &Path, lock_wait: Duration) -> Result<Self, OpenError> {
        private_folder(path)?;
        let lock = lock(path, lock_wait)?;
        let folder = Self {
            path: path.to_owned(),
            _lock: lock,
        };
        private_folder(&folder.database())?;
        check_mode(&folder.mark(), 0o600)?;
        check_mode(&folder.reserve(), 0o600)?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the engine keeps its files.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    /// Where the commit mark lies.
    pub(crate) fn mark(&self) -> PathBuf {
        self.path.join("commit.mark")
    }

    /// Where the reserve lies.
    pub(crate) fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }

    /// Where journals are copied after an unclean end at commit `number`.
    pub(crate) fn aside(&self, number: u64) -> PathBuf {
        self.path.join("aside").join(format!("{number:020}"))
    }

    /// Copies the engine's journals before it opens and may truncate them.
    ///
    /// CRASH: copied under another name and renamed when whole. An existing copy for the same
    /// commit is the better one: a second attempt would copy what the first one truncated.
    ///
    /// Returns whether they are aside; with less than `room` bytes for them they are not copied.
    pub(crate) fn copy_journals_aside(&self, number: u64, room: u64) -> Result<bool, OpenError> {
        let done = self.aside(number);
        if done.exists() {
            return Ok(true);
        }
        let journals = self.journals()?;
        if journals.is_empty() {
            return Ok(true);
        }
        let used: u64 = journals.iter().map(|path| allocated(path)).sum();
        if used > room {
            tracing::warn!(
                used,
                room,
                "the journals of an unclean end are not copied aside: the disk is full"
            );
            return Ok(false);
        }
        let part = done.with_extension("part");
        private_folder(&self.path.join("aside"))?;
        if part.exists() {
            fs::remove_dir_all(&part).map_err(io_error("remove an unfinished copy of journals"))?;
        }
        private_folder(&part)?;
        for journal in journals {
            let name = journal.file_name().unwrap_or_default();
            copy_used_part(&journal, &part.join(name)).map_err(io_error("copy a journal aside"))?;
        }
        fs::rename(&part, &done).map_err(io_error("name a copy of journals"))?;
        Ok(true)
    }

    /// Cuts what a power cut left with holes off the newest journal; see `journal_tail.rs`.
    pub(crate) fn cut_newest_journal(&self) -> Result<(), OpenError> {
        let number = |path: &PathBuf| {
            let stem = path.file_stem()?.to_str()?;
            stem.parse::<u64>().ok()
        };
        let Some(newest) = self.journals()?.into_iter().max_by_key(number) else {
            return Ok(());
        };
        let bytes = journal_tail::cut(&newest).map_err(io_error("read the newest journal"))?;
        if bytes > 0 {
            tracing::warn!(bytes, journal = %newest.display(), "a batch with holes was cut off; the journal as it was is kept aside");
        }
        Ok(())
    }

    /// Drops all but the newest copies; called only after the store has opened.
    pub(crate) fn drop_old_copies(&self) -> io::Result<()> {
        let aside = self.path.join("aside");
        if !aside.exists() {
            return Ok(());
        }
        let mut copies = Vec::new();
        for entry in fs::read_dir(aside)? {
            copies.push(entry?.path());
        }
        // Names are zero-padded numbers, so they sort by age.
        copies.sort();
        let surplus = copies.len().saturating_sub(ASIDE_KEPT);
        copies.iter().take(surplus).try_for_each(fs::remove_dir_all)
    }

    fn journals(&self) -> Result<Vec<PathBuf>, OpenError> {
        let entries =
            fs::read_dir(self.database()).map_err(io_error("list the database folder"))?;
        let mut journals = Vec::new();
        for entry in entries {
            let path = entry.map_err(io_error("list the database folder"))?.path();
            if path.extension().is_some_and(|extension| extension == "jnl") {
                journals.push(path);
            }
        }
        Ok(journals)
    }
}

/// Bytes that a file takes on its disk.
fn allocated(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.blocks().saturating_mul(512))
}

/// Journals are preallocated: a copy without the zeros behind their end is a fraction of the size.
fn copy_used_part(from: &Path, to: &Path) -> io::Result<()> {
    use io::{Read, Write};
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let mut chunk = vec![0; 256 << 10];
    let mut zeros = 0_u64;
    loop {
        let read = source.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return target.sync_data();
        };
        if bytes.iter().all(|byte| *byte == 0) {
            zeros += read as u64;
            continue;
        }
        // Zeros in the middle are content: a damaged journal is exactly what this copy is for.
        io::copy(&mut io::repeat(0).take(zeros), &mut target)?;
        zeros = 0;
        target.write_all(bytes)?;
    }
}

fn private_folder(path: &Path) -> Result<(), OpenError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_mode(path, 0o700),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Parents are not ours to make private.
            let parent = path.parent().unwrap_or(path);
            fs::create_dir_all(parent)
                .map_err(io_error(&format!("create {}", parent.display())))?;
            DirBuilder::new()
                .mode(0o700)
                .create(path)
                .map_err(io_error(&format!("create {}", path.display())))
        }
        Err(error) => Err(io_error(&format!("create {}", path.display()))(error)),
    }
}

/// A file that is not there has no mode to complain about.
fn check_mode(path: &Path, widest: u32) -> Result<(), OpenError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(&format!("look at {}", path.display()))(error)),
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & !widest & 0o777 == 0 {
        return Ok(());
    }
    let fix = format!("chmod {widest:o} {}", path.display());
    Err(OpenError::WideMode {
        path: path.to_owned(),
        mode,
        fix,
    })
}

fn lock(folder: &Path, wait: Duration) -> Result<File, OpenError> {
    let path = folder.join("lock");
    check_mode(&path, 0o600)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error(&format!("open {}", path.display())))?;
    // A predecessor that is just ending lets go within moments.
    let tries = wait.as_millis() / LOCK_RETRY.as_millis();
    let mut locked = file.try_lock();
    pause::poll(tries, LOCK_RETRY, || {
        if matches!(locked, Err(TryLockError::WouldBlock)) {
            locked = file.try_lock();
        }
        !matches!(locked, Err(TryLockError::WouldBlock))
    });
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(error)) => {
            Err(io_error(&format!("lock {}", path.display()))(error))
        }
    }
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> OpenError {
    let what = what.to_owned();
    move |source| OpenError::Io { what, source }
}
