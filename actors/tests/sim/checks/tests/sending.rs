//! What senders are promised and told.

use super::*;

#[test]
fn a_receipt_that_is_forgotten_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.handled(2_000, 1, 1, NEWS_OP);
    run.receipt(3_000, 1, Some(ReceiptState::Stored));
    run.passes();
    run.receipt(4_000, 1, None);
    run.is_caught_only_by("receipts-are-known");
}

#[test]
fn a_disk_that_was_put_back_may_have_forgotten_what_came_after_its_copy() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.note(5_000, node(0), What::SetBack { copied_ms: 500 });
    run.end.nodes[0].receipts.insert(id(1), None);
    run.passes();
    // But not what came before.
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.note(5_000, node(0), What::SetBack { copied_ms: 2_000 });
    run.end.nodes[0].receipts.insert(id(1), None);
    run.is_caught_only_by("receipts-are-known");
}

#[test]
fn a_message_that_is_called_stored_and_is_nowhere_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, LEFT, 1);
    run.waits_there(1, 1, LEFT);
    run.ends(1, ReceiptState::Stored);
    run.passes();
    run.end.nodes[1].inbox.clear();
    run.is_caught_only_by("accepted-is-accounted-for");
}

#[test]
fn a_message_that_waits_here_is_in_the_outbox() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.ends(1, ReceiptState::Accepted);
    run.is_caught_only_by("accepted-is-accounted-for");
    run.end.nodes[0].outbox.push(OutRow {
        to: 1,
        id: id(1),
        op: Some(NEWS_OP),
        weight: 0,
    });
    run.passes();
}

#[test]
fn a_message_that_failed_without_a_letter_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, EXPIRING, 1);
    run.ends(1, ReceiptState::Failed);
    run.is_caught_only_by("accepted-is-accounted-for");
    run.dead_here(1, EXPIRING, 0xff03, DeadState::NotDelivered);
    run.passes();
    // It may have been dropped by hand as well.
    run.end.nodes[0].letters.clear();
    run.by_hand(5_000, 0, ByHand::DropDead { id: id(1) });
    run.passes();
}

#[test]
fn a_receipt_that_nobody_read_is_a_fault_of_the_run() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.is_caught_only_by("the-run-itself");
}

#[test]
fn what_a_consumer_saw_and_nobody_took_is_caught_when_it_is_gone() {
    let mut run = Run::new();
    // The answer was lost: nobody knows the receipt.
    run.ask(1_000, LEFT);
    run.saw(2_000, 1, 1, LEFT);
    run.waits_there(1, 1, LEFT);
    run.passes();
    run.end.nodes[1].inbox.clear();
    run.is_caught_only_by("seen-is-accounted-for");
    run.note(9_000, node(1), What::SetBack { copied_ms: 1_500 });
    run.passes();
}

#[test]
fn a_row_that_was_seen_in_an_outbox_is_known_at_the_end() {
    let mut run = Run::new();
    run.ask(1_000, NEWS_OP);
    let row = What::OutRow {
        to: 1,
        id: id(1),
        op: Some(NEWS_OP),
    };
    run.note(1_500, node(0), row);
    run.handled(2_000, 1, 1, NEWS_OP);
    run.passes();
    run.end.nodes[0].receipts.insert(id(1), None);
    run.is_caught_only_by("seen-is-accounted-for");
}

#[test]
fn a_key_with_two_receipts_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, KEYED, 1);
    run.accept_again(2_000, KEYED, 1, true);
    run.handled(3_000, 1, 1, KEYED);
    run.passes();
    run.accept(4_000, KEYED, 2);
    run.ends(2, ReceiptState::Done);
    run.is_caught_by("keys-have-one-receipt");
}

#[test]
fn a_receipt_that_falls_is_caught() {
    use ReceiptState::{Accepted, Done, Failed, Stored};
    for (before, after, is_right) in [
        (Accepted, Stored, true),
        (Accepted, Failed, true),
        (Stored, Done, true),
        (Stored, Failed, true),
        (Failed, Done, true),
        (Stored, Accepted, false),
        (Done, Stored, false),
        (Done, Failed, false),
        (Failed, Stored, false),
        (Failed, Accepted, false),
    ] {
        let mut run = Run::new();
        run.receipt(1_000, 1, Some(before));
        run.receipt(2_000, 1, Some(after));
        match is_right {
            true => run.passes(),
            false => run.is_caught_only_by("receipts-only-climb"),
        }
        // Not compared with what the disk knew that was put back in between.
        run.note(1_500, node(0), What::SetBack { copied_ms: 500 });
        run.passes();
    }
}

