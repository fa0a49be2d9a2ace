//! Nodes on networks of their own, which move to other addresses under them.
//!
//! What must hold: both find each other again without anybody doing anything, and say so.
//! Links that are cut or slow are in tests/lab_network.rs.
//! Needs the right to make network namespaces; where there is none each test says that it was
//! skipped.

mod support;

use std::time::Duration;

use serde_json::Value;

use support::deadline::SOON;
use support::lab::pair;
use support::netns::{Machine, Network};
use support::{Lab, Node, until};

const PORT: u16 = 7433;

/// A node on each machine, paired, with a live session that the right one dialled.
fn machines(lab: &Lab, network: &Network, listen: &[&str]) -> (Node, Node) {
    let node = |machine: Machine, name: &str| {
        let mut node = Node::new(name, lab.file(name), None).in_namespace(&network.of(machine));
        for listen in listen {
            node = node.with_argument("--listen").with_argument(listen);
        }
        node.start();
        node
    };
    let (left, right) = (node(Machine::Left, "left"), node(Machine::Right, "right"));
    pair(&left, &right);
    left.until_state("right", "connected");
    right.until_state("left", "connected");
    (left, right)
}

const EVERYWHERE: [&str; 1] = ["0.0.0.0:7433"];

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{name} {number}"))
        .collect()
}

/// Sends lines and waits until they are on the other's disk.
fn deliver(from: &Node, to: &Node, topic: &str, lines: &[String], limit: Duration) {
    from.send_lines(to.name(), topic, lines);
    from.until_outbox_is_empty(limit);
}

/// All that came on a topic, in order and once.
#[track_caller]
fn check_arrived(node: &Node, topic: &str, parts: &[&[String]]) {
    let all = parts.concat();
    assert_eq!(node.receive(topic, all.len() + 10), all);
}

/// What happened in a node so far, by kind.
fn kinds(node: &Node) -> Vec<String> {
    let events = node.json(&["events", "--since", "0"]);
    let events = events["events"].as_array().expect("a list");
    let kind = |event: &Value| event["kind"].as_str().expect("a word").to_owned();
    events.iter().map(kind).collect()
}

/// Waits until a node would dial a peer there and nowhere else.
fn until_known_at(node: &Node, peer: &str, hint: &str) {
    let what = format!("{} knows that {peer} is at {hint}", node.name());
    until(&what, SOON * 2, || {
        let peers = node.json(&["peers"]);
        (peers["peers"][0]["addresses"][0] == hint).then_some(())
    });
}

/// The machine's address is gone and it has another one: whoever dialled, both find each other
/// again in seconds, the moved one is dialled where it is now, and its peer says so.
fn check_moved(test: &str, machine: Machine) {
    let Some(network) = Network::new(test) else {
        return;
    };
    let lab = Lab::new();
    let (left, right) = machines(&lab, &network, &EVERYWHERE);
    let (moved, other) = match machine {
        Machine::Left => (&left, &right),
        Machine::Right => (&right, &left),
    };
    let address = format!("quic://{}:{PORT}", machine.address());
    assert_eq!(moved.status()["advertise"], serde_json::json!([address]));
    deliver(other, moved, "news", &numbered("before", 20), SOON);

    let new_address = machine.other_address(9);
    network.move_to(machine, &machine.address(), &new_address);
    let hint = format!("quic://{new_address}:{PORT}");
    let what = format!("{} announces {hint}", moved.name());
    until(&what, SOON, || {
        (moved.status()["advertise"] == serde_json::json!([hint])).then_some(())
    });
    until_known_at(other, moved.name(), &hint);
    deliver(other, moved, "news", &numbered("after", 20), SOON);
    deliver(moved, other, "news", &numbered("back", 20), SOON);
    check_arrived(
        moved,
        "news",
        &[&numbered("before", 20), &numbered("after", 20)],
    );
    check_arrived(other, "news", &[&numbered("back", 20)]);
    assert!(kinds(moved).contains(&"network.changed".to_owned()));
    let told = "peer.addresses_changed".to_owned();
    assert!(kinds(other).contains(&told), "{:?}", kinds(other));
    assert!(!kinds(moved).contains(&told), "the other one did not move");
}

#[test]
fn a_machine_that_was_dialled_and_moves_is_found_where_it_is_now() {
    check_moved("network::listener_moves", Machine::Left);
}

#[test]
fn a_machine_that_dialled_and_moves_is_found_where_it_is_now() {
    check_moved("network::dialler_moves", Machine::Right);
}

/// Nothing that a session stands on is gone, so it goes on, and the peer hears of it over it.
#[test]
fn a_machine_that_gets_a_better_address_tells_its_peers_over_the_sessions_that_live() {
    let Some(network) = Network::new("network::better_address") else {
        return;
    };
    let lab = Lab::new();
    let (left, right) = machines(&lab, &network, &EVERYWHERE);
    let address = Machine::Left.other_address(9);
    network.prefer(Machine::Left, &address);
    until_known_at(&right, "left", &format!("quic://{address}:{PORT}"));
    deliver(&right, &left, "news", &numbered("line", 5), SOON);
    let kinds = kinds(&right);
    let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert_eq!(count("peer.addresses_changed"), 1, "{kinds:?}");
    assert_eq!(count("session.started"), 1, "{kinds:?}");
}

/// One socket for both families on `[::]`, and two sockets on one port: either family leads there,
/// and a dead one does not keep the other from being used.
#[test]
fn both_families_lead_to_a_node_that_listens_on_both() {
    let listens: [&[&str]; 2] = [&["[::]:7433"], &["0.0.0.0:7433", "[::]:7433"]];
    for listen in listens {
        let Some(network) = Network::new("network::both_families") else {
            return;
        };
        let lab = Lab::new();
        let (left, mut right) = machines(&lab, &network, listen);
        let mut advertised: Vec<String> =
            serde_json::from_value(left.status()["advertise"].clone()).expect("texts");
        advertised.sort();
        let v4 = format!("quic://{}:{PORT}", Machine::Left.address());
        let v6 = format!("quic://[{}]:{PORT}", Machine::Left.address_v6());
        assert_eq!(advertised, [v4.clone(), v6.clone()]);
        deliver(&right, &left, "news", &numbered("line", 5), SOON);
        // The left one waits to be dialled, so that the link shows what the right one chose.
        left.cli(&["peers", "keep", "right", "never"]).expect(0);
        let nobody = format!("{}:1", Machine::Left.other_address(77));
        for wanted in [v4, v6] {
            let own = [nobody.as_str(), wanted.as_str()];
            for address in own {
                right
                    .cli(&["peers", "address", "add", "left", address])
                    .expect(0);
            }
            right.restart();
            let link = right.until_state("left", "connected")["link"].clone();
            assert_eq!(link, Value::String(wanted.clone()));
            for address in own {
                right
                    .cli(&["peers", "address", "remove", "left", address])
                    .expect(0);
            }
        }
    }
}
