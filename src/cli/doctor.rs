//! `doctor`: whether the data folder is well; with `--repair`, what can be mended is.
//!
//! Beside a running node it looks at the files, asks the node, and says what it could not look at.

use std::path::PathBuf;

use packhorse::api::ClientError;
use packhorse::api::documents::schema;
use packhorse::doctor::{self, Diagnosis, Severity};
use packhorse::settings::Settings;
use packhorse::{Exit, StartError};

use crate::cli::display::printable;
use crate::cli::folder::DataFolder;
use crate::cli::{Failure, Screen, passphrase};

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Mend what can be mended: accept lost commits, set aside what does not open, count anew
    #[arg(long)]
    repair: bool,
    /// The file with the passphrase of the identity, where one seals it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(crate) async fn run(
    folder: &DataFolder,
    args: DoctorArgs,
    screen: &Screen,
) -> Result<Exit, Failure> {
    if !folder.path().exists() {
        let text = format!("there is no data folder {}", folder.path().display());
        return Err(Failure::new(Exit::NotFound, text).with_hint(folder.command("init")));
    }
    let running = match folder.client()?.status().await {
        Ok(status) => Some(status),
        Err(ClientError::NotRunning { .. }) => None,
        Err(error) => return Err(folder.failure(error)),
    };
    let diagnosis = match running {
        Some(_) if args.repair => {
            let text = "the node runs, and only a stopped one can be repaired";
            return Err(Failure::new(Exit::Damaged, text).with_hint(folder.command("drain")));
        }
        Some(status) => doctor::examine_running(folder.path(), &status),
        None => stopped(folder, args, screen).await?,
    };
    if screen.is_json() {
        screen.document(schema::DOCTOR, &diagnosis)?;
    } else {
        screen.data(&render(&diagnosis))?;
    }
    Ok(diagnosis.exit())
}

async fn stopped(
    folder: &DataFolder,
    args: DoctorArgs,
    screen: &Screen,
) -> Result<Diagnosis, Failure> {
    // Settings that do not read are a finding, not the end of looking.
    let settings = Settings::load(folder.path()).unwrap_or_default();
    let named = args.passphrase_file.as_deref();
    let passphrase =
        passphrase::for_start(folder, named, settings.passphrase_file.as_deref(), screen);
    // Without it the files are looked at all the same, and mending needs it.
    let passphrase = match passphrase {
        Err(failure) if args.repair || named.is_some() => return Err(failure),
        passphrase => passphrase.unwrap_or_default(),
    };
    let is_repair = args.repair;
    let mended = if is_repair {
        let mended = doctor::repair(folder.path(), passphrase.as_ref()).await;
        mended.map_err(|error| Failure::new(error.exit(), error.to_string()))?
    } else {
        Vec::new()
    };
    let path = folder.path().to_owned();
    let looked =
        tokio::task::spawn_blocking(move || doctor::examine(&path, passphrase.as_ref())).await;
    let looked = looked.map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
    let mut diagnosis = looked.map_err(StartError::from)?;
    diagnosis.mended = mended;
    Ok(diagnosis)
}

fn render(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    for done in &diagnosis.mended {
        text.push_str(&format!("mended  {}\n", printable(done)));
    }
    for finding in &diagnosis.findings {
        let word = match finding.severity {
            Severity::Well => "ok     ",
            Severity::Unseen => "unseen ",
            Severity::Warning => "warning",
            Severity::Damage => "damage ",
        };
        let place = finding.place.as_deref();
        let place = place.map_or(String::new(), |place| format!(" ({place})"));
        let line = format!("{word} {}: {}{place}", finding.check, finding.text);
        text.push_str(&printable(&line));
        text.push('\n');
        if let Some(advice) = &finding.advice {
            text.push_str(&format!("        → {}\n", printable(advice)));
        }
    }
    text
}
