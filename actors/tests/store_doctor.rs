//! Damage of every kind, as doctor finds and mends it: named, set aside, counted again, and what was
//! whole is served.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use packhorse_actors::store::{Filter, Severity, Space, examine, repair};
use packhorse_protocol::epoch::Lane;
use store_common::{Place, batch, epoch, keyed};

/// A store with something in every box, closed.
async fn filled() -> Place {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    for text in ["a", "b", "c"] {
        let sent = vec![keyed(text, text)];
        node.store.accept(peer, Lane::User, sent).await.unwrap();
    }
    let arrived = batch(epoch(1, 2), 1, &["one", "two", "three"]);
    node.store
        .store_inbound(peer, Lane::User, vec![arrived])
        .await
        .unwrap();
    node.close().await;
    let report = examine(&place.config).unwrap();
    assert_eq!(report.worst(), Severity::Well, "{report:?}");
    place
}

/// The first key of a table.
fn key_of(place: &Place, space: Space, table: u8) -> Vec<u8> {
    let rows = place.disk().rows(space);
    let found = rows.into_iter().find(|(key, _)| key[0] == table);
    found.expect("the table has rows").0
}

/// Damages one record, and checks that it is named, mended, and well afterwards.
async fn mend(table: u8, space: Space) -> Place {
    let mut place = filled().await;
    let key = key_of(&place, space, table);
    place.disk().overwrite(space, &key, vec![1; 60]);
    let report = examine(&place.config).unwrap();
    assert_eq!(report.worst(), Severity::Damage, "{table}: {report:?}");
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(format!("{report:?}").contains(&hex), "{hex}: {report:?}");
    let mended = repair(&place.config).await.unwrap();
    assert!(!mended.is_empty());
    let report = examine(&place.config).unwrap();
    // What was set aside is kept and told, which is no damage any more.
    assert!(report.worst() <= Severity::Warning, "{table}: {report:?}");
    let again = repair(&place.config).await.unwrap();
    assert_eq!(again, Vec::<String>::new(), "{table}");
    // It opens, and works.
    place.open().close().await;
    place
}

#[tokio::test]
async fn a_message_out_that_does_not_open_becomes_a_dead_letter() {
    let mut place = mend(32, Space::Outbox).await;
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].number;
    assert_eq!(node.waiting(peer).await, ["b", "c"]);
    let letters = node.store.dead_letters(Filter::default(), 9).await.unwrap();
    assert_eq!(letters.total, 1);
    assert!(letters.rows[0].reason.contains("damaged"), "{letters:?}");
    node.close().await;
}

#[tokio::test]
async fn a_message_in_that_does_not_open_leaves_the_others() {
    let mut place = mend(48, Space::Inbox).await;
    let node = place.open();
    assert_eq!(node.arrived("news").await, ["two", "three"]);
    assert_eq!(node.store.inbox_list(9).await.unwrap().total, 2);
    node.close().await;
}

#[tokio::test]
async fn a_line_is_made_anew_from_its_rows() {
    let mut place = mend(7, Space::Small).await;
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].number;
    assert_eq!(node.waiting(peer).await, ["a", "b", "c"]);
    // Nothing of it is given out twice: what comes next has another epoch.
    let accepted = node.accept(peer, &["d"]).await;
    assert_eq!(accepted[0].id.position.sequence, 1);
    node.close().await;
}

#[tokio::test]
async fn a_mark_is_set_to_what_certainly_arrived() {
    let mut place = mend(11, Space::Small).await;
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].number;
    let again = vec![batch(epoch(1, 2), 1, &["one", "two", "three", "four"])];
    node.store
        .store_inbound(peer, Lane::User, again)
        .await
        .unwrap();
    assert_eq!(node.arrived("news").await, ["one", "two", "three", "four"]);
    node.close().await;
}

#[tokio::test]
async fn counters_and_indexes_are_made_anew() {
    // Topic, idempotency, its order, peer index.
    for table in [14, 9, 10, 5] {
        let mut place = mend(table, Space::Small).await;
        let node = place.open();
        assert_eq!(node.arrived("news").await.len(), 3, "{table}");
        let peer = node.store.peer_by_name_or_id("node2").await.unwrap();
        assert!(peer.is_some(), "{table}");
        node.close().await;
    }
}

#[tokio::test]
async fn an_index_whose_entries_are_gone_is_found_and_mended() {
    let mut place = filled().await;
    let disk = place.disk();
    for (key, _) in disk.rows(Space::Inbox) {
        if key[0] == 49 {
            disk.lose(Space::Inbox, &key);
        }
    }
    let report = examine(&place.config).unwrap();
    assert_eq!(report.worst(), Severity::Warning, "{report:?}");
    repair(&place.config).await.unwrap();
    assert_eq!(examine(&place.config).unwrap().worst(), Severity::Well);
    let node = place.open();
    assert_eq!(node.arrived("news").await.len(), 3);
    node.close().await;
}

