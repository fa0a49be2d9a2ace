//! The settings file: `settings.toml` in the data folder, every key optional.
//!
//! It is read once at start; nothing writes it, and a flag on the command line beats it.
//! What is not understood is refused with file, line and column rather than skipped:
//! a misspelt key must not silently leave a node with a default.

mod advertised;

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use packhorse_protocol::limits::{ADDRESSES_MAX, NAME_BYTES_MAX};
use packhorse_protocol::message::DeliveryClass;
use packhorse_protocol::text::check_name;
use serde::de::{Deserialize, Deserializer, Error as _};

use crate::class;
use crate::rules::{ClassRules, RULES_MAX, TopicRule};
use crate::storage::QuotaSettings;

pub use self::advertised::{Advertised, AdvertisedError};

/// The file's name in the data folder.
pub const SETTINGS_FILE: &str = "settings.toml";

/// Largest settings file that is read: every key at its longest fits many times.
pub const SETTINGS_BYTES_MAX: usize = 64 << 10;

/// Most addresses a node listens on.
pub const LISTEN_MAX: usize = 8;

/// What the settings file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Settings {
    /// The name that the node announces.
    #[serde(deserialize_with = "some_parsed::<NodeName, _>")]
    pub name: Option<NodeName>,
    /// Where it listens; nowhere unless told to.
    #[serde(deserialize_with = "listen")]
    pub listen: Vec<SocketAddr>,
    /// What others should dial.
    #[serde(deserialize_with = "advertise")]
    pub advertise: Vec<Advertised>,
    /// The class of messages whose sender names none.
    #[serde(deserialize_with = "class::option::deserialize")]
    pub default_class: Option<DeliveryClass>,
    /// The classes of topics; the first rule that fits decides.
    #[serde(deserialize_with = "topics")]
    pub topics: Vec<TopicRule>,
    /// Whether nodes without a ticket may ask to be paired.
    pub requests: bool,
    /// The file with the passphrase that unseals the identity.
    pub passphrase_file: Option<PathBuf>,
    /// What the boxes may hold.
    pub quota: QuotaSettings,
    /// What is logged, in the words of `RUST_LOG`, which beats it.
    pub log: Option<String>,
}

impl Settings {
    /// Reads the settings of a data folder; a missing file means no settings.
    pub fn load(data_dir: &Path) -> Result<Settings, SettingsError> {
        let path = data_dir.join(SETTINGS_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Settings::parse(&path, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(source) => Err(SettingsError::Unreadable { path, source }),
        }
    }

    /// What messages are, as far as these settings say.
    #[must_use]
    pub fn class_rules(&self) -> ClassRules {
        ClassRules {
            rules: self.topics.clone(),
            default: self.default_class.unwrap_or(DeliveryClass::Critical),
        }
    }

    /// Reads settings from the bytes of a file; the path only serves the errors.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Settings, SettingsError> {
        if bytes.len() > SETTINGS_BYTES_MAX {
            return Err(SettingsError::TooLarge {
                path: path.to_owned(),
                bytes: bytes.len(),
            });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let (line, column) = place(bytes, error.valid_up_to());
            let text = "the file is not UTF-8".to_owned();
            SettingsError::Malformed {
                path: path.to_owned(),
                line,
                column,
                text,
            }
        })?;
        toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span: Range<usize>| span.start);
            let (line, column) = place(bytes, start);
            // The parser may explain over several lines; a message is one.
            let text = error.message().lines().collect::<Vec<_>>().join(", ");
            SettingsError::Malformed {
                path: path.to_owned(),
                line,
                column,
                text,
            }
        })
    }
}

/// Why settings were not taken. All of these end a command with exit 2.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file is there but cannot be read: look at its mode and owner.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The settings file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Over [`SETTINGS_BYTES_MAX`].
    #[error("{} has {bytes} bytes, the limit is {SETTINGS_BYTES_MAX}", path.display())]
    TooLarge {
        /// The settings file.
        path: PathBuf,
        /// Its size.
        bytes: usize,
    },
    /// An unknown key, a wrong type or a wrong value.
    #[error("{}:{line}:{column}: {text}", path.display())]
    Malformed {
        /// The settings file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong there.
        text: String,
    },
}

