//! The exact shapes that scripts rely on, over real nodes: documents, exit codes, plain outputs.
//!
//! A test here that must change means a script out there that breaks.

mod support;

use data_encoding::BASE64;
use rustix::process::Signal;
use serde_json::Value;

use support::command::run;
use support::document::{check_keys, total};
use support::node::count_of;
use support::{Lab, packhorse};

fn is_node_id(text: &Value) -> bool {
    text.as_str().is_some_and(|id| id.starts_with("phn1"))
}

// --- up ---

#[test]
fn up_says_where_it_listens_in_one_line_and_ends_with_0_on_sigterm() {
    let mut lab = Lab::new();
    let mut node = lab.listener("left");
    node.start();
    let ready = node.ready().clone();
    check_keys(
        &ready,
        &["schema", "node", "name", "listen", "advertise", "socket"],
    );
    assert_eq!(ready["schema"], "packhorse.up.v1");
    assert_eq!(ready["name"], "left");
    assert!(is_node_id(&ready["node"]), "{ready}");
    let socket = ready["socket"].as_str().expect("a path");
    assert_eq!(socket, node.data_dir().join("api.sock").to_string_lossy());
    let listen = ready["listen"][0].as_str().expect("an address");
    assert!(listen.starts_with("quic://127.0.0.1:"), "{ready}");
    // Also checks that nothing else was printed.
    node.stop();
}

#[test]
fn port_0_becomes_the_port_that_the_system_chose() {
    let lab = Lab::new();
    let mut node = support::Node::new("any", lab.file("any"), Some("127.0.0.1:0".to_owned()));
    node.start();
    let listen = node.ready()["listen"].clone();
    let port = listen[0]
        .as_str()
        .and_then(|address| address.strip_prefix("quic://127.0.0.1:"))
        .and_then(|port| port.parse::<u16>().ok());
    assert!(port.is_some_and(|port| port != 0), "{listen}");
    assert_eq!(listen.as_array().map(Vec::len), Some(1), "{listen}");
}

#[test]
fn sigint_ends_a_node_with_0_as_sigterm_does() {
    let mut lab = Lab::new();
    let mut node = lab.start("left");
    assert_eq!(node.end_by(Signal::INT), (Some(0), Vec::new()));
}

#[test]
fn a_node_keeps_its_identity_over_restarts() {
    let mut lab = Lab::new();
    let mut node = lab.start("left");
    let id = node.id();
    node.restart();
    assert_eq!(node.id(), id);
    node.kill();
    node.start();
    assert_eq!(node.id(), id);
}

#[test]
fn a_second_daemon_on_one_folder_ends_with_7_and_harms_nothing() {
    let mut lab = Lab::new();
    let node = lab.start("left");
    let mut second = packhorse(node.data_dir());
    second.args(["up", "--json"]);
    let output = run(second, "").expect(7);
    assert_eq!(output.text(), "");
    assert_eq!(node.status()["name"], "left");
}

// --- send and receipts ---

#[test]
fn a_receipt_has_the_published_keys_and_values() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let receipt = left.send("right", "orders", "two bales of hay");
    check_receipt(&receipt, "accepted");
}

/// Checks the receipt of a message on `orders` for `right`.
#[track_caller]
fn check_receipt(receipt: &Value, state: &str) {
    check_keys(
        receipt,
        &[
            "schema",
            "receipt",
            "peer",
            "topic",
            "class",
            "state",
            "durability",
            "reason",
            "at",
            "output",
            "output_base64",
        ],
    );
    assert_eq!(receipt["schema"], "packhorse.receipt.v1");
    assert_eq!(receipt["peer"], "right");
    assert_eq!(receipt["topic"], "orders");
    assert_eq!(receipt["class"], "critical");
    assert_eq!(receipt["state"], state);
    assert_eq!(receipt["durability"], "fsync");
    assert_eq!(receipt["reason"], Value::Null);
    assert!(receipt["receipt"].as_str().is_some_and(|id| !id.is_empty()));
}

#[test]
fn a_peer_may_be_named_by_its_node_id() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let receipt = left.send_stored(&right.id(), "orders", "hay");
    assert_eq!(receipt["peer"], "right");
    assert_eq!(right.receive("orders", 10), ["hay"]);
}

#[test]
fn a_repeated_key_returns_the_first_receipt_and_other_bytes_are_refused() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let send =
        |payload, key| left.cli(&["send", "right", "orders", payload, "--id", key, "--json"]);
    let first = send("hay", "k").expect(0).json();
    assert_eq!(send("hay", "k").expect(0).json(), first);
    send("straw", "k").expect(5).prints_nothing();
    let second = send("hay", "another key").expect(0).json();
    assert_ne!(second["receipt"], first["receipt"]);
    assert_eq!(left.outbox_total(), 2);
    // The promise outlives the process and the delivery.
    right.start();
    left.until_outbox_is_empty(support::deadline::SOON);
    let late = send("hay", "k").expect(0).json();
    assert_eq!(late["receipt"], first["receipt"]);
    assert_eq!(late["state"], "stored");
    assert_eq!(right.receive("orders", 10), ["hay", "hay"]);
    send("straw", "k").expect(5);
}

