//! Real time, in the one place where these tests touch it.
//!
//! Who can be waited for by an event (an exit, a line, an answer) is waited for with
//! [`Deadline::left`] as the bound; [`until`] is for documents that change without an event.

use std::time::{Duration, Instant};

/// How long anything may take that takes a second on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Pause between two looks at a document: short beside a commit, long beside the question.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// A moment by which something must have happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
}

impl Deadline {
    #[expect(
        clippy::disallowed_methods,
        reason = "processes under test live in real time"
    )]
    pub(crate) fn after(limit: Duration) -> Deadline {
        Deadline {
            at: Instant::now() + limit,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "processes under test live in real time"
    )]
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(self) -> bool {
        self.left().is_zero()
    }
}

/// Looks again and again until there is an answer; panics with `what` when it takes too long.
pub(crate) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(limit);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            !deadline.is_over(),
            "not within {} s: {what}",
            limit.as_secs_f32()
        );
        pause(LOOK_EVERY);
    }
}

/// Lets this much time pass: between two looks, or as the random moment of a kill.
/// Never so that something else has time to happen.
#[expect(
    clippy::disallowed_methods,
    reason = "a bounded pause between two looks; what is waited for has its own deadline"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
