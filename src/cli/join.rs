//! `join`: pair with the node that made a ticket; done only when both sides have written it down.
//!
//! Without a ticket it asks, see `ask`. The ticket may come on stdin, so that the secret stays out of the list of processes.

use std::io::Read;
use std::time::Duration;

use packhorse::api::documents::{JoinRequest, schema};
use packhorse::settings::NodeName;
use packhorse::time::parse_duration;
use packhorse::{Exit, Grant, Ticket};

use crate::cli::display::{printable, shell_word};
use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen, ask};

/// Most bytes of stdin that are looked at; a ticket has at most 1,023 characters.
const TICKET_INPUT_BYTES_MAX: u64 = 4 << 10;

#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// The ticket, `-` to read it from stdin, or with --ask whom to ask and where
    #[arg(value_name = "TICKET|-|NODEID@HOST:PORT")]
    ticket: String,
    /// The other node's name here; its own name unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<NodeName>,
    /// What the other node may do here, such as 'message.send:*'; repeatable
    #[arg(long = "grant", value_name = "CAP:SCOPE")]
    pub(crate) grants: Vec<Grant>,
    /// Ask to be paired without a ticket; somebody there decides
    #[arg(long)]
    ask: bool,
    /// What whoever decides reads, at most 256 bytes
    #[arg(long, value_name = "TEXT", requires = "ask")]
    pub(crate) message: Option<String>,
    /// Wait for the decision
    #[arg(long, requires = "ask")]
    pub(crate) wait: bool,
    /// How long to wait for it
    #[arg(long, value_name = "DURATION", default_value = "10m", requires = "wait", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: JoinArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    match (args.ask, ask::parse_place(&args.ticket)) {
        (true, Some(place)) => return ask::run(folder, args, place?, screen).await,
        (true, None) => {
            return Err(Failure::usage(
                "--ask needs whom to ask and where: write NODEID@HOST:PORT",
            ));
        }
        (false, Some(place)) => {
            place?;
            return Err(Failure::usage("a node is joined by a ticket, or asked")
                .with_hint("add --ask to ask it to be paired"));
        }
        (false, None) => {}
    }
    let request = JoinRequest {
        ticket: read_ticket(&args.ticket)?,
        name: args.name.map(|name| name.to_string()),
        grants: args.grants,
    };
    let joined = folder
        .client()?
        .join(&request)
        .await
        .map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::JOIN, &joined)?;
    } else {
        let name = printable(&joined.peer.name);
        screen.data(&format!(
            "paired with {name}  {}\ncompare      {}",
            joined.peer.id, joined.compare
        ))?;
        if joined.peer.grants.is_empty() {
            screen.note(&format!(
                "nothing is granted to {name}: it may not send messages here"
            ));
        }
        screen.next(&folder.command(&format!("send {} orders hello", shell_word(&name))));
    }
    Ok(Exit::Done)
}

fn read_ticket(argument: &str) -> Result<Ticket, Failure> {
    let text = if argument == "-" {
        let mut text = String::new();
        std::io::stdin()
            .take(TICKET_INPUT_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| Failure::usage(format!("no ticket on stdin: {error}")))?;
        text
    } else {
        argument.to_owned()
    };
    // The error never repeats the text: it may be a good ticket with one letter wrong.
    text.trim()
        .parse()
        .map_err(|error| Failure::usage(format!("{error}")))
}
