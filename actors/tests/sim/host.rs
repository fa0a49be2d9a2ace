//! One machine: its disk, its clocks, its identity, and the process that runs on it now, if one
//! does.
//!
//! Disk, clocks and randomness outlive the process. A machine decides nothing: the world starts,
//! crashes and fills it, and its clients use it.
//!
//! Read [`Machine::run`], which is the process.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use packhorse_actors::{
    env::{
        Env, Platform,
        testing::{ManualNetwork, SeededRandom},
    },
    session::RequestPolicy,
    store::{
        EngineKind, MemoryDisk, OpenError, Opened, PairInviter, PeerNumber, QUOTA_BYTES_MIN,
        Quotas, ReceiptId, ReceiptState, Store, StoreConfig,
    },
    tree::{Tree, TreeConfig},
};
use packhorse_protocol::{
    epoch::Epoch, grant::Grants, handshake::Introduction, identity::IdentityKey, node_id::NodeId,
};
use tokio::sync::{mpsc, watch};

use crate::{
    checks::NodeFinal,
    clients,
    clock::{SimClock, now_ms},
    ledger::{Place, SharedLedger, What},
    plan::{Actor, Letter, Manner, Moment, Node, Op, Plan},
};

/// Where every node listens.
const PORT: u16 = 7433;
/// Commands that wait for a process.
const COMMANDS_MAX: usize = 256;

/// So small that a burst fills them.
const TIGHT: Quotas = Quotas {
    outbox: QUOTA_BYTES_MIN,
    inbox: QUOTA_BYTES_MIN,
    inbox_share: QUOTA_BYTES_MIN / 4,
    dead: QUOTA_BYTES_MIN,
};

/// What is asked of the process from outside.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// An actor is to die.
    Die(Actor, Moment, Manner),
    /// No actor is to die that was told to and has not.
    Spare,
    Forget(Node),
    /// The peer that was forgotten is one again.
    Readmit(Node),
}

/// What the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Work,
    /// It is to end in order.
    Stop,
    /// The work is over; it says what is left once it stands still.
    Settle,
}

/// What a receipt showed.
type ReceiptSeen = (Option<ReceiptState>, Option<String>);

/// One machine.
pub(crate) struct Machine {
    pub(crate) node: Node,
    pub(crate) is_copy: bool,
    pub(crate) address: IpAddr,
    pub(crate) plan: Rc<Plan>,
    pub(crate) ledger: SharedLedger,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) disk: RefCell<MemoryDisk>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) commands: RefCell<Option<mpsc::Sender<Command>>>,
    /// What is left at the end, once it stands still; taken back when something moves again.
    pub(crate) remains: RefCell<Option<NodeFinal>>,
    /// What still moves, or has to.
    pub(crate) unrest: RefCell<String>,
    /// How the process ended by itself.
    pub(crate) ended: RefCell<Option<String>>,
    /// How many acts of the plan its clients have begun, over all lives.
    pub(crate) acts_begun: Cell<usize>,
    /// Peers that were forgotten and are to be peers again.
    pub(crate) to_readmit: RefCell<BTreeSet<Node>>,
    /// What was sent under a key and not answered.
    pub(crate) unanswered: RefCell<Vec<(Node, Letter)>>,
    /// Receipts that clients were given, in order.
    pub(crate) receipts: RefCell<Vec<ReceiptId>>,
    /// What a receipt showed when it was looked at last.
    pub(crate) receipts_seen: RefCell<BTreeMap<ReceiptId, ReceiptSeen>>,
    /// How often a consumer was handed a letter.
    pub(crate) times_seen: RefCell<BTreeMap<Op, u32>>,
    /// Rows that were noted.
    pub(crate) rows_seen: RefCell<BTreeSet<(&'static str, String)>>,
    /// Counts the starts of its process, from 1.
    life: Cell<u32>,
    random: Arc<SeededRandom>,
    network: Arc<ManualNetwork>,
    tree: RefCell<Option<Arc<Tree>>>,
}

impl Machine {
    pub(crate) fn new(plan: &Rc<Plan>, ledger: &SharedLedger, node: Node) -> Rc<Self> {
        let random = SeededRandom::new(plan.seed ^ ((node as u64 + 1) << 48));
        let disk = MemoryDisk::new(random.next_u64());
        let clock = SimClock::new();
        clock.jump(plan.topology.nodes[node].clock_ahead_ms);
        let address = address_of(node);
        Rc::new(Self::with(plan, ledger, node, address, disk, random, clock))
    }

    /// A second machine with a copy of this one's disk.
    pub(crate) fn copy(&self, disk: MemoryDisk, address: IpAddr) -> Rc<Self> {
        let random = SeededRandom::new(self.random.next_u64());
        let clock = SimClock::new();
        let (plan, ledger) = (&self.plan, &self.ledger);
        let mut copy = Self::with(plan, ledger, self.node, address, disk, random, clock);
        copy.is_copy = true;
        Rc::new(copy)
    }

    fn with(
        plan: &Rc<Plan>,
        ledger: &SharedLedger,
        node: Node,
        address: IpAddr,
        disk: MemoryDisk,
        random: Arc<SeededRandom>,
        clock: Arc<SimClock>,
    ) -> Self {
        Self {
            node,
            is_copy: false,
            address,
            plan: plan.clone(),
            ledger: ledger.clone(),
            clock,
            disk: RefCell::new(disk),
            phase: watch::Sender::new(Phase::Work),
            commands: RefCell::default(),
            remains: RefCell::default(),
            ended: RefCell::default(),
            acts_begun: Cell::default(),
            unrest: RefCell::default(),
            to_readmit: RefCell::default(),
            unanswered: RefCell::default(),
            receipts: RefCell::default(),
            receipts_seen: RefCell::default(),
            times_seen: RefCell::default(),
            rows_seen: RefCell::default(),
            life: Cell::default(),
            random,
            network: Arc::default(),
            tree: RefCell::default(),
        }
    }

