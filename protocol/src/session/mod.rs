//! One session with one peer, from the accepted handshake to the close.
//!
//! A pure machine over two lanes in each direction and the control stream. The one law for
//! its driver: `handle(input, now_ms)`, then `poll()` until it is empty, then wake again at
//! `deadline()`. It never sees the peer's id, its bytes or its keys, never reads a clock, and
//! never touches the store: it asks, and believes the answers.
//!
//! ```text
//!            every lane half          Drain            commit answered
//! Opening ───────started──────▶ Running ──────▶ Draining ──────or 3 s──────▶ Closed
//!    │                             │ Goodbye                                   ▲
//!    │                             ├──────────▶ Leaving ──link lost or 3 s─────┤
//!    └──── 30 s, fault, silence, link lost ────┴───────────────────────────────┘
//! ```
//!
//! Read `Session::step`: it is the table of transitions, and what it does not list is an
//! explicit ignore. What a lane does with its frames stands in `outbox/`.

mod control;
mod port;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::epoch::Lane;
use crate::error_class::ErrorClass;
use crate::limits;
use crate::message::{ControlFrame, SenderFrame};
use crate::outbox::Fault;
use crate::outbox::receiver::Receiver;
use crate::outbox::sender::Sender;
use crate::session::control::Control;
use crate::stream::Side;

pub use crate::session::port::{Input, Output, SessionEvent};

/// One session with one peer.
#[derive(Debug)]
pub struct Session {
    state: State,
    control: Control,
    /// By the lane's index: what goes to the peer.
    senders: [Sender; 2],
    /// By the lane's index: what comes from the peer.
    receivers: [Receiver; 2],
    /// When a frame of the peer came last.
    heard_ms: u64,
    /// When the session ends unless its state changes before; `None` while it may run for ever.
    ends_at_ms: Option<u64>,
    out: VecDeque<Output>,
}

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The lanes are telling each other how far they are; those that know already work.
    Opening,
    /// Both lanes have started in both directions.
    Running,
    /// This side ends by intent: nothing new is taken, the commit that is out is finished.
    Draining,
    /// The peer ends by intent: it is sent nothing more; what it sends is still taken.
    Leaving,
    /// The end. Every input is ignored.
    Closed(Ending),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Who has to act.
    pub class: ErrorClass,
    /// For people.
    pub reason: String,
}

impl Ending {
    fn protocol(reason: String) -> Ending {
        Ending {
            class: ErrorClass::Protocol,
            reason,
        }
    }
}

impl From<(Lane, Fault)> for Ending {
    fn from((lane, fault): (Lane, Fault)) -> Ending {
        let lane = match lane {
            Lane::User => "user",
            Lane::System => "system",
        };
        Ending {
            class: fault.class(),
            reason: format!("{lane} lane: {fault}"),
        }
    }
}

impl Session {
    /// A session that begins now.
    ///
    /// `now_ms` counts on a clock that never goes back; `wall_ms` is the time of day, which
    /// is only told to the peer.
    #[must_use]
    pub fn new(side: Side, now_ms: u64, wall_ms: u64) -> Session {
        let mut out = VecDeque::new();
        let mut control = Control::new(side, now_ms, wall_ms);
        // The first heartbeat is due at once and cannot fail.
        let _ = control.on_time(now_ms, &mut out);
        let senders = Lane::ALL.map(|lane| Sender::new(lane, &mut out));
        let receivers = Lane::ALL.map(Receiver::new);
        Session {
            state: State::Opening,
            control,
            senders,
            receivers,
            heard_ms: now_ms,
            ends_at_ms: Some(now_ms.saturating_add(limits::OPENING_MS_MAX)),
            out,
        }
    }

    /// Takes one input, and does whatever is due by now.
    pub fn handle(&mut self, input: Input, now_ms: u64) {
        let result = self.step(input, now_ms).and_then(|()| self.on_time(now_ms));
        if let Err(ending) = result {
            let Ending { class, reason } = ending.clone();
            self.out.push_back(Output::Close { class, reason });
            self.state = State::Closed(ending);
        }
    }

