//! `work`: what becomes of a message under a command, whoever dies meanwhile.
//!
//! Commands tell the test what they do through files in the scratch folder; those that are to
//! run long wait for a file, so that they end with the lab at the latest.

mod support;

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use support::deadline::SOON;
use support::shop::{make, note, notes, shop, until_notes, wait_for};
use support::{Follower, Lab, Node, until};

/// A worker with these further words.
fn worker(node: &Node, exec: &str, words: &[&str]) -> Follower {
    node.follow(&[&["work", "jobs", "--exec", exec], words].concat())
}

/// The receipt of a message once it is in this state.
#[track_caller]
fn until_receipt(node: &Node, receipt: &Value, state: &str) -> Value {
    let id = receipt["receipt"].as_str().expect("a receipt id");
    let api = node.api();
    until(&format!("{id} is {state}"), SOON, || {
        let receipt = api.get(&format!("/v1/receipts/{id}"), &[]).ok()?;
        (receipt["state"] == state).then_some(receipt)
    })
}

#[test]
fn the_end_of_a_command_decides_about_its_message() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let send = |payload: &str| left.send_stored("right", "jobs", payload);
    let (done, dead, later, failed) = (send("0"), send("65"), send("75"), send("3"));
    let exec = "read code; echo \"said $code\"; exit $code";
    let output = right
        .cli(&["work", "jobs", "--exec", exec, "--once"])
        .expect(0)
        .says("given up: exit 65")
        .says("back in the inbox: exit 75")
        .says("failed: exit 3")
        .says("said 0")
        .prints_nothing();
    assert!(
        !output
            .stderr
            .contains(done["receipt"].as_str().expect("an id"))
    );
    let done = until_receipt(&left, &done, "done");
    assert_eq!(done["output"], "said 0\n", "{done}");
    let dead = until_receipt(&left, &dead, "failed");
    assert!(
        dead["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("exit 65")),
        "{dead}"
    );
    assert_eq!(dead["output"], "said 65\n", "{dead}");
    // Both come again, and the sender knows nothing of it.
    assert_eq!(right.inbox_total(), 2);
    until_receipt(&left, &later, "stored");
    until_receipt(&left, &failed, "stored");
}

#[test]
fn a_command_knows_its_message() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let sent = left.send_stored("right", "jobs", "pay\nload");
    let file = lab.file("env");
    let exec = format!(
        "env | grep ^PACKHORSE_ | grep -v DATA_DIR | sort > {file}; cat >> {file}",
        file = file.display()
    );
    right
        .cli(&["work", "jobs", "--exec", &exec, "--once"])
        .expect(0);
    let seen = fs::read_to_string(&file).expect("the command ran");
    let expected = format!(
        "PACKHORSE_ATTEMPT=1\nPACKHORSE_MESSAGE_ID={}\nPACKHORSE_SENDER=left\n\
         PACKHORSE_SENDER_ID={}\nPACKHORSE_TOPIC=jobs\npay\nload",
        sent["receipt"].as_str().expect("an id"),
        left.id()
    );
    assert_eq!(seen, expected);
}

#[test]
fn a_command_that_reads_nothing_and_says_much_is_done_and_cut_at_4_kib() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let file = lab.file("large");
    fs::write(&file, vec![b'x'; 1 << 20]).expect("the scratch folder takes files");
    let payload = format!("@{}", file.display());
    let sent = left.send_stored("right", "jobs", &payload);
    let exec = "yes | head -c 100000; echo warned >&2";
    let output = right
        .cli(&["work", "jobs", "--exec", exec, "--once"])
        .expect(0)
        .prints_nothing();
    assert!(output.stderr.len() >= 100_000, "all of it is passed on");
    let done = until_receipt(&left, &sent, "done");
    let output = done["output"].as_str().expect("an output that is text");
    assert_eq!(output.len(), 4_096);
    assert!(output.lines().all(|line| line == "y"));
}

