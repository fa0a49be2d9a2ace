//! A lab: real nodes as processes of this machine, a network between them that can be as bad as one
//! likes, and what a person or a service manager could do to them.
//!
//! It is a part of the product: who runs a fleet tests it with this, in scenario files or in Rust.
//! It knows what everybody knows: the program, its published documents, its socket. It never looks
//! into a store, and nothing that it starts outlives it, with one exception: when the lab itself is
//! killed with SIGKILL, a `packhorse work` of a `work` step is left behind, waiting for its node.
//! Everything stays on the loopback of this machine.
//!
//! ```text
//!   left ──► relay left→right ──► right       every node knows of the others only
//!   left ◄── relay right→left ◄── right       the address of its own relay to them
//! ```
//!
//! Read [`Cluster`] for how a test begins, [`Machine`] for what can be done to a node, [`Network`]
//! for what can be wrong between nodes; [`Scenario`] for the same as a file.

pub mod cluster;
pub mod condition;
pub mod disk;
pub mod error;
pub mod image;
pub mod ledger;
pub mod machine;
pub mod network;
pub mod random;
mod relay;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod schema;
pub mod step;
mod together;

pub use self::cluster::{Builder, Cluster, until};
pub use self::disk::{Disk, DiskError};
pub use self::error::{LabError, NODES_MAX};
pub use self::image::{Copied, Damage, Damaged, ImageError};
pub use self::machine::{Ended, Machine, NodeSpec, Output, Ready, Signal};
pub use self::network::{Network, WayReport};
pub use self::random::Random;
pub use self::relay::impairment::{
    DELAY_MAX, Impairment, ImpairmentError, RATE_MAX, RATE_MIN, Rate, Share,
};
pub use self::relay::wire::{WAITING_BYTES_MAX, WAITING_COUNT_MAX, WireCounts};
pub use self::relay::{DATAGRAM_BYTES_MAX, FLOWS_MAX};
pub use self::scenario::{Scenario, ScenarioError};
