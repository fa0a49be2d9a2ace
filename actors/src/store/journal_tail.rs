//! Cuts a last batch off the engine's journal that a power cut left with holes.
//!
//! The engine cuts a batch whose end is missing, and gives up over one whose end was written and
//! whose middle was not: pages reach a disk in any order. Both are batches that nobody was told of.
//! So the newest journal is cut before the first batch that does not match its checksum, once it
//! has been copied aside. Whether that took anything durable is not judged here: the commit number
//! that is recovered then is compared with `commit.mark` as after any other end.
//! Older journals are left as they are: behind them stand batches that a cut would hide.
//!
//! ```text
//! journal  batch*
//! batch    1 ‖ items u32 ‖ number u64 ‖ item* ‖ 3 ‖ XXH3 of the items u64 ‖ "FJL" ‖ 3
//! item     2 ‖ kind u8 ‖ compression u8 = 0 ‖ keyspace u64 ‖ key length u16
//!            ‖ value length u32 ‖ stored length u32 ‖ key ‖ value
//!          4 ‖ keyspace u64                                       numbers are little-endian
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Cuts the journal before its first batch that was written to its end and does not match.
/// Returns how many bytes went; 0 when there is nothing that the engine does not see to itself.
pub(super) fn cut(journal: &Path) -> io::Result<u64> {
    let file = File::open(journal)?;
    let length = file.metadata()?.len();
    let Some(good) = Walk::new(file).find_broken()? else {
        return Ok(0);
    };
    let file = OpenOptions::new().write(true).open(journal)?;
    file.set_len(good)?;
    file.sync_all()?;
    Ok(length.saturating_sub(good))
}

/// Reads batches one after the other.
struct Walk<R> {
    from: BufReader<R>,
    at: u64,
    sum: Xxh3,
}

impl<R: Read> Walk<R> {
    fn new(from: R) -> Self {
        Self {
            from: BufReader::new(from),
            at: 0,
            sum: Xxh3::new(),
        }
    }

    /// Where the first batch begins that is whole in form and wrong in its bytes or their number.
    fn find_broken(mut self) -> io::Result<Option<u64>> {
        loop {
            let begin = self.at;
            match self.batch() {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Ok(Some(begin)),
                // Its form ends in the middle, which the engine cuts.
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the next batch matches; `None` where there is no batch's form.
    fn batch(&mut self) -> io::Result<Option<bool>> {
        if self.take::<1>()? != [START] {
            return Ok(None);
        }
        let items = u32::from_le_bytes(self.take()?);
        self.take::<8>()?;
        self.sum = Xxh3::new();
        let mut found = 0_u64;
        loop {
            match self.take::<1>()? {
                [ITEM] => self.item()?,
                [CLEAR] => {
                    self.sum.update(&[CLEAR]);
                    self.hashed(8)?;
                }
                [END] => {
                    let expected = u64::from_le_bytes(self.take()?);
                    if self.take::<4>()? != TRAILER {
                        return Ok(None);
                    }
                    let is_right = self.sum.digest() == expected && found == u64::from(items);
                    return Ok(Some(is_right));
                }
                _ => return Ok(None),
            }
            found += 1;
        }
    }

    fn item(&mut self) -> io::Result<()> {
        let head: [u8; 20] = self.take()?;
        self.sum.update(&[ITEM]);
        self.sum.update(&head);
        let [.., k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
        let key = u64::from(u16::from_le_bytes([k0, k1]));
        let value = u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
        self.hashed(key + value)
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// Passes over bytes that count for the checksum.
    fn hashed(&mut self, count: u64) -> io::Result<()> {
        let mut left = count;
        let mut chunk = [0; 4 << 10];
        while left > 0 {
            let part = left.min(chunk.len() as u64) as usize;
            let Some(part) = chunk.get_mut(..part) else {
                return Ok(());
            };
            self.from.read_exact(part)?;
            self.sum.update(part);
            left -= part.len() as u64;
            self.at += part.len() as u64;
        }
        Ok(())
    }
}
