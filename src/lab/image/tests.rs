//! Folders like a node's that are copied, put back and damaged.

use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::*;

/// A folder like a node's.
fn node() -> TempDir {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let at = |name: &str| folder.path().join(name);
    let key = at("identity.key");
    fs::write(&key, [7; 64]).expect("a file");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("our file");
    DirBuilder::new()
        .mode(0o700)
        .create(at("db"))
        .expect("ours");
    fs::write(at("db/journal"), [0xff; 4_000]).expect("a file");
    fs::write(at("db/empty"), []).expect("a file");
    fs::write(at(RESERVE), [0; 1_000]).expect("a file");
    UnixListener::bind(at("api.sock")).expect("a socket");
    folder
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").mode() & 0o777
}

#[test]
fn an_image_has_every_file_and_mode_but_the_socket_and_the_reserve() {
    let node = node();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let image = scratch.path().join("image");
    let copied = copy(node.path(), &image).expect("a folder");
    let expected = Copied {
        files: 3,
        bytes: 4_064,
    };
    assert_eq!(copied, expected);
    assert_eq!(mode(&image.join("identity.key")), 0o600);
    assert_eq!(mode(&image.join("db")), 0o700);
    assert!(!image.join("api.sock").exists() && !image.join(RESERVE).exists());
    assert!(matches!(
        copy(node.path(), &image),
        Err(ImageError::Exists { .. })
    ));
    // What came after the image goes when it is put back.
    fs::write(node.path().join("db/later"), [1]).expect("a file");
    assert_eq!(restore(&image, node.path()).expect("an image"), expected);
    assert!(!node.path().join("db/later").exists());
    let journal = fs::read(node.path().join("db/journal")).expect("a file");
    assert_eq!(journal, [0xff; 4_000]);
}

#[test]
fn an_image_that_is_not_there_takes_nothing_away() {
    let node = node();
    let nowhere = node.path().join("nowhere");
    let file = node.path().join("identity.key");
    assert!(restore(&file, &node.path().join("db")).is_err());
    let error = restore(&nowhere, &node.path().join("db")).expect_err("no image");
    assert!(
        error.to_string().contains("nowhere cannot be read"),
        "{error}"
    );
    assert!(node.path().join("db/journal").exists());
}

/// What lies in a folder, by name.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().expect("a text"))
        .collect();
    names.sort();
    names
}

#[test]
fn an_image_and_what_it_replaces_never_lie_in_each_other() {
    let node = node();
    let image = node.path().join("image");
    copy(node.path(), &image).expect("a folder");
    let link = node.path().join("link");
    std::os::unix::fs::symlink(&image, &link).expect("ours");
    let inner = image.join("db");
    for (from, to) in [
        (image.as_path(), node.path()),
        (&image, &image),
        (&image, &image.join("new")),
        (&link, &image),
        (&image, &inner),
    ] {
        let error = restore(from, to).expect_err("they overlap");
        assert!(matches!(error, ImageError::Overlap { .. }), "{error}");
    }
    assert!(image.join("db/journal").exists() && node.path().join("identity.key").exists());
}

#[test]
fn only_what_looks_like_a_node_is_replaced() {
    let node = node();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let image = scratch.path().join("image");
    copy(node.path(), &image).expect("a folder");
    let other = scratch.path().join("other");
    fs::create_dir(&other).expect("ours");
    restore(&image, &other).expect("an empty folder");
    restore(&image, &other).expect("a node");
    fs::remove_file(other.join("identity.key")).expect("ours");
    restore(&image, &other).expect("a node without its identity");
    fs::remove_file(other.join("identity.key")).expect("ours");
    fs::write(other.join("thesis.tex"), "years of work").expect("a file");
    let error = restore(&image, &other).expect_err("no node");
    assert!(error.to_string().contains("it holds thesis.tex"), "{error}");
    assert!(other.join("thesis.tex").exists());
    let file = scratch.path().join("file");
    fs::write(&file, "text").expect("a file");
    restore(&image, &file).expect_err("no folder");
    assert!(file.exists());
    let absent = scratch.path().join("absent");
    restore(&image, &absent).expect("nothing is there");
    assert_eq!(names(scratch.path()), ["absent", "file", "image", "other"]);
}

