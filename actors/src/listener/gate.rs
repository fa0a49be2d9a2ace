//! The gate: what strangers may cost this node, decided before they cost it.
//!
//! It is pure: time comes in as an argument, links are numbers, and what it decides is carried out
//! by [`super::door`]. One gate serves all listeners of a node.
//!
//! ```text
//! first packet ──offer──► token? ──► QUIC handshake ──arrive──► cheap place ──knock──► costly place ──► Verdict
//!                  │                  half open, 4 s            2 s, oldest goes       10 s, or refused
//!                  └─ Retry: show that the address is yours, then `enter`
//! ```
//!
//! A quarter of everything is kept for prefixes from which a peer has authenticated lately, and an
//! address that is only claimed never reaches that quarter, nor the two before it: above a quarter
//! of a bucket's use, or with [`HALF_OPEN_UNPROVEN_MAX`] handshakes under way, Retry is demanded.
//! So whoever lies about its address can neither spend a victim's tokens nor fill half-open places.

use std::collections::BTreeMap;

use super::{
    bucket::{Bucket, Rate},
    known::Known,
    prefix::Prefix,
    slots::{NoRoom, SlotId, SlotLimits, Slots, Standing},
};

/// New links in all: a QUIC handshake costs about 0.3 ms of a core, so 3 % of one.
pub const LINKS: Rate = Rate { per_s: 100 };
/// New links of one prefix: a peer that redials needs one in a second at most.
pub const LINKS_PER_PREFIX: Rate = Rate { per_s: 10 };
/// Handshakes of this protocol after a valid knock: ML-KEM, X25519 and a signature, 0.3 ms.
pub const KNOCKS: Rate = Rate { per_s: 100 };
/// QUIC handshakes under way: what the bucket lets in within the 4 s that each may take, and the
/// second's worth it begins with.
pub const HALF_OPEN: SlotLimits = SlotLimits {
    all: 512,
    per_prefix: 64,
};
/// QUIC handshakes under way beyond which an address has to be shown first.
pub const HALF_OPEN_UNPROVEN_MAX: usize = 16;
/// Links without a valid knock.
pub const CHEAP: SlotLimits = SlotLimits {
    all: 1_024,
    per_prefix: 64,
};
/// Links between knock and Verdict.
pub const COSTLY: SlotLimits = SlotLimits {
    all: 64,
    per_prefix: 8,
};

const _: () = assert!(HALF_OPEN.all as u64 >= LINKS.per_s * 5);
const _: () = assert!(HALF_OPEN.per_prefix as u64 >= LINKS_PER_PREFIX.per_s * 5);
const _: () = assert!(COSTLY.all <= CHEAP.all);

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never runs backwards.
    pub monotonic_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// Which bound turned somebody away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Too many links in all.
    Links,
    /// Too many links from that prefix.
    LinksOfPrefix,
    /// Too many QUIC handshakes under way.
    HalfOpen,
    /// Too many handshakes of this protocol in a second.
    Knocks,
    /// Too many handshakes of this protocol under way.
    Costly,
}

/// What is done about a first packet whose sender's address is only claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// A QUIC handshake begins.
    Allow,
    /// The sender has to show first that the address is its own.
    Retry,
    /// Nothing is answered.
    Drop(Full),
}

/// The gate's bookkeeping.
#[derive(Debug)]
pub struct Gate {
    links: Bucket,
    /// Only buckets that are not full: each was taken from within the last second, and a second
    /// has at most 200 tokens in all, so this map is as bounded as the bucket above.
    prefixes: BTreeMap<Prefix, Bucket>,
    knocks: Bucket,
    half_open: Slots,
    cheap: Slots,
    costly: Slots,
    known: Known,
    /// Up to when the buckets were filled.
    filled_ms: u64,
    next: u64,
}

