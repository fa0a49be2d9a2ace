//! The network of a lab: a relay for every two nodes that may dial each other, and what is wrong
//! with the ways between them.
//!
//! Ways have directions. What holds from one node to another holds for everything that the one sends
//! to the other, whoever of them dialled.
//! Relays are opened when their address is first asked for; a network of fifty nodes around one
//! has a hundred of them and not two thousand.
//! Nodes listen on 127.0.0.1. Where the loopback has more addresses, each node has another one for
//! its relays (127.77.1.1 and so on): there others dial it, and from there they see it come, so that
//! listings can be read and bounds per address mean something.
//! Every relay has a socket, and one more for every process that dials through it; what the system
//! allows is raised as far as it goes, and asked before a relay is opened.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::runtime::Handle;

use super::error::{LabError, NODES_MAX};
use super::random::Random;
use super::relay::impairment::Impairment;
use super::relay::line::{Line, Target};
use super::relay::wire::WireCounts;
use super::relay::{Ends, Relay};

/// Nodes that share the last byte of their addresses' third one.
const HOSTS_PER_NET: usize = 250;
/// Open files of a relay: where it is dialled, towards its target, and for a while one of a process
/// that ended.
const FILES_PER_RELAY: u64 = 3;
/// Of a node: its process, what it reads and prints, connections to it, and commands on it.
const FILES_PER_NODE: u64 = 8;
/// Of the program around it.
const FILES_BESIDE: u64 = 64;
const _: () = assert!(NODES_MAX / HOSTS_PER_NET < 254);

/// All ways between the nodes of a lab. Its traffic ends when it is dropped.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    runtime: Handle,
    names: Vec<String>,
    targets: Vec<Arc<Target>>,
    has_hosts: bool,
    /// Open files that this process may have.
    files_max: u64,
    ways: Mutex<Ways>,
}

/// By the places of both nodes, the sender or dialler first.
#[derive(Debug, Default)]
struct Ways {
    /// What ways begin with that nothing was said about.
    common: Impairment,
    lines: BTreeMap<(usize, usize), Arc<Line>>,
    relays: BTreeMap<(usize, usize), Relay>,
}

/// How one way is and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WayReport {
    /// Who sends.
    pub from: String,
    /// To whom.
    pub to: String,
    /// What is wrong with it now.
    pub impairment: Impairment,
    /// What it did so far.
    pub counts: WireCounts,
}

impl Network {
    /// A network in which nothing is wrong, for nodes of these names. Chance follows the seed, each
    /// way by itself: what one carries changes nothing about another.
    ///
    /// # Errors
    /// No runtime, too many names, one of them twice, or fewer open files than they need.
    pub fn new(seed: u64, names: Vec<String>) -> Result<Network, LabError> {
        if names.len() > NODES_MAX {
            let count = names.len();
            return Err(LabError::TooManyNodes { count });
        }
        for (place, name) in names.iter().enumerate() {
            if names.iter().take(place).any(|before| before == name) {
                return Err(LabError::Name {
                    name: name.clone(),
                    reason: "another node has it".to_owned(),
                });
            }
        }
        let files_max = raise_files_max();
        check_files(names.len(), 0, files_max)?;
        Ok(Network {
            seed,
            files_max,
            runtime: Handle::try_current().map_err(|_| LabError::NoRuntime)?,
            targets: names.iter().map(|_| Arc::default()).collect(),
            names,
            // The loopback is a whole network on Linux, and one address elsewhere.
            has_hosts: std::net::UdpSocket::bind((host(0), 0)).is_ok(),
            ways: Mutex::default(),
        })
    }

    /// The nodes, in the order in which they were named.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Where `dialler` is to dial `target`: it stays the same for as long as the network lives,
    /// wherever the target listens.
    ///
    /// # Errors
    /// Unknown nodes, [`LabError::OpenFiles`], and no socket for another relay.
    pub fn address(&self, dialler: &str, target: &str) -> Result<SocketAddr, LabError> {
        let (from, to) = self.places(dialler, target)?;
        let mut ways = self.lock();
        if let Some(relay) = ways.relays.get(&(from, to)) {
            return Ok(relay.address());
        }
        check_files(self.names.len(), ways.relays.len() + 1, self.files_max)?;
        let ends = Ends {
            there: self.line(&mut ways, from, to),
            back: self.line(&mut ways, to, from),
            target: Arc::clone(&self.targets[to]),
            dialler: Arc::clone(&self.targets[from]),
            seen_as: self.host_of(from),
        };
        let relay = Relay::open(self.host_of(to), ends, &self.runtime);
        let relay = relay.map_err(|source| LabError::Relay {
            from: dialler.to_owned(),
            to: target.to_owned(),
            source,
        })?;
        let address = relay.address();
        ways.relays.insert((from, to), relay);
        Ok(address)
    }

