//! The real program from the outside: what one process does without another node.

mod support;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;

use support::command::run;
use support::deadline::SOON;
use support::{Lab, Node, packhorse, until};

/// A node without a listener, not started yet, with the scratch folder that it lives in.
fn alone() -> (Lab, Node) {
    let mut lab = Lab::new();
    let node = lab.loner("tester");
    (lab, node)
}

#[test]
fn help_is_data_and_a_wrong_word_is_a_usage_error() {
    let (_lab, node) = alone();
    let help = node.cli(&["--help"]).expect(0);
    for word in [
        "up",
        "invite",
        "join",
        "send",
        "receive",
        "status",
        "demo",
        "Exit codes",
    ] {
        assert!(help.text().contains(word), "{word}");
    }
    assert_eq!(help.stderr, "");
    node.cli(&["sned"]).expect(2).says("send").prints_nothing();
    node.cli(&[]).expect(2).prints_nothing();
}

#[test]
fn the_version_names_protocol_and_store_format() {
    let (_lab, node) = alone();
    let version = node.cli(&["--version"]).expect(0);
    let lines: Vec<&str> = version.text().lines().collect();
    assert_eq!(
        lines,
        [
            concat!("packhorse ", env!("CARGO_PKG_VERSION")),
            "protocol 1",
            "store format 1"
        ]
    );
}

#[test]
fn every_shell_gets_completions() {
    let (_lab, node) = alone();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = node.cli(&["completions", shell]).expect(0);
        assert!(script.text().contains("packhorse"), "{shell}");
    }
    node.cli(&["completions", "tcsh"]).expect(2);
}

#[test]
fn init_makes_an_identity_once_and_id_shows_it() {
    let (_lab, node) = alone();
    node.cli(&["id"])
        .expect(4)
        .says("no identity")
        .says("init")
        .prints_nothing();
    let first = node.cli(&["init"]).expect(0).says("back up");
    assert!(first.text().starts_with("phn1"), "{first:?}");
    let again = node.cli(&["init"]).expect(0).says("nothing was changed");
    assert_eq!(first.text(), again.text());
    assert_eq!(node.cli(&["id"]).expect(0).text(), first.text());
    let document = node
        .cli(&["id", "--json"])
        .expect(0)
        .document("packhorse.id.v1");
    assert_eq!(document["node"].as_str(), Some(first.text().trim()));
    let document = node
        .cli(&["init", "--json"])
        .expect(0)
        .document("packhorse.init.v1");
    assert_eq!(document["created"].as_bool(), Some(false));
}

#[test]
fn an_identity_that_others_may_read_is_refused() {
    let (_lab, node) = alone();
    node.cli(&["init"]).expect(0);
    let key = node.data_dir().join("identity.key");
    set_mode(&key, 0o644);
    node.cli(&["id"])
        .expect(5)
        .says("chmod 600")
        .prints_nothing();
    node.cli(&["up"])
        .expect(5)
        .says("chmod 600")
        .prints_nothing();
}

#[test]
fn the_data_folder_comes_from_the_variable_or_from_xdg() {
    let lab = Lab::new();
    let elsewhere = lab.file("elsewhere");
    let mut command = lab.command();
    command.arg("init").env("PACKHORSE_DATA_DIR", &elsewhere);
    let named = run(command, "").expect(0);
    assert!(elsewhere.join("identity.key").exists());
    let mut command = lab.command();
    command.arg("id").arg("--data-dir").arg(&elsewhere);
    let found = run(command, "").expect(0);
    assert_eq!(named.text(), found.text());
    let mut command = lab.command();
    command.arg("init").env("XDG_STATE_HOME", lab.path());
    run(command, "").expect(0);
    assert!(lab.file("packhorse/identity.key").exists());
    let mut command = lab.command();
    command.arg("init");
    run(command, "").expect(0);
    assert!(lab.file(".local/state/packhorse/identity.key").exists());
}

