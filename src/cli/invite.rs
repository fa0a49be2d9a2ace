//! `invite`: the ticket alone on stdout, what it means on stderr.

use std::time::Duration;

use packhorse::api::documents::{InviteRequest, schema, whole_ms};
use packhorse::time::{parse_duration, short_duration};
use packhorse::{Exit, Grant, InviteState};

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen, qr};

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
    /// How long the grants last, from the moment of joining; for ever unless given
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "grants")]
    grant_expires: Option<Duration>,
    /// Wait until the ticket is used up, and print who used it and what to compare
    #[arg(long)]
    wait: bool,
    /// How long to wait; until the ticket ends unless given
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    timeout: Option<Duration>,
}

/// Between two looks at the ticket.
const LOOK_EVERY: Duration = Duration::from_millis(300);

pub(crate) async fn run(
    folder: &DataFolder,
    args: InviteArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    if args.wait && screen.is_json() {
        return Err(Failure::usage(
            "--json prints one document: it does not go with --wait, ask `invites list --json`",
        ));
    }
    let request = InviteRequest {
        grants: args.grants,
        grants_for_ms: args.grant_expires.map(whole_ms),
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
    if let Some(life) = args.grant_expires {
        screen.note(&format!(
            "what it grants ends {} after joining",
            short_duration(life)
        ));
    }
    screen.next("packhorse join TICKET --grant 'message.send:*'   (on the other machine)");
    if screen.is_json() {
        screen.document(schema::INVITE, &invited)?;
        return Ok(Exit::Done);
    }
    screen.next(&folder.command(&format!(
        "invites revoke {}   (to take it back)",
        invited.id
    )));
    let ticket = invited.ticket.to_string();
    if screen.draws_progress()
        && let Some(picture) = qr::draw(&ticket)
    {
        screen.note(&picture);
    }
    screen.data(&ticket)?;
    if !args.wait {
        return Ok(Exit::Done);
    }
    // Without a timeout the ticket's own end is waited for, and seen.
    let until_it_ends = args.expires.saturating_add(Duration::from_secs(10));
    let timeout = args.timeout.unwrap_or(until_it_ends);
    let waited = tokio::time::timeout(timeout, wait_for_users(folder, &invited.id, screen));
    waited.await.unwrap_or_else(|_| {
        Err(Failure::new(
            Exit::TimedOut,
            format!(
                "the ticket was not used up within {}",
                short_duration(timeout)
            ),
        ))
    })
}

/// Prints who uses the ticket as they come, until nobody else can.
async fn wait_for_users(folder: &DataFolder, id: &str, screen: &Screen) -> Result<Exit, Failure> {
    let mut client = folder.client()?;
    let mut printed = 0;
    loop {
        let invites = client.invites().await;
        let invites = invites.map_err(|error| folder.failure(error))?;
        let Some(invite) = invites.invites.into_iter().find(|invite| invite.id == id) else {
            return Err(Failure::new(
                Exit::NotFound,
                format!("the ticket {id} is not known any more"),
            ));
        };
        for user in invite.users.iter().skip(printed) {
            // Its handshake is not over before both sides have this.
            let Some(compare) = &user.compare else { break };
            let name = printable(&user.name);
            screen.data(&format!(
                "paired with {name}  {}\ncompare      {compare}",
                user.id
            ))?;
            printed += 1;
        }
        match invite.state {
            InviteState::UsedUp if printed == invite.users.len() => return Ok(Exit::Done),
            InviteState::Open | InviteState::UsedUp => {}
            ended @ (InviteState::Expired | InviteState::Revoked) => {
                let text = format!("the ticket is {}", ended.word());
                return Err(Failure::new(Exit::Refused, text));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
