//! What the other end of a link may send before anybody knows who it is.
//!
//! The transport's windows are those of a session, because it cannot raise them later; they alone
//! would let a stranger park 4 MiB here. So every stream frame is looked at as it arrives, before
//! it is buffered for anybody: bytes are counted by where they lie in the stream, so that gaps do
//! not hide them, and a frame on any stream but the first is one too many.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// The first stream that a dialler opens.
const FIRST_STREAM: u64 = 0;
/// Nothing is bounded.
const LIFTED: u64 = u64::MAX;

/// The bounds of one link; clones are the same ones.
#[derive(Clone, Debug)]
pub struct LinkBounds(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where the first stream may reach at most.
    bytes_max: AtomicU64,
    exceeded: Notify,
}

impl LinkBounds {
    /// At most so many bytes, on the first stream only.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Inner {
            bytes_max: AtomicU64::new(bytes_max),
            exceeded: Notify::new(),
        }))
    }

    /// No bounds.
    pub(super) fn none() -> Self {
        Self::new(LIFTED)
    }

    /// It may send so many bytes altogether from now on.
    pub fn allow(&self, bytes_max: u64) {
        self.0.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// It may use the link as a session does.
    pub fn lift(&self) {
        self.allow(LIFTED);
    }

    /// Resolves when more came than was allowed.
    pub async fn exceeded(&self) {
        self.0.exceeded.notified().await;
    }

    /// A frame of a stream arrived.
    pub(super) fn on_frame(&self, stream: u64, end: u64) {
        let bytes_max = self.0.bytes_max.load(Ordering::Relaxed);
        if bytes_max != LIFTED && (stream != FIRST_STREAM || end > bytes_max) {
            // One permit is kept when nobody waits yet.
            self.0.exceeded.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_exceeded(bounds: &LinkBounds) -> bool {
        tokio::select! {
            biased;
            () = bounds.exceeded() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn the_first_stream_may_reach_its_bound_and_no_other_may_begin() {
        let bounds = LinkBounds::new(2_048);
        bounds.on_frame(0, 2_048);
        assert!(!is_exceeded(&bounds).await);
        bounds.on_frame(0, 2_049);
        assert!(is_exceeded(&bounds).await, "one byte too far, gap or not");
        bounds.allow(8_192);
        bounds.on_frame(0, 8_192);
        assert!(!is_exceeded(&bounds).await);
        bounds.on_frame(4, 1);
        assert!(is_exceeded(&bounds).await, "a second stream");
        bounds.lift();
        bounds.on_frame(4, u64::MAX - 1);
        assert!(!is_exceeded(&bounds).await, "a session may do that");
    }
}
