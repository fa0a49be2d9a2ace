//! The identity file: `identity.key` in the data folder.
//!
//! It holds the Ed25519 seed and the store secret, and is the one file to back up.
//! It is written once, whole or not at all, and never shown to anyone:
//! a file that others may read is refused with the command that mends it.
//!
//! ```text
//! packhorse identity 1
//! node phn1…                 checked against the seed, so that a damaged file names itself
//! seed <64 hex digits>
//! store <64 hex digits>
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use zeroize::{Zeroize, Zeroizing};

use crate::exit::Exit;
use crate::{IdentityKey, NodeId};

/// The file's name in the data folder.
pub const IDENTITY_FILE: &str = "identity.key";

/// Largest identity file that is read; the four lines take about 230 bytes.
const IDENTITY_BYTES_MAX: u64 = 4 << 10;

/// What shows that a store is in the folder.
const STORE_FOLDER: &str = "db";

const HEAD: &str = "packhorse identity 1";

/// Who this node is, and the secret that its store is sealed under.
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    store_secret: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// Reads the identity of a data folder.
    pub fn load(data_dir: &Path) -> Result<Identity, IdentityError> {
        let path = data_dir.join(IDENTITY_FILE);
        let unreadable = |source| IdentityError::Io {
            path: path.clone(),
            source,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Missing { path });
            }
            Err(error) => return Err(unreadable(error)),
        };
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::TooOpen { path, mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(IDENTITY_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Identity::from_text(&text).ok_or(IdentityError::Malformed { path })
    }

    /// Reads the identity of a data folder, or makes folder and identity; says whether it made one.
    pub fn load_or_create(data_dir: &Path) -> Result<(Identity, bool), IdentityError> {
        match Identity::load(data_dir) {
            Err(IdentityError::Missing { .. }) => {}
            other => return other.map(|identity| (identity, false)),
        }
        let folder_error = |source| IdentityError::Io {
            path: data_dir.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data_dir)
            .map_err(folder_error)?;
        let mode = std::fs::metadata(data_dir).map_err(folder_error)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = data_dir.to_owned();
            return Err(IdentityError::FolderTooOpen { path, mode });
        }
        // A new key would not open what is here, and would be taken for the node's own.
        if data_dir.join(STORE_FOLDER).exists() {
            let path = data_dir.join(IDENTITY_FILE);
            return Err(IdentityError::Lost { path });
        }
        let identity = Identity::draw()?;
        match identity.write(data_dir) {
            Ok(()) => Ok((identity, true)),
            // Another process was faster: its identity is the folder's identity.
            Err(IdentityError::Io { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                Identity::load(data_dir).map(|identity| (identity, false))
            }
            Err(error) => Err(error),
        }
    }

    /// The key that signs for this node.
    #[must_use]
    pub fn key(&self) -> IdentityKey {
        IdentityKey::from_seed(&self.seed)
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.key().id()
    }

    /// What the store is sealed under.
    #[must_use]
    pub fn store_secret(&self) -> &[u8; 32] {
        &self.store_secret
    }

    fn draw() -> Result<Identity, IdentityError> {
        let mut identity = Identity {
            seed: Zeroizing::new([0; 32]),
            store_secret: Zeroizing::new([0; 32]),
        };
        draw_random(&mut identity.seed)?;
        draw_random(&mut identity.store_secret)?;
        Ok(identity)
    }

    /// Writes the file so that it is there whole, or not at all, whenever the machine stops.
    fn write(&self, data_dir: &Path) -> Result<(), IdentityError> {
        let path = data_dir.join(IDENTITY_FILE);
        // A random name, so that what a crash left behind is never in the way.
        let mut random = [0; 32];
        draw_random(&mut random)?;
        let (tag, _) = random.split_at(8);
        let temporary = data_dir.join(format!("{IDENTITY_FILE}.{}", HEXLOWER.encode(tag)));
        let io_error = |source| IdentityError::Io {
            path: path.clone(),
            source,
        };
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(self.to_text().as_bytes())?;
            // ORDER: the bytes are on disk before the name is, or a crash leaves an empty identity.
            file.sync_all()?;
            // A link, unlike a rename, never replaces an identity that is already there.
            std::fs::hard_link(&temporary, &path)?;
            // CRASH: here the temporary name may stay; it holds a secret, but under mode 0600.
            File::open(data_dir)?.sync_all()
        })();
        let removed = std::fs::remove_file(&temporary);
        written.map_err(io_error)?;
        removed.map_err(io_error)
    }

    fn to_text(&self) -> Zeroizing<String> {
        let mut seed = HEXLOWER.encode(self.seed.as_ref());
        let mut store = HEXLOWER.encode(self.store_secret.as_ref());
        let text = format!("{HEAD}\nnode {}\nseed {seed}\nstore {store}\n", self.id());
        seed.zeroize();
        store.zeroize();
        Zeroizing::new(text)
    }

    fn from_text(text: &str) -> Option<Identity> {
        let mut lines = text.lines();
        if lines.next()? != HEAD {
            return None;
        }
        let node: NodeId = lines.next()?.strip_prefix("node ")?.parse().ok()?;
        let seed = secret(lines.next()?.strip_prefix("seed ")?)?;
        let store_secret = secret(lines.next()?.strip_prefix("store ")?)?;
        let identity = Identity { seed, store_secret };
        (lines.next().is_none() && identity.id() == node).then_some(identity)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

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
    /// Others may read it: tighten the mode.
    #[error("{} has mode {mode:04o}, which lets others read it: chmod 600 {}", path.display(), path.display())]
    TooOpen {
        /// The identity file.
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
}

impl IdentityError {
    /// The code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            IdentityError::Missing { .. } => Exit::NotFound,
            IdentityError::Lost { .. } => Exit::WrongKey,
            IdentityError::TooOpen { .. } | IdentityError::FolderTooOpen { .. } => Exit::Refused,
            IdentityError::Malformed { .. } => Exit::Damaged,
            IdentityError::Io { .. } | IdentityError::NoRandomness(_) => Exit::Failure,
        }
    }
}

