//! Classes, limits, receipts and dead letters over real nodes: what becomes of a message, and what
//! a person is told about it.

mod support;

use std::fs;

use serde_json::Value;

use support::deadline::SOON;
use support::document::{check_keys, total};
use support::shop::shop;
use support::{Lab, Node, until};

fn messages(listing: &Value) -> &Vec<Value> {
    listing["messages"].as_array().expect("a list")
}

/// The dead letters once there are so many.
#[track_caller]
fn until_dead(node: &Node, count: u64) -> Value {
    until(&format!("{count} dead letters"), SOON, || {
        let dead = node.json(&["dead", "list"]);
        (total(&dead) == count).then_some(dead)
    })
}

#[track_caller]
fn why(node: &Node, words: &[&str]) -> (String, String) {
    let why = node.json(&[&["why"], words].concat());
    check_keys(
        &why,
        &[
            "schema",
            "subject",
            "sentence",
            "state",
            "peer",
            "topic",
            "since",
            "next_attempt",
            "retried_as",
        ],
    );
    assert_eq!(why["schema"], "packhorse.why.v1");
    let text = |key: &str| why[key].as_str().expect("a text").to_owned();
    let sentence = text("sentence");
    // The table says the same, alone on one line.
    let shown = node.cli(&[&["why"], words].concat()).expect(0);
    assert_eq!(shown.lines().len(), 1, "{shown:?}");
    (text("state"), sentence)
}

fn id(receipt: &Value) -> String {
    receipt["receipt"]
        .as_str()
        .expect("a receipt id")
        .to_owned()
}

// --- ephemeral ---

#[test]
fn an_ephemeral_message_needs_a_live_session_and_leaves_nothing_behind() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    let words = ["send", "right", "news", "now", "--class", "ephemeral"];
    left.until_state("right", "connected");
    let sent = left.json(&words);
    check_keys(&sent, &["schema", "peer", "topic", "class", "state"]);
    assert_eq!(sent["schema"], "packhorse.ephemeral.v1");
    assert_eq!(sent["peer"], "right");
    assert_eq!(sent["topic"], "news");
    assert_eq!(sent["class"], "ephemeral");
    assert_eq!(sent["state"], "sent");
    until("the message", SOON, || {
        let received = right.receive("news", 1);
        (received == ["now"]).then_some(())
    });
    assert_eq!(right.inbox_total(), 0);
    right.stop();
    until("the end of the session", SOON, || {
        let status = left.peer_status("right");
        (status["state"] != "connected").then_some(())
    });
    left.cli(&words)
        .expect(1)
        .says("no session with `right` is alive")
        .prints_nothing();
    assert_eq!(left.outbox_total(), 0);
    assert_eq!(total(&left.json(&["dead", "list"])), 0);
}

#[test]
fn what_only_a_stored_message_has_is_refused_for_an_ephemeral_one() {
    let mut lab = Lab::new();
    let (left, _right) = lab.pair("left", "right");
    let words = ["send", "right", "news", "now", "--class", "ephemeral"];
    for more in [
        &["--id", "k"][..],
        &["--expires", "1m"],
        &["--wait", "stored"],
    ] {
        left.cli(&[&words, more].concat())
            .expect(2)
            .says("stored")
            .prints_nothing();
    }
    let lines = ["send", "right", "--lines", "news", "--class", "ephemeral"];
    left.cli_with(&lines, "a\n").expect(2);
    assert_eq!(left.outbox_total(), 0);
}

// --- topic rules ---

#[test]
fn topic_rules_beat_the_sender_unless_they_are_overridable() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    right.stop();
    left.stop();
    let settings = r#"
default_class = "moderate"

[[topics]]
pattern = "bills/*"
peer = "righ?"
class = "critical"

[[topics]]
pattern = "notes*"
class = "critical"
overridable = true

