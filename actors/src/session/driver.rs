//! Runs one session's protocol machine over its streams and the store.
//!
//! The driver follows the one law: after any input it drains the machine's outputs, then waits
//! for the next input until the machine's deadline.
//! It decides nothing about delivery; it fetches, commits, seals and sends what the machine says.
//!
//! Every task it starts lives in its `JoinSet`s and dies with it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use packhorse_protocol::{
    epoch::Lane,
    error_class::ErrorClass,
    generation::SessionSecrets,
    grant::Grants,
    message::ControlFrame,
    session::{Input, Output, Session, SessionEvent, State},
    stream::{Side, StreamHeader, StreamKind},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
};

use super::{
    Wiring,
    acceptor::{Acceptor, Arrived},
    handshake::Accepted,
    stream::{
        self, ARRIVED_MAX, Brings, FRAMES_QUEUED_MAX, Incoming, Outgoing, StreamError, lane_of,
    },
};
use crate::{
    link::{LinkError, LinkHandle},
    store::{OutboxCounts, PeerNumber, StoreError},
};

/// How long a goodbye may take to leave.
const GOODBYE_WITHIN: Duration = Duration::from_millis(500);

/// Control frames that wait for the control stream: a heartbeat each 15 s, a goodbye.
const EARLY_MAX: usize = 8;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionExit {
    /// Who can act, and how dials go on.
    pub class: ErrorClass,
    /// What a person is told.
    pub reason: String,
}

impl SessionExit {
    pub(crate) fn new(class: ErrorClass, reason: impl Into<String>) -> Self {
        Self {
            class,
            reason: reason.into(),
        }
    }
}

/// What the actor tells its driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Command {
    #[default]
    Run,
    /// Finish what is being committed, say goodbye, end.
    Drain,
    /// A newer session takes over: end at once.
    Displace,
}

/// Queues to the streams' writers.
#[derive(Debug, Default)]
struct Writers {
    control: Option<mpsc::Sender<Outgoing>>,
    /// The listener's first heartbeat is due before the dialler's control stream is here.
    early: Vec<Outgoing>,
    mine: [Option<mpsc::Sender<Outgoing>>; 2],
    theirs: [Option<mpsc::Sender<Outgoing>>; 2],
}

impl Writers {
    fn all(&self) -> impl Iterator<Item = &mpsc::Sender<Outgoing>> {
        self.mine
            .iter()
            .chain(&self.theirs)
            .chain([&self.control])
            .flatten()
    }
}

/// One session's keys, shared by the driver and the acceptor of the peer's streams.
#[derive(Clone, Debug)]
pub(super) struct SharedSecrets(Arc<Mutex<SessionSecrets>>);

impl SharedSecrets {
    pub(super) fn lock(&self) -> MutexGuard<'_, SessionSecrets> {
        // Generations change by one assignment; a panic leaves them before or after it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Driver {
    wiring: Wiring,
    peer: PeerNumber,
    machine: Session,
    secrets: SharedSecrets,
    writers: Writers,
    arrived: mpsc::Receiver<Arrived>,
    counts: watch::Receiver<OutboxCounts>,
    grown: u64,
    /// Store operations under way; each ends in an input for the machine.
    operations: JoinSet<Result<Input, StoreError>>,
    streams: JoinSet<Result<(), StreamError>>,
    /// Writes that the machine does not wait for.
    facts: JoinSet<()>,
    link: LinkHandle,
}

impl Driver {
    /// Opens this side's streams and starts to accept the peer's.
    pub(super) async fn start(
        wiring: Wiring,
        peer: PeerNumber,
        accepted: Accepted,
    ) -> Result<Self, SessionExit> {
        let Accepted {
            link,
            side,
            secrets,
            ..
        } = accepted;
        let (link, peer_streams, _) = link.split();
        let (arrived_tx, arrived) = mpsc::channel(ARRIVED_MAX);
        let counts = wiring.store.outbox_counts(peer);
        let grown = counts.borrow().grown;
        let mut driver = Self {
            peer,
            machine: Session::new(side, wiring.env.monotonic_ms(), wiring.env.now_ms()),
            secrets: SharedSecrets(Arc::new(Mutex::new(secrets))),
            writers: Writers::default(),
            arrived,
            counts,
            grown,
            operations: JoinSet::new(),
            streams: JoinSet::new(),
            facts: JoinSet::new(),
            link,
            wiring,
        };
        let control = (side == Side::Dialler).then_some(StreamKind::Control);
        let kinds = control
            .into_iter()
            .chain([StreamKind::UserLane, StreamKind::SystemLane]);
        for (kind, number) in kinds.zip(1..) {
            driver.open(side, kind, number, &arrived_tx).await?;
        }
        driver.tell_grants().await;
        let acceptor = Acceptor {
            side,
            secrets: driver.secrets.clone(),
            into: arrived_tx,
        };
        driver.streams.spawn(acceptor.run(peer_streams));
        Ok(driver)
    }

