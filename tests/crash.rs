//! SIGKILL at random moments under load: what was accepted is stored exactly once, in order.
//!
//! Drivers send all the time and write down what they know; a seeded hand kills sender,
//! receiver, both, or the command that sends, and starts them again.
//! At the end `receive` is compared with the drivers' books; nothing inside the nodes is asked.
//!
//! A book knows three kinds of messages: accepted (must be there once), refused by a daemon
//! that was not there (must not be there unless sent again), and unknown, when the daemon died
//! between question and answer (may be there once).

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use support::deadline::{SOON, pause};
use support::document::total;
use support::node::count_of;
use support::{Api, CallError, Deadline, Lab, Node, Random, seed, until};

/// Kills of daemons; the kills of the command come on top.
const STRIKES: u64 = 36;
/// One in so many strikes is an ordinary stop in the middle of the load, which must end with 0.
const STOP_EVERY: u64 = 6;
/// Everything that waits is delivered within this after the last restart.
const DELIVERED_WITHIN: Duration = Duration::from_secs(60);
/// Pause after a daemon was found to be down; it is being started again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// Lines of one run of the command, and the length of each:
/// 400 × 4 KiB make seven requests of at most 256 KiB, so that kills fall between them too.
const RUN_LINES: usize = 400;
const RUN_LINE_BYTES: usize = 4_096;

/// What the drivers and the killer share.
#[derive(Debug, Default)]
struct Course {
    is_over: AtomicBool,
    /// Messages that any driver knows to be accepted.
    accepted: AtomicU64,
}

impl Course {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn accept(&self, count: u64) {
        self.accepted.fetch_add(count, Ordering::AcqRel);
    }

    fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }
}

/// What a driver knows about the messages it numbered, in the order it sent them.
#[derive(Debug, Default)]
struct Book {
    accepted: Vec<u64>,
    unknown: BTreeSet<u64>,
}

impl Book {
    /// Compares with what came: each accepted one once, each unknown at most once,
    /// nothing else, and all in the order in which they were sent.
    #[track_caller]
    fn check(&self, topic: &str, received: &[String]) {
        let came: Vec<u64> = received.iter().map(|line| number_of(line)).collect();
        for pair in came.windows(2) {
            assert_ne!(pair[0], pair[1], "{topic}: {} came twice", pair[0]);
            assert!(
                pair[0] < pair[1],
                "{topic}: {} came before {}",
                pair[0],
                pair[1]
            );
        }
        let came: BTreeSet<u64> = came.into_iter().collect();
        let accepted: BTreeSet<u64> = self.accepted.iter().copied().collect();
        let lost: Vec<_> = accepted.difference(&came).collect();
        assert!(lost.is_empty(), "{topic}: lost {lost:?}");
        let extra: Vec<_> = came
            .difference(&accepted)
            .filter(|number| !self.unknown.contains(number))
            .collect();
        assert!(extra.is_empty(), "{topic}: never sent {extra:?}");
        println!(
            "{topic}: {} accepted, {} of {} unknown came as well",
            accepted.len(),
            came.len() - accepted.len(),
            self.unknown.len()
        );
    }
}

#[track_caller]
fn number_of(line: &str) -> u64 {
    let word = line.split(' ').next().unwrap_or_default();
    word.parse()
        .unwrap_or_else(|_| panic!("{line:?} was never sent"))
}

/// Sends numbered messages one by one through the API.
/// With keys, a lost answer is asked for again until it is known; without, it stays unknown.
fn drive_singles(api: &Api, peer: &str, topic: &str, with_keys: bool, course: &Course) -> Book {
    let mut book = Book::default();
    let mut number = 0;
    while !course.is_over() || (with_keys && book.unknown.contains(&number)) {
        let payload = format!("{number} on {topic}");
        let key = format!("{topic}-{number}");
        let mut query = vec![("peer", peer), ("topic", topic)];
        if with_keys {
            query.push(("id", &key));
        }
        match api.post("/v1/messages", &query, payload.as_bytes()) {
            Ok(receipt) => {
                assert_eq!(receipt["durability"], "fsync");
                assert_ne!(receipt["state"], "failed", "{receipt}");
                book.unknown.remove(&number);
                book.accepted.push(number);
                course.accept(1);
                number += 1;
            }
            Err(CallError::NotRunning(_)) => pause(ASK_AGAIN_AFTER),
            Err(CallError::Lost(_)) => {
                book.unknown.insert(number);
                if !with_keys {
                    number += 1;
                }
            }
            Err(CallError::Refused { status, body }) => {
                // A daemon that is starting or stopping may say so; then it was not accepted.
                assert!(status >= 500, "{topic} {number}: {status} {body}");
                pause(ASK_AGAIN_AFTER);
            }
        }
    }
    book
}

