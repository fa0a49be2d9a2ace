//! Several things at once that borrow what they work on.
//!
//! A task would have to own it, and goes on for a while after it was told to end; what is polled
//! here is gone with the future that polls it.

use std::pin::Pin;
use std::task::Poll;

/// Something that is done beside others.
pub(super) type Doing<'a, E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>;

/// Carries out all of them at once. With the first that fails the others are dropped as they stand.
pub(super) async fn all<E>(mut doings: Vec<Doing<'_, E>>) -> Result<(), E> {
    std::future::poll_fn(|context| {
        let mut at = 0;
        while let Some(doing) = doings.get_mut(at) {
            match doing.as_mut().poll(context) {
                Poll::Pending => at += 1,
                Poll::Ready(Ok(())) => drop(doings.swap_remove(at)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        match doings.is_empty() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}
