//! Messages that travel now or never: over a live session, and never written down.
//!
//! Each side has a stream of its own for them, opened at the first one. The writer takes from a
//! queue that is bounded in messages and in bytes and holds up nobody but who fills it; the reader
//! checks every message at the moment it arrives and offers it to the inbox.
//! Neither end of such a stream ends the session, except by breaking the protocol on it.

use std::sync::Arc;

use bytes::Bytes;
use packhorse_protocol::{
    codec,
    grant::Capability,
    message::{Arrival, DeliveryClass, Message, MessageFault},
    seal::Opener,
    stream::{Side, StreamHeader, StreamKind},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{
    Wiring,
    acceptor::Arrived,
    driver::SharedSecrets,
    stream::{self, StreamError},
};
use crate::{
    link::{LinkHandle, ReceiveHalf},
    store::PeerNumber,
    supervise::AddressError,
};

/// Messages that wait for one session's writer.
pub(super) const WAITING_MAX: usize = 64;
/// Bytes that wait there, and are in the transport's hand.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// What a message costs of those beside its weight.
const MESSAGE_BYTES: usize = 256;

/// Why an ephemeral message was not handed to a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EphemeralError {
    /// Nobody is there to hear it now.
    #[error("no session with this peer lives")]
    NoSession,
    /// The session does not keep up with what it was handed. Send less, or send durably.
    #[error("{0} ephemeral messages wait for this peer already")]
    Full(usize),
    /// The message is over a limit, or is none.
    #[error(transparent)]
    Message(#[from] MessageFault),
    /// The message says that it is to be kept. Send it durably.
    #[error("a message of another class than ephemeral")]
    Class,
    /// The session supervisor is being restarted: send again.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// A message with its share of the bytes; both go when the transport has it.
#[derive(Debug)]
pub(super) struct Waiting {
    message: Message,
    _bytes: OwnedSemaphorePermit,
}

/// What waits for one session's writer.
#[derive(Clone, Debug)]
pub(super) struct EphemeralQueue {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
}

impl EphemeralQueue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let bytes = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        (Self { queue, bytes }, waiting)
    }

    /// Takes a message, or says why not; never waits.
    pub(super) fn offer(&self, message: Message) -> Result<(), EphemeralError> {
        let full = || EphemeralError::Full(WAITING_MAX - self.queue.capacity());
        // The largest message is smaller than the whole.
        let bytes = u32::try_from(message.weight() + MESSAGE_BYTES).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        let waiting = Waiting {
            message,
            _bytes: permit.map_err(|_| full())?,
        };
        match self.queue.try_send(waiting) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(full()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(EphemeralError::NoSession),
        }
    }
}

/// The writing end, for the life of a session.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) link: LinkHandle,
    pub(super) secrets: SharedSecrets,
    pub(super) side: Side,
    /// The stream's number, reserved.
    pub(super) number: u32,
    /// The generation that streams are to be opened under now.
    pub(super) generation: watch::Receiver<u16>,
    pub(super) queue: mpsc::Receiver<Waiting>,
}

impl Writer {
    /// Opens the stream at the first message and writes until the session ends.
    pub(super) async fn run(mut self) -> Result<(), StreamError> {
        let Some(mut next) = self.queue.recv().await else {
            return Ok(());
        };
        let (mut send, receive) = self.link.open().await?;
        // Nothing is answered on this stream.
        drop(receive);
        let mut generation = *self.generation.borrow_and_update();
        let header = StreamHeader {
            kind: StreamKind::Ephemeral,
            generation,
            number: self.number,
        };
        let keys = self.secrets.lock().stream(&header, self.side, self.side);
        let (mut sealer, _) = keys?;
        let mut sealed = header.to_bytes().to_vec();
        let mut plain = Vec::new();
        loop {
            plain.clear();
            codec::encode_ephemeral_into(&next.message, &mut plain);
            sealer.seal(&plain, false, &mut sealed)?;
            send.send(Bytes::from(std::mem::take(&mut sealed))).await?;
            drop(next);
            next = loop {
                tokio::select! {
                    message = self.queue.recv() => match message {
                        Some(message) => break message,
                        None => return Ok(send.finish()?),
                    },
                    Ok(()) = self.generation.changed() => {
                        let current = *self.generation.borrow_and_update();
                        for _ in generation..current {
                            sealer.rekey(&mut sealed)?;
                        }
                        generation = current;
                        send.send(Bytes::from(std::mem::take(&mut sealed))).await?;
                    }
                }
            };
        }
    }
}

