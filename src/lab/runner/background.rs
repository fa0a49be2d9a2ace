//! What runs beside the steps: loads, consumers and workers.
//!
//! Each is a task with a topic and a node, told to end by a flag and waited for; whatever is left ends
//! with the run. They outlive restarts of their node: a daemon that is away is asked again.
//! What ends one for good is a trouble, which ends the step that runs then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::follow::Follow;
use super::worker::Worker;
use crate::api::documents::{AcknowledgeRequest, SendQuery, whole_ms};
use crate::api::work::ClaimRequest;
use crate::api::{Client, ClientError};
use crate::exit::Exit;
use crate::lab::Machine;
use crate::lab::ledger::{Ledger, Stream, Tally, payload};
use crate::lab::step::{Load, Work};
use crate::message::Sent;
use crate::{DeliveryClass, ReceiptId};

/// Pause before a node that did not answer is asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long one question waits for a message.
const CLAIM_WAIT: Duration = Duration::from_millis(500);
/// Messages taken at once.
const CLAIM_COUNT: usize = 64;
/// Troubles that are told at once; what follows them is most often their doing.
const TROUBLES_TOLD_MAX: usize = 5;

/// Everything that runs beside the steps, and the books.
#[derive(Debug, Default)]
pub(super) struct Background {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<Task>>,
    loads: AtomicU32,
    /// How far `settle` has followed each stream.
    follows: Mutex<BTreeMap<Stream, Follow>>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    ledger: Mutex<Ledger>,
    /// By stream, in the order in which they were accepted.
    receipts: Mutex<BTreeMap<Stream, Vec<ReceiptId>>>,
    troubles: watch::Sender<Vec<String>>,
}

#[derive(Debug)]
struct Task {
    kind: Kind,
    topic: String,
    node: String,
    stop: watch::Sender<bool>,
    running: JoinSet<()>,
    /// It ends by itself.
    has_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Load,
    Consumer,
    Worker,
}

impl Shared {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The receipts of a stream from a place on.
    pub(super) fn receipts_from(&self, stream: &Stream, first: usize) -> Vec<ReceiptId> {
        let receipts = self.receipts.lock().unwrap_or_else(PoisonError::into_inner);
        let of = receipts
            .get(stream)
            .and_then(|receipts| receipts.get(first..));
        of.unwrap_or_default().to_vec()
    }

    fn accept(&self, stream: &Stream, receipt: ReceiptId) {
        self.ledger().accept(stream);
        let mut receipts = self.receipts.lock().unwrap_or_else(PoisonError::into_inner);
        receipts.entry(stream.clone()).or_default().push(receipt);
    }

    pub(super) fn tell(&self, text: String) {
        self.troubles.send_modify(|troubles| troubles.push(text));
    }
}

impl Background {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Something went wrong beside the steps.
    pub(super) fn tell(&self, text: String) {
        self.shared.tell(text);
    }

    /// What went wrong beside the steps, if anything did.
    pub(super) fn trouble(&self) -> Option<String> {
        told(&self.shared.troubles.borrow())
    }

    /// Waits until something goes wrong beside the steps.
    pub(super) async fn troubled(&self) -> String {
        let mut troubles = self.shared.troubles.subscribe();
        let heard = troubles.wait_for(|troubles| !troubles.is_empty()).await;
        let heard = heard.ok().and_then(|troubles| told(&troubles));
        match heard {
            Some(troubles) => troubles,
            // The sender is this one's own, so it cannot be gone.
            None => std::future::pending().await,
        }
    }

