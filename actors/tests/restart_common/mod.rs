//! What the crash matrix shares: three real trees in one process, over loopback QUIC.
//!
//! `left` is the node that suffers; it is paired with `right` and with `third`, who do not know
//! each other. Everything is sent under a key and repeated until it is acknowledged, so that the
//! ledger holds exactly what the store has promised to keep.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use packhorse_actors::{
    env::Env,
    fault::{Fault, When},
    inbox::{ClaimRequest, InboxError},
    session::{JoinOptions, RequestPolicy},
    store::{
        EngineKind, InviteRecord, MemoryDisk, NewMessage, PeerNumber, Store, StoreConfig,
        StoreError,
    },
    supervise::{Branch, LifeEvent},
    tree::{Tree, TreeConfig},
};
use packhorse_protocol::{
    epoch::Lane,
    grant::Grants,
    identity::IdentityKey,
    message::{DeliveryClass, Message},
    ticket::Ticket,
};
use tokio::sync::broadcast;

/// Far above what anything here takes, far below what a person waits.
pub(crate) const DEADLINE: Duration = Duration::from_secs(25);
/// The longest shutdown: the store's and the sessions' deadlines, without a margin for hangs.
pub(crate) const SHUTDOWN_WITHIN: Duration = Duration::from_secs(15);
const TOPIC: &str = "work";

/// In the census of `left`.
pub(crate) const TO_RIGHT: &str = "session 1";
pub(crate) const TO_THIRD: &str = "session 2";
/// As `left` numbers its peers; the others have only one.
pub(crate) const RIGHT: PeerNumber = PeerNumber(1);
pub(crate) const THIRD: PeerNumber = PeerNumber(2);
pub(crate) const LEFT: PeerNumber = PeerNumber(1);

/// A node that can be started again on what it left behind.
pub(crate) struct Node {
    identity: IdentityKey,
    name: &'static str,
    engine: EngineKind,
    /// The same port after each restart.
    address: SocketAddr,
    folder: PathBuf,
    _folder: Option<tempfile::TempDir>,
    tree: Option<Arc<Tree>>,
    /// What this node was promised to be kept, by recipient.
    promised: BTreeMap<&'static str, BTreeSet<String>>,
    /// What consumers of this node saw, by arrival.
    seen: BTreeMap<u64, String>,
}

fn grants() -> Grants {
    let all = "message.send:*".parse().expect("this is a grant");
    Grants::new([all]).expect("one is not too many")
}

fn keyed(text: &str) -> NewMessage {
    let message = Message {
        class: DeliveryClass::Critical,
        topic: TOPIC.to_owned(),
        born_ms: 1,
        headers: Vec::new(),
        payload: text.as_bytes().to_vec(),
    };
    NewMessage {
        key: Some(text.to_owned()),
        ..NewMessage::new(message)
    }
}

impl Node {
    fn new(seed: u8, name: &'static str, in_files: bool) -> Self {
        let folder = in_files.then(|| tempfile::tempdir().expect("a folder can be made"));
        let (engine, path) = match &folder {
            Some(folder) => (EngineKind::Fjall, folder.path().join("data")),
            None => (
                EngineKind::Memory(MemoryDisk::new(u64::from(seed))),
                PathBuf::from("/nowhere"),
            ),
        };
        Self {
            identity: IdentityKey::from_seed(&[seed; 32]),
            name,
            engine,
            address: "127.0.0.1:0".parse().expect("this is an address"),
            folder: path,
            _folder: folder,
            tree: None,
            promised: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    pub(crate) async fn start(&mut self) {
        // The last connections of the former life say goodbye for up to a second.
        let is_free = async {
            while std::net::UdpSocket::bind(self.address).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, is_free)
            .await
            .expect("a node that has ended gives its port back");
        let mut config = StoreConfig::new(
            self.folder.clone(),
            self.identity.id(),
            [7; 32],
            Env::system(),
        );
        config.engine = self.engine.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&config));
        let store = opened
            .await
            .expect("opening ends")
            .expect("the store opens");
        let tree = Tree::start(TreeConfig {
            identity: self.identity.clone(),
            name: self.name.to_owned(),
            listen: vec![self.address],
            advertise: Vec::new(),
            requests: RequestPolicy::default(),
            store,
            env: Env::system(),
        });
        let tree = tree.await.expect("the tree starts");
        self.address = tree.listening[0];
        self.tree = Some(Arc::new(tree));
    }

    pub(crate) fn tree(&self) -> &Tree {
        self.tree.as_ref().expect("the node runs")
    }

    /// Stops the node; fails when that takes too long. Returns how long it took.
    pub(crate) async fn stop(&mut self) -> Duration {
        let tree = self.tree.take().expect("the node runs");
        let began = tokio::time::Instant::now();
        tokio::time::timeout(SHUTDOWN_WITHIN, tree.shutdown())
            .await
            .unwrap_or_else(|_| panic!("{} did not stop in time", self.name));
        began.elapsed()
    }

