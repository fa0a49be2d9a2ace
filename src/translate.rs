//! The tree's words in this crate's words: records, states and errors.
//!
//! Nothing is decided here; every function maps one value to one value.

use std::time::Duration;

use packhorse_actors::inbox::InboxError;
use packhorse_actors::session::{EphemeralError, JoinError};
use packhorse_actors::store::{self, PeerNumber, PeerRecord, Refused, StoreError};
use packhorse_protocol::grant::Grants;
use packhorse_protocol::message::Message;

use crate::dead::DeadState;
use crate::error::{ErrorKind, NodeError};
use crate::listing::{ListedMessage, Payload};
use crate::peer::{Keep, PeerInfo};
use crate::receipt::ReceiptState;
use crate::receipt_id;
use crate::status::PeerState;
use crate::time::WallTime;
use crate::{NodeId, ReceiptId};

pub(crate) fn peer_state(state: packhorse_actors::board::PeerState) -> PeerState {
    use packhorse_actors::board::PeerState as Board;
    match state {
        Board::Connected => PeerState::Connected,
        Board::Dialling => PeerState::Dialling,
        Board::Waiting => PeerState::Waiting,
        Board::Idle => PeerState::Idle,
        Board::Refused => PeerState::Refused,
        Board::NeverSeen => PeerState::NeverSeen,
    }
}

pub(crate) fn state(state: store::ReceiptState) -> ReceiptState {
    match state {
        store::ReceiptState::Accepted => ReceiptState::Accepted,
        store::ReceiptState::Stored => ReceiptState::Stored,
        store::ReceiptState::Done => ReceiptState::Done,
        store::ReceiptState::Failed => ReceiptState::Failed,
    }
}

pub(crate) fn public_id(recipient: NodeId, id: store::ReceiptId) -> ReceiptId {
    ReceiptId {
        recipient: receipt_id::tag(recipient),
        lane: id.lane,
        position: id.position,
    }
}

pub(crate) fn stored_id(peer: PeerNumber, id: &ReceiptId) -> store::ReceiptId {
    store::ReceiptId {
        peer,
        lane: id.lane,
        position: id.position,
    }
}

pub(crate) fn dead_state(state: store::DeadState) -> DeadState {
    match state {
        store::DeadState::NotDelivered => DeadState::NotDelivered,
        store::DeadState::MayBeDelivered => DeadState::MayBeDelivered,
        store::DeadState::Refused => DeadState::Refused,
    }
}

/// A letter's reason without what its state says anyway.
pub(crate) fn bare_reason(reason: String) -> String {
    match reason.strip_suffix("; it may have been delivered") {
        Some(bare) => bare.to_owned(),
        None => reason,
    }
}

pub(crate) fn no_receipt(id: &ReceiptId) -> NodeError {
    NodeError::new(
        ErrorKind::NotFound,
        format!("no receipt {id} is known here"),
    )
}

pub(crate) fn listed(
    id: ReceiptId,
    peer: Option<&PeerRecord>,
    state: ReceiptState,
    message: Message,
) -> ListedMessage {
    ListedMessage {
        id,
        peer: peer.map(|peer| peer.name.clone()).unwrap_or_default(),
        epoch: id.position.epoch,
        sequence: id.position.sequence,
        topic: message.topic,
        class: message.class,
        state,
        born: WallTime(message.born_ms),
        expires: None,
        failures: 0,
        headers: message.headers,
        payload: Payload(message.payload),
        reason: None,
    }
}

pub(crate) fn peer_info(record: PeerRecord, now_ms: u64) -> PeerInfo {
    let grants = record.grants.alive(now_ms);
    let ends = grants.held().filter_map(|held| {
        let until_ms = held.until_ms?;
        Some((held.grant.to_string(), WallTime(until_ms)))
    });
    PeerInfo {
        name: record.name,
        id: record.id,
        addresses: record.addresses,
        own_addresses: record.own_addresses,
        keep: record.keep.into(),
        ends: ends.collect(),
        grants: grants.iter().cloned().collect(),
        granted: record.granted.iter().cloned().collect(),
    }
}

