//! Who may name what: the walls between the crates and around the big libraries.
//!
//! Looks at code only: comments may speak of anything, and `manifests` holds the same borders there.
//! Read the tables at the top: they are the rules, the functions only apply them.

use crate::source::{self, Word, words};
use crate::tree::{File, Finding};

/// A library that only some folders know, so that it can be replaced by changing them.
struct Wall {
    /// Separated by spaces, as in the other tables.
    names: &'static str,
    places: &'static [&'static str],
}

const WALLS: [Wall; 3] = [
    // The benches measure against the bare libraries.
    Wall {
        names: "fjall lsm_tree",
        places: &["actors/src/store/", "benches/"],
    },
    Wall {
        names: "s2n_quic s2n_quic_core s2n_quic_platform s2n_quic_rustls s2n_quic_transport",
        places: &["actors/src/link/", "benches/"],
    },
    Wall {
        names: "bincode bincode_derive",
        places: &["protocol/"],
    },
];

/// The only file that calls bincode; the rest of the protocol crate derives its traits.
const CODEC: &str = "protocol/src/codec.rs";
const BINCODE_TRAITS: &str = "Encode Decode BorrowDecode";

/// Names that a folder never uses, and why.
struct Ban {
    folder: &'static str,
    names: &'static str,
    why: &'static str,
    /// Whether the folder's own tests are free to.
    tests_may: bool,
}

const BANS: [Ban; 5] = [
    Ban {
        folder: "protocol/",
        names: "tokio ractor fjall axum hyper clap rustls",
        why: "the protocol crate is sans-IO",
        tests_may: false,
    },
    Ban {
        folder: "protocol/src/",
        names: "SystemTime Instant UNIX_EPOCH",
        why: "the protocol crate never reads a clock",
        tests_may: false,
    },
    Ban {
        folder: "protocol/src/",
        names: "fs File OpenOptions stdin stdout stderr env thread process TcpStream \
            TcpListener UdpSocket UnixStream UnixListener ToSocketAddrs",
        why: "the protocol crate touches no file, socket, thread or process",
        // Golden bytes lie in files.
        tests_may: true,
    },
    Ban {
        folder: "protocol/src/",
        names: "SystemRandom OsRng SysRng getrandom thread_rng HashMap HashSet \
            RandomState",
        why: "the protocol crate takes randomness as an argument (a HashMap draws its own, and its order would show)",
        tests_may: true,
    },
    Ban {
        folder: "actors/",
        names: "axum clap hyper hyper_util toml",
        why: "the actors crate knows no HTTP, no command line and no settings file",
        tests_may: false,
    },
];

/// Calls of ractor whose first argument would register a name.
const SPAWNS: &str = "spawn spawn_linked spawn_instant spawn_linked_instant";

/// fjall, s2n-quic and bincode are named only where they are wrapped.
pub(crate) fn only_behind_walls(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in rust(files) {
        for word in words(&code) {
            for wall in &WALLS {
                let inside = wall.places.iter().any(|place| file.path.starts_with(place));
                if has(wall.names, word.text) && !inside {
                    let text = format!(
                        "`{}` is named outside {}",
                        word.text,
                        wall.places.join(" and ")
                    );
                    findings.push(Finding::new(&file.path, word.line, text));
                }
            }
        }
    }
    findings
}

/// Outside the codec the protocol crate names bincode only to derive its traits.
pub(crate) fn bincode_only_in_codec(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in rust(files) {
        if !file.path.starts_with("protocol/") || file.path == CODEC {
            continue;
        }
        for word in words(&code).filter(|word| word.text == "bincode" && !names_only_traits(word)) {
            findings.push(Finding::new(
                &file.path,
                word.line,
                format!("only {CODEC} calls bincode"),
            ));
        }
    }
    findings
}

