//! What is wrong with a wire: how late, how lossy, how slow, whether it is cut.
//!
//! Plain values that are checked once, with their limits named; what they do to a datagram
//! is decided in `wire`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::storage::Size;
use crate::time::short_duration;

/// Longest latency, and longest jitter: a link over geostationary satellites takes 0.3 s, and what
/// takes longer than a minute is no link.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// Slowest rate in bytes a second: a handshake of 6 KiB takes 6 s, which still fits its deadline.
pub const RATE_MIN: u64 = 1_024;
/// Fastest: above it a relay in user space would be the bottleneck and not what it imitates.
pub const RATE_MAX: u64 = 1 << 30;

/// What happens to the datagrams that go one way between two nodes. The default does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Impairment {
    /// How long every datagram is under way.
    #[serde(serialize_with = "milliseconds")]
    pub latency: Duration,
    /// Up to so much is added to it: a delay that moves slowly and is half of this on average,
    /// however many datagrams come. From one drawn value to the next it takes 10 ms, or twice the
    /// jitter where that is longer. No datagram overtakes another one for that.
    #[serde(serialize_with = "milliseconds")]
    pub jitter: Duration,
    /// How many are lost.
    pub loss: Share,
    /// How many arrive twice, the second time a few milliseconds later. Both count for a rate.
    pub duplicate: Share,
    /// How many are held back for another 5 to 25 ms, so that those behind overtake them.
    pub reorder: Share,
    /// How much passes in a second. What has to wait for longer than [`Rate::buffer`] is lost.
    pub rate: Option<Rate>,
    /// Nothing passes at all.
    pub cut: bool,
}

impl Impairment {
    /// A wire that is as good as the machine is.
    pub const NONE: Impairment = Impairment {
        latency: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: Share::NONE,
        duplicate: Share::NONE,
        reorder: Share::NONE,
        rate: None,
        cut: false,
    };

    /// Checks what can be out of bounds.
    ///
    /// # Errors
    /// Names the first value that is, and its limit.
    pub fn check(&self) -> Result<(), ImpairmentError> {
        for (what, value) in [("latency", self.latency), ("jitter", self.jitter)] {
            if value > DELAY_MAX {
                return Err(ImpairmentError::Delay { what, value });
            }
        }
        Ok(())
    }
}

impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        if self.cut {
            words.push("cut".to_owned());
        }
        for (what, value) in [("latency", self.latency), ("jitter", self.jitter)] {
            if !value.is_zero() {
                words.push(format!("{what} {}", short_duration(value)));
            }
        }
        for (what, value) in [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
        ] {
            if value != Share::NONE {
                words.push(format!("{what} {value}"));
            }
        }
        words.extend(self.rate.map(|rate| format!("rate {rate}")));
        match words.is_empty() {
            true => f.pad("clear"),
            false => f.pad(&words.join(", ")),
        }
    }
}

/// A value that no wire takes: write one within the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImpairmentError {
    /// Too long under way.
    #[error("a {what} of {} is over the limit of {}", short_duration(*value), short_duration(DELAY_MAX))]
    Delay {
        /// Latency or jitter.
        what: &'static str,
        /// What was asked for.
        value: Duration,
    },
    /// No share of a whole.
    #[error("`{text}` is no share: write 5% or 0.05, from nothing to all of it")]
    Share {
        /// What was written.
        text: String,
    },
    /// No rate.
    #[error(
        "`{text}` is no rate: write 64KiB/s or 2Mbit/s, from {} to {}",
        Rate(RATE_MIN),
        Rate(RATE_MAX)
    )]
    Rate {
        /// What was written.
        text: String,
    },
}

/// How many of all, in parts of a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

/// All of them.
const WHOLE: u32 = 1_000_000;

impl Share {
    /// None of them.
    pub const NONE: Share = Share(0);
    /// Every one.
    pub const ALL: Share = Share(WHOLE);

    /// So many in a hundred.
    ///
    /// # Errors
    /// [`ImpairmentError::Share`] for more than a hundred, less than none, and what is no number.
    pub fn percent(percent: f64) -> Result<Share, ImpairmentError> {
        Share::of(percent / 100.0).ok_or_else(|| ImpairmentError::Share {
            text: format!("{percent}%"),
        })
    }

    fn of(fraction: f64) -> Option<Share> {
        let parts = (fraction * f64::from(WHOLE)).round();
        // In range, so the conversion only takes off a fraction that rounding left at nothing.
        (0.0..=f64::from(WHOLE))
            .contains(&parts)
            .then_some(Share(parts as u32))
    }

    /// So many in a hundred.
    #[must_use]
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) / (f64::from(WHOLE) / 100.0)
    }

    /// Whether a random number falls into it.
    pub(crate) fn holds(self, drawn: u64) -> bool {
        crate::lab::random::part_of(WHOLE.into(), drawn) < u64::from(self.0)
    }
}

impl FromStr for Share {
    type Err = ImpairmentError;

