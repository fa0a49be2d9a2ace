//! Delivery between real nodes: in order, exactly once, over restarts, and only between peers.
//!
//! Every test states what was accepted and compares it with what `receive` prints at the end.

mod support;

use std::time::Duration;

use rustix::process::Signal;

use support::deadline::{SOON, pause};
use support::lab::pair;
use support::node::count_of;
use support::{Lab, Node, Random, seed};

/// Delivery of some thousand messages by an unoptimised build, with redials in between.
const DELIVERED_WITHIN: Duration = Duration::from_secs(45);
/// The silence after which a session is dead, and a redial.
const NOTICED_WITHIN: Duration = Duration::from_secs(50);

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name} {number}"))
        .collect()
}

/// Checks that exactly these are in the inbox on this topic, once each and in this order.
#[track_caller]
fn check_received(node: &Node, topic: &str, expected: &[String]) {
    let received = node.receive(topic, expected.len() + 1_000);
    let differs = received
        .iter()
        .zip(expected)
        .position(|(got, want)| got != want);
    if let Some(at) = differs {
        panic!("message {at} is {:?}, not {:?}", received[at], expected[at]);
    }
    assert_eq!(received.len(), expected.len(), "count on {topic}");
}

#[test]
fn messages_for_a_node_that_is_down_arrive_once_and_in_order_when_it_starts() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let mut expected = numbered("line", 300);
    left.send_lines("right", "orders", &expected);
    for number in 0..5 {
        let payload = format!("single {number}");
        left.send("right", "orders", &payload);
        expected.push(payload);
    }
    assert_eq!(left.outbox_total(), 305);
    right.start();
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    assert_eq!(right.inbox_total(), 305);
    check_received(&right, "orders", &expected);
}

/// Only the one that moved knows its new port: it is reached over the link that it dials.
#[test]
fn a_node_that_comes_back_on_another_port_is_reached_once_it_has_dialled() {
    let mut lab = Lab::new();
    let left = start_on_any_port(&lab, "left");
    // Reserved, and below what the system gives out: the port that it gets later is another one.
    let mut right = lab.start("right");
    pair(&left, &right);
    let before = right.ready()["listen"].clone();
    right.stop();
    left.send("right", "orders", "hay");
    left.send("right", "orders", "straw");
    let right = start_on_any_port(&lab, "right");
    assert_ne!(right.ready()["listen"], before);
    right.send_stored("left", "hello", "here");
    left.send_stored("right", "orders", "oats");
    let expected = ["hay", "straw", "oats"].map(str::to_owned);
    check_received(&right, "orders", &expected);
    assert_eq!(left.outbox_total(), 0);
}

/// A node that runs in its folder of the lab, on a port that the system chooses.
fn start_on_any_port(lab: &Lab, name: &str) -> Node {
    let mut node = Node::new(name, lab.file(name), Some("127.0.0.1:0".to_owned()));
    node.start();
    node
}

#[test]
fn both_directions_deliver_at_once() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let (there, back) = (numbered("there", 1_500), numbered("back", 1_500));
    let first = left.spawn_lines("right", "there", "run", &there);
    let second = right.spawn_lines("left", "back", "run", &back);
    assert_eq!(count_of(&first.finish(DELIVERED_WITHIN).expect(0)), 1_500);
    assert_eq!(count_of(&second.finish(DELIVERED_WITHIN).expect(0)), 1_500);
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    right.until_outbox_is_empty(DELIVERED_WITHIN);
    check_received(&right, "there", &there);
    check_received(&left, "back", &back);
}