#[tokio::test]
async fn messages_that_are_simply_gone_become_dead_letters() {
    let mut place = filled().await;
    let key = key_of(&place, Space::Outbox, 32);
    place.disk().lose(Space::Outbox, &key);
    let report = examine(&place.config).unwrap();
    assert_eq!(report.worst(), Severity::Damage, "{report:?}");
    repair(&place.config).await.unwrap();
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].number;
    assert_eq!(node.waiting(peer).await, ["b", "c"]);
    let letters = node.store.dead_letters(Filter::default(), 9).await.unwrap();
    assert_eq!(letters.total, 1);
    node.close().await;
}

#[tokio::test]
async fn lost_commits_are_named_and_accepted_once() {
    let mut place = filled().await;
    let node = place.open();
    let commits = node.store.commits();
    node.close().await;
    place.disk().set_mark(commits + 3);
    let report = examine(&place.config).unwrap();
    assert_eq!(report.worst(), Severity::Damage);
    assert!(
        format!("{report:?}").contains("commits are lost"),
        "{report:?}"
    );
    let mended = repair(&place.config).await.unwrap();
    assert!(mended[0].contains("3 commits are lost"), "{mended:?}");
    let node = place.open();
    let page = node.store.events_since(0, 100).await.unwrap();
    let told = page
        .events
        .iter()
        .any(|event| event.fact.kind() == "store.lost_commits");
    assert!(told, "{page:?}");
    node.close().await;
    assert_eq!(examine(&place.config).unwrap().worst(), Severity::Well);
}

#[tokio::test]
async fn a_store_that_is_in_use_is_not_looked_at() {
    let mut place = filled().await;
    let node = place.open();
    assert!(examine(&place.config).is_err());
    assert!(repair(&place.config).await.is_err());
    node.close().await;
}

/// Every value of a table as it lies on the disk.
fn values(place: &Place, space: Space, table: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = place.disk().rows(space).into_iter();
    rows.filter(|(key, _)| key[0] == table).collect()
}

#[tokio::test]
async fn one_unreadable_block_costs_no_message_behind_it() {
    let mut place = filled().await;
    let rows = values(&place, Space::Outbox, 32);
    place.disk().tear(Space::Outbox, &rows[0].0);
    let report = examine(&place.config).unwrap();
    assert_eq!(report.worst(), Severity::Damage, "{report:?}");
    assert!(
        format!("{report:?}").contains("cannot be read"),
        "{report:?}"
    );
    repair(&place.config).await.unwrap();
    // Again finds no more, and still says that a part cannot be read.
    assert_eq!(repair(&place.config).await.unwrap(), Vec::<String>::new());
    assert_eq!(examine(&place.config).unwrap().worst(), Severity::Damage);
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].number;
    assert_eq!(node.waiting(peer).await, ["b", "c"]);
    let letters = node.store.dead_letters(Filter::default(), 9).await.unwrap();
    assert_eq!(letters.total, 1, "{letters:?}");
    node.close().await;
}

#[tokio::test]
async fn what_is_hidden_by_an_unreadable_block_is_neither_deleted_nor_counted_again() {
    for (space, table) in [(Space::Inbox, 48), (Space::Small, 14), (Space::Small, 7)] {
        let place = filled().await;
        let first = key_of(&place, space, table);
        let before = Space::ALL.map(|space| place.disk().rows(space).len());
        let inbox = values(&place, Space::Small, 3);
        place.disk().tear(space, &first);
        let report = examine(&place.config).unwrap();
        assert_eq!(report.worst(), Severity::Damage, "{table}: {report:?}");
        // It may well not open: then nothing is touched either.
        let mended = repair(&place.config).await.unwrap_or_default();
        assert_eq!(mended, Vec::<String>::new(), "{table}");
        let after = Space::ALL.map(|space| place.disk().rows(space).len());
        assert_eq!(before[1..], after[1..], "{table}");
        assert!(after[0] >= before[0], "{table}");
        let count = |rows: Vec<(Vec<u8>, Vec<u8>)>| rows.len();
        assert_eq!(
            count(values(&place, Space::Small, 3)),
            count(inbox),
            "{table}"
        );
    }
}

#[tokio::test]
async fn a_denial_that_does_not_open_denies_also_behind_a_repair() {
    let mut place = filled().await;
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].clone();
    node.store.forget(peer.number).await.unwrap();
    node.close().await;
    let key = key_of(&place, Space::Small, 23);
    place.disk().overwrite(Space::Small, &key, vec![1; 60]);
    repair(&place.config).await.unwrap();
    let node = place.open();
    let denied = node.store.denied().await.unwrap();
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0].id, peer.id);
    node.close().await;
    // Of one that never was a peer nothing says who it was; it is left where it is.
    let (head, hash) = key.split_at(1);
    let other: Vec<u8> = head
        .iter()
        .copied()
        .chain(hash.iter().map(|byte| !byte))
        .collect();
    place.disk().overwrite(Space::Small, &other, vec![1; 60]);
    repair(&place.config).await.unwrap();
    assert_eq!(values(&place, Space::Small, 23).len(), 2);
}

