//! What happens to a process whatever it is: a shell stands in for the program.

use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// What a node says when it is ready.
const READY: &str = r#"echo '{"schema":"s","node":"n","name":"a","listen":[]}'"#;

/// A machine whose program is this script; its data folder is not there yet.
fn machine(script: &str) -> (Machine, TempDir) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("script");
    std::fs::write(&path, script).expect("a scratch file");
    let spec = NodeSpec::new("a").silent();
    let spec = spec.under(["sh".to_owned(), path.display().to_string()]);
    let data_dir = folder.path().join("a");
    let machine = Machine::in_folder(spec, Path::new("program"), &data_dir);
    (machine.expect("room for a socket"), folder)
}

#[tokio::test]
async fn a_node_in_a_folder_is_started_by_what_it_stands_under_and_makes_the_folder_itself() {
    let (machine, folder) = machine(&format!("{READY}; echo \"$@\"; exec cat"));
    assert_eq!(
        (machine.is_running(), machine.ready().is_some()),
        (false, false)
    );
    let ready = machine.start().await.expect("it is ready");
    assert_eq!(
        (ready.name.as_str(), &ready.document["schema"]),
        ("a", &"s".into())
    );
    assert!(machine.ready().is_some() && machine.log_path().exists());
    assert!(!machine.data_dir().exists());
    let ended = machine.close_stdin().await.expect("it ends");
    assert_eq!((ended.code, machine.unordered_end()), (Some(0), None));
    assert!(machine.ready().is_none());
    let printed = std::fs::read_to_string(folder.path().join("a.out")).expect("what it printed");
    let data_dir = machine.data_dir().display().to_string();
    let words = format!("program --data-dir {data_dir} up --json --stop-with-stdin --name a");
    assert_eq!(printed.lines().nth(1), Some(words.as_str()));
}

#[tokio::test]
async fn an_end_is_told_with_what_that_life_logged_alone() {
    let script =
        "[ -e $HOME/again ] && echo second >&2 || echo first >&2; touch $HOME/again; exit 3";
    let (machine, _folder) = machine(script);
    let start = async || machine.start().await.expect_err("it ends").to_string();
    let head = "`a` ended before it was ready, with exit 3\n--- log of a ---\n";
    assert_eq!(start().await, format!("{head}first"));
    assert_eq!(start().await, format!("{head}second"));
    assert_eq!(machine.log_tail(100), "first\nsecond\n");
    assert!(machine.unordered_end().is_some());
}

#[tokio::test]
async fn what_did_not_start_does_not_run() {
    let (machine, _folder) = machine("echo nonsense; exec sleep 60");
    let error = machine.start().await.expect_err("no ready line");
    assert!(matches!(error, LabError::NotReady { .. }), "{error}");
    assert!(!machine.is_running());
    assert_eq!(machine.unordered_end(), None);
}

#[tokio::test]
async fn a_paused_node_is_copied_and_hears_that_its_stdin_was_closed() {
    let (machine, folder) = machine(&format!("{READY}; exec cat"));
    make_folder(machine.data_dir()).expect("a folder");
    machine.start().await.expect("it is ready");
    let image = folder.path().join("image");
    let error = machine.copy_store(&image).await.expect_err("it runs");
    assert!(matches!(error, LabError::Runs { .. }), "{error}");
    // Also where nobody has waited for what comes of the signal.
    machine.signal(Signal::Stop).await.expect("it runs");
    machine.copy_store(&image).await.expect("it stands still");
    machine.resume().await.expect("it runs");
    machine.pause().await.expect("it runs");
    assert!(machine.is_paused());
    let ended = tokio::time::timeout(Duration::from_secs(20), machine.close_stdin()).await;
    let ended = ended.expect("in time").expect("it ends");
    assert_eq!(ended.code, Some(0));
    // A new process is not paused because the one before it was.
    machine.start().await.expect("it is ready");
    machine.pause().await.expect("it runs");
    machine.kill().await.expect("it runs");
    machine.start().await.expect("it is ready");
    assert!(!machine.is_paused());
    machine.kill().await.expect("it runs");
}

#[tokio::test]
async fn a_lab_that_lies_too_deep_is_told_from_a_name_that_is_wrong() {
    let network = Network::new(1, vec!["a".to_owned()]).expect("a network");
    let scratch = PathBuf::from(format!("/{}", "d".repeat(99)));
    let made = Machine::new(NodeSpec::new("a"), Path::new("p"), &scratch, &network);
    let error = made.expect_err("too deep").to_string();
    assert!(
        error.contains("has 100 bytes, the limit with a node `a` is 91"),
        "{error}"
    );
}
