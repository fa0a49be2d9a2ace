//! What became of strangers, counted since the process began.
//!
//! Counters only rise; everything that is offered ends in one of them.

use std::collections::VecDeque;

use packhorse_protocol::error_class::ErrorClass;

/// How long something turned away is worth a line in `status`.
const RECENT_MINUTES: u64 = 60;
/// Turned away within a minute, that is a flood and worth an event: one a second.
pub const FLOOD_COUNT_MIN: u64 = 60;

/// Everything that can become of a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Outcome {
    /// A first packet was let in.
    Admitted,
    /// A first packet was answered by Retry.
    Retried,
    /// Dropped: too many links in all.
    DroppedLinks,
    /// Dropped: too many links of that prefix.
    DroppedPrefix,
    /// Dropped: too many QUIC handshakes under way.
    DroppedHalfOpen,
    /// A QUIC handshake took too long or failed.
    HalfOpenEnded,
    /// A QUIC handshake was cut, because its other end sent too much.
    HalfOpenExcess,
    /// A link came up.
    Arrived,
    /// A link lost its place to a newer one.
    Evicted,
    /// A link said nothing in time.
    Silent,
    /// A link ended before its handshake did.
    Lost,
    /// A link sent more than it may, or on more than one stream.
    Excess,
    /// What should have been a Hello did not knock.
    KnockedWrong,
    /// A Hello knocked.
    Knocked,
    /// A Hello knocked and had no version in common.
    Versions,
    /// A Hello knocked while too many others did.
    TooManyKnocks,
    /// A Hello knocked and found no place.
    CostlyFull,
    /// Nothing followed a knock in time.
    ProofMissing,
    /// What followed was no Proof.
    ProofBad,
    /// This node could not answer.
    Failed,
    /// A session began.
    Accepted,
}

impl Outcome {
    /// Every outcome, in the order of its count.
    pub const ALL: [Self; 21] = [
        Self::Admitted,
        Self::Retried,
        Self::DroppedLinks,
        Self::DroppedPrefix,
        Self::DroppedHalfOpen,
        Self::HalfOpenEnded,
        Self::HalfOpenExcess,
        Self::Arrived,
        Self::Evicted,
        Self::Silent,
        Self::Lost,
        Self::Excess,
        Self::KnockedWrong,
        Self::Knocked,
        Self::Versions,
        Self::TooManyKnocks,
        Self::CostlyFull,
        Self::ProofMissing,
        Self::ProofBad,
        Self::Failed,
        Self::Accepted,
    ];

    /// Its word, as in documents and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Retried => "retried",
            Self::DroppedLinks => "dropped_links",
            Self::DroppedPrefix => "dropped_prefix",
            Self::DroppedHalfOpen => "dropped_half_open",
            Self::HalfOpenEnded => "half_open_ended",
            Self::HalfOpenExcess => "half_open_excess",
            Self::Arrived => "arrived",
            Self::Evicted => "evicted",
            Self::Silent => "silent",
            Self::Lost => "lost",
            Self::Excess => "excess",
            Self::KnockedWrong => "knocked_wrong",
            Self::Knocked => "knocked",
            Self::Versions => "versions",
            Self::TooManyKnocks => "too_many_knocks",
            Self::CostlyFull => "costly_full",
            Self::ProofMissing => "proof_missing",
            Self::ProofBad => "proof_bad",
            Self::Failed => "failed",
            Self::Accepted => "accepted",
        }
    }

    /// Whether somebody was kept out by it.
    #[must_use]
    pub const fn is_turned_away(self) -> bool {
        matches!(
            self,
            Self::DroppedLinks
                | Self::DroppedPrefix
                | Self::DroppedHalfOpen
                | Self::HalfOpenEnded
                | Self::HalfOpenExcess
                | Self::Evicted
                | Self::Silent
                | Self::Excess
                | Self::KnockedWrong
                | Self::TooManyKnocks
                | Self::CostlyFull
                | Self::ProofMissing
                | Self::ProofBad
        )
    }
}

