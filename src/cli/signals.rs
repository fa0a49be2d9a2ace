//! Being told to stop, for commands that run until they are.
//!
//! Once installed, neither signal ends the process by itself: whoever installs this must listen.

use packhorse::Exit;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::Failure;

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn install() -> Result<Signals, Failure> {
        let install = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failure, format!("signals cannot be watched: {error}"))
            })
        };
        Ok(Signals {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    /// The next one, as the code with which a command ends that was meant to run until then:
    /// SIGTERM is how a service manager says that it is over, SIGINT is a person who had enough.
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.terminate.recv() => Exit::Done,
            _ = self.interrupt.recv() => Exit::Interrupted,
        }
    }
}
