//! One running node, for embedding: the handle that commands, API and applications share.
//!
//! [`Node::builder`] opens or makes the data folder and starts the actor tree; every method asks
//! the tree and says what came of it in this crate's own words.
//! It holds no policy: what is refused, stored or retried is decided below.
//!
//! Two nodes live well in one process, and nothing global is installed.

mod addresses;
mod boxes;
#[cfg(feature = "fault")]
mod fault;
mod forget;
mod grants;
mod insight;
mod invites;
mod metrics;
mod receiving;
mod requests;
mod sending;
mod tree;
mod why;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use packhorse_actors::env::Env;
use packhorse_actors::session::JoinOptions;
use packhorse_actors::store::{PeerNumber, PeerRecord};
use packhorse_actors::supervise::{Cause, TreeEnd};
use packhorse_actors::tree::Tree;
use tokio::sync::watch;

use crate::error::{ErrorKind, NodeError};
use crate::exit::Exit;
use crate::peer::{Join, Joined, PeerInfo};
use crate::rules::ClassRules;
use crate::start::NodeBuilder;
use crate::status::{PeerFault, PeerState, PeerStatus, PeerTrouble, Status};
use crate::storage::StorageStatus;
use crate::time::WallTime;
use crate::translate::{from_join, from_store, grants, peer_info, peer_state};
use crate::{NodeId, Ticket};

pub use self::invites::InviteChoice;

/// Why a node gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The actor whose restart budget is spent.
    pub actor: String,
    /// What it said last.
    pub reason: String,
    /// The code that the process ends with.
    pub exit: Exit,
}

