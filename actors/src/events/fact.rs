//! What can happen, as values.
//!
//! A fact says what happened and to whom; its number and its time are given when it is written.
//! No fact stands for one message: what happens to many of them is one fact with a count.
//! Nobody decides anything from a fact: they are for people and for programs that watch.

use packhorse_protocol::error_class::ErrorClass;

use crate::store::PeerNumber;

/// Longer texts are cut: a reason is a sentence, and a ring of 100,000 must have a size.
pub const FACT_TEXT_BYTES_MAX: usize = 512;

/// Something that happened to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the variants say it; their fields are named after what they hold"
)]
pub enum Fact {
    /// The tree runs, under this boot number.
    NodeStarted { boot: u32 },
    /// The tree was asked to stop.
    NodeStopping,
    /// An incarnation of an actor runs.
    ActorStarted { actor: String, incarnation: u64 },
    /// An incarnation of an actor ended.
    ActorEnded {
        actor: String,
        incarnation: u64,
        reason: String,
    },
    /// An actor's restart budget is spent, and the node ends.
    ActorGaveUp { actor: String, reason: String },
    /// A peer was paired.
    Paired { peer: PeerNumber },
    /// A session with a peer lives.
    SessionStarted { peer: PeerNumber, link: String },
    /// A session with a peer is over. Sessions of a process that was killed are over with the next
    /// `node.started`.
    SessionEnded {
        peer: PeerNumber,
        class: ErrorClass,
        reason: String,
    },
    /// Messages for a peer were given up here.
    GivenUp {
        peer: PeerNumber,
        count: u64,
        reason: String,
    },
    /// A peer refused messages for good.
    RefusedThere {
        peer: PeerNumber,
        count: u64,
        reason: String,
    },
    /// A message of a peer became a dead letter here.
    FailedHere {
        peer: PeerNumber,
        topic: String,
        reason: String,
    },
    /// Two live nodes show one identity.
    CopySeen { peer: PeerNumber, text: String },
    /// A peer has seen more of this node than its store holds.
    RolledBack { peer: PeerNumber, text: String },
    /// A peer shows less than this node has seen of it.
    PeerRolledBack { peer: PeerNumber, text: String },
    /// A store takes no messages: this node's, or a peer's.
    StorePaused { peer: Option<PeerNumber> },
    /// A store takes messages again.
    StoreResumed { peer: Option<PeerNumber> },
    /// The machine's addresses changed.
    NetworkChanged,
    /// The wall clock jumped by this much.
    ClockJumped { ms: i64 },
    /// This many facts came faster than they could be written.
    FactsLost { count: u64 },
    /// This many records were found that do not open.
    Quarantined { count: u64 },
    /// What a peer may do here was changed.
    GrantsChanged { peer: PeerNumber, text: String },
    /// A peer was forgotten, and its identity is denied from now on.
    Forgotten { peer: PeerNumber, text: String },
    /// A ticket was taken back.
    InviteRevoked { text: String },
    /// A node without a ticket asks to be paired.
    RequestWaiting { text: String },
    /// Somebody decided about a node that asked to be paired.
    RequestDecided { text: String },
    /// New work is refused, because space or a quota is used up.
    StorageFull { text: String },
    /// There is space again.
    StorageBack,
    /// Commits that had been durable are gone, and somebody accepted that.
    LostCommits { count: u64, text: String },
    /// The store was taken over by a new identity.
    NewIdentity { text: String },
    /// A peer has another name here.
    Renamed { peer: PeerNumber, text: String },
    /// Links from strangers that were turned away within a minute.
    StrangersFlood { count: u64 },
    /// Two live machines show one identity.
    IdentityInUse { peer: PeerNumber, text: String },
    /// A peer is dialled elsewhere.
    AddressesChanged { peer: PeerNumber, text: String },
    /// A fact of a newer version of this program.
    Unknown(FactParts),
}

/// A fact as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactParts {
    /// What happened. The numbers are on disk and are never reused.
    pub kind: u16,
    /// To whom.
    pub peer: Option<PeerNumber>,
    /// How many, or the fact's one number.
    pub count: u64,
    /// The fact's texts, in the order of its fields.
    pub texts: Vec<String>,
}

