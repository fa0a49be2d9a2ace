//! What happens to actors, as facts that can be waited for.
//!
//! Tests and the log learn from here that an incarnation runs or ended; nobody polls.
//! Facts are told, never acted upon: a missed one changes nothing.

use tokio::sync::broadcast;

/// Facts a slow listener may fall behind before it misses some.
const BACKLOG: usize = 1_024;

/// One fact about one actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifeEvent {
    /// The child's name in the tree, for example `store` or `session 3`.
    pub actor: String,
    /// Counts the starts of that child, from 1.
    pub incarnation: u64,
    /// What happened.
    pub what: Life,
}

/// The stations of an actor's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Started,
    /// It ended; the text says why.
    Exited(String),
    /// Its supervisor will start it again.
    Restarting,
    /// Its supervisor gave it up.
    GivenUp,
    /// A session asks the store for this.
    #[cfg(feature = "sim")]
    Works(&'static str),
}

/// Tells life events to whoever listens.
#[derive(Clone, Debug)]
pub struct Probe {
    events: broadcast::Sender<LifeEvent>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            events: broadcast::Sender::new(BACKLOG),
        }
    }
}

impl Probe {
    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<LifeEvent> {
        self.events.subscribe()
    }

    /// Tells one fact, and logs it.
    pub fn tell(&self, actor: &str, incarnation: u64, what: Life) {
        match &what {
            Life::Started => {
                tracing::debug!(target: "packhorse::life", actor, incarnation, "started")
            }
            Life::Exited(reason) => {
                tracing::info!(target: "packhorse::life", actor, incarnation, reason, "exited");
            }
            Life::Restarting => {
                tracing::warn!(target: "packhorse::life", actor, incarnation, "restarting");
            }
            Life::GivenUp => {
                tracing::error!(target: "packhorse::life", actor, incarnation, "given up")
            }
            #[cfg(feature = "sim")]
            Life::Works(_) => {}
        }
        // No listener is the ordinary case.
        let _ = self.events.send(LifeEvent {
            actor: actor.to_owned(),
            incarnation,
            what,
        });
    }
}
