//! What a node tells about its inside: the actor tree, what happened, whether it is well.
//!
//! Plain values in the shapes of the published documents; the node fills them.

mod branch;
mod drained;
mod event;
mod health;
mod metrics;
mod pinged;
mod strangers;

pub use branch::Branch;
pub use drained::{Drained, DrainedPeer};
pub use event::{Event, Events};
pub use health::{Check, Health};
pub use metrics::{Happened, Metrics};
pub use pinged::Pinged;
pub use strangers::Strangers;
