//! Looking at the engine's own small tables of contents before it does.
//!
//! lsm-tree 3.1 writes a checksum over each version file and over each table of contents, and
//! believes the counts in them before it compares: one flipped bit there makes it ask for more
//! memory than there is, which ends the process without a word that names the file.
//! So the same checksums are compared here first. Nothing is written, and rows are not read.
//! To be deleted when lsm-tree checks them itself.
//!
//! ```text
//! current   version number u64 ‖ XXH3-128 of the file v<number> u128 ‖ kind of checksum u8 = 0
//! trailer   "SFA!" ‖ 1 ‖ 0 ‖ XXH3-128 of the contents u128 ‖ where they begin u64 ‖ their length u64
//!           the last 38 bytes of every table, value file and version; all numbers little-endian
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use super::error::OpenError;

const CURRENT_BYTES: usize = 25;
const TRAILER_BYTES: usize = 38;
const TRAILER_MAGIC: [u8; 6] = *b"SFA!\x01\x00";
/// A table of contents names a handful of sections.
const CONTENTS_BYTES_MAX: u64 = 64 << 10;
/// A version names its tables, about 50 bytes each; this is for a million.
const VERSION_BYTES_MAX: u64 = 64 << 20;
/// Folders in folders: the database, its keyspaces, their tables.
const DEPTH_MAX: usize = 4;

/// Compares every checksum that the engine would take on trust.
pub(crate) fn check(database: &Path) -> Result<(), OpenError> {
    let found = check_folder(database, DEPTH_MAX).map_err(|source| OpenError::Io {
        what: "look at the database".into(),
        source,
    })?;
    match found {
        None => Ok(()),
        Some(what) => Err(OpenError::Damaged { what }),
    }
}

fn check_folder(folder: &Path, depth: usize) -> io::Result<Option<String>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let fault = if entry.file_type()?.is_dir() {
            if depth == 0 {
                continue;
            }
            check_folder(&path, depth - 1)?
        } else if entry.file_name() == "current" {
            check_version(folder, &path)?
        } else {
            check_contents(&path)?
        };
        if fault.is_some() {
            return Ok(fault);
        }
    }
    Ok(None)
}

fn check_version(folder: &Path, current: &Path) -> io::Result<Option<String>> {
    let bytes = fs::read(current)?;
    let Some(bytes) = bytes.first_chunk::<CURRENT_BYTES>() else {
        // The engine says so itself.
        return Ok(None);
    };
    let (number, sum) = (u64_at(bytes, 0), u128_at(bytes, 8));
    let version = folder.join(format!("v{number}"));
    let named = |what: &str| Ok(Some(format!("{what} {}", version.display())));
    let file = match File::open(&version) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return named("there is no list of tables");
        }
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let content = bytes_at(&file, 0, length.min(VERSION_BYTES_MAX))?;
    if xxh3_128(&content) != sum {
        return named("the checksum does not fit the list of tables");
    }
    Ok(None)
}

fn check_contents(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(end) = length.checked_sub(TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    let trailer = bytes_at(&file, end, TRAILER_BYTES as u64)?;
    let Some(trailer) = trailer.first_chunk::<TRAILER_BYTES>() else {
        return Ok(None);
    };
    if trailer[..TRAILER_MAGIC.len()] != TRAILER_MAGIC {
        return Ok(None);
    }
    let (sum, from, size) = (
        u128_at(trailer, 6),
        u64_at(trailer, 22),
        u64_at(trailer, 30),
    );
    let is_right = from.checked_add(size) == Some(end)
        && size <= CONTENTS_BYTES_MAX
        && xxh3_128(&bytes_at(&file, from, size)?) == sum;
    let fault = || format!("the table of contents of {} is damaged", path.display());
    Ok((!is_right).then(fault))
}

fn bytes_at(file: &File, from: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let part = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u64::from_le_bytes(part.copied().unwrap_or_default())
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    let part = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u128::from_le_bytes(part.copied().unwrap_or_default())
}
