//! The scratch folder of a lab.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::api::SocketPath;
use crate::lab::error::LabError;

/// Names that a scratch folder may find taken by labs that were killed.
const SCRATCH_TRIES: u32 = 1_000;
/// A process that was killed a moment ago may have made one more file meanwhile.
const REMOVE_TRIES: u32 = 3;

/// A folder that is removed when its owner goes.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) path: PathBuf,
    /// Somebody looks after it, or it is gone.
    pub(super) is_kept: bool,
}

impl Scratch {
    /// A folder in whose nodes' folders a socket's path still fits.
    pub(super) fn make(parent: Option<PathBuf>, names: &[String]) -> Result<Scratch, LabError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let temporary = std::env::temp_dir();
        let longest = names.iter().max_by_key(|name| name.len());
        let longest = longest.map_or("", String::as_str);
        let mut made = Err(io::ErrorKind::AlreadyExists.into());
        let mut tried = temporary.clone();
        for _ in 0..SCRATCH_TRIES {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("phl-{}-{number}", std::process::id());
            let fits = |parent: &Path| {
                let node = parent.join(&name).join(longest).join("node");
                SocketPath::in_folder(&node).is_ok()
            };
            let parent = match &parent {
                Some(parent) => parent.as_path(),
                // A long TMPDIR leaves no room for a socket's path; /tmp mostly does.
                None if !fits(&temporary) => Path::new("/tmp"),
                None => temporary.as_path(),
            };
            let path = parent.join(name);
            made = DirBuilder::new().mode(0o700).create(&path);
            tried.clone_from(&path);
            match &made {
                Ok(()) => {
                    return Ok(Scratch {
                        path,
                        is_kept: false,
                    });
                }
                // Left behind by a killed lab whose process number this one got.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(_) => break,
            }
        }
        let error = made.err().unwrap_or(io::ErrorKind::Other.into());
        let what = format!("no scratch folder {} (TMPDIR says where)", tried.display());
        Err(LabError::files(what, error))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = remove(&self.path) {
            tracing::warn!(target: "packhorse::lab", %error, "a scratch folder is left");
        }
    }
}

/// Removes a folder with everything in it.
pub(super) fn remove(folder: &Path) -> Result<(), LabError> {
    let mut removed = Ok(());
    for _ in 0..REMOVE_TRIES {
        removed = std::fs::remove_dir_all(folder);
        match &removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => return Ok(()),
        }
    }
    let what = format!("{} cannot be removed", folder.display());
    removed.map_err(|error| LabError::files(what, error))
}
