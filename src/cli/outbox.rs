//! `outbox`: messages that wait for their recipients: shown, dropped, or hurried.

use packhorse::Exit;
use packhorse::api::documents::{BoxRequest, schema};

use crate::cli::display::{grouped, printable};
use crate::cli::folder::DataFolder;
use crate::cli::select::{BoxListArgs, SelectArgs};
use crate::cli::{Failure, Screen, listing};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum OutboxCommand {
    /// Show the oldest messages
    List(BoxListArgs),
    /// Give messages up: they become dead letters
    Drop(SelectArgs),
    /// Dial now, whatever was planned
    Flush {
        /// Only this peer
        #[arg(long, value_name = "PEER")]
        peer: Option<String>,
    },
}

pub(crate) async fn run(
    folder: &DataFolder,
    command: OutboxCommand,
    screen: &Screen,
) -> Result<Exit, Failure> {
    match command {
        OutboxCommand::List(args) => listing::outbox(folder, args, screen).await,
        OutboxCommand::Drop(args) => drop(folder, args, screen).await,
        OutboxCommand::Flush { peer } => flush(folder, peer, screen).await,
    }
}

async fn drop(folder: &DataFolder, args: SelectArgs, screen: &Screen) -> Result<Exit, Failure> {
    let named = args.named();
    let answer = folder.client()?.outbox_drop(&args.into()).await;
    let answer = answer.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::DROPPED, answer)?;
    } else {
        screen.data(&answer.dropped.to_string())?;
    }
    if answer.dropped < named {
        let gone = named - answer.dropped;
        return Err(Failure::new(
            Exit::NotFound,
            format!("{gone} of {named} messages do not wait in the outbox"),
        ));
    }
    if answer.dropped > 0 {
        screen.next(&folder.command("dead list"));
    }
    Ok(Exit::Done)
}

async fn flush(
    folder: &DataFolder,
    peer: Option<String>,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = BoxRequest {
        peer,
        ..BoxRequest::default()
    };
    let answer = folder.client()?.outbox_flush(&request).await;
    let answer = answer.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::FLUSHED, &answer)?;
        return Ok(Exit::Done);
    }
    for peer in &answer.peers {
        screen.data(&printable(peer))?;
    }
    screen.note(&match answer.peers.len() {
        0 => "nothing waits for anybody".to_owned(),
        1 => "dialled now unless a session is alive".to_owned(),
        count => format!(
            "{} peers are dialled now where no session is alive",
            grouped(count as u64)
        ),
    });
    Ok(Exit::Done)
}
