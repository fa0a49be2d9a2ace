//! The second chapter: beta runs a command for every job that alpha sends, and is stopped meanwhile.
//!
//! A job is an ordinary message; beta's worker is an ordinary `packhorse work` process.
//! What counts is what alpha's receipts say in the end: nothing of beta is asked.

use std::time::Duration;

use packhorse::api::documents::{ReceiptQuery, SendQuery, whole_ms};
use packhorse::{ReceiptId, ReceiptState, Sent};
use rustix::process::Signal;
use serde::Serialize;

use crate::cli::Failure;
use crate::demo::cluster::Cluster;
use crate::demo::process::NodeProcess;
use crate::demo::stage::{Stage, messages};

/// What jobs are about; alpha may have commands run for it at beta.
pub(crate) const TOPIC: &str = "demo/jobs";
/// Sent before beta is stopped, and again as many while it is.
const HALF: u64 = 30;
/// A job that is not done within this time without an error of its own has stalled.
const DONE_WITHIN: Duration = Duration::from_secs(60);
/// Every tenth job asks to be tried again the first time: exit code 75.
const COMMAND: &str = r#"job=$(cat); case "$job attempt $PACKHORSE_ATTEMPT" in *"7 attempt 1") exit 75;; esac; echo "$job, attempt $PACKHORSE_ATTEMPT""#;

/// What came of the jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Jobs {
    pub(crate) sent: u64,
    /// By their receipts.
    pub(crate) done: u64,
    /// Of these, how many were tried more than once.
    pub(crate) retried: u64,
    pub(crate) failed: u64,
}

impl Jobs {
    pub(crate) fn is_kept(&self) -> bool {
        self.done == self.sent && self.failed == 0
    }
}

/// Sends jobs, stops beta in the middle, lets it go on, and reads every receipt.
pub(crate) async fn play(cluster: &mut Cluster, stage: &Stage) -> Result<Jobs, Failure> {
    let Cluster { alpha, beta, .. } = cluster;
    let _worker = beta.start_worker(TOPIC, COMMAND)?;
    stage.tell("beta works: a command for every job, four at a time");
    stage.begin("jobs done by beta");
    let mut receipts = send(alpha, 1, HALF).await?;
    // The first receipt says that work is under way; only then beta is stopped.
    if let Some(first) = receipts.first() {
        wait_for_done(alpha, first).await?;
    }
    beta.signal(Signal::STOP)?;
    stage.tell("SIGSTOP: beta stands still in the middle of its work");
    receipts.extend(send(alpha, HALF + 1, 2 * HALF).await?);
    stage.tell(&format!("alpha accepted {} more meanwhile", messages(HALF)));
    beta.signal(Signal::CONT)?;
    stage.tell("SIGCONT: beta goes on");
    let mut jobs = Jobs {
        sent: 2 * HALF,
        ..Jobs::default()
    };
    for (read, id) in receipts.iter().enumerate() {
        let output = wait_for_done(alpha, id).await?;
        match output {
            Some(output) => {
                jobs.done += 1;
                jobs.retried += u64::from(!output.trim_end().ends_with("attempt 1"));
            }
            None => jobs.failed += 1,
        }
        stage.progress(read as u64 + 1);
    }
    stage.tell(&format!(
        "{} done, {} of them at the second attempt",
        messages(jobs.done),
        jobs.retried
    ));
    Ok(jobs)
}

async fn send(alpha: &mut NodeProcess, first: u64, last: u64) -> Result<Vec<ReceiptId>, Failure> {
    let mut receipts = Vec::new();
    for number in first..=last {
        let query = SendQuery {
            peer: "beta".to_owned(),
            topic: TOPIC.to_owned(),
            ..SendQuery::default()
        };
        let payload = format!("job {number}");
        match alpha.client().send(&query, payload.into()).await? {
            Sent::Accepted(receipt) => receipts.push(receipt.id),
            Sent::Ephemeral(_) => return Err(alpha.failure("took a job for an ephemeral message")),
        }
    }
    Ok(receipts)
}

/// What the command printed, or nothing when the job failed.
async fn wait_for_done(alpha: &mut NodeProcess, id: &ReceiptId) -> Result<Option<String>, Failure> {
    let query = ReceiptQuery {
        wait: Some(ReceiptState::Done),
        timeout_ms: Some(whole_ms(DONE_WITHIN)),
    };
    let receipt = alpha.client().receipt(id, &query).await?;
    match receipt.state {
        ReceiptState::Done => Ok(Some(
            receipt.output.as_text().unwrap_or_default().to_owned(),
        )),
        ReceiptState::Failed => Ok(None),
        state => Err(alpha.failure(&format!(
            "has a job that is {state} after {} s",
            DONE_WITHIN.as_secs()
        ))),
    }
}
