//! `commit.mark`: the number of the last durable commit, kept beside the engine.
//!
//! The engine can lose commits that it had made durable (one flipped bit in its journal truncates
//! it without an error). This file notices: it is written after each sync, so it may lag behind
//! the engine and never leads it. It is not synced itself, except at a clean end and at every
//! open.
//! It never repairs anything.
//!
//! ```text
//! slot (32 bytes) = magic "PHMK" ‖ version u8 ‖ clean u8 ‖ 2 zero ‖ number u64 ‖ SHA-256 of these 16, first 16 bytes
//! file            = slot 0 ‖ slot 1          number n is written to slot n mod 2
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use ring::digest::{SHA256, digest};

const MAGIC: [u8; 4] = *b"PHMK";
const VERSION: u8 = 1;
const SLOT_BYTES: usize = 32;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The last commit that was durable when this was written.
    pub(crate) number: u64,
    /// Whether the store was closed after that commit.
    pub(crate) clean: bool,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct MarkFile {
    file: File,
}

impl MarkFile {
    /// Opens or creates the file, and reads the higher of its slots that are whole.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Option<Mark>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut bytes = [0; 2 * SLOT_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        let (first, second) = bytes.split_at(SLOT_BYTES);
        let highest = [first, second]
            .into_iter()
            .filter_map(decode)
            .max_by_key(|mark| (mark.number, mark.clean));
        Ok((Self { file }, highest))
    }

    /// Notes a commit that is durable. Not synced: a power cut may take it back.
    pub(crate) fn note(&self, number: u64) -> io::Result<()> {
        self.put(Mark {
            number,
            clean: false,
        })
    }

    /// Notes that the store was closed after `number`, durably.
    pub(crate) fn note_end(&self, number: u64) -> io::Result<()> {
        self.put(Mark {
            number,
            clean: true,
        })?;
        self.file.sync_data()
    }

    /// From now on the end is not clean, and nothing above `number` is expected; durably.
    pub(crate) fn reset(&self, number: u64) -> io::Result<()> {
        for slot in 0..2 {
            self.file.write_all_at(
                &encode(Mark {
                    number,
                    clean: false,
                }),
                slot * SLOT_BYTES as u64,
            )?;
        }
        self.file.sync_data()
    }

    fn put(&self, mark: Mark) -> io::Result<()> {
        self.file
            .write_all_at(&encode(mark), (mark.number % 2) * SLOT_BYTES as u64)
    }
}

fn encode(mark: Mark) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..4].copy_from_slice(&MAGIC);
    slot[4] = VERSION;
    slot[5] = u8::from(mark.clean);
    slot[8..16].copy_from_slice(&mark.number.to_be_bytes());
    let sum = digest(&SHA256, &slot[..16]);
    slot[16..].copy_from_slice(&sum.as_ref()[..16]);
    slot
}

fn decode(slot: &[u8]) -> Option<Mark> {
    let number = slot.get(8..16)?.first_chunk::<8>().copied()?;
    let mark = Mark {
        number: u64::from_be_bytes(number),
        clean: slot.get(5) == Some(&1),
    };
    // Encoding again checks magic, version and sum in one comparison.
    (encode(mark) == *slot).then_some(mark)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn reopened(path: &Path) -> Option<Mark> {
        MarkFile::open(path).unwrap().1
    }

    #[test]
    fn the_higher_whole_slot_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commit.mark");
        let (file, read) = MarkFile::open(&path).unwrap();
        assert_eq!(read, None);
        file.note(7).unwrap();
        file.note(8).unwrap();
        assert_eq!(
            reopened(&path),
            Some(Mark {
                number: 8,
                clean: false
            })
        );
        // A torn write of slot 8 mod 2 leaves the one before.
        file.file.write_all_at(&[0xff; 3], 12).unwrap();
        assert_eq!(
            reopened(&path),
            Some(Mark {
                number: 7,
                clean: false
            })
        );
    }

    #[test]
    fn a_clean_end_is_told_from_a_commit_with_the_same_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commit.mark");
        let (file, _) = MarkFile::open(&path).unwrap();
        file.note(4).unwrap();
        file.note_end(4).unwrap();
        assert_eq!(
            reopened(&path),
            Some(Mark {
                number: 4,
                clean: true
            })
        );
        file.reset(4).unwrap();
        assert_eq!(
            reopened(&path),
            Some(Mark {
                number: 4,
                clean: false
            })
        );
    }

    #[test]
    fn reset_forgets_what_is_higher() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commit.mark");
        let (file, _) = MarkFile::open(&path).unwrap();
        file.note(9).unwrap();
        file.reset(5).unwrap();
        assert_eq!(
            reopened(&path),
            Some(Mark {
                number: 5,
                clean: false
            })
        );
    }
}
