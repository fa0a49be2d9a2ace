//! Places for links that have not shown yet that they are worth one.
//!
//! A place is held by a number that only rises, so the lowest number is the oldest.
//! Pure bookkeeping: it never waits, never closes a link, never reads a clock.

use std::collections::{BTreeMap, BTreeSet};

use super::prefix::Prefix;

/// How much a prefix may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nobody has authenticated from there.
    Stranger,
    /// A peer has authenticated from there lately.
    Known,
    /// This machine itself.
    Here,
}

/// A held place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u64);

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotLimits {
    /// All of them.
    pub all: usize,
    /// Of one prefix; this machine has no such limit.
    pub per_prefix: usize,
}

impl SlotLimits {
    /// What strangers may hold together: three quarters; the rest waits for known prefixes.
    #[must_use]
    pub const fn strangers(&self) -> usize {
        self.all - self.all / 4
    }
}

/// Which bound leaves no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The prefix holds its share.
    Prefix,
    /// Everybody together does.
    All,
}

/// The places and who holds them.
#[derive(Debug)]
pub struct Slots {
    limits: SlotLimits,
    held: BTreeMap<SlotId, (Prefix, Standing)>,
    by_prefix: BTreeMap<Prefix, BTreeSet<SlotId>>,
    /// Those of strangers.
    strangers: BTreeSet<SlotId>,
}

impl Slots {
    /// All places are free.
    #[must_use]
    pub fn new(limits: SlotLimits) -> Self {
        Self {
            limits,
            held: BTreeMap::new(),
            by_prefix: BTreeMap::new(),
            strangers: BTreeSet::new(),
        }
    }

    /// Gives `id` a place if there is one. An id is given once.
    ///
    /// # Errors
    /// The bound that leaves none.
    pub fn take(&mut self, id: SlotId, prefix: Prefix, standing: Standing) -> Result<(), NoRoom> {
        if let Some(no_room) = self.no_room(prefix, standing) {
            return Err(no_room);
        }
        self.insert(id, prefix, standing);
        Ok(())
    }

    /// Gives `id` a place in any case; the oldest that stand in the way lose theirs.
    ///
    /// Mostly that is nobody or one; two where a prefix's standing has changed meanwhile.
    pub fn take_from_oldest(
        &mut self,
        id: SlotId,
        prefix: Prefix,
        standing: Standing,
    ) -> Vec<SlotId> {
        let mut evicted = Vec::new();
        while let Some(no_room) = self.no_room(prefix, standing) {
            let oldest = match no_room {
                NoRoom::Prefix => self.oldest_of(prefix),
                // Known ones and this machine give way only where no stranger is left to.
                NoRoom::All => self
                    .strangers
                    .first()
                    .or_else(|| self.held.keys().next())
                    .copied(),
            };
            let Some(oldest) = oldest else { break };
            self.leave(oldest);
            evicted.push(oldest);
        }
        self.insert(id, prefix, standing);
        evicted
    }

    /// Frees a place. False if it was not held any more.
    pub fn leave(&mut self, id: SlotId) -> bool {
        let Some((prefix, _)) = self.held.remove(&id) else {
            return false;
        };
        self.strangers.remove(&id);
        if let Some(ids) = self.by_prefix.get_mut(&prefix) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_prefix.remove(&prefix);
            }
        }
        true
    }

    /// Places taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Nobody is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Places taken from one prefix.
    #[must_use]
    pub fn of_prefix(&self, prefix: Prefix) -> usize {
        self.by_prefix.get(&prefix).map_or(0, BTreeSet::len)
    }

    /// Places taken by strangers.
    #[must_use]
    pub fn of_strangers(&self) -> usize {
        self.strangers.len()
    }

    pub(super) fn no_room(&self, prefix: Prefix, standing: Standing) -> Option<NoRoom> {
        if standing != Standing::Here && self.of_prefix(prefix) >= self.limits.per_prefix {
            return Some(NoRoom::Prefix);
        }
        let is_full = self.held.len() >= self.limits.all;
        let is_share_spent =
            standing == Standing::Stranger && self.strangers.len() >= self.limits.strangers();
        (is_full || is_share_spent).then_some(NoRoom::All)
    }

    fn oldest_of(&self, prefix: Prefix) -> Option<SlotId> {
        self.by_prefix.get(&prefix)?.first().copied()
    }

    pub(super) fn insert(&mut self, id: SlotId, prefix: Prefix, standing: Standing) {
        self.held.insert(id, (prefix, standing));
        self.by_prefix.entry(prefix).or_default().insert(id);
        if standing == Standing::Stranger {
            self.strangers.insert(id);
        }
    }
}
