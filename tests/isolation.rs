//! Whoever is slow or stuck delays nobody else: readers, workers, consumers, clients and peers.
//!
//! Each test measures the same piece of work twice, in a quiet node and beside the stuck ones,
//! and lets the second take longer only within bounds that a real wait would break by far.

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;

use support::deadline::SOON;
use support::shop::{id_of, note, notes, shop, until_notes, until_receipt, wait_for};
use support::{Deadline, Follower, Lab, Node, until};

/// A machine that runs other tests beside this one is slower by some factor and some seconds;
/// who waits for somebody stuck waits for half a minute at least.
const SLOWER: u32 = 8;
const SLACK: Duration = Duration::from_secs(5);
/// Messages of one piece of work.
const WORK: usize = 100;

/// How long this takes.
fn time_of(work: impl FnOnce()) -> Duration {
    let limit = SOON * 4;
    let deadline = Deadline::after(limit);
    work();
    limit.saturating_sub(deadline.left())
}

/// Runs the piece of work quietly, then beside what gets stuck, and compares.
fn check_undelayed(mut work: impl FnMut(&str), get_stuck: impl FnOnce()) {
    let quiet = time_of(|| work("quiet"));
    get_stuck();
    let beside = time_of(|| work("beside"));
    println!("{quiet:?} alone, {beside:?} beside the stuck ones");
    assert!(
        beside <= quiet * SLOWER + SLACK,
        "{quiet:?} alone, {beside:?} beside the stuck ones"
    );
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name} {number}"))
        .collect()
}

/// Messages from one to the other on this topic, read there, and a look at both nodes.
fn deliver(from: &Node, to: &Node, topic: &str) {
    let lines = numbered(topic, WORK);
    assert_eq!(from.send_lines(to.name(), topic, &lines), WORK);
    let last = from.send_stored(to.name(), topic, "last");
    let received = to.receive(topic, WORK + 1);
    assert_eq!(received[..WORK], lines);
    assert_eq!(received[WORK..], ["last"]);
    until_receipt(from, &id_of(&last), "done", SOON);
    from.status();
    to.status();
    to.json(&["tree"]);
}

/// Suspends it once it has printed a line, so that it is known to be connected.
fn suspended(mut follower: Follower) -> Follower {
    follower.next_line();
    follower.signal(Signal::STOP);
    follower
}

/// A request on a connection whose answer nobody ever reads.
fn unread(node: &Node, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(node.data_dir().join("api.sock")).expect("it listens");
    stream.set_write_timeout(Some(SOON)).expect("a socket");
    stream.write_all(request.as_bytes()).expect("a free place");
    stream
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: packhorse\r\n\r\n")
}

#[test]
fn readers_and_watchers_that_stopped_reading_delay_nobody() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let mut stuck = Vec::new();
    let mut connections = Vec::new();
    let work = |topic: &str| {
        deliver(&left, &right, topic);
        deliver(&right, &left, topic);
    };
    check_undelayed(work, || {
        for node in [&left, &right] {
            for _ in 0..3 {
                let words = ["events", "--follow", "--since", "0", "--jsonl"];
                stuck.push(suspended(node.follow(&words)));
            }
        }
        // Its topic has more than a pipe holds and than it claims at once.
        let large: Vec<String> = (0..200).map(|n| format!("{n:-<8000}")).collect();
        left.send_lines("right", "large", &large);
        right.until_inbox_has(200, SOON);
        stuck.push(suspended(right.follow(&["receive", "large", "--follow"])));
        // Larger answers than a socket holds: writing them has begun, and will never end.
        for _ in 0..10 {
            let mut answer = unread(&right, &get("/v1/inbox?limit=1000").repeat(4));
            answer.set_read_timeout(Some(SOON)).expect("a socket");
            answer.read_exact(&mut [0]).expect("an answer begins");
            connections.push(answer);
            connections.push(unread(&right, &get("/v1/events?after=0")));
        }
        // And some that never say all they announced.
        let half = "POST /v1/messages?peer=left&topic=half HTTP/1.1\r\nhost: packhorse\r\n\
                    content-length: 100000\r\n\r\nsome of it";
        for _ in 0..20 {
            connections.push(unread(&right, half));
        }
    });
}

