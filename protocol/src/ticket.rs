//! A one-word invitation: who invites, where it may be found, and a one-time secret.
//!
//! Whoever holds the word may use it once; so its secret is never printed except as the word
//! itself, never travels (a MAC proves it), and the inviter keeps only [`TicketKey`].
//! What the ticket allows, until when and how often stands at the inviter, not in the word.
//!
//! ```text
//! pht1 ‖ bech32m of:
//!   0  u8        version, 1
//!   1  32        node id of the inviter
//!  33  16        ticket id
//!  49  32        secret
//!  81  u8        count of address hints, at most 4
//!      per hint: u16 length big-endian ‖ text
//! ```

use std::fmt;
use std::str::FromStr;

use zeroize::{Zeroize, Zeroizing};

use crate::node_id::{NodeId, NodeIdError};
use crate::secret::Secret;
use crate::text::{self, TextError};
use crate::word::{self, WordError};

const VERSION: u8 = 1;
const KEY_LABEL: &str = "packhorse ticket 1";

/// An invitation.
#[derive(Clone)]
pub struct Ticket {
    inviter: NodeId,
    id: [u8; 16],
    secret: Secret,
    hints: Vec<String>,
}

impl Ticket {
    /// What a ticket's text begins with, before the `1`.
    pub const PREFIX: &'static str = "pht";

    /// Makes a ticket; `id` and `secret` are random bytes that serve nothing else.
    ///
    /// # Errors
    /// [`TicketError::Hint`] if a hint is no address text, [`TicketError::Word`] if the hints are
    /// together longer than one word can carry: give fewer or shorter addresses.
    pub fn new(
        inviter: NodeId,
        id: [u8; 16],
        mut secret: [u8; 32],
        hints: Vec<String>,
    ) -> Result<Self, TicketError> {
        text::check_addresses(&hints)?;
        let ticket = Self {
            inviter,
            id,
            secret: Secret::copy_of(&secret),
            hints,
        };
        secret.zeroize();
        ticket.word()?;
        Ok(ticket)
    }

    /// The version of the ticket's layout.
    #[must_use]
    pub const fn version(&self) -> u8 {
        VERSION
    }

    /// Who invites.
    #[must_use]
    pub const fn inviter(&self) -> NodeId {
        self.inviter
    }

    /// By what name the inviter keeps it.
    #[must_use]
    pub const fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Where the inviter may be found. Hints: nothing is believed because of them.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// The same invitation with other hints, for who reaches the inviter elsewhere than it says.
    ///
    /// # Errors
    /// As [`Ticket::new`].
    pub fn with_hints(&self, hints: Vec<String>) -> Result<Self, TicketError> {
        Self::new(self.inviter, self.id, *self.secret.bytes(), hints)
    }

    /// What proves the ticket, and what the inviter keeps of it.
    #[must_use]
    pub fn key(&self) -> TicketKey {
        TicketKey(Secret::extract(&[], self.secret.bytes()).expand(KEY_LABEL, &[]))
    }

