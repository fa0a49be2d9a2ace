//! One node under test: a blocking shell over one [`Machine`] per life of its process.
//!
//! Commands go through the real command line; loops may use [`Node::api`].
//! When a test fails, the end of the node's log is printed beside the reason.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use packhorse::lab::{Ended, LabError, Machine, NodeSpec, Ready, Signal as LabSignal};
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::api::Api;
use super::command::{Output, Running, packhorse, run};
use super::deadline::{SOON, until};
use super::document::total;
use super::follow::Follower;
use super::lab::join_words;

/// The grant that lets a peer send anything.
pub(crate) const SEND_ALL: &str = "message.send:*";
/// Printed of a node's log when a test fails.
const LOG_TAIL_BYTES: u64 = 8 << 10;

/// A ticket as `invite` prints it.
pub(crate) type Ticket = String;

/// A node: a name, a data folder, perhaps a listener, perhaps a process.
#[derive(Debug)]
pub(crate) struct Node {
    name: String,
    data_dir: PathBuf,
    listen: Option<String>,
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    namespace: Option<String>,
    process: Option<Process>,
}

/// The process of a node that said that it is ready.
#[derive(Debug)]
struct Process {
    machine: Machine,
    ready: Arc<Ready>,
    /// How long the file of what it prints was when it was started, in bytes.
    printed_before: u64,
}

/// Drives every machine of this test binary; the tests themselves block.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build();
        runtime.expect("a runtime")
    })
}

impl Node {
    pub(crate) fn new(name: &str, data_dir: PathBuf, listen: Option<String>) -> Node {
        Node {
            name: name.to_owned(),
            data_dir,
            listen,
            variables: Vec::new(),
            arguments: Vec::new(),
            namespace: None,
            process: None,
        }
    }

    /// The same with a variable in the environment of its process.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Node {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with another word for `up`.
    pub(crate) fn with_argument(mut self, word: &str) -> Node {
        self.arguments.push(word.to_owned());
        self
    }

