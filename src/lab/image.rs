//! Images of a node's folder: what a cloned disk, a backup and a damaged disk are made of.
//!
//! An image is a folder like the one it was taken from, with every file, mode and byte; only the
//! socket, and the file that merely reserves room, are left out: a node makes both anew.
//! It is taken of a node that is stopped, or paused: then it is what the disk would hold had the
//! machine lost power at that moment.
//!
//! Nothing is ever half there: what is copied gets its name when it is whole, and what is replaced
//! goes when the new one is in its place. So restoring needs room for both.
//!
//! Damage is seeded, and says what it did to which byte, so that a report can name it.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::random::Random;
use crate::api::socket::SOCKET_FILE;
use crate::identity::{IDENTITY_FILE, STORE_FOLDER};
use crate::settings::SETTINGS_FILE;

/// Files of one image, and of a folder that is to be damaged.
pub const IMAGE_FILES_MAX: usize = 100_000;
/// Most bytes of one image.
pub const IMAGE_BYTES_MAX: u64 = 16 << 30;
/// Most places of one damage.
pub const DAMAGE_PLACES_MAX: u32 = 10_000;
/// How deep folders may lie in each other; a node's are three.
const DEPTH_MAX: usize = 16;
/// What only reserves room.
const RESERVE: &str = "reserve";

/// Why there is no image, or no damage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file or folder.
    #[error("{} cannot be {what}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was to be done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It is no folder of a node.
    #[error("{} is larger than an image may be: {IMAGE_FILES_MAX} files and {IMAGE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// Which folder.
        path: PathBuf,
    },
    /// There is one already: choose another name for it.
    #[error("{} is there already", path.display())]
    Exists {
        /// Where it was to be.
        path: PathBuf,
    },
    /// Restoring would destroy what it restores from: keep images beside the folders of nodes.
    #[error("{} cannot be put in the place of {}: one of them lies in the other", image.display(), path.display())]
    Overlap {
        /// What was to be restored.
        image: PathBuf,
        /// Where.
        path: PathBuf,
    },
    /// Restoring would destroy what no node made: name the data folder of a node, or an empty one.
    #[error("{} is not replaced: it holds {}, and is no data folder of a node", path.display(), found.display())]
    NotANode {
        /// What was to be replaced.
        path: PathBuf,
        /// Something in it that no node made.
        found: PathBuf,
    },
    /// Nothing there that could be damaged: start the node once, or name other files.
    #[error("{} holds no byte in a file whose path contains `{files}`", path.display())]
    Nothing {
        /// Which folder.
        path: PathBuf,
        /// Which files.
        files: String,
    },
    /// Ask for fewer, or name more files.
    #[error("{count} bits are to be flipped, and there are {bits} in files of {} whose path contains `{files}`", path.display())]
    Bits {
        /// What was asked for.
        count: u32,
        /// Bits that there are.
        bits: u64,
        /// Which folder.
        path: PathBuf,
        /// Which files.
        files: String,
    },
    /// Ask for fewer.
    #[error("damage at {count} places, the limits are 1 and {DAMAGE_PLACES_MAX}")]
    Places {
        /// What was asked for.
        count: u32,
    },
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies a folder to where nothing is yet. It has the name `….part` until it is whole.
///
/// # Errors
/// Something is there already, a limit, or what the system said about which path. Nothing is left
/// of it then.
pub fn copy(from: &Path, to: &Path) -> Result<Copied, ImageError> {
    if to.symlink_metadata().is_ok() {
        return Err(ImageError::Exists {
            path: to.to_owned(),
        });
    }
    let found = walk(from)?;
    let part = beside(to, "part")?;
    // Made here, so that what somebody else has there is neither filled nor removed.
    make_folder(&part, 0o700).map_err(|source| io_error(&part, "written", source))?;
    let copied = fill(&found, from, &part).and_then(|copied| {
        let renamed = fs::rename(&part, to);
        renamed.map_err(|source| io_error(to, "written", source))?;
        Ok(copied)
    });
    if copied.is_err() {
        // What went wrong first says more.
        let _ = fs::remove_dir_all(&part);
    }
    copied
}

/// Copies what was found into a folder that is there.
fn fill(found: &[Entry], from: &Path, to: &Path) -> Result<Copied, ImageError> {
    let mut copied = Copied::default();
    for entry in found {
        let target = inside(to, &entry.path);
        let io = |source| io_error(&target, "written", source);
        if !entry.is_folder {
            copied.bytes += fs::copy(inside(from, &entry.path), &target).map_err(io)?;
            copied.files += 1;
        } else if entry.path.as_os_str().is_empty() {
            fs::set_permissions(&target, Permissions::from_mode(entry.mode)).map_err(io)?;
        } else {
            make_folder(&target, entry.mode).map_err(io)?;
        }
    }
    Ok(copied)
}

