//! `peers`: the nodes that this one is paired with, what each may do, and who may be none.

use std::time::Duration;

use packhorse::api::documents::{AllowRequest, RenameRequest, schema};
use packhorse::settings::NodeName;
use packhorse::time::{WallTime, short_duration};
use packhorse::{Exit, Grant, NodeId, PeerInfo};

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::table::Table;
use crate::cli::{Failure, Screen, address};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum PeersCommand {
    /// Show every peer
    List,
    /// Give a peer another name here
    Rename {
        /// Name or id of the peer
        peer: String,
        /// Its new name
        name: NodeName,
    },
    /// Say where a peer is dialled, beside what it announces
    Address {
        #[command(subcommand)]
        command: address::AddressCommand,
    },
    /// Say when a link to a peer is kept
    Keep(address::KeepArgs),
    /// Show the identities that pair no more: they were forgotten or rejected
    Denied,
    /// Let an identity pair again; it needs a ticket as any stranger does
    Allow {
        /// The node id
        #[arg(value_name = "NODEID")]
        id: NodeId,
    },
}

pub(crate) async fn run(
    folder: &DataFolder,
    command: PeersCommand,
    screen: &Screen,
) -> Result<Exit, Failure> {
    match command {
        PeersCommand::List => list(folder, screen).await,
        PeersCommand::Rename { peer, name } => rename(folder, peer, &name, screen).await,
        PeersCommand::Address { command } => address::run(folder, command, screen).await,
        PeersCommand::Keep(args) => address::keep(folder, args, screen).await,
        PeersCommand::Denied => denied(folder, screen).await,
        PeersCommand::Allow { id } => allow(folder, id, screen).await,
    }
}

async fn list(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    let peers = folder
        .client()?
        .peers()
        .await
        .map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::PEERS, &peers)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["PEER", "NODE", "MAY HERE", "WE MAY THERE", "ADDRESSES"]);
    for peer in &peers.peers {
        table.row(vec![
            printable(&peer.name).into_owned(),
            peer.id.short(),
            grants_cell(peer),
            words(&peer.granted),
            address::words(peer),
        ]);
    }
    screen.data(&table.render())?;
    if peers.peers.is_empty() {
        screen.next(&folder.command("invite --grant 'message.send:*'"));
    }
    Ok(Exit::Done)
}

async fn rename(
    folder: &DataFolder,
    peer: String,
    name: &NodeName,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = RenameRequest {
        peer,
        name: name.to_string(),
    };
    let changed = folder.client()?.rename(&request).await;
    let changed = changed.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::PEER, &changed)?;
    } else {
        screen.data(&printable(&changed.peer.name))?;
    }
    Ok(Exit::Done)
}

async fn denied(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    let denied = folder.client()?.denied().await;
    let denied = denied.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::DENIED, &denied)?;
        return Ok(Exit::Done);
    }
    let now = WallTime::now();
    let mut table = Table::new(&["NAME THEN", "NODE", "SINCE"]);
    for one in &denied.denied {
        let ago = Duration::from_millis(now.0.saturating_sub(one.at.0));
        table.row(vec![
            printable(&one.name).into_owned(),
            one.id.to_string(),
            format!("{} ago", short_duration(ago)),
        ]);
    }
    screen.data(&table.render())?;
    Ok(Exit::Done)
}

async fn allow(folder: &DataFolder, id: NodeId, screen: &Screen) -> Result<Exit, Failure> {
    let allowed = folder.client()?.allow(&AllowRequest { id }).await;
    let allowed = allowed.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::ALLOWED, &allowed)?;
    } else {
        screen.data(&allowed.id.to_string())?;
        screen.next(&folder.command("invite --grant 'message.send:*'"));
    }
    Ok(Exit::Done)
}

/// What a peer may do here, with the ends of what does not last.
pub(crate) fn grants_cell(peer: &PeerInfo) -> String {
    render_grants(peer, WallTime::now())
}

fn render_grants(peer: &PeerInfo, now: WallTime) -> String {
    if peer.grants.is_empty() {
        return "nothing".to_owned();
    }
    let words: Vec<String> = peer
        .grants
        .iter()
        .map(|grant| {
            let text = grant.to_string();
            match peer.ends.get(&text) {
                None => text,
                Some(end) => {
                    let left = Duration::from_millis(end.0.saturating_sub(now.0));
                    format!("{text} (for {})", short_duration(left))
                }
            }
        })
        .collect();
    printable(&words.join(" ")).into_owned()
}

fn words(grants: &[Grant]) -> String {
    if grants.is_empty() {
        return "nothing".to_owned();
    }
    let words: Vec<String> = grants.iter().map(ToString::to_string).collect();
    printable(&words.join(" ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_shown_with_the_ends_that_some_have() {
        let grant = |text: &str| text.parse::<Grant>().expect("a grant");
        let mut peer = PeerInfo {
            name: "barn".into(),
            id: packhorse::IdentityKey::from_seed(&[7; 32]).id(),
            addresses: Vec::new(),
            own_addresses: Vec::new(),
            keep: packhorse::Keep::Auto,
            grants: vec![grant("message.send:*"), grant("execute:a")],
            ends: [("execute:a".to_owned(), WallTime(3_600_000))].into(),
            granted: Vec::new(),
        };
        let text = render_grants(&peer, WallTime(0));
        assert_eq!(text, "message.send:* execute:a (for 1h)");
        peer.grants.clear();
        assert_eq!(render_grants(&peer, WallTime(0)), "nothing");
    }
}
