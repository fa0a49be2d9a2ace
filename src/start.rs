//! Starting a node: what it is told, and why it may not start.
//!
//! Nothing of a node that did not start is left running.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use packhorse_actors::env::Env;
use packhorse_actors::session::{RequestPolicy, Stranger, StrangerDecision};
use packhorse_actors::store::{OpenError, Opened, Quotas, Store, StoreConfig};
use packhorse_actors::tree::{Tree, TreeConfig, TreeError};

use crate::error::NodeError;
use crate::exit::Exit;
use crate::identity::{Identity, IdentityError, Passphrase};
use crate::node::Node;
use crate::rules::ClassRules;
use crate::settings::{Advertised, AdvertisedError};
use crate::storage::QuotaSettings;

/// How a node is to be started.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    data_dir: PathBuf,
    name: String,
    listen: Vec<SocketAddr>,
    advertise: Vec<String>,
    rules: ClassRules,
    requests: RequestPolicy,
    passphrase: Option<Passphrase>,
    quotas: QuotaSettings,
}

impl NodeBuilder {
    pub(crate) fn new(data_dir: PathBuf) -> NodeBuilder {
        NodeBuilder {
            data_dir,
            name: String::new(),
            listen: Vec::new(),
            advertise: Vec::new(),
            rules: ClassRules::default(),
            requests: RequestPolicy::default(),
            passphrase: None,
            quotas: QuotaSettings::default(),
        }
    }

    /// The name that the node announces; the short form of its id when not given.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> NodeBuilder {
        self.name = name.into();
        self
    }

    /// Listen here as well. Without any listener the node accepts nobody.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> NodeBuilder {
        self.listen.push(address);
        self
    }

    /// Tell others to dial this `HOST:PORT` instead of the listening addresses.
    #[must_use]
    pub fn advertise(mut self, address: impl Into<String>) -> NodeBuilder {
        self.advertise.push(address.into());
        self
    }

    /// Decide the classes of messages by these rules.
    #[must_use]
    pub fn class_rules(mut self, rules: ClassRules) -> NodeBuilder {
        self.rules = rules;
        self
    }

    /// Take requests to be paired from nodes without a ticket; a person decides about each.
    #[must_use]
    pub fn accept_requests(mut self, accepts: bool) -> NodeBuilder {
        self.requests.accepts = accepts;
        self
    }

    /// Decide by this function about nodes that ask to be paired and have no ticket.
    ///
    /// Their ids are proven; everything else is what they say. It is called on a blocking worker,
    /// several at once, and not for nodes that are denied. One that panics refuses; one that takes
    /// longer than 3 s makes the stranger ask again later.
    ///
    /// ```no_run
    /// # async fn example(known: std::collections::BTreeSet<packhorse::NodeId>)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// use packhorse::{Node, StrangerDecision};
    ///
    /// let grants = packhorse::Grants::new(["message.send:orders".parse()?])?;
    /// let node = Node::builder("/var/lib/example")
    ///     .listen("0.0.0.0:7433".parse()?)
    ///     .decide_strangers(move |stranger| match known.contains(&stranger.id) {
    ///         true => StrangerDecision::Accept { grants: grants.clone() },
    ///         false => StrangerDecision::Queue,
    ///     })
    ///     .start()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn decide_strangers(
        mut self,
        decide: impl Fn(&Stranger) -> StrangerDecision + Send + Sync + 'static,
    ) -> NodeBuilder {
        self.requests.decide = Some(Arc::new(decide));
        self
    }

    /// What unseals the identity; an identity that this start makes is sealed with it.
    #[must_use]
    pub fn passphrase(mut self, passphrase: Passphrase) -> NodeBuilder {
        self.passphrase = Some(passphrase);
        self
    }

    /// Bound the boxes by these quotas.
    #[must_use]
    pub fn quotas(mut self, quotas: QuotaSettings) -> NodeBuilder {
        self.quotas = quotas;
        self
    }

    /// Opens the store, binds the listeners and starts the tree.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(self) -> Result<Node, StartError> {
        // ORDER: before anything is made.
        let advertise = self
            .advertise
            .iter()
            .map(|text| Ok(text.parse::<Advertised>()?.hint()))
            .collect::<Result<Vec<_>, AdvertisedError>>()?;
        let env = Env::system();
        let data_dir = self.data_dir.clone();
        let opening_env = env.clone();
        // Reading the journal back blocks for as long as the disk takes.
        let quotas = self.quotas.quotas();
        let opened = tokio::task::spawn_blocking(move || {
            open(&data_dir, self.passphrase.as_ref(), opening_env, quotas)
        });
        let (identity, is_new, store) = opened
            .await
            .map_err(|error| StartError::Panicked(error.to_string()))??;
        let id = identity.id();
        let name = if self.name.is_empty() {
            id.short()
        } else {
            self.name
        };
        let config = TreeConfig {
            identity: identity.key(),
            name: name.clone(),
            listen: self.listen,
            advertise,
            requests: self.requests,
            store,
            env: env.clone(),
        };
        let tree = Tree::start(config).await?;
        Ok(Node::new(
            id,
            name,
            self.data_dir,
            is_new,
            tree,
            env,
            self.rules,
        ))
    }
}

fn open(
    data_dir: &Path,
    passphrase: Option<&Passphrase>,
    env: Env,
    quotas: Quotas,
) -> Result<(Identity, bool, Opened), StartError> {
    let (identity, is_new) = Identity::load_or_create(data_dir, passphrase)?;
    let secret = *identity.store_secret();
    let mut config = StoreConfig::new(data_dir, identity.id(), secret, env);
    config.quotas = quotas;
    let store = Store::open(&config)?;
    Ok((identity, is_new, store))
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What others are told to dial.
    #[error(transparent)]
    Advertise(#[from] AdvertisedError),
    /// The identity file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The listeners or the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Something could not be written to the store before the node was changed.
    #[error(transparent)]
    Write(#[from] NodeError),
    /// Opening the store panicked: a fault of this program.
    #[error("opening the store failed: {0}")]
    Panicked(String),
}

impl StartError {
    /// The code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            StartError::Store(OpenError::WrongKey { .. }) => Exit::WrongKey,
            StartError::Store(OpenError::WideMode { .. }) => Exit::Refused,
            StartError::Store(OpenError::Full { .. }) => Exit::Full,
            StartError::Identity(IdentityError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Exit::Full
            }
            StartError::Identity(error) => error.exit(),
            StartError::Store(OpenError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Exit::Full
            }
            StartError::Store(_) => Exit::Damaged,
            StartError::Write(error) => error.exit(),
            StartError::Advertise(_)
            | StartError::Tree(TreeError::Link(_) | TreeError::Announced(_)) => Exit::Usage,
            StartError::Tree(_) | StartError::Panicked(_) => Exit::Internal,
        }
    }
}
