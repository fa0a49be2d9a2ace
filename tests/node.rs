//! Whole nodes as a library: two of them live in this one process, with real links and stores.

use std::time::Duration;

use packhorse::{
    DeliveryClass, ErrorKind, Grant, Invite, Join, Node, Outgoing, PeerState, Receipt, ReceiptState,
};
use tempfile::TempDir;

/// Every wait on the other node ends here.
const DEADLINE: Duration = Duration::from_secs(30);

fn scratch() -> TempDir {
    TempDir::with_prefix("ph-").expect("a scratch folder")
}

fn grants(texts: &[&str]) -> Vec<Grant> {
    texts
        .iter()
        .map(|text| text.parse().expect("a grant"))
        .collect()
}

async fn start(scratch: &TempDir, name: &str) -> Node {
    Node::builder(scratch.path().join(name))
        .name(name)
        .listen(([127, 0, 0, 1], 0).into())
        .start()
        .await
        .expect("the node starts")
}

/// `joiner` may do there what `granted` says; the inviter may send anything here.
async fn pair(inviter: &Node, joiner: &Node, granted: &[&str]) {
    let invite = Invite {
        grants: grants(granted),
        ..Invite::default()
    };
    let ticket = inviter.invite(invite).await.expect("a ticket");
    let join = Join {
        name: None,
        grants: grants(&["message.send:*"]),
    };
    let joined = joiner.join(&ticket, join).await.expect("both sides pair");
    assert_eq!(joined.peer.name, inviter.name());
}

async fn send(node: &Node, peer: &str, topic: &str, payload: &str) -> Receipt {
    node.send(peer, Outgoing::new(topic, payload))
        .await
        .expect("accepted")
}

async fn wait(node: &Node, receipt: Receipt, state: ReceiptState) -> Receipt {
    node.wait(receipt, state, DEADLINE)
        .await
        .expect("a receipt")
}

