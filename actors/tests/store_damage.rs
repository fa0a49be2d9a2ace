//! Damage, wrong keys, wide modes, lost commits: each is told from the others, and none passes
//! silently.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use packhorse_actors::store::{OpenError, ReceiptState, Space, StoreError};
use packhorse_protocol::epoch::{Lane, Mark};

use store_common::*;

/// Flips one bit in the value of the only row whose key begins with `table`.
fn damage(place: &Place, space: Space, table: u8, nth: usize) {
    let rows = place.disk().rows(space);
    let (key, mut value) = rows
        .into_iter()
        .filter(|(key, _)| key[0] == table)
        .nth(nth)
        .expect("the row is there");
    let last = value.len() - 1;
    value[last] ^= 1;
    place.disk().overwrite(space, &key, value);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A place whose folder is a copy of another's as a kill would leave it.
fn killed(place: &Place) -> Place {
    let mut copy = Place::files();
    copy_folder(&place.config.folder, &copy.config.folder);
    copy.config.store_secret = place.config.store_secret;
    copy
}

#[tokio::test]
async fn another_secret_is_a_wrong_key_and_never_an_empty_store() {
    for mut place in [Place::files(), Place::memory(1)] {
        let node = place.open();
        let peer = node.pair(2, &[]).await;
        node.accept(peer, &["a"]).await;
        node.close().await;
        place.config.store_secret[31] ^= 1;
        let error = place.try_open().err().unwrap();
        assert!(matches!(error, OpenError::WrongKey { .. }), "{error}");
        place.config.store_secret[31] ^= 1;
        let node = place.open();
        assert_eq!(node.waiting(peer).await, ["a"]);
        node.close().await;
    }
}

#[tokio::test]
async fn one_damaged_head_is_mended_and_two_are_damage() {
    let mut place = Place::memory(1);
    place.open().close().await;
    damage(&place, Space::Small, 1, 0);
    let node = place.open();
    assert_eq!(node.store.quarantined().0, 1);
    node.close().await;
    let node = place.open();
    assert_eq!(node.store.quarantined().0, 0);
    node.close().await;
    damage(&place, Space::Small, 1, 0);
    let rows = place.disk().rows(Space::Small);
    place
        .disk()
        .overwrite(Space::Small, &rows[1].0, vec![0; 19]);
    let error = place.try_open().err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_with_both_versions() {
    let mut place = Place::memory(1);
    place.open().close().await;
    let rows = place.disk().rows(Space::Small);
    for (key, mut value) in rows.into_iter().take(2) {
        value[2] = 9;
        place.disk().overwrite(Space::Small, &key, value);
    }
    let error = place.try_open().err().unwrap();
    assert!(
        matches!(error, OpenError::TooNew { found: 9, known: 1 }),
        "{error}"
    );
}

#[tokio::test]
async fn a_damaged_waiting_message_is_quarantined_and_blocks_nothing() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c"]).await;
    damage(&place, Space::Outbox, 32, 1);
    damage(&place, Space::Outbox, 32, 2);
    assert_eq!(node.store.outbox_list(9).await.unwrap().rows.len(), 1);
    assert_eq!(node.waiting(peer).await, ["a"]);
    assert_eq!(node.store.quarantined().0, 2);
    let receipt = node.store.receipt(sent[1].id).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Failed);
    assert!(receipt.reason.unwrap().contains("damaged"));
    // Its bytes are kept.
    let kept = place
        .disk()
        .rows(Space::Small)
        .into_iter()
        .filter(|(key, _)| key[0] == 15)
        .count();
    assert_eq!(kept, 2);
    // Once the last readable one is settled, nothing seems to wait.
    let mark = Mark {
        epoch: node.store.epoch(),
        settled: 1,
    };
    node.store
        .settle(peer, Lane::User, vec![mark], vec![])
        .await
        .unwrap();
    assert!(node.store.waiting_peers().is_empty());
    node.close().await;
}