#[test]
fn three_nodes_each_get_what_was_meant_for_them() {
    let mut lab = Lab::new();
    let nodes = [lab.start("ash"), lab.start("birch"), lab.start("cedar")];
    for (first, second) in [(0, 1), (1, 2), (2, 0)] {
        pair(&nodes[first], &nodes[second]);
    }
    let ways: Vec<(&Node, &Node)> = nodes
        .iter()
        .flat_map(|from| nodes.iter().map(move |to| (from, to)))
        .filter(|(from, to)| from.name() != to.name())
        .collect();
    let lines =
        |from: &Node, to: &Node| numbered(&format!("{} to {}", from.name(), to.name()), 100);
    let running: Vec<_> = ways
        .iter()
        .map(|(from, to)| from.spawn_lines(to.name(), from.name(), "run", &lines(from, to)))
        .collect();
    for run in running {
        run.finish(DELIVERED_WITHIN).expect(0);
    }
    for node in &nodes {
        node.until_outbox_is_empty(DELIVERED_WITHIN);
    }
    for (from, to) in ways {
        check_received(to, from.name(), &lines(from, to));
    }
    for node in &nodes {
        assert_eq!(node.inbox_total(), 0, "{} got more", node.name());
    }
}

#[test]
fn waiting_messages_outlive_restarts_and_kills_of_either_side() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    right.stop();
    let first = numbered("first", 100);
    left.send_lines("right", "orders", &first);
    left.restart();
    assert_eq!(left.outbox_total(), 100);
    let second = numbered("second", 100);
    left.send_lines("right", "orders", &second);
    left.kill();
    left.start();
    assert_eq!(left.outbox_total(), 200);
    right.start();
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    right.restart();
    right.kill();
    right.start();
    assert_eq!(right.inbox_total(), 200);
    check_received(&right, "orders", &[first, second].concat());
}

#[test]
fn a_restart_in_the_middle_of_delivery_neither_loses_nor_doubles() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    right.stop();
    let expected = numbered("bale", 3_000);
    left.send_lines("right", "orders", &expected);
    right.start();
    right.until_inbox_has(1, DELIVERED_WITHIN);
    right.restart();
    right.until_inbox_has(500, DELIVERED_WITHIN);
    left.restart();
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    check_received(&right, "orders", &expected);
}

#[test]
fn five_thousand_messages_arrive_in_order() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let expected = numbered("bale", 5_000);
    assert_eq!(left.send_lines("right", "orders", &expected), 5_000);
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    assert_eq!(right.inbox_total(), 5_000);
    check_received(&right, "orders", &expected);
}

/// The command dies at a random moment; repeating it whole must complete the job.
/// Long lines make many requests of few lines, so that the kill falls between and into them.
#[test]
fn an_interrupted_run_of_lines_is_repeated_without_doubling() {
    let mut lab = Lab::new();
    let mut random = Random::new(seed());
    let (left, right) = lab.pair("left", "right");
    let filler = "x".repeat(4_000);
    let lines: Vec<String> = (0..1_500).map(|n| format!("{n} {filler}")).collect();
    let mut kills = 0;
    for _ in 0..20 {
        let mut run = left.spawn_lines("right", "orders", "job", &lines);
        if run
            .ended_within(random.within(Duration::from_millis(120)))
            .is_none()
        {
            run.kill();
            kills += 1;
        }
    }
    println!("killed {kills} times");
    let last = left.spawn_lines("right", "orders", "job", &lines);
    let count = count_of(&last.finish(DELIVERED_WITHIN).expect(0));
    assert_eq!(count, lines.len());
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    assert_eq!(right.inbox_total(), 1_500);
    check_received(&right, "orders", &lines);
}

/// As if interrupted after a part; every repetition counts what it was given, sent or known.
#[test]
fn a_run_repeated_after_its_first_part_sends_only_the_rest() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let lines = numbered("bale", 2_500);
    for count in [1_100, 2_500, 1] {
        let run = left.spawn_lines("right", "orders", "run", &lines[..count]);
        assert_eq!(count_of(&run.finish(DELIVERED_WITHIN).expect(0)), count);
    }
    left.send_stored("right", "orders", "end");
    assert_eq!(right.inbox_total(), 2_501);
    check_received(&right, "orders", &[lines, vec!["end".to_owned()]].concat());
    let nothing = right.cli(&["receive", "orders"]).expect(0);
    nothing.prints_nothing();
    assert_eq!(right.inbox_total(), 0);
}

