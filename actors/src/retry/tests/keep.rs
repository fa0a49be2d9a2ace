//! When a link is kept: by somebody's word, and after the machine moved.

use super::*;
use crate::store::Keep;

/// With the peer of this number.
pub(super) fn pairing(number: u8) -> PairInviter {
    PairInviter {
        introduction: Introduction {
            id: IdentityKey::from_seed(&[number; 32]).id(),
            name: format!("peer{number}"),
            addresses: Vec::new(),
            epoch: Epoch { boot: 1, nonce: 1 },
        },
        name: None,
        grants: Grants::none(),
        granted: Grants::none(),
        hints: Vec::new(),
    }
}

impl World {
    async fn keep(&self, peer: PeerNumber, keep: Keep) {
        self.store.set_keep(peer, keep).await.unwrap();
        self.retry.kept(peer);
    }

    /// Waits for what follows from a word: the scheduler reads it on a thread that takes its own
    /// time however the clock is moved.
    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if is_so(self) {
                return;
            }
            self.rest().await;
        }
        panic!("never {what}");
    }

    fn dials_to(&self, peer: PeerNumber) -> usize {
        let dials = self.fake.dials();
        dials.iter().filter(|(_, dialled)| *dialled == peer).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_to_whom_no_link_is_kept_is_never_dialled_whatever_waits() {
    let mut world = World::new(2).await;
    world.store.set_keep(ONE, Keep::Never).await.unwrap();
    world.send(ONE, DeliveryClass::Critical).await;
    // Also a node that nobody can dial obeys.
    world.start(true).await;
    world.pass(5 * MINUTE).await;
    world.send(ONE, DeliveryClass::Critical).await;
    world.retry.wake(Some(ONE));
    world.retry.wake(None);
    world.network.set([IpAddr::from([192, 0, 2, 1])]);
    world.retry.tell(RetryMsg::AllOver);
    world.pass(5 * MINUTE).await;
    assert_eq!(world.dials_to(ONE), 0);
    assert!(world.dials_to(TWO) > 5);
    assert_eq!(world.board.line(ONE).next_attempt_ms, None);
    assert_eq!(world.failures(ONE).await, 0);
    // It dials by itself, and its end is no reason to dial either.
    world.retry.tell(RetryMsg::Connected(ONE));
    world.retry.tell(RetryMsg::Over {
        peer: ONE,
        exit: there(),
        retry_after_ms: None,
    });
    world.pass(5 * MINUTE).await;
    assert_eq!(world.dials_to(ONE), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_to_whom_a_link_is_always_kept_is_dialled_on_and_on_without_anything_waiting() {
    let mut world = World::new(1).await;
    world.store.set_keep(ONE, Keep::Always).await.unwrap();
    world.start(false).await;
    world.pass(30 * MINUTE).await;
    let dials = world.fake.dials();
    assert!(dials.len() > 20, "{}", dials.len());
    for pair in dials.windows(2) {
        let apart_ms = pair[1].0 - pair[0].0;
        assert!((4_100..=64_400).contains(&apart_ms), "{apart_ms} ms apart");
    }
    assert_eq!(world.failures(ONE).await, 0, "nothing waited");
}

#[tokio::test(start_paused = true)]
async fn a_changed_word_counts_at_once_and_outlives_a_restart() {
    let mut world = World::new(1).await;
    world.start(false).await;
    world.pass(5 * MINUTE).await;
    assert_eq!(world.dials_to(ONE), 1, "once at start");
    world.keep(ONE, Keep::Always).await;
    let dialled = |count| move |world: &World| world.dials_to(ONE) == count;
    world.until("dialled", dialled(2)).await;
    world.pass(5 * MINUTE).await;
    let kept = world.dials_to(ONE);
    assert!(kept > 5, "{kept}");
    world.keep(ONE, Keep::Never).await;
    let unplanned = |world: &World| world.board.line(ONE).next_attempt_ms.is_none();
    world.until("without a plan", unplanned).await;
    world.pass(5 * MINUTE).await;
    // One may have been under way; nothing follows it.
    let before = world.dials_to(ONE);
    assert!(before <= kept + 1);
    world.kill().await;
    world.start(false).await;
    world.pass(5 * MINUTE).await;
    assert_eq!(world.dials_to(ONE), before);
    world.send(ONE, DeliveryClass::Critical).await;
    world.pass(MINUTE).await;
    assert_eq!(world.dials_to(ONE), before);
    world.keep(ONE, Keep::Auto).await;
    // Something waits for it.
    world.until("dialled again", dialled(before + 1)).await;
}

#[tokio::test(start_paused = true)]
async fn another_network_is_worth_one_dial_to_everybody() {
    let mut world = World::new(2).await;
    world
        .fake
        .follow(|_| Some((Duration::from_millis(1), here())));
    world.start(false).await;
    world.pass(MINUTE).await;
    assert_eq!((world.dials_to(ONE), world.dials_to(TWO)), (1, 1));
    world.retry.tell(RetryMsg::Connected(TWO));
    world.network.set([IpAddr::from([192, 0, 2, 1])]);
    world.pass(MINUTE).await;
    // Who is connected proves itself first; its end is then worth the dial.
    assert_eq!((world.dials_to(ONE), world.dials_to(TWO)), (2, 1));
    assert_eq!(world.fake.moves(), 1);
    world.retry.tell(RetryMsg::Over {
        peer: TWO,
        exit: here(),
        retry_after_ms: None,
    });
    world.pass(5 * MINUTE).await;
    assert_eq!((world.dials_to(ONE), world.dials_to(TWO)), (2, 2));
    // Who came by itself meanwhile has no dial coming.
    world.network.set([IpAddr::from([192, 0, 2, 2])]);
    world.retry.tell(RetryMsg::Connected(TWO));
    world.pass(MINUTE).await;
    let before = world.dials_to(TWO);
    world.retry.tell(RetryMsg::Connected(TWO));
    world.retry.tell(RetryMsg::Over {
        peer: TWO,
        exit: here(),
        retry_after_ms: None,
    });
    world.pass(5 * MINUTE).await;
    assert_eq!(world.dials_to(TWO), before);
    // Another time is not another place.
    let before = (world.dials_to(ONE), world.dials_to(TWO));
    world.jump(3_600_000);
    world.pass(5 * MINUTE).await;
    assert_eq!((world.dials_to(ONE), world.dials_to(TWO)), before);
    assert_eq!(world.fake.moves(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_peer_is_not_dialled_before_something_waits_for_it_again() {
    let mut world = World::new(1).await;
    world
        .fake
        .follow(|_| Some((Duration::from_millis(10), there())));
    world.start(true).await;
    let before = world.fake.dials().len();
    assert!(before > 0, "everybody is dialled at the start");
    world.retry.removed(ONE);
    world.pass(Duration::from_secs(300)).await;
    world.retry.wake(None);
    world.retry.wake(Some(ONE));
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.fake.dials().len(), before);
    world.retry.tell(RetryMsg::Added(ONE));
    world.pass(Duration::from_secs(60)).await;
    assert!(world.fake.dials().len() > before);
}

impl World {
    /// Forgets the peer in the store, and leaves nothing to be put aside.
    async fn forget(&self, peer: PeerNumber) {
        self.store.forget(peer).await.unwrap();
        self.store.put_aside(peer, drop).await.unwrap();
        self.retry.removed(peer);
    }

    /// Pairs a forgotten peer again; nobody is told of it.
    async fn pair_again(&self, number: u8) {
        let id = IdentityKey::from_seed(&[number; 32]).id();
        assert!(self.store.allow(id).await.unwrap());
        self.store.pair_inviter(pairing(number)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_makes_no_peer_of_a_forgotten_one() {
    let mut world = World::new(2).await;
    world
        .fake
        .follow(|_| Some((Duration::from_millis(10), there())));
    world.start(true).await;
    world.forget(ONE).await;
    world.retry.tell(RetryMsg::Waiting(ONE));
    world.retry.tell(RetryMsg::Connected(ONE));
    world.retry.tell(RetryMsg::Over {
        peer: ONE,
        exit: there(),
        retry_after_ms: None,
    });
    world.rest().await;
    let before = (world.dials_to(ONE), world.dials_to(TWO));
    world.pass(5 * MINUTE).await;
    world.retry.wake(None);
    world.retry.wake(Some(ONE));
    world.pass(5 * MINUTE).await;
    assert_eq!(world.dials_to(ONE), before.0);
    assert!(world.dials_to(TWO) > before.1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_paired_again_begins_anew() {
    for word in [Keep::Never, Keep::Always] {
        let mut world = World::new(1).await;
        world
            .fake
            .follow(|_| Some((Duration::from_millis(10), there())));
        world.store.set_keep(ONE, word).await.unwrap();
        world.start(false).await;
        world.forget(ONE).await;
        world.pass(MINUTE).await;
        let before = world.dials_to(ONE);
        world.pair_again(1).await;
        world.retry.added(ONE);
        let dialled = |world: &World| world.dials_to(ONE) == before + 1;
        world.until("dialled", dialled).await;
        // Nothing waits for it, and its link is not kept.
        world.pass(5 * MINUTE).await;
        assert_eq!(world.dials_to(ONE), before + 1, "{word:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_forget_that_nobody_went_on_with_is_gone_on_with() {
    let mut world = World::new(1).await;
    world.start(true).await;
    world.store.forget(ONE).await.unwrap();
    let forgotten = |world: &World| *world.fake.forgotten.lock().unwrap() == [ONE];
    world.pass(MINUTE).await;
    world.until("ended its session", forgotten).await;
}
