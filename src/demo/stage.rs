//! What the audience sees: a bar on a terminal, plain lines otherwise.
//!
//! Everything goes to stderr; only the report is data.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::cli::{Screen, grouped};

/// How often the bar moves by itself, so that a wait is seen to be one.
const TICK: Duration = Duration::from_millis(100);

/// Where the demonstration is told.
#[derive(Debug)]
pub(crate) struct Stage {
    begun: Instant,
    /// On a terminal only.
    bar: Option<ProgressBar>,
}

impl Stage {
    pub(crate) fn new(screen: &Screen, messages: u64) -> Stage {
        let bar = screen.draws_progress().then(|| {
            let bar = ProgressBar::new(messages);
            if let Ok(style) = ProgressStyle::with_template(
                "{spinner} {msg:24} [{wide_bar}] {human_pos}/{human_len} [{elapsed_precise}]",
            ) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        Stage {
            begun: Instant::now(),
            bar,
        }
    }

    /// Tells one thing that happened.
    pub(crate) fn tell(&self, text: &str) {
        let line = format!("{:>6.2}s  {text}", self.begun.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => {
                use std::io::Write;
                // Nobody to tell is no reason to fail.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    }

    /// Begins something that is counted.
    pub(crate) fn begin(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
            bar.set_position(0);
        }
    }

    /// Moves the bar.
    pub(crate) fn progress(&self, count: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(count);
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// `N messages`, with commas.
pub(crate) fn messages(count: u64) -> String {
    format!("{} messages", grouped(count))
}