    fn word(&self) -> Result<String, WordError> {
        let mut bytes = Zeroizing::new(vec![VERSION]);
        bytes.extend_from_slice(self.inviter.as_bytes());
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(self.secret.bytes());
        // `new` and `from_str` let through at most 4 hints of at most 259 bytes.
        bytes.push(self.hints.len() as u8);
        for hint in &self.hints {
            bytes.extend_from_slice(&(hint.len() as u16).to_be_bytes());
            bytes.extend_from_slice(hint.as_bytes());
        }
        word::encode(Self::PREFIX, &bytes)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Zeroizing::new(self.word().map_err(|_| fmt::Error)?);
        f.pad(&word)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("inviter", &self.inviter)
            .field("hints", &self.hints)
            .finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        if word::has_prefix(NodeId::PREFIX, text) {
            return Err(TicketError::NodeId);
        }
        let bytes = Zeroizing::new(word::decode(Self::PREFIX, text)?);
        let (&version, rest) = bytes.split_first().ok_or(TicketError::Truncated)?;
        if version != VERSION {
            return Err(TicketError::Version { version });
        }
        let (&inviter, rest) = rest
            .split_first_chunk::<32>()
            .ok_or(TicketError::Truncated)?;
        let (&id, rest) = rest
            .split_first_chunk::<16>()
            .ok_or(TicketError::Truncated)?;
        let (secret, rest) = rest
            .split_first_chunk::<32>()
            .ok_or(TicketError::Truncated)?;
        let (&count, mut rest) = rest.split_first().ok_or(TicketError::Truncated)?;
        let mut hints = Vec::new();
        for _ in 0..count {
            let (&length, after) = rest
                .split_first_chunk::<2>()
                .ok_or(TicketError::Truncated)?;
            let (hint, after) = after
                .split_at_checked(u16::from_be_bytes(length).into())
                .ok_or(TicketError::Truncated)?;
            let hint = str::from_utf8(hint).map_err(|_| TextError::NotUtf8 { what: "address" })?;
            hints.push(hint.to_owned());
            rest = after;
        }
        if !rest.is_empty() {
            return Err(TicketError::Trailing { bytes: rest.len() });
        }
        Self::new(NodeId::from_bytes(inviter)?, id, *secret, hints)
    }
}

/// What is derived from a ticket's secret: it proves the ticket and is what the inviter keeps,
/// so that a stolen store gives no usable ticket word.
#[derive(Clone)]
pub struct TicketKey(pub(crate) Secret);

impl TicketKey {
    /// Takes back what [`TicketKey::as_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::copy_of(bytes))
    }

    /// The bytes to keep, sealed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

