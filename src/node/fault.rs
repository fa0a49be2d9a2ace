//! Deaths on purpose; this file exists in builds with the feature `fault` only.

use packhorse_actors::fault::{Fault, When};

use crate::error::{ErrorKind, NodeError};
use crate::node::Node;

impl Node {
    /// Orders the death of an actor, by its name in the tree.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when no such actor runs, [`ErrorKind::Usage`] for the words.
    pub async fn fault(&self, actor: &str, when: &str, fault: &str) -> Result<(), NodeError> {
        let usage =
            |error: &dyn std::error::Error| NodeError::new(ErrorKind::Usage, error.to_string());
        let when: When = when.parse().map_err(|error| usage(&error))?;
        let fault: Fault = fault.parse().map_err(|error| usage(&error))?;
        let faults = self.tree.faults();
        if faults.order(actor, when, fault).await {
            return Ok(());
        }
        // The tree knows sessions by the numbers of their peers.
        if let Some(name) = actor.strip_prefix("session ")
            && let Ok(peer) = self.peer(name).await
            && faults
                .order(&format!("session {}", peer.number.0), when, fault)
                .await
        {
            return Ok(());
        }
        Err(NodeError::new(
            ErrorKind::NotFound,
            format!("no actor `{actor}` runs"),
        ))
    }
}
