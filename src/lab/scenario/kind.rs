//! What a key of a scenario file may hold: the words for it, here for messages and for the schema.

/// The kind of value that a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// Any text, also none.
    Payload,
    /// A name that a folder may have.
    Name,
    /// Texts, perhaps none.
    Texts,
    /// Words of a command line: one text that is split at spaces, or a list.
    Words,
    /// One node.
    Node,
    /// One node or several.
    Nodes,
    /// One node or several, or a list of sides, each a list.
    Sides,
    /// A whole number, 1 at least.
    Count,
    /// The same with a limit.
    CountTo(u64),
    /// A code that a process ends with.
    Exit,
    /// How long.
    Duration,
    /// How long, or from how long to how long.
    Pause,
    /// How often, or how long.
    Times,
    /// A share of a hundred.
    Percent,
    /// Bytes.
    Size,
    /// Bytes or bits a second.
    Rate,
    /// A delivery class.
    Class,
    /// How far a message is to come.
    State,
    /// A condition over a document.
    Condition,
    /// Yes or no.
    Flag,
    /// A signal.
    Signal,
    /// How an actor dies.
    Fault,
    /// Steps.
    Steps,
    /// Whole numbers.
    Weights,
    /// The settings of a node.
    Settings,
    /// Names with texts.
    Variables,
}

/// Signals that `signal` may send; KILL, STOP and CONT have steps of their own.
pub(crate) const SIGNALS: [&str; 5] = ["HUP", "INT", "TERM", "QUIT", "ABRT"];
/// How `crash` lets an actor die; the first unless told otherwise.
pub(crate) const FAULTS: [&str; 4] = ["panic", "error", "kill", "hang"];
/// Receipt states that a sender may wait for.
pub(crate) const STATES: [&str; 2] = ["stored", "done"];

impl Kind {
    /// What is to be written, for people: goes behind "must be" and "expected".
    #[must_use]
    pub const fn expected(self) -> &'static str {
        match self {
            Kind::Text => "a text, such as \"orders\"",
            Kind::Texts => "a list of texts, such as [\"one\", \"two\"]",
            Kind::Words => "a command, such as \"peers list\" or [\"peers\", \"list\"]",
            Kind::Node => "one node, such as \"left\" or \"any spoke*\"",
            Kind::Nodes => {
                "nodes, such as \"left\", \"spoke*\", \"any *\" or [\"left\", \"right\"]"
            }
            Kind::Sides => "nodes, such as \"left\", or sides, such as [[\"a\", \"b\"], [\"c\"]]",
            Kind::Payload => "a text, which may be empty",
            Kind::Name => "a name of letters, digits, - and _, such as \"monday\"",
            Kind::Count | Kind::CountTo(_) => "a whole number from 1, such as 100",
            Kind::Exit => "an exit code from 0 to 255",
            Kind::Duration => "a duration, such as \"10s\" or \"500ms\"",
            Kind::Pause => "a duration or a range to choose from, such as \"2s\" or \"100ms..2s\"",
            Kind::Times => "a number of rounds or a duration, such as 5 or \"10m\"",
            Kind::Percent => "a share, such as \"20%\" or \"0.5%\"",
            Kind::Size => "a size, such as \"64KiB\" or \"5MiB\"",
            Kind::Rate => "a rate, such as \"64KiB/s\" or \"2Mbit/s\"",
            Kind::Class => "a delivery class: critical, moderate or ephemeral",
            Kind::State => "a state: stored or done",
            Kind::Condition => "a condition, such as \"$.peers[0].state == 'connected'\"",
            Kind::Flag => "true or false",
            Kind::Signal => "a signal: HUP, INT, TERM, QUIT or ABRT",
            Kind::Fault => "a fault: panic, error, kill or hang",
            Kind::Steps => "a list of steps, such as [{ kill = \"left\" }, { start = \"left\" }]",
            Kind::Weights => "a list of whole numbers, such as [3, 1]",
            Kind::Settings => "the text of a settings.toml",
            Kind::Variables => "a table of texts, such as { RUST_LOG = \"debug\" }",
        }
    }
}

/// One key: its name, what it holds, what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDoc {
    /// The key.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it must be there.
    pub is_required: bool,
    /// What it is for, in one sentence.
    pub about: &'static str,
}

/// A key that must be there.
pub(crate) const fn need(name: &'static str, kind: Kind, about: &'static str) -> FieldDoc {
    FieldDoc {
        name,
        kind,
        is_required: true,
        about,
    }
}

/// A key that may be left out.
pub(crate) const fn may(name: &'static str, kind: Kind, about: &'static str) -> FieldDoc {
    FieldDoc {
        name,
        kind,
        is_required: false,
        about,
    }
}
