//! The repository as a list of files, and what its top level may hold.
//!
//! Never looks into build output, git's folder, or what `.gitignore` names at the top level.
//! Read [`File`] and [`Finding`], then [`read`].

use std::fmt;
use std::fs;
use std::path::Path;

/// One file, as the rules see it.
#[derive(Debug)]
pub(crate) struct File {
    /// From the top of the repository, with `/`.
    pub(crate) path: String,
    /// Empty for what is not text.
    pub(crate) text: String,
}

impl File {
    /// A file out of thin air, for rules that are shown to catch something.
    pub(crate) fn new(path: &str, text: &str) -> File {
        File {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Whether the path ends in `.{extension}`.
    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|found| found == extension)
    }
}

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    text: String,
}

impl Finding {
    /// `line` counts from 1; 0 stands for the file as a whole.
    pub(crate) fn new(path: &str, line: usize, text: impl Into<String>) -> Finding {
        Finding {
            path: path.to_owned(),
            line,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.path, self.text),
            line => write!(formatter, "{}:{line}: {}", self.path, self.text),
        }
    }
}

/// Hidden entries of the top level that are ours; other hidden ones are an editor's or git's.
const HIDDEN: [&str; 3] = [".ci", ".config", ".gitignore"];

/// The folders, the documents, and the usual companions: the design draws the line here.
const TOP_LEVEL: [&str; 15] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "actors",
    "benches",
    "clippy.toml",
    "deny.toml",
    "protocol",
    "scripts",
    "src",
    "tests",
];

/// Reads every file below `root`, in the order of their paths.
pub(crate) fn read(root: &Path) -> Vec<File> {
    let ignored = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let ignored: Vec<&str> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('/'))
        .collect();
    let mut files = Vec::new();
    for name in names_in(root) {
        let hidden = name.starts_with('.') && !HIDDEN.contains(&name.as_str());
        if !hidden && !ignored.contains(&name.as_str()) {
            read_entry(root, &name, &mut files);
        }
    }
    files
}

fn read_entry(root: &Path, path: &str, files: &mut Vec<File>) {
    let entry = root.join(path);
    if entry.is_dir() {
        for name in names_in(&entry) {
            read_entry(root, &format!("{path}/{name}"), files);
        }
    } else {
        let bytes = fs::read(&entry).unwrap_or_else(|error| panic!("{path}: {error}"));
        files.push(File {
            path: path.to_owned(),
            text: String::from_utf8(bytes).unwrap_or_default(),
        });
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("a folder of the repository can be listed")
                .file_name()
        })
        .map(|name| {
            name.into_string()
                .expect("names in the repository are Unicode")
        })
        .collect();
    names.sort();
    names
}

/// Nothing lies at the top level that DESIGN does not name.
pub(crate) fn top_level(files: &[File]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for file in files {
        let entry = file.path.split('/').next().unwrap_or_default();
        if !TOP_LEVEL.contains(&entry) && !HIDDEN.contains(&entry) {
            findings.push(Finding::new(
                &file.path,
                0,
                format!("`{entry}` has no place at the top level"),
            ));
        }
    }
    findings
}

#[test]
fn a_stray_file_at_the_top_level_is_caught() {
    let files = [
        File::new("src/lib.rs", ""),
        File::new(".ci/run", ""),
        File::new("notes.txt", ""),
        File::new("utils/a.rs", ""),
    ];
    let found: Vec<String> = top_level(&files).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "notes.txt: `notes.txt` has no place at the top level",
            "utils/a.rs: `utils` has no place at the top level"
        ]
    );
}
