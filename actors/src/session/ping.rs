//! A round trip over a live session, asked for by a person.
//!
//! A ping is a heartbeat that is sent at once; nothing new travels for it. The protocol's machine
//! counts milliseconds; the finer time is taken here, where a frame is handed to its stream.

use std::collections::VecDeque;

use packhorse_protocol::limits::HEARTBEATS_UNANSWERED_MAX;
use tokio::sync::oneshot;

use crate::supervise::AddressError;

/// Who waits for a round trip at once; whoever comes then is not answered.
const WAITING_MAX: usize = 64;

/// What a ping measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ping {
    /// From the heartbeat's hand-over to the answer's arrival.
    pub round_trip_ms: f64,
    /// The peer's wall clock minus this node's, by the peer's word. Untrusted.
    pub skew_ms: i64,
}

/// Why a ping measured nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// There is nothing to measure: wait for a session, or see why there is none.
    #[error("no session with this peer lives")]
    NoSession,
    /// The session lives, by all that is known, and nothing came back in time.
    #[error("no answer")]
    NoAnswer,
    /// The session supervisor is being restarted: ask again.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// One session's heartbeats on their way, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// Number and time in microseconds, oldest first.
    sent: VecDeque<(u64, u64)>,
    /// Number of the heartbeat that is waited for; `None` for the next one.
    waiting: Vec<(Option<u64>, oneshot::Sender<Ping>)>,
}

impl Pings {
    /// Somebody waits for the heartbeat that is sent next.
    pub(super) fn ask(&mut self, reply: oneshot::Sender<Ping>) {
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push((None, reply));
        }
    }

    /// A heartbeat was handed to its stream.
    pub(super) fn on_sent(&mut self, number: u64, now_us: u64) {
        if self.sent.len() >= HEARTBEATS_UNANSWERED_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((number, now_us));
        for (asked, _) in &mut self.waiting {
            asked.get_or_insert(number);
        }
    }

    /// Its answer came. Returns the round trip in milliseconds.
    pub(super) fn on_answer(&mut self, number: u64, now_us: u64, skew_ms: i64) -> Option<f64> {
        let at = self.sent.iter().position(|(sent, _)| *sent == number)?;
        let (_, sent_us) = self.sent.drain(..=at).next_back()?;
        let round_trip_ms = now_us.saturating_sub(sent_us) as f64 / 1_000.0;
        let ping = Ping {
            round_trip_ms,
            skew_ms,
        };
        let is_answered = |asked: &Option<u64>| asked.is_some_and(|asked| asked <= number);
        for (_, reply) in self.waiting.extract_if(.., |(asked, _)| is_answered(asked)) {
            // Who gave up waiting is not told.
            let _ = reply.send(ping);
        }
        Some(round_trip_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_answered_by_the_heartbeat_that_was_sent_after_it() {
        let mut pings = Pings::default();
        pings.on_sent(1, 1_000);
        let (reply, mut answer) = oneshot::channel();
        pings.ask(reply);
        assert_eq!(pings.on_answer(1, 3_500, 0), Some(2.5));
        assert!(answer.try_recv().is_err(), "that one was on its way before");
        pings.on_sent(2, 10_000);
        assert_eq!(pings.on_answer(2, 10_250, -7), Some(0.25));
        let expected = Ping {
            round_trip_ms: 0.25,
            skew_ms: -7,
        };
        assert_eq!(answer.try_recv(), Ok(expected));
        assert_eq!(pings.on_answer(2, 99_000, 0), None, "a second answer");
    }

    #[test]
    fn what_is_never_answered_does_not_pile_up() {
        let mut pings = Pings::default();
        let mut answers = Vec::new();
        for number in 0..200 {
            let (reply, answer) = oneshot::channel();
            pings.ask(reply);
            answers.push(answer);
            pings.on_sent(number, number);
        }
        assert_eq!(pings.sent.len(), HEARTBEATS_UNANSWERED_MAX);
        assert_eq!(pings.waiting.len(), WAITING_MAX);
        answers.clear();
        let (reply, _answer) = oneshot::channel();
        pings.ask(reply);
        assert_eq!(pings.waiting.len(), 1);
    }
}
