//! `work`: a command for every message of a topic, several at once, until told to stop.
//!
//! It claims only what it has free slots for, so a stuck command delays nobody else's work.
//! `slot` takes one message from its claim to its verdict, `child` runs the command, `verdict`
//! reads its end, `orders` tells all of them to stop.
//! A daemon that is restarted is waited for; commands run on meanwhile.

mod child;
mod orders;
mod slot;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use packhorse::api::documents::whole_ms;
use packhorse::api::work::{CLAIM_WAIT_MAX, ClaimRequest, ClaimedMessages, Renewed};
use packhorse::api::{Client, ClientError};
use packhorse::claim::{LEASE_MAX, LEASE_MIN};
use packhorse::time::parse_duration;
use packhorse::{Claimed, Exit, Lease};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::cli::folder::DataFolder;
use crate::cli::patience::Patience;
use crate::cli::signals::Signals;
use crate::cli::work::orders::{Order, Orders};
use crate::cli::work::slot::{Desk, Finished, Shop, handle};
use crate::cli::{Failure, Screen};

/// Most commands at once.
const JOBS_MAX: usize = 64;
/// Leases are renewed three times in their life: two answers may be lost.
const RENEWALS_PER_LEASE: u32 = 3;
/// How long running commands may go on once the worker is told to stop.
const FINISH_WITHIN: Duration = Duration::from_secs(10);
/// How long one question waits for a message; the next one follows at once.
const WAIT: Duration = Duration::from_secs(20);
/// Notes that wait for a reader of stderr; further ones are dropped.
const NOTES_MAX: usize = 64;
/// How long the last notes may take.
const NOTES_WITHIN: Duration = Duration::from_millis(500);

const _: () = assert!(WAIT.as_secs() <= CLAIM_WAIT_MAX.as_secs());

const CONTRACT: &str = "\
The command runs as `sh -c CMD`, once per message, with the payload on its stdin and
  PACKHORSE_MESSAGE_ID  PACKHORSE_ATTEMPT  PACKHORSE_TOPIC  PACKHORSE_SENDER  PACKHORSE_SENDER_ID
in its environment. How it ends decides:
  exit 0        done; the sender hears so, with the first 4 KiB of output
  exit 75       not now: tried again later, and no failure is counted
  exit 65       never: a dead letter at once; the sender hears so
  anything else a failure: tried again after a pause that grows from 1 s to 5 min;
                a dead letter after ten
Only messages of senders with the grant `execute` for the topic start a command.
A command may run more than once for one message, as after a crash; PACKHORSE_ATTEMPT counts.
When 100 attempts in a row end with the worker's death, the message is a dead letter.

SIGTERM and SIGINT: nothing new begins, running commands have 10 s to end, then they are
stopped and their messages go back. A second signal does so at once.";

#[derive(Debug, clap::Args)]
#[command(after_help = CONTRACT)]
pub(crate) struct WorkArgs {
    /// Which messages
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// What to run for each, as `sh -c CMD`
    #[arg(long, value_name = "CMD", value_parser = parse_exec)]
    exec: String,
    /// How many commands may run at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_jobs)]
    jobs: usize,
    /// How long a message stays with a worker that is not heard of any more
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_lease)]
    lease: Duration,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End when nothing waits any more, instead of waiting for messages
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: WorkArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let mut signals = Signals::install()?;
    let mut worker = Worker::new(folder, args, screen)?;
    let outcome = worker.work(&mut signals).await;
    worker.finish(&mut signals).await;
    worker.last_words().await;
    outcome
}

/// A claim that came back, with the client that made it.
type ClaimEnd = (Client, Result<ClaimedMessages, ClientError>);
/// A renewal that came back; none when there was nothing to renew.
type RenewalEnd = Result<Option<Renewed>, ClientError>;

struct Worker<'a> {
    folder: &'a DataFolder,
    args: WorkArgs,
    screen: &'a Screen,
    shop: Arc<Shop>,
    orders: watch::Sender<Order>,
    patience: Patience,
    /// Messages that may still be begun.
    left: u64,
    /// Nothing more is to be claimed.
    is_over: bool,
    slots: JoinSet<Finished>,
    /// What the slots hold, by arrival, and how each hears that it is lost.
    held: BTreeMap<u64, (Lease, watch::Sender<bool>)>,
    /// A daemon that was away has forgotten all leases: nothing is claimed before they are renewed,
    /// or this worker would be handed what it has already.
    is_forgotten: bool,
    /// Who knows the leases that are held.
    lender: Option<String>,
    /// The claim under way: at most one, so that it is never called off half-way.
    claiming: JoinSet<ClaimEnd>,
    claimer: Option<Client>,
    /// The renewal under way: at most one.
    renewing: JoinSet<RenewalEnd>,
    /// Notes for people that are being written.
    notes: JoinSet<()>,
}

