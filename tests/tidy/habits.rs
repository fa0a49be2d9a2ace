//! What a single line can break, and how long a file may become.
//!
//! Clippy holds most of these as well; here they also bind the code behind a feature or another
//! target, which no build of the day compiles.
//!
//! Each rule is followed by the list of its exceptions, and each exception by its reason.

use crate::source::{self, words};
use crate::tree::{File, Finding};

/// Past this many lines a file usually holds a second noun.
const LINES_MAX: usize = 600;

/// Files that are longer, and why that reads better than two files.
const LONG_FILES: [(&str, &str); 3] = [
    (
        "actors/tests/store_messages.rs",
        "one list of behaviours that runs over both engines",
    ),
    (
        "protocol/src/outbox/tests.rs",
        "both ends of a lane, frame by frame in the order of a session",
    ),
    (
        "protocol/src/session/tests.rs",
        "one table: every state with every input",
    ),
];

/// Folders whose code is what a user runs.
const PRODUCT: [&str; 3] = ["src/", "actors/src/", "protocol/src/"];

/// Macros that end an actor because somebody did not finish.
const PANICS: [&str; 3] = ["panic", "todo", "unimplemented"];

/// Files that panic on purpose, and why. No build that is handed out may hold one: each is a module
/// that exists under the feature `fault` only.
const PANICS_ON_PURPOSE: [(&str, &str); 1] = [(
    "actors/src/fault.rs",
    "a test orders the panic of an actor or of the store's writer, and it has to be a real one",
)];

/// Homes of one machine. Written in two parts, so that this file does not break its own rule.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/", "work/"),
    concat!("/", "root/"),
    concat!("/", "farm/"),
];

/// Markers of work that was put off; an issue is the place for it.
const LEFTOVERS: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
];

/// Library code returns errors. `expect` with the reason why it cannot fail is an assertion, and fine.
pub(crate) fn no_unwrap_or_panic(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in rust(files) {
        let is_product = PRODUCT.iter().any(|folder| file.path.starts_with(folder));
        if !is_product || source::is_test_file(&file.path) {
            continue;
        }
        let product = source::product(&source::code(&file.text));
        for word in words(&product) {
            let is_unwrap = word.text == "unwrap"
                && word.before.trim_end().ends_with('.')
                && word.behind.starts_with("()");
            let is_on_purpose = word.text == "panic"
                && PANICS_ON_PURPOSE.iter().any(|(path, _)| *path == file.path);
            let is_panic =
                PANICS.contains(&word.text) && word.behind.starts_with('!') && !is_on_purpose;
            if is_unwrap || is_panic {
                let text = format!("`{}` in library code: return an error", word.text);
                findings.push(Finding::new(&file.path, word.line, text));
            }
        }
    }
    for (path, _) in PANICS_ON_PURPOSE {
        findings.extend(not_behind_the_feature(files, path));
    }
    findings
}

/// Whether the module of a file that panics on purpose could be in a build that is handed out.
fn not_behind_the_feature(files: &[File], path: &str) -> Option<Finding> {
    let (folder, name) = path.rsplit_once('/')?;
    let name = name.strip_suffix(".rs")?;
    let root = files
        .iter()
        .find(|file| file.path == format!("{folder}/lib.rs"))?;
    let behind = format!("#[cfg(feature = \"fault\")]\npub mod {name};");
    let module = format!("mod {name};");
    let is_only_behind =
        root.text.matches(&module).count() == 1 && root.text.contains(behind.as_str());
    (!is_only_behind).then(|| {
        let text = format!("`{path}` panics on purpose, so it must be behind `fault` alone");
        Finding::new(&root.path, 0, text)
    })
}

/// Nowhere, tests and benches included.
pub(crate) fn no_unsafe(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in rust(files) {
        for word in words(&source::code(&file.text)).filter(|word| word.text == "unsafe") {
            findings.push(Finding::new(
                &file.path,
                word.line,
                "`unsafe` is forbidden in our crates",
            ));
        }
    }
    findings
}

/// A test that does not run is a promise that nobody keeps.
pub(crate) fn no_ignored_tests(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in rust(files) {
        let code = source::code(&file.text);
        for (start, attribute) in source::attributes(&code) {
            if words(attribute).any(|word| word.text == "ignore") {
                let line = source::line_of(&code, start);
                findings.push(Finding::new(
                    &file.path,
                    line,
                    "a test is ignored: make it run, or take it out",
                ));
            }
        }
    }
    findings
}

/// Long files are listed with their reason, and the list does not outlive them.
pub(crate) fn no_long_files(files: &[File]) -> Vec<Finding> {
    long_files(files, &LONG_FILES)
}

fn long_files(files: &[File], listed: &[(&str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.has_extension("rs") || file.has_extension("sh"))
    {
        let lines = file.text.lines().count();
        let is_listed = listed.iter().any(|(path, _)| *path == file.path);
        if lines > LINES_MAX && !is_listed {
            let text = format!(
                "{lines} lines, {LINES_MAX} at most: look for a second noun, or list it with the reason"
            );
            findings.push(Finding::new(&file.path, 0, text));
        }
    }
    for (path, reason) in listed {
        let is_long = files
            .iter()
            .any(|file| file.path == *path && file.text.lines().count() > LINES_MAX);
        if !is_long || reason.is_empty() {
            findings.push(Finding::new(
                path,
                0,
                "listed as long, but it is not, or no reason is given",
            ));
        }
    }
    findings
}

/// What works only where it was written does not belong here.
pub(crate) fn no_machine_paths(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            for path in MACHINE_PATHS {
                // `actors/src/root/` is a folder of ours: only a path from the very top counts.
                let is_absolute = |at: usize| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| {
                        source::is_word_char(c) || matches!(c, '.' | '-' | '}' | '$' | '*')
                    })
                };
                if line.match_indices(path).any(|(at, _)| is_absolute(at)) {
                    findings.push(Finding::new(
                        &file.path,
                        index + 1,
                        format!("`{path}` is a path of one machine"),
                    ));
                }
            }
        }
    }
    findings
}

