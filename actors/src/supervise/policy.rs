//! What happens after a child ended: a pure decision.
//!
//! The window slides: a child that fails now and then over months is not a failing child.
//! A long quiet spell also resets the backoff, because the starts are forgotten with the window.
//! Nothing here waits, counts by itself or reads a clock.

use std::{collections::VecDeque, time::Duration};

/// How a child ended, as its supervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitClass {
    /// It was told to stop.
    Asked,
    /// It returned an error or panicked.
    Failed,
    /// It was killed, or its task was cancelled.
    Killed,
    /// It stopped by itself although it is permanent.
    Unexpected,
    /// It could not be started.
    StartFailed,
    /// Going on in this process would be wrong, whatever the budget says.
    Fatal,
}

/// How often a child may be restarted, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Restarts allowed within [`Budget::window`].
    pub restarts_max: usize,
    /// Restarts older than this are forgotten.
    pub window: Duration,
    /// Delay before the first restart of a window.
    pub delay_first: Duration,
    /// No delay is longer.
    pub delay_max: Duration,
}

/// The restarts of one child that still count. Times are monotonic milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    restarts_ms: VecDeque<u64>,
}

/// What the supervisor does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start a new incarnation after this delay.
    RestartAfter(Duration),
    /// The budget is spent, or the exit was fatal.
    GiveUp,
    /// The exit was asked for.
    Ignore,
}

impl Budget {
    /// Decides, and notes the restart in `history` when there is one.
    pub fn decide(&self, exit: ExitClass, history: &mut History, now_ms: u64) -> Decision {
        match exit {
            ExitClass::Asked => return Decision::Ignore,
            ExitClass::Fatal => return Decision::GiveUp,
            ExitClass::Failed
            | ExitClass::Killed
            | ExitClass::Unexpected
            | ExitClass::StartFailed => {}
        }
        let window_ms = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        history
            .restarts_ms
            .retain(|restart| now_ms.saturating_sub(*restart) < window_ms);
        if history.restarts_ms.len() >= self.restarts_max {
            return Decision::GiveUp;
        }
        let doublings = u32::try_from(history.restarts_ms.len())
            .unwrap_or(u32::MAX)
            .min(31);
        history.restarts_ms.push_back(now_ms);
        let delay = self
            .delay_first
            .saturating_mul(1 << doublings)
            .min(self.delay_max);
        Decision::RestartAfter(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget {
        restarts_max: 3,
        window: Duration::from_secs(60),
        delay_first: Duration::from_millis(100),
        delay_max: Duration::from_millis(300),
    };

    fn run(exits: &[(u64, ExitClass)]) -> Vec<Decision> {
        let mut history = History::default();
        exits
            .iter()
            .map(|(now_ms, exit)| BUDGET.decide(*exit, &mut history, *now_ms))
            .collect()
    }

    fn after(ms: u64) -> Decision {
        Decision::RestartAfter(Duration::from_millis(ms))
    }

    #[test]
    fn delays_double_up_to_their_cap_and_then_the_budget_is_spent() {
        let exits = [1, 2, 3, 4].map(|now_ms| (now_ms, ExitClass::Failed));
        assert_eq!(
            run(&exits),
            [after(100), after(200), after(300), Decision::GiveUp]
        );
    }

    #[test]
    fn restarts_older_than_the_window_are_forgotten() {
        let exits = [0, 1, 2, 60_000, 60_001].map(|now_ms| (now_ms, ExitClass::Killed));
        assert_eq!(
            run(&exits),
            [after(100), after(200), after(300), after(300), after(300)]
        );
        assert_eq!(
            run(&[(0, ExitClass::Failed), (60_000, ExitClass::Failed)]),
            [after(100); 2]
        );
    }

    #[test]
    fn a_failed_start_spends_the_same_budget() {
        let exits = [1, 2, 3, 4].map(|now_ms| (now_ms, ExitClass::StartFailed));
        assert_eq!(run(&exits).last(), Some(&Decision::GiveUp));
    }

    #[test]
    fn an_asked_exit_is_ignored_and_costs_nothing() {
        let exits = [
            (1, ExitClass::Asked),
            (2, ExitClass::Asked),
            (3, ExitClass::Asked),
            (4, ExitClass::Asked),
            (5, ExitClass::Unexpected),
        ];
        assert_eq!(run(&exits).last(), Some(&after(100)));
    }

    #[test]
    fn a_fatal_exit_is_never_restarted() {
        assert_eq!(run(&[(1, ExitClass::Fatal)]), [Decision::GiveUp]);
    }
}
