//! What a node tells about its inside, and how it ends on purpose: tree, events, ping, drain.
//!
//! It reads and waits. Only [`Node::drain`] changes something: from then on the node takes no
//! new work, and it ends when what could be sent is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use packhorse_actors::session::PingError;
use packhorse_actors::store::{PeerNumber, Shortage};
use packhorse_actors::supervise;

use crate::error::{ErrorKind, NodeError};
use crate::insight::{Branch, Check, Drained, DrainedPeer, Event, Events, Health, Pinged};
use crate::node::Node;
use crate::status::PeerState;
use crate::time::WallTime;
use crate::translate::{from_store, peer_state};

/// Most events in one answer.
const EVENTS_MAX: usize = 1_000;
/// How long the parts of the node may take to say that they live.
const PULSE_WITHIN: Duration = Duration::from_secs(5);
/// Pause between two looks at the peers while draining.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a peer may take to be dialled or to come by itself; a dial that began is waited for.
const DIAL_WITHIN: Duration = Duration::from_secs(3);

/// How far the end of the node has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Draining {
    /// It works.
    #[default]
    No,
    /// It takes no new work.
    Begun,
    /// It has nothing more to do.
    Over,
}

impl Node {
    /// The live actor tree.
    ///
    /// # Errors
    /// When the store cannot be read; it knows the names of the peers.
    pub async fn tree(&self) -> Result<Branch, NodeError> {
        let peers = self.peers_by_number().await?;
        let name = |number: PeerNumber| peers.get(&number).map(|peer| peer.name.clone());
        let root = self.tree.census();
        Ok(branch(root, self.env.monotonic_ms(), &name))
    }

