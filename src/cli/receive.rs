//! `receive`: waiting payloads, one a line; each is acknowledged after it was written out.
//!
//! Messages are claimed for 30 s, written and flushed one by one, and acknowledged together.
//! What could not be written is given back at once, so that the next one gets it in its order;
//! so is what a slow reader did not take before the claim ended.
//! CRASH: a message that was written but not acknowledged comes again; none is lost.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use packhorse::api::documents::{
    AcknowledgeRequest, Document, LISTING_COUNT_DEFAULT, RECEIVE_COUNT_MAX, ReceivedMessages,
    schema as documents, whole_ms,
};
use packhorse::api::work::{ClaimRequest, MessageLine, schema};
use packhorse::api::{Client, ClientError};
use packhorse::claim::LEASE_DEFAULT;
use packhorse::time::{parse_duration, short_duration};
use packhorse::{Claimed, Exit, Received};
use tokio::time::Instant;

use crate::cli::folder::DataFolder;
use crate::cli::patience::{Patience, is_passing, pause_after};
use crate::cli::signals::Signals;
use crate::cli::{Failure, Screen};

/// Messages claimed at once; few enough to be written long before their claim ends.
const CLAIM_COUNT: usize = 256;
/// The same for a command that runs on: others may wait for messages too.
const CLAIM_COUNT_FOLLOWING: usize = 64;
/// How long one question waits for a message; the next one follows at once.
const WAIT: Duration = Duration::from_secs(20);
/// How long an interrupted command tries to say what it printed.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(2);

const _: () = assert!(CLAIM_COUNT <= RECEIVE_COUNT_MAX);

#[derive(Debug, clap::Args)]
pub(crate) struct ReceiveArgs {
    /// Which messages
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Most messages to print: 100 unless given, and no limit with --follow
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Wait for the first message when none is there, then print what is there
    #[arg(long, conflicts_with = "follow")]
    wait: bool,
    /// How long to wait for it; for ever unless given
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Print messages as they come, until told to stop
    #[arg(long)]
    follow: bool,
    /// End each payload with a zero byte instead of a newline
    #[arg(short = '0', long, conflicts_with = "jsonl")]
    null: bool,
    /// Print one JSON document per message, each on a line of its own
    #[arg(long)]
    jsonl: bool,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Payloads with this byte after each.
    Ended(u8),
    /// A document a line.
    Lines,
    /// One document for all.
    Document,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: ReceiveArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let form = match (screen.is_json(), args.jsonl, args.null) {
        (true, false, false) if !args.follow => Form::Document,
        (true, ..) => {
            return Err(Failure::usage(
                "--json prints one document: it goes with neither --follow, --jsonl nor -0",
            )
            .with_hint("--jsonl prints one document a message"));
        }
        (false, true, _) => Form::Lines,
        (false, false, true) => Form::Ended(0),
        (false, false, false) => Form::Ended(b'\n'),
    };
    let default = if args.follow {
        u64::MAX
    } else {
        LISTING_COUNT_DEFAULT as u64
    };
    let count = args.count.unwrap_or(default);
    let mut receiver = Receiver {
        folder,
        client: folder.client()?,
        left: usize::try_from(count).unwrap_or(usize::MAX),
        form,
        screen,
        patience: Patience::default(),
        deadline: args.timeout.map(|timeout| Instant::now() + timeout),
        is_waiting: args.wait || args.follow,
        args,
    };
    let mut signals = Signals::install()?;
    receiver.run(&mut signals).await
}

struct Receiver<'a> {
    folder: &'a DataFolder,
    args: ReceiveArgs,
    client: Client,
    left: usize,
    form: Form,
    screen: &'a Screen,
    patience: Patience,
    deadline: Option<Instant>,
    /// Whether there is something to wait for when no message is there.
    is_waiting: bool,
}