/// Why something is not a ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The text is not such a word, or the ticket would not fit into one.
    #[error("not a ticket: {0}")]
    Word(#[from] WordError),
    /// A node id was given in its place.
    #[error(
        "that is a node id, which opens nothing; a ticket begins with `{}1`",
        Ticket::PREFIX
    )]
    NodeId,
    /// Made by a newer program.
    #[error("ticket version {version} is not known here, only version 1: update this node")]
    Version {
        /// The version it says.
        version: u8,
    },
    /// The word is whole, its contents are not.
    #[error("not a ticket: its contents end too early")]
    Truncated,
    /// More contents than a ticket of this version has.
    #[error("not a ticket: {bytes} bytes too many")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The inviter's id is none.
    #[error("the ticket's inviter is {0}")]
    Inviter(#[from] NodeIdError),
    /// An address hint is no text we would print or dial.
    #[error("the ticket's {0}")]
    Hint(#[from] TextError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKey;
    use crate::limits::ADDRESS_BYTES_MAX;

    fn ticket(hints: &[&str]) -> Result<Ticket, TicketError> {
        let inviter = IdentityKey::from_seed(&[1; 32]).id();
        let hints = hints.iter().map(|&hint| hint.to_owned()).collect();
        Ticket::new(inviter, [2; 16], [3; 32], hints)
    }

    /// The bytes behind a ticket's word, to be changed and written again.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> String {
        let text = ticket(&["host:1"]).expect("short").to_string();
        let mut bytes = word::decode("pht", &text).expect("just written");
        change(&mut bytes);
        word::encode("pht", &bytes).expect("still short")
    }

    #[test]
    fn a_ticket_round_trips_as_one_word() {
        for hints in [
            &[][..],
            &["host:7433"],
            &["10.0.0.1:1", "[fe80::1]:2", "c.example:3", "d:4"],
        ] {
            let made = ticket(hints).expect("the hints fit");
            let text = made.to_string();
            assert!(text.starts_with("pht1"));
            assert!(
                text.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            );
            for text in [text.clone(), text.to_ascii_uppercase()] {
                let read: Ticket = text.parse().expect("just written");
                assert_eq!(read.inviter(), made.inviter());
                assert_eq!(read.id(), [2; 16]);
                assert_eq!(read.hints(), hints);
                assert_eq!(read.key().as_bytes(), made.key().as_bytes());
            }
        }
    }

    #[test]
    fn the_key_is_neither_the_secret_nor_that_of_another_ticket() {
        let one = ticket(&[]).expect("short");
        assert_ne!(one.key().as_bytes(), &[3; 32]);
        let led = one.with_hints(vec!["quic://b:2".into()]).expect("short");
        assert_eq!((led.inviter(), led.id()), (one.inviter(), one.id()));
        assert_eq!(led.hints(), ["quic://b:2"]);
        assert_eq!(led.key().as_bytes(), one.key().as_bytes());
        let two = Ticket::new(one.inviter(), [2; 16], [4; 32], vec![]).expect("short");
        assert_ne!(one.key().as_bytes(), two.key().as_bytes());
        let kept = TicketKey::from_bytes(one.key().as_bytes());
        assert_eq!(kept.as_bytes(), one.key().as_bytes());
    }

    #[test]
    fn what_is_no_ticket_is_named_for_what_is_wrong() {
        let text = ticket(&["host:1"]).expect("short").to_string();
        let id = ticket(&[]).expect("short").inviter().to_string();
        let cases: Vec<(String, &str)> = vec![
            (String::new(), "not a ticket: it does not begin with `pht1`"),
            (id, "that is a node id, which opens nothing"),
            (format!("{}q", &text[..text.len() - 1]), "checksum is wrong"),
            (text[..text.len() - 1].to_owned(), "checksum is wrong"),
            (
                text.replacen("pht1", "PHT1", 1),
                "mixes upper and lower case",
            ),
            (format!("{text} "), "contains the character ' '"),
            (
                format!("pht1{}", "q".repeat(1_020)),
                "1024 characters long, the limit is 1023",
            ),
            (
                changed(|bytes| bytes[0] = 2),
                "ticket version 2 is not known here",
            ),
            (changed(Vec::clear), "not a ticket: "),
            (
                changed(|bytes| bytes.truncate(40)),
                "its contents end too early",
            ),
            (changed(|bytes| bytes[81] = 2), "its contents end too early"),
            (changed(|bytes| bytes.push(0)), "1 bytes too many"),
            (changed(|bytes| bytes[1..33].fill(0)), "the key is weak"),
            (
                changed(|bytes| bytes[84] = b'\n'),
                "control character U+000A",
            ),
            (changed(|bytes| bytes[84] = 0xff), "not valid UTF-8"),
        ];
        for (text, wrong) in cases {
            let error = text.parse::<Ticket>().expect_err(wrong).to_string();
            assert!(error.contains(wrong), "{error} does not say: {wrong}");
        }
    }

    #[test]
    fn hints_that_do_not_fit_are_refused_when_the_ticket_is_made() {
        let long = "a".repeat(ADDRESS_BYTES_MAX);
        assert!(ticket(&[&long, &long]).is_ok());
        let error = ticket(&[&long, &long, &long]).expect_err("over 1,023 characters");
        assert!(
            matches!(
                error,
                TicketError::Word(WordError::TooLong { chars: 1_394 })
            ),
            "{error}"
        );
        assert!(matches!(
            ticket(&["a"; 5]),
            Err(TicketError::Hint(TextError::TooMany { .. }))
        ));
        assert!(matches!(
            ticket(&[""]),
            Err(TicketError::Hint(TextError::Empty { .. }))
        ));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let shown = format!("{:?}", ticket(&["host:1"]).expect("short"));
        assert!(
            !shown.contains("secret") && !shown.contains("pht1"),
            "{shown}"
        );
        assert_eq!(
            format!("{:?}", ticket(&[]).expect("short").key()),
            "TicketKey(..)"
        );
    }
}