    /// Events after a number, oldest first; waits for the first one while `wait` lasts.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn events(
        &self,
        after: u64,
        limit: usize,
        wait: impl Future<Output = ()>,
    ) -> Result<Events, NodeError> {
        let limit = limit.min(EVENTS_MAX);
        let mut newest = self.tree.events.newest();
        let page = async {
            loop {
                // ORDER: mark the signal as seen before looking, so that no change is missed.
                newest.borrow_and_update();
                let page = self.tree.events.since(after, limit).await?;
                if !page.events.is_empty() || page.gap.is_some() || newest.changed().await.is_err()
                {
                    return Ok(page);
                }
            }
        };
        let page = tokio::select! {
            page = page => page,
            () = wait => self.tree.events.since(after, limit).await,
        };
        let page = page.map_err(from_store)?;
        let peers = self.peers_by_number().await?;
        let events = page.events.into_iter().map(|event| {
            let peer = event.fact.peer();
            Event {
                number: event.number,
                at: WallTime(event.at_ms),
                kind: event.fact.kind().to_owned(),
                peer: peer
                    .and_then(|number| peers.get(&number))
                    .map(|peer| peer.name.clone()),
                text: event.fact.text(),
            }
        });
        Ok(Events {
            gap: page.gap,
            events: events.collect(),
            newest: page.newest,
        })
    }

    /// The number of the newest event; 0 when nothing happened yet.
    #[must_use]
    pub fn newest_event(&self) -> u64 {
        *self.tree.events.newest().borrow()
    }

    /// Asks every part that the node cannot work without for a sign of life.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`], naming who did not answer in time.
    pub async fn pulse(&self, within: Duration) -> Result<(), NodeError> {
        let pulse = self.tree.pulse(within).await;
        pulse.map_err(|text| NodeError::new(ErrorKind::Internal, text))
    }

    /// Looks at everything that the node needs for its work.
    pub async fn health(&self) -> Health {
        let mut checks = Vec::new();
        if *self.draining.borrow() != Draining::No {
            checks.push(Check::failed("admission", "the node is draining"));
        }
        checks.push(match self.tree.pulse(PULSE_WITHIN).await {
            Ok(()) => Check::well("pulse"),
            Err(text) => Check::failed("pulse", text),
        });
        let shortages = self.tree.store.storage().borrow().shortages.clone();
        // What one sender has used up of its share is no fault of the node.
        let text = shortages
            .iter()
            .filter(|shortage| !matches!(shortage, Shortage::Share { .. }))
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        checks.push(if text.is_empty() {
            Check::well("room")
        } else {
            Check::failed("room", format!("new work is refused: {text}"))
        });
        let root = self.tree.census();
        checks.push(check(&root));
        checks.extend(root.children.iter().map(check));
        Health { checks }
    }

    /// Measures one round trip to a peer over its live session.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the peer, [`ErrorKind::Unsent`] without a session or an answer.
    pub async fn ping(&self, peer: &str) -> Result<Pinged, NodeError> {
        let peer = self.peer(peer).await?;
        match self.tree.sessions.ping(peer.number).await {
            Ok(ping) => Ok(Pinged {
                peer: peer.name,
                round_trip_ms: ping.round_trip_ms,
                skew_ms: ping.skew_ms,
            }),
            Err(error) => {
                let kind = match &error {
                    PingError::NoSession | PingError::NoAnswer => ErrorKind::Unsent,
                    _ => ErrorKind::Internal,
                };
                let text = format!("{}: {error}", peer.name);
                Err(NodeError::new(kind, text)
                    .with_hint(format!("packhorse why peer {}", peer.name))
                    .with_source(error))
            }
        }
    }

    /// Takes no new work, sends what can be sent, and makes [`Node::drained`] resolve.
    ///
    /// It ends early when nothing is left for anybody who can be reached. A second call waits
    /// for the first one's end.
    ///
    /// # Errors
    /// When the store cannot be read; the node works on then.
    pub async fn drain(&self, timeout: Duration) -> Result<Drained, NodeError> {
        // Dropped in the middle, it undoes itself: a node that nobody drains must work.
        let mut undo = Undo {
            node: self,
            is_armed: true,
        };
        self.draining.send_if_modified(|draining| match draining {
            Draining::No => {
                *draining = Draining::Begun;
                true
            }
            Draining::Begun | Draining::Over => false,
        });
        self.tree.retry.wake(None);
        let limit = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let end_ms = self.env.monotonic_ms().saturating_add(limit);
        let mut hopes = BTreeMap::new();
        let drained = loop {
            let now_ms = self.env.monotonic_ms();
            let mut left = self.waiting_peers().await?;
            // Everybody of whom there is hope, also those for whom only reports wait: what is
            // told to them now saves their senders from waiting for this node's return.
            let (mut is_hoped, mut cut_off) = (false, 0);
            for (number, peer) in &left {
                let hope = hopes.entry(*number).or_insert(Hope::Since(now_ms));
                *hope = hope.after(peer.state, now_ms);
                if *hope != Hope::Lost {
                    is_hoped = true;
                    cut_off += peer.waiting;
                }
            }
            if !is_hoped || now_ms >= end_ms {
                left.retain(|(_, peer)| peer.waiting > 0);
                break Drained {
                    cut_off,
                    waiting: left.iter().map(|(_, peer)| peer.waiting).sum(),
                    peers: left.into_iter().map(|(_, peer)| peer).collect(),
                };
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        undo.is_armed = false;
        self.draining.send_replace(Draining::Over);
        Ok(drained)
    }

    /// Resolves when a drain is over, never otherwise.
    pub async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        if draining
            .wait_for(|draining| *draining == Draining::Over)
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    /// Refuses new work while the node drains.
    pub(super) fn check_admission(&self) -> Result<(), NodeError> {
        if *self.draining.borrow() == Draining::No {
            return Ok(());
        }
        Err(NodeError::new(
            ErrorKind::Refused,
            "draining: this node takes no new work and is about to stop",
        ))
    }

    /// Resolves when a drain begins: who waits for work is told then.
    pub(super) async fn drain_begun(&self) {
        let mut draining = self.draining.subscribe();
        if draining
            .wait_for(|draining| *draining != Draining::No)
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    /// Peers for which something waits, with the messages of people among it.
    async fn waiting_peers(&self) -> Result<Vec<(PeerNumber, DrainedPeer)>, NodeError> {
        let peers = self.tree.store.peers().await.map_err(from_store)?;
        let waiting = peers.into_iter().filter_map(|record| {
            let counts = *self.tree.store.outbox_counts(record.number).borrow();
            let state = self.tree.board.line(record.number).state;
            (counts.total() > 0).then(|| {
                let peer = DrainedPeer {
                    name: record.name,
                    state: peer_state(state),
                    waiting: counts.user(),
                };
                (record.number, peer)
            })
        });
        Ok(waiting.collect())
    }
}

/// Whether a peer may still be reached before a drain is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hope {
    /// No dial was seen since this moment.
    Since(u64),
    /// A dial was seen, or a session.
    Tried,
    /// A dial ended with nothing, or none began.
    Lost,
}

impl Hope {
    fn after(self, state: PeerState, now_ms: u64) -> Hope {
        match (self, state) {
            (_, PeerState::Connected) => Hope::Tried,
            // One dial is what it gets: those that follow end the same way.
            (Hope::Lost, _) => Hope::Lost,
            (_, PeerState::Dialling) => Hope::Tried,
            (Hope::Tried, _) => Hope::Lost,
            (Hope::Since(since_ms), _) => {
                let waited_ms = now_ms.saturating_sub(since_ms);
                if u128::from(waited_ms) < DIAL_WITHIN.as_millis() {
                    self
                } else {
                    Hope::Lost
                }
            }
        }
    }
}

/// Takes a drain back that was called off.
struct Undo<'a> {
    node: &'a Node,
    is_armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            self.node.draining.send_if_modified(|draining| {
                let is_begun = *draining == Draining::Begun;
                if is_begun {
                    *draining = Draining::No;
                }
                is_begun
            });
        }
    }
}

