//! Frames and values there and back, and what is refused.

use super::*;

const EPOCH: Epoch = Epoch { boot: 1, nonce: 2 };

fn message(payload_bytes: usize) -> Message {
    Message {
        class: DeliveryClass::Critical,
        topic: "t".to_owned(),
        born_ms: u64::MAX,
        headers: Vec::new(),
        payload: vec![0xab; payload_bytes],
    }
}

/// Sends a message without judging it and returns what the other side sees.
fn arrive(message: Message) -> Arrival {
    let frame = SenderFrame::Batch {
        epoch: EPOCH,
        first: 1,
        messages: vec![Ok(message)],
    };
    match decode_sender(&encode_sender(&frame)) {
        Ok(Some(SenderFrame::Batch { mut messages, .. })) => messages.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_of_every_size_is_read_as_it_was_written() {
    for bytes in [
        0,
        1,
        249,
        250,
        251,
        65_535,
        65_536,
        limits::PAYLOAD_BYTES_MAX,
    ] {
        assert_eq!(arrive(message(bytes)), Ok(message(bytes)));
    }
}

#[test]
fn the_batch_reader_reads_what_the_derived_decoder_reads() {
    let mut message = message(300);
    message.headers = vec![("a".to_owned(), "b".repeat(300)); 3];
    let bytes = encode(&message);
    assert_eq!(message_length(&message), bytes.len());
    assert_eq!(decode_arrival(&bytes), Ok(message.clone()));
    assert_eq!(decode(&bytes, bytes.len()), Ok(message));
}

#[test]
fn a_message_over_a_limit_is_refused_and_its_neighbours_are_not() {
    let with_topic = |topic: &str| Message {
        topic: topic.to_owned(),
        ..message(1)
    };
    let with_headers = |headers| Message {
        headers,
        ..message(1)
    };
    let header = |bytes: usize| ("n".to_owned(), "v".repeat(bytes - 1));
    let topic_max = "t".repeat(limits::TOPIC_BYTES_MAX);
    let too_large = [
        message(limits::PAYLOAD_BYTES_MAX + 1),
        with_topic(&format!("{topic_max}t")),
        with_headers(vec![header(limits::HEADER_BYTES_MAX + 1)]),
        with_headers(vec![header(1); limits::HEADERS_MAX + 1]),
    ];
    for message in too_large {
        assert_eq!(arrive(message), Err(RefusalCode::TOO_LARGE));
    }
    let undecodable = [
        with_topic(""),
        with_topic("a\nb"),
        with_headers(vec![(String::new(), "v".to_owned())]),
    ];
    for message in undecodable {
        assert_eq!(arrive(message), Err(RefusalCode::UNDECODABLE));
    }
    let fine = [
        with_topic(&topic_max),
        with_headers(vec![header(limits::HEADER_BYTES_MAX)]),
        with_headers(vec![header(1); limits::HEADERS_MAX]),
    ];
    for message in fine {
        assert_eq!(arrive(message.clone()), Ok(message));
    }
    let bad = message(limits::PAYLOAD_BYTES_MAX + 1);
    let messages = vec![Ok(message(1)), Ok(bad), Ok(message(2))];
    let frame = SenderFrame::Batch {
        epoch: EPOCH,
        first: 1,
        messages,
    };
    let messages = vec![Ok(message(1)), Err(RefusalCode::TOO_LARGE), Ok(message(2))];
    let seen = SenderFrame::Batch {
        epoch: EPOCH,
        first: 1,
        messages,
    };
    assert_eq!(decode_sender(&encode_sender(&frame)), Ok(Some(seen)));
}

#[test]
fn bytes_that_are_no_message_cost_one_sequence_and_not_the_session() {
    let good = encode(&message(4));
    for length in 0..good.len() {
        assert_eq!(
            decode_arrival(&good[..length]),
            Err(RefusalCode::UNDECODABLE)
        );
    }
    let mut trailing = good.clone();
    trailing.push(0);
    assert_eq!(decode_arrival(&trailing), Err(RefusalCode::UNDECODABLE));
    let mut unknown_class = good.clone();
    unknown_class[0] = 9;
    assert_eq!(
        decode_arrival(&unknown_class),
        Err(RefusalCode::UNDECODABLE)
    );
    let mut bad_topic = good;
    bad_topic[2] = 0xff;
    assert_eq!(decode_arrival(&bad_topic), Err(RefusalCode::UNDECODABLE));
}

#[test]
fn a_place_that_was_refused_stays_refused() {
    let messages = vec![Err(RefusalCode::TOO_LARGE)];
    let frame = SenderFrame::Batch {
        epoch: EPOCH,
        first: 1,
        messages,
    };
    let messages = vec![Err(RefusalCode::UNDECODABLE)];
    let seen = SenderFrame::Batch {
        epoch: EPOCH,
        first: 1,
        messages,
    };
    assert_eq!(decode_sender(&encode_sender(&frame)), Ok(Some(seen)));
}

#[test]
fn the_fullest_frames_fit() {
    let refusal = |sequence| Refusal {
        epoch: Epoch {
            boot: u32::MAX,
            nonce: u64::MAX,
        },
        sequence: u64::MAX - sequence,
        code: RefusalCode(u16::MAX),
    };
    let refusals: Vec<Refusal> = (0..limits::REFUSALS_UNCONFIRMED_MAX as u64)
        .map(refusal)
        .collect();
    let epoch = |boot| Epoch {
        boot,
        nonce: u64::MAX,
    };
    let boots = u32::MAX - limits::EPOCHS_KEPT_MAX as u32..u32::MAX;
    let marks = boots.clone().map(|boot| Mark {
        epoch: epoch(boot),
        settled: u64::MAX,
    });
    let frame = ReceiverFrame::Marks {
        marks: marks.collect(),
        refusals,
    };
    assert_eq!(decode_receiver(&encode_receiver(&frame)), Ok(Some(frame)));
    let (first, last, acknowledged) = (u64::MAX, u64::MAX, u64::MAX);
    let spans = boots.map(|boot| Span {
        epoch: epoch(boot),
        first,
        last,
        acknowledged,
    });
    let frame = SenderFrame::Start(spans.collect());
    assert_eq!(decode_sender(&encode_sender(&frame)), Ok(Some(frame)));
    let mut full = message(limits::PAYLOAD_BYTES_MAX);
    full.topic = "t".repeat(limits::TOPIC_BYTES_MAX);
    full.headers = vec![("n".repeat(32), "v".repeat(32)); limits::HEADERS_MAX];
    assert_eq!(arrive(full.clone()), Ok(full));
}

#[test]
fn a_promised_length_without_its_bytes_is_an_error_before_memory_is_taken() {
    // Marker 253 announces a number of eight bytes.
    let huge = [253, 255, 255, 255, 255, 255, 255, 255, 127];
    let frame = |kind: u8, head: &[u8]| [&[kind], head, &huge[..]].concat();
    let too_many = |what, limit| {
        let count = i64::MAX as u64;
        Err(CodecError::TooMany { what, count, limit })
    };
    let start = frame(kind::START, &[]);
    assert_eq!(
        decode_sender(&start),
        too_many("spans", limits::EPOCHS_KEPT_MAX)
    );
    let batch = frame(kind::BATCH, &[1, 2, 1]);
    assert_eq!(
        decode_sender(&batch),
        too_many("messages", limits::BATCH_MESSAGES_MAX)
    );
    let batch = frame(kind::BATCH, &[1, 2, 1, 1]);
    assert_eq!(decode_sender(&batch), Err(CodecError::Truncated));
    let paused = frame(kind::PAUSED, &[]);
    assert_eq!(decode_receiver(&paused), Err(CodecError::Truncated));
    assert_eq!(decode::<Vec<u8>>(&huge, 64), Err(CodecError::Truncated));
    assert_eq!(decode::<Vec<String>>(&huge, 64), Err(CodecError::Truncated));
    assert_eq!(
        decode::<Vec<u64>>(&[250, 0, 0], 64),
        Err(CodecError::Truncated)
    );
}

#[test]
fn lists_end_at_their_limits() {
    let names = |count: u64| SenderFrame::Confirm((0..count).map(|s| (EPOCH, s)).collect());
    let max = limits::REFUSALS_UNCONFIRMED_MAX as u64;
    assert_eq!(
        decode_sender(&encode_sender(&names(max))),
        Ok(Some(names(max)))
    );
    let over = decode_sender(&encode_sender(&names(max + 1)));
    assert!(matches!(
        over,
        Err(CodecError::TooMany {
            what: "confirmations",
            ..
        })
    ));
    let batch = |count| {
        let messages = vec![Ok(message(1)); count];
        encode_sender(&SenderFrame::Batch {
            epoch: EPOCH,
            first: 1,
            messages,
        })
    };
    assert!(decode_sender(&batch(limits::BATCH_MESSAGES_MAX)).is_ok());
    let over = decode_sender(&batch(limits::BATCH_MESSAGES_MAX + 1));
    assert!(matches!(
        over,
        Err(CodecError::TooMany {
            what: "messages",
            ..
        })
    ));
}

#[test]
fn kinds_are_named_when_unknown_and_ignored_when_optional() {
    let unknown = |kind, stream| Err(CodecError::UnknownKind { kind, stream });
    for kind in [0, kind::MARKS, kind::HEARTBEAT, 127] {
        assert_eq!(decode_sender(&[kind, 1]), unknown(kind, "lane sender"));
    }
    assert_eq!(
        decode_receiver(&[kind::BATCH]),
        Err(CodecError::UnknownKind {
            kind: kind::BATCH,
            stream: "lane receiver",
        })
    );
    assert!(matches!(
        decode_control(&[99]),
        Err(CodecError::UnknownKind { kind: 99, .. })
    ));
    for kind in [kind::SEEN_EPOCH + 1, 255] {
        assert_eq!(decode_sender(&[kind, 1, 2, 3]), Ok(None));
        assert_eq!(decode_receiver(&[kind]), Ok(None));
        assert_eq!(decode_control(&[kind]), Ok(None));
    }
}

#[test]
fn reasons_are_cut_here_and_judged_there() {
    let frame = |reason: &str| ReceiverFrame::Paused {
        reason: reason.to_owned(),
    };
    let long = "ü".repeat(limits::REASON_BYTES_MAX);
    let seen = decode_receiver(&encode_receiver(&frame(&long)));
    assert_eq!(
        seen,
        Ok(Some(frame(&"ü".repeat(limits::REASON_BYTES_MAX / 2))))
    );
    let seen = decode_receiver(&encode_receiver(&frame("a\nb\u{7f}")));
    assert_eq!(seen, Ok(Some(frame("a b "))));
    let mut control = vec![kind::PAUSED];
    encode_into(&"a\nb", &mut control);
    assert_eq!(
        decode_receiver(&control),
        Err(CodecError::Invalid { what: "a reason" })
    );
    let mut long = vec![kind::PAUSED];
    encode_into(&"a".repeat(limits::REASON_BYTES_MAX + 1), &mut long);
    assert_eq!(
        decode_receiver(&long),
        Err(CodecError::Invalid { what: "a reason" })
    );
}

#[test]
fn a_number_with_more_bytes_than_it_needs_is_not_canonical() {
    let plain = encode(&7_u64);
    let wide = [251, 7, 0];
    assert_eq!(decode::<u64>(&wide, 16), Ok(7));
    assert_eq!(decode_canonical::<u64>(&plain, 16), Ok(7));
    assert_eq!(
        decode_canonical::<u64>(&wide, 16),
        Err(CodecError::NotCanonical)
    );
    assert_eq!(
        decode::<u64>(&[7, 7], 16),
        Err(CodecError::Trailing { bytes: 1 })
    );
    let too_long = CodecError::TooLong { bytes: 3, limit: 2 };
    assert_eq!(decode::<u64>(&wide, 2), Err(too_long));
}

#[test]
fn whatever_is_encoded_within_its_limit_decodes() {
    // Lists whose elements take far more memory than bytes are the hard case.
    for count in [0, 1, 85, 127, 128, 2_000, 40_000] {
        let texts = vec![(String::new(), String::new()); count];
        assert_eq!(decode(&encode(&texts), usize::MAX), Ok(texts));
        let numbers = vec![0_u64; count];
        assert_eq!(decode(&encode(&numbers), usize::MAX), Ok(numbers));
    }
}
