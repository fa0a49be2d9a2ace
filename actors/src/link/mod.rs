//! Links: one transport connection to another machine, before anybody is authenticated.
//!
//! A link gives ordered byte streams in both directions, a close with a code, and 32 bytes of
//! channel binding that both ends see alike and nobody else can choose.
//! It never knows whom it talks to: identity comes from the handshake above it, so that
//! confidentiality and authentication do not rest on the transport.
//!
//! Read [`Link`] first, then `quic` for how one is made; `tls` holds what is offered to a peer.

use std::{fmt, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use s2n_quic::{
    application,
    connection::{Handle, StreamAcceptor},
    stream::{BidirectionalStream, ReceiveStream, SendStream},
};

mod bounds;
mod doorkeeper;
mod entry;
mod quic;
mod reach;
#[cfg(feature = "sim")]
mod simulated;
#[cfg(test)]
mod tests;
mod tls;

pub use bounds::LinkBounds;
pub use doorkeeper::{BeginEnd, Doorkeeper, Welcome};
pub use quic::{QuicDialler, QuicListener};
pub use reach::Listening;
pub(crate) use reach::routed_from;
pub use tls::TlsError;

/// One connection, owned by whoever authenticates it.
pub struct Link {
    handle: LinkHandle,
    streams: LinkStreams,
    info: LinkInfo,
    bounds: LinkBounds,
}

/// What is known about a link from the transport alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The other end's address as this machine sees it.
    pub remote: SocketAddr,
    /// The TLS exporter's value; equal on both ends of one link, different on every link.
    pub binding: [u8; 32],
    /// The negotiated key-exchange group, for example `X25519MLKEM768`.
    pub key_exchange: String,
}

impl LinkInfo {
    /// The link as people read it: `quic://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("quic://{}", self.remote)
    }
}

impl Link {
    /// What the transport knows.
    #[must_use]
    pub fn info(&self) -> &LinkInfo {
        &self.info
    }

    /// Takes the link apart: opening and closing can be shared, accepting cannot.
    #[must_use]
    pub fn split(self) -> (LinkHandle, LinkStreams, LinkInfo) {
        (self.handle, self.streams, self.info)
    }

    /// Another way to open streams on this link and to close it.
    #[must_use]
    pub fn handle(&self) -> LinkHandle {
        self.handle.clone()
    }

    /// What the other end may send before it is known.
    #[must_use]
    pub fn bounds(&self) -> LinkBounds {
        self.bounds.clone()
    }

    /// Opens a stream. The other side sees it once something was written.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the link is gone.
    pub async fn open(&mut self) -> Result<(SendHalf, ReceiveHalf), LinkError> {
        self.handle.open().await
    }

    /// Waits for a stream that the other side opens.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the link is gone.
    pub async fn accept(&mut self) -> Result<(SendHalf, ReceiveHalf), LinkError> {
        self.streams.accept().await
    }

    /// Ends the link with a code for the other side.
    pub fn close(&self, code: u16) {
        self.handle.close(code);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Link")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Opens streams on a link and closes it; clones belong to the same link.
#[derive(Clone)]
pub struct LinkHandle(Handle);

impl LinkHandle {
    /// Opens a stream. The other side sees it once something was written.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the link is gone.
    pub async fn open(&mut self) -> Result<(SendHalf, ReceiveHalf), LinkError> {
        Ok(halves(self.0.open_bidirectional_stream().await?))
    }

    /// Ends the link with a code for the other side.
    pub fn close(&self, code: u16) {
        self.0.close(application::Error::from(code));
    }
}

impl fmt::Debug for LinkHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LinkHandle")
    }
}

/// Receives the streams that the other side opens.
pub struct LinkStreams(StreamAcceptor);

impl LinkStreams {
    /// Waits for the next stream.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the link is gone.
    pub async fn accept(&mut self) -> Result<(SendHalf, ReceiveHalf), LinkError> {
        match self.0.accept_bidirectional_stream().await? {
            Some(stream) => Ok(halves(stream)),
            None => Err(LinkError::Lost("the other side closed the link".to_owned())),
        }
    }
}

impl fmt::Debug for LinkStreams {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LinkStreams")
    }
}

/// The writing half of a stream.
pub struct SendHalf(SendStream);

impl SendHalf {
    /// Hands bytes to the transport; waits while the other side's window is closed.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the link or the stream is gone.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        Ok(self.0.send(bytes).await?)
    }

    /// Hands the stream's last bytes to the transport.
    ///
    /// Who has read them may stop reading before this side has said that they were the last; that
    /// is no failure of either side's.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the link or the stream was gone before.
    pub async fn send_last(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        self.send(bytes).await?;
        // Nothing is lost with it: the bytes are on their way.
        let _ = self.finish();
        Ok(())
    }

    /// Says that nothing more will come; what was handed over is still delivered.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the link or the stream is gone.
    pub fn finish(&mut self) -> Result<(), LinkError> {
        Ok(self.0.finish()?)
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SendHalf")
    }
}

