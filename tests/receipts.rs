//! Receipts across crashes: whoever dies, every receipt ends up saying what became of its message.
//!
//! A worker and a reader on the far side live through everything, as they would under a process
//! manager; the daemons around them are killed at seeded moments.

mod support;

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use support::deadline::{SOON, pause};
use support::shop::{id_of, make, note, notes, shop, until_notes, until_receipt, wait_for};
use support::{Lab, Node, Random, seed};

/// How often somebody is killed, and what is sent before each time, on each of the two topics.
const STRIKES: u64 = 4;
const BATCH: u64 = 6;
/// The last verdicts and reports are through within this after the last kill: failed attempts
/// rest for some seconds, and lost sessions are dialled again.
const SETTLED_WITHIN: Duration = Duration::from_secs(45);

/// Who is killed in a run.
#[derive(Clone, Copy, Debug)]
struct Victims {
    sender: bool,
    recipient: bool,
}

/// What the command does with the message of this number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Done,
    GivenUp,
    /// Fails the first time.
    DoneLater,
}

fn fate(number: u64) -> Fate {
    match number % 3 {
        0 => Fate::Done,
        1 => Fate::GivenUp,
        _ => Fate::DoneLater,
    }
}

/// A command that notes the number, says that it saw it, and ends as [`fate`] says.
/// The message `gate` waits for a file and then is done.
fn exec(lab: &Lab) -> String {
    format!(
        "read n; {}; if [ $n = gate ]; then {}; echo opened; exit 0; fi; echo saw $n; \
         case $((n % 3)) in 0) exit 0;; 1) exit 65;; *) [ $PACKHORSE_ATTEMPT -ge 2 ];; esac",
        note(lab, "$n"),
        wait_for(&lab.file("gate"))
    )
}

/// Accepts one message through the API, in which no process has to start.
fn send(node: &Node, topic: &str, payload: &str) -> String {
    let query = [("peer", "right"), ("topic", topic)];
    let receipt = node
        .api()
        .post("/v1/messages", &query, payload.as_bytes())
        .expect("the daemon runs and accepts");
    id_of(&receipt)
}

fn strike(left: &mut Node, right: &mut Node, victims: Victims, random: &mut Random) {
    if victims.sender {
        left.kill();
    }
    if victims.recipient {
        right.kill();
    }
    // Verdicts and reports of this time meet nobody.
    pause(random.within(Duration::from_millis(120)));
    if victims.sender {
        left.start();
    }
    if victims.recipient {
        right.start();
    }
}

fn check_receipts_under(victims: Victims) {
    let mut random = Random::new(seed());
    let mut lab = Lab::new();
    let (mut left, mut right) = shop(&mut lab);
    let exec = exec(&lab);
    let work = ["work", "jobs", "--exec", &exec, "--jobs", "3"];
    let worker = right.spawn(&[&work[..], &["--lease", "2s"]].concat(), "");
    let reader = right.spawn(&["receive", "letters", "--follow"], "");
    // One waits from before the first kill until after the last one.
    let patience = ["--wait", "done", "--timeout", "60s", "--json"];
    let waiting = left.spawn(
        &[&["send", "right", "jobs", "gate"], &patience[..]].concat(),
        "",
    );
    until_notes(&lab, 1);
    let unread = send(&left, "unread", "nobody asks for it");
    let (mut jobs, mut letters) = (Vec::new(), Vec::new());
    for round in 0..STRIKES {
        let before = notes(&lab).len();
        for number in round * BATCH..(round + 1) * BATCH {
            jobs.push((number, send(&left, "jobs", &number.to_string())));
            letters.push((number, send(&left, "letters", &number.to_string())));
        }
        // Some commands have begun; their verdicts, the reader's and the reports are under way.
        let more = usize::try_from(random.below(BATCH)).expect("small");
        until_notes(&lab, before + more);
        pause(random.within(Duration::from_millis(80)));
        strike(&mut left, &mut right, victims, &mut random);
    }
    make(&lab.file("gate"));
    let done = waiting.finish(SOON * 2).expect(0).json();
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(done["output"], "opened\n", "{done}");

    for (number, id) in &jobs {
        let state = match fate(*number) {
            Fate::GivenUp => "failed",
            Fate::Done | Fate::DoneLater => "done",
        };
        let receipt = until_receipt(&left, id, state, SETTLED_WITHIN);
        assert_eq!(receipt["output"], format!("saw {number}\n"), "{receipt}");
        let reason = receipt["reason"].as_str().unwrap_or_default();
        assert_eq!(reason.contains("exit 65"), state == "failed", "{receipt}");
    }
    for (_, id) in &letters {
        let receipt = until_receipt(&left, id, "done", SETTLED_WITHIN);
        assert_eq!(receipt["reason"], Value::Null, "{receipt}");
    }
    left.until_outbox_is_empty(SETTLED_WITHIN);
    right.until_outbox_is_empty(SETTLED_WITHIN);
    until_receipt(&left, &unread, "stored", SOON);
    assert_eq!(right.inbox_total(), 1, "only what nobody asked for is left");
    worker.signal(Signal::TERM);
    worker.finish(SOON).expect(0);
    reader.signal(Signal::TERM);
    let read = reader.finish(SOON).expect(0).lines();
    for (number, _) in letters {
        let number = number.to_string();
        assert!(read.contains(&number), "done, and never read: {number}");
    }
    let noted = notes(&lab);
    for (number, _) in jobs {
        // Once may be enough for those that fail first: an attempt counts before it begins, and
        // the kill may have come in between.
        assert!(noted.contains(&number.to_string()), "{number}: {noted:?}");
    }
}

