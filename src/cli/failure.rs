//! How a command fails: a code, a sentence, and a hint.
//!
//! Every error of the library becomes one here, with the code that the error itself names.
//! A reader that left early is no failure worth a word: `packhorse inbox list | head` just ends.

use std::io::{self, Write};

use packhorse::api::{BindError, ClientError, SocketPathError};
use packhorse::identity::IdentityError;
use packhorse::settings::SettingsError;
use packhorse::{Exit, StartError};

use crate::cli::display::printable;
use crate::telemetry::LogError;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    text: Option<String>,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Failure {
        Failure {
            exit,
            text: Some(text.into()),
            hint: None,
        }
    }

    /// The command line is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, text)
    }

    /// The same with what a person may do next.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The sentence, for commands that show it among other things.
    pub(crate) fn text(&self) -> &str {
        self.text
            .as_deref()
            .unwrap_or("the reader of the output went away")
    }

    /// Tells it to the person.
    pub(crate) fn show(&self) {
        let mut stderr = io::stderr().lock();
        if let Some(text) = &self.text {
            let _ = writeln!(stderr, "error: {}", printable(text));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(stderr, "hint: {}", printable(hint));
        }
    }
}

impl From<io::Error> for Failure {
    /// An error of writing to stdout.
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure {
                exit: Exit::Done,
                text: None,
                hint: None,
            };
        }
        Failure::new(Exit::Failure, format!("cannot write the output: {error}"))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let failure = Failure::new(error.exit(), error.to_string());
        match error {
            ClientError::Answer(answer) => Failure {
                hint: answer.hint,
                ..failure
            },
            _ => failure,
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<SocketPathError> for Failure {
    fn from(error: SocketPathError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Failure {
        let is_locked = matches!(error, IdentityError::Locked { .. });
        let failure = Failure::new(error.exit(), error.to_string());
        if is_locked {
            failure.with_hint(
                "give it on a terminal, with --passphrase-file FILE, as `passphrase_file` in settings.toml, or as the credential packhorse-passphrase",
            )
        } else {
            failure
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        match error {
            StartError::Identity(error) => Failure::from(error),
            error => Failure::new(error.exit(), error.to_string()),
        }
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Failure {
        Failure::new(Exit::Failure, error.to_string())
    }
}
