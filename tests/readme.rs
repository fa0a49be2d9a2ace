//! The README is a promise: its commands are run as a newcomer types them, and must say what it says.
//!
//! Every block marked `sh` or `console` is run in order in a scratch folder, by a shell that finds
//! the binary under test as `packhorse`. A block with `up` stays in the foreground, like in a terminal
//! of its own. What a `console` block shows below a command is held against what the command prints:
//! word by word, where ids are followed to those of this run and measured words may differ.
//! Two things are changed: fixed ports become free ones, and nodes end with this test.
//! Blocks that build are not run; what they build is what runs here.

mod support;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use packhorse::ReceiptId;
use packhorse::lab::Scenario;
use packhorse::settings::Settings;
use support::command::{Output, receive_by, run};
use support::deadline::{SOON, until};
use support::node::first_line;
use support::{Deadline, Lab};

const README: &str = include_str!("../README.md");

/// What is judged by these words, in their order, because it shows no output or differs from run
/// to run: words that name a block or a command, and what it prints.
/// Each names exactly one, so that a README which changes takes this table along.
const PROMISES: [(&str, &[&str]); 12] = [
    ("join \"$ticket\"", &["paired with left"]),
    ("orders --jsonl", &["a bale of straw"]),
    ("seq 1 1000", &["1000", "1000"]),
    ("receive numbers", &["stored", "1", "2", "3"]),
    ("why peer", &["messages wait for it"]),
    // The pause before the next attempt may be over by then.
    ("right why message", &["It came from left and"]),
    ("left status", &["connected"]),
    ("ping right", &["there and back"]),
    (
        "left tree",
        &["root", "session supervisor", "session right"],
    ),
    ("left events", &["session.ended", "session.started"]),
    ("v1/messages", &["packhorse.receipt.v1"]),
    ("v1/peers", &["packhorse.peers.v1"]),
];

/// The blocks in this language, each with its lines.
fn blocks_in(language: &str) -> Vec<String> {
    let blocks = blocks().into_iter();
    let blocks = blocks.filter(|(written_in, _)| *written_in == language);
    blocks.map(|(_, text)| text).collect()
}

/// Every block of the README, with its language.
fn blocks() -> Vec<(&'static str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in README.lines() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(language), None) => open = Some((language, String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block of the README has no end");
    blocks
}

/// A command of a `console` block and what the README shows below it.
#[derive(Debug)]
struct Shown<'a> {
    command: &'a str,
    code: i32,
    lines: Vec<&'a str>,
}

fn shown(block: &str) -> Vec<Shown<'_>> {
    let mut all: Vec<Shown<'_>> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let code = command.split_once("# ends with ");
            let code = code.map_or(0, |(_, code)| code.parse().expect("an exit code"));
            all.push(Shown {
                command,
                code,
                lines: Vec::new(),
            });
        } else {
            let last = all.last_mut().expect("a console block begins with `$ `");
            last.lines.push(line);
        }
    }
    all
}

fn builds(block: &str) -> bool {
    block.contains("cargo ") || block.contains("scripts/")
}

fn is_daemon(block: &str) -> bool {
    block.split_whitespace().any(|word| word == "up")
}