/// More than the daemon serves at once, and each would wait for a minute.
#[test]
fn receipts_that_are_waited_for_keep_nobody_from_being_answered() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    right.stop();
    let id = id_of(&left.send("right", "orders", "hay"));
    let mut connections = Vec::new();
    let request = format!(
        "GET /v1/receipts/{id}?wait=done&timeout_ms=60000 HTTP/1.1\r\nhost: packhorse\r\n\
         connection: close\r\n\r\n"
    );
    let ask = |_: &str| {
        left.status();
        left.json(&["receipt", &id]);
        left.send("right", "orders", "straw");
    };
    check_undelayed(ask, || {
        for _ in 0..300 {
            connections.push(unread(&left, &request));
        }
    });
    // Somebody who really waits is told all the same, when there is something to tell.
    let waiting = left.spawn(&["receipt", &id, "--wait", "done", "--timeout", "60s"], "");
    right.start();
    right.until_inbox_has(3, SOON);
    right.receive("orders", 3);
    waiting.finish(SOON).expect(0);
}

/// Its lease is renewed for as long as it runs, and nothing else is touched by it.
#[test]
fn a_command_that_never_ends_keeps_its_own_message_and_delays_no_other() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let exec = format!(
        "{}; {}",
        note(&lab, "$PACKHORSE_ATTEMPT"),
        wait_for(&lab.file("never"))
    );
    let words = ["work", "stuck", "--exec", &exec, "--lease", "1s"];
    let mut stuck = None;
    let work = |topic: &str| {
        deliver(&left, &right, topic);
        let id = id_of(&left.send_stored("right", "jobs", topic));
        let words = ["work", "jobs", "--exec", "cat", "--once"];
        right.cli(&words).expect(0);
        until_receipt(&left, &id, "done", SOON);
    };
    check_undelayed(work, || {
        left.send_stored("right", "stuck", "one");
        stuck = Some(right.follow(&words));
        until_notes(&lab, 1);
    });
    // Three times its lease has passed when this ends, and it is still nobody else's.
    let words = ["receive", "stuck", "--wait", "--timeout", "3s"];
    right.cli(&words).expect(124).prints_nothing();
    assert_eq!(notes(&lab), ["1"], "it ran once");
    left.send_stored("right", "stuck", "two");
    assert_eq!(right.receive("stuck", 5), ["two"], "those behind it pass");
    // Whoever holds a lease loses it only by being away.
    let worker = stuck.expect("it was started");
    worker.signal(Signal::KILL);
    assert_eq!(worker.ended_or_killed(), None);
    let words = ["receive", "stuck", "--wait", "--timeout", "30s"];
    assert_eq!(right.cli(&words).expect(0).lines(), ["one"]);
}

#[test]
fn a_consumer_that_never_answers_keeps_what_it_claimed_for_its_lease() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    let lines = numbered("bale", 20);
    left.send_lines("right", "orders", &lines);
    right.until_inbox_has(20, SOON);
    let claim = |count: usize, lease_ms: u64| {
        let request = format!(r#"{{"topic":"orders","count":{count},"lease_ms":{lease_ms}}}"#);
        let claimed = right.api().post("/v1/claim", &[], request.as_bytes());
        let claimed = claimed.expect("a claim is answered");
        claimed["messages"].as_array().expect("a list").len()
    };
    assert_eq!(claim(5, 2_000), 5);
    assert_eq!(claim(5, 3_600_000), 5);
    let work = |topic: &str| deliver(&left, &right, topic);
    check_undelayed(work, || {});
    // Nothing waits behind what is claimed.
    let mut received = right.receive("orders", 20);
    until("the short lease ends", SOON, || {
        received.extend(right.receive("orders", 20));
        (received.len() >= 15).then_some(())
    });
    received.sort();
    let mut expected = [&lines[..5], &lines[10..]].concat();
    expected.sort();
    assert_eq!(received, expected);
    assert_eq!(right.inbox_total(), 5, "the hour of the others is not over");
}

/// A session to it exists and goes on existing; its windows are full and nothing comes back.
#[test]
fn a_peer_that_is_suspended_delays_no_other_peer() {
    let mut lab = Lab::new();
    let (left, stuck) = lab.pair("left", "stuck");
    let right = lab.start("right");
    support::lab::pair(&left, &right);
    let large: Vec<String> = (0..1_500).map(|n| format!("{n:-<4000}")).collect();
    let work = |topic: &str| {
        deliver(&left, &right, topic);
        deliver(&right, &left, topic);
    };
    check_undelayed(work, || {
        left.until_state("stuck", "connected");
        stuck.signal(Signal::STOP);
        // More than a session has under way at once.
        left.send_lines("stuck", "large", &large);
    });
    // A command about the stuck one itself is answered as well.
    left.json(&["why", "peer", "stuck"]);
    left.cli(&["ping", "stuck"]).expect(1);
    stuck.signal(Signal::CONT);
    left.until_outbox_is_empty(SOON * 2);
    assert_eq!(stuck.receive("large", 2_000), large);
}
