//! Whether a session that a peer dials may begin: the supervisor's part of it.
//!
//! It gathers what lives and asks `slots`; when two live machines show one identity it says so
//! where people look. Nothing here starts or stops a session.

use packhorse_protocol::{
    error_class::ErrorClass,
    handshake::{Introduction, SessionId, VerdictRefusal},
};

use super::{
    driver::PROOF_WITHIN_MS,
    handle::Admission,
    outlet::Ask,
    slot::{ProofOfLife, Slot},
    slots::{self, Newcomer},
    supervisor::{SessionSupervisor, SessionSupervisorState},
};
use crate::{events::Fact, store::PeerNumber};

/// How long a session that was asked to show itself is believed afterwards.
const PROOF_HOLDS_MS: u64 = 10 * 60 * 1_000;
/// When the newcomer may ask again: a session that did not show itself is gone by then.
const PROVE_RETRY_MS: u32 = 12_000;
const _: () = assert!(PROVE_RETRY_MS as u64 > PROOF_WITHIN_MS);

/// The same pair of machines is told of once in this time.
const ALARM_EVERY_MS: u64 = 60 * 60 * 1_000;
/// What the node says that both of them dial.
const COPY_CONNECTS: &str = "two live machines show its identity, a copied disk or a restored backup: `packhorse id --new` on one of them";
/// What the one says that comes second.
pub(super) const IS_COPY: &str = "another live machine shows this node's identity to it, a copied disk or a restored backup: `packhorse id --new` on one of them";

impl SessionSupervisor {
    pub(super) fn admit(
        &self,
        state: &mut SessionSupervisorState,
        peer: PeerNumber,
        introduction: &Introduction,
        dial_counter: u64,
        alive: Option<SessionId>,
    ) -> Admission {
        let now_ms = self.wiring.env.monotonic_ms();
        let slot = state.slots.entry(peer).or_default();
        // ORDER: before the decision, so that no dial goes on that it was made without. Without a
        // session that lives, only a dial that went on can keep the newcomer out.
        let is_proving = slot
            .dial
            .as_ref()
            .is_some_and(|dial| !dial.crossing.give_way());
        let newcomer = Newcomer {
            id: introduction.id,
            epoch: introduction.epoch,
            dial_counter,
            knows_live: slot
                .live
                .as_ref()
                .is_some_and(|live| Some(live.session) == alive),
        };
        let live = slot.live.as_ref().map(|live| live.facts(now_ms));
        match slots::admit(self.wiring.me.identity.id(), newcomer, live, is_proving) {
            Ok(()) => {
                slot.let_in_ms = Some(now_ms);
                Admission::Granted
            }
            Err(refusal) => {
                if refusal.class != ErrorClass::IdentityInUse {
                    return Admission::Refused(refusal);
                }
                if !is_proven(slot, now_ms) {
                    return Admission::Refused(prove_first());
                }
                self.alarm(state, peer, COPY_CONNECTS.to_owned());
                Admission::Refused(refusal)
            }
        }
    }

    /// Two live machines show one identity: a person has to end that. Told once an hour, written
    /// down with the peer each time.
    pub(super) fn alarm(&self, state: &mut SessionSupervisorState, peer: PeerNumber, text: String) {
        let now_ms = self.wiring.env.monotonic_ms();
        let slot = state.slots.entry(peer).or_default();
        let is_told = slot
            .alarmed_ms
            .is_some_and(|before| now_ms.saturating_sub(before) < ALARM_EVERY_MS);
        if !is_told {
            slot.alarmed_ms = Some(now_ms);
            tracing::error!(target: "packhorse::session", peer = peer.0, text);
            let text = text.clone();
            self.wiring.events.tell(Fact::IdentityInUse { peer, text });
        }
        let store = self.wiring.store.clone();
        state.tasks.spawn(async move {
            if let Err(error) = store.note_trouble(peer, text).await {
                tracing::warn!(target: "packhorse::session", %error, "trouble was not written down");
            }
        });
    }
}

/// Whether the session that lives has shown that its peer does too. A machine that was restored
/// from a backup dials while its former half still looks alive, and is no second one.
fn is_proven(slot: &mut Slot, now_ms: u64) -> bool {
    let Some(live) = &slot.live else { return false };
    let asked = slot.proof.filter(|proof| proof.session == live.session);
    let age_ms = asked.map_or(u64::MAX, |proof| now_ms.saturating_sub(proof.asked_ms));
    if age_ms > PROOF_HOLDS_MS {
        slot.proof = Some(ProofOfLife {
            session: live.session,
            asked_ms: now_ms,
        });
        live.outlet.ask(Ask::ProveAlive);
        return false;
    }
    // One that did not show itself within this time is gone.
    age_ms >= PROOF_WITHIN_MS
}

fn prove_first() -> VerdictRefusal {
    VerdictRefusal {
        class: ErrorClass::Busy,
        code: 3,
        reason: "another session with this identity lives, and has to show itself first".to_owned(),
        retry_after_ms: PROVE_RETRY_MS,
    }
}
