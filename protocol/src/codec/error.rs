//! Why bytes could not be read.

/// Why bytes are not what they should be. All of these are the peer's doing, or damage.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// More bytes than such a thing may have; nothing was read.
    #[error("{bytes} bytes, more than {limit}")]
    TooLong {
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The bytes end in the middle of a value.
    #[error("the bytes end too early")]
    Truncated,
    /// Bytes are left over after the last value.
    #[error("{bytes} bytes too many at the end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A kind of frame that this version does not know and may not ignore.
    #[error("unknown frame kind {kind} on the {stream} stream")]
    UnknownKind {
        /// The kind.
        kind: u8,
        /// Whose stream it came on.
        stream: &'static str,
    },
    /// A list is longer than its limit.
    #[error("{count} {what}, more than {limit}")]
    TooMany {
        /// What the list holds.
        what: &'static str,
        /// How many it promises.
        count: u64,
        /// How many it may hold.
        limit: usize,
    },
    /// A number or text that means nothing in its place.
    #[error("{what} is not valid")]
    Invalid {
        /// What it should have been.
        what: &'static str,
    },
    /// The bytes could be read but are not the ones this value is written as.
    #[error("the bytes are not in their canonical form")]
    NotCanonical,
}