/// The reading end of the stream that the peer opened.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) wiring: Wiring,
    pub(super) peer: PeerNumber,
    /// The driver, which is told that the peer lives.
    pub(super) driver: mpsc::Sender<Arrived>,
}

impl Intake {
    /// Reads until the stream ends. Whoever is slow here holds up this stream and no other.
    pub(super) async fn run(
        self,
        mut receive: ReceiveHalf,
        mut opener: Opener,
    ) -> Result<(), StreamError> {
        while let Some(arrival) =
            stream::read_frame(&mut receive, &mut opener, codec::decode_ephemeral).await?
        {
            // A queue that is full says so itself.
            let _ = self.driver.try_send(Arrived::Heard);
            let Some(arrival) = arrival else { continue };
            match self.judge(arrival).await {
                Ok(message) => self.wiring.inbox.offer_ephemeral(self.peer, message),
                Err(reason) => {
                    tracing::debug!(target: "packhorse::session", peer = self.peer.0, reason, "ephemeral message dropped");
                    self.wiring
                        .board
                        .update(self.peer, |line| line.ephemeral_dropped += 1);
                }
            }
        }
        // Such a stream promised nothing.
        Ok(())
    }

    /// Whether the inbox may have it, by what the store says at this moment.
    async fn judge(&self, arrival: Arrival) -> Result<Message, &'static str> {
        let message = arrival.map_err(|_| "it is over a limit, or is none")?;
        if message.class != DeliveryClass::Ephemeral {
            return Err("it is of a class that is to be kept");
        }
        match self.wiring.store.peer(self.peer).await {
            Ok(Some(record))
                if record.grants.allows(
                    Capability::MessageSend,
                    &message.topic,
                    self.wiring.env.now_ms(),
                ) =>
            {
                Ok(message)
            }
            Ok(_) => Err("its sender has no grant for its topic"),
            Err(_) => Err("the store does not say what its sender may do"),
        }
    }
}

#[cfg(test)]
mod tests {
    use packhorse_protocol::limits::PAYLOAD_BYTES_MAX;

    use super::*;

    fn message(bytes: usize) -> Message {
        Message {
            class: DeliveryClass::Ephemeral,
            topic: "t".to_owned(),
            born_ms: 0,
            headers: Vec::new(),
            payload: vec![0; bytes],
        }
    }

    #[test]
    fn a_queue_that_nobody_empties_is_full_by_messages_or_by_bytes() {
        let (queue, mut waiting) = EphemeralQueue::new();
        for _ in 0..WAITING_MAX {
            assert_eq!(queue.offer(message(1)), Ok(()));
        }
        let full = EphemeralError::Full(WAITING_MAX);
        assert_eq!(queue.offer(message(1)), Err(full));
        assert!(waiting.try_recv().is_ok());
        assert_eq!(queue.offer(message(1)), Ok(()));

        let (queue, mut waiting) = EphemeralQueue::new();
        for _ in 0..3 {
            assert_eq!(queue.offer(message(PAYLOAD_BYTES_MAX)), Ok(()));
        }
        let full = EphemeralError::Full(3);
        assert_eq!(queue.offer(message(PAYLOAD_BYTES_MAX)), Err(full));
        let taken = waiting.try_recv();
        assert_eq!(queue.offer(message(1)), Ok(()), "a small one still fits");
        drop(taken);
        assert_eq!(queue.offer(message(PAYLOAD_BYTES_MAX)), Ok(()));
        drop(waiting);
        assert_eq!(queue.offer(message(1)), Err(EphemeralError::NoSession));
    }
}
