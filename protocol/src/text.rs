//! Checks on every text that another node may have written.
//!
//! A text that passed may be stored, logged and shown on a terminal; it may still be a lie.
//! Nothing here changes a text except [`clipped`], which is for what this node says itself.
//!
//! Read [`check`]; the rest names its limits.

use crate::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX};

/// Why a text was not accepted. Never holds the text itself, which may upset a terminal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Nothing is there where something must be.
    #[error("{what} is empty")]
    Empty {
        /// Which text.
        what: &'static str,
    },
    /// Over its limit.
    #[error("{what} is {bytes} bytes long, the limit is {bytes_max}")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The bytes are no text.
    #[error("{what} is not valid UTF-8")]
    NotUtf8 {
        /// Which text.
        what: &'static str,
    },
    /// A character that could move the cursor, break a line or turn the reading direction.
    #[error("{what} contains the control character U+{character:04X} at byte {at}")]
    Control {
        /// Which text.
        what: &'static str,
        /// Where it stands.
        at: usize,
        /// Its code point.
        character: u32,
    },
    /// More texts than allowed.
    #[error("{count} {what} given, the limit is {count_max}")]
    TooMany {
        /// Which texts.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The limit.
        count_max: usize,
    },
}

/// Checks length and characters; an empty text passes.
///
/// # Errors
/// Names the first thing that is wrong.
pub fn check(what: &'static str, text: &str, bytes_max: usize) -> Result<(), TextError> {
    if text.len() > bytes_max {
        return Err(TextError::TooLong {
            what,
            bytes: text.len(),
            bytes_max,
        });
    }
    match text
        .char_indices()
        .find(|&(_, character)| is_unsafe(character))
    {
        Some((at, character)) => Err(TextError::Control {
            what,
            at,
            character: character.into(),
        }),
        None => Ok(()),
    }
}

/// Checks the name of a node: 1 to 64 bytes.
///
/// # Errors
/// Names the first thing that is wrong.
pub fn check_name(name: &str) -> Result<(), TextError> {
    check_present("name", name, NAME_BYTES_MAX)
}

/// Checks address hints: how many, and each one's length and characters, not its form.
///
/// # Errors
/// Names the first thing that is wrong.
pub fn check_addresses(addresses: &[String]) -> Result<(), TextError> {
    if addresses.len() > ADDRESSES_MAX {
        let count = addresses.len();
        return Err(TextError::TooMany {
            what: "addresses",
            count,
            count_max: ADDRESSES_MAX,
        });
    }
    addresses
        .iter()
        .try_for_each(|address| check_present("address", address, ADDRESS_BYTES_MAX))
}

/// Like [`check`], and the text must not be empty.
///
/// # Errors
/// Names the first thing that is wrong.
pub fn check_present(what: &'static str, text: &str, bytes_max: usize) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty { what });
    }
    check(what, text, bytes_max)
}

/// Makes a reason that passes [`check`] out of any text of our own: unsafe characters become
/// U+FFFD, and what is over the limit is cut off.
#[must_use]
pub fn clipped(reason: &str) -> String {
    let mut out = String::new();
    for character in reason.chars() {
        let safe = if is_unsafe(character) {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        };
        if out.len() + safe.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        out.push(safe);
    }
    out
}

/// Control characters (Cc), line and paragraph separators, and the bidirectional controls with
/// which one text can be made to look like another.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_at_their_edges() {
        assert_eq!(check_name(""), Err(TextError::Empty { what: "name" }));
        assert_eq!(check_name("n"), Ok(()));
        assert_eq!(check_name(&"n".repeat(64)), Ok(()));
        let error = check_name(&"n".repeat(65)).expect_err("65 bytes are one too many");
        assert_eq!(error.to_string(), "name is 65 bytes long, the limit is 64");
        assert_eq!(check_name("küche 2"), Ok(()));
    }

    #[test]
    fn characters_that_disturb_a_terminal_are_refused() {
        for bad in [
            "a\nb",
            "a\u{1b}[2J",
            "a\0b",
            "a\u{7f}",
            "a\u{85}",
            "a\u{202e}b",
            "a\u{2028}",
        ] {
            let error = check_name(bad).expect_err("a control character");
            assert!(matches!(error, TextError::Control { at: 1, .. }), "{error}");
        }
        let error = check_name("a\nb").expect_err("a line feed");
        assert_eq!(
            error.to_string(),
            "name contains the control character U+000A at byte 1"
        );
    }

    #[test]
    fn a_fifth_address_is_refused() {
        let mut addresses = vec![String::from("host:1"); ADDRESSES_MAX];
        assert_eq!(check_addresses(&addresses), Ok(()));
        addresses.push(String::from("host:1"));
        assert!(matches!(
            check_addresses(&addresses),
            Err(TextError::TooMany { count: 5, .. })
        ));
        assert!(check_addresses(&[String::new()]).is_err());
        assert!(check_addresses(&["a".repeat(ADDRESS_BYTES_MAX + 1)]).is_err());
    }

    #[test]
    fn a_clipped_reason_always_passes_the_check() {
        let reason = clipped(&format!("line\n{}", "ü".repeat(REASON_BYTES_MAX)));
        assert_eq!(check("reason", &reason, REASON_BYTES_MAX), Ok(()));
        assert!(reason.starts_with("line\u{fffd}ü"));
        assert_eq!(clipped("plain"), "plain");
    }
}
