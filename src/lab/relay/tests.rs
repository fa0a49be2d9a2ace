//! Relays with real sockets on the loopback, in real time.
//!
//! Where a time is measured the test gives it a wide span: a loaded machine is late, never early.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tokio::time::{Instant, timeout};

use super::impairment::{Impairment, Rate, Share};
use super::*;
use crate::lab::random::Random;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than anything takes that is to come.
const SOON: Duration = Duration::from_secs(20);
/// How long nothing comes that is not to.
const QUIET: Duration = Duration::from_millis(150);
const NOTHING: [u32; 0] = [];
const MS: Duration = Duration::from_millis(1);

/// A dialler, a relay, and the target that it leads to.
struct Stage {
    dialler: UdpSocket,
    target: UdpSocket,
    ends: Ends,
    relay: Relay,
}

async fn socket() -> UdpSocket {
    UdpSocket::bind((HOST, 0)).await.expect("a socket")
}

impl Stage {
    async fn new(seed: u64) -> Stage {
        let runtime = Handle::current();
        let line = |name| Arc::new(Line::new(Random::named(seed, &[name]), &runtime));
        let target = socket().await;
        let ends = Ends {
            there: line("there"),
            back: line("back"),
            target: Arc::default(),
            dialler: Arc::default(),
            seen_as: HOST,
        };
        ends.target.set(target.local_addr().ok());
        let relay = Relay::open(HOST, ends.clone(), &runtime).expect("a free port");
        Stage {
            dialler: socket().await,
            target,
            ends,
            relay,
        }
    }

    fn impair(&self, impairment: Impairment) {
        self.ends.there.change(|now| *now = impairment);
    }

    async fn send(&self, number: u32) {
        send(&self.dialler, number, self.relay.address()).await;
    }

    /// Sends so many, a few at a time, so that no socket of the system overflows.
    async fn send_many(&self, count: u32) {
        for number in 0..count {
            self.send(number).await;
            if number % 32 == 31 {
                tokio::time::sleep(2 * MS).await;
            }
        }
    }

    /// The next number at the target and where it came from.
    async fn next(&self) -> (u32, SocketAddr) {
        let received = timeout(SOON, number_at(&self.target)).await;
        received.expect("it comes")
    }

    /// Everything that comes until nothing does.
    async fn rest(&self) -> Vec<u32> {
        let mut all = Vec::new();
        while let Ok((number, _)) = timeout(QUIET, number_at(&self.target)).await {
            all.push(number);
        }
        all
    }
}

async fn send(from: &UdpSocket, number: u32, to: SocketAddr) {
    let sent = from.send_to(&number.to_be_bytes(), to).await;
    assert_eq!(sent.expect("loopback takes it"), 4);
}

async fn number_at(socket: &UdpSocket) -> (u32, SocketAddr) {
    let mut buffer = [0; 4];
    let (bytes, from) = socket.recv_from(&mut buffer).await.expect("a datagram");
    assert_eq!(bytes, 4);
    (u32::from_be_bytes(buffer), from)
}

fn share(percent: f64) -> Share {
    Share::percent(percent).expect("a share")
}

#[tokio::test]
async fn datagrams_and_answers_pass_and_each_dialler_has_an_address_of_its_own() {
    let stage = Stage::new(1).await;
    stage.send(7).await;
    let (number, seen) = stage.next().await;
    assert_eq!(number, 7);
    assert_ne!(Some(seen), stage.dialler.local_addr().ok());
    send(&stage.target, 8, seen).await;
    let answer = timeout(SOON, number_at(&stage.dialler)).await;
    assert_eq!(answer.expect("it comes"), (8, stage.relay.address()));
    stage.send(9).await;
    assert_eq!(stage.next().await, (9, seen), "the same dialler");
    let other = socket().await;
    send(&other, 10, stage.relay.address()).await;
    let (number, seen_other) = stage.next().await;
    assert_eq!(number, 10);
    assert_ne!(seen_other, seen);
    // Nobody but the target answers.
    send(&other, 11, seen).await;
    assert!(timeout(QUIET, number_at(&stage.dialler)).await.is_err());
    assert_eq!(stage.ends.there.counts().delivered, 3);
    assert_eq!(stage.ends.back.counts().delivered, 1);
}

#[tokio::test]
async fn latency_is_waited_out_and_a_change_counts_at_once() {
    let stage = Stage::new(1).await;
    stage.impair(Impairment {
        latency: 80 * MS,
        ..Impairment::NONE
    });
    let begun = Instant::now();
    stage.send(1).await;
    assert_eq!(stage.next().await.0, 1);
    assert!(begun.elapsed() >= 80 * MS, "{:?}", begun.elapsed());
    stage.impair(Impairment {
        latency: 10 * SOON,
        ..Impairment::NONE
    });
    stage.send(2).await;
    assert_eq!(stage.rest().await, NOTHING);
    stage.impair(Impairment::NONE);
    stage.send(3).await;
    assert_eq!(stage.next().await.0, 3, "before what is under way");
}

#[tokio::test]
async fn a_cut_is_of_one_direction_and_ends() {
    let stage = Stage::new(1).await;
    stage.send(1).await;
    let (_, seen) = stage.next().await;
    stage.impair(Impairment {
        cut: true,
        ..Impairment::NONE
    });
    stage.send(2).await;
    assert_eq!(stage.rest().await, NOTHING);
    send(&stage.target, 3, seen).await;
    let answer = timeout(SOON, number_at(&stage.dialler)).await;
    assert_eq!(answer.expect("the other direction").0, 3);
    stage.impair(Impairment::NONE);
    stage.send(4).await;
    assert_eq!(stage.next().await, (4, seen));
    let counts = stage.ends.there.counts();
    assert_eq!((counts.cut, counts.delivered), (1, 2));
}