#[test]
fn commands_run_beside_each_other_up_to_the_jobs() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let lines: Vec<String> = (1..=4).map(|n| n.to_string()).collect();
    left.send_lines("right", "jobs", &lines);
    right.until_inbox_has(4, SOON);
    // Each waits for a file that the test makes only when three of them run.
    let gate = lab.file("gate");
    let exec = format!("{}; {}", note(&lab, "run"), wait_for(&gate));
    let worker = worker(&right, &exec, &["--jobs", "3", "--count", "4"]);
    assert_eq!(until_notes(&lab, 3).len(), 3, "the fourth waits for a slot");
    make(&gate);
    let (code, stderr) = worker.ended(SOON);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(notes(&lab).len(), 4);
    assert_eq!(right.inbox_total(), 0);
}

#[test]
fn a_message_that_waits_for_its_next_attempt_holds_up_nobody() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let exec = format!(
        "read what; {}; [ $what = good ] || [ $PACKHORSE_ATTEMPT = 2 ]",
        note(&lab, "$what $PACKHORSE_ATTEMPT")
    );
    let worker = worker(&right, &exec, &["--count", "3"]);
    left.send_stored("right", "jobs", "bad");
    until_notes(&lab, 1);
    left.send_stored("right", "jobs", "good");
    let (code, stderr) = worker.ended(SOON);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("attempt 1 failed: exit 1"), "{stderr}");
    let mut notes = notes(&lab);
    assert_eq!(notes[0], "bad 1");
    notes.sort();
    assert_eq!(notes, ["bad 1", "bad 2", "good 1"]);
}

#[test]
fn without_the_grant_no_command_is_started() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    left.send_stored("right", "jobs", "rm -rf");
    let exec = note(&lab, "ran");
    right
        .cli(&["work", "jobs", "--exec", &exec, "--once"])
        .expect(0)
        .prints_nothing();
    assert_eq!(notes(&lab), Vec::<String>::new());
    // It can be read all the same.
    assert_eq!(right.receive("jobs", 10), ["rm -rf"]);
}

#[test]
fn a_killed_worker_leaves_its_message_for_a_second_attempt() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let sent = left.send_stored("right", "jobs", "one");
    let exec = format!(
        "{}; [ $PACKHORSE_ATTEMPT = 2 ] || {{ {}; }}",
        note(&lab, "$PACKHORSE_ATTEMPT"),
        wait_for(&lab.file("never"))
    );
    let first = worker(&right, &exec, &["--lease", "1s"]);
    assert_eq!(until_notes(&lab, 1), ["1"]);
    first.signal(Signal::KILL);
    assert_eq!(first.ended_or_killed(), None);
    let second = worker(&right, &exec, &["--count", "1"]);
    let (code, stderr) = second.ended(SOON);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(notes(&lab), ["1", "2"]);
    until_receipt(&left, &sent, "done");
}

#[test]
fn a_lost_lease_stops_the_command() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    left.send_stored("right", "jobs", "one");
    // The first worker is stopped for longer than its lease; its command runs on meanwhile.
    let exec = format!(
        "trap '{}; exit 1' TERM; {}; [ $PACKHORSE_ATTEMPT = 2 ] && {} && exit 0; {}",
        note(&lab, "stopped $PACKHORSE_ATTEMPT"),
        note(&lab, "run $PACKHORSE_ATTEMPT"),
        wait_for(&lab.file("gate")),
        wait_for(&lab.file("never")),
    );
    let first = worker(&right, &exec, &["--lease", "1s", "--count", "1"]);
    assert_eq!(until_notes(&lab, 1), ["run 1"]);
    first.signal(Signal::STOP);
    let second = worker(&right, &exec, &["--lease", "30s", "--count", "1"]);
    assert_eq!(until_notes(&lab, 2), ["run 1", "run 2"]);
    first.signal(Signal::CONT);
    assert_eq!(until_notes(&lab, 3)[2], "stopped 1");
    let (code, stderr) = first.ended(SOON);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("the lease is lost"), "{stderr}");
    make(&lab.file("gate"));
    assert_eq!(second.ended(SOON).0, Some(0));
    assert_eq!(right.inbox_total(), 0);
}

