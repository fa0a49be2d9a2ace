//! What a flood of strangers costs an honest peer: latency from `send` to `stored` over a live
//! session with and without the flood, and what the flooded node's memory grows by.
//!
//! Sketch: the gate lets 100 QUIC handshakes a second begin, 0.3 ms of a core each, so 3 % of one;
//! every further first packet costs one decryption of its head and one HMAC for a Retry, about
//! 10 us, so 2,000 a second take 2 %. A half-open handshake holds about 40 KiB, and 384 of them are
//! 15 MiB. Latency should not move but for the core that the flood's own process takes.
//!
//! The flood runs in a process of its own: half-open handshakes from 5,000 addresses of 127.0.0.0/8
//! that answer Retry, and 30 strangers that bring up links and are silent, knock wrongly, or knock
//! and never prove themselves. Send to stored is two syncs and a round trip.
//!
//! `cargo bench --bench flood`

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../actors/tests/strangers_common/mod.rs"]
mod strangers_common;
mod support;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use packhorse::{Grant, Join, Node, NodeId, Outgoing, ReceiptState, Ticket};
use strangers_common::{Links, Manner, half_open, resident_kib};
use support::{figure, ms, runtime, scratch};

const ROUNDS: usize = 5;
const MESSAGES: usize = 200;
/// First packets that the flood begins in a second, and how many it begins at most.
const HALF_OPEN_PER_S: u32 = 2_000;
const HALF_OPEN_COUNT: u64 = 1_000_000;
const ADDRESSES: u32 = 5_000;
/// Until buckets are empty and places taken.
const FLOOD_GROWS: Duration = Duration::from_secs(5);
/// Until every half-open handshake and every place has run out.
const FLOOD_EBBS: Duration = Duration::from_secs(5);
/// Names the child that floods, and whom.
const FLOOD: &str = "PACKHORSE_BENCH_FLOOD";

fn main() {
    let runtime = runtime();
    if let Ok(target) = std::env::var(FLOOD) {
        let (to, id) = target.split_once(' ').expect("address and id");
        let (to, id) = (to.parse().expect("an address"), id.parse().expect("an id"));
        return runtime.block_on(flood(to, id));
    }
    let folder = scratch();
    let (mut target, address, id) = up(&folder.path().join("target"));
    let ticket = packhorse(
        &folder.path().join("target"),
        &["invite", "--grant", "message.send:*"],
    );
    let sender = runtime.block_on(join(&folder.path().join("sender"), &ticket));
    runtime.block_on(latencies(&sender));
    let before_kib = resident_kib(target.id());
    let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
    let mut highest_kib = before_kib;
    for round in 1..=ROUNDS {
        let a = runtime.block_on(latencies(&sender));
        let mut strangers = Command::new(std::env::current_exe().expect("this bench"))
            .env(FLOOD, format!("{address} {id}"))
            .spawn()
            .expect("the flood starts");
        std::thread::sleep(FLOOD_GROWS);
        let watch = Watch::begin(target.id());
        let b = runtime.block_on(latencies(&sender));
        let kib = watch.highest();
        highest_kib = highest_kib.max(kib);
        strangers.kill().expect("alive");
        strangers.wait().expect("reaped");
        std::thread::sleep(FLOOD_EBBS);
        println!(
            "  round {round}: quiet {}, flooded {}, {:.1} MiB",
            text(&a),
            text(&b),
            mib(kib)
        );
        quiet.extend(a);
        flooded.extend(b);
    }
    quiet.sort_unstable();
    flooded.sort_unstable();
    println!("  quiet:    {}", text(&quiet));
    println!("  flooded:  {}", text(&flooded));
    println!(
        "  resident: {:.1} MiB before, {:.1} MiB at most, {:.1} MiB after",
        mib(before_kib),
        mib(highest_kib),
        mib(resident_kib(target.id()))
    );
    for line in packhorse(&folder.path().join("target"), &["metrics"]).lines() {
        if line.starts_with("packhorse_strangers") && !line.ends_with(" 0") {
            println!("  {line}");
        }
    }
    let ratio = |at: usize, of: usize| {
        quantile(&flooded, at, of).as_secs_f64() / quantile(&quiet, at, of).as_secs_f64()
    };
    figure("median under the flood", ratio(1, 2), "at most 2");
    figure("p99 under the flood", ratio(99, 100), "at most 2");
    runtime.block_on(sender.shutdown());
    target.kill().expect("alive");
    target.wait().expect("reaped");
}

