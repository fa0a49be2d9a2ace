//! The line below which new work is refused, and the bytes that are set aside for finishing the old.
//!
//! The engine dies when a background flush meets the end of the space, even if all that is wanted is
//! to delete; and it lives again only with room for a flush. So some space is really allocated ahead
//! and given up when it is needed. While it is given up new work stays refused, and it is taken back
//! before anything new is let in.
//! Nobody else decides about the reserve; where it lies is the [`Volume`]'s business.
//!
//! ```text
//! write buffers, each of which a flush writes out       4 + 8 + 8 MiB     20 MiB
//! the journal that grows meanwhile, at its largest                        64 MiB
//! tables that a compaction rewrites before it drops the old ones          64 MiB
//! reserve                                                                148 MiB
//! line      half of it: what a flush and a journal may take before the next look     74 MiB
//! critical  an eighth: not even all write buffers would fit                          18.5 MiB
//! ```
//!
//! Read [`Levels`], then [`Keeper::look`].

use std::io;
use std::sync::Arc;

use super::fjall_engine::{JOURNAL_BYTES_MAX, WRITE_BUFFER_BYTES_MAX, WRITE_BUFFERS_BYTES};
use super::space::{Bytes, Shortage, Volume};

const MIB: u64 = 1 << 20;
/// What a compaction may hold twice for a moment.
const COMPACTION_BYTES: u64 = 64 * MIB;
/// The whole reserve.
pub(crate) const RESERVE_BYTES_MAX: u64 =
    WRITE_BUFFERS_BYTES + JOURNAL_BYTES_MAX + COMPACTION_BYTES;
/// No reserve takes more than this part of its file system.
const PART_OF_TOTAL: u64 = 32;
/// A file system smaller than this gets none: even one write buffer would be an eighth of it.
const TOTAL_MIN: u64 = 64 * MIB;
/// The line is never lower: a batch under way and its flush.
const LINE_BYTES_MIN: u64 = WRITE_BUFFER_BYTES_MAX;
/// The critical mark is never lower: about what a look may come too late by.
const CRITICAL_BYTES_MIN: u64 = 2 * MIB;

/// The levels of one file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Bytes to set aside; 0 for none.
    pub(crate) reserve: u64,
    /// With less than this for new work, beside the reserve, new work is refused.
    pub(crate) line: u64,
    /// With less free than this the reserve is given up.
    pub(crate) critical: u64,
}

impl Levels {
    pub(crate) fn of(total: u64) -> Self {
        let reserve = if total < TOTAL_MIN {
            0
        } else {
            (total / PART_OF_TOTAL).clamp(WRITE_BUFFER_BYTES_MAX, RESERVE_BYTES_MAX)
        };
        Self {
            reserve,
            line: (reserve / 2).max(LINE_BYTES_MIN),
            critical: (reserve / 8).max(CRITICAL_BYTES_MIN),
        }
    }

    /// New work that was refused is taken again from here on: a little above the line, so that a
    /// disk which stands at it does not change its mind with every batch.
    fn back(&self) -> u64 {
        self.line + self.line / 4
    }
}

/// What a look at the disk showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Why new work is refused, if it is.
    pub(crate) shortage: Option<Shortage>,
    /// Bytes free on the file system.
    pub(crate) free: u64,
}

/// Keeps the reserve, and knows whether new work is taken.
#[derive(Debug)]
pub(crate) struct Keeper {
    volume: Arc<dyn Volume>,
    levels: Levels,
    is_short: bool,
    last: Look,
    /// The file system cannot set space aside.
    cannot_reserve: bool,
}

impl Keeper {
    /// Looks at nothing yet but the size of the file system.
    pub(crate) fn new(volume: Arc<dyn Volume>) -> Self {
        // Who cannot say how large it is, is taken for large.
        let total = volume.total().unwrap_or(u64::MAX);
        Self {
            volume,
            levels: Levels::of(total),
            is_short: false,
            last: Look {
                shortage: None,
                free: 0,
            },
            cannot_reserve: false,
        }
    }