/// `bincode::Encode`, or `bincode::{Decode, Encode}`.
fn names_only_traits(word: &Word<'_>) -> bool {
    let Some(path) = word.behind.strip_prefix("::") else {
        return false;
    };
    match path.strip_prefix('{') {
        Some(group) => {
            let inside = group.split('}').next().unwrap_or_default();
            inside
                .split(',')
                .map(str::trim)
                .all(|name| name.is_empty() || has(BINCODE_TRAITS, name))
        }
        None => {
            let end = path
                .find(|c| !source::is_word_char(c))
                .unwrap_or(path.len());
            // `bincode::Encode::encode(...)` would be a call.
            has(BINCODE_TRAITS, &path[..end]) && !path[end..].starts_with("::")
        }
    }
}

/// No crate names what it must not know.
pub(crate) fn never_named(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in rust(files) {
        let product = if source::is_test_file(&file.path) {
            String::new()
        } else {
            source::product(&code)
        };
        for ban in BANS.iter().filter(|ban| file.path.starts_with(ban.folder)) {
            let text = if ban.tests_may { &product } else { &code };
            for word in words(text).filter(|word| has(ban.names, word.text) && names_a_thing(word))
            {
                findings.push(Finding::new(
                    &file.path,
                    word.line,
                    format!("`{}`: {}", word.text, ban.why),
                ));
            }
        }
    }
    findings
}

/// A field, method, parameter or local may be called `env` or `process`; a path or a type counts.
fn names_a_thing(word: &Word<'_>) -> bool {
    let is_type = word.text.starts_with(|c: char| c.is_ascii_uppercase());
    let is_path = word.behind.starts_with("::") || word.before.ends_with("::");
    let in_use = word.before.rsplit([';', '}']).next().is_some_and(|start| {
        let start = start.trim_start();
        start.starts_with("use ")
            || start.starts_with("pub use ")
            || start.starts_with("extern crate ")
    });
    is_type || is_path || in_use
}

/// ractor's registry is one for the whole process: two nodes in one process would collide in it.
pub(crate) fn no_actor_names(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in rust(files) {
        for word in words(&code).filter(|word| has(SPAWNS, word.text)) {
            let argument = word
                .behind
                .trim_start()
                .strip_prefix('(')
                .map(str::trim_start);
            if argument.is_some_and(|argument| argument.starts_with("Some(")) {
                findings.push(Finding::new(
                    &file.path,
                    word.line,
                    "an actor gets no registered name: pass None",
                ));
            }
        }
    }
    findings
}

/// Whether a name stands in a list with spaces between.
fn has(names: &str, name: &str) -> bool {
    names.split(' ').any(|listed| listed == name)
}

