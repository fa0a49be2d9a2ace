//! The lab's own nodes: real processes that reach each other through its relays alone.
//!
//! Goal: whatever nodes tell each other, nobody dials past a relay; what is said about a way holds
//! for it; a node that is killed, moved, paused or set back is the same node to the others.
//! Method: this very program, through the typed API that users have.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use packhorse::lab::{
    Cluster, Damage, Ended, Impairment, LabError, Machine, NodeSpec, Random, Share, Signal,
};
use serde_json::{Value, json};
use support::skip::skipped;
use tokio::task::JoinSet;

/// Longer than anything takes that is to come.
const SOON: Duration = Duration::from_secs(60);

fn builder() -> packhorse::lab::Builder {
    Cluster::builder()
        .program(PathBuf::from(env!("CARGO_BIN_EXE_packhorse")))
        .seed(7)
}

async fn two() -> Cluster {
    let cluster = builder().node("left").node("right").start().await;
    let cluster = cluster.expect("two nodes");
    cluster.pair("left", "right").await.expect("they pair");
    cluster
}

fn node<'a>(cluster: &'a Cluster, name: &str) -> &'a Machine {
    cluster.node(name).expect("a node of the test")
}

/// The document of a command that succeeds.
async fn document(node: &Machine, words: &[&str]) -> Value {
    let output = node.run(words, b"", SOON).await.expect("it runs");
    let output = output.expect(0).expect("it succeeds");
    output.json().expect("a document")
}

async fn send_stored(from: &Machine, to: &str, payload: &str) {
    let words = [
        "send",
        to,
        "news",
        payload,
        "--wait",
        "stored",
        "--timeout",
        "60s",
        "--json",
    ];
    let receipt = document(from, &words).await;
    assert_eq!(receipt["state"], "stored", "{receipt}");
}

async fn received(node: &Machine) -> String {
    let words = ["receive", "news", "--count", "100"];
    let output = node.run(&words, b"", SOON).await.expect("it runs");
    output.expect(0).expect("it succeeds").text()
}

/// What a node knows of its only peer.
async fn peer(node: &Machine) -> Value {
    node.get("/v1/peers").await.expect("it answers")["peers"][0].clone()
}

