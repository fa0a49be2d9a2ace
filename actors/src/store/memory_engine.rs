//! An engine without files, whose power can be cut at any step of a commit.
//!
//! A [`MemoryDisk`] outlives the engines that are opened on it, as a disk outlives processes.
//! It keeps what was synced. A commit that was written and not synced when the power went is there
//! or not, as the seed decides, but always as a whole, like a journal with checksums. After a cut
//! every call fails until the disk is opened again.
//! It keeps everything in memory and copies a whole keyspace when a snapshot is held across a
//! commit: it is for tests and simulation.
//!
//! Read [`MemoryDisk::cut_after`] for the steps at which the power can go.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::engine::{Change, Engine, Pair, Snapshot};
use super::error::EngineError;
use super::keys::Space;
use super::mark_file::Mark;
use super::space::Volume;

type Rows = Arc<BTreeMap<Bytes, Bytes>>;
type Torn = [BTreeMap<Bytes, Bytes>; 3];

/// More than any test fills.
const FREE_UNLESS_SET: u64 = 1 << 50;

/// Steps of one commit, in their order; the power can go before each.
const STEPS: [Step; 5] = [
    Step::Write,
    Step::Sync,
    Step::Publish,
    Step::Mark,
    Step::Answer,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Into the cache of the operating system.
    Write,
    /// To the disk.
    Sync,
    /// Into sight of readers.
    Publish,
    /// `commit.mark`.
    Mark,
    /// Back to the writer.
    Answer,
}

#[derive(Debug, Default)]
struct State {
    seed: u64,
    /// What the disk holds.
    synced: [Rows; 3],
    /// What readers of the present life see.
    visible: [Rows; 3],
    /// Written, not synced.
    pending: Option<Vec<Change>>,
    mark: Option<Mark>,
    /// Rows in blocks that cannot be read, as they were.
    torn: Torn,
    life: u64,
    powered: bool,
    open: bool,
    steps_left: Option<u64>,
    full: bool,
    /// Bytes free beside the reserve, and bytes in it.
    free: u64,
    reserved: u64,
    commits: u64,
    /// The longest that a commit takes before its sync, and after it.
    latency_ms: (u64, u64),
}

/// A disk made of memory. Clones are the same disk.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    probe: Arc<Mutex<Option<Probe>>>,
}

/// Looks at the store from inside a commit. Called with the number of the step that comes next.
type Probe = Box<dyn FnMut(u64) + Send>;

