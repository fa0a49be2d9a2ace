//! The machines of a scenario.

use std::path::Path;

use super::fields::{Fields, Found, Reader, describe, shown};
use crate::lab::error::NODES_MAX;
use crate::lab::step::docs::{NODE_FIELDS, NODES_LIMIT};
use crate::settings::{NodeName, Settings, SettingsError};
use crate::storage::Size;

/// The smallest disk: two journals and a reserve have room on it.
const DISK_BYTES_MIN: u64 = 64 << 20;
/// The largest: it is memory.
const DISK_BYTES_MAX: u64 = 4 << 30;

/// Longest name: the path of a socket has room for 107 bytes.
const NAME_BYTES_MAX: usize = 32;

/// One node as the scenario wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePlan {
    /// Its name; the same as its peers know it by.
    pub name: String,
    /// Whether others can dial it.
    pub listens: bool,
    /// The size of its own disk, when it has one.
    pub disk_bytes: Option<u64>,
    /// Its settings.toml.
    pub settings: Option<String>,
    /// Variables of its process.
    pub env: Vec<(String, String)>,
    /// Further words for `packhorse up`.
    pub args: Vec<String>,
    /// The exit code with which it may end at any time without being told to.
    pub may_end: Option<u8>,
}

impl NodePlan {
    fn plain(name: String) -> NodePlan {
        NodePlan {
            name,
            listens: true,
            disk_bytes: None,
            settings: None,
            env: Vec::new(),
            args: Vec::new(),
            may_end: None,
        }
    }
}

/// Reads `nodes`: a list of names and tables.
pub(super) fn read(reader: &Reader<'_>, found: &Found<'_>) -> Vec<NodePlan> {
    let start = found.span().start;
    let Some(items) = found.get_ref().as_array().filter(|items| !items.is_empty()) else {
        let text = format!(
            "`nodes` must be a list of names or tables, such as [\"left\", {{ name = \"spoke\", count = 3 }}], found {}",
            describe(found.get_ref())
        );
        reader.report(start, text);
        return Vec::new();
    };
    let mut nodes: Vec<NodePlan> = Vec::new();
    for item in items.iter() {
        if reader.is_full() {
            return nodes;
        }
        for node in read_one(reader, item) {
            if nodes.iter().any(|other| other.name == node.name) {
                let text = format!("two nodes are called `{}`", node.name);
                reader.report(item.span().start, text);
            } else {
                nodes.push(node);
            }
        }
        if nodes.len() > NODES_MAX {
            let count = nodes.len();
            let text = format!("with this {count} nodes, the limit is {NODES_MAX}");
            reader.report(item.span().start, text);
            return nodes;
        }
    }
    nodes
}

fn read_one(reader: &Reader<'_>, item: &Found<'_>) -> Vec<NodePlan> {
    let start = item.span().start;
    if let Some(name) = item.get_ref().as_str() {
        let name = check_name(reader, start, name);
        return name.into_iter().map(NodePlan::plain).collect();
    }
    let Some(table) = item.get_ref().as_table() else {
        let text = format!(
            "a node is a name or a table with a name, found {}",
            describe(item.get_ref())
        );
        reader.report(start, text);
        return Vec::new();
    };
    let fields = Fields::new(reader, table, start, "a node");
    if let Some((_, span)) = fields.keys().find(|(key, _)| *key == "steps") {
        // The one trap of the language: in TOML every key behind a header belongs to its table.
        let text = "a node takes no key `steps`: it stands below the node's header; write `steps` above it, or as [[steps]]";
        reader.report(span.start, text);
    }
    fields.check(NODE_FIELDS);
    let Some(name) = fields
        .text("name")
        .and_then(|name| check_name(reader, start, &name))
    else {
        return Vec::new();
    };
    let plan = NodePlan {
        listens: fields.flag("listen").unwrap_or(true),
        disk_bytes: disk(reader, fields),
        settings: settings(reader, fields),
        env: fields.variables("env").unwrap_or_default(),
        args: fields.texts("args").unwrap_or_default(),
        may_end: fields.exit("may_end"),
        ..NodePlan::plain(name)
    };
    match fields.count_up_to("count", NODES_LIMIT) {
        None => vec![plan],
        Some(count) => (1..=count)
            .map(|number| NodePlan {
                name: format!("{}{number}", plan.name),
                ..plan.clone()
            })
            .collect(),
    }
}

