//! What is shown while a scenario runs: a table that moves on a terminal, a line for each step in a
//! file, or one JSON line a step.
//!
//! A file gets a line for each step of the scenario itself, for what failed wherever it stands, and
//! every ten seconds one that says what is under way; ten thousand rounds of a storm do not flood it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::board::{Board, NodeRow, Present, Size};
use super::{Outcome, RunReport, StepRecord, clock, schema};
use crate::api::Document;
use crate::lab::Scenario;
use crate::lab::machine::Machine;
use crate::lab::runner::Happening;
use crate::lab::scenario::place::shown;

/// Columns of the title.
const TITLE_CHARS: usize = 44;
/// Letters of one line of a reason.
const LINE_CHARS_MAX: usize = 4_096;
/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Between two lines that only say that something is under way.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Writes what happens. Whoever reads may have gone; that ends no scenario.
#[derive(Debug)]
pub struct Live<W: Write> {
    out: W,
    form: Form,
    board: Board,
    seed: u64,
    /// Lines of the table that stand above the cursor.
    drawn: usize,
    last_drawn: Option<Instant>,
    last_line: Duration,
    /// The step whose failure was told with its reason.
    failed: Option<String>,
    is_cursor_hidden: bool,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// For people, on a terminal whose last lines may be written over; tells its size.
    Terminal(fn() -> Size),
    /// For people, in a file.
    Plain,
    /// One document a line.
    Lines,
}

/// What a run is, before anything of it happens: enough to repeat it.
#[derive(Debug, Serialize)]
struct Begin<'a> {
    scenario: &'a str,
    file: &'a std::path::Path,
    seed: u64,
    folder: &'a std::path::Path,
    nodes: Vec<&'a str>,
}

impl<W: Write> Live<W> {
    /// For people, in a file.
    pub fn plain(out: W) -> Live<W> {
        Live::new(out, Form::Plain)
    }

    /// For people, with a table that is drawn again and again as large as `size` says.
    pub fn terminal(out: W, size: fn() -> Size) -> Live<W> {
        Live::new(out, Form::Terminal(size))
    }

    /// For programs.
    pub fn lines(out: W) -> Live<W> {
        Live::new(out, Form::Lines)
    }

    fn new(out: W, form: Form) -> Live<W> {
        Live {
            out,
            form,
            board: Board::default(),
            seed: 0,
            drawn: 0,
            last_drawn: None,
            last_line: Duration::ZERO,
            failed: None,
            is_cursor_hidden: false,
        }
    }

    /// Shows what happens in a run of this scenario.
    pub fn happens(&mut self, scenario: &Scenario, happening: &Happening<'_>) {
        match happening {
            Happening::Built {
                seed,
                folder,
                nodes,
            } => self.built(scenario, *seed, folder, nodes),
            Happening::Began { step, rounds, at } => {
                self.board.at = *at;
                self.board.began(Present {
                    path: step.path.clone(),
                    rounds: rounds.to_vec(),
                    title: step.title.clone(),
                    began: *at,
                    within: step.within,
                });
                self.draw(false);
            }
            Happening::Ended(record) => self.ended(record),
            Happening::Tick { at, nodes, tally } => {
                self.board.at = *at;
                self.board.tally = *tally;
                self.look_at(nodes);
                self.beat();
                self.draw(true);
            }
        }
    }

    fn built(
        &mut self,
        scenario: &Scenario,
        seed: u64,
        folder: &std::path::Path,
        nodes: &[Arc<Machine>],
    ) {
        self.seed = seed;
        self.board.title = format!("{}, seed {seed}", scenario.name);
        self.board.limit = scenario.timeout;
        self.look_at(nodes);
        if let Form::Lines = self.form {
            let begin = Begin {
                scenario: &scenario.name,
                file: &scenario.path,
                seed,
                folder,
                nodes: nodes.iter().map(|node| node.name()).collect(),
            };
            self.document(schema::BEGIN, begin);
            return;
        }
        let text = format!("{}, seed {seed}, in {}", scenario.name, folder.display());
        self.say(&shown(&text, LINE_CHARS_MAX));
        self.draw(true);
    }

