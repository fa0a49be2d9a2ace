//! What arrives, and what consumers are promised.

use super::*;

#[test]
fn a_message_that_is_stored_twice_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.handled(2_000, 1, 1, NEWS_OP);
    run.passes();
    // Under another number there.
    run.saw(3_000, 2, 1, NEWS_OP);
    run.done(3_100, 2);
    run.is_caught_by("stored-once");

    // Under another position.
    let mut run = Run::new();
    run.accept(1_000, KEYED, 1);
    run.handled(2_000, 1, 1, KEYED);
    run.saw(3_000, 2, 2, KEYED);
    run.done(3_100, 2);
    run.is_caught_only_by("stored-once");
    // A sender that was set back has forgotten the key.
    run.note(2_500, node(0), What::SetBack { copied_ms: 100 });
    run.passes();
}

#[test]
fn an_arrival_number_with_two_meanings_is_caught() {
    let mut run = Run::new();
    run.ask(1_000, LEFT);
    run.ask(1_000, NEWS_OP);
    run.saw(2_000, 1, 1, NEWS_OP);
    run.done(2_100, 1);
    run.waits_there(1, 2, LEFT);
    run.is_caught_by("stored-once");
}

#[test]
fn what_was_put_back_by_hand_arrives_again() {
    let mut run = Run::new();
    run.accept(1_000, JOB, 1);
    run.saw(2_000, 1, 1, JOB);
    run.settle(2_100, 1, Verdict::Dead, Said::Yes(Outcome::Dead));
    let position = at(1);
    run.by_hand(3_000, 1, ByHand::RetryDeadIn { from: 0, position });
    run.handled(4_000, 2, 1, JOB);
    run.passes();
}

#[test]
fn messages_out_of_order_are_caught() {
    let mut run = Run::new();
    run.ask(1_000, NEWS_OP);
    run.ask(1_000, NEWS_OP + 1);
    run.saw(2_000, 1, 1, NEWS_OP);
    run.saw(2_000, 2, 2, NEWS_OP + 1);
    run.done(2_100, 1);
    run.done(2_100, 2);
    run.passes();
    let mut run = Run::new();
    run.ask(1_000, NEWS_OP);
    run.ask(1_000, NEWS_OP + 1);
    run.saw(2_000, 1, 2, NEWS_OP);
    run.saw(2_000, 2, 1, NEWS_OP + 1);
    run.done(2_100, 1);
    run.done(2_100, 2);
    run.is_caught_only_by("in-order");
    // Its epochs are in no order any more.
    run.note(500, node(0), What::CopyBegun { copied_ms: 400 });
    run.passes();
}

#[test]
fn a_later_question_before_an_earlier_answer_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 2);
    run.accept(2_000, NEWS_OP + 1, 1);
    run.handled(3_000, 1, 1, NEWS_OP + 1);
    run.handled(4_000, 2, 2, NEWS_OP);
    run.is_caught_only_by("in-order");
}

#[test]
fn a_message_that_is_another_than_was_sent_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, LEFT, 1);
    run.waits_there(1, 1, LEFT);
    run.ends(1, ReceiptState::Stored);
    run.passes();
    run.end.nodes[1].inbox[0].is_intact = false;
    run.is_caught_only_by("arrives-as-sent");
    run.end.nodes[1].inbox[0].is_intact = true;
    run.end.nodes[1].inbox[0].op = Some(999);
    run.is_caught_by("arrives-as-sent");
}

#[test]
fn a_message_that_had_been_replaced_and_arrives_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, KEYED, 1);
    run.accept_again(2_000, REPLACING, 1, true);
    run.handled(3_000, 1, 1, REPLACING);
    run.passes();
    let mut run = Run::new();
    run.accept(1_000, KEYED, 1);
    run.accept_again(2_000, REPLACING, 1, true);
    run.handled(3_000, 1, 1, KEYED);
    run.is_caught_only_by("arrives-as-sent");
    // Nobody knows whether it was replaced.
    let mut run = Run::new();
    run.accept(1_000, KEYED, 1);
    run.ask(2_000, REPLACING);
    run.handled(3_000, 1, 1, REPLACING);
    run.passes();
}

#[test]
fn what_was_refused_and_arrives_is_caught() {
    let mut run = Run::new();
    let call = run.ask(1_000, LEFT);
    run.answer(1_001, call, Answer::Refused(Refusal::Full));
    run.passes();
    run.waits_there(1, 1, LEFT);
    run.is_caught_only_by("refused-is-not-stored");
    // Another try may have been accepted.
    run.ask(1_100, LEFT);
    run.passes();
}

#[test]
fn a_letter_that_denies_what_arrived_is_caught() {
    for (state, code) in [(DeadState::NotDelivered, 0xff03), (DeadState::Refused, 1)] {
        let mut run = Run::new();
        run.accept(1_000, EXPIRING, 1);
        run.ends(1, ReceiptState::Failed);
        let grant = "message.send:*".to_owned();
        run.by_hand(900, 1, ByHand::Revoke { from: 0, grant });
        run.dead_here(1, EXPIRING, code, state);
        run.passes();
        run.saw(2_000, 1, 1, EXPIRING);
        run.done(2_100, 1);
        run.is_caught_by("refused-is-not-stored");
    }
    let mut run = Run::new();
    run.accept(1_000, SECRET_OP, 1);
    run.dead_here(1, SECRET_OP, 1, DeadState::Refused);
    run.ends(1, ReceiptState::Stored);
    run.is_caught_by("refused-is-not-stored");
}