#[tokio::test]
async fn the_list_of_whom_to_put_aside_is_made_anew() {
    let mut place = filled().await;
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].clone();
    node.store.forget(peer.number).await.unwrap();
    node.close().await;
    place.disk().overwrite(Space::Small, &[3, 13], vec![1; 60]);
    repair(&place.config).await.unwrap();
    let node = place.open();
    assert_eq!(node.store.forgetting().await.unwrap(), [peer.number]);
    node.close().await;
}

#[tokio::test]
async fn what_says_something_by_being_there_stays() {
    // An idempotency key: sent again, the message is no other one.
    let mut place = mend(9, Space::Small).await;
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].number;
    for text in ["a", "b", "c"] {
        let again = vec![keyed(text, text)];
        // Known by its key, or refused under it.
        drop(node.store.accept(peer, Lane::User, again).await);
    }
    assert_eq!(node.waiting(peer).await, ["a", "b", "c"]);
    node.close().await;
}

#[tokio::test]
async fn a_line_that_is_gone_is_made_anew_from_its_rows() {
    let mut place = filled().await;
    let key = key_of(&place, Space::Small, 7);
    place.disk().lose(Space::Small, &key);
    assert!(examine(&place.config).unwrap().worst() > Severity::Well);
    repair(&place.config).await.unwrap();
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].number;
    assert_eq!(node.waiting(peer).await, ["a", "b", "c"]);
    node.close().await;
}

#[tokio::test]
async fn the_number_of_a_lost_peer_is_not_given_out_again() {
    let mut place = filled().await;
    // One fault takes both: they were written in one batch.
    place.disk().overwrite(Space::Small, &[3, 4], vec![1; 60]);
    let peer = key_of(&place, Space::Small, 4);
    place.disk().overwrite(Space::Small, &peer, vec![1; 60]);
    repair(&place.config).await.unwrap();
    let report = examine(&place.config).unwrap();
    assert!(
        format!("{report:?}").contains("of which there is no record"),
        "{report:?}"
    );
    let node = place.open();
    let lost = u32::from_be_bytes(peer[1..].try_into().unwrap());
    assert!(node.pair(3, &["message.send:*"]).await.0 > lost);
    node.close().await;
}

#[tokio::test]
async fn nothing_is_set_aside_for_want_of_a_boot_record() {
    let mut place = filled().await;
    // The boot that sealed everything is an earlier one now.
    place.open().close().await;
    let boot = key_of(&place, Space::Small, 2);
    let right = values(&place, Space::Small, 2)[0].1.clone();
    place.disk().overwrite(Space::Small, &boot, vec![0; 56]);
    let report = examine(&place.config).unwrap();
    assert!(
        format!("{report:?}").contains("record of boot 1"),
        "{report:?}"
    );
    drop(repair(&place.config).await);
    assert_eq!(values(&place, Space::Small, 15), []);
    place.disk().overwrite(Space::Small, &boot, right);
    assert_eq!(examine(&place.config).unwrap().worst(), Severity::Well);
    let node = place.open();
    let peer = node.store.peers().await.unwrap()[0].number;
    assert_eq!(node.waiting(peer).await, ["a", "b", "c"]);
    assert_eq!(node.arrived("news").await.len(), 3);
    node.close().await;
}

#[tokio::test]
async fn whoever_accepts_lost_commits_is_told_of_them_in_the_first_commit() {
    // Cut before the mark, which is behind everything else: the fact is there all the same.
    for steps in [1, 2, 3, 4, 5, 6] {
        let mut place = filled().await;
        let node = place.open();
        let commits = node.store.commits();
        node.close().await;
        place.disk().set_mark(commits + 3);
        place.config.accept_lost_commits = true;
        place.disk().cut_after(steps);
        let lived = place.try_open();
        place.disk().cut();
        drop(lived);
        place.config.accept_lost_commits = false;
        let refused = match place.try_open() {
            Ok(node) => {
                let page = node.store.events_since(0, 100).await.unwrap();
                let mut kinds = page.events.iter().map(|event| event.fact.kind());
                assert!(kinds.any(|kind| kind == "store.lost_commits"), "{steps}");
                node.close().await;
                continue;
            }
            Err(error) => error,
        };
        assert!(
            refused.to_string().contains("commits are lost"),
            "{refused}"
        );
    }
}
