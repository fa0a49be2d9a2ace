//! Where a message is that was accepted here, for whoever asks why it is not further.
//!
//! It only reads, and decides nothing. What a receipt says is not repeated here.

use packhorse_protocol::epoch::Position;

use crate::store::error::ReadFault;
use crate::store::keys::Key;
use crate::store::receipt::ReceiptId;
use crate::store::view::Source;

use super::dead::{Dead, DeadState};
use super::letters;
use super::lines;
use super::outbox::decode_row;
use super::outcomes::{self, Outcome};
use super::read;

/// Where a message is that was accepted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentPlace {
    /// In the outbox.
    Waiting {
        /// Messages of its lane that go before it; never fewer than there are.
        ahead: u64,
        /// When it is given up if it still waits, in wall milliseconds.
        expires_ms: Option<u64>,
    },
    /// Among the dead letters.
    Dead {
        /// What is known of its end.
        state: DeadState,
        /// The next session with the recipient tells.
        is_open: bool,
    },
    /// Accepted anew under this name.
    Retried(ReceiptId),
    /// Not here: its receipt tells.
    Gone,
}

pub(crate) fn of(source: &impl Source, id: &ReceiptId) -> Result<SentPlace, ReadFault> {
    if lines::is_foreign(source, id)? {
        return Ok(SentPlace::Gone);
    }
    if let Some(Outcome::RetriedAs(next)) = outcomes::find(source, id)? {
        return Ok(SentPlace::Retried(next));
    }
    let Position { epoch, sequence } = id.position;
    let letter = Key::dead(id.peer, id.lane, epoch.boot, sequence);
    let letter = read(source, &letter, Dead::decode)?.filter(|dead| !dead.is_stub());
    if let Some(dead) = letter {
        let letter = letters::letter(source, *id, dead)?;
        let (state, is_open) = (letter.state, letter.is_open);
        return Ok(SentPlace::Dead { state, is_open });
    }
    let row = Key::outbox(id.peer, id.lane, epoch.boot, sequence);
    let Some(row) = read(source, &row, decode_row)? else {
        return Ok(SentPlace::Gone);
    };
    let mut ahead = 0;
    for (boot, line) in lines::of_lane(source, id.peer, id.lane)? {
        if boot < epoch.boot {
            ahead += line.waiting();
        } else if boot == epoch.boot {
            // Holes may lie before it or behind it; all that wait but itself is the most.
            let before = sequence.saturating_sub(line.first);
            ahead += before.min(line.waiting().saturating_sub(1));
        }
    }
    Ok(SentPlace::Waiting {
        ahead,
        expires_ms: row.expires_ms,
    })
}
