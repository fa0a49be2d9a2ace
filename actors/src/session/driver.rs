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
    message::ControlFrame,
    session::{Input, Output, Session, State},
    stream::{Side, StreamHeader, StreamKind},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
};

use super::{
    Wiring,
    acceptor::{Acceptor, Arrived},
    copies::CALM_LOOK_MS,
    ephemeral,
    exit::{Blame, SessionExit},
    granted::{self, Granted},
    handshake::Accepted,
    outlet::{Ask, Inlet},
    ping::Pings,
    progress::Progress,
    stream::{
        self, ARRIVED_MAX, Brings, FRAMES_QUEUED_MAX, Incoming, Outgoing, StreamError, lane_of,
    },
    telling::Told,
    writers::{EARLY_MAX, Writers, send},
};
use crate::{
    link::LinkHandle,
    store::{OutboxCounts, PeerNumber, StoreError},
};

/// How long a goodbye may take to leave.
const GOODBYE_WITHIN: Duration = Duration::from_millis(500);

/// After the network or the clock changed, a peer that still hears this node says so within this
/// time; one that does not is dialled anew, long before its silence would be noticed.
pub(super) const PROOF_WITHIN_MS: u64 = 10_000;
/// The ephemeral stream's number: those before it are the control stream and the lanes.
const EPHEMERAL_NUMBER: u32 = 16;

/// What the actor tells its driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Command {
    #[default]
    Run,
    /// Finish what is being committed, say goodbye, end.
    Drain,
    /// A newer session takes over: end at once.
    Displace,
    /// The peer was forgotten: end at once.
    Revoke,
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
    pub(super) wiring: Wiring,
    pub(super) peer: PeerNumber,
    machine: Session,
    secrets: SharedSecrets,
    writers: Writers,
    arrived: mpsc::Receiver<Arrived>,
    counts: watch::Receiver<OutboxCounts>,
    grown: u64,
    /// Store operations under way; each ends in an input for the machine.
    pub(super) operations: JoinSet<Result<Input, StoreError>>,
    streams: JoinSet<Result<(), StreamError>>,
    /// Writes that the machine does not wait for.
    pub(super) facts: JoinSet<()>,
    /// Look-ups of what the peer may do here, to be told.
    grants: JoinSet<Granted>,
    /// The writers of the ephemeral stream and of the peer's addresses, whose end is not the
    /// session's.
    pub(super) aside: JoinSet<()>,
    /// The generation that streams are opened under now.
    generation: watch::Sender<u16>,
    asks: mpsc::Receiver<Ask>,
    pub(super) pings: Pings,
    progress: Progress,
    /// The peer's goodbye.
    pub(super) leaves: Option<ErrorClass>,
    is_draining: bool,
    /// What was told because of what the peer said.
    pub(super) told: Told,
    /// When a frame of the peer came last, and when that was last noted.
    pub(super) heard_ms: u64,
    pub(super) noted_ms: u64,
    /// When the peer must have been heard.
    pub(super) proof_by_ms: Option<u64>,
    /// When it is asked next whether a trouble with this peer is over.
    pub(super) calm_at_ms: u64,
    link: LinkHandle,
}

