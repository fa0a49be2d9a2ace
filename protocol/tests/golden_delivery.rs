//! The bytes of every frame of the delivery part, and of a message, held fast.
//!
//! A file changes only with a new protocol version and a decision entry. On a mismatch the
//! new bytes are printed; with PACKHORSE_WRITE_GOLDEN=1 they are written instead.

use std::fmt::Write as _;
use std::path::PathBuf;

use packhorse_protocol::codec;
use packhorse_protocol::epoch::{Epoch, Mark, Refusal, RefusalCode, Span};
use packhorse_protocol::error_class::ErrorClass;
use packhorse_protocol::limits;
use packhorse_protocol::message::{
    ControlFrame, DeliveryClass, Message, ReceiverFrame, SenderFrame,
};

const EPOCH: Epoch = Epoch {
    boot: 3,
    nonce: 0x0102_0304_0506_0708,
};

fn message() -> Message {
    Message {
        class: DeliveryClass::Moderate,
        topic: "backup/done".to_owned(),
        born_ms: 1_700_000_000_123,
        headers: vec![("reply-to".to_owned(), "backup/next".to_owned())],
        payload: b"42 files".to_vec(),
    }
}

fn refusals() -> Vec<Refusal> {
    let refusal = |sequence, code| Refusal {
        epoch: EPOCH,
        sequence,
        code,
    };
    vec![
        refusal(7, RefusalCode::NO_GRANT),
        refusal(300, RefusalCode::TOO_LARGE),
    ]
}

fn check(name: &str, bytes: &[u8]) {
    let mut hex = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        let end = if index % 32 == 31 { "\n" } else { " " };
        write!(hex, "{byte:02x}{end}").expect("text has room");
    }
    let hex = format!("{}\n", hex.trim_end());
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    if std::env::var_os("PACKHORSE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &hex).expect("the golden file is written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        golden, hex,
        "{name} is written as other bytes now; the new ones are:\n{hex}"
    );
}

fn check_sender(name: &str, frame: SenderFrame) {
    let bytes = codec::encode_sender(&frame);
    check(name, &bytes);
    assert_eq!(codec::decode_sender(&bytes), Ok(Some(frame)));
    assert_every_cut_is_an_error(&bytes, |bytes| codec::decode_sender(bytes).is_err());
}

fn check_receiver(name: &str, frame: ReceiverFrame) {
    let bytes = codec::encode_receiver(&frame);
    check(name, &bytes);
    assert_eq!(codec::decode_receiver(&bytes), Ok(Some(frame)));
    assert_every_cut_is_an_error(&bytes, |bytes| codec::decode_receiver(bytes).is_err());
}

fn check_control(name: &str, frame: ControlFrame) {
    let bytes = codec::encode_control(&frame);
    check(name, &bytes);
    assert_eq!(codec::decode_control(&bytes), Ok(Some(frame)));
    assert_every_cut_is_an_error(&bytes, |bytes| codec::decode_control(bytes).is_err());
}

