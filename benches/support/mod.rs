//! What the benches share: interleaved rounds, medians, scratch folders, two paired nodes.
//!
//! Machines are shared and noisy, so a figure is a ratio of two medians from one interleaved run.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::time::{Duration, Instant};

use packhorse::{Grant, Invite, Join, Node};
use tempfile::TempDir;

/// One contender: its name and what one round of it took.
pub(crate) struct Contender<'a> {
    /// As printed.
    pub(crate) name: &'a str,
    /// Runs one round and returns the time that counts.
    pub(crate) round: Box<dyn FnMut() -> Duration + 'a>,
}

/// Runs the contenders in turn, A B A B …, and prints the median of each with its spread.
pub(crate) fn interleave(rounds: usize, contenders: &mut [Contender<'_>]) -> Vec<Duration> {
    let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
    for round in 0..=rounds {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let took = (contender.round)();
            // The first round warms caches, connections and the page cache.
            if round > 0 {
                times.push(took);
            }
        }
    }
    times
        .iter_mut()
        .zip(contenders)
        .map(|(times, contender)| {
            times.sort_unstable();
            let median = times[times.len() / 2];
            println!(
                "  {:<44} median {:>9.3} ms   min {:>9.3}   max {:>9.3}",
                contender.name,
                ms(median),
                ms(times[0]),
                ms(times[times.len() - 1]),
            );
            median
        })
        .collect()
}

/// Prints a figure beside what was asked of it.
pub(crate) fn figure(name: &str, ratio: f64, wanted: &str) {
    println!("  => {name}: {ratio:.3} ({wanted})");
}

/// Milliseconds with their fraction.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Times one call.
pub(crate) fn timed<T>(call: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = call();
    (start.elapsed(), value)
}

/// A scratch folder on the disk that stores would use, not in memory.
pub(crate) fn scratch() -> TempDir {
    TempDir::with_prefix("ph-bench-").expect("a scratch folder")
}

/// The runtime that the product uses.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A sender and a recipient, paired over loopback.
pub(crate) async fn paired(scratch: &TempDir) -> (Node, Node) {
    let grant: Grant = "message.send:*".parse().expect("a grant");
    let sender = Node::builder(scratch.path().join("sender"))
        .name("sender")
        .listen(([127, 0, 0, 1], 0).into())
        .start()
        .await
        .expect("the sender starts");
    let recipient = Node::builder(scratch.path().join("recipient"))
        .name("recipient")
        .listen(([127, 0, 0, 1], 0).into())
        .start()
        .await
        .expect("the recipient starts");
    let invite = Invite {
        grants: vec![grant.clone()],
        ..Invite::default()
    };
    let ticket = recipient.invite(invite).await.expect("a ticket");
    let join = Join {
        name: Some("recipient".to_owned()),
        grants: vec![grant],
    };
    sender.join(&ticket, join).await.expect("both sides pair");
    (sender, recipient)
}
