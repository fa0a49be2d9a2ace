//! The head of a frame: how long it is, whether it is the last, whether the key changes after it.
//!
//! ```text
//! u32 big-endian:  bit 31 last · bit 30 rekey · bits 29..0 length of the ciphertext
//! then that many bytes: AES-256-GCM ciphertext, the last 16 of them the tag
//! ```
//!
//! A head travels in clear and is believed only once its frame has been opened, which covers it;
//! until then its length is a promise of the peer's, checked against a limit.
//! Nothing here allocates.

use crate::limits::FRAME_PLAINTEXT_BYTES_MAX;

/// Bytes of a frame's head.
pub const FRAME_HEAD_BYTES: usize = 4;
/// Bytes of the tag at the end of each ciphertext.
pub const FRAME_TAG_BYTES: usize = 16;

const LAST: u32 = 1 << 31;
const REKEY: u32 = 1 << 30;
const LENGTH: u32 = REKEY - 1;

const _: () = assert!(FRAME_PLAINTEXT_BYTES_MAX + FRAME_TAG_BYTES <= LENGTH as usize);

/// What stands before a frame's ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// No frame comes after this one in this direction of the stream.
    pub last: bool,
    /// The frame is empty and the last one under its key.
    pub rekey: bool,
    /// How many bytes follow.
    pub ciphertext_bytes: usize,
}

impl FrameHead {
    /// The head as a number.
    #[must_use]
    pub(crate) const fn to_bits(self) -> u32 {
        let mut bits = self.ciphertext_bytes as u32 & LENGTH;
        if self.last {
            bits |= LAST;
        }
        if self.rekey {
            bits |= REKEY;
        }
        bits
    }

    /// The head of a number.
    #[must_use]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self {
            last: bits & LAST != 0,
            rekey: bits & REKEY != 0,
            ciphertext_bytes: (bits & LENGTH) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_keep_their_bits() {
        let head = FrameHead {
            last: false,
            rekey: false,
            ciphertext_bytes: 17,
        };
        assert_eq!(head.to_bits(), 0x0000_0011);
        assert_eq!(FrameHead { last: true, ..head }.to_bits(), 0x8000_0011);
        assert_eq!(
            FrameHead {
                rekey: true,
                ..head
            }
            .to_bits(),
            0x4000_0011
        );
        for bits in [
            0,
            1,
            0x3fff_ffff,
            0x4000_0000,
            0x8000_0000,
            0xffff_ffff,
            0x8000_0011,
        ] {
            assert_eq!(FrameHead::from_bits(bits).to_bits(), bits);
        }
    }
}
