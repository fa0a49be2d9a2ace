//! What tests of delivery share: a store too simple to be wrong, and two nodes in virtual time.
//!
//! Nothing here is in the default build. Other crates reach it with the feature `testing`.
//! Read `store.rs` for what a real store must do, `world.rs` for what can happen to two nodes.

mod random;
mod store;
mod world;

pub use random::Random;
pub use store::{Accepted, Arrived, DeadLetter, LaneTables, LineRecord, ModelStore};
pub use world::{Chaos, Node, World};