/// Puts an image in the place of a node's data folder, which goes with everything in it.
///
/// DANGER: it removes a folder, so it takes only what looks like a node's: one that is not there, is
/// empty, has an identity, or holds nothing but what a node makes.
///
/// # Errors
/// [`ImageError::NotANode`], [`ImageError::Overlap`], and as [`copy`]. The folder is as it was then.
pub fn restore(image: &Path, to: &Path) -> Result<Copied, ImageError> {
    let real_image = image.canonicalize();
    let real_image = real_image.map_err(|source| io_error(image, "read", source))?;
    let real_to = match to.canonicalize() {
        Ok(real) => real,
        // Nothing is there, but its parent is.
        Err(_) => {
            let parent = match to.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.canonicalize(),
                _ => Path::new(".").canonicalize(),
            };
            let parent = parent.map_err(|source| io_error(to, "written", source))?;
            parent.join(to.file_name().unwrap_or_default())
        }
    };
    if real_image.starts_with(&real_to) || real_to.starts_with(&real_image) {
        return Err(ImageError::Overlap {
            image: image.to_owned(),
            path: to.to_owned(),
        });
    }
    let is_there = is_replaceable(to)?;
    let new = beside(to, "new")?;
    let copied = copy(image, &new)?;
    let placed = match is_there {
        true => replace(&new, to),
        false => fs::rename(&new, to),
    };
    if placed.is_err() {
        // What went wrong first says more.
        let _ = fs::remove_dir_all(&new);
    }
    placed.map_err(|source| io_error(to, "replaced", source))?;
    Ok(copied)
}

/// Puts one folder in the place of another one, which goes.
fn replace(new: &Path, to: &Path) -> io::Result<()> {
    let old = beside(to, "old").map_err(io::Error::other)?;
    fs::rename(to, &old)?;
    if let Err(error) = fs::rename(new, to) {
        fs::rename(&old, to)?;
        return Err(error);
    }
    fs::remove_dir_all(&old)
}

/// What a node makes in its data folder, and what a lab puts there.
const MADE_BY_NODES: [&str; 5] = [
    IDENTITY_FILE,
    STORE_FOLDER,
    SOCKET_FILE,
    SETTINGS_FILE,
    RESERVE,
];

/// Whether a folder is there; an error when it is not one that may be replaced.
fn is_replaceable(folder: &Path) -> Result<bool, ImageError> {
    let io = |source| io_error(folder, "replaced", source);
    match folder.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.is_dir() => return Err(io(io::ErrorKind::NotADirectory.into())),
        Ok(_) => {}
    }
    if folder.join(IDENTITY_FILE).is_file() {
        return Ok(true);
    }
    for entry in fs::read_dir(folder).map_err(io)? {
        let found = entry.map_err(io)?.file_name();
        if !MADE_BY_NODES.iter().any(|name| found == *name) {
            return Err(ImageError::NotANode {
                path: folder.to_owned(),
                found: found.into(),
            });
        }
    }
    Ok(true)
}

/// What happens to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// Single bits, each another one.
    FlipBits {
        /// How many.
        count: u32,
    },
    /// Stretches of zeros, as a disk has that lost a sector.
    Zero {
        /// How many stretches.
        count: u32,
        /// How long each is, in bytes.
        bytes: u64,
    },
    /// One file ends so many bytes sooner.
    Truncate {
        /// How many are missing.
        bytes: u64,
    },
}

/// One place that was damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// The file, seen from the folder.
    pub file: PathBuf,
    /// The first byte.
    pub offset: u64,
    /// What happened there.
    pub what: String,
}

/// Damages files of a folder whose path in it contains `files`; an empty text means all.
/// Larger files are hit more often, as on a disk.
/// What is hit follows the seed and the names and lengths of these files. Two nodes that did the
/// same have files of other lengths, so the seed alone repeats nothing but on a copied image.
///
/// # Errors
/// Nothing to be damaged, a limit, or what the system said about which path.
pub(crate) fn damage(
    folder: &Path,
    files: &str,
    damage: Damage,
    random: &mut Random,
) -> Result<Vec<Damaged>, ImageError> {
    let count = match damage {
        Damage::FlipBits { count } | Damage::Zero { count, .. } => count,
        Damage::Truncate { .. } => 1,
    };
    if count == 0 || count > DAMAGE_PLACES_MAX {
        return Err(ImageError::Places { count });
    }
    let is_meant = |entry: &Entry| {
        !entry.is_folder && entry.bytes > 0 && entry.path.to_string_lossy().contains(files)
    };
    let found = walk(folder)?.into_iter().filter(is_meant);
    let mut found: Vec<(PathBuf, u64)> = found.map(|entry| (entry.path, entry.bytes)).collect();
    // Folders are listed in any order; the seed is to mean the same every time.
    found.sort_unstable();
    let total: u64 = found.iter().map(|(_, bytes)| *bytes).sum();
    let bits = total.saturating_mul(8);
    if matches!(damage, Damage::FlipBits { .. }) && (1..u64::from(count)).contains(&bits) {
        return Err(ImageError::Bits {
            count,
            bits,
            path: folder.to_owned(),
            files: files.to_owned(),
        });
    }
    let mut damaged = Vec::new();
    let mut flipped = BTreeSet::new();
    while damaged.len() < count as usize {
        let mut offset = random.below(total);
        let bit = random.below(8);
        // Flipped twice, it would be as it was.
        if matches!(damage, Damage::FlipBits { .. }) && !flipped.insert((offset, bit)) {
            continue;
        }
        let hit = found.iter().find(|(_, bytes)| match offset < *bytes {
            true => true,
            false => {
                offset -= bytes;
                false
            }
        });
        let Some((file, length)) = hit else {
            return Err(ImageError::Nothing {
                path: folder.to_owned(),
                files: files.to_owned(),
            });
        };
        let place = Place {
            path: folder.join(file),
            length: *length,
            offset,
        };
        let (offset, what) = place.damage(damage, bit)?;
        damaged.push(Damaged {
            file: file.clone(),
            offset,
            what,
        });
    }
    Ok(damaged)
}

