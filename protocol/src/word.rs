//! One word for bytes: bech32m (BIP 350) with a prefix that says what they are.
//!
//! Node ids and tickets are written this way; the six characters at the end catch typing errors.
//! One value has one spelling: leftover bits must be zero, and mixed case is refused.
//!
//! Lower case is what is written; all upper case is read too, because QR codes pack it tighter.

use bech32::primitives::decode::{
    CharError, CheckedHrpstring, CheckedHrpstringError, ChecksumError, UncheckedHrpstringError,
};
use bech32::{Bech32m, Hrp};

/// Longest word that bech32m can protect with its checksum.
pub(crate) const WORD_CHARS_MAX: usize = 1_023;

/// Why a text is not such a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordError {
    /// Another kind of word, or none.
    #[error("it does not begin with `{expected}1`")]
    Prefix {
        /// The prefix asked for.
        expected: &'static str,
    },
    /// A typing or copying error.
    #[error("its checksum is wrong: a character was mistyped or is missing")]
    Checksum,
    /// Upper and lower case in one word.
    #[error("it mixes upper and lower case")]
    MixedCase,
    /// A character outside the alphabet.
    #[error("it contains the character {0:?}, which no such word has")]
    Character(char),
    /// Over the length that the checksum covers.
    #[error("it is {chars} characters long, the limit is {WORD_CHARS_MAX}")]
    TooLong {
        /// Its length.
        chars: usize,
    },
    /// The checksum is right, and still nothing wrote it this way.
    #[error("it is not written the one way such a word is written")]
    Malformed,
}

/// The word for `bytes`, in lower case.
pub(crate) fn encode(prefix: &'static str, bytes: &[u8]) -> Result<String, WordError> {
    let hrp = Hrp::parse(prefix).map_err(|_| WordError::Prefix { expected: prefix })?;
    bech32::encode_lower::<Bech32m>(hrp, bytes).map_err(|_| {
        // Prefix, separator, checksum, and 5 bits to a character.
        let chars = prefix.len() + 1 + 6 + (bytes.len() * 8).div_ceil(5);
        WordError::TooLong { chars }
    })
}

/// Whether a text begins as words with this prefix do.
pub(crate) fn has_prefix(prefix: &str, text: &str) -> bool {
    text.get(..=prefix.len())
        .and_then(|head| head.strip_suffix('1'))
        .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// The bytes of a word with this prefix.
pub(crate) fn decode(prefix: &'static str, text: &str) -> Result<Vec<u8>, WordError> {
    // ORDER: length and prefix first, so that a pasted page is neither scanned nor misnamed.
    if text.len() > WORD_CHARS_MAX {
        return Err(WordError::TooLong {
            chars: text.chars().count(),
        });
    }
    if !has_prefix(prefix, text) {
        return Err(WordError::Prefix { expected: prefix });
    }
    let word = CheckedHrpstring::new::<Bech32m>(text).map_err(|error| match error {
        CheckedHrpstringError::Parse(UncheckedHrpstringError::Char(CharError::InvalidChar(c))) => {
            WordError::Character(c)
        }
        CheckedHrpstringError::Parse(UncheckedHrpstringError::Char(CharError::MixedCase)) => {
            WordError::MixedCase
        }
        CheckedHrpstringError::Checksum(
            ChecksumError::InvalidResidue(_) | ChecksumError::InvalidLength,
        ) => WordError::Checksum,
        _ => WordError::Malformed,
    })?;
    if !word.hrp().as_str().eq_ignore_ascii_case(prefix) {
        return Err(WordError::Prefix { expected: prefix });
    }
    let bytes: Vec<u8> = word.byte_iter().collect();
    if !encode(prefix, &bytes)?.eq_ignore_ascii_case(text) {
        return Err(WordError::Malformed);
    }
    Ok(bytes)
}
