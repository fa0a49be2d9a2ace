//! Streams of a session, sealed at one end and opened at the other.
//!
//! Goal: whatever happens to the bytes in between, the receiving end either gets what was
//! sent, in order, or an error; and both ends stay together across key changes.

use packhorse_protocol::frame::{FRAME_HEAD_BYTES, FRAME_TAG_BYTES};
use packhorse_protocol::generation::SessionSecrets;
use packhorse_protocol::handshake::SessionSecret;
use packhorse_protocol::limits::FRAME_PLAINTEXT_BYTES_MAX;
use packhorse_protocol::seal::{Opener, SealError, Sealer};
use packhorse_protocol::stream::{Side, StreamHeader, StreamKind};

const HEADER: StreamHeader = StreamHeader {
    kind: StreamKind::UserLane,
    generation: 0,
    number: 7,
};

fn secrets() -> SessionSecrets {
    SessionSecrets::new(SessionSecret::from_bytes(&[5; 32]))
}

/// What the dialler seals on a stream it opened, and what the listener opens it with.
fn direction(header: StreamHeader) -> (Sealer, Opener) {
    let secrets = secrets();
    let (sealer, _) = secrets
        .stream(&header, Side::Dialler, Side::Dialler)
        .expect("generation 0");
    let (_, opener) = secrets
        .stream(&header, Side::Dialler, Side::Listener)
        .expect("generation 0");
    (sealer, opener)
}

fn sealed(sealer: &mut Sealer, plaintext: &[u8], last: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    sealer
        .seal(plaintext, last, &mut frame)
        .expect("within the limit");
    frame
}

/// Opens one whole frame as a driver does: head first, then exactly what it names.
fn opened(opener: &mut Opener, frame: &[u8]) -> Result<Vec<u8>, SealError> {
    let (head, rest) = frame
        .split_first_chunk::<FRAME_HEAD_BYTES>()
        .expect("a head is there");
    let head = opener.head(*head)?;
    let mut ciphertext = rest.to_vec();
    opener.open(head, &mut ciphertext).map(<[u8]>::to_vec)
}

#[test]
fn frames_round_trip_in_both_directions_up_to_the_limit() {
    let secrets = secrets();
    let (mut ours, mut from_theirs) = secrets
        .stream(&HEADER, Side::Dialler, Side::Dialler)
        .expect("generation 0");
    let (mut theirs, mut from_ours) = secrets
        .stream(&HEADER, Side::Dialler, Side::Listener)
        .expect("generation 0");
    let largest = vec![0xa5; FRAME_PLAINTEXT_BYTES_MAX];
    for plaintext in [&b""[..], b"x", b"load", &largest] {
        let frame = sealed(&mut ours, plaintext, false);
        assert_eq!(
            frame.len(),
            FRAME_HEAD_BYTES + plaintext.len() + FRAME_TAG_BYTES
        );
        assert_eq!(opened(&mut from_ours, &frame), Ok(plaintext.to_vec()));
        let frame = sealed(&mut theirs, plaintext, false);
        assert_eq!(opened(&mut from_theirs, &frame), Ok(plaintext.to_vec()));
    }
    assert!(!from_ours.is_ended());
    let last = sealed(&mut ours, b"end", true);
    assert_eq!(opened(&mut from_ours, &last), Ok(b"end".to_vec()));
    assert!(from_ours.is_ended());
}

#[test]
fn frames_are_appended_behind_what_is_there() {
    let (mut sealer, mut opener) = direction(HEADER);
    let mut out = b"head".to_vec();
    sealer.seal(b"one", false, &mut out).expect("short");
    sealer.seal(b"two", false, &mut out).expect("short");
    assert!(out.starts_with(b"head"));
    let frame_bytes = FRAME_HEAD_BYTES + 3 + FRAME_TAG_BYTES;
    assert_eq!(out.len(), 4 + 2 * frame_bytes);
    assert_eq!(
        opened(&mut opener, &out[4..4 + frame_bytes]),
        Ok(b"one".to_vec())
    );
    assert_eq!(
        opened(&mut opener, &out[4 + frame_bytes..]),
        Ok(b"two".to_vec())
    );
}

#[test]
fn nothing_comes_after_the_last_frame() {
    let (mut sealer, mut opener) = direction(HEADER);
    let frame = sealed(&mut sealer, b"end", true);
    let mut out = Vec::new();
    assert_eq!(sealer.seal(b"more", false, &mut out), Err(SealError::Ended));
    assert_eq!(sealer.rekey(&mut out), Err(SealError::Ended));
    assert!(out.is_empty());
    assert_eq!(opened(&mut opener, &frame), Ok(b"end".to_vec()));
    assert_eq!(opened(&mut opener, &frame), Err(SealError::Ended));
}

