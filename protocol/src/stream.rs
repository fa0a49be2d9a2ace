//! Streams of a session: what they are for, and how each begins.
//!
//! ```text
//! 0  u8   kind
//! 1  u16  generation of the session's secret
//! 3  u32  number
//! 7       frames, see `frame.rs`
//! ```
//!
//! The header travels in clear. What it says is bound into the stream's keys and into every
//! frame, so a changed header makes a stream on which nothing can be opened.
//! Numbers are given by whoever opens a stream, and each serves once per opener and session:
//! [`StreamNumbers`] refuses the second use. The handshake's stream has neither header nor number.

use crate::limits::{FRAME_PLAINTEXT_BYTES_MAX, STREAM_WINDOW};

/// Bytes of a stream's header.
pub const STREAM_HEADER_BYTES: usize = 7;

/// The two ends of a session, told apart for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Said Hello.
    Dialler = 1,
    /// Gave the Verdict.
    Listener = 2,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Side::Dialler => Side::Listener,
            Side::Listener => Side::Dialler,
        }
    }
}

/// What a stream carries. Numbered by hand; a number is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// Heartbeats, generations, goodbye; opened by the dialler.
    Control = 1,
    /// Messages of the opener's user lane, and the answers to them.
    UserLane = 2,
    /// Messages of the opener's system lane, and the answers to them.
    SystemLane = 3,
    /// The opener's messages that travel now or never; nothing is answered on it.
    Ephemeral = 4,
}

impl StreamKind {
    /// Every kind there is.
    pub const ALL: [StreamKind; 4] = [
        StreamKind::Control,
        StreamKind::UserLane,
        StreamKind::SystemLane,
        StreamKind::Ephemeral,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a number on the wire.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The longest frame plaintext on such a stream.
    #[must_use]
    pub const fn plaintext_bytes_max(self) -> usize {
        match self {
            StreamKind::Control
            | StreamKind::UserLane
            | StreamKind::SystemLane
            | StreamKind::Ephemeral => FRAME_PLAINTEXT_BYTES_MAX,
        }
    }
}

/// The beginning of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// What it carries.
    pub kind: StreamKind,
    /// Which of the session's secrets its first keys come from.
    pub generation: u16,
    /// Given by the opener, once.
    pub number: u32,
}

impl StreamHeader {
    /// As it is written at the beginning of the stream.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; STREAM_HEADER_BYTES] {
        let [g0, g1] = self.generation.to_be_bytes();
        let [n0, n1, n2, n3] = self.number.to_be_bytes();
        [self.kind.code(), g0, g1, n0, n1, n2, n3]
    }

    /// Reads the beginning of a stream.
    ///
    /// # Errors
    /// [`StreamError::UnknownKind`]: a protocol error that names the kind.
    pub fn from_bytes(bytes: [u8; STREAM_HEADER_BYTES]) -> Result<Self, StreamError> {
        let [kind, g0, g1, n0, n1, n2, n3] = bytes;
        Ok(Self {
            kind: StreamKind::from_code(kind).ok_or(StreamError::UnknownKind(kind))?,
            generation: u16::from_be_bytes([g0, g1]),
            number: u32::from_be_bytes([n0, n1, n2, n3]),
        })
    }
}

/// Which numbers of one opener have been used: the highest, and a bit for each of the 1,024
/// below it. Streams overtake each other on a link, so order cannot be demanded.
#[derive(Clone, Debug)]
pub struct StreamNumbers {
    highest: Option<u32>,
    /// Bit `i` of the whole says whether `highest - 1 - i` was used.
    below: [u64; WORDS],
}

const WORDS: usize = STREAM_WINDOW as usize / 64;
const _: () = assert!(STREAM_WINDOW.is_multiple_of(64));

impl StreamNumbers {
    /// No number was used yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            highest: None,
            below: [0; WORDS],
        }
    }

    /// Takes a number that the opener has just used.
    ///
    /// # Errors
    /// [`StreamError::NumberUsed`] and [`StreamError::NumberTooOld`] are protocol errors.
    pub fn accept(&mut self, number: u32) -> Result<(), StreamError> {
        let Some(highest) = self.highest else {
            self.highest = Some(number);
            return Ok(());
        };
        if number == highest {
            return Err(StreamError::NumberUsed(number));
        }
        if number > highest {
            self.rise(number - highest);
            self.highest = Some(number);
            return Ok(());
        }
        let distance = highest - number - 1;
        let word = self.below.get_mut((distance / 64) as usize);
        let word = word.ok_or(StreamError::NumberTooOld { number, highest })?;
        let bit = 1 << (distance % 64);
        if *word & bit != 0 {
            return Err(StreamError::NumberUsed(number));
        }
        *word |= bit;
        Ok(())
    }

    /// Moves the window up: the former highest becomes one of those below.
    fn rise(&mut self, by: u32) {
        let words = (by / 64) as usize;
        let bits = by % 64;
        let old = self.below;
        for (index, word) in self.below.iter_mut().enumerate() {
            let at = |back: usize| index.checked_sub(back).and_then(|index| old.get(index));
            let upper = at(words).map_or(0, |word| word << bits);
            let lower = match bits {
                0 => 0,
                _ => at(words + 1).map_or(0, |word| word >> (64 - bits)),
            };
            *word = upper | lower;
        }
        let former = by - 1;
        if let Some(word) = self.below.get_mut((former / 64) as usize) {
            *word |= 1 << (former % 64);
        }
    }
}

