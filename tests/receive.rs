//! `receive`: waiting, following, the forms of its output, and slow readers.

mod support;

use rustix::process::Signal;

use support::deadline::SOON;
use support::document::check_keys;
use support::{Follower, Lab, packhorse, until};

#[test]
fn waiting_ends_with_the_first_messages_or_with_the_time() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    right
        .cli(&["receive", "orders", "--wait", "--timeout", "200ms"])
        .expect(124)
        .says("no message on `orders` within 200ms")
        .prints_nothing();
    let mut waiting = right.follow(&["receive", "orders", "--wait", "--timeout", "60s"]);
    left.send_stored("right", "orders", "one");
    assert_eq!(waiting.next_line(), "one");
    assert_eq!(waiting.ended(SOON).0, Some(0));
    assert_eq!(right.inbox_total(), 0);
}

#[test]
fn payloads_with_newlines_are_told_apart() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let sent = left.send_stored("right", "orders", "two\nlines");
    left.send_stored("right", "orders", "");
    left.send_stored("right", "orders", "end\n");
    let mut command = packhorse(right.data_dir());
    command.args(["receive", "orders", "-0", "--count", "2"]);
    let mut zeros = Follower::start(command, 0);
    assert_eq!(zeros.next_bytes(), b"two\nlines\0");
    assert_eq!(zeros.next_bytes(), b"\0");
    assert_eq!(zeros.ended(SOON).0, Some(0));
    let line = right.cli(&["receive", "orders", "--jsonl"]).expect(0);
    let line = line.document("packhorse.message.v1");
    check_keys(
        &line,
        &[
            "schema",
            "id",
            "sender",
            "topic",
            "headers",
            "payload",
            "payload_base64",
            "born",
            "attempts",
        ],
    );
    assert_eq!(line["payload"], "end\n");
    assert_eq!(line["sender"], "left");
    assert_ne!(line["id"], sent["receipt"]);
    right
        .cli(&["receive", "orders", "--jsonl", "--json"])
        .expect(2)
        .says("--json");
}

#[test]
fn following_goes_on_across_a_restart_of_the_daemon() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    let mut follower = right.follow(&["receive", "orders", "--follow"]);
    left.send_stored("right", "orders", "one");
    assert_eq!(follower.next_line(), "one");
    right.restart();
    left.send_stored("right", "orders", "two");
    assert_eq!(follower.next_line(), "two");
    right.kill();
    right.start();
    left.send_stored("right", "orders", "three");
    assert_eq!(follower.next_line(), "three");
    until("everything is acknowledged", SOON, || {
        (right.inbox_total() == 0).then_some(())
    });
    follower.signal(Signal::TERM);
    let (code, stderr) = follower.ended(SOON);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("waiting for the daemon"), "{stderr}");
    assert!(stderr.contains("the daemon is back"), "{stderr}");
}

#[test]
fn a_reader_that_takes_nothing_holds_up_nobody_and_hears_the_signal() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    // More than a pipe holds, and more than is claimed at once.
    let lines: Vec<String> = (0..200).map(|n| format!("{n:-<8000}")).collect();
    let stuck = right.follow(&["receive", "orders", "--follow"]);
    left.send_lines("right", "orders", &lines);
    right.until_inbox_has(100, SOON);
    until("all are stored", SOON, || {
        (left.outbox_total() == 0).then_some(())
    });
    // Others get what the stuck one did not claim, whatever it holds.
    let others = right.receive("orders", 200);
    assert!(others.len() >= 100, "{}", others.len());
    stuck.signal(Signal::INT);
    // Its own lines are read now: each came either to it or to somebody else.
    let (code, stderr) = stuck.ended(SOON);
    assert_eq!(code, Some(130), "{stderr}");
    // What it could not write is given back at once.
    right.receive("orders", 200);
    assert_eq!(right.inbox_total(), 0);
}

#[test]
fn a_count_ends_a_follower() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let mut follower = right.follow(&["receive", "orders", "--follow", "--count", "2"]);
    let lines: Vec<String> = ["a", "b", "c"].map(ToOwned::to_owned).to_vec();
    left.send_lines("right", "orders", &lines);
    assert_eq!(follower.next_line(), "a");
    assert_eq!(follower.next_line(), "b");
    assert_eq!(follower.ended(SOON).0, Some(0));
    assert_eq!(right.receive("orders", 10), ["c"]);
}
