//! Where the search of one topic stands, for one kind of consumer.
//!
//! Every message is looked at once and then passed: it was handed out, is kept back, or is not for
//! this kind of consumer. What becomes free again is remembered one by one. So a claim costs what
//! it hands out and not what lies before it.
//! A desk is only a memory of what the store says: dropping one costs a search from the start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use packhorse_protocol::grant::Grants;

use crate::store::PeerNumber;

use super::Mode;
use super::leases::Freed;

/// Topics for which the place is kept.
const DESKS_MAX: usize = 1_024;

/// How far one kind of consumer is with one topic.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk {
    /// Everything below was looked at.
    pub(super) next: u64,
    /// What is below and worth another look.
    pub(super) again: BTreeSet<u64>,
    /// Senders whose messages were passed over, with what they were allowed then.
    pub(super) denied: BTreeMap<PeerNumber, Grants>,
    /// When the topic has to be looked through from its start again.
    pub(super) rescan_ms: Option<u64>,
}

/// All desks.
#[derive(Debug, Default)]
pub(super) struct Desks {
    desks: BTreeMap<(Arc<str>, Mode), Desk>,
}

impl Desks {
    /// The desk of a topic.
    pub(super) fn at(&mut self, topic: &Arc<str>, mode: Mode) -> &mut Desk {
        let key = (topic.clone(), mode);
        if self.desks.len() >= DESKS_MAX && !self.desks.contains_key(&key) {
            self.desks.clear();
        }
        self.desks.entry(key).or_default()
    }

    /// The topic's name as it is held already.
    pub(super) fn name(&self, topic: &str) -> Arc<str> {
        let of = |mode| {
            self.desks
                .keys()
                .find(|(name, at)| &**name == topic && *at == mode)
        };
        let known = of(Mode::Receive).or_else(|| of(Mode::Work));
        known.map_or_else(|| topic.into(), |(name, _)| name.clone())
    }

    /// A message can be handed out again.
    pub(super) fn free(&mut self, freed: Freed) {
        let Some(topic) = freed.topic else {
            // It can be of any topic.
            self.desks.clear();
            return;
        };
        for mode in [Mode::Receive, Mode::Work] {
            if let Some(desk) = self.desks.get_mut(&(topic.clone(), mode))
                && freed.arrival < desk.next
            {
                desk.again.insert(freed.arrival);
            }
        }
    }

    /// More are kept back than are remembered: the topic is looked through when they are due.
    pub(super) fn rescan(&mut self, topic: &Arc<str>, at_ms: u64) {
        for mode in [Mode::Receive, Mode::Work] {
            if let Some(desk) = self.desks.get_mut(&(topic.clone(), mode)) {
                let known = desk.rescan_ms.unwrap_or(u64::MAX);
                desk.rescan_ms = Some(known.min(at_ms));
            }
        }
    }
}
