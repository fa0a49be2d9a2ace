//! What people and programs hand in that cannot be right: each is refused with an exit code or a
//! status, a text that names value and limit, and nothing else happens.
//!
//! One pair of real daemons stands behind each test; what it knew before is what it knows after.
//! `bad_input/words.rs` holds what may be typed, `bad_input/requests.rs` what may be sent to the
//! socket, `bad_input/files.rs` what may lie in the data folder.
//! What a peer may send has its own tests, in `actors/tests/adversary.rs`.

mod support;

#[path = "bad_input/files.rs"]
mod files;
#[path = "bad_input/requests.rs"]
mod requests;
#[path = "bad_input/words.rs"]
mod words;

use serde_json::Value;
use support::{Lab, Node};

/// A pair with something in every place that could be lost: one message waits for a peer that is
/// down, one is in the inbox, one is a dead letter.
struct Scene {
    _lab: Lab,
    left: Node,
    ticket: String,
    receipt: String,
    before: Value,
}

impl Scene {
    fn new() -> Scene {
        let mut lab = Lab::new();
        let (left, mut right) = lab.pair("left", "right");
        right.send_stored("left", "orders", "arrived");
        right.stop();
        let receipt = left.json(&["send", "right", "orders", "waits", "--id", "key"]);
        let receipt = receipt["receipt"].as_str().expect("an id").to_owned();
        left.json(&["send", "right", "orders", "given up"]);
        left.cli(&["outbox", "drop", "--peer", "right", "--topic", "nothing"]);
        let ticket = left.invite();
        let before = state(&left);
        Scene {
            _lab: lab,
            left,
            ticket,
            receipt,
            before,
        }
    }

    /// Nothing came of it all.
    #[track_caller]
    fn is_as_it_was(&self) {
        assert_eq!(state(&self.left), self.before);
    }
}

/// Everything that a node holds, as far as it lists it.
#[track_caller]
fn state(node: &Node) -> Value {
    let lists = [
        &["outbox", "list"][..],
        &["inbox", "list"],
        &["dead", "list"],
    ];
    let mut state: Vec<Value> = lists.map(|words| node.json(words)).into();
    let peers = node.json(&["peers"]);
    let known = |peer: &Value| Value::from(vec![peer["name"].clone(), peer["id"].clone()]);
    let peers = peers["peers"].as_array().expect("a list");
    state.push(peers.iter().map(known).collect());
    state.into()
}