/// Every Rust file with its code.
fn rust(files: &[File]) -> impl Iterator<Item = (&File, String)> {
    files
        .iter()
        .filter(|file| file.has_extension("rs"))
        .map(|file| (file, source::code(&file.text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rule: fn(&[File]) -> Vec<Finding>, path: &str, text: &str) -> usize {
        rule(&[File::new(path, text)]).len()
    }

    #[test]
    fn a_library_outside_its_wall_is_caught() {
        let count = |path, text| found(only_behind_walls, path, text);
        assert_eq!(count("src/node.rs", "use fjall::Database;"), 1);
        assert_eq!(
            count("actors/src/inbox.rs", "fn f(x: &fjall::Keyspace) {}"),
            1
        );
        assert_eq!(count("tests/crash.rs", "use fjall::Database;"), 1);
        assert_eq!(
            count("actors/src/session.rs", "use s2n_quic::Connection;"),
            1
        );
        assert_eq!(
            count("actors/src/session.rs", "use s2n_quic_core::event;"),
            1
        );
        assert_eq!(count("actors/src/store/meta.rs", "use bincode::Encode;"), 1);
        assert_eq!(
            count("actors/src/store/fjall_engine.rs", "use fjall::Database;"),
            0
        );
        assert_eq!(
            count("actors/src/link/quic.rs", "use s2n_quic::Connection;"),
            0
        );
        assert_eq!(
            count(
                "benches/store.rs",
                "use fjall::Database; use s2n_quic::Server;"
            ),
            0
        );
        assert_eq!(
            count(
                "src/node.rs",
                "// fjall\nlet x = \"s2n_quic\"; use store::fjall_engine;"
            ),
            0
        );
    }

    #[test]
    fn a_call_into_bincode_is_caught() {
        let count = |path, text| found(bincode_only_in_codec, path, text);
        assert_eq!(
            count("protocol/src/hello.rs", "bincode::encode_to_vec(x, c)"),
            1
        );
        assert_eq!(count("protocol/src/hello.rs", "use bincode::config;"), 1);
        assert_eq!(
            count("protocol/src/hello.rs", "use bincode::{Encode, config};"),
            1
        );
        assert_eq!(
            count(
                "protocol/src/hello.rs",
                "bincode::Encode::encode(&x, &mut e)"
            ),
            1
        );
        assert_eq!(count("protocol/src/hello.rs", "use bincode as b;"), 1);
        assert_eq!(
            count("protocol/src/hello.rs", "use bincode::{Decode, Encode};"),
            0
        );
        assert_eq!(
            count(
                "protocol/src/hello.rs",
                "#[derive(bincode::Encode, bincode::Decode)]"
            ),
            0
        );
        assert_eq!(
            count("protocol/src/codec.rs", "bincode::encode_to_vec(x, c)"),
            0
        );
    }

    #[test]
    fn a_name_that_a_crate_must_not_know_is_caught() {
        let count = |path, text| found(never_named, path, text);
        assert_eq!(count("protocol/src/a.rs", "use tokio::sync::mpsc;"), 1);
        assert_eq!(count("protocol/tests/a.rs", "use tokio::sync::mpsc;"), 1);
        assert_eq!(
            count("protocol/src/a.rs", "use std::time::{Duration, Instant};"),
            1
        );
        assert_eq!(
            count(
                "protocol/src/a.rs",
                "let now = std::time::SystemTime::now();"
            ),
            1
        );
        assert_eq!(count("protocol/src/a.rs", "let x = std::fs::read(p);"), 1);
        assert_eq!(count("protocol/src/a.rs", "use std::{fmt, fs};"), 1);
        assert_eq!(
            count("protocol/src/a.rs", "use std::net::{IpAddr, UdpSocket};"),
            1
        );
        assert_eq!(
            count("protocol/src/a.rs", "use ring::rand::SystemRandom;"),
            1
        );
        assert_eq!(
            count("protocol/src/a.rs", "use std::collections::HashMap;"),
            1
        );
        assert_eq!(count("actors/src/a.rs", "use axum::Router;"), 1);
        assert_eq!(count("actors/src/a.rs", "#[derive(clap::Parser)]"), 1);
        assert_eq!(
            count("src/api.rs", "use axum::Router; use std::time::Instant;"),
            0
        );
        assert_eq!(
            count(
                "protocol/src/a.rs",
                "use std::time::Duration; let env = 1; self.process();"
            ),
            0
        );
        assert_eq!(
            count(
                "protocol/src/a.rs",
                "#[cfg(test)] mod tests { use std::fs; }"
            ),
            0
        );
        assert_eq!(
            count(
                "protocol/src/a.rs",
                "#[cfg(test)] mod tests { use std::time::Instant; }"
            ),
            1
        );
        assert_eq!(count("protocol/tests/golden.rs", "use std::fs;"), 0);
        assert_eq!(
            count("protocol/src/a.rs", "//! No tokio::spawn, no std::fs."),
            0
        );
    }

    #[test]
    fn a_named_actor_is_caught() {
        let count = |text| found(no_actor_names, "actors/src/root.rs", text);
        assert_eq!(
            count("Actor::spawn(Some(\"store\".into()), Store, args)"),
            1
        );
        assert_eq!(
            count("Actor::spawn_linked(\n    Some(name),\n    Store)"),
            1
        );
        assert_eq!(count("Actor::spawn(None, Store, args)"), 0);
        assert_eq!(count("tasks.spawn(async move {})"), 0);
    }
}
