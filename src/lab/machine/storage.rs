//! What happens to a node's disk and to its folder behind its back.

use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Machine;
use crate::lab::disk::{Disk, DiskError};
use crate::lab::error::LabError;
use crate::lab::image::{self, Copied, Damage, Damaged, ImageError};
use crate::lab::random::Random;

impl Machine {
    /// Another program takes everything of its disk but so many bytes; what is free then.
    ///
    /// # Errors
    /// It has no disk of its own.
    pub async fn fill_disk(&self, left_bytes: u64) -> Result<u64, LabError> {
        let disk = self.disk()?;
        let filled = self.blocking(move || Ok(disk.fill_but(left_bytes))).await?;
        filled.map_err(|source| self.disk_error(source))
    }

    /// The other program gives everything back.
    ///
    /// # Errors
    /// It has no disk of its own.
    pub async fn free_disk(&self) -> Result<(), LabError> {
        let disk = self.disk()?;
        let freed = self.blocking(move || Ok(disk.free())).await?;
        freed.map_err(|source| self.disk_error(source))
    }

    /// Bytes that are free on its disk.
    ///
    /// # Errors
    /// It has no disk of its own.
    pub fn disk_free_bytes(&self) -> Result<u64, LabError> {
        let free = self.disk()?.free_bytes();
        free.map_err(|source| self.disk_error(source))
    }

    /// The node is of no use any more: kills it, and unmounts its disk, of which what is to be kept
    /// is copied beside it.
    ///
    /// # Errors
    /// It does not die, or its disk cannot be copied; it is unmounted all the same.
    pub(in crate::lab) async fn close(&self, keeps: bool) -> Result<(), LabError> {
        let killed = match self.kill().await {
            // One that does not run is dead already.
            Ok(_) | Err(LabError::NotRunning { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        let mut kept = Ok(());
        // A node that never ran has no folder.
        if keeps && self.lock_disk().is_some() && self.places.data_dir.exists() {
            let from = self.places.data_dir.clone();
            let to = self.places.home.with_extension("kept");
            kept = self
                .blocking(move || image::copy(&from, &to))
                .await
                .map(drop);
        }
        self.unmount_disk();
        killed.and(kept)
    }

    /// Whoever still fills it gives up.
    pub(super) fn unmount_disk(&self) {
        if let Some(disk) = self.lock_disk().take() {
            disk.unmount();
        }
    }

    /// Copies its folder as an image to where nothing is yet.
    ///
    /// # Errors
    /// It runs and is not paused, or as [`image::copy`].
    pub async fn copy_store(&self, image: &Path) -> Result<Copied, LabError> {
        self.stands_still("copying its folder", true).await?;
        let (from, to) = (self.places.data_dir.clone(), image.to_owned());
        self.blocking(move || image::copy(&from, &to)).await
    }

    /// Puts an image in the place of its folder.
    ///
    /// # Errors
    /// It runs, or as [`image::restore`].
    pub async fn restore_store(&self, image: &Path) -> Result<Copied, LabError> {
        self.stands_still("replacing its folder", false).await?;
        let (from, to) = (image.to_owned(), self.places.data_dir.clone());
        self.blocking(move || image::restore(&from, &to)).await
    }

    /// Damages files of its folder whose path contains `files`, such as `db/` for those of its store.
    ///
    /// # Errors
    /// It runs, there is nothing to be damaged or not as much, or as [`ImageError`] says.
    pub async fn damage(
        &self,
        files: &str,
        damage: Damage,
        random: &mut Random,
    ) -> Result<Vec<Damaged>, LabError> {
        self.stands_still("damaging its folder", false).await?;
        let (folder, files, mut random) = (
            self.places.data_dir.clone(),
            files.to_owned(),
            random.fork(),
        );
        self.blocking(move || image::damage(&folder, &files, damage, &mut random))
            .await
    }

    /// That nobody writes to its folder: it does not run, or is paused where that will do.
    async fn stands_still(&self, what: &'static str, pause_will_do: bool) -> Result<(), LabError> {
        let Ok(process) = self.process() else {
            return Ok(());
        };
        // Somebody may have sent SIGSTOP without waiting for what comes of it.
        if pause_will_do && process.is_paused() && self.stopped(&process).await? {
            return Ok(());
        }
        match process.runs() {
            true => Err(LabError::Runs {
                node: self.node(),
                what,
                pause_will_do,
            }),
            false => Ok(()),
        }
    }

    /// Work on files, off the threads that carry datagrams.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, LabError> {
        let error = |source| LabError::Image {
            node: self.node(),
            source,
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map_err(error),
            Err(lost) => Err(LabError::files(
                format!("`{}`: work on its folder broke off", self.name()),
                io::Error::other(lost),
            )),
        }
    }

    fn disk(&self) -> Result<Arc<Disk>, LabError> {
        let disk = self.lock_disk().as_ref().map(Arc::clone);
        disk.ok_or_else(|| self.disk_error(DiskError::None))
    }

    fn lock_disk(&self) -> MutexGuard<'_, Option<Arc<Disk>>> {
        // Replaced as a whole, so a panic leaves it before or after.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk_error(&self, source: DiskError) -> LabError {
        LabError::Disk {
            node: self.node(),
            source,
        }
    }
}
