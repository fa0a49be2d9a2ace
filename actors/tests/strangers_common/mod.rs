//! Strangers of every kind, from as many addresses of 127.0.0.0/8 as one likes.
//!
//! 127.0.0.1 itself is exempt from bounds per neighbour, so nobody here comes from there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "tests and benches use their own parts")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "lengths of packets are small"
)]

mod initial;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use packhorse_actors::link::{Link, LinkError, QuicDialler, ReceiveHalf, SendHalf};
use packhorse_protocol::{
    epoch::Epoch,
    handshake::{
        Answer, DialIntent, HELLO_BYTES, Initiator, LinkKind, Local, REPLY_BYTES, VERDICT_BYTES,
    },
    identity::IdentityKey,
    node_id::NodeId,
};
use tokio::{net::UdpSocket, sync::Semaphore, task::JoinSet};

/// How long a stranger waits for an answer before it moves on.
const ANSWER_WITHIN: Duration = Duration::from_millis(150);
/// Strangers of one flood that are busy at once: each has a socket.
const AT_ONCE: usize = 400;

/// An address of this machine that counts as a neighbour of its own.
pub(crate) fn neighbour(number: u32) -> IpAddr {
    let [_, a, b, c] = (number + 2).to_be_bytes();
    Ipv4Addr::new(127, 64 | a, b, c).into()
}

/// What a real dialler says in its first datagrams.
pub(crate) struct FirstFlight {
    source: Vec<u8>,
    frames: Vec<Vec<u8>>,
}

impl FirstFlight {
    /// Lets a real dialler dial a socket that never answers, and looks at what it sends.
    pub(crate) async fn capture() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut dialling = JoinSet::new();
        dialling.spawn(async move {
            let _ = QuicDialler::bind().unwrap().dial(address).await;
        });
        let mut flight = Self {
            source: Vec::new(),
            frames: Vec::new(),
        };
        let mut datagram = [0; 9_000];
        // X25519MLKEM768 does not fit one datagram: a ClientHello comes in two.
        while flight.frames.len() < 2 {
            let (length, _) = socket.recv_from(&mut datagram).await.unwrap();
            let opened = initial::open(&datagram[..length]).unwrap();
            flight.source = opened.source;
            flight.frames.push(opened.frames);
        }
        flight
    }

    /// Begins one handshake and never goes on; a Retry is answered. True if one was asked.
    async fn begin(&self, number: u64, from: IpAddr, to: SocketAddr) -> bool {
        let Ok(socket) = UdpSocket::bind((from, 0)).await else {
            return false;
        };
        let destination = number.to_be_bytes();
        self.send(&socket, to, &destination, &[]).await;
        let mut answer = [0; 2_000];
        let mut has_retried = false;
        while let Ok(Ok((length, _))) =
            tokio::time::timeout(ANSWER_WITHIN, socket.recv_from(&mut answer)).await
        {
            match initial::retry(&answer[..length]) {
                Some((destination, token)) if !has_retried => {
                    has_retried = true;
                    self.send(&socket, to, &destination, &token).await;
                }
                _ if has_retried => break,
                Some(_) => {}
                None => break,
            }
        }
        has_retried
    }

    async fn send(&self, socket: &UdpSocket, to: SocketAddr, destination: &[u8], token: &[u8]) {
        for (number, frames) in self.frames.iter().enumerate() {
            let packet = initial::write(destination, &self.source, token, number as u8, frames);
            let _ = socket.send_to(&packet, to).await;
        }
    }
}

/// Begins one handshake whose TLS begins far behind where a ClientHello ends.
pub(crate) async fn begin_far_behind(from: IpAddr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    // A CRYPTO frame (type 6) of one byte at offset 100,000, as RFC 9000, section 19.6 writes it.
    let frame = [6, 0x80, 0x01, 0x86, 0xa0, 1, 0];
    let packet = initial::write(&[9; 8], &[8; 8], &[], 0, &frame);
    socket.send_to(&packet, to).await.unwrap();
    socket
}

