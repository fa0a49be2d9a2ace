//! `init` and `id`: who this node is. Both work without the daemon, and without a passphrase.
//!
//! `init` is safe to repeat: an identity that is there is shown, never replaced. `id --new` is for
//! a machine that was copied: another identity over the same store, with the daemon stopped.

use std::path::PathBuf;

use packhorse::api::documents::schema;
use packhorse::identity::{IDENTITY_FILE, Identity, IdentityError, IdentityFile};
use packhorse::renewal::{self, Renewal};
use packhorse::settings::Settings;
use packhorse::{Exit, NodeId};
use serde::Serialize;

use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen, grouped, passphrase};

#[derive(Debug, clap::Args)]
pub(crate) struct IdArgs {
    /// Take a new identity and keep the store, as a copied machine must; the daemon has to be stopped
    #[arg(long)]
    new: bool,
    /// The file with the passphrase of the identity, where one seals it
    #[arg(long, value_name = "FILE", requires = "new")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct IdDocument {
    node: String,
    short: String,
}

#[derive(Debug, Serialize)]
struct RenewalDocument {
    node: String,
    short: String,
    old_node: String,
    old_file: String,
    waiting: u64,
    unanswered: u64,
    peers: Vec<PeerToPair>,
}

#[derive(Debug, Serialize)]
struct PeerToPair {
    name: String,
    node: String,
}

#[derive(Debug, Serialize)]
struct InitDocument {
    node: String,
    short: String,
    created: bool,
    data_dir: String,
}

pub(crate) fn init(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    // A folder that no daemon could serve is refused before anything is made in it.
    folder.socket()?;
    let (id, created) = match IdentityFile::load(folder.path()) {
        Err(IdentityError::Missing { .. }) => {
            let (identity, created) = Identity::load_or_create(folder.path(), None)?;
            (identity.id(), created)
        }
        file => (file?.id(), false),
    };
    if screen.is_json() {
        let data_dir = folder.path().to_string_lossy().into_owned();
        let document = InitDocument {
            node: id.to_string(),
            short: id.short(),
            created,
            data_dir,
        };
        screen.document(schema::INIT, document)?;
    } else {
        screen.data(&id.to_string())?;
    }
    if created {
        tell_backup(folder, screen);
    } else {
        screen.note("this node has its identity already; nothing was changed");
    }
    screen.next(&folder.command("up --listen 0.0.0.0:7433"));
    Ok(Exit::Done)
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: IdArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    if !args.new {
        return show(folder, screen);
    }
    let settings = Settings::load(folder.path())?.passphrase_file;
    let named = args.passphrase_file.as_deref();
    let (_, passphrase) = passphrase::unlock(folder, named, settings.as_deref())?;
    let renewal = renewal::renew(folder.path(), passphrase).await?;
    tell_renewal(&renewal, folder, screen)?;
    Ok(Exit::Done)
}

fn tell_renewal(renewal: &Renewal, folder: &DataFolder, screen: &Screen) -> Result<(), Failure> {
    if screen.is_json() {
        let peers = renewal.peers.iter().map(|peer| PeerToPair {
            name: peer.name.clone(),
            node: peer.id.to_string(),
        });
        let document = RenewalDocument {
            node: renewal.new.to_string(),
            short: renewal.new.short(),
            old_node: renewal.old.to_string(),
            old_file: renewal.kept.to_string_lossy().into_owned(),
            waiting: renewal.waiting,
            unanswered: renewal.unanswered,
            peers: peers.collect(),
        };
        screen.document(schema::ID_NEW, document)?;
    } else {
        screen.data(&renewal.new.to_string())?;
    }
    screen.note(&format!(
        "the old identity is kept in {}; delete it when you are sure",
        renewal.kept.display()
    ));
    for peer in &renewal.peers {
        screen.note(&format!("pair again with {}", peer.name));
    }
    if renewal.waiting > 0 {
        screen.note(&format!(
            "{} messages wait and go out once their peers are paired again; on a copied machine the other one sends them too, and `outbox drop --all` drops them here",
            grouped(renewal.waiting)
        ));
    }
    if renewal.unanswered > 0 {
        screen.note(&format!(
            "{} messages may have been delivered under the old identity: see `dead list`",
            grouped(renewal.unanswered)
        ));
    }
    tell_backup(folder, screen);
    Ok(())
}

fn show(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    let id: NodeId = IdentityFile::load(folder.path())
        .map_err(|error| {
            let is_missing = matches!(error, IdentityError::Missing { .. });
            let failure = Failure::from(error);
            if is_missing {
                failure.with_hint(folder.command("init"))
            } else {
                failure
            }
        })?
        .id();
    if screen.is_json() {
        screen.document(
            schema::ID,
            IdDocument {
                node: id.to_string(),
                short: id.short(),
            },
        )?;
    } else {
        screen.data(&id.to_string())?;
    }
    Ok(Exit::Done)
}

/// Said once in a node's life, where a person can read it.
pub(crate) fn tell_backup(folder: &DataFolder, screen: &Screen) {
    screen.note(&format!(
        "a new identity was made: back up {}, it cannot be made again",
        folder.path().join(IDENTITY_FILE).display()
    ));
}
