//! How much room the disk has for new work, and what is said when there is too little.
//!
//! The store takes new work only while the file system keeps what finishing the old work may need.
//! This file decides by numbers alone: where they come from is a [`Volume`], so that tests set them.
//! It never deletes anything of a user's and never touches a row.
//!
//! Read [`Volume`], then [`Shortage`], which is what callers are told.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::tables::peers::PeerNumber;

/// The file system under the store, as far as its space matters.
pub(crate) trait Volume: fmt::Debug + Send + Sync {
    /// Bytes that this process may still write.
    fn free(&self) -> io::Result<u64>;

    /// Bytes of the whole file system.
    fn total(&self) -> io::Result<u64>;

    /// Bytes that the reserve holds now.
    fn reserved(&self) -> u64;

    /// Sets this many bytes aside, really allocated.
    fn make_reserve(&self, bytes: u64) -> io::Result<()>;

    /// Gives the reserve back to the file system.
    fn release_reserve(&self) -> io::Result<()>;
}

/// The file system that a folder lies on, with the reserve as a file in that folder.
#[derive(Debug)]
pub(crate) struct FolderVolume {
    folder: PathBuf,
    reserve: PathBuf,
}

impl FolderVolume {
    pub(crate) fn new(folder: &Path, reserve: PathBuf) -> Self {
        Self {
            folder: folder.to_owned(),
            reserve,
        }
    }

    fn stat(&self) -> io::Result<rustix::fs::StatVfs> {
        Ok(rustix::fs::statvfs(&self.folder)?)
    }
}

impl Volume for FolderVolume {
    fn free(&self) -> io::Result<u64> {
        let stat = self.stat()?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn total(&self) -> io::Result<u64> {
        let stat = self.stat()?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }

    fn reserved(&self) -> u64 {
        // What is really allocated: a length alone holds nothing.
        fs::metadata(&self.reserve).map_or(0, |file| file.blocks().saturating_mul(512))
    }

    fn make_reserve(&self, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.reserve)?;
        allocate(&file, bytes)
    }

    fn release_reserve(&self) -> io::Result<()> {
        match fs::remove_file(&self.reserve) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    Ok(())
}

/// Why new work is refused. What is here is kept, and what ends old work goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Shortage {
    /// The disk. Make room on it.
    Disk {
        /// Bytes free for new work.
        free: u64,
        /// New work is taken from here on.
        line: u64,
    },
    /// Messages that wait for their recipients. They leave when those are reached; or drop some, or
    /// raise the quota.
    Outbox {
        /// Bytes there.
        used: u64,
        /// The quota.
        limit: u64,
    },
    /// Messages that wait to be handled here. Handle them, or raise the quota.
    Inbox {
        /// Bytes there.
        used: u64,
        /// The quota.
        limit: u64,
    },
    /// One peer's part of the inbox. Others are not held up by it.
    Share {
        /// Whose.
        peer: PeerNumber,
        /// Bytes there.
        used: u64,
        /// The share.
        limit: u64,
    },
    /// Messages that were given up. Retry or drop them, or raise the quota.
    Dead {
        /// Bytes there.
        used: u64,
        /// The quota.
        limit: u64,
    },
}

impl Shortage {
    /// Whether both are about the same, whatever the numbers.
    pub(crate) fn is_like(&self, other: &Shortage) -> bool {
        match (self, other) {
            (Shortage::Share { peer: one, .. }, Shortage::Share { peer: two, .. }) => one == two,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, used, limit) = match *self {
            Shortage::Disk { free, line } => {
                return write!(
                    f,
                    "the disk has {} free for new work, which is taken from {} on",
                    Bytes(free),
                    Bytes(line)
                );
            }
            Shortage::Outbox { used, limit } => ("the outbox holds", used, limit),
            Shortage::Inbox { used, limit } => ("the inbox holds", used, limit),
            Shortage::Share { used, limit, .. } => {
                let (used, limit) = (Bytes(used), Bytes(limit));
                return write!(
                    f,
                    "this sender's messages in the inbox take {used}, its share is {limit}"
                );
            }
            Shortage::Dead { used, limit } => ("the dead letters hold", used, limit),
        };
        write!(f, "{what} {}, the quota is {}", Bytes(used), Bytes(limit))
    }
}

/// A size for people: `1.5 MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [
            (1 << 40, "TiB"),
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
        ];
        let unit = UNITS.into_iter().find(|(size, _)| self.0 >= *size);
        let Some((size, name)) = unit else {
            return write!(f, "{} B", self.0);
        };
        let tenths = u128::from(self.0) * 10 / u128::from(size);
        match tenths % 10 {
            0 => write!(f, "{} {name}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {name}", tenths / 10),
        }
    }
}

/// How the store stands with its space, for those who show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Bytes free on the file system, without the reserve.
    pub free: u64,
    /// Below this much new work is refused.
    pub line: u64,
    /// Bytes set aside now.
    pub reserved: u64,
    /// Bytes that are to be set aside; 0 where the file system is too small for a reserve or cannot
    /// make one.
    pub reserve: u64,
    /// Bytes of messages that wait for their recipients.
    pub outbox: u64,
    /// Bytes of messages that wait to be handled.
    pub inbox: u64,
    /// Bytes of messages that were given up.
    pub dead: u64,
    /// Why new work is refused now; empty when it is taken.
    pub shortages: Vec<Shortage>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1 KiB"),
            (1_536, "1.5 KiB"),
            (74 << 20, "74 MiB"),
            (16 << 30, "16 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
