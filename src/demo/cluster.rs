//! The three nodes and the scratch folder that they live in.
//!
//! Whatever happens, the nodes are dead before the folder goes, and the folder goes:
//! [`Cluster::end`] does it in order, dropping the cluster does it after a panic.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use packhorse::Exit;
use packhorse::api::SocketPath;

use crate::cli::{Failure, Screen};
use crate::demo::process::NodeProcess;
use crate::demo::stage::Stage;

/// Three nodes, none of them started yet.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Sends, and is killed while it does.
    pub(crate) alpha: NodeProcess,
    /// Is down while it is sent to, and killed while it receives.
    pub(crate) beta: NodeProcess,
    /// Goes about its own business with alpha meanwhile.
    pub(crate) gamma: NodeProcess,
    // Dropped last: fields go in their order, and the nodes write into it until they are dead.
    scratch: Scratch,
}

impl Cluster {
    pub(crate) fn new(stage: &Stage) -> Result<Cluster, Failure> {
        let program = std::env::current_exe().map_err(|error| {
            Failure::new(
                Exit::Failure,
                format!("this program does not find itself: {error}"),
            )
        })?;
        let scratch = Scratch::make()?;
        stage.tell(&format!("scratch folder {}", scratch.path.display()));
        Ok(Cluster {
            alpha: NodeProcess::new("alpha", &program, &scratch.path)?,
            beta: NodeProcess::new("beta", &program, &scratch.path)?,
            gamma: NodeProcess::new("gamma", &program, &scratch.path)?,
            scratch,
        })
    }

    /// Shows what the nodes logged last.
    pub(crate) fn show_logs(&self, screen: &Screen) {
        for node in [&self.alpha, &self.beta, &self.gamma] {
            for line in node.log_tail() {
                screen.note(&format!("{}: {line}", node.name()));
            }
        }
    }

    /// Kills what still runs and removes the folder, unless it is to be kept.
    pub(crate) async fn end(mut self, keep: bool, screen: &Screen) {
        for node in [&mut self.alpha, &mut self.beta, &mut self.gamma] {
            // A node that cannot be killed is dead already.
            let _ = node.kill().await;
        }
        if keep {
            screen.note(&format!("kept: {}", self.scratch.path.display()));
            self.scratch.is_kept = true;
        }
    }
}

/// A folder that is removed when its owner goes.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
    is_kept: bool,
}

impl Scratch {
    fn make() -> Result<Scratch, Failure> {
        let name = format!("packhorse-demo-{}", std::process::id());
        let temporary = std::env::temp_dir();
        // A long TMPDIR leaves no room for a socket's path; /tmp always does.
        let fits = SocketPath::in_folder(&temporary.join(&name).join("alpha")).is_ok();
        let parent = if fits {
            temporary.as_path()
        } else {
            Path::new("/tmp")
        };
        let path = parent.join(name);
        let make = || DirBuilder::new().mode(0o700).create(&path);
        let made = make().or_else(|error| match error.kind() {
            // Left behind by a killed run whose process number this one got.
            io::ErrorKind::AlreadyExists => {
                std::fs::remove_dir_all(&path)?;
                make()
            }
            _ => Err(error),
        });
        match made {
            Ok(()) => Ok(Scratch {
                path,
                is_kept: false,
            }),
            Err(error) => Err(Failure::new(
                Exit::Failure,
                format!("no scratch folder {}: {error}", path.display()),
            )),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
