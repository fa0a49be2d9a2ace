//! One direction of a stream: frames sealed at one end and opened at the other.
//!
//! Frame n of a direction has nonce n; the count runs on when the key changes, so no pair of
//! key and nonce ever serves twice, and a frame that is lost, repeated, moved or changed ends
//! the stream at the first frame that does not open.
//! Nothing here waits or buffers: the caller reads the head, then exactly the bytes it names.
//!
//! ```text
//! nonce            4 zero bytes ‖ u64 counter
//! associated data  u8 kind ‖ u32 number ‖ u64 counter ‖ u32 head
//! next key         HKDF-Expand(key, packhorse 1 ratchet)
//! ```

use std::fmt;

use ring::aead::{Aad, LessSafeKey, Nonce};

use crate::frame::{FRAME_HEAD_BYTES, FRAME_TAG_BYTES, FrameHead};
use crate::secret::Secret;
use crate::stream::{StreamHeader, StreamKind};

const RATCHET: &str = "packhorse 1 ratchet";

/// The sending end of one direction.
pub struct Sealer {
    keys: Keys,
    ended: bool,
}

impl Sealer {
    pub(crate) fn new(secret: Secret, header: &StreamHeader) -> Self {
        Self {
            keys: Keys::new(secret, header),
            ended: false,
        }
    }

    /// Appends head and ciphertext of one frame to `out`.
    ///
    /// # Errors
    /// [`SealError::TooLong`] over the stream kind's limit, [`SealError::Ended`] after the last
    /// frame; nothing is appended.
    pub fn seal(
        &mut self,
        plaintext: &[u8],
        last: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        self.append(plaintext, last, false, out)
    }

    /// Appends an empty frame to `out`, after which this direction has a new key; the old one is
    /// erased here, and at the other end once it has opened that frame.
    ///
    /// # Errors
    /// [`SealError::Ended`] after the last frame.
    pub fn rekey(&mut self, out: &mut Vec<u8>) -> Result<(), SealError> {
        self.append(&[], false, true, out)?;
        self.keys.ratchet();
        Ok(())
    }

    /// The longest plaintext that [`Sealer::seal`] takes.
    #[must_use]
    pub const fn plaintext_bytes_max(&self) -> usize {
        self.keys.kind.plaintext_bytes_max()
    }

    fn append(
        &mut self,
        plaintext: &[u8],
        last: bool,
        rekey: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if self.ended {
            return Err(SealError::Ended);
        }
        let bytes_max = self.plaintext_bytes_max();
        if plaintext.len() > bytes_max {
            return Err(SealError::TooLong {
                bytes: plaintext.len(),
                bytes_max,
            });
        }
        let ciphertext_bytes = plaintext.len() + FRAME_TAG_BYTES;
        let head = FrameHead {
            last,
            rekey,
            ciphertext_bytes,
        };
        let (nonce, associated) = self.keys.next(head)?;
        out.reserve(FRAME_HEAD_BYTES + ciphertext_bytes);
        out.extend_from_slice(&head.to_bits().to_be_bytes());
        let start = out.len();
        out.extend_from_slice(plaintext);
        let tag = self
            .keys
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(associated), &mut out[start..])
            .expect("AES-GCM seals whatever is shorter than 64 GiB");
        out.extend_from_slice(tag.as_ref());
        self.ended = last;
        Ok(())
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keys.describe("Sealer", f)
    }
}

/// The receiving end of one direction.
pub struct Opener {
    keys: Keys,
    state: OpenerState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OpenerState {
    Open,
    /// The last frame was opened.
    Ended,
    /// A frame did not open; which bytes would come next cannot be known.
    Broken,
}

impl Opener {
    pub(crate) fn new(secret: Secret, header: &StreamHeader) -> Self {
        Self {
            keys: Keys::new(secret, header),
            state: OpenerState::Open,
        }
    }

    /// Reads the head of the next frame. Take memory as the bytes it promises arrive.
    ///
    /// # Errors
    /// [`SealError::TooLong`] over the stream kind's limit, [`SealError::Head`] for a head that
    /// no frame has, [`SealError::Ended`] after the last frame.
    pub fn head(&self, bytes: [u8; FRAME_HEAD_BYTES]) -> Result<FrameHead, SealError> {
        self.check_open()?;
        let bits = u32::from_be_bytes(bytes);
        let head = FrameHead::from_bits(bits);
        let Some(plaintext_bytes) = head.ciphertext_bytes.checked_sub(FRAME_TAG_BYTES) else {
            return Err(SealError::Head { bits });
        };
        let bytes_max = self.keys.kind.plaintext_bytes_max();
        if plaintext_bytes > bytes_max {
            return Err(SealError::TooLong {
                bytes: plaintext_bytes,
                bytes_max,
            });
        }
        // A rekey frame is empty and something follows it, if only the last frame.
        if head.rekey && (head.last || plaintext_bytes > 0) {
            return Err(SealError::Head { bits });
        }
        Ok(head)
    }