impl Driver {
    /// Opens this side's streams and starts to accept the peer's.
    pub(super) async fn start(
        wiring: Wiring,
        peer: PeerNumber,
        accepted: Accepted,
        inlet: Inlet,
    ) -> Result<Self, SessionExit> {
        let Accepted {
            link,
            side,
            secrets,
            peer: introduction,
            said,
            ..
        } = accepted;
        let (link, peer_streams, _) = link.split();
        let (arrived_tx, arrived) = mpsc::channel(ARRIVED_MAX);
        let counts = wiring.store.outbox_counts(peer);
        let grown = counts.borrow().grown;
        let now_ms = wiring.env.monotonic_ms();
        let generation = watch::Sender::new(secrets.current());
        let mut driver = Self {
            peer,
            machine: Session::new(side, now_ms, wiring.env.now_ms()),
            secrets: SharedSecrets(Arc::new(Mutex::new(secrets))),
            writers: Writers::default(),
            arrived,
            counts,
            grown,
            operations: JoinSet::new(),
            streams: JoinSet::new(),
            facts: JoinSet::new(),
            grants: JoinSet::new(),
            aside: JoinSet::new(),
            generation,
            asks: inlet.asks,
            pings: Pings::default(),
            progress: Progress::default(),
            leaves: None,
            is_draining: false,
            told: Told::default(),
            heard_ms: now_ms,
            noted_ms: now_ms,
            proof_by_ms: None,
            calm_at_ms: now_ms + CALM_LOOK_MS,
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
        let wall_ms = driver.wiring.env.now_ms();
        match granted::look_up(&driver.wiring.store, peer, wall_ms).await {
            Granted::These(grants) => driver.tell_grants(grants),
            // It was forgotten while the link was being made.
            Granted::Forgotten => return Err(granted::revoked()),
            Granted::Unknown => {}
        }
        driver.tell_seen(introduction.epoch).await;
        // ORDER: what changes from now on is asked for through the outlet.
        if said != driver.wiring.me.announced.current() {
            driver.on_ask(Ask::TellAddresses);
        }
        driver.write_ephemeral(side, inlet.ephemeral);
        let acceptor = Acceptor {
            wiring: driver.wiring.clone(),
            peer,
            side,
            secrets: driver.secrets.clone(),
            into: arrived_tx,
        };
        driver.streams.spawn(acceptor.run(peer_streams));
        Ok(driver)
    }

    /// Says what the peer may do here, so that its people see it.
    fn tell_grants(&mut self, grants: Vec<String>) {
        self.tell_peer(ControlFrame::Granted { grants });
    }

    /// Tells the peer something that the machine has no part in. A peer that does not read its
    /// control stream misses it, and ends by its silence.
    pub(super) fn tell_peer(&mut self, frame: ControlFrame) {
        let told = Outgoing::Control(frame);
        match &self.writers.control {
            // A full queue means that the peer reads nothing; it hears at the next session.
            Some(queue) => drop(queue.try_send(told)),
            None if self.writers.early.len() < EARLY_MAX => self.writers.early.push(told),
            None => {}
        }
    }

    fn write_ephemeral(&mut self, side: Side, queue: mpsc::Receiver<ephemeral::Waiting>) {
        let writer = ephemeral::Writer {
            link: self.link.clone(),
            secrets: self.secrets.clone(),
            side,
            number: EPHEMERAL_NUMBER,
            generation: self.generation.subscribe(),
            queue,
        };
        let peer = self.peer.0;
        self.aside.spawn(async move {
            if let Err(error) = writer.run().await {
                tracing::debug!(target: "packhorse::session", peer, %error, "ephemeral stream ended");
            }
        });
    }

    async fn open(
        &mut self,
        side: Side,
        kind: StreamKind,
        number: u32,
        into: &mpsc::Sender<Arrived>,
    ) -> Result<(), SessionExit> {
        let (send, receive) = self
            .link
            .open()
            .await
            .map_err(|error| SessionExit::lost(&error))?;
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
            if let Some(exit) = self.drain_outputs().or_else(|| self.unproven()) {
                break exit;
            }
            let now_ms = self.wiring.env.monotonic_ms();
            // A machine without a deadline has ended, and then the loop has ended before.
            let wait_ms = self
                .machine
                .deadline()
                .into_iter()
                .chain(self.proof_by_ms)
                .chain([self.calm_at_ms])
                .min()
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
                Some(ask) = self.asks.recv() => self.on_ask(ask),
                Some(Ok(granted)) = self.grants.join_next() => match granted {
                    Granted::These(grants) => self.tell_grants(grants),
                    Granted::Forgotten => break granted::revoked(),
                    Granted::Unknown => {}
                },
                changed = commands.changed() => {
                    let command = *commands.borrow_and_update();
                    match command {
                        Command::Displace => {
                            break SessionExit::new(ErrorClass::Displaced, "a newer session took over");
                        }
                        Command::Revoke => break granted::revoked(),
                        Command::Drain => {
                            self.is_draining = true;
                            self.feed(Input::Drain);
                        }
                        Command::Run if changed.is_ok() => {}
                        Command::Run => {
                            break SessionExit::new(ErrorClass::Internal, "the session's actor ended");
                        }
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {
                    self.look_for_calm();
                    self.feed(Input::Tick);
                }
            }
        };
        let exit = self.judge(exit);
        self.note_seen();
        self.finish(&exit).await;
        exit
    }

    /// Adds to an end what the session knows about it.
    fn judge(&self, mut exit: SessionExit) -> SessionExit {
        exit.progress = self.progress.is_made();
        let is_paused = || {
            Lane::ALL
                .iter()
                .any(|lane| self.machine.sender(*lane).is_paused())
        };
        if self.is_draining {
            exit.blame = Blame::Here;
        } else if let Some(class) = self.leaves {
            // However the link went then, its end was announced.
            exit.blame = Blame::ended_there(class);
        } else if exit.blame == Blame::There && is_paused() {
            exit.blame = Blame::Nobody;
        }
        exit
    }

    /// The end of a session whose peer did not show itself after a change here.
    fn unproven(&self) -> Option<SessionExit> {
        let now_ms = self.wiring.env.monotonic_ms();
        self.proof_by_ms.is_some_and(|by_ms| by_ms <= now_ms).then(|| {
            let within_s = PROOF_WITHIN_MS / 1_000;
            let reason = format!("no sign of life within {within_s} s of a change of this machine's network or clock");
            SessionExit::blaming(Blame::Here, ErrorClass::Disconnected, reason)
        })
    }

    fn on_ask(&mut self, ask: Ask) {
        match ask {
            Ask::TellAddresses => {
                let addresses = self.wiring.me.announced.current();
                self.tell_peer(ControlFrame::Addresses { addresses });
                return;
            }
            Ask::Ping(reply) => self.pings.ask(reply),
            Ask::ProveAlive => {
                let by_ms = self.wiring.env.monotonic_ms() + PROOF_WITHIN_MS;
                self.proof_by_ms.get_or_insert(by_ms);
            }
            Ask::TellGrants => {
                let store = self.wiring.store.clone();
                let peer = self.peer;
                let now_ms = self.wiring.env.now_ms();
                self.grants
                    .spawn(async move { granted::look_up(&store, peer, now_ms).await });
                return;
            }
        }
        self.feed(Input::Ping);
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
        // Read each time: the wall clock may have been set since, and heartbeats tell it.
        self.machine
            .set_wall_clock(self.wiring.env.now_ms(), now_ms);
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
        self.heard();
        match arrived {
            Arrived::Heard => self.feed(Input::Heard),
            Arrived::Frame(Incoming::Control(frame)) => self.feed(Input::Control(frame)),
            Arrived::Frame(Incoming::Sender(lane, frame)) => {
                self.feed(Input::FromSender(lane, frame));
            }
            Arrived::Frame(Incoming::Receiver(lane, frame)) => {
                self.progress.on_frame(lane, &frame);
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
        if let Ok(Ok(Input::Lines { lane, spans })) = &done {
            self.progress.on_lines(*lane, spans);
        }
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
                let exit = SessionExit::lost(&error);
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
                if let ControlFrame::Heartbeat { number, .. } = &frame {
                    self.pings.on_sent(*number, self.wiring.env.monotonic_us());
                }
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
            Output::Close { class, reason } => return Some(SessionExit::new(class, reason)),
            Output::RoundTrip {
                number, skew_ms, ..
            } => self.on_round_trip(number, skew_ms),
            Output::Event(event) => self.on_event(&event),
            Output::AdvanceGeneration { .. } => {
                return self.change_secrets(|secrets| secrets.advance().map(|_| ()));
            }
            Output::EraseGeneration { generation } => {
                return self.change_secrets(|secrets| secrets.erase(generation));
            }
            Output::UseGeneration { generation } => {
                self.generation.send_replace(generation);
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
}
