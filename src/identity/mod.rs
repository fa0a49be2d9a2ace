//! The identity file: `identity.key` in the data folder.
//!
//! It holds the Ed25519 seed and the store secret, and is the one file to back up.
//! It is written whole or not at all, and never shown to anyone: a file that others may read is
//! refused with the command that mends it. A passphrase may seal it, see `sealed.rs`; plain it is
//!
//! ```text
//! packhorse identity 1
//! node phn1…                 checked against the seed, so that a damaged file names itself
//! seed <64 hex digits>
//! store <64 hex digits>
//! ```
//!
//! Read [`Identity`], [`IdentityFile`], then [`Change`].

mod change;
mod error;
mod file;
mod passphrase;
mod sealed;

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use data_encoding::HEXLOWER;
use zeroize::{Zeroize, Zeroizing};

use crate::{IdentityKey, NodeId};

pub use self::change::Change;
pub use self::error::IdentityError;
pub use self::file::IdentityFile;
pub use self::passphrase::{PASSPHRASE_BYTES_MAX, Passphrase};

/// The file's name in the data folder.
pub const IDENTITY_FILE: &str = "identity.key";

/// What shows that a store is in the folder.
pub(crate) const STORE_FOLDER: &str = "db";

const HEAD: &str = "packhorse identity 1";

/// Who this node is, and the secret that its store is sealed under.
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    store_secret: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// Reads the identity of a data folder.
    ///
    /// # Errors
    /// [`IdentityError::Locked`] where a passphrase seals it and none is given, and whatever ails
    /// the file.
    pub fn load(
        data_dir: &Path,
        passphrase: Option<&Passphrase>,
    ) -> Result<Identity, IdentityError> {
        IdentityFile::load(data_dir)?.unlock(passphrase)
    }

    /// Reads the identity of a data folder, or makes folder and identity; says whether it made
    /// one. One that is made is sealed with the passphrase, where there is one.
    ///
    /// # Errors
    /// As [`Identity::load`], and what keeps a folder or file from being made.
    pub fn load_or_create(
        data_dir: &Path,
        passphrase: Option<&Passphrase>,
    ) -> Result<(Identity, bool), IdentityError> {
        match Identity::load(data_dir, passphrase) {
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
        match file::create(data_dir, &file::text(&identity, passphrase)?) {
            Ok(()) => Ok((identity, true)),
            // Another process was faster: its identity is the folder's identity.
            Err(IdentityError::Io { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                Identity::load(data_dir, passphrase).map(|identity| (identity, false))
            }
            Err(error) => Err(error),
        }
    }

    /// Another node over the same store: a new seed, the old store secret.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn renewed(&self) -> Result<Identity, IdentityError> {
        let mut identity = Identity::draw()?;
        identity
            .store_secret
            .copy_from_slice(&self.store_secret[..]);
        Ok(identity)
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

    fn to_text(&self) -> Zeroizing<String> {
        let mut seed = HEXLOWER.encode(self.seed.as_ref());
        let mut store = HEXLOWER.encode(self.store_secret.as_ref());
        let node = self.id().to_string();
        // Room for all of it: a text that grows leaves copies of the seed in memory.
        let mut text = Zeroizing::new(String::with_capacity(512));
        for part in [
            HEAD, "\nnode ", &node, "\nseed ", &seed, "\nstore ", &store, "\n",
        ] {
            text.push_str(part);
        }
        seed.zeroize();
        store.zeroize();
        text
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
    use crate::exit::Exit;

    #[test]
    fn an_identity_is_made_once_and_then_found() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = scratch.path().join("deep/node");
        let (made, created) = Identity::load_or_create(&folder, None).expect("a fresh folder");
        assert!(created);
        let (found, created) = Identity::load_or_create(&folder, None).expect("the same folder");
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
        let error = Identity::load(scratch.path(), None).expect_err("nothing there");
        assert_eq!(error.exit(), Exit::NotFound);
    }

    #[test]
    fn an_identity_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = scratch.path().join("data");
        Identity::load_or_create(&folder, None).expect("a fresh folder");
        let path = folder.join(IDENTITY_FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("our file");
        let error = Identity::load(&folder, None).expect_err("too open");
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_lost_identity_is_not_replaced_where_a_store_is() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = scratch.path().join("data");
        Identity::load_or_create(&folder, None).expect("a fresh folder");
        std::fs::create_dir(folder.join(STORE_FOLDER)).expect("our folder");
        std::fs::remove_file(folder.join(IDENTITY_FILE)).expect("our file");
        let error = Identity::load_or_create(&folder, None).expect_err("the store needs its key");
        assert_eq!(error.exit(), Exit::WrongKey);
        assert!(!folder.join(IDENTITY_FILE).exists());
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused_with_the_command_that_mends_it() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755))
            .expect("our folder");
        let error = Identity::load_or_create(scratch.path(), None).expect_err("too open");
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn any_changed_character_of_seed_or_node_is_noticed() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = scratch.path().join("data");
        Identity::load_or_create(&folder, None).expect("a fresh folder");
        let path = folder.join(IDENTITY_FILE);
        let text = std::fs::read_to_string(&path).expect("our file");
        let seed_end = text.find("\nstore").expect("the fourth line");
        for at in (0..seed_end).filter(|at| text.as_bytes()[*at] != b'\n') {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            std::fs::write(&path, &bytes).expect("our file");
            let error = Identity::load(&folder, None).expect_err("damaged");
            assert_eq!(error.exit(), Exit::Damaged, "at {at}");
        }
    }
}
