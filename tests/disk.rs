//! A full disk: new work is refused and said, nothing that was acknowledged is lost, and all of it
//! goes on by itself when there is space again.
//!
//! Each test has a small file system of its own, which another program fills: the test.
//! Where a process may end, it may end with 9 alone, and a loop starts it again, as the service
//! manager does.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use packhorse::lab::Disk;
use serde_json::Value;

use support::deadline::{SOON, pause};
use support::skip::skipped;
use support::{Api, CallError, Lab, Node, until};

/// Storage full.
const FULL: i32 = 9;
/// 320 MiB: room for the journals of two nodes, and a reserve of 10 MiB for each.
const DISK_MIB: u64 = 320;
const MIB: u64 = 1 << 20;
/// After the space is back: a look at the disk, a redial, and everything that waits.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
/// Pause before a request is repeated that was refused.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);
const PAYLOAD_BYTES: usize = 4_096;

/// A disk at this path, which is made. `None`, after a word on stderr, where there can be none.
fn small_disk(path: &Path, test: &str) -> Option<Disk> {
    std::fs::create_dir(path).expect("a place to mount at");
    match Disk::mount(path, DISK_MIB * MIB) {
        Ok(disk) => Some(disk),
        Err(error) if error.is_unsupported() => {
            skipped(test, &error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn refusing(node: &Node) -> Vec<String> {
    let status = node.status();
    let reasons = status["storage"]["refusing"].as_array();
    let reasons = reasons.expect("a list of reasons").iter();
    reasons
        .map(|reason| reason.as_str().expect("a sentence").to_owned())
        .collect()
}

fn kinds(node: &Node) -> Vec<String> {
    let events = node.json(&["events", "--since", "0"]);
    let events = events["events"].as_array().expect("a list of events");
    let kind = |event: &Value| event["kind"].as_str().expect("a kind").to_owned();
    events.iter().map(kind).collect()
}

#[test]
fn a_node_without_room_refuses_and_says_so_and_takes_work_again_by_itself() {
    let mut lab = Lab::new();
    let name = "disk::a_node_without_room_refuses_and_says_so_and_takes_work_again_by_itself";
    let Some(disk) = small_disk(&lab.file("small"), name) else {
        return;
    };
    let left = lab.start("left");
    let port = lab.port();
    let folder = disk.path().join("right");
    let mut right = Node::new("right", folder, Some(format!("127.0.0.1:{port}")));
    right.start();
    support::lab::pair(&right, &left);
    left.send_stored("right", "before", "one");
    let process = right.process_id();
    let storage = right.status()["storage"].clone();
    assert_eq!(storage["reserved_bytes"], DISK_MIB / 32 * MIB, "{storage}");

    // Under the line, above the mark at which the reserve is given up.
    disk.fill_but(5 * MIB).expect("it is mounted");
    let output = right.cli(&["send", "left", "t", "new"]).expect(FULL);
    output.says("new work").says("5 MiB");
    let reason = until("right says what is short", SOON, || refusing(&right).pop());
    assert!(reason.contains("the disk has"), "{reason}");
    left.send("right", "during", "two");
    let paused = until("left is told that right takes nothing", SOON, || {
        let paused = left.peer_status("right")["paused"].clone();
        paused.as_str().map(ToOwned::to_owned)
    });
    assert!(paused.contains("the disk has"), "{paused}");
    let why = left.cli(&["why", "peer", "right"]).expect(0);
    assert!(why.text().contains("takes no messages now"), "{why:?}");
    // What ends old work goes on: a message leaves the inbox, and its sender hears of it.
    assert_eq!(right.receive("before", 1), ["one"]);
    assert_eq!(left.outbox_total(), 1);

    disk.free().expect("it is mounted");
    until("left hears that right takes messages again", SOON, || {
        left.peer_status("right")["paused"].is_null().then_some(())
    });
    right.until_inbox_has(1, SOON);
    assert_eq!(right.receive("during", 9), ["two"]);
    until("right takes new work", SOON, || {
        refusing(&right).is_empty().then_some(())
    });
    right.send("left", "t", "new");
    assert_eq!(right.process_id(), process);
    let kinds = kinds(&right);
    for kind in ["storage.full", "storage.back"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind}: {kinds:?}");
    }
    right.stop();
}

/// Sends numbered messages under keys, each until it is accepted. Returns how many.
fn drive(api: &Api, is_over: &AtomicBool, accepted: &AtomicU64, refused: &AtomicU64) -> u64 {
    let filler = "x".repeat(PAYLOAD_BYTES);
    let mut number = 0_u64;
    let mut is_open = false;
    while is_open || !is_over.load(Ordering::Acquire) {
        let payload = format!("{number} {filler}");
        let key = format!("n{number}");
        let query = [("peer", "right"), ("topic", "t"), ("id", &key)];
        is_open = true;
        match api.post("/v1/messages", &query, payload.as_bytes()) {
            Ok(receipt) => {
                assert_ne!(receipt["state"], "failed", "{receipt}");
                number += 1;
                accepted.store(number, Ordering::Release);
                is_open = false;
            }
            Err(CallError::Refused { status, body }) => {
                assert!(status >= 500, "{status} {body}");
                if status == 507 {
                    refused.fetch_add(1, Ordering::AcqRel);
                }
                pause(ASK_AGAIN_AFTER);
            }
            Err(CallError::NotRunning(_) | CallError::Lost(_)) => pause(ASK_AGAIN_AFTER),
        }
    }
    number
}

/// Starts a node again that ended with 9, as the service manager does. Returns how often it ended.
#[track_caller]
fn keep_up(node: &mut Node) -> u64 {
    let mut ends = 0;
    if node.is_running() {
        match node.has_ended() {
            None => return 0,
            Some(code) => assert_eq!(code, FULL, "exit of {}", node.name()),
        }
        ends += 1;
    }
    if let Err(code) = node.try_start() {
        assert_eq!(code, Some(FULL), "start of {}", node.name());
        ends += 1;
    }
    ends
}

#[test]
fn a_disk_that_another_program_fills_under_load_loses_and_doubles_nothing() {
    let mut lab = Lab::new();
    let name = "disk::a_disk_that_another_program_fills_under_load_loses_and_doubles_nothing";
    let Some(disk) = small_disk(&lab.file("small"), name) else {
        return;
    };
    let mut nodes = ["left", "right"].map(|name| {
        let port = lab.port();
        Node::new(
            name,
            disk.path().join(name),
            Some(format!("127.0.0.1:{port}")),
        )
    });
    nodes.iter_mut().for_each(Node::start);
    let [left, right] = &mut nodes;
    support::lab::pair(right, left);
    let (is_over, accepted, refused) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut ends = [0, 0];
    let api = left.api();
    let sent = std::thread::scope(|scope| {
        let driver = scope.spawn(|| drive(&api, &is_over, &accepted, &refused));
        // Also should this thread fail, the driver must end.
        let _over = Over(&is_over);
        until("messages are accepted", SOON, || {
            (accepted.load(Ordering::Acquire) > 200).then_some(())
        });
        // Another program takes whatever anybody gives back, until senders are refused and for a while
        // longer, or until a process has met the end of the space.
        let (is_freed, hog) = (AtomicBool::new(false), &disk);
        std::thread::scope(|scope| {
            let _freed = Over(&is_freed);
            scope.spawn(|| fill_until(hog, &is_freed));
            until("new work is refused, or a process ends", SOON, || {
                ends[0] += keep_up(left);
                ends[1] += keep_up(right);
                let refused = refused.load(Ordering::Acquire);
                (ends.iter().any(|ends| *ends > 0) || refused > 100).then_some(())
            });
        });
        println!(
            "full: {} accepted, {} refused, {ends:?} ends with 9",
            accepted.load(Ordering::Acquire),
            refused.load(Ordering::Acquire)
        );
        disk.free().expect("it is mounted");
        let before = accepted.load(Ordering::Acquire);
        until(
            "both nodes run and messages are accepted again",
            RECOVERED_WITHIN,
            || {
                ends[0] += keep_up(left);
                ends[1] += keep_up(right);
                (accepted.load(Ordering::Acquire) > before + 200).then_some(())
            },
        );
        is_over.store(true, Ordering::Release);
        driver.join().expect("the driver ends")
    });
    left.until_outbox_is_empty(RECOVERED_WITHIN);
    println!(
        "{sent} accepted, {} refused for want of room, ends with 9: {ends:?}",
        refused.load(Ordering::Acquire)
    );
    let count = usize::try_from(sent).expect("a count of messages");
    let received = right.receive("t", count + 100);
    let numbers: Vec<u64> = received
        .iter()
        .map(|line| {
            let word = line.split(' ').next().unwrap_or_default();
            word.parse().expect("a number")
        })
        .collect();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
    nodes.iter_mut().for_each(Node::stop);
}

/// Takes all the space that there is, again and again.
fn fill_until(disk: &Disk, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) {
        disk.fill_but(0).expect("it is mounted");
        pause(Duration::from_millis(1));
    }
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_node_that_starts_on_a_full_disk_says_so_or_refuses_and_is_whole_afterwards() {
    let mut lab = Lab::new();
    let name = "disk::a_node_that_starts_on_a_full_disk_says_so_or_refuses_and_is_whole_afterwards";
    let Some(disk) = small_disk(&lab.file("small"), name) else {
        return;
    };
    let left = lab.start("left");
    let port = lab.port();
    let folder = disk.path().join("right");
    let mut right = Node::new("right", folder, Some(format!("127.0.0.1:{port}")));
    right.start();
    support::lab::pair(&right, &left);
    left.send_stored("right", "t", "kept");
    right.kill();
    disk.fill_but(0).expect("it is mounted");
    // Also what an open gives up of its reserve is taken at once.
    let is_freed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _freed = Over(&is_freed);
        scope.spawn(|| fill_until(&disk, &is_freed));
        let started = right.try_start();
        println!("start on a full disk: {started:?}");
        if let Err(code) = started {
            assert_eq!(code, Some(FULL));
            return;
        }
        // What was left was enough to open with: it takes nothing new, or meets the end later.
        let api = right.api();
        let end = until("it refuses or ends", SOON, || {
            let code = right.has_ended();
            let status = api.get("/v1/status", &[]).ok();
            let reasons = status.and_then(|status| {
                let reasons = status["storage"]["refusing"].as_array()?.clone();
                (!reasons.is_empty()).then_some(reasons)
            });
            (code.is_some() || reasons.is_some()).then_some((code, reasons))
        });
        println!("and then: {end:?}");
        match end.0 {
            Some(code) => assert_eq!(code, FULL),
            None => right.kill_if_running(),
        }
    });
    disk.free().expect("it is mounted");
    right.start();
    assert_eq!(right.receive("t", 9), ["kept"]);
    right.stop();
}
