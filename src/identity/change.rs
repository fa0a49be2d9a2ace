//! Changing an identity that is there: another passphrase, or another node over the same store.
//!
//! One change at a time holds the file. The old file stays whole until the new one takes its name
//! in one step, so a machine that stops at any moment has exactly the old or the new identity.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::file::{self, IdentityFile};
use super::{IDENTITY_FILE, Identity};
use crate::NodeId;
use crate::identity::error::IdentityError;
use crate::identity::passphrase::Passphrase;

/// A change under way. Dropped, it leaves everything as it was.
#[derive(Debug)]
pub struct Change {
    data_dir: PathBuf,
    path: PathBuf,
    /// Locked for as long as the change lasts.
    held: File,
}

impl Change {
    /// Takes the identity file of a data folder for a change.
    ///
    /// # Errors
    /// [`IdentityError::Busy`] while another command has it, [`IdentityError::Missing`] without one.
    pub fn begin(data_dir: &Path) -> Result<Change, IdentityError> {
        let path = data_dir.join(IDENTITY_FILE);
        let io_error = |source| IdentityError::Io {
            path: path.clone(),
            source,
        };
        let held = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Missing { path });
            }
            Err(error) => return Err(io_error(error)),
        };
        if let Err(error) = flock(&held, FlockOperation::NonBlockingLockExclusive) {
            return Err(match error {
                rustix::io::Errno::WOULDBLOCK => IdentityError::Busy { path },
                error => io_error(error.into()),
            });
        }
        // Another change may have taken the name between opening and locking.
        let now = std::fs::metadata(&path).map_err(io_error)?;
        let locked = held.metadata().map_err(io_error)?;
        if (now.dev(), now.ino()) != (locked.dev(), locked.ino()) {
            return Err(IdentityError::Busy { path });
        }
        Ok(Change {
            data_dir: data_dir.to_owned(),
            path,
            held,
        })
    }

    /// The file as it is.
    ///
    /// # Errors
    /// When it is damaged, of a newer version, or others may read it.
    pub fn file(&self) -> Result<IdentityFile, IdentityError> {
        IdentityFile::load(&self.data_dir)
    }

    /// Writes the same identity anew, sealed with the passphrase or plain. With one, the older
    /// identities that are kept beside it are sealed too: they hold the same store secret.
    ///
    /// # Errors
    /// When it cannot be written; the file is as it was then. [`IdentityError::Unsealable`] for an
    /// older one that is no identity file.
    pub fn rewrite(
        self,
        identity: &Identity,
        passphrase: Option<&Passphrase>,
    ) -> Result<(), IdentityError> {
        if let Some(passphrase) = passphrase {
            // ORDER: first, so that an identity is never called sealed beside a plain copy.
            // CRASH: what is sealed stays so; the same command seals the rest.
            for path in self.kept()? {
                self.seal_kept(path, passphrase)?;
            }
        }
        self.replace(identity, passphrase)?;
        // What an interrupted command left may hold the secrets without a passphrase.
        self.remove_leftovers()
    }

    /// Writes another identity. The old file is kept under another name, which is returned.
    ///
    /// # Errors
    /// When it cannot be written; the identity is the old one then.
    pub fn renew(
        self,
        old: NodeId,
        identity: &Identity,
        passphrase: Option<&Passphrase>,
    ) -> Result<PathBuf, IdentityError> {
        let kept = self
            .data_dir
            .join(format!("{IDENTITY_FILE}{KEPT}{}", old.short()));
        match std::fs::hard_link(&self.path, &kept) {
            Ok(()) => {}
            // A change that was interrupted behind this step: the same identity, maybe sealed since.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(IdentityError::Io { path: kept, source }),
        }
        self.replace(identity, passphrase)?;
        self.remove_leftovers()?;
        Ok(kept)
    }

    fn replace(
        &self,
        identity: &Identity,
        passphrase: Option<&Passphrase>,
    ) -> Result<(), IdentityError> {
        self.put(&self.path, identity, passphrase)
    }

    /// The older identities that [`Change::renew`] kept.
    fn kept(&self) -> Result<Vec<PathBuf>, IdentityError> {
        let is_kept = |name: &str| {
            let rest = name.strip_prefix(IDENTITY_FILE);
            rest.is_some_and(|rest| rest.starts_with(KEPT))
        };
        self.beside(is_kept)
    }

    /// Seals an older identity, unless it is sealed.
    fn seal_kept(&self, path: PathBuf, passphrase: &Passphrase) -> Result<(), IdentityError> {
        let file = File::open(&path).map_err(|source| IdentityError::Io {
            path: path.clone(),
            source,
        })?;
        let kept = match IdentityFile::read(path.clone(), &file) {
            Ok(kept) => kept,
            Err(IdentityError::Malformed { path }) => {
                return Err(IdentityError::Unsealable { path });
            }
            Err(error) => return Err(error),
        };
        if kept.is_sealed() {
            return Ok(());
        }
        self.put(&path, &kept.unlock(None)?, Some(passphrase))
    }

    fn put(
        &self,
        path: &Path,
        identity: &Identity,
        passphrase: Option<&Passphrase>,
    ) -> Result<(), IdentityError> {
        let temporary = file::write_temporary(&self.data_dir, &file::text(identity, passphrase)?)?;
        // ORDER: the name last, in one step, and the folder behind it.
        // CRASH: before the rename the old identity is there, and a file under a random name.
        let renamed = std::fs::rename(&temporary, path);
        if renamed.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        // CRASH: between the two either of them is found; both are whole.
        let synced = renamed.and_then(|()| File::open(&self.data_dir)?.sync_all());
        synced.map_err(|source| IdentityError::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// Removes files under temporary names. Nobody else makes one while an identity is there.
    fn remove_leftovers(&self) -> Result<(), IdentityError> {
        for path in self.beside(file::is_temporary)? {
            let removed = std::fs::remove_file(&path);
            removed.map_err(|source| IdentityError::Io { path, source })?;
        }
        Ok(())
    }

    /// The files of the data folder with such a name.
    fn beside(&self, is_meant: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, IdentityError> {
        let io_error = |source| IdentityError::Io {
            path: self.data_dir.clone(),
            source,
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.data_dir).map_err(io_error)? {
            let entry = entry.map_err(io_error)?;
            if entry.file_name().to_str().is_some_and(&is_meant) {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    }
}

/// Between the file's name and the id of an older identity that is kept.
const KEPT: &str = ".old-";

impl Drop for Change {
    fn drop(&mut self) {
        // The file is closed with it; a failure here changes nothing.
        let _ = flock(&self.held, FlockOperation::Unlock);
    }
}
