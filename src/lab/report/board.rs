//! The table that a terminal shows while a scenario runs: nodes, present steps, what ended last, loads.
//!
//! What is shown is a plain value, and drawing it a function of that value and the terminal's size.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Outcome, StepRecord, clock};
use crate::lab::ledger::Tally;
use crate::lab::machine::Machine;
use crate::lab::scenario::place::shown;

/// Steps that ended last, as the table shows them.
const RECENT_COUNT_MAX: usize = 3;
/// Steps at the same time that have a line each.
const PRESENT_COUNT_MAX: usize = 4;
/// Letters of a text that are worth drawing; a terminal is hardly wider.
const TEXT_CHARS_MAX: usize = 400;

/// What a terminal shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    pub(super) title: String,
    /// Since the scenario began.
    pub(super) at: Duration,
    /// How long it may take.
    pub(super) limit: Duration,
    pub(super) nodes: Vec<NodeRow>,
    pub(super) present: Vec<Present>,
    pub(super) recent: VecDeque<String>,
    pub(super) tally: Tally,
}

/// A node in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeRow {
    pub(super) name: String,
    pub(super) state: State,
    /// Starts but the first.
    pub(super) restarts: u32,
}

/// What a node's process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    New,
    Starting,
    Running,
    Paused,
    Stopped,
}

/// A step under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Present {
    pub(super) path: String,
    pub(super) rounds: Vec<u64>,
    pub(super) title: String,
    pub(super) began: Duration,
    pub(super) within: Option<Duration>,
}

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl NodeRow {
    pub(super) fn of(machine: &Machine) -> NodeRow {
        let starts = machine.starts();
        let state = match (machine.is_running(), starts) {
            (true, _) if machine.is_paused() => State::Paused,
            (true, _) if machine.is_ready() => State::Running,
            (true, _) => State::Starting,
            (false, 0) => State::New,
            (false, _) => State::Stopped,
        };
        NodeRow {
            name: machine.name().to_owned(),
            state,
            restarts: starts.saturating_sub(1),
        }
    }
}

impl State {
    const ALL: [State; 5] = [
        State::Running,
        State::Starting,
        State::Paused,
        State::Stopped,
        State::New,
    ];

    const fn word(self) -> &'static str {
        match self {
            State::New => "new",
            State::Starting => "starting",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopped => "stopped",
        }
    }
}

impl Board {
    pub(super) fn began(&mut self, step: Present) {
        self.present.push(step);
    }

    pub(super) fn ended(&mut self, step: &StepRecord) {
        let is_it = |other: &Present| other.path == step.path && other.rounds == step.rounds;
        // Steps end before those around them, which began earlier.
        if let Some(at) = self.present.iter().rposition(is_it) {
            self.present.remove(at);
        }
        // What was broken off with a step around it does not end by itself.
        let inside = format!("{}.", step.path);
        self.present
            .retain(|other| !other.path.starts_with(&inside));
        let sign = match step.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed(_) => "FAIL",
            Outcome::Skipped(_) => "skip",
        };
        let seconds = step.took.as_secs_f64();
        let rounds = rounds(&step.rounds);
        self.recent.push_back(format!(
            "  {sign:<4} {} {seconds:.2} s  {}{rounds}",
            shown(&step.title, TEXT_CHARS_MAX),
            step.path
        ));
        if self.recent.len() > RECENT_COUNT_MAX {
            self.recent.pop_front();
        }
    }

    /// The present steps in one line, the innermost of each branch alone.
    pub(super) fn heartbeat(&self) -> String {
        let steps = self.innermost().map(|step| self.step(step));
        let steps: Vec<String> = steps.take(PRESENT_COUNT_MAX).collect();
        format!(
            "{} …    {}; {}{}",
            clock(self.at.as_millis()),
            steps.join(", "),
            self.states(self.nodes.iter()),
            self.load()
                .map_or_else(String::new, |load| format!("; {load}"))
        )
    }

    /// The lines for a terminal of this size: none is wider, and one row stays free for the cursor.
    pub(super) fn lines(&self, size: Size) -> Vec<String> {
        let room = size.height.saturating_sub(1);
        let mut head = vec![format!(
            "{} of {} s  {}",
            clock(self.at.as_millis()),
            self.limit.as_secs(),
            shown(&self.title, TEXT_CHARS_MAX)
        )];
        let present: Vec<&Present> = self.innermost().collect();
        for step in present.iter().take(PRESENT_COUNT_MAX) {
            head.push(format!("  now  {}", self.step(step)));
        }
        if let Some(more) = present.len().checked_sub(PRESENT_COUNT_MAX + 1) {
            head.push(format!("  now  and {} more steps", more + 1));
        }
        let mut foot: Vec<String> = self.recent.iter().cloned().collect();
        foot.extend(self.load().map(|load| format!("  load {load}")));
        // What ended is the least of it.
        while head.len() + foot.len() + self.nodes.len().min(1) > room && !foot.is_empty() {
            foot.remove(0);
        }
        let rows = room.saturating_sub(head.len() + foot.len());
        head.extend(self.node_lines(rows));
        head.extend(foot);
        head.truncate(room);
        head.iter().map(|line| fitted(line, size.width)).collect()
    }

    fn innermost(&self) -> impl Iterator<Item = &Present> {
        self.present.iter().filter(|step| {
            let inside = format!("{}.", step.path);
            let mut others = self.present.iter();
            !others.any(|other| other.path.starts_with(&inside))
        })
    }

    fn step(&self, step: &Present) -> String {
        let took = self.at.saturating_sub(step.began).as_secs_f64();
        let limit = step.within.map_or_else(String::new, |within| {
            format!(" of {}", within.as_secs_f64())
        });
        format!(
            "{}{} {} {took:.1}{limit} s",
            step.path,
            rounds(&step.rounds),
            shown(&step.title, TEXT_CHARS_MAX)
        )
    }

    fn load(&self) -> Option<String> {
        let Tally {
            accepted, received, ..
        } = self.tally;
        (accepted > 0).then(|| format!("accepted {accepted}, received {received}"))
    }

    fn states<'n>(&self, nodes: impl Iterator<Item = &'n NodeRow> + Clone) -> String {
        let counts = State::ALL.iter().filter_map(|state| {
            let count = nodes.clone().filter(|node| node.state == *state).count();
            (count > 0).then(|| format!("{count} {}", state.word()))
        });
        let counts: Vec<String> = counts.collect();
        if counts.is_empty() {
            return "no nodes".to_owned();
        }
        counts.join(", ")
    }

    fn node_lines(&self, rows: usize) -> Vec<String> {
        let width = self.nodes.iter().map(|node| node.name.len()).max();
        let width = width.unwrap_or_default();
        let line = |node: &NodeRow| {
            let restarts = match node.restarts {
                0 => String::new(),
                1 => "1 restart".to_owned(),
                count => format!("{count} restarts"),
            };
            let line = format!(
                "  {:<width$}  {:<8}  {restarts}",
                node.name,
                node.state.word()
            );
            line.trim_end().to_owned()
        };
        if self.nodes.len() <= rows {
            return self.nodes.iter().map(line).collect();
        }
        let Some(whole) = rows.checked_sub(1) else {
            return Vec::new();
        };
        let mut lines: Vec<String> = self.nodes.iter().take(whole).map(line).collect();
        let rest = self.nodes.iter().skip(whole);
        lines.push(format!("  and {} more: {}", rest.len(), self.states(rest)));
        lines
    }
}

