//! Where a peer is dialled and when, as somebody says on the command line.

mod support;

use serde_json::{Value, json};

use support::deadline::SOON;
use support::{Lab, Node, until};

/// What a node knows of a peer.
#[track_caller]
fn peer(node: &Node, name: &str) -> Value {
    let peers = node.json(&["peers"]);
    let peers = peers["peers"].as_array().expect("a list");
    let found = peers.iter().find(|peer| peer["name"] == name);
    found.expect("a peer of that name").clone()
}

/// A running node beside one that was paired with it and comes back at another port, without ever
/// dialling.
fn one_that_moved(lab: &mut Lab) -> (Node, Node, u16) {
    let (mut moved, node) = lab.pair("moved", "node");
    moved.cli(&["peers", "keep", "node", "never"]).expect(0);
    moved.stop();
    node.until_state("moved", "idle");
    let port = lab.port();
    let mut moved = Node::new(
        "moved",
        lab.file("moved"),
        Some(format!("127.0.0.1:{port}")),
    );
    moved.start();
    (moved, node, port)
}

#[test]
fn a_peer_is_found_at_an_address_that_somebody_added_and_a_name_that_leads_nowhere_is_told() {
    let mut lab = Lab::new();
    let (moved, node, port) = one_that_moved(&mut lab);
    let announced = peer(&node, "moved")["addresses"].clone();
    let nowhere = "packhorse-test.invalid:7433";
    let add = ["peers", "address", "add", "moved"];
    node.cli(&[&add[..], &[nowhere]].concat()).expect(0);
    node.send("moved", "news", "hello");
    until("the name is told", SOON, || {
        let error = node.peer_status("moved")["last_error"]["text"].clone();
        let text = error.as_str().unwrap_or_default();
        text.contains(&format!("cannot resolve quic://{nowhere}"))
            .then_some(())
    });
    // A name again: it is resolved when it is dialled.
    let somewhere = format!("localhost:{port}");
    let output = node.cli(&[&add[..], &[&somewhere]].concat()).expect(0);
    let own = format!("quic://{nowhere}* quic://{somewhere}*");
    assert!(
        output
            .text()
            .starts_with(&format!("moved: dialled at {own} "))
    );
    node.until_outbox_is_empty(SOON * 2);
    assert_eq!(moved.receive("news", 2), ["hello"]);
    let known = peer(&node, "moved");
    let own = json!([format!("quic://{nowhere}"), format!("quic://{somewhere}")]);
    assert_eq!(
        known["own_addresses"], own,
        "what it says about itself changes nothing here"
    );
    assert_eq!(
        known["addresses"],
        json!([format!("quic://127.0.0.1:{port}")])
    );
    assert_ne!(known["addresses"], announced);
    // Taken back by the form in which it is listed.
    let remove = ["peers", "address", "remove", "moved"];
    let listed = format!("quic://{nowhere}");
    node.cli(&[&remove[..], &[&listed]].concat()).expect(0);
    let left = json!([format!("quic://{somewhere}")]);
    assert_eq!(peer(&node, "moved")["own_addresses"], left);
    node.cli(&[&remove[..], &[nowhere]].concat()).expect(4);
}

#[test]
fn a_ticket_may_name_a_host_and_so_may_what_a_peer_announces() {
    let mut lab = Lab::new();
    let port = lab.port();
    let listen = format!("127.0.0.1:{port}");
    let hint = format!("localhost:{port}");
    let mut left = Node::new("left", lab.file("left"), Some(listen))
        .with_argument("--advertise")
        .with_argument(&hint);
    let mut right = lab.loner("right");
    left.start();
    right.start();
    support::lab::pair(&left, &right);
    let announced = json!([format!("quic://{hint}")]);
    assert_eq!(peer(&right, "left")["addresses"], announced);
    // It is nobody's to dial, so it dials; by the name again.
    right.restart();
    right.until_state("left", "connected");
}

