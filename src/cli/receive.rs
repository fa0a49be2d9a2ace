//! `receive`: waiting payloads, one a line; each is acknowledged after it was written out.
//!
//! Messages are claimed for 30 s, written and flushed one by one, and acknowledged together.
//! What could not be written is given back at once, so that the next one gets it in its order.
//! CRASH: a message that was written but not acknowledged comes again; none is lost.

use std::io::Write;

use packhorse::Exit;
use packhorse::api::Client;
use packhorse::api::documents::{
    AcknowledgeRequest, LISTING_COUNT_DEFAULT, RECEIVE_COUNT_MAX, ReceiveRequest, ReceivedMessages,
    schema,
};

use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

/// Messages claimed at once; few enough to be written long before their claim ends.
const CLAIM_COUNT: usize = 256;

const _: () = assert!(CLAIM_COUNT <= RECEIVE_COUNT_MAX);

#[derive(Debug, clap::Args)]
pub(crate) struct ReceiveArgs {
    /// Which messages
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Most messages to print; it does not wait for more than are there
    #[arg(long, value_name = "N", default_value_t = LISTING_COUNT_DEFAULT as u64, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: ReceiveArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let mut client = folder.client()?;
    let mut left = usize::try_from(args.count).unwrap_or(usize::MAX);
    if screen.is_json() {
        // One document is one answer: what is beyond it waits for the next call.
        left = left.min(RECEIVE_COUNT_MAX);
    }
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    while left > 0 {
        let count = if screen.is_json() {
            left
        } else {
            left.min(CLAIM_COUNT)
        };
        let request = ReceiveRequest {
            topic: args.topic.clone(),
            count,
        };
        let claimed = tokio::select! {
            claimed = client.receive(&request) => claimed.map_err(|error| folder.failure(error))?,
            Ok(()) = interrupted.as_mut() => return Ok(Exit::Interrupted),
        };
        if claimed.messages.is_empty() && !screen.is_json() {
            break;
        }
        let (written, outcome) = write(&claimed, screen);
        acknowledge(folder, &mut client, &claimed, written).await?;
        outcome?;
        if screen.is_json() {
            break;
        }
        left = left.saturating_sub(claimed.messages.len());
    }
    Ok(Exit::Done)
}

/// Writes what was claimed; says what is out, also when the output ended in the middle.
fn write(claimed: &ReceivedMessages, screen: &Screen) -> (Vec<u64>, Result<(), Failure>) {
    let mut written = Vec::with_capacity(claimed.messages.len());
    if screen.is_json() {
        let outcome = screen.document(schema::RECEIVED, claimed);
        if outcome.is_ok() {
            written.extend(claimed.messages.iter().map(|message| message.arrival));
        }
        return (written, outcome.map_err(Failure::from));
    }
    let mut stdout = std::io::stdout().lock();
    for message in &claimed.messages {
        let outcome = stdout
            .write_all(&message.payload)
            .and_then(|()| stdout.write_all(b"\n"))
            // ORDER: flushed before it is acknowledged, or a crash between the two loses it.
            .and_then(|()| stdout.flush());
        if let Err(error) = outcome {
            return (written, Err(error.into()));
        }
        written.push(message.arrival);
    }
    (written, Ok(()))
}

/// Says what is out, and gives back what could not be written, so that it keeps its place.
async fn acknowledge(
    folder: &DataFolder,
    client: &mut Client,
    claimed: &ReceivedMessages,
    written: Vec<u64>,
) -> Result<(), Failure> {
    let claimed = claimed.messages.iter().map(|message| message.arrival);
    let request = AcknowledgeRequest {
        released: claimed
            .filter(|arrival| !written.contains(arrival))
            .collect(),
        arrivals: written,
    };
    if request.arrivals.is_empty() && request.released.is_empty() {
        return Ok(());
    }
    // Not called off by an interruption: what was printed should not come again.
    client
        .acknowledge(&request)
        .await
        .map(drop)
        .map_err(|error| folder.failure(error))
}