#[tokio::test]
async fn a_damaged_arrived_message_is_quarantined_and_blocks_nothing() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let items = vec![batch(epoch(4, 4), 1, &["a", "b", "c"])];
    node.store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    damage(&place, Space::Inbox, 48, 0);
    assert_eq!(node.arrived("news").await, ["b", "c"]);
    assert_eq!(node.store.inbox_list(9).await.unwrap().total, 2);
    node.store.inbox_done(vec![2, 3]).await.unwrap();
    assert!(node.arrived("news").await.is_empty());
    assert_eq!(node.store.inbox_list(9).await.unwrap().total, 0);
    assert_eq!(node.store.quarantined().0, 1);
    node.close().await;
}

#[tokio::test]
async fn an_inbox_whose_index_is_gone_says_so_instead_of_being_empty() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let items = vec![batch(epoch(4, 4), 1, &["a", "b"])];
    node.store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    for (key, _) in place.disk().rows(Space::Inbox) {
        if key[0] == 49 {
            place.disk().lose(Space::Inbox, &key);
        }
    }
    let asked = node.store.inbox_waiting("news".into(), 0, 9, usize::MAX);
    let answer = asked.await;
    assert!(
        matches!(answer, Err(StoreError::Damaged { .. })),
        "{answer:?}"
    );
    node.close().await;
}

#[tokio::test]
async fn nothing_is_decided_on_a_record_that_does_not_open() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let items = vec![batch(epoch(4, 4), 1, &["a", "b"])];
    node.store
        .store_inbound(peer, Lane::User, items.clone())
        .await
        .unwrap();
    node.close().await;
    // The mark: taken for absent, everything would be stored again.
    damage(&place, Space::Small, 11, 0);
    let node = place.open();
    let again = node.store.store_inbound(peer, Lane::User, items).await;
    assert!(
        matches!(again, Err(StoreError::Damaged { .. })),
        "{again:?}"
    );
    assert_eq!(node.arrived("news").await, ["a", "b"]);
    node.close().await;
}

#[tokio::test]
async fn waiting_messages_whose_rows_are_gone_become_dead_letters_and_those_behind_them_are_sent() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c", "d", "e"]).await;
    for (key, _) in place.disk().rows(Space::Outbox).into_iter().take(3) {
        place.disk().lose(Space::Outbox, &key);
    }
    // One at a time: the first load finds nothing but gaps, and goes on by itself.
    let (rows, exhausted) = node
        .store
        .load(peer, Lane::User, None, 1, usize::MAX)
        .await
        .unwrap();
    assert_eq!((rows.len(), exhausted), (1, false));
    assert_eq!(rows[0].position.sequence, 4);
    for gone in &sent[..3] {
        let receipt = node.store.receipt(gone.id).await.unwrap().unwrap();
        assert_eq!(receipt.state, ReceiptState::Failed);
        assert!(receipt.reason.unwrap().contains("damaged"));
    }
    assert_eq!(node.waiting(peer).await, ["d", "e"]);
    assert_eq!(node.store.outbox_list(9).await.unwrap().total, 2);
    node.close().await;
}

#[tokio::test]
async fn a_settled_message_in_front_does_not_hide_one_whose_row_is_gone() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let sent = node.accept(peer, &["a", "b", "c"]).await;
    let rows = place.disk().rows(Space::Outbox);
    place.disk().lose(Space::Outbox, &rows[1].0);
    let epoch = node.store.epoch();
    let marks = vec![Mark { epoch, settled: 1 }];
    node.store
        .settle(peer, Lane::User, marks, vec![])
        .await
        .unwrap();
    assert_eq!(node.waiting(peer).await, ["c"]);
    let receipt = node.store.receipt(sent[1].id).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Failed);
    node.close().await;
}

#[tokio::test]
async fn a_moved_value_does_not_open() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["a", "b"]).await;
    let rows = place.disk().rows(Space::Outbox);
    place
        .disk()
        .overwrite(Space::Outbox, &rows[0].0, rows[1].1.clone());
    assert_eq!(node.waiting(peer).await, ["b"]);
    assert_eq!(node.store.quarantined().0, 1);
    node.close().await;
}