async fn payloads(node: &Node) -> Vec<String> {
    let listing = node.inbox(10_000).await.expect("a listing");
    let texts = listing
        .messages
        .iter()
        .map(|message| message.payload.as_text().expect("text").to_owned());
    texts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_in_one_process_deliver_in_order_both_ways() {
    let scratch = scratch();
    let (left, right) = (
        start(&scratch, "left").await,
        start(&scratch, "right").await,
    );
    pair(&left, &right, &["message.send:*"]).await;
    let numbers: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
    for (from, to) in [(&left, "right"), (&right, "left")] {
        let messages = numbers
            .iter()
            .map(|number| Outgoing::new("numbers", number.as_str()));
        let receipts = from
            .send_many(to, messages.collect())
            .await
            .expect("accepted");
        let last = receipts.into_iter().next_back().expect("a receipt each");
        assert_eq!(
            wait(from, last, ReceiptState::Stored).await.state,
            ReceiptState::Stored
        );
    }
    assert_eq!(payloads(&left).await, numbers);
    assert_eq!(payloads(&right).await, numbers);
    let status = left.status().await.expect("a status");
    assert_eq!(status.peers[0].state, PeerState::Connected);
    assert_eq!(
        status.peers[0].key_exchange.as_deref(),
        Some("X25519MLKEM768")
    );
    assert!(
        !tracing::dispatcher::has_been_set(),
        "the library installs no subscriber"
    );
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_grant_fails_with_the_reason_and_those_behind_it_arrive() {
    let scratch = scratch();
    let (left, right) = (
        start(&scratch, "left").await,
        start(&scratch, "right").await,
    );
    // The joiner may send here only what concerns jobs.
    pair(&left, &right, &["message.send:jobs.*"]).await;
    let refused = send(&right, "left", "secrets", "no").await;
    let stored = send(&right, "left", "jobs.one", "yes").await;
    let stored = wait(&right, stored, ReceiptState::Stored).await;
    assert_eq!(stored.state, ReceiptState::Stored);
    let refused = wait(&right, refused, ReceiptState::Stored).await;
    assert_eq!(refused.state, ReceiptState::Failed);
    let reason = refused.reason.expect("a reason");
    assert!(reason.contains("grants no message.send"), "{reason}");
    assert_eq!(payloads(&left).await, ["yes"]);
    assert_eq!(right.outbox(10).await.expect("a listing").total, 0);
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_survives_a_restart_of_either_side() {
    let scratch = scratch();
    let (left, right) = (
        start(&scratch, "left").await,
        start(&scratch, "right").await,
    );
    pair(&left, &right, &["message.send:*"]).await;
    right.shutdown().await;
    let first = send(&left, "right", "orders", "one").await;
    left.shutdown().await;
    let left = start(&scratch, "left").await;
    let second = send(&left, "right", "orders", "two").await;
    assert_ne!(first.id, second.id);
    assert_eq!(left.outbox(10).await.expect("a listing").total, 2);
    // Both listen elsewhere now: the one that comes back finds the other by dialling it or, since
    // the old address is dead, is found after it has told its new one.
    let right = Node::builder(scratch.path().join("right"))
        .name("right")
        .listen(([127, 0, 0, 1], 0).into())
        .start()
        .await
        .expect("the node starts");
    let ticket = right
        .invite(Invite {
            grants: grants(&["message.send:*"]),
            ..Invite::default()
        })
        .await
        .expect("a ticket");
    left.join(&ticket, Join::default())
        .await
        .expect("pairing again renews the addresses");
    for receipt in [first, second] {
        assert_eq!(
            wait(&left, receipt, ReceiptState::Stored).await.state,
            ReceiptState::Stored
        );
    }
    assert_eq!(payloads(&right).await, ["one", "two"]);
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_gives_the_first_receipt_and_other_bytes_are_refused() {
    let scratch = scratch();
    let (left, right) = (
        start(&scratch, "left").await,
        start(&scratch, "right").await,
    );
    pair(&left, &right, &["message.send:*"]).await;
    let keyed = |payload: &str| Outgoing {
        key: Some("k".to_owned()),
        ..Outgoing::new("orders", payload)
    };
    let first = left.send("right", keyed("one")).await.expect("accepted");
    let again = left
        .send("right", keyed("one"))
        .await
        .expect("the same message");
    assert_eq!(first.id, again.id);
    let other = left
        .send("right", keyed("two"))
        .await
        .expect_err("other bytes");
    assert_eq!(other.kind(), ErrorKind::Refused);
    wait(&left, first, ReceiptState::Stored).await;
    assert_eq!(payloads(&right).await, ["one"]);
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_refused_and_the_value_and_the_limit_are_named() {
    let scratch = scratch();
    let node = start(&scratch, "left").await;
    let nobody = node
        .send("nobody", Outgoing::new("orders", "x"))
        .await
        .expect_err("no such peer");
    assert_eq!(nobody.kind(), ErrorKind::NotFound);
    assert!(nobody.to_string().contains("nobody"), "{nobody}");
    let right = start(&scratch, "right").await;
    pair(&node, &right, &["message.send:*"]).await;
    let large = Outgoing::new("orders", vec![0; (1 << 20) + 1]);
    let large = node.send("right", large).await.expect_err("over the limit");
    assert_eq!(large.kind(), ErrorKind::Usage);
    assert!(large.to_string().contains("1048577"), "{large}");
    let now_or_never = Outgoing {
        class: Some(DeliveryClass::Ephemeral),
        ..Outgoing::new("orders", "x")
    };
    let refused = node
        .send("right", now_or_never)
        .await
        .expect_err("not stored");
    assert!(refused.to_string().contains("ephemeral"), "{refused}");
    node.shutdown().await;
    right.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_listens_nowhere_invites_nobody_but_joins_and_receives() {
    let scratch = scratch();
    let left = start(&scratch, "left").await;
    let laptop = Node::builder(scratch.path().join("laptop"))
        .name("laptop")
        .start()
        .await
        .expect("starts");
    let refused = laptop
        .invite(Invite::default())
        .await
        .expect_err("no listener");
    assert_eq!(refused.kind(), ErrorKind::Refused);
    pair(&left, &laptop, &["message.send:*"]).await;
    let receipt = send(&left, "laptop", "orders", "for the road").await;
    assert_eq!(
        wait(&left, receipt, ReceiptState::Stored).await.state,
        ReceiptState::Stored
    );
    assert_eq!(payloads(&laptop).await, ["for the road"]);
    left.shutdown().await;
    laptop.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receive_hands_out_each_message_once_and_acknowledging_takes_it_out() {
    let scratch = scratch();
    let (left, right) = (
        start(&scratch, "left").await,
        start(&scratch, "right").await,
    );
    pair(&left, &right, &["message.send:*"]).await;
    send(&left, "right", "other", "not this").await;
    send(&left, "right", "orders", "one").await;
    let last = send(&left, "right", "orders", "two").await;
    wait(&left, last, ReceiptState::Stored).await;
    let first = right.receive("orders", 1).await.expect("claimed");
    let rest = right.receive("orders", 10).await.expect("claimed");
    assert_eq!((first.len(), rest.len()), (1, 1));
    assert_eq!(
        (&first[0].payload[..], &rest[0].payload[..]),
        (&b"one"[..], &b"two"[..])
    );
    assert_eq!(first[0].sender, "left");
    assert!(
        right
            .receive("orders", 10)
            .await
            .expect("claimed")
            .is_empty(),
        "both are claimed"
    );
    right.release(&[first[0].arrival, rest[0].arrival]);
    let again = right.receive("orders", 10).await.expect("claimed again");
    let texts: Vec<_> = again.iter().map(|message| &message.payload[..]).collect();
    assert_eq!(texts, [&b"one"[..], b"two"], "in their order");
    for _ in 0..2 {
        right
            .acknowledge(&[first[0].arrival])
            .await
            .expect("repeating it is harmless");
    }
    assert_eq!(payloads(&right).await, ["not this", "two"]);
    left.shutdown().await;
    right.shutdown().await;
}
