//! What a tree tells about itself: who lives, who answers, what happened.

use std::{path::PathBuf, time::Duration};

#[cfg(feature = "fault")]
use packhorse_actors::inbox::ClaimRequest;
use packhorse_actors::{
    env::Env,
    events::Fact,
    session::RequestPolicy,
    store::{EngineKind, MemoryDisk, Store, StoreConfig},
    tree::{Tree, TreeConfig},
};
use packhorse_protocol::identity::IdentityKey;

const DEADLINE: Duration = Duration::from_secs(20);

/// One node that listens on one address.
async fn start(disk: &MemoryDisk) -> Tree {
    let identity = IdentityKey::from_seed(&[1; 32]);
    let mut config = StoreConfig::new(
        PathBuf::from("/nowhere"),
        identity.id(),
        [7; 32],
        Env::system(),
    );
    config.engine = EngineKind::Memory(disk.clone());
    let opened = tokio::task::spawn_blocking(move || Store::open(&config));
    let opened = opened.await.expect("opening ends");
    let tree = Tree::start(TreeConfig {
        identity,
        name: "one".to_owned(),
        listen: vec!["127.0.0.1:0".parse().expect("this is an address")],
        advertise: Vec::new(),
        requests: RequestPolicy::default(),
        store: opened.expect("the store opens"),
        env: Env::system(),
    });
    tree.await.expect("the tree starts")
}

/// Waits until the ring holds this many events.
async fn kinds(tree: &Tree, count: u64) -> Vec<&'static str> {
    let mut newest = tree.events.newest();
    let written = newest.wait_for(|newest| *newest >= count);
    let written = tokio::time::timeout(DEADLINE, written).await;
    let written = written.map(|newest| newest.map(|newest| *newest));
    assert!(matches!(written, Ok(Ok(_))), "{written:?}");
    let page = tree.events.since(0, 1_000).await.expect("the ring reads");
    page.events.iter().map(|event| event.fact.kind()).collect()
}

#[tokio::test]
async fn a_new_tree_shows_its_actors_in_their_order_and_all_of_them_answer() {
    let tree = start(&MemoryDisk::new(1)).await;
    let census = tree.census();
    let names: Vec<_> = census.children.iter().map(|it| &it.actor[..]).collect();
    assert_eq!(
        names,
        [
            "store",
            "event bus",
            "inbox",
            "session supervisor",
            "retry scheduler",
            "listener"
        ]
    );
    assert_eq!((&census.actor[..], census.is_running), ("root", true));
    for child in &census.children {
        assert_eq!(
            (child.incarnation, child.restarts, child.is_running),
            (1, 0, true),
            "{child:?}"
        );
        assert_eq!((&child.last_exit, child.queue_depth), (&None, 0));
    }
    assert_eq!(tree.pulse(DEADLINE).await, Ok(()));
    tree.shutdown().await;
    let silent = tree.pulse(Duration::from_millis(200)).await;
    let silent = silent.expect_err("nobody lives any more");
    for name in ["root", "store writer", "inbox", "event bus"] {
        assert!(silent.contains(name), "{silent}");
    }
}

#[tokio::test]
async fn what_happened_is_numbered_over_restarts() {
    let disk = MemoryDisk::new(2);
    let tree = start(&disk).await;
    let started = ["node.started"]
        .into_iter()
        .chain(std::iter::repeat_n("actor.started", 6));
    assert_eq!(kinds(&tree, 7).await, started.collect::<Vec<_>>());
    tree.shutdown().await;
    drop(tree);
    let tree = start(&disk).await;
    let before = tree.events.since(0, 1_000).await.expect("the ring reads");
    assert!(before.events.len() >= 7, "{before:?}");
    let last = before.newest;
    tree.events.tell(Fact::ClockJumped { ms: -7_000 });
    let mut newest = tree.events.newest();
    let told = async {
        loop {
            let page = tree.events.since(last, 10).await.expect("the ring reads");
            let numbers = page.events.iter().map(|event| event.number);
            assert!(numbers.eq(last + 1..=last + page.events.len() as u64));
            let fact = Fact::ClockJumped { ms: -7_000 };
            if page.events.iter().any(|event| event.fact == fact) {
                return;
            }
            newest.changed().await.expect("the store lives");
        }
    };
    tokio::time::timeout(DEADLINE, told)
        .await
        .expect("it is written");
    tree.shutdown().await;
}

#[tokio::test]
async fn facts_that_come_too_fast_are_counted_and_nobody_waits_for_them() {
    let tree = start(&MemoryDisk::new(3)).await;
    // No await in between: the bus has no chance to take any.
    for _ in 0..3_000 {
        tree.events.tell(Fact::NetworkChanged);
    }
    let counted = async {
        let mut newest = tree.events.newest();
        loop {
            let mut lost = 0;
            let mut told = 0;
            let mut after = 0;
            loop {
                let page = tree.events.since(after, 1_000).await;
                let page = page.expect("the ring reads");
                let Some(last) = page.events.last() else {
                    break;
                };
                after = last.number;
                for event in &page.events {
                    match event.fact {
                        Fact::FactsLost { count } => lost += count,
                        Fact::NetworkChanged => told += 1,
                        _ => {}
                    }
                }
            }
            if lost + told == 3_000 {
                assert!(lost > 0, "the queue is shorter than that");
                return;
            }
            newest.changed().await.expect("the store lives");
        }
    };
    tokio::time::timeout(DEADLINE, counted)
        .await
        .expect("told and lost are all of them");
    tree.shutdown().await;
}

/// Another node in the same process could use the port at once.
#[tokio::test]
async fn a_node_that_has_ended_gives_its_port_back() {
    let tree = start(&MemoryDisk::new(4)).await;
    let address = tree.listening[0];
    assert!(std::net::UdpSocket::bind(address).is_err());
    // What is tested: an endpoint that has had nothing to do for a while sleeps, and once did not
    // hear that its handle was dropped.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    tree.shutdown().await;
    drop(tree);
    let is_free = async {
        // The socket is closed by the transport's own task, which tells nobody.
        while std::net::UdpSocket::bind(address).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), is_free)
        .await
        .expect("the port is free");
}

#[cfg(feature = "fault")]
#[tokio::test]
async fn an_actor_that_hangs_is_named_and_its_mailbox_is_counted() {
    use packhorse_actors::fault::{Fault, When};

    let tree = start(&MemoryDisk::new(5)).await;
    let faults = tree.faults();
    let ordered = faults.order("inbox", When::BeforeMessage, Fault::Hang);
    assert!(ordered.await);
    let claim = || tree.inbox.claim(ClaimRequest::new("nothing", 1));
    let claims = async { tokio::join!(claim(), claim(), claim(), claim()) };
    let looking = async {
        let depth = || tree.census().find("inbox").map(|inbox| inbox.queue_depth);
        let deep = async {
            while depth() != Some(3) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, deep)
            .await
            .expect("three wait behind the one that hangs");
        let silent = tree.pulse(Duration::from_millis(300)).await;
        let silent = silent.expect_err("one of them hangs");
        assert!(silent.ends_with(": inbox"), "{silent}");
    };
    tokio::select! {
        _ = claims => panic!("a claim was answered"),
        () = looking => {}
    }
    tree.shutdown().await;
}