    /// The process, from its start to its end.
    pub(crate) async fn run(self: Rc<Self>) {
        self.life.set(self.life.get() + 1);
        let how = match self.open() {
            Err(error) => format!("the store does not open: {error}"),
            Ok(store) => self.live(store).await,
        };
        self.note(What::Ended { how: how.clone() });
        self.put_out();
        *self.ended.borrow_mut() = Some(how);
    }

    async fn live(self: &Rc<Self>, store: Opened) -> String {
        let epoch = store.epoch();
        let (tell, commands) = mpsc::channel(COMMANDS_MAX);
        *self.commands.borrow_mut() = Some(tell);
        let tree = match self.start(store).await {
            Ok(tree) => Arc::new(tree),
            Err(error) => return format!("the tree does not start: {error}"),
        };
        *self.tree.borrow_mut() = Some(tree.clone());
        self.note(What::Started { epoch });
        let clients = clients::live(self.clone(), tree.clone(), commands);
        let mut phase = self.phase.subscribe();
        let asked = async {
            // ORDER: what is waited for is let go of at once; the world changes it any time.
            let _ = phase
                .wait_for(|phase| *phase == Phase::Stop)
                .await
                .map(drop);
        };
        tokio::select! {
            end = tree.ended() => format!("the tree ended: {end:?}"),
            never = clients => match never {},
            () = asked => {
                tree.shutdown().await;
                "stopped".to_owned()
            }
        }
    }

    fn open(&self) -> Result<Opened, OpenError> {
        let id = identity(self.node).id();
        let secret = [self.node as u8; 32];
        let mut config = StoreConfig::new(PathBuf::from("/nowhere"), id, secret, self.env());
        config.engine = EngineKind::Memory(self.disk.borrow().clone());
        if self.plan.topology.nodes[self.node].has_tight_quotas {
            config.quotas = TIGHT;
        }
        Store::open(&config)
    }

    async fn start(&self, store: Opened) -> Result<Tree, packhorse_actors::tree::TreeError> {
        let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
        let listens = self.plan.topology.nodes[self.node].listens;
        let config = TreeConfig {
            identity: identity(self.node),
            name: name(self.node),
            listen: listens.then_some(listen).into_iter().collect(),
            advertise: hint(self.address).filter(|_| listens).into_iter().collect(),
            requests: RequestPolicy::default(),
            store,
            env: self.env(),
        };
        Tree::start(config).await
    }

    fn env(&self) -> Env {
        Env {
            clock: self.clock.clone(),
            random: self.random.clone(),
            network: self.network.clone(),
            platform: Platform::Simulated,
        }
    }

    /// Its process is gone, in whatever way.
    pub(crate) fn put_out(&self) {
        self.commands.borrow_mut().take();
        self.remains.borrow_mut().take();
        self.tree.borrow_mut().take();
    }

    /// Tells the process something; nobody hears it on a machine that is down.
    pub(crate) fn tell(&self, command: Command) {
        if let Command::Readmit(peer) = command {
            // A person comes back to it, whatever the machine does meanwhile.
            self.to_readmit.borrow_mut().insert(peer);
        }
        if let Some(commands) = &*self.commands.borrow() {
            let _ = commands.try_send(command);
        }
    }

    /// Which process this is.
    pub(crate) fn place(&self) -> Place {
        Place {
            node: self.node,
            life: self.life.get(),
            is_copy: self.is_copy,
        }
    }

    /// Notes something at this moment, from inside the process.
    pub(crate) fn note(&self, what: What) {
        self.ledger.note(now_ms(), self.place(), what);
    }

    /// The next number of the machine's own randomness.
    pub(crate) fn draw(&self) -> u64 {
        self.random.next_u64()
    }
}

/// Makes another machine a peer, which may do here what `grants` say.
pub(crate) async fn meet(
    tree: &Tree,
    peer: Node,
    knows_address: bool,
    grants: Grants,
) -> Result<PeerNumber, packhorse_actors::store::StoreError> {
    let pair = PairInviter {
        introduction: Introduction {
            id: id_of(peer),
            name: name(peer),
            addresses: hint(address_of(peer))
                .filter(|_| knows_address)
                .into_iter()
                .collect(),
            epoch: Epoch { boot: 0, nonce: 0 },
        },
        name: None,
        grants,
        granted: Grants::none(),
        hints: Vec::new(),
    };
    let record = tree.store.pair_inviter(pair).await?;
    tree.retry.added(record.number);
    Ok(record.number)
}

fn identity(node: Node) -> IdentityKey {
    IdentityKey::from_seed(&[node as u8 + 1; 32])
}

/// The identity of a machine and of its copies.
pub(crate) fn id_of(node: Node) -> NodeId {
    identity(node).id()
}

fn name(node: Node) -> String {
    format!("node{node}")
}

fn hint(address: IpAddr) -> Option<String> {
    Some(format!("quic://{}", SocketAddr::new(address, PORT)))
}

/// The address of a machine in the simulated network; copies have those from 100 on.
pub(crate) fn address_of(number: usize) -> IpAddr {
    Ipv4Addr::new(192, 168, 0, u8::try_from(number + 1).unwrap_or(u8::MAX)).into()
}
