//! How fast the store takes messages in and lets them go, against a bare fjall writer.
//!
//! Estimate before measuring: a row of 256 bytes costs the engine about 2 µs in groups of 256 with
//! one sync (0.5 ms) each; encoding and sealing add about 0.5 µs, the view about 0.3 µs, so
//! accepting should reach 0.7 of the bare writer's rate. Settling deletes, which is cheaper.
//! Taking in writes two rows a message.
//!
//! Beside the rate stands the processor time of the writing thread alone, which a busy machine
//! changes less than the clock on the wall.
//! Rounds are interleaved, so that a change of the disk's mood meets every column; the median of
//! the rounds is shown.
//!
//! `cargo bench --bench store -- [FOLDER]`

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(
    clippy::unwrap_used,
    reason = "a measurement that fails has no use for an error"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use packhorse_actors::env::Env;
use packhorse_actors::store::{
    NewMessage, PairInviter, PeerNumber, Store, StoreConfig, StoreHandle,
};
use packhorse_protocol::epoch::{Epoch, Lane, Mark};
use packhorse_protocol::grant::Grants;
use packhorse_protocol::handshake::Introduction;
use packhorse_protocol::identity::IdentityKey;
use packhorse_protocol::message::{DeliveryClass, Message};
use packhorse_protocol::outbox::Inbound;

const GROUP: usize = 256;
const GROUPS_PER_ROUND: usize = 100;
const ROUNDS: usize = 7;
const PAYLOAD_BYTES: usize = 256;
/// Key 18, seal 29, layout 9, and the message's fields beside its payload.
const BARE_VALUE_BYTES: usize = PAYLOAD_BYTES + 29 + 9 + 31;

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"))
        .map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let bare = Bare::open(&folder.path().join("bare"));
    let env = Env::system();
    let id = IdentityKey::from_seed(&[1; 32]).id();
    let config = StoreConfig::new(folder.path().join("data"), id, [7; 32], env);
    let opened = Store::open(&config).unwrap();
    let writer = opened.start_writer().unwrap();
    let store = opened.handle();
    let peer = runtime.block_on(pair(&store));

    let mut columns: [(&str, Vec<f64>, Vec<f64>); 6] = [
        ("bare fjall, insert, groups of 256", vec![], vec![]),
        ("accept, one call of 256 at a time", vec![], vec![]),
        ("accept, four calls of 256 under way", vec![], vec![]),
        ("settle 256 at a time", vec![], vec![]),
        ("store_inbound, 256 at a time", vec![], vec![]),
        ("load, 1,024 at a time", vec![], vec![]),
    ];
    let mut settled = 0;
    for round in 0..ROUNDS as u64 {
        let base = round * (GROUP * GROUPS_PER_ROUND) as u64;
        let count = (GROUP * GROUPS_PER_ROUND) as f64;
        for (number, (_, rates, burnt)) in columns.iter_mut().enumerate() {
            let before = writer_time();
            let took = match number {
                0 => bare.round(base),
                1 => runtime.block_on(accept(&store, peer, 1)),
                2 => runtime.block_on(accept(&store, peer, 4)),
                3 => runtime.block_on(settle(&store, peer, &mut settled)),
                4 => runtime.block_on(take_in(&store, peer, base)),
                _ => runtime.block_on(load(&store, peer)),
            };
            rates.push(count / took.as_secs_f64());
            let thread = if number == 0 { 0 } else { 1 };
            burnt.push((writer_time()[thread] - before[thread]) as f64 / 1e3 / count);
        }
        // Half of what was accepted is left waiting; the rest goes, so that rounds are alike.
        runtime.block_on(settle(&store, peer, &mut settled));
    }
    let median = |rates: &[f64]| {
        let mut sorted = rates.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let bare_rate = median(&columns[0].1);
    println!(
        "{:<38} {:>9} {:>7} {:>8} {:>18}",
        "256-byte messages", "per s", "ratio", "µs each", "writing thread µs"
    );
    for (name, rates, burnt) in &columns {
        let rate = median(rates);
        let (ratio, each, burnt) = (rate / bare_rate, 1e6 / rate, median(burnt));
        println!("{name:<38} {rate:>9.0} {ratio:>7.2} {each:>8.2} {burnt:>18.2}");
    }
    drop(writer);
    opened.close().unwrap();
}

/// Nanoseconds that this thread, and the store's writer, have spent on a processor.
fn writer_time() -> [u64; 2] {
    let mut times = [0; 2];
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let ran = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let ran = ran
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        if name.trim() == "packhorse-store" {
            times[1] = ran;
        } else if task.ends_with(std::process::id().to_string()) {
            times[0] = ran;
        }
    }
    times
}

