//! Whether the node can do its work, check by check.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What is wrong with it; none when it is well.
    pub fault: Option<String>,
}

impl Check {
    /// A check that came out well.
    #[must_use]
    pub fn well(name: impl Into<String>) -> Check {
        Check {
            name: name.into(),
            fault: None,
        }
    }

    /// A check that did not.
    #[must_use]
    pub fn failed(name: impl Into<String>, fault: impl Into<String>) -> Check {
        Check {
            name: name.into(),
            fault: Some(fault.into()),
        }
    }
}

/// Every check; a node without peers is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In the order of the tree.
    pub checks: Vec<Check>,
}

impl Health {
    /// Whether the node can do its work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.fault.is_none())
    }
}

impl fmt::Display for Health {
    /// Line by line, as probes print it: `[+]store ok`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            match &check.fault {
                None => writeln!(f, "[+]{} ok", check.name)?,
                Some(fault) => writeln!(f, "[-]{} failed: {fault}", check.name)?,
            }
        }
        let verdict = if self.is_ready() {
            "ready"
        } else {
            "not ready"
        };
        writeln!(f, "{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_check_makes_the_node_not_ready() {
        let mut health = Health {
            checks: vec![Check::well("store")],
        };
        assert_eq!(health.to_string(), "[+]store ok\nready\n");
        health.checks.push(Check::failed("inbox", "is restarting"));
        assert!(!health.is_ready());
        assert_eq!(
            health.to_string(),
            "[+]store ok\n[-]inbox failed: is restarting\nnot ready\n"
        );
    }
}