/// A shell as the reader has it: in the scratch folder, with `packhorse` on its path.
#[derive(Debug)]
struct Shell<'a> {
    folder: &'a Path,
    ports: [(&'static str, String); 2],
}

impl Shell<'_> {
    fn command(&self, script: &str) -> Command {
        let mut script = script.to_owned();
        for (written, free) in &self.ports {
            script = script.replace(written, free);
        }
        let mut path = OsString::from(self.folder.join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command
            .args(["-e", "-c", &script])
            .current_dir(self.folder)
            .env("PATH", path)
            .env_remove("PACKHORSE_DATA_DIR");
        command
    }

    fn run(&self, block: &str) -> Output {
        run(self.command(block), "")
    }

    /// Runs a block that stays in the foreground, until it said that it is ready.
    fn open(&self, block: &str) -> Terminal {
        // `exec`, so that ending the shell ends the node.
        let script = format!("exec {} --stop-with-stdin", block.trim_end());
        let mut child = self
            .command(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let stdin = child.stdin.take().expect("stdin is piped");
        let (first, _rest) = first_line(child.stdout.take().expect("stdout is piped"));
        let terminal = Terminal {
            child,
            _stdin: stdin,
        };
        let line = receive_by(&first, Deadline::after(SOON)).unwrap_or_default();
        assert!(line.starts_with("node "), "{line:?} from: {block}");
        terminal
    }
}

/// A node in the foreground.
#[derive(Debug)]
struct Terminal {
    child: Child,
    _stdin: ChildStdin,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has_curl() -> bool {
    let mut command = Command::new("curl");
    let command = command.arg("--version").stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// One reading of the README, from the first block to the last.
#[derive(Debug)]
struct Reader<'a> {
    shell: Shell<'a>,
    terminals: Vec<Terminal>,
    /// The ids of messages in the README, and those of this run that stand for them.
    ids: BTreeMap<String, String>,
    kept: [usize; PROMISES.len()],
}

impl Reader<'_> {
    fn read(&mut self, language: &str, block: &str) {
        match language {
            "sh" if builds(block) => {}
            "sh" if is_daemon(block) => self.terminals.push(self.shell.open(block)),
            "sh" => {
                let output = self.shell.run(block).expect(0);
                let is_promised = self.keep_promises(block, output.text());
                assert!(is_promised, "nothing is promised of: {block}");
            }
            "console" => {
                for shown in shown(block) {
                    self.follow(&shown);
                }
            }
            _ => {}
        }
    }

    /// Runs a command with the ids of this run, and holds what it prints against what is shown.
    fn follow(&mut self, shown: &Shown<'_>) {
        if shown.command.contains("curl") && !has_curl() {
            println!("there is no curl here: not run: {}", shown.command);
            return;
        }
        let mut command = shown.command.to_owned();
        for (written, actual) in &self.ids {
            command = command.replace(written, actual);
        }
        let output = self.shell.run(&format!("exec 2>&1\n{command}"));
        let output = output.expect(shown.code);
        if !self.keep_promises(shown.command, output.text()) {
            self.compare(shown, output.text());
        }
        if command.contains(" drain") {
            self.wait_for_the_end_of_a_node();
        }
    }

    /// A reader takes a moment until the next command; this test is faster than a node's end.
    fn wait_for_the_end_of_a_node(&mut self) {
        let terminals = &mut self.terminals;
        until("a drained node ends", SOON, || {
            let mut children = terminals.iter_mut().map(|terminal| &mut terminal.child);
            children.find_map(|child| child.try_wait().expect("our own child"))
        });
        until("the other node sees it", SOON, || {
            let status = self.shell.run("packhorse --data-dir left status --json");
            let is_connected = status.text().contains("\"state\":\"connected\"");
            (!is_connected).then_some(())
        });
    }

    /// Whether the table has promises for this block or command, which are then checked.
    #[track_caller]
    fn keep_promises(&mut self, block: &str, text: &str) -> bool {
        let mut is_promised = false;
        for ((words, lines), kept) in PROMISES.iter().zip(&mut self.kept) {
            if block.contains(words) {
                check_lines(block, text, lines);
                *kept += 1;
                is_promised = true;
            }
        }
        is_promised
    }

    /// Every line that is shown is printed, one after the other; hints in between may be left out.
    #[track_caller]
    fn compare(&mut self, shown: &Shown<'_>, text: &str) {
        let mut printed = text.lines();
        for line in &shown.lines {
            assert!(
                printed.any(|printed| self.fits(line, printed)),
                "the README shows {line:?}\n--- command ---\n{}\n--- printed ---\n{text}",
                shown.command
            );
        }
    }

    fn fits(&mut self, shown: &str, printed: &str) -> bool {
        if shown.split_whitespace().count() != printed.split_whitespace().count() {
            return false;
        }
        let mut met = Vec::new();
        let mut pairs = shown.split_whitespace().zip(printed.split_whitespace());
        let all_fit = pairs.all(
            |(shown, printed)| match (receipt(shown), receipt(printed)) {
                (Some(shown), Some(printed)) => {
                    met.push((shown.to_owned(), printed.to_owned()));
                    self.ids.get(shown).is_none_or(|known| known == printed)
                }
                // A word with a digit is measured: an age, a port, a count.
                (None, None) => shown == printed || shown.contains(|c: char| c.is_ascii_digit()),
                _ => false,
            },
        );
        if all_fit {
            self.ids.extend(met);
        }
        all_fit
    }
}

/// The id of a message, if the word is one.
fn receipt(word: &str) -> Option<&str> {
    let word = word.trim_end_matches(':');
    word.parse::<ReceiptId>().is_ok().then_some(word)
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let mut lab = Lab::new();
    let bin = lab.file("bin");
    std::fs::create_dir(&bin).expect("a folder in the scratch folder");
    symlink(env!("CARGO_BIN_EXE_packhorse"), bin.join("packhorse")).expect("a link");
    let ports = [":7433", ":7434"].map(|written| (written, format!(":{}", lab.port())));
    let mut reader = Reader {
        shell: Shell {
            folder: lab.path(),
            ports,
        },
        terminals: Vec::new(),
        ids: BTreeMap::new(),
        kept: [0; PROMISES.len()],
    };
    for (language, block) in blocks() {
        reader.read(language, &block);
    }
    let starts = reader.terminals.len();
    assert_eq!(
        starts, 3,
        "the README starts two nodes, and one of them again"
    );
    for ((words, _), kept) in PROMISES.iter().zip(reader.kept) {
        let is_skipped = words.starts_with("v1/") && !has_curl();
        assert!(kept == 1 || is_skipped, "{kept} blocks with {words:?}");
    }
}

/// Checks that the lines contain these words, one after the other.
#[track_caller]
fn check_lines(block: &str, text: &str, expected: &[&str]) {
    let mut lines = text.lines();
    for words in expected {
        assert!(
            lines.any(|line| line.contains(words)),
            "no {words:?} in its turn\n--- block ---\n{block}--- printed ---\n{text}"
        );
    }
}

/// The program of the README, so that it compiles.
async fn embed() -> Result<(), Box<dyn Error>> {
    use packhorse::{Node, Outgoing};

    let node = Node::builder("/var/lib/example")
        .name("left")
        .listen("0.0.0.0:7433".parse()?)
        .start()
        .await?;
    let message = Outgoing::new("orders", "two bales of hay");
    let receipt = node.send("right", message).await?;
    println!("{} is {}", receipt.id, receipt.state);
    for message in node.receive("answers", 10).await? {
        println!("{}: {} bytes", message.sender, message.payload.len());
        node.acknowledge(&[message.arrival]).await?;
    }
    node.shutdown().await;
    Ok(())
}

#[test]
fn the_program_of_the_readme_compiles() {
    let _compiled = embed;
    let bare = |text: &str| -> String {
        let lines = text.lines().map(str::trim);
        lines.collect::<Vec<_>>().join("\n")
    };
    let programs = blocks_in("rust");
    assert_eq!(programs.len(), 1, "the README has one program");
    let is_here = bare(include_str!("readme.rs")).contains(bare(&programs[0]).trim());
    assert!(is_here, "the README's program is not `embed` above");
}

#[test]
fn the_settings_of_the_readme_are_understood() {
    let mut all = blocks_in("toml");
    all.retain(|block| !is_scenario(block));
    assert_eq!(all.len(), 1, "the README has one settings file");
    let settings = Settings::parse(Path::new("README.md"), all[0].as_bytes());
    let settings = settings.expect("settings");
    assert!(settings.name.is_some() && settings.topics.len() == 2);
}

#[test]
fn the_scenario_of_the_readme_is_understood() {
    let mut all = blocks_in("toml");
    all.retain(|block| is_scenario(block));
    assert_eq!(all.len(), 1, "the README has one scenario");
    let scenario = Scenario::parse(Path::new("README.md"), all[0].as_bytes());
    let scenario = scenario.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((scenario.nodes.len(), scenario.steps.len()), (2, 7));
}

/// No settings file has steps.
fn is_scenario(block: &str) -> bool {
    block.contains("\nsteps = ")
}

#[test]
fn the_first_command_of_the_readme_is_the_demonstration() {
    let (_, first) = blocks().into_iter().next().expect("a block");
    assert_eq!(first, "cargo run --release -- demo\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_packhorse"));
    command.args(["demo", "--help"]);
    run(command, "").expect(0);
}

#[test]
fn the_exit_codes_of_the_readme_are_those_of_the_program() {
    // The table of a worker's exits looks the same: only this section counts.
    let (_, section) = README.split_once("\n## Exit codes\n").expect("a section");
    let section = section.split("\n## ").next().unwrap_or(section);
    let documented: Vec<u8> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .filter_map(|row| row.split(' ').next()?.parse().ok())
        .collect();
    let all: Vec<u8> = packhorse::Exit::ALL
        .iter()
        .map(|exit| exit.code())
        .collect();
    assert_eq!(documented, all);
}