impl<'a> Worker<'a> {
    fn new(
        folder: &'a DataFolder,
        args: WorkArgs,
        screen: &'a Screen,
    ) -> Result<Worker<'a>, Failure> {
        let (orders, heard) = Orders::new();
        let shop = Shop {
            exec: args.exec.clone(),
            desk: Mutex::new(Desk::new(folder.client()?)),
            orders: heard,
        };
        Ok(Worker {
            folder,
            left: args.count.unwrap_or(u64::MAX),
            args,
            screen,
            shop: Arc::new(shop),
            orders,
            patience: Patience::default(),
            is_over: false,
            slots: JoinSet::new(),
            held: BTreeMap::new(),
            is_forgotten: false,
            lender: None,
            claiming: JoinSet::new(),
            claimer: Some(folder.client()?),
            renewing: JoinSet::new(),
            notes: JoinSet::new(),
        })
    }

    /// Works until there is nothing more to do, or a signal comes.
    async fn work(&mut self, signals: &mut Signals) -> Result<Exit, Failure> {
        let mut renewals = tokio::time::interval(self.args.lease / RENEWALS_PER_LEASE);
        renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.claim();
            if self.claiming.is_empty() && self.slots.is_empty() && self.renewing.is_empty() {
                return Ok(Exit::Done);
            }
            tokio::select! {
                biased;
                exit = signals.next() => return Ok(exit),
                Some(finished) = self.slots.join_next() => self.on_finished(finished)?,
                Some(claimed) = self.claiming.join_next() => self.on_claimed(claimed)?,
                Some(renewed) = self.renewing.join_next() => self.on_renewed(renewed),
                _ = renewals.tick() => self.renew(),
            }
        }
    }

    /// Lets what runs come to an end: by itself, in order, at once.
    async fn finish(&mut self, signals: &mut Signals) {
        // What is claimed in this moment goes back when its lease ends.
        self.claiming.abort_all();
        if self.slots.is_empty() {
            return;
        }
        self.orders.send_replace(Order::Finish);
        let running = self.slots.len();
        self.say(format!("stopping: {running} still running"));
        let mut renewals = tokio::time::interval(self.args.lease / RENEWALS_PER_LEASE);
        let deadline = Instant::now() + FINISH_WITHIN;
        while !self.slots.is_empty() {
            let order = *self.orders.borrow();
            tokio::select! {
                Some(finished) = self.slots.join_next() => {
                    // A slot that panicked has ended too, which is all that counts now.
                    let _ = self.on_finished(finished);
                }
                () = tokio::time::sleep_until(deadline), if order < Order::Terminate => {
                    self.orders.send_replace(Order::Terminate);
                }
                _ = signals.next() => {
                    self.orders.send_replace(Order::Kill);
                }
                Some(renewed) = self.renewing.join_next() => self.on_renewed(renewed),
                _ = renewals.tick() => self.renew(),
            }
        }
    }

    /// Tells a person something, beside the work: a stderr that nobody reads holds up nothing.
    fn say(&mut self, note: String) {
        while self.notes.try_join_next().is_some() {}
        if self.notes.len() < NOTES_MAX {
            let screen = *self.screen;
            self.notes.spawn_blocking(move || screen.note(&note));
        }
    }

    /// Gives the last notes a moment.
    async fn last_words(&mut self) {
        let told = async { while self.notes.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(NOTES_WITHIN, told).await;
    }

    /// Asks for as many messages as there are free slots, unless that is under way.
    fn claim(&mut self) {
        let free = self.args.jobs.saturating_sub(self.slots.len());
        let count = free.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if self.is_over || count == 0 {
            return;
        }
        if self.is_forgotten && !self.held.is_empty() {
            self.renew();
            return;
        }
        let Some(mut client) = self.claimer.take() else {
            return;
        };
        let request = ClaimRequest {
            topic: self.args.topic.clone(),
            count,
            lease_ms: Some(whole_ms(self.args.lease)),
            executes: true,
            wait_ms: if self.args.once {
                0
            } else {
                whole_ms(self.patience.wait(WAIT))
            },
            // Who holds nothing can be handed nothing twice.
            lender: self.lender.clone().filter(|_| !self.held.is_empty()),
        };
        let pause = self.patience.pause();
        self.claiming.spawn(async move {
            tokio::time::sleep(pause).await;
            let claimed = client.claim(&request).await;
            (client, claimed)
        });
    }

    fn on_claimed(&mut self, end: Result<ClaimEnd, JoinError>) -> Result<(), Failure> {
        let (client, claimed) = end.map_err(|error| lost_task(&error))?;
        self.claimer = Some(client);
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) if self.patience.bears(&error, self.screen) => {
                self.is_forgotten = true;
                return Ok(());
            }
            Err(error) => return Err(self.folder.failure(error)),
        };
        self.patience.answered(self.screen);
        if !self.held.is_empty() && self.lender.as_ref() != Some(&claimed.lender) {
            // Another one than lent out what is held. What it handed out was asked for with
            // nothing in hand, so it is none of that.
            self.is_forgotten = true;
        } else {
            self.lender = Some(claimed.lender);
        }
        if self.args.once && claimed.messages.is_empty() && !self.is_forgotten {
            self.is_over = true;
        }
        for message in claimed.messages {
            self.begin(message);
        }
        Ok(())
    }

    fn begin(&mut self, message: Claimed) {
        self.left = self.left.saturating_sub(1);
        let (lose, is_lost) = watch::channel(false);
        if !message.is_ephemeral {
            let before = self.held.insert(message.arrival, (message.lease(), lose));
            if let Some((_, lose)) = before {
                // Its lease ended unnoticed, as while the machine slept: one run of it is enough.
                lose.send_replace(true);
            }
        }
        let shop = Arc::clone(&self.shop);
        self.slots.spawn(handle(shop, message, is_lost));
    }

    fn on_finished(&mut self, finished: Result<Finished, JoinError>) -> Result<(), Failure> {
        let finished = finished.map_err(|error| lost_task(&error))?;
        let arrival = finished.lease.arrival;
        let held = self.held.get(&arrival);
        if held.is_some_and(|(lease, _)| *lease == finished.lease) {
            self.held.remove(&arrival);
        }
        if !finished.has_run {
            self.left = self.left.saturating_add(1);
        }
        if let Some(note) = finished.note {
            self.say(note);
        }
        Ok(())
    }

    fn renew(&mut self) {
        // Still under way: the daemon is slow or away, and a second question would not help.
        if self.held.is_empty() || !self.renewing.is_empty() {
            return;
        }
        let lease_ms = whole_ms(self.args.lease);
        let pause = self.patience.pause();
        let shop = Arc::clone(&self.shop);
        self.renewing.spawn(async move {
            tokio::time::sleep(pause).await;
            shop.desk.lock().await.renew(lease_ms).await
        });
    }

    fn on_renewed(&mut self, end: Result<RenewalEnd, JoinError>) {
        let Ok(renewed) = end else {
            return;
        };
        let lost = match renewed {
            Ok(Some(renewed)) => {
                self.patience.answered(self.screen);
                self.lender = Some(renewed.lender);
                renewed.lost
            }
            // Nothing is begun yet: whoever speaks first has it.
            Ok(None) => {
                self.lender = None;
                Vec::new()
            }
            // No answer says nothing about the leases; the next question comes soon.
            Err(error) => {
                self.is_forgotten |= self.patience.bears(&error, self.screen);
                return;
            }
        };
        self.is_forgotten = false;
        for arrival in lost {
            if let Some((_, lose)) = self.held.get(&arrival) {
                lose.send_replace(true);
            }
        }
    }
}

