//! How a session or a dial ended, and whose doing it was.
//!
//! The class steers when the next dial comes; [`Blame`] alone steers whether the end counts as a
//! failed attempt against the peer. Nothing here counts.

use packhorse_protocol::error_class::ErrorClass;

use crate::link::LinkError;

/// Whose doing the end was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// This machine's: it was not connected, this program failed, or it was asked to stop.
    Here,
    /// The other side's or the network's between: the only one that counts as a failed attempt.
    There,
    /// Nobody's: it went by the rules, as when a newer session takes over.
    Nobody,
}

impl Blame {
    /// For an end that this node decided, for a reason of this class.
    #[must_use]
    pub const fn ended_here(class: ErrorClass) -> Self {
        match class {
            // Silence, a seal that does not open, a broken rule: decided here, caused there.
            ErrorClass::Disconnected
            | ErrorClass::Authentication
            | ErrorClass::Protocol
            | ErrorClass::IdentityInUse => Self::There,
            ErrorClass::Internal | ErrorClass::ShuttingDown => Self::Here,
            ErrorClass::Busy | ErrorClass::Displaced => Self::Nobody,
        }
    }

    /// For an end that the other side decided and gave this class.
    #[must_use]
    pub const fn ended_there(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Disconnected
            | ErrorClass::Authentication
            | ErrorClass::Protocol
            | ErrorClass::IdentityInUse
            | ErrorClass::Internal => Self::There,
            // Who leaves by intent has failed nobody; whether it stays away, the next dials tell.
            ErrorClass::ShuttingDown | ErrorClass::Busy | ErrorClass::Displaced => Self::Nobody,
        }
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionExit {
    /// Who can act, and how dials go on.
    pub class: ErrorClass,
    /// What a person is told.
    pub reason: String,
    /// Whose doing it was.
    pub blame: Blame,
    /// The peer acknowledged something while it lasted.
    pub progress: bool,
}

impl SessionExit {
    /// An end that this node decided.
    pub(crate) fn new(class: ErrorClass, reason: impl Into<String>) -> Self {
        Self::blaming(Blame::ended_here(class), class, reason)
    }

    /// An end with the blame known.
    pub(crate) fn blaming(blame: Blame, class: ErrorClass, reason: impl Into<String>) -> Self {
        Self {
            class,
            reason: reason.into(),
            blame,
            progress: false,
        }
    }

    /// The end of a session whose link ended.
    pub(crate) fn lost(error: &LinkError) -> Self {
        let class = match error {
            LinkError::Closed(code) => class_of(*code),
            _ => ErrorClass::Disconnected,
        };
        Self::blaming(Blame::ended_there(class), class, error.to_string())
    }

    /// Whether it is a failed attempt, should something have been waiting for the peer.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.blame == Blame::There && !self.progress
    }
}

/// The class that a link was closed with; whatever is no class tells no more than a lost link.
pub(crate) fn class_of(code: u64) -> ErrorClass {
    u16::try_from(code)
        .ok()
        .and_then(ErrorClass::from_u16)
        .unwrap_or(ErrorClass::Disconnected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_blamed_on_somebody_by_who_ended_it() {
        use Blame::{Here, Nobody, There};
        let table = [
            (ErrorClass::Disconnected, There, There),
            (ErrorClass::Authentication, There, There),
            (ErrorClass::Protocol, There, There),
            (ErrorClass::Busy, Nobody, Nobody),
            (ErrorClass::IdentityInUse, There, There),
            (ErrorClass::Internal, Here, There),
            (ErrorClass::Displaced, Nobody, Nobody),
            (ErrorClass::ShuttingDown, Here, Nobody),
        ];
        assert_eq!(table.map(|(class, ..)| class), ErrorClass::ALL);
        for (class, here, there) in table {
            assert_eq!(Blame::ended_here(class), here, "{class}, ended here");
            assert_eq!(Blame::ended_there(class), there, "{class}, ended there");
            for (blame, is_counted) in [(Here, false), (There, true), (Nobody, false)] {
                let exit = SessionExit::blaming(blame, class, "why");
                assert_eq!(exit.counts(), is_counted, "{class}, {blame:?}");
                let acknowledged = SessionExit {
                    progress: true,
                    ..exit
                };
                assert!(!acknowledged.counts(), "{class}, {blame:?}, with progress");
            }
        }
    }

    #[test]
    fn a_lost_link_is_blamed_by_the_code_it_was_closed_with() {
        let blame = |code| SessionExit::lost(&LinkError::Closed(code)).blame;
        assert_eq!(blame(0), Blame::There);
        assert_eq!(blame(u64::MAX), Blame::There);
        assert_eq!(blame(7), Blame::Nobody);
        assert_eq!(blame(8), Blame::Nobody);
        let lost = SessionExit::lost(&LinkError::Lost("idle".to_owned()));
        assert_eq!(
            (lost.class, lost.blame),
            (ErrorClass::Disconnected, Blame::There)
        );
    }
}
