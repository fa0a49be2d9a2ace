//! `forget`: a peer is none any more, and its identity pairs no more.

use packhorse::api::documents::{ForgetRequest, schema};
use packhorse::{Exit, Forgotten};

use crate::cli::display::{grouped, printable};
use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArgs {
    /// Name or id of the peer
    peer: String,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: ForgetArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = ForgetRequest { peer: args.peer };
    let forgotten = folder.client()?.forget(&request).await;
    let forgotten = forgotten.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::FORGOTTEN, &forgotten)?;
        return Ok(Exit::Done);
    }
    screen.data(&render(&forgotten))?;
    if forgotten.outgoing + forgotten.incoming > 0 {
        screen.next(&folder.command("dead"));
    }
    screen.note(&format!(
        "no ticket pairs it again before: {}",
        folder.command(&format!("peers allow {}", forgotten.id))
    ));
    Ok(Exit::Done)
}

fn render(forgotten: &Forgotten) -> String {
    let mut text = format!("forgot {}  {}\n", printable(&forgotten.name), forgotten.id);
    let mut line = |count: u64, what: &str| {
        if count > 0 {
            text.push_str(&format!("{:>9}  {what}\n", grouped(count)));
        }
    };
    line(
        forgotten.outgoing,
        "messages for it are dead letters now (revoked)",
    );
    line(
        forgotten.incoming,
        "messages of it are dead letters now (revoked)",
    );
    line(
        forgotten.ephemeral as u64,
        "ephemeral messages of it were dropped",
    );
    line(forgotten.tickets as u64, "tickets it came by were revoked");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_what_went_where_and_nothing_of_what_did_not() {
        let mut forgotten = Forgotten {
            name: "barn\u{7}".into(),
            id: packhorse::IdentityKey::from_seed(&[7; 32]).id(),
            tickets: 1,
            outgoing: 1_200,
            incoming: 3,
            ephemeral: 0,
        };
        let text = render(&forgotten);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert!(text.starts_with("forgot barn\\u{7}  phn1"), "{text}");
        assert_eq!(
            lines,
            [
                "    1,200  messages for it are dead letters now (revoked)",
                "        3  messages of it are dead letters now (revoked)",
                "        1  tickets it came by were revoked",
            ]
        );
        (forgotten.outgoing, forgotten.incoming, forgotten.tickets) = (0, 0, 0);
        assert_eq!(render(&forgotten).lines().count(), 1);
    }
}