#[test]
fn an_ephemeral_message_that_comes_twice_or_is_kept_is_caught() {
    let told = |sent| {
        let mut run = Run::new();
        let call = run.ledger.call();
        let asked = What::AskedEphemeral {
            call,
            to: 1,
            op: EPHEMERAL,
        };
        run.note(1_000, node(0), asked);
        run.note(1_001, node(0), What::AnsweredEphemeral { call, sent });
        let seen = Seen {
            is_ephemeral: true,
            ..run.seen(1 << 52, 1, EPHEMERAL)
        };
        run.note(1_100, node(1), What::Saw(seen.clone()));
        (run, seen)
    };
    let (mut run, seen) = told(Ok(()));
    run.passes();
    run.note(1_200, node(1), What::Saw(seen));
    run.is_caught_only_by("ephemeral-is-now-or-never");
    let (run, _) = told(Err("no session".to_owned()));
    run.is_caught_only_by("ephemeral-is-now-or-never");
    let (mut run, _) = told(Ok(()));
    run.waits_there(1, 1, EPHEMERAL);
    run.is_caught_by("ephemeral-is-now-or-never");
}

#[test]
fn what_is_stored_without_a_grant_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, SECRET_OP, 1);
    run.handled(2_000, 1, 1, SECRET_OP);
    run.is_caught_only_by("nothing-is-stored-without-a-grant");

    let grant = || "message.send:*".to_owned();
    let revoked = |sent_ms| {
        let mut run = Run::new();
        let grant = grant();
        run.by_hand(1_000, 1, ByHand::Revoke { from: 0, grant });
        run.accept(sent_ms, NEWS_OP, 1);
        run.handled(2_000, 1, 1, NEWS_OP);
        run
    };
    // It may have been stored before.
    revoked(900).passes();
    revoked(1_500).is_caught_only_by("nothing-is-stored-without-a-grant");
    // It was given back before anybody saw the message.
    let mut run = revoked(1_500);
    let to = 0;
    run.by_hand(1_800, 1, ByHand::Grant { to, grant: grant() });
    run.passes();
    // The answer was lost.
    let mut run = Run::new();
    let call = run.ledger.call();
    let deed = ByHand::Revoke {
        from: 0,
        grant: grant(),
    };
    run.note(1_000, node(1), What::Doing { call, deed });
    run.accept(1_500, NEWS_OP, 1);
    run.handled(2_000, 1, 1, NEWS_OP);
    run.passes();
}

fn begin(run: &mut Run, at_ms: u64, arrival: u64, attempt: u32) {
    let call = run.ledger.call();
    run.note(at_ms, node(1), What::Beginning { call, arrival });
    let attempt = Said::Yes(attempt);
    run.note(at_ms + 1, node(1), What::Begun { call, attempt });
}

#[test]
fn a_job_that_is_run_without_execute_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, JOB, 1);
    run.saw(2_000, 1, 1, JOB);
    begin(&mut run, 2_010, 1, 1);
    run.done(2_100, 1);
    run.ends(1, ReceiptState::Done);
    run.passes();
    let grant = "execute:jobs".to_owned();
    run.by_hand(1_500, 1, ByHand::Revoke { from: 0, grant });
    run.is_caught_only_by("nothing-is-run-without-execute");
}

#[test]
fn an_attempt_that_is_counted_twice_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, JOB, 1);
    run.saw(2_000, 1, 1, JOB);
    begin(&mut run, 2_010, 1, 1);
    run.saw(7_000, 1, 1, JOB);
    begin(&mut run, 7_010, 1, 2);
    run.done(7_100, 1);
    run.ends(1, ReceiptState::Done);
    run.passes();
    begin(&mut run, 7_020, 1, 2);
    run.is_caught_only_by("attempts-climb");
}

#[test]
fn what_left_and_comes_again_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.handled(2_000, 1, 1, NEWS_OP);
    // Somebody else had been handed it already.
    run.saw(2_020, 1, 1, NEWS_OP);
    run.passes();
    run.saw(60_000, 1, 1, NEWS_OP);
    run.is_caught_only_by("settled-is-gone");
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.handled(2_000, 1, 1, NEWS_OP);
    let seen = run.seen(1, 1, NEWS_OP);
    let next = Place { life: 2, ..node(1) };
    run.note(2_500, next, What::Saw(seen));
    run.is_caught_only_by("settled-is-gone");
    run.note(2_400, node(1), What::SetBack { copied_ms: 1_500 });
    run.done(2_600, 1);
    run.passes();
}

#[test]
fn a_word_without_an_answer_decides_nothing() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.saw(2_000, 1, 1, NEWS_OP);
    let unknown = Said::Unknown("lost".to_owned());
    run.settle(2_100, 1, Verdict::Done, unknown);
    run.handled(60_000, 1, 1, NEWS_OP);
    run.passes();
}

#[test]
fn two_holders_of_one_message_are_caught() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.saw(2_000, 1, 1, NEWS_OP);
    run.handled(5_100, 1, 1, NEWS_OP);
    run.passes();
    let twice = || {
        let mut run = Run::new();
        run.accept(1_000, NEWS_OP, 1);
        run.saw(2_000, 1, 1, NEWS_OP);
        run
    };
    let mut run = twice();
    run.handled(3_000, 1, 1, NEWS_OP);
    run.is_caught_only_by("one-holder-at-a-time");
    let mut run = twice();
    run.settle(2_500, 1, Verdict::Retry, Said::Yes(Outcome::Later));
    run.handled(3_000, 1, 1, NEWS_OP);
    run.passes();
    let mut run = twice();
    let what = What::Life {
        actor: "inbox".to_owned(),
        incarnation: 1,
        life: Life::Exited("a fault".to_owned()),
    };
    run.note(2_500, node(1), what);
    run.handled(3_000, 1, 1, NEWS_OP);
    run.passes();
}
