//! The machines of a lab with the network between them: how a test or a scenario begins and ends.
//!
//! Pairing leads every node through the relays: a ticket is given the relay's address before it is
//! used, and both sides get the other one's relay as an address of their own. What nodes announce
//! leads nowhere, so no node ever dials another one beside its relay.
//! For the same reason a bare `join` with a ticket that a node printed finds nobody: it has to be led
//! by [`Cluster::lead_ticket`] first, which [`Cluster::pair`] does.
//!
//! Whatever happens, the processes are dead and the disks unmounted before the folder goes:
//! [`Cluster::end`] does it in order and says what went wrong; dropping the cluster does the same
//! and waits for it. After a panic the folder stays, and where it is goes to stderr.
//!
//! ```no_run
//! # async fn example() -> Result<(), packhorse::lab::LabError> {
//! use packhorse::lab::{Cluster, Impairment};
//! use std::time::Duration;
//!
//! let cluster = Cluster::builder().seed(7).node("left").node("right").start().await?;
//! cluster.pair("left", "right").await?;
//! let latency = Duration::from_millis(80);
//! let late = Impairment { latency, ..Impairment::NONE };
//! cluster.network().impair_both("left", "right", late)?;
//! let words = ["send", "left", "orders", "two bales of hay", "--wait", "stored"];
//! cluster.node("right")?.run(&words, b"", Duration::from_secs(30)).await?.expect(0)?;
//! cluster.node("left")?.kill().await?;
//! cluster.end().await?;
//! # Ok(())
//! # }
//! ```

mod end;
mod scratch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::scratch::Scratch;
use super::error::LabError;
use super::machine::{Machine, NodeSpec, Ready};
use super::network::{Network, unknown};
use super::together::{Doing, all};
use crate::api::documents::{AddressRequest, InviteRequest, JoinRequest};
use crate::peer::Joined;
use crate::{Grant, Ticket};

/// Nodes that start at once: each makes a store and keys, and a machine has few processors.
const STARTS_AT_ONCE: usize = 4;
/// Between two looks at something that changes without an event.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a lab is to be made of.
#[derive(Debug, Default)]
pub struct Builder {
    program: Option<PathBuf>,
    seed: u64,
    scratch: Option<PathBuf>,
    keeps: bool,
    nodes: Vec<NodeSpec>,
}

impl Builder {
    /// The program that the nodes run; this one unless given.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Builder {
        self.program = Some(path.into());
        self
    }

    /// What the network's chance follows; 0 unless given.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Builder {
        self.seed = seed;
        self
    }

    /// Where the scratch folder is made; the system's place for such unless given.
    #[must_use]
    pub fn scratch_in(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.scratch = Some(folder.into());
        self
    }

    /// Leaves folders and logs behind.
    #[must_use]
    pub const fn keep(mut self, keeps: bool) -> Builder {
        self.keeps = keeps;
        self
    }

    /// Adds a node: its name, or what it is.
    #[must_use]
    pub fn node(mut self, node: impl Into<NodeSpec>) -> Builder {
        self.nodes.push(node.into());
        self
    }

    /// Makes folders, disks and network; no node runs yet.
    ///
    /// # Errors
    /// Names that are wrong or taken, too many nodes, no runtime, no folder, no disk.
    pub async fn build(self) -> Result<Cluster, LabError> {
        let names = self.nodes.iter().map(|node| node.name.clone()).collect();
        let network = Arc::new(Network::new(self.seed, names)?);
        // Mounting is another program's work, and whoever asks may carry datagrams as well.
        // Dropped meanwhile, the cluster is made to its end and goes there.
        blocking("making the nodes", move || self.make(network)).await?
    }

    fn make(self, network: Arc<Network>) -> Result<Cluster, LabError> {
        let program = match self.program {
            Some(program) => program,
            None => std::env::current_exe()
                .map_err(|error| LabError::files("this program does not find itself", error))?,
        };
        let scratch = Scratch::make(self.scratch, network.names())?;
        let make = |spec| Machine::new(spec, &program, &scratch.path, &network).map(Arc::new);
        let machines: Result<Vec<_>, _> = self.nodes.into_iter().map(make).collect();
        Ok(Cluster {
            machines: machines?,
            network,
            program,
            starting: Semaphore::new(STARTS_AT_ONCE),
            keeps: AtomicBool::new(self.keeps),
            is_over: false,
            scratch,
        })
    }

    /// The same, and starts every node.
    ///
    /// # Errors
    /// As [`Builder::build`] and [`Machine::start`].
    pub async fn start(self) -> Result<Cluster, LabError> {
        let cluster = self.build().await?;
        cluster.start_all().await?;
        Ok(cluster)
    }
}

