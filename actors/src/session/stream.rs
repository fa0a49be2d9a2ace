//! Sealed frames on the streams of a link: one task writes a stream, one reads it.
//!
//! The tasks know bytes, keys and kinds; they never know what a frame means.
//! A writer gathers what is ready into one hand-over, so that small frames do not cost one
//! packet each. A reader opens and decodes beside the driver, on whatever core is free.

use bytes::Bytes;
use packhorse_protocol::{
    codec::{self, CodecError},
    epoch::Lane,
    frame::FRAME_HEAD_BYTES,
    message::{ControlFrame, ReceiverFrame, SenderFrame},
    seal::{Opener, SealError, Sealer},
    stream::{StreamHeader, StreamKind},
};
use tokio::sync::mpsc;

use crate::link::{LinkError, ReceiveHalf, SendHalf};

/// Frames a stream's writer may lag behind its driver. A lane's window bounds what is on its way
/// to 1,024 messages, each frame carries at least one, and every answer settles at least one.
pub(super) const FRAMES_QUEUED_MAX: usize = 1_024 + 64;
/// Bytes gathered into one hand-over to the transport.
const GATHER_BYTES: usize = 128 << 10;
/// Frames that wait, decoded, for the driver; with the window they bound a session's memory.
pub(super) const ARRIVED_MAX: usize = 64;

/// What a stream's writer is handed.
#[derive(Debug)]
pub(super) enum Outgoing {
    Control(ControlFrame),
    Sender(SenderFrame),
    Receiver(ReceiverFrame),
    /// Not a frame of the protocol above: this direction takes its next key.
    Rekey,
}

/// What a stream brought.
#[derive(Debug)]
pub(super) enum Incoming {
    Control(ControlFrame),
    Sender(Lane, SenderFrame),
    Receiver(Lane, ReceiverFrame),
}

/// What a stream may bring to this side.
#[derive(Clone, Copy, Debug)]
pub(super) enum Brings {
    Control,
    /// The peer opened the lane's stream.
    Sender(Lane),
    /// This side opened it.
    Receiver(Lane),
}

impl Brings {
    fn decode(self, bytes: &[u8]) -> Result<Option<Incoming>, CodecError> {
        Ok(match self {
            Self::Control => codec::decode_control(bytes)?.map(Incoming::Control),
            Self::Sender(lane) => {
                codec::decode_sender(bytes)?.map(|frame| Incoming::Sender(lane, frame))
            }
            Self::Receiver(lane) => {
                codec::decode_receiver(bytes)?.map(|frame| Incoming::Receiver(lane, frame))
            }
        })
    }
}

/// The lane a stream kind carries, if it carries one.
pub(super) fn lane_of(kind: StreamKind) -> Option<Lane> {
    match kind {
        StreamKind::Control | StreamKind::Ephemeral => None,
        StreamKind::UserLane => Some(Lane::User),
        StreamKind::SystemLane => Some(Lane::System),
    }
}

/// Why a stream's task ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Header(#[from] packhorse_protocol::stream::StreamError),
    #[error("the peer opened a second {0:?} stream")]
    Second(StreamKind),
    #[error("a stream's task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("a stream of the session ended")]
    Ended,
}

/// Writes a stream until its queue is closed. The opener of the stream passes its header.
pub(super) async fn write(
    mut send: SendHalf,
    header: Option<StreamHeader>,
    mut sealer: Sealer,
    mut queue: mpsc::Receiver<Outgoing>,
) -> Result<(), StreamError> {
    let mut sealed = Vec::new();
    let mut plain = Vec::new();
    if let Some(header) = header {
        // Sent with the first frame: a stream nobody writes on does not exist for the other side.
        sealed.extend_from_slice(&header.to_bytes());
    }
    while let Some(first) = queue.recv().await {
        append(&first, &mut sealer, &mut plain, &mut sealed)?;
        while sealed.len() < GATHER_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            append(&next, &mut sealer, &mut plain, &mut sealed)?;
        }
        send.send(Bytes::from(std::mem::take(&mut sealed))).await?;
    }
    send.finish()?;
    Ok(())
}

fn append(
    outgoing: &Outgoing,
    sealer: &mut Sealer,
    plain: &mut Vec<u8>,
    sealed: &mut Vec<u8>,
) -> Result<(), SealError> {
    plain.clear();
    match outgoing {
        Outgoing::Control(frame) => plain.extend_from_slice(&codec::encode_control(frame)),
        Outgoing::Sender(frame) => codec::encode_sender_into(frame, plain),
        Outgoing::Receiver(frame) => codec::encode_receiver_into(frame, plain),
        Outgoing::Rekey => return sealer.rekey(sealed),
    }
    sealer.seal(plain, false, sealed)
}

/// Reads a stream until it ends or `into` has nobody to deliver to.
pub(super) async fn read<T>(
    mut receive: ReceiveHalf,
    brings: Brings,
    mut opener: Opener,
    into: mpsc::Sender<T>,
    wrap: fn(Incoming) -> T,
) -> Result<(), StreamError> {
    let decode = |bytes: &[u8]| brings.decode(bytes);
    while let Some(frame) = read_frame(&mut receive, &mut opener, decode).await? {
        // A frame of the optional range that this version does not know is passed over.
        if let Some(frame) = frame
            && into.send(wrap(frame)).await.is_err()
        {
            return Ok(());
        }
    }
    Err(StreamError::Ended)
}

/// The next frame of a stream, opened and decoded; `None` when the stream has ended.
pub(super) async fn read_frame<T>(
    receive: &mut ReceiveHalf,
    opener: &mut Opener,
    decode: impl FnOnce(&[u8]) -> Result<T, CodecError>,
) -> Result<Option<T>, StreamError> {
    while let Some(bytes) = receive.read_or_end(FRAME_HEAD_BYTES).await? {
        let mut head = [0; FRAME_HEAD_BYTES];
        head.copy_from_slice(&bytes);
        let head = opener.head(head)?;
        let mut ciphertext = receive.read_exact(head.ciphertext_bytes).await?;
        let plaintext = opener.open(head, &mut ciphertext)?;
        if !head.rekey {
            return Ok(Some(decode(plaintext)?));
        }
    }
    Ok(None)
}
