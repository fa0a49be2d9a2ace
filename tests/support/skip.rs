//! Saying by name that a test could not be done here.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Names a file in which the tests that were skipped are listed; `scripts/check.sh` sets it.
const LIST: &str = "CHECK_SKIPPED";

/// Says that a test was skipped, and why; also where the runner of all checks collects it.
pub(crate) fn skipped(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os(LIST)
        && let Ok(mut list) = OpenOptions::new().create(true).append(true).open(path)
    {
        // One short write to a file opened for appending is not torn.
        let _ = list.write_all(line.as_bytes());
    }
}
