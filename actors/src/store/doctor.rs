//! Looking a store over while nobody works with it, and mending what can be mended.
//!
//! Every finding says what is wrong, where, how bad it is and what to do. Looking changes no record;
//! it opens the engine, which may cut what it cannot read, so journals are copied aside before, and a
//! full disk's reserve is given up. Mending never makes a message out of nothing, and keeps the
//! bytes of whatever it takes out of the way.
//!
//! Read [`examine`], then [`repair`]; what is compared with what stands in
//! `tables/checkup.rs`.

use std::fs;
use std::sync::Arc;

use super::error::{OpenError, StoreError};
use super::open::{Opening, Store, StoreConfig};
use super::quarantine::Quarantine;
use super::reader::Reader;
use super::seal::Vault;
use super::space::Bytes;
use super::tables::checkup::{self, Fix};
use super::view::View;

/// Fixes that one job carries out: up to four changes each, so a batch at most.
const FIXES_PER_JOB: usize = 2_000;
/// What one job moves at most: a quarter of a batch, since a record may be kept and made anew.
const FIXED_BYTES_PER_JOB: usize = 1 << 20;
/// How often a repair looks again: each time it may find what damage had hidden.
const ROUNDS_MAX: usize = 4;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Looked at, and well.
    Well,
    /// Could not be looked at.
    Unseen,
    /// Something to know or to do; work goes on.
    Warning,
    /// Something is lost or does not open.
    Damage,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, as a word: `heads`, `commit.mark`.
    pub check: &'static str,
    /// What was found.
    pub text: String,
    /// Where: a file, or a record's key in hex.
    pub place: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Finding {
    /// Something that is not well.
    #[must_use]
    pub fn new(
        check: &'static str,
        severity: Severity,
        text: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            check,
            text: text.into(),
            place: None,
            severity,
            advice: Some(advice.into()),
        }
    }

    /// Something that is well.
    #[must_use]
    pub fn well(check: &'static str, text: impl Into<String>) -> Self {
        Self {
            check,
            text: text.into(),
            place: None,
            severity: Severity::Well,
            advice: None,
        }
    }

    /// The same with where it is.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }
}

/// What was found, and what was mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which it was looked.
    pub findings: Vec<Finding>,
    /// What was changed, one sentence each.
    pub mended: Vec<String>,
}

impl Report {
    /// How bad the worst finding is.
    #[must_use]
    pub fn worst(&self) -> Severity {
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        worst.unwrap_or(Severity::Well)
    }
}

/// Looks a store over. Blocks; call it on a blocking thread.
///
/// # Errors
/// Only [`OpenError::Locked`]: another process works with it. Whatever else keeps it from opening is
/// a finding.
pub fn examine(config: &StoreConfig) -> Result<Report, OpenError> {
    let mut report = Report::default();
    let opening = match Opening::begin(config) {
        Ok(opening) => opening,
        Err(error @ OpenError::Locked { .. }) => return Err(error),
        Err(error) => {
            report.findings.push(not_opened(&error));
            return Ok(report);
        }
    };
    space(&opening, &mut report);
    journals(&opening, &mut report);
    let quarantine = Arc::new(Quarantine::default());
    let vault = Arc::new(Vault::new(&config.store_secret));
    let mut config = config.clone();
    let looked = match opening.look(&config, &vault, &quarantine) {
        Err(error @ OpenError::LostCommits { .. }) => {
            report.findings.push(not_opened(&error));
            config.accept_lost_commits = true;
            opening.look(&config, &vault, &quarantine)
        }
        looked => looked,
    };
    let found = match looked {
        Ok(found) => found,
        Err(error) => {
            report.findings.push(not_opened(&error));
            return Ok(report);
        }
    };
    if let Err(error) = opening.boot_floor(&vault, &quarantine, &found) {
        report.findings.push(not_opened(&error));
    }
    let commit = format!("the last commit is number {}", found.recovered);
    report.findings.push(Finding::well("commits", commit));
    let snapshot = match opening.engine.snapshot() {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let advice = "look at the disk and its log";
            let finding = Finding::new("engine", Severity::Damage, error.to_string(), advice);
            report.findings.push(finding);
            return Ok(report);
        }
    };
    let reader = Reader::new(snapshot, vault, quarantine);
    match checkup::plan(&reader) {
        Ok(plan) => {
            let found = plan.findings.into_iter().chain(plan.left);
            let found: Vec<Finding> = found.collect();
            if found.iter().all(|found| found.severity == Severity::Well) {
                let text = "every record opens, and counters and indexes fit the rows";
                report.findings.push(Finding::well("records", text));
            }
            report.findings.extend(found);
        }
        Err(fault) => report.findings.push(Finding::new(
            "records",
            Severity::Damage,
            StoreError::from(fault).to_string(),
            "look at the disk and its log, or restore a backup",
        )),
    }
    Ok(report)
}

