//! The borders of the crates in their manifests, where they bind every file of a crate at once.
//!
//! Reads no more of TOML than section headers and the names of keys.
//! Read the table at the top: it is the rule, the functions only apply it.

use crate::tree::{File, Finding};

/// What a manifest does not list, in the sections that count for it.
struct ManifestBan {
    path: &'static str,
    /// Separated by spaces.
    names: &'static str,
    dev_may: bool,
}

const MANIFEST_BANS: [ManifestBan; 3] = [
    ManifestBan {
        path: "protocol/Cargo.toml",
        names: "tokio ractor fjall s2n-quic axum hyper clap rustls rand getrandom",
        dev_may: false,
    },
    ManifestBan {
        path: "actors/Cargo.toml",
        names: "axum clap hyper hyper-util toml bincode",
        dev_may: false,
    },
    // The benches of the root package measure against the bare libraries.
    ManifestBan {
        path: "Cargo.toml",
        names: "fjall s2n-quic bincode",
        dev_may: true,
    },
];

/// No manifest lists what its crate must not know.
pub(crate) fn borders(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ban in &MANIFEST_BANS {
        for file in files.iter().filter(|file| file.path == ban.path) {
            for (line, dev, name) in dependencies(&file.text) {
                if ban.names.split(' ').any(|banned| banned == name) && !(dev && ban.dev_may) {
                    let text = format!("this crate must not depend on `{name}`");
                    findings.push(Finding::new(&file.path, line, text));
                }
            }
        }
    }
    findings
}

/// Line, whether for development only, and name of every dependency of a manifest.
fn dependencies(manifest: &str) -> Vec<(usize, bool, &str)> {
    let mut found = Vec::new();
    let mut section = "";
    for (index, line) in manifest.lines().enumerate() {
        let dev = section.contains("dev-dependencies");
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
            // `[dependencies.tokio]` names one in the header itself.
            if let Some((table, name)) = section.rsplit_once('.')
                && table.ends_with("dependencies")
                && !table.starts_with("workspace")
            {
                found.push((index + 1, table.ends_with("dev-dependencies"), name));
            }
        } else if section.ends_with("dependencies") && !section.starts_with("workspace") {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            if !name.is_empty() && !name.starts_with('#') {
                found.push((index + 1, dev, name));
            }
        }
    }
    found
}

#[test]
fn a_dependency_over_a_border_is_caught() {
    let count = |path, text| borders(&[File::new(path, text)]).len();
    assert_eq!(
        count(
            "protocol/Cargo.toml",
            "[dependencies]\ntokio.workspace = true\n"
        ),
        1
    );
    assert_eq!(
        count("protocol/Cargo.toml", "[dev-dependencies]\ntokio = \"1\"\n"),
        1
    );
    assert_eq!(
        count(
            "protocol/Cargo.toml",
            "[dependencies.tokio]\nversion = \"1\"\n"
        ),
        1
    );
    assert_eq!(
        count(
            "protocol/Cargo.toml",
            "[target.'cfg(unix)'.dependencies]\ntokio = \"1\"\n"
        ),
        1
    );
    assert_eq!(
        count(
            "actors/Cargo.toml",
            "[dependencies]\nclap = { workspace = true }\n"
        ),
        1
    );
    assert_eq!(
        count("Cargo.toml", "[dependencies]\nfjall.workspace = true\n"),
        1
    );
    assert_eq!(
        count("Cargo.toml", "[dev-dependencies]\nfjall.workspace = true\n"),
        0
    );
    assert_eq!(
        count("Cargo.toml", "[workspace.dependencies]\nfjall = \"3\"\n"),
        0
    );
    assert_eq!(
        count(
            "protocol/Cargo.toml",
            "[dependencies]\n# tokio\nring = \"1\"\n[lints]\n"
        ),
        0
    );
}
