//! Names of nodes in steps: `left`, `spoke*`, `any spoke*`, or a list.

use super::fields::{Fields, Found, Nodes, listed, shown};
use super::kind::Kind;
use super::place::nearest;
use crate::lab::error::NODES_MAX;

impl Fields<'_, '_> {
    /// Exactly one node, or one that the seed chooses.
    pub(crate) fn node(&self, name: &str) -> Option<Nodes> {
        let nodes = self.nodes(name)?;
        if nodes.names.len() > 1 && !nodes.is_any {
            let at = self.at(name);
            let text = format!(
                "`{name}` must be one node, but this fits {}: {}; `any ` in front lets the seed choose",
                nodes.names.len(),
                listed(nodes.names.iter().map(String::as_str))
            );
            self.reader.report(at, text);
            return None;
        }
        Some(nodes)
    }

    pub(crate) fn nodes(&self, name: &str) -> Option<Nodes> {
        let found = self.found(name)?;
        self.nodes_of(name, found, Kind::Nodes)
    }

    /// The sides of a partition: one set of nodes, or several sets.
    pub(crate) fn sides(&self, name: &str) -> Option<Vec<Nodes>> {
        let found = self.found(name)?;
        let sides = found
            .get_ref()
            .as_array()
            .filter(|items| items.iter().any(|item| item.get_ref().as_array().is_some()));
        match sides {
            None => Some(vec![self.nodes_of(name, found, Kind::Sides)?]),
            Some(items) if items.len() > NODES_MAX => {
                let text = format!(
                    "`{name}` has {} sides, the limit is {NODES_MAX}",
                    items.len()
                );
                self.reader.report(found.span().start, text);
                None
            }
            Some(items) => items
                .iter()
                .map(|item| self.nodes_of(name, item, Kind::Sides))
                .collect(),
        }
    }

    fn nodes_of(&self, name: &str, found: &Found<'_>, kind: Kind) -> Option<Nodes> {
        if let Some(text) = found.get_ref().as_str() {
            return self.pattern(text, found);
        }
        let Some(items) = found.get_ref().as_array().filter(|items| !items.is_empty()) else {
            self.wrong(name, found, kind);
            return None;
        };
        if items.len() > NODES_MAX {
            let text = format!(
                "`{name}` names {} nodes, the limit is {NODES_MAX}",
                items.len()
            );
            self.reader.report(found.span().start, text);
            return None;
        }
        let mut names: Vec<String> = Vec::new();
        for item in items {
            let Some(text) = item.get_ref().as_str().filter(|text| !is_any(text)) else {
                self.wrong(name, item, Kind::Nodes);
                return None;
            };
            for fitting in self.pattern(text, item)?.names {
                if !names.contains(&fitting) {
                    names.push(fitting);
                }
            }
        }
        Some(Nodes {
            names,
            is_any: false,
        })
    }

    fn pattern(&self, text: &str, found: &Found<'_>) -> Option<Nodes> {
        let pattern = text.strip_prefix(ANY).unwrap_or(text).trim();
        let known = self.reader.nodes.borrow();
        let names: Vec<String> = known
            .iter()
            .filter(|name| fits(pattern, name))
            .cloned()
            .collect();
        if names.is_empty() {
            let known = known.iter().map(String::as_str);
            let text = match nearest(pattern, known.clone()) {
                Some(meant) => {
                    format!(
                        "no node is called `{}`; did you mean `{meant}`?",
                        shown(pattern)
                    )
                }
                None => format!(
                    "no node is called `{}`; the nodes are {}",
                    shown(pattern),
                    listed(known)
                ),
            };
            self.reader.report(found.span().start, text);
            return None;
        }
        Some(Nodes {
            names,
            is_any: is_any(text),
        })
    }
}

/// In front of a pattern: one of those that fit, by the seed.
const ANY: &str = "any ";

fn is_any(text: &str) -> bool {
    text.starts_with(ANY)
}

/// Whether a name fits a pattern, in which `*` stands for anything. It takes time by the product of
/// the two lengths, whatever the pattern.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Behind the last star, and how much of the name it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while seen < name.len() {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                at += 1;
                star = Some((at, seen));
            }
            (Some(letter), _) if name.get(seen) == Some(letter) => {
                at += 1;
                seen += 1;
            }
            (_, Some((behind, covered))) => {
                // One letter more for the last star; those before it need no other choice.
                at = behind;
                seen = covered + 1;
                star = Some((behind, seen));
            }
            (_, None) => return false,
        }
    }
    let rest = pattern.get(at..).unwrap_or_default();
    rest.iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("left", "left", true),
            ("left", "lefty", false),
            ("*", "left", true),
            ("spoke*", "spoke12", true),
            ("spoke*", "hub", false),
            ("*ke*", "spoke1", true),
            ("", "left", false),
            ("*", "", true),
            ("l*t", "left", true),
            ("l*f", "left", false),
            ("*e*e*", "left", false),
            ("**t", "left", true),
            ("left*", "left", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        // With a choice for each star it would go on for years.
        assert!(!fits(&"*a".repeat(30), &format!("{}b", "a".repeat(31))));
    }
}
