//! Copied disks, restored backups, lost folders, crossing dials: what both sides see of it, and what
//! stays true of the messages.
//!
//! Goal: nothing is doubled into an inbox, nothing that was acknowledged is lost but what the
//! restored disk does not have, and that is named; each case is told where people look; and the
//! nodes go on working.
//! Method: real processes, and data folders that are copied while their daemons are stopped.

mod support;

use std::fs::{remove_dir_all, remove_file};

use packhorse::lab::image::restore;
use serde_json::Value;

use support::deadline::SOON;
use support::lab::pair;
use support::{Lab, Node, SEND_ALL, until};

/// What a node told under this kind.
fn events(node: &Node, kind: &str) -> Vec<String> {
    let page = node.json(&["events", "--since", "0"]);
    let events = page["events"].as_array().expect("a list of events").clone();
    let of_kind = events.iter().filter(|event| event["kind"] == kind);
    let text = |event: &Value| event["text"].as_str().expect("a text").to_owned();
    of_kind.map(text).collect()
}

fn until_event(node: &Node, kind: &str) -> String {
    let what = format!("{} tells {kind}", node.name());
    until(&what, SOON, || events(node, kind).pop())
}

fn until_trouble(node: &Node, peer: &str, words: &str) {
    let what = format!("{} shows `{words}` for {peer}", node.name());
    until(&what, SOON, || {
        let status = node.peer_status(peer);
        let text = status["trouble"]["text"].as_str()?.to_owned();
        text.contains(words).then_some(())
    });
    let why = node.json(&["why", "peer", peer]);
    let sentence = why["sentence"].as_str().expect("a sentence");
    assert!(sentence.contains(words), "{sentence}");
}

#[test]
fn a_cloned_disk_is_refused_while_the_other_lives_and_takes_a_new_identity() {
    let mut lab = Lab::new();
    let (mut left, right) = lab.pair("left", "right");
    left.send_stored("right", "news", "one");
    left.stop();
    let address = format!("127.0.0.1:{}", lab.port());
    let mut twin = Node::new("left", lab.file("twin"), Some(address));
    restore(left.data_dir(), twin.data_dir()).expect("a copy");
    left.start();
    left.until_state("right", "connected");
    right.until_state("left", "connected");

    twin.start();
    twin.send("right", "news", "of the twin");
    for node in [&right, &twin] {
        until_event(node, "peer.identity_in_use");
    }
    until_trouble(&right, "left", "two live machines show its identity");
    until_trouble(&twin, "right", "id --new");
    let status = twin.until_state("right", "refused");
    assert_eq!(status["last_error"]["class"], "identity in use");
    // The one that was there goes on, on the session that it had.
    let sessions = events(&left, "session.started").len();
    left.send_stored("right", "news", "two");
    assert_eq!(events(&left, "session.started").len(), sessions);
    assert_eq!(right.receive("news", 10), ["one", "two"]);

    // A person ends it.
    twin.stop();
    let renewal = twin.json(&["id", "--new"]);
    assert_eq!(renewal["schema"], "packhorse.id.new.v1");
    assert_eq!(renewal["old_node"], left.id());
    assert_eq!(renewal["waiting"], 1);
    assert_eq!(renewal["peers"][0]["name"], "right");
    twin.start();
    assert_ne!(twin.id(), left.id());
    until_event(&twin, "node.new_identity");
    until_trouble(&twin, "right", "pair with it again");
    let ticket = right.invite();
    twin.cli(&["join", &ticket, "--grant", SEND_ALL]).expect(0);
    // What waited goes out under the new identity.
    twin.until_outbox_is_empty(SOON);
    right.until_inbox_has(1, SOON);
    assert_eq!(right.receive("news", 10), ["of the twin"]);
    left.send_stored("right", "news", "three");
}

#[test]
fn a_restored_sender_doubles_nothing_and_tells_the_truth_about_what_had_left() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    left.send_stored("right", "news", "one");
    right.stop();
    for key in ["two", "three", "four"] {
        left.json(&["send", "right", "news", key, "--id", key]);
    }
    left.stop();
    let backup = lab.file("backup");
    restore(left.data_dir(), &backup).expect("a copy");
    // The life that will be lost.
    left.start();
    right.start();
    left.until_outbox_is_empty(SOON);
    left.send_stored("right", "news", "five");
    left.restart();
    left.until_state("right", "connected");
    left.stop();
    right.stop();

    restore(&backup, left.data_dir()).expect("a copy");
    left.start();
    let replaced = left.json(&[
        "send",
        "right",
        "news",
        "new two",
        "--id",
        "two",
        "--replace",
    ]);
    let dropped = left.json(&["send", "right", "news", "three", "--id", "three"]);
    let id = |receipt: &Value| receipt["receipt"].as_str().expect("an id").to_owned();
    left.cli(&["outbox", "drop", &id(&dropped)]).expect(0);
    right.start();
    until_event(&left, "node.rolled_back");
    until_event(&right, "peer.copy_seen");
    until_trouble(&right, "left", "set back");
    left.until_outbox_is_empty(SOON);
    // Neither was delivered as it is here, and neither is told to have been.
    for receipt in [&replaced, &dropped] {
        let receipt = left.json(&["receipt", &id(receipt)]);
        assert_eq!(receipt["state"], "failed", "{receipt}");
        let reason = receipt["reason"].as_str().expect("a reason");
        assert!(reason.contains("set back"), "{reason}");
    }
    let dead = left.json(&["dead", "list"]);
    let states: Vec<_> = dead["messages"]
        .as_array()
        .expect("letters")
        .iter()
        .collect();
    assert_eq!(states[0]["state"], "not delivered");
    assert_eq!(states[1]["state"], "may be delivered");
    left.send_stored("right", "news", "six");
    let all = ["one", "two", "three", "four", "five", "six"];
    assert_eq!(right.receive("news", 10), all);

    // The next boot is above all that the other has seen, and there is nothing more to tell.
    let told = events(&right, "peer.copy_seen").len();
    left.restart();
    left.send_stored("right", "news", "seven");
    assert_eq!(events(&right, "peer.copy_seen").len(), told);
    assert_eq!(right.receive("news", 10), ["seven"]);
}

