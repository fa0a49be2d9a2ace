//! `send`: one message, or with `--lines` one per line of stdin.
//!
//! The message is accepted first and waited for afterwards, in two requests:
//! whatever happens while waiting, the receipt is known and printed.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use packhorse::api::documents::{ReceiptQuery, SendQuery, schema, whole_ms};
use packhorse::api::{Client, ClientError};
use packhorse::class::class_from_word;
use packhorse::time::{parse_duration, short_duration};
use packhorse::{DeliveryClass, Exit, Receipt, ReceiptState};
use packhorse_protocol::limits::PAYLOAD_BYTES_MAX;
use tokio::time::Instant;

use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen, lines};

/// Pause before a daemon that went away is asked again for a receipt.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub(crate) struct SendArgs {
    /// Name or node id of the recipient
    #[arg(value_name = "PEER")]
    peer: String,
    /// What the message is about
    #[arg(value_name = "TOPIC", required_unless_present = "lines")]
    topic: Option<String>,
    /// The payload, `@FILE` for a file's contents, or `-` for stdin
    #[arg(
        value_name = "PAYLOAD|@FILE|-",
        required_unless_present = "lines",
        allow_negative_numbers = true
    )]
    payload: Option<String>,
    /// Send every line of stdin as a message on this topic, in order
    #[arg(long, value_name = "TOPIC", conflicts_with_all = ["topic", "payload", "wait", "timeout"])]
    lines: Option<String>,
    /// How hard to try: critical, moderate or ephemeral
    #[arg(long, value_name = "CLASS", value_parser = class_from_word)]
    class: Option<DeliveryClass>,
    /// Idempotency key: a repeated send returns the first receipt; with --lines a prefix of keys
    #[arg(long, value_name = "KEY")]
    id: Option<String>,
    /// Wait until the message is accepted here, stored there, or done there
    #[arg(long, value_name = "STATE", value_parser = parse_wait, default_value = "accepted")]
    wait: ReceiptState,
    /// How long to wait
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    timeout: Duration,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: SendArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let client = folder.client()?;
    match (args.lines, args.topic, args.payload) {
        (Some(topic), _, _) => {
            let job = lines::Lines {
                peer: args.peer,
                topic,
                class: args.class,
                id: args.id,
            };
            lines::run(folder, client, job, screen).await
        }
        (None, Some(topic), Some(payload)) => {
            let payload = read_payload(&payload)?;
            let query = SendQuery {
                peer: args.peer,
                topic,
                class: args.class,
                id: args.id,
                wait: None,
                timeout_ms: None,
            };
            let wait = Wait {
                state: args.wait,
                timeout: args.timeout,
            };
            one(folder, client, &query, payload, wait, screen).await
        }
        (None, _, _) => Err(Failure::usage("a message needs a topic and a payload")),
    }
}

/// What to wait for, and how long.
#[derive(Clone, Copy, Debug)]
struct Wait {
    state: ReceiptState,
    timeout: Duration,
}

async fn one(
    folder: &DataFolder,
    mut client: Client,
    query: &SendQuery,
    payload: Vec<u8>,
    wait: Wait,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let receipt = tokio::select! {
        sent = client.send(query, payload.into()) => sent.map_err(|error| folder.failure(error))?,
        Ok(()) = tokio::signal::ctrl_c() => {
            screen.note("interrupted: whether the message was accepted is unknown");
            return Ok(Exit::Interrupted);
        }
    };
    let (receipt, is_interrupted) = if receipt.state.has_reached(wait.state) {
        (receipt, false)
    } else {
        wait_for(&mut client, receipt, wait).await?
    };
    if screen.is_json() {
        screen.document(schema::RECEIPT, &receipt)?;
    } else {
        screen.data(&format!("{} {}", receipt.id, receipt.state))?;
    }
    outcome(folder, &receipt, wait, is_interrupted, screen)
}

