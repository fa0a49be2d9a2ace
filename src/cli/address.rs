//! `peers address` and `peers keep`: where a peer is dialled, and when.

use packhorse::api::documents::{AddressRequest, KeepRequest, PeerAnswer, schema};
use packhorse::settings::Advertised;
use packhorse::{Exit, Keep, PeerInfo};

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum AddressCommand {
    /// Dial a peer here before the addresses that it announces
    Add(AddressArgs),
    /// Take such an address back
    Remove(AddressArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddressArgs {
    /// Name or node id of the peer
    #[arg(value_name = "PEER")]
    peer: String,
    /// Name or address and port, such as barn.example:7433 or [2001:db8::7]:7433
    #[arg(value_name = "HOST:PORT")]
    address: Advertised,
}

#[derive(Debug, clap::Args)]
pub(crate) struct KeepArgs {
    /// Name or node id of the peer
    #[arg(value_name = "PEER")]
    peer: String,
    /// auto: while something waits for it; always: without a pause; never: it has to dial this node
    #[arg(value_name = "auto|always|never")]
    keep: Keep,
}

pub(crate) async fn run(
    folder: &DataFolder,
    command: AddressCommand,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let mut client = folder.client()?;
    let answer = match command {
        AddressCommand::Add(args) => client.add_address(&args.into()).await,
        AddressCommand::Remove(args) => client.remove_address(&args.into()).await,
    };
    let answer = answer.map_err(|error| folder.failure(error))?;
    show(&answer, screen, |peer| {
        let dialled = words(peer);
        match dialled.is_empty() {
            true => "it has to dial this node: no address of it is known here".to_owned(),
            false => format!("dialled at {dialled}"),
        }
    })
}

pub(crate) async fn keep(
    folder: &DataFolder,
    args: KeepArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let KeepArgs { peer, keep } = args;
    let request = KeepRequest { peer, keep };
    let answer = folder.client()?.keep(&request).await;
    let answer = answer.map_err(|error| folder.failure(error))?;
    show(&answer, screen, |peer| {
        match peer.keep {
            Keep::Auto => "dialled while something waits for it",
            Keep::Always => "dialled whenever there is no session",
            Keep::Never => "never dialled: it has to dial this node",
        }
        .to_owned()
    })
}

fn show(
    answer: &PeerAnswer,
    screen: &Screen,
    sentence: impl FnOnce(&PeerInfo) -> String,
) -> Result<Exit, Failure> {
    if screen.is_json() {
        screen.document(schema::PEER, answer)?;
    } else {
        let name = printable(&answer.peer.name);
        screen.data(&format!("{name}: {}", sentence(&answer.peer)))?;
    }
    Ok(Exit::Done)
}

/// Every address of a peer in the order in which it is dialled; those added here are marked.
pub(crate) fn words(peer: &PeerInfo) -> String {
    let own = peer.own_addresses.iter().map(|own| format!("{own}*"));
    let announced = peer.addresses.iter();
    let announced = announced.filter(|address| !peer.own_addresses.contains(address));
    let all: Vec<String> = own.chain(announced.cloned()).collect();
    printable(&all.join(" ")).into_owned()
}

impl From<AddressArgs> for AddressRequest {
    fn from(args: AddressArgs) -> AddressRequest {
        AddressRequest {
            peer: args.peer,
            address: args.address.to_string(),
        }
    }
}