    fn from_str(text: &str) -> Result<Share, ImpairmentError> {
        let malformed = || ImpairmentError::Share {
            text: text.to_owned(),
        };
        let trimmed = text.trim();
        let (number, whole) = match trimmed.strip_suffix('%') {
            Some(percent) => (percent.trim_end(), 100.0),
            None => (trimmed, 1.0),
        };
        let number: f64 = number.parse().map_err(|_| malformed())?;
        Share::of(number / whole).ok_or_else(malformed)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.as_percent()))
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// So many bytes in a second.
    ///
    /// # Errors
    /// [`ImpairmentError::Rate`] outside of [`RATE_MIN`] and [`RATE_MAX`].
    pub fn bytes_per_second(bytes: u64) -> Result<Rate, ImpairmentError> {
        match (RATE_MIN..=RATE_MAX).contains(&bytes) {
            true => Ok(Rate(bytes)),
            false => Err(ImpairmentError::Rate {
                text: Rate(bytes).to_string(),
            }),
        }
    }

    /// How long so many bytes take.
    #[must_use]
    pub fn time_of(self, bytes: usize) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.0.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// How long the bytes take at another rate that take so long at this one.
    pub(crate) fn same_bytes_at(self, other: Rate, time: Duration) -> Duration {
        let nanoseconds = time.as_nanos() * u128::from(self.0) / u128::from(other.0.max(1));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// How long a datagram waits for those before it at most: a quarter of a second, as a router
    /// has it, and on slow links the time of 32 KiB, so that a burst of a few datagrams passes.
    #[must_use]
    pub fn buffer(self) -> Duration {
        Duration::from_millis(250).max(self.time_of(32 << 10))
    }
}

impl FromStr for Rate {
    type Err = ImpairmentError;

    fn from_str(text: &str) -> Result<Rate, ImpairmentError> {
        let malformed = || ImpairmentError::Rate {
            text: text.to_owned(),
        };
        let per_second = text.trim().strip_suffix("/s").ok_or_else(malformed)?;
        let digits = per_second.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = per_second.split_at(digits);
        let bits: u64 = match unit.trim() {
            "bit" => 1,
            "kbit" => 1_000,
            "Mbit" => 1_000_000,
            "Gbit" => 1_000_000_000,
            _ => {
                let size: Size = per_second.parse().map_err(|_| malformed())?;
                return Rate::bytes_per_second(size.0).map_err(|_| malformed());
            }
        };
        let number: u64 = number.parse().map_err(|_| malformed())?;
        let bits = number.checked_mul(bits).ok_or_else(malformed)?;
        Rate::bytes_per_second(bits / 8).map_err(|_| malformed())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/s", Size(self.0)))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_they_are_written_and_everything_else_is_named() {
        for (text, parts) in [("5%", 50_000), ("0.05", 50_000), ("0%", 0), ("1", WHOLE)] {
            assert_eq!(text.parse(), Ok(Share(parts)), "{text}");
        }
        assert_eq!("12.5 %".parse(), Ok(Share(125_000)));
        assert_eq!(Share(125_000).to_string(), "12.5%");
        assert_eq!(Share::percent(100.0), Ok(Share::ALL));
        for text in ["", "%", "101%", "-1%", "1.01", "NaN", "inf", "much"] {
            let error = text.parse::<Share>().expect_err(text).to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        assert!(Share::percent(f64::NAN).is_err());
    }

    #[test]
    fn a_share_holds_as_many_numbers_as_it_says() {
        assert!(!Share::NONE.holds(0));
        assert!(Share::ALL.holds(u64::MAX));
        assert!(Share(1).holds(0));
        assert!(!Share(WHOLE / 2).holds(u64::MAX / 2 + 2));
        assert!(Share(WHOLE / 2).holds(u64::MAX / 2 - 2));
    }

    #[test]
    fn rates_are_read_in_bits_and_bytes_within_their_limits() {
        for (text, bytes) in [
            ("1KiB/s", 1_024),
            ("8kbit/s", 0),
            ("16kbit/s", 2_000),
            ("2 Mbit/s", 250_000),
            ("1GiB/s", 1 << 30),
            ("1023B/s", 0),
            ("2GiB/s", 0),
            ("fast", 0),
            ("10KiB", 0),
            ("99999999999999999999Gbit/s", 0),
        ] {
            let rate = text.parse::<Rate>();
            match bytes {
                0 => {
                    let error = rate.expect_err(text).to_string();
                    assert!(error.contains(&format!("`{text}`")), "{error}");
                    assert!(error.contains("from 1"), "{error}");
                }
                bytes => assert_eq!(rate, Ok(Rate(bytes)), "{text}"),
            }
        }
        let rate = Rate(1_000_000);
        assert_eq!(rate.time_of(1_500), Duration::from_micros(1_500));
        assert_eq!(rate.buffer(), Duration::from_millis(250));
        assert_eq!(Rate(8 << 10).buffer(), Duration::from_secs(4));
    }

    #[test]
    fn what_is_out_of_bounds_is_named_with_its_limit() {
        let latency = DELAY_MAX + Duration::from_secs(1);
        let impairment = Impairment {
            latency,
            ..Impairment::NONE
        };
        let error = impairment.check().expect_err("over the limit").to_string();
        assert!(error.contains("latency"), "{error}");
        assert_eq!(Impairment::NONE.check(), Ok(()));
        assert_eq!(Impairment::NONE, Impairment::default());
    }

    #[test]
    fn an_impairment_is_told_in_words() {
        assert_eq!(Impairment::NONE.to_string(), "clear");
        let impairment = Impairment {
            loss: Share(50_000),
            cut: true,
            ..Impairment::NONE
        };
        assert_eq!(impairment.to_string(), "cut, loss 5%");
    }
}
