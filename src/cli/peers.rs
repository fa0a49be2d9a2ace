//! `peers`: the nodes that this one is paired with, and what each may do.

use packhorse::api::documents::schema;
use packhorse::{Exit, Grant};

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::table::Table;
use crate::cli::{Failure, Screen};

pub(crate) async fn list(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
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
            words(&peer.grants),
            words(&peer.granted),
            printable(&peer.addresses.join(" ")).into_owned(),
        ]);
    }
    screen.data(&table.render())?;
    if peers.peers.is_empty() {
        screen.next(&folder.command("invite --grant 'message.send:*'"));
    }
    Ok(Exit::Done)
}

fn words(grants: &[Grant]) -> String {
    if grants.is_empty() {
        return "nothing".to_owned();
    }
    let words: Vec<String> = grants.iter().map(ToString::to_string).collect();
    printable(&words.join(" ")).into_owned()
}
