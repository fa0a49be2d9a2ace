//! `dead`: messages that were given up: shown, taken up again, or deleted for good.

use std::time::Duration;

use packhorse::api::documents::{DeadQuery, LISTING_COUNT_DEFAULT, schema};
use packhorse::class::class_word;
use packhorse::time::{WallTime, short_duration};
use packhorse::{DeadDirection, DeadListing, DeadMessage, Exit};

use crate::cli::display::{grouped, printable};
use crate::cli::folder::DataFolder;
use crate::cli::select::SelectArgs;
use crate::cli::table::Table;
use crate::cli::{Failure, Screen, listing};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum DeadCommand {
    /// Show dead letters
    List(DeadListArgs),
    /// Take dead letters up again: send them anew, or hand them to a handler again
    Retry(SelectArgs),
    /// Delete dead letters for good
    Drop(SelectArgs),
}

/// Which dead letters to show.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeadListArgs {
    /// Only those of this peer
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// Only those on exactly this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only those that were going out, or that had come in
    #[arg(long, value_name = "out|in")]
    direction: Option<DeadDirection>,
    /// Most to show
    #[arg(long, value_name = "N", default_value_t = LISTING_COUNT_DEFAULT)]
    limit: usize,
}

pub(crate) async fn run(
    folder: &DataFolder,
    command: DeadCommand,
    screen: &Screen,
) -> Result<Exit, Failure> {
    match command {
        DeadCommand::List(args) => list(folder, args, screen).await,
        DeadCommand::Retry(args) => retry(folder, args, screen).await,
        DeadCommand::Drop(args) => drop(folder, args, screen).await,
    }
}

async fn list(folder: &DataFolder, args: DeadListArgs, screen: &Screen) -> Result<Exit, Failure> {
    let query = DeadQuery {
        peer: args.peer,
        topic: args.topic,
        direction: args.direction,
        limit: Some(args.limit),
    };
    let listing = folder.client()?.dead(&query).await;
    let listing = listing.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::DEAD, &listing)?;
        return Ok(Exit::Done);
    }
    screen.data(&render(&listing, WallTime::now()))?;
    listing::tell_rest(listing.messages.len() as u64, listing.total, screen);
    Ok(Exit::Done)
}

fn render(listing: &DeadListing, now: WallTime) -> String {
    let mut table = Table::new(&[
        "MESSAGE",
        "WAY",
        "PEER",
        "TOPIC",
        "CLASS",
        "STATE",
        "REASON",
        ">GIVEN UP",
        "PAYLOAD",
    ]);
    for message in &listing.messages {
        table.row(cells(message, now));
    }
    table.render()
}

fn cells(message: &DeadMessage, now: WallTime) -> Vec<String> {
    let ago = Duration::from_millis(now.0.saturating_sub(message.at.0));
    vec![
        message.id.to_string(),
        message.direction.to_string(),
        printable(&message.peer).into_owned(),
        printable(&message.topic).into_owned(),
        message
            .class
            .map(|class| class_word(class).to_owned())
            .unwrap_or_default(),
        message.state.to_string(),
        printable(&message.reason).into_owned(),
        format!("{} ago", short_duration(ago)),
        listing::payload_cell(&message.payload),
    ]
}

async fn retry(folder: &DataFolder, args: SelectArgs, screen: &Screen) -> Result<Exit, Failure> {
    let answer = folder.client()?.dead_retry(&args.into()).await;
    let answer = answer.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::RETRIED, &answer)?;
    } else {
        for message in &answer.messages {
            screen.data(&format!("{} {}", message.id, message.receipt))?;
        }
        screen.note(&format!("{} under way again", grouped(answer.retried)));
    }
    if answer.damaged > 0 {
        screen.note(&format!(
            "{} were damaged and cannot be sent again",
            grouped(answer.damaged)
        ));
    }
    if answer.forgotten > 0 {
        screen.note(&format!(
            "{} are for peers that were forgotten and stay",
            grouped(answer.forgotten)
        ));
    }
    if answer.unsettled > 0 {
        let text = format!(
            "{} may have been delivered: the next session with their recipients tells",
            grouped(answer.unsettled)
        );
        if answer.retried == 0 {
            return Err(Failure::new(Exit::Refused, text));
        }
        screen.note(&text);
    }
    Ok(Exit::Done)
}

async fn drop(folder: &DataFolder, args: SelectArgs, screen: &Screen) -> Result<Exit, Failure> {
    let answer = folder.client()?.dead_drop(&args.into()).await;
    let answer = answer.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema::DROPPED, answer)?;
    } else {
        screen.data(&answer.dropped.to_string())?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use packhorse::api::documents::Document;
    use packhorse::{DeadState, DeliveryClass, IdentityKey, Payload, ReceiptId};

    use super::*;

    fn id() -> ReceiptId {
        let recipient = IdentityKey::from_seed(&[7; 32]).id();
        ReceiptId {
            recipient: packhorse::receipt_id::tag(recipient),
            lane: packhorse_protocol::epoch::Lane::User,
            position: packhorse_protocol::epoch::Position {
                epoch: packhorse::Epoch { boot: 1, nonce: 2 },
                sequence: 3,
            },
        }
    }

    #[test]
    fn a_person_sees_what_became_of_each_letter() {
        let listing = DeadListing {
            total: 1,
            messages: vec![DeadMessage {
                id: id(),
                direction: DeadDirection::Out,
                peer: "barn".into(),
                topic: "orders".into(),
                class: Some(DeliveryClass::Moderate),
                state: DeadState::MayBeDelivered,
                reason: "expired\u{7}".into(),
                at: WallTime(1_000),
                born: None,
                headers: Vec::new(),
                payload: Payload(b"two bales".to_vec()),
            }],
        };
        let text = render(&listing, WallTime(61_000));
        let (titles, row) = text.split_once('\n').expect("two lines");
        assert!(titles.starts_with("MESSAGE "), "{titles}");
        assert_eq!(
            row,
            format!(
                "{}  out  barn  orders  moderate  may be delivered  expired\\u{{7}}    1m ago  two bales\n",
                id()
            )
        );
        // The document holds the same under the published schema.
        let document = serde_json::to_string(&Document::new(schema::DEAD, &listing));
        let document = document.expect("plain values");
        assert!(document.starts_with(r#"{"schema":"packhorse.dead.v1","total":1"#));
    }
}
