//! The local API: HTTP on a Unix socket in the data folder, and the client that speaks to it.
//!
//! Whoever may open the socket may do everything, so its mode is 0600 and nothing else is checked.
//! The API has no policy: every route is one call of [`Node`](crate::Node) with bounds around it.
//!
//! Read [`documents`] for what travels, `routes` for what is answered,
//! [`server`] for how connections live, and [`client`] for the other end.

pub mod client;
mod client_insight;
mod client_work;
pub mod documents;
pub mod error;
#[cfg(feature = "fault")]
pub mod fault;
pub mod insight;
pub mod metrics;
pub(crate) mod routes;
pub mod server;
pub mod socket;
pub mod work;

pub use client::{Client, ClientError};
pub use documents::Document;
pub use error::ApiError;
pub use server::{BindError, Server, ServerHandle};
pub use socket::{SocketPath, SocketPathError};