/// Waits until a node has a session with its only peer.
async fn connected(at: &Machine) {
    let look = async || {
        let status = at.status().await.ok()?;
        (status["peers"][0]["state"] == "connected").then_some(())
    };
    let seen = packhorse::lab::until(at.name(), "a session", SOON, look).await;
    seen.expect("a session");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_know_of_each_other_their_relays_alone_wherever_they_listen() {
    let cluster = two().await;
    let (left, right) = (node(&cluster, "left"), node(&cluster, "right"));
    send_stored(right, "left", "one").await;
    send_stored(left, "right", "two").await;
    let ports = || [left, right].map(|node| node.ready().expect("ready").listen[0].clone());
    let before = ports();
    left.restart().await.expect("it stops and starts");
    right.kill().await.expect("it runs");
    right.start().await.expect("it starts");
    send_stored(right, "left", "three").await;
    send_stored(left, "right", "four").await;
    assert_eq!(received(left).await, "one\nthree\n");
    assert_eq!(received(right).await, "two\nfour\n");
    let nowhere = "quic://255.255.255.255:9";
    let network = cluster.network();
    for (here, there) in [(left, right), (right, left)] {
        let relay = network.address(here.name(), there.name()).expect("a relay");
        let relay = format!("quic://{relay}");
        let known = peer(here).await;
        assert_eq!(known["own_addresses"], json!([relay]));
        let announced = known["addresses"].as_array().expect("a list");
        let leads_nowhere_else = |at: &Value| *at == nowhere || *at == relay.as_str();
        assert!(announced.iter().all(leads_nowhere_else), "{known}");
        let counts = network.counts(here.name(), there.name()).expect("a way");
        assert!(counts.delivered > 10, "{counts:?}");
    }
    // Nobody waits for a port of a former life.
    assert_ne!(before, ports());
    assert_eq!(cluster.end().await.expect("nothing is left"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_holds_messages_back_and_its_end_delivers_them_over_a_bad_way() {
    let cluster = two().await;
    let (left, right) = (node(&cluster, "left"), node(&cluster, "right"));
    connected(left).await;
    cluster.network().isolate(&["left"]).expect("a node");
    let words = [
        "send",
        "left",
        "news",
        "late",
        "--wait",
        "stored",
        "--timeout",
        "2s",
    ];
    let output = right.run(&words, b"", SOON).await.expect("it runs");
    let not_yet = 3;
    assert_eq!(output.ended.code, Some(not_yet), "{}", output.stderr);
    let cut = cluster
        .network()
        .counts("right", "left")
        .expect("a way")
        .cut;
    assert!(cut > 0);
    let bad = Impairment {
        latency: Duration::from_millis(20),
        loss: Share::percent(5.0).expect("a share"),
        duplicate: Share::percent(5.0).expect("a share"),
        reorder: Share::percent(5.0).expect("a share"),
        ..Impairment::NONE
    };
    cluster.network().impair_all(bad).expect("in bounds");
    send_stored(right, "left", "later").await;
    assert_eq!(received(left).await, "late\nlater\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_lives_and_ends_as_it_is_told() {
    let spec = NodeSpec::new("only")
        .settings("default_class = \"moderate\"\n")
        .silent();
    let cluster = builder().node(spec).build().await.expect("a folder");
    let only = node(&cluster, "only");
    let ready = only.start().await.expect("it starts");
    assert_eq!((ready.name.as_str(), ready.listen.len()), ("only", 0));
    assert!(matches!(
        only.start().await,
        Err(LabError::AlreadyRuns { .. })
    ));
    only.signal(Signal::Hup).await.expect("it runs");
    only.pause().await.expect("it runs");
    assert!(only.is_paused());
    // A paused one is woken, or it could not hear that it is to stop.
    let done = Ended {
        code: Some(0),
        signal: None,
    };
    assert_eq!(only.stop().await.expect("it stops"), done);
    assert_eq!(only.last_end(), Some(done));
    only.start().await.expect("it starts again");
    assert_eq!(only.close_stdin().await.expect("it stops"), done);
    only.start().await.expect("it starts again");
    let killed = Ended {
        code: None,
        signal: Some(9),
    };
    assert_eq!(only.kill().await.expect("it is killed"), killed);
    assert_eq!(only.starts(), 3);
    assert!(only.log_path().exists() && only.printed_path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn images_bring_a_node_back_and_damage_is_named_by_the_node_itself() {
    let cluster = two().await;
    let (left, right) = (node(&cluster, "left"), node(&cluster, "right"));
    send_stored(right, "left", "one").await;
    let image = cluster.folder().join("image");
    assert!(matches!(
        left.copy_store(&image).await,
        Err(LabError::Runs { .. })
    ));
    left.pause().await.expect("it runs");
    let copied = left.copy_store(&image).await.expect("it stands still");
    assert!(copied.files > 3, "{copied:?}");
    left.resume().await.expect("it runs");
    left.stop().await.expect("it stops");
    let mut random = Random::new(7);
    let zero = Damage::Zero {
        count: 4,
        bytes: 1 << 16,
    };
    let damaged = left
        .damage("identity.key", zero, &mut random)
        .await
        .expect("a file");
    assert_eq!(damaged.len(), 4);
    let error = left.start().await.expect_err("its identity is damaged");
    assert!(matches!(error, LabError::EndedEarly { .. }), "{error}");
    left.restore_store(&image).await.expect("an image");
    left.start().await.expect("as it was");
    assert_eq!(received(left).await, "one\n");
    send_stored(right, "left", "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_a_freed_one_takes_again() {
    let spec = NodeSpec::new("small").disk(320 << 20);
    let built = builder().node("left").node(spec).start().await;
    let cluster = match built {
        Ok(cluster) => cluster,
        Err(error) => match error.unsupported() {
            Some(reason) => {
                let name = "lab_cluster::a_full_disk_refuses_and_a_freed_one_takes_again";
                skipped(name, &reason);
                return;
            }
            None => panic!("{error}"),
        },
    };
    cluster.pair("left", "small").await.expect("they pair");
    let small = node(&cluster, "small");
    small.fill_disk(5 << 20).await.expect("it has a disk");
    let words = ["send", "left", "news", "hello"];
    let output = small.run(&words, b"", SOON).await.expect("it runs");
    output.expect(9).expect("storage full");
    small.free_disk().await.expect("it has a disk");
    let look = async || {
        let output = small.run(&words, b"", SOON).await.ok()?;
        output.expect(0).ok()
    };
    let taken = packhorse::lab::until("small", "new work", SOON, look).await;
    taken.expect("it takes new work again");
}

/// A cluster with a node that runs, one that stands still, and one with a disk where there can be
/// any; with the numbers of their processes.
async fn of_every_kind(test: &str) -> (Cluster, Vec<u32>) {
    let two = || builder().node("running").node("paused");
    let small = NodeSpec::new("small").disk(320 << 20);
    let cluster = match two().node(small).start().await {
        Err(error) if let Some(reason) = error.unsupported() => {
            skipped(&format!("{test} (its disk)"), &reason);
            two().start().await
        }
        started => started,
    };
    let cluster = cluster.expect("all start");
    node(&cluster, "paused").pause().await.expect("it runs");
    let pid = |node: &std::sync::Arc<Machine>| node.process_id().expect("it runs");
    let pids = cluster.nodes().iter().map(pid).collect();
    (cluster, pids)
}

/// Nothing of these runs, and in time nothing is left of them; nothing is mounted in the folder.
async fn check_gone(pids: &[u32], folder: &Path) {
    for pid in pids {
        let stat = format!("/proc/{pid}/stat");
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        // Its name is in brackets, and then comes how it is.
        let state = state.rsplit(')').next().expect("a text").trim().to_owned();
        assert!(state.is_empty() || state.starts_with('Z'), "{pid}: {state}");
        let reaped = async || (!Path::new(&stat).exists()).then_some(());
        let reaped = packhorse::lab::until("a node", "its process is reaped", SOON, reaped).await;
        reaped.expect("it is reaped");
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    assert!(!mounts.contains(&folder.display().to_string()), "{mounts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_dropped_leaves_no_process_no_disk_and_no_folder() {
    let test = "lab_cluster::a_cluster_that_is_dropped_leaves_no_process_no_disk_and_no_folder";
    let (cluster, pids) = of_every_kind(test).await;
    let folder = cluster.folder().to_owned();
    drop(cluster);
    assert!(!folder.exists());
    check_gone(&pids, &folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_given_up_leaves_no_process_and_no_folder() {
    let cluster = builder().node("one").node("two").build().await;
    let cluster = cluster.expect("two folders");
    let folder = cluster.folder().to_owned();
    let both = || {
        let pids: Vec<u32> = cluster
            .nodes()
            .iter()
            .flat_map(|it| it.process_id())
            .collect();
        (pids.len() == 2).then_some(pids)
    };
    let begun = async || both();
    let pids = tokio::select! {
        biased;
        pids = packhorse::lab::until("both", "a start", SOON, begun) => pids.expect("both begin"),
        // On a machine that is faster than a look.
        _ = cluster.start_all() => both().expect("both run"),
    };
    drop(cluster);
    assert!(!folder.exists());
    check_gone(&pids, &folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_leaves_no_process_and_no_disk_but_the_folder_with_the_logs() {
    let test = "lab_cluster::a_panic_leaves_no_process_and_no_disk_but_the_folder_with_the_logs";
    let (cluster, pids) = of_every_kind(test).await;
    let folder = cluster.folder().to_owned();
    let has_disk = cluster.node("small").is_ok();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let cluster = cluster;
        panic!("with {} nodes alive", cluster.nodes().len());
    });
    let ended = tasks.join_next().await.expect("a task");
    assert!(ended.expect_err("it panics").is_panic());
    check_gone(&pids, &folder).await;
    assert!(folder.join("running.log").exists());
    assert_eq!(folder.join("small.kept/identity.key").exists(), has_disk);
    std::fs::remove_dir_all(&folder).expect("ours");
}