#[test]
fn a_worker_outlives_its_daemon_and_delivers_the_verdict_afterwards() {
    let mut lab = Lab::new();
    let (left, mut right) = shop(&mut lab);
    let first = left.send_stored("right", "jobs", "one");
    let exec = format!(
        "{}; {}; echo finished",
        note(&lab, "$PACKHORSE_ATTEMPT"),
        wait_for(&lab.file("gate"))
    );
    let worker = worker(&right, &exec, &["--lease", "2s", "--jobs", "2"]);
    until_notes(&lab, 1);
    right.kill();
    // The command ends while nobody is there to hear of it.
    make(&lab.file("gate"));
    right.start();
    let done = until_receipt(&left, &first, "done");
    assert_eq!(done["output"], "finished\n", "{done}");
    // And the worker goes on.
    let second = left.send_stored("right", "jobs", "two");
    until_receipt(&left, &second, "done");
    assert_eq!(notes(&lab), ["1", "1"]);
    worker.signal(Signal::TERM);
    let (code, stderr) = worker.ended(SOON);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("waiting for the daemon"), "{stderr}");
    assert!(stderr.contains("the daemon is back"), "{stderr}");
}

#[test]
fn a_command_that_runs_across_a_restart_of_the_daemon_runs_once() {
    let mut lab = Lab::new();
    let (left, mut right) = shop(&mut lab);
    let sent = left.send_stored("right", "jobs", "one");
    let exec = format!(
        "{}; {}",
        note(&lab, "$PACKHORSE_ATTEMPT"),
        wait_for(&lab.file("gate"))
    );
    // A free slot: without renewing first, the worker would claim what it has already.
    let worker = worker(&right, &exec, &["--jobs", "2", "--lease", "2s"]);
    until_notes(&lab, 1);
    right.restart();
    let other = left.send_stored("right", "jobs", "two");
    until_notes(&lab, 2);
    make(&lab.file("gate"));
    until_receipt(&left, &sent, "done");
    until_receipt(&left, &other, "done");
    assert_eq!(notes(&lab), ["1", "1"]);
    worker.signal(Signal::INT);
    assert_eq!(worker.ended(SOON).0, Some(130));
}

#[test]
fn a_slot_that_gets_free_after_a_restart_is_not_handed_what_another_slot_runs() {
    let mut lab = Lab::new();
    let (left, mut right) = shop(&mut lab);
    let long = left.send_stored("right", "jobs", "long");
    let short = left.send_stored("right", "jobs", "short");
    let folder = lab.path().display();
    let exec = format!(
        "m=$(cat); {}; until [ -e {folder}/gate-$m ] || [ ! -e {folder} ]; do sleep 0.02; done",
        note(&lab, "$m $PACKHORSE_ATTEMPT"),
    );
    // Both slots are taken, and the next renewal is 20 s away: nothing is asked of the daemon while
    // it is away, so the worker does not notice that it was.
    let worker = worker(&right, &exec, &["--jobs", "2", "--lease", "60s"]);
    until_notes(&lab, 2);
    right.kill();
    right.start();
    make(&lab.file("gate-short"));
    until_receipt(&left, &short, "done");
    make(&lab.file("gate-next"));
    let next = left.send_stored("right", "jobs", "next");
    until_receipt(&left, &next, "done");
    make(&lab.file("gate-long"));
    until_receipt(&left, &long, "done");
    let mut notes = notes(&lab);
    notes.sort();
    assert_eq!(notes, ["long 1", "next 1", "short 1"]);
    worker.signal(Signal::INT);
    assert_eq!(worker.ended(SOON).0, Some(130));
}

#[test]
fn a_worker_that_is_told_to_stop_lets_its_commands_finish() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let first = left.send_stored("right", "jobs", "one");
    left.send_stored("right", "jobs", "two");
    let gate = lab.file("gate");
    let exec = format!("{}; {}", note(&lab, "run"), wait_for(&gate));
    let worker = worker(&right, &exec, &[]);
    until_notes(&lab, 1);
    worker.signal(Signal::TERM);
    // Not before the signal was heard, which the worker cannot say while nobody reads it.
    make(&gate);
    let (code, stderr) = worker.ended(SOON);
    assert_eq!(code, Some(0), "{stderr}");
    until_receipt(&left, &first, "done");
    // The second message may have begun only if the signal came after the first one's end.
    if stderr.contains("stopping: 1 still running") {
        assert_eq!(notes(&lab), ["run"], "{stderr}");
        assert_eq!(right.inbox_total(), 1);
    }
}

