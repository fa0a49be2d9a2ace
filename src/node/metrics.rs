//! What is measured: gathered from every part of the node when somebody asks.
//!
//! Nothing is counted twice: what the parts count anyway is read there, and what only events tell
//! is added up from where the last question ended.

use packhorse_actors::events::Fact;
use packhorse_actors::listener::{Outcome, StrangerCounts};
use packhorse_protocol::error_class::ErrorClass;

use crate::error::NodeError;
use crate::insight::{Happened, Metrics, Strangers};
use crate::node::Node;
use crate::translate::from_store;

/// Events read at once.
const EVENTS_STEP: usize = 1_024;

impl Node {
    /// Strangers, as they are counted now.
    #[must_use]
    pub fn strangers(&self) -> Strangers {
        strangers(&self.tree.door.counts())
    }

    /// Everything that is measured; `happened` is what the last call returned, so that its counts
    /// go on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn metrics(&self, happened: Happened) -> Result<Metrics, NodeError> {
        let happened = self.add_up(happened).await?;
        let (quarantined, _) = self.tree.store.quarantined();
        Ok(Metrics {
            status: self.status().await?,
            strangers: self.strangers(),
            tree: self.tree().await?,
            commits: self.tree.store.commits(),
            queued: self.tree.store.queued(),
            quarantined,
            happened,
        })
    }

    async fn add_up(&self, mut happened: Happened) -> Result<Happened, NodeError> {
        loop {
            let page = self.tree.events.since(happened.upto, EVENTS_STEP).await;
            let page = page.map_err(from_store)?;
            if let Some((first, last)) = page.gap {
                happened.missed += (last + 1).saturating_sub(first);
                happened.upto = happened.upto.max(last);
            }
            let Some(newest) = page.events.last().map(|event| event.number) else {
                return Ok(happened);
            };
            happened.upto = newest;
            for event in page.events {
                count(&mut happened, &event.fact);
            }
        }
    }
}

fn count(happened: &mut Happened, fact: &Fact) {
    let (word, more) = match fact {
        Fact::SessionStarted { .. } => {
            happened.sessions_started += 1;
            return;
        }
        Fact::SessionEnded { class, .. } => {
            let class = class.name().to_owned();
            *happened.sessions_ended.entry(class).or_default() += 1;
            return;
        }
        Fact::GivenUp { count, .. } => ("given_up", *count),
        Fact::RefusedThere { count, .. } => ("refused_there", *count),
        Fact::FailedHere { .. } => ("failed_here", 1),
        _ => return,
    };
    *happened.dead_letters.entry(word.to_owned()).or_default() += more;
}

fn strangers(counts: &StrangerCounts) -> Strangers {
    let refused = ErrorClass::ALL.iter().zip(counts.refused);
    Strangers {
        turned_away_recently: counts.turned_away_recently,
        half_open: counts.half_open,
        cheap: counts.cheap,
        costly: counts.costly,
        known_prefixes: counts.known_prefixes,
        counts: Outcome::ALL
            .into_iter()
            .map(|outcome| (outcome.word().to_owned(), counts.of(outcome)))
            .collect(),
        refused: refused
            .filter(|(_, count)| *count > 0)
            .map(|(class, count)| (class.name().to_owned(), count))
            .collect(),
    }
}
