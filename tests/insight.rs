//! What a running node tells about its inside: probes, tree, events, ping, and how it drains.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use support::command::run;
use support::deadline::SOON;
use support::document::check_keys;
use support::{Follower, Lab, Node, packhorse, until};

/// A short watchdog: a sign of life is due every 150 ms.
const WATCHDOG_USEC: &str = "300000";

#[test]
fn the_service_manager_hears_ready_then_signs_of_life_then_stopping() {
    let mut lab = Lab::new();
    let socket = notify_socket(&lab);
    let mut node = with_watchdog(&mut lab);
    node.start();
    let first = heard(&socket);
    assert_eq!(
        first,
        ["READY=1", "STATUS=0 of 0 peers connected, 0 messages wait"]
    );
    for _ in 0..2 {
        assert_eq!(
            heard(&socket),
            [
                "WATCHDOG=1",
                "STATUS=0 of 0 peers connected, 0 messages wait"
            ]
        );
    }
    node.stop();
    let mut last = heard(&socket);
    while last.first().is_some_and(|word| word == "WATCHDOG=1") {
        last = heard(&socket);
    }
    assert_eq!(last, ["STOPPING=1", "STATUS=stopping"]);
    socket.set_nonblocking(true).expect("a socket");
    let after = socket.recv(&mut [0; 256]);
    assert!(after.is_err(), "something was said after STOPPING");
}

#[test]
fn without_a_service_manager_nothing_is_said() {
    let mut lab = Lab::new();
    let mut node = lab.loner("tester").with_variable("NOTIFY_SOCKET", "");
    node.start();
    node.stop();
}

#[cfg(feature = "fault")]
#[test]
fn a_stuck_part_silences_the_signs_of_life() {
    let mut lab = Lab::new();
    let socket = notify_socket(&lab);
    let mut node = with_watchdog(&mut lab);
    node.start();
    node.cli(&["fault", "inbox", "hang"]).expect(0);
    let mut words = heard(&socket);
    while words.iter().any(|word| word.starts_with("WATCHDOG")) || words[0] == "READY=1" {
        words = heard(&socket);
    }
    // From here on: stuck, and no sign of life beside it.
    for _ in 0..3 {
        assert_eq!(words.len(), 1, "{words:?}");
        assert!(words[0].starts_with("STATUS=stuck: "), "{words:?}");
        words = heard(&socket);
    }
}

#[test]
fn a_node_without_peers_is_alive_and_ready() {
    let mut lab = Lab::new();
    let node = lab.start("tester");
    assert_eq!(probe(node.data_dir(), "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(
        probe(node.data_dir(), "/readyz"),
        (200, "ready\n".to_owned())
    );
    assert_eq!(
        probe(node.data_dir(), "/readyz?verbose"),
        (
            200,
            "[+]pulse ok\n[+]room ok\n[+]root ok\n[+]store ok\n[+]event bus ok\n[+]inbox ok\n\
             [+]session supervisor ok\n[+]retry scheduler ok\n[+]listener ok\nready\n"
                .to_owned()
        )
    );
}

#[test]
fn the_tree_has_the_published_shape() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    left.send_stored("right", "orders", "one");
    let tree = right.cli(&["tree", "--json"]).expect(0);
    let tree = tree.document("packhorse.tree.v1");
    check_keys(&tree, &["schema", "root"]);
    assert_eq!(
        names(&tree["root"]),
        "root(store, event bus, inbox, session supervisor(session left), retry scheduler, listener)"
    );
    check_branch(&tree["root"]);
    let drawn = right.cli(&["tree"]).expect(0);
    let drawn = drawn.lines();
    let width = drawn[0].find("LIFE").expect("a title");
    let actor = |line: &String| line.chars().take(width).collect::<String>();
    let drawn: Vec<String> = drawn
        .iter()
        .map(|line| actor(line).trim_end().to_owned())
        .collect();
    assert_eq!(
        drawn,
        [
            "ACTOR",
            "root",
            "├─ store",
            "├─ event bus",
            "├─ inbox",
            "├─ session supervisor",
            "│  └─ session left",
            "├─ retry scheduler",
            "└─ listener"
        ]
    );
}

