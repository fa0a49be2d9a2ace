//! `ping`: round trips to a peer over its live session.

use std::time::Duration;

use packhorse::api::ClientError;
use packhorse::api::insight::{PingRequest, schema};
use packhorse::insight::Pinged;
use packhorse::{ErrorKind, Exit};

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

/// Pause between two round trips.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct PingArgs {
    /// Name or node id of the peer
    #[arg(value_name = "PEER")]
    peer: String,
    /// How many round trips
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: PingArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let mut client = folder.client()?;
    let request = PingRequest { peer: args.peer };
    let mut pause = tokio::time::interval(EVERY);
    let mut outcome = Ok(Exit::Done);
    for _ in 0..args.count {
        pause.tick().await;
        match client.ping(&request).await {
            Ok(pinged) if screen.is_json() => screen.document(schema::PING, &pinged)?,
            Ok(pinged) => screen.data(&render(&pinged))?,
            Err(error) if args.count > 1 && is_about_the_peer(&error) => {
                // One of many: the next may come back.
                screen.note(&error.to_string());
                outcome = Ok(Exit::Failure);
            }
            Err(error) => return Err(folder.failure(error)),
        }
    }
    outcome
}

/// The daemon is well, and the peer does not answer.
fn is_about_the_peer(error: &ClientError) -> bool {
    matches!(error, ClientError::Answer(error) if error.code == ErrorKind::Unsent.code())
}

fn render(pinged: &Pinged) -> String {
    format!(
        "{}: {:.1} ms there and back, its clock is {}",
        printable(&pinged.peer),
        pinged.round_trip_ms,
        skew_words(pinged.skew_ms)
    )
}

fn skew_words(skew_ms: i64) -> String {
    let size = skew_ms.unsigned_abs();
    match skew_ms {
        0 => "the same".to_owned(),
        1.. => format!("{size} ms ahead"),
        _ => format!("{size} ms behind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_is_told_with_the_clock() {
        let mut pinged = Pinged {
            peer: "left".into(),
            round_trip_ms: 0.26,
            skew_ms: -3,
        };
        assert_eq!(
            render(&pinged),
            "left: 0.3 ms there and back, its clock is 3 ms behind"
        );
        pinged.skew_ms = 7;
        assert!(render(&pinged).ends_with("7 ms ahead"));
        pinged.skew_ms = 0;
        assert!(render(&pinged).ends_with("the same"));
    }
}
