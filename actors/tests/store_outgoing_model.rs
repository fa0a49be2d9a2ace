//! Outgoing messages against a recipient that is a plain list, over everything that can happen.
//!
//! Goal: at every moment a message that was accepted is in exactly one place; a letter that is
//! called not delivered never arrived and never will; a message that is called stored has arrived;
//! and what waits is counted right.
//! Method: a seeded course of accepts, loads, deliveries, acknowledgements, sweeps, drops, retries,
//! replacements, lost sessions and restarts, in half of the courses with the power cut after a
//! seeded number of steps. The model knows what the recipient has and which answers came.
//! `OUT_SEED` repeats one seed, `OUT_SEEDS` sets how many are tried.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store_common;

use std::collections::{BTreeMap, BTreeSet};

use packhorse_actors::env::Clock;
use packhorse_actors::env::testing::{ManualClock, SeededRandom};
use packhorse_actors::store::{DeadState, Filter, NewMessage, PeerNumber, ReceiptId, ReceiptState};
use packhorse_protocol::epoch::{Epoch, Lane, Mark, Position, Refusal, RefusalCode};
use packhorse_protocol::message::DeliveryClass;

use store_common::*;

const STEPS: u64 = 160;
const MINUTE: u64 = 60_000;

/// The other node: what it has, and how far each of our epochs is.
#[derive(Default)]
struct Recipient {
    marks: BTreeMap<Epoch, u64>,
    stored: BTreeSet<Position>,
    refused: BTreeSet<Position>,
    unconfirmed: BTreeSet<Position>,
}

impl Recipient {
    fn mark(&self, epoch: Epoch) -> u64 {
        self.marks.get(&epoch).copied().unwrap_or(0)
    }

    fn refusals(&self) -> Vec<Refusal> {
        let refusal = |at: &Position| Refusal {
            epoch: at.epoch,
            sequence: at.sequence,
            code: RefusalCode::NO_GRANT,
        };
        self.unconfirmed.iter().map(refusal).collect()
    }
}

/// What a session has in memory.
#[derive(Default)]
struct Session {
    cursor: Option<Position>,
    handed: Vec<Position>,
    epochs: BTreeSet<Epoch>,
}

struct Course {
    clock: std::sync::Arc<ManualClock>,
    random: std::sync::Arc<SeededRandom>,
    context: String,
    peer: PeerNumber,
    recipient: Recipient,
    session: Option<Session>,
    accepted: Vec<ReceiptId>,
    /// Keys and the receipts that they stand for.
    keys: Vec<(String, ReceiptId)>,
    /// Letters that were dropped or sent again, or may have been.
    dealt_with: BTreeSet<ReceiptId>,
    texts: u64,
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("OUT_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("OUT_SEEDS").unwrap_or(20)).collect(),
    }
}