#[test]
fn a_key_is_remembered_over_a_kill() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    right.stop();
    let words = ["send", "right", "orders", "hay", "--id", "k", "--json"];
    let first = left.cli(&words).expect(0).json();
    left.kill();
    left.start();
    assert_eq!(left.cli(&words).expect(0).json(), first);
    assert_eq!(left.outbox_total(), 1);
}

#[test]
fn waiting_for_stored_ends_with_0_when_it_is_there() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let words = ["send", "right", "orders", "hay", "--wait", "stored"];
    let receipt = left
        .cli(&[&words[..], &["--json"]].concat())
        .expect(0)
        .json();
    check_receipt(&receipt, "stored");
    // No waiting here: stored means that it is in the inbox there, under the same name.
    let inbox = right.json(&["inbox", "list"]);
    assert_eq!(total(&inbox), 1);
    assert_eq!(inbox["messages"][0]["id"], receipt["receipt"]);
    assert_eq!(left.outbox_total(), 0);
}

#[test]
fn waiting_for_stored_ends_with_3_when_the_peer_is_down_and_the_message_stays() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let words = ["send", "right", "orders", "hay", "--wait", "stored"];
    let words = [&words[..], &["--timeout", "200ms"]].concat();
    left.cli(&words).expect(3).says("not stored within 200ms");
    let words = [&words[..], &["--json"]].concat();
    let receipt = left.cli(&words).expect(3).json();
    assert_eq!(receipt["state"], "accepted");
    assert_eq!(left.outbox_total(), 2);
}

#[test]
fn a_send_that_waits_learns_of_the_peer_that_comes_back() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let words = ["send", "right", "orders", "hay", "--wait", "stored"];
    let waiting = left.spawn(&[&words[..], &["--timeout", "60s"]].concat(), "");
    right.start();
    waiting.finish(support::deadline::SOON * 3).expect(0);
    assert_eq!(right.inbox_total(), 1);
}

#[test]
fn an_unknown_peer_is_not_found() {
    let mut lab = Lab::new();
    let node = lab.start("left");
    node.cli(&["send", "nobody", "orders", "hay"]).expect(4);
    let lines = ["send", "nobody", "--lines", "orders"];
    assert_eq!(count_of(&node.cli_with(&lines, "hay\n").expect(4)), 0);
    assert_eq!(node.outbox_total(), 0);
}

#[test]
fn every_question_to_a_daemon_that_is_down_ends_with_6() {
    let mut lab = Lab::new();
    let mut node = lab.start("left");
    let ticket = node.invite();
    for is_killed in [false, true] {
        if is_killed {
            // The socket file is left behind, and must not look like a daemon.
            node.start();
            node.kill();
        } else {
            node.stop();
        }
        for words in [
            &["send", "right", "orders", "hay"][..],
            &["outbox", "list"],
            &["inbox", "list"],
            &["receive", "orders"],
            &["status", "--json"],
            &["peers"],
            &["invite"],
            &["join", &ticket],
        ] {
            let output = node.cli(words).expect(6);
            assert_eq!(output.text(), "", "{words:?}");
        }
    }
}

#[test]
fn lines_are_counted_alone_on_stdout_and_keep_their_order() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let words = ["send", "right", "--lines", "orders"];
    assert_eq!(
        left.cli_with(&words, "a\n\nb\nno newline").expect(0).text(),
        "4\n"
    );
    assert_eq!(left.cli_with(&words, "").expect(0).text(), "0\n");
    let counted = left.cli_with(&[&words[..], &["--json"]].concat(), "c\n");
    let counted = counted.expect(0).document("packhorse.lines.v1");
    assert_eq!(counted["accepted"], 1);
    right.start();
    left.until_outbox_is_empty(support::deadline::SOON);
    let expected = ["a", "", "b", "no newline", "c"];
    assert_eq!(right.receive("orders", 10), expected);
}

// --- limits and payloads ---

#[test]
fn a_payload_of_exactly_1_mib_arrives_and_one_byte_more_is_a_usage_error() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let limit = vec![b'x'; 1 << 20];
    let words = ["send", "right", "orders", "-", "--wait", "stored"];
    let mut over = limit.clone();
    over.push(b'x');
    left.cli_with(&words, over).expect(2);
    assert_eq!(left.outbox_total(), 0);
    left.cli_with(&words, limit.clone()).expect(0);
    let received = right.cli(&["receive", "orders"]).expect(0);
    assert_eq!(received.stdout.len(), limit.len() + 1);
    assert!(received.stdout.starts_with(&limit));
}

