//! The rules of the tree, held by a test: who may name what, and what stays out altogether.
//!
//! Every rule is a pure function from files (path and text) to findings, so each is also shown to
//! catch what it is for, on a made-up tree. A rule never changes a file and never asks git.
//!
//! Read `imports` and `manifests` first: those are the borders of the crates. `habits` holds what
//! one line can break, `documents` what the prose promises, `source` and `tree` do the reading.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/habits.rs"]
mod habits;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/tree.rs"]
mod tree;

use std::path::Path;

use tree::{File, Finding};

/// Runs one rule over the repository and shows everything it found.
fn hold(rule: impl Fn(&[File]) -> Vec<Finding>) {
    let files = tree::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    let findings: Vec<String> = rule(&files).iter().map(ToString::to_string).collect();
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}

#[test]
fn the_walk_sees_the_tree() {
    // A walk that finds nothing would let every rule below pass.
    let files = tree::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    for path in [
        "Cargo.toml",
        "src/lib.rs",
        "actors/src/lib.rs",
        "protocol/src/lib.rs",
        "tests/tidy.rs",
        ".ci/run",
    ] {
        assert!(
            files.iter().any(|file| file.path == path),
            "{path} was not read"
        );
    }
    assert!(
        !files.iter().any(|file| file.path.starts_with("target/")),
        "build output was read"
    );
}

#[test]
fn the_top_level_holds_only_what_the_design_names() {
    hold(tree::top_level);
}

#[test]
fn each_library_is_named_only_behind_its_wall() {
    hold(imports::only_behind_walls);
}

#[test]
fn bincode_is_called_only_by_the_codec() {
    hold(imports::bincode_only_in_codec);
}

#[test]
fn no_crate_names_what_it_must_not_know() {
    hold(imports::never_named);
}

#[test]
fn no_manifest_depends_on_what_its_crate_must_not_know() {
    hold(manifests::borders);
}

#[test]
fn actors_have_no_registered_names() {
    hold(imports::no_actor_names);
}

#[test]
fn library_code_does_not_unwrap_or_panic() {
    hold(habits::no_unwrap_or_panic);
}

#[test]
fn nothing_is_unsafe() {
    hold(habits::no_unsafe);
}

#[test]
fn no_test_is_ignored() {
    hold(habits::no_ignored_tests);
}

#[test]
fn no_file_grows_past_its_noun() {
    hold(habits::no_long_files);
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    hold(habits::no_machine_paths);
}

#[test]
fn nothing_is_left_for_another_day() {
    hold(habits::no_leftover_markers);
}

#[test]
fn architecture_names_every_top_level_module() {
    hold(documents::modules_are_named);
}

#[test]
fn documents_name_only_paths_that_exist() {
    hold(documents::paths_exist);
}

#[test]
fn every_test_of_the_fault_table_exists() {
    hold(documents::fault_tests_exist);
}

#[test]
fn prose_has_one_sentence_per_line() {
    hold(documents::one_sentence_per_line);
}
