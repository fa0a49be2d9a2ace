//! `receipt`: how far a message came, and waiting for it; `send --wait` waits the same way.
//!
//! Whatever happens while waiting, the receipt is known and printed.

use std::io::Write;
use std::time::Duration;

use packhorse::api::Client;
use packhorse::api::documents::{ReceiptQuery, schema, whole_ms};
use packhorse::time::{parse_duration, short_duration};
use packhorse::{Exit, Receipt, ReceiptId, ReceiptState};
use tokio::time::Instant;

use crate::cli::folder::DataFolder;
use crate::cli::patience::is_passing;
use crate::cli::{Failure, Screen};

/// Pause before a daemon that went away, or that lets no more wait, is asked again for a receipt.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub(crate) struct ReceiptArgs {
    /// The receipt id, as `send` printed it
    #[arg(value_name = "ID")]
    id: ReceiptId,
    /// Wait until the message is accepted here, stored there, or done there
    #[arg(long, value_name = "STATE", value_parser = parse_wait)]
    wait: Option<ReceiptState>,
    /// How long to wait
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    timeout: Duration,
}

/// What to wait for, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) state: ReceiptState,
    pub(crate) timeout: Duration,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: ReceiptArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let mut client = folder.client()?;
    let now = ReceiptQuery::default();
    let receipt = tokio::select! {
        answer = client.receipt(&args.id, &now) => {
            answer.map_err(|error| folder.failure(error))?
        }
        Ok(()) = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
    };
    let Some(state) = args.wait else {
        show(&receipt, screen)?;
        if let Some(reason) = &receipt.reason {
            screen.note(&format!("reason: {reason}"));
        }
        return Ok(Exit::Done);
    };
    let wait = Wait {
        state,
        timeout: args.timeout,
    };
    follow(folder, &mut client, receipt, wait, screen).await
}

/// Waits, shows the receipt as it is then, and says how the command ends.
pub(crate) async fn follow(
    folder: &DataFolder,
    client: &mut Client,
    receipt: Receipt,
    wait: Wait,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let (receipt, is_interrupted) = wait_for(client, receipt, wait).await?;
    show(&receipt, screen)?;
    outcome(folder, &receipt, wait, is_interrupted, screen)
}

/// A line with name and state, and below it what the handler there printed.
fn show(receipt: &Receipt, screen: &Screen) -> Result<(), Failure> {
    if screen.is_json() {
        screen.document(schema::RECEIPT, receipt)?;
        return Ok(());
    }
    screen.data(&format!("{} {}", receipt.id, receipt.state))?;
    if let Some(output) = receipt
        .output
        .0
        .as_deref()
        .filter(|bytes| !bytes.is_empty())
    {
        // Bytes as they came: who pipes them gets what the handler wrote.
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(output)?;
        if output.last() != Some(&b'\n') {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()?;
    }
    Ok(())
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
    screen.next(&folder.command(&format!("why message {}", receipt.id)));
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
                receipt = Receipt {
                    topic: latest.topic.or(receipt.topic),
                    class: latest.class.or(receipt.class),
                    ..latest
                };
                if receipt.state.has_reached(wait.state) || receipt.state.is_final() {
                    break;
                }
                // It came early: the daemon is about to stop, or lets no more wait.
            }
            // The message is safe whatever becomes of the daemon; it may be restarting.
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN_AFTER.min(left)) => {}
            Ok(()) = interrupted.as_mut() => return Ok((receipt, true)),
        }
    }
    Ok((receipt, false))
}

pub(crate) fn parse_wait(word: &str) -> Result<ReceiptState, String> {
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
    fn nobody_waits_for_failure() {
        assert_eq!(parse_wait("stored"), Ok(ReceiptState::Stored));
        assert!(parse_wait("failed").is_err());
        assert!(parse_wait("").is_err());
    }
}
