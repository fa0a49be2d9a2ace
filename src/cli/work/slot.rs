//! One message from its claim to its verdict.
//!
//! ORDER: the attempt is counted durably before the command starts; a run that nobody counted
//! would be invisible. A verdict is repeated until the daemon has it, across restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use packhorse::api::work::{RenewRequest, Renewed, SettleRequest};
use packhorse::api::{Client, ClientError};
use packhorse::{Claimed, Lease, Verdict};
use tokio::sync::{Mutex, watch};

use crate::cli::patience::{is_passing, pause_after};
use crate::cli::work::child::Child;
use crate::cli::work::orders::{Order, Orders};
use crate::cli::work::verdict::{told, verdict_of, verdict_of_stopped};

/// How long a verdict is offered to a daemon that is away, once the worker is to stop.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(5);
/// The same when somebody is in a hurry.
const LAST_WORD_IN_A_HURRY_WITHIN: Duration = Duration::from_secs(1);
/// How long a message rests whose command could not be started at all.
const REST_MS: u64 = 5_000;

/// What every slot shares.
#[derive(Debug)]
pub(crate) struct Shop {
    /// The command line.
    pub(crate) exec: String,
    /// Short questions of all slots, one at a time.
    pub(crate) desk: Mutex<Desk>,
    pub(crate) orders: Orders,
}

/// Speaks to the daemon about messages that are being handled.
///
/// INVARIANT: a message is renewed or settled, never both at once. A renewal that overtook a
/// verdict would take the message up again that the verdict gave back.
#[derive(Debug)]
pub(crate) struct Desk {
    client: Client,
    /// What was begun and is not settled, by arrival.
    leases: BTreeMap<u64, Lease>,
}

impl Desk {
    pub(crate) fn new(client: Client) -> Desk {
        Desk {
            client,
            leases: BTreeMap::new(),
        }
    }

    /// Renews every lease for so long; none when there is nothing to renew.
    pub(crate) async fn renew(&mut self, lease_ms: u64) -> Result<Option<Renewed>, ClientError> {
        if self.leases.is_empty() {
            return Ok(None);
        }
        let request = RenewRequest {
            leases: self.leases.values().copied().collect(),
            lease_ms,
        };
        self.client.renew(&request).await.map(Some)
    }

    async fn begin(&mut self, lease: Lease) -> Result<u32, ClientError> {
        let begun = self.client.begin(&lease).await?;
        self.leases.insert(lease.arrival, lease);
        Ok(begun.attempt)
    }

    async fn settle(&mut self, request: &SettleRequest) -> Result<(), ClientError> {
        let lease = request.lease;
        self.forget(lease);
        let settled = self.client.settle(request).await;
        if settled.as_ref().is_err_and(is_passing) {
            // Still ours to settle, so still ours to renew, unless it was begun anew meanwhile.
            self.leases.entry(lease.arrival).or_insert(lease);
        }
        settled.map(drop)
    }

    /// Renews it no longer.
    fn forget(&mut self, lease: Lease) {
        if self.leases.get(&lease.arrival) == Some(&lease) {
            self.leases.remove(&lease.arrival);
        }
    }
}

/// What is told of a message when its slot is free again.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) lease: Lease,
    /// Whether a command ran for it.
    pub(crate) has_run: bool,
    /// One line for people; none when all is well.
    pub(crate) note: Option<String>,
}