/// Floods until it is killed.
async fn flood(to: SocketAddr, id: NodeId) {
    let _links = [
        Links::flood(to, id, 700_000, 10, Manner::Silent),
        Links::flood(to, id, 710_000, 10, Manner::KnocksWrong),
        Links::flood(to, id, 720_000, 10, Manner::NoProof),
    ];
    half_open(to, HALF_OPEN_COUNT, ADDRESSES, HALF_OPEN_PER_S).await;
}

/// One after another, from `send` to `stored` there.
async fn latencies(sender: &Node) -> Vec<Duration> {
    let mut times = Vec::with_capacity(MESSAGES);
    for _ in 0..MESSAGES {
        let start = Instant::now();
        let receipt = sender
            .send("target", Outgoing::new("bench", vec![7; 256]))
            .await
            .expect("accepted");
        let receipt = sender
            .wait(receipt, ReceiptState::Stored, Duration::from_secs(60))
            .await
            .expect("a receipt");
        assert_eq!(receipt.state, ReceiptState::Stored);
        times.push(start.elapsed());
    }
    times
}

async fn join(folder: &Path, ticket: &str) -> Node {
    let sender = Node::builder(folder)
        .name("sender")
        .start()
        .await
        .expect("the sender starts");
    let ticket: Ticket = ticket.trim().parse().expect("a ticket");
    let grant: Grant = "message.send:*".parse().expect("a grant");
    let join = Join {
        name: Some("target".to_owned()),
        grants: vec![grant],
    };
    sender.join(&ticket, join).await.expect("both sides pair");
    sender
}

/// Starts the node that is flooded, and waits for its ready line.
fn up(folder: &Path) -> (Child, SocketAddr, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_packhorse"))
        .arg("--data-dir")
        .arg(folder)
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--name",
            "target",
            "--json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let ready: serde_json::Value = serde_json::from_str(&line).expect("a ready line");
    let address = ready["listen"][0].as_str().expect("an address");
    let address = address.trim_start_matches("quic://");
    (
        child,
        address.parse().expect("an address"),
        ready["node"].as_str().expect("an id").to_owned(),
    )
}

fn packhorse(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_packhorse"))
        .arg("--data-dir")
        .arg(folder)
        .args(arguments)
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{arguments:?} failed");
    String::from_utf8(output.stdout).expect("text")
}

/// Looks at a process' memory from a thread of its own.
struct Watch {
    over: Arc<AtomicBool>,
    highest_kib: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn begin(process: u32) -> Self {
        let (over, highest_kib) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (is_over, highest) = (Arc::clone(&over), Arc::clone(&highest_kib));
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Acquire) {
                highest.fetch_max(resident_kib(process), Ordering::AcqRel);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            over,
            highest_kib,
            thread,
        }
    }

    fn highest(self) -> u64 {
        self.over.store(true, Ordering::Release);
        self.thread.join().expect("it only looks");
        self.highest_kib.load(Ordering::Acquire)
    }
}

fn quantile(times: &[Duration], at: usize, of: usize) -> Duration {
    times[(times.len() * at / of).min(times.len() - 1)]
}

fn text(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    format!(
        "median {:>7.3} ms, p99 {:>7.3} ms",
        ms(quantile(&sorted, 1, 2)),
        ms(quantile(&sorted, 99, 100))
    )
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}
