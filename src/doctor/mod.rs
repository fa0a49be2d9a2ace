//! `doctor`: whether a data folder is well, and what to do where it is not.
//!
//! Works on a stopped node, where it reads everything, and beside a running one, where it looks at
//! the files and asks the node for the rest, and says what it could not look at.
//! Looking changes nothing that belongs to anybody; mending is asked for, and never touches the
//! identity.
//!
//! Read [`Diagnosis`], then [`examine`] and [`repair`].

mod files;

use std::path::Path;

use packhorse_actors::env::Env;
use packhorse_actors::store::{self, OpenError, RepairError, StoreConfig};
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::identity::{Identity, IdentityError, Passphrase};
use crate::status::Status;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Looked at, and well.
    Well,
    /// Could not be looked at.
    Unseen,
    /// Something to know or to do; work goes on.
    Warning,
    /// Something is lost, does not open, or keeps the node from starting.
    Damage,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// Where: a file, or a record.
    pub place: Option<String>,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Finding {
    fn new(check: &str, severity: Severity, text: impl Into<String>) -> Finding {
        Finding {
            check: check.to_owned(),
            severity,
            text: text.into(),
            place: None,
            advice: None,
        }
    }

    fn at(mut self, place: &Path) -> Finding {
        self.place = Some(place.display().to_string());
        self
    }

    fn advise(mut self, advice: impl Into<String>) -> Finding {
        self.advice = Some(advice.into());
        self
    }
}

impl From<store::Finding> for Finding {
    fn from(found: store::Finding) -> Finding {
        Finding {
            check: found.check.to_owned(),
            severity: match found.severity {
                store::Severity::Well => Severity::Well,
                store::Severity::Unseen => Severity::Unseen,
                store::Severity::Warning => Severity::Warning,
                store::Severity::Damage => Severity::Damage,
            },
            text: found.text,
            place: found.place,
            advice: found.advice,
        }
    }
}

/// Everything that was looked at, and what was mended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// In the order in which it was looked.
    pub findings: Vec<Finding>,
    /// What was changed, one sentence each.
    pub mended: Vec<String>,
}

impl Diagnosis {
    /// 0 when all is well, 1 when work goes on all the same, 7 for damage.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        match worst {
            Some(Severity::Damage) => Exit::Damaged,
            Some(Severity::Warning) => Exit::Failure,
            Some(Severity::Well | Severity::Unseen) | None => Exit::Done,
        }
    }
}

/// Looks a data folder over whose node does not run. Blocks for as long as reading all of it takes.
///
/// # Errors
/// [`OpenError::Locked`] when a node runs all the same.
pub fn examine(data_dir: &Path, passphrase: Option<&Passphrase>) -> Result<Diagnosis, OpenError> {
    let mut diagnosis = Diagnosis {
        findings: files::look(data_dir, passphrase),
        mended: Vec::new(),
    };
    match config(data_dir, passphrase) {
        Ok(Some(config)) => {
            let report = store::examine(&config)?;
            let found = report.findings.into_iter().map(Finding::from);
            diagnosis.findings.extend(found);
        }
        Ok(None) => {
            let text = "there is no store yet";
            let finding = Finding::new("store", Severity::Well, text);
            diagnosis.findings.push(finding);
        }
        // The files say what is wrong with the identity.
        Err(_) => {
            let text = "without the identity nothing in the store can be read";
            let finding = Finding::new("store", Severity::Unseen, text);
            diagnosis.findings.push(finding);
        }
    }
    Ok(diagnosis)
}

/// The same beside a running node, which is asked for what only it knows.
#[must_use]
pub fn examine_running(data_dir: &Path, status: &Status) -> Diagnosis {
    let mut findings = files::look(data_dir, None);
    for reason in &status.storage.refusing {
        let text = format!("new work is refused: {reason}");
        let finding = Finding::new("room", Severity::Warning, text)
            .advise("make room, raise the quota, or handle and drop what is kept");
        findings.push(finding);
    }
    if status.storage.refusing.is_empty() {
        findings.push(Finding::new("room", Severity::Well, "new work is taken"));
    }
    if status.storage.reserve_bytes == 0 && status.storage.line_bytes > 0 {
        let text = "no space is set aside for a full disk";
        let finding = Finding::new("reserve", Severity::Warning, text)
            .advise("nothing, or a larger disk: a full one may need a restart");
        findings.push(finding);
    }
    let text = "the node runs, so records, counters and indexes were not read";
    let finding = Finding::new("records", Severity::Unseen, text)
        .advise("stop the node and run doctor again to have them read");
    findings.push(finding);
    Diagnosis {
        findings,
        mended: Vec::new(),
    }
}

/// Mends what can be mended in the store of a node that does not run, and says what it did.
///
/// # Errors
/// [`RepairFailure`].
pub async fn repair(
    data_dir: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<Vec<String>, RepairFailure> {
    match config(data_dir, passphrase)? {
        Some(config) => Ok(store::repair(&config).await?),
        None => Ok(Vec::new()),
    }
}

/// Why nothing was mended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairFailure {
    /// Without the identity the store cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] RepairError),
}

impl RepairFailure {
    /// The code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            RepairFailure::Identity(error) => error.exit(),
            RepairFailure::Store(RepairError::Open(OpenError::Full { .. })) => Exit::Full,
            RepairFailure::Store(RepairError::Open(OpenError::WrongKey { .. })) => Exit::WrongKey,
            RepairFailure::Store(_) => Exit::Damaged,
        }
    }
}

/// How the store of a folder is opened; `None` when there is none.
fn config(
    data_dir: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<Option<StoreConfig>, IdentityError> {
    if !data_dir.join("db").exists() {
        return Ok(None);
    }
    let identity = Identity::load(data_dir, passphrase)?;
    let secret = *identity.store_secret();
    let config = StoreConfig::new(data_dir, identity.id(), secret, Env::system());
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides_the_exit() {
        let mut diagnosis = Diagnosis::default();
        assert_eq!(diagnosis.exit(), Exit::Done);
        for (severity, exit) in [
            (Severity::Unseen, Exit::Done),
            (Severity::Warning, Exit::Failure),
            (Severity::Damage, Exit::Damaged),
            (Severity::Well, Exit::Damaged),
        ] {
            diagnosis.findings.push(Finding::new("x", severity, "y"));
            assert_eq!(diagnosis.exit(), exit);
        }
    }

    #[test]
    fn a_finding_has_the_published_shape() {
        let finding = Finding::new("modes", Severity::Damage, "too wide")
            .at(Path::new("/d/identity.key"))
            .advise("run chmod 600 /d/identity.key");
        assert_eq!(
            serde_json::to_string(&finding).expect("plain values"),
            r#"{"check":"modes","severity":"damage","text":"too wide","place":"/d/identity.key","advice":"run chmod 600 /d/identity.key"}"#
        );
    }
}
