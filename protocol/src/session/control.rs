//! The control stream's part of a session: heartbeats, and the succession of secrets.
//!
//! Both sides ask for a sign of life every 15 s and measure the answer. The dialler announces
//! a new generation of the session's secret every 15 minutes; the order of the three steps
//! (both derive, both use, both erase) is such that no stream ever arrives under a secret
//! that its receiver does not have. Nothing here closes a session; faults are returned.
//!
//! Read [`Control::on_time`], then the answers to each frame.

use std::collections::VecDeque;

use crate::error_class::ErrorClass;
use crate::limits;
use crate::message::ControlFrame;
use crate::session::{Ending, Output};
use crate::stream::Side;

/// Heartbeats and generations of one session.
#[derive(Debug)]
pub(super) struct Control {
    side: Side,
    /// Wall clock minus the session's own clock, in milliseconds.
    wall_offset_ms: i128,
    heartbeat_at_ms: u64,
    next_heartbeat: u64,
    /// Number and time of those without an answer, oldest first.
    unanswered: VecDeque<(u64, u64)>,
    generation: u16,
    succession: Succession,
    /// When the superseded generation is erased.
    erase_at_ms: Option<u64>,
}

/// How far the change to the next generation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Succession {
    /// The dialler announces then.
    DueAt(u64),
    /// The dialler has announced and waits for the listener.
    Announced,
    /// The listener has nothing to do on its own.
    Follows,
}

impl Control {
    pub(super) fn new(side: Side, now_ms: u64, wall_ms: u64) -> Control {
        Control {
            side,
            wall_offset_ms: i128::from(wall_ms) - i128::from(now_ms),
            heartbeat_at_ms: now_ms,
            next_heartbeat: 1,
            unanswered: VecDeque::new(),
            generation: 0,
            succession: match side {
                Side::Dialler => {
                    Succession::DueAt(now_ms.saturating_add(limits::GENERATION_EVERY_MS))
                }
                Side::Listener => Succession::Follows,
            },
            erase_at_ms: None,
        }
    }

    pub(super) fn set_wall_clock(&mut self, wall_ms: u64, now_ms: u64) {
        self.wall_offset_ms = i128::from(wall_ms) - i128::from(now_ms);
    }

    pub(super) fn on_heartbeat(&self, number: u64, now_ms: u64, out: &mut VecDeque<Output>) {
        let sent_ms = self.wall_ms(now_ms);
        out.push_back(Output::SendControl(ControlFrame::HeartbeatReply {
            number,
            sent_ms,
        }));
    }

