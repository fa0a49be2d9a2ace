//! The life of dead letters: how messages get there, what is told meanwhile, and how they leave.
//!
//! Whether one may be sent again hangs on one question: can the other side have it? Each test
//! answers it in another way, with kills in between, since the answer must outlive them.

mod support;

use rustix::process::Signal;
use serde_json::Value;

use support::deadline::SOON;
use support::document::total;
use support::shop::{id_of, until_receipt};
use support::{Lab, Node, until};

/// The dead letters once there are so many, each reduced to its state and payload.
#[track_caller]
fn until_dead(node: &Node, expected: &[(&str, &str)]) -> Value {
    until(&format!("dead letters {expected:?}"), SOON, || {
        let last = node.json(&["dead", "list"]);
        let letters = last["messages"].as_array().expect("a list");
        let letters = letters.iter().map(|letter| {
            let text = |key: &str| letter[key].as_str().unwrap_or_default();
            (text("state"), text("payload"))
        });
        letters.eq(expected.iter().copied()).then_some(last)
    })
}

#[test]
fn from_given_up_over_the_list_to_delivered_and_done() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    // In order: no session is left over which the message could leave.
    right.stop();
    until("the end of the session", SOON, || {
        (left.peer_status("right")["state"] != "connected").then_some(())
    });
    let words = ["send", "right", "orders", "hay", "--expires", "1s"];
    let id = id_of(&left.json(&words));
    until_dead(&left, &[("not delivered", "hay")]);
    left.kill();
    left.start();
    let dead = until_dead(&left, &[("not delivered", "hay")]);
    assert_eq!(dead["messages"][0]["id"], id.as_str());
    assert_eq!(left.json(&["receipt", &id])["state"], "failed");
    assert_eq!(left.outbox_total(), 0);
    let retried = left.json(&["dead", "retry", &id]);
    let anew = id_of(&retried["messages"][0]);
    left.kill();
    left.start();
    until_dead(&left, &[]);
    assert_eq!(left.outbox_total(), 1);
    // The old receipt tells of the new message, whichever one somebody holds.
    for id in [&id, &anew] {
        assert_eq!(left.json(&["receipt", id])["state"], "accepted");
    }
    right.start();
    left.until_outbox_is_empty(SOON);
    assert_eq!(right.receive("orders", 5), ["hay"]);
    for id in [&id, &anew] {
        until_receipt(&left, id, "done", SOON);
    }
    left.cli(&["dead", "retry", &id]).expect(4);
}

#[test]
fn a_refused_letter_is_refused_again_until_it_is_dropped() {
    let mut lab = Lab::new();
    let (mut left, right) = (lab.start("left"), lab.start("right"));
    let ticket = right.invite_with(&["--grant", "message.send:allowed"]);
    left.join(&ticket, "right").expect(0);
    let first = id_of(&left.send("right", "forbidden", "hay"));
    until_dead(&left, &[("refused", "hay")]);
    let receipt = left.json(&["receipt", &first]);
    assert_eq!(receipt["state"], "failed");
    // Nothing has changed there, so it comes back under its new name.
    let retried = left.json(&["dead", "retry", &first]);
    let second = id_of(&retried["messages"][0]);
    until("the second refusal", SOON, || {
        let dead = left.json(&["dead", "list"]);
        (dead["messages"][0]["id"] == second.as_str()).then_some(())
    });
    let dead = until_dead(&left, &[("refused", "hay")]);
    let reason = dead["messages"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("message.send"), "{reason}");
    assert_eq!(left.json(&["dead", "drop", &second])["dropped"], 1);
    left.kill();
    left.start();
    until_dead(&left, &[]);
    for id in [&first, &second] {
        assert_eq!(left.json(&["receipt", id])["state"], "failed");
        left.cli(&["dead", "retry", id]).expect(4);
    }
    // Those behind it were never held up, and are not now.
    left.send_stored("right", "allowed", "straw");
    assert_eq!(right.receive("allowed", 5), ["straw"]);
    assert_eq!(right.inbox_total(), 0);
}

