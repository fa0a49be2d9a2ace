//! Supervision: who is restarted when, and how others reach whoever runs now.
//!
//! The policy is a pure function; the root applies it; addresses survive restarts; the probe tells.
//! Nothing here knows what a child does.

mod address;
mod policy;
mod probe;
mod root;

pub use address::{Address, AddressError};
pub use policy::{Budget, Decision, ExitClass, History};
pub use probe::{Life, LifeEvent, Probe};
pub use root::{Cause, ChildSpec, Fatal, Root, RootMsg, RootState, StartChild, TreeEnd};