/// Sends runs of lines by the command, kills it now and then, and repeats each run to its end.
/// Returns the numbers, which are all accepted, and how often the command was killed.
fn drive_lines(node: &Lines<'_>, course: &Course, mut random: Random) -> (Book, u64) {
    let mut book = Book::default();
    let mut kills = 0;
    let filler = "x".repeat(RUN_LINE_BYTES - 8);
    for run in 0.. {
        if course.is_over() {
            break;
        }
        let first = run * RUN_LINES as u64;
        let lines: Vec<String> = (first..first + RUN_LINES as u64)
            .map(|number| format!("{number:07} {filler}"))
            .collect();
        let prefix = format!("run-{run}");
        loop {
            let mut command = node.spawn(&prefix, &lines);
            // Half of the runs are left alone, or a slow machine would never finish one.
            let patience = match random.below(2) {
                0 => random.within(Duration::from_millis(300)),
                _ => SOON,
            };
            let Some(output) = command.ended_within(patience) else {
                command.kill();
                kills += 1;
                continue;
            };
            if output.code == Some(0) {
                assert_eq!(count_of(&output), RUN_LINES);
                break;
            }
            // The daemon was down (6), died meanwhile (1, 124), or is going (10).
            assert!(matches!(output.code, Some(1 | 6 | 10 | 124)), "{output:?}");
            pause(ASK_AGAIN_AFTER);
        }
        book.accepted.extend(first..first + RUN_LINES as u64);
        course.accept(RUN_LINES as u64);
    }
    (book, kills)
}

/// Where a driver of lines sends to; a node itself is in the killer's hands meanwhile.
#[derive(Debug)]
struct Lines<'a> {
    data_dir: &'a std::path::Path,
    peer: &'a str,
    topic: &'a str,
}

impl Lines<'_> {
    fn spawn(&self, prefix: &str, lines: &[String]) -> support::Running {
        let mut command = support::packhorse(self.data_dir);
        command.args(["send", self.peer, "--lines", self.topic, "--id", prefix]);
        support::Running::start(command, support::node::joined(lines))
    }
}

/// Lets a random part of the work happen, then kills and starts again; so many times.
fn strike(left: &mut Node, right: &mut Node, course: &Course, random: &mut Random) {
    let mut kills = [0; 3];
    let mut stops = 0;
    while kills.iter().sum::<u64>() < STRIKES {
        await_moment(right, course, random);
        if random.below(STOP_EVERY) == 0 {
            let node = if random.below(2) == 0 {
                &mut *left
            } else {
                &mut *right
            };
            node.restart();
            stops += 1;
            continue;
        }
        let victims = match random.below(8) {
            0..3 => 0,
            3..7 => 1,
            _ => 2,
        };
        let (is_left, is_right) = (victims != 1, victims != 0);
        if is_left {
            left.kill();
        }
        if is_right {
            right.kill();
        }
        kills[victims] += 1;
        pause(random.within(Duration::from_millis(60)));
        if is_left {
            left.start();
        }
        if is_right {
            right.start();
        }
    }
    let [sender, receiver, both] = kills;
    println!("killed the sender {sender} times, the receiver {receiver}, both at once {both}");
    println!("stopped one of them in order {stops} times");
}

/// A random moment: after some more were accepted, after some more were stored, or after a while.
fn await_moment(right: &Node, course: &Course, random: &mut Random) {
    match random.below(3) {
        0 => {
            let wanted = course.accepted() + 1 + random.below(60);
            until("messages are accepted between kills", SOON, || {
                (course.accepted() >= wanted).then_some(())
            });
        }
        1 => {
            let api = right.api();
            let stored = || api.get("/v1/inbox", &[("limit", "1")]).ok();
            let before = until("the inbox answers", SOON, stored);
            let wanted = total(&before) + 1 + random.below(200);
            until("messages are stored between kills", SOON, || {
                (total(&stored()?) >= wanted).then_some(())
            });
        }
        _ => pause(random.within(Duration::from_millis(150))),
    }
}

#[test]
fn what_was_accepted_is_stored_once_and_in_order_though_everything_is_killed() {
    let mut random = Random::new(seed());
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    let course = Course::default();
    let (left_api, right_api) = (left.api(), right.api());
    let left_dir = left.data_dir().to_owned();
    let mut lines_random = random.fork();
    let (keyed, plain, back, (lines, command_kills)) = std::thread::scope(|scope| {
        // Whoever panics must not leave the others running for ever.
        let stop = StopOnDrop(&course);
        let course = &course;
        let keyed = scope.spawn(|| drive_singles(&left_api, "right", "keyed", true, course));
        let plain = scope.spawn(|| drive_singles(&left_api, "right", "plain", false, course));
        // Load on the way back: the receiver dials as well, so that crossing dials happen.
        let back = scope.spawn(|| drive_singles(&right_api, "left", "back", true, course));
        let lines = scope.spawn(|| {
            let lines = Lines {
                data_dir: &left_dir,
                peer: "right",
                topic: "lines",
            };
            drive_lines(&lines, course, lines_random.fork())
        });
        strike(&mut left, &mut right, course, &mut random);
        drop(stop);
        (
            keyed.join().expect("the driver with keys"),
            plain.join().expect("the driver without keys"),
            back.join().expect("the driver back"),
            lines.join().expect("the driver of lines"),
        )
    });
    println!("killed the command {command_kills} times");
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    right.until_outbox_is_empty(DELIVERED_WITHIN);
    keyed.check("keyed", &right.receive("keyed", 1_000_000));
    plain.check("plain", &right.receive("plain", 1_000_000));
    lines.check("lines", &right.receive("lines", 1_000_000));
    back.check("back", &left.receive("back", 1_000_000));
    assert_eq!(right.inbox_total(), 0, "more came than was sent");
    assert_eq!(left.inbox_total(), 0, "more came than was sent");
    assert!(keyed.unknown.is_empty());
}