#[test]
fn an_unknown_settings_key_is_refused_where_it_stands() {
    let (_lab, node) = alone();
    node.cli(&["init"]).expect(0);
    let settings = node.data_dir().join("settings.toml");
    std::fs::write(&settings, "name = \"left\"\nlisten_on = []\n").expect("our folder");
    let refused = node.cli(&["up"]).expect(2).prints_nothing();
    let expected = format!("{}:2:1: unknown field `listen_on`", settings.display());
    refused.says(&expected);
    std::fs::write(&settings, "log = \"packhorse=verbose!\"\n").expect("our folder");
    node.cli(&["up"])
        .expect(2)
        .says("the setting `log` is not understood")
        .prints_nothing();
}

#[test]
fn a_socket_path_that_is_too_long_names_itself_and_the_limit() {
    let lab = Lab::new();
    let deep = lab.file(&"d".repeat(120));
    for word in ["up", "status", "init"] {
        let mut command = packhorse(&deep);
        command.arg(word);
        run(command, "")
            .expect(2)
            .says("the limit is 107")
            .says("api.sock")
            .prints_nothing();
    }
    assert!(!deep.exists(), "nothing was made");
}

#[test]
fn without_a_daemon_every_question_ends_with_6_and_the_command_that_starts_one() {
    let (_lab, node) = alone();
    node.cli(&["init"]).expect(0);
    for line in [
        "status",
        "status --json",
        "peers",
        "outbox list --json",
        "inbox list",
        "send left orders hay",
        "send left --lines orders",
        "receive orders --count 1",
        "invite --grant message.send:*",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let ended = node.cli_with(&words, b"a line\n").expect(6);
        let hint = format!("packhorse --data-dir {} up", node.data_dir().display());
        ended.says("no daemon runs here").says(&hint);
    }
    // What has been accepted is always said, also when it is nothing.
    let lines = node
        .cli_with(&["send", "left", "--lines", "orders"], b"hay\n")
        .expect(6);
    assert_eq!(lines.text(), "0\n");
}

#[test]
fn what_cannot_be_right_is_refused_before_a_daemon_is_asked() {
    let (_lab, node) = alone();
    node.cli(&["join", "pht1nonsense"])
        .expect(2)
        .says("not a ticket")
        .prints_nothing();
    node.cli_with(&["join", "-"], b"\n")
        .expect(2)
        .says("not a ticket")
        .prints_nothing();
    node.cli(&["invite", "--grant", "everything"])
        .expect(2)
        .prints_nothing();
    node.cli(&["invite", "--expires", "never"])
        .expect(2)
        .says("10m")
        .prints_nothing();
    node.cli(&["send", "left", "orders", "@/no/such/file"])
        .expect(2)
        .prints_nothing();
    let large = vec![b'x'; (1 << 20) + 1];
    let refused = node.cli_with(&["send", "left", "orders", "-"], large.as_slice());
    refused
        .expect(2)
        .says("limit of 1048576 bytes")
        .prints_nothing();
    let lines = [b"short\n".as_slice(), &large].concat();
    // The line before it is tried first, and nobody is there to take it.
    node.cli_with(&["send", "left", "--lines", "orders"], lines)
        .expect(6);
    let refused = node.cli_with(&["send", "left", "--lines", "orders"], large);
    refused.expect(2).says("line 1 is over the limit");
}

#[test]
fn the_ready_line_has_the_published_shape_and_signals_end_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_lab, mut node) = alone();
        node.start();
        let ready = node.ready();
        assert_eq!(ready["schema"], "packhorse.up.v1");
        assert!(node.id().starts_with("phn1"), "{ready}");
        assert_eq!(ready["name"], "tester");
        assert_eq!(ready["listen"].as_array().map(Vec::len), Some(0));
        let socket = PathBuf::from(ready["socket"].as_str().expect("a path"));
        assert_eq!(socket, node.data_dir().join("api.sock"));
        assert_eq!(mode(&socket), 0o600);
        assert_eq!(mode(node.data_dir()), 0o700);
        assert_eq!(node.end_by(signal), (Some(0), Vec::new()));
        assert!(!socket.exists(), "the socket went with the daemon");
    }
}

