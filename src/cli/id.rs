//! `init` and `id`: who this node is. Both work without the daemon.
//!
//! `init` is safe to repeat: an identity that is there is shown, never replaced.

use packhorse::api::documents::schema;
use packhorse::identity::{IDENTITY_FILE, Identity, IdentityError};
use packhorse::{Exit, NodeId};
use serde::Serialize;

use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

#[derive(Debug, Serialize)]
struct IdDocument {
    node: String,
    short: String,
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
    let (identity, created) = Identity::load_or_create(folder.path())?;
    let id = identity.id();
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

pub(crate) fn show(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    let id: NodeId = Identity::load(folder.path())
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
