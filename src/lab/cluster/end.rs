//! The end of a lab: every process dead, every disk unmounted, and only then the folder gone.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::{Cluster, blocking, scratch};
use crate::lab::disk;
use crate::lab::error::LabError;
use crate::lab::image;
use crate::lab::machine::Machine;
use crate::lab::together::{Doing, all};

/// How long killed processes may take to be dead.
const DEAD_WITHIN: Duration = Duration::from_secs(20);

impl Cluster {
    /// Kills what still runs, waits for it, unmounts the disks, and removes the folder unless it is
    /// kept; where it is then.
    ///
    /// # Errors
    /// [`LabError::End`] with everything that went wrong, each with its node or path: a process that
    /// does not die, a disk that stays mounted or could not be copied, a folder that cannot be
    /// removed. The rest is done all the same.
    pub async fn end(mut self) -> Result<Option<PathBuf>, LabError> {
        let keeps = self.keeps.load(Ordering::Relaxed);
        let troubles = Mutex::new(Vec::new());
        let note = |trouble: LabError| {
            let mut troubles = troubles.lock().unwrap_or_else(PoisonError::into_inner);
            troubles.push(trouble.to_string());
        };
        let ends = self.machines.iter().map(|node| -> Doing<'_, Infallible> {
            Box::pin(async {
                if let Err(trouble) = node.close(keeps).await {
                    note(trouble);
                }
                if let Some(home) = self.disk_of(node) {
                    let unmounted = blocking("unmounting", move || disk::unmount_at(&home)).await;
                    let unmounted = unmounted.and_then(|done| {
                        done.map_err(|source| LabError::Disk {
                            node: node.name().to_owned(),
                            source,
                        })
                    });
                    unmounted.unwrap_or_else(note);
                }
                Ok(())
            })
        });
        let Ok(()) = all(ends.collect()).await;
        let path = self.scratch.path.clone();
        if !keeps {
            let removed = blocking("removing the folder", move || scratch::remove(&path)).await;
            removed.and_then(|removed| removed).unwrap_or_else(note);
        }
        self.is_over = true;
        self.scratch.is_kept = true;
        let troubles = troubles
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let kept = keeps.then(|| self.scratch.path.clone());
        match troubles.is_empty() {
            true => Ok(kept),
            false => Err(LabError::End {
                troubles: troubles.join("; "),
                kept,
            }),
        }
    }

    /// Where a node's disk is mounted, if it has one.
    fn disk_of(&self, node: &Machine) -> Option<PathBuf> {
        let has_disk = node.spec().disk_bytes.is_some();
        has_disk.then(|| self.scratch.path.join(node.name()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let panics = std::thread::panicking();
        let keeps = panics || self.keeps.load(Ordering::Relaxed);
        self.scratch.is_kept = keeps;
        let warn = |error: &dyn std::fmt::Display| {
            tracing::warn!(target: "packhorse::lab", %error, "a lab did not end cleanly");
        };
        let pids = self.machines.iter().filter_map(|node| node.process_id());
        let pids = pids.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Err(error) = kill_and_wait(pids.collect()) {
            warn(&error);
        }
        for node in &self.machines {
            let Some(home) = self.disk_of(node) else {
                continue;
            };
            if keeps
                && node.data_dir().exists()
                && let Err(error) = image::copy(node.data_dir(), &home.with_extension("kept"))
            {
                warn(&error);
            }
            if let Err(error) = disk::unmount_at(&home) {
                warn(&error);
            }
        }
        if panics {
            eprintln!("The lab's folder is kept: {}", self.scratch.path.display());
        }
    }
}

/// Kills processes of this one, and waits until each is dead. Whoever started them reaps them.
fn kill_and_wait(pids: Vec<Pid>) -> io::Result<()> {
    for pid in &pids {
        // One that is gone already is as dead as it is to be.
        let _ = kill_process(*pid, Signal::KILL);
    }
    let (told, dead) = sync_channel(1);
    let wait = move || {
        // NOWAIT: its number stays taken, so that nobody else's process is ever killed by it.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        for pid in pids {
            while waitid(WaitId::Pid(pid), options).err() == Some(Errno::INTR) {}
        }
        let _ = told.send(());
    };
    // A thread, because a wait for a process has no deadline.
    std::thread::Builder::new().spawn(wait)?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "a killed process is not dead yet");
    dead.recv_timeout(DEAD_WITHIN).map_err(late)
}
