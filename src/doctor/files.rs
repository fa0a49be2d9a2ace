//! What can be seen of a data folder without opening its store: modes, identity, settings, clock.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::doctor::{Finding, Severity};
use crate::identity::{IDENTITY_FILE, Identity, IdentityError, IdentityFile, Passphrase};
use crate::settings::{SETTINGS_FILE, Settings};
use crate::time::WallTime;

/// What only its owner may look into.
const PRIVATE: [&str; 8] = [
    "",
    "db",
    "aside",
    IDENTITY_FILE,
    "lock",
    "commit.mark",
    "reserve",
    "api.sock",
];
/// How an identity begins that is sealed with a passphrase.
const SEALED_HEAD: &[u8] = b"packhorse identity 2";
/// The first second of 2026, when this program was begun: no clock that is right shows less.
const BEGUN_MS: u64 = 1_767_225_600_000;
/// How far a clock may be behind what was written last: another machine's clock may have written it.
const BEHIND_MS: u64 = 60_000;

pub(super) fn look(data_dir: &Path, passphrase: Option<&Passphrase>) -> Vec<Finding> {
    let mut findings = Vec::new();
    modes(data_dir, &mut findings);
    identity(data_dir, passphrase, &mut findings);
    copies(data_dir, &mut findings);
    settings(data_dir, &mut findings);
    clock(data_dir, &mut findings);
    findings
}

fn modes(data_dir: &Path, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for name in PRIVATE {
        let path = if name.is_empty() {
            data_dir.to_owned()
        } else {
            data_dir.join(name)
        };
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let finding = Finding::new("modes", Severity::Unseen, error.to_string())
                    .at(&path)
                    .advise("run doctor as the user that runs the node");
                findings.push(finding);
                continue;
            }
        };
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            let right = if metadata.is_dir() { "700" } else { "600" };
            let text = format!("mode {mode:04o} lets others in, and the node does not start");
            let finding = Finding::new("modes", Severity::Damage, text)
                .at(&path)
                .advise(format!("run chmod {right} {}", path.display()));
            findings.push(finding);
        }
    }
    if findings.len() == before {
        let text = "only the owner can look into folder and files";
        findings.push(Finding::new("modes", Severity::Well, text));
    }
}

fn identity(data_dir: &Path, passphrase: Option<&Passphrase>, findings: &mut Vec<Finding>) {
    let path = data_dir.join(IDENTITY_FILE);
    let is_store = data_dir.join("db").exists();
    findings.push(match Identity::load(data_dir, passphrase) {
        Ok(identity) => Finding::new("identity", Severity::Well, identity.id().to_string()),
        Err(IdentityError::Missing { .. }) if !is_store => {
            Finding::new("identity", Severity::Well, "there is none yet").at(&path)
        }
        Err(IdentityError::Missing { .. }) => {
            let text = "it is gone, and the store beside it cannot be read without it";
            Finding::new("identity", Severity::Damage, text)
                .at(&path)
                .advise("put the backup of identity.key back")
        }
        // The mode was told above; a passphrase that is missing or wrong is no damage.
        Err(
            error @ (IdentityError::TooOpen { .. }
            | IdentityError::Locked { .. }
            | IdentityError::WrongPassphrase { .. }),
        ) => Finding::new("identity", Severity::Unseen, error.to_string()).at(&path),
        Err(error) => Finding::new("identity", Severity::Damage, error.to_string())
            .at(&path)
            .advise("put the backup of identity.key back"),
    });
}

/// A copy of an identity without a passphrase opens the store as well as the file itself.
fn copies(data_dir: &Path, findings: &mut Vec<Finding>) {
    let is_sealed = IdentityFile::load(data_dir).is_ok_and(|file| file.is_sealed());
    let entries = fs::read_dir(data_dir).into_iter().flatten().flatten();
    let copy = format!("{IDENTITY_FILE}.");
    for entry in entries {
        if !entry.file_name().to_string_lossy().starts_with(&copy) {
            continue;
        }
        let path = entry.path();
        let mode = entry
            .metadata()
            .map_or(0, |metadata| metadata.mode() & 0o777);
        if mode & 0o077 != 0 {
            let text = format!("mode {mode:04o} lets others read a copy of the identity");
            let finding = Finding::new("modes", Severity::Damage, text)
                .at(&path)
                .advise(format!("run chmod 600 {}", path.display()));
            findings.push(finding);
        }
        // Only what is surely sealed is well.
        let is_plain = !fs::read(&path).is_ok_and(|text| text.starts_with(SEALED_HEAD));
        if is_sealed && is_plain {
            let text = "a plain copy lies beside a sealed identity, and whoever has it needs no passphrase to open the store";
            let finding = Finding::new("identity", Severity::Warning, text)
                .at(&path)
                .advise("move it to a safe place, or delete it");
            findings.push(finding);
        }
    }
}

fn settings(data_dir: &Path, findings: &mut Vec<Finding>) {
    let path = data_dir.join(SETTINGS_FILE);
    findings.push(match Settings::load(data_dir) {
        Ok(_) if path.exists() => Finding::new("settings", Severity::Well, "they are understood"),
        Ok(_) => Finding::new("settings", Severity::Well, "there are none"),
        Err(error) => Finding::new("settings", Severity::Damage, error.to_string())
            .at(&path)
            .advise("mend that line: the node does not start with it"),
    });
}

fn clock(data_dir: &Path, findings: &mut Vec<Finding>) {
    let now_ms = WallTime::now().0;
    let written = fs::metadata(data_dir.join("commit.mark"))
        .and_then(|file| file.modified())
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_millis()).ok());
    let fault = match written {
        _ if now_ms < BEGUN_MS => Some(format!("it shows {}", WallTime(now_ms))),
        Some(written) if written > now_ms.saturating_add(BEHIND_MS) => Some(format!(
            "it shows {}, and the store was written at {}",
            WallTime(now_ms),
            WallTime(written)
        )),
        _ => None,
    };
    findings.push(match fault {
        None => Finding::new("clock", Severity::Well, WallTime(now_ms).to_string()),
        Some(text) => Finding::new("clock", Severity::Warning, text)
            .advise("set the clock: tickets, grants and messages end by it"),
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn a_plain_copy_beside_a_sealed_identity_is_told() {
        let folder = tempfile::tempdir().expect("a folder of our own");
        let at = folder.path();
        let passphrase = Passphrase::new("correct horse").expect("a passphrase");
        let (plain, other) = (at.join("plain"), at.join("data"));
        for place in [&plain, &other] {
            Identity::load_or_create(place, None).expect("a new identity");
        }
        let copy = other.join("identity.key.old-x");
        let mut file = fs::OpenOptions::new();
        file.write(true).create_new(true).mode(0o600);
        let text = fs::read(plain.join(IDENTITY_FILE)).expect("our own file");
        io::Write::write_all(&mut file.open(&copy).expect("our own"), &text).expect("our own");
        let told = || {
            let found = look(&other, Some(&passphrase)).into_iter();
            found
                .filter(|found| found.text.contains("plain copy"))
                .count()
        };
        assert_eq!(told(), 0);
        let identity = Identity::load(&other, None).expect("an identity");
        let change = crate::identity::Change::begin(&other).expect("a change");
        change
            .rewrite(&identity, Some(&passphrase))
            .expect("it is sealed");
        // Sealing may have dealt with the copy; one that is put there later is told all the same.
        fs::write(&copy, &text).expect("our own file");
        assert_eq!(told(), 1);
    }
}