impl Receiver<'_> {
    async fn run(&mut self, signals: &mut Signals) -> Result<Exit, Failure> {
        while self.left > 0 {
            let claimed = tokio::select! {
                claimed = self.claim() => claimed?,
                exit = signals.next() => return Ok(self.told_to_stop(exit)),
            };
            let Some(claimed) = claimed else {
                continue;
            };
            let claimed_at = Instant::now();
            if claimed.is_empty() && self.form != Form::Document {
                if !self.is_waiting {
                    break;
                }
                if self.deadline.is_some_and(|end| end <= Instant::now()) {
                    return Err(self.timed_out());
                }
                continue;
            }
            let (written, outcome) = self.write(&claimed, claimed_at, signals).await;
            self.acknowledge(&claimed, written, outcome.is_ok()).await?;
            if let Some(exit) = outcome? {
                return Ok(self.told_to_stop(exit));
            }
            self.left = self.left.saturating_sub(written);
            // With --wait the first ones were waited for; what is there beside them is there now.
            self.is_waiting = self.args.follow;
            if self.form == Form::Document {
                break;
            }
        }
        Ok(Exit::Done)
    }

    /// Claims the next messages; none when the daemon is to be asked again.
    async fn claim(&mut self) -> Result<Option<Arc<[Claimed]>>, Failure> {
        tokio::time::sleep(self.patience.pause()).await;
        let count_max = match (self.form, self.args.follow) {
            (Form::Document, _) => RECEIVE_COUNT_MAX,
            (_, true) => CLAIM_COUNT_FOLLOWING,
            (_, false) => CLAIM_COUNT,
        };
        let wait = match self.deadline {
            _ if !self.is_waiting => Duration::ZERO,
            Some(end) => WAIT.min(end.saturating_duration_since(Instant::now())),
            None => WAIT,
        };
        let wait = self.patience.wait(wait);
        let request = ClaimRequest {
            topic: self.args.topic.clone(),
            count: self.left.min(count_max),
            lease_ms: None,
            executes: false,
            wait_ms: whole_ms(wait),
            lender: None,
        };
        match self.client.claim(&request).await {
            Ok(claimed) => {
                self.patience.answered(self.screen);
                Ok(Some(claimed.messages.into()))
            }
            Err(error) if self.is_waiting && self.patience.bears(&error, self.screen) => {
                if self.deadline.is_some_and(|end| end <= Instant::now()) {
                    return Err(self.timed_out());
                }
                Ok(None)
            }
            Err(error) => Err(self.folder.failure(error)),
        }
    }

    /// Writes what was claimed; says how much is out, also when it ended in the middle.
    async fn write(
        &self,
        claimed: &Arc<[Claimed]>,
        claimed_at: Instant,
        signals: &mut Signals,
    ) -> (usize, Result<Option<Exit>, Failure>) {
        let written = Arc::new(AtomicUsize::new(0));
        let (batch, count, form) = (Arc::clone(claimed), Arc::clone(&written), self.form);
        // Beside the runtime: a reader that does not read must not keep signals from being heard.
        let writing =
            tokio::task::spawn_blocking(move || write_all(&batch, form, claimed_at, &count));
        let outcome = tokio::select! {
            outcome = writing => match outcome {
                Ok(Ok(())) => Ok(None),
                Ok(Err(error)) => Err(error.into()),
                Err(error) => Err(Failure::new(Exit::Internal, error.to_string())),
            },
            exit = signals.next() => Ok(Some(exit)),
        };
        (written.load(Ordering::Acquire), outcome)
    }

    /// Says what is out, and gives back what could not be written, so that it keeps its place.
    async fn acknowledge(
        &mut self,
        claimed: &[Claimed],
        written: usize,
        is_whole: bool,
    ) -> Result<(), Failure> {
        let durable = |messages: &[Claimed]| {
            let durable = messages.iter().filter(|message| !message.is_ephemeral);
            durable.map(|message| message.arrival).collect()
        };
        let (out, back) = claimed.split_at(written.min(claimed.len()));
        let request = AcknowledgeRequest {
            arrivals: durable(out),
            released: durable(back),
        };
        if request.arrivals.is_empty() && request.released.is_empty() {
            return Ok(());
        }
        let has_patience = is_whole && self.is_waiting;
        let client = &mut self.client;
        // Not called off by an interruption: what was printed should not come again.
        let told = acknowledge(client, &request, has_patience, self.screen);
        told.await.map_err(|error| self.folder.failure(error))
    }

    fn told_to_stop(&self, exit: Exit) -> Exit {
        // Only what was meant to run on has done its work when it is told to stop.
        if self.args.follow {
            exit
        } else {
            Exit::Interrupted
        }
    }

    fn timed_out(&self) -> Failure {
        let waited = self.args.timeout.unwrap_or_default();
        Failure::new(
            Exit::TimedOut,
            format!(
                "no message on `{}` within {}",
                self.args.topic,
                short_duration(waited)
            ),
        )
    }
}

/// Repeats an acknowledgement while the daemon is away: an unheard one makes messages come twice.
async fn acknowledge(
    client: &mut Client,
    request: &AcknowledgeRequest,
    has_patience: bool,
    screen: &Screen,
) -> Result<(), ClientError> {
    let mut failures = 0;
    let mut interrupted = std::pin::pin!(async {
        let _ = tokio::signal::ctrl_c().await;
        tokio::time::sleep(LAST_WORD_WITHIN).await;
    });
    loop {
        match client.acknowledge(request).await {
            Ok(_) => {
                if failures > 0 {
                    screen.note("the daemon is back");
                }
                return Ok(());
            }
            Err(error) if has_patience && is_passing(&error) => {
                if failures == 0 {
                    screen.note(&format!("waiting for the daemon: {error}"));
                }
                failures += 1;
                tokio::select! {
                    () = tokio::time::sleep(pause_after(failures)) => {}
                    () = interrupted.as_mut() => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Writes messages and counts them; stops before one whose claim may have ended.
fn write_all(
    messages: &[Claimed],
    form: Form,
    claimed_at: Instant,
    written: &AtomicUsize,
) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if form == Form::Document {
        let document = ReceivedMessages {
            messages: messages.iter().map(received).collect(),
        };
        serde_json::to_writer(&mut stdout, &Document::new(documents::RECEIVED, document))?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
        written.store(messages.len(), Ordering::Release);
        return Ok(());
    }
    for message in messages {
        if claimed_at.elapsed() >= LEASE_DEFAULT {
            // Perhaps another one has it already; printed here, it would be handled twice.
            return Ok(());
        }
        match form {
            Form::Ended(end) => {
                stdout.write_all(&message.payload.0)?;
                stdout.write_all(&[end])?;
            }
            Form::Lines | Form::Document => {
                let line = MessageLine::of(message);
                serde_json::to_writer(&mut stdout, &Document::new(schema::MESSAGE, line))?;
                stdout.write_all(b"\n")?;
            }
        }
        // ORDER: flushed before it is acknowledged, or a crash between the two loses it.
        stdout.flush()?;
        written.fetch_add(1, Ordering::Release);
    }
    Ok(())
}

fn received(message: &Claimed) -> Received {
    Received {
        arrival: message.arrival,
        message: message.id,
        topic: message.topic.clone(),
        sender: message.sender.clone(),
        sender_id: message.sender_id,
        class: message.class,
        born: message.born,
        headers: message.headers.clone(),
        attempts: message.attempts,
        is_ephemeral: message.is_ephemeral,
        payload: message.payload.0.clone(),
    }
}
