//! Packhorse carries messages between machines that are not always reachable, and never drops its load.
//!
//! This crate is the product: [`Node`] for embedding, the [settings] file,
//! the local [API](api) and the [exit codes](exit) that the command line ends with.
//! It holds no policy of its own, and it never installs anything global:
//! no runtime, no log subscriber, no crypto provider. Two nodes live well in one process.
//!
//! Read [`node`] first; [`message`], [`receipt`] and [`status`] are the values that go in and out.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use packhorse::{Node, Outgoing};
//!
//! let node = Node::builder("/var/lib/example").name("left").start().await?;
//! let receipt = node.send("right", Outgoing::new("orders", "two bales of hay")).await?;
//! println!("{} is {}", receipt.id, receipt.state);
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod api;
pub mod claim;
pub mod class;
pub mod dead;
pub mod doctor;
pub mod error;
pub mod exit;
mod headers;
pub mod identity;
pub mod insight;
pub mod lab;
pub mod listing;
pub mod message;
pub mod node;
pub mod peer;
pub mod receipt;
pub mod receipt_id;
pub mod renewal;
pub mod request;
pub mod rules;
pub mod settings;
pub mod start;
pub mod status;
pub mod storage;
#[cfg(test)]
mod testing;
mod text;
pub mod time;
mod translate;
pub mod why;

pub use crate::claim::{Claim, Claimed, Lease, Verdict};
pub use crate::dead::{
    DeadDirection, DeadListing, DeadMessage, DeadState, Retried, RetriedMessage, Selection,
};
pub use crate::error::{ErrorKind, NodeError};
pub use crate::exit::Exit;
pub use crate::listing::{ListedMessage, Listing, Payload};
pub use crate::message::{EphemeralSent, EphemeralState, Outgoing, Received, Sent};
pub use crate::node::{Ended, InviteChoice, Node};
pub use crate::peer::{
    Denied, Forgotten, Invite, InviteInfo, InviteState, InviteUser, Join, Joined, Keep, PeerInfo,
    Revoked,
};
pub use crate::receipt::{Durability, Output, Receipt, ReceiptState};
pub use crate::receipt_id::ReceiptId;
pub use crate::request::{Approval, Ask, Asked, RequestInfo, RequestState, Requests};
pub use crate::rules::{ClassRules, TopicRule};
pub use crate::start::{NodeBuilder, StartError};
pub use crate::status::{PeerFault, PeerState, PeerStatus, PeerTrouble, Status};
pub use crate::storage::{QuotaSettings, Size, StorageStatus};
pub use crate::why::Why;
pub use packhorse_actors::session::{Stranger, StrangerDecision};
pub use packhorse_protocol::epoch::Epoch;
pub use packhorse_protocol::grant::{Capability, Grant, Grants, Revocation};
pub use packhorse_protocol::identity::IdentityKey;
pub use packhorse_protocol::message::DeliveryClass;
pub use packhorse_protocol::node_id::NodeId;
pub use packhorse_protocol::ticket::Ticket;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The newest protocol version that this build speaks.
pub const PROTOCOL_VERSION: u16 = packhorse_protocol::limits::VERSION_HIGHEST;
/// The format of the stores that this build writes.
pub const STORE_FORMAT: u32 = 1;
