//! What may be typed: every command with words that cannot be right.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::Scene;
use crate::support::command::run;
use crate::support::{Output, packhorse};

const KIB: usize = 1 << 10;

/// Runs a table of lines, and shows all that went wrong at once.
#[track_caller]
fn check(scene: &Scene, cases: &[(&[&str], i32, &str)]) {
    let mut wrong = Vec::new();
    for (words, code, says) in cases {
        let output = scene.left.cli(words);
        if let Some(reason) = fault(&output, *code, says) {
            let line: Vec<String> = words.iter().map(|word| cut(word)).collect();
            wrong.push(format!("{}: {reason}", line.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.is_as_it_was();
}

/// What is wrong with how a command refused.
fn fault(output: &Output, code: i32, says: &str) -> Option<String> {
    let text = &output.stderr;
    let shown = || cut(text);
    if output.code != Some(code) {
        return Some(format!("{:?} instead of {code}: {}", output.code, shown()));
    }
    if !output.stdout.is_empty() {
        return Some(format!(
            "it printed {:?}",
            cut(&String::from_utf8_lossy(&output.stdout))
        ));
    }
    if !text.to_lowercase().contains(&says.to_lowercase()) {
        return Some(format!("no {says:?} in: {}", shown()));
    }
    // What was typed comes back on the terminal: it must not steer it.
    let steers = |letter: char| letter.is_control() && letter != '\n';
    let found = text.chars().find(|letter| steers(*letter))?;
    Some(format!("{found:?} on stderr: {}", shown()))
}

fn cut(text: &str) -> String {
    text.chars()
        .take(300)
        .flat_map(char::escape_debug)
        .collect()
}

#[test]
fn names_that_are_none_are_usage_errors() {
    let scene = Scene::new();
    let long = "n".repeat(65);
    let ticket = scene.ticket.as_str();
    check(
        &scene,
        &[
            (&["join", ticket, "--name", "a\u{1b}[2Jb"], 2, "control"),
            (&["join", ticket, "--name", "a\nb"], 2, "control"),
            (&["join", ticket, "--name", "a\u{202e}b"], 2, "control"),
            (&["join", ticket, "--name", ""], 2, "name"),
            (&["join", ticket, "--name", &long], 2, "64"),
            (&["up", "--name", "a\u{7}b"], 2, "control"),
            (&["up", "--name", ""], 2, "name"),
            (&["up", "--name", &long], 2, "64"),
            (&["send", "nobody", "orders", "hay"], 4, "nobody"),
            (&["send", "no\u{1b}[31mbody", "orders", "hay"], 4, "no"),
            (&["send", "", "orders", "hay"], 4, "peer"),
            (
                &["send", "phn1qqqqqqqqqq", "orders", "hay"],
                4,
                "phn1qqqqqqqqqq",
            ),
            (&["ping", "nobody"], 4, "nobody"),
            (&["why", "peer", "nobody"], 4, "nobody"),
            (&["outbox", "list", "--peer", "nobody"], 4, "nobody"),
        ],
    );
}

#[test]
fn topics_payloads_and_headers_over_their_limits_are_usage_errors() {
    let scene = Scene::new();
    let topic = "t".repeat(257);
    let key = "k".repeat(257);
    let value = format!("n:{}", "v".repeat(4 * KIB));
    let mut many = vec!["send", "right", "orders", "hay"];
    many.extend(["--header", "a:b"].repeat(65));
    check(
        &scene,
        &[
            (&["send", "right", "", "hay"], 2, "topic is empty"),
            (&["send", "right", "a\nb", "hay"], 2, "control character"),
            (&["send", "right", &topic, "hay"], 2, "256"),
            (&["send", "right", "orders", "@"], 2, ""),
            (&["send", "right", "orders", "@/"], 2, ""),
            (
                &["send", "right", "orders", "@/no/such/file"],
                2,
                "/no/such/file",
            ),
            (&["send", "right", "orders", "hay", "--id", ""], 2, "key"),
            (&["send", "right", "orders", "hay", "--id", &key], 2, "256"),
            (&["send", "right", "orders", "hay", "--id", "key"], 5, "key"),
            (&["send", "right", "orders", "hay", "--replace"], 2, "--id"),
            (
                &["send", "right", "orders", "hay", "--class", "purple"],
                2,
                "purple",
            ),
            (
                &["send", "right", "orders", "hay", "--header", "novalue"],
                2,
                "novalue",
            ),
            (
                &["send", "right", "orders", "hay", "--header", ":v"],
                2,
                "header",
            ),
            (
                &["send", "right", "orders", "hay", "--header", "a\nb:v"],
                2,
                "header",
            ),
            (
                &["send", "right", "orders", "hay", "--header", &value],
                2,
                "4096",
            ),
            (&many, 2, "64"),
            (
                &["send", "right", "orders", "hay", "--wait", "soon"],
                2,
                "soon",
            ),
            (
                &["send", "right", "orders", "hay", "--reply-to", "a\nb"],
                2,
                "",
            ),
            (&["receive", ""], 2, "topic"),
            (&["work", "", "--exec", "true"], 2, "topic"),
            (&["work", "orders", "--exec", ""], 2, "empty command"),
            (&["work", "orders", "--exec", " \n"], 2, "empty command"),
        ],
    );
    let over = vec![b'x'; KIB * KIB + 1];
    let words = ["send", "right", "orders", "-"];
    let output = scene.left.cli_with(&words, over.clone()).expect(2);
    output.says("1048576").prints_nothing();
    let words = ["send", "right", "--lines", "orders"];
    let output = scene.left.cli_with(&words, over).expect(2);
    output.says("1048576");
    scene.is_as_it_was();
}

#[test]
fn absurd_numbers_and_durations_are_usage_errors() {
    let scene = Scene::new();
    let huge = "99999999999999999999999";
    let durations = [
        "",
        "0",
        "0s",
        "never",
        "5 parsecs",
        "1e999s",
        "99999999y",
        "\u{1b}m",
    ];
    let send = ["send", "right", "orders", "hay"];
    let mut lines: Vec<(Vec<&str>, &str)> = Vec::new();
    for duration in durations {
        lines.push((vec!["invite", "--expires", duration], "--expires"));
        lines.push(([&send[..], &["--expires", duration]].concat(), "--expires"));
        lines.push((
            vec!["receive", "orders", "--wait", "--timeout", duration],
            "--timeout",
        ));
        lines.push((
            vec!["work", "orders", "--exec", "true", "--lease", duration],
            "--lease",
        ));
    }
    for number in ["0", "x", "1.5", "", huge] {
        lines.push((vec!["invite", "--uses", number], "--uses"));
        lines.push((vec!["receive", "orders", "--count", number], "--count"));
        lines.push((
            vec!["work", "orders", "--exec", "true", "--jobs", number],
            "--jobs",
        ));
    }
    for number in ["x", "1.5", "", huge, "10001"] {
        for list in ["outbox", "inbox", "dead"] {
            lines.push((vec![list, "list", "--limit", number], "limit"));
        }
    }
    lines.push((vec!["invite", "--uses", "4294967296"], "--uses"));
    lines.push((vec!["events", "--since", huge], "--since"));
    // What begins with a dash is taken for another word, and named as such.
    for flag in ["--expires", "--uses"] {
        lines.push((vec!["invite", flag, "-5"], "'-5'"));
    }
    lines.push((vec!["outbox", "list", "--limit", "-5"], "'-5'"));
    let cases: Vec<(&[&str], i32, &str)> = lines
        .iter()
        .map(|(words, says)| (&words[..], 2, *says))
        .collect();
    check(&scene, &cases);
}

#[test]
fn tickets_grants_and_ids_that_are_none_are_usage_errors() {
    let scene = Scene::new();
    let ticket = scene.ticket.as_str();
    let id = scene.left.id();
    let mut mixed = ticket.to_owned();
    mixed[..5].make_ascii_uppercase();
    let mut wrong = ticket.to_owned();
    let last = if wrong.pop() == Some('q') { 'p' } else { 'q' };
    wrong.push(last);
    let cut_short = &ticket[..ticket.len() - 10];
    let long = format!("pht1{}", "q".repeat(2_000));
    let mut receipt = scene.receipt.clone();
    let last = if receipt.pop() == Some('a') { 'b' } else { 'a' };
    receipt.push(last);
    let pattern = format!("message.send:{}", "p".repeat(257));
    check(
        &scene,
        &[
            (&["join", ""], 2, "ticket"),
            (&["join", "pht1"], 2, "ticket"),
            (&["join", "hello"], 2, "ticket"),
            (&["join", &id], 2, "ticket"),
            (&["join", &wrong], 2, "ticket"),
            (&["join", cut_short], 2, "ticket"),
            (&["join", &mixed], 2, "ticket"),
            (&["join", &long], 2, "ticket"),
            (&["join", "pht1\u{1b}[2J"], 2, "ticket"),
            (&["invite", "--grant", "everything"], 2, "everything"),
            (&["invite", "--grant", ""], 2, "grant"),
            (&["invite", "--grant", ":"], 2, ""),
            (&["invite", "--grant", "message.send:"], 2, "message.send:"),
            (
                &["invite", "--grant", "message.send:!"],
                2,
                "message.send:!",
            ),
            (&["invite", "--grant", "root:*"], 2, "root"),
            (&["invite", "--grant", &pattern], 2, "256"),
            (&["invite", "--grant", "message.send:a\u{7}"], 2, ""),
            (&["receipt", "nonsense"], 2, "nonsense"),
            (&["receipt", ""], 2, ""),
            (&["receipt", &receipt], 2, ""),
            (&["why", "message", "nonsense"], 2, "nonsense"),
            (&["dead", "retry", "nonsense"], 2, "nonsense"),
            (&["dead", "drop", "nonsense"], 2, "nonsense"),
            (&["dead", "retry", &scene.receipt], 4, ""),
            (&["dead", "drop", &scene.receipt], 4, ""),
            (&["up", "--listen", "nonsense"], 2, "nonsense"),
            (&["up", "--listen", "127.0.0.1:99999"], 2, "99999"),
            (&["up", "--listen", ""], 2, "--listen"),
            (&["up", "--advertise", "host"], 2, "host"),
            (&["up", "--advertise", "host:0"], 2, "host:0"),
            (&["up", "--advertise", "a\nb:1"], 2, ""),
        ],
    );
    for stdin in [
        &b""[..],
        b"\n",
        b"\0\0\0",
        &[0xff; 64],
        &vec![b'q'; 1 << 20],
    ] {
        let output = scene.left.cli_with(&["join", "-"], stdin);
        let wrong = fault(&output, 2, "ticket");
        assert_eq!(wrong, None, "{} bytes of stdin", stdin.len());
    }
    scene.is_as_it_was();
}

#[test]
fn arguments_that_are_no_text_are_usage_errors() {
    let scene = Scene::new();
    let odd = OsStr::from_bytes(b"a\xff\xfe");
    let plain = OsStr::new;
    let lines: [&[&OsStr]; 9] = [
        &[odd],
        &[plain("send"), odd, plain("orders"), plain("hay")],
        &[plain("send"), plain("right"), odd, plain("hay")],
        &[plain("send"), plain("right"), plain("orders"), odd],
        &[plain("join"), odd],
        &[plain("invite"), plain("--grant"), odd],
        &[plain("receive"), odd],
        &[plain("up"), plain("--name"), odd],
        &[plain("receipt"), odd],
    ];
    for line in lines {
        let mut command = packhorse(scene.left.data_dir());
        command.args(line);
        let output = run(command, "");
        assert_eq!(fault(&output, 2, ""), None, "{line:?}");
    }
    scene.is_as_it_was();
}

#[test]
fn words_that_no_command_has_are_usage_errors() {
    let scene = Scene::new();
    check(
        &scene,
        &[
            (&["sned", "right", "orders", "hay"], 2, "sned"),
            (&["send"], 2, "PEER"),
            (&["send", "right"], 2, "TOPIC"),
            (&["send", "right", "orders", "hay", "straw"], 2, "straw"),
            (
                &["send", "right", "orders", "hay", "--urgent"],
                2,
                "--urgent",
            ),
            (&["\u{1b}[2J"], 2, ""),
            (&["--\u{1b}[2J"], 2, ""),
            (&["outbox", "drop"], 2, ""),
            (&["dead", "drop"], 2, ""),
            (&["receive", "orders", "--follow", "--wait"], 2, "--wait"),
            (&["completions", "klingon"], 2, "klingon"),
            (&["why", "weather", "now"], 2, "weather"),
        ],
    );
}
