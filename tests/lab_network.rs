//! Nodes of a lab whose network is cut and healed under them, or is slow and loses some.
//!
//! What must hold: a session over a dead link is noticed, `status` and `why` say so meanwhile, and
//! once the link is back everything arrives in order and once without anybody doing anything.
//! The same on networks of the system is in tests/network.rs, which needs the rights of root.

use std::path::PathBuf;
use std::time::Duration;

use packhorse::lab::{Cluster, Impairment, Machine, Network, Share, until};
use serde_json::Value;

/// Longer than anything takes that is to come.
const SOON: Duration = Duration::from_secs(60);
/// A dead link is noticed after 30 s of silence, or 45 s when it is dead one way.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);
/// A link that is back is dialled again within a minute at the latest.
const HEALED_WITHIN: Duration = Duration::from_secs(90);

/// Two nodes, paired over ways like this, with a live session that the right one dialled.
async fn two(impairment: Impairment) -> Cluster {
    let cluster = Cluster::builder()
        .program(PathBuf::from(env!("CARGO_BIN_EXE_packhorse")))
        .seed(7)
        .node("left")
        .node("right")
        .start()
        .await;
    let cluster = cluster.expect("two nodes");
    let network = cluster.network();
    network.impair_all(impairment).expect("in bounds");
    cluster.pair("left", "right").await.expect("they pair");
    let (left, right) = (node(&cluster, "left"), node(&cluster, "right"));
    connected(left, SOON).await;
    connected(right, SOON).await;
    cluster
}

fn node<'a>(cluster: &'a Cluster, name: &str) -> &'a Machine {
    cluster.node(name).expect("a node of the test")
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name} {number}"))
        .collect()
}

/// What a node's status says of its only peer.
async fn peer_status(node: &Machine) -> Value {
    node.status().await.expect("it answers")["peers"][0].clone()
}

async fn connected(node: &Machine, limit: Duration) {
    let look = async || (peer_status(node).await["state"] == "connected").then_some(());
    let seen = until(node.name(), "a session", limit, look).await;
    seen.expect("a session");
}

async fn outbox_empty(node: &Machine, limit: Duration) {
    let look = async || {
        let listing = node.get("/v1/outbox?limit=1").await.ok()?;
        (listing["total"] == 0).then_some(())
    };
    let seen = until(node.name(), "an empty outbox", limit, look).await;
    seen.expect("everything is stored");
}

async fn send(from: &Machine, to: &Machine, lines: &[String]) {
    let words = ["send", to.name(), "--lines", "news"];
    let text = lines.join("\n");
    let output = from.run(&words, text.as_bytes(), SOON).await;
    output.expect("it runs").expect(0).expect("accepted");
}

/// Sends lines and waits until they are on the other's disk.
async fn deliver(from: &Machine, to: &Machine, lines: &[String], limit: Duration) {
    send(from, to, lines).await;
    outbox_empty(from, limit).await;
}

/// All that came, in order and once.
async fn check_arrived(node: &Machine, expected: &[String]) {
    let count = (expected.len() + 10).to_string();
    let words = ["receive", "news", "--count", &count];
    let output = node.run(&words, b"", SOON).await.expect("it runs");
    let text = output.expect(0).expect("it succeeds").text();
    let arrived: Vec<&str> = text.lines().collect();
    assert_eq!(arrived, expected, "at {}", node.name());
}

/// Waits until a node has noticed that its session is dead, and checks what it says then.
async fn noticed(node: &Machine, peer: &str) {
    let look = async || {
        let status = peer_status(node).await;
        (status["state"] != "connected").then_some(status)
    };
    let noticed = until(node.name(), "a dead link is noticed", NOTICED_WITHIN, look).await;
    let noticed = noticed.expect("it notices");
    assert!(noticed["link"].is_null(), "{noticed}");
    assert_eq!(noticed["last_error"]["class"], "disconnected", "{noticed}");
    let words = ["why", "peer", peer, "--json"];
    let why = node.run(&words, b"", SOON).await.expect("it runs");
    let why = why.json().expect("a document");
    assert_ne!(why["state"], "connected", "{why}");
}

/// Cuts the network somehow, and lets both nodes send before, meanwhile and afterwards.
async fn check_cut(cut: impl Fn(&Network)) {
    let cluster = two(Impairment::NONE).await;
    let (left, right) = (node(&cluster, "left"), node(&cluster, "right"));
    let both = [(left, right), (right, left)];
    let lines = |when: &str, from: &Machine| numbered(&format!("{when} of {}", from.name()), 20);
    for (from, to) in both {
        deliver(from, to, &lines("before", from), SOON).await;
    }
    cut(cluster.network());
    for (from, to) in both {
        send(from, to, &lines("meanwhile", from)).await;
    }
    for (from, to) in both {
        noticed(from, to.name()).await;
    }
    for (from, _) in both {
        // Still waiting, and told so. What got through one way may have been stored there.
        let status = peer_status(from).await;
        assert!(status["outbox"].as_u64() >= Some(1), "{status}");
        assert_ne!(status["state"], "connected", "{status}");
    }
    cluster.network().heal_all();
    for (from, to) in both {
        outbox_empty(from, HEALED_WITHIN).await;
        connected(from, SOON).await;
        deliver(from, to, &lines("after", from), SOON).await;
    }
    for (from, to) in both {
        let parts = ["before", "meanwhile", "after"].map(|when| lines(when, from));
        check_arrived(to, &parts.concat()).await;
    }
    assert_eq!(cluster.network().starved(), 0);
    cluster.end().await.expect("nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_is_noticed_and_everything_arrives_after_it_is_back() {
    check_cut(|network| network.isolate(&["left"]).expect("a node")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_dead_towards_the_one_that_dialled_is_noticed_by_both() {
    check_cut(|network| network.cut(&["left"], &["right"]).expect("two nodes")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_dead_towards_the_one_that_answered_is_noticed_by_both() {
    check_cut(|network| network.cut(&["right"], &["left"]).expect("two nodes")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_in_order_over_a_slow_link_that_loses_some() {
    let bad = Impairment {
        latency: Duration::from_millis(150),
        loss: Share::percent(5.0).expect("a share"),
        ..Impairment::NONE
    };
    let cluster = two(bad).await;
    let (left, right) = (node(&cluster, "left"), node(&cluster, "right"));
    let lines = numbered("line", 500);
    deliver(left, right, &lines, NOTICED_WITHIN).await;
    check_arrived(right, &lines).await;
    let look = async || peer_status(left).await["round_trip_ms"].as_f64();
    let round_trip = until("left", "a round trip", NOTICED_WITHIN, look).await;
    let round_trip = round_trip.expect("it is measured");
    assert!(round_trip >= 250.0, "{round_trip}");
    let counts = cluster.network().counts("left", "right");
    let counts = counts.expect("a way");
    assert!(counts.lost > 0, "{counts:?}");
}
