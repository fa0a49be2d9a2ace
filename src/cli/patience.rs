//! Waiting for a daemon that is away: which errors mean that, and how long to pause.
//!
//! Only a command that is meant to run on has patience, and only after the daemon answered once:
//! before that, a wrong data folder is likelier than a restart.

use std::time::Duration;

use packhorse::api::ClientError;

use crate::cli::Screen;

/// First pause; the socket is on this machine, so asking costs next to nothing.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause: a person who restarted the daemon looks for a sign within a second.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How a command bears with its daemon.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    has_answered: bool,
    pauses: u32,
}

impl Patience {
    /// How long the next question may wait for something to happen: the first one does not, so
    /// that it is known early whether there is a daemon to have patience with.
    pub(crate) fn wait(&self, wait: Duration) -> Duration {
        if self.has_answered {
            wait
        } else {
            Duration::ZERO
        }
    }

    /// Notes an answer, and tells of it when the daemon had been away.
    pub(crate) fn answered(&mut self, screen: &Screen) {
        if self.pauses > 0 {
            screen.note("the daemon is back");
        }
        self.has_answered = true;
        self.pauses = 0;
    }

    /// Notes an error; false when asking again is no use.
    pub(crate) fn bears(&mut self, error: &ClientError, screen: &Screen) -> bool {
        if !self.has_answered || !is_passing(error) {
            return false;
        }
        if self.pauses == 0 {
            screen.note(&format!("waiting for the daemon: {error}"));
        }
        self.pauses = self.pauses.saturating_add(1);
        true
    }

    /// How long to wait before the next question.
    pub(crate) fn pause(&self) -> Duration {
        pause_after(self.pauses)
    }
}

/// The pause after so many failed questions in a row: none, then doubling to the limit.
pub(crate) fn pause_after(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => {
            let factor = 2_u32.saturating_pow(doublings);
            PAUSE_FIRST.saturating_mul(factor).min(PAUSE_MAX)
        }
    }
}

/// Whether the error is about the daemon's life and not about the question.
pub(crate) fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::NotRunning { .. }
        | ClientError::Unreachable { .. }
        | ClientError::Lost { .. }
        | ClientError::TimedOut { .. } => true,
        // A part that is being restarted, or a daemon that takes no new work before it ends.
        ClientError::Answer(error) => {
            matches!(error.code.as_str(), "internal" | "timed_out")
                || error.text.starts_with("draining")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let pauses: Vec<u128> = (0..8).map(|n| pause_after(n).as_millis()).collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(pause_after(u32::MAX), PAUSE_MAX);
    }

    #[test]
    fn a_daemon_that_never_answered_is_not_waited_for() {
        let screen = Screen::new(false);
        let mut patience = Patience::default();
        let lost = ClientError::Lost {
            text: "gone".into(),
        };
        assert!(!patience.bears(&lost, &screen));
        patience.answered(&screen);
        assert!(patience.bears(&lost, &screen));
        let malformed = ClientError::Malformed { text: "no".into() };
        assert!(!patience.bears(&malformed, &screen));
    }
}