    // --- what is wrong ---

    /// What is wrong from now on with the way from one node to another.
    ///
    /// # Errors
    /// Unknown nodes, and a value over its limit.
    pub fn impair(&self, from: &str, to: &str, impairment: Impairment) -> Result<(), LabError> {
        impairment.check()?;
        self.change(from, to, |now| *now = impairment)
    }

    /// The same for both directions.
    ///
    /// # Errors
    /// As [`Network::impair`].
    pub fn impair_both(
        &self,
        one: &str,
        other: &str,
        impairment: Impairment,
    ) -> Result<(), LabError> {
        self.impair(one, other, impairment)?;
        self.impair(other, one, impairment)
    }

    /// The same for every way there is.
    ///
    /// # Errors
    /// A value over its limit.
    pub fn impair_all(&self, impairment: Impairment) -> Result<(), LabError> {
        impairment.check()?;
        self.change_all(|now| *now = impairment);
        Ok(())
    }

    /// Lets nothing pass from any of the first to any of the second; the other direction stays.
    ///
    /// # Errors
    /// Unknown nodes, and one that stands on both sides.
    pub fn cut(&self, from: &[impl AsRef<str>], to: &[impl AsRef<str>]) -> Result<(), LabError> {
        self.each(from, to, |network, from, to| {
            network.set_cut(from, to, true)
        })
    }