/// What was counted, and what is going on now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrangerCounts {
    /// By [`Outcome`], in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Refused by verdict, by class in the order of [`ErrorClass::ALL`].
    pub refused: [u64; ErrorClass::ALL.len()],
    /// Turned away within the last hour.
    pub turned_away_recently: u64,
    /// QUIC handshakes under way now.
    pub half_open: usize,
    /// Links without a knock now.
    pub cheap: usize,
    /// Links between knock and Verdict now.
    pub costly: usize,
    /// Prefixes from which a peer authenticated lately.
    pub known_prefixes: u64,
}

impl StrangerCounts {
    /// How often that happened.
    #[must_use]
    pub const fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Tally {
    outcomes: [u64; Outcome::ALL.len()],
    refused: [u64; ErrorClass::ALL.len()],
    /// Minute and count, the oldest first, at most an hour of them.
    minutes: VecDeque<(u64, u64)>,
    /// The last minute that was looked at for a flood.
    told_minute: u64,
}

impl Tally {
    pub(super) fn count(&mut self, outcome: Outcome, monotonic_ms: u64) {
        self.outcomes[outcome as usize] += 1;
        if !outcome.is_turned_away() {
            return;
        }
        let minute = minute_of(monotonic_ms);
        match self.minutes.back_mut() {
            Some((last, count)) if *last == minute => *count += 1,
            _ => self.minutes.push_back((minute, 1)),
        }
        self.forget(minute);
    }

    pub(super) fn count_refusal(&mut self, class: ErrorClass) {
        if let Some(index) = ErrorClass::ALL.iter().position(|known| *known == class) {
            self.refused[index] += 1;
        }
    }

    /// What is counted here; what goes on now is the gate's to add.
    pub(super) fn counts(&mut self, monotonic_ms: u64) -> StrangerCounts {
        self.forget(minute_of(monotonic_ms));
        StrangerCounts {
            outcomes: self.outcomes,
            refused: self.refused,
            turned_away_recently: self.minutes.iter().map(|(_, count)| count).sum(),
            ..StrangerCounts::default()
        }
    }

    /// How many were turned away in the minute before this one, if that was a flood; once.
    pub(super) fn flood(&mut self, monotonic_ms: u64) -> Option<u64> {
        let minute = minute_of(monotonic_ms);
        if self.told_minute == minute {
            return None;
        }
        self.told_minute = minute;
        let (_, count) = self
            .minutes
            .iter()
            .find(|(found, _)| *found + 1 == minute)?;
        (*count >= FLOOD_COUNT_MIN).then_some(*count)
    }

    fn forget(&mut self, minute: u64) {
        while let Some((oldest, _)) = self.minutes.front()
            && oldest + RECENT_MINUTES <= minute
        {
            self.minutes.pop_front();
        }
    }
}

const fn minute_of(monotonic_ms: u64) -> u64 {
    monotonic_ms / 60_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_stands_where_its_number_says() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index, "{}", outcome.word());
        }
    }

    #[test]
    fn a_flood_is_told_once_a_minute_and_forgotten_after_an_hour() {
        let mut tally = Tally::default();
        for _ in 0..FLOOD_COUNT_MIN {
            tally.count(Outcome::KnockedWrong, 61_000);
        }
        tally.count(Outcome::Accepted, 61_000);
        assert_eq!(tally.flood(119_999), None, "the minute is not over");
        assert_eq!(tally.flood(120_000), Some(FLOOD_COUNT_MIN));
        assert_eq!(tally.flood(121_000), None);
        assert_eq!(tally.flood(180_000), None);
        let counts = tally.counts(180_000);
        assert_eq!(counts.of(Outcome::KnockedWrong), FLOOD_COUNT_MIN);
        assert_eq!(counts.of(Outcome::Accepted), 1);
        assert_eq!(counts.turned_away_recently, FLOOD_COUNT_MIN);
        assert_eq!(
            tally.counts(61 * 60_000).turned_away_recently,
            0,
            "an hour later nobody is told"
        );
        tally.count(Outcome::Evicted, 62 * 60_000);
        assert_eq!(tally.flood(63 * 60_000), None, "one is no flood");
    }
}