#[test]
fn every_flipped_bit_of_a_frame_is_an_error_and_ends_the_stream() {
    let frame = sealed(&mut direction(HEADER).0, b"twelve bytes", false);
    for bit in 0..frame.len() * 8 {
        let (_, mut opener) = direction(HEADER);
        let mut changed = frame.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(opened(&mut opener, &changed).is_err(), "bit {bit}");
        if bit >= FRAME_HEAD_BYTES * 8 {
            assert_eq!(opened(&mut opener, &frame), Err(SealError::Broken));
        }
    }
}

#[test]
fn a_frame_cut_short_or_grown_is_an_error() {
    let frame = sealed(&mut direction(HEADER).0, b"twelve bytes", false);
    for keep in FRAME_HEAD_BYTES..frame.len() {
        let (_, mut opener) = direction(HEADER);
        let error = opened(&mut opener, &frame[..keep]);
        assert_eq!(error, Err(SealError::Open { counter: 0 }), "{keep} bytes");
    }
    // The same with a head that says so: an attacker can write any head.
    for length in 0..frame.len() as u32 {
        let (_, mut opener) = direction(HEADER);
        let mut changed = length.to_be_bytes().to_vec();
        changed.extend_from_slice(&frame[FRAME_HEAD_BYTES..]);
        changed.resize(FRAME_HEAD_BYTES + length as usize, 0);
        if length as usize != frame.len() - FRAME_HEAD_BYTES {
            assert!(opened(&mut opener, &changed).is_err(), "length {length}");
        }
    }
}

#[test]
fn a_stream_that_ends_without_its_last_frame_shows_it() {
    let (mut sealer, mut opener) = direction(HEADER);
    let first = sealed(&mut sealer, b"one", false);
    let _lost = sealed(&mut sealer, b"two", true);
    assert_eq!(opened(&mut opener, &first), Ok(b"one".to_vec()));
    assert!(!opener.is_ended());
}

#[test]
fn reordered_repeated_and_missing_frames_do_not_open() {
    let (mut sealer, _) = direction(HEADER);
    let first = sealed(&mut sealer, b"same", false);
    let second = sealed(&mut sealer, b"same", false);

    let (_, mut opener) = direction(HEADER);
    assert_eq!(
        opened(&mut opener, &second),
        Err(SealError::Open { counter: 0 })
    );

    let (_, mut opener) = direction(HEADER);
    assert!(opened(&mut opener, &first).is_ok());
    assert_eq!(
        opened(&mut opener, &first),
        Err(SealError::Open { counter: 1 })
    );
}

#[test]
fn frames_of_another_stream_direction_session_or_kind_do_not_open() {
    let frame = sealed(&mut direction(HEADER).0, b"load", false);
    let broken = Err(SealError::Open { counter: 0 });

    let number = StreamHeader {
        number: 8,
        ..HEADER
    };
    assert_eq!(opened(&mut direction(number).1, &frame), broken);
    let kind = StreamHeader {
        kind: StreamKind::SystemLane,
        ..HEADER
    };
    assert_eq!(opened(&mut direction(kind).1, &frame), broken);

    let stream = |secrets: &SessionSecrets, opener, me| {
        secrets.stream(&HEADER, opener, me).expect("generation 0").1
    };
    // The other direction of the same stream: a frame sent back to its sender.
    let mut reflected = stream(&secrets(), Side::Dialler, Side::Dialler);
    assert_eq!(opened(&mut reflected, &frame), broken);
    // The stream of the same number that the other end opened.
    let mut other_opener = stream(&secrets(), Side::Listener, Side::Listener);
    assert_eq!(opened(&mut other_opener, &frame), broken);
    let other_session = SessionSecrets::new(SessionSecret::from_bytes(&[6; 32]));
    let mut other_session = stream(&other_session, Side::Dialler, Side::Listener);
    assert_eq!(opened(&mut other_session, &frame), broken);

    let mut advanced = secrets();
    advanced.advance().expect("the first");
    let generation = StreamHeader {
        generation: 1,
        ..HEADER
    };
    let (_, mut other_generation) = advanced
        .stream(&generation, Side::Dialler, Side::Listener)
        .expect("the current");
    assert_eq!(opened(&mut other_generation, &frame), broken);
}

#[test]
fn a_head_is_checked_before_anything_is_read() {
    let (mut sealer, opener) = direction(HEADER);
    let bytes_max = FRAME_PLAINTEXT_BYTES_MAX;
    let head = |length: usize| opener.head((length as u32).to_be_bytes());
    assert!(head(bytes_max + FRAME_TAG_BYTES).is_ok());
    assert_eq!(
        head(bytes_max + FRAME_TAG_BYTES + 1),
        Err(SealError::TooLong {
            bytes: bytes_max + 1,
            bytes_max
        })
    );
    assert!(matches!(
        head((1 << 30) - 1),
        Err(SealError::TooLong { .. })
    ));
    assert!(head(FRAME_TAG_BYTES).is_ok());
    for short in 0..FRAME_TAG_BYTES {
        let bits = short as u32;
        assert_eq!(head(short), Err(SealError::Head { bits }));
    }
    for bits in [0x4000_0011, 0xc000_0010_u32] {
        assert_eq!(
            opener.head(bits.to_be_bytes()),
            Err(SealError::Head { bits })
        );
    }
    let mut out = Vec::new();
    let over = vec![0; bytes_max + 1];
    assert_eq!(
        sealer.seal(&over, false, &mut out),
        Err(SealError::TooLong {
            bytes: bytes_max + 1,
            bytes_max
        })
    );
    assert!(out.is_empty());
}