/// Real nodes in a scratch folder, with a network between them.
#[derive(Debug)]
pub struct Cluster {
    machines: Vec<Arc<Machine>>,
    network: Arc<Network>,
    program: PathBuf,
    /// Who may start a node now.
    starting: Semaphore,
    /// Whether the folder stays.
    keeps: AtomicBool,
    /// It came to its end in order, so dropping it has nothing left to do.
    is_over: bool,
    // Dropped last: fields go in their order, and the nodes write into it until they are dead.
    scratch: Scratch,
}

impl Cluster {
    /// Begins with no node.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A node by its name.
    ///
    /// # Errors
    /// [`LabError::UnknownNode`] names those that there are.
    pub fn node(&self, name: &str) -> Result<&Arc<Machine>, LabError> {
        let found = self.machines.iter().find(|node| node.name() == name);
        found.ok_or_else(|| unknown(name, self.network.names()))
    }

    /// Every node, in the order in which they were added.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<Machine>] {
        &self.machines
    }

    /// What lies between the nodes.
    #[must_use]
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// The program that its nodes run.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The scratch folder: folders and logs of the nodes, and room for images.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.scratch.path
    }

    /// Leaves folders and logs behind when it ends, or not.
    pub fn keep(&self, keeps: bool) {
        self.keeps.store(keeps, Ordering::Relaxed);
    }

    /// Starts a node and waits until it is ready. Only a few start at once, whoever asks for it: this
    /// one waits for its turn.
    ///
    /// # Errors
    /// [`LabError::UnknownNode`], and as [`Machine::start`].
    pub async fn start(&self, name: &str) -> Result<Arc<Ready>, LabError> {
        let node = self.node(name)?;
        // Never closed; without a turn it would only start sooner.
        let _turn = self.starting.acquire().await;
        node.start().await
    }

    /// Starts every node that does not run, a few at a time.
    ///
    /// # Errors
    /// The first that a node gave. The others have started, go on starting, or were not begun.
    pub async fn start_all(&self) -> Result<(), LabError> {
        let waiting = self.machines.iter().filter(|node| !node.is_running());
        let starts = waiting.map(|node| -> Doing<'_, LabError> {
            Box::pin(async { self.start(node.name()).await.map(drop) })
        });
        all(starts.collect()).await
    }

    // --- pairing ---

    /// Pairs two running nodes; each may then send and run everything at the other.
    ///
    /// # Errors
    /// As [`Cluster::pair_with`].
    pub async fn pair(&self, inviter: &str, joiner: &str) -> Result<Joined, LabError> {
        let all = everything(inviter)?;
        self.pair_with(inviter, joiner, &all, &all).await
    }

    /// The same with what the joiner may do at the inviter, and the other way round.
    ///
    /// # Errors
    /// Nodes that are unknown, do not run, cannot be dialled, or say no.
    pub async fn pair_with(
        &self,
        inviter: &str,
        joiner: &str,
        joiner_may: &[Grant],
        inviter_may: &[Grant],
    ) -> Result<Joined, LabError> {
        let (host, guest) = (self.node(inviter)?, self.node(joiner)?);
        let request = InviteRequest {
            grants: joiner_may.to_vec(),
            ..InviteRequest::default()
        };
        let invited = host.client().invite(&request).await;
        let invited = invited.map_err(|error| host.client_error(error))?;
        let request = JoinRequest {
            ticket: self.lead_ticket(inviter, joiner, &invited.ticket)?,
            name: Some(inviter.to_owned()),
            grants: inviter_may.to_vec(),
        };
        let joined = guest.client().join(&request).await;
        let joined = joined.map_err(|error| guest.client_error(error))?;
        self.introduce(inviter, joiner).await?;
        Ok(joined)
    }

    /// The ticket of `inviter` as `joiner` has to be given it: with the relay's address in it.
    ///
    /// # Errors
    /// Unknown nodes, and no socket for a relay.
    pub fn lead_ticket(
        &self,
        inviter: &str,
        joiner: &str,
        ticket: &Ticket,
    ) -> Result<Ticket, LabError> {
        let relay = self.network.address(joiner, inviter)?;
        let led = ticket.with_hints(vec![format!("quic://{relay}")]);
        led.map_err(|error| LabError::Ticket {
            node: inviter.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Tells two peers each other's relay, as somebody does with `peers address add`. Told again, it
    /// changes nothing. Of a node that nobody can dial the other one is told nothing.
    ///
    /// # Errors
    /// Nodes that are unknown, do not run, or do not know each other.
    pub async fn introduce(&self, one: &str, other: &str) -> Result<(), LabError> {
        for (dialler, target) in [(one, other), (other, one)] {
            let (node, peer) = (self.node(dialler)?, self.node(target)?);
            if peer.spec().is_silent {
                continue;
            }
            let request = AddressRequest {
                // A copy of a node, or one that was renamed, is known by another name.
                peer: peer
                    .ready()
                    .map_or_else(|| target.to_owned(), |it| it.node.clone()),
                address: self.network.address(dialler, target)?.to_string(),
            };
            let added = node.client().add_address(&request).await;
            added.map_err(|error| node.client_error(error))?;
        }
        Ok(())
    }
}

/// Work on files, off the threads that carry datagrams.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LabError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|lost| LabError::files(format!("{what} broke off"), io::Error::other(lost)))
}

/// What lets a peer send and run everything.
fn everything(node: &str) -> Result<Vec<Grant>, LabError> {
    let read = |text: &str| {
        text.parse::<Grant>().map_err(|error| LabError::Ticket {
            node: node.to_owned(),
            reason: error.to_string(),
        })
    };
    Ok(vec![read("message.send:*")?, read("execute:*")?])
}

/// Looks again and again until there is an answer, for what changes without an event.
///
/// # Errors
/// [`LabError::TimedOut`] with `what` after the limit.
pub async fn until<T>(
    node: &str,
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T, LabError> {
    let deadline = Instant::now() + limit;
    let late = || LabError::TimedOut {
        node: node.to_owned(),
        what: what.to_owned(),
        limit,
        log: String::new(),
    };
    loop {
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
            Ok(None) | Err(_) => return Err(late()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lab_has_its_folder_until_it_goes_and_names_are_checked() {
        let cluster = Cluster::builder().node("left").node("right").build().await;
        let cluster = cluster.expect("two folders");
        let folder = cluster.folder().to_owned();
        assert!(folder.join("left").is_dir() && folder.join("right").is_dir());
        let error = cluster.node("middle").expect_err("no such node");
        assert!(error.to_string().contains("left, right"), "{error}");
        let error = cluster.node("left").expect("a node").stop().await;
        assert!(matches!(error, Err(LabError::NotRunning { .. })));
        assert_eq!(cluster.end().await.expect("nothing is left"), None);
        assert!(!folder.exists());
        for names in [["a", "a"], ["a", "../b"], ["a", ""]] {
            let [one, other] = names;
            let built = Cluster::builder().node(one).node(other).build().await;
            let error = built.expect_err("a wrong name");
            assert!(matches!(error, LabError::Name { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_none_of_ours_is_told_by_how_it_ended_or_what_it_said() {
        let cluster = Cluster::builder()
            .program("true")
            .node("quiet")
            .node(NodeSpec::new("loud").program("echo"))
            .node(NodeSpec::new("none").program("/nowhere/packhorse"))
            .build();
        let cluster = cluster.await.expect("three folders");
        let start = async |name| {
            let node = cluster.node(name).expect("a node");
            node.start().await.expect_err("it is no node").to_string()
        };
        let quiet = start("quiet").await;
        assert_eq!(quiet, "`quiet` ended before it was ready, with exit 0");
        let none = start("none").await;
        assert!(none.contains("/nowhere/packhorse does not start"), "{none}");
        let loud = start("loud").await;
        assert!(
            loud.contains("`loud` is no ready line") || loud.contains("with exit 0"),
            "{loud}"
        );
    }

    #[tokio::test]
    async fn what_never_comes_is_given_up_by_name() {
        let limit = Duration::from_millis(50);
        let never = until("left", "an answer", limit, async || None::<()>).await;
        let error = never.expect_err("it never comes").to_string();
        assert!(
            error.contains("`left`: an answer did not happen within"),
            "{error}"
        );
        let once = until("left", "an answer", limit, async || Some(7)).await;
        assert_eq!(once.expect("at once"), 7);
    }
}