fn not_opened(error: &OpenError) -> Finding {
    let (check, severity, advice) = match error {
        OpenError::WrongKey { .. } => (
            "heads",
            Severity::Damage,
            "put the identity.key back that belongs to this store",
        ),
        OpenError::LostCommits { .. } => (
            "commit.mark",
            Severity::Damage,
            "restore a backup; or accept the loss with `packhorse doctor --repair`, which keeps the journals",
        ),
        OpenError::TooNew { .. } => (
            "heads",
            Severity::Damage,
            "use the version of packhorse that wrote it, or a newer one",
        ),
        OpenError::WideMode { fix, .. } => {
            return Finding::new(
                "modes",
                Severity::Damage,
                error.to_string(),
                format!("run {fix}"),
            );
        }
        OpenError::Full { .. } => (
            "space",
            Severity::Damage,
            "make room on the disk and look again",
        ),
        OpenError::Io { .. } => (
            "engine",
            Severity::Damage,
            "look at the disk, its log, and who may read the folder",
        ),
        _ => (
            "engine",
            Severity::Damage,
            "restore a backup; journals as they were found lie in the folder `aside`",
        ),
    };
    Finding::new(check, severity, error.to_string(), advice)
}

fn space(opening: &Opening, report: &mut Report) {
    let levels = opening.keeper.levels();
    let free = opening.keeper.volume().free().unwrap_or(0);
    let reserved = opening.keeper.reserved();
    let usable = free.saturating_sub(levels.reserve.saturating_sub(reserved));
    let text = format!(
        "{} free beside a reserve of {}; new work is taken from {} on",
        Bytes(free),
        Bytes(reserved),
        Bytes(levels.line)
    );
    report.findings.push(if usable < levels.line {
        let advice = "make room on the disk: new work is refused until then, and nothing is lost";
        Finding::new("space", Severity::Warning, text, advice)
    } else {
        Finding::well("space", text)
    });
}

fn journals(opening: &Opening, report: &mut Report) {
    let is_clean = opening.mark.is_none_or(|mark| mark.clean);
    let Some(folder) = &opening.folder else {
        return;
    };
    let aside = fs::read_dir(folder.path().join("aside")).map_or(0, Iterator::count);
    let text = match (is_clean, aside) {
        (true, 0) => "the last end was clean".to_owned(),
        (true, aside) => {
            format!("the last end was clean; {aside} copies of journals lie in aside/")
        }
        (false, aside) => {
            format!(
                "the last end was not clean, which costs nothing; {aside} copies of journals lie in aside/"
            )
        }
    };
    report.findings.push(Finding::well("journals", text));
}

/// Mends what can be mended: accepts commits that are lost, sets aside what does not open, and
/// counts and indexes anew. Says what it did.
///
/// # Errors
/// Why the store does not open, or did not take a change.
pub async fn repair(config: &StoreConfig) -> Result<Vec<String>, RepairError> {
    let mut config = config.clone();
    let (opened, lost) = tokio::task::spawn_blocking(move || match Store::open(&config) {
        Err(error @ OpenError::LostCommits { .. }) => {
            let OpenError::LostCommits {
                recovered, marked, ..
            } = error
            else {
                return Err(error);
            };
            config.accept_lost_commits = true;
            let count = marked.saturating_sub(recovered);
            Ok((Store::open(&config)?, Some((count, error.to_string()))))
        }
        opened => Ok((opened?, None)),
    })
    .await
    .map_err(|_| StoreError::Unknown)??;
    let mut mended = Vec::new();
    let store = opened.handle();
    let mut writer = opened.start_writer().map_err(RepairError::Thread)?;
    let outcome = async {
        if let Some((count, text)) = lost {
            mended.push(format!(
                "{count} commits are lost, and that is accepted: {text}"
            ));
        }
        for _ in 0..ROUNDS_MAX {
            let plan = |reader: &Reader| {
                let mut plan = checkup::plan(reader)?;
                let fixes = std::mem::take(&mut plan.fixes);
                Ok((plan.findings, jobs(reader, fixes)))
            };
            let (findings, jobs) = store.read(plan).await?;
            if jobs.is_empty() {
                break;
            }
            mended.extend(findings.iter().map(|finding| {
                let place = finding.place.as_ref();
                let place = place.map_or(String::new(), |place| format!(" ({place})"));
                format!("{}: {}{place}", finding.check, finding.text)
            }));
            for fixes in jobs {
                let job = move |view: &mut View| checkup::apply_all(view, fixes);
                store.write(0, job).await?;
            }
        }
        Ok::<(), StoreError>(())
    }
    .await;
    writer.stop();
    writer.ended().await;
    drop(store);
    let closed = tokio::task::spawn_blocking(move || opened.close()).await;
    outcome?;
    closed.unwrap_or(Err(StoreError::Unknown))?;
    Ok(mended)
}

/// Fixes in their order, as many to a job as a batch takes.
fn jobs(reader: &Reader, fixes: Vec<Fix>) -> Vec<Vec<Fix>> {
    let mut jobs: Vec<Vec<Fix>> = Vec::new();
    let mut bytes = 0;
    for fix in fixes {
        let (key, written) = fix.key();
        // What cannot be read is not kept.
        let kept = reader.raw(key).ok().flatten().map_or(0, |raw| raw.len());
        bytes += kept + written;
        match jobs.last_mut() {
            Some(job) if job.len() < FIXES_PER_JOB && bytes <= FIXED_BYTES_PER_JOB => job.push(fix),
            _ => {
                bytes = kept + written;
                jobs.push(vec![fix]);
            }
        }
    }
    jobs
}

/// Why a store was not mended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It did not take a change.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no thread.
    #[error("the writer did not start: {0}")]
    Thread(std::io::Error),
}
