//! Leaving an identity: what only the recipients could have told is decided here.
//!
//! A recipient knows a node of another identity as another peer, with no marks. Its first answer
//! would say of everything that was offered, and of every letter whose end is open, that it never
//! arrived. So before another identity is taken all of that becomes letters that may have been
//! delivered, for good. Reports of the system lane are nobody's, and stay.

use packhorse_protocol::epoch::{Epoch, Lane, Position};

use crate::store::error::{ReadFault, Refused};
use crate::store::keys::Key;
use crate::store::receipt::ReceiptId;
use crate::store::view::{Source, View};

use super::dead::{self, Dead, NEW_IDENTITY, OWN_FROM};
use super::lines;
use super::outbox::decode_row;
use super::peers::PeerNumber;
use super::settling::{find_oldest, own_line};
use super::unsettled::{self, Doubt};
use super::{held, read};

/// Messages that one job looks at.
const ROWS_MAX: usize = 1_024;
/// Bytes of messages that one job moves, which the last of them may exceed.
const BYTES_MAX: u64 = 4 << 20;

/// The lines in which something was offered or an end is open.
pub(crate) fn unanswered(source: &impl Source) -> Result<Vec<(PeerNumber, Epoch)>, ReadFault> {
    let is_meant = |lane: Lane, line: &lines::Line| {
        lane == Lane::User && (line.unsettled > 0 || line.first <= line.offered)
    };
    let all = lines::all(source)?.into_iter();
    Ok(all
        .filter(|(_, lane, _, line)| is_meant(*lane, line))
        .map(|(peer, _, boot, line)| {
            let nonce = line.nonce;
            (peer, Epoch { boot, nonce })
        })
        .collect())
}

/// Ends a page of the open letters of a line. Returns how many, and where to go on.
pub(crate) fn end_letters(
    view: &mut View,
    peer: PeerNumber,
    epoch: Epoch,
    from: u64,
) -> Result<(u64, Option<u64>), Refused> {
    let (lane, boot) = (Lane::User, epoch.boot);
    let Some(mut line) = own_line(view, peer, lane, epoch)? else {
        return Ok((0, None));
    };
    let listed = match unsettled::among(view, peer, lane, boot, from..=u64::MAX, ROWS_MAX) {
        Ok(listed) => listed,
        // What cannot be read is left to the session that may come all the same.
        Err(fault) if fault.is_damage() => return Ok((0, None)),
        Err(fault) => return Err(fault.into()),
    };
    let mut next = (listed.len() == ROWS_MAX)
        .then(|| listed.last().map(|(sequence, _)| sequence + 1))
        .flatten();
    let (mut count, mut bytes) = (0, 0);
    for (sequence, doubt) in listed {
        if bytes >= BYTES_MAX {
            next = Some(sequence);
            break;
        }
        if doubt != Doubt::Offered {
            continue;
        }
        let letter = Key::dead(peer, lane, boot, sequence);
        let dead = match read(view, &letter, Dead::decode) {
            Ok(dead) => dead,
            Err(fault) if fault.is_damage() => None,
            Err(fault) => return Err(fault.into()),
        };
        let is_ours = |dead: &Dead| dead.code.0 >= OWN_FROM && !dead.is_stub();
        if let Some(dead) = dead.filter(is_ours) {
            bytes += dead.message.as_ref().map_or(0, held::weight);
            let code = NEW_IDENTITY;
            view.put(letter, Dead { code, ..dead }.encode());
            count += 1;
        }
        dead::close(view, &at(peer, epoch, sequence), &mut line);
    }
    lines::put(view, peer, lane, boot, &line, 0, 0)?;
    Ok((count, next))
}

/// Makes a page of the offered rows of a line letters. Returns how many, and where to go on.
pub(crate) fn bury_offered(
    view: &mut View,
    peer: PeerNumber,
    epoch: Epoch,
    from: u64,
) -> Result<(u64, Option<u64>), Refused> {
    let (lane, boot) = (Lane::User, epoch.boot);
    let Some(mut line) = own_line(view, peer, lane, epoch)? else {
        return Ok((0, None));
    };
    let from = from.max(line.first);
    let last = line.offered.min(line.next - 1);
    let (mut count, mut bytes, mut next) = (0, 0, None);
    for (looked_at, sequence) in (from..=last).enumerate() {
        if looked_at == ROWS_MAX || bytes >= BYTES_MAX {
            next = Some(sequence);
            break;
        }
        let key = Key::outbox(peer, lane, boot, sequence);
        let message = match read(view, &key, decode_row) {
            Ok(Some(row)) => row.message,
            Ok(None) => continue,
            // The next load buries it.
            Err(fault) if fault.is_damage() => continue,
            Err(fault) => return Err(fault.into()),
        };
        bytes += held::weight(&message);
        let code = NEW_IDENTITY;
        dead::give_up(view, peer, lane, boot, &mut line, sequence, code, message)?;
        dead::close(view, &at(peer, epoch, sequence), &mut line);
        count += 1;
    }
    if count > 0 {
        dead::facts_given_up(view, peer, (0..count).map(|_| NEW_IDENTITY));
        find_oldest(view, peer, lane, boot, &mut line)?;
        lines::put(view, peer, lane, boot, &line, 0, 0)?;
    }
    Ok((count, next))
}

fn at(peer: PeerNumber, epoch: Epoch, sequence: u64) -> ReceiptId {
    ReceiptId {
        peer,
        lane: Lane::User,
        position: Position { epoch, sequence },
    }
}
