//! The bytes of every record, held fast.
//!
//! A record that changes here cannot be read by stores that exist: give it a new layout version,
//! keep the old one readable, and write the decision down.

use packhorse_protocol::epoch::{Epoch, Lane, Position, RefusalCode};
use packhorse_protocol::grant::Grants;
use packhorse_protocol::handshake::Introduction;
use packhorse_protocol::identity::IdentityKey;
use packhorse_protocol::message::{DeliveryClass, Message};
use packhorse_protocol::ticket::TicketKey;

use crate::events::{Event, Fact};
use crate::store::keys::{Key, Meta};
use crate::store::receipt::ReceiptId;

use super::asking::{AskingRecord, AskingState};
use super::dead::Dead;
use super::dead_in::DeadInLetter;
use super::deny::Denied;
use super::events::Ring;
use super::head::{self, Head};
use super::held::{self, Held};
use super::idempotency::Use;
use super::invites::InviteRecord;
use super::lines::{Line, Past};
use super::outbox::Stored;
use super::outcomes::{Entry, Kept, Outcome};
use super::peers::{Keep, Noted, PeerError, PeerNumber, PeerRecord};
use super::requests::{RequestRecord, RequestState};
use super::tries::Tries;
use super::{events, forgetting, inbox, outbox, unsettled};

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
    let id = IdentityKey::from_seed(&[1; 32]).id();
    let mut grants = grants();
    let some: Vec<_> = grants.iter().take(1).cloned().collect();
    for grant in some {
        grants.insert_until(grant, Some(0x17)).expect("it is there");
    }
    PeerRecord {
        addresses: vec!["quic://a:1".into()],
        grants,
        last_seen_ms: Some(0x14),
        highest: Some(EPOCH),
        failures: 0x15,
        last_error: Some(PeerError {
            class: 1,
            text: "gone".into(),
            at_ms: 0x16,
        }),
        own_addresses: vec!["quic://b:2".into()],
        keep: Keep::Always,
        tickets: vec![[0x18; 16]],
        seen_from: Some(Noted {
            text: "10.0.0.1".into(),
            at_ms: 0x19,
        }),
        trouble: Some(Noted {
            text: "copy".into(),
            at_ms: 0x1a,
        }),
        forgotten_ms: Some(0x1b),
        ..PeerRecord::new(PEER, id, "anna", 0x13)
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
        grants_for_ms: Some(0x36),
        revoked_ms: Some(0x37),
        compares: vec!["a-b".into()],
    }
}

fn denied() -> Denied {
    Denied {
        id: IdentityKey::from_seed(&[1; 32]).id(),
        at_ms: 0x38,
        name: "anna".into(),
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
        offered: 0x400,
        edits: 0x2e,
        limited_first: 0x1f,
        due_ms: Some(0x2f),
        holes: 0,
        unsettled: 0x30,
    }
}

/// A line and a row as the first version wrote them.
const LINE_1: &str = "01090a0b0c0d0e0f100000000000000020000000000000001f000000000000001e000000000000001d000000000000001c010000000000000012";
/// A ticket as the first layout wrote it.
const INVITE_1: &str = "011818181818181818181818181818181818181818181818181818181818181818000000020000000e6d6573736167652e73656e643a2a0000000f6d6573736167652e73656e643a21780000000000000019000000000000001a0000001b000000018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
/// What was tried with a message, as the first layout wrote it.
const TRY_1: &str = "01000000320000003300000035000000000000003400000003776879";
const ROW_1: &str =
    "01000000000000002b02000000000000001200000003612e6200000001000000016300000002646500000002fffe";

fn stored() -> Stored {
    Stored {
        bytes_before: 0x2b,
        failures_born: 0x31,
        expires_ms: Some(0x32),
        message: message(),
    }
}

