//! The identity file as operators meet it: passphrases, wrong keys, damage, and a new identity.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use support::deadline::{SOON, pause};
use support::{Lab, Node, Random, seed, until};

/// A file that only its owner may read.
fn secret(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.file(name);
    std::fs::write(&path, text).expect("our file");
    set_mode(&path, 0o600);
    path
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("our file");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn key_file(node: &Node) -> PathBuf {
    node.data_dir().join("identity.key")
}

#[test]
fn a_passphrase_seals_the_identity_and_every_way_to_give_it_opens_it() {
    let mut lab = Lab::new();
    let (mut left, right) = lab.pair("left", "right");
    let id = left.id();
    let good = secret(&lab, "good", "correct horse\n");
    let bad = secret(&lab, "bad", "wrong horse\n");
    left.cli(&["passphrase", "set", "--file", text(&good)])
        .expect(0);
    left.stop();
    let sealed = std::fs::read_to_string(key_file(&left)).expect("our file");
    assert!(sealed.starts_with("packhorse identity 2\n"), "{sealed}");
    assert!(!sealed.contains("seed"), "{sealed}");
    // The id needs no passphrase.
    assert_eq!(left.cli(&["id"]).expect(0).text().trim_end(), id);
    assert_eq!(left.cli(&["init"]).expect(0).text().trim_end(), id);
    // None, and a wrong one: exit 8, at once.
    let none = left.cli(&["up"]).expect(8).says("sealed with a passphrase");
    none.says("hint: ").says("--passphrase-file");
    let words = ["up", "--passphrase-file", text(&bad)];
    left.cli(&words).expect(8).says("does not open");
    set_mode(&good, 0o640);
    let words = ["up", "--passphrase-file", text(&good)];
    left.cli(&words).expect(5).says("chmod 600");
    set_mode(&good, 0o600);
    // Named on the command line.
    let up = left.spawn(&words, "");
    until("the daemon answers", SOON, || {
        left.api().get("/v1/status", &[]).ok()
    });
    up.signal(Signal::TERM);
    up.finish(SOON).expect(0);
    // Named in the settings.
    let settings = left.data_dir().join("settings.toml");
    let line = format!("passphrase_file = {:?}\n", text(&good));
    std::fs::write(&settings, line).expect("our file");
    left.start();
    assert_eq!(left.id(), id);
    left.stop();
    std::fs::remove_file(&settings).expect("our file");
    // Handed over by the service manager; who may read it is its own business.
    let credentials = lab.file("credentials");
    std::fs::create_dir(&credentials).expect("our folder");
    let credential = credentials.join("packhorse-passphrase");
    std::fs::copy(&good, &credential).expect("our file");
    set_mode(&credential, 0o440);
    let mut left = left.with_variable("CREDENTIALS_DIRECTORY", text(&credentials));
    left.start();
    assert_eq!(left.id(), id);
    // The store is the one that it was.
    left.send_stored("right", "news", "one");
    left.stop();
    // Another passphrase, then none.
    let words = [
        "passphrase",
        "set",
        "--file",
        text(&bad),
        "--old-file",
        text(&good),
    ];
    left.cli(&words).expect(0);
    left.cli(&["passphrase", "remove", "--file", text(&good)])
        .expect(8);
    left.cli(&["passphrase", "remove", "--file", text(&bad)])
        .expect(0);
    let plain = std::fs::read_to_string(key_file(&left)).expect("our file");
    assert!(plain.starts_with("packhorse identity 1\n"));
    left.start();
    left.send_stored("right", "news", "two");
    assert_eq!(right.receive("news", 10), ["one", "two"]);
}

#[test]
fn an_identity_that_a_start_makes_is_sealed_with_the_passphrase_that_it_was_given() {
    let lab = Lab::new();
    let node = Node::new("left", lab.file("left"), None);
    let good = secret(&lab, "good", "correct horse");
    let up = node.spawn(&["up", "--passphrase-file", text(&good)], "");
    until("the daemon answers", SOON, || {
        node.api().get("/v1/status", &[]).ok()
    });
    up.signal(Signal::TERM);
    up.finish(SOON).expect(0);
    let file = std::fs::read_to_string(key_file(&node)).expect("our file");
    assert!(file.starts_with("packhorse identity 2\n"), "{file}");
}

#[test]
fn without_a_terminal_no_new_passphrase_is_asked_for() {
    let mut lab = Lab::new();
    let node = lab.loner("left");
    node.cli(&["init"]).expect(0);
    node.cli(&["passphrase", "set"])
        .expect(2)
        .says("passphrase set --file");
    let empty = secret(&lab, "empty", "\n");
    node.cli(&["passphrase", "set", "--file", text(&empty)])
        .expect(2)
        .says("empty");
    let wide = secret(&lab, "wide", "x");
    set_mode(&wide, 0o644);
    node.cli(&["passphrase", "set", "--file", text(&wide)])
        .expect(5)
        .says("chmod 600");
    let output = node.cli(&["passphrase", "remove"]).expect(0);
    output.says("nothing was changed");
}

#[test]
fn a_wrong_key_is_8_and_a_damaged_one_is_7_and_neither_is_an_empty_store() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    right.send("left", "bills", "one");
    left.stop();
    right.stop();
    let mine = std::fs::read(key_file(&left)).expect("our file");
    std::fs::copy(key_file(&right), key_file(&left)).expect("our file");
    left.cli(&["up"]).expect(8).says("another key");
    for (at, newer) in [(30, false), (100, false), (19, true)] {
        let mut bytes = mine.clone();
        bytes[at] = if newer { b'9' } else { bytes[at] ^ 1 };
        std::fs::write(key_file(&left), &bytes).expect("our file");
        let words = if newer { "newer packhorse" } else { "damaged" };
        left.cli(&["up"]).expect(7).says(words);
        left.cli(&["id"]).expect(7).says(words);
    }
    std::fs::write(key_file(&left), &mine).expect("our file");
    left.start();
    assert_eq!(left.peer_names(), ["right"]);
    left.stop();
    // The same when it is sealed: a flipped bit is damage and no wrong passphrase.
    let good = secret(&lab, "good", "correct horse");
    left.cli(&["passphrase", "set", "--file", text(&good)])
        .expect(0);
    let sealed = std::fs::read(key_file(&left)).expect("our file");
    for at in (21..sealed.len()).step_by(7) {
        let mut bytes = sealed.clone();
        bytes[at] ^= 1;
        std::fs::write(key_file(&left), &bytes).expect("our file");
        left.cli(&["up", "--passphrase-file", text(&good)])
            .expect(7);
    }
}