    /// Sends until it is acknowledged; `None` when the store takes no more.
    pub(crate) async fn send(
        &mut self,
        to: &'static str,
        peer: PeerNumber,
        text: String,
    ) -> Option<()> {
        let sending = async {
            loop {
                let tree = self.tree();
                match tree
                    .store
                    .accept(peer, Lane::User, vec![keyed(&text)])
                    .await
                {
                    Ok(_) => return Some(()),
                    // The writer is being restarted: the same key makes repeating harmless.
                    Err(StoreError::Unknown) => {}
                    Err(_) => return None,
                }
            }
        };
        let sent = tokio::time::timeout(DEADLINE, sending)
            .await
            .unwrap_or_else(|_| panic!("{text} was not acknowledged"));
        if sent.is_some() {
            self.promised.entry(to).or_default().insert(text);
        }
        sent
    }

    /// Takes what is in the inbox, once.
    pub(crate) async fn take(&mut self) {
        let tree = Arc::clone(self.tree.as_ref().expect("the node runs"));
        let rows = match tree.inbox.claim(ClaimRequest::new(TOPIC, 100)).await {
            Ok(rows) => rows,
            // The inbox is being restarted: whoever waits for messages asks again.
            Err(InboxError::Address(_)) => return,
            Err(error) => panic!("{}: {error}", self.name),
        };
        let mut arrivals = Vec::new();
        for row in rows {
            let row = row.row;
            arrivals.push(row.arrival);
            let text = String::from_utf8(row.message.payload).expect("it was a text");
            self.seen.insert(row.arrival, text);
        }
        if !arrivals.is_empty() {
            // An answer that is lost leaves them to be handed out again, under the same numbers.
            let _ = tree.inbox.acknowledge(arrivals).await;
        }
    }

    /// Waits until all of `promised` was seen here, and fails on whatever came twice.
    pub(crate) async fn expect_all(&mut self, promised: &BTreeSet<String>) {
        let waiting = async {
            let mut arrived = self.tree().store.inbox_arrived();
            loop {
                arrived.borrow_and_update();
                self.take().await;
                let seen: BTreeSet<_> = self.seen.values().cloned().collect();
                if promised.is_subset(&seen) {
                    break;
                }
                // Also looks again by itself: what an inbox that died had handed out comes back.
                let _ = tokio::time::timeout(Duration::from_millis(200), arrived.changed()).await;
            }
        };
        if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
            let seen: BTreeSet<_> = self.seen.values().cloned().collect();
            let missing: Vec<_> = promised.difference(&seen).collect();
            panic!("{} misses {missing:?}", self.name);
        }
        let mut once = BTreeSet::new();
        for text in self.seen.values() {
            assert!(once.insert(text), "{} got {text} twice", self.name);
        }
    }

    pub(crate) async fn order(&self, actor: &str, when: When, fault: Fault) {
        let ordered = self.tree().faults().order(actor, when, fault).await;
        assert!(ordered, "{actor} of {} runs", self.name);
    }

    pub(crate) fn branch(&self, actor: &str) -> Option<Branch> {
        self.tree().census().find(actor).cloned()
    }

    /// Waits until the actor's first incarnation is gone.
    pub(crate) async fn expect_death(
        &self,
        lives: &mut broadcast::Receiver<LifeEvent>,
        actor: &str,
    ) {
        let dead = async {
            while self
                .branch(actor)
                .is_some_and(|it| it.is_running && it.incarnation == 1)
            {
                lives.recv().await.expect("no fact is missed");
            }
        };
        let dead = tokio::time::timeout(DEADLINE, dead).await;
        assert!(
            dead.is_ok(),
            "{actor} lives on: {:#?}",
            self.tree().census()
        );
    }

    /// Waits until an incarnation of the actor that is not below `incarnation` runs.
    pub(crate) async fn expect_running(
        &self,
        lives: &mut broadcast::Receiver<LifeEvent>,
        actor: &str,
        incarnation: u64,
    ) -> Branch {
        let running = async {
            loop {
                let branch = self.branch(actor);
                if let Some(branch) =
                    branch.filter(|it| it.is_running && it.incarnation >= incarnation)
                {
                    return branch;
                }
                lives.recv().await.expect("no fact is missed");
            }
        };
        tokio::time::timeout(DEADLINE, running)
            .await
            .unwrap_or_else(|_| {
                panic!(
                    "{actor} {incarnation} does not run: {:#?}",
                    self.tree().census()
                )
            })
    }

    async fn invite(&self) -> Ticket {
        let env = Env::system();
        let tree = self.tree();
        let ticket = Ticket::new(
            self.identity.id(),
            env.random_bytes(),
            env.random_bytes(),
            tree.me.announced.current(),
        )
        .expect("short hints");
        let invite = InviteRecord {
            ticket_id: ticket.id(),
            key: ticket.key(),
            grants: grants(),
            made_ms: env.now_ms(),
            expires_ms: env.now_ms() + 3_600_000,
            uses_left: 1,
            users: Vec::new(),
            grants_for_ms: None,
            revoked_ms: None,
            compares: Vec::new(),
        };
        tree.store
            .add_invite(invite)
            .await
            .expect("the ticket is kept");
        ticket
    }

    async fn join(&self, inviter: &Node) {
        let ticket = inviter.invite().await;
        let options = JoinOptions {
            name: None,
            grants: grants(),
        };
        let joined = self.tree().sessions.join(ticket, options);
        joined.await.expect("they pair");
    }

    /// A message for the session supervisor that changes nothing.
    pub(crate) async fn join_itself(&self) {
        let ticket = self.invite().await;
        let options = JoinOptions {
            name: None,
            grants: grants(),
        };
        let asked = self.tree().sessions.join(ticket, options);
        let answer = tokio::time::timeout(DEADLINE, asked).await;
        assert!(matches!(answer, Ok(Err(_))), "no node pairs with itself");
    }
}

