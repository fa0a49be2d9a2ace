//! Keys by which a repeated send is known.
//!
//! The scope of a key is the peer. A key is remembered for 30 days, at most a million of them are,
//! and never for shorter than its message waits. The key itself is not stored: only a keyed hash.
//!
//! ```text
//! Idempotency       key  9 ‖ hash 16               value layout u8 = 1 ‖ receipt 25 ‖ content hash 16 ‖ at ms u64
//! IdempotencyOrder  key 10 ‖ number u64            value layout u8 = 1 ‖ hash 16 ‖ at ms u64
//! Meta 6            key  3 ‖ 6                     value layout u8 = 1 ‖ oldest number u64 ‖ next number u64
//! ```

use packhorse_protocol::message::Message;

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Meta};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::receipt::ReceiptId;
use crate::store::view::{Source, View};

use super::peers::PeerNumber;
use super::{lines, read};

/// How long a key is remembered.
const KEPT_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// How many keys are remembered: 1,000,000 × about 200 bytes with their order = 200 MB of disk.
const KEPT_COUNT: u64 = 1_000_000;

/// What a key was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) receipt: ReceiptId,
    pub(crate) content: [u8; 16],
    pub(crate) at_ms: u64,
}

impl Use {
    pub(super) fn encode(&self) -> Vec<u8> {
        Pen::new(1, 49)
            .raw(&self.receipt.to_bytes())
            .raw(&self.content)
            .u64(self.at_ms)
            .done()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(1, bytes)?;
        let receipt = ReceiptId::from_bytes(&cursor.array()?).ok_or(Malformed)?;
        let used = Self {
            receipt,
            content: cursor.array()?,
            at_ms: cursor.u64()?,
        };
        cursor.end()?;
        Ok(used)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Order {
    oldest: u64,
    next: u64,
}

/// The oldest and the next number of the order.
pub(super) fn order_range(source: &impl Source) -> Result<(u64, u64), ReadFault> {
    let order = order(source)?;
    Ok((order.oldest, order.next))
}

/// One entry of the order.
pub(super) fn encode_entry(hash: &[u8; 16], at_ms: u64) -> Vec<u8> {
    Pen::new(1, 24).raw(hash).u64(at_ms).done()
}

pub(super) fn decode_entry(bytes: &[u8]) -> Result<([u8; 16], u64), Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    Ok((cursor.array::<16>()?, cursor.u64()?))
}

fn order(source: &impl Source) -> Result<Order, ReadFault> {
    let read = read(source, &Key::meta(Meta::Idempotency), |bytes| {
        let mut cursor = Cursor::new(1, bytes)?;
        let order = Order {
            oldest: cursor.u64()?,
            next: cursor.u64()?,
        };
        cursor.end()?;
        Ok(order)
    })?;
    Ok(read.unwrap_or_default())
}

/// The hash under which a key is looked up.
pub(crate) fn hash(source: &impl Source, peer: PeerNumber, key: &str) -> [u8; 16] {
    source
        .vault()
        .index_hash(b"idempotency", &[&peer.0.to_be_bytes(), key.as_bytes()])
}

/// What has to be equal for two messages to be the same one. Not when they were born.
pub(crate) fn content(source: &impl Source, message: &Message) -> [u8; 16] {
    let unborn = Message {
        born_ms: 0,
        payload: Vec::new(),
        ..message.clone()
    };
    let head = Pen::new(1, 64).message(&unborn).done();
    source
        .vault()
        .index_hash(b"content", &[&head, &message.payload])
}

/// What the key with this hash was used for.
pub(crate) fn find(source: &impl Source, hash: [u8; 16]) -> Result<Option<Use>, Refused> {
    Ok(read(source, &Key::idempotency(hash), Use::decode)?)
}

/// Notes other content for a key that is remembered.
pub(crate) fn rewrite(view: &mut View, hash: [u8; 16], used: &Use) {
    view.put(Key::idempotency(hash), used.encode());
}

/// Remembers keys, and forgets as many old ones as are due.
pub(crate) fn remember(view: &mut View, uses: &[([u8; 16], Use)]) -> Result<(), Refused> {
    if uses.is_empty() {
        return Ok(());
    }
    let mut order = order(view)?;
    for (hash, used) in uses {
        view.put(Key::idempotency(*hash), used.encode());
        let entry = encode_entry(hash, used.at_ms);
        view.put(Key::idempotency_order(order.next), entry);
        order.next += 1;
    }
    // Two for each new one, so that a backlog shrinks and no job has to clear all of it.
    for _ in 0..uses.len() * 2 {
        if !forget_oldest(view, &mut order)? {
            break;
        }
    }
    view.put(
        Key::meta(Meta::Idempotency),
        Pen::new(1, 16).u64(order.oldest).u64(order.next).done(),
    );
    Ok(())
}

fn forget_oldest(view: &mut View, order: &mut Order) -> Result<bool, Refused> {
    if order.oldest == order.next {
        return Ok(false);
    }
    let key = Key::idempotency_order(order.oldest);
    let entry = read(view, &key, decode_entry)?;
    if let Some((hash, at_ms)) = entry {
        let is_old = view.now_ms().saturating_sub(at_ms) > KEPT_MS;
        if !is_old && order.next - order.oldest <= KEPT_COUNT {
            return Ok(false);
        }
        if let Some(used) = find(view, hash)?
            && waits(view, &used.receipt)?
        {
            return Ok(false);
        }
        view.delete(Key::idempotency(hash));
        view.delete(key);
    }
    order.oldest += 1;
    Ok(true)
}

fn waits(view: &View, id: &ReceiptId) -> Result<bool, Refused> {
    let line = lines::line(view, id.peer, id.lane, id.position.epoch.boot)?;
    Ok(line.is_some_and(|line| id.position.sequence >= line.first))
}