[[topics]]
pattern = "news"
class = "ephemeral"
"#;
    fs::write(left.data_dir().join("settings.toml"), settings).expect("our folder");
    left.start();
    let class = |words: &[&str]| {
        let words = [&["send", "right"], words].concat();
        left.json(&words)["class"]
            .as_str()
            .expect("a word")
            .to_owned()
    };
    assert_eq!(class(&["other", "x"]), "moderate");
    assert_eq!(class(&["other", "x", "--class", "critical"]), "critical");
    assert_eq!(class(&["bills/1", "x"]), "critical");
    assert_eq!(class(&["bills/1", "x", "--class", "moderate"]), "critical");
    assert_eq!(class(&["notes", "x"]), "critical");
    assert_eq!(class(&["notes", "x", "--class", "moderate"]), "moderate");
    // Also a sender that asks for more gets what the rule says.
    left.cli(&["send", "right", "news", "x", "--class", "critical"])
        .expect(1);
    // A wait needs a receipt, which such a message never has.
    left.cli(&["send", "right", "news", "x", "--wait", "stored"])
        .expect(2);
    let outbox = left.json(&["outbox", "list"]);
    let classes: Vec<&str> = messages(&outbox)
        .iter()
        .map(|message| message["class"].as_str().expect("a word"))
        .collect();
    assert_eq!(
        classes,
        [
            "moderate", "critical", "critical", "critical", "critical", "moderate"
        ]
    );
}

// --- limits in time ---

#[test]
fn an_expired_message_becomes_a_dead_letter_that_can_be_retried() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    left.cli(&["send", "right", "orders", "x", "--expires", "0s"])
        .expect(2)
        .says("`0s` must be longer than zero");
    let words = ["send", "right", "orders", "late", "--expires", "1s"];
    let receipt = left.json(&words);
    left.send("right", "orders", "patient");
    let dead = until_dead(&left, 1);
    check_keys(&dead, &["schema", "total", "messages"]);
    assert_eq!(dead["schema"], "packhorse.dead.v1");
    let letter = &messages(&dead)[0];
    assert_eq!(letter["id"], receipt["receipt"]);
    assert_eq!(letter["direction"], "out");
    assert_eq!(letter["peer"], "right");
    assert_eq!(letter["state"], "not delivered");
    assert_eq!(letter["payload"], "late");
    let reason = letter["reason"].as_str().expect("a reason");
    assert!(reason.contains("expired"), "{reason}");
    assert_eq!(left.outbox_total(), 1);
    let failed = left.json(&["receipt", &id(&receipt)]);
    assert_eq!(failed["state"], "failed");
    assert_eq!(failed["topic"], "orders");
    assert!(failed["at"].is_string(), "{failed}");
    let (state, sentence) = why(&left, &["message", &id(&receipt)]);
    assert_eq!(state, "not delivered");
    assert!(sentence.contains("certainly not delivered"), "{sentence}");
    // Retried it is a new message, behind the other one.
    let retried = left.json(&["dead", "retry", &id(&receipt)]);
    let left_alone = ["unsettled", "damaged", "forgotten"];
    let keys = [&["schema", "retried", "messages"][..], &left_alone].concat();
    check_keys(&retried, &keys);
    assert_eq!(retried["retried"], 1);
    assert_eq!(retried["messages"][0]["id"], receipt["receipt"]);
    assert_ne!(retried["messages"][0]["receipt"], receipt["receipt"]);
    assert_eq!(left.json(&["receipt", &id(&receipt)])["state"], "accepted");
    let (state, sentence) = why(&left, &["message", &id(&receipt)]);
    assert_eq!(state, "retried");
    assert!(sentence.contains("accepted anew"), "{sentence}");
    right.start();
    left.until_outbox_is_empty(SOON);
    assert_eq!(right.receive("orders", 10), ["patient", "late"]);
    left.cli(&["dead", "retry", &id(&receipt)]).expect(4);
}

#[test]
fn a_listing_shows_when_a_message_expires() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    left.json(&["send", "right", "orders", "x", "--expires", "7d"]);
    left.json(&["send", "right", "orders", "y"]);
    let outbox = left.json(&["outbox", "list"]);
    assert!(messages(&outbox)[0]["expires"].is_string(), "{outbox}");
    assert_eq!(messages(&outbox)[1]["expires"], Value::Null);
    let table = left.cli(&["outbox"]).expect(0);
    assert!(table.text().contains("in 6d 23h"), "{table:?}");
}

// --- replace ---

