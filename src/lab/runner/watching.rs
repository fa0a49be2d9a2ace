//! Tells those who watch a run that time passes.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Happening, Run};
use crate::lab::report::Outcome;

/// Between two looks at nodes and books.
const TICK: Duration = Duration::from_millis(500);

/// Does all of a run, and tells of nodes and books twice a second meanwhile.
pub(super) async fn watched(run: &Run<'_>, all: impl Future<Output = Outcome>) -> Outcome {
    let mut all = std::pin::pin!(all);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            outcome = &mut all => return outcome,
            _ = ticks.tick() => (run.watch)(Happening::Tick {
                at: run.began.elapsed(),
                nodes: run.cluster.nodes(),
                tally: run.background.tally(),
            }),
        }
    }
}
