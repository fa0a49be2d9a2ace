//! The bytes of every record, held fast.
//!
//! A record that changes here cannot be read by stores that exist: give it a new layout version,
//! keep the old one readable, and write the decision down.

use packhorse_protocol::epoch::{Epoch, Lane, Position, RefusalCode};
use packhorse_protocol::grant::Grants;
use packhorse_protocol::identity::IdentityKey;
use packhorse_protocol::message::{DeliveryClass, Message};
use packhorse_protocol::ticket::TicketKey;

use crate::store::keys::{Key, Meta};
use crate::store::receipt::ReceiptId;

use super::dead::Dead;
use super::head::{self, Head};
use super::idempotency::Use;
use super::invites::InviteRecord;
use super::lines::{Line, Past};
use super::peers::{PeerError, PeerNumber, PeerRecord};
use super::{inbox, outbox};

const PEER: PeerNumber = PeerNumber(0x0102_0304);
const EPOCH: Epoch = Epoch {
    boot: 0x0506_0708,
    nonce: 0x090a_0b0c_0d0e_0f10,
};

fn position() -> Position {
    Position {
        epoch: EPOCH,
        sequence: 0x11,
    }
}

fn message() -> Message {
    Message {
        class: DeliveryClass::Moderate,
        topic: "a.b".into(),
        born_ms: 0x12,
        headers: vec![("c".into(), "de".into())],
        payload: vec![0xff, 0xfe],
    }
}

fn grants() -> Grants {
    let texts = ["message.send:*", "message.send:!x"];
    let grants = texts.map(|text| text.parse().expect("these are grants"));
    Grants::new(grants).expect("two are not too many")
}

fn peer() -> PeerRecord {
    PeerRecord {
        number: PEER,
        id: IdentityKey::from_seed(&[1; 32]).id(),
        name: "anna".into(),
        addresses: vec!["quic://a:1".into()],
        grants: grants(),
        granted: Grants::none(),
        paired_ms: 0x13,
        last_seen_ms: Some(0x14),
        highest: Some(EPOCH),
        failures: 0x15,
        last_error: Some(PeerError {
            class: 1,
            text: "gone".into(),
            at_ms: 0x16,
        }),
    }
}

fn invite() -> InviteRecord {
    InviteRecord {
        ticket_id: [0x17; 16],
        key: TicketKey::from_bytes(&[0x18; 32]),
        grants: grants(),
        made_ms: 0x19,
        expires_ms: 0x1a,
        uses_left: 0x1b,
        users: vec![IdentityKey::from_seed(&[1; 32]).id()],
    }
}

fn line() -> Line {
    Line {
        nonce: EPOCH.nonce,
        next: 0x20,
        first: 0x1f,
        acknowledged: 0x1e,
        bytes_accepted: 0x1d,
        bytes_gone: 0x1c,
        oldest_born_ms: Some(0x12),
    }
}

fn dead() -> Dead {
    Dead {
        at_ms: 0x21,
        code: RefusalCode::NO_GRANT,
        message: Some(message()),
    }
}

fn used() -> Use {
    let receipt = ReceiptId {
        peer: PEER,
        lane: Lane::System,
        position: position(),
    };
    Use {
        receipt,
        content: [0x22; 16],
        at_ms: 0x23,
    }
}

fn past() -> Past {
    Past {
        nonce: EPOCH.nonce,
        last: 0x24,
        acknowledged: 0x25,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn records_and_keys_keep_their_bytes() {
    let user = Lane::User;
    let records = [
        (
            "head",
            Key::head(1),
            Head {
                format: 1,
                fingerprint: [0x26; 16],
            }
            .encode(),
        ),
        ("commit", Key::meta(Meta::Commit), head::encode_u64(0x27)),
        (
            "boot floor",
            Key::meta(Meta::BootFloor),
            head::encode_u32(0x28),
        ),
        ("peer", Key::peer(PEER), peer().encode()),
        ("invite", Key::invite([0x17; 16]), invite().encode()),
        ("line", Key::line(PEER, user, EPOCH.boot), line().encode()),
        ("past", Key::past(PEER, user, EPOCH.boot), past().encode()),
        ("idempotency", Key::idempotency([0x29; 16]), used().encode()),
        ("mark", Key::mark(PEER, user, EPOCH), head::encode_u64(0x2a)),
        ("refusal", Key::refusal(PEER, user, position()), vec![]),
        (
            "dead",
            Key::dead(PEER, user, EPOCH.boot, 0x11),
            dead().encode(),
        ),
        (
            "outbox",
            Key::outbox(PEER, user, EPOCH.boot, 0x11),
            outbox::encode_row(0x2b, &message()),
        ),
        (
            "inbox",
            Key::inbox(0x2c),
            inbox::encode_row(PEER, user, position(), &message()),
        ),
        ("inbox topic", Key::inbox_topic([0x2d; 16], 0x2c), vec![]),
    ];
    let mut text = String::new();
    for (name, key, value) in records {
        text.push_str(&format!("{name}\n  key   {key}\n  value {}\n", hex(&value)));
    }
    let golden = include_str!("../../../tests/golden/records.txt");
    assert!(
        text == golden,
        "the records have changed; they are now:\n{text}"
    );
}

#[test]
fn records_read_back_as_they_were_written() {
    let (peer, invite) = (peer(), invite());
    assert_eq!(PeerRecord::decode(PEER, &peer.encode()).as_ref(), Ok(&peer));
    let read = InviteRecord::decode(invite.ticket_id, &invite.encode());
    let read = read.expect("what was written reads");
    assert_eq!(
        (read.users, read.uses_left, read.expires_ms),
        (invite.users, 0x1b, 0x1a)
    );
    assert_eq!(Line::decode(&line().encode()), Ok(line()));
    assert_eq!(Past::decode(&past().encode()), Ok(past()));
    assert_eq!(Dead::decode(&dead().encode()), Ok(dead()));
    assert_eq!(Use::decode(&used().encode()), Ok(used()));
    let row = inbox::encode_row(PEER, Lane::System, position(), &message());
    let read = inbox::decode_row(7, &row).expect("what was written reads");
    assert_eq!(
        (read.arrival, read.peer, read.lane),
        (7, PEER, Lane::System)
    );
    assert_eq!((read.position, read.message), (position(), message()));
    assert_eq!(
        outbox::decode_row(&outbox::encode_row(9, &message())),
        Ok((9, message()))
    );
}

#[test]
fn no_shortened_or_lengthened_record_is_read() {
    type Reads = fn(&[u8]) -> bool;
    let records: [(Vec<u8>, Reads); 7] = [
        (peer().encode(), |bytes| {
            PeerRecord::decode(PEER, bytes).is_ok()
        }),
        (invite().encode(), |bytes| {
            InviteRecord::decode([0; 16], bytes).is_ok()
        }),
        (line().encode(), |bytes| Line::decode(bytes).is_ok()),
        (past().encode(), |bytes| Past::decode(bytes).is_ok()),
        (dead().encode(), |bytes| Dead::decode(bytes).is_ok()),
        (used().encode(), |bytes| Use::decode(bytes).is_ok()),
        (outbox::encode_row(1, &message()), |bytes| {
            outbox::decode_row(bytes).is_ok()
        }),
    ];
    for (number, (record, reads)) in records.into_iter().enumerate() {
        assert!(reads(&record), "record {number}");
        for length in 0..record.len() {
            assert!(!reads(&record[..length]), "record {number} cut to {length}");
        }
        let longer = [&record[..], &[0]].concat();
        assert!(!reads(&longer), "record {number} with a byte more");
    }
}