    fn look_at(&mut self, nodes: &[Arc<Machine>]) {
        self.board.nodes = nodes.iter().map(|node| NodeRow::of(node)).collect();
    }

    fn ended(&mut self, step: &StepRecord) {
        if let Form::Lines = self.form {
            self.document(schema::STEP, step);
            return;
        }
        self.board.at = step.began.saturating_add(step.took);
        self.board.ended(step);
        if step.outcome == Outcome::Passed && step.path.contains('.') {
            self.draw(false);
            return;
        }
        let sign = match step.outcome {
            Outcome::Passed => "ok  ",
            Outcome::Failed(_) => "FAIL",
            Outcome::Skipped(_) => "skip",
        };
        let began = clock(step.began.as_millis());
        let title: String = shown(&step.title, TITLE_CHARS - 1);
        let seconds = step.took.as_secs_f64();
        let line = format!(
            "{began} {sign} {title:<TITLE_CHARS$} {seconds:>7.2} s  {}",
            step.path
        );
        let mut lines = vec![line];
        if let Outcome::Failed(reason) | Outcome::Skipped(reason) = &step.outcome {
            let inside = format!("{}.", step.path);
            match &self.failed {
                Some(path) if path.starts_with(&inside) => {
                    lines.push(format!("          inside {path}"));
                }
                _ => {
                    let reason = reason.lines().map(|line| shown(line, LINE_CHARS_MAX));
                    lines.extend(reason.map(|line| format!("          {line}")));
                    self.failed = Some(step.path.clone());
                }
            }
        }
        self.say(&lines.join("\n"));
        self.draw(false);
    }

    /// The scenario ended.
    pub fn finished(&mut self, report: &RunReport) {
        if let Form::Lines = self.form {
            self.document(schema::RUN, report);
            return;
        }
        self.wipe();
        self.show_cursor();
        let mut lines = report.summary();
        if let Some(folder) = &report.folder {
            lines.push_str(&format!("\nlook into {}", folder.display()));
        }
        for line in lines.lines() {
            self.say(&shown(line, LINE_CHARS_MAX));
        }
    }

    /// Says that something is under way, where nothing else said it for a while.
    fn beat(&mut self) {
        let is_due = self.board.at.saturating_sub(self.last_line) >= HEARTBEAT;
        if matches!(self.form, Form::Plain) && is_due {
            let line = self.board.heartbeat();
            self.say(&shown(&line, LINE_CHARS_MAX));
        }
    }

    /// Lines that stay, above the table.
    fn say(&mut self, lines: &str) {
        self.wipe();
        let _ = writeln!(self.out, "{lines}");
        let _ = self.out.flush();
        self.last_line = self.board.at;
    }

    fn draw(&mut self, is_tick: bool) {
        let Form::Terminal(size) = self.form else {
            return;
        };
        let is_soon = |last: Instant| last.elapsed() < DRAW_EVERY;
        if !is_tick && self.drawn > 0 && self.last_drawn.is_some_and(is_soon) {
            return;
        }
        self.wipe();
        let lines = self.board.lines(size());
        if !self.is_cursor_hidden {
            let _ = write!(self.out, "\x1b[?25l");
            self.is_cursor_hidden = true;
        }
        for line in &lines {
            let _ = writeln!(self.out, "{line}");
        }
        let _ = self.out.flush();
        self.drawn = lines.len();
        self.last_drawn = Some(Instant::now());
    }

