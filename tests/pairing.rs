//! Pairing between real nodes: tickets, names, races, and what a grant lets through.
//!
//! `join` is done only when both sides have committed, so hardly anything here waits after it.

mod support;

use serde_json::json;

use support::deadline::SOON;
use support::document::check_keys;
use support::lab::{join_words, pair};
use support::{Lab, Node, SEND_ALL, until};

// --- invite, join, peers ---

#[test]
fn invite_prints_the_ticket_and_nothing_else() {
    let mut lab = Lab::new();
    let node = lab.start("left");
    let output = node.cli(&["invite", "--grant", SEND_ALL]).expect(0);
    let ticket = output.text().strip_suffix('\n').expect("a whole line");
    assert!(ticket.starts_with("pht1"), "{ticket}");
    assert!(
        ticket.chars().all(|c| c.is_ascii_alphanumeric()),
        "more than one word: {ticket}"
    );
    assert_ne!(node.invite(), node.invite(), "a ticket is given twice");
}

#[test]
fn a_node_without_a_listener_cannot_invite_and_says_so() {
    let mut lab = Lab::new();
    let mut node = lab.loner("left");
    node.start();
    assert_eq!(node.ready()["listen"], json!([]));
    let output = node.cli(&["invite", "--grant", SEND_ALL]);
    assert_ne!(output.code, Some(0));
    assert_eq!(output.text(), "");
    assert!(output.stderr.contains("--listen"), "{}", output.stderr);
}

#[test]
fn both_know_each_other_with_the_grants_given_once_join_is_done() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = left.invite_with(&["--grant", "message.send:orders/*"]);
    let words = ["join", &ticket, "--name", "barn"];
    let grant = ["--grant", "message.send:bills"];
    right.cli(&[&words[..], &grant[..]].concat()).expect(0);
    // No waiting here: join may be done only when both sides have committed.
    let at_left = left.json(&["peers"]);
    let at_right = right.json(&["peers"]);
    for peers in [&at_left, &at_right] {
        check_keys(peers, &["schema", "peers"]);
        assert_eq!(peers["schema"], "packhorse.peers.v1");
    }
    let (right_there, left_there) = (&at_left["peers"][0], &at_right["peers"][0]);
    check_keys(
        right_there,
        &[
            "name",
            "id",
            "addresses",
            "own_addresses",
            "keep",
            "grants",
            "ends",
            "granted",
        ],
    );
    assert_eq!(right_there["name"], "right");
    assert_eq!(right_there["id"], right.id());
    assert_eq!(right_there["grants"], json!(["message.send:orders/*"]));
    // What the joiner grants is told in the session that the pairing begins.
    until("the inviter is told what it may do", SOON, || {
        let peers = left.json(&["peers"]);
        (peers["peers"][0]["granted"] == json!(["message.send:bills"])).then_some(())
    });
    assert_eq!(left_there["name"], "barn");
    assert_eq!(left_there["id"], left.id());
    assert_eq!(left_there["grants"], json!(["message.send:bills"]));
    assert_eq!(left_there["granted"], json!(["message.send:orders/*"]));
}

#[test]
fn a_ticket_may_come_on_stdin() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = left.invite();
    right
        .cli_with(&["join", "-"], format!("{ticket}\n"))
        .expect(0);
    assert_eq!(right.peer_names(), ["left"]);
    // Nothing was said about grants, so nothing is granted.
    assert_eq!(right.json(&["peers"])["peers"][0]["grants"], json!([]));
}

#[test]
fn a_joiner_whose_name_is_taken_gets_a_suffix() {
    let mut lab = Lab::new();
    let left = lab.start("left");
    let twins = [lab.file("a"), lab.file("b")].map(|folder| {
        let mut twin = Node::new("twin", folder, None);
        twin.start();
        pair(&left, &twin);
        twin
    });
    let names = left.peer_names();
    assert_eq!(names.len(), 2);
    assert_ne!(names[0], names[1]);
    assert!(
        names.iter().all(|name| name.starts_with("twin")),
        "{names:?}"
    );
    for (name, twin) in names.iter().zip(&twins) {
        left.send_stored(name, "orders", name);
        assert_eq!(twin.receive("orders", 10), std::slice::from_ref(name));
    }
}