    /// Lets nothing pass between the two sides. Within each side everything stays.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn partition(
        &self,
        side: &[impl AsRef<str>],
        other: &[impl AsRef<str>],
    ) -> Result<(), LabError> {
        self.cut(side, other)?;
        self.cut(other, side)
    }

    /// Cuts these nodes off from all others.
    ///
    /// # Errors
    /// Unknown nodes.
    pub fn isolate(&self, nodes: &[impl AsRef<str>]) -> Result<(), LabError> {
        let others = self.others(nodes);
        self.partition(nodes, &others)
    }

    /// Ends cuts between the two sides, in both directions. Other impairments stay.
    ///
    /// # Errors
    /// As [`Network::cut`].
    pub fn heal(
        &self,
        side: &[impl AsRef<str>],
        other: &[impl AsRef<str>],
    ) -> Result<(), LabError> {
        self.each(side, other, |network, one, other| {
            network.set_cut(one, other, false);
            network.set_cut(other, one, false);
        })
    }

    /// Ends every cut. Other impairments stay; [`Network::clear`] ends these too.
    pub fn heal_all(&self) {
        self.change_all(|now| now.cut = false);
    }

    /// Nothing is wrong with any way from now on.
    pub fn clear(&self) {
        self.change_all(|now| *now = Impairment::NONE);
    }

    /// Every node that is none of these.
    pub fn others(&self, nodes: &[impl AsRef<str>]) -> Vec<&str> {
        let is_other = |name: &&str| !nodes.iter().any(|node| node.as_ref() == *name);
        self.names
            .iter()
            .map(String::as_str)
            .filter(is_other)
            .collect()
    }

    // --- what is seen ---

    /// What is wrong with the way from one node to another.
    ///
    /// # Errors
    /// Unknown nodes.
    pub fn impairment(&self, from: &str, to: &str) -> Result<Impairment, LabError> {
        let line = self.line_of(from, to)?;
        Ok(line.impairment())
    }

    /// What that way did so far.
    ///
    /// # Errors
    /// Unknown nodes.
    pub fn counts(&self, from: &str, to: &str) -> Result<WireCounts, LabError> {
        let line = self.line_of(from, to)?;
        Ok(line.counts())
    }

    /// Every way that was used or impaired, by the places of its nodes.
    #[must_use]
    pub fn report(&self) -> Vec<WayReport> {
        let ways = self.lock();
        let of = |place: usize| self.names[place].clone();
        let reports = ways.lines.iter().map(|((from, to), line)| WayReport {
            from: of(*from),
            to: of(*to),
            impairment: line.impairment(),
            counts: line.counts(),
        });
        reports.collect()
    }

    /// Datagrams that no relay could carry because this process may open no more files. With more
    /// than none the lab was no network as it was asked for, and what it showed means nothing.
    #[must_use]
    pub fn starved(&self) -> u64 {
        let ways = self.lock();
        ways.lines.values().map(|line| line.counts().starved).sum()
    }

    // --- nodes ---

    /// Where the relays to a node lead; what keeps it up to date is the node's machine.
    ///
    /// # Errors
    /// Unknown nodes.
    pub(super) fn target(&self, name: &str) -> Result<Arc<Target>, LabError> {
        Ok(Arc::clone(&self.targets[self.place(name)?]))
    }

    // --- parts ---

    fn change(
        &self,
        from: &str,
        to: &str,
        change: impl FnOnce(&mut Impairment),
    ) -> Result<(), LabError> {
        self.line_of(from, to)?.change(change);
        Ok(())
    }

    fn change_all(&self, mut change: impl FnMut(&mut Impairment)) {
        let mut ways = self.lock();
        change(&mut ways.common);
        for line in ways.lines.values() {
            line.change(&mut change);
        }
    }

    fn set_cut(&self, from: usize, to: usize, is_cut: bool) {
        let mut ways = self.lock();
        let line = self.line(&mut ways, from, to);
        line.change(|now| now.cut = is_cut);
    }

    /// Carries something out for every two of both sides, once all names are known to be right.
    fn each(
        &self,
        side: &[impl AsRef<str>],
        other: &[impl AsRef<str>],
        act: impl Fn(&Network, usize, usize),
    ) -> Result<(), LabError> {
        let mut pairs = Vec::new();
        for one in side {
            for other in other {
                pairs.push(self.places(one.as_ref(), other.as_ref())?);
            }
        }
        for (one, other) in pairs {
            act(self, one, other);
        }
        Ok(())
    }

    fn line_of(&self, from: &str, to: &str) -> Result<Arc<Line>, LabError> {
        let (from, to) = self.places(from, to)?;
        Ok(self.line(&mut self.lock(), from, to))
    }

    fn line(&self, ways: &mut Ways, from: usize, to: usize) -> Arc<Line> {
        let common = ways.common;
        let line = ways.lines.entry((from, to)).or_insert_with(|| {
            let names = [self.names[from].as_str(), self.names[to].as_str()];
            let line = Line::new(Random::named(self.seed, &names), &self.runtime);
            line.change(|now| *now = common);
            Arc::new(line)
        });
        Arc::clone(line)
    }

    fn places(&self, one: &str, other: &str) -> Result<(usize, usize), LabError> {
        let places = (self.place(one)?, self.place(other)?);
        match places.0 == places.1 {
            true => Err(LabError::SameNode {
                name: one.to_owned(),
            }),
            false => Ok(places),
        }
    }

    fn place(&self, name: &str) -> Result<usize, LabError> {
        let place = self.names.iter().position(|known| known == name);
        place.ok_or_else(|| unknown(name, &self.names))
    }

    fn host_of(&self, place: usize) -> IpAddr {
        match self.has_hosts {
            true => host(place),
            false => Ipv4Addr::LOCALHOST.into(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ways> {
        // Entries are added whole, so a panic leaves it before or after.
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raises the soft limit of open files to the hard one; what it is then.
fn raise_files_max() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    // A system that refuses has the limit that it had.
    let _ = setrlimit(Resource::Nofile, raised);
    // None is no limit.
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether so many nodes and relays have enough open files.
fn check_files(nodes: usize, relays: usize, limit: u64) -> Result<(), LabError> {
    let needed = FILES_BESIDE + nodes as u64 * FILES_PER_NODE + relays as u64 * FILES_PER_RELAY;
    match needed <= limit {
        true => Ok(()),
        false => Err(LabError::OpenFiles {
            nodes,
            relays,
            needed,
            limit,
        }),
    }
}

/// The address of the node at a place.
fn host(place: usize) -> IpAddr {
    // Both are below 255: a lab has at most NODES_MAX nodes.
    let (net, last) = (place / HOSTS_PER_NET + 1, place % HOSTS_PER_NET + 1);
    Ipv4Addr::new(127, 77, net as u8, last as u8).into()
}

/// The error for a name that no node has.
pub(super) fn unknown<'a>(name: &str, known: impl IntoIterator<Item = &'a String>) -> LabError {
    let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
    LabError::UnknownNode {
        name: name.to_owned(),
        known: match known.is_empty() {
            true => "none at all".to_owned(),
            false => known.join(", "),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::relay::impairment::Share;

    fn network() -> Network {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        Network::new(7, names).expect("three nodes")
    }

    fn is_cut(network: &Network, from: &str, to: &str) -> bool {
        network.impairment(from, to).expect("two nodes").cut
    }

    #[tokio::test]
    async fn every_ordered_pair_has_an_address_that_stays() {
        let network = network();
        let there = network.address("a", "b").expect("a relay");
        assert_eq!(network.address("a", "b").expect("the same"), there);
        let back = network.address("b", "a").expect("another");
        let other = network.address("c", "b").expect("another");
        assert_ne!(there, back);
        assert_ne!(there, other);
        assert!([there, back, other].iter().all(|at| at.ip().is_loopback()));
    }

    #[tokio::test]
    async fn sides_are_cut_and_healed_and_nothing_else_changes() {
        let network = network();
        let late = Impairment {
            latency: Duration::from_millis(5),
            ..Impairment::NONE
        };
        network.impair("a", "b", late).expect("two nodes");
        network.partition(&["a"], &["b", "c"]).expect("two sides");
        for (from, to, cut) in [
            ("a", "b", true),
            ("b", "a", true),
            ("a", "c", true),
            ("c", "a", true),
            ("b", "c", false),
            ("c", "b", false),
        ] {
            assert_eq!(is_cut(&network, from, to), cut, "{from} {to}");
        }
        network.heal(&["a"], &["b"]).expect("two sides");
        assert_eq!(network.impairment("a", "b").expect("two nodes"), late);
        assert!(!is_cut(&network, "b", "a") && is_cut(&network, "c", "a"));
        network.heal_all();
        network.cut(&["b"], &["c"]).expect("one way");
        assert!(is_cut(&network, "b", "c") && !is_cut(&network, "c", "b"));
        network.isolate(&["b"]).expect("a node");
        assert!(is_cut(&network, "a", "b") && !is_cut(&network, "a", "c"));
        network.clear();
        let clear = |way: &WayReport| way.impairment == Impairment::NONE;
        assert!(network.report().iter().all(clear));
    }

    #[tokio::test]
    async fn wrong_names_and_values_change_nothing_and_name_themselves() {
        let network = network();
        let error = network.partition(&["a"], &["b", "d"]).expect_err("no d");
        assert_eq!(
            error.to_string(),
            "there is no node `d` in this lab, but a, b, c"
        );
        let error = network.cut(&["a", "b"], &["b"]).expect_err("b twice");
        assert_eq!(error.to_string(), "`b` stands on both sides");
        assert!(network.report().is_empty(), "{:?}", network.report());
        let late = Impairment {
            latency: Duration::from_secs(61),
            ..Impairment::NONE
        };
        assert!(network.impair_all(late).is_err());
        let lossy = Impairment {
            loss: Share::ALL,
            ..Impairment::NONE
        };
        network.impair_all(lossy).expect("in bounds");
        let later = network.impairment("c", "a").expect("two nodes");
        assert_eq!(later, lossy, "ways that are first used later too");
        assert!(network.impair_all(late).is_err());
    }

    #[tokio::test]
    async fn names_are_few_and_different() {
        let twice = Network::new(7, vec!["a".into(), "a".into()]);
        assert!(twice.is_err());
        let many = (0..=NODES_MAX).map(|number| number.to_string()).collect();
        let error = Network::new(7, many).expect_err("one too many");
        assert!(
            error
                .to_string()
                .contains("129 nodes, the limit of a lab is 128")
        );
    }

    #[test]
    fn open_files_are_counted_for_nodes_and_relays() {
        assert!(check_files(128, 0, 1_088).is_ok());
        assert!(check_files(51, 100, 1_024).is_ok());
        let error = check_files(51, 2_550, 1_024).expect_err("far too many");
        assert_eq!(
            error.to_string(),
            "51 nodes with 2550 relays between them need 8122 open files, \
             the limit of this process is 1024"
        );
        let raised = raise_files_max();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, limit.current.unwrap_or(u64::MAX));
    }

    #[test]
    fn without_a_runtime_there_is_an_error_and_no_panic() {
        assert!(matches!(Network::new(7, vec![]), Err(LabError::NoRuntime)));
    }
}
