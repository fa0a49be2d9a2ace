//! The harness of the tests that run real processes: scratch folders, nodes, commands, deadlines.
//!
//! It never looks into the product: it knows the binary, its published documents, its socket, and the
//! typed lab that users have, of which a node is one machine.
//! Nothing that it starts outlives the test, also when the test panics or is killed:
//! handles kill on drop, and nodes end when their stdin closes.
//!
//! Read [`Lab`] for what a test begins with, then [`Node`] for what it can do to a node.

#![allow(
    dead_code,
    reason = "compiled into every test binary, of which each uses another part"
)]

pub(crate) mod api;
pub(crate) mod command;
pub(crate) mod deadline;
pub(crate) mod document;
pub(crate) mod follow;
pub(crate) mod lab;
pub(crate) mod netns;
pub(crate) mod node;
pub(crate) mod random;
pub(crate) mod shop;
pub(crate) mod skip;

#[allow(
    unused_imports,
    reason = "as above: not every test binary names every part"
)]
pub(crate) use self::{
    api::{Api, CallError},
    command::{Output, Running, packhorse},
    deadline::{Deadline, until},
    follow::Follower,
    lab::Lab,
    node::{Node, SEND_ALL, Ticket},
    random::{Random, seed},
};