    /// Opens a frame in place and returns its plaintext. After a frame with
    /// [`FrameHead::rekey`] the key is the next one, and there is nothing to hand on.
    ///
    /// # Errors
    /// [`SealError::Open`] if this is not the frame that the other end sealed here; from then on
    /// nothing opens any more, and the session is to be closed.
    pub fn open<'a>(
        &mut self,
        head: FrameHead,
        ciphertext: &'a mut [u8],
    ) -> Result<&'a [u8], SealError> {
        self.check_open()?;
        let counter = self.keys.counter;
        if ciphertext.len() != head.ciphertext_bytes {
            self.state = OpenerState::Broken;
            return Err(SealError::Open { counter });
        }
        let (nonce, associated) = self.keys.next(head)?;
        let opened = self
            .keys
            .key
            .open_in_place(nonce, Aad::from(associated), ciphertext);
        let Ok(plaintext) = opened else {
            self.state = OpenerState::Broken;
            return Err(SealError::Open { counter });
        };
        if head.rekey {
            self.keys.ratchet();
        }
        if head.last {
            self.state = OpenerState::Ended;
        }
        Ok(plaintext)
    }

    /// Whether the last frame was opened. A stream that ends before that was cut short.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state == OpenerState::Ended
    }

    fn check_open(&self) -> Result<(), SealError> {
        match self.state {
            OpenerState::Open => Ok(()),
            OpenerState::Ended => Err(SealError::Ended),
            OpenerState::Broken => Err(SealError::Broken),
        }
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keys.describe("Opener", f)
    }
}

/// The key of one direction and the count of its frames.
struct Keys {
    secret: Secret,
    key: LessSafeKey,
    kind: StreamKind,
    number: u32,
    counter: u64,
}

impl Keys {
    fn new(secret: Secret, header: &StreamHeader) -> Self {
        let key = secret.aead();
        Self {
            secret,
            key,
            kind: header.kind,
            number: header.number,
            counter: 0,
        }
    }

    /// Nonce and associated data of the next frame.
    fn next(&mut self, head: FrameHead) -> Result<(Nonce, [u8; 17]), SealError> {
        let counter = self.counter;
        self.counter = counter.checked_add(1).ok_or(SealError::Ended)?;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_be_bytes());
        let mut associated = [0; 17];
        associated[0] = self.kind.code();
        associated[1..5].copy_from_slice(&self.number.to_be_bytes());
        associated[5..13].copy_from_slice(&counter.to_be_bytes());
        associated[13..].copy_from_slice(&head.to_bits().to_be_bytes());
        Ok((Nonce::assume_unique_for_key(nonce), associated))
    }

    /// The counter stays: it counts the frames of the direction, not of the key.
    fn ratchet(&mut self) {
        self.secret = self.secret.expand(RATCHET, &[]);
        self.key = self.secret.aead();
    }

    fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("kind", &self.kind)
            .field("number", &self.number)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

/// Why something could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Our plaintext, or the frame a peer announces, is over the limit.
    #[error("the frame's plaintext is {bytes} bytes long, the limit is {bytes_max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit of the stream's kind.
        bytes_max: usize,
    },
    /// No frame has such a head. The peer broke the protocol.
    #[error("malformed frame head {bits:#010x}")]
    Head {
        /// The head.
        bits: u32,
    },
    /// Not the frame that the other end sealed at this place.
    #[error("frame {counter} of the stream cannot be opened")]
    Open {
        /// Which frame, counted from 0.
        counter: u64,
    },
    /// The last frame has gone by.
    #[error("the stream's last frame has gone by")]
    Ended,
    /// An earlier frame could not be opened.
    #[error("an earlier frame of the stream could not be opened")]
    Broken,
    /// The secret of this generation is erased or does not exist yet.
    #[error("generation {generation} is not at hand, the current one is {current}")]
    UnknownGeneration {
        /// The generation asked for.
        generation: u16,
        /// The current one.
        current: u16,
    },
    /// The current generation cannot be erased.
    #[error("generation {generation} is the current one")]
    GenerationInUse {
        /// The generation.
        generation: u16,
    },
    /// Two generations are enough to hold.
    #[error("generation {pending} is not erased yet")]
    GenerationPending {
        /// The one that has to go first.
        pending: u16,
    },
    /// No number is left; a new handshake is long due.
    #[error("the session has no generation left")]
    GenerationsSpent,
}
