//! Which session with a peer may begin: pure decisions over what lives now.
//!
//! Both ends apply the same rules to the same facts, so that two nodes which dial each other at
//! once settle on one session without talking about it.
//! Nothing here starts or stops anything.

#[cfg(feature = "sim")]
use packhorse_protocol::mutant::{self, Mutant};
use packhorse_protocol::{
    epoch::Epoch, error_class::ErrorClass, handshake::VerdictRefusal, node_id::NodeId, stream::Side,
};

/// A dial that was answered this recently may still cross the other side's: a whole handshake.
const CROSSING_MS: u64 = 10_000;
/// What the other end of a crossing dial should wait before it asks again.
const CROSSING_RETRY_MS: u32 = 2_000;

/// What is known about a session that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiveFacts {
    /// Which end of its link this node is.
    pub(super) side: Side,
    /// The peer's open of its store.
    pub(super) peer_epoch: Epoch,
    /// Orders the dials of one node in one boot.
    pub(super) dial_counter: u64,
    /// How long it has lived.
    pub(super) age_ms: u64,
}

impl LiveFacts {
    /// Of two sessions dialled by the same side, the later dial counts.
    pub(super) fn is_newer_than(self, other: Self) -> bool {
        self.side == other.side
            && match self.side {
                Side::Dialler => self.dial_counter > other.dial_counter,
                Side::Listener => {
                    (self.peer_epoch.boot, self.dial_counter)
                        > (other.peer_epoch.boot, other.dial_counter)
                }
            }
    }
}

/// What is known about a newcomer that this node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newcomer {
    pub(super) id: NodeId,
    pub(super) epoch: Epoch,
    pub(super) dial_counter: u64,
    /// It knows of the session that lives here, and dials all the same.
    pub(super) knows_live: bool,
}

/// May a session that the peer dialled begin?
pub(super) fn admit(
    me: NodeId,
    newcomer: Newcomer,
    live: Option<LiveFacts>,
    dial_is_proving: bool,
) -> Result<(), VerdictRefusal> {
    if let Some(live) = live {
        let copy = live.peer_epoch.nonce != newcomer.epoch.nonce
            && live.peer_epoch.boot >= newcomer.epoch.boot;
        if copy {
            return Err(refusal(
                ErrorClass::IdentityInUse,
                "another machine with this identity is connected: a copied disk or restored backup",
                60_000,
            ));
        }
        let newer = (newcomer.epoch.boot, newcomer.dial_counter)
            > (live.peer_epoch.boot, live.dial_counter);
        if live.side == Side::Listener && !newer {
            return Err(refusal(
                ErrorClass::Displaced,
                "a newer session lives",
                CROSSING_RETRY_MS,
            ));
        }
    }
    #[cfg(feature = "sim")]
    if mutant::is(Mutant::BothCrossingLinks) {
        return Ok(());
    }
    let just_dialled = live.is_some_and(|live| {
        live.side == Side::Dialler
            && !newcomer.knows_live
            && live.peer_epoch == newcomer.epoch
            && live.age_ms < CROSSING_MS
    });
    if (dial_is_proving || just_dialled) && me < newcomer.id {
        return Err(refusal(
            ErrorClass::Busy,
            "crossing dial",
            CROSSING_RETRY_MS,
        ));
    }
    Ok(())
}

fn refusal(class: ErrorClass, reason: &str, retry_after_ms: u32) -> VerdictRefusal {
    VerdictRefusal {
        class,
        code: 3,
        reason: reason.to_owned(),
        retry_after_ms,
    }
}

#[cfg(test)]
mod tests {
    use packhorse_protocol::identity::IdentityKey;

    use super::*;

    /// Two nodes, the lower id first.
    fn nodes() -> (NodeId, NodeId) {
        let [one, two] = [1, 2].map(|seed| IdentityKey::from_seed(&[seed; 32]).id());
        (one.min(two), one.max(two))
    }

    fn newcomer(boot: u32, nonce: u64, dial_counter: u64) -> Newcomer {
        let epoch = Epoch { boot, nonce };
        Newcomer {
            id: nodes().1,
            epoch,
            dial_counter,
            knows_live: false,
        }
    }

    fn live(side: Side, boot: u32, nonce: u64, dial_counter: u64) -> Option<LiveFacts> {
        Some(LiveFacts {
            side,
            peer_epoch: Epoch { boot, nonce },
            dial_counter,
            age_ms: 60_000,
        })
    }

    fn class(result: Result<(), VerdictRefusal>) -> Option<ErrorClass> {
        result.err().map(|refusal| refusal.class)
    }

    #[test]
    fn a_first_session_is_admitted() {
        assert_eq!(
            class(admit(nodes().0, newcomer(1, 9, 1), None, false)),
            None
        );
    }

    #[test]
    fn of_two_crossing_dials_the_lower_id_survives_on_both_ends() {
        let to_high = Newcomer {
            id: nodes().0,
            ..newcomer(1, 9, 1)
        };
        assert_eq!(
            class(admit(nodes().0, newcomer(1, 9, 1), None, true)),
            Some(ErrorClass::Busy)
        );
        assert_eq!(class(admit(nodes().1, to_high, None, true)), None);
    }

    #[test]
    fn a_stale_session_gives_way_to_a_newer_dial_or_boot() {
        let old = live(Side::Listener, 3, 9, 4);
        assert_eq!(class(admit(nodes().0, newcomer(3, 9, 5), old, false)), None);
        assert_eq!(class(admit(nodes().0, newcomer(4, 8, 1), old, false)), None);
        assert_eq!(
            class(admit(nodes().0, newcomer(3, 9, 4), old, false)),
            Some(ErrorClass::Displaced)
        );
        assert_eq!(
            class(admit(nodes().0, newcomer(3, 9, 3), old, false)),
            Some(ErrorClass::Displaced)
        );
    }

    #[test]
    fn a_session_this_node_dialled_gives_way_to_one_the_peer_dials() {
        assert_eq!(
            class(admit(
                nodes().0,
                newcomer(3, 9, 1),
                live(Side::Dialler, 3, 9, 7),
                false
            )),
            None
        );
    }

    #[test]
    fn a_dial_that_crossed_one_just_answered_is_busy_unless_the_peer_is_a_newer_boot() {
        let young = live(Side::Dialler, 3, 9, 7).map(|live| LiveFacts { age_ms: 5, ..live });
        assert_eq!(
            class(admit(nodes().0, newcomer(3, 9, 1), young, false)),
            Some(ErrorClass::Busy)
        );
        assert_eq!(
            class(admit(nodes().0, newcomer(4, 8, 1), young, false)),
            None
        );
        let to_high = Newcomer {
            id: nodes().0,
            ..newcomer(3, 9, 1)
        };
        assert_eq!(class(admit(nodes().1, to_high, young, false)), None);
        let knowing = Newcomer {
            knows_live: true,
            ..newcomer(3, 9, 1)
        };
        assert_eq!(class(admit(nodes().0, knowing, young, false)), None);
    }

    #[test]
    fn a_second_machine_with_the_same_identity_is_told_so() {
        let refused = Some(ErrorClass::IdentityInUse);
        let old = live(Side::Listener, 3, 9, 4);
        assert_eq!(
            class(admit(nodes().0, newcomer(3, 8, 9), old, false)),
            refused
        );
        assert_eq!(
            class(admit(nodes().0, newcomer(2, 8, 9), old, false)),
            refused
        );
    }
}