    /// Says once what the peer may do here, so that its people see it.
    async fn tell_grants(&mut self) {
        let Ok(Some(record)) = self.wiring.store.peer(self.peer).await else {
            return;
        };
        let grants = record.grants.iter().map(ToString::to_string).collect();
        let told = Outgoing::Control(ControlFrame::Granted { grants });
        match &self.writers.control {
            // A new queue takes more than this.
            Some(queue) => drop(queue.try_send(told)),
            None => self.writers.early.push(told),
        }
    }

    async fn open(
        &mut self,
        side: Side,
        kind: StreamKind,
        number: u32,
        into: &mpsc::Sender<Arrived>,
    ) -> Result<(), SessionExit> {
        let (send, receive) = self.link.open().await.map_err(|error| lost(&error))?;
        let (header, sealer, opener) = {
            let secrets = self.secrets.lock();
            let header = StreamHeader {
                kind,
                generation: secrets.current(),
                number,
            };
            let (sealer, opener) = secrets
                .stream(&header, side, side)
                .map_err(|error| SessionExit::new(ErrorClass::Internal, error.to_string()))?;
            (header, sealer, opener)
        };
        let (queue, frames) = mpsc::channel(FRAMES_QUEUED_MAX);
        let brings = match lane_of(kind) {
            None => {
                self.writers.control = Some(queue);
                Brings::Control
            }
            Some(lane) => {
                self.writers.mine[lane.index()] = Some(queue);
                Brings::Receiver(lane)
            }
        };
        self.streams
            .spawn(stream::write(send, Some(header), sealer, frames));
        self.streams.spawn(stream::read(
            receive,
            brings,
            opener,
            into.clone(),
            Arrived::Frame,
        ));
        Ok(())
    }