fn assert_every_cut_is_an_error(bytes: &[u8], is_error: impl Fn(&[u8]) -> bool) {
    for length in 0..bytes.len() {
        assert!(
            is_error(&bytes[..length]),
            "the first {length} of {bytes:02x?} were accepted"
        );
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(is_error(&longer), "a byte behind {bytes:02x?} was accepted");
}

#[test]
fn a_message_keeps_its_bytes() {
    let bytes = codec::encode(&message());
    check("message", &bytes);
    assert_eq!(
        codec::decode_canonical(&bytes, limits::FRAME_PLAINTEXT_BYTES_MAX),
        Ok(message())
    );
}

#[test]
fn frames_of_a_sender_keep_their_bytes() {
    let span = Span {
        epoch: EPOCH,
        first: 5,
        last: 70_000,
        acknowledged: 4,
    };
    let later = Epoch {
        boot: 4,
        nonce: u64::MAX,
    };
    let current = Span {
        epoch: later,
        first: 1,
        last: 0,
        acknowledged: 0,
    };
    check_sender("sender-start", SenderFrame::Start(vec![span, current]));
    check_sender("sender-start-empty", SenderFrame::Start(Vec::new()));
    check_sender(
        "sender-base",
        SenderFrame::Base {
            epoch: EPOCH,
            first: 251,
        },
    );
    let messages = vec![Ok(message()), Ok(message())];
    check_sender(
        "sender-batch",
        SenderFrame::Batch {
            epoch: EPOCH,
            first: 5,
            messages,
        },
    );
    check_sender(
        "sender-confirm",
        SenderFrame::Confirm(vec![(EPOCH, 7), (EPOCH, 300)]),
    );
}

#[test]
fn frames_of_a_receiver_keep_their_bytes() {
    let mark = Mark {
        epoch: EPOCH,
        settled: 65_536,
    };
    let marks = vec![
        mark,
        Mark {
            epoch: Epoch { boot: 4, nonce: 1 },
            settled: 0,
        },
    ];
    check_receiver(
        "receiver-marks",
        ReceiverFrame::Marks {
            marks,
            refusals: refusals(),
        },
    );
    let acknowledge = ReceiverFrame::Acknowledge {
        mark,
        refusals: refusals(),
    };
    check_receiver("receiver-acknowledge", acknowledge);
    let acknowledge = ReceiverFrame::Acknowledge {
        mark,
        refusals: Vec::new(),
    };
    check_receiver("receiver-acknowledge-plain", acknowledge);
    let reason = "storage full".to_owned();
    check_receiver("receiver-paused", ReceiverFrame::Paused { reason });
    check_receiver("receiver-resumed", ReceiverFrame::Resumed);
    check_receiver(
        "receiver-window",
        ReceiverFrame::Window {
            messages: 16,
            bytes: 1 << 20,
        },
    );
}

#[test]
fn the_frame_of_an_ephemeral_stream_keeps_its_bytes() {
    let message = Message {
        class: DeliveryClass::Ephemeral,
        ..message()
    };
    let bytes = codec::encode_ephemeral(&message);
    check("ephemeral", &bytes);
    assert_eq!(codec::decode_ephemeral(&bytes), Ok(Some(Ok(message))));
    // A message that was cut costs itself; a frame without its kind is none.
    for length in 1..bytes.len() {
        assert!(matches!(
            codec::decode_ephemeral(&bytes[..length]),
            Ok(Some(Err(_)))
        ));
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(codec::decode_ephemeral(&longer), Ok(Some(Err(_)))));
    assert!(codec::decode_ephemeral(&[]).is_err());
    assert!(codec::decode_ephemeral(&codec::encode_receiver(&ReceiverFrame::Resumed)).is_err());
    assert_eq!(codec::decode_ephemeral(&[200, 1, 2]), Ok(None));
}

#[test]
fn frames_of_the_control_stream_keep_their_bytes() {
    let sent_ms = 1_700_000_000_123;
    check_control(
        "control-heartbeat",
        ControlFrame::Heartbeat { number: 9, sent_ms },
    );
    check_control(
        "control-heartbeat-reply",
        ControlFrame::HeartbeatReply { number: 9, sent_ms },
    );
    check_control(
        "control-generation",
        ControlFrame::Generation { generation: 2 },
    );
    check_control(
        "control-generation-ready",
        ControlFrame::GenerationReady { generation: 2 },
    );
    let grants = ["message.send:orders", "!message.send:orders.secret"];
    let grants = grants.map(str::to_owned).to_vec();
    check_control("control-granted", ControlFrame::Granted { grants });
    let addresses = ["quic://barn.example:7433", "quic://[2001:db8::7]:7433"];
    let addresses = addresses.map(str::to_owned).to_vec();
    check_control("control-addresses", ControlFrame::Addresses { addresses });
    check_control(
        "control-seen-epoch",
        ControlFrame::SeenEpoch { epoch: EPOCH },
    );
    let (class, reason) = (ErrorClass::ShuttingDown, "the node stops".to_owned());
    check_control("control-goodbye", ControlFrame::Goodbye { class, reason });
}
