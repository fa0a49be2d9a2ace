//! The tree: what outlives every actor, and the root that supervises them.
//!
//! The opened store, the listening endpoints and all handles are made here and lent to each
//! incarnation; therefore one-for-one restarts suffice, and nobody is restarted because a
//! neighbour was.
//! Nothing here delivers a message.
//!
//! Start order is store, inbox, session supervisor, retry scheduler, listeners; the stop goes the
//! other way.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use packhorse_protocol::{
    identity::IdentityKey,
    limits::ADDRESSES_MAX,
    text::{self, TextError},
};
use ractor::{Actor, ActorCell, ActorRef, SpawnErr, rpc::CallResult};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
};

use crate::{
    board::Board,
    env::Env,
    inbox::{Inbox, InboxHandle},
    link::{LinkError, QuicDialler, QuicListener, reachable},
    listener::Listener,
    retry::{Retry, RetryHandle, RetryMsg},
    session::{Me, SessionSupervisor, SessionsHandle, Wiring},
    store::{Opened, StoreHandle},
    store_keeper::StoreKeeper,
    supervise::{Budget, ChildSpec, Probe, Root, RootMsg, StartChild, TreeEnd},
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
    addresses: Vec<String>,
}

impl Bound {
    fn new(listen: Vec<SocketAddr>, advertise: Vec<String>, name: &str) -> Result<Self, TreeError> {
        text::check_name(name)?;
        let endpoints = listen
            .into_iter()
            .map(QuicListener::bind)
            .collect::<Result<Vec<_>, _>>()?;
        let dialler = Arc::new(QuicDialler::bind()?);
        let listening: Vec<_> = endpoints.iter().map(QuicListener::address).collect();
        let addresses = match advertise.is_empty() {
            true => listening
                .iter()
                .take(ADDRESSES_MAX)
                .map(|address| format!("quic://{}", reachable(*address)))
                .collect(),
            false => advertise,
        };
        text::check_addresses(&addresses)?;
        Ok(Self {
            endpoints,
            dialler,
            listening,
            addresses,
        })
    }
}

/// A running tree.
#[derive(Debug)]
pub struct Tree {
    root: ActorRef<RootMsg>,
    task: Mutex<Option<JoinHandle<()>>>,
    opened: Mutex<Option<Arc<Opened>>>,
    end: Arc<watch::Sender<Option<TreeEnd>>>,
    /// Messages, peers and tickets.
    pub store: StoreHandle,
    /// Consumers' side of the inbox.
    pub inbox: InboxHandle,
    /// Pairing.
    pub sessions: SessionsHandle,
    /// What every peer is doing.
    pub board: Board,
    /// Life events.
    pub probe: Probe,
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
            env,
        } = config;
        let Bound {
            endpoints,
            dialler,
            listening,
            addresses,
        } = match Bound::new(listen, advertise, &name) {
            Ok(bound) => bound,
            Err(error) => {
                // A store that is only dropped counts as crashed, and its next open takes longer.
                let _ = tokio::task::spawn_blocking(move || opened.close()).await;
                return Err(error);
            }
        };
        let hold_links = addresses.is_empty();
        let me = Arc::new(Me {
            identity,
            name,
            addresses,
            epoch: opened.epoch(),
        });
        let opened = Arc::new(opened);
        let board = Board::default();
        let probe = Probe::default();
        let wiring = Wiring {
            env: env.clone(),
            store: opened.handle(),
            board: board.clone(),
            probe: probe.clone(),
            me: Arc::clone(&me),
        };
        let (inbox, retry, sessions) = (
            InboxHandle::default(),
            RetryHandle::default(),
            SessionsHandle::default(),
        );
        let mut children = vec![
            store_keeper(&opened),
            inbox_child(&wiring, &inbox),
            sessions_child(&wiring, &sessions, &retry, dialler),
            retry_child(&wiring, &retry, &sessions, hold_links),
        ];
        for endpoint in endpoints {
            children.push(listener_child(&wiring, &sessions, endpoint));
        }
        let end = Arc::new(watch::Sender::new(None));
        let root = Root::new(env, probe.clone(), Arc::clone(&end));
        let (root, task) = Actor::spawn(None, root, children)
            .await
            .map_err(|error| TreeError::Root(error.to_string()))?;
        Ok(Self {
            root,
            task: Mutex::new(Some(task)),
            store: wiring.store,
            opened: Mutex::new(Some(opened)),
            end,
            inbox,
            sessions,
            board,
            probe,
            me,
            listening,
        })
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
        let closed = tokio::task::spawn_blocking(move || opened.close()).await;
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