/// A run under one key prefix with another text in one line says so instead of sending it.
#[test]
fn a_run_repeated_with_other_lines_is_refused() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let lines = |text: &str| vec!["same".to_owned(), text.to_owned()];
    let run = |text| {
        left.spawn_lines("right", "orders", "job", &lines(text))
            .finish(SOON)
    };
    assert_eq!(count_of(&run("hay").expect(0)), 2);
    assert_eq!(count_of(&run("straw").expect(5)), 0);
    assert_eq!(left.outbox_total(), 2);
}

/// Suspended is not dead: the session is still there, or is made again, and nothing is lost.
#[test]
fn a_node_that_is_suspended_under_load_goes_on_where_it_was() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let expected = numbered("bale", 3_000);
    let run = left.spawn_lines("right", "orders", "run", &expected);
    for (node, stored) in [(&right, 100), (&left, 700), (&right, 1_400)] {
        right.until_inbox_has(stored, DELIVERED_WITHIN);
        node.signal(Signal::STOP);
        // Longer than a few round trips and retransmissions, shorter than any patience.
        pause(Duration::from_millis(700));
        node.signal(Signal::CONT);
    }
    assert_eq!(count_of(&run.finish(DELIVERED_WITHIN).expect(0)), 3_000);
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    check_received(&right, "orders", &expected);
}

/// Large and small payloads share the window; bytes and counts both bound it.
#[test]
fn payloads_of_every_size_keep_their_order() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let sizes = [
        0,
        1,
        4_095,
        4_096,
        4_097,
        65_535,
        65_536,
        262_144,
        1 << 20,
        3,
        1 << 20,
        1 << 20,
    ];
    let sizes: Vec<usize> = sizes.iter().copied().cycle().take(36).collect();
    for (number, size) in sizes.iter().enumerate() {
        let payload = vec![b'a' + u8::try_from(number % 26).expect("a letter"); *size];
        let output = left.cli_with(&["send", "right", "orders", "-"], payload);
        output.expect(0);
    }
    right.start();
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    let received = right.receive("orders", 100);
    let lengths: Vec<usize> = received.iter().map(String::len).collect();
    assert_eq!(lengths, sizes);
    for (number, payload) in received.iter().enumerate() {
        let letter = b'a' + u8::try_from(number % 26).expect("a letter");
        assert!(
            payload.bytes().all(|byte| byte == letter),
            "payload {number}"
        );
    }
}

// --- many at once ---

#[test]
fn one_key_sent_by_many_at_once_is_one_message() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let words = [
        "send", "right", "orders", "hay", "--id", "k", "--wait", "stored",
    ];
    let words = [&words[..], &["--json"]].concat();
    let running: Vec<_> = (0..8).map(|_| left.spawn(&words, "")).collect();
    let receipts: Vec<String> = running
        .into_iter()
        .map(|run| run.finish(SOON).expect(0).json()["receipt"].to_string())
        .collect();
    assert!(
        receipts.iter().all(|receipt| *receipt == receipts[0]),
        "{receipts:?}"
    );
    check_received(&right, "orders", &["hay".to_owned()]);
}

#[test]
fn many_senders_at_once_each_keep_their_order() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let topics: Vec<String> = (0..6).map(|number| format!("topic{number}")).collect();
    let running: Vec<_> = topics
        .iter()
        .map(|topic| left.spawn_lines("right", topic, topic, &numbered(topic, 400)))
        .collect();
    for run in running {
        assert_eq!(count_of(&run.finish(DELIVERED_WITHIN).expect(0)), 400);
    }
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    assert_eq!(right.inbox_total(), 2_400);
    for topic in &topics {
        check_received(&right, topic, &numbered(topic, 400));
    }
}

