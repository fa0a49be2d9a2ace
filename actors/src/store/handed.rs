//! Which rows sessions of this life of the store were handed.
//!
//! `offered` in a line is durable and runs ahead in steps. Here, in memory, stands how far it would
//! have had to go: so that when a session is over the step can be taken back, and messages that
//! are accepted while a peer is away count as what they are, never sent.
//! Nothing depends on it being here: without it rows count as offered until the next opening.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "sim")]
use packhorse_protocol::epoch::Position;
use packhorse_protocol::epoch::{Epoch, Lane, Mark};
#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{self, Mutant};
use packhorse_protocol::outbox::Row;

use super::tables::peers::PeerNumber;

/// By line, the last sequence that may have left since it is known what had.
type Lines = BTreeMap<(PeerNumber, Lane, u32), u64>;

/// What was handed out. Shared by all handles of a store.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    lines: Mutex<Lines>,
}

impl Handed {
    /// A session opened: nothing above these marks has arrived or is on its way.
    pub(crate) fn open(&self, peer: PeerNumber, lane: Lane, marks: &[Mark]) {
        #[cfg(feature = "sim")]
        if mutant::is(Mutant::StaleWindow) {
            return;
        }
        let mut lines = self.lock();
        for mark in marks {
            lines.insert((peer, lane, mark.epoch.boot), mark.settled);
        }
    }

    /// These rows are about to be handed out. `now` is the epoch of this life of the store.
    pub(crate) fn hand(&self, peer: PeerNumber, lane: Lane, rows: &[Row], now: Epoch) {
        let mut lines = self.lock();
        for row in rows {
            let (epoch, sequence) = (row.position.epoch, row.position.sequence);
            let line = (peer, lane, epoch.boot);
            // A line of this life began here. Of an older one without an opening nothing is known.
            if epoch == now || lines.contains_key(&line) {
                let last = lines.entry(line).or_default();
                *last = sequence.max(*last);
            }
        }
    }

    /// For a mutant: where the last session that was handed anything of this epoch stopped.
    #[cfg(feature = "sim")]
    pub(crate) fn stopped_at(
        &self,
        peer: PeerNumber,
        lane: Lane,
        epoch: Epoch,
    ) -> Option<Position> {
        let sequence = *self.lock().get(&(peer, lane, epoch.boot))?;
        mutant::is(Mutant::StaleWindow).then_some(Position { epoch, sequence })
    }

    /// Per line of a peer, the last sequence that may have left.
    pub(crate) fn of(&self, peer: PeerNumber) -> Vec<(Lane, u32, u64)> {
        let lines = self.lock();
        let of_peer = lines.iter().filter(|((number, _, _), _)| *number == peer);
        of_peer
            .map(|((_, lane, boot), last)| (*lane, *boot, *last))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
