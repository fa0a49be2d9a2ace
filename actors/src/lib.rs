//! Packhorse's supervision tree and everything in it that lives.
//!
//! Store, links, sessions, retry scheduler and inbox, each behind a handle that survives restarts.
//! No HTTP, no command line, no settings files: the root crate has those.
//!
//! Read [`tree`] for who supervises whom, then the actor you care about.

pub mod board;
pub mod env;
pub mod events;
#[cfg(feature = "fault")]
pub mod fault;
pub mod inbox;
pub mod link;
pub mod listener;
pub mod retry;
pub mod session;
pub mod store;
mod store_keeper;
pub mod supervise;
pub mod surroundings;
pub mod tree;
