//! What the prose promises: every module is on the map, every path exists, lines are sentences.
//!
//! Says nothing about whether the prose is true or good; a person does.
//! Read [`modules_are_named`] first.

use std::collections::BTreeSet;

use crate::source;
use crate::tree::{File, Finding};

const MAP: &str = "ARCHITECTURE.md";

/// The crates' sources, with what a heading of the map calls them.
const CRATES: [(&str, &str); 3] = [
    ("actors/src/", "actors/"),
    ("protocol/src/", "protocol/"),
    ("src/", "src/"),
];

/// Documents that say what is true now. The changelog may speak of what is gone.
const CURRENT: [&str; 4] = [MAP, "README.md", "protocol/SPEC.md", "actors/STORE.md"];

/// A path in a document that begins like this is one of ours.
const OURS: [&str; 7] = [
    "src/",
    "actors/",
    "protocol/",
    "tests/",
    "benches/",
    "scripts/",
    ".config/",
];

/// What may stand before a full stop inside a sentence.
const ABBREVIATIONS: [&str; 6] = ["e.g.", "i.e.", "etc.", "vs.", "cf.", "approx."];

/// ARCHITECTURE.md names every top-level module of every crate: by its path from the top
/// (`actors/src/store/`), or by its name below a heading that names the crate's folder.
pub(crate) fn modules_are_named(files: &[File]) -> Vec<Finding> {
    let Some(map) = files.iter().find(|file| file.path == MAP) else {
        return vec![Finding::new(MAP, 0, "there is no such file")];
    };
    let mut findings = Vec::new();
    for (sources, folder) in CRATES {
        let section = section_of(&map.text, folder);
        for module in modules(files, sources) {
            let path = format!("{sources}{module}");
            if !has_token(&map.text, &path) && !has_token(&section, &module) {
                findings.push(Finding::new(MAP, 0, format!("`{path}` is not named")));
            }
        }
    }
    findings
}

/// `seal.rs`, `store/`: what lies directly in a crate's source folder, without its roots.
fn modules(files: &[File], sources: &str) -> BTreeSet<String> {
    files
        .iter()
        .filter_map(|file| file.path.strip_prefix(sources))
        .map(|path| match path.split_once('/') {
            Some((folder, _)) => format!("{folder}/"),
            None => path.to_owned(),
        })
        .filter(|name| name != "lib.rs" && name != "main.rs")
        .filter(|name| name.ends_with(".rs") || name.ends_with('/'))
        .collect()
}

/// The lines below headings that name the folder, up to the next heading that is not deeper.
fn section_of(text: &str, folder: &str) -> String {
    let mut section = String::new();
    let mut inside_level = None;
    let mut in_fence = false;
    for line in text.lines() {
        in_fence ^= line.trim_start().starts_with("```");
        let level = line.bytes().take_while(|&byte| byte == b'#').count();
        if level > 0 && !in_fence {
            if inside_level.is_some_and(|inside| level <= inside) {
                inside_level = None;
            }
            if inside_level.is_none() && has_token(line, folder) {
                inside_level = Some(level);
            }
        } else if inside_level.is_some() {
            section.push_str(line);
            section.push('\n');
        }
    }
    section
}

/// Whether `token` occurs with nothing glued to either side: `src/` is not in `actors/src/`.
fn has_token(text: &str, token: &str) -> bool {
    let glued = |c: char| source::is_word_char(c) || c == '/' || c == '-';
    text.match_indices(token).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let behind = text[at + token.len()..].chars().next();
        let open_end = token.ends_with('/');
        !before.is_some_and(glued) && (open_end || !behind.is_some_and(glued))
    })
}

/// A path between backticks that begins like ours lies in the tree.
pub(crate) fn paths_exist(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files
        .iter()
        .filter(|file| CURRENT.contains(&file.path.as_str()))
    {
        // A document inside a crate may speak from where it lies.
        let home = file
            .path
            .rsplit_once('/')
            .map_or(String::new(), |(home, _)| format!("{home}/"));
        for (line, text) in prose_lines(&file.text) {
            // Every second part lies between backticks.
            for path in text.split('`').skip(1).step_by(2) {
                let is_ours = OURS.iter().any(|folder| path.starts_with(folder));
                let is_plain = !path.contains([' ', '*', '<', '{', '$', ':']);
                let beside = format!("{home}{path}");
                let exists = lies_in(files, path) || lies_in(files, &beside);
                if is_ours && is_plain && !exists {
                    findings.push(Finding::new(
                        &file.path,
                        line,
                        format!("`{path}` does not exist"),
                    ));
                }
            }
        }
    }
    findings
}