#[test]
fn a_daemon_answers_every_question_about_an_empty_node() {
    let (_lab, mut node) = alone();
    node.start();
    let status = node
        .cli(&["status", "--json"])
        .expect(0)
        .document("packhorse.status.v1");
    assert_eq!(status["node"], node.ready()["node"]);
    assert_eq!(status["name"].as_str(), Some("tester"));
    assert!(status["uptime_ms"].is_u64());
    assert_eq!(status["peers"].as_array().map(Vec::len), Some(0));
    let peers = node
        .cli(&["peers", "list", "--json"])
        .expect(0)
        .document("packhorse.peers.v1");
    assert_eq!(peers["peers"].as_array().map(Vec::len), Some(0));
    for (command, schema) in [
        ("outbox", "packhorse.outbox.v1"),
        ("inbox", "packhorse.inbox.v1"),
    ] {
        let list = node
            .cli(&[command, "list", "--json", "--limit", "5"])
            .expect(0);
        let list = list.document(schema);
        assert_eq!(list["total"].as_u64(), Some(0));
        assert_eq!(list["messages"].as_array().map(Vec::len), Some(0));
    }
    node.cli(&["receive", "orders", "--count", "3"])
        .expect(0)
        .prints_nothing();
    node.cli(&["send", "nobody", "orders", "hay"])
        .expect(4)
        .says("nobody")
        .prints_nothing();
    node.cli(&["outbox", "--limit", "10001"])
        .expect(2)
        .says("10000")
        .prints_nothing();
}

#[test]
fn a_socket_of_a_dead_daemon_is_replaced_and_anything_else_in_its_place_is_not() {
    let (_lab, mut node) = alone();
    node.start();
    assert_eq!(node.end_by(Signal::KILL), (None, Vec::new()));
    let socket = node.data_dir().join("api.sock");
    let left_behind = socket.symlink_metadata().expect("left behind");
    assert!(left_behind.file_type().is_socket());
    node.cli(&["status"]).expect(6);
    node.start();
    node.cli(&["status"]).expect(0);
    node.stop();
    std::fs::write(&socket, "mine").expect("our folder");
    node.cli(&["up"])
        .expect(1)
        .says("in the way")
        .prints_nothing();
    assert_eq!(std::fs::read_to_string(&socket).expect("untouched"), "mine");
}

#[test]
fn a_daemon_stops_with_its_stdin_when_it_was_asked_to() {
    let (_lab, mut node) = alone();
    // The harness asks every node to.
    node.start();
    assert_eq!(node.end_with_stdin(), (Some(0), Vec::new()));
}

#[test]
fn a_daemon_that_was_not_asked_to_outlives_its_stdin() {
    let (_lab, node) = alone();
    // No bytes: its stdin has ended before it is ready.
    let daemon = node.spawn(&["up", "--json"], "");
    until("an answer", SOON, || {
        (node.cli(&["status"]).code == Some(0)).then_some(())
    });
    node.cli(&["status"]).expect(0);
    daemon.signal(Signal::KILL);
    let output = daemon.finish(SOON);
    assert_eq!(output.code, None, "it ended by itself: {output:?}");
    output.document("packhorse.up.v1");
}

#[test]
fn a_closed_pipe_ends_a_command_without_a_word() {
    let lab = Lab::new();
    // Closed before the first byte: no pipe's buffer hides it.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = lab.command();
    let output = command
        .args(["completions", "bash"])
        .stdin(Stdio::null())
        .stdout(writer)
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("our file");
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it exists").permissions().mode() & 0o777
}
