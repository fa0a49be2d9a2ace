//! End to end: 256-byte critical messages, fsynced on both sides, against a bare fjall writer that
//! commits groups of 256 rows of the same size with one sync each.
//!
//! Sketch: the bare writer spends about 2.3 us a row on one core. End to end there are an insert
//! and a delete on one side, two inserts on the other, four AEAD passes on disk and two on the
//! wire, and two nodes share the machine's cores: about 15 us of CPU a message, so on two cores
//! 0.3 of the bare rate is what the design can reach at best.
//!
//! `cargo bench --bench end_to_end`

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod support;

use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use packhorse::{Node, Outgoing, ReceiptState};
use support::{Contender, figure, interleave, paired, runtime, scratch};

const MESSAGES: usize = 40_960;
const GROUP: usize = 256;
const PAYLOAD: usize = 256;
const ROUNDS: usize = 5;

fn main() {
    let runtime = runtime();
    let folder = scratch();
    let (sender, recipient) = runtime.block_on(paired(&folder));
    let bare = Database::builder(folder.path().join("bare"))
        .open()
        .expect("a database");
    let rows = bare
        .keyspace("rows", KeyspaceCreateOptions::default)
        .expect("a keyspace");
    let mut number = 0_u64;
    println!("{MESSAGES} messages of {PAYLOAD} B, groups of {GROUP}, {ROUNDS} interleaved rounds");
    let medians = interleave(
        ROUNDS,
        &mut [
            Contender {
                name: "bare fjall writer",
                round: Box::new(|| {
                    let start = Instant::now();
                    for _ in 0..MESSAGES / GROUP {
                        let mut batch = bare.batch().durability(Some(PersistMode::SyncData));
                        for _ in 0..GROUP {
                            number += 1;
                            batch.insert(&rows, number.to_be_bytes(), vec![7; PAYLOAD]);
                        }
                        batch.commit().expect("committed");
                    }
                    start.elapsed()
                }),
            },
            Contender {
                name: "accepted here, stored there",
                round: Box::new(|| runtime.block_on(end_to_end(&sender, &recipient))),
            },
        ],
    );
    let rate = |time: Duration| MESSAGES as f64 / time.as_secs_f64();
    println!(
        "  bare {:.0}/s, end to end {:.0}/s",
        rate(medians[0]),
        rate(medians[1])
    );
    figure(
        "end to end to bare",
        rate(medians[1]) / rate(medians[0]),
        "floor 0.15, aim 0.30",
    );
    runtime.block_on(async {
        sender.shutdown().await;
        recipient.shutdown().await;
    });
}

/// Four calls in flight, each of one group; ends when the last message is stored there.
async fn end_to_end(sender: &Node, recipient: &Node) -> Duration {
    let before = recipient.inbox(0).await.expect("a listing").total;
    let start = Instant::now();
    let mut last = None;
    for _ in 0..MESSAGES / GROUP / 4 {
        let calls = [(); 4].map(|()| {
            let messages = (0..GROUP)
                .map(|_| Outgoing::new("bench", vec![7_u8; PAYLOAD]))
                .collect();
            sender.send_many("recipient", messages)
        });
        let [one, two, three, four] = calls;
        let (one, two, three, four) = tokio::join!(one, two, three, four);
        for receipts in [one, two, three, four] {
            // Calls in flight together are accepted in any order.
            let receipts = receipts.expect("accepted");
            last = receipts
                .into_iter()
                .chain(last)
                .max_by_key(|receipt| receipt.id.position);
        }
    }
    let last = last.expect("there was a last group");
    let receipt = sender
        .wait(last, ReceiptState::Stored, Duration::from_secs(60))
        .await
        .expect("a receipt");
    assert_eq!(receipt.state, ReceiptState::Stored);
    let took = start.elapsed();
    let after = recipient.inbox(0).await.expect("a listing").total;
    assert_eq!(
        after - before,
        MESSAGES as u64,
        "each message is stored once"
    );
    took
}
