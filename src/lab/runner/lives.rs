//! Whether the nodes live as the steps want them to: a node that ends without being told to is a
//! trouble, also when a later step would start it again.
//!
//! `stop`, `kill`, `restart` and a signal that ends a process order an end. One that nobody ordered
//! is accounted for by an `ended` step with its code, or by the node's own `may_end`; a node whose
//! actor was made to die may end with the code for that. Anything else is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;

use super::{Run, Trouble};
use crate::Exit;
use crate::lab::machine::{Ended, Machine};
use crate::lab::step::{Action, Step};
use crate::lab::{Scenario, Signal};

/// Of a node's log in a trouble.
const LOG_TOLD_BYTES: usize = 4 << 10;

/// What is known of the lives of all nodes.
#[derive(Debug)]
pub(super) struct Lives {
    lives: Mutex<BTreeMap<String, Life>>,
    /// Nodes that a step is starting; two steps never start one at a time.
    starting: watch::Sender<BTreeSet<String>>,
}

/// What is known of one node; a life of it is named by how often it was started.
#[derive(Debug, Default)]
struct Life {
    /// Codes with which an `ended` step somewhere in the scenario expects it to end.
    awaited: BTreeSet<i32>,
    /// The code with which it may end at any time.
    may_end: Option<i32>,
    /// The life whose end was ordered, claimed, or told.
    accounted: u32,
    /// The life in which an actor was made to die.
    crashed: u32,
}

/// What an end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It was ordered, or may be.
    Fine,
    /// An `ended` step may claim it.
    Awaited,
    /// Nobody wanted it.
    Wrong,
}

impl Life {
    fn judge(&self, life: u32, ended: Ended) -> Verdict {
        if self.accounted == life {
            return Verdict::Fine;
        }
        let Some(code) = ended.code else {
            return Verdict::Wrong;
        };
        let is_crash = self.crashed == life && code == i32::from(Exit::Internal.code());
        if self.may_end == Some(code) || is_crash {
            Verdict::Fine
        } else if self.awaited.contains(&code) {
            Verdict::Awaited
        } else {
            Verdict::Wrong
        }
    }
}

impl Lives {
    pub(super) fn new(scenario: &Scenario) -> Lives {
        let mut lives: BTreeMap<String, Life> = BTreeMap::new();
        for node in &scenario.nodes {
            let life = lives.entry(node.name.clone()).or_default();
            life.may_end = node.may_end.map(i32::from);
        }
        each(&scenario.steps, &mut |action| {
            if let Action::Ended { nodes, exit } = action {
                for name in &nodes.names {
                    let life = lives.entry(name.clone()).or_default();
                    life.awaited.insert(i32::from(*exit));
                }
            }
        });
        Lives {
            lives: Mutex::new(lives),
            starting: watch::Sender::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Life>> {
        // Each field is right by itself.
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of this life is wanted, or was told.
    pub(super) fn account(&self, node: &Machine) {
        let mut lives = self.lock();
        lives.entry(node.name().to_owned()).or_default().accounted = node.starts();
    }

    /// An actor of the node is made to die.
    pub(super) fn crash(&self, node: &Machine) {
        let mut lives = self.lock();
        lives.entry(node.name().to_owned()).or_default().crashed = node.starts();
    }

    /// Waits until no other step starts this node, and keeps others from it until the guard goes.
    pub(super) async fn starting(&self, node: &Machine) -> Starting<'_> {
        let name = node.name();
        let mut starting = self.starting.subscribe();
        while !self
            .starting
            .send_if_modified(|names| names.insert(name.to_owned()))
        {
            // The sender is this one's own, so it cannot be gone.
            let _ = starting.wait_for(|names| !names.contains(name)).await;
        }
        Starting {
            lives: self,
            name: name.to_owned(),
        }
    }

    fn verdict(&self, node: &Machine) -> Option<(Verdict, Ended)> {
        let ended = node.last_end()?;
        let lives = self.lock();
        let life = lives.get(node.name());
        let verdict = life.map_or(Verdict::Wrong, |life| life.judge(node.starts(), ended));
        Some((verdict, ended))
    }
}

/// A node that a step is starting.
#[derive(Debug)]
pub(super) struct Starting<'l> {
    lives: &'l Lives,
    name: String,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.lives.starting.send_modify(|names| {
            names.remove(&self.name);
        });
    }
}

