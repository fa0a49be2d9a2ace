//! What the store's tests share: two kinds of engines, a pair of nodes, and short ways to ask.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test binary uses a part"
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub(crate) mod outgoing;
pub(crate) mod pair;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use packhorse_actors::env::testing;
use packhorse_actors::store::{
    EngineKind, InviteRecord, MemoryDisk, NewMessage, OpenError, Opened, PairInviter, PairJoiner,
    PeerNumber, Store, StoreConfig, StoreHandle, Writer, WriterEnd,
};
use packhorse_protocol::epoch::{Epoch, Lane};
use packhorse_protocol::grant::Grants;
use packhorse_protocol::handshake::Introduction;
use packhorse_protocol::identity::IdentityKey;
use packhorse_protocol::message::{DeliveryClass, Message};
use packhorse_protocol::node_id::NodeId;
use packhorse_protocol::outbox::Inbound;
use packhorse_protocol::ticket::TicketKey;

/// Far above what anything here takes, far below what a person waits.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A place where a store can be opened again and again.
pub(crate) struct Place {
    pub(crate) config: StoreConfig,
    /// Removed with the place.
    pub(crate) folder: Option<tempfile::TempDir>,
    pub(crate) clock: Arc<testing::ManualClock>,
    seed: u64,
}

impl Place {
    pub(crate) fn memory(seed: u64) -> Self {
        let disk = MemoryDisk::new(seed);
        let mut place = Self::of(PathBuf::from("/nowhere"), EngineKind::Memory(disk), seed);
        place.folder = None;
        place
    }

    pub(crate) fn files() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Self::of(folder.path().join("data"), EngineKind::Fjall, 1);
        place.folder = Some(folder);
        place
    }

    fn of(path: PathBuf, engine: EngineKind, seed: u64) -> Self {
        let (env, clock) = testing::env(seed);
        let mut config = StoreConfig::new(path, node(1), [7; 32], env);
        config.engine = engine;
        config.lock_wait = Duration::ZERO;
        Self {
            config,
            folder: None,
            clock,
            seed,
        }
    }

    pub(crate) fn disk(&self) -> MemoryDisk {
        match &self.config.engine {
            EngineKind::Memory(disk) => disk.clone(),
            EngineKind::Fjall => panic!("this place has files"),
        }
    }

    pub(crate) fn try_open(&mut self) -> Result<Node, OpenError> {
        // Another life draws other numbers.
        self.seed += 1_000;
        self.config.env.random = testing::SeededRandom::new(self.seed);
        let opened = Store::open(&self.config)?;
        let writer = opened.start_writer().unwrap();
        Ok(Node {
            store: opened.handle(),
            writer,
            opened,
        })
    }

    pub(crate) fn open(&mut self) -> Node {
        self.try_open().unwrap()
    }
}

/// An open store with its writer.
pub(crate) struct Node {
    pub(crate) store: StoreHandle,
    pub(crate) writer: Writer,
    pub(crate) opened: Opened,
}

impl Node {
    /// A clean end.
    pub(crate) async fn close(mut self) {
        self.writer.stop();
        assert_eq!(within(self.writer.ended()).await, WriterEnd::Stopped);
        self.opened.close().unwrap();
    }

    /// Makes node `number` a peer that may send to `grants`.
    pub(crate) async fn pair(&self, number: u8, grants: &[&str]) -> PeerNumber {
        let pair = inviter(number, grants);
        self.store.pair_inviter(pair).await.unwrap().number
    }

    pub(crate) async fn accept(
        &self,
        peer: PeerNumber,
        texts: &[&str],
    ) -> Vec<packhorse_actors::store::Accepted> {
        let messages = texts.iter().map(|text| new(text)).collect();
        self.store.accept(peer, Lane::User, messages).await.unwrap()
    }

    /// The payloads that wait for a peer, in the order in which they would be sent.
    pub(crate) async fn waiting(&self, peer: PeerNumber) -> Vec<String> {
        let (rows, exhausted) = self
            .store
            .load(peer, Lane::User, None, usize::MAX, usize::MAX)
            .await
            .unwrap();
        assert!(exhausted);
        rows.into_iter()
            .map(|row| String::from_utf8(row.message.payload).unwrap())
            .collect()
    }

    /// The payloads that arrived on a topic.
    pub(crate) async fn arrived(&self, topic: &str) -> Vec<String> {
        let rows = self
            .store
            .inbox_waiting(topic.into(), 0, usize::MAX, usize::MAX)
            .await
            .unwrap();
        rows.into_iter()
            .map(|row| String::from_utf8(row.message.payload).unwrap())
            .collect()
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("it happens in time")
}

pub(crate) fn node(number: u8) -> NodeId {
    IdentityKey::from_seed(&[number; 32]).id()
}

pub(crate) fn introduction(number: u8) -> Introduction {
    Introduction {
        id: node(number),
        name: format!("node{number}"),
        addresses: vec![format!("quic://127.0.0.1:{}", 7_000 + u16::from(number))],
        epoch: epoch(1, u64::from(number)),
    }
}

pub(crate) fn grants_of(texts: &[&str]) -> Grants {
    Grants::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
}

pub(crate) fn epoch(boot: u32, nonce: u64) -> Epoch {
    Epoch { boot, nonce }
}

pub(crate) fn message(text: &str) -> Message {
    Message {
        class: DeliveryClass::Critical,
        topic: "news".into(),
        born_ms: 1_750_000_000_000,
        headers: vec![],
        payload: text.as_bytes().to_vec(),
    }
}

pub(crate) fn new(text: &str) -> NewMessage {
    NewMessage::new(message(text))
}

pub(crate) fn keyed(text: &str, key: &str) -> NewMessage {
    NewMessage {
        message: message(text),
        key: Some(key.into()),
        ..new(text)
    }
}

pub(crate) fn invite(id: u8, uses_left: u32, expires_ms: u64, grants: &[&str]) -> InviteRecord {
    InviteRecord {
        ticket_id: [id; 16],
        key: TicketKey::from_bytes(&[id; 32]),
        grants: grants_of(grants),
        made_ms: 0,
        expires_ms,
        uses_left,
        users: vec![],
        grants_for_ms: None,
        revoked_ms: None,
        compares: Vec::new(),
    }
}

pub(crate) fn joiner(ticket: u8, number: u8, now_ms: u64) -> PairJoiner {
    PairJoiner {
        ticket_id: [ticket; 16],
        introduction: introduction(number),
        now_ms,
    }
}

pub(crate) fn inviter(number: u8, grants: &[&str]) -> PairInviter {
    PairInviter {
        introduction: introduction(number),
        name: None,
        grants: grants_of(grants),
        granted: grants_of(&["message.send:*"]),
        hints: vec![],
    }
}

pub(crate) fn batch(epoch: Epoch, first: u64, texts: &[&str]) -> Inbound {
    let messages = texts.iter().map(|text| Ok(message(text))).collect();
    Inbound::Messages {
        epoch,
        first,
        messages,
    }
}

/// Runs one check in files and in memory.
macro_rules! over_both_engines {
    ($($name:ident)*) => {
        mod in_files {
            $(#[tokio::test] async fn $name() { super::$name(super::Place::files()).await; })*
        }
        mod in_memory {
            $(#[tokio::test] async fn $name() { super::$name(super::Place::memory(1)).await; })*
        }
    };
}

pub(crate) use over_both_engines;