impl Gate {
    /// Nobody is here yet.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self {
            links: Bucket::new(LINKS, now.monotonic_ms),
            prefixes: BTreeMap::new(),
            knocks: Bucket::new(KNOCKS, now.monotonic_ms),
            half_open: Slots::new(HALF_OPEN),
            cheap: Slots::new(CHEAP),
            costly: Slots::new(COSTLY),
            known: Known::default(),
            filled_ms: now.monotonic_ms,
            next: 0,
        }
    }

    /// A first packet came; its sender's address may be a lie. Allowed, it spends tokens.
    pub fn offer(&mut self, prefix: Prefix, now: Now) -> Offer {
        if prefix == Prefix::Here {
            return match self.half_open_room(prefix, now) {
                Ok(()) => Offer::Allow,
                Err(full) => Offer::Drop(full),
            };
        }
        if let Err(full) = self.room(prefix, now) {
            return Offer::Drop(full);
        }
        let is_quiet = self.links.has(3)
            && self.prefixes.get(&prefix).is_none_or(|own| own.has(3))
            && self.half_open.len() < HALF_OPEN_UNPROVEN_MAX;
        if !is_quiet {
            return Offer::Retry;
        }
        self.spend(prefix, now);
        Offer::Allow
    }

    /// Whether a sender that has shown its address could enter now.
    ///
    /// # Errors
    /// The bound that keeps it out.
    pub fn room(&mut self, prefix: Prefix, now: Now) -> Result<(), Full> {
        self.half_open_room(prefix, now)?;
        if prefix == Prefix::Here {
            return Ok(());
        }
        self.fill(now);
        if self.prefixes.get(&prefix).is_some_and(|own| !own.has(0)) {
            return Err(Full::LinksOfPrefix);
        }
        let quarters_left = match self.standing(prefix, now) {
            Standing::Stranger => 1,
            Standing::Known | Standing::Here => 0,
        };
        match self.links.has(quarters_left) {
            true => Ok(()),
            false => Err(Full::Links),
        }
    }

    /// A sender has shown its address, and a QUIC handshake begins; it spends tokens.
    ///
    /// # Errors
    /// The bound that keeps it out; nothing was spent.
    pub fn enter(&mut self, prefix: Prefix, now: Now) -> Result<(), Full> {
        self.room(prefix, now)?;
        if prefix != Prefix::Here {
            self.spend(prefix, now);
        }
        Ok(())
    }

    /// A QUIC handshake began; the gate was asked before.
    pub fn begin(&mut self, prefix: Prefix, now: Now) -> SlotId {
        let id = self.next_id();
        // It runs already: it is counted, whatever the bounds say by now.
        let standing = self.standing(prefix, now);
        self.half_open.insert(id, prefix, standing);
        id
    }

    /// A QUIC handshake ended, or was accepted.
    pub fn end(&mut self, id: SlotId) {
        self.half_open.leave(id);
    }

    /// A link is up and holds a cheap place; those that lose theirs are to be closed.
    pub fn arrive(&mut self, prefix: Prefix, now: Now) -> (SlotId, Vec<SlotId>) {
        let id = self.next_id();
        let standing = self.standing(prefix, now);
        let evicted = self.cheap.take_from_oldest(id, prefix, standing);
        (id, evicted)
    }

    /// A link knocked validly: it leaves its cheap place for a costly one.
    ///
    /// # Errors
    /// The bound that keeps it out; it holds no place any more.
    pub fn knock(&mut self, id: SlotId, prefix: Prefix, now: Now) -> Result<(), Full> {
        self.cheap.leave(id);
        let standing = self.standing(prefix, now);
        self.knocks.fill(now.monotonic_ms);
        let quarters_left = match standing {
            Standing::Stranger => 1,
            Standing::Known | Standing::Here => 0,
        };
        if standing != Standing::Here && !self.knocks.has(quarters_left) {
            return Err(Full::Knocks);
        }
        self.costly
            .take(id, prefix, standing)
            .map_err(|(NoRoom::Prefix | NoRoom::All)| Full::Costly)?;
        if standing != Standing::Here {
            self.knocks.take();
        }
        Ok(())
    }

    /// A link is authenticated or gone.
    pub fn leave(&mut self, id: SlotId) {
        let _ = self.cheap.leave(id) || self.costly.leave(id);
    }

    /// The peer that was known from there is forgotten.
    pub fn forget_known(&self, prefix: Prefix) {
        self.known.forget(prefix);
    }

    /// A peer authenticated from there.
    pub fn note_known(&mut self, prefix: Prefix, at_ms: u64) {
        self.known.note(prefix, at_ms);
    }

    /// QUIC handshakes under way.
    #[must_use]
    pub const fn half_open(&self) -> &Slots {
        &self.half_open
    }

    /// Links without a knock.
    #[must_use]
    pub const fn cheap(&self) -> &Slots {
        &self.cheap
    }

    /// Links between knock and Verdict.
    #[must_use]
    pub const fn costly(&self) -> &Slots {
        &self.costly
    }

    /// Prefixes from which a peer authenticated lately.
    #[must_use]
    pub const fn known(&self) -> &Known {
        &self.known
    }

    /// Prefixes whose bucket is not full.
    #[must_use]
    pub fn busy_prefixes(&self) -> usize {
        self.prefixes.len()
    }

    fn standing(&self, prefix: Prefix, now: Now) -> Standing {
        match prefix {
            Prefix::Here => Standing::Here,
            other if self.known.has(other, now.wall_ms) => Standing::Known,
            _ => Standing::Stranger,
        }
    }

    fn half_open_room(&self, prefix: Prefix, now: Now) -> Result<(), Full> {
        match self.half_open.no_room(prefix, self.standing(prefix, now)) {
            None => Ok(()),
            Some(NoRoom::Prefix | NoRoom::All) => Err(Full::HalfOpen),
        }
    }

    fn fill(&mut self, now: Now) {
        // Many packets share a millisecond, and each would look at every bucket again.
        if now.monotonic_ms <= self.filled_ms {
            return;
        }
        self.filled_ms = now.monotonic_ms;
        self.links.fill(now.monotonic_ms);
        self.prefixes.retain(|_, bucket| {
            bucket.fill(now.monotonic_ms);
            !bucket.is_full()
        });
    }

    fn spend(&mut self, prefix: Prefix, now: Now) {
        self.links.take();
        self.prefixes
            .entry(prefix)
            .or_insert_with(|| Bucket::new(LINKS_PER_PREFIX, now.monotonic_ms))
            .take();
    }

    const fn next_id(&mut self) -> SlotId {
        self.next += 1;
        SlotId(self.next)
    }
}
