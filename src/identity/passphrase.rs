//! What a person or a service manager gives to unseal an identity.
//!
//! It is bytes, not text: whatever a file holds before its last line end counts.
//! It is never shown, and leaves memory when it is dropped.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::identity::error::IdentityError;

/// Longest passphrase. A longer one is a wrong file.
pub const PASSPHRASE_BYTES_MAX: usize = 1_024;

/// A passphrase.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// A passphrase of these bytes.
    ///
    /// # Errors
    /// When it is empty or over [`PASSPHRASE_BYTES_MAX`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Passphrase, IdentityError> {
        let bytes = Zeroizing::new(bytes.into());
        match bytes.len() {
            0 => Err(IdentityError::EmptyPassphrase),
            1..=PASSPHRASE_BYTES_MAX => Ok(Passphrase(bytes)),
            _ => Err(IdentityError::LongPassphrase),
        }
    }

    /// The content of a file without the line end at its end.
    ///
    /// # Errors
    /// When others may read the file, besides the limits of [`Passphrase::new`].
    pub fn read(path: &Path) -> Result<Passphrase, IdentityError> {
        let io_error = |source| IdentityError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io_error)?;
        let metadata = file.metadata().map_err(io_error)?;
        if metadata.is_dir() {
            return Err(io_error(io::ErrorKind::IsADirectory.into()));
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(IdentityError::TooOpen { path, mode });
        }
        Passphrase::take(file).map_err(io_error)?
    }

    /// The same for a file that a service manager guards: its folder keeps others out, and the
    /// file's mode shows the mask of an access list that names this service alone.
    ///
    /// # Errors
    /// When it cannot be read, besides the limits of [`Passphrase::new`].
    pub fn read_credential(path: &Path) -> Result<Passphrase, IdentityError> {
        let taken = File::open(path).and_then(Passphrase::take);
        taken.map_err(|source| IdentityError::Io {
            path: path.to_owned(),
            source,
        })?
    }

    fn take(file: File) -> io::Result<Result<Passphrase, IdentityError>> {
        // Two more for a line end, one more to see that it is too long. All of it at once, because
        // a buffer that grows leaves copies behind.
        let limit = PASSPHRASE_BYTES_MAX + 3;
        let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
        file.take(limit as u64).read_to_end(&mut bytes)?;
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Passphrase::new(line))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Passphrase {
    /// For comparing what a person typed twice; not for secrets of others.
    fn eq(&self, other: &Passphrase) -> bool {
        *self.0 == *other.0
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::exit::Exit;

    fn file(bytes: &[u8], mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let path = scratch.path().join("pass");
        std::fs::write(&path, bytes).expect("our file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("our file");
        (scratch, path)
    }

    #[test]
    fn a_line_end_does_not_belong_to_the_passphrase() {
        for bytes in [&b"open sesame"[..], b"open sesame\n", b"open sesame\r\n"] {
            let (_scratch, path) = file(bytes, 0o600);
            let read = Passphrase::read(&path).expect("a passphrase");
            assert_eq!(read.as_bytes(), b"open sesame");
        }
    }

    #[test]
    fn a_passphrase_file_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        let (_scratch, path) = file(b"open sesame", 0o644);
        let error = Passphrase::read(&path).expect_err("too open");
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(Passphrase::read_credential(&path).is_ok());
    }

    #[test]
    fn empty_and_over_long_passphrases_are_refused() {
        for (bytes, is_taken) in [
            (0, false),
            (1, true),
            (PASSPHRASE_BYTES_MAX, true),
            (PASSPHRASE_BYTES_MAX + 1, false),
            (100_000, false),
        ] {
            let (_scratch, path) = file(&vec![b'x'; bytes], 0o600);
            assert_eq!(Passphrase::read(&path).is_ok(), is_taken, "{bytes} bytes");
        }
        let (_scratch, path) = file(b"\n", 0o600);
        let error = Passphrase::read(&path).expect_err("nothing in it");
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[test]
    fn a_folder_is_no_passphrase_and_its_mode_is_left_alone() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let error = Passphrase::read(scratch.path()).expect_err("a folder");
        assert!(error.to_string().contains("directory"), "{error}");
        assert_eq!(error.exit(), Exit::Failure);
    }
}