#[test]
fn both_ends_change_keys_together_in_the_middle_of_a_stream() {
    let (mut sealer, mut opener) = direction(HEADER);
    for round in 0..5_u8 {
        let frame = sealed(&mut sealer, &[round; 100], false);
        assert_eq!(opened(&mut opener, &frame), Ok(vec![round; 100]));
        let mut rekey = Vec::new();
        sealer.rekey(&mut rekey).expect("the stream is open");
        assert_eq!(opened(&mut opener, &rekey), Ok(Vec::new()));
    }
    let last = sealed(&mut sealer, b"end", true);
    assert_eq!(opened(&mut opener, &last), Ok(b"end".to_vec()));
}

#[test]
fn a_suppressed_rekey_is_noticed_at_once() {
    let (mut sealer, mut opener) = direction(HEADER);
    let mut rekey = Vec::new();
    sealer.rekey(&mut rekey).expect("the stream is open");
    let after = sealed(&mut sealer, b"after", false);
    assert!(opened(&mut opener, &after).is_err());

    // And one whose bit was cleared, which would leave the receiver on the old key.
    let (_, mut opener) = direction(HEADER);
    rekey[0] &= !0x40;
    assert!(opened(&mut opener, &rekey).is_err());
}

#[test]
fn streams_opened_before_and_after_a_generation_work_side_by_side() {
    let mut dialler = secrets();
    let mut listener = secrets();
    let both = |dialler: &SessionSecrets, listener: &SessionSecrets, generation, number| {
        let header = StreamHeader {
            generation,
            number,
            ..HEADER
        };
        let sealer = dialler
            .stream(&header, Side::Dialler, Side::Dialler)
            .expect("at hand")
            .0;
        let opener = listener
            .stream(&header, Side::Dialler, Side::Listener)
            .expect("at hand")
            .1;
        (sealer, opener)
    };
    let (mut old, mut from_old) = both(&dialler, &listener, 0, 1);
    assert_eq!(dialler.advance(), Ok(1));
    assert_eq!(listener.advance(), Ok(1));
    let (mut new, mut from_new) = both(&dialler, &listener, 1, 2);
    // One more stream of the old generation: opened before the other end had advanced.
    let (mut late, mut from_late) = both(&dialler, &listener, 0, 3);

    let mut rekey = Vec::new();
    old.rekey(&mut rekey).expect("the stream is open");
    assert_eq!(opened(&mut from_old, &rekey), Ok(Vec::new()));
    dialler.erase(0).expect("left");
    listener.erase(0).expect("left");
    for (sealer, opener) in [
        (&mut old, &mut from_old),
        (&mut new, &mut from_new),
        (&mut late, &mut from_late),
    ] {
        let frame = sealed(sealer, b"still here", false);
        assert_eq!(opened(opener, &frame), Ok(b"still here".to_vec()));
    }
    let erased = StreamHeader {
        number: 4,
        ..HEADER
    };
    let error = listener
        .stream(&erased, Side::Dialler, Side::Listener)
        .expect_err("generation 0 is erased");
    assert_eq!(
        error,
        SealError::UnknownGeneration {
            generation: 0,
            current: 1
        }
    );
}

/// The golden frames change only with a new protocol version.
#[test]
fn sealed_frames_keep_their_bytes() {
    let mut secrets = secrets();
    let mut text = String::new();
    for generation in 0..2 {
        let header = StreamHeader {
            generation,
            ..HEADER
        };
        let (mut sealer, _) = secrets
            .stream(&header, Side::Dialler, Side::Dialler)
            .expect("the current");
        let (mut back, _) = secrets
            .stream(&header, Side::Dialler, Side::Listener)
            .expect("the current");
        let mut rekey = Vec::new();
        let lines = [
            ("header", header.to_bytes().to_vec()),
            ("first", sealed(&mut sealer, b"packhorse", false)),
            ("rekey", {
                sealer.rekey(&mut rekey).expect("the stream is open");
                rekey
            }),
            ("last", sealed(&mut sealer, b"packhorse", true)),
            ("back", sealed(&mut back, b"packhorse", false)),
        ];
        for (name, bytes) in lines {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("generation {generation} {name} {hex}\n");
        }
        if generation == 0 {
            secrets.advance().expect("the first");
        }
    }
    assert_eq!(text, include_str!("golden/frames.txt"), "now:\n{text}");
}