    /// Takes the table away; the cursor stands where it began.
    fn wipe(&mut self) {
        if self.drawn > 0 {
            let _ = write!(self.out, "\x1b[{}A\r\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn show_cursor(&mut self) {
        if self.is_cursor_hidden {
            let _ = write!(self.out, "\x1b[?25h");
            let _ = self.out.flush();
            self.is_cursor_hidden = false;
        }
    }

    fn document<T: Serialize>(&mut self, schema: &'static str, value: T) {
        if let Ok(text) = serde_json::to_string(&Document::new(schema, value)) {
            let _ = writeln!(self.out, "{text}");
            let _ = self.out.flush();
        }
    }
}

impl<W: Write> Drop for Live<W> {
    // A run that is broken off must not leave a terminal without a cursor.
    fn drop(&mut self) {
        self.show_cursor();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};

    use super::super::samples::{run, step};
    use super::*;
    use crate::lab::ledger::Tally;

    /// What was written, which outlives its writer.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Paper {
        fn text(&self) -> String {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut paper = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            paper.write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn scenario() -> Scenario {
        let text = "name = \"flapping link\"\nnodes = [\"left\"]\nsteps = [{ kill = \"left\" }]\n";
        Scenario::parse(Path::new("flap.toml"), text.as_bytes()).expect("a scenario")
    }

    fn small() -> Size {
        Size {
            width: 60,
            height: 10,
        }
    }

    /// Shows a run, and what was on the paper when it was over.
    fn shown_by(make: impl FnOnce(Paper) -> Live<Paper>) -> String {
        let paper = Paper::default();
        let scenario = scenario();
        let mut live = make(paper.clone());
        let tick = |seconds| Happening::Tick {
            at: Duration::from_secs(seconds),
            nodes: &[],
            tally: Tally::default(),
        };
        let folder = Path::new("/tmp/lab-1");
        let mut happens = |happening: &Happening<'_>| live.happens(&scenario, happening);
        happens(&Happening::Built {
            seed: 7,
            folder,
            nodes: &[],
        });
        happens(&Happening::Began {
            step: &scenario.steps[0],
            rounds: &[],
            at: Duration::from_millis(250),
        });
        happens(&tick(1));
        happens(&Happening::Ended(&step("steps[0]", Outcome::Passed)));
        let mut round = step("steps[1].steps[0]", Outcome::Passed);
        round.rounds = vec![1];
        happens(&Happening::Ended(&round));
        happens(&tick(9));
        happens(&tick(12));
        let inner = step("steps[2].steps[0]", Outcome::Failed("seen: \u{1b}3".into()));
        happens(&Happening::Ended(&inner));
        let outer = step("steps[2]", Outcome::Failed("seen: \u{1b}3".into()));
        happens(&Happening::Ended(&outer));
        live.finished(&run(Outcome::Passed, Vec::new()));
        drop(live);
        paper.text()
    }

    #[test]
    fn people_see_the_seed_first_then_a_line_a_step_and_the_reason_once() {
        let text = shown_by(Live::plain);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "flapping link, seed 7, in /tmp/lab-1",
                "  0:00.2 ok   kill left                                       1.50 s  steps[0]",
                "  0:12.0 …    ; no nodes",
                "  0:00.2 FAIL kill left                                       1.50 s  steps[2].steps[0]",
                "          seen: \\u{1b}3",
                "  0:00.2 FAIL kill left                                       1.50 s  steps[2]",
                "          inside steps[2].steps[0]",
                "passed flapping link in 12.3 s, seed 7",
            ]
        );
    }

    #[test]
    fn a_terminal_shows_a_table_that_moves_and_gets_its_cursor_back() {
        let text = shown_by(|paper| Live::terminal(paper, small));
        let table = "\x1b[?25l  0:00.0 of 60 s  flapping link, seed 7\n";
        assert!(text.contains(table), "{text:?}");
        assert!(text.contains("\x1b[1A\r\x1b[J"), "{text:?}");
        assert!(
            text.contains("  now  steps[0] kill left 0.8 of 10 s\n"),
            "{text:?}"
        );
        assert!(text.ends_with("\x1b[J\x1b[?25hpassed flapping link in 12.3 s, seed 7\n"));
    }

    #[test]
    fn a_run_that_is_broken_off_gives_the_cursor_back() {
        let paper = Paper::default();
        let mut live = Live::terminal(paper.clone(), small);
        let began = Happening::Began {
            step: &scenario().steps[0],
            rounds: &[],
            at: Duration::ZERO,
        };
        live.happens(&scenario(), &began);
        drop(live);
        assert!(paper.text().ends_with("\x1b[?25h"), "{:?}", paper.text());
    }

    #[test]
    fn programs_get_a_document_a_line() {
        let text = shown_by(Live::lines);
        let schemas: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a document"))
            .map(|document| document["schema"].as_str().unwrap_or_default().to_owned())
            .collect();
        let step = schema::STEP;
        assert_eq!(
            schemas,
            [schema::BEGIN, step, step, step, step, schema::RUN]
        );
    }
}