#[test]
fn a_command_that_does_not_finish_in_time_is_stopped_in_order() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let sent = left.send_stored("right", "jobs", "one");
    // The shell hears the polite signal, ten seconds after the worker did, and says no word.
    let exec = format!(
        "trap '{}; exit 9' TERM; {}; [ $PACKHORSE_ATTEMPT = 2 ] || {{ {}; }}",
        note(&lab, "stopped"),
        note(&lab, "$PACKHORSE_ATTEMPT"),
        wait_for(&lab.file("never"))
    );
    let first = worker(&right, &exec, &[]);
    until_notes(&lab, 1);
    first.signal(Signal::TERM);
    let (code, stderr) = first.ended(SOON);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("the worker was stopped"), "{stderr}");
    right
        .cli(&["work", "jobs", "--exec", &exec, "--once"])
        .expect(0);
    assert_eq!(notes(&lab), ["1", "stopped", "2"]);
    until_receipt(&left, &sent, "done");
}

#[test]
fn a_second_signal_stops_the_commands_at_once_and_counts_no_failure() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let sent = left.send_stored("right", "jobs", "one");
    // It ignores the polite signal; the group is killed all the same.
    let exec = format!(
        "trap '' TERM; {}; [ $PACKHORSE_ATTEMPT = 2 ] || {{ {}; }}",
        note(&lab, "$PACKHORSE_ATTEMPT"),
        wait_for(&lab.file("never"))
    );
    let worker_one = worker(&right, &exec, &[]);
    until_notes(&lab, 1);
    worker_one.signal(Signal::TERM);
    until("the second signal ends it", SOON, || {
        // The first one may still be on its way; two of the same would be heard as one.
        worker_one.signal(Signal::INT);
        worker_one.is_over().then_some(())
    });
    let (code, stderr) = worker_one.ended(Duration::from_secs(8));
    // The system chooses which of the two is heard first.
    assert!(matches!(code, Some(0 | 130)), "{stderr}");
    assert!(stderr.contains("the worker was stopped"), "{stderr}");
    // At once, because no failure was counted: nothing has to rest.
    let again = right.cli(&["work", "jobs", "--exec", &exec, "--once"]);
    assert_eq!(again.code, Some(0));
    assert_eq!(
        notes(&lab),
        ["1", "2"],
        "{stderr}\n{again:?}\n{:?}",
        right.json(&["inbox"])
    );
    until_receipt(&left, &sent, "done");
}

#[test]
fn a_stuck_worker_keeps_only_what_it_works_on() {
    let mut lab = Lab::new();
    let (left, right) = shop(&mut lab);
    let exec = format!("{}; {}", note(&lab, "stuck"), wait_for(&lab.file("never")));
    let stuck = worker(&right, &exec, &["--lease", "1h"]);
    left.send_stored("right", "jobs", "one");
    until_notes(&lab, 1);
    let lines: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
    left.send_lines("right", "jobs", &lines);
    right.until_inbox_has(21, SOON);
    assert_eq!(right.receive("jobs", 100), lines);
    drop(stuck);
}

#[test]
fn wrong_words_are_refused_before_anything_is_claimed() {
    let mut lab = Lab::new();
    let right = lab.listener("right");
    let work = |words: &[&str]| right.cli(&[&["work", "jobs", "--exec", "true"], words].concat());
    work(&["--jobs", "0"]).expect(2).says("1 and 64");
    work(&["--jobs", "65"]).expect(2).says("1 and 64");
    work(&["--lease", "500ms"]).expect(2).says("1s and 1h");
    work(&[])
        .expect(6)
        .says("no daemon runs here")
        .prints_nothing();
    let help = right.cli(&["work", "--help"]).expect(0);
    for word in [
        "sh -c CMD",
        "exit 65",
        "exit 75",
        "PACKHORSE_ATTEMPT",
        "execute",
    ] {
        assert!(help.text().contains(word), "{word}");
    }
}

/// Scratch files are paths in shell lines: none of them may need quotes.
#[test]
fn the_scratch_folder_has_a_plain_path() {
    let lab = Lab::new();
    let path = lab.file("notes");
    let text = path.to_string_lossy();
    assert!(
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
    );
}