/// Room made at once for bytes that are still to come: one frame of an ordinary batch.
const RESERVE_BYTES_MAX: usize = 64 << 10;

/// The reading half of a stream, with what has arrived and was not taken yet.
pub struct ReceiveHalf {
    stream: ReceiveStream,
    pending: BytesMut,
}

impl ReceiveHalf {
    /// Reads exactly `count` bytes.
    ///
    /// Memory is taken as bytes arrive, never for what was only promised.
    /// Cancel safe: what has arrived stays for the next call.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the link is gone or the stream ends before `count` bytes.
    pub async fn read_exact(&mut self, count: usize) -> Result<BytesMut, LinkError> {
        match self.read_or_end(count).await? {
            Some(bytes) => Ok(bytes),
            None => Err(LinkError::Lost("the stream ended".to_owned())),
        }
    }

    /// As [`ReceiveHalf::read_exact`], but `None` when the stream ends before its first byte.
    ///
    /// # Errors
    /// [`LinkError::Lost`] when the link is gone or the stream ends in the middle.
    pub async fn read_or_end(&mut self, count: usize) -> Result<Option<BytesMut>, LinkError> {
        while self.pending.len() < count {
            match self.stream.receive().await? {
                Some(chunk) if self.pending.is_empty() && chunk.len() >= count => {
                    // The common case takes the transport's buffer as it is.
                    self.pending = match chunk.try_into_mut() {
                        Ok(whole) => whole,
                        Err(shared) => BytesMut::from(&shared[..]),
                    };
                }
                Some(chunk) => {
                    // At most one step ahead of what has arrived, whatever length was promised.
                    let missing = count - self.pending.len();
                    self.pending
                        .reserve(missing.min(RESERVE_BYTES_MAX).max(chunk.len()));
                    self.pending.extend_from_slice(&chunk);
                }
                None if self.pending.is_empty() => return Ok(None),
                None => {
                    return Err(LinkError::Lost(format!(
                        "the stream ended after {} of {count} bytes",
                        self.pending.len()
                    )));
                }
            }
        }
        Ok(Some(self.pending.split_to(count)))
    }
}

impl fmt::Debug for ReceiveHalf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ReceiveHalf")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

fn halves(stream: impl Into<BidirectionalStream>) -> (SendHalf, ReceiveHalf) {
    let (receive, send) = stream.into().split();
    (
        SendHalf(send),
        ReceiveHalf {
            stream: receive,
            pending: BytesMut::new(),
        },
    )
}

/// Why a link could not be made or does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The address cannot be listened on: in use, not of this machine, or not permitted.
    /// Choose another one.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// The local end of outgoing links could not be made.
    #[error("cannot open a socket for outgoing links: {0}")]
    Socket(String),
    /// A hint is not `HOST:PORT`, or its host has no address.
    #[error("cannot resolve {hint}: {reason}")]
    Resolve {
        /// The address hint.
        hint: String,
        /// What the system said.
        reason: String,
    },
    /// This machine has no way there at present: it is not connected, or not to that network.
    #[error("no route to {address}: {reason}")]
    NoRoute {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Nothing answered there, or what answered speaks another protocol.
    #[error("no answer from {address}: {reason}")]
    Unreachable {
        /// The address.
        address: SocketAddr,
        /// What the transport said.
        reason: String,
    },
    /// Something answers there by QUIC, and does not agree on this protocol: another service's
    /// port, or a program that is no node.
    #[error("something answers at {address}, but it is no packhorse node: {reason}")]
    OtherProtocol {
        /// The address.
        address: SocketAddr,
        /// What the transport said.
        reason: String,
    },
    /// The transport did not give a channel binding; the link is not used.
    #[error("the link to {0} has no channel binding")]
    NoBinding(SocketAddr),
    /// The link ended: by the other side, the network, or silence.
    #[error("link lost: {0}")]
    Lost(String),
    /// The other side closed the link with one of the protocol's codes.
    #[error("closed by the other side with code {0}")]
    Closed(u64),
    /// The TLS configuration could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl From<s2n_quic::connection::Error> for LinkError {
    fn from(error: s2n_quic::connection::Error) -> Self {
        match error {
            s2n_quic::connection::Error::Application { error, .. } => Self::Closed(error.into()),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<s2n_quic::stream::Error> for LinkError {
    fn from(error: s2n_quic::stream::Error) -> Self {
        match error {
            s2n_quic::stream::Error::ConnectionError { error, .. } => error.into(),
            other => Self::Lost(other.to_string()),
        }
    }
}