/// Begins `count` handshakes from `addresses` neighbours, at most so many a second. Returns how
/// many were asked to show their address.
pub(crate) async fn half_open(to: SocketAddr, count: u64, addresses: u32, per_s: u32) -> u64 {
    let flight = Arc::new(FirstFlight::capture().await);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let retried = Arc::new(AtomicU64::new(0));
    let mut strangers = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_s);
    for number in 0..count {
        pace.tick().await;
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let (flight, retried) = (Arc::clone(&flight), Arc::clone(&retried));
        let from = neighbour((number % u64::from(addresses)) as u32);
        strangers.spawn(async move {
            // Destinations are made up by diallers; the high bits tell floods apart.
            if flight.begin(number | 0xfeed << 48, from, to).await {
                retried.fetch_add(1, Ordering::Relaxed);
            }
            drop(place);
        });
        while strangers.try_join_next().is_some() {}
    }
    while strangers.join_next().await.is_some() {}
    retried.load(Ordering::Relaxed)
}

/// What a stranger does once its link is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Nothing.
    Silent,
    /// It sends as many bytes as a Hello has, which do not knock.
    KnocksWrong,
    /// It knocks, having learnt the id somewhere, and never sends Proof.
    NoProof,
    /// It knocks, and then sends more than any Proof has, before it has read Reply.
    NoEnd,
}

/// Strangers that bring up links, over and over, until dropped.
pub(crate) struct Links {
    _tasks: JoinSet<()>,
    /// Links that came up.
    pub(crate) up: Arc<AtomicU64>,
}

impl Links {
    /// `count` strangers, each at an address of its own that begins at `first`.
    pub(crate) fn flood(
        to: SocketAddr,
        responder: NodeId,
        first: u32,
        count: u32,
        manner: Manner,
    ) -> Self {
        let up = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for number in first..first + count {
            let up = Arc::clone(&up);
            tasks.spawn(async move {
                let dialler = QuicDialler::bind_at(neighbour(number)).unwrap();
                loop {
                    let dialled = tokio::time::timeout(Duration::from_secs(5), dialler.dial(to));
                    let Ok(Ok(link)) = dialled.await else {
                        continue;
                    };
                    up.fetch_add(1, Ordering::Relaxed);
                    let _ = behave(link, responder, manner).await;
                }
            });
        }
        Self { _tasks: tasks, up }
    }
}

/// Lives as its manner is until the other end closes the link.
pub(crate) async fn behave(
    mut link: Link,
    responder: NodeId,
    manner: Manner,
) -> Result<(), LinkError> {
    if manner != Manner::Silent {
        let (mut send, mut receive) = link.open().await?;
        let hello = match manner {
            Manner::NoProof => hello(&link, responder, 200).1,
            Manner::NoEnd => {
                let mut bytes = hello(&link, responder, 200).1;
                bytes.resize(8 * bytes.len(), 0);
                bytes
            }
            _ => vec![7; HELLO_BYTES],
        };
        send.send(hello.into()).await?;
        while receive.read_or_end(1).await?.is_some() {}
    }
    loop {
        link.accept().await?;
    }
}

pub(crate) fn hello(link: &Link, responder: NodeId, seed: u8) -> (Initiator, Vec<u8>) {
    static DIALS: AtomicU64 = AtomicU64::new(0);
    let intent = DialIntent {
        dial_counter: DIALS.fetch_add(1, Ordering::Relaxed) + 1,
        alive: None,
        pairing: None,
    };
    let local = Local {
        name: format!("node{seed}"),
        addresses: Vec::new(),
        epoch: Epoch {
            boot: 1,
            nonce: u64::from(seed),
        },
    };
    Initiator::start(
        &IdentityKey::from_seed(&[seed; 32]),
        responder,
        LinkKind::Quic,
        link.info().binding,
        local,
        intent,
        [seed; 128],
    )
    .unwrap()
}

/// An honest dialler at an address of its own, as far as Verdict. The link comes with it.
pub(crate) async fn authenticate(
    dialler: &QuicDialler,
    to: SocketAddr,
    responder: NodeId,
    seed: u8,
) -> Result<(Link, Answer), LinkError> {
    let mut link = dialler.dial(to).await?;
    let (mut send, mut receive): (SendHalf, ReceiveHalf) = link.open().await?;
    let (initiator, hello) = hello(&link, responder, seed);
    send.send(hello.into()).await?;
    let reply = receive.read_exact(REPLY_BYTES).await?;
    let (awaiting, proof) = initiator
        .on_reply(&reply)
        .map_err(|error| LinkError::Lost(error.to_string()))?;
    send.send(proof.into()).await?;
    let verdict = receive.read_exact(VERDICT_BYTES).await?;
    let answer = awaiting
        .on_verdict(&verdict)
        .map_err(|error| LinkError::Lost(error.to_string()))?;
    Ok((link, answer))
}

/// The resident memory of a process, in KiB.
pub(crate) fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