#[test]
fn a_restored_receiver_names_what_it_lost_and_takes_nothing_twice() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    left.send_stored("right", "news", "one");
    right.stop();
    let backup = lab.file("backup");
    restore(right.data_dir(), &backup).expect("a copy");
    right.start();
    for text in ["two", "three"] {
        left.send_stored("right", "news", text);
    }
    right.stop();
    restore(&backup, right.data_dir()).expect("a copy");
    right.start();
    // Something that waits, so that it dials again should its first dial find the other side busy.
    right.send_stored("left", "bills", "back");
    let lost = until_event(&left, "peer.rolled_back");
    assert!(lost.contains("2 to 3"), "{lost}");
    let lost = until_event(&right, "node.rolled_back");
    assert!(lost.contains("2 to 3") || lost.contains("boot"), "{lost}");
    until_trouble(&left, "right", "boot");
    left.send_stored("right", "news", "four");
    assert_eq!(right.receive("news", 10), ["one", "four"]);
    assert_eq!(left.receive("bills", 10), ["back"]);
}

#[test]
fn a_node_with_its_identity_and_a_new_store_pairs_again_and_goes_on() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    left.send_stored("right", "news", "one");
    right.send_stored("left", "bills", "first");
    right.restart();
    right.until_state("left", "connected");
    right.stop();
    let folder = right.data_dir().to_owned();
    remove_dir_all(folder.join("db")).expect("our folder");
    remove_file(folder.join("commit.mark")).expect("our file");
    right.start();
    assert_eq!(right.peer_names(), Vec::<String>::new());
    pair(&left, &right);
    until_event(&left, "peer.copy_seen");
    until_trouble(&left, "right", "boot");
    assert_eq!(left.peer_names(), ["right"]);
    left.send_stored("right", "news", "two");
    right.send_stored("left", "bills", "second");
    assert_eq!(right.receive("news", 10), ["two"]);
    assert_eq!(left.receive("bills", 10), ["first", "second"]);
    until_event(&right, "node.rolled_back");
    let told = events(&left, "peer.copy_seen").len();
    right.restart();
    left.send_stored("right", "news", "three");
    assert_eq!(events(&left, "peer.copy_seen").len(), told);
}

#[test]
fn a_node_whose_folder_was_lost_is_another_peer_under_another_name() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    left.send_stored("right", "news", "one");
    right.stop();
    let old = left.peer_status("right")["id"].clone();
    remove_dir_all(right.data_dir()).expect("our folder");
    right.start();
    pair(&left, &right);
    let names = left.peer_names();
    assert_eq!(names.len(), 2, "{names:?}");
    let name = names
        .iter()
        .find(|name| *name != "right")
        .expect("the new one");
    assert_eq!(left.peer_status("right")["id"], old);
    assert_eq!(left.peer_status(name)["id"], right.id());
    left.send_stored(name, "news", "two");
    left.send("right", "news", "for the old one");
    assert_eq!(right.receive("news", 10), ["two"]);
    assert_eq!(left.outbox_total(), 1);
}

/// Sessions that a node has begun.
fn sessions(node: &Node) -> usize {
    events(node, "session.started").len()
}

#[test]
fn nodes_that_dial_each_other_at_once_settle_on_one_session() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    // Counted below: who is stopped as soon as it was paired may not have begun that one.
    left.until_state("right", "connected");
    right.until_state("left", "connected");
    for round in 0..6 {
        left.stop();
        right.stop();
        // Both have something for the other, so both dial as soon as they run.
        std::thread::scope(|scope| {
            scope.spawn(|| left.start());
            scope.spawn(|| right.start());
        });
        let text = format!("round {round}");
        let sent = [(&left, "right"), (&right, "left")].map(|(node, peer)| {
            let wait = ["--wait", "stored", "--timeout", "60s"];
            node.spawn(&[&["send", peer, "news", &text], &wait[..]].concat(), "")
        });
        for sent in sent {
            sent.finish(SOON * 3).expect(0);
        }
        left.until_state("right", "connected");
        right.until_state("left", "connected");
        let before = (sessions(&left), sessions(&right));
        // What lives now stays: answers over it, and not one session more.
        left.cli(&["ping", "right", "--count", "2"]).expect(0);
        right.cli(&["ping", "left", "--count", "1"]).expect(0);
        assert_eq!((sessions(&left), sessions(&right)), before, "round {round}");
    }
    // Each round began one session on each side, and at most one was given up for another.
    for node in [&left, &right] {
        let displaced = events(node, "session.ended")
            .into_iter()
            .filter(|text| text.contains("newer session"))
            .count();
        assert!(
            displaced <= 6,
            "{displaced} sessions were displaced in 6 rounds"
        );
        let count = sessions(node);
        assert!((7..=13).contains(&count), "{count} sessions in 6 rounds");
    }
}

#[test]
fn a_stale_half_gives_way_to_the_first_new_dial() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    left.until_state("right", "connected");
    for round in 1..=3 {
        let before = sessions(&left);
        // Killed without a word: to the other side the session looks alive for 45 s.
        right.kill();
        right.start();
        right.until_state("left", "connected");
        until("the new session took over", SOON, || {
            (sessions(&left) > before).then_some(())
        });
        right.send_stored("left", "bills", "still here");
        assert_eq!(sessions(&left), before + 1, "round {round}");
    }
}
