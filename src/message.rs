//! Messages on their way out of and into an application.
//!
//! Plain values; nothing here is stored or sent.
//! [`Outgoing`] goes into `Node::send`, [`Received`] comes out of `Node::receive`.

use packhorse_protocol::message::DeliveryClass;

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What it is about; the recipient's grant is checked against it.
    pub topic: String,
    /// What it carries, at most 1 MiB.
    pub payload: Vec<u8>,
    /// How hard it is tried.
    pub class: DeliveryClass,
    /// Makes a repeated send return the first receipt.
    pub key: Option<String>,
}

impl Outgoing {
    /// A critical message without a key.
    #[must_use]
    pub fn new(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Outgoing {
        Outgoing {
            topic: topic.into(),
            payload: payload.into(),
            class: DeliveryClass::Critical,
            key: None,
        }
    }
}

/// A message that waits to be handled, claimed by who received it.
///
/// It comes again unless it is acknowledged within 30 s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number in this inbox; what is acknowledged.
    pub arrival: u64,
    /// What it is about.
    pub topic: String,
    /// The sender's name here.
    pub sender: String,
    /// What it carries.
    pub payload: Vec<u8>,
}
