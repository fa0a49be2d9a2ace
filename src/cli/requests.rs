//! `requests`: who asks to be paired with this node, whom it asks, and what a person decides.

use packhorse::api::documents::requests::{ApproveRequest, RejectRequest, schema};
use packhorse::settings::NodeName;
use packhorse::{Exit, Grant, RequestInfo};

use crate::cli::display::{printable, shell_word};
use crate::cli::folder::DataFolder;
use crate::cli::table::Table;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum RequestsCommand {
    /// Show who asks to be paired with this node, and whom this node asks
    List,
    /// Make a node that asks a peer
    Approve(ApproveArgs),
    /// Reject a request; of a node that is asked, stop asking
    Reject(RejectArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApproveArgs {
    /// The node's id, the beginning of it, or its name, as `requests list` shows them
    #[arg(value_name = "REQUEST")]
    request: String,
    /// The node's name here; its own name unless given
    #[arg(long, value_name = "NAME")]
    name: Option<NodeName>,
    /// What the node may do here, such as 'message.send:*'; repeatable
    #[arg(long = "grant", value_name = "CAP:SCOPE")]
    grants: Vec<Grant>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RejectArgs {
    /// The node's id, the beginning of it, or its name, as `requests list` shows them
    #[arg(value_name = "REQUEST")]
    request: String,
    /// Deny the node for good: no ticket and no request pairs it until `peers allow`
    #[arg(long)]
    deny: bool,
}

pub(crate) async fn run(
    folder: &DataFolder,
    command: RequestsCommand,
    screen: &Screen,
) -> Result<Exit, Failure> {
    match command {
        RequestsCommand::List => list(folder, screen).await,
        RequestsCommand::Approve(args) => approve(folder, args, screen).await,
        RequestsCommand::Reject(args) => reject(folder, args, screen).await,
    }
}

async fn list(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    let requests = folder
        .client()?
        .requests()
        .await
        .map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::REQUESTS, &requests)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&[
        "DIRECTION",
        "NODE",
        "NAME",
        "STATE",
        "ADDRESS",
        "ASKED",
        "MESSAGE",
    ]);
    let received = requests.received.iter().map(|request| ("in", request));
    let sent = requests.sent.iter().map(|request| ("out", request));
    for (direction, request) in received.chain(sent) {
        table.row(vec![
            direction.to_owned(),
            request.id.short(),
            printable(&request.name).into_owned(),
            state(request),
            printable(&request.addresses.join(" ")).into_owned(),
            request.asked.to_string(),
            printable(&request.message).into_owned(),
        ]);
    }
    screen.data(&table.render())?;
    if !requests.open {
        screen.note("this node takes no requests: it was started without --requests");
    }
    Ok(Exit::Done)
}

/// The state, and of a request that was sent what the last answer was.
fn state(request: &RequestInfo) -> String {
    match &request.answer {
        Some(answer) => format!("{} ({})", request.state.name(), printable(answer)),
        None => request.state.name().to_owned(),
    }
}

async fn approve(folder: &DataFolder, args: ApproveArgs, screen: &Screen) -> Result<Exit, Failure> {
    let request = ApproveRequest {
        request: args.request,
        name: args.name.map(|name| name.to_string()),
        grants: args.grants,
    };
    let approved = folder
        .client()?
        .approve(&request)
        .await
        .map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::APPROVED, &approved)?;
        return Ok(Exit::Done);
    }
    let name = printable(&approved.peer.name);
    screen.data(&format!("approved {name}  {}", approved.peer.id))?;
    screen.note(&format!(
        "{name} is told when it asks again, within 10 minutes, or now where it can be dialled"
    ));
    if approved.peer.grants.is_empty() {
        screen.note(&format!(
            "nothing is granted to {name}: it may not send messages here"
        ));
    }
    screen.next(&folder.command(&format!("why peer {}", shell_word(&name))));
    Ok(Exit::Done)
}

async fn reject(folder: &DataFolder, args: RejectArgs, screen: &Screen) -> Result<Exit, Failure> {
    let request = RejectRequest {
        request: args.request,
        deny: args.deny,
    };
    let rejected = folder
        .client()?
        .reject(&request)
        .await
        .map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::REJECTED, rejected)?;
        return Ok(Exit::Done);
    }
    let how = match rejected.denied {
        true => "rejected and denied",
        false => "rejected",
    };
    screen.data(&format!("{how}  {}", rejected.node))?;
    Ok(Exit::Done)
}