async fn pair(store: &StoreHandle) -> PeerNumber {
    let grants = Grants::new(["message.send:*".parse().unwrap()]).unwrap();
    let introduction = Introduction {
        id: IdentityKey::from_seed(&[2; 32]).id(),
        name: "other".into(),
        addresses: vec![],
        epoch: Epoch { boot: 1, nonce: 1 },
    };
    let pair = PairInviter {
        introduction,
        name: None,
        grants: grants.clone(),
        granted: grants,
        hints: vec![],
    };
    store.pair_inviter(pair).await.unwrap().number
}

fn message(number: u64) -> Message {
    let mut payload = vec![0x5a; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    Message {
        class: DeliveryClass::Critical,
        topic: "news".into(),
        born_ms: 1_750_000_000_000,
        headers: vec![],
        payload,
    }
}

async fn accept(store: &StoreHandle, peer: PeerNumber, under_way: usize) -> Duration {
    let groups: Vec<Vec<NewMessage>> = (0..GROUPS_PER_ROUND)
        .map(|_| {
            (0..GROUP as u64)
                .map(|number| NewMessage::new(message(number)))
                .collect()
        })
        .collect();
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(under_way));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for group in groups {
        let permit = permits.clone().acquire_owned().await.unwrap();
        let store = store.clone();
        tasks.spawn(async move {
            store.accept(peer, Lane::User, group).await.unwrap();
            drop(permit);
        });
    }
    tasks.join_all().await;
    started.elapsed()
}

async fn settle(store: &StoreHandle, peer: PeerNumber, settled: &mut u64) -> Duration {
    let epoch = store.epoch();
    let started = Instant::now();
    for _ in 0..GROUPS_PER_ROUND {
        *settled += GROUP as u64;
        let marks = vec![Mark {
            epoch,
            settled: *settled,
        }];
        store.settle(peer, Lane::User, marks, vec![]).await.unwrap();
    }
    started.elapsed()
}

async fn take_in(store: &StoreHandle, peer: PeerNumber, base: u64) -> Duration {
    let epoch = Epoch { boot: 3, nonce: 3 };
    let groups: Vec<Inbound> = (0..GROUPS_PER_ROUND as u64)
        .map(|group| Inbound::Messages {
            epoch,
            first: base + group * GROUP as u64 + 1,
            messages: (0..GROUP as u64)
                .map(|number| Ok(message(number)))
                .collect(),
        })
        .collect();
    let started = Instant::now();
    for group in groups {
        store
            .store_inbound(peer, Lane::User, vec![group])
            .await
            .unwrap();
    }
    started.elapsed()
}

async fn load(store: &StoreHandle, peer: PeerNumber) -> Duration {
    let started = Instant::now();
    let mut after = None;
    let mut count = 0;
    while count < GROUP * GROUPS_PER_ROUND {
        let (rows, _) = store
            .load(peer, Lane::User, after, 1_024, 1 << 20)
            .await
            .unwrap();
        count += rows.len();
        after = rows.last().map(|row| row.position);
        assert!(after.is_some(), "as many wait as are loaded");
    }
    started.elapsed()
}

/// A writer that does nothing but write.
struct Bare {
    database: fjall::Database,
    rows: fjall::Keyspace,
}

impl Bare {
    fn open(path: &Path) -> Self {
        let database = fjall::Database::builder(path)
            .cache_size(8 << 20)
            .max_journaling_size(64 << 20)
            .worker_threads(1)
            .open()
            .unwrap();
        let options = || fjall::KeyspaceCreateOptions::default().max_memtable_size(8 << 20);
        let rows = database.keyspace("rows", options).unwrap();
        Self { database, rows }
    }

    fn round(&self, base: u64) -> Duration {
        let value = vec![0x5a; BARE_VALUE_BYTES];
        let started = Instant::now();
        for group in 0..GROUPS_PER_ROUND as u64 {
            let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), GROUP)
                .durability(Some(fjall::PersistMode::SyncData));
            for number in 0..GROUP as u64 {
                let mut key = [0; 18];
                key[10..].copy_from_slice(&(base + group * GROUP as u64 + number).to_be_bytes());
                batch.insert(&self.rows, key, value.clone());
            }
            batch.commit().unwrap();
        }
        started.elapsed()
    }
}
