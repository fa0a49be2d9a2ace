//! What a node is asked, through its local API and through commands of its program.

use std::time::Duration;

use serde_json::Value;

use super::command::{self, Output};
use super::{Machine, Places};
use crate::api::insight::EVENTS_COUNT_MAX;
use crate::api::{Client, ClientError};
use crate::lab::error::LabError;

impl Machine {
    /// A connection to its local API; opened when it is first used.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.socket.clone())
    }

    /// The document behind a path of its local API, such as `/v1/status`.
    ///
    /// # Errors
    /// What the API said, or that nobody answered.
    pub async fn get(&self, path: &str) -> Result<Value, LabError> {
        let answer = self.client().get(path, Duration::ZERO).await;
        answer.map_err(|source| self.client_error(source))
    }

    /// The node and its peers.
    ///
    /// # Errors
    /// As [`Machine::get`].
    pub async fn status(&self) -> Result<Value, LabError> {
        self.get("/v1/status").await
    }

    /// Its live actors.
    ///
    /// # Errors
    /// As [`Machine::get`].
    pub async fn tree(&self) -> Result<Value, LabError> {
        self.get("/v1/tree").await
    }

    /// Its events with numbers above this one, or its newest; at most [`EVENTS_COUNT_MAX`] at once.
    ///
    /// # Errors
    /// As [`Machine::get`].
    pub async fn events(&self, after: Option<u64>) -> Result<Value, LabError> {
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        self.get(&format!("/v1/events?limit={EVENTS_COUNT_MAX}{after}"))
            .await
    }

    /// A command of its program on its folder, not started yet. It dies with its handle.
    #[must_use]
    pub fn command(&self) -> tokio::process::Command {
        let Places { home, data_dir, .. } = &self.places;
        let mut command = command::program(&[], &self.program, home, data_dir);
        command.envs(self.spec.variables.iter().cloned());
        command
    }

    /// Runs a command to its end, fed with these bytes.
    ///
    /// # Errors
    /// It does not start, takes longer than `limit` (and is killed then), or prints more than
    /// [`OUTPUT_BYTES_MAX`](super::OUTPUT_BYTES_MAX). How it ended is no error: see [`Output::expect`].
    pub async fn run(
        &self,
        words: &[impl AsRef<str>],
        stdin: &[u8],
        limit: Duration,
    ) -> Result<Output, LabError> {
        let mut command = self.command();
        command.args(words.iter().map(AsRef::as_ref));
        command::run(self.name(), command, stdin, limit).await
    }

    pub(in crate::lab) fn client_error(&self, source: ClientError) -> LabError {
        LabError::Client {
            node: self.node(),
            source,
        }
    }
}
