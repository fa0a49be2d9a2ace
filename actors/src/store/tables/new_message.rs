//! A message on its way into the outbox.

use packhorse_protocol::message::Message;

/// A message to be accepted.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The message.
    pub message: Message,
    /// The sender's own name for it: repeating it gives the first receipt again.
    pub key: Option<String>,
    /// When it is given up if it still waits, in wall milliseconds.
    pub expires_ms: Option<u64>,
    /// Whether it takes the place of an earlier message with the same key that has certainly not
    /// left this node.
    pub replace: bool,
}

impl NewMessage {
    /// A message without a key or an end of its own.
    #[must_use]
    pub fn new(message: Message) -> Self {
        Self {
            message,
            key: None,
            expires_ms: None,
            replace: false,
        }
    }
}