#[test]
fn payloads_are_bytes_and_may_be_none() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let binary: Vec<u8> = (0..=255).collect();
    let words = ["send", "right", "orders", "-", "--wait", "stored"];
    left.cli_with(&words, binary.clone()).expect(0);
    left.cli_with(&words, "").expect(0);
    let listing = right.json(&["inbox", "list"]);
    let messages = listing["messages"].as_array().expect("a list");
    assert_eq!(messages[0]["payload"], Value::Null);
    assert_eq!(messages[0]["payload_base64"], BASE64.encode(&binary));
    assert_eq!(messages[1]["payload"], "");
    assert_eq!(messages[1]["payload_base64"], "");
    let received = right.cli(&["receive", "orders"]).expect(0);
    assert_eq!(received.stdout, [&binary[..], b"\n", b"\n"].concat());
}

#[test]
fn a_table_never_lets_a_payload_steer_the_terminal() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let words = ["send", "right", "orders", "-", "--wait", "stored"];
    left.cli_with(&words, [0xff, 0, b'\n', 0x1b]).expect(0);
    let listing = right.json(&["inbox", "list"]);
    assert_eq!(listing["messages"][0]["payload"], Value::Null);
    assert_eq!(listing["messages"][0]["payload_base64"], "/wAKGw==");
    let table = right.cli(&["inbox"]).expect(0);
    assert!(table.text().contains("(4 bytes)"), "{table:?}");
    assert!(!table.text().contains('\u{1b}'), "{table:?}");
}

#[test]
fn a_payload_may_come_from_a_file() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let file = lab.file("payload");
    std::fs::write(&file, b"from a file").expect("a file in the scratch folder");
    left.send_stored("right", "orders", &format!("@{}", file.display()));
    assert_eq!(right.receive("orders", 1), ["from a file"]);
}

// --- listings ---

#[test]
fn listings_show_the_oldest_up_to_the_limit_and_count_all() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let lines: Vec<String> = (0..150).map(|number| format!("bale {number}")).collect();
    assert_eq!(left.send_lines("right", "orders", &lines), 150);
    let receipt = left.send("right", "orders", "last");
    let outbox = left.json(&["outbox", "list"]);
    check_listing(&outbox, "packhorse.outbox.v1", 151, 100, "right");
    let all = left.json(&["outbox", "list", "--limit", "1000"]);
    check_listing(&all, "packhorse.outbox.v1", 151, 151, "right");
    assert_eq!(all["messages"][150]["id"], receipt["receipt"]);
    let few = left.json(&["outbox", "list", "--limit", "7"]);
    check_listing(&few, "packhorse.outbox.v1", 151, 7, "right");
    right.start();
    left.until_outbox_is_empty(support::deadline::SOON);
    check_listing(
        &left.json(&["outbox", "list"]),
        "packhorse.outbox.v1",
        0,
        0,
        "right",
    );
    let inbox = right.json(&["inbox", "list", "--limit", "1000"]);
    check_listing(&inbox, "packhorse.inbox.v1", 151, 151, "left");
    // Both ends name a message alike, so that it can be followed.
    for (sent, stored) in (0..151).map(|row| (&all["messages"][row], &inbox["messages"][row])) {
        for key in [
            "epoch",
            "sequence",
            "topic",
            "class",
            "born",
            "payload_base64",
        ] {
            assert_eq!(stored[key], sent[key], "{key}");
        }
    }
}

#[track_caller]
fn check_listing(listing: &Value, schema: &str, count: u64, shown: usize, peer: &str) {
    check_keys(listing, &["schema", "total", "messages"]);
    assert_eq!(listing["schema"], schema);
    assert_eq!(total(listing), count);
    let messages = listing["messages"].as_array().expect("a list");
    assert_eq!(messages.len(), shown);
    let mut last_sequence = 0;
    for (row, message) in messages.iter().enumerate() {
        check_keys(
            message,
            &[
                "id",
                "peer",
                "epoch",
                "sequence",
                "topic",
                "class",
                "state",
                "born",
                "expires",
                "failures",
                "headers",
                "payload",
                "payload_base64",
                "reason",
            ],
        );
        assert_eq!(message["peer"], peer);
        assert_eq!(message["topic"], "orders");
        assert_eq!(message["class"], "critical");
        let payload = if row == 150 {
            "last".to_owned()
        } else {
            format!("bale {row}")
        };
        assert_eq!(message["payload"], payload);
        assert_eq!(message["payload_base64"], BASE64.encode(payload.as_bytes()));
        let sequence = message["sequence"].as_u64().expect("a number");
        assert!(
            sequence > last_sequence,
            "row {row} has sequence {sequence}"
        );
        last_sequence = sequence;
    }
}