impl MemoryDisk {
    /// An empty disk; `seed` decides what survives cuts of its power.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                seed,
                free: FREE_UNLESS_SET,
                ..State::default()
            })),
            probe: Arc::default(),
        }
    }

    /// How many steps one commit has.
    pub const STEPS_PER_COMMIT: u64 = STEPS.len() as u64;

    /// Cuts the power before the commit step that comes after `steps` more of them: before the
    /// write, the sync, the publishing, the mark or the answer of some commit.
    pub fn cut_after(&self, steps: u64) {
        self.lock().steps_left = Some(steps);
    }

    /// Calls `probe` before every step of every commit, from the writer thread: 0 write, 1 sync,
    /// 2 publish, 3 mark, 4 answer.
    pub fn probe(&self, probe: impl FnMut(u64) + Send + 'static) {
        *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(probe));
    }

    /// Cuts the power now.
    pub fn cut(&self) {
        self.lock().cut();
    }

    /// Whether the power is on; opening the store turns it on.
    #[must_use]
    pub fn is_powered(&self) -> bool {
        self.lock().powered
    }

    /// Makes every further commit fail for want of space, or work again.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Lets every commit take up to so many milliseconds before its sync, and after it; the seed
    /// decides. Only where the writer is a task; a thread does not wait.
    pub fn set_latency(&self, before_ms: u64, after_ms: u64) {
        self.lock().latency_ms = (before_ms, after_ms);
    }

    /// Another disk with the same content, as a copy of a folder is. Its power is off.
    #[must_use]
    pub fn image(&self, seed: u64) -> Self {
        let state = self.lock();
        let copy = Self::new(seed);
        *copy.lock() = State {
            seed,
            synced: state.synced.clone(),
            mark: state.mark,
            torn: state.torn.clone(),
            free: state.free,
            reserved: state.reserved,
            commits: state.commits,
            latency_ms: state.latency_ms,
            ..State::default()
        };
        copy
    }

    /// Says how many bytes are free beside the reserve. Nothing that is written changes it.
    pub fn set_free(&self, bytes: u64) {
        self.lock().free = bytes;
    }

    /// How many bytes are set aside.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.lock().reserved
    }

    /// How many commits have been made durable.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// All rows of a keyspace as the disk holds them.
    #[must_use]
    pub fn rows(&self, space: Space) -> Vec<(Vec<u8>, Vec<u8>)> {
        let state = self.lock();
        state.synced[space as usize]
            .iter()
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect()
    }

    /// Overwrites one value on the disk, as damage would.
    pub fn overwrite(&self, space: Space, key: &[u8], value: Vec<u8>) {
        let mut state = self.lock();
        let rows = &mut state.synced[space as usize];
        Arc::make_mut(rows).insert(Bytes::copy_from_slice(key), Bytes::from(value));
        state.visible[space as usize] = state.synced[space as usize].clone();
    }

    /// Takes one row off the disk, as a lost file would.
    pub fn lose(&self, space: Space, key: &[u8]) {
        let mut state = self.lock();
        Arc::make_mut(&mut state.synced[space as usize]).remove(key);
        state.visible[space as usize] = state.synced[space as usize].clone();
    }

    /// Makes one row's block unreadable: the row cannot be read, and a scan ends there and shows
    /// nothing of what lies behind it.
    pub fn tear(&self, space: Space, key: &[u8]) {
        let mut state = self.lock();
        let row = state.synced[space as usize].get_key_value(key);
        if let Some((key, value)) = row.map(|(key, value)| (key.clone(), value.clone())) {
            state.torn[space as usize].insert(key, value);
        }
    }

    /// Says that commit `number` had been durable, as a `commit.mark` ahead of the rows would.
    pub fn set_mark(&self, number: u64) {
        self.lock().mark = Some(Mark {
            number,
            clean: false,
        });
    }

    /// Turns the power on. `None` when another engine is open on this disk.
    pub(crate) fn open(&self) -> Option<(MemoryEngine, Option<Mark>)> {
        let mut state = self.lock();
        if state.open && state.powered {
            return None;
        }
        if let Some(pending) = state.pending.take()
            && state.flips_heads()
        {
            apply(&mut state.synced, &pending);
            state.commits += 1;
        }
        state.visible = state.synced.clone();
        state.life += 1;
        state.powered = true;
        state.open = true;
        let engine = MemoryEngine {
            disk: self.clone(),
            life: state.life,
        };
        Some((engine, state.mark))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volume for MemoryDisk {
    fn free(&self) -> io::Result<u64> {
        Ok(self.lock().free)
    }

    fn total(&self) -> io::Result<u64> {
        Ok(FREE_UNLESS_SET)
    }

    fn reserved(&self) -> u64 {
        MemoryDisk::reserved(self)
    }

    fn make_reserve(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.lock();
        let missing = bytes.saturating_sub(state.reserved);
        if state.free < missing {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.free -= missing;
        state.reserved = bytes;
        Ok(())
    }

    fn release_reserve(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.free += state.reserved;
        state.reserved = 0;
        Ok(())
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryDisk")
            .field("seed", &state.seed)
            .field("powered", &state.powered)
            .field("commits", &state.commits)
            .finish_non_exhaustive()
    }
}

impl State {
    fn flips_heads(&mut self) -> bool {
        self.draw() >> 63 == 0
    }

    /// The next number; its high bits are the good ones.
    fn draw(&mut self) -> u64 {
        // A linear congruential generator (Knuth's MMIX constants).
        const FACTOR: u64 = 6_364_136_223_846_793_005;
        const STEP: u64 = 1_442_695_040_888_963_407;
        self.seed = self.seed.wrapping_mul(FACTOR).wrapping_add(STEP);
        self.seed
    }

    fn cut(&mut self) {
        self.powered = false;
        self.open = false;
        self.steps_left = None;
        // The mark is not synced: it may be the one before, or none at all.
        if let Some(mark) = self.mark
            && !mark.clean
            && self.flips_heads()
        {
            self.mark = Some(Mark {
                number: mark.number.saturating_sub(1),
                clean: false,
            });
        }
    }

    /// Goes one step further, or dies.
    fn step(&mut self, life: u64) -> Result<(), EngineError> {
        if !self.powered || self.life != life {
            return Err(EngineError::Gone);
        }
        match &mut self.steps_left {
            None => Ok(()),
            Some(0) => {
                self.cut();
                Err(EngineError::Gone)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

fn apply(rows: &mut [Rows; 3], changes: &[Change]) {
    for change in changes {
        let rows = Arc::make_mut(&mut rows[change.space as usize]);
        match &change.value {
            Some(value) => rows.insert(change.key.clone(), value.clone()),
            None => rows.remove(&change.key),
        };
    }
}

/// One life of a store on a [`MemoryDisk`].
#[derive(Debug)]
pub(crate) struct MemoryEngine {
    disk: MemoryDisk,
    life: u64,
}

impl Engine for MemoryEngine {
    fn commit(&self, number: u64, changes: Vec<Change>) -> Result<(), EngineError> {
        for (number_of_step, step) in (0..).zip(STEPS) {
            // The lock is given back between steps, so that readers can look in between.
            let mut probe = self
                .disk
                .probe
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(probe) = &mut *probe {
                probe(number_of_step);
            }
            drop(probe);
            let mut state = self.disk.lock();
            state.step(self.life)?;
            if state.full {
                state.pending = None;
                return Err(EngineError::Full);
            }
            match step {
                Step::Write => state.pending = Some(changes.clone()),
                Step::Sync => {
                    let pending = state.pending.take().unwrap_or_default();
                    apply(&mut state.synced, &pending);
                    state.commits += 1;
                }
                Step::Publish => apply(&mut state.visible, &changes),
                Step::Mark => {
                    state.mark = Some(Mark {
                        number,
                        clean: false,
                    })
                }
                Step::Answer => {}
            }
        }
        Ok(())
    }

    #[cfg(feature = "sim")]
    fn write_ahead(&self, changes: &[Change]) -> (u64, u64) {
        use packhorse_protocol::mutant::{self, Mutant};

        let mut state = self.disk.lock();
        if state.powered && state.life == self.life && !state.full {
            state.pending = Some(changes.to_vec());
            if mutant::is(Mutant::VisibleBeforeDurable) {
                apply(&mut state.visible, changes);
            }
        }
        let (before_ms, after_ms) = state.latency_ms;
        let mut draw = |max: u64| (state.draw() >> 32) % (max + 1);
        (draw(before_ms), draw(after_ms))
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        let state = self.disk.lock();
        if !state.powered || state.life != self.life {
            return Err(EngineError::Gone);
        }
        Ok(Box::new(MemorySnapshot {
            rows: state.visible.clone(),
            torn: state.torn.clone(),
        }))
    }

    fn note_open(&self, number: u64) -> Result<(), EngineError> {
        let mut state = self.disk.lock();
        if !state.powered || state.life != self.life {
            return Err(EngineError::Gone);
        }
        state.mark = Some(Mark {
            number,
            clean: false,
        });
        Ok(())
    }

    fn settle_down(&self, number: u64) -> Result<(), EngineError> {
        let mut state = self.disk.lock();
        if !state.powered || state.life != self.life {
            return Err(EngineError::Gone);
        }
        state.mark = Some(Mark {
            number,
            clean: true,
        });
        Ok(())
    }
}

impl Drop for MemoryEngine {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.life == self.life {
            state.open = false;
        }
    }
}

struct MemorySnapshot {
    rows: [Rows; 3],
    torn: Torn,
}

impl Snapshot for MemorySnapshot {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.rows[space as usize].get(key);
        // What was written since lies elsewhere.
        if found.is_some() && found == self.torn[space as usize].get(key) {
            return Err(unreadable());
        }
        Ok(found.cloned())
    }

    fn scan<'a>(
        &'a self,
        space: Space,
        from: &[u8],
        end: &[u8],
    ) -> Box<dyn Iterator<Item = Result<Pair, EngineError>> + 'a> {
        if from >= end {
            return Box::new(std::iter::empty());
        }
        let range = (Bound::Included(from), Bound::Excluded(end));
        let torn = self.torn[space as usize].range::<[u8], _>(range).next();
        let torn = torn.map(|(key, _)| key);
        let rows = self.rows[space as usize].range::<[u8], _>(range);
        let rows = rows.take_while(move |(key, _)| torn.is_none_or(|torn| *key < torn));
        let rows = rows.map(|(key, value)| Ok((key.clone(), value.clone())));
        Box::new(rows.chain(torn.map(|_| Err(unreadable()))))
    }
}

fn unreadable() -> EngineError {
    EngineError::Read("a block cannot be read (simulation)".into())
}