    /// How far streams were followed; whoever takes it puts it back.
    pub(super) fn follows(&self) -> MutexGuard<'_, BTreeMap<Stream, Follow>> {
        self.follows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tally(&self) -> Tally {
        self.shared.ledger().tally()
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything that runs: workers with their commands, the rest as it stands.
    pub(super) async fn abandon(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        // A worker has commands of its own to end, which would go on without it.
        for worker in tasks.iter().filter(|task| task.kind == Kind::Worker) {
            worker.stop.send_replace(true);
        }
        for task in &mut tasks {
            if task.kind == Kind::Worker {
                // Bounded by the worker's task itself.
                while task.running.join_next().await.is_some() {}
            }
            task.running.shutdown().await;
        }
    }

    /// Whether a consumer or worker of a topic runs on a node.
    pub(super) fn consumes(&self, topic: &str, node: &str) -> bool {
        self.runs(Kind::Consumer, topic, node) || self.runs(Kind::Worker, topic, node)
    }

    pub(super) fn runs(&self, kind: Kind, topic: &str, node: &str) -> bool {
        let is_it = |task: &Task| task.kind == kind && task.topic == topic && task.node == node;
        self.tasks().iter().any(is_it)
    }

    fn begin<F>(
        &self,
        kind: Kind,
        (topic, node): (&str, &str),
        has_end: bool,
        task: impl FnOnce(watch::Receiver<bool>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let mut running = JoinSet::new();
        running.spawn(task(stopped));
        self.tasks().push(Task {
            kind,
            topic: topic.to_owned(),
            node: node.to_owned(),
            stop,
            running,
            has_end,
        });
    }

    /// Ends loads that have no end of their own, and waits for all.
    pub(super) async fn end_loads(&self) {
        let ending: Vec<Task> = {
            let mut tasks = self.tasks();
            let is_load = |task: &mut Task| task.kind == Kind::Load;
            tasks.extract_if(.., is_load).collect()
        };
        for task in ending.iter().filter(|task| !task.has_end) {
            // One that ended by itself hears nothing.
            let _ = task.stop.send(true);
        }
        for mut task in ending {
            while task.running.join_next().await.is_some() {}
        }
    }

    /// Ends those that fit, and waits for them; says how many there were.
    pub(super) async fn end(&self, fits: impl Fn(Kind, &str, &str) -> bool) -> usize {
        let ending: Vec<Task> = {
            let mut tasks = self.tasks();
            let is_ending = |task: &mut Task| fits(task.kind, &task.topic, &task.node);
            tasks.extract_if(.., is_ending).collect()
        };
        for task in &ending {
            // One that ended by itself hears nothing.
            let _ = task.stop.send(true);
        }
        let count = ending.len();
        for mut task in ending {
            while task.running.join_next().await.is_some() {}
        }
        count
    }

    // --- loads ---

    /// The number of another load.
    pub(super) fn next_load(&self) -> u32 {
        self.loads.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn load(&self, sender: &Machine, stream: Stream, plan: &Load) {
        self.shared.ledger().open(stream.clone());
        let (client, plan, shared) = (sender.client(), plan.clone(), Arc::clone(&self.shared));
        let (topic, node) = (stream.topic.clone(), stream.from.clone());
        let has_end = plan.count.is_some() || plan.lasts.is_some();
        self.begin(Kind::Load, (&topic, &node), has_end, |stop| {
            send_all(client, stream, plan, shared, stop)
        });
    }

    // --- consumers ---

    pub(super) fn consume(&self, node: &Machine, topic: &str, rate: Option<u64>) {
        let consumer = self.consumer(node, topic, rate);
        self.begin(Kind::Consumer, (topic, node.name()), false, |stop| {
            consumer.run(stop)
        });
    }

    fn consumer(&self, node: &Machine, topic: &str, rate: Option<u64>) -> Consumer {
        Consumer {
            node: node.name().to_owned(),
            topic: topic.to_owned(),
            rate,
            client: node.client(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Takes what is there now, beside the consumer that runs; says how many messages it was.
    pub(super) async fn sweep(&self, node: &Machine, topic: &str) -> Result<usize, ClientError> {
        let mut consumer = self.consumer(node, topic, None);
        consumer.take(Duration::ZERO).await
    }

    // --- workers ---

    pub(super) fn work(&self, node: &Machine, plan: &Work) -> Result<(), String> {
        let worker = Worker::start(node, plan)?;
        self.shared.ledger().worked(node.name(), &plan.topic);
        let shared = Arc::clone(&self.shared);
        let node = node.name();
        self.begin(
            Kind::Worker,
            (&plan.topic, node),
            false,
            |mut stop| async move {
                let told_to_stop = async move { ordered(&mut stop).await };
                if let Some(trouble) = worker.run(told_to_stop).await {
                    shared.tell(trouble);
                }
            },
        );
        Ok(())
    }
}

/// Troubles as one text; none where there are none.
fn told(troubles: &[String]) -> Option<String> {
    let first: Vec<&str> = troubles
        .iter()
        .take(TROUBLES_TOLD_MAX)
        .map(String::as_str)
        .collect();
    (!first.is_empty()).then(|| first.join("\n"))
}

/// Waits until a task is told to end, or nobody is there any more who could tell.
async fn ordered(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Whether asking again may help: the daemon is away, full, or on its way.
pub(super) fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::NotRunning { .. }
        | ClientError::Unreachable { .. }
        | ClientError::Lost { .. }
        | ClientError::TimedOut { .. } => true,
        ClientError::Answer(answer) => matches!(
            answer.exit(),
            Exit::Full | Exit::Internal | Exit::TimedOut | Exit::NotYet | Exit::Unreachable
        ),
        _ => false,
    }
}

/// Whether the request may have been carried out all the same.
fn is_unclear(error: &ClientError) -> bool {
    match error {
        ClientError::Lost { .. } | ClientError::TimedOut { .. } => true,
        ClientError::Answer(answer) => matches!(answer.exit(), Exit::TimedOut | Exit::Internal),
        _ => false,
    }
}

async fn send_all(
    mut client: Client,
    stream: Stream,
    plan: Load,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let gap = Duration::from_secs(1) / u32::try_from(plan.rate.max(1)).unwrap_or(u32::MAX);
    let began = Instant::now();
    let mut due = began;
    let mut number = 0;
    while plan.count.is_none_or(|count| number < count)
        && plan.lasts.is_none_or(|lasts| began.elapsed() < lasts)
    {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            () = ordered(&mut stop) => return,
        }
        // A node that was away is not sent everything at once when it is back.
        due = Instant::now().max(due + gap);
        number += 1;
        let payload = Bytes::from(payload(&stream, number, plan.bytes));
        let query = query(&stream, number, plan.class);
        let mut is_unknown = false;
        loop {
            match client.send(&query, payload.clone()).await {
                Ok(Sent::Accepted(receipt)) => {
                    shared.accept(&stream, receipt.id);
                    break;
                }
                Ok(_) => {
                    shared.tell(format!("{stream}: a rule made its messages ephemeral"));
                    return;
                }
                Err(error) if is_passing(&error) => {
                    is_unknown |= is_unclear(&error);
                    // What may have been accepted has to be known before the load can end.
                    if *stop.borrow() && !is_unknown {
                        return;
                    }
                    tokio::time::sleep(ASK_AGAIN_AFTER).await;
                }
                Err(error) => {
                    shared.tell(format!("{stream}: message {number} was refused: {error}"));
                    return;
                }
            }
        }
    }
}

fn query(stream: &Stream, number: u64, class: Option<DeliveryClass>) -> SendQuery {
    SendQuery {
        peer: stream.to.clone(),
        topic: stream.topic.clone(),
        class,
        id: Some(format!("lab-{}-{number}", stream.load)),
        ..SendQuery::default()
    }
}

struct Consumer {
    node: String,
    topic: String,
    rate: Option<u64>,
    client: Client,
    shared: Arc<Shared>,
}

impl Consumer {
    async fn run(mut self, stop: watch::Receiver<bool>) {
        let gap = self
            .rate
            .map(|rate| Duration::from_secs(1) / u32::try_from(rate.max(1)).unwrap_or(u32::MAX));
        while !*stop.borrow() {
            // Never broken off: what was claimed and not acknowledged would be nobody's until its
            // lease ends.
            let pause = match self.take(CLAIM_WAIT).await {
                Ok(_) => gap.unwrap_or_default(),
                Err(error) if is_passing(&error) => ASK_AGAIN_AFTER,
                Err(error) => {
                    let text =
                        format!("the consumer of {} on `{}`: {error}", self.topic, self.node);
                    self.shared.tell(text);
                    return;
                }
            };
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Takes and acknowledges what comes in so much time; says how many messages it was.
    async fn take(&mut self, wait: Duration) -> Result<usize, ClientError> {
        let request = ClaimRequest {
            topic: self.topic.clone(),
            count: if self.rate.is_some() { 1 } else { CLAIM_COUNT },
            lease_ms: None,
            executes: false,
            wait_ms: whole_ms(wait),
            lender: None,
        };
        let claimed = self.client.claim(&request).await?;
        let mut arrivals = Vec::new();
        // An ephemeral message has no place in the inbox, and is in no book.
        for message in claimed.messages.iter().filter(|it| !it.is_ephemeral) {
            let bytes = &message.payload.0;
            let mut ledger = self.shared.ledger();
            ledger.receive(&self.node, message.arrival, &message.topic, bytes);
            arrivals.push(message.arrival);
        }
        if arrivals.is_empty() {
            return Ok(claimed.messages.len());
        }
        let request = AcknowledgeRequest {
            arrivals,
            released: Vec::new(),
        };
        let told = self.client.acknowledge(&request).await?;
        if told.acknowledged == request.arrivals.len() {
            let mut ledger = self.shared.ledger();
            ledger.acknowledged(&self.node, &request.arrivals);
        }
        Ok(claimed.messages.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ApiError;

    #[test]
    fn what_the_daemon_may_have_done_all_the_same_is_unclear() {
        let answer = |exit: Exit| {
            ClientError::Answer(ApiError {
                code: "no".into(),
                text: "no".into(),
                exit: exit.code(),
                hint: None,
            })
        };
        for (exit, expected) in [
            (Exit::TimedOut, true),
            (Exit::Internal, true),
            (Exit::Full, false),
            (Exit::Refused, false),
        ] {
            assert_eq!(is_unclear(&answer(exit)), expected, "{exit:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_trouble_hears_of_it_and_so_does_who_asks_later() {
        let background = Background::default();
        assert_eq!(background.trouble(), None);
        let (heard, ()) = tokio::join!(background.troubled(), async {
            background.tell("the worker ended".into());
        });
        assert_eq!(heard, "the worker ended");
        background.tell("the consumer, too".into());
        let both = "the worker ended\nthe consumer, too";
        assert_eq!(background.trouble().as_deref(), Some(both));
    }
}
