//! What a machine may forget, or not know, because its disk was copied or put back, or because a
//! peer was forgotten.
//!
//! A disk that is put back undoes everything of its window: from the copy until it came back. A
//! second machine takes and tells things that the first never hears of, from the copy until it is
//! gone. Nothing else weakens a rule.

use crate::ledger::{ByHand, Ledger, What};
use crate::plan::Node;

/// A window of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    node: Node,
    from_ms: u64,
    until_ms: u64,
    is_copy: bool,
}

/// All windows of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubts {
    windows: Vec<Window>,
    /// Who forgot whom.
    forgot: Vec<(Node, Node)>,
}

impl Doubts {
    pub(crate) fn of(ledger: &Ledger) -> Self {
        let mut doubts = Self::default();
        for entry in &ledger.entries {
            let node = entry.place.node;
            match &entry.what {
                What::SetBack { copied_ms } => doubts.windows.push(Window {
                    node,
                    from_ms: *copied_ms,
                    until_ms: entry.at_ms,
                    is_copy: false,
                }),
                What::CopyBegun { copied_ms } => doubts.windows.push(Window {
                    node,
                    from_ms: *copied_ms,
                    until_ms: u64::MAX,
                    is_copy: true,
                }),
                What::CopyOver => {
                    for window in &mut doubts.windows {
                        if window.node == node && window.is_copy {
                            window.until_ms = window.until_ms.min(entry.at_ms);
                        }
                    }
                }
                What::Doing {
                    deed: ByHand::Forget { peer },
                    ..
                } => doubts.forgot.push((node, *peer)),
                _ => {}
            }
        }
        doubts
    }

    /// What the machine knew at `then` may be undone at `later`: its disk was put back in between,
    /// and the copy is older.
    pub(crate) fn is_undone(&self, node: Node, then_ms: u64, later_ms: u64) -> bool {
        self.windows.iter().any(|window| {
            let is_within = window.from_ms <= then_ms && then_ms <= window.until_ms;
            window.node == node && !window.is_copy && is_within && window.until_ms <= later_ms
        })
    }

    /// The machine knows the whole truth about what it accepted or was sent from `since_ms` on: no
    /// window was open then or opened later.
    pub(crate) fn is_clear(&self, node: Node, since_ms: u64) -> bool {
        !self
            .windows
            .iter()
            .any(|window| window.node == node && window.until_ms >= since_ms)
    }

    /// Neither was its disk copied nor put back, in the whole run.
    pub(crate) fn is_spotless(&self, node: Node) -> bool {
        !self.windows.iter().any(|window| window.node == node)
    }

    /// Whether one of the two forgot the other at some time.
    pub(crate) fn forgot(&self, one: Node, other: Node) -> bool {
        self.forgot.contains(&(one, other)) || self.forgot.contains(&(other, one))
    }

    /// Whether `node` forgot `peer`.
    pub(crate) fn has_forgotten(&self, node: Node, peer: Node) -> bool {
        self.forgot.contains(&(node, peer))
    }
}