#[test]
fn events_are_followed_across_a_restart_without_a_hole() {
    let mut lab = Lab::new();
    let mut node = lab.start("tester");
    let mut follower = node.follow(&["events", "--follow", "--since", "0", "--jsonl"]);
    let first = follower.next_json();
    check_keys(&first, &["schema", "number", "at", "kind", "peer", "text"]);
    assert_eq!(first["schema"], "packhorse.event.v1");
    assert_eq!(first["kind"], "node.started");
    assert_eq!(first["number"].as_u64(), Some(1));
    node.restart();
    let mut number = 1;
    loop {
        let event = follower.next_json();
        number += 1;
        assert_eq!(event["number"].as_u64(), Some(number), "{event}");
        if event["kind"] == "node.started" {
            break;
        }
    }
    // The same by hand: what came after the first one.
    let later = node.cli(&["events", "--since", "1", "--jsonl"]).expect(0);
    assert!(later.lines()[0].contains("\"number\":2,"), "{later:?}");
    let document = node.cli(&["events", "--json"]).expect(0);
    let document = document.document("packhorse.events.v1");
    check_keys(&document, &["schema", "gap", "events", "newest"]);
    assert!(document["newest"].as_u64() >= Some(number));
    follower.signal(Signal::TERM);
    let (code, stderr) = follower.ended(SOON);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("waiting for the daemon"), "{stderr}");
    assert!(stderr.contains("the daemon is back"), "{stderr}");
}

#[test]
fn a_gap_in_the_events_is_a_line_of_its_own() {
    let lab = Lab::new();
    let folder = lab.file("fake");
    std::fs::create_dir(&folder).expect("a folder");
    let page = r#"{"schema":"packhorse.events.v1","gap":[8,40],"events":[{"number":41,"at":"2026-01-02T03:04:05.678Z","kind":"node.started","peer":null,"text":"the node runs"}],"newest":41}"#;
    let listener = UnixListener::bind(folder.join("api.sock")).expect("a socket");
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let _ = answer_once(stream, page);
        }
    });
    let mut command = packhorse(&folder);
    command.args(["events", "--since", "7", "--jsonl"]);
    let mut follower = Follower::start(command, b'\n');
    assert_eq!(follower.next_line(), r#"{"gap":[8,40]}"#);
    assert_eq!(follower.next_json()["number"].as_u64(), Some(41));
    assert_eq!(follower.ended(SOON).0, Some(0));
}

#[test]
fn a_ping_measures_a_live_session_and_says_when_there_is_none() {
    let mut lab = Lab::new();
    let (left, mut right) = lab.pair("left", "right");
    left.until_state("right", "connected");
    let pinged = left.cli(&["ping", "right", "--json"]).expect(0);
    let pinged = pinged.document("packhorse.ping.v1");
    check_keys(&pinged, &["schema", "peer", "round_trip_ms", "skew_ms"]);
    let round_trip_ms = pinged["round_trip_ms"].as_f64().expect("a number");
    assert!((0.0..10_000.0).contains(&round_trip_ms), "{pinged}");
    // One machine, one clock.
    let skew_ms = pinged["skew_ms"].as_i64().expect("a number");
    assert!(skew_ms.abs() < 5_000, "{pinged}");
    left.cli(&["ping", "nobody"])
        .expect(4)
        .says("nobody")
        .prints_nothing();
    right.stop();
    until("left sees that right is gone", SOON, || {
        let status = left.peer_status("right");
        (status["state"] != "connected").then_some(())
    });
    left.cli(&["ping", "right"])
        .expect(1)
        .says("no session")
        .prints_nothing();
}

#[test]
fn a_drain_sends_what_can_be_sent_and_ends_the_daemon() {
    let mut lab = Lab::new();
    let (mut left, right) = lab.pair("left", "right");
    left.send("right", "orders", "hello");
    let drained = left.cli(&["drain", "--json"]).expect(0);
    let drained = drained.document("packhorse.drain.v1");
    check_keys(&drained, &["schema", "cut_off", "waiting", "peers"]);
    assert_eq!(drained["waiting"].as_u64(), Some(0), "{drained}");
    left.ended_by_itself(0);
    assert_eq!(right.receive("orders", 10), ["hello"]);
}