/// Names are also names of folders, parts of patterns, and words of `any NAME`.
fn check_name(reader: &Reader<'_>, start: usize, name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let text = match name.parse::<NodeName>() {
        Err(error) => error.to_string(),
        Ok(_) if !name.chars().all(is_plain) || name.starts_with('-') => format!(
            "`{}` cannot name a node of a scenario: letters, digits, - and _",
            shown(name)
        ),
        Ok(_) if name.len() > NAME_BYTES_MAX => format!(
            "the name `{}` has {} letters, the limit is {NAME_BYTES_MAX} here",
            shown(name),
            name.len()
        ),
        Ok(_) => return Some(name.to_owned()),
    };
    reader.report(start, text);
    None
}

fn disk(reader: &Reader<'_>, fields: Fields<'_, '_>) -> Option<u64> {
    let bytes = fields.size("disk")?;
    if !(DISK_BYTES_MIN..=DISK_BYTES_MAX).contains(&bytes) {
        let text = format!(
            "`disk` must be from {} to {}, found {}: it is held in memory",
            Size(DISK_BYTES_MIN),
            Size(DISK_BYTES_MAX),
            Size(bytes)
        );
        reader.report(fields.at("disk"), text);
        return None;
    }
    Some(bytes)
}

/// Settings are checked before any node is started with them, and their lines are told in this file.
fn settings(reader: &Reader<'_>, fields: Fields<'_, '_>) -> Option<String> {
    let text = fields.text("settings")?;
    let found = fields.found("settings")?;
    match Settings::parse(Path::new("settings.toml"), text.as_bytes()) {
        Ok(_) => Some(text),
        Err(SettingsError::Malformed {
            line,
            column,
            text: problem,
            ..
        }) => {
            let inside = reader.inner_offset(found, &text).map(|start| {
                let before: usize = text
                    .split_inclusive('\n')
                    .take(line - 1)
                    .map(str::len)
                    .sum();
                let in_line: usize = text
                    .split_inclusive('\n')
                    .nth(line - 1)
                    .unwrap_or_default()
                    .chars()
                    .take(column - 1)
                    .map(char::len_utf8)
                    .sum();
                start + before + in_line
            });
            reader.report(
                inside.unwrap_or(found.span().start),
                format!("`settings`: {problem}"),
            );
            None
        }
        Err(error) => {
            reader.report(found.span().start, format!("`settings`: {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::lab::Scenario;

    #[track_caller]
    fn refused(nodes: &str, expected: &str) {
        let text = format!("name = \"t\"\nnodes = {nodes}\nsteps = [{{ start = \"*\" }}]\n");
        let error = Scenario::parse("n.toml".as_ref(), text.as_bytes()).expect_err("wrong nodes");
        assert_eq!(error.to_string(), expected, "{nodes}");
    }

    #[test]
    fn wrong_nodes_are_refused_where_they_stand() {
        refused(
            "[\"left\", \"left\"]",
            "n.toml:2:18: two nodes are called `left`",
        );
        refused(
            "[\"a b\"]",
            "n.toml:2:10: the name \"a b\" holds a space or control character",
        );
        refused(
            "[\"../up\"]",
            "n.toml:2:10: `../up` cannot name a node of a scenario: letters, digits, - and _",
        );
        refused(
            "[\"a-name-of-more-than-thirty-two-letters\"]",
            "n.toml:2:10: the name `a-name-of-more-than-thirty-two-letters` has 38 letters, the limit is 32 here",
        );
        refused(
            "[7]",
            "n.toml:2:10: a node is a name or a table with a name, found the number 7",
        );
        refused(
            "[{ name = \"n\", disk = \"1MiB\" }]",
            "n.toml:2:31: `disk` must be from 64 MiB to 4 GiB, found 1 MiB: it is held in memory",
        );
        // The limit is that of the lab itself, so that what was checked also starts.
        refused(
            "[{ name = \"n\", count = 128 }, \"one\"]",
            "n.toml:2:39: with this 129 nodes, the limit is 128",
        );
    }

    #[test]
    fn settings_are_checked_with_their_lines_in_this_file() {
        refused(
            "[{ name = \"n\", settings = '''\nlog = \"info\"\ndefault_class = \"soon\"\n''' }]",
            "n.toml:4:17: `settings`: no delivery class `soon`: critical, moderate or ephemeral",
        );
    }
}
