//! The pure parts of the simulation, on their own: plans and the rules that judge a run.
//!
//! Goal: every rule lets a sound history pass and catches one that breaks it, and plans keep what
//! the simulation relies on.
//! Method: the same files as in the program `sim`, with their unit tests; nothing is simulated here.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, unused_imports, reason = "the program uses the rest")]

#[path = "sim/checks/mod.rs"]
mod checks;
#[path = "sim/checks/tests/mod.rs"]
mod checks_tests;
#[path = "sim/ledger.rs"]
mod ledger;
#[path = "sim/plan/mod.rs"]
mod plan;
#[path = "sim/plan/tests.rs"]
mod plan_tests;
