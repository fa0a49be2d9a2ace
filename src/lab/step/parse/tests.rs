//! Steps as people write them, right and wrong.

use super::*;
use crate::lab::Scenario;

const HEAD: &str = "name = \"t\"\nnodes = [\"left\", \"right\", { name = \"spoke\", count = 3, disk = \"320MiB\" }]\n";

#[test]
fn every_example_of_the_table_is_a_step_of_that_name() {
    for doc in STEPS {
        // A load alone would be refused, since nobody would look at its books, and so would a
        // copy that nobody makes.
        let text = format!(
            "{HEAD}steps = [{}, {{ settle = \"1s\" }}, {{ copy_store = \"left\", as = \"monday\" }}]\n",
            doc.example
        );
        let parsed = Scenario::parse("t.toml".as_ref(), text.as_bytes());
        let scenario = parsed.unwrap_or_else(|error| panic!("{}: {error}", doc.name));
        assert_eq!(scenario.steps[0].name, doc.name);
        assert_eq!(scenario.steps[0].path, "steps[0]");
    }
}

#[test]
fn what_would_fail_in_the_middle_is_refused_where_it_stands() {
    let cases = [
        (
            "{ choose = [{ kill = \"left\" }, { kill = \"right\" }], weights = [9_223_372_036_854_775_807, 9_223_372_036_854_775_807] }",
            "t.toml:3:72: `weights` holds 9223372036854775807, the limit of each is 1000000",
        ),
        (
            "{ choose = [{ kill = \"left\" }], weights = [0] }",
            "t.toml:3:52: `weights` needs one number for each of the 1 steps, not all 0",
        ),
        (
            "{ corrupt = \"left\", bytes = 64_000 }",
            "t.toml:3:38: `bytes` is 64000, the limit is 10000",
        ),
        (
            "{ copy_store = \"left\", as = \"../x\" }",
            "t.toml:3:38: `as`: `../x` cannot name a copy: 64 letters, digits, - and _ at most",
        ),
        (
            "{ work = \"t\", on = \"left\", exec = \"cat\", lease = \"500ms\" }",
            "t.toml:3:59: `lease` is 500ms, it must be from 1s to 1h",
        ),
        (
            "{ impair = \"left\", latency = \"2m\" }",
            "t.toml:3:39: a latency of 2m is over the limit of 1m",
        ),
        (
            "{ impair = \"left\" }",
            "t.toml:3:21: `impair` says nothing of how: latency, jitter, loss, duplicate, reorder or rate",
        ),
        (
            "{ pair = \"left\" }",
            "t.toml:3:19: `pair` needs two nodes, or `with` for the other side",
        ),
        (
            "{ crash = \"inbox\", on = \"left\", fault = \"flood\" }",
            "t.toml:3:50: `fault` must be a fault: panic, error, kill or hang, found the text \"flood\"",
        ),
    ];
    let judged = cases.map(|(step, _)| {
        let text = format!("{HEAD}steps = [{step}]\n");
        let parsed = Scenario::parse("t.toml".as_ref(), text.as_bytes());
        parsed.expect_err(step).to_string()
    });
    assert_eq!(judged, cases.map(|(_, expected)| expected));
}

#[test]
fn steps_have_paths_and_places_and_titles() {
    let text = format!(
        "{HEAD}steps = [\n  {{ parallel = [\n    {{ kill = \"left\" }},\n    {{ start = [\"left\", \"right\"], note = \"again\" }},\n  ] }},\n]\n"
    );
    let scenario = Scenario::parse("t.toml".as_ref(), text.as_bytes()).expect("a scenario");
    let inner = scenario.steps[0].inner();
    let seen: Vec<_> = inner
        .iter()
        .map(|step| {
            (
                step.path.as_str(),
                step.place.to_string(),
                step.title.as_str(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("steps[0].parallel[0]", "5:7".to_owned(), "kill left"),
            ("steps[0].parallel[1]", "6:7".to_owned(), "again"),
        ]
    );
    assert_eq!(inner[0].within, Some(Duration::from_secs(10)));
}
