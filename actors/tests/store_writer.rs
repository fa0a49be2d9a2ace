//! The writer: what a panic, a full queue, a full disk and an end do to jobs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use std::future::ready;
use std::pin::pin;

use packhorse_actors::store::{
    EngineError, NewMessage, PeerNumber, QUEUE_JOBS_MAX, Space, Store, StoreError, WriterEnd,
};
use packhorse_protocol::epoch::Lane;
use tokio::task::JoinSet;

use store_common::*;

/// Polls a future once.
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    tokio::select! {
        biased;
        _ = future => false,
        () = ready(()) => true,
    }
}

#[tokio::test]
async fn a_panicking_job_ends_the_writer_and_no_other_job_is_lost() {
    let mut place = Place::memory(1);
    let Node {
        store,
        writer,
        opened,
    } = place.open();
    let node = Node {
        store: store.clone(),
        writer,
        opened,
    };
    let peer = node.pair(2, &[]).await;
    let Node {
        store,
        mut writer,
        opened,
    } = node;
    writer.stop();
    assert_eq!(within(writer.ended()).await, WriterEnd::Stopped);

    // Queued while nobody writes, so that all of them meet one writer.
    let mut before = pin!(store.accept(peer, Lane::User, vec![new("before")]));
    assert!(is_pending(&mut before).await);
    let mut bad = pin!(store.update_peer(peer, |peer| {
        peer.failures = 99;
        panic!("expected in this test");
    }));
    assert!(is_pending(&mut bad).await);
    let mut behind = pin!(store.accept(peer, Lane::User, vec![new("behind")]));
    assert!(is_pending(&mut behind).await);

    let mut writer = opened.start_writer().unwrap();
    let end = within(writer.ended()).await;
    assert_eq!(end, WriterEnd::Panicked("expected in this test".into()));
    assert_eq!(within(writer.ended()).await, end);
    assert!(within(before).await.is_ok());
    assert_eq!(within(bad).await.unwrap_err(), StoreError::Unknown);
    assert!(is_pending(&mut behind).await);

    let writer = opened.start_writer().unwrap();
    assert!(within(behind).await.is_ok());
    let node = Node {
        store: store.clone(),
        writer,
        opened,
    };
    assert_eq!(node.waiting(peer).await, ["before", "behind"]);
    assert_eq!(node.store.peer(peer).await.unwrap().unwrap().failures, 0);
    node.close().await;
}

#[tokio::test]
async fn jobs_of_one_batch_share_one_commit_and_see_each_other() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let Node {
        store,
        mut writer,
        opened,
    } = node;
    writer.stop();
    within(writer.ended()).await;
    let mut tasks = JoinSet::new();
    for number in 0..100_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            store
                .accept(peer, Lane::User, vec![new(&number.to_string())])
                .await
                .unwrap()[0]
                .id
        });
    }
    while store.queued().0 < 100 {
        tokio::task::yield_now().await;
    }
    let before = place.disk().commits();
    let writer = opened.start_writer().unwrap();
    let mut ids = within(tasks.join_all()).await;
    assert_eq!(place.disk().commits(), before + 1);
    ids.sort();
    let sequences: Vec<u64> = ids.iter().map(|id| id.position.sequence).collect();
    assert_eq!(sequences, (1..=100).collect::<Vec<u64>>());
    Node {
        store: store.clone(),
        writer,
        opened,
    }
    .close()
    .await;
}

