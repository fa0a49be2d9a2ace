//! Nodes on networks of their own, which are cut, healed and moved under them.
//!
//! What must hold: a session over a dead link is noticed, `status` and `why` say so meanwhile, and
//! once the link is back everything arrives in order and once without anybody doing anything.
//! Needs the right to make network namespaces; where there is none each test says that it was
//! skipped.

mod support;

use std::time::Duration;

use serde_json::Value;

use support::deadline::SOON;
use support::lab::pair;
use support::netns::{Machine, Network};
use support::skip::skipped;
use support::{Lab, Node, until};

/// A dead link is noticed after 30 s of silence, or 45 s when it is dead one way.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);
/// A link that is back is dialled again within a minute at the latest.
const HEALED_WITHIN: Duration = Duration::from_secs(90);
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

/// Waits until a node has noticed that its session is dead, and checks what it says then.
fn until_noticed(node: &Node, peer: &str) {
    let what = format!("{} notices that {peer} is gone", node.name());
    let noticed = until(&what, NOTICED_WITHIN, || {
        let status = node.peer_status(peer);
        (status["state"] != "connected").then_some(status)
    });
    assert!(noticed["link"].is_null(), "{noticed}");
    let error = &noticed["last_error"];
    assert_eq!(error["class"], "disconnected", "{noticed}");
    let why = node.json(&["why", "peer", peer]);
    assert_ne!(why["state"], "connected", "{why}");
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

/// Cuts what goes to these machines, and lets both nodes send before, meanwhile and afterwards.
fn check_cut(test: &str, cut: &[Machine]) {
    let Some(network) = Network::new(test) else {
        return;
    };
    let lab = Lab::new();
    let (left, right) = machines(&lab, &network, &EVERYWHERE);
    let both = [(&left, &right), (&right, &left)];
    let lines = |when: &str, from: &Node| numbered(&format!("{when} of {}", from.name()), 20);
    for (from, to) in both {
        deliver(from, to, "news", &lines("before", from), SOON);
    }
    cut.iter().for_each(|machine| network.drop_all_to(*machine));
    for (from, to) in both {
        from.send_lines(to.name(), "news", &lines("meanwhile", from));
    }
    for (from, to) in both {
        until_noticed(from, to.name());
    }
    for (from, to) in both {
        // Still waiting, and told so. What got through one way may have been stored there.
        let status = from.peer_status(to.name());
        assert!(status["outbox"].as_u64() >= Some(1), "{status}");
        assert_ne!(status["state"], "connected", "{status}");
    }
    cut.iter().for_each(|machine| network.heal(*machine));
    for (from, to) in both {
        from.until_outbox_is_empty(HEALED_WITHIN);
        from.until_state(to.name(), "connected");
        deliver(from, to, "news", &lines("after", from), SOON);
    }
    for (from, to) in both {
        let parts = ["before", "meanwhile", "after"].map(|when| lines(when, from));
        let parts = parts.each_ref().map(Vec::as_slice);
        check_arrived(to, "news", &parts);
    }
}

#[test]
fn a_cut_link_is_noticed_and_everything_arrives_after_it_is_back() {
    check_cut("network::a_cut_link", &[Machine::Left, Machine::Right]);
}

#[test]
fn a_link_that_is_dead_towards_the_one_that_dialled_is_noticed_by_both() {
    check_cut("network::dead_towards_right", &[Machine::Right]);
}

#[test]
fn a_link_that_is_dead_towards_the_one_that_answered_is_noticed_by_both() {
    check_cut("network::dead_towards_left", &[Machine::Left]);
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

#[test]
fn messages_arrive_in_order_over_a_slow_link_that_loses_some() {
    let test = "network::slow_and_lossy";
    let Some(network) = Network::new(test) else {
        return;
    };
    if let Err(reason) = network.impair("150ms", "5%") {
        skipped(test, &reason);
        return;
    }
    let lab = Lab::new();
    let (left, right) = machines(&lab, &network, &EVERYWHERE);
    let lines = numbered("line", 500);
    deliver(&left, &right, "news", &lines, NOTICED_WITHIN);
    check_arrived(&right, "news", &[&lines]);
    let round_trip = left.peer_status("right")["round_trip_ms"].as_f64();
    assert!(round_trip >= Some(250.0), "{round_trip:?}");
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
