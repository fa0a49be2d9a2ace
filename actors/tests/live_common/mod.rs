//! Whole trees in one process over loopback, and a peer that says yes and never reads again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    dead_code,
    reason = "compiled into every test binary, of which each uses another part"
)]

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use packhorse_actors::{
    board::{PeerLine, PeerState},
    env::{Env, testing::ManualNetwork},
    inbox::ClaimRequest,
    link::{Link, QuicListener, ReceiveHalf, SendHalf},
    session::RequestPolicy,
    store::{
        EngineKind, MemoryDisk, NewMessage, PairInviter, PeerNumber, PeerRecord, Store, StoreConfig,
    },
    tree::{Tree, TreeConfig},
};
use packhorse_protocol::{
    epoch::{Epoch, Lane},
    grant::Grants,
    handshake::{HELLO_BYTES, Introduction, LinkKind, Local, PROOF_BYTES, Responder},
    identity::IdentityKey,
    message::{DeliveryClass, Message},
};
use tokio::task::JoinSet;

/// Far above what anything here takes, far below what a person waits. Longer than a refused dial
/// rests: what comes right with the next one is no failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(50);

/// A node that can be started again on what it left behind.
pub(crate) struct Node {
    seed: u8,
    disk: MemoryDisk,
    pub(crate) network: Arc<ManualNetwork>,
    listens: bool,
    tree: Option<Tree>,
}

impl Node {
    pub(crate) async fn start(seed: u8) -> Self {
        let mut node = Self::loner(seed);
        node.listens = true;
        node.run().await;
        node
    }

    /// One that nobody can dial, not started yet.
    pub(crate) fn loner(seed: u8) -> Self {
        Self {
            seed,
            disk: MemoryDisk::new(u64::from(seed)),
            network: Arc::default(),
            listens: false,
            tree: None,
        }
    }

    pub(crate) async fn run(&mut self) {
        let mut env = Env::system();
        env.network = self.network.clone();
        let identity = identity(self.seed);
        let folder = PathBuf::from("/nowhere");
        let mut config = StoreConfig::new(folder, identity.id(), [7; 32], env.clone());
        config.engine = EngineKind::Memory(self.disk.clone());
        let config = TreeConfig {
            identity,
            name: name(self.seed),
            listen: self.listens.then(|| loopback(0)).into_iter().collect(),
            advertise: Vec::new(),
            requests: RequestPolicy::default(),
            store: Store::open(&config).unwrap(),
            env,
        };
        self.tree = Some(Tree::start(config).await.unwrap());
    }

    pub(crate) fn tree(&self) -> &Tree {
        self.tree.as_ref().expect("the node runs")
    }

    /// As a crash would.
    pub(crate) fn kill(&mut self) {
        self.tree = None;
    }

    /// In order; returns how long it took.
    pub(crate) async fn stop(&mut self) -> Duration {
        let began = tokio::time::Instant::now();
        self.tree.take().unwrap().shutdown().await;
        began.elapsed()
    }

    fn address(&self) -> Option<SocketAddr> {
        self.tree().listening.first().copied()
    }

    /// Knows the other one from now on, which may do here what `grants` say.
    pub(crate) async fn knows(
        &self,
        seed: u8,
        at: Option<SocketAddr>,
        grants: &[&str],
    ) -> PeerNumber {
        let pair = PairInviter {
            introduction: Introduction {
                id: identity(seed).id(),
                name: name(seed),
                addresses: at.iter().map(|at| format!("quic://{at}")).collect(),
                epoch: Epoch { boot: 0, nonce: 0 },
            },
            name: None,
            grants: Grants::new(grants.iter().map(|text| text.parse().unwrap())).unwrap(),
            granted: Grants::none(),
            hints: Vec::new(),
        };
        self.tree().store.pair_inviter(pair).await.unwrap().number
    }

    pub(crate) async fn send(&self, peer: PeerNumber, texts: &[String]) {
        let messages = texts
            .iter()
            .map(|text| NewMessage::new(message(DeliveryClass::Critical, text.as_bytes())));
        let store = &self.tree().store;
        store
            .accept(peer, Lane::User, messages.collect())
            .await
            .unwrap();
    }

    pub(crate) async fn record(&self, peer: PeerNumber) -> PeerRecord {
        self.tree().store.peer(peer).await.unwrap().unwrap()
    }