#[test]
fn a_letter_that_may_have_been_delivered_or_was_sent_again_is_stored_later() {
    let mut run = Run::new();
    let reason = Some("dropped by hand; it may have been delivered".to_owned());
    let what = What::Receipt {
        id: id(1),
        state: Some(ReceiptState::Failed),
        reason,
    };
    run.note(1_000, node(0), what);
    run.receipt(2_000, 1, Some(ReceiptState::Stored));
    run.passes();

    let mut run = Run::new();
    run.accept(500, NEWS_OP, 1);
    run.receipt(1_000, 1, Some(ReceiptState::Failed));
    run.retry(1_500, 1, 2);
    run.receipt(2_000, 1, Some(ReceiptState::Accepted));
    run.handled(3_000, 1, 2, NEWS_OP);
    run.ends(1, ReceiptState::Done);
    run.passes();
}

#[test]
fn an_end_that_is_not_told_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, NEWS_OP, 1);
    run.handled(2_000, 1, 1, NEWS_OP);
    run.passes();
    run.ends(1, ReceiptState::Stored);
    run.is_caught_only_by("ends-are-told");
    // Nobody is told who was forgotten.
    run.by_hand(1_500, 1, ByHand::Forget { peer: 0 });
    let grants = vec!["message.send:*".to_owned()];
    run.by_hand(1_800, 1, ByHand::Readmit { peer: 0, grants });
    run.passes();
}

#[test]
fn a_key_that_is_repeated_behind_a_window_names_what_was_sent_before_it() {
    let mut run = Run::new();
    run.accept(1_000, KEYED, 1);
    run.handled(2_000, 1, 1, KEYED);
    run.note(3_000, node(0), What::SetBack { copied_ms: 1_500 });
    run.accept_again(4_000, KEYED, 1, true);
    // The report went to the life that is lost.
    run.ends(1, ReceiptState::Stored);
    run.passes();
}

#[test]
fn a_message_that_was_given_up_there_is_told_as_failed() {
    let mut run = Run::new();
    run.accept(1_000, JOB, 1);
    run.saw(2_000, 1, 1, JOB);
    run.settle(2_100, 1, Verdict::Dead, Said::Yes(Outcome::Dead));
    run.dead_there(1, JOB);
    run.ends(1, ReceiptState::Failed);
    run.passes();
    run.ends(1, ReceiptState::Done);
    run.is_caught_only_by("ends-are-told");
}

#[test]
fn done_before_anybody_handled_it_is_caught() {
    let mut run = Run::new();
    run.accept(1_000, LEFT, 1);
    run.waits_there(1, 1, LEFT);
    run.ends(1, ReceiptState::Done);
    run.is_caught_only_by("ends-are-told");
}

#[test]
fn a_letter_without_a_cause_is_caught() {
    let letter = |op, code| {
        let mut run = Run::new();
        run.accept(1_000, op, 1);
        run.ends(1, ReceiptState::Failed);
        run.dead_here(1, op, code, DeadState::NotDelivered);
        run
    };
    letter(SECRET_OP, 1).passes();
    letter(MODERATE, 0xff02).passes();
    letter(EXPIRING, 0xff03).passes();
    for (op, code) in [
        (NEWS_OP, 1),
        (NEWS_OP, 3),
        (NEWS_OP, 0xff01),
        (NEWS_OP, 0xff02),
        (NEWS_OP, 0xff03),
        (NEWS_OP, 0xff04),
        (NEWS_OP, 0xff05),
        (NEWS_OP, 0xff06),
    ] {
        letter(op, code).is_caught_only_by("letters-have-causes");
    }
    let mut early = letter(MODERATE, 0xff02);
    early.end.nodes[0].letters[0].at_ms = 60_999;
    early.is_caught_only_by("letters-have-causes");
    let mut dropped = letter(NEWS_OP, 0xff04);
    let all = ByHand::DropWaiting {
        to: None,
        ids: Vec::new(),
    };
    dropped.by_hand(3_000, 0, all);
    dropped.passes();
    let mut revoked = letter(NEWS_OP, 1);
    let grant = "message.send:*".to_owned();
    revoked.by_hand(1_200, 1, ByHand::Revoke { from: 0, grant });
    revoked.passes();
}
