//! `invite`: the ticket alone on stdout, what it means on stderr.

use std::time::Duration;

use packhorse::api::documents::{InviteRequest, schema, whole_ms};
use packhorse::time::{parse_duration, short_duration};
use packhorse::{Exit, Grant};

use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Args)]
pub(crate) struct InviteArgs {
    /// What whoever uses the ticket may do here, such as 'message.send:*'; repeatable
    #[arg(long = "grant", value_name = "CAP:SCOPE")]
    grants: Vec<Grant>,
    /// How long the ticket lives
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    expires: Duration,
    /// How many nodes may use it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: InviteArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = InviteRequest {
        grants: args.grants,
        expires_ms: Some(whole_ms(args.expires)),
        uses: Some(args.uses),
    };
    let invited = folder
        .client()?
        .invite(&request)
        .await
        .map_err(|error| folder.failure(error))?;
    let nodes = if args.uses == 1 {
        "one node".to_owned()
    } else {
        format!("{} nodes", args.uses)
    };
    screen.note(&format!(
        "good for {nodes} within {}, and a secret until then",
        short_duration(args.expires)
    ));
    if request.grants.is_empty() {
        screen.note("it grants nothing: who joins may not send messages here");
    }
    screen.next("packhorse join TICKET --grant 'message.send:*'   (on the other machine)");
    if screen.is_json() {
        screen.document(schema::INVITE, &invited)?;
    } else {
        screen.data(&invited.ticket.to_string())?;
    }
    Ok(Exit::Done)
}
