//! `metrics`: the node's numbers as Prometheus reads them.

use packhorse::Exit;
use packhorse::api::metrics::{SCHEMA, Samples};

use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen};

pub(crate) async fn run(folder: &DataFolder, screen: &Screen) -> Result<Exit, Failure> {
    let text = folder
        .client()?
        .metrics()
        .await
        .map_err(|error| folder.failure(error))?;
    if screen.is_json() {
        screen.document(SCHEMA, Samples::read(&text))?;
    } else {
        screen.data(&text)?;
    }
    Ok(Exit::Done)
}
