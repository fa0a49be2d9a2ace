//! Which data folder a command works on, and the client of the daemon there.
//!
//! The order: `--data-dir`, `PACKHORSE_DATA_DIR`, `$STATE_DIRECTORY` of systemd, the XDG state folder.
//! Choosing a folder never makes one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use packhorse::api::{Client, ClientError, SocketPath};

use crate::cli::display::shell_word;
use crate::cli::failure::Failure;

/// A data folder and how it was chosen.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// Whether every command finds it without being told.
    is_default: bool,
}

impl DataFolder {
    /// The folder that was named, or the default one.
    pub(crate) fn choose(named: Option<PathBuf>) -> Result<DataFolder, Failure> {
        if let Some(path) = named.filter(|path| !path.as_os_str().is_empty()) {
            return Ok(DataFolder {
                path,
                is_default: false,
            });
        }
        let path = default_folder(|name| std::env::var_os(name)).ok_or_else(|| {
            Failure::usage("no data folder: neither HOME nor XDG_STATE_HOME is set")
                .with_hint("name one with --data-dir")
        })?;
        Ok(DataFolder {
            path,
            is_default: true,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn socket(&self) -> Result<SocketPath, Failure> {
        Ok(SocketPath::in_folder(&self.path)?)
    }

    /// A client of the daemon of this folder.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.socket()?))
    }

    /// A failure to reach the daemon, with the command that starts it.
    pub(crate) fn failure(&self, error: ClientError) -> Failure {
        let is_down = matches!(error, ClientError::NotRunning { .. });
        let failure = Failure::from(error);
        if is_down {
            failure.with_hint(self.command("up"))
        } else {
            failure
        }
    }

    /// A command line for this folder, to be shown and pasted.
    pub(crate) fn command(&self, words: &str) -> String {
        if self.is_default {
            return format!("packhorse {words}");
        }
        format!(
            "packhorse --data-dir {} {words}",
            shell_word(&self.path.to_string_lossy())
        )
    }
}

fn default_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| {
        // The XDG rules say that a relative path is to be ignored.
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    // systemd names several folders with colons between them; the first one is ours.
    let state_directory = variable("STATE_DIRECTORY").and_then(|value| {
        std::env::split_paths(&value)
            .next()
            .filter(|path| path.is_absolute())
    });
    state_directory
        .or_else(|| absolute("XDG_STATE_HOME").map(|home| home.join("packhorse")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state/packhorse")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variables: &[(&str, &str)], expected: Option<&str>) {
        let found = default_folder(|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        });
        assert_eq!(found, expected.map(PathBuf::from), "{variables:?}");
    }

    #[test]
    fn the_default_folder_follows_systemd_then_xdg_then_home() {
        let home = ("HOME", "/home/a");
        check(&[], None);
        check(&[home], Some("/home/a/.local/state/packhorse"));
        check(&[home, ("XDG_STATE_HOME", "/s")], Some("/s/packhorse"));
        check(
            &[home, ("XDG_STATE_HOME", "relative")],
            Some("/home/a/.local/state/packhorse"),
        );
        check(
            &[home, ("STATE_DIRECTORY", "/var/lib/packhorse:/x")],
            Some("/var/lib/packhorse"),
        );
    }

    #[test]
    fn commands_name_the_folder_unless_it_is_the_default() {
        let named = DataFolder {
            path: "/tmp/a b".into(),
            is_default: false,
        };
        assert_eq!(named.command("up"), "packhorse --data-dir '/tmp/a b' up");
        let default = DataFolder {
            path: "/x".into(),
            is_default: true,
        };
        assert_eq!(default.command("up"), "packhorse up");
    }
}