/// Dropped while it was under way to somebody who is suspended: nobody knows.
/// Returns the id of the message, offered and unanswered.
fn dropped_under_way(left: &Node, right: &Node) -> String {
    left.until_state("right", "connected");
    left.send_stored("right", "orders", "before");
    right.signal(Signal::STOP);
    let id = id_of(&left.send("right", "orders", "hay"));
    // Numbers are noted as offered in steps, and the message before made the first one: whether
    // this one has left, nobody can say any more.
    assert_eq!(left.cli(&["outbox", "drop", &id]).expect(0).text(), "1\n");
    until_dead(left, &[("may be delivered", "hay")]);
    left.cli(&["dead", "retry", &id])
        .expect(5)
        .says("may have been delivered")
        .prints_nothing();
    id
}

#[test]
fn what_may_be_delivered_turns_out_to_be_stored() {
    let mut lab = Lab::new();
    let (mut left, right) = lab.pair("left", "right");
    let id = dropped_under_way(&left, &right);
    // It was handed to the system before this; the other side reads it when it goes on.
    left.kill();
    left.start();
    until_dead(&left, &[("may be delivered", "hay")]);
    left.cli(&["dead", "retry", &id]).expect(5);
    right.signal(Signal::CONT);
    let mut settled = Value::Null;
    until("the next session tells", SOON, || {
        settled = left.json(&["dead", "list"]);
        let is_settled = total(&settled) == 0 || settled["messages"][0]["state"] == "not delivered";
        is_settled.then_some(())
    });
    // Either is true of its inbox: what the letter says decides what a retry may do.
    if total(&settled) == 0 {
        assert_eq!(right.receive("orders", 5), ["before", "hay"]);
        until_receipt(&left, &id, "done", SOON);
    } else {
        assert_eq!(left.json(&["dead", "retry", &id])["retried"], 1);
        left.until_outbox_is_empty(SOON);
        assert_eq!(right.receive("orders", 5), ["before", "hay"]);
    }
    assert_eq!(right.inbox_total(), 0);
}

#[test]
fn what_may_be_delivered_and_was_not_is_sent_again_once() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    let id = dropped_under_way(&left, &right);
    // What it had not read dies with it.
    right.kill();
    left.kill();
    left.start();
    until_dead(&left, &[("may be delivered", "hay")]);
    right.start();
    until_dead(&left, &[("not delivered", "hay")]);
    assert_eq!(left.json(&["dead", "retry", &id])["retried"], 1);
    left.until_outbox_is_empty(SOON);
    assert_eq!(right.receive("orders", 5), ["before", "hay"]);
    until_receipt(&left, &id, "done", SOON);
}

/// One counted failure is not three, and neither kills nor starts add to it or take from it.
#[test]
fn the_budget_of_a_moderate_message_outlives_kills() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    right.stop();
    let words = ["send", "right", "news", "hay", "--class", "moderate"];
    left.json(&words);
    let failures = |node: &Node| {
        let outbox = node.json(&["outbox", "list"]);
        assert_eq!(
            total(&outbox),
            1,
            "given up within its first minute: {outbox}"
        );
        outbox["messages"][0]["failures"].as_u64().expect("a count")
    };
    until("a failure is counted", SOON, || {
        (failures(&left) == 1).then_some(())
    });
    // Each start dials at once, in vain.
    for _ in 0..3 {
        left.kill();
        left.start();
        until("a dial in vain", SOON, || {
            left.peer_status("right")["last_error"]
                .is_object()
                .then_some(())
        });
        assert!((1..=2).contains(&failures(&left)));
    }
    right.start();
    left.cli(&["outbox", "flush"]).expect(0);
    left.until_outbox_is_empty(SOON);
    assert_eq!(right.receive("news", 5), ["hay"]);
    assert_eq!(total(&left.json(&["dead", "list"])), 0);
}