// --- receive ---

#[test]
fn receive_prints_up_to_the_count_and_acknowledges_what_it_printed() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    let lines: Vec<String> = (0..5).map(|number| number.to_string()).collect();
    left.send_lines("right", "orders", &lines);
    left.send_stored("right", "bills", "another topic");
    assert_eq!(right.receive("orders", 2), ["0", "1"]);
    assert_eq!(right.inbox_total(), 4);
    right.kill();
    right.start();
    assert_eq!(right.receive("orders", 100), ["2", "3", "4"]);
    assert!(right.receive("orders", 100).is_empty());
    assert_eq!(right.receive("bills", 1), ["another topic"]);
    assert_eq!(right.inbox_total(), 0);
    right.restart();
    assert!(right.receive("orders", 100).is_empty());
}

#[test]
fn what_receive_could_not_write_is_handed_out_again_in_its_order() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let lines: Vec<String> = (0..5).map(|number| number.to_string()).collect();
    left.send_lines("right", "orders", &lines);
    left.send_stored("right", "bills", "the last one");
    let full = std::fs::File::create("/dev/full").expect("a device that is always full");
    let status = packhorse(right.data_dir())
        .args(["receive", "orders", "--count", "3"])
        .stdout(full)
        .stderr(std::process::Stdio::null())
        .status()
        .expect("the binary starts");
    assert_eq!(status.code(), Some(1));
    assert_eq!(right.receive("orders", 100), lines);
}

#[test]
fn receive_as_a_document_acknowledges_what_is_in_it() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    left.send("right", "orders", "c");
    left.send_stored("right", "bills", "another topic");
    let received = right.cli(&["receive", "orders", "--json"]).expect(0);
    let received = received.document("packhorse.received.v1");
    assert_eq!(received["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(received["messages"][0]["payload_base64"], "Yw==");
    assert_eq!(right.inbox_total(), 1);
    assert!(right.receive("orders", 1).is_empty());
}

// --- status ---

#[test]
fn status_tells_every_field_of_a_connected_peer() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    left.send_stored("right", "orders", "hay");
    let status = left.status();
    check_keys(
        &status,
        &[
            "schema",
            "node",
            "name",
            "version",
            "uptime_ms",
            "listen",
            "advertise",
            "storage",
            "peers",
            "strangers",
        ],
    );
    assert_eq!(status["schema"], "packhorse.status.v1");
    assert_eq!(status["node"], left.id());
    assert_eq!(status["name"], "left");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["uptime_ms"].is_u64());
    // No waiting here: what is stored there went over a session that lives.
    assert_eq!(status["peers"][0]["state"], "connected");
    left.cli(&["status"]).expect(0);
    for (node, peer, other) in [(&left, "right", &right), (&right, "left", &left)] {
        let status = node.until_state(peer, "connected");
        check_keys(
            &status,
            &[
                "name",
                "id",
                "state",
                "link",
                "key_exchange",
                "round_trip_ms",
                "outbox",
                "oldest_waiting_ms",
                "last_seen",
                "last_error",
                "next_attempt",
                "since",
                "failures",
                "paused",
                "skew_ms",
                "trouble",
                "keep",
            ],
        );
        assert_eq!(status["id"], other.id());
        let link = status["link"].as_str().expect("a live link");
        assert!(link.starts_with("quic://127.0.0.1:"), "{link}");
        assert_eq!(status["key_exchange"], "X25519MLKEM768");
        assert_eq!(status["outbox"], 0);
        assert_eq!(status["oldest_waiting_ms"], Value::Null);
        assert_eq!(status["last_error"], Value::Null);
        assert!(status["last_seen"].is_string(), "{status}");
    }
    let measured = support::until("a round trip", support::deadline::SOON, || {
        left.peer_status("right")["round_trip_ms"].as_f64()
    });
    assert!(measured > 0.0, "{measured}");
}

#[test]
fn status_says_what_a_peer_that_is_down_is_waiting_for() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    left.send("right", "orders", "hay");
    left.send("right", "orders", "straw");
    let status = support::until("a failed dial", support::deadline::SOON, || {
        let status = left.peer_status("right");
        (!status["last_error"].is_null()).then_some(status)
    });
    let state = status["state"].as_str().expect("a word");
    assert!(["waiting", "dialling"].contains(&state), "{status}");
    assert_eq!(status["outbox"], 2);
    assert!(status["oldest_waiting_ms"].is_u64(), "{status}");
    assert_eq!(status["link"], Value::Null);
    assert_eq!(status["key_exchange"], Value::Null);
    check_keys(&status["last_error"], &["class", "text"]);
    let waiting = left.until_state("right", "waiting");
    assert!(waiting["next_attempt"].is_string(), "{waiting}");
}
