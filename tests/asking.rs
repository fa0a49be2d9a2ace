//! Pairing without a ticket: who asks waits for a person, or for the application's own function,
//! and both sides are paired by one yes; a no is an answer, and nobody can fill the list.

mod support;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use packhorse::{
    Approval, Ask, Asked, ErrorKind, Grant, Grants, Invite, Join, Node as LibraryNode, NodeId,
    Outgoing, ReceiptState, RequestState, Stranger, StrangerDecision,
};
use serde_json::Value;
use tempfile::TempDir;

use support::deadline::SOON;
use support::document::check_keys;
use support::{Lab, Node, SEND_ALL, until};

/// Every wait on another node ends here.
const DEADLINE: Duration = Duration::from_secs(30);

// --- as commands ---

/// `NODEID@HOST:PORT` of a node that listens.
fn place(node: &Node) -> String {
    let address = node.ready()["listen"][0].as_str().expect("an address");
    let address = address.trim_start_matches("quic://").to_owned();
    format!("{}@{address}", node.id())
}

/// A node that takes requests.
fn taking(lab: &mut Lab, name: &str) -> Node {
    let mut node = lab.listener(name);
    std::fs::create_dir_all(node.data_dir()).expect("a folder");
    let mode = Permissions::from_mode(0o700);
    std::fs::set_permissions(node.data_dir(), mode).expect("a mode");
    std::fs::write(node.data_dir().join("settings.toml"), "requests = true\n").expect("settings");
    node.start();
    node
}

fn requests(node: &Node, direction: &str) -> Vec<Value> {
    let requests = node.json(&["requests", "list"]);
    requests[direction].as_array().expect("a list").clone()
}

#[test]
fn a_request_waits_for_a_person_and_pairs_both_sides_once_approved() {
    let mut lab = Lab::new();
    let stable = taking(&mut lab, "stable");
    let mut mule = lab.loner("mule");
    mule.start();
    let there = place(&stable);
    let words = ["join", &there, "--ask", "--message", "hay, please"];
    let asked = mule
        .cli(&[&words[..], &["--name", "barn", "--grant", SEND_ALL]].concat())
        .expect(3)
        .says("asked: it waits for somebody there to decide");
    assert_eq!(asked.text(), format!("waiting  {}\n", stable.id()));
    // Both sides show it, and nobody is paired.
    let received = requests(&stable, "received");
    assert_eq!(received.len(), 1);
    assert_eq!(received[0]["id"], mule.id());
    assert_eq!(received[0]["name"], "mule");
    assert_eq!(received[0]["message"], "hay, please");
    assert_eq!(received[0]["state"], "waiting");
    let sent = requests(&mule, "sent");
    assert_eq!(sent[0]["id"], stable.id());
    assert_eq!(sent[0]["state"], "waiting");
    assert!(stable.peer_names().is_empty() && mule.peer_names().is_empty());
    // The asker goes on asking after a restart; the other side keeps one request.
    mule.kill();
    mule.start();
    let again = [&words[..], &["--name", "barn", "--grant", SEND_ALL]].concat();
    mule.cli(&again).expect(3);
    assert_eq!(requests(&stable, "received").len(), 1);
    let approve = [
        "requests",
        "approve",
        "mule",
        "--grant",
        "message.send:orders",
    ];
    stable.cli(&approve).expect(0);
    assert_eq!(stable.peer_names(), ["mule"]);
    // The mule cannot be dialled, so it hears of it by asking; asking again asks at once.
    let paired = mule.cli(&again).expect(0);
    assert!(
        paired.text().starts_with("paired with barn  phn1"),
        "{paired:?}"
    );
    assert_eq!(mule.peer_names(), ["barn"]);
    assert!(requests(&mule, "sent").is_empty());
    assert_eq!(requests(&stable, "received")[0]["state"], "approved");
    // Asking a peer changes nothing, and the grants given on both sides hold.
    mule.cli(&again).expect(0);
    mule.send_stored("barn", "orders", "hay");
    stable.send_stored("mule", "anything", "straw");
    let refused = ["send", "barn", "secrets", "x", "--wait", "stored"];
    mule.cli(&refused).expect(5);
    let events = stable.cli(&["events", "--jsonl"]).expect(0);
    for word in ["request.waiting", "request.decided", "hay, please"] {
        assert!(
            events.text().contains(word),
            "no {word} in {}",
            events.text()
        );
    }
}

