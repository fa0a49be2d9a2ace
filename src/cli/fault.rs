//! `fault`: an actor's death on purpose; it exists in builds with the feature `fault` only.

use packhorse::Exit;
use packhorse::api::fault::{FaultRequest, SCHEMA};

use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

#[derive(Debug, clap::Args)]
pub(crate) struct FaultArgs {
    /// Who is to die, by its name in the tree: `store`, `session left`
    #[arg(value_name = "ACTOR")]
    actor: String,
    /// How: panic, error, kill or hang
    #[arg(value_name = "FAULT")]
    fault: String,
    /// When: idle, before-message, after-message, stopping, starting, before-commit, before-answer
    #[arg(long, value_name = "MOMENT", default_value = "idle")]
    when: String,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: FaultArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    let request = FaultRequest {
        actor: args.actor,
        fault: args.fault,
        when: args.when,
    };
    let told = folder.client()?.fault(&request).await;
    told.map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(SCHEMA, &request)?;
    }
    Ok(Exit::Done)
}