impl Default for StreamNumbers {
    fn default() -> Self {
        Self::new()
    }
}

/// What is wrong with the beginning of a stream; a protocol error of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A kind that this version does not know.
    #[error("unknown stream kind {0}")]
    UnknownKind(u8),
    /// A replay.
    #[error("stream number {0} was used before")]
    NumberUsed(u32),
    /// So far below the highest that it is not known whether it was used.
    #[error("stream number {number} is more than {STREAM_WINDOW} below the highest, {highest}")]
    NumberTooOld {
        /// The number.
        number: u32,
        /// The highest seen.
        highest: u32,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_round_trip() {
        let header = StreamHeader {
            kind: StreamKind::UserLane,
            generation: 0x0102,
            number: 0x0304_0506,
        };
        assert_eq!(header.to_bytes(), [2, 1, 2, 3, 4, 5, 6]);
        assert_eq!(StreamHeader::from_bytes(header.to_bytes()), Ok(header));
        for kind in [0, 5, 255] {
            let error = StreamHeader::from_bytes([kind, 0, 0, 0, 0, 0, 0]);
            assert_eq!(error, Err(StreamError::UnknownKind(kind)));
        }
    }

    #[test]
    fn a_number_serves_once_also_at_the_edges_of_the_window() {
        let mut numbers = StreamNumbers::new();
        let used = |number| Err(StreamError::NumberUsed(number));
        let too_old = |number, highest| Err(StreamError::NumberTooOld { number, highest });
        assert_eq!(numbers.accept(5_000), Ok(()));
        assert_eq!(numbers.accept(5_000), used(5_000));
        assert_eq!(numbers.accept(5_000 - 1_024), Ok(()));
        assert_eq!(numbers.accept(5_000 - 1_024), used(5_000 - 1_024));
        assert_eq!(numbers.accept(5_000 - 1_025), too_old(5_000 - 1_025, 5_000));
        assert_eq!(numbers.accept(4_999), Ok(()));
        assert_eq!(numbers.accept(4_999), used(4_999));
        // One up: the oldest falls out of the window, the former highest moves into it.
        assert_eq!(numbers.accept(5_001), Ok(()));
        assert_eq!(numbers.accept(5_000), used(5_000));
        assert_eq!(numbers.accept(4_999), used(4_999));
        assert_eq!(numbers.accept(5_000 - 1_024), too_old(5_000 - 1_024, 5_001));
        assert_eq!(numbers.accept(4_998), Ok(()));
        // Exactly a window up, then far beyond it.
        assert_eq!(numbers.accept(5_001 + 1_024), Ok(()));
        assert_eq!(numbers.accept(5_001), used(5_001));
        assert_eq!(numbers.accept(5_000), too_old(5_000, 6_025));
        assert_eq!(numbers.accept(u32::MAX), Ok(()));
        assert_eq!(numbers.accept(u32::MAX), used(u32::MAX));
        assert_eq!(numbers.accept(u32::MAX - 1_024), Ok(()));
        assert_eq!(numbers.accept(6_025), too_old(6_025, u32::MAX));
        assert_eq!(numbers.accept(0), too_old(0, u32::MAX));
    }

    #[test]
    fn the_first_number_may_be_any_and_those_below_it_follow() {
        let mut numbers = StreamNumbers::new();
        assert_eq!(numbers.accept(2), Ok(()));
        assert_eq!(numbers.accept(0), Ok(()));
        assert_eq!(numbers.accept(1), Ok(()));
        for number in 0..3 {
            assert_eq!(numbers.accept(number), Err(StreamError::NumberUsed(number)));
        }
    }

    proptest! {
        #[test]
        fn numbers_are_taken_as_a_set_would(
            steps in prop::collection::vec((any::<bool>(), 0_u32..1_400), 1..200)
        ) {
            let mut numbers = StreamNumbers::new();
            let mut model = BTreeSet::new();
            let mut at = 3_000_u32;
            for (up, step) in steps {
                let number = if up { at + step / 4 } else { at - step };
                at = at.max(number);
                let highest = model.last().copied().unwrap_or(number);
                let too_old = number < highest && highest - number > 1_024;
                let expected = !too_old && model.insert(number);
                prop_assert_eq!(numbers.accept(number).is_ok(), expected, "{}", number);
            }
        }
    }
}
