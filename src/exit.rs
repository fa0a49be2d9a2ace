//! How a command ends: the exit codes, each with one meaning.
//!
//! Nothing here exits; only `main` does, and it takes its code from [`Exit`].
//! Scripts rely on the numbers, so a number is never given a second meaning.

use std::process::ExitCode;

/// The end of a command, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed, and no other code says why.
    Failure = 1,
    /// The command line, the settings or an argument is wrong.
    Usage = 2,
    /// Accepted here, but the state that was waited for is not reached yet.
    NotYet = 3,
    /// There is no such thing.
    NotFound = 4,
    /// A rule of this node or of the other one forbids it.
    Refused = 5,
    /// No daemon answers at this data folder.
    Unreachable = 6,
    /// The store is locked by another process, or damaged.
    Damaged = 7,
    /// The store was sealed with another key.
    WrongKey = 8,
    /// No room for more; what is there is safe.
    Full = 9,
    /// A part of the node failed beyond its restart budget: start the process again.
    Internal = 10,
    /// The daemon did not answer in time; what came of it is unknown.
    TimedOut = 124,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl Exit {
    /// Every exit there is, in the order of the codes.
    pub const ALL: [Exit; 13] = [
        Exit::Done,
        Exit::Failure,
        Exit::Usage,
        Exit::NotYet,
        Exit::NotFound,
        Exit::Refused,
        Exit::Unreachable,
        Exit::Damaged,
        Exit::WrongKey,
        Exit::Full,
        Exit::Internal,
        Exit::TimedOut,
        Exit::Interrupted,
    ];

    /// The number that the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The exit with this number; a number that this version does not know is a plain failure.
    #[must_use]
    pub fn from_code(code: u8) -> Exit {
        Exit::ALL
            .into_iter()
            .find(|exit| exit.code() == code)
            .unwrap_or(Exit::Failure)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_published_ones() {
        let codes: Vec<u8> = Exit::ALL.into_iter().map(Exit::code).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 124, 130]);
    }

    #[test]
    fn every_code_leads_back_to_its_exit() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(exit.code()), exit);
        }
    }

    #[test]
    fn an_unknown_code_is_a_plain_failure() {
        assert_eq!(Exit::from_code(77), Exit::Failure);
    }
}