    /// The file system that it watches.
    pub(crate) fn volume(&self) -> Arc<dyn Volume> {
        self.volume.clone()
    }

    /// Bytes that are to be set aside.
    pub(crate) fn reserve(&self) -> u64 {
        if self.cannot_reserve {
            0
        } else {
            self.levels.reserve
        }
    }

    /// Bytes set aside now.
    pub(crate) fn reserved(&self) -> u64 {
        self.volume.reserved()
    }

    pub(crate) fn levels(&self) -> Levels {
        self.levels
    }

    /// Before anything is written by an engine that opens: gives up the reserve of a full disk.
    /// Returns how much is free then.
    pub(crate) fn before_open(&self) -> u64 {
        let free = self.volume.free().unwrap_or(u64::MAX);
        if free >= self.levels.critical || self.volume.reserved() == 0 {
            return free;
        }
        self.give_up(free);
        self.volume.free().unwrap_or(free)
    }

    /// Whether what fails now fails for want of room.
    pub(crate) fn is_without_room(&self) -> bool {
        let free = self.volume.free().unwrap_or(u64::MAX);
        free < self.levels.critical
    }

    /// Looks how much is free, and gives up the reserve, or takes it back, as that asks for.
    pub(crate) fn look(&mut self) -> Look {
        let was_short = self.is_short;
        let Ok(mut free) = self.volume.free() else {
            // Nothing is known, so nothing changes: what fails next says why.
            return self.last;
        };
        let missing = self.reserve().saturating_sub(self.volume.reserved());
        let usable = free.saturating_sub(missing);
        let enough = if was_short {
            self.levels.back()
        } else {
            self.levels.line
        };
        self.is_short = usable < enough;
        if free < self.levels.critical && self.volume.reserved() > 0 {
            self.give_up(free);
        } else if !self.is_short && missing > 0 {
            // ORDER: before anything new is let in.
            self.take_back();
            free = self.volume.free().unwrap_or(free);
        }
        let shortage = Shortage::Disk {
            free: usable,
            line: enough,
        };
        self.last = Look {
            shortage: self.is_short.then_some(shortage),
            free,
        };
        self.last
    }

    /// A write met the end of the space: what is set aside is for the next open.
    pub(crate) fn on_full(&mut self) {
        self.is_short = true;
        if self.volume.reserved() > 0 {
            self.give_up(self.volume.free().unwrap_or(0));
        }
    }

    fn give_up(&self, free: u64) {
        let bytes = Bytes(self.volume.reserved());
        match self.volume.release_reserve() {
            Ok(()) => {
                tracing::warn!(free, reserve = %bytes, "the reserve is given up: the disk is full")
            }
            Err(error) => tracing::error!(%error, "the reserve could not be given up"),
        }
    }

