//! Two nodes of which one works for the other, and the scripts that its commands run.
//!
//! Commands tell the test what they do through files in the scratch folder; those that are to
//! run long wait for a file, so that they end with the lab at the latest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::deadline::{SOON, until};
use super::lab::Lab;
use super::node::{Node, SEND_ALL};

/// The file to which all commands of a test add lines.
const NOTES: &str = "notes";

/// Two nodes; messages of `left` may start commands on `right`.
pub(crate) fn shop(lab: &mut Lab) -> (Node, Node) {
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = right.invite_with(&["--grant", SEND_ALL, "--grant", "execute:*"]);
    left.join(&ticket, "right").expect(0);
    (left, right)
}

/// A shell line that adds this text, in which variables count, to the notes.
pub(crate) fn note(lab: &Lab, text: &str) -> String {
    format!("echo {text} >> {}", lab.file(NOTES).display())
}

/// A shell loop that goes on until this file is there, or the lab is gone.
pub(crate) fn wait_for(file: &Path) -> String {
    let folder = file.parent().expect("a place in the scratch folder");
    format!(
        "until [ -e {} ] || [ ! -e {} ]; do sleep 0.02; done",
        file.display(),
        folder.display()
    )
}

pub(crate) fn notes(lab: &Lab) -> Vec<String> {
    let text = fs::read_to_string(lab.file(NOTES)).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

/// Waits until the commands left so many notes, and gives all of them.
#[track_caller]
pub(crate) fn until_notes(lab: &Lab, count: usize) -> Vec<String> {
    until(&format!("{count} notes"), SOON, || {
        let notes = notes(lab);
        (notes.len() >= count).then_some(notes)
    })
}

pub(crate) fn make(file: &Path) {
    fs::write(file, "").expect("the scratch folder takes files");
}

/// The id in a receipt.
#[track_caller]
pub(crate) fn id_of(receipt: &Value) -> String {
    let id = receipt["receipt"].as_str();
    id.expect("a receipt id").to_owned()
}

/// The receipt of a message once it is in this state.
#[track_caller]
pub(crate) fn until_receipt(node: &Node, id: &str, state: &str, limit: Duration) -> Value {
    let api = node.api();
    let mut last = Value::Null;
    let path = format!("/v1/receipts/{id}");
    until(&format!("{id} is {state}"), limit, || {
        last = api.get(&path, &[]).ok()?;
        (last["state"] == state).then(|| last.clone())
    })
}
