//! `send`: one message, or with `--lines` one per line of stdin.
//!
//! The message is accepted first and waited for afterwards, in two requests:
//! whatever happens while waiting, the receipt is known and printed.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use packhorse::api::Client;
use packhorse::api::documents::{SendQuery, schema, whole_ms};
use packhorse::class::class_from_word;
use packhorse::message::{REPLY_TO, check_headers};
use packhorse::time::parse_duration;
use packhorse::{DeliveryClass, Exit, ReceiptState, Sent};
use packhorse_protocol::limits::PAYLOAD_BYTES_MAX;

use crate::cli::folder::DataFolder;
use crate::cli::receipt::{self, Wait, parse_wait};
use crate::cli::{Failure, Screen, lines};

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
    /// How hard to try: critical, moderate or ephemeral; a rule for the topic in the settings wins unless it is overridable
    #[arg(long, value_name = "CLASS", value_parser = class_from_word)]
    class: Option<DeliveryClass>,
    /// Idempotency key: a repeated send returns the first receipt; with --lines a prefix of keys
    #[arg(long, value_name = "KEY")]
    id: Option<String>,
    /// Replace the message with this key, unless it may have left already
    #[arg(long, requires = "id")]
    replace: bool,
    /// Give the message up when it is not stored there by then
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    expires: Option<Duration>,
    /// A name and a value for the application there; repeatable, 4 KiB in all
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// The topic on which an answer is expected, in the header `reply-to`
    #[arg(long, value_name = "TOPIC")]
    reply_to: Option<String>,
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
    let headers = headers(args.headers, args.reply_to)?;
    let expires_ms = args.expires.map(whole_ms);
    match (args.lines, args.topic, args.payload) {
        (Some(topic), _, _) => {
            let job = lines::Lines {
                peer: args.peer,
                topic,
                class: args.class,
                id: args.id,
                replace: args.replace,
                expires_ms,
                headers,
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
                replace: args.replace,
                expires_ms,
                headers,
                // Not waited for here: it only says that a receipt is wanted.
                wait: Some(args.wait).filter(|state| *state != ReceiptState::Accepted),
                timeout_ms: Some(0),
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

async fn one(
    folder: &DataFolder,
    mut client: Client,
    query: &SendQuery,
    payload: Vec<u8>,
    wait: Wait,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let sent = tokio::select! {
        sent = client.send(query, payload.into()) => sent.map_err(|error| folder.failure(error))?,
        Ok(()) = tokio::signal::ctrl_c() => {
            screen.note("interrupted: whether the message was accepted is unknown");
            return Ok(Exit::Interrupted);
        }
    };
    match sent {
        Sent::Accepted(receipt) => {
            receipt::follow(folder, &mut client, receipt, wait, screen).await
        }
        Sent::Ephemeral(sent) => {
            if screen.is_json() {
                screen.document(schema::EPHEMERAL, &sent)?;
            } else {
                screen.data("sent")?;
            }
            Ok(Exit::Done)
        }
    }
}

/// The headers of a message, `reply-to` last.
fn headers(
    given: Vec<(String, String)>,
    reply_to: Option<String>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut headers = given;
    if let Some(topic) = reply_to {
        headers.push((REPLY_TO.to_owned(), topic));
    }
    check_headers(&headers).map_err(Failure::usage)?;
    Ok(headers)
}

/// `NAME:VALUE`; a space behind the colon is not part of the value.
fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            let value = value.strip_prefix(' ').unwrap_or(value);
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("a header is written NAME:VALUE".to_owned()),
    }
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
    fn a_header_is_a_name_and_a_value() {
        let read = |text| parse_header(text).map(|(name, value)| format!("{name}={value}"));
        assert_eq!(read("a:b").as_deref(), Ok("a=b"));
        assert_eq!(read("a: b:c ").as_deref(), Ok("a=b:c "));
        assert_eq!(read("a:").as_deref(), Ok("a="));
        assert!(read(":b").is_err());
        assert!(read("a").is_err());
    }

    #[test]
    fn reply_to_is_a_header_and_given_once() {
        let given = vec![("a".to_owned(), "b".to_owned())];
        let all = headers(given, Some("answers".into())).expect("two headers");
        assert_eq!(all.last(), Some(&("reply-to".into(), "answers".into())));
        let failure = headers(all, Some("answers".into())).expect_err("given twice");
        assert_eq!(failure.exit(), Exit::Usage);
    }
}
