//! Closing the books: loads end, what nobody consumes is taken, and every stream is followed until
//! its sender knows it to be done.
//!
//! The sender is believed receipt by receipt. When all is well the inboxes are looked into once more:
//! whatever is on its way twice must not come behind the last look.

use std::collections::BTreeSet;
use std::time::Duration;

use super::background::{Kind, is_passing};
use super::follow::Follow;
use super::{Doing, Run, Trouble, Turn, all};
use crate::lab::ledger::{Ledger, Stream};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Streams that are asked about at once.
const STREAMS_AT_ONCE: usize = 16;

impl Run<'_> {
    /// Waits until everything that was accepted is stored and handled.
    pub(super) async fn settle(&self, turn: &Turn<'_>) -> Result<(), Trouble> {
        turn.saw("loads that do not end: does their node run?");
        self.background.end_loads().await;
        let shared = self.background.shared();
        let streams = begun(&shared.ledger())?;
        let mut follows: Vec<(Stream, Follow)> = Vec::new();
        for stream in streams {
            if !self.background.consumes(&stream.topic, &stream.to) {
                let node = self.cluster.node(&stream.to)?;
                self.background.consume(node, &stream.topic, None);
            }
            let client = self.cluster.node(&stream.from)?.client();
            let before = self.background.follows().remove(&stream);
            let mut follow = before.unwrap_or_else(|| Follow::new(client));
            follow.extend(shared.receipts_from(&stream, follow.count()));
            follows.push((stream, follow));
        }
        loop {
            let is_asking = self.look(&mut follows).await?;
            let (faults, unsettled) = {
                let ledger = shared.ledger();
                (ledger.faults(), ledger.unsettled())
            };
            if !faults.is_empty() {
                return Err(Trouble::wrong(faults.join("\n")));
            }
            if unsettled.is_empty() && self.is_swept(turn).await? {
                let ledger = &mut shared.ledger();
                let (faults, unsettled) = (ledger.faults(), ledger.unsettled());
                if faults.is_empty() && unsettled.is_empty() {
                    ledger.settle();
                    self.background.follows().extend(follows);
                    return Ok(());
                }
                continue;
            }
            let idle = self.cluster.nodes().iter();
            let idle = idle
                .filter(|node| !node.is_running())
                .map(|node| format!("`{}` does not run", node.name()));
            let away: BTreeSet<&str> = follows.iter().filter_map(|(_, it)| it.away()).collect();
            let away = away.into_iter().map(ToOwned::to_owned);
            let seen: Vec<String> = unsettled.into_iter().chain(idle).chain(away).collect();
            if !seen.is_empty() {
                turn.saw(seen.join("\n"));
            }
            if !is_asking {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Asks on about every stream, and enters what was heard. Whether there is more to ask for.
    async fn look(&self, follows: &mut [(Stream, Follow)]) -> Result<bool, Trouble> {
        let mut is_asking = false;
        for follows in follows.chunks_mut(STREAMS_AT_ONCE) {
            let mut more = vec![false; follows.len()];
            let looks = follows.iter_mut().zip(&mut more);
            let looks = looks.map(|((stream, follow), more)| -> Doing<'_> {
                Box::pin(async move {
                    *more = follow.look(stream).await?;
                    Ok(())
                })
            });
            let looks: Vec<Doing<'_>> = looks.collect();
            all(looks).await?;
            is_asking |= more.contains(&true);
            let mut ledger = self.background.shared().ledger();
            for (stream, follow) in follows {
                let (stored, done) = follow.reached();
                ledger.climbed(stream, stored, done);
            }
        }
        Ok(is_asking)
    }

    /// Whether nothing is left in any inbox for the lab's consumers; what is, is entered.
    async fn is_swept(&self, turn: &Turn<'_>) -> Result<bool, Trouble> {
        let inboxes: BTreeSet<(String, String)> = {
            let ledger = self.background.shared().ledger();
            let streams = ledger.streams();
            streams
                .map(|(stream, _)| (stream.to.clone(), stream.topic.clone()))
                .filter(|(to, topic)| self.background.runs(Kind::Consumer, topic, to))
                .collect()
        };
        for (to, topic) in inboxes {
            match self.background.sweep(self.cluster.node(&to)?, &topic).await {
                Ok(0) => {}
                Ok(_) => return Ok(false),
                Err(error) if is_passing(&error) => {
                    turn.saw(format!("the inbox of `{to}`: {error}"));
                    tokio::time::sleep(LOOK_EVERY).await;
                    return Ok(false);
                }
                Err(error) => return Err(format!("the inbox of `{to}`: {error}").into()),
            }
        }
        Ok(true)
    }
}

/// All streams; of each something was accepted, or there is nothing to judge.
fn begun(ledger: &Ledger) -> Result<Vec<Stream>, Trouble> {
    let mut streams = Vec::new();
    for (stream, accepted) in ledger.streams() {
        if accepted == 0 {
            return Err(format!("{stream}: nothing was accepted of its load").into());
        }
        streams.push(stream.clone());
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_of_which_nothing_was_accepted_is_not_settled() {
        let stream = Stream {
            load: 1,
            topic: "orders".into(),
            from: "left".into(),
            to: "right".into(),
        };
        let mut ledger = Ledger::default();
        ledger.open(stream.clone());
        assert_eq!(
            begun(&ledger),
            Err(Trouble::wrong(
                "orders from left to right: nothing was accepted of its load"
            ))
        );
        ledger.accept(&stream);
        assert_eq!(begun(&ledger), Ok(vec![stream]));
    }
}
