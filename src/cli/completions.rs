//! `completions`: the script that teaches a shell this command line.

use clap::CommandFactory;
use clap_complete::Shell;
use packhorse::Exit;

use crate::cli::{Cli, Failure, Screen};

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, screen: &Screen) -> Result<Exit, Failure> {
    // Into memory first: the generator panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "packhorse", &mut script);
    screen.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