#[tokio::test]
async fn commits_that_were_durable_and_are_gone_are_named() {
    let mut place = Place::memory(1);
    let node = place.open();
    node.pair(2, &[]).await;
    let committed = node.store.commits();
    node.close().await;
    place.disk().set_mark(committed + 3);
    for _ in 0..2 {
        match place.try_open().err().unwrap() {
            OpenError::LostCommits {
                recovered, marked, ..
            } => {
                assert_eq!((recovered, marked), (committed, committed + 3));
            }
            other => panic!("{other}"),
        }
    }
    place.config.accept_lost_commits = true;
    place.open().close().await;
    place.config.accept_lost_commits = false;
    place.open().close().await;
}

#[tokio::test]
async fn a_mark_ahead_of_an_empty_database_is_a_loss_as_well() {
    let mut place = Place::memory(1);
    place.disk().set_mark(5);
    let error = place.try_open().err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::LostCommits {
                recovered: 0,
                marked: 5,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_killed_store_opens_with_everything_and_its_journals_are_kept_aside() {
    let mut place = Place::files();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["a", "b"]).await;
    let mut copy = killed(&place);
    let other = copy.open();
    assert_eq!(other.waiting(peer).await, ["a", "b"]);
    let aside: Vec<_> = fs::read_dir(copy.config.folder.join("aside"))
        .unwrap()
        .collect();
    assert_eq!(aside.len(), 1);
    let journals = fs::read_dir(aside[0].as_ref().unwrap().path())
        .unwrap()
        .count();
    assert_eq!(journals, 1);
    other.close().await;
    // After a clean end nothing is copied.
    copy.open().close().await;
    assert_eq!(
        fs::read_dir(copy.config.folder.join("aside"))
            .unwrap()
            .count(),
        1
    );
    node.close().await;
}

#[tokio::test]
async fn copies_of_journals_do_not_pile_up() {
    let mut place = Place::files();
    place.open().close().await;
    for _ in 0..4 {
        let node = place.open();
        node.store.raise_boot_floor(0).await.unwrap();
        let copy = killed(&place);
        node.close().await;
        place = copy;
    }
    place.open().close().await;
    assert_eq!(
        fs::read_dir(place.config.folder.join("aside"))
            .unwrap()
            .count(),
        2
    );
}

/// Goal: a flipped bit anywhere in a journal never loses an acknowledged commit silently.
/// Method: kill a store after ten commits, flip one bit at a spread of places, open.
#[tokio::test]
async fn a_flipped_bit_in_a_journal_loses_nothing_silently() {
    let mut place = Place::files();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    for number in 0..10 {
        node.accept(peer, &[&number.to_string()]).await;
    }
    let base = killed(&place);
    node.close().await;
    let journal = fs::read_dir(base.config.folder.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .unwrap();
    let bytes = fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut told, mut whole) = (0, 0);
    for at in (0..used).step_by(used / 30) {
        let mut copy = killed(&base);
        let journal = copy
            .config
            .folder
            .join("db")
            .join(journal.file_name().unwrap());
        let mut changed = bytes[..used].to_vec();
        changed[at] ^= 0x10;
        fs::write(journal, changed).unwrap();
        match copy.try_open() {
            Err(OpenError::LostCommits {
                recovered,
                marked,
                aside,
            }) => {
                assert!(recovered < marked);
                assert!(aside.exists(), "the journals are kept");
                told += 1;
            }
            Err(OpenError::Damaged { .. } | OpenError::Io { .. }) => told += 1,
            Err(other) => panic!("byte {at}: {other}"),
            Ok(node) => {
                assert_eq!(node.waiting(peer).await.len(), 10, "byte {at}");
                whole += 1;
                node.close().await;
            }
        }
    }
    assert!(told > 20, "{told} told, {whole} whole");
}

fn newest_journal(place: &Place) -> std::path::PathBuf {
    fs::read_dir(place.config.folder.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .unwrap()
}

fn used_bytes(journal: &std::path::Path) -> Vec<u8> {
    let mut bytes = fs::read(journal).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(used);
    bytes
}

/// Goal: a last batch that nobody was told of, of which a power cut kept both ends and lost the
/// middle, costs nothing but itself.
/// Method: keep `commit.mark` as it was before the batch, zero a stretch in the batch, open.
#[tokio::test]
async fn a_last_batch_with_a_hole_that_nobody_was_told_of_is_cut_off() {
    let mut place = Place::files();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["one", "two"]).await;
    let mark = fs::read(place.config.folder.join("commit.mark")).unwrap();
    let before = used_bytes(&newest_journal(&place)).len();
    node.accept(peer, &[&"three".repeat(500)]).await;
    let base = killed(&place);
    node.close().await;
    let after = used_bytes(&newest_journal(&base)).len();
    assert!(after > before + 1_000);
    for at in [before + 40, before + (after - before) / 2, after - 300] {
        let mut copy = killed(&base);
        let journal = newest_journal(&copy);
        let mut bytes = used_bytes(&journal);
        bytes[at..at + 200].fill(0);
        fs::write(&journal, bytes).unwrap();
        fs::write(copy.config.folder.join("commit.mark"), &mark).unwrap();
        let node = copy.open();
        assert_eq!(node.waiting(peer).await, ["one", "two"], "hole at {at}");
        node.accept(peer, &["four"]).await;
        node.close().await;
    }
}

/// Goal: a batch in the middle that does not match is named with what is lost, and who accepts the
/// loss goes on with everything before it.
#[tokio::test]
async fn a_broken_batch_in_the_middle_is_a_loss_that_can_be_accepted() {
    let mut place = Place::files();
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["one"]).await;
    let before = used_bytes(&newest_journal(&place)).len();
    node.accept(peer, &[&"two".repeat(500)]).await;
    node.accept(peer, &["three"]).await;
    let mut copy = killed(&place);
    node.close().await;
    let journal = newest_journal(&copy);
    let mut bytes = used_bytes(&journal);
    bytes[before + 700] ^= 1;
    fs::write(&journal, &bytes).unwrap();
    match copy.try_open().err().unwrap() {
        OpenError::LostCommits { aside, .. } => {
            let kept = aside.join(journal.file_name().unwrap());
            assert_eq!(used_bytes(&kept), bytes, "the journal as it was is kept");
        }
        other => panic!("{other}"),
    }
    copy.config.accept_lost_commits = true;
    let node = copy.open();
    assert_eq!(node.waiting(peer).await, ["one"]);
    node.close().await;
}

