//! What a session tells the rest of the node: the board for people, the store for facts that
//! outlive it, the log.
//!
//! Nothing here steers the session.

use std::{
    mem::{Discriminant, discriminant},
    time::Duration,
};

use packhorse_protocol::{grant::Grants, limits::HEARTBEAT_EVERY_MS, session::SessionEvent};
use tokio::sync::watch;

use super::{Wiring, driver::Driver};
use crate::{events::Fact, store::PeerNumber};

/// Facts being written down at once; a peer that gives cause for more is not written down.
const FACTS_MAX: usize = 16;
/// Facts of one sort told in one session because of what its peer said.
const TOLD_MAX: u32 = 64;
/// What a peer says about its addresses is written down this long apart; the last word counts.
const MOVES_APART: Duration = Duration::from_secs(1);

/// What one session has told because of its peer's words. Each sort has its own bound, so that a
/// disk that goes to and fro at its line hides neither a copied machine nor a move.
#[derive(Debug, Default)]
pub(super) struct Told {
    pauses: u32,
    troubles: u32,
    /// Which events stand in the log: one line for each sort.
    logged: Vec<Discriminant<SessionEvent>>,
    /// The peer named an epoch of this node that it has seen.
    pub(super) seen: bool,
    /// What the peer says about its addresses, on the way to the store.
    moves: Option<watch::Sender<Vec<String>>>,
}

impl Told {
    /// Whether an event of this sort is the session's first.
    fn is_first(&mut self, event: &SessionEvent) -> bool {
        let sort = discriminant(event);
        let is_first = !self.logged.contains(&sort);
        if is_first {
            self.logged.push(sort);
        }
        is_first
    }
}

/// Writes down where a peer is to be dialled, the last word of those that came meanwhile.
async fn write_moves(wiring: Wiring, peer: PeerNumber, mut said: watch::Receiver<Vec<String>>) {
    let mut told = 0;
    while said.changed().await.is_ok() {
        let addresses = said.borrow_and_update().clone();
        let text = addresses.join(" ");
        match wiring.store.peer_announces(peer, addresses).await {
            Ok(Some(_)) if told < TOLD_MAX => {
                told += 1;
                wiring.events.tell(Fact::AddressesChanged { peer, text });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(target: "packhorse::session", %error, "addresses were not written down");
            }
        }
        tokio::time::sleep(MOVES_APART).await;
    }
}

impl Driver {
    /// Something came from the peer.
    pub(super) fn heard(&mut self) {
        self.proof_by_ms = None;
        self.heard_ms = self.wiring.env.monotonic_ms();
        if self.heard_ms.saturating_sub(self.noted_ms) >= HEARTBEAT_EVERY_MS {
            self.note_seen();
        }
    }

    /// Tells people when the peer was last heard.
    pub(super) fn note_seen(&mut self) {
        self.noted_ms = self.heard_ms;
        let env = &self.wiring.env;
        let ago_ms = env.monotonic_ms().saturating_sub(self.heard_ms);
        let seen_ms = env.now_ms().saturating_sub(ago_ms);
        self.wiring
            .board
            .update(self.peer, |line| line.last_seen_ms = Some(seen_ms));
    }

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
    pub(super) fn note(&mut self, write: impl Future<Output = ()> + Send + 'static) {
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

    /// The peer is to be dialled elsewhere.
    fn on_addresses(&mut self, addresses: Vec<String>) {
        let (wiring, peer, aside) = (&self.wiring, self.peer, &mut self.aside);
        let moves = self.told.moves.get_or_insert_with(|| {
            let (moves, said) = watch::channel(Vec::new());
            aside.spawn(write_moves(wiring.clone(), peer, said));
            moves
        });
        moves.send_replace(addresses);
    }

    /// Tells that a store stands still or goes on. A peer that gives cause for ever more must not
    /// wash everything else out of what is kept.
    fn tell_pause(&mut self, fact: Fact) {
        self.told.pauses += 1;
        if self.told.pauses <= TOLD_MAX {
            self.wiring.events.tell(fact);
        }
    }

    /// Tells of a store that was set back or copied, and writes it down with the peer.
    pub(super) fn tell_trouble(
        &mut self,
        text: String,
        fact: impl FnOnce(PeerNumber, String) -> Fact,
    ) {
        self.told.troubles += 1;
        if self.told.troubles <= TOLD_MAX {
            self.trouble(&text);
            self.wiring.events.tell(fact(self.peer, text));
        }
    }

    pub(super) fn on_event(&mut self, event: &SessionEvent) {
        let peer = self.peer;
        let is_first = self.told.is_first(event);
        match event {
            SessionEvent::Ready => {
                tracing::debug!(target: "packhorse::session", peer = peer.0, ?event);
            }
            SessionEvent::StoreResumed { .. } => {
                tracing::debug!(target: "packhorse::session", peer = peer.0, ?event);
                self.tell_pause(Fact::StoreResumed { peer: None });
            }
            SessionEvent::PeerResumed { .. } => {
                tracing::debug!(target: "packhorse::session", peer = peer.0, ?event);
                self.wiring.board.update(peer, |line| line.paused = None);
                self.tell_pause(Fact::StoreResumed { peer: Some(peer) });
            }
            SessionEvent::PeerLeaves { class, .. } => {
                if is_first {
                    tracing::info!(target: "packhorse::session", peer = peer.0, ?event);
                }
                self.leaves = Some(*class);
            }
            SessionEvent::Granted { grants } => self.on_granted(grants),
            SessionEvent::Addresses { addresses } => self.on_addresses(addresses.clone()),
            // Loss, copies and full disks: somebody has to look.
            SessionEvent::PeerPaused { .. }
            | SessionEvent::StorePaused { .. }
            | SessionEvent::PeerRolledBack { .. }
            | SessionEvent::RolledBack { .. }
            | SessionEvent::PeerOnCopy { .. } => {
                if is_first {
                    tracing::warn!(target: "packhorse::session", peer = peer.0, ?event);
                }
                self.on_trouble(event);
            }
            SessionEvent::SeenEpoch { epoch } => self.on_seen(*epoch),
            SessionEvent::OnCopy { .. } => {
                if is_first {
                    tracing::error!(target: "packhorse::session", peer = peer.0, ?event);
                }
                self.on_trouble(event);
            }
        }
    }

    fn on_trouble(&mut self, event: &SessionEvent) {
        let peer = self.peer;
        match event {
            SessionEvent::PeerPaused { reason, .. } => {
                self.tell_pause(Fact::StorePaused { peer: Some(peer) });
                let reason = reason.clone();
                self.wiring
                    .board
                    .update(peer, |line| line.paused = Some(reason));
            }
            SessionEvent::StorePaused { .. } => self.tell_pause(Fact::StorePaused { peer: None }),
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
                self.tell_trouble(text, |peer, text| Fact::PeerRolledBack { peer, text });
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
                self.tell_trouble(text, |peer, text| Fact::PeerRolledBack { peer, text });
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
                self.tell_trouble(text, |peer, text| Fact::RolledBack { peer, text });
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
                self.tell_trouble(text, |peer, text| Fact::RolledBack { peer, text });
                self.raise_boot_floor(boot);
            }
            _ => {}
        }
    }
}
