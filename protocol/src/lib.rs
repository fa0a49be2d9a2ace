//! Packhorse's wire protocol as pure values and machines.
//!
//! Inputs, the time and randomness come in as arguments; outputs and the next deadline go out.
//! This crate never reads a clock, draws randomness, opens a socket or touches a file.
//!
//! Read [`epoch`] and [`message`] for the words, then `handshake`, `seal` and `session`.

pub mod backoff;
pub mod codec;
mod compare;
pub mod epoch;
pub mod error_class;
pub mod frame;
pub mod generation;
pub mod grant;
pub mod handshake;
pub mod identity;
pub mod limits;
pub mod message;
#[cfg(feature = "mutants")]
pub mod mutant;
pub mod node_id;
pub mod outbox;
pub mod purpose;
pub mod receipt;
pub mod seal;
mod secret;
pub mod session;
pub mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod ticket;
pub mod word;
