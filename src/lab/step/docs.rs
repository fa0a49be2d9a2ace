//! Every step by name: what it does, what its keys hold, and an example.
//!
//! INVARIANT: this table is the only list of steps. The parser refuses what is not in it, messages
//! and schema quote it, and a test parses every example.

use super::super::error::NODES_MAX;
use super::super::image::DAMAGE_PLACES_MAX;
use super::super::scenario::kind::{may, need};

pub use super::super::scenario::kind::{FieldDoc, Kind};

/// One pair's load at its fastest; beyond it a load measures the lab.
pub(crate) const RATE_MAX: u64 = 10_000;
/// Commands of one worker at once.
pub(crate) const JOBS_MAX: u64 = 64;
/// Bytes that one `corrupt` flips: as many as a damage has places.
pub(crate) const CORRUPT_MAX: u64 = DAMAGE_PLACES_MAX as u64;
/// Nodes of one entry: no more than a lab has.
pub(crate) const NODES_LIMIT: u64 = NODES_MAX as u64;

/// One step of the scenario language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepDoc {
    /// The key that makes a table this step.
    pub name: &'static str,
    /// What it does, in one sentence or two.
    pub about: &'static str,
    /// What stands behind the step's own name.
    pub value: Kind,
    /// Its other keys.
    pub fields: &'static [FieldDoc],
    /// Seconds that it may take unless `within` says otherwise; `None` where there is no `within`.
    pub within_seconds: Option<u64>,
    /// How it is written, with the nodes `left`, `right` and `spoke1` to `spoke3`.
    pub example: &'static str,
}

const ON: FieldDoc = need("on", Kind::Nodes, "where");
const CLASS: FieldDoc = may(
    "class",
    Kind::Class,
    "how hard it is tried; the sender's settings decide otherwise",
);
const EXIT: FieldDoc = may(
    "exit",
    Kind::Exit,
    "the exit code that is expected; 0 unless given",
);
const ONE_WAY: FieldDoc = may(
    "one_way",
    Kind::Flag,
    "only what goes out from the nodes, not what comes in",
);

/// Keys that every step takes.
pub const COMMON: &[FieldDoc] = &[may(
    "note",
    Kind::Text,
    "a word for people, shown in reports",
)];

/// The key of the deadline.
pub const WITHIN: FieldDoc = may("within", Kind::Duration, "how long the step may take");