/// The name of a node: short, printable, without spaces at its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for NodeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a text cannot be a node's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeNameError {
    /// Nothing there.
    #[error("a node's name must not be empty")]
    Empty,
    /// Over the protocol's limit.
    #[error("the name has {bytes} bytes, the limit is {NAME_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Control characters or spaces, which would break tables and logs.
    #[error("the name {text:?} holds a space or control character")]
    Unprintable {
        /// What was given.
        text: String,
    },
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<NodeName, NodeNameError> {
        if text.is_empty() {
            return Err(NodeNameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NodeNameError::TooLong { bytes: text.len() });
        }
        // A name that no handshake may carry would keep the node from every other one.
        if text.chars().any(char::is_whitespace) || check_name(text).is_err() {
            return Err(NodeNameError::Unprintable {
                text: text.to_owned(),
            });
        }
        Ok(NodeName(text.to_owned()))
    }
}

/// Reads an address to listen on; the error shows how one looks.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address to listen on: write 0.0.0.0:7433 or [::]:7433")
    })
}

fn some_parsed<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr,
    T::Err: Display,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?
        .parse()
        .map(Some)
        .map_err(D::Error::custom)
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    check_count::<D>("listen", texts.len(), LISTEN_MAX, "addresses")?;
    texts
        .iter()
        .map(|text| parse_listen(text).map_err(D::Error::custom))
        .collect()
}

fn advertise<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Advertised>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    check_count::<D>("advertise", texts.len(), ADDRESSES_MAX, "addresses")?;
    texts
        .iter()
        .map(|text| text.parse().map_err(D::Error::custom))
        .collect()
}

fn topics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TopicRule>, D::Error> {
    let rules = Vec::<TopicRule>::deserialize(deserializer)?;
    check_count::<D>("topics", rules.len(), RULES_MAX, "rules")?;
    Ok(rules)
}

fn check_count<'de, D: Deserializer<'de>>(
    key: &str,
    count: usize,
    count_max: usize,
    what: &str,
) -> Result<(), D::Error> {
    if count > count_max {
        return Err(D::Error::custom(format!(
            "`{key}` names {count} {what}, the limit is {count_max}"
        )));
    }
    Ok(())
}

