//! A disk of its own for one node: small, so that it can be filled, and gone with the lab.
//!
//! It is a tmpfs that is mounted over the node's folder, which needs the rights of root.
//! Where it cannot be mounted the error says so by name ([`DiskError::is_unsupported`]), and whoever
//! asked for it is skipped, never passed.
//!
//! CRASH: a lab that is itself killed leaves it mounted, with what it held in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::storage::Size;

/// Smallest disk: a new node starts on it. Its journals take 64 MiB each before they are rolled, so
/// one that is to carry messages for long needs a few hundred.
pub const DISK_BYTES_MIN: u64 = 16 << 20;
/// Largest: it lies in memory.
pub const DISK_BYTES_MAX: u64 = 8 << 30;
/// What takes the room away.
const BALLAST: &str = "ballast";
/// Written at once while a disk is being filled.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a disk is not there, or not as full as it was to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Ask for another size.
    #[error("a disk of {}, the least is {} and the most {}", Size(*bytes), Size(DISK_BYTES_MIN), Size(DISK_BYTES_MAX))]
    Bytes {
        /// What was asked for.
        bytes: u64,
    },
    /// Run the lab as root, or do without.
    #[error("no tmpfs can be mounted at {}: {reason}", path.display())]
    CannotMount {
        /// Where.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Give the node a disk when the lab is built.
    #[error("it has no disk of its own that could be filled: give it one")]
    None,
    /// It was unmounted, perhaps while it was being filled.
    #[error("its disk at {} was unmounted", path.display())]
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// Somebody has to look at the machine.
    #[error("its disk at {} cannot be {what}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What was to be done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl DiskError {
    /// Whether this machine cannot have such a disk at all.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, DiskError::CannotMount { .. })
    }
}

/// A mounted disk; unmounted when it is dropped.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    is_gone: AtomicBool,
}

