//! Why there is no identity, or why it was not changed.
//!
//! Every variant names the file, and who can act does so with it.

use std::io;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::identity::passphrase::PASSPHRASE_BYTES_MAX;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The folder holds none yet: `init` or `up` makes one.
    #[error("no identity at {}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A store is here, but not the key that opens it: put the backup back.
    #[error("{} is gone, but the store beside it needs it: put the backup back", path.display())]
    Lost {
        /// Where it should be.
        path: PathBuf,
    },
    /// Others may enter the data folder: tighten its mode.
    #[error("{} has mode {mode:04o}, which lets others in: chmod 700 {}", path.display(), path.display())]
    FolderTooOpen {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others may read the identity or a passphrase: tighten the mode.
    #[error("{} has mode {mode:04o}, which lets others read it: chmod 600 {}", path.display(), path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Damaged or not an identity file: put the backup in its place.
    #[error("{} is damaged: put its backup in its place", path.display())]
    Malformed {
        /// The identity file.
        path: PathBuf,
    },
    /// Written by a newer version of this program: use that one.
    #[error("{} has format {found}, and this version knows up to {known}: use a newer packhorse", path.display())]
    TooNew {
        /// The identity file.
        path: PathBuf,
        /// The format that it names.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// It asks for more than a node should spend on a passphrase: put the backup in its place.
    #[error("{} asks for {value} {what} to try a passphrase, the limit is {limit}: put its backup in its place", path.display())]
    TooCostly {
        /// The identity file.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// How much it asks for.
        value: u32,
        /// What is allowed.
        limit: u32,
    },
    /// Sealed with a passphrase, and none was given: give it.
    #[error("{} is sealed with a passphrase, and none was given", path.display())]
    Locked {
        /// The identity file.
        path: PathBuf,
    },
    /// Sealed with another passphrase than the one that was given.
    #[error("the passphrase does not open {}", path.display())]
    WrongPassphrase {
        /// The identity file.
        path: PathBuf,
    },
    /// Nobody could give it again.
    #[error("an empty passphrase seals nothing")]
    EmptyPassphrase,
    /// Over the limit: a file that is no passphrase, mostly.
    #[error("the passphrase has more than {PASSPHRASE_BYTES_MAX} bytes, which is the limit")]
    LongPassphrase,
    /// An older identity that is kept, and does not read as one: look at it and take it away.
    #[error("{} is no identity file and may hold the secret of the store without a passphrase: take it away from here, then set the passphrase again", path.display())]
    Unsealable {
        /// The file.
        path: PathBuf,
    },
    /// Another command is changing the identity at this moment.
    #[error("{} is being changed by another command", path.display())]
    Busy {
        /// The identity file.
        path: PathBuf,
    },
    /// The disk or its permissions.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    NoRandomness(io::Error),
    /// Deriving a key from the passphrase needs memory that is not there.
    #[error("a key could not be derived from the passphrase: {0}")]
    NoKey(String),
}

impl IdentityError {
    /// The code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            IdentityError::Missing { .. } => Exit::NotFound,
            IdentityError::Lost { .. }
            | IdentityError::Locked { .. }
            | IdentityError::WrongPassphrase { .. } => Exit::WrongKey,
            IdentityError::TooOpen { .. }
            | IdentityError::FolderTooOpen { .. }
            | IdentityError::Unsealable { .. } => Exit::Refused,
            IdentityError::EmptyPassphrase | IdentityError::LongPassphrase => Exit::Usage,
            IdentityError::Malformed { .. }
            | IdentityError::TooNew { .. }
            | IdentityError::TooCostly { .. }
            | IdentityError::Busy { .. } => Exit::Damaged,
            IdentityError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Exit::Full
            }
            IdentityError::Io { .. } | IdentityError::NoRandomness(_) | IdentityError::NoKey(_) => {
                Exit::Failure
            }
        }
    }
}
