//! What lives between two nodes beside stored messages: pings, ephemeral messages, failed
//! attempts, peers that hang, networks that change.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod live_common;

use std::{net::IpAddr, time::Duration};

use packhorse_actors::{
    board::PeerState,
    session::{EphemeralError, PingError},
    store::PeerNumber,
};
use packhorse_protocol::{error_class::ErrorClass, message::DeliveryClass};

use live_common::{DEADLINE, Node, Stuck, message, pair, texts};

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_measures_a_live_session_and_says_so_when_there_is_none() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let (to_two, to_one) = pair(&one, &two, &["message.send:*"]).await;
    let nobody = one.tree().sessions.ping(PeerNumber(77)).await;
    assert_eq!(nobody, Err(PingError::NoSession));
    assert_eq!(
        one.tree().sessions.ping(to_two).await,
        Err(PingError::NoSession)
    );
    one.send(to_two, &texts(1)).await;
    one.connected(to_two).await;
    two.connected(to_one).await;
    for (node, peer) in [(&one, to_two), (&two, to_one), (&one, to_two)] {
        let ping = node.tree().sessions.ping(peer).await.unwrap();
        assert!(
            ping.round_trip_ms > 0.0 && ping.round_trip_ms < 5_000.0,
            "{ping:?}"
        );
        assert!(ping.skew_ms.abs() < 5_000, "{ping:?}");
        let line = node.tree().board.line(peer);
        assert!(
            line.round_trip_ms.is_some() && line.skew_ms.is_some(),
            "{line:?}"
        );
        assert!(line.since_ms > 0);
    }
    // Many at once share heartbeats; none of them is lost.
    let sessions = &one.tree().sessions;
    let (a, b, c) = tokio::join!(
        sessions.ping(to_two),
        sessions.ping(to_two),
        sessions.ping(to_two)
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok(), "{a:?} {b:?} {c:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_killed_is_noticed_and_its_failed_attempts_are_remembered() {
    let (mut one, mut two) = (Node::start(1).await, Node::start(2).await);
    let (to_two, _) = pair(&one, &two, &["message.send:*"]).await;
    one.send(to_two, &texts(1)).await;
    one.settled(to_two, DEADLINE).await;
    assert_eq!(one.record(to_two).await.failures, 0);
    two.kill();
    one.send(to_two, &texts(1)).await;
    let line = one.sees(to_two, "counted", |line| line.failures == 1).await;
    assert_ne!(line.state, PeerState::Connected);
    let record = one.record(to_two).await;
    assert_eq!(record.failures, 1);
    let error = record.last_error.unwrap();
    assert_eq!(error.class, ErrorClass::Disconnected.to_u16());
    // Within half a minute no other one counts, and a restart forgets nothing.
    one.stop().await;
    one.run().await;
    let line = one
        .sees(to_two, "tried again", |line| line.last_error.is_some())
        .await;
    assert_eq!(line.failures, 1);
    assert_eq!(one.record(to_two).await.failures, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_nothing_delays_nobody_else() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let (to_two, _) = pair(&one, &two, &["message.send:*"]).await;
    let stuck = Stuck::listen(3);
    let to_stuck = one.knows(3, Some(stuck.address), &[]).await;
    let load = vec!["x".repeat(64 << 10); 200];
    one.send(to_stuck, &load).await;
    one.connected(to_stuck).await;
    let ephemeral = message(DeliveryClass::Ephemeral, &vec![7; 512 << 10]);
    let sessions = &one.tree().sessions;
    let full = async {
        loop {
            match sessions.send_ephemeral(to_stuck, ephemeral.clone()).await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    };
    let full = tokio::time::timeout(DEADLINE, full).await.unwrap();
    assert!(matches!(full, EphemeralError::Full(_)), "{full}");
    assert_eq!(sessions.ping(to_stuck).await, Err(PingError::NoAnswer));
    one.send(to_two, &texts(2_000)).await;
    one.settled(to_two, Duration::from_secs(10)).await;
    assert_eq!(two.inbox().await, texts(2_000));
    assert!(one.tree().sessions.ping(to_two).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_network_ends_sessions_that_nobody_hears_and_keeps_those_that_live() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let (to_two, _) = pair(&one, &two, &["message.send:*"]).await;
    let stuck = Stuck::listen(3);
    let to_stuck = one.knows(3, Some(stuck.address), &[]).await;
    for peer in [to_two, to_stuck] {
        one.send(peer, &texts(1)).await;
        one.connected(peer).await;
    }
    let since_ms = one.tree().board.line(to_two).since_ms;
    one.network.set([IpAddr::from([192, 0, 2, 9])]);
    let line = one
        .sees(to_stuck, "ended", |line| line.last_exit.is_some())
        .await;
    let reason = line.last_exit.unwrap();
    assert!(
        reason.starts_with("no sign of life within 10 s"),
        "{reason}"
    );
    let line = one.tree().board.line(to_two);
    assert_eq!(
        (line.state, line.since_ms),
        (PeerState::Connected, since_ms)
    );
    assert_eq!(
        one.record(to_stuck).await.failures,
        0,
        "it was the change here"
    );
    let page = one.tree().events.since(0, 1_000).await.unwrap();
    let kinds: Vec<_> = page.events.iter().map(|event| event.fact.kind()).collect();
    assert!(kinds.contains(&"network.changed"), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_under_load_ends_in_time_and_loses_and_repeats_nothing() {
    let (mut one, mut two) = (Node::start(1).await, Node::start(2).await);
    let (to_two, to_one) = pair(&one, &two, &["message.send:*"]).await;
    // Enough of it that no stop comes too late to find some on its way.
    let all: Vec<_> = texts(6_000)
        .iter()
        .map(|text| format!("{text:2000}"))
        .collect();
    one.send(to_two, &all).await;
    two.send(to_one, &all).await;
    for round in 0..4 {
        one.connected(to_two).await;
        let node = if round % 2 == 0 { &mut one } else { &mut two };
        let took = node.stop().await;
        assert!(took < Duration::from_secs(6), "{took:?}");
        node.run().await;
        // Its port is another one now; it dials, because it has something to send or is dialled.
        let address = format!("quic://{}", node.tree().listening[0]);
        let (teller, peer) = if round % 2 == 0 {
            (&two, to_one)
        } else {
            (&one, to_two)
        };
        let told = teller
            .tree()
            .store
            .update_peer(peer, move |record| record.addresses = vec![address]);
        told.await.unwrap();
        teller.tree().retry.wake(Some(peer));
    }
    one.settled(to_two, DEADLINE).await;
    two.settled(to_one, DEADLINE).await;
    assert_eq!(two.inbox().await, all);
    assert_eq!(one.inbox().await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_listener_notices_a_dead_peer_and_comes_back_by_itself() {
    let mut two = Node::start(2).await;
    let mut loner = Node::loner(1);
    loner.run().await;
    let (to_two, to_loner) = pair(&loner, &two, &["message.send:*"]).await;
    two.send(to_loner, &texts(1)).await;
    loner.tree().retry.wake(Some(to_two));
    two.settled(to_loner, DEADLINE).await;
    two.kill();
    loner
        .sees(to_two, "noticed", |line| line.last_exit.is_some())
        .await;
    two.run().await;
    let address = format!("quic://{}", two.tree().listening[0]);
    let record = loner.tree().store.update_peer(to_two, move |record| {
        record.addresses = vec![address];
    });
    record.await.unwrap();
    two.send(to_loner, &texts(3)).await;
    // It holds its links up: nobody else could.
    two.settled(to_loner, DEADLINE).await;
    assert_eq!(loner.inbox().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_message_needs_a_session_its_class_and_a_grant_there() {
    let (one, two) = (Node::start(1).await, Node::start(2).await);
    let (to_two, to_one) = pair(&one, &two, &["message.send:news"]).await;
    let sessions = &one.tree().sessions;
    let news = message(DeliveryClass::Ephemeral, b"now");
    let refused = sessions.send_ephemeral(to_two, news.clone()).await;
    assert_eq!(refused, Err(EphemeralError::NoSession));
    let durable = message(DeliveryClass::Critical, b"later");
    let refused = sessions.send_ephemeral(to_two, durable).await;
    assert_eq!(refused, Err(EphemeralError::Class));
    one.send(to_two, &texts(1)).await;
    one.settled(to_two, DEADLINE).await;
    two.connected(to_one).await;

    let mut secret = news.clone();
    secret.topic = "secret".to_owned();
    sessions.send_ephemeral(to_two, secret).await.unwrap();
    two.sees(to_one, "dropped", |line| line.ephemeral_dropped == 1)
        .await;
    sessions.send_ephemeral(to_two, news.clone()).await.unwrap();
    assert_eq!(two.take_ephemeral().await, b"now");
    // The other way, on the other side's own stream of the same session.
    let answer = message(DeliveryClass::Ephemeral, b"heard");
    let back = &two.tree().sessions;
    back.send_ephemeral(to_one, answer).await.unwrap();
    assert_eq!(one.take_ephemeral().await, b"heard");
    // Taken back there: the next one is checked by what is stored then.
    let store = &two.tree().store;
    store
        .update_peer(to_one, |record| {
            record.grants = packhorse_protocol::grant::Grants::none();
        })
        .await
        .unwrap();
    sessions.send_ephemeral(to_two, news).await.unwrap();
    two.sees(to_one, "dropped", |line| line.ephemeral_dropped >= 2)
        .await;
    assert_eq!(two.inbox().await, texts(1), "none of them is stored");
    assert!(sessions.ping(to_two).await.is_ok(), "and the session lives");
}