#[test]
fn two_receivers_at_once_share_the_messages_without_doubling() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let expected = numbered("bale", 1_500);
    left.send_lines("right", "orders", &expected);
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    let words = ["receive", "orders", "--count", "1000"];
    let running: Vec<_> = (0..3).map(|_| right.spawn(&words, "")).collect();
    let mut received = Vec::new();
    for run in running {
        let lines = run.finish(SOON).expect(0).lines();
        let number = |line: &String| -> usize {
            let word = line.rsplit(' ').next().unwrap_or_default();
            word.parse().expect("a numbered line")
        };
        assert!(
            lines.iter().map(number).is_sorted(),
            "one receiver keeps the order"
        );
        received.extend(lines);
    }
    let key = |line: &String| (line.len(), line.clone());
    received.sort_by_key(key);
    assert_eq!(received, expected);
    assert_eq!(right.inbox_total(), 0);
}

// --- who may receive ---

/// A peer's port is taken over by another node: its messages wait, nobody else gets them.
#[test]
fn messages_are_never_delivered_to_another_node_at_the_same_address() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    let address = right.ready()["listen"][0]
        .as_str()
        .expect("an address")
        .to_owned();
    let address = address.trim_start_matches("quic://").to_owned();
    right.stop();
    let mut wrong = Node::new("wrong", lab.file("wrong"), Some(address));
    wrong.start();
    left.send("right", "orders", "hay");
    support::until("a failed dial", SOON, || {
        let status = left.peer_status("right");
        (!status["last_error"].is_null()).then_some(())
    });
    assert_eq!(wrong.inbox_total(), 0);
    assert_eq!(left.outbox_total(), 1);
    wrong.stop();
    right.start();
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    check_received(&right, "orders", &["hay".to_owned()]);
}

// --- a node that nobody can dial ---

#[test]
fn a_node_without_a_listener_receives_over_the_link_that_it_holds() {
    let mut lab = Lab::new();
    let left = lab.start("left");
    let mut right = lab.loner("right");
    right.start();
    pair(&left, &right);
    left.send_stored("right", "orders", "first");
    right.send_stored("left", "answers", "thanks");
    left.send_stored("right", "orders", "second");
    check_received(&right, "orders", &["first".to_owned(), "second".to_owned()]);
}

#[test]
fn a_node_without_a_listener_fetches_what_waits_for_it_when_it_starts() {
    let mut lab = Lab::new();
    let left = lab.start("left");
    let mut right = lab.loner("right");
    right.start();
    pair(&left, &right);
    right.kill();
    left.send("right", "orders", "while you were away");
    right.start();
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    check_received(&right, "orders", &["while you were away".to_owned()]);
}

#[test]
fn a_node_without_a_listener_dials_again_when_the_other_side_restarts() {
    let mut lab = Lab::new();
    let mut left = lab.start("left");
    let mut right = lab.loner("right");
    right.start();
    pair(&left, &right);
    left.send_stored("right", "orders", "before");
    left.restart();
    left.send("right", "orders", "after");
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    check_received(&right, "orders", &["before".to_owned(), "after".to_owned()]);
}

/// A kill says no goodbye: the other side has only the silence to notice it by, which is allowed
/// to take 45 s. The longest test of this file, since nothing can be done to shorten it.
#[test]
fn a_node_without_a_listener_dials_again_when_the_other_side_was_killed() {
    let mut lab = Lab::new();
    let mut left = lab.start("left");
    let mut right = lab.loner("right");
    right.start();
    pair(&left, &right);
    left.send_stored("right", "orders", "before");
    left.kill();
    left.start();
    left.send("right", "orders", "after");
    left.until_outbox_is_empty(NOTICED_WITHIN);
    check_received(&right, "orders", &["before".to_owned(), "after".to_owned()]);
}
