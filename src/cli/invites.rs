//! `invites`: the tickets that were given out: shown, or taken back.

use std::time::Duration;

use packhorse::api::documents::{Invites, RevokeInvitesRequest, schema};
use packhorse::time::{WallTime, short_duration};
use packhorse::{Exit, InviteInfo, InviteState};

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::table::Table;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum InvitesCommand {
    /// Show every ticket that is remembered
    List,
    /// Take tickets back: they pair nobody any more, and who was paired by them stays
    Revoke(RevokeInvitesArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct RevokeInvitesArgs {
    /// Ids of tickets, or beginnings of them
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<String>,
    /// Every ticket
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

pub(crate) async fn run(
    folder: &DataFolder,
    command: InvitesCommand,
    screen: &Screen,
) -> Result<Exit, Failure> {
    match command {
        InvitesCommand::List => list(folder, screen).await,
        InvitesCommand::Revoke(args) => revoke(folder, args, screen).await,
    }
}

async fn list(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    let invites = folder.client()?.invites().await;
    let invites = invites.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::INVITES, &invites)?;
        return Ok(Exit::Done);
    }
    screen.data(&render(&invites, WallTime::now()))?;
    Ok(Exit::Done)
}

fn render(invites: &Invites, now: WallTime) -> String {
    let mut table = Table::new(&[
        "TICKET",
        "STATE",
        ">USES LEFT",
        "ENDS",
        "GRANTS",
        "USED BY",
        "COMPARE",
    ]);
    for invite in &invites.invites {
        let mut users = invite.users.iter();
        let first = users.next();
        table.row(cells(invite, first, now));
        for user in users {
            let mut cells = vec![String::new(); 5];
            cells.extend(user_cells(Some(user)));
            table.row(cells);
        }
    }
    table.render()
}

fn cells(invite: &InviteInfo, first: Option<&packhorse::InviteUser>, now: WallTime) -> Vec<String> {
    let left = Duration::from_millis(invite.expires.0.saturating_sub(now.0));
    let ends = match invite.state {
        InviteState::Expired => String::new(),
        _ => format!("in {}", short_duration(left)),
    };
    let mut grants: Vec<String> = invite.grants.iter().map(ToString::to_string).collect();
    if grants.is_empty() {
        grants.push("nothing".to_owned());
    } else if let Some(ms) = invite.grants_for_ms {
        let life = short_duration(Duration::from_millis(ms));
        grants.push(format!("for {life}"));
    }
    let mut cells = vec![
        invite.id.clone(),
        invite.state.word().to_owned(),
        invite.uses_left.to_string(),
        ends,
        printable(&grants.join(" ")).into_owned(),
    ];
    cells.extend(user_cells(first));
    cells
}

fn user_cells(user: Option<&packhorse::InviteUser>) -> [String; 2] {
    let name = user.map(|user| match user.name.as_str() {
        "" => user.id.short(),
        name => printable(name).into_owned(),
    });
    let compare = user.and_then(|user| user.compare.clone());
    [name.unwrap_or_default(), compare.unwrap_or_default()]
}

async fn revoke(
    folder: &DataFolder,
    args: RevokeInvitesArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = RevokeInvitesRequest {
        ids: args.ids,
        all: args.all,
    };
    let revoked = folder.client()?.revoke_invites(&request).await;
    let revoked = revoked.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::REVOKED_INVITES, &revoked)?;
        return Ok(Exit::Done);
    }
    for id in &revoked.revoked {
        screen.data(id)?;
    }
    if revoked.revoked.is_empty() {
        screen.note("nothing to revoke: no ticket among them could still have paired somebody");
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use packhorse::{IdentityKey, InviteUser};

    use super::*;

    #[test]
    fn each_ticket_says_how_it_stands_and_each_user_what_to_compare() {
        let id = IdentityKey::from_seed(&[7; 32]).id();
        let user = |name: &str, compare: Option<&str>| InviteUser {
            id,
            name: name.into(),
            compare: compare.map(str::to_owned),
        };
        let invites = Invites {
            invites: vec![InviteInfo {
                id: "abcdefghij".into(),
                state: InviteState::Open,
                grants: vec!["message.send:*".parse().expect("a grant")],
                grants_for_ms: Some(86_400_000),
                made: WallTime(0),
                expires: WallTime(600_000),
                uses_left: 1,
                users: vec![user("barn", Some("one-two")), user("", None)],
            }],
        };
        let text = render(&invites, WallTime(0));
        let rows: Vec<_> = text.lines().skip(1).collect();
        assert!(rows[0].starts_with("abcdefghij  open"), "{text}");
        assert!(rows[0].contains("in 10m"), "{text}");
        assert!(rows[0].contains("message.send:* for 1d"), "{text}");
        assert!(rows[0].ends_with("barn        one-two"), "{text}");
        assert!(rows[1].contains(&id.short()), "{text}");
    }
}