#[tokio::test]
async fn wide_modes_are_refused_with_the_command_that_mends_them() {
    let mut place = Place::files();
    place.open().close().await;
    let folder = place.config.folder.clone();
    let cases = [
        (folder.clone(), 0o755, 0o700),
        (folder.join("db"), 0o750, 0o700),
        (folder.join("commit.mark"), 0o640, 0o600),
        (folder.join("lock"), 0o644, 0o600),
    ];
    for (path, wide, right) in cases {
        fs::set_permissions(&path, fs::Permissions::from_mode(wide)).unwrap();
        match place.try_open().err().unwrap() {
            OpenError::WideMode {
                path: named,
                mode,
                fix,
            } => {
                assert_eq!((&named, mode), (&path, wide));
                assert_eq!(fix, format!("chmod {right:o} {}", path.display()));
            }
            other => panic!("{other}"),
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(right)).unwrap();
    }
    place.open().close().await;
    let mode = fs::metadata(&folder).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
}

#[tokio::test]
async fn no_text_of_a_user_lies_in_the_files() {
    let mut place = Place::files();
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    let send = vec![keyed("a very secret load", "a very secret key")];
    node.store.accept(peer, Lane::User, send).await.unwrap();
    let mut secret = message("another secret load");
    secret.topic = "very-secret-topic".into();
    let items = vec![packhorse_protocol::outbox::Inbound::Messages {
        epoch: epoch(4, 4),
        first: 1,
        messages: vec![Ok(secret)],
    }];
    node.store
        .store_inbound(peer, Lane::User, items)
        .await
        .unwrap();
    node.close().await;
    let mut folders = vec![place.config.folder.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            // Journals are preallocated with zeros.
            bytes.truncate(
                bytes
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .map_or(0, |last| last + 1),
            );
            for text in ["secret", "node2", "message.send"] {
                let found = bytes
                    .windows(text.len())
                    .any(|window| window == text.as_bytes());
                assert!(!found, "{text:?} in {}", path.display());
            }
        }
    }
}