/// The three nodes.
pub(crate) struct Scene {
    pub(crate) left: Node,
    pub(crate) right: Node,
    pub(crate) third: Node,
    sent: usize,
    tasks: usize,
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

impl Scene {
    /// Three nodes, two pairings, two sessions, and some work done.
    pub(crate) async fn new(in_files: bool) -> Self {
        let tasks = alive_tasks();
        let mut scene = Self {
            left: Node::new(1, "left", in_files),
            right: Node::new(2, "right", false),
            third: Node::new(3, "third", false),
            sent: 0,
            tasks,
        };
        scene.left.start().await;
        scene.right.start().await;
        scene.third.start().await;
        let mut lives = scene.left.tree().probe.listen();
        scene.left.join(&scene.right).await;
        scene.left.join(&scene.third).await;
        let left = &scene.left;
        left.expect_running(&mut lives, TO_RIGHT, 1).await;
        left.expect_running(&mut lives, TO_THIRD, 1).await;
        assert!(scene.send_all(2).await, "nothing is wrong yet");
        scene.settle().await;
        scene
    }

    /// Waits until nothing of `left`'s is under way.
    pub(crate) async fn settle(&self) {
        let store = &self.left.tree().store;
        let settled = async {
            for peer in [RIGHT, THIRD] {
                let mut counts = store.outbox_counts(peer);
                let nothing = counts.wait_for(|counts| counts.total() == 0).await;
                nothing.expect("the store lives");
            }
        };
        tokio::time::timeout(DEADLINE, settled)
            .await
            .expect("everything is acknowledged");
    }

    /// Sends `rounds` messages along each way; `false` when a store took no more.
    pub(crate) async fn send_all(&mut self, rounds: usize) -> bool {
        for _ in 0..rounds {
            self.sent += 1;
            let number = self.sent;
            let sent = [
                self.left
                    .send("right", RIGHT, format!("left to right {number}"))
                    .await,
                self.left
                    .send("third", THIRD, format!("left to third {number}"))
                    .await,
                self.right
                    .send("left", LEFT, format!("right to left {number}"))
                    .await,
                self.third
                    .send("left", LEFT, format!("third to left {number}"))
                    .await,
            ];
            if sent.contains(&None) {
                return false;
            }
        }
        true
    }

    /// Everything that was promised is where it belongs, once.
    pub(crate) async fn expect_delivered(&mut self) {
        let to = |node: &Node, name| node.promised.get(name).cloned().unwrap_or_default();
        let (for_right, for_third) = (to(&self.left, "right"), to(&self.left, "third"));
        let mut for_left = to(&self.right, "left");
        for_left.extend(to(&self.third, "left"));
        self.right.expect_all(&for_right).await;
        self.third.expect_all(&for_third).await;
        self.left.expect_all(&for_left).await;
    }

    /// Every permanent actor of `left` runs, as often as it should have been started.
    pub(crate) fn expect_incarnations(&self, faulted: &str, incarnation: u64) {
        let tree = self.left.tree().census();
        assert!(tree.is_running, "the root runs");
        let mut names = BTreeSet::new();
        for child in &tree.children {
            assert!(names.insert(&child.actor), "{} is there twice", child.actor);
            assert!(child.is_running, "{child:?}");
            let expected = if child.actor == faulted {
                incarnation
            } else {
                1
            };
            assert_eq!(child.incarnation, expected, "{}", child.actor);
            assert_eq!(child.restarts, expected - 1, "{}", child.actor);
        }
        assert_eq!(
            names.len(),
            6,
            "store, bus, inbox, sessions, retry, listener"
        );
    }

    /// Stops everybody; then no task is left that was not there before.
    pub(crate) async fn end(mut self) {
        tokio::join!(self.left.stop(), self.right.stop(), self.third.stop());
        let quiet = async {
            // Tasks tell nobody when they have ended; this is polled.
            while alive_tasks() > self.tasks {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // A dial that was cut off holds its endpoint until QUIC's own handshake deadline, 10 s.
        let left_over = tokio::time::timeout(DEADLINE, quiet).await;
        assert!(
            left_over.is_ok(),
            "{} tasks outlive their trees",
            alive_tasks() - self.tasks
        );
    }
}
