//! Values that unit tests of this crate share.

use packhorse_protocol::epoch::{Epoch, Lane, Position};

use crate::{IdentityKey, NodeId, ReceiptId};

/// Always the same node.
pub(crate) fn node_id() -> NodeId {
    IdentityKey::from_seed(&[7; 32]).id()
}

/// Always the same message.
pub(crate) fn receipt_id() -> ReceiptId {
    let position = Position {
        epoch: Epoch { boot: 1, nonce: 2 },
        sequence: 3,
    };
    ReceiptId {
        recipient: crate::receipt_id::tag(node_id()),
        lane: Lane::User,
        position,
    }
}