#[tokio::test]
async fn every_message_is_in_one_place_and_every_end_is_true_whatever_happens() {
    for seed in seeds() {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let random = SeededRandom::new(seed);
    let mut place = Place::memory(seed);
    let mut node = place.open();
    let peer = node.pair(2, &[]).await;
    let mut course = Course {
        clock: place.clock.clone(),
        random: random.clone(),
        context: format!("OUT_SEED={seed}"),
        peer,
        recipient: Recipient::default(),
        session: None,
        accepted: Vec::new(),
        keys: Vec::new(),
        dealt_with: BTreeSet::new(),
        texts: 0,
    };
    let has_cuts = seed % 2 == 1;
    if has_cuts {
        place.disk().cut_after(2 + random.below(150));
    }
    for _ in 0..STEPS {
        place.clock.advance(random.below(MINUTE));
        let is_lost = course.step(&node).await.is_none();
        if is_lost {
            assert!(!place.disk().is_powered(), "{}", course.context);
            node = restart(node, &mut place, &random).await;
            course.session = None;
        } else if random.below(25) == 0 {
            node = restart(node, &mut place, &random).await;
            course.session = None;
        }
        if random.below(4) == 0 && place.disk().is_powered() {
            course.check(&node).await;
        }
    }
    if !place.disk().is_powered() {
        node = restart(node, &mut place, &random).await;
    } else if has_cuts {
        // No cut from here on.
        place.disk().cut_after(u64::MAX / 2);
    }
    course.session = None;
    course.finish(&node).await;
    node.close().await;
}

/// The process ends, cleanly or by a cut, and the store is opened again; that may be cut as well.
async fn restart(node: Node, place: &mut Place, random: &SeededRandom) -> Node {
    let Node {
        store,
        mut writer,
        opened,
    } = node;
    writer.stop();
    within(writer.ended()).await;
    // Where the power is gone this fails.
    let _ = opened.close();
    drop((store, opened));
    loop {
        if !place.disk().is_powered() {
            place.disk().cut_after(30 + random.below(200));
        }
        if let Ok(node) = place.try_open() {
            return node;
        }
    }
}

impl Course {
    fn below(&self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len().max(1)))
    }

    fn new_message(&mut self, born_ms: u64) -> NewMessage {
        self.texts += 1;
        let mut new = new(&self.texts.to_string());
        new.message.born_ms = born_ms;
        match self.below(4) {
            0 => new.message.class = DeliveryClass::Moderate,
            1 => {
                let end_ms = self.clock.now_ms() + 1 + self.random.below(30 * MINUTE);
                new.expires_ms = Some(end_ms);
            }
            _ => {}
        }
        new
    }

    /// One thing that happens. `None`: the store gave no answer.
    async fn step(&mut self, node: &Node) -> Option<()> {
        let (store, peer) = (&node.store, self.peer);
        let listed = store.outbox_list(usize::MAX).await.ok()?.rows;
        let letters = store.dead_letters(Filter::default(), usize::MAX).await;
        let letters = letters.ok()?.rows;
        match self.below(14) {
            0..=2 => {
                let count = 1 + self.below(3);
                let born_ms = 1_750_000_000_000 + self.random.below(MINUTE);
                let messages: Vec<NewMessage> =
                    (0..count).map(|_| self.new_message(born_ms)).collect();
                let accepted = store.accept(peer, Lane::User, messages).await.ok()?;
                self.accepted.extend(accepted.iter().map(|one| one.id));
            }
            3 => self.keyed(node).await?,
            4 => self.open(node).await?,
            5 | 6 => self.load(node).await?,
            7 | 8 => self.deliver(),
            9 => self.acknowledge(node).await?,
            10 => {
                let fails = self.below(3) as u32;
                let change =
                    move |peer: &mut packhorse_actors::store::PeerRecord| peer.failures += fails;
                store.update_peer(peer, change).await.ok()?;
                store.sweep(peer).await.ok()?;
            }
            11 => {
                let id = self.pick(&listed).map(|row| row.id);
                let drops = id.into_iter().collect::<Vec<_>>();
                if !drops.is_empty() {
                    store.outbox_drop(Filter::default(), drops).await.ok()?;
                }
            }
            12 => {
                let Some(letter) = self.pick(&letters) else {
                    return Some(());
                };
                self.dealt_with.insert(letter.id);
                if letter.state == DeadState::MayBeDelivered && self.below(2) == 0 {
                    assert!(store.dead_retry(letter.id).await.is_err());
                    self.dealt_with.remove(&letter.id);
                } else if self.below(2) == 0 {
                    store.dead_drop(letter.id).await.ok()?;
                } else if letter.state != DeadState::MayBeDelivered {
                    let again = store.dead_retry(letter.id).await.ok()?;
                    self.accepted.push(again.id);
                } else {
                    self.dealt_with.remove(&letter.id);
                }
            }
            _ => {
                self.session = None;
                if self.below(2) == 0 {
                    store.session_over(peer).await.ok()?;
                }
            }
        }
        Some(())
    }

    /// A send with a key, new or replacing.
    async fn keyed(&mut self, node: &Node) -> Option<()> {
        let key = self.below(6).to_string();
        let new = NewMessage {
            key: Some(key.clone()),
            replace: true,
            ..self.new_message(1_750_000_000_000)
        };
        let before = self.keys.iter().find(|(known, _)| *known == key).cloned();
        let answer = node.store.accept(self.peer, Lane::User, vec![new]).await;
        match (answer, before) {
            (Ok(accepted), None) => {
                // A key whose answer was lost may stand for a message of an earlier try.
                let id = accepted[0].id;
                self.accepted.push(id);
                self.keys.push((key, id));
            }
            (Ok(accepted), Some((_, id))) => {
                assert_eq!(accepted[0].id, id, "{}", self.context);
                assert!(!self.may_be_there(id.position), "{}", self.context);
            }
            (Err(packhorse_actors::store::StoreError::Refused(_)), _) => {}
            (Err(_), _) => return None,
        }
        Some(())
    }

    /// Whether a message has arrived, or a session holds it.
    fn may_be_there(&self, at: Position) -> bool {
        let handed = self.session.as_ref().map(|session| &session.handed);
        self.recipient.stored.contains(&at) || handed.is_some_and(|handed| handed.contains(&at))
    }

    async fn open(&mut self, node: &Node) -> Option<()> {
        self.session = None;
        let (store, peer) = (&node.store, self.peer);
        let spans = store.lines(peer, Lane::User).await.ok()?;
        let marks = spans
            .iter()
            .map(|span| Mark {
                epoch: span.epoch,
                settled: self.recipient.mark(span.epoch).min(span.last),
            })
            .collect();
        let refusals = self.recipient.refusals();
        let settle = store.settle_opening(peer, Lane::User, marks, refusals);
        settle.await.ok()?;
        self.recipient.unconfirmed.clear();
        for span in &spans {
            // The base of the opening.
            let mark = self.recipient.marks.entry(span.epoch).or_default();
            *mark = (*mark).max(span.first - 1);
        }
        let epochs = spans.iter().map(|span| span.epoch).collect();
        self.session = Some(Session {
            epochs,
            ..Session::default()
        });
        Some(())
    }

    async fn load(&mut self, node: &Node) -> Option<()> {
        let count = 1 + self.below(4);
        let Some(session) = &mut self.session else {
            return Some(());
        };
        let load = node
            .store
            .load(self.peer, Lane::User, session.cursor, count, 1 << 20);
        for row in load.await.ok()?.0 {
            assert!(session.cursor.is_none_or(|cursor| cursor < row.position));
            session.cursor = Some(row.position);
            session.handed.push(row.position);
            session.epochs.insert(row.position.epoch);
        }
        Some(())
    }

    /// The recipient takes what was sent to it, with the bases that explain what is missing.
    fn deliver(&mut self) {
        let refuses = self.below(8) == 0;
        let Some(session) = &mut self.session else {
            return;
        };
        if session.handed.is_empty() {
            return;
        }
        let at = session.handed.remove(0);
        let recipient = &mut self.recipient;
        let mark = recipient.marks.entry(at.epoch).or_default();
        assert!(*mark < at.sequence, "{}: {at:?} again", self.context);
        *mark = at.sequence;
        if refuses {
            recipient.refused.insert(at);
            recipient.unconfirmed.insert(at);
        } else {
            recipient.stored.insert(at);
        }
    }

    async fn acknowledge(&mut self, node: &Node) -> Option<()> {
        let Some(session) = &self.session else {
            return Some(());
        };
        let mark = |epoch: &Epoch| Mark {
            epoch: *epoch,
            settled: self.recipient.mark(*epoch),
        };
        let marks = session.epochs.iter().map(mark).collect();
        let refusals = self.recipient.refusals();
        let settle = node.store.settle(self.peer, Lane::User, marks, refusals);
        settle.await.ok()?;
        self.recipient.unconfirmed.clear();
        Some(())
    }

    async fn check(&self, node: &Node) {
        let context = &self.context;
        let Ok(listed) = node.store.outbox_list(usize::MAX).await else {
            return;
        };
        let Ok(letters) = node.store.dead_letters(Filter::default(), usize::MAX).await else {
            return;
        };
        let waiting: BTreeSet<ReceiptId> = listed.rows.iter().map(|row| row.id).collect();
        assert_eq!(listed.total, waiting.len() as u64, "{context}");
        let counted = node.store.outbox_counts(self.peer).borrow().total();
        assert_eq!(counted, waiting.len() as u64, "{context}");
        let mut dead = BTreeMap::new();
        for letter in &letters.rows {
            assert!(dead.insert(letter.id, letter.state).is_none(), "{context}");
            assert!(letter.message.is_some(), "{context}: {:?} lost", letter.id);
            let at = letter.id.position;
            let (is_stored, is_refused) = (
                self.recipient.stored.contains(&at),
                self.recipient.refused.contains(&at),
            );
            match letter.state {
                DeadState::NotDelivered => assert!(!is_stored, "{context}: {at:?} is there"),
                DeadState::Refused => assert!(is_refused && !is_stored, "{context}: {at:?}"),
                DeadState::MayBeDelivered => {}
            }
        }
        for row in &listed.rows {
            let at = row.id.position;
            assert!(!dead.contains_key(&row.id), "{context}: {at:?} twice");
            let was_handed = self.may_be_there(at) || self.recipient.refused.contains(&at);
            assert!(!(row.unoffered && was_handed), "{context}: {at:?} had left");
        }
        for id in &self.accepted {
            let at = id.position;
            let Ok(receipt) = node.store.receipt(*id).await else {
                return;
            };
            let receipt = receipt.unwrap_or_else(|| panic!("{context}: {at:?} is forgotten"));
            let is_dealt_with = self.dealt_with.contains(id);
            if waiting.contains(id) {
                assert_eq!(receipt.state, ReceiptState::Accepted, "{context}: {at:?}");
            } else if dead.contains_key(id) {
                assert_eq!(receipt.state, ReceiptState::Failed, "{context}: {at:?}");
            } else if !is_dealt_with {
                assert_eq!(receipt.state, ReceiptState::Stored, "{context}: {at:?}");
                assert!(
                    self.recipient.stored.contains(&at),
                    "{context}: {at:?} is called stored and is not there"
                );
            }
        }
    }

    /// Everything goes well from here on: all that waits arrives, and every end is known.
    async fn finish(&mut self, node: &Node) {
        let context = self.context.clone();
        for _ in 0..3 {
            self.open(node).await.unwrap();
            for _ in 0..400 {
                self.load(node).await.unwrap();
                self.deliver();
            }
            while self.session.as_ref().is_some_and(|s| !s.handed.is_empty()) {
                self.deliver();
            }
            self.acknowledge(node).await.unwrap();
        }
        self.check(node).await;
        assert_eq!(
            node.store.outbox_list(9).await.unwrap().total,
            0,
            "{context}"
        );
        let letters = node.store.dead_letters(Filter::default(), usize::MAX).await;
        let open = |state| state == DeadState::MayBeDelivered;
        let letters = letters.unwrap().rows;
        assert!(
            !letters.iter().any(|letter| open(letter.state)),
            "{context}"
        );
    }
}
