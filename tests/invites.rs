//! Tickets: listed, taken back, used by many at once, and what their holders are told.

mod support;

use std::sync::Arc;
use std::time::Duration;

use packhorse::{ErrorKind, Invite, InviteState, Join};
use serde_json::json;
use tokio::task::JoinSet;

use support::deadline::SOON;
use support::document::check_keys;
use support::lab::join_words;
use support::{Lab, SEND_ALL, until};

/// Nodes that use one ticket at the same moment.
const JOINERS: usize = 32;

#[test]
fn a_ticket_is_listed_with_how_it_stands_and_taken_back_by_its_id() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let words = ["invite", "--grant", SEND_ALL, "--uses", "2", "--json"];
    let invited = left.cli(&words).expect(0).document("packhorse.invite.v1");
    let id = invited["id"].as_str().expect("an id").to_owned();
    assert_eq!(id.len(), 10);
    let ticket = invited["ticket"].as_str().expect("a ticket").to_owned();
    right.join(&ticket, "left").expect(0);
    let invites = left.json(&["invites"]);
    assert_eq!(invites["schema"], "packhorse.invites.v1");
    let invite = &invites["invites"][0];
    let keys = [
        "id",
        "state",
        "grants",
        "grants_for_ms",
        "made",
        "expires",
        "uses_left",
        "users",
    ];
    check_keys(invite, &keys);
    assert_eq!(
        (&invite["id"], &invite["state"]),
        (&json!(id), &json!("open"))
    );
    assert_eq!(invite["uses_left"], 1);
    assert_eq!(invite["users"][0]["name"], "right");
    assert_eq!(invite["users"][0]["id"], right.id());
    left.cli(&["invites", "revoke", "zzz"])
        .expect(4)
        .says("no ticket `zzz`");
    let revoked = left.cli(&["invites", "revoke", &id[..6]]).expect(0);
    assert_eq!(revoked.text(), format!("{id}\n"));
    left.cli(&["invites", "revoke", &id])
        .expect(0)
        .prints_nothing();
    assert_eq!(left.json(&["invites"])["invites"][0]["state"], "revoked");
    // Who was paired by it stays; nobody else is.
    right.send_stored("left", "orders", "still a peer");
    let late = lab.start("late");
    late.join(&ticket, "left")
        .expect(5)
        .says("the ticket was revoked");
    let more: Vec<_> = (0..3).map(|_| left.invite()).collect();
    let revoked = left.json(&["invites", "revoke", "--all"]);
    assert_eq!(revoked["revoked"].as_array().map(Vec::len), Some(3));
    for ticket in &more {
        late.join(ticket, "left")
            .expect(5)
            .says("the ticket was revoked");
    }
}

#[test]
fn who_proves_a_ticket_is_told_why_it_pairs_nobody_and_who_does_not_is_told_nothing() {
    let mut lab = Lab::new();
    let (mut left, right) = (lab.start("left"), lab.start("right"));
    let expired = left.invite_with(&["--expires", "1ms"]);
    let used = left.invite();
    right.join(&used, "left").expect(0);
    let late = lab.start("late");
    until("the ticket expired", SOON, || {
        let invites = left.json(&["invites"]);
        (invites["invites"][0]["state"] == "expired").then_some(())
    });
    late.join(&expired, "left")
        .expect(5)
        .says("the ticket has expired");
    late.join(&used, "left")
        .expect(5)
        .says("the ticket is used up");
    // The same node that used it comes again, also after a restart: its verdict may be lost.
    left.restart();
    right.join(&used, "left").expect(0);
    assert_eq!(left.peer_names(), ["right"]);
}

#[test]
fn both_sides_of_a_pairing_show_what_to_compare() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let words = ["invite", "--grant", SEND_ALL, "--wait"];
    let mut waiting = left.follow(&words);
    let ticket = waiting.next_line();
    let joined = right.cli(&[&join_words(&ticket, "left")[..], &["--json"]].concat());
    let joined = joined.expect(0).document("packhorse.join.v1");
    let compare = joined["compare"].as_str().expect("a text");
    let paired = waiting.next_line();
    assert_eq!(paired, format!("paired with right  {}", right.id()));
    assert_eq!(waiting.next_line(), format!("compare      {compare}"));
    assert_eq!(waiting.ended(SOON).0, Some(0));
    let listed = left.json(&["invites"]);
    assert_eq!(listed["invites"][0]["users"][0]["compare"], compare);
    left.cli(&["invite", "--wait", "--timeout", "1ms"])
        .expect(124);
    left.cli(&["invite", "--wait", "--expires", "1ms", "--timeout", "60s"])
        .expect(5)
        .says("the ticket is expired");
    left.cli(&["invite", "--wait", "--json"]).expect(2);
}

#[test]
fn what_was_taken_from_a_node_does_not_come_back_with_its_ticket() {
    let mut lab = Lab::new();
    let (left, right) = (lab.start("left"), lab.start("right"));
    let ticket = left.invite();
    right.join(&ticket, "left").expect(0);
    left.cli(&["revoke", "right", "message.send"]).expect(0);
    right.join(&ticket, "left").expect(0);
    assert_eq!(left.json(&["peers"])["peers"][0]["grants"], json!([]));
    left.cli(&["invite", "--uses", "5000"])
        .expect(2)
        .says("a ticket with 5000 uses, the limit is 4096");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_nodes_that_use_a_ticket_at_once_exactly_as_many_pair_as_it_says() {
    let scratch = tempfile::TempDir::with_prefix("ph-").expect("a scratch folder");
    let start = |name: String, listens: bool| {
        let mut builder = packhorse::Node::builder(scratch.path().join(&name)).name(name);
        if listens {
            builder = builder.listen(([127, 0, 0, 1], 0).into());
        }
        async move { builder.start().await.expect("the node starts") }
    };
    let inviter = start("inviter".to_owned(), true).await;
    let starts: JoinSet<_> = (0..JOINERS)
        .map(|number| start(format!("joiner-{number}"), false))
        .collect();
    let joiners: Vec<_> = starts.join_all().await.into_iter().map(Arc::new).collect();
    let mut peers = 0;
    for uses in [1, 5] {
        let invite = Invite {
            uses,
            expires: Duration::from_secs(600),
            ..Invite::default()
        };
        let ticket = inviter.invite(invite).await.expect("a ticket");
        let mut joins = JoinSet::new();
        for joiner in &joiners {
            let (joiner, ticket) = (joiner.clone(), ticket.clone());
            joins.spawn(async move { joiner.join(&ticket, Join::default()).await });
        }
        let mut paired = 0;
        while let Some(joined) = joins.join_next().await {
            match joined.expect("no join panics") {
                Ok(_) => paired += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
                    assert!(error.to_string().contains("used up"), "{error}");
                }
            }
        }
        assert_eq!(paired, uses, "of a ticket with {uses} uses");
        let invites = inviter.invites().await.expect("the store is there");
        let invite = invites.last().expect("the newest");
        assert_eq!(invite.state, InviteState::UsedUp);
        assert_eq!(invite.users.len(), uses as usize);
        peers = peers.max(inviter.peers().await.expect("the store is there").len());
    }
    // Who came by the first one may be among the five, or be a sixth.
    assert!((5..=6).contains(&peers), "{peers} peers");
    let ends = joiners
        .into_iter()
        .map(|joiner| async move { joiner.shutdown().await });
    ends.collect::<JoinSet<_>>().join_all().await;
    inviter.shutdown().await;
}