fn encode_row(row: &Stored) -> Vec<u8> {
    outbox::encode_row(
        row.bytes_before,
        row.failures_born,
        row.expires_ms,
        &row.message,
    )
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

fn fact() -> Fact {
    Fact::GivenUp {
        peer: PEER,
        count: 0x30,
        reason: "old".into(),
    }
}

fn ring() -> Ring {
    Ring {
        first: 0x31,
        next: 0x32,
    }
}

fn receipt() -> ReceiptId {
    ReceiptId {
        peer: PEER,
        lane: Lane::User,
        position: position(),
    }
}

fn letter() -> DeadInLetter {
    DeadInLetter {
        peer: PEER,
        lane: Lane::User,
        position: position(),
        at_ms: 0x2e,
        reason: "why".into(),
        message: message(),
    }
}

fn outcomes() -> [Kept; 3] {
    let (at_ms, output) = (0x2f, vec![0x30]);
    let done = Outcome::Done {
        output: output.clone(),
        at_ms,
    };
    let failed = Outcome::Failed {
        reason: "why".into(),
        output,
        at_ms,
    };
    [done, failed, Outcome::RetriedAs(receipt())].map(|outcome| Kept {
        nonce: EPOCH.nonce,
        order: 0x31,
        outcome,
    })
}

fn entry() -> Entry {
    Entry {
        id: receipt(),
        at_ms: 0x2f,
    }
}

fn tries() -> Tries {
    Tries {
        attempts: 0x32,
        failures: 0x33,
        unended: 0x35,
        said_ms: 0x3d,
        not_before_ms: 0x34,
        reason: "why".into(),
    }
}

fn request() -> RequestRecord {
    RequestRecord {
        introduction: Introduction {
            id: IdentityKey::from_seed(&[1; 32]).id(),
            name: "anna".into(),
            addresses: vec!["quic://a:1".into()],
            epoch: EPOCH,
        },
        text: "hay".into(),
        from: [192, 0, 2, 1].into(),
        asked_ms: 0x38,
        last_ms: 0x39,
        state: RequestState::Rejected,
        decided_ms: Some(0x3a),
    }
}

fn asking() -> AskingRecord {
    AskingRecord {
        text: "hay".into(),
        name: "anna".into(),
        grants: peer().grants,
        begun_ms: 0x3b,
        tries: 0x3c,
        next_ms: 0x3d,
        state: AskingState::Waits,
        answer: "asked".into(),
        answer_ms: 0x3e,
        ..AskingRecord::new(
            IdentityKey::from_seed(&[1; 32]).id(),
            vec!["quic://b:2".into()],
        )
    }
}

fn held_bytes() -> Held {
    Held {
        outbox: 0x36,
        inbox: 0x37,
        dead: 0x38,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn records_and_keys_keep_their_bytes() {
    let user = Lane::User;
    let [done, failed, again] = outcomes();
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
        ("request", Key::request([0x36; 16]), request().encode()),
        ("asking", Key::asking([0x37; 16]), asking().encode()),
        (
            "dead",
            Key::dead(PEER, user, EPOCH.boot, 0x11),
            dead().encode(),
        ),
        (
            "outbox",
            Key::outbox(PEER, user, EPOCH.boot, 0x11),
            encode_row(&stored()),
        ),
        (
            "unsettled",
            Key::unsettled(PEER, user, EPOCH.boot, 0x11),
            unsettled::Doubt::Offered.encode(),
        ),
        (
            "inbox",
            Key::inbox(0x2c),
            inbox::encode_row(PEER, user, position(), &message()),
        ),
        ("inbox topic", Key::inbox_topic([0x2d; 16], 0x2c), vec![]),
        ("event", Key::event(0x2e), events::encode(0x2f, &fact())),
        ("event ring", Key::meta(Meta::Events), ring().encode()),
        (
            "dead in",
            Key::dead_in(PEER, user, position()),
            letter().encode(),
        ),
        (
            "outcome done",
            Key::outcome(PEER, user, EPOCH.boot, 0x11),
            done.encode(),
        ),
        (
            "outcome failed",
            Key::outcome(PEER, user, EPOCH.boot, 0x11),
            failed.encode(),
        ),
        (
            "outcome sent again",
            Key::outcome(PEER, user, EPOCH.boot, 0x11),
            again.encode(),
        ),
        ("outcome order", Key::outcome_order(0x31), entry().encode()),
        (
            "done range",
            Key::done_range(PEER, user, EPOCH.boot, 0x11),
            head::encode_u64(0x10),
        ),
        ("try", Key::tries(0x2c), tries().encode()),
        ("held", Key::meta(Meta::Held), held_bytes().encode()),
        (
            "inbox share",
            Key::inbox_share(PEER),
            held::encode_share(0x39),
        ),
        ("deny", Key::deny([0x39; 16]), denied().encode()),
        (
            "forgetting",
            Key::meta(Meta::Forgetting),
            forgetting::encode(&[PEER]),
        ),
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

/// A peer as the first layout wrote it: everything up to the last error.
#[test]
fn a_peer_of_the_first_layout_reads() {
    let mut bytes = peer().encode();
    let tail = bytes.len() - 100;
    bytes.truncate(tail);
    bytes[0] = 1;
    let read = PeerRecord::decode(PEER, &bytes).expect("the first layout");
    let grants = Grants::new(peer().grants.iter().cloned()).expect("two are not too many");
    assert_eq!(read.grants, grants);
    assert_eq!(read.last_error, peer().last_error);
    assert_eq!((read.keep, read.forgotten_ms), (Keep::Auto, None));
}

#[test]
fn a_ticket_of_the_first_layout_reads() {
    let read = InviteRecord::decode([0x17; 16], &bytes(INVITE_1)).expect("the first layout");
    assert_eq!((read.uses_left, read.users.len()), (0x1b, 1));
    assert_eq!((read.grants_for_ms, read.revoked_ms), (None, None));
}

#[test]
fn a_try_of_the_first_layout_reads() {
    let read = Tries::decode(&bytes(TRY_1)).expect("the first layout is read");
    let expected = Tries {
        said_ms: 0,
        ..tries()
    };
    assert_eq!(read, expected);
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
    assert_eq!(
        (read.grants_for_ms, read.revoked_ms, read.compares),
        (Some(0x36), Some(0x37), invite.compares)
    );
    assert_eq!(Denied::decode(&denied().encode()), Ok(denied()));
    let peers = forgetting::decode(&forgetting::encode(&[PEER]));
    assert_eq!(peers, Ok(vec![PEER]));
    assert_eq!(RequestRecord::decode(&request().encode()), Ok(request()));
    assert_eq!(AskingRecord::decode(&asking().encode()), Ok(asking()));
    assert_eq!(Line::decode(&line().encode()), Ok(line()));
    assert_eq!(Past::decode(&past().encode()), Ok(past()));
    assert_eq!(Dead::decode(&dead().encode()), Ok(dead()));
    assert_eq!(Use::decode(&used().encode()), Ok(used()));
    assert_eq!(Ring::decode(&ring().encode()), Ok(ring()));
    let event = Event {
        number: 5,
        at_ms: 6,
        fact: fact(),
    };
    assert_eq!(events::decode(5, &events::encode(6, &fact())), Ok(event));
    let key = Key::dead_in(PEER, Lane::User, position());
    let read = DeadInLetter::decode(&key, &letter().encode());
    assert_eq!(read, Ok(letter()));
    for kept in outcomes() {
        assert_eq!(Kept::decode(&kept.encode()).as_ref(), Ok(&kept));
    }
    assert_eq!(Entry::decode(&entry().encode()), Ok(entry()));
    assert_eq!(Tries::decode(&tries().encode()), Ok(tries()));
    let row = inbox::encode_row(PEER, Lane::System, position(), &message());
    let read = inbox::decode_row(7, &row).expect("what was written reads");
    assert_eq!(
        (read.arrival, read.peer, read.lane),
        (7, PEER, Lane::System)
    );
    assert_eq!((read.position, read.message), (position(), message()));
    assert_eq!(outbox::decode_row(&encode_row(&stored())), Ok(stored()));
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = data_encoding::HEXLOWER_PERMISSIVE;
    digits.decode(hex.as_bytes()).expect("this is hex")
}

#[test]
fn lines_and_rows_of_the_first_version_are_read() {
    // Nothing is certain of them: all were offered, and any may have a limit.
    let read = Line::decode(&bytes(LINE_1)).expect("the first layout is read");
    let expected = Line {
        offered: 0x1f,
        edits: 0,
        limited_first: 0x1f,
        due_ms: Some(0),
        holes: 0,
        unsettled: 0,
        ..line()
    };
    assert_eq!(read, expected);
    assert_eq!(read.due(), Some(0));
    let read = outbox::decode_row(&bytes(ROW_1)).expect("the first layout is read");
    let expected = Stored {
        failures_born: 0,
        expires_ms: None,
        ..stored()
    };
    assert_eq!(read, expected);
}

#[test]
fn no_shortened_or_lengthened_record_is_read() {
    type Reads = fn(&[u8]) -> bool;
    let [done, failed, again] = outcomes();
    let kept: Reads = |bytes| Kept::decode(bytes).is_ok();
    let records: [(Vec<u8>, Reads); 23] = [
        (bytes(LINE_1), |bytes| Line::decode(bytes).is_ok()),
        (bytes(ROW_1), |bytes| outbox::decode_row(bytes).is_ok()),
        (bytes(TRY_1), |bytes| Tries::decode(bytes).is_ok()),
        (bytes(INVITE_1), |bytes| {
            InviteRecord::decode([0; 16], bytes).is_ok()
        }),
        (denied().encode(), |bytes| Denied::decode(bytes).is_ok()),
        (forgetting::encode(&[PEER]), |bytes| {
            forgetting::decode(bytes).is_ok()
        }),
        (peer().encode(), |bytes| {
            PeerRecord::decode(PEER, bytes).is_ok()
        }),
        (invite().encode(), |bytes| {
            InviteRecord::decode([0; 16], bytes).is_ok()
        }),
        (request().encode(), |bytes| {
            RequestRecord::decode(bytes).is_ok()
        }),
        (asking().encode(), |bytes| {
            AskingRecord::decode(bytes).is_ok()
        }),
        (line().encode(), |bytes| Line::decode(bytes).is_ok()),
        (past().encode(), |bytes| Past::decode(bytes).is_ok()),
        (dead().encode(), |bytes| Dead::decode(bytes).is_ok()),
        (used().encode(), |bytes| Use::decode(bytes).is_ok()),
        (events::encode(1, &fact()), |bytes| {
            events::decode(1, bytes).is_ok()
        }),
        (ring().encode(), |bytes| Ring::decode(bytes).is_ok()),
        (encode_row(&stored()), |bytes| {
            outbox::decode_row(bytes).is_ok()
        }),
        (letter().encode(), |bytes| {
            let key = Key::dead_in(PEER, Lane::User, position());
            DeadInLetter::decode(&key, bytes).is_ok()
        }),
        (done.encode(), kept),
        (failed.encode(), kept),
        (again.encode(), kept),
        (entry().encode(), |bytes| Entry::decode(bytes).is_ok()),
        (tries().encode(), |bytes| Tries::decode(bytes).is_ok()),
    ];
    for (number, (record, reads)) in records.into_iter().enumerate() {
        assert!(reads(&record), "record {number}");
        for length in 0..record.len() {
            assert!(!reads(&record[..length]), "record {number} cut to {length}");
        }
        let longer = [&record[..], &[0]].concat();
        assert!(!reads(&longer), "record {number} with a byte more");
        // A changed byte may be another value, or none; it is never a panic.
        for (at, byte) in (0..record.len()).flat_map(|at| [0, 1, 0x7f, 0x80, 0xff].map(|b| (at, b)))
        {
            let mut changed = record.clone();
            changed[at] = byte;
            let _ = reads(&changed);
        }
    }
}