fn branch(
    found: supervise::Branch,
    now_ms: u64,
    peer_name: &impl Fn(PeerNumber) -> Option<String>,
) -> Branch {
    let children = found.children.into_iter();
    Branch {
        actor: with_peer_name(found.actor, peer_name),
        incarnation: found.incarnation,
        restarts: found.restarts,
        last_exit: found.last_exit,
        uptime_ms: found
            .is_running
            .then(|| now_ms.saturating_sub(found.started_ms)),
        queue_depth: found.queue_depth,
        children: children
            .map(|child| branch(child, now_ms, peer_name))
            .collect(),
    }
}

/// `session 3` as `session left`: the tree knows peers by their numbers.
fn with_peer_name(actor: String, peer_name: &impl Fn(PeerNumber) -> Option<String>) -> String {
    let number = actor
        .strip_prefix("session ")
        .and_then(|number| number.parse().ok());
    match number.and_then(|number| peer_name(PeerNumber(number))) {
        Some(name) => format!("session {name}"),
        None => actor,
    }
}

fn check(branch: &supervise::Branch) -> Check {
    if branch.is_running {
        return Check::well(branch.actor.clone());
    }
    let fault = match &branch.last_exit {
        Some(reason) => format!("not running: {reason}"),
        None => "not running".to_owned(),
    };
    Check::failed(branch.actor.clone(), fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hope_lasts_for_one_dial_and_comes_back_with_a_session() {
        let fresh = Hope::Since(1_000);
        assert_eq!(fresh.after(PeerState::Waiting, 3_999), fresh);
        assert_eq!(fresh.after(PeerState::Waiting, 4_000), Hope::Lost);
        assert_eq!(fresh.after(PeerState::Dialling, 9_000), Hope::Tried);
        assert_eq!(Hope::Tried.after(PeerState::Dialling, 9_000), Hope::Tried);
        assert_eq!(Hope::Tried.after(PeerState::Refused, 1_001), Hope::Lost);
        assert_eq!(Hope::Lost.after(PeerState::Dialling, 9_000), Hope::Lost);
        assert_eq!(Hope::Lost.after(PeerState::Connected, 9_000), Hope::Tried);
    }
}
