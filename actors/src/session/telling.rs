//! What a session tells the rest of the node: the board for people, the store for facts that
//! outlive it, the log.
//!
//! Nothing here steers the session.

use packhorse_protocol::{grant::Grants, session::SessionEvent};

use super::driver::Driver;
use crate::events::Fact;

/// Facts being written down at once; a peer that gives cause for more is not written down.
const FACTS_MAX: usize = 16;
/// Facts told in one session because of what its peer said.
const TOLD_MAX: u32 = 64;

impl Driver {
    pub(super) fn on_round_trip(&mut self, number: u64, skew_ms: i64) {
        let now_us = self.wiring.env.monotonic_us();
        let Some(round_trip_ms) = self.pings.on_answer(number, now_us, skew_ms) else {
            return;
        };
        let now_ms = self.wiring.env.now_ms();
        self.wiring.board.update(self.peer, |line| {
            line.round_trip_ms = Some(round_trip_ms);
            line.skew_ms = Some(skew_ms);
            line.last_seen_ms = Some(now_ms);
        });
    }

    /// Runs a write that nobody waits for.
    fn note(&mut self, write: impl Future<Output = ()> + Send + 'static) {
        // A peer may give cause for any number of them.
        while self.facts.try_join_next().is_some() {}
        if self.facts.len() < FACTS_MAX {
            self.facts.spawn(write);
        }
    }

    fn on_granted(&mut self, grants: &[String]) {
        // A capability that this version does not know is passed over.
        let known = grants.iter().filter_map(|text| text.parse().ok());
        let Ok(granted) = Grants::new(known) else {
            return;
        };
        let (store, peer) = (self.wiring.store.clone(), self.peer);
        self.note(async move {
            let Ok(Some(record)) = store.peer(peer).await else {
                return;
            };
            if record.granted == granted {
                return;
            }
            let told = store.update_peer(peer, move |record| record.granted = granted);
            if let Err(error) = told.await {
                tracing::warn!(target: "packhorse::session", %error, "grants were not written down");
            }
        });
    }

    /// Tells a fact that a peer's words are the cause of. One that gives cause for ever more must
    /// not wash everything else out of what is kept.
    fn tell(&mut self, fact: Fact) {
        self.told += 1;
        if self.told <= TOLD_MAX {
            self.wiring.events.tell(fact);
        }
    }

    pub(super) fn on_event(&mut self, event: &SessionEvent) {
        let peer = self.peer;
        match event {
            SessionEvent::Ready => {
                tracing::debug!(target: "packhorse::session", peer = peer.0, ?event);
            }
            SessionEvent::StoreResumed { .. } => {
                tracing::debug!(target: "packhorse::session", peer = peer.0, ?event);
                self.tell(Fact::StoreResumed { peer: None });
            }
            SessionEvent::PeerResumed { .. } => {
                tracing::debug!(target: "packhorse::session", peer = peer.0, ?event);
                self.wiring.board.update(peer, |line| line.paused = None);
                self.tell(Fact::StoreResumed { peer: Some(peer) });
            }
            SessionEvent::PeerLeaves { class, .. } => {
                tracing::info!(target: "packhorse::session", peer = peer.0, ?event);
                self.leaves = Some(*class);
            }
            SessionEvent::Granted { grants } => self.on_granted(grants),
            // Loss, copies and full disks: somebody has to look.
            SessionEvent::PeerPaused { .. }
            | SessionEvent::StorePaused { .. }
            | SessionEvent::PeerRolledBack { .. }
            | SessionEvent::RolledBack { .. }
            | SessionEvent::PeerOnCopy { .. } => {
                tracing::warn!(target: "packhorse::session", peer = peer.0, ?event);
                self.on_trouble(event);
            }
            SessionEvent::OnCopy { .. } => {
                tracing::error!(target: "packhorse::session", peer = peer.0, ?event);
                self.on_trouble(event);
            }
        }
    }

    fn on_trouble(&mut self, event: &SessionEvent) {
        let peer = self.peer;
        match event {
            SessionEvent::PeerPaused { reason, .. } => {
                self.tell(Fact::StorePaused { peer: Some(peer) });
                let reason = reason.clone();
                self.wiring
                    .board
                    .update(peer, |line| line.paused = Some(reason));
            }
            SessionEvent::StorePaused { .. } => self.tell(Fact::StorePaused { peer: None }),
            SessionEvent::PeerRolledBack {
                lane,
                epoch,
                from,
                to,
            } => {
                let boot = epoch.boot;
                let text = format!(
                    "it had acknowledged {from} to {to} of boot {boot} on the {lane:?} lane and has them no longer"
                );
                self.tell(Fact::PeerRolledBack { peer, text });
            }
            SessionEvent::PeerOnCopy {
                lane,
                epoch,
                last,
                mark,
            } => {
                let boot = epoch.boot;
                let text = format!(
                    "of its boot {boot} it knows {last} messages on the {lane:?} lane, and {mark} came from it"
                );
                self.tell(Fact::PeerRolledBack { peer, text });
            }
            SessionEvent::RolledBack {
                lane,
                epoch,
                from,
                to,
            } => {
                let boot = epoch.boot;
                let text = format!(
                    "by its word this node had stored {from} to {to} of its boot {boot} on the {lane:?} lane"
                );
                self.tell(Fact::RolledBack { peer, text });
            }
            SessionEvent::OnCopy {
                lane,
                epoch,
                last,
                mark,
            } => {
                let boot = epoch.boot;
                let text = format!(
                    "it has {mark} messages of boot {boot} on the {lane:?} lane, and this node knows of {last}"
                );
                self.tell(Fact::RolledBack { peer, text });
                self.raise_boot_floor(boot);
            }
            _ => {}
        }
    }

    /// The peer has seen later boots of this node than this store has: the next open gets a higher
    /// one.
    fn raise_boot_floor(&mut self, seen: u32) {
        let store = self.wiring.store.clone();
        self.note(async move {
            if let Err(error) = store.raise_boot_floor(seen).await {
                tracing::error!(target: "packhorse::session", %error, "boot floor");
            }
        });
    }
}