#[test]
fn a_yes_reaches_an_asker_that_listens_at_once_and_ends_its_wait() {
    let mut lab = Lab::new();
    let stable = taking(&mut lab, "stable");
    let mule = lab.start("mule");
    let there = place(&stable);
    let words = [
        "join",
        &there,
        "--ask",
        "--wait",
        "--timeout",
        "60s",
        "--json",
    ];
    let waiting = mule.spawn(&words, "");
    until("the request arrives", SOON, || {
        (requests(&stable, "received").len() == 1).then_some(())
    });
    // By the beginning of its id; the name is chosen here.
    let request = mule.id()[4..14].to_owned();
    let approve = [
        "requests", "approve", &request, "--name", "donkey", "--json",
    ];
    let approved = stable
        .cli(&approve)
        .expect(0)
        .document("packhorse.approved.v1");
    check_keys(&approved, &["schema", "peer"]);
    assert_eq!(approved["peer"]["name"], "donkey");
    let paired = waiting
        .finish(SOON * 3)
        .expect(0)
        .document("packhorse.asked.v1");
    check_keys(&paired, &["schema", "state", "peer", "request"]);
    assert_eq!(paired["state"], "approved");
    assert_eq!(paired["peer"]["name"], "stable");
    assert_eq!(stable.peer_names(), ["donkey"]);
}

#[test]
fn a_no_is_told_and_does_not_come_back_to_the_list() {
    let mut lab = Lab::new();
    let stable = taking(&mut lab, "stable");
    let mule = lab.start("mule");
    let there = place(&stable);
    let ask = ["join", there.as_str(), "--ask"];
    mule.cli(&ask).expect(3);
    stable.cli(&["requests", "reject", "mule"]).expect(0);
    for _ in 0..2 {
        mule.cli(&ask)
            .expect(5)
            .prints_nothing()
            .says("the request to be paired was rejected");
    }
    let received = requests(&stable, "received");
    assert_eq!(received.len(), 1);
    assert_eq!(received[0]["state"], "rejected");
    // Denied for good, it hears what any stranger hears.
    stable
        .cli(&["requests", "reject", "mule", "--deny"])
        .expect(0);
    mule.cli(&ask).expect(5).says("not paired with this node");
    assert!(stable.peer_names().is_empty() && mule.peer_names().is_empty());
    // And no ticket overrides that.
    let ticket = stable.invite();
    mule.join(&ticket, "stable").expect(5);
}

#[test]
fn requests_are_documents() {
    let mut lab = Lab::new();
    let stable = taking(&mut lab, "stable");
    let mule = lab.start("mule");
    let asked = mule
        .cli(&["join", &place(&stable), "--ask", "--json"])
        .expect(3)
        .document("packhorse.asked.v1");
    check_keys(&asked, &["schema", "state", "peer", "request"]);
    assert_eq!(asked["state"], "waiting");
    let keys = [
        "id",
        "name",
        "message",
        "state",
        "addresses",
        "asked",
        "last",
        "answer",
        "next",
        "grants",
    ];
    check_keys(&asked["request"], &keys);
    for (node, direction) in [(&stable, "received"), (&mule, "sent")] {
        let requests = node.json(&["requests", "list"]);
        assert_eq!(requests["schema"], "packhorse.requests.v1");
        check_keys(&requests, &["schema", "open", "received", "sent"]);
        check_keys(&requests[direction][0], &keys);
    }
    let rejected = stable
        .cli(&["requests", "reject", "mule", "--json"])
        .expect(0)
        .document("packhorse.rejected.v1");
    check_keys(&rejected, &["schema", "node", "denied"]);
    assert_eq!(rejected["node"], mule.id());
}

