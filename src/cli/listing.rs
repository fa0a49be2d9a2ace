//! `outbox list` and `inbox list`: the oldest messages of a box, without touching them.

use std::time::Duration;

use packhorse::api::ClientError;
use packhorse::api::documents::schema;
use packhorse::time::{WallTime, short_duration};
use packhorse::{Exit, Listing};

use crate::cli::display::{cut, grouped, printable};
use crate::cli::folder::DataFolder;
use crate::cli::table::Table;
use crate::cli::{Failure, ListArgs, Screen};

/// Characters of a payload that a table shows.
const PAYLOAD_CHARS_MAX: usize = 40;

pub(crate) async fn outbox(
    folder: &DataFolder,
    args: &ListArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let listing = folder.client()?.outbox(Some(args.limit)).await;
    show(folder, listing, schema::OUTBOX, "TO", screen)
}

pub(crate) async fn inbox(
    folder: &DataFolder,
    args: &ListArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let listing = folder.client()?.inbox(Some(args.limit)).await;
    show(folder, listing, schema::INBOX, "FROM", screen)
}

fn show(
    folder: &DataFolder,
    listing: Result<Listing, ClientError>,
    schema: &'static str,
    peer_title: &'static str,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let listing = listing.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(schema, &listing)?;
        return Ok(Exit::Done);
    }
    let now = WallTime::now();
    let mut table = Table::new(&[
        "MESSAGE", peer_title, "TOPIC", "CLASS", "STATE", ">AGE", "PAYLOAD",
    ]);
    for message in &listing.messages {
        let age = Duration::from_millis(now.0.saturating_sub(message.born.0));
        let payload = match message.payload.as_text() {
            Some("") => "(empty)".to_owned(),
            Some(text) => cut(text, PAYLOAD_CHARS_MAX),
            None => format!("({} bytes)", grouped(message.payload.0.len() as u64)),
        };
        let state = match &message.reason {
            Some(reason) => format!("{}: {}", message.state, printable(reason)),
            None => message.state.to_string(),
        };
        table.row(vec![
            message.id.to_string(),
            printable(&message.peer).into_owned(),
            printable(&message.topic).into_owned(),
            packhorse::class::class_word(message.class).to_owned(),
            state,
            short_duration(age),
            payload,
        ]);
    }
    screen.data(&table.render())?;
    let shown = listing.messages.len() as u64;
    if shown < listing.total {
        screen.note(&format!(
            "{} of {} shown, the oldest first",
            grouped(shown),
            grouped(listing.total)
        ));
    }
    Ok(Exit::Done)
}
