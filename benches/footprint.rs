//! What a node takes: memory when idle, memory with 200,000 waiting messages, and how soon it is
//! ready again after SIGKILL.
//!
//! Sketch: two write buffers of 16 MiB, a block cache of 8 MiB, socket buffers and code: under
//! 40 MiB idle as long as the write buffers are not full. 200,000 rows of 256 B are 70 MB on disk
//! and none of them has to be in memory.
//!
//! `cargo bench --bench footprint`

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use support::{ms, scratch};

const WAITING: usize = 200_000;

fn main() {
    let folder = scratch();
    let (near, far) = (folder.path().join("near"), folder.path().join("far"));
    let (mut node, _) = up(&near, "near");
    let (mut other, _) = up(&far, "far");
    println!(
        "  idle, never paired:                 {:>6.1} MiB",
        resident_mib(&node)
    );
    let ticket = run(&near, &["invite", "--grant", "message.send:*"], "");
    run(
        &far,
        &[
            "join",
            ticket.trim(),
            "--name",
            "near",
            "--grant",
            "message.send:*",
        ],
        "",
    );
    println!(
        "  idle, one session:                  {:>6.1} MiB   (under 40)",
        resident_mib(&node)
    );
    kill(&mut other);
    let lines: String = (0..WAITING).map(|n| format!("{n:0256}\n")).collect();
    let start = Instant::now();
    run(&near, &["send", "far", "--lines", "bench"], &lines);
    println!(
        "  {WAITING} accepted by `send --lines` in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    println!(
        "  {WAITING} waiting:                     {:>6.1} MiB   (under 120)",
        resident_mib(&node)
    );
    kill(&mut node);
    let (mut node, ready) = up(&near, "near");
    println!(
        "  ready after SIGKILL:                {:>6.0} ms    (within 2,000)",
        ms(ready)
    );
    println!(
        "  {WAITING} waiting, after SIGKILL:      {:>6.1} MiB   (under 120)",
        resident_mib(&node)
    );
    let listing = run(&near, &["outbox", "list", "--json", "--limit", "1"], "");
    assert!(
        listing.contains(&format!("\"total\":{WAITING}")),
        "{listing}"
    );
    kill(&mut node);
}

/// Starts a node and waits for its ready line.
fn up(folder: &Path, name: &str) -> (Child, Duration) {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_packhorse"))
        .arg("--data-dir")
        .arg(folder)
        .args(["up", "--listen", "127.0.0.1:0", "--name", name, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert!(line.contains("packhorse.up.v1"), "no ready line: {line}");
    (child, start.elapsed())
}

fn run(folder: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_packhorse"))
        .arg("--data-dir")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the binary starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("read by the command");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success(), "{arguments:?} failed");
    String::from_utf8(output.stdout).expect("text")
}

fn kill(child: &mut Child) {
    child.kill().expect("alive");
    child.wait().expect("reaped");
}

/// The resident set as the kernel counts it.
fn resident_mib(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("alive");
    let kib: f64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .expect("a resident set");
    kib / 1_024.0
}
