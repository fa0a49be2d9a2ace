//! What peers may do: given, ended and taken back while sessions live and workers wait.
//!
//! A change is in effect when the command that made it is done, so hardly anything here waits.

mod support;

use serde_json::json;

use support::deadline::SOON;
use support::document::check_keys;
use support::shop::{note, notes, until_notes};
use support::{Lab, SEND_ALL, until};

#[test]
fn what_is_revoked_is_refused_at_once_and_what_stands_behind_it_is_delivered() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = right.invite_with(&["--grant", SEND_ALL]);
    left.join(&ticket, "right").expect(0);
    left.send_stored("right", "secret", "one");
    // One grant fewer, one exclusion more: the session that lives hears of both.
    let added = right.cli(&[
        "grant",
        "left",
        "message.send:!secret",
        "execute:a",
        "--json",
    ]);
    let added = added.expect(0).document("packhorse.peer.v1");
    assert_eq!(
        added["peer"]["grants"],
        json!([SEND_ALL, "message.send:!secret", "execute:a"])
    );
    let revoked = right.cli(&["revoke", "left", "execute"]).expect(0);
    assert_eq!(
        revoked.text(),
        "left may now: message.send:* message.send:!secret\n"
    );
    let words = [
        "send",
        "right",
        "secret",
        "two",
        "--wait",
        "stored",
        "--timeout",
        "60s",
    ];
    left.cli(&words).expect(5).says("grants no message.send");
    left.send_stored("right", "orders", "three");
    let dead = left.json(&["dead", "list"]);
    assert_eq!(dead["total"], 1, "{dead}");
    assert_eq!(dead["messages"][0]["state"], "refused", "{dead}");
    until("the sender is told what it may do now", SOON, || {
        let granted = &left.json(&["peers"])["peers"][0]["granted"];
        (*granted == json!([SEND_ALL, "message.send:!secret"])).then_some(())
    });
    // Taken back altogether, and given again.
    right.cli(&["revoke", "left", "message.send"]).expect(0);
    let words = [
        "send",
        "right",
        "orders",
        "four",
        "--wait",
        "stored",
        "--timeout",
        "60s",
    ];
    left.cli(&words).expect(5);
    right
        .cli(&["grant", "left", "message.send:orders"])
        .expect(0);
    left.send_stored("right", "orders", "five");
    assert_eq!(right.receive("orders", 9), ["three", "five"]);
    assert_eq!(right.receive("secret", 9), ["one"]);
    let events = right.json(&["events"]);
    let kinds: Vec<_> = events["events"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert!(
        kinds
            .iter()
            .any(|event| event["kind"] == "peer.grants_changed"
                && event["text"] == "revoked message.send:* message.send:!secret"),
        "{events}"
    );
}

#[test]
fn what_a_peer_did_not_hold_is_said_and_the_rest_is_taken() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = right.invite_with(&["--grant", SEND_ALL, "--grant", "execute:a"]);
    left.join(&ticket, "right").expect(0);
    let words = ["revoke", "left", "execute:b", SEND_ALL, "--json"];
    let output = right
        .cli(&words)
        .expect(4)
        .says("left did not hold execute:b");
    let document = output.document("packhorse.revoked.v1");
    check_keys(&document, &["schema", "peer", "revoked", "missing"]);
    assert_eq!(document["revoked"], json!([SEND_ALL]));
    assert_eq!(document["missing"], json!(["execute:b"]));
    assert_eq!(document["peer"]["grants"], json!(["execute:a"]));
    right.cli(&["revoke", "left", "message.send"]).expect(4);
    right.cli(&["revoke", "nobody", "execute"]).expect(4);
    right.cli(&["grant", "nobody", "execute:a"]).expect(4);
    right
        .cli(&["grant", "left", "fly:a"])
        .expect(2)
        .says("unknown capability");
    right
        .cli(&["revoke", "left", "fly"])
        .expect(2)
        .says("unknown capability");
}

#[test]
fn a_grant_that_ends_shows_its_end_and_then_is_none() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let grants = ["--grant", "message.send:*", "--grant-expires", "30d"];
    left.join(&right.invite_with(&grants), "right").expect(0);
    let peer = || right.json(&["peers"])["peers"][0].clone();
    let end = peer()["ends"]["message.send:*"].clone();
    assert!(end.as_str().is_some_and(|end| end.ends_with('Z')), "{end}");
    let listed = right.cli(&["peers"]).expect(0);
    assert!(
        listed.text().contains("message.send:* (for 29d"),
        "{}",
        listed.text()
    );
    left.send_stored("right", "orders", "in time");
    right
        .cli(&["grant", "left", "message.send:*", "--expires", "1ms"])
        .expect(0);
    until("the grant has ended", SOON, || {
        (peer()["grants"] == json!([])).then_some(())
    });
    let words = [
        "send",
        "right",
        "orders",
        "late",
        "--wait",
        "stored",
        "--timeout",
        "60s",
    ];
    left.cli(&words).expect(5).says("grants no message.send");
    right.cli(&["grant", "left", "message.send:*"]).expect(0);
    assert_eq!(peer()["ends"], json!({}));
    left.send_stored("right", "orders", "again");
    assert_eq!(right.receive("orders", 9), ["in time", "again"]);
}

#[test]
fn a_worker_that_waits_hears_of_a_grant_at_once_and_of_its_end_as_well() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    left.join(&right.invite_with(&["--grant", SEND_ALL]), "right")
        .expect(0);
    let exec = note(&lab, "$(cat)");
    let _worker = right.follow(&["work", "jobs", "--exec", &exec]);
    left.send_stored("right", "jobs", "first");
    right.cli(&["grant", "left", "execute:jobs"]).expect(0);
    assert_eq!(until_notes(&lab, 1), ["first"]);
    right.cli(&["revoke", "left", "execute"]).expect(0);
    left.send_stored("right", "jobs", "second");
    // Another node's job is done, so the worker has looked; the one before it was passed over.
    let third = lab.start("third");
    let grants = ["--grant", SEND_ALL, "--grant", "execute:jobs"];
    third.join(&right.invite_with(&grants), "right").expect(0);
    third.send_stored("right", "jobs", "third");
    assert_eq!(until_notes(&lab, 2), ["first", "third"]);
    right.cli(&["grant", "left", "execute:*"]).expect(0);
    assert_eq!(until_notes(&lab, 3), ["first", "third", "second"]);
    assert_eq!(notes(&lab).len(), 3);
}

#[test]
fn a_peer_gets_another_name_that_is_free_and_one() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    right.cli(&["peers", "rename", "left", "barn"]).expect(0);
    assert_eq!(right.peer_names(), ["barn"]);
    right.send_stored("barn", "orders", "to a new name");
    assert_eq!(left.receive("orders", 1), ["to a new name"]);
    right.cli(&["peers", "rename", "left", "other"]).expect(4);
    right.cli(&["peers", "rename", "barn", "a\u{7}b"]).expect(2);
    let third = lab.start("third");
    support::lab::pair(&right, &third);
    right
        .cli(&["peers", "rename", "third", "barn"])
        .expect(2)
        .says("another peer is named");
}
