//! A relay: the place on the way from one node to another where the lab is the network.
//!
//! A node that dials another one through it dials the relay's own address. For every address that
//! dials, the relay has a socket of its own towards the target, as a translator of addresses has:
//! so connection ids, changes of address and answers behave as they do in a network.
//! It looks into no datagram, and it never invents one.
//!
//! ```text
//!   dialler ──► front ──► flow (one per dialling address) ──► target
//!           ◄──────────── line back ◄────────────────────────
//! ```
//!
//! Read `wire` for what happens to a datagram, `line` for how it is carried there and back.

pub(crate) mod impairment;
pub(crate) mod line;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

use self::line::{Line, Recipient, Target, Way};

/// Largest datagram that a relay carries: a node's own largest packet of 9,000 bytes fits.
pub const DATAGRAM_BYTES_MAX: usize = 9_216;
/// Dialling addresses that one relay remembers. A node has one while its process lives, and all are
/// forgotten when that ends; with more the one that was silent for longest is forgotten, as
/// translators of addresses do.
pub const FLOWS_MAX: usize = 16;
/// Pause after an error of a socket, so that one that stays does not keep a processor busy.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Both directions of a relay, and where it leads.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// Takes what the dialler sends.
    pub(crate) there: Arc<Line>,
    /// Takes what the target answers.
    pub(crate) back: Arc<Line>,
    pub(crate) target: Arc<Target>,
    /// Whose ends close the sockets that were opened for it.
    pub(crate) dialler: Arc<Target>,
    /// The address of this machine under which the target sees the dialler.
    pub(crate) seen_as: IpAddr,
}

/// A relay that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    /// Ends with this value.
    _tasks: JoinSet<()>,
}

impl Relay {
    /// A relay at a free port of `host`.
    pub(crate) fn open(host: IpAddr, ends: Ends, runtime: &Handle) -> io::Result<Relay> {
        let front = Arc::new(open_socket(host, runtime)?);
        let address = front.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn_on(listen(front, ends), runtime);
        Ok(Relay {
            address,
            _tasks: tasks,
        })
    }

    /// What the dialler dials.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn open_socket(host: IpAddr, runtime: &Handle) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((host, 0))?;
    socket.set_nonblocking(true)?;
    let _entered = runtime.enter();
    UdpSocket::from_std(socket)
}

/// Takes what diallers send, for ever.
async fn listen(front: Arc<UdpSocket>, ends: Ends) {
    let mut flows = Flows::default();
    let mut ends_of_dialler = ends.dialler.ends();
    // One byte more than may come, so that what is larger is seen to be.
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    // A socket says that it takes datagrams only after it was asked once.
    let _ = front.writable().await;
    loop {
        let received = tokio::select! {
            // ORDER: an end is seen before anything that the node's next process sends.
            biased;
            Ok(()) = ends_of_dialler.changed() => {
                flows.forget_all();
                continue;
            }
            received = front.recv_from(&mut buffer) => received,
        };
        let (bytes, from) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(target: "packhorse::lab", %error, "a relay could not receive");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        if bytes > DATAGRAM_BYTES_MAX {
            ends.there.refuse_large(bytes);
            continue;
        }
        match flows.way_of(from, &front, &ends).await {
            Ok(way) => ends.there.carry(&buffer[..bytes], way),
            // As lost as in a network: the dialler tries again.
            Err(error) => {
                ends.there.starve(bytes);
                tracing::warn!(target: "packhorse::lab", %error, "a relay has no socket for a dialler");
            }
        }
    }
}

/// Who dials through a relay.
#[derive(Debug, Default)]
struct Flows {
    flows: BTreeMap<SocketAddr, Flow>,
    /// Rises with every datagram.
    moment: u64,
    /// The flows' readers.
    readers: JoinSet<()>,
}

/// One dialling address.
#[derive(Debug)]
struct Flow {
    way: Way,
    used_at: u64,
    reader: AbortHandle,
}

impl Flows {
    /// How datagrams of a dialler leave, opened for the first of them.
    async fn way_of(
        &mut self,
        dialler: SocketAddr,
        front: &Arc<UdpSocket>,
        ends: &Ends,
    ) -> io::Result<&Way> {
        self.moment += 1;
        if !self.flows.contains_key(&dialler) {
            self.forget_one_over_the_limit();
            self.let_go();
            let socket = Arc::new(open_socket(ends.seen_as, &Handle::current())?);
            let _ = socket.writable().await;
            let answers = Way {
                socket: Arc::clone(front),
                to: Recipient::Dialler(dialler),
            };
            let reader = read_answers(Arc::clone(&socket), answers, ends.clone());
            let reader = self.readers.spawn(reader);
            let to = Recipient::Target(Arc::clone(&ends.target));
            let flow = Flow {
                way: Way { socket, to },
                used_at: self.moment,
                reader,
            };
            self.flows.insert(dialler, flow);
        }
        match self.flows.get_mut(&dialler) {
            Some(flow) => {
                flow.used_at = self.moment;
                Ok(&flow.way)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn forget_one_over_the_limit(&mut self) {
        if self.flows.len() < FLOWS_MAX {
            return;
        }
        let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used_at);
        let oldest = oldest.map(|(dialler, _)| *dialler);
        if let Some(flow) = oldest.and_then(|dialler| self.flows.remove(&dialler)) {
            flow.reader.abort();
        }
    }

    /// Closes their sockets, once what is under way from them has arrived.
    fn forget_all(&mut self) {
        self.flows.clear();
        self.readers.abort_all();
    }

    /// What ended is let go of, or the set would grow with every dialler there ever was.
    fn let_go(&mut self) {
        while self.readers.try_join_next().is_some() {}
    }
}

/// Takes what the target answers one dialler, for ever.
async fn read_answers(socket: Arc<UdpSocket>, way: Way, ends: Ends) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            // Whoever else sends here is not the target, or is the target's former process.
            Ok((_, from)) if Some(from) != ends.target.address() => {}
            Ok((bytes, _)) if bytes > DATAGRAM_BYTES_MAX => ends.back.refuse_large(bytes),
            Ok((bytes, _)) => ends.back.carry(&buffer[..bytes], &way),
            Err(error) => {
                tracing::debug!(target: "packhorse::lab", %error, "a relay could not receive");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
