//! Times and durations as people and documents write them.
//!
//! A time is RFC 3339 in UTC, a duration is `10m`, `30s` or `7d`.
//! A time of another node is never trusted, only shown.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

/// Longest duration that an argument may name: a year, so that nothing is "for ever" by accident.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A moment of some node's wall clock, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

impl WallTime {
    /// This machine's wall clock, for documents and tables; nothing is decided by it.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "what people read is the machine's own time"
    )]
    pub fn now() -> WallTime {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        WallTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timestamp = i64::try_from(self.0)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            // A peer may claim any time; one past the calendar's end is shown as that end.
            .unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{timestamp:.3}")
    }
}

impl FromStr for WallTime {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<WallTime, jiff::Error> {
        let timestamp: jiff::Timestamp = text.parse()?;
        Ok(WallTime(
            u64::try_from(timestamp.as_millisecond()).unwrap_or(0),
        ))
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WallTime, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// Why a duration was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// Not the way durations are written.
    #[error("`{text}` is no duration: write 500ms, 30s, 10m, 2h or 7d")]
    Malformed {
        /// What was given.
        text: String,
    },
    /// Zero or negative.
    #[error("the duration `{text}` must be longer than zero")]
    NotPositive {
        /// What was given.
        text: String,
    },
    /// Over [`DURATION_MAX`].
    #[error("the duration `{text}` is over the limit of 366d")]
    TooLong {
        /// What was given.
        text: String,
    },
}

/// Reads a duration; a day is 24 hours.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let malformed = || DurationError::Malformed {
        text: text.to_owned(),
    };
    let span: jiff::Span = text.trim().parse().map_err(|_| malformed())?;
    let signed = span
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| malformed())?;
    if !signed.is_positive() {
        return Err(DurationError::NotPositive {
            text: text.to_owned(),
        });
    }
    let duration = Duration::try_from(signed).map_err(|_| malformed())?;
    if duration > DURATION_MAX {
        return Err(DurationError::TooLong {
            text: text.to_owned(),
        });
    }
    Ok(duration)
}

/// A duration in at most two units, as tables show it: `3m 12s`.
#[must_use]
pub fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u64, large_unit, small: u64, small_unit| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit} {small}{small_unit}"),
    };
    if days > 0 {
        two(days, 'd', hours % 24, 'h')
    } else if hours > 0 {
        two(hours, 'h', minutes % 60, 'm')
    } else if minutes > 0 {
        two(minutes, 'm', seconds % 60, 's')
    } else if seconds >= 10 || (seconds > 0 && duration.subsec_millis() < 100) {
        format!("{seconds}s")
    } else if seconds > 0 {
        format!("{seconds}.{}s", duration.subsec_millis() / 100)
    } else {
        format!("{}ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<u64, &str>) {
        let found = parse_duration(text)
            .map(|duration| u64::try_from(duration.as_millis()).expect("a year fits"))
            .map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(ToOwned::to_owned), "{text}");
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        check("500ms", Ok(500));
        check("30s", Ok(30_000));
        check("10m", Ok(600_000));
        check("2h 30m", Ok(9_000_000));
        check("7d", Ok(604_800_000));
        check("366d", Ok(31_622_400_000));
    }

    #[test]
    fn durations_outside_the_limits_are_refused_by_name() {
        check("0s", Err("the duration `0s` must be longer than zero"));
        check("-5s", Err("the duration `-5s` must be longer than zero"));
        check("367d", Err("the duration `367d` is over the limit of 366d"));
        check(
            "soon",
            Err("`soon` is no duration: write 500ms, 30s, 10m, 2h or 7d"),
        );
        check(
            "",
            Err("`` is no duration: write 500ms, 30s, 10m, 2h or 7d"),
        );
        check(
            "30",
            Err("`30` is no duration: write 500ms, 30s, 10m, 2h or 7d"),
        );
    }

    #[test]
    fn short_durations_have_two_units_at_most() {
        let shown = |ms| short_duration(Duration::from_millis(ms));
        assert_eq!(shown(0), "0ms");
        assert_eq!(shown(999), "999ms");
        assert_eq!(shown(1_540), "1.5s");
        assert_eq!(shown(59_999), "59s");
        assert_eq!(shown(9_990), "9.9s");
        assert_eq!(shown(30_000), "30s");
        assert_eq!(shown(1_000), "1s");
        assert_eq!(shown(600_000), "10m");
        assert_eq!(shown(192_000), "3m 12s");
        assert_eq!(shown(3_600_000 * 25), "1d 1h");
    }

    #[test]
    fn times_are_rfc_3339_and_survive_the_round_trip() {
        let time = WallTime(1_763_724_600_123);
        assert_eq!(time.to_string(), "2025-11-21T11:30:00.123Z");
        assert_eq!(time.to_string().parse::<WallTime>().ok(), Some(time));
    }

    #[test]
    fn an_absurd_time_of_a_peer_is_shown_and_does_no_harm() {
        assert!(WallTime(u64::MAX).to_string().starts_with("9999-12-3"));
    }
}
