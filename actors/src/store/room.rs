//! What is short now, and what was told of it.
//!
//! One list for the disk and for the quotas. The disk is looked at before every batch; a quota is
//! noticed when a job was refused for it, and is over when its box has emptied by a sixteenth.
//! Told once when it begins, and once when nothing is short any more.
//! Only the writer thread changes it.

use crate::events::Fact;

use super::error::ReadFault;
use super::quota::{Quotas, Room};
use super::reserve::Keeper;
use super::space::{Shortage, Storage};
use super::tables::held;
use super::view::View;

/// A quota is over when its box holds less than the limit by this part of it.
const BACK_BY_PART: u64 = 16;
/// How long after the last shortage of the disk a failed write is taken for one: the engine's own
/// thread fails unseen, and the space may be back when its failure is found.
const BLAMED_MS: u64 = 60_000;

/// What is short.
#[derive(Debug)]
pub(crate) struct RoomKeeper {
    keeper: Keeper,
    quotas: Quotas,
    short: Vec<Shortage>,
    free: u64,
    disk_short_at_ms: Option<u64>,
}

impl RoomKeeper {
    pub(crate) fn new(keeper: Keeper, quotas: Quotas) -> Self {
        Self {
            keeper,
            quotas,
            short: Vec::new(),
            free: 0,
            disk_short_at_ms: None,
        }
    }

    /// Looks at the disk, and tells the batch to come and the events.
    pub(crate) fn look(&mut self, view: &mut View, now_ms: u64, monotonic_ms: u64) {
        let look = self.keeper.look();
        self.free = look.free;
        if let Some(shortage) = look.shortage {
            self.disk_short_at_ms = Some(monotonic_ms);
            self.begin(view, now_ms, shortage);
        } else {
            self.end(view, now_ms, |short| matches!(short, Shortage::Disk { .. }));
        }
        view.set_room(Room {
            disk: look.shortage,
            quotas: self.quotas,
        });
    }

    /// The same at an open, when nobody can be told yet.
    pub(crate) fn look_at_open(&mut self) {
        self.free = self.keeper.look().free;
    }

    /// After the jobs of a batch: which quotas refused one, and which are over.
    pub(crate) fn settle(&mut self, view: &mut View, now_ms: u64) -> Result<(), ReadFault> {
        for shortage in view.take_refused() {
            self.begin(view, now_ms, shortage);
        }
        let mut over = Vec::new();
        for short in &self.short {
            if let Some((used, limit)) = held::used_now(view, short)?
                && used <= limit - limit / BACK_BY_PART
            {
                over.push(*short);
            }
        }
        if !over.is_empty() {
            self.end(view, now_ms, |short| over.contains(short));
        }
        Ok(())
    }

    fn begin(&mut self, view: &mut View, now_ms: u64, shortage: Shortage) {
        let known = self.short.iter_mut().find(|known| known.is_like(&shortage));
        match known {
            Some(known) => *known = shortage,
            None => {
                // The shortage itself names no peer, because that peer is told it.
                let text = match &shortage {
                    Shortage::Share { peer, .. } => format!("peer {}: {shortage}", peer.0),
                    _ => shortage.to_string(),
                };
                tracing::warn!(shortage = %text, "new work is refused");
                view.fact_at(now_ms, Fact::StorageFull { text });
                self.short.push(shortage);
            }
        }
    }

    fn end(&mut self, view: &mut View, now_ms: u64, is_over: impl Fn(&Shortage) -> bool) {
        let before = self.short.len();
        self.short.retain(|short| !is_over(short));
        if before > 0 && self.short.is_empty() {
            tracing::info!("new work is taken again");
            view.fact_at(now_ms, Fact::StorageBack);
        }
    }

    /// A write met the end of the space.
    pub(crate) fn on_full(&mut self) {
        self.keeper.on_full();
    }

    /// Whether a failed write is to be blamed on the disk's space.
    pub(crate) fn is_to_blame(&self, monotonic_ms: u64) -> bool {
        self.disk_short_at_ms
            .is_some_and(|at_ms| monotonic_ms.saturating_sub(at_ms) <= BLAMED_MS)
    }

    /// How it stands.
    pub(crate) fn storage(&self, held: held::Held) -> Storage {
        Storage {
            free: self.free,
            line: self.keeper.levels().line,
            reserved: self.keeper.reserved(),
            reserve: self.keeper.reserve(),
            outbox: held.outbox,
            inbox: held.inbox,
            dead: held.dead,
            shortages: self.short.clone(),
        }
    }
}
