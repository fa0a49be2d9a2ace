//! Packhorse's wire protocol as pure values and machines.
//!
//! Inputs, the time and randomness come in as arguments; outputs and the next deadline go out.
//! This crate never reads a clock, draws randomness, opens a socket or touches a file.
//!
//! Read [`epoch`] and [`message`] for the words, then `handshake`, `seal` and `session`.

pub mod epoch;
pub mod limits;
pub mod message;
