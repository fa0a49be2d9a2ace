//! A small file system of its own, which a test can fill up; unmounted when it is dropped.
//!
//! Mounting needs root. Where it is not allowed the test says so and checks nothing.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip::skipped;

/// What is written at once while the disk is being filled.
const CHUNK_BYTES: usize = 1 << 20;

/// A mounted tmpfs.
#[derive(Debug)]
pub(crate) struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one of so many MiB at `path`, which is made. `None`, after a word on stderr, where that
    /// cannot be done here.
    pub(crate) fn mount(path: PathBuf, mib: u64, test: &str) -> Option<Tmpfs> {
        fs::create_dir(&path).expect("a place to mount at");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700")])
            .arg("packhorse-test")
            .arg(&path)
            .output();
        let reason = match mounted {
            Ok(output) if output.status.success() => return Some(Tmpfs { path }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        skipped(test, &format!("no tmpfs can be mounted here: {reason}"));
        None
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are free on it.
    pub(crate) fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.path).expect("it is mounted");
        stat.f_bavail * stat.f_frsize
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Another program takes everything but so many bytes.
    pub(crate) fn fill_but(&self, left: u64) {
        let mut file = self.open_ballast();
        while let Some(room) = self.free().checked_sub(left).filter(|room| *room > 0) {
            let bytes = usize::try_from(room).map_or(CHUNK_BYTES, |room| room.min(CHUNK_BYTES));
            // Somebody else may have been faster.
            if file.write_all(&vec![0xaa; bytes]).is_err() {
                return;
            }
        }
    }

    /// And gives it back.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.ballast()).expect("the ballast is there");
    }

    fn open_ballast(&self) -> File {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(self.ballast());
        file.expect("a file in the root of the tmpfs")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazy: a process that a failed test left behind must not keep it mounted.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
