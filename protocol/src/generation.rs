//! The secrets of a session, one generation after the other.
//!
//! Each generation's secret is derived from the one before, which is then erased: who learns
//! today's secret cannot open what was sent under yesterday's.
//! When to advance and when both ends have confirmed is the session machine's business.
//!
//! At most two generations are held at a time: the current, and the one before it until its
//! streams have changed their keys.

use crate::handshake::SessionSecret;
use crate::seal::{Opener, SealError, Sealer};
use crate::secret::Secret;
use crate::stream::{Side, StreamHeader};

const GENERATION: &str = "packhorse 1 generation";
const STREAM: &str = "packhorse 1 stream";

/// The secrets of a session that have not been erased.
#[derive(Debug)]
pub struct SessionSecrets {
    current: u16,
    secret: Secret,
    previous: Option<Secret>,
}

impl SessionSecrets {
    /// Generation 0 is the secret that the handshake gave.
    #[must_use]
    pub fn new(secret: SessionSecret) -> Self {
        Self {
            current: 0,
            secret: secret.0,
            previous: None,
        }
    }

    /// Derives the next generation and makes it the current one.
    ///
    /// # Errors
    /// [`SealError::GenerationPending`] while the one before the current is not erased yet,
    /// [`SealError::GenerationsSpent`] after 65,535.
    pub fn advance(&mut self) -> Result<u16, SealError> {
        if self.previous.is_some() {
            return Err(SealError::GenerationPending {
                pending: self.current.saturating_sub(1),
            });
        }
        let next = self
            .current
            .checked_add(1)
            .ok_or(SealError::GenerationsSpent)?;
        let secret = self.secret.expand(GENERATION, &[]);
        self.previous = Some(std::mem::replace(&mut self.secret, secret));
        self.current = next;
        Ok(next)
    }

    /// Erases a generation that both ends have left. Erasing an erased one changes nothing.
    ///
    /// # Errors
    /// [`SealError::GenerationInUse`] for the current one, [`SealError::UnknownGeneration`] for
    /// one that is still to come.
    pub fn erase(&mut self, generation: u16) -> Result<(), SealError> {
        if generation == self.current {
            return Err(SealError::GenerationInUse { generation });
        }
        if generation > self.current {
            return Err(SealError::UnknownGeneration {
                generation,
                current: self.current,
            });
        }
        if generation + 1 == self.current {
            self.previous = None;
        }
        Ok(())
    }

    /// The generation that new streams are to be opened under.
    #[must_use]
    pub const fn current(&self) -> u16 {
        self.current
    }

    /// The two directions of a stream, as `me` sees them.
    ///
    /// # Errors
    /// [`SealError::UnknownGeneration`] if the header names one that is erased or to come.
    pub fn stream(
        &self,
        header: &StreamHeader,
        opener: Side,
        me: Side,
    ) -> Result<(Sealer, Opener), SealError> {
        let generation = header.generation;
        let secret = if generation == self.current {
            Some(&self.secret)
        } else if generation.checked_add(1) == Some(self.current) {
            self.previous.as_ref()
        } else {
            None
        };
        let secret = secret.ok_or(SealError::UnknownGeneration {
            generation,
            current: self.current,
        })?;
        let key = |from: Side| {
            secret.expand(
                STREAM,
                &[&[opener as u8], &header.number.to_be_bytes(), &[from as u8]],
            )
        };
        Ok((
            Sealer::new(key(me), header),
            Opener::new(key(me.other()), header),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamKind;

    fn secrets() -> SessionSecrets {
        SessionSecrets::new(SessionSecret::from_bytes(&[7; 32]))
    }

    fn header(generation: u16) -> StreamHeader {
        StreamHeader {
            kind: StreamKind::Control,
            generation,
            number: 0,
        }
    }

    #[test]
    fn a_generation_is_at_hand_from_its_advance_to_its_erasure() {
        let mut secrets = secrets();
        let at_hand = |secrets: &SessionSecrets, generation| {
            secrets
                .stream(&header(generation), Side::Dialler, Side::Dialler)
                .is_ok()
        };
        assert!(at_hand(&secrets, 0));
        assert!(!at_hand(&secrets, 1));
        assert_eq!(secrets.advance(), Ok(1));
        assert!(at_hand(&secrets, 0));
        assert!(at_hand(&secrets, 1));
        assert!(!at_hand(&secrets, 2));
        assert_eq!(secrets.erase(0), Ok(()));
        assert!(!at_hand(&secrets, 0));
        assert!(at_hand(&secrets, 1));
        assert_eq!(secrets.erase(0), Ok(()));
        assert_eq!(
            secrets.erase(1),
            Err(SealError::GenerationInUse { generation: 1 })
        );
        let unknown = SealError::UnknownGeneration {
            generation: 2,
            current: 1,
        };
        assert_eq!(secrets.erase(2), Err(unknown));
        assert_eq!(secrets.current(), 1);
    }

    #[test]
    fn a_third_generation_waits_for_the_first_to_be_erased() {
        let mut secrets = secrets();
        assert_eq!(secrets.advance(), Ok(1));
        assert_eq!(
            secrets.advance(),
            Err(SealError::GenerationPending { pending: 0 })
        );
        assert_eq!(secrets.erase(0), Ok(()));
        assert_eq!(secrets.advance(), Ok(2));
    }

    #[test]
    fn the_last_generation_is_an_end_not_a_wrap() {
        let mut secrets = secrets();
        secrets.current = u16::MAX;
        assert_eq!(secrets.advance(), Err(SealError::GenerationsSpent));
        assert_eq!(secrets.current(), u16::MAX);
    }
}