/// Whether a path names a file or a folder.
fn lies_in(files: &[File], path: &str) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    files
        .iter()
        .any(|file| file.path == path || file.path.starts_with(&folder))
}

/// The heading of the table of faults.
const FAULTS: &str = "Faults of others";

/// Each fault of others in ARCHITECTURE.md names tests that would fail if it came back to us, and
/// each of them is there.
pub(crate) fn fault_tests_exist(files: &[File]) -> Vec<Finding> {
    let Some(map) = files.iter().find(|file| file.path == MAP) else {
        return vec![Finding::new(MAP, 0, "there is no such file")];
    };
    let tests: BTreeSet<&str> = files
        .iter()
        .filter(|file| file.has_extension("rs"))
        .flat_map(|file| test_names(&file.text))
        .collect();
    let mut findings = Vec::new();
    let mut rows = 0;
    let mut is_inside = false;
    for (line, text) in prose_lines(&map.text) {
        if let Some(title) = text.strip_prefix("## ") {
            is_inside = title == FAULTS;
        }
        let is_row = text.starts_with("| ") && !text.starts_with("| ---");
        if !is_inside || !is_row {
            continue;
        }
        rows += 1;
        if rows == 1 {
            // The titles of the columns.
            continue;
        }
        let last = text.trim_end().trim_end_matches('|').rsplit('|').next();
        let names: Vec<&str> = last
            .unwrap_or_default()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        if names.is_empty() {
            findings.push(Finding::new(MAP, line, "this fault names no test"));
        }
        for name in names.into_iter().filter(|name| !tests.contains(name)) {
            findings.push(Finding::new(
                MAP,
                line,
                format!("there is no test `{name}`"),
            ));
        }
    }
    if rows < 2 {
        findings.push(Finding::new(MAP, 0, "there is no table of faults"));
    }
    findings
}

/// The names of functions behind a test's attribute, with other attributes between them if need be.
fn test_names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        let signature = line.strip_prefix("async ").unwrap_or(line);
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(signature) = signature.strip_prefix("fn ")
            && std::mem::take(&mut is_test)
        {
            names.extend(signature.split('(').next());
        }
    }
    names
}

/// Paragraphs of Markdown have a line per sentence, so that a change of one shows as one.
///
/// Only plain paragraphs are judged: lists, tables, quotes and drawings have their own shapes.
pub(crate) fn one_sentence_per_line(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("md")) {
        let lines: Vec<(usize, &str)> = prose_lines(&file.text).collect();
        for (index, (number, line)) in lines
            .iter()
            .enumerate()
            .filter(|(_, (_, line))| is_paragraph(line))
        {
            if has_second_sentence(line) {
                findings.push(Finding::new(
                    &file.path,
                    *number,
                    "a second sentence begins on this line",
                ));
            }
            let next = lines
                .get(index + 1)
                .filter(|(next, line)| *next == number + 1 && is_paragraph(line));
            if next.is_some() && !ends_sentence(line) {
                findings.push(Finding::new(
                    &file.path,
                    *number,
                    "the sentence runs over the end of this line",
                ));
            }
        }
    }
    findings
}

/// Numbered lines outside code blocks.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_fence = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_fence ^= is_fence;
        (!in_fence && !is_fence).then_some((index + 1, line))
    })
}

/// A line that begins with a word, an emphasis, inline code or a link in running text.
fn is_paragraph(line: &str) -> bool {
    let is_numbered = line
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .starts_with(". ");
    let is_link_target = line.starts_with('[') && line.contains("]: ");
    let is_strong = line.starts_with("**") || line.starts_with("*") && !line.starts_with("* ");
    let begins =
        line.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '`' | '[' | '(' | '_' | '"'));
    (begins || is_strong) && !is_numbered && !is_link_target
}

/// A full stop behind a whole word, a space, and a capital: code between backticks set aside.
fn has_second_sentence(line: &str) -> bool {
    let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
    plain
        .match_indices(". ")
        .chain(plain.match_indices("! "))
        .chain(plain.match_indices("? "))
        .any(|(at, _)| {
            let word = plain[..=at].rsplit([' ', '(']).next().unwrap_or_default();
            let is_abbreviation = ABBREVIATIONS.contains(&word.to_lowercase().as_str());
            // `E. Coli`, `1. First`: an initial or a number does not end a sentence here.
            let is_word = word.chars().filter(|c| c.is_alphanumeric()).count() >= 2
                && !word
                    .trim_end_matches('.')
                    .chars()
                    .all(|c| c.is_ascii_digit());
            let goes_on = plain[at + 2..].starts_with(char::is_uppercase);
            is_word && !is_abbreviation && goes_on
        })
}