fn draw_random(bytes: &mut [u8; 32]) -> Result<(), IdentityError> {
    let flags = rustix::rand::GetRandomFlags::empty();
    // At most 256 bytes are always given whole, so a short count is a broken system.
    match rustix::rand::getrandom(&mut bytes[..], flags) {
        Ok(32) => Ok(()),
        Ok(count) => Err(IdentityError::NoRandomness(io::Error::other(format!(
            "{count} of 32 bytes"
        )))),
        Err(error) => Err(IdentityError::NoRandomness(error.into())),
    }
}

fn secret(hex: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
    let secret = <[u8; 32]>::try_from(bytes.as_slice())
        .ok()
        .map(Zeroizing::new);
    bytes.zeroize();
    secret
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_then_found() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = scratch.path().join("deep/node");
        let (made, created) = Identity::load_or_create(&folder).expect("a fresh folder");
        assert!(created);
        let (found, created) = Identity::load_or_create(&folder).expect("the same folder");
        assert!(!created);
        assert_eq!(made.id(), found.id());
        assert_eq!(made.store_secret(), found.store_secret());
        let mode = |path: &Path| path.metadata().expect("it exists").mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(IDENTITY_FILE)), 0o600);
        assert_eq!(std::fs::read_dir(&folder).expect("the folder").count(), 1);
    }

    #[test]
    fn a_missing_identity_is_not_found() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let error = Identity::load(scratch.path()).expect_err("nothing there");
        assert_eq!(error.exit(), Exit::NotFound);
    }

    #[test]
    fn an_identity_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = scratch.path().join("data");
        Identity::load_or_create(&folder).expect("a fresh folder");
        let path = folder.join(IDENTITY_FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("our file");
        let error = Identity::load(&folder).expect_err("too open");
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_lost_identity_is_not_replaced_where_a_store_is() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = scratch.path().join("data");
        Identity::load_or_create(&folder).expect("a fresh folder");
        std::fs::create_dir(folder.join(STORE_FOLDER)).expect("our folder");
        std::fs::remove_file(folder.join(IDENTITY_FILE)).expect("our file");
        let error = Identity::load_or_create(&folder).expect_err("the store needs its key");
        assert_eq!(error.exit(), Exit::WrongKey);
        assert!(!folder.join(IDENTITY_FILE).exists());
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused_with_the_command_that_mends_it() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755))
            .expect("our folder");
        let error = Identity::load_or_create(scratch.path()).expect_err("too open");
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn any_changed_character_of_seed_or_node_is_noticed() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = scratch.path().join("data");
        Identity::load_or_create(&folder).expect("a fresh folder");
        let path = folder.join(IDENTITY_FILE);
        let text = std::fs::read_to_string(&path).expect("our file");
        let seed_end = text.find("\nstore").expect("the fourth line");
        for at in (0..seed_end).filter(|at| text.as_bytes()[*at] != b'\n') {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            std::fs::write(&path, &bytes).expect("our file");
            let error = Identity::load(&folder).expect_err("damaged");
            assert_eq!(error.exit(), Exit::Damaged, "at {at}");
        }
    }
}