    fn take_back(&mut self) {
        let bytes = self.levels.reserve;
        match self.volume.make_reserve(bytes) {
            Ok(()) => tracing::debug!(reserve = %Bytes(bytes), "the reserve is there"),
            // The next look tries again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.is_short = true,
            Err(error) if is_full(&error) => {
                // Another program was faster.
                self.is_short = true;
                let _ = self.volume.release_reserve();
            }
            Err(error) => {
                self.cannot_reserve = true;
                let _ = self.volume.release_reserve();
                tracing::warn!(%error, "no space can be set aside here");
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A file system of numbers.
    #[derive(Debug, Default)]
    struct Made {
        /// (total, free without the reserve, reserved)
        state: Mutex<(u64, u64, u64)>,
        cannot: bool,
    }

    impl Made {
        fn of(total: u64, free: u64) -> Arc<Self> {
            Arc::new(Self {
                state: Mutex::new((total, free, 0)),
                cannot: false,
            })
        }

        fn set_free(&self, free: u64) {
            self.state.lock().unwrap().1 = free;
        }
    }

    impl Volume for Made {
        fn free(&self) -> io::Result<u64> {
            Ok(self.state.lock().unwrap().1)
        }

        fn total(&self) -> io::Result<u64> {
            Ok(self.state.lock().unwrap().0)
        }

        fn reserved(&self) -> u64 {
            self.state.lock().unwrap().2
        }

        fn make_reserve(&self, bytes: u64) -> io::Result<()> {
            if self.cannot {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let mut state = self.state.lock().unwrap();
            if state.1 < bytes {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.1 -= bytes;
            state.2 = bytes;
            Ok(())
        }

        fn release_reserve(&self) -> io::Result<()> {
            let mut state = self.state.lock().unwrap();
            state.1 += state.2;
            state.2 = 0;
            Ok(())
        }
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_reserve_follows_the_size_of_its_file_system() {
        for (total, reserve, line, critical) in [
            (0, 0, 8 * MIB, 2 * MIB),
            (64 * MIB - 1, 0, 8 * MIB, 2 * MIB),
            (64 * MIB, 8 * MIB, 8 * MIB, 2 * MIB),
            (GIB, 32 * MIB, 16 * MIB, 4 * MIB),
            (100 * GIB, 148 * MIB, 74 * MIB, 148 * MIB / 8),
            (u64::MAX, 148 * MIB, 74 * MIB, 148 * MIB / 8),
        ] {
            let levels = Levels {
                reserve,
                line,
                critical,
            };
            assert_eq!(Levels::of(total), levels, "{total}");
        }
    }

    #[test]
    fn a_disk_that_fills_up_and_is_freed_goes_through_all_of_it() {
        let volume = Made::of(100 * GIB, GIB);
        let mut keeper = Keeper::new(volume.clone());
        let look = keeper.look();
        assert_eq!(look.shortage, None);
        assert_eq!(keeper.reserved(), 148 * MIB);
        // The line itself is enough.
        volume.set_free(74 * MIB);
        assert_eq!(keeper.look().shortage, None);
        volume.set_free(74 * MIB - 1);
        let look = keeper.look();
        assert!(look.shortage.is_some());
        assert_eq!(keeper.reserved(), 148 * MIB);
        // A little above the line is not enough any more.
        volume.set_free(80 * MIB);
        let look = keeper.look();
        assert!(look.shortage.is_some());
        // Below the critical mark the reserve is given up, and what it held is not for new work.
        volume.set_free(10 * MIB);
        assert!(keeper.look().shortage.is_some());
        assert_eq!(keeper.reserved(), 0);
        assert_eq!(volume.free().unwrap(), 158 * MIB);
        assert_eq!(
            keeper.look().shortage,
            Some(Shortage::Disk {
                free: 10 * MIB,
                line: 74 * MIB + 74 * MIB / 4
            })
        );
        // Enough for the reserve and the line: the reserve comes first.
        volume.set_free(148 * MIB + 74 * MIB + 74 * MIB / 4);
        let look = keeper.look();
        assert!(look.shortage.is_none());
        assert_eq!(keeper.reserved(), 148 * MIB);
    }

    #[test]
    fn an_open_on_a_full_disk_gives_up_the_reserve_first() {
        let volume = Made::of(100 * GIB, 148 * MIB);
        volume.make_reserve(148 * MIB).unwrap();
        let mut keeper = Keeper::new(volume.clone());
        assert_eq!(keeper.before_open(), 148 * MIB);
        let look = keeper.look();
        assert!(look.shortage.is_some());
        assert_eq!(keeper.reserved(), 0);
    }

    #[test]
    fn where_nothing_can_be_set_aside_work_goes_on_without() {
        let volume = Arc::new(Made {
            state: Mutex::new((GIB, GIB, 0)),
            cannot: true,
        });
        let mut keeper = Keeper::new(volume);
        assert_eq!(keeper.look().shortage, None);
        assert_eq!((keeper.reserve(), keeper.reserved()), (0, 0));
        assert_eq!(keeper.look().shortage, None);
    }

    #[test]
    fn the_end_of_the_space_gives_up_the_reserve() {
        let volume = Made::of(100 * GIB, GIB);
        let mut keeper = Keeper::new(volume);
        keeper.look();
        keeper.on_full();
        assert_eq!(keeper.reserved(), 0);
    }
}
