//! One actor of the live tree with those below it.

use serde::{Deserialize, Serialize};

/// An actor and its children, as they are now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its name; a session has its peer's.
    pub actor: String,
    /// Counts its lives: 1 is the first.
    pub incarnation: u64,
    /// How often it was restarted since the node started.
    pub restarts: u64,
    /// How its last life ended.
    pub last_exit: Option<String>,
    /// Since this life began; none while it is not running.
    pub uptime_ms: Option<u64>,
    /// Messages that wait in its mailbox.
    pub queue_depth: u64,
    /// In the order of their start.
    pub children: Vec<Branch>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_has_the_published_shape() {
        let branch = Branch {
            actor: "root".into(),
            incarnation: 1,
            restarts: 0,
            last_exit: None,
            uptime_ms: Some(12),
            queue_depth: 0,
            children: Vec::new(),
        };
        assert_eq!(
            serde_json::to_string(&branch).expect("plain values"),
            r#"{"actor":"root","incarnation":1,"restarts":0,"last_exit":null,"uptime_ms":12,"queue_depth":0,"children":[]}"#
        );
    }
}