/// Which round, behind a path.
pub(super) fn rounds(rounds: &[u64]) -> String {
    rounds.iter().map(|round| format!(" #{round}")).collect()
}

/// As much of a line as has room. A letter that is not ASCII may be two columns wide.
fn fitted(line: &str, width: usize) -> String {
    let mut left = width;
    let mut fitting = String::new();
    for c in line.chars() {
        let columns = if c.is_ascii() { 1 } else { 2 };
        if columns > left {
            break;
        }
        left -= columns;
        fitting.push(c);
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn node(name: &str, state: State, restarts: u32) -> NodeRow {
        NodeRow {
            name: name.to_owned(),
            state,
            restarts,
        }
    }

    fn present(path: &str, within: Option<u64>) -> Present {
        Present {
            path: path.to_owned(),
            rounds: Vec::new(),
            title: "wait status".to_owned(),
            began: Duration::from_secs(10),
            within: within.map(Duration::from_secs),
        }
    }

    fn board() -> Board {
        let mut board = Board {
            title: "flapping link, seed 7".to_owned(),
            at: Duration::from_millis(12_340),
            limit: Duration::from_secs(60),
            nodes: vec![
                node("left", State::Running, 0),
                node("right", State::Stopped, 2),
                node("spoke", State::Paused, 1),
            ],
            ..Board::default()
        };
        board.began(present("steps[4]", None));
        let mut inner = present("steps[4].steps[1]", Some(20));
        inner.rounds = vec![3];
        board.began(inner);
        board.tally.accepted = 1_200;
        board.tally.received = 1_180;
        board
    }

    const LARGE: Size = Size {
        width: 80,
        height: 24,
    };

    #[test]
    fn nodes_steps_and_loads_have_their_lines() {
        let mut board = board();
        board.ended(&samples::step("steps[3]", Outcome::Passed));
        assert_eq!(
            board.lines(LARGE),
            [
                "  0:12.3 of 60 s  flapping link, seed 7",
                "  now  steps[4].steps[1] #3 wait status 2.3 of 20 s",
                "  left   running",
                "  right  stopped   2 restarts",
                "  spoke  paused    1 restart",
                "  ok   kill left 1.50 s  steps[3]",
                "  load accepted 1200, received 1180",
            ]
        );
        assert_eq!(
            board.heartbeat(),
            "  0:12.3 …    steps[4].steps[1] #3 wait status 2.3 of 20 s; 1 running, 1 paused, 1 stopped; accepted 1200, received 1180"
        );
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_terminal() {
        let mut board = board();
        board.nodes = (0..50)
            .map(|number| node(&format!("spoke{number}"), State::Running, number))
            .collect();
        board.title = "ü".repeat(300);
        for number in 0..9 {
            board.began(present(&format!("steps[5].parallel[{number}]"), None));
        }
        for height in [0, 1, 2, 5, 9, 24] {
            for width in [0, 1, 20, 80] {
                let lines = board.lines(Size { width, height });
                assert!(lines.len() <= height.saturating_sub(1), "{lines:?}");
                assert!(lines.iter().all(|line| line.chars().count() <= width));
            }
        }
        let lines = board.lines(LARGE);
        assert_eq!(lines.len(), 23);
        assert!(
            lines.contains(&"  now  and 6 more steps".to_owned()),
            "{lines:?}"
        );
        assert_eq!(lines[21], "  and 35 more: 35 running");
    }

    #[test]
    fn a_step_that_ended_is_not_under_way_nor_is_what_was_in_it() {
        let mut board = board();
        board.began(present("steps[41]", None));
        board.ended(&samples::step("steps[4]", Outcome::Failed("no".into())));
        let paths: Vec<&str> = board
            .present
            .iter()
            .map(|step| step.path.as_str())
            .collect();
        assert_eq!(paths, ["steps[41]"]);
    }
}
