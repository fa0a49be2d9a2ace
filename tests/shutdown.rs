//! SIGTERM while everything is busy, and while nobody answers: it ends with 0 within its deadline,
//! and what was acknowledged before is there afterwards, once and in order.

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use support::deadline::{SOON, pause};
use support::node::count_of;
use support::shop::{note, notes, shop, until_notes, wait_for};
use support::{Api, CallError, Lab, Node, Random, seed, until};

/// Requests have three seconds to end and the node twenty; the rest is for a busy machine.
const STOPPED_WITHIN: Duration = Duration::from_secs(26);
const DELIVERED_WITHIN: Duration = Duration::from_secs(45);
const LINES: usize = 1_500;

/// SIGTERM, and the promise that it ends with 0, in time.
#[track_caller]
fn stop_in_time(node: &mut Node) {
    let deadline = support::Deadline::after(STOPPED_WITHIN);
    node.stop();
    assert!(!deadline.is_over(), "{} took too long", node.name());
}

/// What a driver without keys knows of its numbered messages.
#[derive(Debug, Default)]
struct Book {
    accepted: BTreeSet<u64>,
    /// The daemon ended between question and answer.
    unknown: BTreeSet<u64>,
}

impl Book {
    /// Each accepted one once, each unknown one at most once, nothing else, all in order.
    #[track_caller]
    fn check(&self, received: &[String]) {
        let came: Vec<u64> = received
            .iter()
            .map(|line| line.parse().expect("a number"))
            .collect();
        for pair in came.windows(2) {
            assert!(pair[0] < pair[1], "{} before {}", pair[0], pair[1]);
        }
        let came: BTreeSet<u64> = came.into_iter().collect();
        let lost: Vec<_> = self.accepted.difference(&came).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        for number in came.difference(&self.accepted) {
            assert!(self.unknown.contains(number), "{number} was never sent");
        }
    }
}