impl Run<'_> {
    /// Tells of every node that ends without being told to, as soon as it does; never ends.
    pub(super) async fn watch_lives(&self) {
        let mut watches: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::new();
        for node in self.cluster.nodes() {
            watches.push(Box::pin(self.watch_life(node)));
        }
        poll_fn(|context| {
            for watch in &mut watches {
                // None of them ever ends.
                let _ = watch.as_mut().poll(context);
            }
            Poll::<()>::Pending
        })
        .await;
    }

    async fn watch_life(&self, node: &Machine) {
        let mut starting = self.lives.starting.subscribe();
        let mut life = 0;
        loop {
            // What ends before it is ready is the step's that starts it.
            let is_new =
                |names: &BTreeSet<String>| node.starts() > life && !names.contains(node.name());
            let _ = starting.wait_for(is_new).await;
            life = node.starts();
            let _ = node.ended(Duration::MAX).await;
            self.look_at(node);
        }
    }

    /// Tells of an end that nobody wanted.
    pub(super) fn look_at(&self, node: &Machine) {
        if let Some((Verdict::Wrong, ended)) = self.lives.verdict(node) {
            self.lives.account(node);
            self.background.tell(by_itself(node, ended));
        }
    }

    /// Before a step does something about a node: it has not ended without being told to.
    pub(super) fn no_stray_end(&self, node: &Machine) -> Result<(), Trouble> {
        match self.lives.verdict(node) {
            None | Some((Verdict::Fine, _)) => Ok(()),
            Some((Verdict::Awaited | Verdict::Wrong, ended)) => {
                self.lives.account(node);
                Err(Trouble::wrong(by_itself(node, ended)))
            }
        }
    }
}

/// Whether a signal is meant to end a node.
pub(super) fn is_end(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::Term | Signal::Int | Signal::Kill | Signal::Quit | Signal::Abrt
    )
}

fn by_itself(node: &Machine, ended: Ended) -> String {
    let name = node.name();
    let head = format!("`{name}` ended by itself with {ended}, and no step told it to");
    match node.log_tail(LOG_TOLD_BYTES).trim_end() {
        "" => head,
        log => format!("{head}\n--- log of {name} ---\n{log}"),
    }
}

/// Visits every action of a scenario.
pub(super) fn each(steps: &[Step], visit: &mut impl FnMut(&Action)) {
    for step in steps {
        visit(&step.action);
        each(step.inner(), visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i32) -> Ended {
        Ended {
            code: Some(code),
            signal: None,
        }
    }

    #[test]
    fn only_an_end_that_was_ordered_or_may_be_is_fine() {
        let killed = Ended {
            code: None,
            signal: Some(9),
        };
        let life = Life {
            awaited: [7].into(),
            may_end: Some(9),
            accounted: 2,
            crashed: 3,
        };
        // The second life was ordered to end, however it did.
        for ended in [code(101), killed] {
            assert_eq!(life.judge(2, ended), Verdict::Fine);
        }
        for (ended, verdict) in [
            (code(0), Verdict::Wrong),
            (code(101), Verdict::Wrong),
            (killed, Verdict::Wrong),
            (code(7), Verdict::Awaited),
            (code(9), Verdict::Fine),
            (code(10), Verdict::Fine),
        ] {
            assert_eq!(life.judge(3, ended), verdict, "{ended}");
        }
        assert_eq!(life.judge(4, code(10)), Verdict::Wrong);
    }

    #[test]
    fn what_ended_steps_and_nodes_say_counts_wherever_it_stands() {
        let text = "name = \"t\"\nnodes = [\"a\", { name = \"b\", may_end = 9 }]\nsteps = [{ repeat = 2, steps = [{ start = \"*\" }, { ended = \"a\", exit = 7 }] }]\n";
        let scenario = Scenario::parse("t.toml".as_ref(), text.as_bytes()).expect("it is whole");
        let lives = Lives::new(&scenario);
        let lives = lives.lock();
        assert_eq!(lives["a"].judge(1, code(7)), Verdict::Awaited);
        assert_eq!(lives["b"].judge(1, code(7)), Verdict::Wrong);
        assert_eq!(lives["b"].judge(1, code(9)), Verdict::Fine);
    }
}
