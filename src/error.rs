//! What can go wrong when a node is asked for something.
//!
//! One kind per party who can act: it decides the exit code and the HTTP status.
//! The text is for people, the hint is what they may do next; neither is for matching.

use std::error::Error;

use crate::exit::Exit;

/// Who can act on an error, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something that cannot be: mend the arguments.
    Usage,
    /// There is no such peer, message or ticket.
    NotFound,
    /// A rule forbids it, here or at the other node.
    Refused,
    /// Not reached in time; it may still come.
    Timeout,
    /// No room: free some or raise the quota.
    Full,
    /// The store is locked or damaged: look at the data folder.
    Damaged,
    /// The store was sealed with another key.
    WrongKey,
    /// It went nowhere and is kept nowhere: an ephemeral message without a live session.
    Unsent,
    /// A bug or a part that is restarting: try again, and report it if it stays.
    Internal,
}

impl ErrorKind {
    /// Every kind there is.
    pub const ALL: [ErrorKind; 9] = [
        ErrorKind::Usage,
        ErrorKind::NotFound,
        ErrorKind::Refused,
        ErrorKind::Timeout,
        ErrorKind::Full,
        ErrorKind::Damaged,
        ErrorKind::WrongKey,
        ErrorKind::Unsent,
        ErrorKind::Internal,
    ];

    /// The code that a command ends with.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            ErrorKind::Usage => Exit::Usage,
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::Refused => Exit::Refused,
            ErrorKind::Timeout => Exit::NotYet,
            ErrorKind::Full => Exit::Full,
            ErrorKind::Damaged => Exit::Damaged,
            ErrorKind::WrongKey => Exit::WrongKey,
            ErrorKind::Unsent => Exit::Failure,
            ErrorKind::Internal => Exit::Internal,
        }
    }

    /// The word that the API uses for it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            ErrorKind::Usage => "usage",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Refused => "refused",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Full => "full",
            ErrorKind::Damaged => "damaged",
            ErrorKind::WrongKey => "wrong_key",
            ErrorKind::Unsent => "unsent",
            ErrorKind::Internal => "internal",
        }
    }
}

/// Why a node did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct NodeError {
    kind: ErrorKind,
    text: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl NodeError {
    /// An error of this kind; the text names the value and the limit.
    #[must_use]
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> NodeError {
        NodeError {
            kind,
            text: text.into(),
            hint: None,
            source: None,
        }
    }

    /// The same error with what a person may do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> NodeError {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> NodeError {
        self.source = Some(source.into());
        self
    }

    /// Who can act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What a person may do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.kind.exit()
    }

    /// The number of [`exit`](NodeError::exit).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit().code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_word() {
        let mut words: Vec<&str> = ErrorKind::ALL.into_iter().map(ErrorKind::code).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn exit_codes_are_those_of_the_command_line_contract() {
        let codes: Vec<u8> = ErrorKind::ALL
            .into_iter()
            .map(|kind| kind.exit().code())
            .collect();
        assert_eq!(codes, [2, 4, 5, 3, 9, 7, 8, 1, 10]);
    }

    #[test]
    fn hint_and_source_are_kept_beside_the_text() {
        let error = NodeError::new(ErrorKind::NotFound, "no peer `left`")
            .with_hint("packhorse peers")
            .with_source(std::io::Error::other("gone"));
        assert_eq!(error.to_string(), "no peer `left`");
        assert_eq!(error.hint(), Some("packhorse peers"));
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("gone")
        );
    }
}
