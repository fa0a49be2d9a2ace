//! Where the socket lies: `api.sock` in the data folder, checked against what a socket address holds.
//!
//! A path that is too long is refused before anything is started, by client and server alike,
//! because the system's own message names neither the path nor the limit.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The socket's name in the data folder.
pub const SOCKET_FILE: &str = "api.sock";

/// Longest path that a Unix socket address holds: 108 bytes with the closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A path that fits into a socket address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath(PathBuf);

impl SocketPath {
    /// The socket of a data folder.
    pub fn in_folder(data_dir: &Path) -> Result<SocketPath, SocketPathError> {
        let path = data_dir.join(SOCKET_FILE);
        let bytes = path.as_os_str().as_bytes().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(SocketPathError { path, bytes });
        }
        Ok(SocketPath(path))
    }

    /// The path itself.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// The data folder lies too deep: choose a shorter one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the socket path {} has {bytes} bytes, the limit is {SOCKET_PATH_BYTES_MAX}: choose a shorter --data-dir",
    path.display()
)]
pub struct SocketPathError {
    path: PathBuf,
    bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_at_the_limit_is_taken_and_one_over_it_names_itself_and_the_limit() {
        let room = SOCKET_PATH_BYTES_MAX - "/".len() - SOCKET_FILE.len();
        let longest = format!("/{}", "d".repeat(room - 1));
        let path = SocketPath::in_folder(Path::new(&longest)).expect("at the limit");
        assert_eq!(path.as_path().as_os_str().len(), SOCKET_PATH_BYTES_MAX);
        let error = SocketPath::in_folder(Path::new(&format!("{longest}d"))).expect_err("over it");
        let text = error.to_string();
        assert!(text.contains("has 108 bytes, the limit is 107"), "{text}");
        assert!(text.contains(&longest), "{text}");
    }
}