#[test]
fn receipts_hold_while_the_recipient_is_killed_around_verdicts() {
    check_receipts_under(Victims {
        sender: false,
        recipient: true,
    });
}

#[test]
fn receipts_hold_while_the_sender_is_killed_as_reports_come_back() {
    check_receipts_under(Victims {
        sender: true,
        recipient: false,
    });
}

#[test]
fn receipts_hold_while_both_sides_are_killed_at_once() {
    check_receipts_under(Victims {
        sender: true,
        recipient: true,
    });
}

/// Deterministic where the runs above are seeded: the report exists, and nobody is there to hear it.
#[test]
fn a_report_waits_for_a_sender_that_is_away_and_outlives_its_own_node() {
    let mut lab = Lab::new();
    let (mut left, mut right) = shop(&mut lab);
    let read = id_of(&left.send_stored("right", "letters", "hay"));
    let done = id_of(&left.send_stored("right", "jobs", "0"));
    let failed = id_of(&left.send_stored("right", "jobs", "1"));
    left.stop();
    assert_eq!(right.receive("letters", 5), ["hay"]);
    let exec = exec(&lab);
    right
        .cli(&["work", "jobs", "--exec", &exec, "--once"])
        .expect(0);
    assert_eq!(right.inbox_total(), 0);
    right.kill();
    right.start();
    left.start();
    until_receipt(&left, &read, "done", SOON);
    let receipt = until_receipt(&left, &done, "done", SOON);
    assert_eq!(receipt["output"], "saw 0\n", "{receipt}");
    let receipt = until_receipt(&left, &failed, "failed", SOON);
    assert_eq!(receipt["output"], "saw 1\n", "{receipt}");
    // What was heard is on the sender's own disk: the other side is not needed for it again.
    right.stop();
    left.kill();
    left.start();
    for (id, state, output) in [
        (&read, "done", Value::Null),
        (&done, "done", "saw 0\n".into()),
        (&failed, "failed", "saw 1\n".into()),
    ] {
        let receipt = left.json(&["receipt", id]);
        assert_eq!(receipt["state"], state, "{receipt}");
        assert_eq!(receipt["output"], output, "{receipt}");
    }
}

/// Handled again by hand after it had failed: the receipt climbs from failed to done.
#[test]
fn a_message_that_failed_and_is_handled_after_all_says_so_in_the_end() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let id = id_of(&left.send_stored("right", "jobs", "1"));
    let exec = exec(&lab);
    right
        .cli(&["work", "jobs", "--exec", &exec, "--once"])
        .expect(0);
    until_receipt(&left, &id, "failed", SOON);
    assert_eq!(right.json(&["dead", "retry", &id])["retried"], 1);
    assert_eq!(right.receive("jobs", 5), ["1"]);
    until_receipt(&left, &id, "done", SOON);
}