/// Line and column, from 1, of a byte offset.
fn place(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = bytes.get(..offset).unwrap_or(bytes);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let line_start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let in_line = before.get(line_start..).unwrap_or_default();
    (line, String::from_utf8_lossy(in_line).chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Settings, &str>) {
        let found = Settings::parse(Path::new("d/settings.toml"), text.as_bytes())
            .map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(ToOwned::to_owned), "{text}");
    }

    #[test]
    fn an_empty_file_means_no_settings() {
        check("", Ok(Settings::default()));
        check("# nothing yet\n", Ok(Settings::default()));
    }

    #[test]
    fn every_key_is_read() {
        check(
            r#"
name = "left"
listen = ["127.0.0.1:7433", "[::]:7433"]
advertise = ["left.example:7433", "[::1]:7433"]
default_class = "moderate"
log = "packhorse=debug"
requests = true

[[topics]]
pattern = "metrics/*"
class = "ephemeral"
overridable = true

[[topics]]
pattern = "bills"
peer = "mill"
class = "moderate"

[quota]
outbox = "1GiB"
"#,
            Ok(Settings {
                quota: QuotaSettings {
                    outbox: Some(crate::Size(1 << 30)),
                    ..QuotaSettings::default()
                },
                name: Some(NodeName("left".into())),
                listen: vec![
                    "127.0.0.1:7433".parse().expect("an address"),
                    "[::]:7433".parse().expect("an address"),
                ],
                advertise: vec![
                    "left.example:7433".parse().expect("an address"),
                    "[::1]:7433".parse().expect("an address"),
                ],
                default_class: Some(DeliveryClass::Moderate),
                passphrase_file: None,
                log: Some("packhorse=debug".into()),
                requests: true,
                topics: vec![
                    TopicRule {
                        overridable: true,
                        ..TopicRule::new("metrics/*", DeliveryClass::Ephemeral).expect("a pattern")
                    },
                    TopicRule {
                        peer: Some("mill".into()),
                        ..TopicRule::new("bills", DeliveryClass::Moderate).expect("a pattern")
                    },
                ],
            }),
        );
    }

    #[test]
    fn an_unknown_key_is_refused_where_it_stands() {
        check(
            "name = \"left\"\nlisen = []\n",
            Err(
                "d/settings.toml:2:1: unknown field `lisen`, expected one of `name`, `listen`, `advertise`, `default_class`, `topics`, `requests`, `passphrase_file`, `quota`, `log`",
            ),
        );
        check(
            "[names]\nleft = 1\n",
            Err(
                "d/settings.toml:1:2: unknown field `names`, expected one of `name`, `listen`, `advertise`, `default_class`, `topics`, `requests`, `passphrase_file`, `quota`, `log`",
            ),
        );
    }

    #[test]
    fn a_wrong_type_or_value_is_refused_where_it_stands() {
        check(
            "listen = \"127.0.0.1:7433\"\n",
            Err(
                "d/settings.toml:1:10: invalid type: string \"127.0.0.1:7433\", expected a sequence",
            ),
        );
        check(
            "name = \"a\"\ndefault_class = \"urgent\"\n",
            Err(
                "d/settings.toml:2:17: no delivery class `urgent`: critical, moderate or ephemeral",
            ),
        );
        check(
            "listen = [\"here\"]\n",
            Err(
                "d/settings.toml:1:10: `here` is no address to listen on: write 0.0.0.0:7433 or [::]:7433",
            ),
        );
        check(
            "[quota]\ninbox = \"1GB\"\n",
            Err("d/settings.toml:2:9: `1GB` is no size: write 512MiB, 16GiB or 1TiB"),
        );
        check(
            "[quota]\ndead = \"1MiB\"\n",
            Err("d/settings.toml:2:8: a quota of 1 MiB is too small: the least is 16 MiB"),
        );
        check(
            "name = \"\"\n",
            Err("d/settings.toml:1:8: a node's name must not be empty"),
        );
        check(
            "[[topics]]\npattern = \"\"\nclass = \"critical\"\n",
            Err("d/settings.toml:2:11: the rule's pattern is empty: `*` is all"),
        );
        check(
            "[[topics]]\npattern = \"a\"\nclass = \"soon\"\n",
            Err("d/settings.toml:3:9: no delivery class `soon`: critical, moderate or ephemeral"),
        );
        check(
            "[[topics]]\npattern = \"a\"\n",
            Err("d/settings.toml:1:1: missing field `class`"),
        );
    }

    #[test]
    fn a_name_at_the_limit_is_taken_and_one_over_it_is_not() {
        assert!("n".repeat(NAME_BYTES_MAX).parse::<NodeName>().is_ok());
        assert_eq!(
            "n".repeat(NAME_BYTES_MAX + 1).parse::<NodeName>(),
            Err(NodeNameError::TooLong {
                bytes: NAME_BYTES_MAX + 1
            })
        );
        assert!("two words".parse::<NodeName>().is_err());
        assert!("bell\u{7}".parse::<NodeName>().is_err());
    }

    #[test]
    fn a_file_over_the_limit_and_one_that_is_no_text_are_refused() {
        let path = Path::new("d/settings.toml");
        let large = vec![b'#'; SETTINGS_BYTES_MAX + 1];
        assert!(matches!(
            Settings::parse(path, &large),
            Err(SettingsError::TooLarge { .. })
        ));
        let error = Settings::parse(path, b"\n\nx\xff").expect_err("not UTF-8");
        assert_eq!(
            error.to_string(),
            "d/settings.toml:3:2: the file is not UTF-8"
        );
    }
}
