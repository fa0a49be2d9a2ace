//! One flipped bit in any region of any file of a small store: it is named, nothing is served
//! wrong, and the rest is kept.
//!
//! A store is filled and ended, cleanly or by a kill. Then, file by file and region by region, one
//! bit of a copy is flipped, and the copy is opened and read. What was there must come out as it
//! was, or its loss must be told: by the error of the open, by an error of the read, by a count of
//! the quarantine, or by a dead letter that says that it was damaged.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use packhorse_actors::store::{Filter, OpenError, Severity, StoreError, examine};
use packhorse_protocol::epoch::Lane;

use store_common::*;

/// Regions per file: a flip in each.
const REGIONS_MAX: u64 = 4;
/// A payload that lies apart from its key.
const LARGE: usize = 6_000;

/// What was put in.
struct Load {
    out: Vec<String>,
    arrived: Vec<String>,
}

impl Load {
    fn new() -> Self {
        let text = |name: &str, number: u32| {
            let filler = if number.is_multiple_of(4) { LARGE } else { 100 };
            format!("{name}{number} {}", "x".repeat(filler))
        };
        Self {
            out: (0..24).map(|number| text("out", number)).collect(),
            arrived: (0..24).map(|number| text("in", number)).collect(),
        }
    }

    async fn put(&self, node: &Node) {
        let peer = node.pair(2, &["message.send:*"]).await;
        for text in &self.out {
            let sent = vec![keyed(text, &text[..6])];
            node.store.accept(peer, Lane::User, sent).await.unwrap();
        }
        let texts: Vec<&str> = self.arrived.iter().map(String::as_str).collect();
        let items = vec![batch(epoch(3, 3), 1, &texts)];
        node.store
            .store_inbound(peer, Lane::User, items)
            .await
            .unwrap();
    }
}

/// The files of a folder, read once.
struct Image {
    folders: Vec<PathBuf>,
    files: Vec<File>,
}

struct File {
    name: PathBuf,
    /// Without the zeros at its end: journals are preallocated with them, and nothing can be wrong
    /// there.
    bytes: Vec<u8>,
    length: u64,
}

impl Image {
    fn of(root: &Path) -> Self {
        let mut image = Self {
            folders: vec![PathBuf::new()],
            files: Vec::new(),
        };
        let mut at = 0;
        while let Some(folder) = image.folders.get(at).cloned() {
            at += 1;
            for entry in fs::read_dir(root.join(&folder)).unwrap() {
                let entry = entry.unwrap();
                let name = folder.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    image.folders.push(name);
                } else if entry.file_name() != "reserve" {
                    let mut bytes = fs::read(entry.path()).unwrap();
                    let length = bytes.len() as u64;
                    cut_zeros(&mut bytes);
                    image.files.push(File {
                        name,
                        bytes,
                        length,
                    });
                }
            }
        }
        image.files.sort_by(|one, two| one.name.cmp(&two.name));
        image
    }

    /// A place with a copy of it, of whose file `flip` one bit is flipped.
    fn copied(&self, secret: [u8; 32], flip: Option<(usize, u64, u32)>) -> Place {
        let mut place = Place::files();
        place.config.store_secret = secret;
        let root = &place.config.folder;
        for folder in &self.folders {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(root.join(folder))
                .unwrap();
        }
        for (number, file) in self.files.iter().enumerate() {
            let target = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(root.join(&file.name))
                .unwrap();
            target.write_all_at(&file.bytes, 0).unwrap();
            target.set_len(file.length).unwrap();
            if let Some((_, at, bit)) = flip.filter(|(flipped, ..)| *flipped == number) {
                let byte = file.bytes[at as usize] ^ (1 << bit);
                target.write_all_at(&[byte], at).unwrap();
            }
        }
        place
    }
}

/// Looks at pages, because tests are not optimised and journals are 64 MiB.
fn cut_zeros(bytes: &mut Vec<u8>) {
    const PAGE: usize = 4_096;
    const ZEROS: [u8; PAGE] = [0; PAGE];
    while bytes.len() >= PAGE && bytes[bytes.len() - PAGE..] == ZEROS {
        bytes.truncate(bytes.len() - PAGE);
    }
    let used = bytes.iter().rposition(|byte| *byte != 0);
    bytes.truncate(used.map_or(0, |last| last + 1));
}