/// Put-off work is an issue, not a comment.
pub(crate) fn no_leftover_markers(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| {
        ["rs", "md", "sh", "toml"]
            .iter()
            .any(|kind| file.has_extension(kind))
    }) {
        for word in words(&file.text).filter(|word| LEFTOVERS.contains(&word.text)) {
            findings.push(Finding::new(
                &file.path,
                word.line,
                format!("`{}` is left over: do it, or file it", word.text),
            ));
        }
    }
    findings
}

fn rust(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.has_extension("rs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rule: fn(&[File]) -> Vec<Finding>, path: &str, text: &str) -> usize {
        rule(&[File::new(path, text)]).len()
    }

    #[test]
    fn an_unwrap_or_a_panic_in_library_code_is_caught() {
        let count = |path, text| found(no_unwrap_or_panic, path, text);
        assert_eq!(count("src/node.rs", "x.unwrap();"), 1);
        assert_eq!(count("actors/src/store/view.rs", "x\n    .unwrap();"), 1);
        assert_eq!(count("protocol/src/seal.rs", "panic!(\"no\");"), 1);
        assert_eq!(count("protocol/src/seal.rs", "todo!()"), 1);
        assert_eq!(
            count(
                "protocol/src/seal.rs",
                "x.unwrap_or_default(); x.expect(\"y\"); std::panic::catch_unwind(f)"
            ),
            0
        );
        assert_eq!(
            count(
                "protocol/src/seal.rs",
                "#[cfg(test)] mod tests { fn f() { x.unwrap(); panic!() } }"
            ),
            0
        );
        assert_eq!(
            count(
                "protocol/src/seal.rs",
                "/// ```\n/// x.unwrap();\n/// ```\nfn f() {}"
            ),
            0
        );
        assert_eq!(count("actors/src/store/tests.rs", "x.unwrap();"), 0);
        assert_eq!(count("actors/src/fault.rs", "panic!(\"as told\");"), 0);
        assert_eq!(count("actors/src/fault.rs", "todo!(); x.unwrap();"), 2);
        assert_eq!(
            count(
                "actors/src/lib.rs",
                "#[cfg(feature = \"fault\")]\npub mod fault;"
            ),
            0
        );
        assert_eq!(count("actors/src/lib.rs", "pub mod fault;"), 1);
        assert_eq!(count("tests/cli.rs", "x.unwrap();"), 0);
    }

    #[test]
    fn unsafe_is_caught_also_in_tests() {
        let count = |text| found(no_unsafe, "tests/a.rs", text);
        assert_eq!(count("fn f() {\n    unsafe { g() }\n}"), 1);
        assert_eq!(count("#![forbid(unsafe_code)] // unsafe"), 0);
    }

    #[test]
    fn an_ignored_test_is_caught() {
        let count = |text| found(no_ignored_tests, "tests/a.rs", text);
        assert_eq!(count("#[test]\n#[ignore]\nfn f() {}"), 1);
        assert_eq!(count("#[test]\n#[ignore = \"slow\"]\nfn f() {}"), 1);
        assert_eq!(count("#[cfg_attr(not(linux), ignore)]\nfn f() {}"), 1);
        assert_eq!(
            count("#[arg(ignore_case = true)]\nlet ignore = [1]; // #[ignore]"),
            0
        );
    }

    #[test]
    fn a_long_file_is_caught_unless_it_is_listed() {
        let long = [File::new("src/a.rs", &"x\n".repeat(LINES_MAX + 1))];
        let fits = [File::new("src/a.rs", &"x\n".repeat(LINES_MAX))];
        assert_eq!(long_files(&long, &[]).len(), 1);
        assert_eq!(
            long_files(&long, &[("src/a.rs", "one flat table")]).len(),
            0
        );
        assert_eq!(long_files(&fits, &[]).len(), 0);
        assert_eq!(
            long_files(&fits, &[("src/a.rs", "one flat table")]).len(),
            1,
            "the list outlived the file"
        );
        assert_eq!(
            long_files(&long, &[("src/a.rs", "")]).len(),
            1,
            "no reason is given"
        );
    }

    #[test]
    fn a_path_of_one_machine_is_caught() {
        let count = |text: &str| found(no_machine_paths, "README.md", text);
        for path in MACHINE_PATHS {
            assert_eq!(count(&format!("see `{path}notes`")), 1);
            assert_eq!(count(&format!("{path}notes")), 1);
            assert_eq!(count(&format!("dir = \"{path}\"")), 1);
            assert_eq!(
                count(&format!("actors/src{path}mod.rs and ${{HOME}}{path}")),
                0
            );
        }
    }

    #[test]
    fn a_leftover_marker_is_caught() {
        for marker in LEFTOVERS {
            assert_eq!(
                found(
                    no_leftover_markers,
                    "src/a.rs",
                    &format!("// {marker}: mend this")
                ),
                1
            );
            assert_eq!(
                found(
                    no_leftover_markers,
                    "src/a.rs",
                    &format!("let a{marker}b = 1;")
                ),
                0
            );
        }
    }
}