#[test]
fn a_copy_that_fails_leaves_nothing_and_what_was_to_be_replaced() {
    let node = node();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let image = scratch.path().join("image");
    copy(node.path(), &image).expect("a folder");
    let target = scratch.path().join("target");
    copy(node.path(), &target).expect("a folder");
    // A name that is taken, and a file whose name has no room left for more.
    fs::create_dir(scratch.path().join("target.new")).expect("ours");
    restore(&image, &target).expect_err("no room for the new one");
    assert!(target.join("db/journal").exists());
    let found = [Entry {
        path: "gone".into(),
        is_folder: false,
        mode: 0,
        bytes: 0,
    }];
    fill(&found, &image, &target).expect_err("it is gone meanwhile");
    let long = scratch.path().join("a".repeat(255));
    copy(&image, &long).expect_err("too long with what is behind it");
    let left = ["image", "target", "target.new"];
    assert_eq!(names(scratch.path()), left);
}

#[test]
fn every_bit_is_flipped_once_and_more_than_there_are_is_refused() {
    let node = node();
    fs::write(node.path().join("db/journal"), [0xff; 4]).expect("a file");
    let mut random = Random::new(1);
    let flip = |count| Damage::FlipBits { count };
    let damaged = damage(node.path(), "db/", flip(32), &mut random).expect("32 bits");
    assert_eq!(damaged.len(), 32);
    let journal = fs::read(node.path().join("db/journal")).expect("a file");
    assert_eq!(journal, [0; 4]);
    let error = damage(node.path(), "db/", flip(33), &mut random).expect_err("one too many");
    assert!(
        error
            .to_string()
            .contains("33 bits are to be flipped, and there are 32"),
        "{error}"
    );
}

#[test]
fn flipped_bits_repeat_with_the_seed_and_are_where_they_are_said_to_be() {
    let mut told = Vec::new();
    for seed in [1, 1, 2] {
        let node = node();
        let flip = Damage::FlipBits { count: 3 };
        let mut random = Random::new(seed);
        let damaged = damage(node.path(), "db/", flip, &mut random).expect("files");
        let journal = fs::read(node.path().join("db/journal")).expect("a file");
        let zeros: u32 = journal.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(zeros, 3);
        for place in &damaged {
            let offset = usize::try_from(place.offset).expect("small");
            assert_ne!(journal[offset], 0xff, "{place:?}");
            assert_eq!(place.file, Path::new("db/journal"));
        }
        told.push(damaged);
    }
    assert_eq!(told[0], told[1]);
    assert_ne!(told[0], told[2]);
}

#[test]
fn files_are_zeroed_and_cut_off() {
    let node = node();
    let mut random = Random::new(3);
    let zero = Damage::Zero {
        count: 1,
        bytes: 16,
    };
    let damaged = damage(node.path(), "journal", zero, &mut random).expect("a file");
    let journal = fs::read(node.path().join("db/journal")).expect("a file");
    let zeros = journal.iter().filter(|byte| **byte == 0).count();
    assert_eq!(damaged[0].what, format!("{zeros} bytes zeroed"));
    let cut = Damage::Truncate { bytes: 100 };
    let damaged = damage(node.path(), "journal", cut, &mut random).expect("a file");
    assert_eq!(damaged[0].offset, 3_900);
    let length = fs::metadata(node.path().join("db/journal")).expect("a file");
    assert_eq!(length.len(), 3_900);
}

#[test]
fn nothing_to_be_damaged_and_too_much_of_it_are_named() {
    let node = node();
    let mut random = Random::new(3);
    let flip = |count| Damage::FlipBits { count };
    let error = damage(node.path(), "db/empty", flip(1), &mut random).expect_err("no byte");
    assert!(error.to_string().contains("`db/empty`"), "{error}");
    for count in [0, DAMAGE_PLACES_MAX + 1] {
        let error = damage(node.path(), "", flip(count), &mut random).expect_err("a limit");
        assert!(
            error.to_string().contains("limits are 1 and 10000"),
            "{error}"
        );
    }
}
