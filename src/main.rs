//! The `packhorse` program: reads the command line, builds the runtime, and ends with an exit code.
//!
//! Everything global is installed here and nowhere else: the runtime, the log subscriber, the signals.
//! The commands live in `cli`, the demonstration in `demo`; the rest is the library.

mod cli;
mod demo;
mod telemetry;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use packhorse::Exit;

/// How long the runtime may take to stop once the command is over: a read of standard input
/// that never ends must not hold the process.
const RUNTIME_STOP_WITHIN: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; they go to stdout and are no errors.
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            let _ = error.print();
            return exit.into();
        }
    };
    let mut builder = if cli.is_long_running() {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime does not start: {error}");
            return Exit::Failure.into();
        }
    };
    let exit = runtime.block_on(cli::run(cli));
    runtime.shutdown_timeout(RUNTIME_STOP_WITHIN);
    exit.into()
}