#[test]
fn a_message_is_replaced_only_before_it_can_have_left() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    // The session that carried this one ends before the next message is accepted.
    left.send_stored("right", "bills", "earlier");
    right.stop();
    until("the end of the session", SOON, || {
        let status = left.peer_status("right");
        (status["state"] != "connected").then_some(())
    });
    let send = |payload: &str, more: &[&str]| {
        let words = ["send", "right", "orders", payload, "--id", "k", "--json"];
        left.cli(&[&words[..], more].concat())
    };
    let first = send("one bale", &[]).expect(0).json();
    send("two bales", &[]).expect(5).prints_nothing();
    let second = send("two bales", &["--replace"]).expect(0).json();
    assert_eq!(second["receipt"], first["receipt"]);
    assert_eq!(left.outbox_total(), 1);
    left.cli(&["send", "right", "orders", "x", "--replace"])
        .expect(2);
    right.start();
    left.until_outbox_is_empty(SOON);
    assert_eq!(right.receive("orders", 10), ["two bales"]);
    send("three bales", &["--replace"])
        .expect(5)
        .says("too late to replace")
        .prints_nothing();
}

// --- boxes ---

#[test]
fn the_outbox_is_filtered_dropped_and_hurried() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let mut receipts = Vec::new();
    for (topic, payload) in [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("c", "5")] {
        receipts.push(left.send("right", topic, payload));
    }
    let of_b = left.json(&["outbox", "list", "--topic", "b", "--limit", "1"]);
    assert_eq!(total(&of_b), 2);
    assert_eq!(messages(&of_b).len(), 1);
    assert_eq!(total(&left.json(&["outbox", "list", "--peer", "right"])), 5);
    left.cli(&["outbox", "list", "--peer", "nobody"]).expect(4);
    // Nothing is dropped by accident.
    left.cli(&["outbox", "drop"]).expect(2);
    assert_eq!(left.outbox_total(), 5);
    let dropped = left.json(&["outbox", "drop", "--topic", "b"]);
    check_keys(&dropped, &["schema", "dropped"]);
    assert_eq!(dropped["schema"], "packhorse.dropped.v1");
    assert_eq!(dropped["dropped"], 2);
    let one = id(&receipts[0]);
    assert_eq!(left.cli(&["outbox", "drop", &one]).expect(0).text(), "1\n");
    left.cli(&["outbox", "drop", &one])
        .expect(4)
        .says("1 of 1 messages do not wait");
    let flushed = left.json(&["outbox", "flush"]);
    assert_eq!(flushed["schema"], "packhorse.flushed.v1");
    assert_eq!(flushed["peers"][0], "right");
    assert_eq!(
        left.cli(&["outbox", "flush", "--peer", "right"])
            .expect(0)
            .text(),
        "right\n"
    );
    left.cli(&["outbox", "flush", "--peer", "nobody"]).expect(4);
    let dead = left.json(&["dead", "list"]);
    assert_eq!(total(&dead), 3);
    assert!(
        messages(&dead)
            .iter()
            .all(|letter| letter["state"] == "not delivered")
    );
    // A dropped letter is gone for good, and its receipt says so.
    let dropped = left.json(&["dead", "drop", &one]);
    assert_eq!(dropped["dropped"], 1);
    left.cli(&["dead", "drop", &one]).expect(4);
    assert_eq!(left.json(&["receipt", &one])["state"], "failed");
    let retried = left.json(&["dead", "retry", "--topic", "b"]);
    assert_eq!(retried["retried"], 2);
    assert_eq!(left.json(&["dead", "drop", "--all"])["dropped"], 0);
    right.start();
    left.until_outbox_is_empty(SOON);
    assert_eq!(right.receive("a", 9), ["2"]);
    assert_eq!(right.receive("b", 9), ["3", "4"]);
    assert_eq!(right.receive("c", 9), ["5"]);
}

#[test]
fn a_refused_message_is_a_dead_letter_with_the_reason() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = right.invite_with(&["--grant", "message.send:allowed"]);
    left.join(&ticket, "right").expect(0);
    let words = ["send", "right", "forbidden", "x", "--wait", "stored"];
    left.cli(&words).expect(5).says("grants no message.send");
    let dead = until_dead(&left, 1);
    assert_eq!(messages(&dead)[0]["state"], "refused");
    let message = messages(&dead)[0]["id"].as_str().expect("an id");
    let (state, sentence) = why(&left, &["message", message]);
    assert_eq!(state, "refused");
    assert!(sentence.contains("grants no message.send"), "{sentence}");
    left.send_stored("right", "allowed", "y");
    assert_eq!(right.receive("allowed", 1), ["y"]);
}

// --- receipts ---

