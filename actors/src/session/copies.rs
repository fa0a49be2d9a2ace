//! What a session learns of copied machines and of stores that were set back.
//!
//! It writes it down with the peer, where people look, and forgets it when it is over. Nothing here
//! decides whether a session may begin; that is `slots.rs`.

use packhorse_protocol::{epoch::Epoch, message::ControlFrame};

use super::driver::Driver;
use crate::events::Fact;

/// How often a session asks whether a trouble with its peer is over.
pub(super) const CALM_LOOK_MS: u64 = 10 * 60 * 1_000;

impl Driver {
    /// Tells a peer that shows an older epoch than this node has seen of it. It cannot know it by
    /// itself, and numbers its boots from there on.
    pub(super) async fn tell_seen(&mut self, shown: Epoch) {
        let Ok(Some(record)) = self.wiring.store.peer(self.peer).await else {
            return;
        };
        if let Some(epoch) = record.highest
            && epoch != shown
            && epoch.boot >= shown.boot
        {
            self.tell_peer(ControlFrame::SeenEpoch { epoch });
        }
    }

    /// The peer has seen another life of this store, at least as new as this one.
    pub(super) fn on_seen(&mut self, seen: Epoch) {
        let (peer, mine) = (self.peer, self.wiring.store.epoch());
        // It says so once, at the start; more of it would cost this node writes for nothing.
        if self.told.seen || seen == mine || seen.boot < mine.boot {
            return;
        }
        self.told.seen = true;
        let text = format!(
            "it has seen boot {} of this node, which runs as boot {}: this machine is a copy, or its store was set back",
            seen.boot, mine.boot
        );
        tracing::error!(target: "packhorse::session", peer = peer.0, text);
        self.tell_trouble(text, |peer, text| Fact::RolledBack { peer, text });
        self.raise_boot_floor(seen.boot);
    }

    /// The peer has seen later boots of this node than this store has: the next open gets a higher
    /// one.
    pub(super) fn raise_boot_floor(&mut self, seen: u32) {
        let store = self.wiring.store.clone();
        self.note(async move {
            if let Err(error) = store.raise_boot_floor(seen).await {
                tracing::error!(target: "packhorse::session", %error, "boot floor");
            }
        });
    }

    /// Writes a trouble down with the peer.
    pub(super) fn trouble(&mut self, text: &str) {
        let (store, peer, text) = (self.wiring.store.clone(), self.peer, text.to_owned());
        self.note(async move {
            if let Err(error) = store.note_trouble(peer, text).await {
                tracing::warn!(target: "packhorse::session", %error, "trouble was not written down");
            }
        });
    }

    /// A session that lives, and no sign for an hour: the trouble is over.
    pub(super) fn look_for_calm(&mut self) {
        let now_ms = self.wiring.env.monotonic_ms();
        if now_ms < self.calm_at_ms {
            return;
        }
        self.calm_at_ms = now_ms + CALM_LOOK_MS;
        let (store, peer) = (self.wiring.store.clone(), self.peer);
        self.note(async move {
            if let Err(error) = store.calm(peer).await {
                tracing::debug!(target: "packhorse::session", %error, "calm");
            }
        });
    }
}