    /// Waits until what people see of a peer is as wished.
    pub(crate) async fn sees(
        &self,
        peer: PeerNumber,
        what: &str,
        is: impl Fn(&PeerLine) -> bool,
    ) -> PeerLine {
        let seen = async {
            loop {
                let line = self.tree().board.line(peer);
                if is(&line) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(DEADLINE, seen).await {
            Ok(line) => line,
            Err(_) => panic!("{what}: {:?}", self.tree().board.line(peer)),
        }
    }

    pub(crate) async fn connected(&self, peer: PeerNumber) {
        self.sees(peer, "connected", |line| line.state == PeerState::Connected)
            .await;
    }

    /// Waits until everything for a peer was acknowledged.
    pub(crate) async fn settled(&self, peer: PeerNumber, within: Duration) {
        let mut counts = self.tree().store.outbox_counts(peer);
        let settled = counts.wait_for(|counts| counts.total() == 0);
        let settled = tokio::time::timeout(within, settled).await;
        assert!(
            settled.is_ok(),
            "it waits still: {:?}",
            self.tree().board.line(peer)
        );
    }

    /// The payload of the next ephemeral message that arrives.
    pub(crate) async fn take_ephemeral(&self) -> Vec<u8> {
        let inbox = &self.tree().inbox;
        let taken = async {
            loop {
                let request = ClaimRequest::new("news", 100);
                let claimed = inbox.claim_waiting(request, DEADLINE).await.unwrap();
                if let Some(found) = claimed.into_iter().find(|claimed| claimed.is_ephemeral) {
                    return found.row.message.payload;
                }
            }
        };
        tokio::time::timeout(DEADLINE, taken).await.unwrap()
    }

    /// The payloads in the inbox, in order.
    pub(crate) async fn inbox(&self) -> Vec<String> {
        let listing = self.tree().store.inbox_list(100_000).await.unwrap();
        let texts = listing
            .rows
            .into_iter()
            .map(|row| String::from_utf8(row.message.payload).unwrap());
        texts.collect()
    }
}

/// Two nodes that know each other; each may send the other what the grants say.
pub(crate) async fn pair(one: &Node, other: &Node, grants: &[&str]) -> (PeerNumber, PeerNumber) {
    (
        one.knows(other.seed, other.address(), grants).await,
        other.knows(one.seed, one.address(), grants).await,
    )
}

pub(crate) fn message(class: DeliveryClass, payload: &[u8]) -> Message {
    Message {
        class,
        topic: "news".to_owned(),
        born_ms: 1_750_000_000_000,
        headers: Vec::new(),
        payload: payload.to_vec(),
    }
}

pub(crate) fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

pub(crate) fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

fn name(seed: u8) -> String {
    format!("node{seed}")
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A peer whose handshake is right, and which then reads nothing and says nothing. Its links live.
pub(crate) struct Stuck {
    pub(crate) address: SocketAddr,
    _task: JoinSet<()>,
}

impl Stuck {
    pub(crate) fn listen(seed: u8) -> Self {
        let mut listener = QuicListener::bind(loopback(0)).unwrap();
        let address = listener.address();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut held: Vec<(Link, SendHalf, ReceiveHalf)> = Vec::new();
            while let Some(link) = listener.accept().await {
                let mut link = link.unwrap();
                let (mut send, mut receive) = link.accept().await.unwrap();
                let hello = receive.read_exact(HELLO_BYTES).await.unwrap();
                let binding = link.info().binding;
                let responder = Responder::new(&identity(seed), LinkKind::Quic, binding);
                let (awaiting, reply) = responder.on_hello(&hello, [5; 128]).unwrap();
                send.send(reply.into()).await.unwrap();
                let proof = receive.read_exact(PROOF_BYTES).await.unwrap();
                let local = Local {
                    name: name(seed),
                    addresses: Vec::new(),
                    epoch: Epoch { boot: 1, nonce: 1 },
                };
                let decision = awaiting.on_proof(&proof).unwrap();
                let (verdict, _) = decision.accept(local, &Grants::none()).unwrap();
                send.send(verdict.into()).await.unwrap();
                send.finish().unwrap();
                held.push((link, send, receive));
            }
        });
        Self {
            address,
            _task: task,
        }
    }
}
