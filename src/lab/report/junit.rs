//! Reports as JUnit XML, which every CI system shows: one suite a scenario, one case a step.

use std::fmt::Write as _;
use std::path::Path;

use super::board::rounds;
use super::{Outcome, RunReport, StepRecord};

/// Steps of one scenario in the file; a storm of ten thousand kills would make it unreadable.
const CASES_COUNT_MAX: usize = 1_000;

/// The XML text of these reports.
#[must_use]
pub fn junit(reports: &[RunReport]) -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"packhorse lab\">\n",
    );
    for report in reports {
        suite(&mut xml, report);
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// One test case of a suite.
struct Case<'a> {
    title: String,
    seconds: f64,
    /// The file and the line in it.
    place: Option<(&'a Path, usize)>,
    verdict: Verdict<'a>,
}

enum Verdict<'a> {
    Passed,
    Failed(&'a str),
    Skipped(&'a str),
    /// A step inside it failed or was skipped, and has a case of its own.
    Inside(&'a str),
}

impl<'a> Verdict<'a> {
    fn of(outcome: &'a Outcome) -> Verdict<'a> {
        match outcome {
            Outcome::Passed => Verdict::Passed,
            Outcome::Failed(reason) => Verdict::Failed(reason),
            Outcome::Skipped(reason) => Verdict::Skipped(reason),
        }
    }

    /// The same, but for a step that failed or was skipped because of one inside it.
    fn of_step(step: &'a StepRecord, all: &'a [StepRecord]) -> Verdict<'a> {
        if step.outcome == Outcome::Passed {
            return Verdict::Passed;
        }
        let path = format!("{}.", step.path);
        let culprit = all.iter().find(|other| {
            other.path.starts_with(&path)
                && other.rounds.starts_with(&step.rounds)
                && other.outcome.word() == step.outcome.word()
        });
        culprit.map_or(Verdict::of(&step.outcome), |other| {
            Verdict::Inside(&other.path)
        })
    }
}

fn suite(xml: &mut String, report: &RunReport) {
    // What did not pass is never cut off.
    let shown = report
        .steps
        .iter()
        .enumerate()
        .filter(|(index, step)| *index < CASES_COUNT_MAX || step.outcome != Outcome::Passed)
        .map(|(_, step)| step);
    let mut cases: Vec<Case<'_>> = shown
        .map(|step| {
            let rounds = rounds(&step.rounds);
            Case {
                title: format!("{}{rounds} {}", step.path, step.title),
                seconds: step.took.as_secs_f64(),
                place: Some((&report.file, step.line.line)),
                verdict: Verdict::of_step(step, &report.steps),
            }
        })
        .collect();
    let shown_count = u64::try_from(cases.len()).unwrap_or(u64::MAX);
    let left_out = report.steps_count.saturating_sub(shown_count);
    // A scenario that failed or was skipped outside of any step still has to show.
    let is_told = match report.outcome {
        Outcome::Passed => !cases.is_empty(),
        Outcome::Failed(_) => count(&cases, |it| matches!(it, Verdict::Failed(_))) > 0,
        Outcome::Skipped(_) => count(&cases, |it| matches!(it, Verdict::Skipped(_))) > 0,
    };
    let seconds = report.took.as_secs_f64();
    if !is_told {
        cases.push(Case {
            title: "scenario".to_owned(),
            seconds,
            place: None,
            verdict: Verdict::of(&report.outcome),
        });
    }
    let name = escaped(&report.scenario);
    let tests = cases.len();
    let failures = count(&cases, |it| matches!(it, Verdict::Failed(_)));
    let skipped = count(&cases, |it| matches!(it, Verdict::Skipped(_)));
    // A string takes everything.
    let _ = writeln!(
        xml,
        "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{seconds:.3}\">"
    );
    let _ = writeln!(
        xml,
        "    <properties><property name=\"seed\" value=\"{}\"/><property name=\"steps_left_out\" value=\"{left_out}\"/></properties>",
        report.seed
    );
    for case in &cases {
        write_case(xml, &name, case);
    }
    let mut out = report.summary();
    if let Some(folder) = &report.folder {
        let _ = write!(out, "\nfolder: {}", folder.display());
    }
    let _ = writeln!(xml, "    <system-out>{}</system-out>", escaped(&out));
    xml.push_str("  </testsuite>\n");
}

fn count(cases: &[Case<'_>], is_it: impl Fn(&Verdict<'_>) -> bool) -> usize {
    cases.iter().filter(|case| is_it(&case.verdict)).count()
}

fn write_case(xml: &mut String, suite: &str, case: &Case<'_>) {
    let place = case.place.map_or_else(String::new, |(file, line)| {
        let file = escaped(&file.to_string_lossy());
        format!(" file=\"{file}\" line=\"{line}\"")
    });
    let title = escaped(&case.title);
    let seconds = case.seconds;
    let head = format!(
        "    <testcase name=\"{title}\" classname=\"{suite}\"{place} time=\"{seconds:.3}\""
    );
    let _ = match case.verdict {
        Verdict::Passed => writeln!(xml, "{head}/>"),
        Verdict::Failed(reason) => writeln!(
            xml,
            "{head}><failure message=\"{}\">{}</failure></testcase>",
            escaped(reason.lines().next().unwrap_or_default()),
            escaped(reason)
        ),
        Verdict::Skipped(reason) => writeln!(
            xml,
            "{head}><skipped message=\"{}\"/></testcase>",
            escaped(reason)
        ),
        Verdict::Inside(path) => writeln!(
            xml,
            "{head}><system-out>inside {}</system-out></testcase>",
            escaped(path)
        ),
    };
}

/// Text as XML 1.0 may hold it; control characters have no form there, so they are written out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                escaped.extend(c.escape_default());
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::samples::{run, step};
    use super::*;

    #[test]
    fn a_report_is_a_suite_with_a_case_a_step() {
        let steps = vec![
            step("steps[0]", Outcome::Passed),
            step("steps[1]", Outcome::Failed("a < b\n\"last\" \u{7}".into())),
        ];
        let xml = junit(&[run(Outcome::Failed("steps[1]: a < b".into()), steps)]);
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="packhorse lab">
  <testsuite name="flapping link" tests="2" failures="1" errors="0" skipped="0" time="12.340">
    <properties><property name="seed" value="7"/><property name="steps_left_out" value="0"/></properties>
    <testcase name="steps[0] kill left" classname="flapping link" file="flap.toml" line="7" time="1.500"/>
    <testcase name="steps[1] kill left" classname="flapping link" file="flap.toml" line="7" time="1.500"><failure message="a &lt; b">a &lt; b&#10;&quot;last&quot; \u{7}</failure></testcase>
    <system-out>failed flapping link in 12.3 s, seed 7: steps[1]: a &lt; b</system-out>
  </testsuite>
</testsuites>
"#;
        assert_eq!(xml, expected);
    }

    #[test]
    fn a_failure_deep_inside_counts_once() {
        let failed = || Outcome::Failed("steps[1].steps[0]: no".into());
        let mut inner = step("steps[1].steps[0]", failed());
        inner.rounds = vec![4];
        let steps = vec![
            step("steps[0]", Outcome::Passed),
            inner,
            step("steps[1]", failed()),
        ];
        let mut report = run(failed(), steps);
        report.steps_count = 12;
        let xml = junit(&[report]);
        assert!(xml.contains("tests=\"3\" failures=\"1\""), "{xml}");
        assert!(
            xml.contains("<system-out>inside steps[1].steps[0]</system-out>"),
            "{xml}"
        );
        assert!(xml.contains("name=\"steps_left_out\" value=\"9\""), "{xml}");
    }

    #[test]
    fn a_skipped_step_counts_as_one() {
        let steps = vec![
            step("steps[0]", Outcome::Passed),
            step("steps[1]", Outcome::Skipped("no tmpfs".into())),
        ];
        let xml = junit(&[run(Outcome::Skipped("no tmpfs".into()), steps)]);
        assert!(
            xml.contains("tests=\"2\" failures=\"0\" errors=\"0\" skipped=\"1\""),
            "{xml}"
        );
    }

    #[test]
    fn a_skipped_scenario_shows_as_one_case() {
        let xml = junit(&[run(Outcome::Skipped("no tmpfs".into()), Vec::new())]);
        assert!(
            xml.contains("tests=\"1\" failures=\"0\" errors=\"0\" skipped=\"1\""),
            "{xml}"
        );
        assert!(xml.contains("<skipped message=\"no tmpfs\"/>"), "{xml}");
    }

    #[test]
    fn a_failure_outside_of_steps_shows_too() {
        let steps = vec![step("steps[0]", Outcome::Passed)];
        let xml = junit(&[run(Outcome::Failed("the time is over".into()), steps)]);
        assert!(xml.contains("tests=\"2\" failures=\"1\""), "{xml}");
    }
}