    /// Runs until the session ends, and says how.
    pub(super) async fn run(mut self, mut commands: watch::Receiver<Command>) -> SessionExit {
        let exit = loop {
            if let Some(exit) = self.drain_outputs() {
                break exit;
            }
            let now_ms = self.wiring.env.monotonic_ms();
            // A machine without a deadline has ended, and then the loop has ended before.
            let wait_ms = self
                .machine
                .deadline()
                .map_or(0, |at_ms| at_ms.saturating_sub(now_ms));
            tokio::select! {
                Some(arrived) = self.arrived.recv() => self.on_arrived(arrived),
                Some(done) = self.operations.join_next() => self.on_operation_end(done),
                Some(ended) = self.streams.join_next() => {
                    if let Some(exit) = self.on_stream_end(ended) {
                        break exit;
                    }
                }
                Ok(()) = self.counts.changed() => self.on_counts(),
                changed = commands.changed() => {
                    let command = *commands.borrow_and_update();
                    match command {
                        Command::Displace => {
                            break SessionExit::new(ErrorClass::Displaced, "a newer session took over");
                        }
                        Command::Drain => self.feed(Input::Drain),
                        Command::Run if changed.is_ok() => {}
                        Command::Run => {
                            break SessionExit::new(ErrorClass::Internal, "the session's actor ended");
                        }
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => self.feed(Input::Tick),
            }
        };
        self.finish(&exit).await;
        exit
    }

    /// Gives the last frames a moment to leave, then closes the link.
    async fn finish(mut self, exit: &SessionExit) {
        if exit.class == ErrorClass::ShuttingDown {
            // Dropping the queues lets each writer send what it has and finish its stream; the
            // peer closes when it has read the goodbye.
            self.writers = Writers::default();
            let flushed = async { while let Some(Ok(Ok(()))) = self.streams.join_next().await {} };
            let _ = tokio::time::timeout(GOODBYE_WITHIN, flushed).await;
        }
        self.link.close(exit.class.to_u16());
    }

    fn feed(&mut self, input: Input) {
        let now_ms = self.wiring.env.monotonic_ms();
        self.machine.handle(input, now_ms);
    }

    /// Takes one arrival and whatever else is here: one commit for many frames.
    fn on_arrived(&mut self, first: Arrived) {
        self.on_one(first);
        // Bounded, so that outputs and commands have their turn.
        for _ in 1..ARRIVED_MAX {
            let Ok(arrived) = self.arrived.try_recv() else {
                return;
            };
            self.on_one(arrived);
        }
    }

    fn on_one(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Frame(Incoming::Control(frame)) => self.feed(Input::Control(frame)),
            Arrived::Frame(Incoming::Sender(lane, frame)) => {
                self.feed(Input::FromSender(lane, frame));
            }
            Arrived::Frame(Incoming::Receiver(lane, frame)) => {
                self.feed(Input::FromReceiver(lane, frame));
            }
            Arrived::Opened(kind, queue) => self.on_opened(kind, queue),
        }
    }

    fn on_opened(&mut self, kind: StreamKind, queue: mpsc::Sender<Outgoing>) {
        let (slot, early) = match lane_of(kind) {
            None => (
                &mut self.writers.control,
                std::mem::take(&mut self.writers.early),
            ),
            Some(lane) => (&mut self.writers.theirs[lane.index()], Vec::new()),
        };
        if slot.is_some() {
            self.feed(Input::Malformed(StreamError::Second(kind).to_string()));
            return;
        }
        for frame in early {
            // A new queue takes more than what waits early.
            let _ = queue.try_send(frame);
        }
        *slot = Some(queue);
    }

    fn on_operation_end(&mut self, done: Result<Result<Input, StoreError>, JoinError>) {
        self.feed(match done {
            Ok(Ok(input)) => input,
            Ok(Err(error)) => Input::Failed(error.to_string()),
            Err(error) => Input::Failed(error.to_string()),
        });
    }

    fn on_counts(&mut self) {
        let grown = self.counts.borrow_and_update().grown;
        if grown != self.grown {
            self.grown = grown;
            for lane in Lane::ALL {
                self.feed(Input::Grew { lane });
            }
        }
    }

    fn on_stream_end(
        &mut self,
        ended: Result<Result<(), StreamError>, JoinError>,
    ) -> Option<SessionExit> {
        match ended {
            Ok(Ok(())) => None,
            Ok(Err(StreamError::Link(error))) => {
                let exit = lost(&error);
                self.feed(Input::LinkLost(exit.reason.clone()));
                Some(exit)
            }
            // Who leaves finishes its streams in any order; its goodbye is still under way.
            Ok(Err(StreamError::Ended)) if *self.machine.state() == State::Leaving => None,
            Ok(Err(StreamError::Task(error))) => {
                self.feed(Input::Failed(error.to_string()));
                None
            }
            Ok(Err(error @ StreamError::Ended)) => {
                self.feed(Input::LinkLost(error.to_string()));
                Some(SessionExit::new(
                    ErrorClass::Disconnected,
                    error.to_string(),
                ))
            }
            Ok(Err(error)) => {
                self.feed(Input::Malformed(error.to_string()));
                None
            }
            Err(error) => {
                self.feed(Input::Failed(error.to_string()));
                None
            }
        }
    }

    fn drain_outputs(&mut self) -> Option<SessionExit> {
        while let Some(output) = self.machine.poll() {
            if let Some(exit) = self.on_output(output) {
                return Some(exit);
            }
        }
        None
    }

    fn on_output(&mut self, output: Output) -> Option<SessionExit> {
        match output {
            Output::SendControl(frame) => {
                if self.writers.control.is_none() && self.writers.early.len() < EARLY_MAX {
                    self.writers.early.push(Outgoing::Control(frame));
                    return None;
                }
                return send(self.writers.control.as_ref(), Outgoing::Control(frame));
            }
            Output::SendToReceiver(lane, frame) => {
                return send(
                    self.writers.mine[lane.index()].as_ref(),
                    Outgoing::Sender(frame),
                );
            }
            Output::SendToSender(lane, frame) => {
                return send(
                    self.writers.theirs[lane.index()].as_ref(),
                    Outgoing::Receiver(frame),
                );
            }
            Output::Close { class, reason } => return Some(SessionExit { class, reason }),
            Output::RoundTrip { ms, .. } => self.on_round_trip(ms),
            Output::Event(event) => self.on_event(&event),
            Output::AdvanceGeneration { .. } => {
                return self.change_secrets(|secrets| secrets.advance().map(|_| ()));
            }
            Output::EraseGeneration { generation } => {
                return self.change_secrets(|secrets| secrets.erase(generation));
            }
            Output::UseGeneration { .. } => {
                return self
                    .writers
                    .all()
                    .find_map(|queue| send(Some(queue), Outgoing::Rekey));
            }
            operation => self.on_operation(operation),
        }
        None
    }

    fn change_secrets(
        &self,
        change: impl FnOnce(&mut SessionSecrets) -> Result<(), packhorse_protocol::seal::SealError>,
    ) -> Option<SessionExit> {
        change(&mut self.secrets.lock())
            .err()
            .map(|error| SessionExit::new(ErrorClass::Internal, error.to_string()))
    }

    /// Store operations run beside the driver; the machine allows one of each kind per lane.
    fn on_operation(&mut self, output: Output) {
        let store = self.wiring.store.clone();
        let peer = self.peer;
        match output {
            Output::ReadLines { lane } => self.operations.spawn(async move {
                let spans = store.lines(peer, lane).await?;
                Ok(Input::Lines { lane, spans })
            }),
            Output::Load {
                lane,
                after,
                count_max,
                bytes_max,
            } => self.operations.spawn(async move {
                let (rows, exhausted) = store.load(peer, lane, after, count_max, bytes_max).await?;
                Ok(Input::Rows {
                    lane,
                    rows,
                    exhausted,
                })
            }),
            Output::ReadMarks { lane, epochs } => self.operations.spawn(async move {
                let (marks, refusals) = store.marks(peer, lane, epochs).await?;
                Ok(Input::MarksRead {
                    lane,
                    marks,
                    refusals,
                })
            }),
            Output::Store { lane, items } => self.operations.spawn(async move {
                match store.store_inbound(peer, lane, items).await {
                    Ok((marks, refusals)) => Ok(Input::Stored {
                        lane,
                        marks,
                        refusals,
                    }),
                    Err(error @ StoreError::Full { .. }) => Ok(Input::StorePaused {
                        lane,
                        reason: error.to_string(),
                    }),
                    Err(error) => Err(error),
                }
            }),
            Output::Settle {
                lane,
                marks,
                refusals,
            } => self.operations.spawn(async move {
                store.settle(peer, lane, marks, refusals).await?;
                Ok(Input::Settled { lane })
            }),
            Output::Confirm { lane, refusals } => self.operations.spawn(async move {
                store.confirm_refusals(peer, lane, refusals).await?;
                Ok(Input::Confirmed { lane })
            }),
            _ => return,
        };
    }

    fn on_round_trip(&self, ms: u64) {
        let now_ms = self.wiring.env.now_ms();
        self.wiring.board.update(self.peer, |line| {
            line.round_trip_ms = Some(ms as f64);
            line.last_seen_ms = Some(now_ms);
        });
    }

    fn on_granted(&mut self, grants: &[String]) {
        // A capability that this version does not know is passed over.
        let known = grants.iter().filter_map(|text| text.parse().ok());
        let Ok(granted) = Grants::new(known) else {
            return;
        };
        let (store, peer) = (self.wiring.store.clone(), self.peer);
        self.facts.spawn(async move {
            let Ok(Some(record)) = store.peer(peer).await else {
                return;
            };
            if record.granted == granted {
                return;
            }
            let told = store.update_peer(peer, move |record| record.granted = granted);
            if let Err(error) = told.await {
                tracing::warn!(target: "packhorse::session", %error, "grants were not written down");
            }
        });
    }

    fn on_event(&mut self, event: &SessionEvent) {
        let peer = self.peer.0;
        match event {
            SessionEvent::Ready
            | SessionEvent::PeerResumed { .. }
            | SessionEvent::StoreResumed { .. } => {
                tracing::debug!(target: "packhorse::session", peer, ?event);
            }
            SessionEvent::PeerLeaves { .. } => {
                tracing::info!(target: "packhorse::session", peer, ?event);
            }
            SessionEvent::Granted { grants } => self.on_granted(grants),
            // The peer has seen later boots of this node than this store has: the next open gets a
            // higher one.
            SessionEvent::OnCopy { epoch, .. } => {
                tracing::error!(target: "packhorse::session", peer, ?event);
                let (store, seen) = (self.wiring.store.clone(), epoch.boot);
                self.facts.spawn(async move {
                    if let Err(error) = store.raise_boot_floor(seen).await {
                        tracing::error!(target: "packhorse::session", %error, "boot floor");
                    }
                });
            }
            // Loss, copies and full disks: somebody has to look.
            _ => tracing::warn!(target: "packhorse::session", peer, ?event),
        }
    }
}

/// Queues a frame; a peer that does not read its stream is not waited for.
fn send(queue: Option<&mpsc::Sender<Outgoing>>, frame: Outgoing) -> Option<SessionExit> {
    let Some(queue) = queue else {
        // The machine answers only on streams that brought something.
        return Some(SessionExit::new(
            ErrorClass::Protocol,
            "a stream was not opened in time",
        ));
    };
    match queue.try_send(frame) {
        Ok(()) => None,
        Err(mpsc::error::TrySendError::Full(_)) => Some(SessionExit::new(
            ErrorClass::Protocol,
            format!("the peer left {FRAMES_QUEUED_MAX} frames of a stream unread"),
        )),
        Err(mpsc::error::TrySendError::Closed(_)) => Some(SessionExit::new(
            ErrorClass::Disconnected,
            "a stream of the session ended",
        )),
    }
}

/// The end of a session whose link ended.
fn lost(error: &LinkError) -> SessionExit {
    let class = match error {
        LinkError::Closed(code) => u16::try_from(*code)
            .ok()
            .and_then(ErrorClass::from_u16)
            .unwrap_or(ErrorClass::Disconnected),
        _ => ErrorClass::Disconnected,
    };
    SessionExit::new(class, error.to_string())
}
