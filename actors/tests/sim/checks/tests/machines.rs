//! What machines keep about themselves, and how a run ends.

use super::*;

fn event(number: u64, text: &str) -> What {
    What::Event {
        number,
        event_ms: 5,
        kind: "node.started",
        peer: None,
        text: text.to_owned(),
    }
}

#[test]
fn an_event_that_changes_under_its_number_is_caught() {
    let mut run = Run::new();
    run.note(1_000, node(0), event(1, "one"));
    run.note(1_000, node(0), event(2, "two"));
    run.note(1_000, node(1), event(1, "another machine"));
    run.note(2_000, node(0), event(1, "one"));
    run.passes();
    run.note(3_000, node(0), event(2, "another"));
    run.is_caught_only_by("events-keep-their-numbers");
    run.note(2_500, node(0), What::SetBack { copied_ms: 900 });
    run.passes();
}

#[test]
fn an_alarm_without_a_cause_is_caught() {
    let mut run = Run::new();
    let alarm = What::Event {
        number: 9,
        event_ms: 5,
        kind: "peer.rolled_back",
        peer: Some(1),
        text: "it shows less".to_owned(),
    };
    run.note(1_000, node(0), alarm);
    run.is_caught_only_by("alarms-are-true");
    run.note(900, node(1), What::SetBack { copied_ms: 100 });
    run.passes();
}

fn life(actor: &str, incarnation: u64, life: Life) -> What {
    What::Life {
        actor: actor.to_owned(),
        incarnation,
        life,
    }
}

#[test]
fn two_sessions_with_one_peer_are_caught() {
    let mut run = Run::new();
    run.note(1_000, node(0), life("session 1", 1, Life::Started));
    run.note(1_000, node(0), life("session 2", 1, Life::Started));
    let exited = Life::Exited("displaced".to_owned());
    run.note(2_000, node(0), life("session 1", 1, exited.clone()));
    run.note(2_000, node(0), life("session 1", 2, Life::Started));
    run.passes();
    run.note(3_000, node(0), life("session 1", 3, Life::Started));
    run.is_caught_only_by("one-session-per-peer");

    let mut run = Run::new();
    run.end.nodes[0].connected.push(1);
    run.end.nodes[1].connected.push(0);
    run.passes();
    run.end.nodes[1].connected.clear();
    run.is_caught_only_by("one-session-per-peer");
}

#[test]
fn sessions_that_end_with_their_supervisor_are_over() {
    let mut run = Run::new();
    run.note(1_000, node(0), life("session 1", 1, Life::Started));
    let exited = Life::Exited("a fault".to_owned());
    run.note(2_000, node(0), life("session supervisor", 1, exited));
    run.note(3_000, node(0), life("session 1", 2, Life::Started));
    run.passes();
}

#[test]
fn a_displaced_session_that_works_is_caught() {
    let work = |incarnation| What::SessionWork {
        actor: "session 1".to_owned(),
        incarnation,
        what: "store",
    };
    let mut run = Run::new();
    run.note(1_000, node(0), life("session 1", 1, Life::Started));
    run.note(1_500, node(0), work(1));
    let exited = Life::Exited("displaced".to_owned());
    run.note(2_000, node(0), life("session 1", 1, exited));
    run.note(2_000, node(0), life("session 1", 2, Life::Started));
    run.note(2_500, node(0), work(2));
    run.passes();
    run.note(2_600, node(0), work(1));
    run.is_caught_only_by("a-displaced-session-does-nothing");
}

#[test]
fn a_queue_that_is_too_long_is_caught() {
    let depth = |jobs| {
        What::Depth(Depths {
            jobs,
            ..Depths::default()
        })
    };
    let mut run = Run::new();
    run.note(1_000, node(0), depth(256));
    run.passes();
    run.note(1_000, node(0), depth(257));
    run.is_caught_only_by("queues-keep-their-limits");
}

#[test]
fn what_is_not_given_back_at_rest_is_caught() {
    let mut run = Run::new();
    run.end.nodes[0].depths.job_bytes = 1;
    run.is_caught_only_by("permits-return");
    let mut run = Run::new();
    run.end.nodes[0].leased.push(3);
    run.is_caught_only_by("permits-return");
    let mut run = Run::new();
    run.end.nodes[0].actors.push(("inbox".to_owned(), false));
    run.is_caught_only_by("permits-return");
    // A session that is over stays in the census.
    let mut run = Run::new();
    run.end.nodes[0]
        .actors
        .push(("session 1".to_owned(), false));
    run.passes();
}

#[test]
fn a_counter_that_lies_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, LEFT, 1);
    run.waits_there(1, 1, LEFT);
    run.ends(1, ReceiptState::Stored);
    run.end.nodes[1].inbox[0].weight = 24;
    run.end.nodes[1].held = [0, 24, 0];
    run.passes();
    run.end.nodes[1].held = [0, 25, 0];
    run.is_caught_only_by("counters-are-right");
}

#[test]
fn what_does_not_come_to_rest_is_caught() {
    let mut run = Run::new();
    run.end.unrest = Some("3 messages wait".to_owned());
    run.is_caught_only_by("everything-comes-to-rest");
    let mut run = Run::new();
    run.end.nodes[1].actors.clear();
    run.is_caught_only_by("everything-comes-to-rest");
    let mut run = Run::new();
    run.end.nodes[0].waiting.push((1, [0, 1]));
    run.is_caught_only_by("everything-comes-to-rest");
    run.by_hand(1_000, 1, ByHand::Forget { peer: 0 });
    run.passes();
    let grants = Vec::new();
    run.by_hand(2_000, 1, ByHand::Readmit { peer: 0, grants });
    run.is_caught_only_by("everything-comes-to-rest");
}

#[test]
fn a_message_that_nobody_takes_is_caught_where_somebody_should() {
    let waits = |op| {
        let mut run = Run::new();
        run.accept(1_000, op, 1);
        run.waits_there(1, 1, op);
        run.ends(1, ReceiptState::Stored);
        run
    };
    waits(LEFT).passes();
    waits(NEWS_OP).is_caught_only_by("everything-comes-to-rest");
    let mut job = waits(JOB);
    job.is_caught_only_by("everything-comes-to-rest");
    let grant = "execute:jobs".to_owned();
    job.by_hand(500, 1, ByHand::Revoke { from: 0, grant });
    job.passes();
    // A clock that was set back keeps it back for longer.
    let mut job = waits(JOB);
    job.end.nodes[1].inbox[0].kept_back_ms = 3_000_000;
    job.is_caught_only_by("everything-comes-to-rest");
    let by_ms = -3_600_000;
    let kind = FaultKind::ClockJump { node: 1, by_ms };
    job.plan.faults.push(Fault { at_ms: 9, kind });
    job.passes();
}