/// Sends one number after the other until told to stop, through stops and starts of the daemon.
fn drive(api: &Api, peer: &str, is_over: &AtomicBool, accepted: &AtomicU64) -> Book {
    let mut book = Book::default();
    let query = [("peer", peer), ("topic", "singles")];
    let mut number = 0;
    while !is_over.load(Ordering::Acquire) {
        match api.post("/v1/messages", &query, number.to_string().as_bytes()) {
            Ok(_) => {
                book.accepted.insert(number);
                accepted.fetch_add(1, Ordering::AcqRel);
            }
            Err(CallError::Lost(_)) => {
                book.unknown.insert(number);
            }
            // Not running, or ending: it was not accepted, which the number's absence will show.
            Err(CallError::NotRunning(_)) => pause(Duration::from_millis(10)),
            Err(CallError::Refused { status, body }) => {
                assert!(status >= 500, "{number}: {status} {body}");
                pause(Duration::from_millis(10));
            }
        }
        number += 1;
    }
    book
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_stop_under_load_loses_nothing() {
    let mut random = Random::new(seed());
    let mut lab = Lab::new();
    let (mut left, mut right) = shop(&mut lab);
    let lines: Vec<String> = (0..LINES)
        .map(|n| format!("{n:0>4}{:-<2000}", ""))
        .collect();
    let exec = format!(
        "read n; {}; [ $n != stuck ] || {{ {}; }}",
        note(&lab, "$n"),
        wait_for(&lab.file("gate"))
    );
    // Consumers of all kinds, which live through it as under a process manager.
    let words = [
        "work", "jobs", "--exec", &exec, "--jobs", "3", "--lease", "2s",
    ];
    let worker = right.spawn(&words, "");
    let reader = right.spawn(&["receive", "letters", "--follow"], "");
    let watchers = [&left, &right].map(|node| node.spawn(&["events", "--follow", "--jsonl"], ""));
    left.send_stored("right", "jobs", "stuck");
    until_notes(&lab, 1);

    let (is_over, accepted) = (AtomicBool::new(false), AtomicU64::new(0));
    let (left_api, right_api) = (left.api(), right.api());
    let (there, back) = std::thread::scope(|scope| {
        let stop = StopOnDrop(&is_over);
        let there = scope.spawn(|| drive(&left_api, "right", &is_over, &accepted));
        let back = scope.spawn(|| drive(&right_api, "left", &is_over, &accepted));
        for round in 0..4 {
            for n in 0..5 {
                left.send("right", "jobs", &format!("{round}-{n}"));
                left.send("right", "letters", &format!("{round}-{n}"));
            }
            let run_there = left.spawn_lines("right", "lines", "run", &lines);
            let run_back = right.spawn_lines("left", "lines", "run", &lines);
            let wanted = accepted.load(Ordering::Acquire) + 1 + random.below(40);
            until("messages are accepted between the stops", SOON, || {
                (accepted.load(Ordering::Acquire) >= wanted).then_some(())
            });
            pause(random.within(Duration::from_millis(150)));
            match round {
                0 => stop_in_time(&mut left),
                1 => stop_in_time(&mut right),
                // Both at once: each one's sessions end while the other's do.
                _ => {
                    left.signal(Signal::TERM);
                    stop_in_time(&mut right);
                    left.ended_by_itself(0);
                }
            }
            for run in [run_there, run_back] {
                // Done before it, cut off by it, or refused as the daemon was going.
                let output = run.finish(SOON * 3);
                assert!(
                    matches!(output.code, Some(0 | 1 | 5 | 6 | 10 | 124)),
                    "{output:?}"
                );
            }
            if round != 1 {
                left.start();
            }
            if round != 0 {
                right.start();
            }
        }
        drop(stop);
        let join = "the driver only writes its book";
        (there.join().expect(join), back.join().expect(join))
    });
    // Each run repeated to its end: what was accepted before is not sent again.
    for (from, to) in [(&left, "right"), (&right, "left")] {
        let run = from.spawn_lines(to, "lines", "run", &lines);
        assert_eq!(count_of(&run.finish(DELIVERED_WITHIN).expect(0)), LINES);
    }
    std::fs::write(lab.file("gate"), "").expect("the scratch folder takes files");
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    right.until_outbox_is_empty(DELIVERED_WITHIN);
    println!(
        "there {} accepted and {} unknown, back {} and {}",
        there.accepted.len(),
        there.unknown.len(),
        back.accepted.len(),
        back.unknown.len()
    );
    there.check(&right.receive("singles", 1_000_000));
    back.check(&left.receive("singles", 1_000_000));
    assert_eq!(right.receive("lines", LINES + 10), lines);
    assert_eq!(left.receive("lines", LINES + 10), lines);
    // The consumers saw everything too; nothing was refused to them for good.
    until("nothing is left to be handled", DELIVERED_WITHIN, || {
        (right.inbox_total() == 0).then_some(())
    });
    worker.signal(Signal::TERM);
    worker.finish(SOON).expect(0);
    reader.signal(Signal::TERM);
    let read = reader.finish(SOON).expect(0).lines();
    let noted = notes(&lab);
    for round in 0..4 {
        for n in 0..5 {
            let name = format!("{round}-{n}");
            assert!(read.contains(&name), "{name} was not read");
            assert!(noted.contains(&name), "{name} was not worked on");
        }
    }
    for watcher in watchers {
        watcher.signal(Signal::TERM);
        let seen = watcher.finish(SOON).expect(0).lines();
        let starts = seen.iter().filter(|line| line.contains("node.started"));
        // The first one, and one after each of its three stops.
        assert_eq!(starts.count(), 4, "a start was missed: {seen:?}");
    }
}

/// Clients in every stage of a request that will never end hold the stop up for its limit only.
#[test]
fn clients_that_never_finish_do_not_keep_a_node_from_stopping() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    let lines: Vec<String> = (0..200).map(|n| format!("{n:-<8000}")).collect();
    left.send_lines("right", "orders", &lines);
    right.until_inbox_has(200, SOON);
    let follower = right.follow(&["receive", "orders", "--follow"]);
    until("it claimed something", SOON, || {
        // What is claimed is still in the inbox, but nobody else gets it.
        let rest = right.api().post(
            "/v1/claim",
            &[],
            br#"{"topic":"orders","count":200,"lease_ms":1000}"#,
        );
        let rest = rest.expect("a claim is answered");
        (rest["messages"].as_array().expect("a list").len() < 200).then_some(())
    });
    follower.signal(Signal::STOP);
    let mut connections = Vec::new();
    for request in [
        "",
        "GET /v1/status",
        "POST /v1/messages?peer=left&topic=t HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx",
        "GET /v1/inbox?limit=1000 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /v1/events?after=100000&wait_ms=60000 HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        for _ in 0..10 {
            let socket = right.data_dir().join("api.sock");
            let mut stream = UnixStream::connect(socket).expect("it listens");
            stream.write_all(request.as_bytes()).expect("it listens");
            connections.push(stream);
        }
    }
    stop_in_time(&mut right);
    drop((connections, follower));
    right.start();
    // Leases are in memory: all of it is there at once, the same and in order.
    assert_eq!(right.receive("orders", 1_000), lines);
}

/// One is dead, one is suspended in the middle of a session, one never answers, one refuses.
#[test]
fn a_stop_does_not_wait_for_peers_that_are_unreachable() {
    let mut lab = Lab::new();
    let mut left = lab.start("left");
    let mut dead = lab.start("dead");
    let mut silent = lab.start("silent");
    let stuck = lab.start("stuck");
    for peer in [&dead, &silent, &stuck] {
        support::lab::pair(&left, peer);
    }
    // In order, which is known at once; of a kill only the silence tells.
    dead.stop();
    silent.stop();
    // Somebody takes its packets and never answers.
    let address = silent.listen().expect("it listened");
    let _hole = UdpSocket::bind(address).expect("the port of a dead node");
    left.until_state("stuck", "connected");
    stuck.signal(Signal::STOP);
    let lines: Vec<String> = (0..500).map(|n| format!("{n:-<4000}")).collect();
    for peer in ["dead", "silent", "stuck"] {
        assert_eq!(left.send_lines(peer, "orders", &lines), 500);
    }
    for peer in ["dead", "silent"] {
        until("a dial in vain", SOON, || {
            (left.peer_status(peer)["state"] != "connected").then_some(())
        });
    }
    for _ in 0..2 {
        stop_in_time(&mut left);
        left.start();
    }
    assert_eq!(left.outbox_total(), 1_500, "all of it still waits");
    stuck.signal(Signal::CONT);
    dead.start();
    // At once, rather than after the pauses that the dials in vain have led to.
    left.cli(&["outbox", "flush"]).expect(0);
    until("those that are back have theirs", DELIVERED_WITHIN, || {
        (left.outbox_total() == 500).then_some(())
    });
    assert_eq!(stuck.receive("orders", 1_000), lines);
    assert_eq!(dead.receive("orders", 1_000), lines);
}
