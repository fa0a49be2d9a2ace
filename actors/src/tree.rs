//! The tree: what outlives every actor, and the root that supervises them.
//!
//! The opened store, the listening endpoints and all handles are made here and lent to each
//! incarnation; therefore one-for-one restarts suffice, and nobody is restarted because a
//! neighbour was.
//! Nothing here delivers a message.
//!
//! Start order is store, event bus, inbox, session supervisor, retry scheduler, listeners; the stop
//! goes the other way.
//!
//! Read [`Tree`], then `children` for the budgets.

mod children;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use packhorse_protocol::{
    identity::IdentityKey,
    text::{self, TextError},
};
use ractor::{Actor, ActorRef, rpc::CallResult};
use tokio::{
    sync::{Mutex, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{
    board::Board,
    env::Env,
    events::{EventsHandle, Fact},
    inbox::InboxHandle,
    link::{LinkError, Listening, QuicDialler, QuicListener},
    listener::{Door, FIRST_BYTES_MAX},
    retry::RetryHandle,
    session::{Announced, Me, RequestPolicy, RequestsHandle, SessionsHandle, Wiring},
    store::{Noted, Opened, StoreHandle},
    supervise::{Branch, Census, LifeToken, Probe, ROOT, Root, RootMsg, TreeEnd, poke},
};

/// How long the whole tree may take to stop: the sum of its children's deadlines and a margin.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(30);

/// What a tree is made of.
#[derive(Debug)]
pub struct TreeConfig {
    /// The node's key.
    pub identity: IdentityKey,
    /// The name it announces.
    pub name: String,
    /// Where it listens; none means that it accepts nobody.
    pub listen: Vec<SocketAddr>,
    /// What others should dial; the bound addresses when empty.
    pub advertise: Vec<String>,
    /// The opened store.
    pub store: Opened,
    /// Whether nodes without a ticket may ask to be paired.
    pub requests: RequestPolicy,
    /// Time and randomness.
    pub env: Env,
}

/// The tree could not be started; nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// An address cannot be listened on, or no socket can be made.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The node's name or an address it advertises breaks a limit of the protocol.
    #[error(transparent)]
    Announced(#[from] TextError),
    /// The root actor did not start.
    #[error("the root supervisor did not start: {0}")]
    Root(String),
}

/// The sockets, and what is said about them.
struct Bound {
    endpoints: Vec<QuicListener>,
    dialler: Arc<QuicDialler>,
    listening: Vec<SocketAddr>,
    announced: Announced,
}

impl Bound {
    fn new(
        listen: Vec<SocketAddr>,
        advertise: Vec<String>,
        name: &str,
        env: &Env,
        door: &Door,
    ) -> Result<Self, TreeError> {
        text::check_name(name)?;
        let (mut endpoints, mut bound) = (Vec::new(), Vec::new());
        for address in &listen {
            let only_v6 = leaves_v4_alone(*address, &listen);
            let listening = Listening {
                address: *address,
                only_v6,
            };
            let door = Arc::new(door.clone());
            let endpoint = QuicListener::bind_guarded(env, listening, door, FIRST_BYTES_MAX)?;
            bound.push(Listening {
                address: endpoint.address(),
                only_v6,
            });
            endpoints.push(endpoint);
        }
        let dialler = Arc::new(QuicDialler::bind_on(env)?);
        let listening = bound.iter().map(|bound| bound.address).collect();
        let announced = Announced::new(bound, advertise, env)?;
        Ok(Self {
            endpoints,
            dialler,
            listening,
            announced,
        })
    }
}

/// Whether a listener on `[::]` must leave IPv4 on its port to another one that was asked for.
/// Otherwise it takes both families, as most programs do.
fn leaves_v4_alone(address: SocketAddr, listen: &[SocketAddr]) -> bool {
    let is_rival = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    address.is_ipv6() && address.port() != 0 && listen.iter().any(is_rival)
}

/// Tells the door from where peers authenticated in former lives of the node.
async fn know_origins(door: &Door, store: &StoreHandle) {
    // Without them the node is only less welcoming in a flood.
    let peers = store.peers().await.unwrap_or_default();
    let mut seen: Vec<_> = peers
        .into_iter()
        .filter_map(|peer| peer.seen_from)
        .collect();
    // The latest last: the door forgets the oldest when there are too many.
    seen.sort_by_key(|seen| seen.at_ms);
    for Noted { text, at_ms } in seen {
        if let Ok(address) = text.parse() {
            door.note_known(SocketAddr::new(address, 0), at_ms);
        }
    }
}

/// A running tree.
#[derive(Debug)]
pub struct Tree {
    root: ActorRef<RootMsg>,
    task: Mutex<Option<JoinHandle<()>>>,
    opened: Mutex<Option<Arc<Opened>>>,
    env: Env,
    end: Arc<watch::Sender<Option<TreeEnd>>>,
    census: Census,
    /// Messages, peers and tickets.
    pub store: StoreHandle,
    /// Consumers' side of the inbox.
    pub inbox: InboxHandle,
    /// Pairing, pings, ephemeral messages.
    pub sessions: SessionsHandle,
    /// Who is dialled when.
    pub retry: RetryHandle,
    /// Pairing without a ticket.
    pub requests: RequestsHandle,
    /// What every peer is doing.
    pub board: Board,
    /// Life events.
    pub probe: Probe,
    /// What happened, numbered.
    pub events: EventsHandle,
    /// What strangers may cost, and what became of them.
    pub door: Door,
    /// Who this node is.
    pub me: Arc<Me>,
    /// The bound addresses.
    pub listening: Vec<SocketAddr>,
}

impl Tree {
    /// Binds the listeners, then starts the actors.
    ///
    /// # Errors
    /// [`TreeError`]; the store in `config` is closed again by its drop.
    pub async fn start(config: TreeConfig) -> Result<Self, TreeError> {
        let TreeConfig {
            identity,
            name,
            listen,
            advertise,
            store: opened,
            requests,
            env,
        } = config;
        let door = Door::new(env.clone());
        let Bound {
            endpoints,
            dialler,
            listening,
            announced,
        } = match Bound::new(listen, advertise, &name, &env, &door) {
            Ok(bound) => bound,
            Err(error) => {
                // A store that is only dropped counts as crashed, and its next open takes longer.
                let _ = env.block(move || opened.close()).await;
                return Err(error);
            }
        };
        let hold_links = announced.current().is_empty();
        let me = Arc::new(Me {
            identity,
            name,
            announced,
            epoch: opened.epoch(),
        });
        let opened = Arc::new(opened);
        know_origins(&door, &opened.handle()).await;
        let board = Board::default();
        let probe = Probe::default();
        let (inbox, retry, sessions) = (
            InboxHandle::default(),
            RetryHandle::default(),
            SessionsHandle::default(),
        );
        let store = opened.handle();
        let census = Census::new(
            env.clone(),
            #[cfg(feature = "fault")]
            store.faults(),
        );
        let requests = RequestsHandle::new(requests);
        let events = EventsHandle::new(env.clone(), store.clone());
        events.tell(Fact::NodeStarted {
            boot: opened.epoch().boot,
        });
        let wiring = Wiring {
            env: env.clone(),
            store,
            inbox: inbox.clone(),
            board: board.clone(),
            probe: probe.clone(),
            events: events.clone(),
            census: census.clone(),
            door: door.clone(),
            life: LifeToken::default(),
            requests: requests.clone(),
            me: Arc::clone(&me),
            #[cfg(feature = "sim")]
            incarnation: 0,
        };
        let mut specs = vec![
            children::store(&opened),
            children::event_bus(&wiring),
            children::inbox(&wiring, &inbox),
            children::sessions(&wiring, &sessions, &retry, dialler),
            children::retry(&wiring, &retry, &sessions, hold_links),
        ];
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            specs.push(children::listener(&wiring, &sessions, endpoint, index));
        }
        let end = Arc::new(watch::Sender::new(None));
        let root = Root::new(
            env.clone(),
            probe.clone(),
            census.clone(),
            Some(events.clone()),
            Arc::clone(&end),
        );
        let (root, task) = Actor::spawn(None, root, specs)
            .await
            .map_err(|error| TreeError::Root(error.to_string()))?;
        Ok(Self {
            root,
            task: Mutex::new(Some(task)),
            store: wiring.store,
            opened: Mutex::new(Some(opened)),
            env: wiring.env,
            end,
            census,
            inbox,
            sessions,
            retry,
            requests,
            board,
            probe,
            events,
            door,
            me,
            listening,
        })
    }

    /// Who lives, as it is now.
    #[must_use]
    pub fn census(&self) -> Branch {
        self.census.tree()
    }

    /// Where a peer came from that was forgotten is no known place by that any more; other peers
    /// may come from there too.
    pub async fn forget_origin(&self, seen: &Noted) {
        if let Ok(address) = seen.text.parse() {
            self.door.forget_known(SocketAddr::new(address, 0));
            know_origins(&self.door, &self.store).await;
        }
    }

    /// Asks the root, the store's writer and every child of the root for a sign of life, all at
    /// once.
    ///
    /// # Errors
    /// The names of those that gave none within `within`.
    pub async fn pulse(&self, within: Duration) -> Result<(), String> {
        let mut asked: JoinSet<(String, bool)> = JoinSet::new();
        let root = self.root.clone();
        asked.spawn(async move {
            let answer = root.call(RootMsg::Ping, Some(within)).await;
            (
                ROOT.to_owned(),
                matches!(answer, Ok(CallResult::Success(()))),
            )
        });
        let store = self.store.clone();
        asked.spawn(async move {
            let answer = tokio::time::timeout(within, store.pulse()).await;
            ("store writer".to_owned(), matches!(answer, Ok(Ok(()))))
        });
        for (name, answer, cell) in self.census.ping() {
            asked.spawn(async move {
                let (Some(answer), Some(cell)) = (answer, cell) else {
                    return (name, false);
                };
                let answered = async { poke(cell).await.is_ok() && answer.await.is_ok() };
                let answered = tokio::time::timeout(within, answered).await;
                (name, answered == Ok(true))
            });
        }
        let mut silent = Vec::new();
        while let Some(asked) = asked.join_next().await {
            match asked {
                Ok((_, true)) => {}
                Ok((name, false)) => silent.push(name),
                Err(error) => silent.push(error.to_string()),
            }
        }
        silent.sort();
        match silent.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "no answer within {within:?}: {}",
                silent.join(", ")
            )),
        }
    }

    /// Orders deaths.
    #[cfg(feature = "fault")]
    #[must_use]
    pub fn faults(&self) -> crate::fault::FaultHandle {
        crate::fault::FaultHandle::new(self.store.faults(), self.census.clone())
    }

    /// Resolves when the tree has ended by itself or by [`Tree::shutdown`].
    pub async fn ended(&self) -> TreeEnd {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(TreeEnd::Asked),
            Err(_) => TreeEnd::Asked,
        }
    }

    /// Stops the actors in order, then closes the store: what was accepted stays accepted.
    /// A second call waits for nothing and does nothing.
    pub async fn shutdown(&self) {
        let Some(task) = self.task.lock().await.take() else {
            return;
        };
        let asked = self
            .root
            .call(RootMsg::Shutdown, Some(SHUTDOWN_WITHIN))
            .await;
        if !matches!(asked, Ok(CallResult::Success(()))) {
            self.root.kill();
        }
        // A killed root is gone at its next await.
        let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
        let Some(opened) = self.opened.lock().await.take() else {
            return;
        };
        // The last sync and the joining of the engine's threads block.
        let closed = self.env.block(move || opened.close()).await;
        if let Ok(Err(error)) = closed {
            tracing::error!(target: "packhorse::store", %error, "the store did not close cleanly");
        }
    }
}

/// A node that is dropped without [`Tree::shutdown`] stops at once, as if it had crashed: nothing
/// that was acknowledged is lost, and the folder can be opened again.
impl Drop for Tree {
    fn drop(&mut self) {
        self.root.kill();
    }
}