fn ends_sentence(line: &str) -> bool {
    let line = line
        .trim_end()
        .trim_end_matches([')', '*', '_', '"', '`', ']']);
    line.ends_with(['.', '!', '?', ':', ';'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_is_not_on_the_map_is_caught() {
        let files = |map: &str| {
            [
                "src/lib.rs",
                "src/cli/send.rs",
                "actors/src/store/view.rs",
                "protocol/src/seal.rs",
            ]
            .map(|path| File::new(path, ""))
            .into_iter()
            .chain([File::new(MAP, map)])
            .collect::<Vec<_>>()
        };
        let count = |map: &str| modules_are_named(&files(map)).len();
        assert_eq!(
            count("`src/cli/`, `actors/src/store/`, `protocol/src/seal.rs`"),
            0
        );
        assert_eq!(
            count(
                "## `src/`\n`cli/`\n## `actors/`\n`store/`\n## `protocol/`\n### Sealing\n`seal.rs`"
            ),
            0
        );
        assert_eq!(
            count("## `src/`\n`cli/`\n## `actors/`\n`store/`\n## `protocol/`\n`unseal.rs`"),
            1
        );
        assert_eq!(
            count("## `src/`\n`cli/`\n## `actors/`\n## Rest\n`store/`, `seal.rs`"),
            2,
            "below other headings"
        );
        assert_eq!(
            count("`actors/src/cli/`, `actors/src/store/`, `protocol/src/seal.rs`"),
            1,
            "of another crate"
        );
        assert_eq!(count(""), 3);
        assert_eq!(modules_are_named(&[]).len(), 1, "no map at all");
    }

    #[test]
    fn a_path_that_does_not_exist_is_caught() {
        let count = |text: &str| {
            paths_exist(&[File::new(MAP, text), File::new("src/cli/send.rs", "")]).len()
        };
        assert_eq!(count("see `src/cli/`, `src/cli`, `src/cli/send.rs`"), 0);
        assert_eq!(count("see `src/gone.rs` and `scripts/gone.sh`"), 2);
        assert_eq!(count("see `src/cli/*.rs`, `packhorse up`, src/gone.rs"), 0);
        assert_eq!(count("```\n`src/gone.rs`\n```"), 0);
        let within = |text: &str| {
            let files = [
                File::new("protocol/SPEC.md", text),
                File::new("protocol/src/seal.rs", ""),
            ];
            paths_exist(&files).len()
        };
        assert_eq!(within("see `src/seal.rs` and `protocol/src/seal.rs`"), 0);
        assert_eq!(within("see `src/gone.rs`"), 1);
    }

    #[test]
    fn a_fault_without_a_test_that_exists_is_caught() {
        let code =
            "#[test]\nfn sync() {}\n#[tokio::test(x)]\n#[cfg(y)]\nasync fn later() {}\nfn no() {}";
        let count = |rows: &str| {
            let head = "## Faults of others\n\n| fault | tests |\n| --- | --- |\n";
            let map = format!("{head}{rows}\n## Rest\n| a | `gone` |\n");
            fault_tests_exist(&[File::new(MAP, &map), File::new("tests/a.rs", code)]).len()
        };
        assert_eq!(count("| a `b` | `sync`, `later` |"), 0);
        assert_eq!(count("| a | `sync`, `gone` |"), 1);
        assert_eq!(count("| a | `no` |"), 1, "no test");
        assert_eq!(count("| a | sync |"), 1, "names none");
        assert_eq!(count(""), 1, "no table");
    }

    #[test]
    fn two_sentences_on_a_line_are_caught() {
        let count = |text: &str| one_sentence_per_line(&[File::new("README.md", text)]).len();
        assert_eq!(count("One thing. Another thing."), 1);
        assert_eq!(count("Is it? Yes."), 1);
        assert_eq!(count("One thing.\nAnother thing."), 0);
        assert_eq!(
            count("Version 1.2 of it, e.g. Linux, or J. Doe's `a. B` on port 1. It ends."),
            0
        );
        assert_eq!(
            count("- One. Two.\n| One. Two. |\n> One. Two.\n1. One. Two.\n# One. Two."),
            0
        );
        assert_eq!(count("```\nOne. Two.\n```"), 0);
    }

    #[test]
    fn a_sentence_over_two_lines_is_caught() {
        let count = |text: &str| one_sentence_per_line(&[File::new("README.md", text)]).len();
        assert_eq!(count("One thing that\ngoes on."), 1);
        assert_eq!(
            count("One thing (really).\n**Another.**\n`code` too:\n- a list\n\nA title\n\n"),
            0
        );
    }
}
