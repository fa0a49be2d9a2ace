//! Accepts the streams that the peer opens in a session.
//!
//! Each gets its keys from the header it begins with, a writer and a reader; all of them die with
//! this task. It knows numbers, kinds and keys, and hands everything else to the driver.

use packhorse_protocol::stream::{
    STREAM_HEADER_BYTES, Side, StreamHeader, StreamKind, StreamNumbers,
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Wiring,
    driver::SharedSecrets,
    ephemeral::Intake,
    stream::{self, Brings, FRAMES_QUEUED_MAX, Incoming, Outgoing, StreamError, lane_of},
};
use crate::{
    link::{LinkStreams, ReceiveHalf, SendHalf},
    store::PeerNumber,
};

/// What the driver is told by its streams.
#[derive(Debug)]
pub(super) enum Arrived {
    Frame(Incoming),
    /// The peer opened a stream; frames for it go here.
    Opened(StreamKind, mpsc::Sender<Outgoing>),
    /// A stream that the driver does not read brought a frame.
    Heard,
}

#[derive(Debug)]
pub(super) struct Acceptor {
    pub(super) wiring: Wiring,
    pub(super) peer: PeerNumber,
    pub(super) side: Side,
    pub(super) secrets: SharedSecrets,
    pub(super) into: mpsc::Sender<Arrived>,
}

impl Acceptor {
    pub(super) async fn run(self, mut streams: LinkStreams) -> Result<(), StreamError> {
        let mut tasks = JoinSet::new();
        // A header that is late holds up its own stream and no other.
        let mut opening = JoinSet::new();
        let mut numbers = StreamNumbers::new();
        let mut has_ephemeral = false;
        loop {
            tokio::select! {
                opened = streams.accept() => {
                    let (send, receive) = opened?;
                    opening.spawn(read_header(send, receive));
                }
                Some(read) = opening.join_next() => {
                    let (header, send, receive) = read??;
                    numbers.accept(header.number)?;
                    if header.kind == StreamKind::Ephemeral
                        && std::mem::replace(&mut has_ephemeral, true)
                    {
                        return Err(StreamError::Second(header.kind));
                    }
                    self.open(header, send, receive, &mut tasks).await?;
                }
                Some(ended) = tasks.join_next() => ended??,
            }
        }
    }

    async fn open(
        &self,
        header: StreamHeader,
        send: SendHalf,
        receive: ReceiveHalf,
        tasks: &mut JoinSet<Result<(), StreamError>>,
    ) -> Result<(), StreamError> {
        let (sealer, opener) = self
            .secrets
            .lock()
            .stream(&header, self.side.other(), self.side)?;
        if header.kind == StreamKind::Ephemeral {
            // Nothing is answered on it, so its other direction ends here.
            drop(send);
            let intake = Intake {
                wiring: self.wiring.clone(),
                peer: self.peer,
                driver: self.into.clone(),
            };
            tasks.spawn(intake.run(receive, opener));
            return Ok(());
        }
        let (queue, frames) = mpsc::channel(FRAMES_QUEUED_MAX);
        // ORDER: the driver learns of the queue before any frame of the stream can reach it.
        let opened = Arrived::Opened(header.kind, queue);
        if self.into.send(opened).await.is_err() {
            return Ok(());
        }
        let brings = lane_of(header.kind).map_or(Brings::Control, Brings::Sender);
        tasks.spawn(stream::write(send, None, sealer, frames));
        let into = self.into.clone();
        tasks.spawn(stream::read(receive, brings, opener, into, Arrived::Frame));
        Ok(())
    }
}

async fn read_header(
    send: SendHalf,
    mut receive: ReceiveHalf,
) -> Result<(StreamHeader, SendHalf, ReceiveHalf), StreamError> {
    let mut bytes = [0; STREAM_HEADER_BYTES];
    bytes.copy_from_slice(&receive.read_exact(STREAM_HEADER_BYTES).await?);
    Ok((StreamHeader::from_bytes(bytes)?, send, receive))
}
