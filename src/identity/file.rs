//! The identity file as it lies on disk: plain, or sealed with a passphrase.
//!
//! It shows the node id without the passphrase. Nothing here changes a file that is there; that
//! is `change.rs`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::sealed::{self, Sealed};
use super::{IDENTITY_FILE, Identity, draw_random};
use crate::NodeId;
use crate::identity::error::IdentityError;
use crate::identity::passphrase::Passphrase;

/// Largest identity file that is read; the longer form takes about 450 bytes.
const IDENTITY_BYTES_MAX: u64 = 4 << 10;

/// The newest form that is known.
const FORMAT_NEWEST: u32 = 2;

/// An identity file that was read and makes sense.
#[derive(Debug)]
pub struct IdentityFile {
    path: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Plain(Identity),
    Sealed(Box<Sealed>),
}

impl IdentityFile {
    /// Reads the identity file of a data folder.
    ///
    /// # Errors
    /// When it is missing, damaged, of a newer version, or others may read it.
    pub fn load(data_dir: &Path) -> Result<IdentityFile, IdentityError> {
        let path = data_dir.join(IDENTITY_FILE);
        match File::open(&path) {
            Ok(file) => IdentityFile::read(path, &file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(IdentityError::Missing { path })
            }
            Err(source) => Err(IdentityError::Io { path, source }),
        }
    }

    pub(super) fn read(path: PathBuf, file: &File) -> Result<IdentityFile, IdentityError> {
        let unreadable = |source| IdentityError::Io {
            path: path.clone(),
            source,
        };
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::TooOpen { path, mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(1 << 10));
        match file.take(IDENTITY_BYTES_MAX).read_to_string(&mut text) {
            Ok(_) => {}
            // Not UTF-8: a flipped bit, mostly.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(IdentityError::Malformed { path });
            }
            Err(source) => return Err(IdentityError::Io { path, source }),
        }
        if let Some(found) = format(&text).filter(|format| *format > FORMAT_NEWEST) {
            let known = FORMAT_NEWEST;
            return Err(IdentityError::TooNew { path, found, known });
        }
        let form = if text.starts_with(sealed::HEAD) {
            Sealed::from_text(&path, &text)?.map(|sealed| Form::Sealed(Box::new(sealed)))
        } else {
            Identity::from_text(&text).map(Form::Plain)
        };
        match form {
            Some(form) => Ok(IdentityFile { path, form }),
            None => Err(IdentityError::Malformed { path }),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        match &self.form {
            Form::Plain(identity) => identity.id(),
            Form::Sealed(sealed) => sealed.node,
        }
    }

    /// Whether a passphrase is needed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self.form, Form::Sealed(_))
    }

    /// The secrets. A passphrase for a file that has none is passed over.
    ///
    /// Deriving the key takes a good part of a second and 64 MiB.
    ///
    /// # Errors
    /// [`IdentityError::Locked`] without the passphrase that it needs,
    /// [`IdentityError::WrongPassphrase`] with another one.
    pub fn unlock(self, passphrase: Option<&Passphrase>) -> Result<Identity, IdentityError> {
        let path = self.path;
        let sealed = match self.form {
            Form::Plain(identity) => return Ok(identity),
            Form::Sealed(sealed) => sealed,
        };
        let Some(passphrase) = passphrase else {
            return Err(IdentityError::Locked { path });
        };
        let opened = sealed.open(passphrase)?;
        opened.ok_or(IdentityError::WrongPassphrase { path })
    }
}

/// The format number that a file names, if it is an identity file at all.
fn format(text: &str) -> Option<u32> {
    let line = text.lines().next()?;
    line.strip_prefix("packhorse identity ")?.parse().ok()
}

/// What a file of this identity says.
pub(super) fn text(
    identity: &Identity,
    passphrase: Option<&Passphrase>,
) -> Result<Zeroizing<String>, IdentityError> {
    match passphrase {
        None => Ok(identity.to_text()),
        Some(passphrase) => Ok(Zeroizing::new(
            Sealed::seal(identity, passphrase)?.to_text(),
        )),
    }
}

/// Makes the file so that it is there whole, or not at all, whenever the machine stops. One that
/// is there already stays, and that is an error.
pub(super) fn create(data_dir: &Path, text: &str) -> Result<(), IdentityError> {
    let path = data_dir.join(IDENTITY_FILE);
    let io_error = |source| IdentityError::Io {
        path: path.clone(),
        source,
    };
    let temporary = write_temporary(data_dir, text)?;
    // A link, unlike a rename, never replaces an identity that is already there.
    let linked = std::fs::hard_link(&temporary, &path);
    // CRASH: here the temporary name may stay; it holds a secret, but under mode 0600.
    let linked = linked.and_then(|()| File::open(data_dir)?.sync_all());
    let removed = std::fs::remove_file(&temporary);
    linked.map_err(io_error)?;
    removed.map_err(io_error)
}

/// Writes a file under a name of its own; its bytes are on disk afterwards. The caller gives it
/// its name or removes it.
pub(super) fn write_temporary(data_dir: &Path, text: &str) -> Result<PathBuf, IdentityError> {
    // A random name, so that what a crash left behind is never in the way.
    let mut random = [0; 32];
    draw_random(&mut random)?;
    let (tag, _) = random.split_at(TAG_BYTES);
    let temporary = data_dir.join(format!("{IDENTITY_FILE}.{}", HEXLOWER.encode(tag)));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        // ORDER: the bytes are on disk before the name is, or a crash leaves an empty identity.
        file.sync_all()
    })();
    match written {
        Ok(()) => Ok(temporary),
        Err(source) => {
            let _ = std::fs::remove_file(&temporary);
            let path = temporary;
            Err(IdentityError::Io { path, source })
        }
    }
}

const TAG_BYTES: usize = 8;

/// Whether a name is one that [`write_temporary`] gives.
pub(super) fn is_temporary(name: &str) -> bool {
    let tag = name
        .strip_prefix(IDENTITY_FILE)
        .and_then(|rest| rest.strip_prefix('.'));
    tag.is_some_and(|tag| tag.len() == 2 * TAG_BYTES && HEXLOWER.decode(tag.as_bytes()).is_ok())
}
