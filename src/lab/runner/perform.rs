//! What each single step does to the cluster.

use std::time::Duration;

use super::asking::assert_once;
use super::background::Kind;
use super::lives::is_end;
use super::wires::cross;
use super::{Doing, Run, Trouble, Turn, all};
use crate::lab::ledger::Stream;
use crate::lab::machine::{Ended, Machine};
use crate::lab::scenario::fields::Nodes;
use crate::lab::step::{Action, Load};
use crate::lab::{Damage, Impairment, LabError};
use crate::{Exit, Grant};

/// Nodes that are named where a step says for whom it waits.
const NAMED_MAX: usize = 5;
/// How long the program may take to say what it can.
const HELP_WITHIN: Duration = Duration::from_secs(60);
/// Where copies of stores are kept in the lab's folder.
const COPIES: &str = "copies";

impl Run<'_> {
    /// One step that holds no others.
    pub(super) async fn perform(&self, action: &Action, turn: &Turn<'_>) -> Result<(), Trouble> {
        if disturbs(action) {
            self.mark_events(turn).await;
        }
        let limit = turn.limit();
        match action {
            Action::Start { nodes, exit } => self.start(&turn.pick(nodes), *exit, turn).await,
            Action::Stop { nodes, exit } => {
                for node in self.machines(nodes, turn)? {
                    self.no_stray_end(node)?;
                    if node.is_running() {
                        turn.saw(format!("`{}` is stopped", node.name()));
                        self.lives.account(node);
                        check_end(node, node.stop().await?, *exit)?;
                    }
                }
                Ok(())
            }
            Action::Kill { nodes } => self.kill(nodes, turn).await,
            Action::Restart { nodes } => {
                for node in self.machines(nodes, turn)? {
                    self.no_stray_end(node)?;
                    if node.is_running() {
                        turn.saw(format!("`{}` is stopped", node.name()));
                        self.lives.account(node);
                        check_end(node, node.stop().await?, 0)?;
                    }
                    turn.saw(format!("`{}` is not ready", node.name()));
                    self.start_one(node, None).await?;
                }
                Ok(())
            }
            Action::Signal { nodes, signal } => {
                for node in self.machines(nodes, turn)? {
                    self.no_stray_end(node)?;
                    if is_end(*signal) {
                        self.lives.account(node);
                    }
                    node.signal(*signal).await?;
                }
                Ok(())
            }
            Action::Pause { nodes } => {
                for node in self.machines(nodes, turn)? {
                    self.no_stray_end(node)?;
                    if node.is_running() {
                        node.pause().await?;
                    }
                }
                Ok(())
            }
            Action::Resume { nodes } => {
                for node in self.machines(nodes, turn)? {
                    if node.is_paused() {
                        node.resume().await?;
                    }
                }
                Ok(())
            }
            Action::Ended { nodes, exit } => {
                for node in self.machines(nodes, turn)? {
                    turn.saw(format!("`{}` runs", node.name()));
                    check_end(node, node.ended(limit).await?, *exit)?;
                    self.lives.account(node);
                }
                Ok(())
            }
            Action::Pair {
                nodes,
                with,
                grants,
            } => self.pair(nodes, with.as_ref(), grants, turn).await,
            Action::Send(plan) => self.send(plan, turn).await,
            Action::Load(plan) => self.load(plan, turn),
            Action::Receive { topic, on, wanted } => self.receive(topic, on, wanted, turn).await,
            Action::Consume { topic, on, rate } => {
                for node in self.machines(on, turn)? {
                    self.background.consume(node, topic, *rate);
                }
                Ok(())
            }
            Action::Work(plan) => {
                for node in self.machines(&plan.on, turn)? {
                    self.background.work(node, plan)?;
                }
                Ok(())
            }
            Action::End { topic, on } => {
                let on = on.as_ref().map(|on| turn.pick(on));
                let is_on = |node: &str| {
                    on.as_ref()
                        .is_none_or(|on| on.iter().any(|name| name == node))
                };
                let fits = |_: Kind, of: &str, node: &str| of == topic && is_on(node);
                turn.saw(format!("what runs for `{topic}` goes on"));
                match self.background.end(fits).await {
                    0 => Err(format!("nothing runs for `{topic}` there").into()),
                    _ => Ok(()),
                }
            }
            Action::Run(plan) => self.command(plan, turn).await,
            Action::Partition {
                sides,
                from,
                is_one_way,
            } => self.partition(sides, from.as_ref(), *is_one_way, turn),
            Action::Heal { nodes, from } => self
                .each_way(nodes, from.as_ref(), false, turn, |_| Impairment::NONE)
                .map(drop),
            Action::Impair {
                nodes,
                to,
                change,
                is_one_way,
            } => self.impair(nodes, to.as_ref(), change, *is_one_way, turn),
            Action::Fill { nodes, left } => {
                for node in self.machines(nodes, turn)? {
                    node.fill_disk(*left).await?;
                }
                Ok(())
            }
            Action::Free { nodes } => {
                for node in self.machines(nodes, turn)? {
                    node.free_disk().await?;
                }
                Ok(())
            }
            Action::Corrupt { nodes, bytes } => {
                let count = u32::try_from(*bytes).unwrap_or(u32::MAX);
                for node in self.machines(nodes, turn)? {
                    let mut random = turn.random().fork();
                    node.damage("db/", Damage::FlipBits { count }, &mut random)
                        .await?;
                }
                Ok(())
            }
            Action::CopyStore { node, copy } => {
                for node in self.machines(node, turn)? {
                    node.copy_store(&self.copy_path(copy)?).await?;
                }
                Ok(())
            }
            Action::RestoreStore { node, copy } => {
                for node in self.machines(node, turn)? {
                    node.restore_store(&self.copy_path(copy)?).await?;
                    // Its events and its inbox count on from an earlier place.
                    self.state().cursors.remove(node.name());
                    self.background.shared().ledger().restored(node.name());
                }
                Ok(())
            }
            Action::Wait { words, on, that } => self.wait(words, on, that, turn).await,
            Action::WaitEvent { kind, on, that } => {
                for node in self.machines(on, turn)? {
                    self.wait_event(node, kind, that.as_ref(), turn).await?;
                }
                Ok(())
            }
            Action::Assert { words, on, that } => {
                for node in self.machines(on, turn)? {
                    turn.saw(format!("`{}` {}", node.name(), words.join(" ")));
                    assert_once(node, words, that, limit).await?;
                }
                Ok(())
            }
            Action::Sleep { pause } => {
                let spread = pause.most.saturating_sub(pause.least);
                let time = pause.least + turn.random().within(spread);
                turn.saw(format!("a sleep of {} s", time.as_secs_f32()));
                tokio::time::sleep(time).await;
                Ok(())
            }
            Action::Crash {
                actor,
                on,
                fault,
                when,
            } => self.crash(actor, on, fault, when.as_deref(), turn).await,
            Action::Settle { .. } => self.settle(turn).await,
            // Carried out by whoever called; listed so that a new step cannot be forgotten.
            Action::Sequence { .. }
            | Action::Parallel { .. }
            | Action::Repeat { .. }
            | Action::Choose { .. } => Ok(()),
        }
    }

    pub(super) fn machines(
        &self,
        nodes: &Nodes,
        turn: &Turn<'_>,
    ) -> Result<Vec<&Machine>, Trouble> {
        let names = turn.pick(nodes);
        let machines: Result<Vec<&Machine>, LabError> = names
            .iter()
            .map(|name| self.cluster.node(name).map(AsRef::as_ref))
            .collect();
        Ok(machines?)
    }

    // --- processes ---

    async fn start(
        &self,
        names: &[String],
        exit: Option<u8>,
        turn: &Turn<'_>,
    ) -> Result<(), Trouble> {
        turn.saw(match names.len() {
            0..=NAMED_MAX => format!("{} not ready", names.join(", ")),
            count => format!("not all of {count} nodes are ready"),
        });
        let starts = names.iter().map(|name| -> Doing<'_> {
            Box::pin(async move { self.start_one(self.cluster.node(name)?, exit).await })
        });
        all(starts.collect()).await
    }

    /// Starts a node that does not run. With a code it must not come up, but end with it.
    async fn start_one(&self, node: &Machine, exit: Option<u8>) -> Result<(), Trouble> {
        let name = node.name();
        // Another step may be starting it: that it is ready is what counts.
        let _starting = self.lives.starting(node).await;
        self.no_stray_end(node)?;
        if node.is_running() {
            return match exit {
                None => Ok(()),
                Some(code) => Err(format!(
                    "`{name}` runs already, expected that it ends with exit {code}"
                )
                .into()),
            };
        }
        let started = self.cluster.start(name).await;
        if started.is_err() {
            // What came of it is this step's to tell.
            self.lives.account(node);
        }
        match (started, exit) {
            (Ok(_), None) => Ok(()),
            (Ok(_), Some(code)) => Err(format!("`{name}` is ready, expected exit {code}").into()),
            (Err(LabError::EndedEarly { ended, .. }), Some(code)) => check_end(node, ended, code),
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn kill(&self, nodes: &Nodes, turn: &Turn<'_>) -> Result<(), Trouble> {
        let nodes = self.machines(nodes, turn)?;
        for node in &nodes {
            self.no_stray_end(node)?;
        }
        let kills = nodes
            .into_iter()
            .filter(|node| node.is_running())
            .map(|node| -> Doing<'_> {
                Box::pin(async move {
                    self.lives.account(node);
                    node.kill().await?;
                    self.state().kills += 1;
                    Ok(())
                })
            });
        all(kills.collect()).await
    }

    async fn crash(
        &self,
        actor: &str,
        on: &Nodes,
        fault: &str,
        when: Option<&str>,
        turn: &Turn<'_>,
    ) -> Result<(), Trouble> {
        let mut words = vec!["fault", actor, fault];
        words.extend(when.iter().flat_map(|when| ["--when", when]));
        for node in self.machines(on, turn)? {
            turn.saw(format!("`{}` {}", node.name(), words.join(" ")));
            self.lives.crash(node);
            node.run(&words, b"", turn.limit()).await?.expect(0)?;
        }
        Ok(())
    }

    /// Whether the program can make actors die.
    pub(super) async fn check_faults(&self) -> Result<(), Trouble> {
        let Some(node) = self.cluster.nodes().first() else {
            return Ok(());
        };
        let output = node.run(&["fault", "--help"], b"", HELP_WITHIN).await?;
        if output.ended.code == Some(0) {
            return Ok(());
        }
        let program = self.cluster.program().display();
        Err(Trouble::unsupported(format!(
            "`crash` needs a program built with the feature `fault`, which {program} is not"
        )))
    }

    // --- pairs and loads ---

    async fn pair(
        &self,
        nodes: &Nodes,
        with: Option<&Nodes>,
        grants: &[String],
        turn: &Turn<'_>,
    ) -> Result<(), Trouble> {
        let pairs: Vec<(String, String)> = match with {
            Some(with) => {
                let (ones, others) = turn.pick_two(nodes, with);
                cross(&ones, &others)
            }
            None => {
                let names = turn.pick(nodes);
                let behind = |index| names.iter().skip(index + 1);
                let each = names.iter().enumerate();
                each.flat_map(|(index, one)| {
                    behind(index).map(|other| (one.clone(), other.clone()))
                })
                .collect()
            }
        };
        let grants: Result<Vec<Grant>, String> = grants
            .iter()
            .map(|grant| grant.parse().map_err(|error| format!("{grant}: {error}")))
            .collect();
        let grants = grants?;
        for (one, other) in pairs {
            turn.saw(format!("{one} and {other} are not paired"));
            // Whoever joins dials, so the inviter is one that can be dialled.
            let is_silent = self.cluster.node(&other)?.spec().is_silent;
            let (inviter, joiner) = if is_silent {
                (one, other)
            } else {
                (other, one)
            };
            self.cluster
                .pair_with(&inviter, &joiner, &grants, &grants)
                .await?;
        }
        Ok(())
    }

    fn load(&self, plan: &Load, turn: &Turn<'_>) -> Result<(), Trouble> {
        let load = self.background.next_load();
        let (from, to) = turn.pick_two(&plan.from, &plan.to);
        let pairs = cross(&from, &to);
        if pairs.is_empty() {
            let (from, to) = (from.join(", "), to.join(", "));
            return Err(format!("nobody sends: from {from} to {to}").into());
        }
        for (from, to) in pairs {
            let inbox = (to.clone(), plan.topic.clone());
            if let Some(path) = self.state().received.get(&inbox) {
                return Err(format!(
                    "`{}` on `{to}`: {path} takes these with `receive`, which no `settle` sees; use another topic, or `consume`",
                    plan.topic
                )
                .into());
            }
            let sender = self.cluster.node(&from)?;
            let stream = Stream {
                load,
                topic: plan.topic.clone(),
                from: from.clone(),
                to,
            };
            self.background.load(sender, stream, plan);
        }
        Ok(())
    }

    // --- network and disks ---

    fn copy_path(&self, copy: &str) -> Result<std::path::PathBuf, Trouble> {
        let is_plain = copy
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if !is_plain {
            return Err(format!("`{copy}` cannot name a copy: letters, digits, - and _").into());
        }
        let folder = self.cluster.folder().join(COPIES);
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder.join(copy))
    }
}

/// Whether a step does something to nodes or the network of which events may tell.
fn disturbs(action: &Action) -> bool {
    matches!(
        action,
        Action::Start { .. }
            | Action::Stop { .. }
            | Action::Kill { .. }
            | Action::Restart { .. }
            | Action::Signal { .. }
            | Action::Pause { .. }
            | Action::Resume { .. }
            | Action::Pair { .. }
            | Action::Run(_)
            | Action::Partition { .. }
            | Action::Heal { .. }
            | Action::Impair { .. }
            | Action::Fill { .. }
            | Action::Free { .. }
            | Action::Crash { .. }
    )
}

fn check_end(node: &Machine, ended: Ended, exit: u8) -> Result<(), Trouble> {
    if ended.code == Some(i32::from(exit)) {
        return Ok(());
    }
    let meaning = match ended.code.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => format!(" ({:?})", Exit::from_code(code)),
        None => String::new(),
    };
    Err(format!(
        "`{}` ended with {ended}{meaning}, expected exit {exit}",
        node.name()
    )
    .into())
}
