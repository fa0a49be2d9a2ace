//! Where the daemon's log goes: to standard error, for people on a terminal, as JSON otherwise.
//!
//! `RUST_LOG` beats the settings, the settings beat the default.
//! Only the program installs this; the library only emits records.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// What is logged unless told otherwise.
const DEFAULT: &str = "info";

/// Installs the subscriber of this process.
pub(crate) fn install(log_setting: Option<&str>) -> Result<(), LogError> {
    let from_environment = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let (origin, directives) = match (&from_environment, log_setting) {
        (Some(text), _) => ("RUST_LOG", text.as_str()),
        (None, Some(text)) => ("the setting `log`", text),
        (None, None) => ("the default", DEFAULT),
    };
    let filter = EnvFilter::builder()
        .parse(directives)
        .map_err(|source| LogError::Directives {
            origin,
            directives: directives.to_owned(),
            source,
        })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = if std::io::stderr().is_terminal() {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder.with_ansi(colour).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    installed.map_err(|error| LogError::Installed(error.to_string()))
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The words for what is logged are not understood.
    #[error("{origin} is not understood: `{directives}`: {source}")]
    Directives {
        /// Where they came from.
        origin: &'static str,
        /// What they are.
        directives: String,
        /// Why not.
        source: ParseError,
    },
    /// Only a second call in one process can bring this about.
    #[error("the log cannot be installed: {0}")]
    Installed(String),
}
