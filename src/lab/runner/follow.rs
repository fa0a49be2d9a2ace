//! Follows the messages of one stream until their sender knows each to be done.
//!
//! Every receipt is asked for. What is done is never asked again, and of what is not done only the
//! first [`OPEN_MAX`] are asked for at a look: a consumer goes in order, and workers go ahead of it
//! by their jobs.

use std::collections::BTreeSet;

use super::Trouble;
use super::background::is_passing;
use crate::ReceiptId;
use crate::api::Client;
use crate::api::documents::ReceiptQuery;
use crate::lab::ledger::Stream;
use crate::receipt::ReceiptState;

/// Messages that are stored and not done, asked for at one look.
const OPEN_MAX: usize = 64;
/// Receipts asked for at one look; other streams come before the next ones.
const ASKED_MAX: usize = 1_000;

/// One stream on its way.
#[derive(Debug)]
pub(super) struct Follow {
    client: Client,
    receipts: Vec<ReceiptId>,
    climb: Climb,
    /// Why the last look was broken off.
    away: Option<String>,
}

impl Follow {
    pub(super) fn new(client: Client) -> Follow {
        Follow {
            client,
            receipts: Vec::new(),
            climb: Climb::default(),
            away: None,
        }
    }

    /// How many messages it knows of.
    pub(super) fn count(&self) -> usize {
        self.receipts.len()
    }

    /// Messages that were accepted behind those.
    pub(super) fn extend(&mut self, receipts: Vec<ReceiptId>) {
        self.receipts.extend(receipts);
        self.climb.count = self.receipts.len();
    }

    /// How many messages are stored, and done.
    pub(super) fn reached(&self) -> (u64, u64) {
        let wide = |count| u64::try_from(count).unwrap_or(u64::MAX);
        (
            wide(self.climb.stored_count()),
            wide(self.climb.done_count()),
        )
    }

    /// Why the sender could not be asked, if it could not.
    pub(super) fn away(&self) -> Option<&str> {
        self.away.as_deref()
    }

    /// Asks on from where it was. Whether there is more to ask for at once; a node that is away is
    /// asked at the next look.
    pub(super) async fn look(&mut self, stream: &Stream) -> Result<bool, Trouble> {
        self.away = None;
        self.climb.begin();
        for _ in 0..ASKED_MAX {
            let Some(place) = self.climb.next() else {
                return Ok(false);
            };
            let Some(id) = self.receipts.get(place) else {
                return Ok(false);
            };
            let number = place + 1;
            let asked = self.client.receipt(id, &ReceiptQuery::default()).await;
            let receipt = match asked {
                Ok(receipt) => receipt,
                Err(error) if is_passing(&error) => {
                    self.away = Some(format!("`{}`: {error}", stream.from));
                    return Ok(false);
                }
                Err(error) => {
                    let text = format!("{stream}: message {number}: {error}");
                    return Err(Trouble::wrong(text));
                }
            };
            if receipt.state == ReceiptState::Failed {
                let why = receipt
                    .reason
                    .unwrap_or_else(|| "no reason given".to_owned());
                let text = format!("{stream}: message {number} failed: {why}");
                return Err(Trouble::wrong(text));
            }
            self.climb.heard(place, receipt.state);
        }
        Ok(true)
    }
}

/// Which of so many messages to ask for next, and what was heard of them.
#[derive(Debug, Default)]
struct Climb {
    count: usize,
    /// All before this place are done.
    done: usize,
    /// Done behind that.
    early: BTreeSet<usize>,
    /// All before this place are stored.
    stored: usize,
    /// Where this look is.
    at: usize,
    /// Not done, in this look.
    open: usize,
    stage: Stage,
}

/// What a look asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// What is done.
    #[default]
    Done,
    /// Behind that, what is stored.
    Stored,
    /// Nothing any more.
    Over,
}

impl Climb {
    /// Another look.
    fn begin(&mut self) {
        self.at = self.done;
        self.open = 0;
        self.stage = Stage::Done;
    }

