//! The numbers of a running node: `metrics`, `GET /metrics`, and strangers in `status`.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use packhorse_actors::link::{LinkError, QuicDialler};
use support::Lab;
use support::deadline::{SOON, until};
use support::document::check_keys;

/// One answer of the local API as it came.
fn get(node: &support::Node, path: &str) -> (String, String) {
    let mut stream = UnixStream::connect(node.data_dir().join("api.sock")).expect("a daemon");
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nhost: packhorse\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[test]
fn prometheus_and_people_read_the_same_numbers() {
    let mut lab = Lab::new();
    let (left, right) = lab.pair("left", "right");
    left.send_stored("right", "orders", "hay");
    let (head, body) = get(&left, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        head.to_lowercase()
            .contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    for line in [
        "packhorse_peers 1",
        "packhorse_peers_connected 1",
        r#"packhorse_peer_connected{peer="right"} 1"#,
        r#"packhorse_outbox_waiting_messages{peer="right"} 0"#,
        r#"packhorse_actor_restarts_total{actor="store"} 0"#,
        "# EOF",
    ] {
        assert!(
            body.lines().any(|found| found.trim_end() == line),
            "{line}:\n{body}"
        );
    }
    // Whoever joins dials.
    let printed = left.cli(&["metrics"]).expect(0);
    let accepted = r#"packhorse_strangers_total{outcome="accepted"} "#;
    assert!(
        printed.lines().iter().any(|line| line
            .strip_prefix(accepted)
            .is_some_and(|count| count != "0")),
        "{}",
        printed.text()
    );
    let samples = right
        .cli(&["metrics", "--json"])
        .expect(0)
        .document("packhorse.metrics.v1");
    check_keys(&samples, &["schema", "samples"]);
    assert!(samples["samples"]["packhorse_store_commits_total"].is_number());
}

#[test]
fn strangers_have_a_line_once_one_was_turned_away() {
    let mut lab = Lab::new();
    let node = lab.start("tester");
    let address = node
        .listen()
        .expect("it listens")
        .parse()
        .expect("an address");
    assert!(!node.cli(&["status"]).expect(0).text().contains("strangers"));
    let strangers = &node.status()["strangers"];
    assert_eq!(strangers["turned_away_recently"], 0);
    assert_eq!(strangers["counts"]["knocked_wrong"], 0);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let closed = runtime.block_on(async {
        let dialler = QuicDialler::bind().expect("a socket");
        let mut link = dialler.dial(address).await.expect("it answers anybody");
        let (mut send, mut receive) = link.open().await.expect("a stream");
        send.send(vec![7; 1_277].into()).await.expect("sent");
        receive.read_exact(1).await
    });
    assert!(
        matches!(closed, Err(LinkError::Closed(2))),
        "nothing but the one close code: {closed:?}"
    );
    let strangers = until("it is counted", SOON, || {
        let strangers = node.status()["strangers"].clone();
        (strangers["counts"]["knocked_wrong"] == 1).then_some(strangers)
    });
    assert_eq!(strangers["turned_away_recently"], 1);
    let status = node.cli(&["status"]).expect(0);
    let line =
        "strangers  1 turned away within the last hour; since the start 1 did not know this node";
    assert!(
        status.lines().iter().any(|found| found == line),
        "{}",
        status.text()
    );
}