#[test]
fn a_receipt_climbs_to_done_when_the_message_was_received() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let waiting = left.spawn(
        &[
            "send",
            "right",
            "orders",
            "hay",
            "--wait",
            "done",
            "--timeout",
            "60s",
            "--json",
        ],
        "",
    );
    right.until_inbox_has(1, SOON);
    let inbox = right.json(&["inbox", "list"]);
    let message = messages(&inbox)[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let (state, sentence) = why(&left, &["message", &message]);
    assert!(
        ["stored", "accepted"].contains(&state.as_str()),
        "{sentence}"
    );
    let (state, _) = why(&right, &["message", &message]);
    assert_eq!(state, "waiting here");
    let short = ["receipt", &message, "--wait", "done", "--timeout", "100ms"];
    left.cli(&short).expect(3).says("not done within 100ms");
    assert_eq!(right.receive("orders", 1), ["hay"]);
    let done = waiting.finish(SOON * 3).expect(0).json();
    assert_eq!(done["state"], "done");
    assert_eq!(done["topic"], "orders");
    let (state, _) = why(&right, &["message", &message]);
    assert_eq!(state, "left");
    let shown = left.cli(&["receipt", &message, "--wait", "done"]).expect(0);
    assert_eq!(shown.text(), format!("{message} done\n"));
    let (state, sentence) = why(&left, &["message", &message]);
    assert_eq!(state, "done");
    assert!(
        sentence.starts_with("It was handled by right"),
        "{sentence}"
    );
}

#[test]
fn a_handlers_output_and_failure_come_back_with_the_receipt() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let good = left.send_stored("right", "orders", "hay");
    right
        .cli(&["work", "orders", "--exec", "echo loaded; cat", "--once"])
        .expect(0);
    let words = ["receipt", &id(&good), "--wait", "done"];
    let shown = left.cli(&words).expect(0);
    assert_eq!(shown.text(), format!("{} done\nloaded\nhay\n", id(&good)));
    let done = left.json(&["receipt", &id(&good)]);
    assert_eq!(done["output"], "loaded\nhay");
    assert_eq!(done["output_base64"], "bG9hZGVkCmhheQ==");
    assert!(done["at"].is_string(), "{done}");
    let bad = left.send_stored("right", "orders", "straw");
    right.cli(&["work", "orders", "--exec", "echo no; exit 65", "--once"]);
    let words = ["receipt", &id(&bad), "--wait", "done", "--json"];
    let failed = left.cli(&words).expect(5).json();
    assert_eq!(failed["state"], "failed");
    assert_eq!(failed["output"], "no\n");
    let (state, _) = why(&left, &["message", &id(&bad)]);
    assert_eq!(state, "failed");
    // There it is a dead letter, and may be handled after all.
    let dead = right.json(&["dead", "list", "--direction", "in"]);
    assert_eq!(total(&dead), 1);
    assert_eq!(messages(&dead)[0]["id"], bad["receipt"]);
    assert_eq!(messages(&dead)[0]["state"], "not handled");
    assert_eq!(messages(&dead)[0]["peer"], "left");
    assert_eq!(
        total(&right.json(&["dead", "list", "--direction", "out"])),
        0
    );
    let (state, sentence) = why(&right, &["message", &id(&bad)]);
    assert_eq!(state, "not handled");
    assert!(sentence.contains("given up here"), "{sentence}");
    assert_eq!(right.json(&["dead", "retry", &id(&bad)])["retried"], 1);
    assert_eq!(right.receive("orders", 5), ["straw"]);
}

#[test]
fn ids_that_are_unknown_or_none_are_told_apart() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let there = right.send_stored("left", "orders", "x");
    // A receipt is known to who got it; the message itself to both.
    left.cli(&["receipt", &id(&there)]).expect(4);
    let (state, _) = why(&left, &["message", &id(&there)]);
    assert_eq!(state, "waiting here");
    for words in [
        &["receipt", "rnonsense"][..],
        &["why", "message", "rnonsense"],
        &["dead", "drop", "rnonsense"],
        &["outbox", "drop", "rnonsense"],
    ] {
        left.cli(words).expect(2).says("is no receipt id");
    }
    left.cli(&["why", "peer", "nobody"]).expect(4);
    // Somebody else's message, well written.
    let mut third = lab.start("third");
    let ticket = third.invite();
    right.join(&ticket, "third").expect(0);
    third.stop();
    let foreign = right.send("third", "orders", "x");
    left.cli(&["why", "message", &id(&foreign)])
        .expect(4)
        .says("is known here");
    left.cli(&["dead", "retry", &id(&foreign)]).expect(4);
}