    pub(super) fn on_heartbeat_reply(
        &mut self,
        number: u64,
        sent_ms: u64,
        now_ms: u64,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Ending> {
        if number == 0 || number >= self.next_heartbeat {
            return Err(Ending::protocol(format!(
                "answer to heartbeat {number}, never sent"
            )));
        }
        // Answers come in order, so those before this one will not be answered any more.
        while let Some(&(oldest, asked_ms)) = self.unanswered.front()
            && oldest <= number
        {
            self.unanswered.pop_front();
            if oldest == number {
                let ms = now_ms.saturating_sub(asked_ms);
                // The answer was written about half a round trip ago.
                let written_ms = i128::from(self.wall_ms(now_ms)) - i128::from(ms / 2);
                let skew_ms = clamp_to_i64(i128::from(sent_ms) - written_ms);
                out.push_back(Output::RoundTrip {
                    number,
                    ms,
                    skew_ms,
                });
            }
        }
        Ok(())
    }

    /// The dialler has announced a generation.
    pub(super) fn on_generation(
        &mut self,
        generation: u16,
        now_ms: u64,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Ending> {
        let is_next = self.generation.checked_add(1) == Some(generation);
        if self.side != Side::Listener || !is_next || self.erase_at_ms.is_some() {
            let current = self.generation;
            return Err(Ending::protocol(format!(
                "generation {generation} after {current}"
            )));
        }
        self.generation = generation;
        out.push_back(Output::AdvanceGeneration { generation });
        out.push_back(Output::UseGeneration { generation });
        out.push_back(Output::SendControl(ControlFrame::GenerationReady {
            generation,
        }));
        self.erase_at_ms = Some(now_ms.saturating_add(limits::GENERATION_GRACE_MS));
        Ok(())
    }

    /// The listener has followed.
    pub(super) fn on_generation_ready(
        &mut self,
        generation: u16,
        now_ms: u64,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Ending> {
        if self.succession != Succession::Announced || generation != self.generation {
            return Err(Ending::protocol(format!(
                "generation {generation} ready, which was not announced"
            )));
        }
        out.push_back(Output::UseGeneration { generation });
        self.succession = Succession::DueAt(now_ms.saturating_add(limits::GENERATION_EVERY_MS));
        self.erase_at_ms = Some(now_ms.saturating_add(limits::GENERATION_GRACE_MS));
        Ok(())
    }

    /// Does what is due.
    pub(super) fn on_time(
        &mut self,
        now_ms: u64,
        out: &mut VecDeque<Output>,
    ) -> Result<(), Ending> {
        if self.answer_by_ms().is_some_and(|at| at <= now_ms) {
            let class = ErrorClass::Disconnected;
            let reason = format!(
                "no answer to a heartbeat for {} ms",
                limits::HEARTBEAT_ANSWER_MS_MAX
            );
            return Err(Ending { class, reason });
        }
        if self.heartbeat_at_ms <= now_ms {
            self.heartbeat(now_ms, out);
        }
        if self.erase_at_ms.is_some_and(|at| at <= now_ms) {
            self.erase_at_ms = None;
            out.push_back(Output::EraseGeneration {
                generation: self.generation - 1,
            });
        }
        if let Succession::DueAt(at) = self.succession
            && at <= now_ms
        {
            let Some(generation) = self.generation.checked_add(1) else {
                let reason = "the session has used all its generations".to_owned();
                return Err(Ending {
                    class: ErrorClass::Internal,
                    reason,
                });
            };
            self.generation = generation;
            self.succession = Succession::Announced;
            out.push_back(Output::AdvanceGeneration { generation });
            out.push_back(Output::SendControl(ControlFrame::Generation { generation }));
        }
        Ok(())
    }

    /// A heartbeat out of turn; the next one is due a whole interval after it.
    ///
    /// Not while as many as are remembered have no answer: pings must not push those out of
    /// memory that the interval has sent.
    pub(super) fn ping(&mut self, now_ms: u64, out: &mut VecDeque<Output>) {
        if self.unanswered.len() < limits::HEARTBEATS_UNANSWERED_MAX {
            self.heartbeat(now_ms, out);
        }
    }

    fn heartbeat(&mut self, now_ms: u64, out: &mut VecDeque<Output>) {
        let (number, sent_ms) = (self.next_heartbeat, self.wall_ms(now_ms));
        out.push_back(Output::SendControl(ControlFrame::Heartbeat {
            number,
            sent_ms,
        }));
        self.next_heartbeat += 1;
        if self.unanswered.len() >= limits::HEARTBEATS_UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back((number, now_ms));
        self.heartbeat_at_ms = now_ms.saturating_add(limits::HEARTBEAT_EVERY_MS);
    }

    pub(super) fn deadline(&self) -> u64 {
        let succession = match self.succession {
            Succession::DueAt(at) => at,
            Succession::Announced | Succession::Follows => u64::MAX,
        };
        self.heartbeat_at_ms
            .min(succession)
            .min(self.erase_at_ms.unwrap_or(u64::MAX))
            .min(self.answer_by_ms().unwrap_or(u64::MAX))
    }

    /// When the oldest heartbeat without an answer must have had one.
    fn answer_by_ms(&self) -> Option<u64> {
        let (_, asked_ms) = self.unanswered.front()?;
        Some(asked_ms.saturating_add(limits::HEARTBEAT_ANSWER_MS_MAX))
    }

    fn wall_ms(&self, now_ms: u64) -> u64 {
        let wall = i128::from(now_ms) + self.wall_offset_ms;
        u64::try_from(wall.max(0)).unwrap_or(u64::MAX)
    }
}

fn clamp_to_i64(number: i128) -> i64 {
    let within = number.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(within).unwrap_or_default()
}

const _: () = assert!(limits::GENERATION_GRACE_MS * 2 < limits::GENERATION_EVERY_MS);