fn budget(restarts_max: usize, window_s: u64, delay_first_ms: u64, delay_max_ms: u64) -> Budget {
    Budget {
        restarts_max,
        window: Duration::from_secs(window_s),
        delay_first: Duration::from_millis(delay_first_ms),
        delay_max: Duration::from_millis(delay_max_ms),
    }
}

fn store_keeper(opened: &Arc<Opened>) -> ChildSpec {
    let opened = Arc::clone(opened);
    ChildSpec {
        name: "store",
        vacate: Box::new(|| ()),
        budget: budget(3, 60, 100, 5_000),
        stop_within: Duration::from_secs(10),
        start: starter(move |root| {
            let actor = StoreKeeper {
                opened: Arc::clone(&opened),
            };
            async move {
                let (actor, _) = Actor::spawn_linked(None, actor, (), root).await?;
                Ok(actor.get_cell())
            }
        }),
    }
}

fn inbox_child(wiring: &Wiring, inbox: &InboxHandle) -> ChildSpec {
    let (wiring, inbox) = (wiring.clone(), inbox.clone());
    let gone = inbox.clone();
    ChildSpec {
        name: "inbox",
        vacate: Box::new(move || gone.vacate()),
        budget: budget(5, 30, 100, 5_000),
        stop_within: Duration::from_secs(2),
        start: starter(move |root| {
            let actor = Inbox {
                env: wiring.env.clone(),
                store: wiring.store.clone(),
            };
            let inbox = inbox.clone();
            async move {
                let (actor, _) = Actor::spawn_linked(None, actor, (), root).await?;
                inbox.publish(actor.clone());
                Ok(actor.get_cell())
            }
        }),
    }
}

fn retry_child(
    wiring: &Wiring,
    retry: &RetryHandle,
    sessions: &SessionsHandle,
    hold_links: bool,
) -> ChildSpec {
    let (wiring, retry, sessions) = (wiring.clone(), retry.clone(), sessions.clone());
    let gone = retry.clone();
    ChildSpec {
        name: "retry scheduler",
        vacate: Box::new(move || gone.vacate()),
        budget: budget(5, 30, 100, 5_000),
        stop_within: Duration::from_secs(2),
        start: starter(move |root| {
            let actor = Retry {
                env: wiring.env.clone(),
                store: wiring.store.clone(),
                sessions: sessions.clone(),
                board: wiring.board.clone(),
                hold_links,
            };
            let retry = retry.clone();
            async move {
                let (actor, _) = Actor::spawn_linked(None, actor, (), root).await?;
                retry.publish(actor.clone());
                Ok(actor.get_cell())
            }
        }),
    }
}

fn sessions_child(
    wiring: &Wiring,
    sessions: &SessionsHandle,
    retry: &RetryHandle,
    dialler: Arc<QuicDialler>,
) -> ChildSpec {
    let (wiring, sessions, retry) = (wiring.clone(), sessions.clone(), retry.clone());
    let dials = Arc::new(AtomicU64::new(0));
    let gone = sessions.clone();
    ChildSpec {
        name: "session supervisor",
        vacate: Box::new(move || gone.vacate()),
        budget: budget(5, 30, 100, 2_000),
        stop_within: Duration::from_secs(6),
        start: starter(move |root| {
            let actor = SessionSupervisor::new(
                wiring.clone(),
                Arc::clone(&dialler),
                retry.clone(),
                Arc::clone(&dials),
            );
            let (sessions, retry) = (sessions.clone(), retry.clone());
            async move {
                let (actor, _) = Actor::spawn_linked(None, actor, (), root).await?;
                sessions.publish(actor.clone());
                // A former incarnation's sessions died with it; at the first start nobody hears it.
                // ORDER: only who can be reached is dialled through.
                retry.tell(RetryMsg::AllOver);
                Ok(actor.get_cell())
            }
        }),
    }
}

fn listener_child(wiring: &Wiring, sessions: &SessionsHandle, endpoint: QuicListener) -> ChildSpec {
    let (wiring, sessions) = (wiring.clone(), sessions.clone());
    let endpoint = Arc::new(Mutex::new(endpoint));
    ChildSpec {
        name: "listener",
        vacate: Box::new(|| ()),
        budget: budget(10, 60, 200, 10_000),
        stop_within: Duration::from_secs(2),
        start: starter(move |root| {
            let actor = Listener {
                wiring: wiring.clone(),
                sessions: sessions.clone(),
                endpoint: Arc::clone(&endpoint),
            };
            async move {
                let (actor, _) = Actor::spawn_linked(None, actor, (), root).await?;
                Ok(actor.get_cell())
            }
        }),
    }
}

fn starter<F>(start: impl Fn(ActorCell) -> F + Send + Sync + 'static) -> StartChild
where
    F: Future<Output = Result<ActorCell, SpawnErr>> + Send + 'static,
{
    Box::new(move |root| Box::pin(start(root)))
}