/// Handles one message. `is_lost` turns true when its lease is another's.
pub(crate) async fn handle(
    shop: Arc<Shop>,
    message: Claimed,
    is_lost: watch::Receiver<bool>,
) -> Finished {
    let lease = message.lease();
    let name = name_of(&message);
    let finished = |has_run, note: Option<String>| Finished {
        lease,
        has_run,
        note: note.map(|note| format!("{name}: {note}")),
    };
    if shop.orders.now() > Order::Work {
        // Claimed in the moment in which the worker was told to stop.
        let back = Verdict::Retry {
            delay_ms: Some(0),
            reason: "the worker was stopped".to_owned(),
        };
        let _ = settle(&shop, &message, back).await;
        return finished(false, None);
    }
    let attempt = match begin(&shop, &message).await {
        Ok(attempt) => attempt,
        // Nothing runs that was not counted. The lease ends, and the message is handed out again.
        Err(error) => return finished(false, Some(format!("not begun: {error}"))),
    };
    let verdict = run(&shop, &message, attempt, is_lost).await;
    let Some(verdict) = verdict else {
        shop.desk.lock().await.forget(lease);
        let note = format!("attempt {attempt} was stopped: the lease is lost");
        return finished(true, Some(note));
    };
    let is_done = matches!(verdict, Verdict::Done { .. });
    let told = told(&verdict);
    let note = match settle(&shop, &message, verdict).await {
        Ok(()) if is_done => None,
        Ok(()) => Some(format!("attempt {attempt} {told}")),
        Err(error) => Some(format!("attempt {attempt} {told}; not recorded: {error}")),
    };
    finished(true, note)
}

async fn begin(shop: &Shop, message: &Claimed) -> Result<u32, ClientError> {
    if message.is_ephemeral {
        return Ok(1);
    }
    shop.desk.lock().await.begin(message.lease()).await
}

/// Runs the command; none when what came of it is nobody's business any more.
async fn run(
    shop: &Shop,
    message: &Claimed,
    attempt: u32,
    mut is_lost: watch::Receiver<bool>,
) -> Option<Verdict> {
    let mut child = match Child::start(&shop.exec, message, attempt) {
        Ok(child) => child,
        Err(error) => {
            return Some(Verdict::Retry {
                delay_ms: Some(REST_MS),
                reason: format!("the command could not be started: {error}"),
            });
        }
    };
    let lost = async {
        if is_lost.wait_for(|is_lost| *is_lost).await.is_err() {
            // Nobody renews leases any more, which is no reason to stop by itself.
            std::future::pending::<()>().await;
        }
    };
    let (status, was_stopped, was_lost) = tokio::select! {
        status = child.wait() => (status, false, false),
        () = shop.orders.until(Order::Terminate) => {
            (child.stop(shop.orders.until(Order::Kill)).await, true, false)
        }
        () = lost => (child.stop(shop.orders.until(Order::Kill)).await, true, true),
    };
    let output = child.output().await;
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return Some(Verdict::Failed {
                reason: format!("the command was lost sight of: {error}"),
                output,
            });
        }
    };
    let verdict = if was_stopped {
        verdict_of_stopped(status, output)
    } else {
        verdict_of(status, output)
    };
    // What is done is done, whoever has the message now; anything else is theirs to say.
    let is_ours = !was_lost || matches!(verdict, Verdict::Done { .. } | Verdict::Dead { .. });
    is_ours.then_some(verdict)
}

/// Tells the daemon until it has heard.
async fn settle(shop: &Shop, message: &Claimed, verdict: Verdict) -> Result<(), ClientError> {
    if message.is_ephemeral {
        return Ok(());
    }
    let request = SettleRequest {
        lease: message.lease(),
        verdict,
    };
    let mut failures = 0;
    let told = async {
        loop {
            let outcome = shop.desk.lock().await.settle(&request).await;
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if is_passing(&error) => {
                    failures += 1;
                    tokio::time::sleep(pause_after(failures)).await;
                }
                Err(error) => return Err(error),
            }
        }
    };
    let too_late = async {
        shop.orders.until(Order::Terminate).await;
        let hurry = async {
            shop.orders.until(Order::Kill).await;
            tokio::time::sleep(LAST_WORD_IN_A_HURRY_WITHIN).await;
        };
        let _ = tokio::time::timeout(LAST_WORD_WITHIN, hurry).await;
    };
    tokio::select! {
        told = told => told,
        () = too_late => Err(ClientError::TimedOut { seconds: LAST_WORD_WITHIN.as_secs() }),
    }
}

fn name_of(message: &Claimed) -> String {
    match &message.id {
        Some(id) => id.to_string(),
        None => format!("an ephemeral message from {}", message.sender),
    }
}
