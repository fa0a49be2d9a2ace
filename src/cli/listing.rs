//! `outbox list` and `inbox list`: the oldest messages of a box, without touching them.

use std::time::Duration;

use packhorse::api::ClientError;
use packhorse::api::documents::schema;
use packhorse::time::{WallTime, short_duration};
use packhorse::{Exit, Listing, Payload};

use crate::cli::display::{cut, grouped, printable};
use crate::cli::folder::DataFolder;
use crate::cli::select::BoxListArgs;
use crate::cli::table::Table;
use crate::cli::{Failure, ListArgs, Screen};

/// Characters of a payload that a table shows.
const PAYLOAD_CHARS_MAX: usize = 40;

pub(crate) async fn outbox(
    folder: &DataFolder,
    args: BoxListArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let listing = folder.client()?.outbox_of(&args.into()).await;
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
        "MESSAGE",
        peer_title,
        "TOPIC",
        "CLASS",
        "STATE",
        ">AGE",
        ">EXPIRES",
        ">FAILURES",
        "PAYLOAD",
    ]);
    for message in &listing.messages {
        let age = Duration::from_millis(now.0.saturating_sub(message.born.0));
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
            message
                .expires
                .map(|expires| expires_cell(expires, now))
                .unwrap_or_default(),
            message.failures.to_string(),
            payload_cell(&message.payload),
        ]);
    }
    screen.data(&table.render())?;
    tell_rest(listing.messages.len() as u64, listing.total, screen);
    Ok(Exit::Done)
}

/// Says that there is more than was shown.
pub(crate) fn tell_rest(shown: u64, total: u64, screen: &Screen) {
    if shown < total {
        screen.note(&format!(
            "{} of {} shown, the oldest first",
            grouped(shown),
            grouped(total)
        ));
    }
}

fn expires_cell(expires: WallTime, now: WallTime) -> String {
    match expires.0.checked_sub(now.0) {
        Some(0) | None => "now".to_owned(),
        Some(ms) => format!("in {}", short_duration(Duration::from_millis(ms))),
    }
}

/// The head of a payload where it is text, else its size.
pub(crate) fn payload_cell(payload: &Payload) -> String {
    match payload.as_text() {
        Some("") => "(empty)".to_owned(),
        Some(text) => cut(text, PAYLOAD_CHARS_MAX),
        None => format!("({} bytes)", grouped(payload.0.len() as u64)),
    }
}