#[test]
fn words_that_are_no_ticket_are_usage_errors() {
    let mut lab = Lab::new();
    let node = lab.start("left");
    let mut broken = node.invite();
    let last = broken.pop().expect("a ticket has characters");
    broken.push(if last == 'q' { 'p' } else { 'q' });
    for word in ["", "pht1", "hello", &node.id(), &broken] {
        let output = node.cli(&["join", word]).expect(2);
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_node_cannot_join_itself() {
    let mut lab = Lab::new();
    let node = lab.start("left");
    let ticket = node.invite();
    let output = node.join(&ticket, "me");
    assert!(output.code.is_some_and(|code| code != 0), "{output:?}");
    assert!(node.peer_names().is_empty());
}

// --- who may pair ---

#[test]
fn of_two_nodes_that_use_a_ticket_at_once_one_becomes_a_peer() {
    let mut lab = Lab::new();
    let (left, right, late) = (lab.start("left"), lab.start("right"), lab.start("late"));
    let ticket = left.invite();
    let words = join_words(&ticket, "left");
    let running = [
        (&right, right.spawn(&words, "")),
        (&late, late.spawn(&words, "")),
    ];
    let mut joined = Vec::new();
    for (node, run) in running {
        match run.finish(SOON * 3).code {
            Some(0) => joined.push(node.name().to_owned()),
            Some(5) => assert!(node.peer_names().is_empty(), "{}", node.name()),
            other => panic!("{}: exit {other:?}", node.name()),
        }
    }
    assert_eq!(joined.len(), 1, "{joined:?}");
    assert_eq!(left.peer_names(), joined);
}

#[test]
fn two_nodes_that_join_each_other_at_once_are_paired_once() {
    for round in 0..4 {
        let mut lab = Lab::new();
        let (left, right) = (lab.start("left"), lab.start("right"));
        let (to_left, to_right) = (left.invite(), right.invite());
        let there = right.spawn(&join_words(&to_left, "left"), "");
        let back = left.spawn(&join_words(&to_right, "right"), "");
        there.finish(SOON * 3).expect(0);
        back.finish(SOON * 3).expect(0);
        assert_eq!(left.peer_names(), ["right"], "round {round}");
        assert_eq!(right.peer_names(), ["left"], "round {round}");
        left.send_stored("right", "orders", "there");
        right.send_stored("left", "orders", "and back");
    }
}

#[test]
fn a_used_ticket_is_refused_for_another_node_and_accepted_again_for_the_same() {
    let mut lab = Lab::new();
    let (left, right, late) = (lab.start("left"), lab.start("right"), lab.start("late"));
    let ticket = left.invite();
    right.join(&ticket, "left").expect(0);
    let refused = late.join(&ticket, "left").expect(5).prints_nothing();
    assert!(!refused.stderr.is_empty());
    assert!(late.peer_names().is_empty());
    right.join(&ticket, "left").expect(0);
    assert_eq!(left.peer_names(), ["right"]);
    assert_eq!(right.peer_names(), ["left"]);
    right.send_stored("left", "orders", "still a peer");
}

#[test]
fn a_ticket_with_two_uses_pairs_two_nodes_and_no_third() {
    let mut lab = Lab::new();
    let (left, right, late) = (lab.start("left"), lab.start("right"), lab.start("late"));
    let mut third = lab.loner("third");
    third.start();
    let ticket = left.invite_with(&["--grant", SEND_ALL, "--uses", "2"]);
    right.join(&ticket, "left").expect(0);
    late.join(&ticket, "left").expect(0);
    third.join(&ticket, "left").expect(5);
    assert_eq!(left.peer_names().len(), 2);
}

#[test]
fn an_expired_ticket_is_refused() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    // It is over before the next process has started; nothing is waited for.
    let ticket = left.invite_with(&["--grant", SEND_ALL, "--expires", "1ms"]);
    let refused = right.join(&ticket, "left").expect(5);
    assert!(!refused.stderr.is_empty());
    assert!(left.peer_names().is_empty());
    assert!(right.peer_names().is_empty());
}

#[test]
fn a_ticket_of_another_life_of_the_folder_is_refused() {
    let mut lab = Lab::new();
    let mut left = lab.start("left");
    let right = lab.start("right");
    let ticket = left.invite();
    // The same name and port, but another identity: it cannot be the one that the ticket names.
    left.stop();
    std::fs::remove_dir_all(left.data_dir()).expect("the folder of a node that is down");
    left.start();
    let refused = right.join(&ticket, "left");
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    assert!(right.peer_names().is_empty());
    assert!(left.peer_names().is_empty());
}

/// An address is only a hint: whoever answers there must be the node that the ticket names.
#[test]
fn a_ticket_whose_address_leads_to_another_node_pairs_with_nobody() {
    let mut lab = Lab::new();
    let mut left = lab.start("left");
    let right = lab.start("right");
    let address = left.ready()["listen"][0]
        .as_str()
        .expect("an address")
        .to_owned();
    let address = address.trim_start_matches("quic://").to_owned();
    let ticket = left.invite();
    left.stop();
    let mut wrong = Node::new("wrong", lab.file("wrong"), Some(address));
    wrong.start();
    let refused = right.join(&ticket, "left");
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    assert!(!refused.stderr.is_empty());
    assert!(right.peer_names().is_empty());
    assert!(wrong.peer_names().is_empty());
    // Nothing was given away: the ticket is good for the node that made it.
    wrong.stop();
    left.start();
    right.join(&ticket, "left").expect(0);
}

// --- grants ---

#[test]
fn a_topic_without_a_grant_fails_with_a_reason_and_holds_up_nobody() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = left.invite_with(&["--grant", "message.send:orders"]);
    right.join(&ticket, "left").expect(0);
    let send = |topic, payload| right.send("left", topic, payload);
    send("orders", "first");
    send("secrets", "not for you");
    send("orders", "second");
    let words = [
        "send", "left", "secrets", "nor this", "--wait", "stored", "--json",
    ];
    let failed = right.cli(&words).expect(5).json();
    assert_eq!(failed["state"], "failed");
    assert!(
        failed["reason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty())
    );
    right.send_stored("left", "orders", "third");
    assert_eq!(left.inbox_total(), 3);
    assert_eq!(left.receive("orders", 10), ["first", "second", "third"]);
    assert!(left.receive("secrets", 10).is_empty());
    // Refused is settled: nothing waits, and nothing is tried again.
    assert_eq!(right.outbox_total(), 0);
}

/// As a person reads it; the test above has the same as a document, the other way round.
#[test]
fn what_join_grants_binds_the_inviter_who_is_told_the_reason() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = left.invite_with(&[]);
    let words = ["join", &ticket, "--grant", "message.send:orders"];
    right.cli(&words).expect(0);
    let send = |topic| left.cli(&["send", "right", topic, "hay", "--wait", "stored"]);
    let refused = send("secrets").expect(5).says("grants no message.send");
    assert!(
        refused.text().trim_end().ends_with(" failed"),
        "{refused:?}"
    );
    send("orders").expect(0);
    assert_eq!(right.receive("orders", 10), ["hay"]);
    assert_eq!(right.inbox_total(), 0);
}

#[test]
fn an_exclusion_wins_over_the_grant_of_everything() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let grants = ["--grant", SEND_ALL, "--grant", "message.send:!secrets*"];
    let ticket = left.invite_with(&grants);
    right.join(&ticket, "left").expect(0);
    right.send_stored("left", "orders", "hay");
    let words = ["send", "left", "secrets.of.mine", "x", "--wait", "stored"];
    right.cli(&words).expect(5);
    assert_eq!(left.inbox_total(), 1);
}

#[test]
fn who_was_granted_nothing_may_send_nothing() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = left.invite_with(&[]);
    right.join(&ticket, "left").expect(0);
    let words = ["send", "left", "orders", "hay", "--wait", "stored"];
    right.cli(&words).expect(5);
    assert_eq!(left.inbox_total(), 0);
    // The other direction was granted by join and is not touched by it.
    left.send_stored("right", "orders", "hay");
}