#[test]
fn a_peer_that_is_never_dialled_says_so_and_gets_its_messages_when_it_dials() {
    let mut lab = Lab::new();
    let (silent, node, _) = one_that_moved(&mut lab);
    silent.send("node", "news", "when you ask");
    assert_eq!(peer(&silent, "node")["keep"], "never");
    let status = silent.peer_status("node");
    assert_eq!(status["keep"], "never");
    assert_eq!(status["next_attempt"], Value::Null);
    let why = silent.json(&["why", "peer", "node"]);
    assert_eq!(why["state"], "not dialled");
    let sentence = why["sentence"].as_str().expect("a sentence");
    assert!(sentence.contains("never dialled from here"), "{sentence}");
    assert!(sentence.contains("1 message waits for it"), "{sentence}");
    let text = silent.cli(&["status"]).expect(0);
    assert!(text.text().contains("node: never dialled from here"));
    let flush = silent.cli(&["outbox", "flush", "--peer", "node"]).expect(5);
    assert!(flush.stderr.contains("packhorse peers keep node auto"));
    assert_eq!(silent.json(&["outbox", "flush"])["peers"], json!([]));
    assert_eq!(silent.peer_status("node")["failures"], 0);
    // The other one dials, and takes with it what waits.
    let at = silent.listen().expect("it listens").to_owned();
    node.cli(&["peers", "address", "add", "moved", &at])
        .expect(0);
    silent.until_outbox_is_empty(SOON);
    assert_eq!(node.receive("news", 2), ["when you ask"]);
}

#[test]
fn a_link_that_is_always_kept_comes_back_without_anything_waiting() {
    let mut lab = Lab::new();
    let (mut left, right) = lab.pair("left", "right");
    left.cli(&["peers", "keep", "right", "never"]).expect(0);
    let said = right.cli(&["peers", "keep", "left", "always"]).expect(0);
    assert_eq!(said.text(), "left: dialled whenever there is no session\n");
    for _ in 0..2 {
        left.restart();
        left.until_state("right", "connected");
        right.until_state("left", "connected");
        assert_eq!(right.outbox_total(), 0);
    }
}

#[test]
fn what_cannot_be_an_address_or_a_word_is_refused_with_the_reason() {
    let mut lab = Lab::new();
    let (left, _right) = lab.pair("left", "right");
    let table: [(&[&str], i32, &str); 9] = [
        (&["address", "add", "right", "barn"], 2, "it has no port"),
        (
            &["address", "add", "right", "barn:0"],
            2,
            "nobody can dial port 0",
        ),
        (
            &["address", "add", "right", "::1:7"],
            2,
            "stands in brackets",
        ),
        (
            &["address", "add", "right", "\u{1b}[2J:7"],
            2,
            "neither a name nor an address",
        ),
        (
            &["address", "add", "nobody", "barn:7"],
            4,
            "no peer `nobody`",
        ),
        (
            &["address", "remove", "right", "barn:7"],
            4,
            "`barn:7` was not added here",
        ),
        (&["keep", "right", "often"], 2, "auto, always or never"),
        (&["keep", "nobody", "never"], 4, "no peer `nobody`"),
        (
            &["address", "remove", "nobody", "barn:7"],
            4,
            "no peer `nobody`",
        ),
    ];
    for (words, code, reason) in table {
        let output = left.cli(&[&["peers"], words].concat()).expect(code);
        assert!(
            output.stderr.contains(reason),
            "{words:?}: {}",
            output.stderr
        );
        assert!(!output.stderr.contains('\u{1b}'), "{words:?}");
    }
    for host in ["a", "b", "c", "d", "a"] {
        let address = format!("{host}.invalid:7");
        left.cli(&["peers", "address", "add", "right", &address])
            .expect(0);
    }
    let fifth = left
        .cli(&["peers", "address", "add", "right", "e.invalid:7"])
        .expect(2);
    assert!(fifth.stderr.contains("the limit is 4"), "{}", fifth.stderr);
    let own = peer(&left, "right")["own_addresses"].clone();
    assert_eq!(own.as_array().map(Vec::len), Some(4));
}

#[test]
fn up_and_status_tell_where_it_listens_and_what_others_are_to_dial() {
    let mut lab = Lab::new();
    let port = lab.port();
    let mut node = lab.loner("node");
    for listen in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        node = node.with_argument("--listen").with_argument(&listen);
    }
    node.start();
    let listens = json!([
        format!("quic://127.0.0.1:{port}"),
        format!("quic://[::1]:{port}")
    ]);
    for document in [node.ready().clone(), node.status()] {
        assert_eq!(document["listen"], listens);
        assert_eq!(document["advertise"], listens);
    }
    node.stop();
    for advertise in ["barn.example:7433", "[2001:db8::7]:7433"] {
        node = node.with_argument("--advertise").with_argument(advertise);
    }
    node.start();
    let advertised = json!(["quic://barn.example:7433", "quic://[2001:db8::7]:7433"]);
    for document in [node.ready().clone(), node.status()] {
        assert_eq!(document["listen"], listens);
        assert_eq!(document["advertise"], advertised);
    }
}
