//! Everything that reads what somebody else wrote, fed with bytes that nobody wrote.
//!
//! Two kinds: bytes out of thin air, and bytes of something real with a few of them changed, cut,
//! put in or left out. No reader panics, and what a reader takes is written and read again as the
//! same. `tests/handshake/tampering.rs` does the same for the handshake, byte by byte.

use bech32::{Bech32m, Hrp};
use packhorse_protocol::codec;
use packhorse_protocol::epoch::{Epoch, Mark, Refusal, RefusalCode, Span};
use packhorse_protocol::error_class::ErrorClass;
use packhorse_protocol::frame::FRAME_HEAD_BYTES;
use packhorse_protocol::generation::SessionSecrets;
use packhorse_protocol::grant::{Capability, Grant, Grants};
use packhorse_protocol::handshake::{
    HELLO_BYTES, Initiator, LinkKind, Local, PROOF_BYTES, Responder, SessionSecret, answer_bytes,
};
use packhorse_protocol::identity::IdentityKey;
use packhorse_protocol::message::{
    ControlFrame, DeliveryClass, Message, ReceiverFrame, SenderFrame,
};
use packhorse_protocol::node_id::NodeId;
use packhorse_protocol::stream::{STREAM_HEADER_BYTES, Side, StreamHeader, StreamKind};
use packhorse_protocol::text;
use packhorse_protocol::ticket::Ticket;
use proptest::prelude::*;

const EPOCH: Epoch = Epoch {
    boot: 300,
    nonce: 0x0102_0304_0506_0708,
};

