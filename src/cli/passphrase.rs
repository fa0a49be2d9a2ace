//! `passphrase`: whether the identity file is sealed, and where a passphrase comes from.
//!
//! It works without the daemon, and beside one: the file is read at a start only.
//! A passphrase is asked for on a terminal and nowhere else; it is never an argument, because
//! everybody on the machine may read those.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use packhorse::Exit;
use packhorse::api::documents::schema;
use packhorse::identity::{
    Change, IDENTITY_FILE, Identity, IdentityError, IdentityFile, Passphrase,
};
use serde::Serialize;

use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

/// How often a person may mistype it.
const TRIES_MAX: u32 = 3;
/// The name under which a service manager hands it over.
const CREDENTIAL: &str = "packhorse-passphrase";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum PassphraseCommand {
    /// Seal the identity with a passphrase, or with another one
    Set {
        /// Read the new passphrase from this file instead of the terminal
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Read the present passphrase from this file instead of the terminal
        #[arg(long, value_name = "FILE")]
        old_file: Option<PathBuf>,
    },
    /// Write the identity without a passphrase
    Remove {
        /// Read the present passphrase from this file instead of the terminal
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Serialize)]
struct PassphraseDocument {
    node: String,
    sealed: bool,
}

pub(crate) fn run(
    folder: &DataFolder,
    command: PassphraseCommand,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let change = Change::begin(folder.path()).map_err(|error| explained(error, folder))?;
    let file = change.file()?;
    let (was_sealed, is_set) = (
        file.is_sealed(),
        matches!(command, PassphraseCommand::Set { .. }),
    );
    let old_file = match &command {
        PassphraseCommand::Set { old_file, .. } => old_file.as_deref(),
        PassphraseCommand::Remove { file } => file.as_deref(),
    };
    let (identity, _) = match unlock(folder, old_file, None) {
        // Here it has a name of its own.
        Err(_) if was_sealed && old_file.is_none() && !is_asked() => {
            let error = IdentityError::Locked {
                path: folder.path().join(IDENTITY_FILE),
            };
            let words = match is_set {
                true => "passphrase set --old-file FILE",
                false => "passphrase remove --file FILE",
            };
            let failure = Failure::new(error.exit(), error.to_string());
            return Err(failure.with_hint(folder.command(words)));
        }
        unlocked => unlocked?,
    };
    let new = match command {
        PassphraseCommand::Set {
            file: Some(path), ..
        } => Some(Passphrase::read(&path)?),
        PassphraseCommand::Set { file: None, .. } => Some(ask_twice(folder)?),
        PassphraseCommand::Remove { .. } => None,
    };
    let node = identity.id();
    if was_sealed || is_set {
        change.rewrite(&identity, new.as_ref())?;
    }
    if screen.is_json() {
        let node = node.to_string();
        let sealed = is_set;
        screen.document(schema::PASSPHRASE, PassphraseDocument { node, sealed })?;
    } else if is_set {
        screen.note("the identity is sealed: the next start needs the passphrase, and a backup made before does not");
    } else if was_sealed {
        screen.note("the identity is not sealed any more");
    } else {
        screen.note("the identity was not sealed; nothing was changed");
    }
    Ok(Exit::Done)
}

/// The identity of a folder, and what unsealed it. `settings` is the file that the settings name.
pub(crate) fn unlock(
    folder: &DataFolder,
    named: Option<&Path>,
    settings: Option<&Path>,
) -> Result<(Identity, Option<Passphrase>), Failure> {
    let load = || IdentityFile::load(folder.path()).map_err(|error| explained(error, folder));
    let file = load()?;
    if !file.is_sealed() {
        return Ok((file.unlock(None)?, None));
    }
    if let Some(passphrase) = given(named, settings)? {
        let identity = file.unlock(Some(&passphrase))?;
        return Ok((identity, Some(passphrase)));
    }
    for left in (0..TRIES_MAX).rev() {
        let Some(passphrase) = ask("passphrase of this node: ")? else {
            break;
        };
        match load()?.unlock(Some(&passphrase)) {
            Err(IdentityError::WrongPassphrase { .. }) if left > 0 => {}
            Ok(identity) => return Ok((identity, Some(passphrase))),
            Err(error) => return Err(error.into()),
        }
    }
    // Without a terminal there is nobody to ask.
    Err(file.unlock(None).map_or_else(Failure::from, |_| {
        Failure::new(
            Exit::Internal,
            "a sealed identity opened without its passphrase",
        )
    }))
}

/// What a start of the node needs; `None` where nothing is sealed. A node that is made by this
/// start is sealed with what is given.
pub(crate) fn for_start(
    folder: &DataFolder,
    named: Option<&Path>,
    settings: Option<&Path>,
    screen: &Screen,
) -> Result<Option<Passphrase>, Failure> {
    match IdentityFile::load(folder.path()) {
        // The start says it, in its own order.
        Err(IdentityError::Missing { .. }) => given(named, settings),
        Err(error) => Err(error.into()),
        Ok(file) if !file.is_sealed() => {
            if named.is_some() {
                screen.note("the identity is not sealed, so the passphrase is not used");
                screen.next(&folder.command("passphrase set"));
            }
            Ok(None)
        }
        Ok(_) => match given(named, settings)? {
            // Tried once, by the start itself.
            Some(passphrase) => Ok(Some(passphrase)),
            None => Ok(unlock(folder, None, None)?.1),
        },
    }
}

/// A passphrase that no person has to type: named on the command line, handed over by the service
/// manager, or named in the settings.
fn given(named: Option<&Path>, settings: Option<&Path>) -> Result<Option<Passphrase>, Failure> {
    if let Some(path) = named {
        return Ok(Some(Passphrase::read(path)?));
    }
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
        .map(|folder| Path::new(&folder).join(CREDENTIAL))
        .filter(|path| path.exists());
    if let Some(path) = credential {
        return Ok(Some(Passphrase::read_credential(&path)?));
    }
    match settings {
        Some(path) => Ok(Some(Passphrase::read(path)?)),
        None => Ok(None),
    }
}

/// Whether there is a person to ask.
fn is_asked() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a person; `None` when there is none.
fn ask(prompt: &str) -> Result<Option<Passphrase>, Failure> {
    if !is_asked() {
        return Ok(None);
    }
    let typed = rpassword::prompt_password(prompt).map_err(|error| {
        Failure::new(
            Exit::Failure,
            format!("cannot read from the terminal: {error}"),
        )
    })?;
    Ok(Some(Passphrase::new(typed)?))
}

fn ask_twice(folder: &DataFolder) -> Result<Passphrase, Failure> {
    let Some(first) = ask("new passphrase: ")? else {
        return Err(
            Failure::usage("there is no terminal to ask for a passphrase on")
                .with_hint(folder.command("passphrase set --file FILE")),
        );
    };
    match ask("again: ")? {
        Some(second) if second == first => Ok(first),
        _ => Err(Failure::usage(
            "the two are not the same; nothing was changed",
        )),
    }
}

fn explained(error: IdentityError, folder: &DataFolder) -> Failure {
    let is_missing = matches!(error, IdentityError::Missing { .. });
    let failure = Failure::from(error);
    if is_missing {
        failure.with_hint(folder.command("init"))
    } else {
        failure
    }
}