fn outcome(
    folder: &DataFolder,
    receipt: &Receipt,
    wait: Wait,
    is_interrupted: bool,
    screen: &Screen,
) -> Result<Exit, Failure> {
    if receipt.state.has_reached(wait.state) {
        return Ok(Exit::Done);
    }
    if receipt.state == ReceiptState::Failed {
        let reason = receipt.reason.as_deref().unwrap_or("no reason was given");
        return Err(Failure::new(
            Exit::Refused,
            format!("the message failed: {reason}"),
        ));
    }
    if is_interrupted {
        screen.note(&format!(
            "interrupted: the message is {} and safe",
            receipt.state
        ));
        return Ok(Exit::Interrupted);
    }
    screen.note(&format!(
        "not {} within {}; the message is {} and stays under way",
        wait.state,
        short_duration(wait.timeout),
        receipt.state
    ));
    screen.next(&folder.command("status"));
    Ok(Exit::NotYet)
}

/// Asks until the state is reached, the time is over, or the person has enough of it.
async fn wait_for(
    client: &mut Client,
    mut receipt: Receipt,
    wait: Wait,
) -> Result<(Receipt, bool), Failure> {
    let deadline = Instant::now() + wait.timeout;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    while !receipt.state.has_reached(wait.state) && !receipt.state.is_final() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let query = ReceiptQuery {
            wait: Some(wait.state),
            timeout_ms: Some(whole_ms(left).max(1)),
        };
        let answer = tokio::select! {
            answer = client.receipt(&receipt.id, &query) => answer,
            Ok(()) = interrupted.as_mut() => return Ok((receipt, true)),
        };
        match answer {
            // The daemon knows what a message was about only as long as it holds it.
            Ok(latest) => {
                receipt.state = latest.state;
                receipt.reason = latest.reason;
            }
            // The message is safe whatever becomes of the daemon; it may be restarting.
            Err(ClientError::NotRunning { .. } | ClientError::Lost { .. }) => {
                tokio::select! {
                    () = tokio::time::sleep(ASK_AGAIN_AFTER.min(left)) => {}
                    Ok(()) = interrupted.as_mut() => return Ok((receipt, true)),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((receipt, false))
}

fn read_payload(argument: &str) -> Result<Vec<u8>, Failure> {
    if argument == "-" {
        return read_bounded(std::io::stdin(), "stdin");
    }
    match argument.strip_prefix('@') {
        Some(path) => {
            let file = File::open(path)
                .map_err(|error| Failure::usage(format!("cannot read {path}: {error}")))?;
            read_bounded(file, path)
        }
        None => read_bounded(argument.as_bytes(), "the payload"),
    }
}

fn read_bounded(input: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::new();
    // One byte more than allowed tells a payload at the limit from one over it.
    input
        .take(PAYLOAD_BYTES_MAX as u64 + 1)
        .read_to_end(&mut payload)
        .map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{name} is over the limit of {PAYLOAD_BYTES_MAX} bytes for one message"
        )));
    }
    Ok(payload)
}

fn parse_wait(word: &str) -> Result<ReceiptState, String> {
    match word.parse() {
        Ok(ReceiptState::Failed) | Err(_) => {
            Err("wait for `accepted`, `stored` or `done`".to_owned())
        }
        Ok(state) => Ok(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_at_the_limit_is_taken_and_one_over_it_is_not() {
        let limit = vec![b'x'; PAYLOAD_BYTES_MAX];
        assert_eq!(
            read_bounded(limit.as_slice(), "it").expect("at the limit"),
            limit
        );
        let over = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
        let failure = read_bounded(over.as_slice(), "it").expect_err("over it");
        assert_eq!(failure.exit(), Exit::Usage);
        assert_eq!(
            failure.text(),
            "it is over the limit of 1048576 bytes for one message"
        );
    }

    #[test]
    fn a_payload_is_the_argument_itself_or_a_file() {
        assert_eq!(read_payload("hay").expect("text"), b"hay");
        assert_eq!(read_payload("").expect("an empty payload"), b"");
        assert!(read_payload("@/there/is/no/such/file").is_err());
    }

    #[test]
    fn nobody_waits_for_failure() {
        assert_eq!(parse_wait("stored"), Ok(ReceiptState::Stored));
        assert!(parse_wait("failed").is_err());
        assert!(parse_wait("").is_err());
    }
}