    /// The next output. After `Close` or [`Input::LinkLost`] there is none.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Input::Tick`] is due at the latest; `None` when the session has ended.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if matches!(self.state, State::Closed(_)) {
            return None;
        }
        let silence = self.heard_ms.saturating_add(limits::SILENCE_MS_MAX);
        let retries = self.receivers.iter().filter_map(Receiver::deadline);
        let deadlines = [silence, self.control.deadline()];
        deadlines
            .into_iter()
            .chain(self.ends_at_ms)
            .chain(retries)
            .min()
    }

    /// Where the session stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The sending end of a lane, for status.
    #[must_use]
    pub fn sender(&self, lane: Lane) -> &Sender {
        let [user, system] = &self.senders;
        match lane {
            Lane::User => user,
            Lane::System => system,
        }
    }

    /// The receiving end of a lane, for status.
    #[must_use]
    pub fn receiver(&self, lane: Lane) -> &Receiver {
        let [user, system] = &self.receivers;
        match lane {
            Lane::User => user,
            Lane::System => system,
        }
    }

    /// Tells the session the time of day, after it was set anew.
    pub fn set_wall_clock(&mut self, wall_ms: u64, now_ms: u64) {
        self.control.set_wall_clock(wall_ms, now_ms);
    }

    // -----------------------------------------------------------------------------------

    /// The table of transitions. An `Err` ends the session, by fault or by intent.
    fn step(&mut self, input: Input, now_ms: u64) -> Result<(), Ending> {
        use State::{Closed, Draining, Leaving, Opening, Running};
        self.hear(&input, now_ms);
        match (&self.state, input) {
            // The end is the end; late answers of the store come here.
            (Closed(_), _) => Ok(()),
            (_, Input::LinkLost(reason)) => {
                // No Close: there is nothing left to close, and nobody left to be told.
                self.out.clear();
                self.state = Closed(Ending {
                    class: ErrorClass::Disconnected,
                    reason,
                });
                Ok(())
            }
            (_, Input::Malformed(reason)) => Err(Ending::protocol(reason)),
            (_, Input::Failed(reason)) => Err(Ending {
                class: ErrorClass::Internal,
                reason,
            }),
            (_, Input::Tick | Input::Heard) => Ok(()),
            (_, Input::Ping) => {
                self.control.ping(now_ms, &mut self.out);
                Ok(())
            }

            (Opening | Running | Leaving, Input::Drain) => self.drain(now_ms),
            (Draining, Input::Drain) => Ok(()),

            (_, Input::Control(frame)) => self.on_control(frame, now_ms),

            // Who drains reads no more messages: what was not stored is sent again next time.
            (
                Draining,
                Input::FromSender(_, SenderFrame::Base { .. } | SenderFrame::Batch { .. }),
            ) => Ok(()),
            (Draining, input) => {
                self.on_lane(input, now_ms)?;
                self.end_drain_if_done()
            }
            (Opening, input) => {
                self.on_lane(input, now_ms)?;
                self.run_if_started();
                Ok(())
            }
            (Running | Leaving, input) => self.on_lane(input, now_ms),
        }
    }

    /// What concerns one half of one lane goes to its machine, in every state alike.
    fn on_lane(&mut self, input: Input, now_ms: u64) -> Result<(), Ending> {
        let Some(lane) = input.lane() else {
            return Ok(());
        };
        let Session {
            senders: [user_out, system_out],
            receivers: [user_in, system_in],
            out,
            ..
        } = self;
        let (sender, receiver) = match lane {
            Lane::User => (user_out, user_in),
            Lane::System => (system_out, system_in),
        };
        let result = match input {
            Input::FromReceiver(_, frame) => sender.on_frame(frame, out),
            Input::Lines { spans, .. } => sender.on_lines(spans, out),
            Input::Rows {
                rows, exhausted, ..
            } => sender.on_rows(rows, exhausted, out),
            Input::Settled { .. } => sender.on_settled(out),
            Input::Grew { .. } => sender.on_grew(out),

            Input::FromSender(_, frame) => receiver.on_frame(frame, out),
            Input::MarksRead {
                marks, refusals, ..
            } => receiver.on_marks_read(&marks, &refusals, out),
            Input::Stored {
                marks, refusals, ..
            } => receiver.on_stored(&marks, &refusals, out),
            Input::StorePaused { reason, .. } => receiver.on_store_paused(reason, now_ms, out),
            Input::Confirmed { .. } => receiver.on_confirmed(out),
            Input::Grant {
                messages, bytes, ..
            } => {
                receiver.grant(messages, bytes, out);
                Ok(())
            }

            Input::Control(_)
            | Input::Malformed(_)
            | Input::Failed(_)
            | Input::Heard
            | Input::Ping
            | Input::Drain
            | Input::Tick
            | Input::LinkLost(_) => Ok(()),
        };
        result.map_err(|fault| Ending::from((lane, fault)))
    }

    fn on_control(&mut self, frame: ControlFrame, now_ms: u64) -> Result<(), Ending> {
        match frame {
            ControlFrame::Heartbeat { number, .. } => {
                self.control.on_heartbeat(number, now_ms, &mut self.out);
                Ok(())
            }
            ControlFrame::HeartbeatReply { number, sent_ms } => {
                self.control
                    .on_heartbeat_reply(number, sent_ms, now_ms, &mut self.out)
            }
            ControlFrame::Generation { generation } => {
                self.control
                    .on_generation(generation, now_ms, &mut self.out)
            }
            ControlFrame::GenerationReady { generation } => {
                self.control
                    .on_generation_ready(generation, now_ms, &mut self.out)
            }
            ControlFrame::Granted { grants } => {
                self.out
                    .push_back(Output::Event(SessionEvent::Granted { grants }));
                Ok(())
            }
            ControlFrame::Addresses { addresses } => {
                self.out
                    .push_back(Output::Event(SessionEvent::Addresses { addresses }));
                Ok(())
            }
            ControlFrame::SeenEpoch { epoch } => {
                self.out
                    .push_back(Output::Event(SessionEvent::SeenEpoch { epoch }));
                Ok(())
            }
            ControlFrame::Goodbye { class, reason } => {
                self.on_goodbye(class, reason, now_ms);
                Ok(())
            }
        }
    }

    /// The peer drains. It finishes its commit and closes; this side waits for that.
    fn on_goodbye(&mut self, class: ErrorClass, reason: String, now_ms: u64) {
        match self.state {
            State::Opening | State::Running => {
                for sender in &mut self.senders {
                    sender.stop();
                }
                self.state = State::Leaving;
                self.ends_at_ms = Some(now_ms.saturating_add(limits::DRAIN_MS_MAX));
                self.out
                    .push_back(Output::Event(SessionEvent::PeerLeaves { class, reason }));
            }
            // If both drain at once, each closes by its own rule; a second goodbye must not
            // move the deadline.
            State::Draining | State::Leaving | State::Closed(_) => {}
        }
    }

    fn drain(&mut self, now_ms: u64) -> Result<(), Ending> {
        for sender in &mut self.senders {
            sender.stop();
        }
        for receiver in &mut self.receivers {
            receiver.stop();
        }
        let class = ErrorClass::ShuttingDown;
        let reason = "the node stops".to_owned();
        self.out
            .push_back(Output::SendControl(ControlFrame::Goodbye { class, reason }));
        self.state = State::Draining;
        self.ends_at_ms = Some(now_ms.saturating_add(limits::DRAIN_MS_MAX));
        self.end_drain_if_done()
    }

    fn end_drain_if_done(&mut self) -> Result<(), Ending> {
        if self.receivers.iter().any(Receiver::is_storing) {
            return Ok(());
        }
        Err(Ending {
            class: ErrorClass::ShuttingDown,
            reason: "the node stops".to_owned(),
        })
    }

    fn run_if_started(&mut self) {
        let is_started = self.senders.iter().all(Sender::is_started)
            && self.receivers.iter().all(Receiver::is_started);
        if is_started && self.state == State::Opening {
            self.state = State::Running;
            self.ends_at_ms = None;
            self.out.push_back(Output::Event(SessionEvent::Ready));
        }
    }

    /// Any frame of the peer is a sign of life.
    fn hear(&mut self, input: &Input, now_ms: u64) {
        if matches!(
            input,
            Input::Control(_) | Input::FromSender(..) | Input::FromReceiver(..) | Input::Heard
        ) {
            self.heard_ms = now_ms;
        }
    }

    /// Everything that is due by now.
    fn on_time(&mut self, now_ms: u64) -> Result<(), Ending> {
        if matches!(self.state, State::Closed(_)) {
            return Ok(());
        }
        if self.ends_at_ms.is_some_and(|at| at <= now_ms) {
            return Err(self.time_is_up());
        }
        let silent_ms = now_ms.saturating_sub(self.heard_ms);
        if silent_ms >= limits::SILENCE_MS_MAX {
            let reason = format!("nothing heard for {silent_ms} ms");
            return Err(Ending {
                class: ErrorClass::Disconnected,
                reason,
            });
        }
        for receiver in &mut self.receivers {
            receiver.on_time(now_ms, &mut self.out);
        }
        self.control.on_time(now_ms, &mut self.out)
    }

    fn time_is_up(&self) -> Ending {
        let (class, reason) = match self.state {
            State::Draining => (
                ErrorClass::ShuttingDown,
                format!(
                    "the node stops; a commit took over {} ms",
                    limits::DRAIN_MS_MAX
                ),
            ),
            State::Leaving => (
                ErrorClass::Disconnected,
                format!("the peer said goodbye {} ms ago", limits::DRAIN_MS_MAX),
            ),
            State::Opening | State::Running | State::Closed(_) => (
                ErrorClass::Disconnected,
                format!(
                    "the lanes did not start within {} ms",
                    limits::OPENING_MS_MAX
                ),
            ),
        };
        Ending { class, reason }
    }
}
