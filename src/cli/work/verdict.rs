//! What the end of a command says about its message: the exit-code contract.
//!
//! Codes are those of sysexits.h where it has one: 65 is EX_DATAERR, 75 is EX_TEMPFAIL.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use packhorse::Verdict;

/// The message is handled.
const DONE: i32 = 0;
/// The message can never be handled.
const DATA_ERROR: i32 = 65;
/// Not now.
const TRY_LATER: i32 = 75;
/// The shell found no such command, or may not run it.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// The verdict of a command that ended by itself.
pub(crate) fn verdict_of(status: ExitStatus, output: Vec<u8>) -> Verdict {
    let reason = match (status.code(), status.signal()) {
        (Some(DONE), _) => return Verdict::Done { output },
        (Some(TRY_LATER), _) => {
            return Verdict::Retry {
                delay_ms: None,
                reason: "exit 75".to_owned(),
            };
        }
        (Some(code @ DATA_ERROR), _) => {
            return Verdict::Dead {
                reason: format!("exit {code}"),
                output,
            };
        }
        (Some(code @ NOT_EXECUTABLE), _) => format!("exit {code}: the command cannot be run"),
        (Some(code @ NOT_FOUND), _) => format!("exit {code}: the command was not found"),
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended without a code".to_owned(),
    };
    Verdict::Failed { reason, output }
}

/// The verdict of a command that was stopped by the worker: what it said still counts, and
/// anything else was not the message's fault.
pub(crate) fn verdict_of_stopped(status: ExitStatus, output: Vec<u8>) -> Verdict {
    match verdict_of(status, output) {
        Verdict::Failed { .. } => Verdict::Retry {
            delay_ms: Some(0),
            reason: "the worker was stopped".to_owned(),
        },
        said => said,
    }
}

/// The verdict in a word or two, for people.
pub(crate) fn told(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Done { .. } => "done".to_owned(),
        Verdict::Retry { reason, .. } => format!("back in the inbox: {reason}"),
        Verdict::Failed { reason, .. } => format!("failed: {reason}"),
        Verdict::Dead { reason, .. } => format!("given up: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn check(status: ExitStatus, expected: &str, expected_stopped: &str) {
        assert_eq!(told(&verdict_of(status, Vec::new())), expected);
        assert_eq!(
            told(&verdict_of_stopped(status, Vec::new())),
            expected_stopped
        );
    }

    #[test]
    fn every_end_has_its_verdict() {
        let stopped = "back in the inbox: the worker was stopped";
        check(exit(0), "done", "done");
        check(exit(1), "failed: exit 1", stopped);
        check(exit(64), "failed: exit 64", stopped);
        check(exit(65), "given up: exit 65", "given up: exit 65");
        check(exit(66), "failed: exit 66", stopped);
        check(
            exit(75),
            "back in the inbox: exit 75",
            "back in the inbox: exit 75",
        );
        check(
            exit(127),
            "failed: exit 127: the command was not found",
            stopped,
        );
        check(exit(255), "failed: exit 255", stopped);
        check(
            ExitStatus::from_raw(9),
            "failed: killed by signal 9",
            stopped,
        );
    }

    #[test]
    fn the_output_travels_with_what_the_sender_hears() {
        let output = b"said".to_vec();
        assert_eq!(
            verdict_of(exit(0), output.clone()),
            Verdict::Done {
                output: output.clone()
            }
        );
        assert_eq!(
            verdict_of(exit(65), output.clone()),
            Verdict::Dead {
                reason: "exit 65".into(),
                output
            }
        );
    }
}