#[tokio::test]
async fn the_queue_holds_so_many_jobs_and_the_next_one_waits() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let Node {
        store,
        mut writer,
        opened,
    } = node;
    writer.stop();
    within(writer.ended()).await;
    let mut tasks = JoinSet::new();
    for _ in 0..QUEUE_JOBS_MAX + 50 {
        let store = store.clone();
        tasks.spawn(async move { store.accept(peer, Lane::User, vec![new("a")]).await });
    }
    // The runtime has one thread: once a late comer has been polled, all before it have been.
    while store.queued().0 < QUEUE_JOBS_MAX {
        tokio::task::yield_now().await;
    }
    let mut late = pin!(store.accept(peer, Lane::User, vec![new("late")]));
    assert!(is_pending(&mut late).await);
    assert_eq!(store.queued().0, QUEUE_JOBS_MAX);
    let writer = opened.start_writer().unwrap();
    assert!(
        within(tasks.join_all())
            .await
            .into_iter()
            .all(|answer| answer.is_ok())
    );
    assert!(within(late).await.is_ok());
    assert_eq!(store.queued(), (0, 0));
    let node = Node {
        store: store.clone(),
        writer,
        opened,
    };
    assert_eq!(node.waiting(peer).await.len(), QUEUE_JOBS_MAX + 51);
    node.close().await;
}

#[tokio::test]
async fn the_queue_holds_so_many_bytes_and_the_next_job_waits() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    let Node {
        store,
        mut writer,
        opened,
    } = node;
    writer.stop();
    within(writer.ended()).await;
    let mut large = message("");
    large.payload = vec![0; 1 << 20];
    let many = |count| vec![NewMessage::new(large.clone()); count];
    // Twice 20 MiB is more than the queue takes.
    let mut first = pin!(store.accept(peer, Lane::User, many(20)));
    assert!(is_pending(&mut first).await);
    let mut second = pin!(store.accept(peer, Lane::User, many(20)));
    assert!(is_pending(&mut second).await);
    assert_eq!(store.queued().0, 1);
    let writer = opened.start_writer().unwrap();
    assert!(within(first).await.is_ok());
    assert!(within(second).await.is_ok());
    // A job larger than the whole bound passes alone.
    assert!(
        within(store.accept(peer, Lane::User, many(40)))
            .await
            .is_ok()
    );
    Node {
        store: store.clone(),
        writer,
        opened,
    }
    .close()
    .await;
}

#[tokio::test]
async fn a_full_disk_is_told_to_every_job_and_nothing_is_acknowledged() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &[]).await;
    node.accept(peer, &["safe"]).await;
    let counts = node.store.outbox_counts(peer);
    place.disk().set_full(true);
    let full = Err(StoreError::Full {
        what: "the disk".into(),
    });
    let one = node.store.accept(peer, Lane::User, vec![new("lost")]);
    let two = node.store.accept(peer, Lane::User, vec![new("lost too")]);
    let (one, two) = tokio::join!(one, two);
    assert_eq!(one, full);
    assert_eq!(two, full);
    let Node {
        store,
        mut writer,
        opened,
    } = node;
    assert_eq!(
        within(writer.ended()).await,
        WriterEnd::Failed(EngineError::Full)
    );
    // Reading goes on, and shows nothing of it.
    assert_eq!(counts.borrow().total(), 1);
    assert_eq!(store.outbox_list(9).await.unwrap().total, 1);
    assert_eq!(
        store.accept(peer, Lane::User, vec![new("later")]).await,
        full
    );
    assert_eq!(
        opened.close(),
        Err(StoreError::Full {
            what: "the disk".into()
        })
    );
    drop((store, opened));
    place.disk().set_full(false);
    let node = place.open();
    assert_eq!(node.waiting(peer).await, ["safe"]);
    node.close().await;
}

#[tokio::test]
async fn jobs_that_were_never_run_are_told_so_when_the_store_closes() {
    let mut place = Place::memory(1);
    let Node {
        store,
        mut writer,
        opened,
    } = place.open();
    writer.stop();
    within(writer.ended()).await;
    let mut waiting = pin!(store.raise_boot_floor(1));
    assert!(is_pending(&mut waiting).await);
    opened.close().unwrap();
    assert_eq!(within(waiting).await, Err(StoreError::Closed));
    assert_eq!(opened.close(), Ok(()));
}

