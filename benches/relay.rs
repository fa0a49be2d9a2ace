//! What a lab's relay costs: datagrams through one, against the same over the loopback alone.
//!
//! Sketch: over the loopback a datagram costs one send and one receive, a few microseconds.
//! A relay adds one of each on another thread, so with a processor to spare at least half of the rate
//! is left, and with none about a third.
//!
//! Datagrams go in bursts that fit into a socket's buffer, and the recipient answers the last one of
//! each: nothing is lost, and what is measured is the way and not the sender.
//! The recipient is this program once more, which the lab takes for a node.
//!
//! `cargo bench --bench relay`

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod support;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use packhorse::lab::Cluster;
use support::{Contender, figure, interleave, runtime};

/// As large as most packets of nodes.
const BYTES: usize = 1_400;
const BURST: usize = 32;
const BURSTS: usize = 500;
const ROUNDS: usize = 9;
/// Longer than an answer takes that is to come.
const SOON: Duration = Duration::from_secs(10);
/// The first byte of a datagram that is to be answered.
const ANSWER: u8 = 1;

fn main() {
    if std::env::args().any(|word| word == "up") {
        return recipient();
    }
    let runtime = runtime();
    let cluster = runtime.block_on(async {
        let program = std::env::current_exe().expect("this bench");
        let builder = Cluster::builder().program(program);
        let cluster = builder.node("sender").node("recipient").build().await;
        let cluster = cluster.expect("two folders");
        cluster.start("recipient").await.expect("it starts");
        cluster
    });
    let ready = cluster.node("recipient").expect("a node").ready();
    let direct = ready.and_then(|ready| ready.address()).expect("it listens");
    let relay = cluster.network().address("sender", "recipient");
    let relay = relay.expect("a relay");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a deadline");
    println!("{BURSTS} bursts of {BURST} datagrams of {BYTES} B, {ROUNDS} interleaved rounds");
    let socket = &socket;
    let contender = |name, to| Contender {
        name,
        round: Box::new(move || bursts(socket, to)),
    };
    let medians = interleave(
        ROUNDS,
        &mut [
            contender("loopback", direct),
            contender("through a relay", relay),
        ],
    );
    for (name, median) in ["loopback", "through a relay"].iter().zip(&medians) {
        let per_s = (BURSTS * BURST) as f64 / median.as_secs_f64();
        let mib_per_s = per_s * BYTES as f64 / f64::from(1 << 20);
        println!("  {name:<44} {per_s:>9.0} datagrams/s   {mib_per_s:>7.1} MiB/s");
    }
    let ratio = medians[0].as_secs_f64() / medians[1].as_secs_f64();
    figure(
        "rate through a relay",
        ratio,
        "at least 0.3 of the loopback",
    );
    let lost = cluster.network().counts("sender", "recipient");
    let lost = lost.expect("a way").undeliverable;
    assert_eq!(lost, 0, "a burst is too large for a socket's buffer");
    runtime.block_on(cluster.end()).expect("nothing is left");
}

/// How long it takes until all bursts have been answered.
fn bursts(socket: &UdpSocket, to: SocketAddr) -> Duration {
    let mut datagram = [0; BYTES];
    let start = Instant::now();
    for _ in 0..BURSTS {
        for number in 1..=BURST {
            datagram[0] = if number == BURST { ANSWER } else { 0 };
            socket.send_to(&datagram, to).expect("sent");
        }
        socket.recv_from(&mut [0; BYTES]).expect("an answer");
    }
    start.elapsed()
}

/// Says what a node says when it is ready, and answers until its stdin closes.
fn recipient() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let address = socket.local_addr().expect("bound");
    println!(r#"{{"node":"n","name":"recipient","listen":["quic://{address}"]}}"#);
    std::io::stdout().flush().expect("told");
    std::thread::spawn(move || {
        let mut datagram = [0; BYTES];
        while let Ok((_, from)) = socket.recv_from(&mut datagram) {
            if datagram[0] == ANSWER {
                let _ = socket.send_to(&[ANSWER], from);
            }
        }
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
