//! Whether an incarnation is really gone.
//!
//! Everything that belongs to an incarnation holds a token: the actor, its tasks, its children.
//! The supervisor learns when the last one was dropped, and starts nothing before that: two
//! incarnations never work side by side.
//! A token carries nothing and keeps nobody alive.

use std::convert::Infallible;

use tokio::sync::mpsc;

/// Held by everything that belongs to one incarnation. The default is held by nobody's supervisor.
#[derive(Clone, Debug, Default)]
pub struct LifeToken {
    _held: Option<mpsc::Sender<Infallible>>,
}

/// Waits for all tokens of one incarnation to be dropped.
#[derive(Debug)]
pub(super) struct LifeWatch {
    held: mpsc::Receiver<Infallible>,
}

/// A first token and who waits for it and its clones.
pub(super) fn life() -> (LifeToken, LifeWatch) {
    let (token, held) = mpsc::channel(1);
    (LifeToken { _held: Some(token) }, LifeWatch { held })
}

impl LifeWatch {
    /// Resolves when nothing of the incarnation is left.
    pub(super) async fn gone(&mut self) {
        // Nothing can be sent: this ends when the last sender is dropped.
        let _ = self.held.recv().await;
    }
}
