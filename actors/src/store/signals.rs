//! What changed, for those who wait for it.
//!
//! Everything here is published by the writer after the sync that holds it, so that nobody acts on
//! a message which a power cut could take back. Counts are kept in memory, one small entry per
//! line that has messages, and come from the lines at open.
//! A watcher that is slow misses intermediate states, never the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use packhorse_protocol::epoch::Lane;
use tokio::sync::{broadcast, watch};

use super::tables::lines::Line;
use super::tables::peers::PeerNumber;
use super::view::Note;

/// Peers that began to wait and that a receiver has not taken yet; beyond it the receiver lags and
/// asks for all of them instead.
const GREW_KEPT: usize = 1_024;

/// What waits for one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Messages that wait, by lane.
    pub waiting: [u64; 2],
    /// Messages accepted since the store was opened.
    pub grown: u64,
    /// Messages settled since the store was opened.
    pub settled: u64,
    /// When the oldest message of the user lane that waits was accepted.
    pub oldest_born_ms: Option<u64>,
    /// How often since the store was opened it became known what became of messages.
    pub outcomes: u64,
    /// How many reports since then were about messages that the peer was never sent.
    pub unknown_receipts: u64,
    /// When the first of those that wait may be given up, in wall milliseconds: never later than
    /// that, maybe earlier. A sweep tells exactly.
    pub due_ms: Option<u64>,
}

impl OutboxCounts {
    /// Messages of people that wait: what the nodes tell each other is left out.
    #[must_use]
    pub fn user(&self) -> u64 {
        self.waiting[Lane::User.index()]
    }

    /// What waits in both lanes: a reason to dial, whoever it is for.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.waiting.iter().sum()
    }
}

#[derive(Clone, Copy, Debug)]
struct LineState {
    waiting: u64,
    oldest_born_ms: Option<u64>,
    due_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct PeerState {
    /// (lane, boot) → how it stands.
    lines: BTreeMap<(Lane, u32), LineState>,
    grown: u64,
    settled: u64,
    outcomes: u64,
    unknown_receipts: u64,
    watch: watch::Sender<OutboxCounts>,
}

impl PeerState {
    fn counts(&self) -> OutboxCounts {
        let mut counts = OutboxCounts {
            grown: self.grown,
            settled: self.settled,
            outcomes: self.outcomes,
            unknown_receipts: self.unknown_receipts,
            ..OutboxCounts::default()
        };
        for ((lane, _), line) in &self.lines {
            if let Some(count) = counts.waiting.get_mut(lane.index()) {
                *count += line.waiting;
            }
            if *lane == Lane::User {
                counts.oldest_born_ms = earlier(counts.oldest_born_ms, line.oldest_born_ms);
            }
            counts.due_ms = earlier(counts.due_ms, line.due_ms);
        }
        counts
    }
}

/// The earlier of two moments, of which there may be none.
pub(crate) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The watches of a store.
#[derive(Debug)]
pub(crate) struct Signals {
    peers: Mutex<BTreeMap<PeerNumber, PeerState>>,
    grew: broadcast::Sender<PeerNumber>,
    arrived: watch::Sender<u64>,
    event: watch::Sender<u64>,
}

impl Signals {
    pub(crate) fn new(lines: Vec<(PeerNumber, Lane, u32, Line)>, newest_event: u64) -> Self {
        let mut peers: BTreeMap<PeerNumber, PeerState> = BTreeMap::new();
        for (peer, lane, boot, line) in lines {
            if line.waiting() > 0 {
                let state = peers.entry(peer).or_default();
                let line = LineState {
                    waiting: line.waiting(),
                    oldest_born_ms: line.oldest_born_ms,
                    due_ms: line.due(),
                };
                state.lines.insert((lane, boot), line);
            }
        }
        for state in peers.values() {
            state.watch.send_replace(state.counts());
        }
        Self {
            peers: Mutex::new(peers),
            grew: broadcast::Sender::new(GREW_KEPT),
            arrived: watch::Sender::new(0),
            event: watch::Sender::new(newest_event),
        }
    }

    /// Tells everybody. The batch that the notes come from is durable.
    pub(crate) fn publish(&self, notes: Vec<Note>) {
        let mut touched = BTreeSet::new();
        let mut peers = self.lock();
        for note in notes {
            match note {
                Note::Arrived(last) => {
                    self.arrived.send_if_modified(|known| {
                        let is_newer = last > *known;
                        *known = last.max(*known);
                        is_newer
                    });
                }
                Note::Event(newest) => {
                    self.event.send_replace(newest);
                }
                Note::Outcomes { peer, count } => {
                    peers.entry(peer).or_default().outcomes += count;
                    touched.insert(peer);
                }
                Note::UnknownReceipts { peer, count } => {
                    let state = peers.entry(peer).or_default();
                    // Once: whoever wants to fill a log needs another way.
                    if state.unknown_receipts == 0 {
                        let number = peer.0;
                        tracing::warn!(number, "a peer reports on messages it was never sent");
                    }
                    state.unknown_receipts += count;
                    touched.insert(peer);
                }
                Note::Line {
                    peer,
                    lane,
                    boot,
                    waiting,
                    oldest_born_ms,
                    due_ms,
                    grown,
                    settled,
                } => {
                    let state = peers.entry(peer).or_default();
                    state.grown += grown;
                    state.settled += settled;
                    if waiting == 0 {
                        state.lines.remove(&(lane, boot));
                    } else {
                        let line = LineState {
                            waiting,
                            oldest_born_ms,
                            due_ms,
                        };
                        state.lines.insert((lane, boot), line);
                    }
                    touched.insert(peer);
                }
            }
        }
        for peer in touched {
            let Some(state) = peers.get(&peer) else {
                continue;
            };
            let counts = state.counts();
            let before = state.watch.send_replace(counts);
            if before.total() == 0 && counts.total() > 0 {
                // Nobody listening is no error: who comes later asks for all waiting peers.
                let _ = self.grew.send(peer);
            }
        }
    }

    pub(crate) fn counts(&self, peer: PeerNumber) -> watch::Receiver<OutboxCounts> {
        self.lock().entry(peer).or_default().watch.subscribe()
    }

    pub(crate) fn grew(&self) -> broadcast::Receiver<PeerNumber> {
        self.grew.subscribe()
    }

    pub(crate) fn arrived(&self) -> watch::Receiver<u64> {
        self.arrived.subscribe()
    }

    pub(crate) fn newest_event(&self) -> watch::Receiver<u64> {
        self.event.subscribe()
    }

    pub(crate) fn waiting_peers(&self) -> Vec<PeerNumber> {
        let peers = self.lock();
        peers
            .iter()
            .filter(|(_, state)| !state.lines.is_empty())
            .map(|(peer, _)| *peer)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerNumber, PeerState>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
