//! Supervision: who is restarted when, and how others reach whoever runs now.
//!
//! The policy is a pure function; the root applies it; addresses survive restarts; the probe tells;
//! the census shows who lives; one wrapper around every actor counts, answers pings, and lets tests
//! order deaths.
//! Nothing here knows what a child does.

mod address;
mod census;
mod gauge;
mod life;
mod poke;
mod policy;
mod probe;
mod root;
mod watched;

pub use address::{Address, AddressError};
pub use census::{Branch, Census, ROOT, SESSIONS};
pub use life::LifeToken;
pub(crate) use poke::poke;
pub use policy::{Budget, Decision, ExitClass, History};
pub use probe::{Life, LifeEvent, Probe};
pub use root::{Cause, ChildSpec, Fatal, Root, RootMsg, RootState, StartChild, TreeEnd};
pub use watched::{Birth, Post, Watch};