#[tokio::test]
async fn the_same_seed_loses_the_same_datagrams() {
    let mut runs = Vec::new();
    for seed in [5, 5, 6] {
        let stage = Stage::new(seed).await;
        stage.impair(Impairment {
            loss: share(30.0),
            ..Impairment::NONE
        });
        stage.send_many(200).await;
        let arrived = stage.rest().await;
        let counts = stage.ends.there.counts();
        assert_eq!(counts.lost + counts.delivered, 200);
        assert_eq!(counts.delivered, arrived.len() as u64);
        assert!((30..90).contains(&counts.lost), "{counts:?}");
        runs.push(arrived);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn some_come_twice_and_some_are_overtaken_and_none_is_missing() {
    let stage = Stage::new(3).await;
    stage.impair(Impairment {
        duplicate: share(20.0),
        reorder: share(20.0),
        ..Impairment::NONE
    });
    stage.send_many(200).await;
    let arrived = stage.rest().await;
    let counts = stage.ends.there.counts();
    assert!(counts.duplicated > 10 && counts.reordered > 10);
    assert_eq!(arrived.len() as u64, 200 + counts.duplicated);
    let distinct: BTreeSet<u32> = arrived.iter().copied().collect();
    assert_eq!(distinct.len(), 200);
    assert!(!arrived.is_sorted());
}

#[tokio::test]
async fn a_rate_takes_its_time_and_a_full_buffer_loses() {
    let stage = Stage::new(1).await;
    // 4 bytes at 1 KiB/s take 3.9 ms.
    let rate = Rate::bytes_per_second(1_024).expect("a rate");
    stage.impair(Impairment {
        rate: Some(rate),
        ..Impairment::NONE
    });
    let begun = Instant::now();
    for number in 0..26 {
        stage.send(number).await;
    }
    for number in 0..26 {
        assert_eq!(stage.next().await.0, number);
    }
    let took = begun.elapsed();
    assert!(took >= 100 * MS, "{took:?}");
    // 8 datagrams of 9,000 bytes need 9 s each: 32 KiB of them wait, the others are lost.
    for _ in 0..8 {
        let sent = stage.dialler.send_to(&[0; 9_000], stage.relay.address());
        sent.await.expect("loopback");
    }
    let arrived = async {
        while stage.ends.there.counts().offered < 34 {
            tokio::time::sleep(MS).await;
        }
    };
    timeout(SOON, arrived)
        .await
        .expect("they come to the relay");
    assert_eq!(stage.ends.there.counts().congested, 4);
}

#[tokio::test]
async fn a_relay_that_leads_nowhere_counts_and_finds_a_target_that_comes_back_elsewhere() {
    let mut stage = Stage::new(1).await;
    stage.send(1).await;
    let (_, seen) = stage.next().await;
    stage.ends.target.set(None);
    stage.send(2).await;
    assert_eq!(stage.rest().await, NOTHING);
    assert_eq!(stage.ends.there.counts().undeliverable, 1);
    stage.target = socket().await;
    stage.ends.target.set(stage.target.local_addr().ok());
    stage.send(3).await;
    assert_eq!(stage.next().await, (3, seen), "seen as before");
}

#[tokio::test]
async fn diallers_beyond_the_limit_cost_the_oldest_its_address_alone() {
    let stage = Stage::new(1).await;
    stage.send(0).await;
    let (_, seen) = stage.next().await;
    let mut others = Vec::new();
    for number in 1..=FLOWS_MAX {
        let other = socket().await;
        let number = u32::try_from(number).expect("a few");
        send(&other, number, stage.relay.address()).await;
        assert_eq!(stage.next().await.0, number);
        others.push(other);
    }
    stage.send(99).await;
    let (number, anew) = stage.next().await;
    assert_eq!(number, 99);
    assert_ne!(anew, seen);
}

#[tokio::test]
async fn the_end_of_a_dialler_closes_what_was_opened_for_it() {
    let stage = Stage::new(1).await;
    let mut seen = BTreeSet::new();
    for number in 0..3 {
        let dialler = socket().await;
        send(&dialler, number, stage.relay.address()).await;
        let (_, from) = stage.next().await;
        seen.insert(from);
    }
    stage.ends.dialler.set(None);
    for from in seen {
        // A port that somebody has cannot be had twice.
        let free = async {
            while UdpSocket::bind(from).await.is_err() {
                tokio::time::sleep(MS).await;
            }
        };
        timeout(SOON, free).await.expect("it is closed");
    }
    stage.send(9).await;
    assert_eq!(stage.next().await.0, 9, "whoever dials next");
}

#[tokio::test]
async fn what_is_larger_than_a_relay_carries_is_counted() {
    let stage = Stage::new(1).await;
    let large = vec![0; DATAGRAM_BYTES_MAX + 1];
    let sent = stage.dialler.send_to(&large, stage.relay.address());
    sent.await.expect("loopback");
    assert_eq!(stage.rest().await, NOTHING);
    assert_eq!(stage.ends.there.counts().too_large, 1);
}