#[test]
fn words_that_are_no_ticket_are_named_for_what_is_wrong() {
    let mut lab = Lab::new();
    let node = lab.start("left");
    let ticket = node.invite();
    let id = node.id();
    let cases = [
        (id.clone(), "that is a node id"),
        (id.to_ascii_uppercase(), "that is a node id"),
        (
            ticket[..ticket.len() - 1].to_owned(),
            "its checksum is wrong",
        ),
        (ticket[..30].to_owned(), "its checksum is wrong"),
        (
            ticket.replacen("pht1", "PHT1", 1),
            "mixes upper and lower case",
        ),
        (
            format!("{ticket}{}", "q".repeat(1_023)),
            "the limit is 1023",
        ),
        (
            ticket.replacen("pht1", "phx1", 1),
            "does not begin with `pht1`",
        ),
        (format!("{ticket}!"), "the character '!'"),
    ];
    for (word, says) in cases {
        let output = node
            .cli(&["join", &word])
            .expect(2)
            .prints_nothing()
            .says(says);
        // It may be a good ticket with one letter wrong.
        assert!(!output.stderr.contains(&ticket[10..30]), "{output:?}");
    }
    // On stdin it is the same, and what is no text is no ticket.
    node.cli_with(&["join", "-"], format!("{id}\n"))
        .expect(2)
        .says("that is a node id");
    node.cli_with(&["join", "-"], vec![0xff, 0xfe]).expect(2);
}

#[test]
fn nobody_takes_requests_unless_told_to() {
    let mut lab = Lab::new();
    let (stable, mule) = (lab.start("stable"), lab.start("mule"));
    let there = place(&stable);
    mule.cli(&["join", &there, "--ask"])
        .expect(5)
        .prints_nothing()
        .says("not paired with this node");
    assert!(requests(&stable, "received").is_empty());
    assert_eq!(stable.json(&["requests"])["open"], false);
    assert_eq!(requests(&mule, "sent")[0]["state"], "rejected");
}

#[test]
fn a_request_that_was_withdrawn_pairs_nobody() {
    let mut lab = Lab::new();
    let stable = taking(&mut lab, "stable");
    let mule = lab.start("mule");
    mule.cli(&["join", &place(&stable), "--ask"]).expect(3);
    let request = stable.id()[4..14].to_owned();
    mule.cli(&["requests", "reject", &request]).expect(0);
    assert!(requests(&mule, "sent").is_empty());
    mule.cli(&["requests", "reject", &request]).expect(4);
    stable.cli(&["requests", "approve", "mule"]).expect(0);
    // The stable dials what it takes for a peer now, and is refused like a stranger.
    until("the refusal is told", SOON, || {
        let why = stable.json(&["status"])["peers"][0]["last_error"]["text"].clone();
        why.as_str()
            .is_some_and(|text| text.contains("not paired with this node"))
            .then_some(())
    });
    assert!(mule.peer_names().is_empty());
}

#[test]
fn a_node_that_is_away_is_asked_when_it_comes() {
    let mut lab = Lab::new();
    let mut stable = taking(&mut lab, "stable");
    let there = place(&stable);
    stable.stop();
    let mut mule = lab.start("mule");
    let asked = mule.cli(&["join", &there, "--ask"]).expect(3);
    assert!(
        asked.stderr.contains("not asked yet: no answer from"),
        "{asked:?}"
    );
    assert_eq!(requests(&mule, "sent")[0]["state"], "unheard");
    // It goes on by itself, also in another life; the backoff begins with 15 s at most.
    mule.kill();
    stable.start();
    mule.start();
    until("the request arrives", SOON * 2, || {
        (requests(&stable, "received").len() == 1).then_some(())
    });
    assert_eq!(requests(&mule, "sent")[0]["state"], "waiting");
}

#[test]
fn a_node_that_is_asked_is_denied_where_that_is_said() {
    let mut lab = Lab::new();
    let (stable, mule) = (taking(&mut lab, "stable"), lab.start("mule"));
    mule.cli(&["join", &place(&stable), "--ask", "--name", "barn"])
        .expect(3);
    let rejected = mule.json(&["requests", "reject", "barn", "--deny"]);
    assert_eq!(rejected["denied"], true);
    let denied = mule.cli(&["peers", "denied"]).expect(0);
    assert!(denied.text().contains(&stable.id()), "{denied:?}");
    stable.cli(&["requests", "approve", "mule"]).expect(0);
    let ticket = stable.invite();
    mule.cli(&["join", &ticket]).expect(5);
    assert!(mule.peer_names().is_empty());
}

