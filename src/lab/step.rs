//! One step of a scenario as a value.
//!
//! A step knows where it stands in its file and how to name itself; what it does is decided by the
//! runner. It is made only by [`Scenario::parse`](super::Scenario::parse), which checks everything
//! that can be checked without running anything.
//!
//! Read [`docs`] for what every step means, [`Action`] for the values.

pub mod docs;
mod parse;

use std::time::Duration;

use packhorse_protocol::message::DeliveryClass;

use super::condition::Condition;
use super::scenario::fields::{Nodes, Pause, Times};
use super::scenario::place::Place;
use super::{Impairment, Rate, Share, Signal};

pub(crate) use self::parse::{WEIGHT_MAX, steps};

/// One step: what it does, where it stands, how long it may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where in the scenario, as in `steps[3].parallel[1]`.
    pub path: String,
    /// Where in the file.
    pub place: Place,
    /// Its name: `kill`.
    pub name: &'static str,
    /// What reports say of it: `kill left`, or the author's own note.
    pub title: String,
    /// How long it may take; bounded by the scenario alone where there is none.
    pub within: Option<Duration>,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the fields are described in `docs`, for people and the schema"
)]
pub enum Action {
    Start {
        nodes: Nodes,
        exit: Option<u8>,
    },
    Stop {
        nodes: Nodes,
        exit: u8,
    },
    Kill {
        nodes: Nodes,
    },
    Restart {
        nodes: Nodes,
    },
    Signal {
        nodes: Nodes,
        signal: Signal,
    },
    Pause {
        nodes: Nodes,
    },
    Resume {
        nodes: Nodes,
    },
    Ended {
        nodes: Nodes,
        exit: u8,
    },
    Pair {
        nodes: Nodes,
        with: Option<Nodes>,
        grants: Vec<String>,
    },
    Send(Send),
    Load(Load),
    Receive {
        topic: String,
        on: Nodes,
        wanted: Wanted,
    },
    Consume {
        topic: String,
        on: Nodes,
        rate: Option<u64>,
    },
    Work(Work),
    End {
        topic: String,
        on: Option<Nodes>,
    },
    Run(Run),
    Partition {
        sides: Vec<Nodes>,
        from: Option<Nodes>,
        is_one_way: bool,
    },
    Heal {
        nodes: Nodes,
        from: Option<Nodes>,
    },
    Impair {
        nodes: Nodes,
        to: Option<Nodes>,
        change: Change,
        is_one_way: bool,
    },
    Fill {
        nodes: Nodes,
        left: u64,
    },
    Free {
        nodes: Nodes,
    },
    Corrupt {
        nodes: Nodes,
        bytes: u64,
    },
    CopyStore {
        node: Nodes,
        copy: String,
    },
    RestoreStore {
        node: Nodes,
        copy: String,
    },
    Wait {
        words: Vec<String>,
        on: Nodes,
        that: Condition,
    },
    WaitEvent {
        kind: String,
        on: Nodes,
        that: Option<Condition>,
    },
    Assert {
        words: Vec<String>,
        on: Nodes,
        that: Condition,
    },
    Sleep {
        pause: Pause,
    },
    Sequence {
        steps: Vec<Step>,
    },
    Parallel {
        steps: Vec<Step>,
    },
    Repeat {
        times: Times,
        steps: Vec<Step>,
    },
    Choose {
        steps: Vec<Step>,
        weights: Vec<u64>,
    },
    Crash {
        actor: String,
        on: Nodes,
        fault: String,
        when: Option<String>,
    },
    Settle {
        within: Duration,
    },
}

/// One message to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    /// What it is about.
    pub topic: String,
    /// Who sends.
    pub from: Nodes,
    /// Who receives.
    pub to: Nodes,
    /// What it carries.
    pub payload: String,
    /// How hard it is tried.
    pub class: Option<DeliveryClass>,
    /// The state to wait for: `stored` or `done`.
    pub until: Option<&'static str>,
    /// The idempotency key.
    pub key: Option<String>,
    /// How long it may take to be stored there.
    pub expires: Option<Duration>,
    /// The exit code that is expected.
    pub exit: u8,
}

/// Numbered messages in the background.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// What they are about.
    pub topic: String,
    /// Who sends.
    pub from: Nodes,
    /// Who receives.
    pub to: Nodes,
    /// Messages a second for each pair.
    pub rate: u64,
    /// How many for each pair.
    pub count: Option<u64>,
    /// For how long.
    pub lasts: Option<Duration>,
    /// Payload of each.
    pub bytes: usize,
    /// How hard they are tried.
    pub class: Option<DeliveryClass>,
}

/// A worker in the background.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Which messages.
    pub topic: String,
    /// Where.
    pub on: Nodes,
    /// The command.
    pub exec: String,
    /// How many at once.
    pub jobs: u64,
    /// How long a message is lent out.
    pub lease: Option<Duration>,
}

/// A command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its words, without the program.
    pub words: Vec<String>,
    /// Where.
    pub on: Nodes,
    /// The exit code that is expected.
    pub exit: u8,
    /// What its document must say.
    pub that: Option<Condition>,
    /// What it reads.
    pub stdin: String,
    /// The name under which its output is kept.
    pub save: Option<String>,
}

/// What a `receive` waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What is there.
    All,
    /// So many.
    Count(u64),
    /// Exactly these, in this order.
    Payloads(Vec<String>),
}

/// A change of the network; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    /// Added to every datagram.
    pub latency: Option<Duration>,
    /// Up to so much more.
    pub jitter: Option<Duration>,
    /// The share that vanishes.
    pub loss: Option<Share>,
    /// The share that comes twice.
    pub duplicate: Option<Share>,
    /// The share that is overtaken.
    pub reorder: Option<Share>,
    /// What goes through in a second.
    pub rate: Option<Rate>,
}

impl Change {
    /// What a wire is after this change.
    #[must_use]
    pub fn of(&self, now: Impairment) -> Impairment {
        Impairment {
            latency: self.latency.unwrap_or(now.latency),
            jitter: self.jitter.unwrap_or(now.jitter),
            loss: self.loss.unwrap_or(now.loss),
            duplicate: self.duplicate.unwrap_or(now.duplicate),
            reorder: self.reorder.unwrap_or(now.reorder),
            rate: self.rate.or(now.rate),
            cut: now.cut,
        }
    }
}

impl Step {
    /// The steps inside this one.
    #[must_use]
    pub fn inner(&self) -> &[Step] {
        match &self.action {
            Action::Sequence { steps }
            | Action::Parallel { steps }
            | Action::Repeat { steps, .. }
            | Action::Choose { steps, .. } => steps,
            _ => &[],
        }
    }

    /// Whether this step or one inside it is such a one.
    #[must_use]
    pub fn any(&self, is: &impl Fn(&Action) -> bool) -> bool {
        is(&self.action) || self.inner().iter().any(|step| step.any(is))
    }
}
