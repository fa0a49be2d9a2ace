//! How much room a node has, and sizes as people write them.
//!
//! Plain values: what is refused for want of room is decided in the store.

use std::fmt;
use std::str::FromStr;

use packhorse_actors::store::{Bytes, QUOTA_BYTES_MIN, Quotas, Storage};
use serde::{Deserialize, Serialize};

use crate::text;

/// The room that a node has, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// Free on the disk of the data folder, without the reserve.
    pub free_bytes: u64,
    /// With less than this new work is refused.
    pub line_bytes: u64,
    /// What is to be set aside; 0 where the disk is too small for a reserve or cannot set space aside.
    pub reserve_bytes: u64,
    /// What is set aside now.
    pub reserved_bytes: u64,
    /// Messages that wait for their recipients.
    pub outbox_bytes: u64,
    /// Messages that wait to be handled here.
    pub inbox_bytes: u64,
    /// Messages that were given up.
    pub dead_bytes: u64,
    /// Why new work is refused now; empty when it is taken.
    pub refusing: Vec<String>,
}

impl From<&Storage> for StorageStatus {
    fn from(storage: &Storage) -> StorageStatus {
        StorageStatus {
            free_bytes: storage.free,
            line_bytes: storage.line,
            reserve_bytes: storage.reserve,
            reserved_bytes: storage.reserved,
            outbox_bytes: storage.outbox,
            inbox_bytes: storage.inbox,
            dead_bytes: storage.dead,
            refusing: storage.shortages.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A size such as `16GiB`, `512MiB` or a plain number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Bytes(self.0), f)
    }
}

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no size: write 512MiB, 16GiB or 1TiB")]
pub struct SizeError {
    text: String,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Size, SizeError> {
        let malformed = || SizeError {
            text: text.to_owned(),
        };
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        let unit: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(malformed()),
        };
        let number: u64 = number.parse().map_err(|_| malformed())?;
        number.checked_mul(unit).map(Size).ok_or_else(malformed)
    }
}

/// What the boxes may hold, as the settings say it; what is left out has its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct QuotaSettings {
    /// Messages that wait for their recipients.
    #[serde(deserialize_with = "quota")]
    pub outbox: Option<Size>,
    /// Messages that wait to be handled here.
    #[serde(deserialize_with = "quota")]
    pub inbox: Option<Size>,
    /// Of these, messages of one sender; a quarter of the inbox unless set.
    #[serde(deserialize_with = "quota")]
    pub inbox_share: Option<Size>,
    /// Messages that were given up.
    #[serde(deserialize_with = "quota")]
    pub dead: Option<Size>,
}

fn quota<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Size>, D::Error> {
    let size: Option<Size> = text::option::deserialize(deserializer)?;
    match size {
        Some(size) if size.0 < QUOTA_BYTES_MIN => Err(serde::de::Error::custom(format!(
            "a quota of {size} is too small: the least is {}",
            Size(QUOTA_BYTES_MIN)
        ))),
        size => Ok(size),
    }
}

impl QuotaSettings {
    pub(crate) fn quotas(&self) -> Quotas {
        let default = Quotas::default();
        let inbox = self.inbox.map_or(default.inbox, |size| size.0);
        // A quarter: three senders fill theirs, and a fourth goes on.
        let share = (inbox / 4).max(QUOTA_BYTES_MIN);
        Quotas {
            outbox: self.outbox.map_or(default.outbox, |size| size.0),
            inbox,
            inbox_share: self.inbox_share.map_or(share, |size| size.0),
            dead: self.dead.map_or(default.dead, |size| size.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("7 B", 7),
            ("1KiB", 1_024),
            ("16 GiB", 16 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GiB", "1GB", "-1", "1.5GiB", "99999999999TiB"] {
            let error = text.parse::<Size>().expect_err(text);
            assert!(error.to_string().contains("no size"), "{error}");
        }
    }

    #[test]
    fn what_is_not_set_has_its_default_and_a_share_follows_its_inbox() {
        assert_eq!(QuotaSettings::default().quotas(), Quotas::default());
        let settings = QuotaSettings {
            inbox: Some(Size(1 << 30)),
            ..QuotaSettings::default()
        };
        assert_eq!(settings.quotas().inbox_share, 1 << 28);
    }
}