#[test]
fn what_cannot_be_asked_is_a_usage_error_with_the_reason() {
    let mut lab = Lab::new();
    let node = lab.start("left");
    let (id, there) = (node.id(), place(&node));
    let other = "phn1syuhwr4g05t4744r23nvxnr7en9cmz53knhr0gja7c84hr7fkw2qn5mcq9";
    let elsewhere = format!("{other}@127.0.0.1:9");
    let long = "x".repeat(257);
    let cases: [(&[&str], &str); 9] = [
        (&["join", &elsewhere], "add --ask"),
        (&["join", other], "that is a node id"),
        (&["join", &node.invite(), "--ask"], "NODEID@HOST:PORT"),
        (&["join", other, "--ask"], "NODEID@HOST:PORT"),
        (
            &["join", &format!("{other}@nowhere"), "--ask"],
            "`nowhere` cannot be dialled",
        ),
        (
            &["join", &format!("{}x@h:1", &other[..20]), "--ask"],
            "not a node id",
        ),
        (&["join", &there, "--ask"], "cannot be paired with itself"),
        (
            &["join", &elsewhere, "--ask", "--message", &long],
            "257 bytes long, the limit is 256",
        ),
        (
            &["join", &elsewhere, "--ask", "--message", "a\nb"],
            "control character U+000A",
        ),
    ];
    for (words, says) in cases {
        node.cli(words).expect(2).prints_nothing().says(says);
    }
    assert!(requests(&node, "sent").is_empty(), "{id}");
    node.cli(&["requests", "approve", "nobody"]).expect(4);
    node.cli(&["requests", "reject", other]).expect(4);
}

// --- as a library ---

fn grants(texts: &[&str]) -> Vec<Grant> {
    texts
        .iter()
        .map(|text| text.parse().expect("a grant"))
        .collect()
}

fn scratch() -> TempDir {
    TempDir::with_prefix("ph-").expect("a scratch folder")
}

fn loopback(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::from([127, 0, 0, last]), 0)
}

async fn start(scratch: &TempDir, name: &str) -> LibraryNode {
    LibraryNode::builder(scratch.path().join(name))
        .name(name)
        .start()
        .await
        .expect("the node starts")
}

fn address(node: &LibraryNode) -> String {
    let listen = node.listen();
    let address = listen.first().expect("it listens");
    address.trim_start_matches("quic://").to_owned()
}