impl From<store::Keep> for Keep {
    fn from(keep: store::Keep) -> Keep {
        match keep {
            store::Keep::Auto => Keep::Auto,
            store::Keep::Always => Keep::Always,
            store::Keep::Never => Keep::Never,
        }
    }
}

impl From<Keep> for store::Keep {
    fn from(keep: Keep) -> store::Keep {
        match keep {
            Keep::Auto => store::Keep::Auto,
            Keep::Always => store::Keep::Always,
            Keep::Never => store::Keep::Never,
        }
    }
}

pub(crate) fn grants(grants: Vec<crate::Grant>) -> Result<Grants, NodeError> {
    Grants::new(grants).map_err(|error| NodeError::new(ErrorKind::Usage, error.to_string()))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn from_store(error: StoreError) -> NodeError {
    let kind = match &error {
        StoreError::Refused(Refused::NoSuchPeer(_) | Refused::NoSuchRequest(_)) => {
            ErrorKind::NotFound
        }
        StoreError::Refused(
            Refused::Message(_)
            | Refused::KeyTooLong { .. }
            | Refused::Ephemeral
            | Refused::ExpiresPast { .. }
            | Refused::NameTaken(_)
            | Refused::Text(_)
            | Refused::Grants(_),
        ) => ErrorKind::Usage,
        StoreError::Refused(_) => ErrorKind::Refused,
        StoreError::Full { .. } => ErrorKind::Full,
        StoreError::Damaged { .. } | StoreError::Poisoned { .. } => ErrorKind::Damaged,
        _ => ErrorKind::Internal,
    };
    let text = match &error {
        // The store's own receipt id means nothing outside of it.
        StoreError::Refused(Refused::KeyConflict { .. }) => {
            "the key was used before for a message with other content".to_owned()
        }
        StoreError::Refused(Refused::ExpiresPast { expires_ms, now_ms }) => format!(
            "the message expires at {}, and it is {} already",
            WallTime(*expires_ms),
            WallTime(*now_ms)
        ),
        StoreError::Refused(Refused::TooLate { .. }) => {
            "too late to replace: the message with this key may have left already".to_owned()
        }
        _ => error.to_string(),
    };
    NodeError::new(kind, text).with_source(error)
}

pub(crate) fn from_ephemeral(error: EphemeralError, peer: &str) -> NodeError {
    match &error {
        EphemeralError::Message(fault) => NodeError::new(ErrorKind::Usage, fault.to_string()),
        EphemeralError::NoSession => NodeError::new(
            ErrorKind::Unsent,
            format!("no session with `{peer}` is alive, and an ephemeral message waits for none"),
        ),
        _ => NodeError::new(ErrorKind::Unsent, error.to_string()),
    }
    .with_source(error)
}

pub(crate) fn from_inbox(error: InboxError) -> NodeError {
    match error {
        InboxError::Store(error) => from_store(error),
        lost @ (InboxError::LeaseLost { .. } | InboxError::GivenUp { .. }) => {
            NodeError::new(ErrorKind::Refused, lost.to_string()).with_source(lost)
        }
        wrong @ InboxError::LeaseLength { .. } => {
            NodeError::new(ErrorKind::Usage, wrong.to_string()).with_source(wrong)
        }
        // Being restarted, or too much is lent out: both pass.
        other => NodeError::new(ErrorKind::Internal, other.to_string()).with_source(other),
    }
}

pub(crate) fn from_join(error: JoinError) -> NodeError {
    match error {
        JoinError::Store(error) => from_store(error),
        JoinError::Own => NodeError::new(ErrorKind::Usage, error.to_string()),
        JoinError::Dial(ref dial) if dial.is_refusal() => {
            NodeError::new(ErrorKind::Refused, error.to_string()).with_source(error)
        }
        // Nobody said no: joining again with the same ticket is safe.
        other => NodeError::new(ErrorKind::Timeout, other.to_string()).with_source(other),
    }
}
