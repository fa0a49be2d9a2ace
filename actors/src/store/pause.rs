//! The one place where a thread of the store waits without an event to wait for.
//!
//! Only for what tells nobody when it is done: another process's file lock, the engine's flush,
//! the last reads before closing. Never called on a thread of the async runtime.

use std::time::Duration;

/// Looks, pauses and looks again, at most `tries` times. Whether it came true.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing that could be waited for exists; see the module"
)]
pub(crate) fn poll(tries: u128, pause: Duration, mut is_done: impl FnMut() -> bool) -> bool {
    for _ in 0..tries {
        if is_done() {
            return true;
        }
        std::thread::sleep(pause);
    }
    is_done()
}
