//! `why`: what a peer or a message waits for, in one sentence.

use packhorse::api::documents::schema;
use packhorse::{Exit, ReceiptId};

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum WhyCommand {
    /// Say whether a peer is connected, and what its messages wait for
    Peer {
        /// Name or node id of the peer
        #[arg(value_name = "PEER")]
        peer: String,
    },
    /// Say where a message is, what it waits for, or what became of it
    Message {
        /// The receipt id, as `send` and the listings print it
        #[arg(value_name = "ID")]
        id: ReceiptId,
    },
}

pub(crate) async fn run(
    folder: &DataFolder,
    command: WhyCommand,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let mut client = folder.client()?;
    let answer = match &command {
        WhyCommand::Peer { peer } => client.why_peer(peer).await,
        WhyCommand::Message { id } => client.why_message(id).await,
    };
    let why = answer.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::WHY, &why)?;
    } else {
        screen.data(&printable(&why.sentence))?;
    }
    Ok(Exit::Done)
}