#[test]
fn a_drain_does_not_wait_for_who_is_away_and_takes_nothing_new() {
    let mut lab = Lab::new();
    let (mut left, mut right) = lab.pair("left", "right");
    right.send_stored("left", "orders", "before");
    let mut follower = left.follow(&["receive", "orders", "--follow"]);
    assert_eq!(follower.next_line(), "before");
    right.stop();
    left.send("right", "orders", "for later");
    let draining = left.spawn(&["drain", "--timeout", "60s", "--json"], "");
    // It dials once, which takes seconds in vain; meanwhile nothing is taken.
    until("the node drains", SOON, || {
        let (status, text) = probe(left.data_dir(), "/readyz?verbose");
        (status == 503).then(|| assert!(text.contains("[-]admission failed"), "{text}"))
    });
    left.cli(&["send", "right", "orders", "no more"])
        .expect(5)
        .says("draining")
        .prints_nothing();
    left.cli(&["receive", "orders"])
        .expect(5)
        .says("draining")
        .prints_nothing();
    let drained = draining.finish(SOON).expect(0);
    let drained = drained.document("packhorse.drain.v1");
    // The message; the receipt of the one before is none of anybody's.
    assert_eq!(drained["waiting"].as_u64(), Some(1), "{drained}");
    assert_eq!(drained["peers"][0]["name"], "right");
    left.ended_by_itself(0);
    // Both are there after a new start: what waited, and who followed.
    left.start();
    let listing = left.json(&["outbox", "list"]);
    let messages = listing["messages"].as_array().expect("a list of messages");
    assert!(
        messages.iter().any(|one| one["payload"] == "for later"),
        "{listing}"
    );
    follower.signal(Signal::TERM);
    assert_eq!(follower.ended(SOON).0, Some(0));
}

#[test]
fn a_hangup_does_not_end_the_daemon() {
    let mut lab = Lab::new();
    let mut node = lab.start("tester");
    node.signal(Signal::HUP);
    let log = node.data_dir().with_extension("log");
    until("the hangup is in the log", SOON, || {
        let log = std::fs::read_to_string(&log).ok()?;
        log.contains("a hangup is ignored").then_some(())
    });
    node.status();
    node.stop();
}

#[test]
fn the_unit_restarts_for_ever_except_where_a_person_has_to_look() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/packhorse.service");
    let unit = std::fs::read_to_string(path).expect("the unit is there");
    for line in [
        "Type=notify",
        "Restart=on-failure",
        "StartLimitIntervalSec=0",
        "RestartPreventExitStatus=2 7 8",
        "StateDirectory=packhorse",
        "StateDirectoryMode=0700",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    // Its command line is one of this program.
    let words = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/packhorse "))
        .expect("what is started");
    let lab = Lab::new();
    let mut command = packhorse(&lab.file("node"));
    command.args(words.split(' ')).arg("--help");
    run(command, "").expect(0);
}

/// A datagram socket in the place of the service manager's.
fn notify_socket(lab: &Lab) -> UnixDatagram {
    let socket = UnixDatagram::bind(lab.file("notify")).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a socket");
    socket
}

fn with_watchdog(lab: &mut Lab) -> Node {
    let path = lab.file("notify").to_string_lossy().into_owned();
    lab.loner("tester")
        .with_variable("NOTIFY_SOCKET", &path)
        .with_variable("WATCHDOG_USEC", WATCHDOG_USEC)
}

/// The lines of the next datagram.
#[track_caller]
fn heard(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4_096];
    let count = socket.recv(&mut buffer).expect("a word from the daemon");
    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
    text.lines().map(ToOwned::to_owned).collect()
}

/// Asks as a probe does, over plain HTTP.
fn probe(data_dir: &Path, path: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(data_dir.join("api.sock")).expect("the daemon runs");
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nhost: packhorse\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// Answers one request with this document.
fn answer_once(mut stream: UnixStream, body: &str) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        seen.push(byte[0]);
    }
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

/// The actors as `root(store, inbox)`.
fn names(branch: &Value) -> String {
    let actor = branch["actor"].as_str().expect("a name");
    let children: Vec<String> = children(branch).iter().map(names).collect();
    if children.is_empty() {
        actor.to_owned()
    } else {
        format!("{actor}({})", children.join(", "))
    }
}

fn check_branch(branch: &Value) {
    check_keys(
        branch,
        &[
            "actor",
            "incarnation",
            "restarts",
            "last_exit",
            "uptime_ms",
            "queue_depth",
            "children",
        ],
    );
    assert_eq!(branch["restarts"].as_u64(), Some(0), "{branch}");
    assert!(branch["last_exit"].is_null(), "{branch}");
    assert!(branch["uptime_ms"].is_u64(), "{branch}");
    assert!(branch["queue_depth"].is_u64(), "{branch}");
    children(branch).iter().for_each(check_branch);
}

fn children(branch: &Value) -> &Vec<Value> {
    branch["children"].as_array().expect("a list of children")
}
