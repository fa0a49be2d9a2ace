//! What is due when: one ordered set of due times, one timer.
//!
//! Times are monotonic milliseconds that the caller brings; nothing here reads a clock or waits.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::PeerNumber;

/// What is to be done for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Dial it.
    Dial,
    /// Give up what is due among its waiting messages.
    Sweep,
}

/// The due times of all peers, at most one per peer and task.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BTreeSet<(u64, PeerNumber, Task)>,
    at: BTreeMap<(PeerNumber, Task), u64>,
    /// Number and due time of the timer that counts; what an earlier one still sends is stale.
    timer: u64,
    timer_due_ms: Option<u64>,
}

impl Agenda {
    /// Plans a task, in place of what was planned before; `None` takes it off.
    pub(super) fn set(&mut self, peer: PeerNumber, task: Task, due_ms: Option<u64>) {
        let old = match due_ms {
            Some(due_ms) => self.at.insert((peer, task), due_ms),
            None => self.at.remove(&(peer, task)),
        };
        if let Some(old) = old {
            self.due.remove(&(old, peer, task));
        }
        if let Some(due_ms) = due_ms {
            self.due.insert((due_ms, peer, task));
        }
    }

    /// When a task is due.
    pub(super) fn at(&self, peer: PeerNumber, task: Task) -> Option<u64> {
        self.at.get(&(peer, task)).copied()
    }

    /// Takes off everything that is due by now, the longest overdue first.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<(PeerNumber, Task)> {
        let mut ready = Vec::new();
        while let Some((due_ms, peer, task)) = self.due.first().copied()
            && due_ms <= now_ms
        {
            self.set(peer, task, None);
            ready.push((peer, task));
        }
        ready
    }

    /// The timer that has to be set now: its number and when it is due. `None` when the one that
    /// is set comes early enough, or nothing is planned.
    pub(super) fn next_timer(&mut self) -> Option<(u64, u64)> {
        let (due_ms, ..) = self.due.first().copied()?;
        if self.timer_due_ms.is_some_and(|set| set <= due_ms) {
            return None;
        }
        self.timer += 1;
        self.timer_due_ms = Some(due_ms);
        Some((self.timer, due_ms))
    }

    /// A timer rang. Whether it is the one that counts.
    pub(super) fn on_timer(&mut self, number: u64) -> bool {
        let counts = number == self.timer;
        if counts {
            self.timer_due_ms = None;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerNumber = PeerNumber(1);
    const TWO: PeerNumber = PeerNumber(2);

    #[test]
    fn a_task_stands_once_and_what_is_due_comes_in_order() {
        let mut agenda = Agenda::default();
        agenda.set(ONE, Task::Dial, Some(50));
        agenda.set(ONE, Task::Dial, Some(30));
        agenda.set(ONE, Task::Sweep, Some(10));
        agenda.set(TWO, Task::Dial, Some(20));
        agenda.set(TWO, Task::Sweep, Some(20));
        agenda.set(TWO, Task::Sweep, None);
        assert_eq!(agenda.at(ONE, Task::Dial), Some(30));
        assert_eq!(agenda.take_due(9), []);
        assert_eq!(agenda.take_due(20), [(ONE, Task::Sweep), (TWO, Task::Dial)]);
        assert_eq!(agenda.take_due(u64::MAX), [(ONE, Task::Dial)]);
        assert_eq!(agenda.at(ONE, Task::Dial), None);
        assert!(agenda.due.is_empty() && agenda.at.is_empty());
    }

    #[test]
    fn one_timer_counts_and_stale_ones_do_not() {
        let mut agenda = Agenda::default();
        assert_eq!(agenda.next_timer(), None, "nothing is planned");
        agenda.set(ONE, Task::Dial, Some(100));
        assert_eq!(agenda.next_timer(), Some((1, 100)));
        assert_eq!(agenda.next_timer(), None, "it is set");
        agenda.set(TWO, Task::Dial, Some(200));
        assert_eq!(agenda.next_timer(), None, "the earlier one is set");
        agenda.set(TWO, Task::Dial, Some(50));
        assert_eq!(agenda.next_timer(), Some((2, 50)));
        assert!(!agenda.on_timer(1), "stale");
        assert_eq!(agenda.next_timer(), None, "a stale one changes nothing");
        assert!(agenda.on_timer(2));
        agenda.take_due(50);
        assert_eq!(agenda.next_timer(), Some((3, 100)));
    }
}