/// Every step, in the order of the documentation.
pub const STEPS: &[StepDoc] = &[
    StepDoc {
        name: "start",
        about: "Starts those of the nodes that do not run, and waits until each is ready.",
        value: Kind::Nodes,
        fields: &[may(
            "exit",
            Kind::Exit,
            "expects that the node does not come up but ends with this code",
        )],
        within_seconds: Some(20),
        example: "{ start = \"*\" }",
    },
    StepDoc {
        name: "stop",
        about: "Stops nodes in order (SIGTERM) and waits for their end. Nodes that do not run are left alone.",
        value: Kind::Nodes,
        fields: &[EXIT],
        within_seconds: Some(30),
        example: "{ stop = \"left\" }",
    },
    StepDoc {
        name: "kill",
        about: "Kills nodes (SIGKILL) at whatever they are doing. Nodes that do not run are left alone.",
        value: Kind::Nodes,
        fields: &[],
        within_seconds: Some(10),
        example: "{ kill = \"any *\" }",
    },
    StepDoc {
        name: "restart",
        about: "Stops nodes in order, one after the other, and starts each again before the next.",
        value: Kind::Nodes,
        fields: &[],
        within_seconds: Some(60),
        example: "{ restart = [\"left\", \"right\"] }",
    },
    StepDoc {
        name: "signal",
        about: "Sends the processes of nodes a signal.",
        value: Kind::Nodes,
        fields: &[need("with", Kind::Signal, "which signal")],
        within_seconds: Some(10),
        example: "{ signal = \"left\", with = \"HUP\" }",
    },
    StepDoc {
        name: "pause",
        about: "Freezes the processes of nodes (SIGSTOP), as a laptop whose lid is closed.",
        value: Kind::Nodes,
        fields: &[],
        within_seconds: Some(10),
        example: "{ pause = \"left\" }",
    },
    StepDoc {
        name: "resume",
        about: "Lets frozen processes go on (SIGCONT).",
        value: Kind::Nodes,
        fields: &[],
        within_seconds: Some(10),
        example: "{ resume = \"left\" }",
    },
    StepDoc {
        name: "ended",
        about: "Waits until nodes have ended. One that ends without `stop`, `kill`, `restart` or a signal fails the scenario, unless an `ended` step somewhere expects that code.",
        value: Kind::Nodes,
        fields: &[need("exit", Kind::Exit, "the code that they end with")],
        within_seconds: Some(30),
        example: "{ ended = \"left\", exit = 9, within = \"20s\" }",
    },
    StepDoc {
        name: "pair",
        about: "Pairs every two of the nodes, or each of them with each of `with`, by invite and join.",
        value: Kind::Nodes,
        fields: &[
            may(
                "with",
                Kind::Nodes,
                "the other side; unless given, every two of the nodes",
            ),
            may(
                "grants",
                Kind::Texts,
                "what each side grants the other; [\"message.send:*\"] unless given",
            ),
        ],
        within_seconds: Some(30),
        example: "{ pair = \"spoke*\", with = \"left\", grants = [\"message.send:*\", \"execute:jobs\"] }",
    },
    StepDoc {
        name: "send",
        about: "Sends one message on a topic, as `packhorse send` does.",
        value: Kind::Text,
        fields: &[
            need("from", Kind::Node, "who sends"),
            need("to", Kind::Node, "who receives"),
            need("payload", Kind::Payload, "what it carries"),
            CLASS,
            may("until", Kind::State, "waits until the message came so far"),
            may("key", Kind::Text, "the idempotency key"),
            may(
                "expires",
                Kind::Duration,
                "how long it may take to be stored there",
            ),
            EXIT,
        ],
        within_seconds: Some(15),
        example: "{ send = \"orders\", from = \"left\", to = \"right\", payload = \"two bales\", until = \"stored\" }",
    },
    StepDoc {
        name: "load",
        about: "Begins to send numbered messages in the background, from each of `from` to each of `to`, and keeps books. It ends with its `count` or its `for`; with neither, at `settle`; and always at `end`. It outlives restarts of its node.",
        value: Kind::Text,
        fields: &[
            need("from", Kind::Nodes, "who sends"),
            need("to", Kind::Nodes, "who receives"),
            may(
                "rate",
                Kind::CountTo(RATE_MAX),
                "messages a second for each pair; 50 unless given, 10000 at most",
            ),
            may("count", Kind::Count, "ends after so many for each pair"),
            may("for", Kind::Duration, "ends after this time"),
            may(
                "bytes",
                Kind::Size,
                "payload of each message; 64 bytes unless given",
            ),
            CLASS,
        ],
        within_seconds: None,
        example: "{ load = \"orders\", from = \"left\", to = \"right\", rate = 200, count = 5_000, bytes = \"1KiB\" }",
    },
    StepDoc {
        name: "receive",
        about: "Takes messages of a topic out of an inbox and acknowledges them; not of a topic that a `load` sends there. With `payloads` it waits for exactly these, in this order, and fails when more is there; with `count` for so many; otherwise it takes what is there.",
        value: Kind::Text,
        fields: &[
            need("on", Kind::Node, "where"),
            may("payloads", Kind::Texts, "exactly these, in this order"),
            may("count", Kind::Count, "so many"),
        ],
        within_seconds: Some(15),
        example: "{ receive = \"orders\", on = \"right\", payloads = [\"two bales\"] }",
    },
    StepDoc {
        name: "consume",
        about: "Begins to take messages of a topic in the background, and enters what it got in the books. It ends at `end` or with the scenario; it outlives restarts of its node.",
        value: Kind::Text,
        fields: &[
            ON,
            may(
                "rate",
                Kind::CountTo(RATE_MAX),
                "messages a second; as fast as they come unless given",
            ),
        ],
        within_seconds: None,
        example: "{ consume = \"orders\", on = \"right\", rate = 20 }",
    },
    StepDoc {
        name: "work",
        about: "Begins `packhorse work` in the background: a command for every message of a topic. It ends at `end` or with the scenario; it outlives restarts of its node.",
        value: Kind::Text,
        fields: &[
            ON,
            need("exec", Kind::Text, "the command, for a shell"),
            may(
                "jobs",
                Kind::CountTo(JOBS_MAX),
                "how many at once; 1 unless given, 64 at most",
            ),
            may(
                "lease",
                Kind::Duration,
                "how long a message is lent out, from 1s to 1h",
            ),
        ],
        within_seconds: None,
        example: "{ work = \"jobs\", on = \"right\", exec = \"cat\", jobs = 4 }",
    },
    StepDoc {
        name: "end",
        about: "Ends what runs in the background for a topic: loads, consumers and workers. A load finishes the message that it is at.",
        value: Kind::Text,
        fields: &[may(
            "on",
            Kind::Nodes,
            "only on these nodes; for a load those that send",
        )],
        within_seconds: Some(30),
        example: "{ end = \"orders\", on = \"left\" }",
    },
    StepDoc {
        name: "run",
        about: "Runs any packhorse command on nodes. `that` looks at its document (`--json` is added), `save` keeps its output for words of later `run` steps, which write it `${name}`. To pair, use `pair`: `join` finds nobody, because what a node announces, also in its tickets, leads past no relay and to nowhere.",
        value: Kind::Words,
        fields: &[
            ON,
            EXIT,
            may("that", Kind::Condition, "what its document must say"),
            may("stdin", Kind::Payload, "what it reads"),
            may(
                "save",
                Kind::Text,
                "the name under which its output is kept",
            ),
        ],
        within_seconds: Some(20),
        example: "{ run = \"peers keep right always\", on = \"left\" }",
    },
    StepDoc {
        name: "partition",
        about: "Cuts the network: around the nodes, between them and `from`, or between every two of several sides. `heal` ends it.",
        value: Kind::Sides,
        fields: &[
            may(
                "from",
                Kind::Nodes,
                "from whom they are cut off; everybody unless given",
            ),
            ONE_WAY,
        ],
        within_seconds: Some(10),
        example: "{ partition = [[\"left\"], [\"right\", \"spoke1\"]] }",
    },
    StepDoc {
        name: "heal",
        about: "Ends cuts and impairments around the nodes, or between them and `from`.",
        value: Kind::Nodes,
        fields: &[may(
            "from",
            Kind::Nodes,
            "towards whom; everybody unless given",
        )],
        within_seconds: Some(10),
        example: "{ heal = \"*\" }",
    },
    StepDoc {
        name: "impair",
        about: "Makes the network bad around the nodes, or between them and `to`; what is not named stays as it is.",
        value: Kind::Nodes,
        fields: &[
            may("to", Kind::Nodes, "towards whom; everybody unless given"),
            may("latency", Kind::Duration, "added to every datagram"),
            may("jitter", Kind::Duration, "up to so much more, by the seed"),
            may("loss", Kind::Percent, "datagrams that vanish"),
            may("duplicate", Kind::Percent, "datagrams that come twice"),
            may("reorder", Kind::Percent, "datagrams that are overtaken"),
            may("rate", Kind::Rate, "what goes through in a second"),
            ONE_WAY,
        ],
        within_seconds: Some(10),
        example: "{ impair = \"left\", to = \"right\", loss = \"20%\", latency = \"80ms\", one_way = true }",
    },
    StepDoc {
        name: "fill",
        about: "Another program takes the disk of nodes but for so many bytes. The node needs `disk` in `nodes`.",
        value: Kind::Nodes,
        fields: &[need("left", Kind::Size, "what is left of it")],
        within_seconds: Some(20),
        example: "{ fill = \"spoke1\", left = \"5MiB\" }",
    },
    StepDoc {
        name: "free",
        about: "Gives back what `fill` took.",
        value: Kind::Nodes,
        fields: &[],
        within_seconds: Some(10),
        example: "{ free = \"spoke1\" }",
    },
    StepDoc {
        name: "corrupt",
        about: "Flips bytes in the store (`db/`) of nodes that do not run; the seed chooses which.",
        value: Kind::Nodes,
        fields: &[may(
            "bytes",
            Kind::CountTo(CORRUPT_MAX),
            "how many; 16 unless given, 10000 at most",
        )],
        within_seconds: Some(10),
        example: "{ corrupt = \"left\", bytes = 64 }",
    },
    StepDoc {
        name: "copy_store",
        about: "Keeps a copy of a node's whole data folder, as a backup or a cloned disk has it. The node must not run.",
        value: Kind::Node,
        fields: &[need("as", Kind::Name, "the name of the copy")],
        within_seconds: Some(20),
        example: "{ copy_store = \"left\", as = \"monday\" }",
    },
    StepDoc {
        name: "restore_store",
        about: "Puts a copy in the place of a node's data folder; with a node that it was not taken from, that node becomes a clone. The node must not run.",
        value: Kind::Node,
        fields: &[need("copy", Kind::Name, "the name of the copy")],
        within_seconds: Some(20),
        example: "{ restore_store = \"left\", copy = \"monday\" }",
    },
    StepDoc {
        name: "wait",
        about: "Asks a command for its document again and again until the condition holds, on every node named.",
        value: Kind::Words,
        fields: &[
            ON,
            need("that", Kind::Condition, "what the document must say"),
        ],
        within_seconds: Some(15),
        example: "{ wait = \"status\", on = \"left\", that = \"$.peers[name=right].state == 'connected'\" }",
    },
    StepDoc {
        name: "wait_event",
        about: "Waits for an event, on every node named. It reads on behind the event that an earlier `wait_event` on that node found, so nothing between two steps is missed; the first one on a node reads from where the last step that did something to nodes or the network began.",
        value: Kind::Text,
        fields: &[
            ON,
            may("that", Kind::Condition, "what the event must say as well"),
        ],
        within_seconds: Some(15),
        example: "{ wait_event = \"session.started\", on = \"left\", that = \"$.peer == 'right'\" }",
    },
    StepDoc {
        name: "assert",
        about: "Asks a command for its document once; the condition must hold, on every node named.",
        value: Kind::Words,
        fields: &[
            ON,
            need("that", Kind::Condition, "what the document must say"),
        ],
        within_seconds: Some(15),
        example: "{ assert = \"dead list\", on = \"*\", that = \"$.total == 0\" }",
    },
    StepDoc {
        name: "sleep",
        about: "Lets time pass, for scenarios that are about time. To wait for something, use `wait`.",
        value: Kind::Pause,
        fields: &[need(
            "why",
            Kind::Text,
            "what is to happen meanwhile, or fail to",
        )],
        within_seconds: None,
        example: "{ sleep = \"100ms..2s\", why = \"a random moment of the load\" }",
    },
    StepDoc {
        name: "sequence",
        about: "Steps one after the other, as one branch of `parallel` or `choose`.",
        value: Kind::Steps,
        fields: &[],
        within_seconds: Some(0),
        example: "{ sequence = [{ kill = \"left\" }, { start = \"left\" }] }",
    },
    StepDoc {
        name: "parallel",
        about: "Steps at the same time. It ends when all have ended; the first that fails ends the others.",
        value: Kind::Steps,
        fields: &[],
        within_seconds: Some(0),
        example: "{ parallel = [{ restart = \"left\" }, { restart = \"right\" }] }",
    },
    StepDoc {
        name: "repeat",
        about: "Steps again and again: so many rounds, or for so long.",
        value: Kind::Times,
        fields: &[need("steps", Kind::Steps, "what is repeated")],
        within_seconds: Some(0),
        example: "{ repeat = 5, steps = [{ kill = \"any *\" }, { start = \"*\" }] }",
    },
    StepDoc {
        name: "choose",
        about: "One of the steps, by the seed.",
        value: Kind::Steps,
        fields: &[may(
            "weights",
            Kind::Weights,
            "how often each is chosen beside the others; alike unless given",
        )],
        within_seconds: Some(0),
        example: "{ choose = [{ kill = \"left\" }, { pause = \"left\" }], weights = [3, 1] }",
    },
    StepDoc {
        name: "crash",
        about: "Makes one actor of nodes die on purpose. Needs a program built with the feature `fault`.",
        value: Kind::Text,
        fields: &[
            ON,
            may(
                "fault",
                Kind::Fault,
                "panic, error, kill or hang; panic unless given",
            ),
            may(
                "when",
                Kind::Text,
                "the moment, as `packhorse fault --when` names it",
            ),
        ],
        within_seconds: Some(10),
        example: "{ crash = \"session right\", on = \"left\" }",
    },
    StepDoc {
        name: "settle",
        about: "Ends loads that have no end of their own, and waits, at most this long, until everything that was accepted is stored and handled: nothing lost, nothing twice, nothing out of order. What nobody consumes it takes itself.",
        value: Kind::Duration,
        fields: &[],
        within_seconds: None,
        example: "{ settle = \"30s\" }",
    },
];

