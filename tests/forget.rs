//! Forgetting a peer: nothing of it stays in reach, nothing of it is lost, and no ticket undoes it.

mod support;

use serde_json::{Value, json};

use support::deadline::SOON;
use support::document::check_keys;
use support::{Lab, Node, SEND_ALL, until};

fn dead(node: &Node) -> Vec<(String, String)> {
    let dead = node.json(&["dead", "list"]);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let messages = dead["messages"].as_array().expect("a list");
    messages
        .iter()
        .map(|message| {
            assert!(text(&message["reason"]).starts_with("revoked"), "{message}");
            assert_eq!(message["peer"], "right", "{message}");
            (text(&message["direction"]), text(&message["payload"]))
        })
        .collect()
}

#[test]
fn forgetting_ends_the_session_and_makes_what_is_left_dead_letters() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    let third = lab.start("third");
    support::lab::pair(&left, &third);
    right.send_stored("left", "orders", "one");
    right.send_stored("left", "orders", "two");
    third.send_stored("left", "orders", "of another");
    left.send_stored("right", "bills", "arrived");
    let id = right.id();
    right.stop();
    for payload in ["three", "four", "five"] {
        left.send("right", "bills", payload);
    }
    let forgotten = left.cli(&["forget", "right", "--json"]).expect(0);
    let forgotten = forgotten.document("packhorse.forgotten.v1");
    let keys = [
        "schema",
        "name",
        "id",
        "tickets",
        "outgoing",
        "incoming",
        "ephemeral",
    ];
    check_keys(&forgotten, &keys);
    let counts = ["outgoing", "incoming", "ephemeral"].map(|key| forgotten[key].clone());
    assert_eq!(counts, [json!(3), json!(2), json!(0)], "{forgotten}");
    assert_eq!(forgotten["id"], id);
    assert_eq!(left.peer_names(), ["third"]);
    assert_eq!(left.outbox_total(), 0);
    assert_eq!(left.inbox_total(), 1);
    let pairs = [
        ("out", "three"),
        ("out", "four"),
        ("out", "five"),
        ("in", "one"),
        ("in", "two"),
    ];
    let expected = pairs.map(|(way, payload)| (way.to_owned(), payload.to_owned()));
    assert_eq!(dead(&left), expected);
    left.cli(&["send", "right", "bills", "six"]).expect(4);
    left.cli(&["forget", "right"]).expect(4);
    left.cli(&["grant", "right", SEND_ALL]).expect(4);
    left.cli(&["dead", "retry", "--all"])
        .expect(0)
        .says("3 are for peers that were forgotten and stay");
    assert_eq!(left.receive("orders", 9), ["of another", "one", "two"]);
    // It comes back, dials, and is told what a stranger is told.
    right.start();
    right.send("left", "orders", "seven");
    until("it is refused", SOON, || {
        let status = right.peer_status("left");
        let error = status["last_error"]["text"].as_str()?;
        error.contains("not paired with this node").then_some(())
    });
    let ticket = left.invite();
    let refused = right.join(&ticket, "left").expect(5);
    let refused = refused.says("the ticket is not known here, or its secret is wrong");
    assert!(!refused.stderr.contains("denied"), "{}", refused.stderr);
    let denied = left.json(&["peers", "denied"]);
    assert_eq!(denied["schema"], "packhorse.denied.v1");
    assert_eq!(denied["denied"][0]["id"], id);
    assert_eq!(denied["denied"][0]["name"], "right");
    // And not the other way round either.
    let theirs = right.invite();
    left.join(&theirs, "right").expect(5).says("is denied here");
}

#[test]
fn a_forgotten_node_that_is_allowed_again_goes_on_where_it_was() {
    let mut lab = Lab::new();
    let (mut left, right) = lab.pair("left", "right");
    right.send_stored("left", "orders", "one");
    left.send_stored("right", "bills", "a");
    let id = right.id();
    // The session lives; its end comes from here.
    left.cli(&["forget", "right"])
        .expect(0)
        .says("peers allow phn1");
    right.until_state("left", "refused");
    right.send("left", "orders", "two");
    left.restart();
    left.cli(&["peers", "allow", "phn1nonsense"]).expect(2);
    left.cli(&["peers", "allow", &id]).expect(0);
    left.cli(&["peers", "allow", &id])
        .expect(4)
        .says("is not denied here");
    assert_eq!(left.peer_names(), [""; 0], "allowed is not paired");
    let ticket = left.invite();
    right.join(&ticket, "left").expect(0);
    right.send_stored("left", "orders", "three");
    left.send_stored("right", "bills", "b");
    // What was put aside stays so until a person takes it up; nothing comes twice.
    assert_eq!(left.receive("orders", 9), ["two", "three"]);
    assert_eq!(right.receive("bills", 9), ["a", "b"]);
    left.cli(&["dead", "retry", "--all"]).expect(0);
    assert_eq!(left.receive("orders", 9), ["one"]);
}