/// Ends the drivers, also when the killer panics.
struct StopOnDrop<'a>(&'a Course);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

/// The simplest case by itself: both die in the same instant, with messages on their way.
#[test]
fn both_nodes_killed_at_once_go_on_where_they_were() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    right.stop();
    let lines: Vec<String> = (0..2_000).map(|number| format!("{number} bale")).collect();
    assert_eq!(left.send_lines("right", "orders", &lines), 2_000);
    right.start();
    for wanted in [1, 400, 900] {
        right.until_inbox_has(wanted, DELIVERED_WITHIN);
        left.kill();
        right.kill();
        // In turns, so that either side is the first one back.
        if wanted == 400 {
            right.start();
            left.start();
        } else {
            left.start();
            right.start();
        }
    }
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    assert_eq!(right.receive("orders", 10_000), lines);
    assert_eq!(right.inbox_total(), 0);
}

/// A `send` whose daemon dies under it either has a receipt that holds, or says that it failed.
#[test]
fn a_send_during_a_kill_is_stored_once_if_it_was_answered_and_at_most_once_if_not() {
    let mut lab = Lab::new();
    let mut random = Random::new(seed());
    let (mut left, mut right) = lab.pair("left", "right");
    right.stop();
    let mut book = Book::default();
    for number in 0..12 {
        let payload = format!("{number} bale");
        let send = left.spawn(&["send", "right", "orders", &payload], "");
        pause(random.within(Duration::from_millis(30)));
        left.kill();
        let output = send.finish(SOON);
        match output.code {
            Some(0) => book.accepted.push(number),
            Some(1 | 6 | 10 | 124) => {
                book.unknown.insert(number);
            }
            _ => panic!("{output:?}"),
        }
        left.start();
    }
    right.start();
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    book.check("orders", &right.receive("orders", 100));
}

/// Either side dies while two nodes pair; the same ticket must finish it, once.
#[test]
fn pairing_that_was_killed_is_finished_by_the_same_ticket() {
    let mut lab = Lab::new();
    let mut random = Random::new(seed());
    let mut was_cut = 0;
    for round in 0..8 {
        let mut left = lab.start(&format!("left{round}"));
        let mut right = lab.start(&format!("right{round}"));
        let ticket = left.invite();
        let words = support::lab::join_words(&ticket, "left");
        let join = right.spawn(&words, "");
        // A pairing takes some tens of milliseconds from the start of the command.
        pause(random.within(Duration::from_millis(80)));
        let is_left = round % 2 == 0;
        let victim = if is_left { &mut left } else { &mut right };
        victim.kill();
        victim.start();
        let output = join.finish(SOON * 3);
        if output.code != Some(0) {
            was_cut += 1;
        }
        right.join(&ticket, "left").expect(0);
        assert_eq!(right.peer_names(), ["left"], "round {round}");
        assert_eq!(left.peer_names(), [right.name()], "round {round}");
        left.send_stored(right.name(), "orders", "there");
        right.send_stored("left", "orders", "and back");
        assert_eq!(right.receive("orders", 10), ["there"]);
        assert_eq!(left.receive("orders", 10), ["and back"]);
    }
    println!("{was_cut} of 8 pairings were cut short");
}

/// A node that is killed while it starts, again and again, still opens its store.
#[test]
fn a_node_killed_while_it_starts_starts_the_next_time() {
    let mut lab = Lab::new();
    let mut random = Random::new(seed());
    let (mut left, mut right) = lab.pair("left", "right");
    right.stop();
    let lines: Vec<String> = (0..500).map(|number| format!("{number} bale")).collect();
    left.send_lines("right", "orders", &lines);
    left.kill();
    for _ in 0..10 {
        let start = left.spawn(&["up", "--json"], "");
        let moment = Deadline::after(random.within(Duration::from_millis(150)));
        pause(moment.left());
        start.kill();
    }
    left.start();
    assert_eq!(left.outbox_total(), 500);
    right.start();
    left.until_outbox_is_empty(DELIVERED_WITHIN);
    assert_eq!(right.receive("orders", 1_000), lines);
}
