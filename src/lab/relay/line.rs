//! One direction of traffic between two nodes while it runs: a wire, a clock, and a task that hands
//! on what is due.
//!
//! Two relays share each line: what one node sends to another takes this one whoever of them
//! dialled. So an impairment holds for the traffic of a direction, not for one link.
//!
//! Memory: a datagram that waits keeps one buffer, of which the line reuses the most recent ones;
//! one that passes at once is never copied.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::impairment::Impairment;
use super::wire::{Offered, Wire, WireCounts};
use crate::lab::random::Random;

/// Buffers that are kept for the next datagrams; 256 of 9 KiB are 2.3 MiB at most.
const SPARE_COUNT_MAX: usize = 256;

/// One direction of traffic. It carries for as long as it lives.
#[derive(Debug)]
pub(crate) struct Line {
    shared: Arc<Shared>,
    /// Hands on what is due; ends with the line.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    traffic: Mutex<Traffic>,
    /// Something is due earlier than everything before it was.
    earlier: Notify,
}

#[derive(Debug)]
struct Traffic {
    wire: Wire<Parcel>,
    spare: Vec<Vec<u8>>,
}

/// A datagram that waits.
#[derive(Debug)]
struct Parcel {
    bytes: Vec<u8>,
    way: Way,
}

/// How a datagram leaves the relay.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) to: Recipient,
}

/// Who is to get a datagram.
#[derive(Clone, Debug)]
pub(crate) enum Recipient {
    /// Who dialled the relay.
    Dialler(SocketAddr),
    /// Whoever the relay leads to when the datagram arrives.
    Target(Arc<Target>),
}

/// Where a relay leads; nowhere while its node is down.
#[derive(Debug)]
pub(crate) struct Target {
    address: RwLock<Option<SocketAddr>>,
    /// How many lives of the node are over.
    ends: watch::Sender<u64>,
}

impl Default for Target {
    fn default() -> Target {
        Target {
            address: RwLock::default(),
            ends: watch::channel(0).0,
        }
    }
}

impl Target {
    /// Nowhere when the node's process has ended.
    pub(crate) fn set(&self, address: Option<SocketAddr>) {
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = address;
        if address.is_none() {
            self.ends.send_modify(|ends| *ends += 1);
        }
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        *self.address.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes with every end of the node's process.
    pub(crate) fn ends(&self) -> watch::Receiver<u64> {
        self.ends.subscribe()
    }
}

impl Way {
    /// Whether the system took it. A full socket loses it, as a network does; of what it took it may
    /// still lose some when the recipient's socket is full, and tells nobody.
    fn carry(&self, bytes: &[u8]) -> bool {
        let to = match &self.to {
            Recipient::Dialler(address) => Some(*address),
            Recipient::Target(target) => target.address(),
        };
        to.is_some_and(|to| self.socket.try_send_to(bytes, to).is_ok())
    }
}

impl Line {
    /// A line without impairment.
    pub(crate) fn new(random: Random, runtime: &Handle) -> Line {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            traffic: Mutex::new(Traffic {
                wire: Wire::new(random),
                spare: Vec::new(),
            }),
            earlier: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn_on(hand_on(Arc::clone(&shared)), runtime);
        Line {
            shared,
            _tasks: tasks,
        }
    }

    /// A datagram comes that is to leave this way.
    pub(crate) fn carry(&self, bytes: &[u8], way: &Way) {
        let now = self.shared.now();
        let mut traffic = self.shared.lock();
        let Traffic { wire, spare } = &mut *traffic;
        let due_before = wire.next_due();
        let offered = wire.offer(now, bytes.len(), || {
            let mut kept = spare.pop().unwrap_or_default();
            kept.clear();
            kept.extend_from_slice(bytes);
            Parcel {
                bytes: kept,
                way: way.clone(),
            }
        });
        // ORDER: sent under the lock, or what is due now could be overtaken between the two.
        if offered == Offered::PassesNow {
            match way.carry(bytes) {
                true => wire.note_delivered(bytes.len()),
                false => wire.note_undeliverable(),
            }
        }
        let is_earlier = match (due_before, wire.next_due()) {
            (Some(before), Some(after)) => after < before,
            (before, after) => before.is_none() && after.is_some(),
        };
        drop(traffic);
        if is_earlier {
            self.shared.earlier.notify_one();
        }
    }

    /// A datagram came that is larger than a relay carries.
    pub(crate) fn refuse_large(&self, bytes: usize) {
        self.shared.lock().wire.refuse_large(bytes);
    }

    /// A datagram came for which the relay has no socket.
    pub(crate) fn starve(&self, bytes: usize) {
        self.shared.lock().wire.starve(bytes);
    }

    /// Changes what is wrong with the line, from now on.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Impairment)) {
        let now = self.shared.now();
        let mut traffic = self.shared.lock();
        let Traffic { wire, spare } = &mut *traffic;
        let mut impairment = wire.impairment();
        change(&mut impairment);
        wire.set(now, impairment, |parcel| put_aside(spare, parcel.bytes));
        drop(traffic);
        // Another rate may have made something due earlier.
        self.shared.earlier.notify_one();
    }

    pub(crate) fn impairment(&self) -> Impairment {
        self.shared.lock().wire.impairment()
    }

    pub(crate) fn counts(&self) -> WireCounts {
        self.shared.lock().wire.counts()
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Traffic> {
        // Counts may be off by the datagram whose handling panicked; nothing else is half done.
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on everything that is due, and says when something is due again.
    fn hand_on_due(&self) -> Option<Duration> {
        let now = self.now();
        let mut traffic = self.lock();
        let Traffic { wire, spare } = &mut *traffic;
        while let Some(Parcel { bytes, way }) = wire.take_due(now) {
            match way.carry(&bytes) {
                true => wire.note_delivered(bytes.len()),
                false => wire.note_undeliverable(),
            }
            put_aside(spare, bytes);
        }
        wire.next_due()
    }
}

fn put_aside(spare: &mut Vec<Vec<u8>>, bytes: Vec<u8>) {
    if spare.len() < SPARE_COUNT_MAX {
        spare.push(bytes);
    }
}

async fn hand_on(shared: Arc<Shared>) {
    loop {
        match shared.hand_on_due() {
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(shared.begun + due) => {}
                () = shared.earlier.notified() => {}
            },
            None => shared.earlier.notified().await,
        }
    }
}