    /// The message to ask for.
    fn next(&mut self) -> Option<usize> {
        loop {
            self.at = self.at.max(self.done);
            while self.early.contains(&self.at) {
                self.at += 1;
            }
            match self.stage {
                Stage::Done if self.at < self.count && self.open < OPEN_MAX => {
                    return Some(self.at);
                }
                Stage::Done => self.go_on(),
                Stage::Stored => {
                    self.stored = self.stored.max(self.at);
                    return (self.at < self.count).then_some(self.at);
                }
                Stage::Over => return None,
            }
        }
    }

    fn heard(&mut self, place: usize, state: ReceiptState) {
        match state {
            ReceiptState::Accepted | ReceiptState::Failed => match self.stage {
                Stage::Done => {
                    self.go_on();
                    if self.at == place {
                        self.stage = Stage::Over;
                    }
                }
                Stage::Stored | Stage::Over => self.stage = Stage::Over,
            },
            ReceiptState::Stored => {
                self.open += 1;
                self.at = place + 1;
            }
            ReceiptState::Done => {
                self.early.insert(place);
                while self.early.remove(&self.done) {
                    self.done += 1;
                }
                self.at = place + 1;
            }
        }
    }

    /// From what is done to what is stored: everything before this place is, one by one.
    fn go_on(&mut self) {
        self.stored = self.stored.max(self.at);
        self.at = self.stored;
        self.stage = Stage::Stored;
    }

    fn done_count(&self) -> usize {
        self.done + self.early.len()
    }

    fn stored_count(&self) -> usize {
        let behind = self.early.range(self.stored..).count();
        self.stored.max(self.done) + behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReceiptState::{Accepted, Done, Stored};

    /// One look at messages in these states: what was asked for, stored and done.
    fn look(climb: &mut Climb, states: &[ReceiptState]) -> (usize, usize, usize) {
        climb.count = states.len();
        climb.begin();
        let mut asked = 0;
        while let Some(place) = climb.next() {
            climb.heard(place, states[place]);
            asked += 1;
            assert!(asked <= states.len() + 1, "{climb:?}");
        }
        (asked, climb.stored_count(), climb.done_count())
    }

    #[test]
    fn every_message_is_asked_for_and_counted_one_by_one() {
        let mut climb = Climb::default();
        let mut states = vec![Done; 5_000];
        states[4_998] = Stored;
        assert_eq!(look(&mut climb, &states), (5_000, 5_000, 4_999));
        states[4_998] = Done;
        assert_eq!(look(&mut climb, &states), (1, 5_000, 5_000));
        assert_eq!(look(&mut climb, &states), (0, 5_000, 5_000));
    }

    #[test]
    fn behind_a_slow_consumer_what_is_stored_is_counted_on_its_own() {
        let mut climb = Climb::default();
        let mut states = vec![Stored; 3_000];
        states[0] = Done;
        states[2_000..].fill(Accepted);
        assert_eq!(look(&mut climb, &states).1, 2_000);
        assert_eq!(climb.done_count(), 1);
        states.fill(Stored);
        states[..3].fill(Done);
        let (asked, stored, done) = look(&mut climb, &states);
        assert_eq!((stored, done), (3_000, 3));
        assert!(asked < 1_000 + 2 * OPEN_MAX, "{asked}");
    }

    #[test]
    fn workers_are_done_out_of_order() {
        let mut climb = Climb::default();
        let states = [Stored, Done, Stored, Done, Done, Accepted];
        assert_eq!(look(&mut climb, &states), (6, 5, 3));
        let states = [Done, Done, Done, Done, Done, Done];
        assert_eq!(look(&mut climb, &states), (3, 6, 6));
    }

    #[test]
    fn nothing_is_asked_of_an_empty_stream() {
        assert_eq!(look(&mut Climb::default(), &[]), (0, 0, 0));
    }
}