/// Every kind's number and word.
const KINDS: [(u16, &str); 33] = [
    (1, "node.started"),
    (2, "node.stopping"),
    (3, "actor.started"),
    (4, "actor.ended"),
    (5, "actor.gave_up"),
    (6, "peer.paired"),
    (7, "session.started"),
    (8, "session.ended"),
    (9, "messages.given_up"),
    (10, "messages.refused_there"),
    (11, "message.failed_here"),
    (12, "peer.copy_seen"),
    (13, "node.rolled_back"),
    (14, "peer.rolled_back"),
    (15, "store.paused"),
    (16, "store.resumed"),
    (17, "network.changed"),
    (18, "clock.jumped"),
    (19, "events.lost"),
    (20, "store.quarantined"),
    (21, "peer.grants_changed"),
    (22, "peer.forgotten"),
    (23, "invite.revoked"),
    (24, "request.waiting"),
    (25, "request.decided"),
    (26, "storage.full"),
    (27, "storage.back"),
    (28, "store.lost_commits"),
    (29, "node.new_identity"),
    (30, "peer.renamed"),
    (31, "strangers.flood"),
    (32, "peer.identity_in_use"),
    (33, "peer.addresses_changed"),
];

impl Fact {
    /// Every kind as a word, in the order of their numbers.
    pub fn kinds() -> impl Iterator<Item = &'static str> + Clone {
        KINDS.iter().map(|(_, word)| *word)
    }

    /// The fact's kind as a word, for example `session.started`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let number = self.number();
        KINDS
            .iter()
            .find(|(kind, _)| *kind == number)
            .map_or("unknown", |(_, word)| word)
    }

    /// The peer it is about, if it is about one.
    #[must_use]
    pub fn peer(&self) -> Option<PeerNumber> {
        match self {
            Fact::Paired { peer }
            | Fact::SessionStarted { peer, .. }
            | Fact::SessionEnded { peer, .. }
            | Fact::GivenUp { peer, .. }
            | Fact::RefusedThere { peer, .. }
            | Fact::FailedHere { peer, .. }
            | Fact::CopySeen { peer, .. }
            | Fact::RolledBack { peer, .. }
            | Fact::PeerRolledBack { peer, .. }
            | Fact::GrantsChanged { peer, .. }
            | Fact::Forgotten { peer, .. }
            | Fact::Renamed { peer, .. }
            | Fact::IdentityInUse { peer, .. }
            | Fact::AddressesChanged { peer, .. } => Some(*peer),
            Fact::StorePaused { peer } | Fact::StoreResumed { peer } => *peer,
            Fact::Unknown(parts) => parts.peer,
            _ => None,
        }
    }

    /// What a person is told. The peer is not named in it: who shows it knows the peer's name.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Fact::NodeStarted { boot } => format!("the node runs, boot {boot}"),
            Fact::NodeStopping => "the node stops".to_owned(),
            Fact::ActorStarted { actor, incarnation } => {
                format!("{actor}, incarnation {incarnation}, runs")
            }
            Fact::ActorEnded {
                actor,
                incarnation,
                reason,
            } => format!("{actor}, incarnation {incarnation}, ended: {reason}"),
            Fact::ActorGaveUp { actor, reason } => format!("{actor} is given up: {reason}"),
            Fact::Paired { .. } => "paired".to_owned(),
            Fact::SessionStarted { link, .. } => format!("connected over {link}"),
            Fact::SessionEnded { class, reason, .. } => {
                format!("disconnected ({}): {reason}", class.name())
            }
            Fact::GivenUp { count, reason, .. } => {
                format!("{} given up: {reason}", counted(*count, "message"))
            }
            Fact::RefusedThere { count, reason, .. } => {
                format!(
                    "{} refused by the peer: {reason}",
                    counted(*count, "message")
                )
            }
            Fact::FailedHere { topic, reason, .. } => {
                format!("a message on {topic} failed here: {reason}")
            }
            Fact::CopySeen { text, .. }
            | Fact::RolledBack { text, .. }
            | Fact::PeerRolledBack { text, .. } => text.clone(),
            Fact::StorePaused { peer: None } => "the store takes no messages".to_owned(),
            Fact::StorePaused { peer: Some(_) } => "its store takes no messages".to_owned(),
            Fact::StoreResumed { peer: None } => "the store takes messages again".to_owned(),
            Fact::StoreResumed { peer: Some(_) } => "its store takes messages again".to_owned(),
            Fact::NetworkChanged => "the machine's addresses changed".to_owned(),
            Fact::ClockJumped { ms } => format!("the clock jumped by {ms} ms"),
            Fact::FactsLost { count } => {
                format!("{} came too fast to be kept", counted(*count, "fact"))
            }
            Fact::Quarantined { count } => format!("damage found in {}", counted(*count, "record")),
            Fact::GrantsChanged { text, .. } => text.clone(),
            Fact::Forgotten { text, .. } => format!("forgotten: {text}"),
            Fact::InviteRevoked { text } => format!("the ticket {text} was revoked"),
            Fact::RequestWaiting { text } => text.clone(),
            Fact::RequestDecided { text } => text.clone(),
            Fact::StorageFull { text } => format!("new work is refused: {text}"),
            Fact::StorageBack => "there is space again".to_owned(),
            Fact::LostCommits { count, text } => {
                format!("{} lost: {text}", counted(*count, "commit"))
            }
            Fact::NewIdentity { text } => format!("a new identity took over the store: {text}"),
            Fact::Renamed { text, .. } => text.clone(),
            Fact::StrangersFlood { count } => {
                format!("{} of strangers turned away", counted(*count, "link"))
            }
            Fact::IdentityInUse { text, .. } => text.clone(),
            Fact::AddressesChanged { text, .. } => text.clone(),
            Fact::Unknown(parts) => format!("kind {}: {}", parts.kind, parts.texts.join("; ")),
        }
    }

    fn number(&self) -> u16 {
        match self {
            Fact::NodeStarted { .. } => 1,
            Fact::NodeStopping => 2,
            Fact::ActorStarted { .. } => 3,
            Fact::ActorEnded { .. } => 4,
            Fact::ActorGaveUp { .. } => 5,
            Fact::Paired { .. } => 6,
            Fact::SessionStarted { .. } => 7,
            Fact::SessionEnded { .. } => 8,
            Fact::GivenUp { .. } => 9,
            Fact::RefusedThere { .. } => 10,
            Fact::FailedHere { .. } => 11,
            Fact::CopySeen { .. } => 12,
            Fact::RolledBack { .. } => 13,
            Fact::PeerRolledBack { .. } => 14,
            Fact::StorePaused { .. } => 15,
            Fact::StoreResumed { .. } => 16,
            Fact::NetworkChanged => 17,
            Fact::ClockJumped { .. } => 18,
            Fact::FactsLost { .. } => 19,
            Fact::Quarantined { .. } => 20,
            Fact::GrantsChanged { .. } => 21,
            Fact::Forgotten { .. } => 22,
            Fact::InviteRevoked { .. } => 23,
            Fact::RequestWaiting { .. } => 24,
            Fact::RequestDecided { .. } => 25,
            Fact::StorageFull { .. } => 26,
            Fact::StorageBack => 27,
            Fact::LostCommits { .. } => 28,
            Fact::NewIdentity { .. } => 29,
            Fact::Renamed { .. } => 30,
            Fact::StrangersFlood { .. } => 31,
            Fact::IdentityInUse { .. } => 32,
            Fact::AddressesChanged { .. } => 33,
            Fact::Unknown(parts) => parts.kind,
        }
    }

    /// The fact as it is written; over-long texts are cut.
    #[must_use]
    pub fn to_parts(&self) -> FactParts {
        let (count, texts): (u64, Vec<&String>) = match self {
            Fact::NodeStarted { boot } => (u64::from(*boot), vec![]),
            Fact::ActorStarted { actor, incarnation } => (*incarnation, vec![actor]),
            Fact::ActorEnded {
                actor,
                incarnation,
                reason,
            } => (*incarnation, vec![actor, reason]),
            Fact::ActorGaveUp { actor, reason } => (0, vec![actor, reason]),
            Fact::SessionStarted { link, .. } => (0, vec![link]),
            Fact::SessionEnded { class, reason, .. } => (u64::from(class.to_u16()), vec![reason]),
            Fact::GivenUp { count, reason, .. } | Fact::RefusedThere { count, reason, .. } => {
                (*count, vec![reason])
            }
            Fact::FailedHere { topic, reason, .. } => (0, vec![topic, reason]),
            Fact::CopySeen { text, .. }
            | Fact::RolledBack { text, .. }
            | Fact::PeerRolledBack { text, .. } => (0, vec![text]),
            // The sign travels in the number's highest bit.
            Fact::ClockJumped { ms } => (ms.cast_unsigned(), vec![]),
            Fact::FactsLost { count }
            | Fact::Quarantined { count }
            | Fact::StrangersFlood { count } => (*count, vec![]),
            Fact::LostCommits { count, text } => (*count, vec![text]),
            Fact::GrantsChanged { text, .. }
            | Fact::Forgotten { text, .. }
            | Fact::InviteRevoked { text }
            | Fact::RequestWaiting { text }
            | Fact::RequestDecided { text }
            | Fact::StorageFull { text }
            | Fact::NewIdentity { text }
            | Fact::Renamed { text, .. }
            | Fact::IdentityInUse { text, .. }
            | Fact::AddressesChanged { text, .. } => (0, vec![text]),
            Fact::NodeStopping
            | Fact::Paired { .. }
            | Fact::StorePaused { .. }
            | Fact::StoreResumed { .. }
            | Fact::NetworkChanged
            | Fact::StorageBack => (0, vec![]),
            Fact::Unknown(parts) => return parts.clone(),
        };
        FactParts {
            kind: self.number(),
            peer: self.peer(),
            count,
            texts: texts.into_iter().map(|text| cut(text)).collect(),
        }
    }

    /// The fact that was written. What this version does not know stays as it is.
    #[must_use]
    pub fn from_parts(parts: FactParts) -> Self {
        let text = |index: usize| parts.texts.get(index).cloned().unwrap_or_default();
        let count = parts.count;
        let known = match (parts.kind, parts.peer) {
            (1, _) => u32::try_from(count)
                .ok()
                .map(|boot| Fact::NodeStarted { boot }),
            (2, _) => Some(Fact::NodeStopping),
            (3, _) => Some(Fact::ActorStarted {
                actor: text(0),
                incarnation: count,
            }),
            (4, _) => Some(Fact::ActorEnded {
                actor: text(0),
                incarnation: count,
                reason: text(1),
            }),
            (5, _) => Some(Fact::ActorGaveUp {
                actor: text(0),
                reason: text(1),
            }),
            (6, Some(peer)) => Some(Fact::Paired { peer }),
            (7, Some(peer)) => Some(Fact::SessionStarted {
                peer,
                link: text(0),
            }),
            (8, Some(peer)) => u16::try_from(count)
                .ok()
                .and_then(ErrorClass::from_u16)
                .map(|class| Fact::SessionEnded {
                    peer,
                    class,
                    reason: text(0),
                }),
            (9, Some(peer)) => Some(Fact::GivenUp {
                peer,
                count,
                reason: text(0),
            }),
            (10, Some(peer)) => Some(Fact::RefusedThere {
                peer,
                count,
                reason: text(0),
            }),
            (11, Some(peer)) => Some(Fact::FailedHere {
                peer,
                topic: text(0),
                reason: text(1),
            }),
            (12, Some(peer)) => Some(Fact::CopySeen {
                peer,
                text: text(0),
            }),
            (13, Some(peer)) => Some(Fact::RolledBack {
                peer,
                text: text(0),
            }),
            (14, Some(peer)) => Some(Fact::PeerRolledBack {
                peer,
                text: text(0),
            }),
            (15, peer) => Some(Fact::StorePaused { peer }),
            (16, peer) => Some(Fact::StoreResumed { peer }),
            (17, _) => Some(Fact::NetworkChanged),
            (18, _) => Some(Fact::ClockJumped {
                ms: count.cast_signed(),
            }),
            (19, _) => Some(Fact::FactsLost { count }),
            (20, _) => Some(Fact::Quarantined { count }),
            (21, Some(peer)) => Some(Fact::GrantsChanged {
                peer,
                text: text(0),
            }),
            (22, Some(peer)) => Some(Fact::Forgotten {
                peer,
                text: text(0),
            }),
            (23, _) => Some(Fact::InviteRevoked { text: text(0) }),
            (24, _) => Some(Fact::RequestWaiting { text: text(0) }),
            (25, _) => Some(Fact::RequestDecided { text: text(0) }),
            (26, _) => Some(Fact::StorageFull { text: text(0) }),
            (27, _) => Some(Fact::StorageBack),
            (28, _) => Some(Fact::LostCommits {
                count,
                text: text(0),
            }),
            (29, _) => Some(Fact::NewIdentity { text: text(0) }),
            (30, Some(peer)) => Some(Fact::Renamed {
                peer,
                text: text(0),
            }),
            (31, _) => Some(Fact::StrangersFlood { count }),
            (32, Some(peer)) => Some(Fact::IdentityInUse {
                peer,
                text: text(0),
            }),
            (33, Some(peer)) => Some(Fact::AddressesChanged {
                peer,
                text: text(0),
            }),
            _ => None,
        };
        known.unwrap_or(Fact::Unknown(parts))
    }
}

fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// At most [`FACT_TEXT_BYTES_MAX`] bytes of a text, without splitting a character.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(FACT_TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_comes_back_from_its_parts_and_has_a_kind_of_its_own() {
        let peer = PeerNumber(7);
        let text = || "why".to_owned();
        let facts = [
            Fact::NodeStarted { boot: 3 },
            Fact::NodeStopping,
            Fact::ActorStarted {
                actor: text(),
                incarnation: 2,
            },
            Fact::ActorEnded {
                actor: "store".to_owned(),
                incarnation: 2,
                reason: text(),
            },
            Fact::ActorGaveUp {
                actor: "store".to_owned(),
                reason: text(),
            },
            Fact::Paired { peer },
            Fact::SessionStarted { peer, link: text() },
            Fact::SessionEnded {
                peer,
                class: ErrorClass::Busy,
                reason: text(),
            },
            Fact::GivenUp {
                peer,
                count: 5,
                reason: text(),
            },
            Fact::RefusedThere {
                peer,
                count: 5,
                reason: text(),
            },
            Fact::FailedHere {
                peer,
                topic: "a.b".to_owned(),
                reason: text(),
            },
            Fact::CopySeen { peer, text: text() },
            Fact::RolledBack { peer, text: text() },
            Fact::PeerRolledBack { peer, text: text() },
            Fact::StorePaused { peer: Some(peer) },
            Fact::StoreResumed { peer: None },
            Fact::NetworkChanged,
            Fact::ClockJumped { ms: -6_000 },
            Fact::FactsLost { count: 9 },
            Fact::Quarantined { count: 1 },
            Fact::GrantsChanged { peer, text: text() },
            Fact::Forgotten { peer, text: text() },
            Fact::InviteRevoked { text: text() },
            Fact::RequestWaiting { text: text() },
            Fact::RequestDecided { text: text() },
            Fact::StorageFull { text: text() },
            Fact::StorageBack,
            Fact::LostCommits {
                count: 3,
                text: text(),
            },
            Fact::NewIdentity { text: text() },
            Fact::Renamed { peer, text: text() },
            Fact::StrangersFlood { count: 3 },
            Fact::IdentityInUse { peer, text: text() },
            Fact::AddressesChanged { peer, text: text() },
        ];
        assert_eq!(facts.len(), KINDS.len(), "each kind has its example here");
        for (fact, (number, word)) in facts.iter().zip(KINDS) {
            assert_eq!((fact.to_parts().kind, fact.kind()), (number, word));
            assert_eq!(Fact::from_parts(fact.to_parts()), *fact);
            assert!(!fact.text().is_empty(), "{word}");
        }
    }

    #[test]
    fn a_fact_of_a_newer_version_is_kept_as_it_is_and_long_texts_are_cut_between_characters() {
        let parts = FactParts {
            kind: 60_000,
            peer: None,
            count: 1,
            texts: vec!["x".to_owned()],
        };
        let unknown = Fact::from_parts(parts.clone());
        assert_eq!((unknown.kind(), unknown.to_parts()), ("unknown", parts));
        let fact = Fact::ActorGaveUp {
            actor: "é".repeat(FACT_TEXT_BYTES_MAX),
            reason: format!("a{}", "é".repeat(FACT_TEXT_BYTES_MAX)),
        };
        let lengths: Vec<_> = fact.to_parts().texts.iter().map(String::len).collect();
        assert_eq!(lengths, [FACT_TEXT_BYTES_MAX, FACT_TEXT_BYTES_MAX - 1]);
    }
}
