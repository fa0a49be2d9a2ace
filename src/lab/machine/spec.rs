//! What a node of a lab is, before it runs.

use std::path::PathBuf;

use crate::settings::NodeName;

/// What a node is, before it runs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Nobody can dial it: it has to dial the others.
    pub is_silent: bool,
    /// Further words for `up`.
    pub arguments: Vec<String>,
    /// Words of a command that becomes the program, such as `ip netns exec NAME`; for its process
    /// alone, not for its commands.
    pub under: Vec<String>,
    /// Variables in the environment of its process and of its commands.
    pub variables: Vec<(String, String)>,
    /// The text of its `settings.toml`.
    pub settings: Option<String>,
    /// The size of a disk of its own in bytes; see [`Disk`](crate::lab::Disk).
    pub disk_bytes: Option<u64>,
    /// Its program, where that is another one than the lab's.
    pub program: Option<PathBuf>,
}

impl NodeSpec {
    /// A node that listens and is otherwise as it comes.
    #[must_use]
    pub fn new(name: impl Into<String>) -> NodeSpec {
        NodeSpec {
            name: name.into(),
            ..NodeSpec::default()
        }
    }

    /// Whether a folder and two files can be called like it.
    pub(super) fn check_name(&self) -> Result<(), String> {
        self.name
            .parse::<NodeName>()
            .map_err(|error| error.to_string())?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        match self.name.chars().all(fits) {
            true => Ok(()),
            false => Err("in a lab it has letters, digits, `-` and `_`".to_owned()),
        }
    }

    /// The same, and nobody can dial it.
    #[must_use]
    pub fn silent(mut self) -> NodeSpec {
        self.is_silent = true;
        self
    }

    /// The same with another word for `up`.
    #[must_use]
    pub fn argument(mut self, word: impl Into<String>) -> NodeSpec {
        self.arguments.push(word.into());
        self
    }

    /// The same with its process started by a command that becomes the program (`exec`), such as
    /// `ip netns exec NAME`; one that waits for it instead would take the signals that are meant for
    /// it. Its commands are run as ever.
    #[must_use]
    pub fn under(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> NodeSpec {
        self.under = words.into_iter().map(Into::into).collect();
        self
    }

    /// The same with a variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> NodeSpec {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The same with these settings.
    #[must_use]
    pub fn settings(mut self, toml: impl Into<String>) -> NodeSpec {
        self.settings = Some(toml.into());
        self
    }

    /// The same with a disk of so many bytes.
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> NodeSpec {
        self.disk_bytes = Some(bytes);
        self
    }

    /// The same with another program.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> NodeSpec {
        self.program = Some(path.into());
        self
    }
}

impl From<&str> for NodeSpec {
    fn from(name: &str) -> NodeSpec {
        NodeSpec::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        for name in ["a", "spoke-1", "B_2"] {
            assert_eq!(NodeSpec::new(name).check_name(), Ok(()));
        }
        for name in ["", "a b", "..", "a/b", "a.log", "ä"] {
            assert!(NodeSpec::new(name).check_name().is_err(), "{name}");
        }
    }
}
