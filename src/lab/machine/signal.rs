//! Signals that a lab sends to nodes, by the names that people know.

use std::fmt;
use std::str::FromStr;

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// SIGTERM: the node stops in order.
    Term,
    /// SIGINT: the same.
    Int,
    /// SIGHUP: a node ignores it.
    Hup,
    /// SIGKILL: it is dead at once, whatever it was doing.
    Kill,
    /// SIGSTOP: it stands still until SIGCONT, like a machine that sleeps.
    Stop,
    /// SIGCONT: it goes on.
    Cont,
    /// SIGQUIT: the system ends it, with a core where those are kept.
    Quit,
    /// SIGABRT: the same.
    Abrt,
}

impl Signal {
    /// Every signal there is here.
    pub const ALL: [Signal; 8] = [
        Signal::Term,
        Signal::Int,
        Signal::Hup,
        Signal::Kill,
        Signal::Stop,
        Signal::Cont,
        Signal::Quit,
        Signal::Abrt,
    ];

    /// Its name without `SIG`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Signal::Term => "TERM",
            Signal::Int => "INT",
            Signal::Hup => "HUP",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
            Signal::Quit => "QUIT",
            Signal::Abrt => "ABRT",
        }
    }

    pub(super) const fn system(self) -> rustix::process::Signal {
        use rustix::process::Signal as System;
        match self {
            Signal::Term => System::TERM,
            Signal::Int => System::INT,
            Signal::Hup => System::HUP,
            Signal::Kill => System::KILL,
            Signal::Stop => System::STOP,
            Signal::Cont => System::CONT,
            Signal::Quit => System::QUIT,
            Signal::Abrt => System::ABORT,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no signal of a lab.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no signal here: TERM, INT, HUP, KILL, STOP, CONT, QUIT or ABRT")]
pub struct SignalError {
    text: String,
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Signal, SignalError> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        let found = Signal::ALL.into_iter().find(|it| it.as_str() == name);
        found.ok_or_else(|| SignalError {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_read_with_and_without_its_prefix() {
        for signal in Signal::ALL {
            assert_eq!(signal.as_str().parse(), Ok(signal));
            assert_eq!(format!("SIG{signal}").parse(), Ok(signal));
            assert!(
                SignalError {
                    text: String::new()
                }
                .to_string()
                .contains(signal.as_str())
            );
        }
        let error = "USR1".parse::<Signal>().expect_err("none of ours");
        assert!(error.to_string().starts_with("`USR1` is no signal here"));
    }
}