async fn ask(node: &LibraryNode, other: &LibraryNode, message: &str) -> Asked {
    let ask = Ask {
        message: message.to_owned(),
        grants: grants(&["message.send:*"]),
        ..Ask::default()
    };
    node.ask(other.id(), &address(other), ask)
        .await
        .expect("it can be asked")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_decides_about_strangers_at_once() {
    let scratch = scratch();
    let seen: Arc<Mutex<Vec<Stranger>>> = Arc::default();
    let known: Arc<Mutex<BTreeSet<NodeId>>> = Arc::default();
    let (saw, knows) = (Arc::clone(&seen), Arc::clone(&known));
    let stable = LibraryNode::builder(scratch.path().join("stable"))
        .name("stable")
        .listen(loopback(1))
        .decide_strangers(move |stranger| {
            saw.lock().expect("no panic before").push(stranger.clone());
            assert_ne!(stranger.text, "panic");
            if knows
                .lock()
                .expect("no panic before")
                .contains(&stranger.id)
            {
                let grants = Grants::new(grants(&["message.send:orders"]));
                return StrangerDecision::Accept {
                    grants: grants.expect("one is few"),
                };
            }
            match stranger.text.as_str() {
                "queue" => StrangerDecision::Queue,
                _ => StrangerDecision::Refuse,
            }
        })
        .start()
        .await
        .expect("the node starts");
    let mule = start(&scratch, "mule").await;
    // Refused, and a panic refuses as well: in the same words.
    for message in ["please", "panic"] {
        let Asked::Refused(request) = ask(&mule, &stable, message).await else {
            panic!("not refused");
        };
        assert_eq!(request.answer.as_deref(), Some("not paired with this node"));
    }
    // Left to a person.
    let Asked::Waits(request) = ask(&mule, &stable, "queue").await else {
        panic!("it does not wait");
    };
    assert_eq!(request.state, RequestState::Waiting);
    let received = stable.requests().await.expect("a list").received;
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].message, "queue");
    // Accepted.
    known.lock().expect("no panic before").insert(mule.id());
    let Asked::Paired(peer) = ask(&mule, &stable, "again").await else {
        panic!("not paired");
    };
    assert_eq!(peer.name, "stable");
    let receipt = mule.send("stable", Outgoing::new("orders", "hay")).await;
    let receipt = receipt.expect("accepted");
    let stored = mule.wait(receipt, ReceiptState::Stored, DEADLINE).await;
    assert_eq!(stored.expect("a receipt").state, ReceiptState::Stored);
    let seen = seen.lock().expect("no panic before").clone();
    assert!(seen.iter().all(|stranger| {
        let from = IpAddr::from([127, 0, 0, 1]);
        stranger.id == mule.id() && stranger.name == "mule" && stranger.address == from
    }));
    assert_eq!(seen.len(), 4);
    mule.shutdown().await;
    stable.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_takes_too_long_is_asked_again_later() {
    let scratch = scratch();
    let (release, blocked) = std::sync::mpsc::sync_channel::<()>(1);
    let blocked = Mutex::new(blocked);
    let stable = LibraryNode::builder(scratch.path().join("stable"))
        .name("stable")
        .listen(loopback(1))
        .decide_strangers(move |_| {
            // Until the sender is dropped.
            let _ = blocked.lock().expect("no panic before").recv();
            StrangerDecision::Refuse
        })
        .start()
        .await
        .expect("the node starts");
    let mule = start(&scratch, "mule").await;
    let Asked::Waits(request) = ask(&mule, &stable, "please").await else {
        panic!("somebody decided");
    };
    assert_eq!(request.state, RequestState::Unheard);
    assert_eq!(
        request.answer.as_deref(),
        Some("nobody decided in time: ask again")
    );
    // Who has a ticket is not held up by that.
    let ticket = stable.invite(Invite::default()).await.expect("a ticket");
    let other = start(&scratch, "other").await;
    let joined = other.join(&ticket, Join::default()).await;
    assert_eq!(joined.expect("paired").peer.name, "stable");
    drop(release);
    for node in [mule, other, stable] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_ask_each_other_are_paired_without_anybody_else() {
    let scratch = scratch();
    let mut nodes = Vec::new();
    for name in ["left", "right"] {
        let node = LibraryNode::builder(scratch.path().join(name))
            .name(name)
            .listen(loopback(1))
            .accept_requests(true);
        nodes.push(node.start().await.expect("the node starts"));
    }
    let (left, right) = (&nodes[0], &nodes[1]);
    assert!(matches!(ask(left, right, "").await, Asked::Waits(_)));
    // The right one wants it too: its question is the left one's answer.
    let paired = match ask(right, left, "").await {
        Asked::Waits(_) => right.asked(left.id(), tokio::time::sleep(DEADLINE)).await,
        asked => Ok(asked),
    };
    assert!(matches!(paired, Ok(Asked::Paired(_))), "{paired:?}");
    let paired = left.asked(right.id(), tokio::time::sleep(DEADLINE)).await;
    assert!(matches!(paired, Ok(Asked::Paired(_))), "{paired:?}");
    for (from, to) in [(left, "right"), (right, "left")] {
        let receipt = from.send(to, Outgoing::new("orders", "hay")).await;
        let stored = from
            .wait(receipt.expect("accepted"), ReceiptState::Stored, DEADLINE)
            .await;
        assert_eq!(stored.expect("a receipt").state, ReceiptState::Stored);
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_without_a_request_is_not_found() {
    let scratch = scratch();
    let (left, right) = (
        start(&scratch, "left").await,
        start(&scratch, "right").await,
    );
    let error = left
        .approve_request(right.id(), Approval::default())
        .await
        .expect_err("nobody asks");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let asked = left.asked(right.id(), std::future::ready(())).await;
    assert_eq!(
        asked.expect_err("nobody is asked").kind(),
        ErrorKind::NotFound
    );
    left.shutdown().await;
    right.shutdown().await;
}
