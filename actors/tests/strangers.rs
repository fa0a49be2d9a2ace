//! Strangers against a whole node: floods of every kind while honest peers go on, and what one link
//! may send before anybody knows who it is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod live_common;
mod strangers_common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use packhorse_actors::{
    link::{Link, LinkError, QuicDialler},
    listener::{CHEAP, COSTLY, Door, HALF_OPEN, Outcome, Prefix, StrangerCounts},
};
use packhorse_protocol::{
    error_class::ErrorClass, handshake::Answer, identity::IdentityKey, node_id::NodeId,
};
use tokio::task::JoinSet;

use live_common::{DEADLINE, Node, pair, texts};
use strangers_common::{
    Links, Manner, authenticate, begin_far_behind, behave, half_open, hello, neighbour,
    resident_kib,
};

/// The number.
const HALF_OPEN_COUNT: u64 = 10_000;
/// What the whole test process may grow by under the flood: its own 60 endpoints are in it.
const GROWTH_MIB_MAX: u64 = 192;

fn id(seed: u8) -> NodeId {
    IdentityKey::from_seed(&[seed; 32]).id()
}

fn address(node: &Node) -> SocketAddr {
    node.tree().listening[0]
}

/// Waits until the door's counts are as wished.
async fn counted(door: &Door, what: &str, is: impl Fn(&StrangerCounts) -> bool) -> StrangerCounts {
    let seen = async {
        loop {
            let counts = door.counts();
            if is(&counts) {
                return counts;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, seen).await {
        Ok(counts) => counts,
        Err(_) => panic!("{what}: {:?}", door.counts()),
    }
}

/// The highest numbers that were ever seen.
async fn watch(door: Door, over: Arc<AtomicBool>) -> [usize; 3] {
    let mut highest = [0; 3];
    while !over.load(Ordering::Acquire) {
        let counts = door.counts();
        let now = [counts.half_open, counts.cheap, counts.costly];
        for (highest, now) in highest.iter_mut().zip(now) {
            *highest = now.max(*highest);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    highest
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_peers_deliver_and_connect_anew_while_strangers_flood_the_node() {
    let (target, honest, late) = (
        Node::start(1).await,
        Node::start(2).await,
        Node::start(3).await,
    );
    let grants = &["message.send:*"];
    let (from_target, to_target) = pair(&target, &honest, grants).await;
    let (_, late_to_target) = pair(&target, &late, grants).await;
    // A peer at an address of its own has been here before.
    let known = QuicDialler::bind_at(neighbour(900_000)).unwrap();
    target.knows(4, None, grants).await;
    let (link, answer) = authenticate(&known, address(&target), id(1), 4)
        .await
        .unwrap();
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    drop(link);
    honest.send(to_target, &texts(1)).await;
    honest.settled(to_target, DEADLINE).await;
    let before_kib = resident_kib(std::process::id());

    let door = target.tree().door.clone();
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    tasks.spawn(watch(door.clone(), Arc::clone(&over)));
    let to = address(&target);
    let links = [
        Links::flood(to, id(1), 700_000, 20, Manner::Silent),
        Links::flood(to, id(1), 710_000, 20, Manner::KnocksWrong),
        Links::flood(to, id(1), 720_000, 20, Manner::NoProof),
    ];
    let mut flood = JoinSet::new();
    flood.spawn(half_open(to, HALF_OPEN_COUNT, 5_000, 1_000));

    // Meanwhile: a live session delivers, a peer connects anew, and so does one whose address
    // counts like any stranger's but is known.
    let mut sent = 1;
    let mut connected_anew = 0;
    late.send(late_to_target, &texts(5)).await;
    while flood.try_join_next().is_none() {
        honest.send(to_target, &texts(50)).await;
        honest.settled(to_target, DEADLINE).await;
        sent += 50;
        let dialled = tokio::time::timeout(DEADLINE, authenticate(&known, to, id(1), 4)).await;
        match dialled {
            Ok(Ok((_, Answer::Accepted { .. }))) => connected_anew += 1,
            other => println!("not connected anew: {other:?}"),
        }
        // The peer's own bucket has ten links a second.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    late.settled(late_to_target, DEADLINE).await;
    target.send(from_target, &texts(1)).await;
    target.settled(from_target, DEADLINE).await;
    // Each kind was met; whoever knocks and never proves itself is closed after ten seconds.
    counted(&door, "every kind of stranger", |counts| {
        let kinds = [
            Outcome::Retried,
            Outcome::HalfOpenEnded,
            Outcome::Silent,
            Outcome::KnockedWrong,
            Outcome::ProofMissing,
        ];
        kinds.iter().all(|kind| counts.of(*kind) > 0)
    })
    .await;
    let grown_mib = resident_kib(std::process::id()).saturating_sub(before_kib) >> 10;
    let up: Vec<_> = links
        .iter()
        .map(|links| links.up.load(Ordering::Relaxed))
        .collect();
    drop(links);
    over.store(true, Ordering::Release);
    let [half_open, cheap, costly] = tasks.join_next().await.unwrap().unwrap();
    let counts = door.counts();
    println!("{counts:?}, highest {half_open} {cheap} {costly}, up {up:?}, grown {grown_mib} MiB");
    assert_eq!(target.inbox().await.len(), sent + 5);
    assert!(connected_anew > 0, "the known neighbour was never let in");
    assert!(half_open <= HALF_OPEN.all, "{half_open}");
    assert!(cheap <= CHEAP.all, "{cheap}");
    assert!(costly <= COSTLY.all, "{costly}");
    assert!(grown_mib < GROWTH_MIB_MAX, "{grown_mib} MiB");
    // The strangers were many, and nothing of them stays.
    assert!(counts.of(Outcome::DroppedLinks) + counts.of(Outcome::DroppedHalfOpen) > 0);
    assert!(counts.turned_away_recently > 0);
    let counts = counted(&door, "everybody is gone", |counts| {
        counts.half_open + counts.cheap + counts.costly == 0
    })
    .await;
    // Everything that came up ended in one counter.
    let ends = [
        Outcome::Evicted,
        Outcome::Silent,
        Outcome::Lost,
        Outcome::Excess,
        Outcome::KnockedWrong,
        Outcome::Versions,
        Outcome::TooManyKnocks,
        Outcome::CostlyFull,
        Outcome::ProofMissing,
        Outcome::ProofBad,
        Outcome::Failed,
        Outcome::Accepted,
    ];
    let ended: u64 = ends.iter().map(|end| counts.of(*end)).sum();
    let refused: u64 = counts.refused.iter().sum();
    assert_eq!(counts.of(Outcome::Arrived), ended + refused, "{counts:?}");
}

/// A link to the node at an address of its own, and the address's door.
async fn stranger(node: &Node, number: u32) -> Link {
    let dialler = QuicDialler::bind_at(neighbour(number)).unwrap();
    dialler.dial(address(node)).await.unwrap()
}

async fn closed(link: &mut Link) -> LinkError {
    let closed = async {
        loop {
            if let Err(error) = link.accept().await {
                return error;
            }
        }
    };
    // Sooner than a silent one's two seconds would be the point, but only the counter says which.
    tokio::time::timeout(DEADLINE, closed).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_and_two_kib_are_all_a_stranger_may_send_before_it_knocks() {
    let node = Node::start(1).await;
    let door = &node.tree().door;
    let stranger_code = u64::from(ErrorClass::Authentication.to_u16());

    let mut link = stranger(&node, 1).await;
    let (mut send, _receive) = link.open().await.unwrap();
    send.send(Bytes::from(vec![7; 64 << 10])).await.unwrap();
    let error = closed(&mut link).await;
    assert!(
        matches!(error, LinkError::Closed(code) if code == stranger_code),
        "{error:?}"
    );
    counted(door, "64 KiB", |counts| {
        counts.of(Outcome::Excess) + counts.of(Outcome::KnockedWrong) == 1
    })
    .await;

    let mut link = stranger(&node, 2).await;
    let (mut first, _receive) = link.open().await.unwrap();
    first.send(Bytes::from_static(b"packhorse")).await.unwrap();
    let (mut second, _receive) = link.open().await.unwrap();
    second.send(Bytes::from_static(b"x")).await.unwrap();
    let error = closed(&mut link).await;
    assert!(
        matches!(error, LinkError::Closed(code) if code == stranger_code),
        "{error:?}"
    );
    let counts = counted(door, "a second stream", |counts| {
        counts.of(Outcome::Excess) + counts.of(Outcome::KnockedWrong) == 2
    })
    .await;
    assert!(counts.of(Outcome::Excess) >= 1, "{counts:?}");
    assert_eq!(counts.of(Outcome::Silent), 0, "{counts:?}");
}

/// Who has knocked knows the id, so it may as well hear that it should come again.
#[tokio::test(flavor = "multi_thread")]
async fn who_knocks_in_a_crowd_hears_that_the_node_is_busy() {
    let node = Node::start(1).await;
    let door = &node.tree().door;
    let dialler = QuicDialler::bind_at(neighbour(9)).unwrap();
    let mut crowd = JoinSet::new();
    for place in 1..=COSTLY.per_prefix {
        let link = dialler.dial(address(&node)).await.unwrap();
        crowd.spawn(behave(link, id(1), Manner::NoProof));
        counted(door, "a place is taken", |counts| counts.costly == place).await;
    }
    let mut link = dialler.dial(address(&node)).await.unwrap();
    let (mut send, _receive) = link.open().await.unwrap();
    let hello = hello(&link, id(1), 200).1;
    send.send(hello.into()).await.unwrap();
    let error = closed(&mut link).await;
    let busy = u64::from(ErrorClass::Busy.to_u16());
    assert!(
        matches!(error, LinkError::Closed(code) if code == busy),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_knock_does_not_buy_more_than_proof_takes() {
    let node = Node::start(1).await;
    let door = &node.tree().door;
    // Eight KiB and more after a valid knock; and as much at once is too much before the knock.
    let link = stranger(&node, 6).await;
    let ended = tokio::time::timeout(DEADLINE, behave(link, id(1), Manner::NoEnd)).await;
    assert!(ended.is_ok(), "the link was left open");
    let counts = counted(door, "it was cut", |counts| {
        counts.costly + counts.cheap == 0 && counts.of(Outcome::Arrived) == 1
    })
    .await;
    let cut = counts.of(Outcome::Excess) + counts.of(Outcome::ProofBad);
    assert_eq!(cut, 1, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_sends_more_tls_than_there_is_gets_cut() {
    let node = Node::start(1).await;
    let door = &node.tree().door;
    let _socket = begin_far_behind(neighbour(7), address(&node)).await;
    // Cut, and not run out of time: that would be another counter.
    let counts = counted(door, "it was cut", |counts| {
        counts.of(Outcome::HalfOpenExcess) == 1
    })
    .await;
    assert_eq!(counts.of(Outcome::HalfOpenEnded), 0, "{counts:?}");
    counted(door, "it is gone", |counts| counts.half_open == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_link_is_closed_and_gives_its_place_back() {
    let node = Node::start(1).await;
    let door = &node.tree().door;
    let mut link = stranger(&node, 3).await;
    counted(door, "it holds a place", |counts| counts.cheap == 1).await;
    closed(&mut link).await;
    let counts = counted(door, "it is gone", |counts| counts.cheap == 0).await;
    assert_eq!(counts.of(Outcome::Silent), 1, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_peer_came_from_is_known_also_after_a_restart() {
    let mut node = Node::start(1).await;
    node.knows(4, None, &["message.send:*"]).await;
    let dialler = QuicDialler::bind_at(neighbour(5)).unwrap();
    let (_link, answer) = authenticate(&dialler, address(&node), id(1), 4)
        .await
        .unwrap();
    assert!(matches!(answer, Answer::Accepted { .. }), "{answer:?}");
    assert_eq!(node.tree().door.counts().known_prefixes, 1);
    node.stop().await;
    node.run().await;
    assert_eq!(node.tree().door.counts().known_prefixes, 1);
    assert_ne!(Prefix::of(neighbour(5)), Prefix::Here);
}