/// Keys that a node in `nodes` takes.
pub const NODE_FIELDS: &[FieldDoc] = &[
    need(
        "name",
        Kind::Text,
        "its name; with `count` a number is added",
    ),
    may(
        "count",
        Kind::CountTo(NODES_LIMIT),
        "so many alike: spoke1, spoke2, …",
    ),
    may(
        "listen",
        Kind::Flag,
        "false for a node that nobody can dial",
    ),
    may(
        "disk",
        Kind::Size,
        "gives it a disk of its own of this size, which can be filled",
    ),
    may("settings", Kind::Settings, "its settings.toml"),
    may("env", Kind::Variables, "variables of its process"),
    may("args", Kind::Texts, "further words for `packhorse up`"),
    may(
        "may_end",
        Kind::Exit,
        "the exit code with which it may end without being told to, such as 9 on a disk that gets full; any other such end fails the scenario",
    ),
];

impl StepDoc {
    /// The step of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static StepDoc> {
        STEPS.iter().find(|doc| doc.name == name)
    }

    /// Every key that may stand in a table of this step, but its own name.
    pub fn all_fields(&self) -> impl Iterator<Item = &'static FieldDoc> + Clone + use<> {
        let within = self.within_seconds.map(|_| &WITHIN);
        self.fields.iter().chain(within).chain(COMMON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_the_name_of_a_step() {
        // Or a table could be taken for two steps.
        for doc in STEPS {
            for field in doc.all_fields() {
                assert!(
                    StepDoc::find(field.name).is_none(),
                    "{} {}",
                    doc.name,
                    field.name
                );
            }
        }
    }

    #[test]
    fn names_are_unique_and_everything_has_a_sentence() {
        for (index, doc) in STEPS.iter().enumerate() {
            assert!(
                STEPS[index + 1..]
                    .iter()
                    .all(|other| other.name != doc.name)
            );
            assert!(doc.about.ends_with('.'), "{}", doc.name);
            assert!(doc.fields.iter().all(|field| !field.about.is_empty()));
            assert!(doc.example.contains(doc.name));
        }
    }
}