/// One place in a file.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    length: u64,
    offset: u64,
}

impl Place {
    /// Damages it, and says where it began and what was done.
    fn damage(&self, damage: Damage, bit: u64) -> Result<(u64, String), ImageError> {
        let io = |source| io_error(&self.path, "damaged", source);
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        let file = file.map_err(io)?;
        match damage {
            Damage::FlipBits { .. } => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, self.offset).map_err(io)?;
                let flipped = [byte[0] ^ (1 << bit)];
                file.write_all_at(&flipped, self.offset).map_err(io)?;
                Ok((self.offset, format!("bit {bit} flipped")))
            }
            Damage::Zero { bytes, .. } => {
                let bytes = bytes.min(self.length - self.offset);
                let zeros = vec![0; CHUNK_BYTES.min(usize::try_from(bytes).unwrap_or(usize::MAX))];
                let mut written = 0;
                while written < bytes {
                    let left = usize::try_from(bytes - written).unwrap_or(usize::MAX);
                    let chunk = zeros.get(..left).unwrap_or(&zeros);
                    file.write_all_at(chunk, self.offset + written)
                        .map_err(io)?;
                    written += chunk.len() as u64;
                }
                Ok((self.offset, format!("{bytes} bytes zeroed")))
            }
            Damage::Truncate { bytes } => {
                let left = self.length.saturating_sub(bytes);
                file.set_len(left).map_err(io)?;
                Ok((left, format!("{} bytes cut off", self.length - left)))
            }
        }
    }
}

/// Zeros that are written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Something in a folder that belongs to an image; the folder itself has an empty path.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    is_folder: bool,
    mode: u32,
    bytes: u64,
}

/// Everything that belongs to an image, each folder before what is in it.
fn walk(folder: &Path) -> Result<Vec<Entry>, ImageError> {
    let mut found = Vec::new();
    let mut bytes: u64 = 0;
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((path, depth)) = open.pop() {
        let full = inside(folder, &path);
        let io = |source| io_error(&full, "read", source);
        let metadata = fs::symlink_metadata(&full).map_err(io)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&full).map_err(io)? {
                let inner = path.join(entry.map_err(io)?.file_name());
                if inner != Path::new(RESERVE) {
                    open.push((inner, depth + 1));
                }
            }
        } else if !kind.is_file() || path.as_os_str().is_empty() {
            // Sockets, and links that lead out of the folder.
            continue;
        } else {
            bytes = bytes.saturating_add(metadata.len());
        }
        found.push(Entry {
            path,
            is_folder: kind.is_dir(),
            mode: metadata.mode() & 0o7777,
            bytes: metadata.len(),
        });
        if depth > DEPTH_MAX || found.len() > IMAGE_FILES_MAX || bytes > IMAGE_BYTES_MAX {
            return Err(ImageError::TooLarge {
                path: folder.to_owned(),
            });
        }
    }
    match found.is_empty() {
        true => Err(io_error(
            folder,
            "read",
            io::ErrorKind::NotADirectory.into(),
        )),
        false => Ok(found),
    }
}

/// A path in a folder; the folder itself for an empty one, to which joining would add a slash.
fn inside(folder: &Path, path: &Path) -> PathBuf {
    match path.as_os_str().is_empty() {
        true => folder.to_owned(),
        false => folder.join(path),
    }
}

/// The path beside this one that has `.end` behind its name.
fn beside(path: &Path, end: &str) -> Result<PathBuf, ImageError> {
    let name = path.file_name().ok_or_else(|| {
        let source = io::ErrorKind::InvalidFilename.into();
        io_error(path, "written", source)
    })?;
    let mut name = name.to_owned();
    name.push(".");
    name.push(end);
    Ok(path.with_file_name(name))
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

fn io_error(path: &Path, what: &'static str, source: io::Error) -> ImageError {
    ImageError::Io {
        path: path.to_owned(),
        what,
        source,
    }
}

#[cfg(test)]
mod tests;
