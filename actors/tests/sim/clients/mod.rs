//! Everybody who uses a node: those who send, those who consume, those who watch, and whoever
//! decides by hand.
//!
//! They are tasks of the process and die with it. What a client must remember beyond that lies in
//! the machine, as a client of another process would remember it.
//!
//! Read [`live`], then the clients one by one.

use std::{collections::BTreeMap, convert::Infallible, future::Future, rc::Rc, sync::Arc};

use packhorse_actors::{
    env::Clock,
    inbox::InboxError,
    store::{PeerNumber, StoreError},
    tree::Tree,
};
use packhorse_protocol::grant::Grants;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    host::{Command, Machine, id_of, meet},
    ledger::{Call, Said, What},
    plan::{Node, Plan},
};

mod by_hand;
mod consumers;
mod observers;
mod orders;
mod rest;
mod senders;

/// One process and what its clients share.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) machine: Rc<Machine>,
    pub(crate) tree: Arc<Tree>,
    numbers: Rc<BTreeMap<Node, PeerNumber>>,
}

impl Desk {
    fn plan(&self) -> &Plan {
        &self.machine.plan
    }

    fn note(&self, what: What) {
        self.machine.note(what);
    }

    fn call(&self) -> Call {
        self.machine.ledger.call()
    }

    /// What the machine's wall clock shows.
    fn wall_ms(&self) -> u64 {
        Clock::now_ms(&*self.machine.clock)
    }

    /// A peer's number here.
    fn number(&self, node: Node) -> Option<PeerNumber> {
        self.numbers.get(&node).copied()
    }

    /// Which machine a number stands for. One that no machine has is told as a machine beyond them.
    fn node(&self, number: PeerNumber) -> Node {
        let known = self.numbers.iter().find(|(_, known)| **known == number);
        known.map_or(usize::MAX, |(node, _)| *node)
    }
}

/// Lets all clients of a process live; it ends when it is dropped, and they with it.
pub(crate) async fn live(
    machine: Rc<Machine>,
    tree: Arc<Tree>,
    commands: mpsc::Receiver<Command>,
) -> Infallible {
    let numbers = Rc::new(introduce(&machine, &tree).await);
    let desk = Desk {
        machine,
        tree,
        numbers,
    };
    let mut tasks = Tasks::default();
    tasks.add(orders::carry_out(desk.clone(), commands));
    observers::add(&mut tasks, &desk);
    if !desk.machine.is_copy {
        senders::add(&mut tasks, &desk);
        consumers::add(&mut tasks, &desk);
        tasks.add(rest::watch(desk));
    }
    std::future::pending().await
}

/// Tasks that die with whoever holds them.
#[derive(Default)]
struct Tasks(JoinSet<()>);

impl Tasks {
    fn add(&mut self, task: impl Future<Output = ()> + 'static) {
        self.0.spawn_local(task);
    }
}

/// Makes peers of those that the store does not know yet.
async fn introduce(machine: &Machine, tree: &Tree) -> BTreeMap<Node, PeerNumber> {
    let mut numbers = BTreeMap::new();
    for node in machine.plan.topology.peers_of(machine.node) {
        if let Some(number) = introduce_one(machine, tree, node).await {
            numbers.insert(node, number);
        }
    }
    numbers
}

/// One of them; a store that takes nothing now is asked again, for as long as it takes.
async fn introduce_one(machine: &Machine, tree: &Tree, node: Node) -> Option<PeerNumber> {
    loop {
        let every = tree.store.every_peer().await.unwrap_or_default();
        let known = every.into_iter().find(|peer| peer.id == id_of(node));
        // Also one that was forgotten keeps its number, and is no stranger to be met.
        if let Some(known) = known {
            return Some(known.number);
        }
        if machine.is_copy {
            return None;
        }
        let (grants, knows) = terms(&machine.plan, machine.node, node);
        if let Ok(number) = meet(tree, node, knows, grants).await {
            return Some(number);
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// What a peer may do here at first, and whether it can be dialled from here.
fn terms(plan: &Plan, node: Node, peer: Node) -> (Grants, bool) {
    let grants = plan.topology.grants(node, peer).unwrap_or_default();
    let grants = grants.iter().map(|text| text.parse().expect("a grant"));
    let grants = Grants::new(grants).expect("few grants");
    let pair = plan
        .topology
        .pairs
        .iter()
        .find(|pair| (pair.a, pair.b) == (node, peer) || (pair.b, pair.a) == (node, peer));
    let knows = pair.is_some_and(|pair| match pair.a == node {
        true => pair.a_knows_b,
        false => pair.b_knows_a,
    });
    (grants, knows)
}

/// What an error of the store says about whether the job was done.
fn said<T>(answer: Result<T, StoreError>) -> Said<T> {
    match answer {
        Ok(value) => Said::Yes(value),
        Err(error) if is_certain(&error) => Said::No(error.to_string()),
        Err(error) => Said::Unknown(error.to_string()),
    }
}

fn said_by_inbox<T>(answer: Result<T, InboxError>) -> Said<T> {
    match answer {
        Ok(value) => Said::Yes(value),
        Err(InboxError::Store(error)) => said(Err(error)),
        Err(error @ InboxError::Address(_)) => Said::Unknown(error.to_string()),
        Err(error) => Said::No(error.to_string()),
    }
}

/// Whether nothing was done.
fn is_certain(error: &StoreError) -> bool {
    match error {
        StoreError::Refused(_) | StoreError::Closed => true,
        // The disk itself: the batch may have come so far that the next open finds it.
        StoreError::Full { what } => what != "the disk",
        _ => false,
    }
}