    /// The same with its process in this network namespace; its socket is a file, so commands
    /// reach it from outside.
    pub(crate) fn in_namespace(mut self, name: &str) -> Node {
        self.namespace = Some(name.to_owned());
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The address that it was told to listen on.
    pub(crate) fn listen(&self) -> Option<&str> {
        self.listen.as_deref()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn api(&self) -> Api {
        Api::of(&self.data_dir)
    }

    /// The node id, as the ready line told it.
    pub(crate) fn id(&self) -> String {
        let id = self.ready()["node"].as_str();
        id.expect("a node id in the ready line").to_owned()
    }

    /// The ready line.
    pub(crate) fn ready(&self) -> &Value {
        &self.process().ready.document
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.machine().process_id().expect("the node runs")
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("the node runs")
    }

    fn machine(&self) -> &Machine {
        &self.process().machine
    }

    /// Starts the process and waits for its ready line.
    pub(crate) fn start(&mut self) {
        if let Err(code) = self.try_start() {
            panic!("{}: no ready line, exit {code:?}", self.describe());
        }
    }

    /// The same for a process that may not come up: how it ended then.
    pub(crate) fn try_start(&mut self) -> Result<(), Option<i32>> {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let mut spec = NodeSpec::new(&self.name).silent();
        if let Some(listen) = &self.listen {
            spec = spec.argument("--listen").argument(listen);
        }
        spec.arguments.extend_from_slice(&self.arguments);
        spec.variables.clone_from(&self.variables);
        if let Some(namespace) = &self.namespace {
            // `ip` puts itself there and then becomes the program.
            spec = spec.under(["ip", "netns", "exec", namespace]);
        }
        let program = Path::new(env!("CARGO_BIN_EXE_packhorse"));
        let machine = Machine::in_folder(spec, program, &self.data_dir);
        let machine = machine.expect("room for a socket");
        let printed = std::fs::metadata(machine.printed_path());
        let printed_before = printed.map_or(0, |printed| printed.len());
        match runtime().block_on(machine.start()) {
            Ok(ready) => {
                self.process = Some(Process {
                    machine,
                    ready,
                    printed_before,
                });
                Ok(())
            }
            Err(LabError::EndedEarly { ended, .. }) => Err(ended.code),
            Err(error) => panic!("{error}\n{}", self.describe()),
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The code of a process that has ended by itself; it can be started again then.
    pub(crate) fn has_ended(&mut self) -> Option<i32> {
        let ended = self.machine().last_end()?;
        self.process = None;
        // A signal is no code: nobody here sends one without waiting for it.
        Some(ended.code.unwrap_or(-1))
    }

    /// SIGTERM, and the promise that it ends with 0 and prints nothing more.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let (code, rest) = self.end_by(Signal::TERM);
        assert_eq!(code, Some(0), "exit after SIGTERM of {}", self.describe());
        assert_eq!(rest, b"", "{} printed after its ready line", self.name);
    }

    /// A signal, and how the process ended: its code and what it printed after the ready line.
    pub(crate) fn end_by(&mut self, signal: Signal) -> (Option<i32>, Vec<u8>) {
        self.signal(signal);
        self.ended(&format!("{signal:?}"), async |machine| {
            machine.ended(SOON).await
        })
    }

    /// The same by closing its stdin.
    pub(crate) fn end_with_stdin(&mut self) -> (Option<i32>, Vec<u8>) {
        self.ended("the end of its stdin", Machine::close_stdin)
    }

    /// Waits for the end of a process that nobody signalled.
    #[track_caller]
    pub(crate) fn ended_by_itself(&mut self, code: i32) {
        let (ended, _) = self.ended("it was to end by itself", async |machine| {
            machine.ended(SOON).await
        });
        assert_eq!(ended, Some(code), "exit of {}", self.describe());
    }

    fn ended(
        &mut self,
        after: &str,
        wait: impl AsyncFnOnce(&Machine) -> Result<Ended, LabError>,
    ) -> (Option<i32>, Vec<u8>) {
        let process = self.process.take().expect("the node runs");
        let ended =
            runtime().block_on(async { tokio::time::timeout(SOON, wait(&process.machine)).await });
        match ended {
            Ok(Ok(ended)) => (ended.code, process.printed_after_the_ready_line()),
            _ => panic!("{} runs on after {after}", self.describe()),
        }
    }

    /// A signal that does not end it.
    pub(crate) fn signal(&self, signal: Signal) {
        let known = match signal {
            Signal::TERM => LabSignal::Term,
            Signal::INT => LabSignal::Int,
            Signal::HUP => LabSignal::Hup,
            Signal::KILL => LabSignal::Kill,
            Signal::STOP => LabSignal::Stop,
            Signal::CONT => LabSignal::Cont,
            other => panic!("{other:?} is sent by no test"),
        };
        match runtime().block_on(self.machine().signal(known)) {
            // One that has ended is waited for like one that runs.
            Ok(()) | Err(LabError::NotRunning { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// SIGKILL: no chance to say or write anything more.
    pub(crate) fn kill(&mut self) {
        let process = self.process.take().expect("the node runs");
        let ended = runtime().block_on(process.machine.kill());
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => panic!("{error}: {}", self.describe()),
        };
        let by_itself = ended.signal != Some(Signal::KILL.as_raw());
        assert!(!by_itself, "{ended} by itself: {}", self.describe());
    }

    /// SIGKILL for a process that may have ended by itself.
    pub(crate) fn kill_if_running(&mut self) {
        self.process = None;
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    // --- commands ---

    /// Starts a command on this node's folder without waiting for it.
    pub(crate) fn spawn(&self, words: &[&str], stdin: impl Into<Vec<u8>>) -> Running {
        let mut command = packhorse(&self.data_dir);
        command.args(words);
        Running::start(command, stdin.into())
    }

    /// Starts a command that prints line by line.
    pub(crate) fn follow(&self, words: &[&str]) -> Follower {
        let mut command = packhorse(&self.data_dir);
        command.args(words);
        Follower::start(command, b'\n')
    }

    /// Runs a command on this node's folder.
    pub(crate) fn cli(&self, words: &[&str]) -> Output {
        self.cli_with(words, "")
    }

    pub(crate) fn cli_with(&self, words: &[&str], stdin: impl Into<Vec<u8>>) -> Output {
        let mut command = packhorse(&self.data_dir);
        command.args(words);
        run(command, stdin)
    }

    /// The document of a command that succeeds.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        self.cli(&[words, &["--json"]].concat()).expect(0).json()
    }

    /// A ticket for one node, which may then send everything here.
    #[track_caller]
    pub(crate) fn invite(&self) -> Ticket {
        self.invite_with(&["--grant", SEND_ALL])
    }

    #[track_caller]
    pub(crate) fn invite_with(&self, words: &[&str]) -> Ticket {
        let output = self.cli(&[&["invite"], words].concat()).expect(0);
        output.text().trim_end().to_owned()
    }

    /// Joins with a ticket; the inviter may then send everything here.
    pub(crate) fn join(&self, ticket: &Ticket, name: &str) -> Output {
        self.cli(&join_words(ticket, name))
    }

    /// Accepts one message and returns its receipt.
    #[track_caller]
    pub(crate) fn send(&self, peer: &str, topic: &str, payload: &str) -> Value {
        self.json(&["send", peer, topic, payload])
    }

    /// Sends one message and waits until it is on the other's disk.
    #[track_caller]
    pub(crate) fn send_stored(&self, peer: &str, topic: &str, payload: &str) -> Value {
        let wait = ["--wait", "stored", "--timeout", "60s"];
        self.json(&[["send", peer, topic, payload], wait].concat())
    }

    /// Sends lines and returns the count that was printed.
    #[track_caller]
    pub(crate) fn send_lines(&self, peer: &str, topic: &str, lines: &[String]) -> usize {
        let output = self.cli_with(&["send", peer, "--lines", topic], joined(lines));
        count_of(&output.expect(0))
    }

    /// The same with a key for every line.
    pub(crate) fn spawn_lines(
        &self,
        peer: &str,
        topic: &str,
        prefix: &str,
        lines: &[String],
    ) -> Running {
        let words = ["send", peer, "--lines", topic, "--id", prefix];
        self.spawn(&words, joined(lines))
    }

    #[track_caller]
    pub(crate) fn outbox_total(&self) -> u64 {
        total(&self.json(&["outbox", "list"]))
    }

    #[track_caller]
    pub(crate) fn inbox_total(&self) -> u64 {
        total(&self.json(&["inbox", "list"]))
    }

    /// Prints and acknowledges up to so many messages of a topic.
    #[track_caller]
    pub(crate) fn receive(&self, topic: &str, count: usize) -> Vec<String> {
        let count = count.to_string();
        let output = self.cli(&["receive", topic, "--count", &count]).expect(0);
        output.lines()
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// One peer in the status.
    #[track_caller]
    pub(crate) fn peer_status(&self, name: &str) -> Value {
        let status = self.status();
        let peers = status["peers"].as_array().expect("a list of peers");
        let found = peers.iter().find(|peer| peer["name"] == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {status}"))
            .clone()
    }

    /// Names of all peers.
    #[track_caller]
    pub(crate) fn peer_names(&self) -> Vec<String> {
        let peers = self.json(&["peers"]);
        let peers = peers["peers"].as_array().expect("a list of peers");
        let name = |peer: &Value| peer["name"].as_str().expect("a name").to_owned();
        peers.iter().map(name).collect()
    }

    // --- waiting ---

    /// Waits until a peer is in a state.
    #[track_caller]
    pub(crate) fn until_state(&self, peer: &str, state: &str) -> Value {
        let what = format!("{} sees {peer} {state}", self.name);
        until(&what, SOON, || {
            let status = self.peer_status(peer);
            (status["state"] == state).then_some(status)
        })
    }

    /// Waits until nothing waits here for anybody.
    pub(crate) fn until_outbox_is_empty(&self, limit: Duration) {
        let api = self.api();
        let what = format!("the outbox of {} is empty", self.name);
        until(&what, limit, || {
            let listing = api.get("/v1/outbox", &[("limit", "1")]).ok()?;
            (total(&listing) == 0).then_some(())
        });
    }

    /// Waits until so many messages are in the inbox.
    pub(crate) fn until_inbox_has(&self, count: u64, limit: Duration) {
        let api = self.api();
        let what = format!("{count} messages in the inbox of {}", self.name);
        until(&what, limit, || {
            let listing = api.get("/v1/inbox", &[("limit", "1")]).ok()?;
            (total(&listing) >= count).then_some(())
        });
    }

    // --- log ---

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// The name with the end of the log, for the message of a failure.
    fn describe(&self) -> String {
        let tail = tail_of(&self.log_path()).unwrap_or_else(|error| error.to_string());
        format!("{}\n--- log of {} ---\n{tail}---\n", self.name, self.name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Dead before the scratch folder goes.
        self.process = None;
        if std::thread::panicking() {
            eprintln!("{}", self.describe());
        }
    }
}

impl Process {
    fn printed_after_the_ready_line(&self) -> Vec<u8> {
        let mut file = File::open(self.machine.printed_path()).expect("what it printed");
        let begin = SeekFrom::Start(self.printed_before);
        file.seek(begin).expect("what it printed");
        let mut lines = BufReader::new(file);
        let mut rest = Vec::new();
        lines.skip_until(b'\n').expect("what it printed");
        lines.read_to_end(&mut rest).expect("what it printed");
        rest
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that does not run is dead already.
        let _ = runtime().block_on(self.machine.kill());
    }
}

/// The count that `send --lines` prints.
#[track_caller]
pub(crate) fn count_of(output: &Output) -> usize {
    let text = output.text();
    text.trim_end().parse().expect("a count of lines alone")
}

/// Lines with a newline after each.
pub(crate) fn joined(lines: &[String]) -> Vec<u8> {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text.into_bytes()
}

/// The first line of a stream, and what follows it once the stream has ended.
pub(crate) fn first_line(
    stream: impl Read + Send + 'static,
) -> (Receiver<String>, Receiver<Vec<u8>>) {
    let (first_sender, first) = sync_channel(1);
    let (rest_sender, rest) = sync_channel(1);
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        let _ = stream.read_line(&mut line);
        let _ = first_sender.send(line);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = rest_sender.send(bytes);
    });
    (first, rest)
}

fn tail_of(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
