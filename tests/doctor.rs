//! `doctor` at the command line: clean folders, running nodes, wide modes, damage and its repair.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use packhorse::identity::Identity;
use serde_json::Value;

use support::document::check_keys;
use support::{Lab, Node};

/// The findings of one check.
fn found(diagnosis: &Value, check: &str) -> Vec<Value> {
    let findings = diagnosis["findings"]
        .as_array()
        .expect("a list of findings");
    let of_check = findings.iter().filter(|finding| finding["check"] == check);
    of_check.cloned().collect()
}

#[track_caller]
fn doctor(node: &Node, words: &[&str], code: i32) -> Value {
    let words = [&["doctor", "--json"], words].concat();
    let output = node.cli(&words).expect(code);
    let diagnosis = output.document("packhorse.doctor.v1");
    for finding in diagnosis["findings"].as_array().expect("a list") {
        check_keys(finding, &["check", "severity", "text", "place", "advice"]);
    }
    diagnosis
}

#[test]
fn a_clean_folder_is_well_and_a_running_node_is_asked() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    left.send_stored("right", "t", "one");
    let running = doctor(&left, &[], 0);
    assert_eq!(found(&running, "records")[0]["severity"], "unseen");
    assert_eq!(found(&running, "room")[0]["severity"], "well");
    left.cli(&["doctor", "--repair"])
        .expect(7)
        .says("the node runs");
    left.stop();
    right.stop();
    for node in [&left, &right] {
        let stopped = doctor(node, &[], 0);
        assert_eq!(found(&stopped, "records")[0]["severity"], "well");
        assert_eq!(found(&stopped, "identity")[0]["severity"], "well");
        let text = node.cli(&["doctor"]).expect(0);
        assert!(text.text().contains("every record opens"), "{text:?}");
        let repaired = doctor(node, &["--repair"], 0);
        assert_eq!(repaired["mended"], serde_json::json!([]));
    }
    let nowhere = Node::new("nowhere", lab.file("nowhere"), None);
    nowhere.cli(&["doctor"]).expect(4).says("no data folder");
}

#[test]
fn wide_modes_and_settings_that_are_not_understood_are_named_with_what_mends_them() {
    let mut lab = Lab::new();
    let mut node = lab.start("left");
    node.stop();
    let identity = node.data_dir().join("identity.key");
    fs::set_permissions(&identity, Permissions::from_mode(0o644)).expect("our own file");
    let diagnosis = doctor(&node, &[], 7);
    let wide = &found(&diagnosis, "modes")[0];
    assert_eq!(wide["severity"], "damage");
    assert_eq!(wide["place"], identity.to_string_lossy().as_ref());
    let advice = wide["advice"].as_str().expect("advice");
    assert!(advice.contains("chmod 600"), "{advice}");
    fs::set_permissions(&identity, Permissions::from_mode(0o600)).expect("our own file");
    fs::write(node.data_dir().join("settings.toml"), "nmae = \"x\"\n").expect("our own folder");
    let diagnosis = doctor(&node, &[], 7);
    let settings = found(&diagnosis, "settings")[0]["text"].clone();
    let settings = settings.as_str().expect("a sentence");
    assert!(settings.contains("settings.toml:1:1"), "{settings}");
}

/// Cuts the newest journal short, as damage to it makes the engine do. What had been durable in it is
/// gone then.
fn cut_journal(data_dir: &Path) {
    let mut journals: Vec<_> = fs::read_dir(data_dir.join("db"))
        .expect("a store")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    journals.sort();
    let newest = journals.last().expect("a journal");
    let file = fs::OpenOptions::new().write(true).open(newest);
    file.and_then(|file| file.set_len(0)).expect("our own file");
}

#[test]
fn lost_commits_are_named_and_accepted_by_repair_alone() {
    let mut lab = Lab::new();
    let mut node = lab.start("left");
    node.kill();
    cut_journal(node.data_dir());
    node.cli(&["up"]).expect(7).says("commits are lost");
    let diagnosis = doctor(&node, &[], 7);
    let lost = &found(&diagnosis, "commit.mark")[0];
    assert_eq!(lost["severity"], "damage");
    let mended = doctor(&node, &["--repair"], 0)["mended"].clone();
    assert!(
        mended[0]
            .as_str()
            .is_some_and(|text| text.contains("accepted")),
        "{mended}"
    );
    node.start();
    let events = node.json(&["events", "--since", "0"]);
    assert!(
        events.to_string().contains("store.lost_commits"),
        "{events}"
    );
    // The journals as they were found are kept.
    assert!(node.data_dir().join("aside").is_dir());
    node.stop();
}

#[test]
fn a_flipped_bit_in_the_identity_is_named_and_never_another_node_or_an_empty_store() {
    let mut lab = Lab::new();
    let mut node = lab.start("left");
    node.stop();
    let path = node.data_dir().join("identity.key");
    let right = fs::read(&path).expect("our own file");
    let known = Identity::load(node.data_dir(), None).expect("an identity");
    let mut wrong_key = None;
    for at in 0..right.len() {
        let mut flipped = right.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).expect("our own file");
        match Identity::load(node.data_dir(), None) {
            Err(_) => {}
            // The store's secret has no checksum of its own: the store knows it.
            Ok(found) => {
                assert_eq!(found.id(), known.id(), "byte {at}");
                assert_ne!(found.store_secret(), known.store_secret(), "byte {at}");
                wrong_key = Some(flipped);
            }
        }
    }
    let wrong_key = wrong_key.expect("a digit of the secret that is another digit");
    fs::write(&path, wrong_key).expect("our own file");
    node.cli(&["up"]).expect(8).says("another key");
    let diagnosis = doctor(&node, &[], 7);
    assert_eq!(found(&diagnosis, "heads")[0]["severity"], "damage");
    fs::write(&path, right).expect("our own file");
    doctor(&node, &[], 0);
}