/// One running node.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    name: String,
    data_dir: PathBuf,
    is_new: bool,
    tree: Tree,
    env: Env,
    started_ms: u64,
    draining: watch::Sender<tree::Draining>,
    rules: ClassRules,
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        name: String,
        data_dir: PathBuf,
        is_new: bool,
        tree: Tree,
        env: Env,
        rules: ClassRules,
    ) -> Node {
        let started_ms = env.monotonic_ms();
        Node {
            id,
            name,
            data_dir,
            is_new,
            tree,
            env,
            started_ms,
            draining: watch::Sender::default(),
            rules,
        }
    }

    /// A node that keeps everything in this folder.
    #[must_use]
    pub fn builder(data_dir: impl Into<PathBuf>) -> NodeBuilder {
        NodeBuilder::new(data_dir.into())
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The name that it announces.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens, as `quic://HOST:PORT`.
    #[must_use]
    pub fn listen(&self) -> Vec<String> {
        self.tree
            .listening
            .iter()
            .map(|address| format!("quic://{address}"))
            .collect()
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether this start made the identity.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Pairs with the inviter of a ticket; returns once both sides have committed it.
    ///
    /// # Errors
    /// The inviter's refusal, or why it was not reached; joining again is safe.
    pub async fn join(&self, ticket: &Ticket, join: Join) -> Result<Joined, NodeError> {
        if self
            .tree
            .store
            .is_denied(ticket.inviter())
            .await
            .map_err(from_store)?
        {
            return Err(denied(ticket.inviter()));
        }
        let options = JoinOptions {
            name: join.name,
            grants: grants(join.grants)?,
        };
        let joined = self
            .tree
            .sessions
            .join(ticket.clone(), options)
            .await
            .map_err(from_join)?;
        Ok(Joined {
            peer: peer_info(joined.record, self.env.now_ms()),
            compare: joined.compare,
        })
    }

    /// Every peer, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NodeError> {
        let now_ms = self.env.now_ms();
        let mut peers: Vec<_> = self
            .tree
            .store
            .peers()
            .await
            .map_err(from_store)?
            .into_iter()
            .map(|record| peer_info(record, now_ms))
            .collect();
        peers.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(peers)
    }

    /// The node and its peers as they are now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn status(&self) -> Result<Status, NodeError> {
        let now_ms = self.env.now_ms();
        let mut peers: Vec<_> = self
            .tree
            .store
            .peers()
            .await
            .map_err(from_store)?
            .into_iter()
            .map(|record| self.peer_status(record, now_ms))
            .collect();
        peers.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(Status {
            node: self.id,
            name: self.name.clone(),
            version: crate::VERSION.to_owned(),
            uptime_ms: self.env.monotonic_ms().saturating_sub(self.started_ms),
            listen: self.listen(),
            advertise: self.advertise(),
            storage: StorageStatus::from(&*self.tree.store.storage().borrow()),
            peers,
            strangers: self.strangers(),
        })
    }

    /// Resolves when the tree gave up, never on ordinary shutdown.
    pub async fn ended(&self) -> Ended {
        match self.tree.ended().await {
            TreeEnd::GaveUp {
                actor,
                cause,
                reason,
            } => Ended {
                actor: actor.to_owned(),
                reason,
                exit: match cause {
                    Cause::StorageFull => Exit::Full,
                    Cause::StorageFailed => Exit::Damaged,
                    Cause::Budget => Exit::Internal,
                },
            },
            TreeEnd::Asked => std::future::pending().await,
        }
    }

    /// Stops the sessions and actors in order and closes the store: what was accepted stays.
    pub async fn shutdown(&self) {
        self.tree.shutdown().await;
    }

    pub(crate) async fn peer(&self, name: &str) -> Result<PeerRecord, NodeError> {
        let found = self
            .tree
            .store
            .peer_by_name_or_id(name)
            .await
            .map_err(from_store)?;
        found.ok_or_else(|| {
            NodeError::new(ErrorKind::NotFound, format!("no peer `{name}`"))
                .with_hint("packhorse peers")
        })
    }

    /// The same, or a node that was forgotten, by its whole id or, if no peer has it, its name then.
    pub(crate) async fn peer_or_former(&self, name: &str) -> Result<PeerRecord, NodeError> {
        let error = match self.peer(name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => error,
            found => return found,
        };
        let every = self.tree.store.every_peer().await.map_err(from_store)?;
        let mut former = every
            .into_iter()
            .filter(|peer| peer.name == name || peer.id.to_string() == name);
        // Two of one name: neither is meant.
        let found = former.next().filter(|_| former.next().is_none());
        found.ok_or(error)
    }

    pub(crate) async fn peers_by_number(
        &self,
    ) -> Result<BTreeMap<PeerNumber, PeerRecord>, NodeError> {
        // Messages outlive their peer: what is left of it still gives them a name.
        let peers = self.tree.store.every_peer().await.map_err(from_store)?;
        Ok(peers.into_iter().map(|peer| (peer.number, peer)).collect())
    }

    fn peer_status(&self, record: PeerRecord, now_ms: u64) -> PeerStatus {
        let line = self.tree.board.line(record.number);
        let counts = *self.tree.store.outbox_counts(record.number).borrow();
        let last_seen_ms = line.last_seen_ms.max(record.last_seen_ms);
        let last_error = line.last_error_with(&record);
        PeerStatus {
            name: record.name,
            id: record.id,
            state: match (line.state, last_seen_ms) {
                (packhorse_actors::board::PeerState::NeverSeen, Some(_)) => PeerState::Idle,
                (state, _) => peer_state(state),
            },
            link: line.link,
            key_exchange: line.key_exchange,
            round_trip_ms: line.round_trip_ms,
            outbox: counts.user(),
            oldest_waiting_ms: counts
                .oldest_born_ms
                .map(|born_ms| now_ms.saturating_sub(born_ms)),
            last_seen: last_seen_ms.map(WallTime),
            last_error: last_error.map(|error| PeerFault {
                class: error.class.name().to_owned(),
                text: error.text,
            }),
            next_attempt: line.next_attempt_ms.map(WallTime),
            since: (line.since_ms > 0).then_some(WallTime(line.since_ms)),
            failures: record.failures.max(line.failures),
            paused: line.paused,
            skew_ms: line.skew_ms,
            keep: record.keep.into(),
            trouble: record.trouble.map(|noted| PeerTrouble {
                text: noted.text,
                at: WallTime(noted.at_ms),
            }),
        }
    }
}

/// No ticket overrides that a node was forgotten here.
fn denied(id: NodeId) -> NodeError {
    NodeError::new(
        ErrorKind::Refused,
        format!("{id} is denied here: it was forgotten or rejected"),
    )
    .with_hint(format!("packhorse peers allow {id}"))
}