#[test]
fn a_new_identity_keeps_the_store_and_needs_the_daemon_to_be_stopped() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    let old = left.id();
    right.stop();
    left.send("right", "news", "waiting");
    let before = std::fs::read(key_file(&left)).expect("our file");
    left.cli(&["id", "--new"]).expect(7).prints_nothing();
    assert_eq!(std::fs::read(key_file(&left)).expect("our file"), before);
    left.stop();
    let output = left.cli(&["id", "--new"]).expect(0);
    let new = output.text().trim_end().to_owned();
    assert_ne!(new, old);
    let output = output.says("pair again with right").says("1 messages wait");
    output.says("identity.key.old-");
    let kept: Vec<_> = std::fs::read_dir(left.data_dir())
        .expect("our folder")
        .map(|entry| entry.expect("our folder").path())
        .filter(|path| text(path).contains("identity.key."))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(std::fs::read(&kept[0]).expect("our file"), before);
    let mode = kept[0].metadata().expect("our file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    left.start();
    assert_eq!(left.id(), new);
    assert_eq!(left.outbox_total(), 1);
    right.start();
    let ticket = left.invite();
    right.join(&ticket, "left-anew").expect(0);
    left.until_outbox_is_empty(SOON);
    assert_eq!(right.receive("news", 10), ["waiting"]);
}

/// `id --new` keeps the old file, which holds the store secret that the new one has too.
#[test]
fn a_passphrase_seals_the_identities_that_are_kept_too() {
    let mut lab = Lab::new();
    let node = lab.loner("left");
    let good = secret(&lab, "good", "correct horse");
    let set = ["passphrase", "set", "--file", text(&good)];
    node.cli(&["init"]).expect(0);
    let first = std::fs::read_to_string(key_file(&node)).expect("our file");
    let secret = first.lines().last().expect("the line of the store");
    node.cli(&["id", "--new"]).expect(0);
    let shows_secret = || {
        let entries = std::fs::read_dir(node.data_dir()).expect("our folder");
        let paths = entries.map(|entry| entry.expect("our folder").path());
        let files = paths.filter(|path| path.is_file());
        let shows = |path: &PathBuf| {
            let bytes = std::fs::read(path).expect("our file");
            String::from_utf8_lossy(&bytes).contains(secret)
        };
        files.filter(shows).count()
    };
    assert_eq!(shows_secret(), 2);
    // What cannot be sealed is named, and nothing is called sealed beside it.
    let stray = node.data_dir().join("identity.key.old-stray");
    std::fs::write(&stray, secret).expect("our folder");
    set_mode(&stray, 0o600);
    node.cli(&set).expect(5).says(text(&stray));
    node.cli(&["passphrase", "remove"])
        .expect(0)
        .says("was not sealed");
    std::fs::remove_file(&stray).expect("our file");
    node.cli(&set).expect(0);
    assert_eq!(shows_secret(), 0);
    for (words, hint) in [
        (&set[..], "--old-file"),
        (&["passphrase", "remove"], "--file"),
    ] {
        node.cli(words).expect(8).says(hint);
    }
    // The old identity is still one: its passphrase opens it.
    let kept = std::fs::read_dir(node.data_dir()).expect("our folder");
    let kept = kept
        .map(|entry| entry.expect("our folder").path())
        .find(|path| text(path).contains(".old-"))
        .expect("the old identity");
    std::fs::rename(&kept, key_file(&node)).expect("our file");
    let back = ["passphrase", "remove", "--file", text(&good)];
    node.cli(&back).expect(0);
    let file = std::fs::read_to_string(key_file(&node)).expect("our file");
    assert_eq!(file, first);
}

#[test]
fn a_command_that_is_killed_leaves_the_old_or_the_new_identity() {
    let mut lab = Lab::new();
    let mut node = lab.loner("left");
    node.cli(&["init"]).expect(0);
    let good = secret(&lab, "good", "correct horse");
    let mut random = Random::new(seed());
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..16 {
        let id = node.cli(&["id"]).expect(0).text().to_owned();
        seen.insert(id);
        let (set, remove) = (
            [
                "passphrase",
                "set",
                "--file",
                text(&good),
                "--old-file",
                text(&good),
            ],
            ["passphrase", "remove", "--file", text(&good)],
        );
        let words: &[&str] = match round % 4 {
            0 => &set,
            1 => &["id", "--new", "--passphrase-file", text(&good)],
            2 => &remove,
            _ => &["id", "--new"],
        };
        let command = node.spawn(words, "");
        pause(std::time::Duration::from_millis(random.below(400)));
        command.kill();
    }
    // Whatever it is now, it is whole, and it opens the store.
    let id = node.cli(&["id"]).expect(0).text().to_owned();
    let _ = node
        .cli(&["passphrase", "remove", "--file", text(&good)])
        .expect(0);
    node.start();
    assert_eq!(node.id(), id.trim_end());
}