#[tokio::test]
async fn closing_stops_the_writer_and_runs_what_waits() {
    let mut place = Place::memory(1);
    let Node {
        store,
        mut writer,
        opened,
    } = place.open();
    opened.close().unwrap();
    assert_eq!(within(writer.ended()).await, WriterEnd::Stopped);
    assert_eq!(store.raise_boot_floor(1).await, Err(StoreError::Closed));
}

#[tokio::test]
async fn a_dropped_writer_lets_the_next_one_in() {
    let mut place = Place::memory(1);
    let Node {
        store,
        writer,
        opened,
    } = place.open();
    drop(writer);
    let writer = opened.start_writer().unwrap();
    assert!(within(store.raise_boot_floor(1)).await.is_ok());
    Node {
        store: store.clone(),
        writer,
        opened,
    }
    .close()
    .await;
}

#[tokio::test]
async fn a_second_open_is_locked_until_the_first_has_closed() {
    for mut place in [Place::files(), Place::memory(1)] {
        let node = place.open();
        let second = Store::open(&place.config).unwrap_err();
        assert!(
            matches!(second, packhorse_actors::store::OpenError::Locked { .. }),
            "{second}"
        );
        node.close().await;
        place.open().close().await;
    }
}

/// Waking the writer to stop it once repeated the last batch: rows that had been settled since
/// would have come back. Found by a commit number that was one too high after a clean end.
#[tokio::test]
async fn stopping_the_writer_commits_nothing() {
    let mut place = Place::memory(1);
    let node = place.open();
    node.pair(2, &[]).await;
    let before = place.disk().commits();
    node.close().await;
    assert_eq!(place.disk().commits(), before);
}

#[tokio::test]
async fn a_refused_job_leaves_no_row_beside_those_of_its_batch() {
    let mut place = Place::memory(1);
    let node = place.open();
    let peer = node.pair(2, &["message.send:*"]).await;
    node.store
        .accept(peer, Lane::User, vec![keyed("a", "one")])
        .await
        .unwrap();
    let Node {
        store,
        mut writer,
        opened,
    } = node;
    writer.stop();
    within(writer.ended()).await;
    let rows = |space| place.disk().rows(space).len();
    let before = (rows(Space::Outbox), rows(Space::Inbox));
    {
        // Both are refused at their last part, with rows written before it.
        let conflict = vec![new("b"), new("c"), new("d"), keyed("other", "one")];
        let mut conflict = pin!(store.accept(peer, Lane::User, conflict));
        assert!(is_pending(&mut conflict).await);
        let gap = vec![
            batch(epoch(4, 4), 1, &["x", "y"]),
            batch(epoch(4, 4), 9, &["z"]),
        ];
        let mut gap = pin!(store.store_inbound(peer, Lane::User, gap));
        assert!(is_pending(&mut gap).await);
        let mut good = pin!(store.accept(peer, Lane::User, vec![new("b")]));
        assert!(is_pending(&mut good).await);
        drop(opened.start_writer().unwrap());
        assert!(within(conflict).await.is_err());
        assert!(within(gap).await.is_err());
        assert!(within(good).await.is_ok());
    }
    assert_eq!(
        (rows(Space::Outbox), rows(Space::Inbox)),
        (before.0 + 1, before.1)
    );
    let writer = opened.start_writer().unwrap();
    let node = Node {
        store,
        writer,
        opened,
    };
    assert_eq!(node.waiting(peer).await, ["a", "b"]);
    node.close().await;
}

#[tokio::test]
async fn a_refused_job_costs_no_commit() {
    let mut place = Place::memory(1);
    let node = place.open();
    let before = place.disk().commits();
    assert!(
        node.store
            .accept(PeerNumber(9), Lane::User, vec![new("a")])
            .await
            .is_err()
    );
    assert_eq!(place.disk().commits(), before);
    node.close().await;
}