// --- headers ---

#[test]
fn headers_travel_and_are_shown_with_the_sender() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let words = [
        "send",
        "right",
        "orders",
        "hay",
        "--header",
        "kind:fresh",
        "--header",
        "from: the barn",
        "--reply-to",
        "answers",
        "--wait",
        "stored",
    ];
    let receipt = left.json(&words);
    let inbox = right.json(&["inbox", "list"]);
    assert_eq!(messages(&inbox)[0]["headers"]["reply-to"], "answers");
    let received = right.cli(&["receive", "orders", "--json"]).expect(0);
    let received = received.document("packhorse.received.v1");
    let message = &received["messages"][0];
    assert_eq!(message["headers"]["kind"], "fresh");
    assert_eq!(message["headers"]["from"], "the barn");
    assert_eq!(message["headers"]["reply-to"], "answers");
    assert_eq!(message["sender"], "left");
    assert_eq!(message["sender_id"], left.id());
    assert_eq!(message["message"], receipt["receipt"]);
    assert_eq!(message["class"], "critical");
    assert_eq!(message["ephemeral"], false);
    let lines = ["send", "right", "--lines", "orders", "--header", "a:b"];
    left.cli_with(&lines, "1\n2\n").expect(0);
    right.until_inbox_has(2, SOON);
    let inbox = right.json(&["inbox", "list"]);
    assert!(
        messages(&inbox)
            .iter()
            .all(|message| message["headers"]["a"] == "b")
    );
}

#[test]
fn headers_over_their_limits_are_a_usage_error_that_names_them() {
    let mut lab = Lab::new();
    let (left, _right) = lab.pair("left", "right");
    let send = |headers: &[String]| {
        let mut words = vec!["send", "right", "orders", "x"];
        for header in headers {
            words.extend(["--header", header]);
        }
        left.cli(&words)
    };
    let long = format!("a:{}", "v".repeat(4_095));
    send(std::slice::from_ref(&long)).expect(0);
    send(&[format!("{long}v")])
        .expect(2)
        .says("4097 bytes, more than 4096");
    let many: Vec<String> = (0..65).map(|number| format!("h{number}:")).collect();
    send(&many[..64]).expect(0);
    send(&many).expect(2).says("65 headers, more than 64");
    send(&["a:b".to_owned(), "a:c".to_owned()])
        .expect(2)
        .says("given twice");
    left.cli(&["send", "right", "orders", "x", "--reply-to", ""])
        .expect(2);
}

// --- why ---

#[test]
fn a_peer_is_explained_while_it_is_there_and_while_it_is_not() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    left.until_state("right", "connected");
    let (state, sentence) = why(&left, &["peer", "right"]);
    assert_eq!(state, "connected");
    assert!(sentence.contains("nothing waits for it"), "{sentence}");
    right.stop();
    until("a failed dial", SOON, || {
        let status = left.peer_status("right");
        (status["state"] != "connected").then_some(())
    });
    left.send("right", "orders", "1");
    let receipt = left.send("right", "orders", "2");
    let sentence = until("a planned dial", SOON, || {
        let (state, sentence) = why(&left, &["peer", "right"]);
        (state == "waiting").then_some(sentence)
    });
    assert!(sentence.contains("is dialled again"), "{sentence}");
    assert!(sentence.contains("2 messages wait for it"), "{sentence}");
    let (state, sentence) = why(&left, &["message", &id(&receipt)]);
    assert_eq!(state, "accepted");
    assert!(sentence.contains("waits behind 1 other"), "{sentence}");
}

#[test]
fn a_peer_without_an_address_has_to_call() {
    let mut lab = Lab::new();
    let left = lab.start("left");
    let mut loner = lab.loner("loner");
    loner.start();
    let ticket = left.invite();
    loner.join(&ticket, "left").expect(0);
    loner.stop();
    left.send("loner", "orders", "x");
    let sentence = until("the end of the session", SOON, || {
        let (state, sentence) = why(&left, &["peer", "loner"]);
        (state == "no address").then_some(sentence)
    });
    assert!(
        sentence.starts_with("No address of loner is known here"),
        "{sentence}"
    );
}
