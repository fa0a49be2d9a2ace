//! `grant` and `revoke`: what a peer may do here, from this moment on.

use std::time::Duration;

use packhorse::api::documents::{GrantRequest, RevokeRequest, schema, whole_ms};
use packhorse::time::parse_duration;
use packhorse::{Exit, Grant, PeerInfo, Revocation};

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::peers::grants_cell;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Args)]
pub(crate) struct GrantArgs {
    /// Name or id of the peer
    peer: String,
    /// What it may do here, such as 'message.send:orders/*'; with ! behind the colon what it may not
    #[arg(value_name = "CAP:SCOPE", required = true)]
    grants: Vec<Grant>,
    /// For how long; for ever unless given
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Name or id of the peer
    peer: String,
    /// A grant as it was given, or a capability for every grant of it
    #[arg(value_name = "CAP[:SCOPE]", required = true)]
    grants: Vec<Revocation>,
}

pub(crate) async fn grant(
    folder: &DataFolder,
    args: GrantArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = GrantRequest {
        peer: args.peer,
        grants: args.grants,
        expires_ms: args.expires.map(whole_ms),
    };
    let changed = folder.client()?.grant(&request).await;
    let changed = changed.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::PEER, &changed)?;
    } else {
        screen.data(&may_now(&changed.peer))?;
    }
    Ok(Exit::Done)
}

pub(crate) async fn revoke(
    folder: &DataFolder,
    args: RevokeArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = RevokeRequest {
        peer: args.peer,
        grants: args.grants,
    };
    let revoked = folder.client()?.revoke(&request).await;
    let revoked = revoked.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::REVOKED, &revoked)?;
    } else {
        screen.data(&may_now(&revoked.peer))?;
    }
    if revoked.missing.is_empty() {
        return Ok(Exit::Done);
    }
    let missing: Vec<String> = revoked.missing.iter().map(ToString::to_string).collect();
    Err(Failure::new(
        Exit::NotFound,
        format!(
            "{} did not hold {}",
            printable(&revoked.peer.name),
            printable(&missing.join(" "))
        ),
    )
    .with_hint(folder.command("peers")))
}

fn may_now(peer: &PeerInfo) -> String {
    format!("{} may now: {}", printable(&peer.name), grants_cell(peer))
}