fn lost_task(error: &JoinError) -> Failure {
    Failure::new(Exit::Internal, format!("a slot was lost: {error}"))
}

/// A shell takes an empty command for one that succeeds: every message would be done unseen.
fn parse_exec(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("an empty command would call every message done".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(jobs @ 1..=JOBS_MAX) => Ok(jobs),
        _ => Err(format!(
            "`{text}` jobs at once: the limits are 1 and {JOBS_MAX}"
        )),
    }
}

fn parse_lease(text: &str) -> Result<Duration, String> {
    let lease = parse_duration(text).map_err(|error| error.to_string())?;
    if !(LEASE_MIN..=LEASE_MAX).contains(&lease) {
        return Err(format!("a lease of `{text}`: the limits are 1s and 1h"));
    }
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_and_leases_stay_within_their_limits() {
        assert_eq!(parse_jobs("1"), Ok(1));
        assert_eq!(parse_jobs("64"), Ok(64));
        for wrong in ["0", "65", "-1", "many"] {
            let error = parse_jobs(wrong).expect_err(wrong);
            assert_eq!(
                error,
                format!("`{wrong}` jobs at once: the limits are 1 and 64")
            );
        }
        assert_eq!(parse_lease("1s"), Ok(LEASE_MIN));
        assert_eq!(parse_lease("1h"), Ok(LEASE_MAX));
        assert!(parse_lease("999ms").is_err());
        assert!(parse_lease("61m").is_err());
    }
}