/// A number from a place, so that every run flips the same bits.
fn mixed(file: usize, region: u64) -> u64 {
    let mut state = (file as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ region;
    state ^= state >> 31;
    state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state ^ (state >> 29)
}

/// How one flip ended.
#[derive(Default, Debug)]
struct Tally {
    flips: u32,
    /// The store did not open, and said why.
    not_opened: u32,
    /// Something was told as damaged, the rest was there.
    told: u32,
    /// Nothing was the matter.
    harmless: u32,
}

/// Opens a store with a flipped bit and reads all of it.
async fn look(place: &mut Place, load: &Load, what: &str) -> Result<bool, OpenError> {
    let node = place.try_open()?;
    assert!(!node.opened.is_new(), "{what}: taken for a new store");
    let mut is_told = false;
    let peers = match node.store.peers().await {
        Ok(peers) => peers,
        Err(error) => {
            is_named(&error, what);
            is_told = true;
            Vec::new()
        }
    };
    let mut out = Vec::new();
    if let Some(peer) = peers.first() {
        let loaded = node
            .store
            .load(peer.number, Lane::User, None, usize::MAX, usize::MAX)
            .await;
        match loaded {
            Ok((rows, _)) => out.extend(
                rows.into_iter()
                    .map(|row| String::from_utf8(row.message.payload).unwrap()),
            ),
            Err(error) => {
                is_named(&error, what);
                is_told = true;
            }
        }
    }
    let arrived = node
        .store
        .inbox_waiting("news".into(), 0, usize::MAX, usize::MAX)
        .await;
    let arrived: Vec<String> = match arrived {
        Ok(rows) => rows
            .into_iter()
            .map(|row| String::from_utf8(row.message.payload).unwrap())
            .collect(),
        Err(error) => {
            is_named(&error, what);
            is_told = true;
            Vec::new()
        }
    };
    let letters = node.store.dead_letters(Filter::default(), 99).await;
    is_told |= node.store.quarantined().0 > 0;
    is_told |= letters.is_ok_and(|letters| letters.total > 0);
    for (name, served, put) in [("out", &out, &load.out), ("in", &arrived, &load.arrived)] {
        // Served in the order in which it was put in, and nothing that was not.
        let mut rest = put.iter();
        for text in served {
            let is_known = rest.any(|known| known == text);
            assert!(is_known, "{what}: {name} serves {:?} wrongly", &text[..12]);
        }
        let is_whole = served.len() == put.len();
        assert!(
            is_whole || is_told,
            "{what}: {} of {} {name} are there, and nothing is said",
            served.len(),
            put.len()
        );
    }
    let is_whole = out.len() == load.out.len() && arrived.len() == load.arrived.len();
    drop(node);
    Ok(is_told || !is_whole)
}

#[track_caller]
fn is_named(error: &StoreError, what: &str) {
    assert!(
        matches!(
            error,
            StoreError::Damaged { .. } | StoreError::Unreadable(_)
        ),
        "{what}: {error}"
    );
}

/// Flips one bit in every region of every file of the store.
async fn flip_all(image: &Image, secret: [u8; 32], load: &Load) -> Tally {
    let mut tally = Tally::default();
    for (number, file) in image.files.iter().enumerate() {
        let used = file.bytes.len() as u64;
        let regions = used.min(REGIONS_MAX);
        for region in 0..regions {
            let random = mixed(number, region);
            let (from, to) = (used * region / regions, used * (region + 1) / regions);
            let (at, bit) = (from + random % (to - from), (random >> 61) as u32);
            let what = format!("{} byte {at} bit {bit}", file.name.display());
            let mut copy = image.copied(secret, Some((number, at, bit)));
            tally.flips += 1;
            match look(&mut copy, load, &what).await {
                Ok(true) => tally.told += 1,
                Ok(false) => tally.harmless += 1,
                Err(error) => {
                    let is_locked = matches!(error, OpenError::Locked { .. });
                    assert!(!is_locked, "{what}: {error}");
                    tally.not_opened += 1;
                    // And doctor names it too.
                    let report = examine(&copy.config).unwrap();
                    assert_eq!(report.worst(), Severity::Damage, "{what}: {report:?}");
                }
            }
        }
    }
    tally
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_a_store_that_was_closed_is_named() {
    let load = Load::new();
    let mut place = Place::files();
    let node = place.open();
    load.put(&node).await;
    node.close().await;
    let image = Image::of(&place.config.folder);
    let tally = flip_all(&image, place.config.store_secret, &load).await;
    println!("closed: {tally:?}");
    assert!(tally.not_opened + tally.told > 0, "{tally:?}");
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_a_store_that_was_killed_is_named() {
    let load = Load::new();
    let mut place = Place::files();
    let node = place.open();
    load.put(&node).await;
    let image = Image::of(&place.config.folder);
    let secret = place.config.store_secret;
    // As it was found, untouched.
    let mut killed = image.copied(secret, None);
    assert!(!look(&mut killed, &load, "no flip").await.unwrap());
    let tally = flip_all(&image, secret, &load).await;
    println!("killed: {tally:?}");
    assert!(tally.not_opened + tally.told > 0, "{tally:?}");
    node.close().await;
}
