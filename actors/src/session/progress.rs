//! Whether the peer has acknowledged anything in a session.
//!
//! A session that ends without is a failed attempt if something was waiting. It counts what the
//! peer said, not what was deleted for it: a deletion may still be in the writer's queue.

use std::collections::BTreeMap;

use packhorse_protocol::{
    epoch::{Epoch, Lane, Span},
    message::ReceiverFrame,
};

/// What was waiting at the start, and whether any of it was acknowledged since.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// By the lane's index: the first waiting sequence of each epoch that has one.
    waiting: [BTreeMap<Epoch, u64>; 2],
    is_made: bool,
}

impl Progress {
    /// What Start says.
    pub(super) fn on_lines(&mut self, lane: Lane, spans: &[Span]) {
        let waiting = spans.iter().filter(|span| span.first <= span.last);
        self.waiting[lane.index()] = waiting.map(|span| (span.epoch, span.first)).collect();
    }

    /// What the peer answers.
    pub(super) fn on_frame(&mut self, lane: Lane, frame: &ReceiverFrame) {
        match frame {
            // One goes out for what was committed there, and for nothing else.
            ReceiverFrame::Acknowledge { .. } => self.is_made = true,
            // The acknowledgement of an earlier session that was lost on its way.
            ReceiverFrame::Marks { marks, .. } => {
                let waiting = &self.waiting[lane.index()];
                self.is_made |= marks.iter().any(|mark| {
                    waiting
                        .get(&mark.epoch)
                        .is_some_and(|first| mark.settled >= *first)
                });
            }
            ReceiverFrame::Paused { .. }
            | ReceiverFrame::Resumed
            | ReceiverFrame::Window { .. } => {}
        }
    }

    /// Whether anything was acknowledged.
    pub(super) fn is_made(&self) -> bool {
        self.is_made
    }
}

#[cfg(test)]
mod tests {
    use packhorse_protocol::epoch::Mark;

    use super::*;

    const EPOCH: Epoch = Epoch { boot: 1, nonce: 1 };

    fn marks(settled: u64) -> ReceiverFrame {
        ReceiverFrame::Marks {
            marks: vec![Mark {
                epoch: EPOCH,
                settled,
            }],
            refusals: Vec::new(),
        }
    }

    fn told(spans: &[(u64, u64)], frame: &ReceiverFrame) -> bool {
        let spans: Vec<_> = spans
            .iter()
            .map(|(first, last)| Span {
                epoch: EPOCH,
                first: *first,
                last: *last,
                acknowledged: 0,
            })
            .collect();
        let mut progress = Progress::default();
        progress.on_lines(Lane::User, &spans);
        progress.on_frame(Lane::User, frame);
        progress.is_made()
    }

    #[test]
    fn marks_are_progress_only_when_they_cover_what_waits() {
        assert!(!told(&[(5, 9)], &marks(4)));
        assert!(told(&[(5, 9)], &marks(5)));
        assert!(!told(&[(10, 9)], &marks(9)), "nothing waits");
        assert!(!told(&[], &marks(9)));
    }

    #[test]
    fn an_acknowledgement_is_progress_and_a_pause_is_none() {
        let mark = Mark {
            epoch: EPOCH,
            settled: 1,
        };
        let acknowledge = ReceiverFrame::Acknowledge {
            mark,
            refusals: Vec::new(),
        };
        assert!(told(&[], &acknowledge));
        let reason = "full".to_owned();
        assert!(!told(&[(1, 1)], &ReceiverFrame::Paused { reason }));
    }
}
