//! Forgetting a peer: what is cut at once, and what is put aside piece by piece.
//!
//! One job makes the peer none, denies its identity and takes its tickets back; from then on nothing
//! of it comes in and nothing for it is accepted. What waits for it and what it sent become dead
//! letters in jobs of bounded size, each of which leaves the store right. A note of whom this is not
//! over for survives a crash, so it is taken up again.
//! Numbers and marks stay: a node that is allowed again must not send what was stored once.
//!
//! ```text
//! Meta  key  3 ‖ 13     value layout u8 = 1 ‖ count u32 × peer u32
//! ```

use packhorse_protocol::epoch::{Epoch, Lane};
use packhorse_protocol::node_id::NodeId;

use crate::events::Fact;
use crate::store::error::{ReadFault, Refused};
use crate::store::keys::{Key, Meta};
use crate::store::layout::{Cursor, Malformed, Pen};
use crate::store::view::{Source, View};

use super::peers::{self, PeerNumber, PeerRecord};
use super::{deny, inbox_settle, invites, lines, read, sweep};

/// What forgetting a peer did at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// The peer as it was.
    pub peer: PeerRecord,
    /// Tickets that were taken back and could still have paired somebody.
    pub tickets: usize,
}

/// What is put aside of a peer that was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutAside {
    /// Messages that waited for it, now dead letters.
    pub outgoing: u64,
    /// Messages of it that nobody had handled, now dead letters.
    pub incoming: u64,
}

pub(super) fn encode(peers: &[PeerNumber]) -> Vec<u8> {
    let mut pen = Pen::new(1, 4 + peers.len() * 4);
    pen.u32(u32::try_from(peers.len()).expect("peers are numbered by 32 bits"));
    for peer in peers {
        pen.u32(peer.0);
    }
    pen.done()
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<PeerNumber>, Malformed> {
    let mut cursor = Cursor::new(1, bytes)?;
    let peers = (0..cursor.u32()?)
        .map(|_| cursor.u32().map(PeerNumber))
        .collect::<Result<_, _>>()?;
    cursor.end()?;
    Ok(peers)
}

/// Peers that were forgotten and of which something is left to be put aside.
pub(crate) fn under_way(source: &impl Source) -> Result<Vec<PeerNumber>, ReadFault> {
    Ok(read(source, &Key::meta(Meta::Forgetting), decode)?.unwrap_or_default())
}

fn put_under_way(view: &mut View, peers: &[PeerNumber]) {
    let key = Key::meta(Meta::Forgetting);
    if peers.is_empty() {
        view.delete(key);
    } else {
        view.put(key, encode(peers));
    }
}

/// Makes a peer none, denies its identity, and takes the tickets back that it came by.
///
/// CRASH: this is one commit; what follows is taken up again by the next start.
pub(crate) fn forget(view: &mut View, number: PeerNumber) -> Result<Forgotten, Refused> {
    let peer = peers::live(view, number)?.ok_or(Refused::NoSuchPeer(number))?;
    deny::add(view, peer.id, &peer.name)?;
    let tickets = invites::revoke_of(view, &peer.id)?;
    peers::retire(view, &peer);
    let mut under_way = under_way(view)?;
    under_way.push(number);
    put_under_way(view, &under_way);
    view.fact(Fact::Forgotten {
        peer: number,
        text: peer.id.short(),
    });
    Ok(Forgotten { peer, tickets })
}

/// Lines in which something waits for a peer, or may.
pub(crate) fn lines_of(
    source: &impl Source,
    peer: PeerNumber,
) -> Result<Vec<(Lane, Epoch)>, ReadFault> {
    let mut found = Vec::new();
    for lane in Lane::ALL {
        for (boot, line) in lines::of_lane(source, peer, lane)? {
            if line.first < line.next {
                let nonce = line.nonce;
                found.push((lane, Epoch { boot, nonce }));
            }
        }
    }
    Ok(found)
}

/// Puts one page of what waits for a peer aside. Returns how many messages, and whether the line is
/// empty.
pub(crate) fn outgoing_page(
    view: &mut View,
    peer: PeerNumber,
    lane: Lane,
    epoch: Epoch,
) -> Result<(u64, bool), Refused> {
    check(view, peer)?;
    sweep::revoke_page(view, peer, lane, epoch)
}

/// Puts one page of the messages of a peer aside that nobody has handled. Returns which, and where to
/// go on.
pub(crate) fn incoming_page(
    view: &mut View,
    peer: PeerNumber,
    from: u64,
) -> Result<(Vec<u64>, Option<u64>), Refused> {
    check(view, peer)?;
    inbox_settle::bury_revoked(view, peer, from)
}

/// Nothing is put aside of a peer that is one.
fn check(view: &View, peer: PeerNumber) -> Result<(), Refused> {
    match peers::peer(view, peer)? {
        Some(record) if !record.is_peer() => Ok(()),
        _ => Err(Refused::NoSuchPeer(peer)),
    }
}

/// Nothing of a peer is left.
pub(crate) fn over(view: &mut View, peer: PeerNumber) -> Result<(), Refused> {
    let mut under_way = under_way(view)?;
    under_way.retain(|other| *other != peer);
    put_under_way(view, &under_way);
    Ok(())
}

/// Lets an identity pair again; `false` when it was not denied.
pub(crate) fn allow(view: &mut View, id: &NodeId) -> Result<bool, Refused> {
    let record = peers::record_of(view, id)?;
    if let Some(record) = record
        && under_way(view)?.contains(&record.number)
    {
        // What it sends from now on must not be taken for what was to be put aside.
        return Err(Refused::StillForgetting(*id));
    }
    deny::lift(view, id)
}
