//! What a dialler is told when what answers is not the peer that it dialled: each its own words,
//! class and blame, with real endpoints on loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod live_common;

use std::net::{SocketAddr, UdpSocket};

use packhorse_actors::{
    board::LastError,
    link::{Link, QuicListener, ReceiveHalf, SendHalf},
};
use packhorse_protocol::{
    error_class::ErrorClass,
    handshake::{HELLO_BYTES, LinkKind, PROOF_BYTES, Responder, VerdictRefusal},
    identity::IdentityKey,
};
use tokio::task::JoinSet;

use live_common::{Node, texts};

/// The peer that is dialled in all of these.
const PEER: u8 = 9;

/// What a node is told that dials the peer at this address, and how often that counted.
async fn told_at(address: SocketAddr) -> (LastError, u32) {
    let node = Node::start(1).await;
    let peer = node.knows(PEER, Some(address), &[]).await;
    // Something has to wait, or a failed dial counts against nobody.
    node.send(peer, &texts(1)).await;
    let line = node
        .sees(peer, "told", |line| {
            line.last_error.is_some() && line.failures > 0
        })
        .await;
    (line.last_error.unwrap(), line.failures)
}

/// A listener that answers every Hello by this.
fn answering<F>(
    answer: impl Fn(Link, SendHalf, ReceiveHalf, Vec<u8>) -> F + Send + 'static,
) -> Other
where
    F: Future<Output = (Link, SendHalf, ReceiveHalf)> + Send,
{
    let mut listener = QuicListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.address();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut held = Vec::new();
        while let Some(Ok(mut link)) = listener.accept().await {
            let (send, mut receive) = link.accept().await.unwrap();
            let hello = receive.read_exact(HELLO_BYTES).await.unwrap();
            held.push(answer(link, send, receive, hello.to_vec()).await);
        }
    });
    Other {
        address,
        _task: task,
    }
}

struct Other {
    address: SocketAddr,
    _task: JoinSet<()>,
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_the_address_is_told_apart_without_naming_itself() {
    let other = Node::start(2).await;
    let address = *other.tree().listening.first().unwrap();
    let (error, failures) = told_at(address).await;
    let expected = IdentityKey::from_seed(&[PEER; 32]).id();
    assert_eq!(
        error.text,
        format!("something answers at {address}, but not as {expected}, or it is too busy to say")
    );
    assert_eq!(error.class, ErrorClass::Authentication);
    assert_eq!(failures, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_answers_nothing_is_silence() {
    let silent = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let (error, failures) = told_at(address).await;
    assert_eq!(
        error.text,
        format!("no answer from {address}: nothing within 4 s")
    );
    assert_eq!(error.class, ErrorClass::Disconnected);
    assert_eq!(failures, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_versions_are_named_beside_ones_own() {
    let newer = answering(|link, mut send, receive, _| async move {
        send.send(vec![2, 0, 7, 0, 9].into()).await.unwrap();
        (link, send, receive)
    });
    let (error, _) = told_at(newer.address).await;
    assert_eq!(
        error.text,
        format!(
            "{}: no common version: the other side speaks versions 7 to 9, this node 1 to 1",
            newer.address
        )
    );
    assert_eq!(error.class, ErrorClass::Protocol);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_no_protocol_of_ours_is_said_to() {
    let strange = answering(|link, mut send, receive, _| async move {
        send.send(vec![b'H'; 64].into()).await.unwrap();
        (link, send, receive)
    });
    let (error, _) = told_at(strange.address).await;
    assert_eq!(
        error.text,
        format!(
            "something answers at {}, but it does not speak this protocol",
            strange.address
        )
    );
    assert_eq!(error.class, ErrorClass::Protocol);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_in_the_words_of_who_refuses() {
    let refusing = answering(|link, mut send, mut receive, hello| async move {
        let key = IdentityKey::from_seed(&[PEER; 32]);
        let responder = Responder::new(&key, LinkKind::Quic, link.info().binding);
        let (awaiting, reply) = responder.on_hello(&hello, [5; 128]).unwrap();
        send.send(reply.into()).await.unwrap();
        let proof = receive.read_exact(PROOF_BYTES).await.unwrap();
        let verdict = awaiting.on_proof(&proof).unwrap().refuse(VerdictRefusal {
            class: ErrorClass::Authentication,
            code: VerdictRefusal::NOT_ALLOWED,
            // A control character is made harmless by who sends it.
            reason: "the stable is\u{1b}[2J closed".to_owned(),
            retry_after_ms: 0,
        });
        send.send(verdict.into()).await.unwrap();
        (link, send, receive)
    });
    let (error, failures) = told_at(refusing.address).await;
    assert_eq!(
        error.text,
        format!(
            "{}: refused: the stable is\u{fffd}[2J closed",
            refusing.address
        )
    );
    assert_eq!(error.class, ErrorClass::Authentication);
    assert_eq!(failures, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_does_not_ask_hears_that_it_is_not_paired() {
    let other = Node::start(PEER).await;
    let address = *other.tree().listening.first().unwrap();
    let (error, _) = told_at(address).await;
    assert_eq!(
        error.text,
        format!("{address}: refused: not paired with this node")
    );
    assert_eq!(error.class, ErrorClass::Authentication);
    assert!(
        other
            .tree()
            .store
            .requests(u64::MAX)
            .await
            .unwrap()
            .is_empty()
    );
}

/// Addresses that are up and mute hold up the one behind them no longer than those that are dead.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_that_say_nothing_do_not_keep_a_node_from_the_peer() {
    let other = Node::start(PEER).await;
    let mutes: Vec<_> = (0..7)
        .map(|_| {
            answering(|link, send, receive, _| async move {
                // Neither an answer nor an end.
                std::future::pending::<()>().await;
                (link, send, receive)
            })
        })
        .collect();
    let node = Node::start(1).await;
    other.knows(1, None, &[]).await;
    let peer = node
        .knows(PEER, other.tree().listening.first().copied(), &[])
        .await;
    let mut hints = mutes.iter().map(|mute| format!("quic://{}", mute.address));
    let own: Vec<_> = hints.by_ref().take(4).collect();
    let said: Vec<_> = hints.collect();
    let told = node.tree().store.update_peer(peer, move |record| {
        record.own_addresses = own;
        record.addresses.splice(0..0, said);
    });
    told.await.unwrap();
    node.send(peer, &texts(1)).await;
    node.connected(peer).await;
}
