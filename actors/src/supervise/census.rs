//! Who lives in the tree, as a picture that anybody can take at any moment.
//!
//! Supervisors write here what they do; the census outlives all of them, so that a peer's sessions
//! are counted on when their supervisor was restarted.
//! Nobody decides anything from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{gauge::Gauge, watched::Watch};
use crate::env::Env;
use ractor::ActorCell;

/// The root's name in the tree.
pub const ROOT: &str = "root";
/// The session supervisor's name in the tree.
pub const SESSIONS: &str = "session supervisor";

/// One actor and those below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its name in the tree.
    pub actor: String,
    /// Counts its starts, from 1.
    pub incarnation: u64,
    /// How often it was started again.
    pub restarts: u64,
    /// How its last incarnation ended.
    pub last_exit: Option<String>,
    /// When the present incarnation was started, in monotonic milliseconds of the node's clock.
    pub started_ms: u64,
    /// Messages from others that wait in its mailbox.
    pub queue_depth: u64,
    /// Whether it runs now.
    pub is_running: bool,
    /// Those that it supervises, in the order in which they were first started.
    pub children: Vec<Branch>,
}

impl Branch {
    /// The branch with this name, here or below.
    #[must_use]
    pub fn find(&self, actor: &str) -> Option<&Branch> {
        if self.actor == actor {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(actor))
    }
}

/// The census of one tree; clones are the same.
#[derive(Clone, Debug)]
pub struct Census {
    env: Env,
    inner: Arc<Mutex<Vec<Node>>>,
    #[cfg(feature = "fault")]
    plan: crate::fault::FaultPlan,
}

#[derive(Debug)]
struct Node {
    name: String,
    supervisor: String,
    incarnation: u64,
    last_exit: Option<String>,
    started_ms: u64,
    is_running: bool,
    watch: Watch,
    cell: Option<ActorCell>,
}

impl Census {
    /// Of a tree that is about to be started.
    #[must_use]
    pub fn new(env: Env, #[cfg(feature = "fault")] plan: crate::fault::FaultPlan) -> Self {
        Self {
            env,
            inner: Arc::default(),
            #[cfg(feature = "fault")]
            plan,
        }
    }

    /// Notes that an incarnation of `name` is about to be started, and gives it its number.
    #[must_use]
    pub(crate) fn enter(&self, supervisor: &str, name: &str) -> Watch {
        let mut nodes = self.lock();
        let incarnation = nodes
            .iter()
            .find(|node| node.name == name)
            .map_or(0, |node| node.incarnation)
            + 1;
        let watch = Watch {
            name: Arc::from(name),
            incarnation,
            depth: Gauge::default(),
            pings: Arc::default(),
            #[cfg(feature = "fault")]
            plan: self.plan.clone(),
        };
        match nodes.iter_mut().find(|node| node.name == name) {
            Some(node) => {
                node.incarnation = incarnation;
                node.watch = watch.clone();
                node.cell = None;
            }
            None => nodes.push(Node {
                name: name.to_owned(),
                supervisor: supervisor.to_owned(),
                incarnation,
                last_exit: None,
                started_ms: 0,
                is_running: false,
                watch: watch.clone(),
                cell: None,
            }),
        }
        watch
    }

    /// Notes that the incarnation runs.
    pub(crate) fn started(&self, watch: &Watch, cell: ActorCell) {
        let now_ms = self.env.monotonic_ms();
        if let Some(node) = self
            .lock()
            .iter_mut()
            .find(|node| node.name == *watch.name && node.incarnation == watch.incarnation)
        {
            node.started_ms = now_ms;
            node.is_running = true;
            node.cell = Some(cell);
        }
    }

    /// Notes how the incarnation ended. Those below it ended with it. Returns their names and
    /// incarnations.
    pub(crate) fn ended(&self, name: &str, incarnation: u64, reason: &str) -> Vec<(String, u64)> {
        let mut with_it = Vec::new();
        for node in self.lock().iter_mut() {
            if node.name == name && node.incarnation == incarnation {
                node.is_running = false;
                node.cell = None;
                node.last_exit = Some(reason.to_owned());
            } else if node.supervisor == name && node.is_running {
                node.is_running = false;
                node.cell = None;
                node.last_exit = Some(format!("its supervisor ended: {reason}"));
                with_it.push((node.name.clone(), node.incarnation));
            }
        }
        with_it
    }

    /// The tree as it is now.
    #[must_use]
    pub fn tree(&self) -> Branch {
        let nodes = self.lock();
        let root = nodes.iter().find(|node| node.name == ROOT);
        let mut tree = root.map_or_else(
            || Branch {
                actor: ROOT.to_owned(),
                incarnation: 0,
                restarts: 0,
                last_exit: None,
                started_ms: 0,
                queue_depth: 0,
                is_running: false,
                children: Vec::new(),
            },
            branch,
        );
        tree.children = below(&nodes, ROOT);
        tree
    }

    /// Asks every running child of the root whether its mailbox moves, all at once. The names of
    /// those that did not answer come back when the asker's deadline is over.
    pub(crate) fn ping(&self) -> Vec<(String, Option<oneshot::Receiver<()>>, Option<ActorCell>)> {
        let nodes = self.lock();
        let children = nodes.iter().filter(|node| node.supervisor == ROOT);
        children
            .map(|node| {
                let answer = node.is_running.then(|| node.watch.expect_ping());
                (node.name.clone(), answer, node.cell.clone())
            })
            .collect()
    }

    #[cfg(feature = "fault")]
    pub(super) fn plan(&self) -> &crate::fault::FaultPlan {
        &self.plan
    }

    /// The cell of a running actor.
    #[cfg(feature = "fault")]
    pub(crate) fn cell(&self, name: &str) -> Option<ActorCell> {
        let nodes = self.lock();
        let node = nodes.iter().find(|node| node.name == name)?;
        node.cell.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Node>> {
        // Fields are replaced one by one; a panic in between leaves a stale line, no broken one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn branch(node: &Node) -> Branch {
    Branch {
        actor: node.name.clone(),
        incarnation: node.incarnation,
        restarts: node.incarnation.saturating_sub(1),
        last_exit: node.last_exit.clone(),
        started_ms: node.started_ms,
        queue_depth: node.watch.depth.now(),
        is_running: node.is_running,
        children: Vec::new(),
    }
}

fn below(nodes: &[Node], supervisor: &str) -> Vec<Branch> {
    let children = nodes.iter().filter(|node| node.supervisor == supervisor);
    children
        .map(|node| Branch {
            children: below(nodes, &node.name),
            ..branch(node)
        })
        .collect()
}