/// A place, a way and a byte: one change.
type Change = (prop::sample::Index, u8, u8);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8, any::<u8>()), 1..6)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for (at, way, byte) in changes {
        if bytes.is_empty() {
            bytes.push(*byte);
            continue;
        }
        let at = at.index(bytes.len());
        match way {
            0 => bytes[at] = *byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, *byte),
            3 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn message() -> Message {
    Message {
        class: DeliveryClass::Moderate,
        topic: "orders/hay".to_owned(),
        born_ms: 1_750_000_000_000,
        headers: vec![("reply-to".to_owned(), "answers".to_owned())],
        payload: b"two bales".to_vec(),
    }
}

/// One frame of every kind that a lane or the control stream may carry.
fn frames() -> Vec<Vec<u8>> {
    let span = Span {
        epoch: EPOCH,
        first: 3,
        last: 9,
        acknowledged: 2,
    };
    let mark = Mark {
        epoch: EPOCH,
        settled: 7,
    };
    let refusals = vec![Refusal {
        epoch: EPOCH,
        sequence: 5,
        code: RefusalCode::NO_GRANT,
    }];
    let senders = [
        SenderFrame::Start(vec![span; 3]),
        SenderFrame::Base {
            epoch: EPOCH,
            first: 1_000,
        },
        SenderFrame::Batch {
            epoch: EPOCH,
            first: 3,
            messages: vec![Ok(message()); 3],
        },
        SenderFrame::Confirm(vec![(EPOCH, 5); 2]),
    ];
    let receivers = [
        ReceiverFrame::Marks {
            marks: vec![mark; 2],
            refusals: refusals.clone(),
        },
        ReceiverFrame::Acknowledge { mark, refusals },
        ReceiverFrame::Paused {
            reason: "no room".to_owned(),
        },
        ReceiverFrame::Resumed,
        ReceiverFrame::Window {
            messages: 9,
            bytes: 70_000,
        },
    ];
    let controls = [
        ControlFrame::Heartbeat {
            number: 7,
            sent_ms: 1_750_000_000_000,
        },
        ControlFrame::Generation { generation: 300 },
        ControlFrame::Granted {
            grants: vec!["message.send:*".to_owned(); 2],
        },
        ControlFrame::Goodbye {
            class: ErrorClass::ShuttingDown,
            reason: "the node stops".to_owned(),
        },
    ];
    let mut frames: Vec<_> = senders.iter().map(codec::encode_sender).collect();
    frames.extend(receivers.iter().map(codec::encode_receiver));
    frames.extend(controls.iter().map(codec::encode_control));
    frames.push(codec::encode_ephemeral(&message()));
    frames
}

/// Every reader of a frame's plaintext, each with the bytes of every other one as well.
fn read_frame(bytes: &[u8]) {
    if let Ok(Some(frame)) = codec::decode_control(bytes) {
        let again = codec::decode_control(&codec::encode_control(&frame));
        assert_eq!(again, Ok(Some(frame)));
    }
    if let Ok(Some(frame)) = codec::decode_receiver(bytes) {
        let again = codec::decode_receiver(&codec::encode_receiver(&frame));
        assert_eq!(again, Ok(Some(frame)));
    }
    if let Ok(Some(frame)) = codec::decode_sender(bytes) {
        let again = codec::decode_sender(&codec::encode_sender(&frame));
        // A place that was refused is written empty, and is refused again, perhaps otherwise.
        let is_whole = |frame: &SenderFrame| match frame {
            SenderFrame::Batch { messages, .. } => messages.iter().all(Result::is_ok),
            _ => true,
        };
        assert!(!is_whole(&frame) || again == Ok(Some(frame)));
    }
    if let Ok(Some(Ok(message))) = codec::decode_ephemeral(bytes) {
        assert_eq!(message.check(), Ok(()), "what is taken keeps every limit");
        let again = codec::decode_ephemeral(&codec::encode_ephemeral(&message));
        assert_eq!(again, Ok(Some(Ok(message))));
    }
    if let Ok(receipts) = codec::decode_receipts(bytes) {
        assert_eq!(codec::encode_receipts(&receipts), bytes);
    }
}

fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

/// A word with a right checksum around any bytes.
fn word(prefix: &str, bytes: &[u8]) -> String {
    let prefix = Hrp::parse(prefix).expect("a prefix");
    bech32::encode::<Bech32m>(prefix, bytes).expect("short enough")
}

fn hello() -> (Initiator, Vec<u8>) {
    let local = Local {
        name: "mule".to_owned(),
        addresses: Vec::new(),
        epoch: EPOCH,
    };
    let intent = packhorse_protocol::handshake::DialIntent {
        dial_counter: 1,
        alive: None,
        pairing: None,
    };
    let (me, you) = (identity(1), identity(2).id());
    Initiator::start(&me, you, LinkKind::Quic, [9; 32], local, intent, [3; 128])
        .expect("nothing is wrong with it")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_reader_of_frames_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_frame(&bytes);
    }

    #[test]
    fn no_changed_frame_makes_a_reader_panic(which in any::<prop::sample::Index>(), changes in changes()) {
        let frames = frames();
        read_frame(&changed(frames[which.index(frames.len())].clone(), &changes));
    }

    #[test]
    fn no_word_makes_a_reader_of_tickets_ids_and_grants_panic(text in "\\PC{0,120}") {
        prop_assert!(text.parse::<Ticket>().is_err());
        prop_assert!(text.parse::<NodeId>().is_err());
        if let Ok(grant) = text.parse::<Grant>() {
            prop_assert_eq!(grant.to_string(), text);
        }
    }

    #[test]
    fn no_bytes_behind_a_right_checksum_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for prefix in ["pht", "phn"] {
            let word = word(prefix, &bytes);
            if let Ok(id) = word.parse::<NodeId>() {
                prop_assert_eq!(id.to_string(), word.clone());
            }
            if let Ok(ticket) = word.parse::<Ticket>() {
                prop_assert_eq!(ticket.to_string(), word);
            }
        }
    }

    #[test]
    fn no_changed_ticket_makes_a_reader_panic(changes in changes()) {
        let hints = vec!["host.example:7433".to_owned(), "[::1]:7433".to_owned()];
        let ticket = Ticket::new(identity(2).id(), [6; 16], [7; 32], hints).expect("it fits");
        let mut text = ticket.to_string();
        let (_, bytes) = bech32::decode(&text).expect("our own word");
        let other = word("pht", &changed(bytes, &changes));
        if let Ok(read) = other.parse::<Ticket>() {
            prop_assert_eq!(read.to_string(), other);
            prop_assert!(text::check_addresses(read.hints()).is_ok());
        }
        // With its checksum left as it was, any changed word is none, but for its case.
        let spoilt = changed(std::mem::take(&mut text).into_bytes(), &changes);
        if let Ok(spoilt) = String::from_utf8(spoilt) {
            let same = spoilt.to_lowercase() == ticket.to_string();
            prop_assert!(same || spoilt.parse::<Ticket>().is_err(), "{}", spoilt);
        }
    }

    #[test]
    fn no_changed_grant_makes_a_reader_or_a_match_panic(changes in changes(), topic in "\\PC{0,40}") {
        let bytes = changed(b"message.send:!orders/*/h?y".to_vec(), &changes);
        if let Ok(grant) = String::from_utf8_lossy(&bytes).parse::<Grant>()
            && let Ok(grants) = Grants::new([grant])
        {
            let _ = grants.allows(Capability::MessageSend, &topic, 0);
        }
    }

    #[test]
    fn no_bytes_make_a_reader_of_streams_panic(
        header in any::<[u8; STREAM_HEADER_BYTES]>(),
        head in any::<[u8; FRAME_HEAD_BYTES]>(),
        mut ciphertext in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let header = StreamHeader::from_bytes(header).unwrap_or(StreamHeader {
            kind: StreamKind::Control,
            generation: 0,
            number: 0,
        });
        let secrets = SessionSecrets::new(SessionSecret::from_bytes(&[7; 32]));
        if let Ok((_, mut opener)) = secrets.stream(&header, Side::Dialler, Side::Listener)
            && let Ok(head) = opener.head(head)
        {
            prop_assert!(opener.open(head, &mut ciphertext).is_err(), "nobody sealed it");
        }
    }

    #[test]
    fn no_text_passes_its_check_and_upsets_a_terminal(text in any::<String>()) {
        if text::check_name(&text).is_ok() {
            prop_assert!(!text.is_empty() && text.len() <= 64);
            prop_assert!(!text.chars().any(char::is_control));
            let turns = text.contains(['\u{202e}', '\u{2028}', '\u{feff}']);
            prop_assert!(!turns);
        }
    }
}

proptest! {
    // Key agreement makes each of these dear.
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_an_end_of_a_handshake_panic(bytes in prop::collection::vec(any::<u8>(), 0..4_200), changes in changes()) {
        let responder = identity(2);
        let respond = || Responder::new(&responder, LinkKind::Quic, [9; 32]);
        let (initiator, hello) = hello();
        for other in [bytes.clone(), changed(hello.clone(), &changes)] {
            if other != hello {
                prop_assert!(respond().on_hello(&other, [4; 128]).is_err());
            }
        }
        let (awaiting, reply) = respond().on_hello(&hello, [4; 128]).expect("our own hello");
        if let Some(kind) = bytes.first() {
            let _ = answer_bytes(*kind);
        }
        prop_assert_eq!(hello.len(), HELLO_BYTES);
        prop_assert!(initiator.on_reply(&bytes).is_err());
        let (initiator, _) = self::hello();
        let spoilt = changed(reply.clone(), &changes);
        if spoilt != reply {
            prop_assert!(initiator.on_reply(&spoilt).is_err());
        }
        let mut proof = bytes;
        proof.resize(PROOF_BYTES, 0);
        prop_assert!(awaiting.on_proof(&proof).is_err());
    }
}
