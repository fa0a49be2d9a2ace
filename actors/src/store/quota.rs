//! How much the boxes of a store may hold.
//!
//! Quotas stop new work; they never drop anything, and what ends old work ignores them. So a box
//! may pass its quota by what was under way: the inbox by a session's window, the dead letters by
//! all that waits.
//!
//! Read [`Quotas`].

use super::space::Shortage;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The least that a quota may be: every box must take the largest message with its headers several
/// times over, and the windows of a few sessions.
pub const QUOTA_BYTES_MIN: u64 = 16 * MIB;

/// What a job is told about room for new work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Why the disk takes nothing new, if it does not.
    pub(crate) disk: Option<Shortage>,
    /// What the boxes may hold.
    pub(crate) quotas: Quotas,
}

/// What the boxes may hold, in bytes of messages: topic, headers and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Messages that wait for their recipients.
    pub outbox: u64,
    /// Messages that wait to be handled.
    pub inbox: u64,
    /// Of these, messages of one sender.
    pub inbox_share: u64,
    /// Messages that were given up, here or on their way.
    pub dead: u64,
}

impl Default for Quotas {
    /// 16 GiB is a week without the other side at 27 KiB/s, and stays readable: opening a store does
    /// not depend on it. A share of a quarter lets three senders fill theirs and a fourth go on.
    /// Letters are looked at by people, and 4 GiB is more than anybody looks through.
    fn default() -> Self {
        Self {
            outbox: 16 * GIB,
            inbox: 16 * GIB,
            inbox_share: 4 * GIB,
            dead: 4 * GIB,
        }
    }
}
