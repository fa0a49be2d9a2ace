//! A node between two links with one peer, which is played by hand so that each step has its time.

use std::{path::PathBuf, sync::mpsc, time::Duration};

use packhorse_protocol::{
    epoch::Epoch,
    grant::Grants,
    handshake::{
        Answer, DialIntent, HELLO_BYTES, Initiator, Introduction, LinkKind, Local, PROOF_BYTES,
        REPLY_BYTES, Responder, VERDICT_BYTES,
    },
    identity::IdentityKey,
};

use tokio::{sync::oneshot, task::JoinSet};

use super::*;
use crate::{
    board::PeerState,
    env::Env,
    link::{Link, LinkError, QuicDialler, QuicListener, ReceiveHalf, SendHalf},
    session::RequestPolicy,
    store::{EngineKind, MemoryDisk, PairInviter, PeerNumber, Store, StoreConfig, StoreHandle},
    tree::{Tree, TreeConfig},
};

const SOON: Duration = Duration::from_secs(20);
const EPOCH: Epoch = Epoch { boot: 4, nonce: 4 };
const DISPLACED: u64 = ErrorClass::Displaced as u64;

/// A node, and a peer of it that does what a test says.
struct Scene {
    tree: Tree,
    peer: PeerNumber,
    node: IdentityKey,
    hand: IdentityKey,
    listener: QuicListener,
    dialler: QuicDialler,
}

impl Scene {
    /// The node has the lower id of the two, or the higher one.
    async fn new(node_is_lower: bool) -> Self {
        let mut seeds = [1, 2];
        seeds.sort_by_key(|seed| identity(*seed).id());
        if !node_is_lower {
            seeds.reverse();
        }
        let [node, hand] = seeds.map(identity);
        let listener = QuicListener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let env = Env::system();
        let mut config =
            StoreConfig::new(PathBuf::from("/nowhere"), node.id(), [7; 32], env.clone());
        config.engine = EngineKind::Memory(MemoryDisk::new(1));
        let config = TreeConfig {
            identity: identity(seeds[0]),
            name: "node".to_owned(),
            listen: vec![([127, 0, 0, 1], 0).into()],
            advertise: Vec::new(),
            requests: RequestPolicy::default(),
            store: Store::open(&config).unwrap(),
            env,
        };
        let tree = Tree::start(config).await.unwrap();
        let pair = PairInviter {
            introduction: Introduction {
                id: hand.id(),
                name: "hand".to_owned(),
                addresses: vec![format!("quic://{}", listener.address())],
                epoch: Epoch { boot: 0, nonce: 0 },
            },
            name: None,
            grants: Grants::none(),
            granted: Grants::none(),
            hints: Vec::new(),
        };
        let peer = tree.store.pair_inviter(pair).await.unwrap().number;
        Self {
            tree,
            peer,
            node,
            hand,
            listener,
            dialler: QuicDialler::bind().unwrap(),
        }
    }

    fn local(&self) -> Local {
        Local {
            name: "hand".to_owned(),
            addresses: Vec::new(),
            epoch: EPOCH,
        }
    }

    /// The node dials; up to its Hello, which is not answered yet.
    async fn dialled(&mut self) -> Dialled {
        self.tree.retry.wake(Some(self.peer));
        let mut link = self.listener.accept().await.unwrap().unwrap();
        let (send, mut receive) = link.accept().await.unwrap();
        let hello = receive.read_exact(HELLO_BYTES).await.unwrap().to_vec();
        Dialled {
            link,
            send,
            receive,
            hello,
        }
    }

    /// Answers the node's Hello; its Proof, or why none came.
    async fn reply(&self, dialled: &mut Dialled) -> Result<(), LinkError> {
        let binding = dialled.link.info().binding;
        let responder = Responder::new(&self.hand, LinkKind::Quic, binding);
        let (_, reply) = responder.on_hello(&dialled.hello, [5; 128]).unwrap();
        dialled.send.send(reply.into()).await.unwrap();
        dialled.receive.read_exact(PROOF_BYTES).await.map(drop)
    }

