//! Starting a node: what it is told, and why it may not start.
//!
//! Nothing of a node that did not start is left running.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use packhorse_actors::env::Env;
use packhorse_actors::store::{OpenError, Opened, Store, StoreConfig};
use packhorse_actors::tree::{Tree, TreeConfig, TreeError};

use crate::exit::Exit;
use crate::identity::{Identity, IdentityError};
use crate::node::Node;
use crate::rules::ClassRules;

/// How a node is to be started.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    data_dir: PathBuf,
    name: String,
    listen: Vec<SocketAddr>,
    advertise: Vec<String>,
    rules: ClassRules,
}

impl NodeBuilder {
    pub(crate) fn new(data_dir: PathBuf) -> NodeBuilder {
        NodeBuilder {
            data_dir,
            name: String::new(),
            listen: Vec::new(),
            advertise: Vec::new(),
            rules: ClassRules::default(),
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

    /// Opens the store, binds the listeners and starts the tree.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(self) -> Result<Node, StartError> {
        let env = Env::system();
        let data_dir = self.data_dir.clone();
        let opening_env = env.clone();
        // Reading the journal back blocks for as long as the disk takes.
        let opened = tokio::task::spawn_blocking(move || open(&data_dir, opening_env));
        let (identity, is_new, store) = opened
            .await
            .map_err(|error| StartError::Panicked(error.to_string()))??;
        let id = identity.id();
        let name = if self.name.is_empty() {
            id.short()
        } else {
            self.name
        };
        let advertise: Vec<_> = match self.advertise.is_empty() {
            true => Vec::new(),
            false => self
                .advertise
                .iter()
                .map(|hint| format!("quic://{hint}"))
                .collect(),
        };
        let config = TreeConfig {
            identity: identity.key(),
            name: name.clone(),
            listen: self.listen,
            advertise,
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

fn open(data_dir: &Path, env: Env) -> Result<(Identity, bool, Opened), StartError> {
    let (identity, is_new) = Identity::load_or_create(data_dir)?;
    let secret = *identity.store_secret();
    let store = Store::open(&StoreConfig::new(data_dir, identity.id(), secret, env))?;
    Ok((identity, is_new, store))
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The identity file.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The listeners or the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Opening the store panicked: a fault of this program.
    #[error("opening the store failed: {0}")]
    Panicked(String),
}

impl StartError {
    /// The code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            StartError::Identity(error) => error.exit(),
            StartError::Store(OpenError::WrongKey { .. }) => Exit::WrongKey,
            StartError::Store(OpenError::WideMode { .. }) => Exit::Refused,
            StartError::Store(OpenError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Exit::Full
            }
            StartError::Store(_) => Exit::Damaged,
            StartError::Tree(TreeError::Link(_) | TreeError::Announced(_)) => Exit::Usage,
            StartError::Tree(_) | StartError::Panicked(_) => Exit::Internal,
        }
    }
}