impl Disk {
    /// Mounts a disk of so many bytes over a folder that is there.
    ///
    /// # Errors
    /// A size out of bounds, and [`DiskError::CannotMount`].
    pub fn mount(path: &Path, bytes: u64) -> Result<Disk, DiskError> {
        if !(DISK_BYTES_MIN..=DISK_BYTES_MAX).contains(&bytes) {
            return Err(DiskError::Bytes { bytes });
        }
        let cannot = |reason: String| DiskError::CannotMount {
            path: path.to_owned(),
            reason,
        };
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700")])
            .arg("packhorse-lab")
            .arg(path)
            .output()
            .map_err(|error| cannot(error.to_string()))?;
        if !mounted.status.success() {
            let said = String::from_utf8_lossy(&mounted.stderr);
            return Err(cannot(said.trim().to_owned()));
        }
        Ok(Disk {
            path: path.to_owned(),
            is_gone: AtomicBool::new(false),
        })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that are free on it.
    ///
    /// # Errors
    /// It is not there any more.
    pub fn free_bytes(&self) -> Result<u64, DiskError> {
        let stat =
            rustix::fs::statvfs(&self.path).map_err(|error| self.io("read", error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Another program takes everything but so many bytes, as far as there is more. Returns what is
    /// free then; the node goes on writing meanwhile.
    ///
    /// # Errors
    /// The disk is not there any more.
    pub fn fill_but(&self, left_bytes: u64) -> Result<u64, DiskError> {
        self.check_mounted()?;
        let mut ballast = self.open_ballast()?;
        let chunk = vec![0xaa; CHUNK_BYTES];
        loop {
            // What lies below it belongs to others.
            self.check_mounted()?;
            let free = self.free_bytes()?;
            let over = free.saturating_sub(left_bytes);
            let bytes = usize::try_from(over).map_or(CHUNK_BYTES, |over| over.min(CHUNK_BYTES));
            if bytes == 0 {
                return Ok(free);
            }
            match ballast.write(chunk.get(..bytes).unwrap_or(&chunk)) {
                // What is free is less than a page, or the node was faster.
                Ok(0) => return self.free_bytes(),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    return self.free_bytes();
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io("filled", error)),
            }
        }
    }

    /// The other program gives back what it took. Nothing happens when it took nothing.
    ///
    /// # Errors
    /// The disk is not there any more.
    pub fn free(&self) -> Result<(), DiskError> {
        match fs::remove_file(self.path.join(BALLAST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.io("freed", error)),
            _ => Ok(()),
        }
    }

    /// Takes it away now, whoever still holds it: who is filling it gives up, and a process that still
    /// has files on it keeps those alone. Nothing happens the second time.
    pub fn unmount(&self) {
        if self.is_gone.swap(true, Ordering::AcqRel) {
            return;
        }
        let _ = unmount_at(&self.path);
    }

    fn check_mounted(&self) -> Result<(), DiskError> {
        match self.is_gone.load(Ordering::Acquire) {
            true => Err(DiskError::Gone {
                path: self.path.clone(),
            }),
            false => Ok(()),
        }
    }

    fn open_ballast(&self) -> Result<File, DiskError> {
        let mut options = OpenOptions::new();
        let opened = options
            .create(true)
            .append(true)
            .open(self.path.join(BALLAST));
        opened.map_err(|error| self.io("filled", error))
    }

    fn io(&self, what: &'static str, source: io::Error) -> DiskError {
        DiskError::Io {
            path: self.path.clone(),
            what,
            source,
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Unmounts the disk of a folder; nothing happens when none is mounted there.
///
/// # Errors
/// What the system said.
pub(super) fn unmount_at(path: &Path) -> Result<(), DiskError> {
    if !is_mounted(path) {
        return Ok(());
    }
    let error = |source| DiskError::Io {
        path: path.to_owned(),
        what: "unmounted",
        source,
    };
    // Lazy: a process that is about to end must not keep it mounted.
    let output = Command::new("umount").arg("-l").arg(path).output();
    let output = output.map_err(error)?;
    if output.status.success() || !is_mounted(path) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(error(io::Error::other(said.trim().to_owned())))
}

/// Whether a folder begins another file system than the one that it lies in.
fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
    let parent = path.parent().and_then(device);
    device(path).is_some_and(|device| Some(device) != parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says that a test was skipped, and why; also in the file that the runner of all checks names.
    fn skipped(test: &str, reason: &str) {
        let line = format!("SKIPPED {test}: {reason}\n");
        eprint!("{line}");
        if let Some(path) = std::env::var_os("CHECK_SKIPPED") {
            let list = OpenOptions::new().create(true).append(true).open(path);
            // One short write to a file opened for appending is not torn.
            let written = list.and_then(|mut list| list.write_all(line.as_bytes()));
            written.expect("the list of skipped tests");
        }
    }

    #[test]
    fn sizes_out_of_bounds_are_named_with_their_limits() {
        for bytes in [0, DISK_BYTES_MIN - 1, DISK_BYTES_MAX + 1] {
            let error = Disk::mount(Path::new("/nowhere"), bytes).expect_err("out of bounds");
            assert!(!error.is_unsupported());
            assert!(error.to_string().contains("the least is 16 MiB"), "{error}");
        }
    }

    #[test]
    fn a_disk_that_cannot_be_mounted_is_no_failure_of_the_scenario() {
        let nowhere = Path::new("/nowhere/to/be/found");
        let error = Disk::mount(nowhere, DISK_BYTES_MIN).expect_err("no such folder");
        assert!(error.is_unsupported());
        assert!(
            error.to_string().contains("/nowhere/to/be/found"),
            "{error}"
        );
    }

    #[test]
    fn a_disk_is_filled_freed_and_gone() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let disk = match Disk::mount(folder.path(), DISK_BYTES_MIN) {
            Ok(disk) => disk,
            Err(error) if error.is_unsupported() => {
                skipped(
                    "lab::disk::a_disk_is_filled_freed_and_gone",
                    &error.to_string(),
                );
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let all = disk.free_bytes().expect("mounted");
        let left = disk.fill_but(1 << 20).expect("mounted");
        assert!(left <= 1 << 20 && left + (64 << 10) > 1 << 20, "{left}");
        let nothing = disk.fill_but(0).expect("mounted");
        assert!(nothing < 64 << 10, "{nothing}");
        let error = fs::write(folder.path().join("more"), vec![1; 1 << 20]);
        let kind = error.expect_err("full").kind();
        assert_eq!(kind, io::ErrorKind::StorageFull);
        fs::remove_file(folder.path().join("more")).expect("what there was room for");
        disk.free().expect("mounted");
        disk.free().expect("nothing to be freed");
        assert_eq!(disk.free_bytes().expect("mounted"), all);
        disk.unmount();
        let error = disk.fill_but(0).expect_err("it is gone");
        assert!(matches!(error, DiskError::Gone { .. }), "{error}");
        drop(disk);
        let left = fs::read_dir(folder.path()).expect("the folder").count();
        assert_eq!(left, 0);
    }
}