    /// Dials the node, which lets it in.
    async fn let_in(&self) -> Link {
        let mut link = self.dialler.dial(self.tree.listening[0]).await.unwrap();
        let (mut send, mut receive) = link.open().await.unwrap();
        let intent = DialIntent {
            dial_counter: 1,
            alive: None,
            pairing: None,
        };
        let binding = link.info().binding;
        let (initiator, hello) = Initiator::start(
            &self.hand,
            self.node.id(),
            LinkKind::Quic,
            binding,
            self.local(),
            intent,
            [6; 128],
        )
        .unwrap();
        send.send(hello.into()).await.unwrap();
        let reply = receive.read_exact(REPLY_BYTES).await.unwrap();
        let (awaiting, proof) = initiator.on_reply(&reply).unwrap();
        send.send(proof.into()).await.unwrap();
        let verdict = receive.read_exact(VERDICT_BYTES).await.unwrap();
        let answer = awaiting.on_verdict(&verdict).unwrap();
        assert!(matches!(answer, Answer::Accepted { .. }), "it is let in");
        link
    }

    async fn connected(&self) {
        while self.tree.board.line(self.peer).state != PeerState::Connected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A link that the node dialled.
struct Dialled {
    link: Link,
    send: SendHalf,
    receive: ReceiveHalf,
    hello: Vec<u8>,
}

fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

/// Commits nothing more until what is returned is dropped.
async fn hold_commits(store: &StoreHandle) -> (mpsc::SyncSender<()>, JoinSet<()>) {
    let (hold, held) = mpsc::sync_channel::<()>(0);
    let (begun, is_held) = oneshot::channel();
    let store = store.clone();
    let mut holding = JoinSet::new();
    holding.spawn(async move {
        let job = store.write(1, move |_| {
            let _ = begun.send(());
            let _ = held.recv();
            Ok(())
        });
        job.await.unwrap();
    });
    is_held.await.unwrap();
    (hold, holding)
}

/// Found by reading: the node of the lower id let the peer's dial in and went on with its own while
/// the store wrote down what the peer had said. The peer, of the higher id, took the one for newer
/// than the other and the node the other way round, so both sessions ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lets_its_peers_dial_in_does_not_go_on_with_its_own() {
    for dials_first in [true, false] {
        let crossed = async {
            let mut scene = Scene::new(true).await;
            let early = match dials_first {
                true => Some(scene.dialled().await),
                false => None,
            };
            let commits = hold_commits(&scene.tree.store).await;
            let mut link = scene.let_in().await;
            let mut own = match early {
                Some(early) => early,
                // Begun while the peer's link is on its way to its session.
                None => scene.dialled().await,
            };
            match scene.reply(&mut own).await {
                Err(LinkError::Closed(code)) => assert_eq!(code, DISPLACED),
                other => panic!("{other:?} where the node gives its dial up"),
            }
            drop(commits.0);
            scene.connected().await;
            // It lives: the node opens its lanes.
            link.accept().await.unwrap();
            scene.tree.shutdown().await;
        };
        let crossed = tokio::time::timeout(SOON, crossed).await;
        assert!(crossed.is_ok(), "dials first: {dials_first}");
    }
}

/// The peer may have begun a session on that link; to one that only ends it counts as a failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_is_given_up_for_the_peers_closes_its_link_as_displaced() {
    let crossed = async {
        let mut scene = Scene::new(false).await;
        let mut own = scene.dialled().await;
        scene.reply(&mut own).await.unwrap();
        let _link = scene.let_in().await;
        match own.receive.read_exact(VERDICT_BYTES).await {
            Err(LinkError::Closed(code)) => assert_eq!(code, DISPLACED),
            other => panic!("{other:?} where the node gives its dial up"),
        }
        scene.connected().await;
        scene.tree.shutdown().await;
    };
    tokio::time::timeout(SOON, crossed).await.unwrap();
}
