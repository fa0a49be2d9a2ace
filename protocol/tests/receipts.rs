//! The report of a recipient: its bytes held fast, its limits, and that no bytes make its reader
//! panic.

use packhorse_protocol::codec::{CodecError, decode_receipts, encode_receipts};
use packhorse_protocol::epoch::{Epoch, Position};
use packhorse_protocol::limits::{PAYLOAD_BYTES_MAX, REASON_BYTES_MAX};
use packhorse_protocol::receipt::{
    DONE, FAILED, OUTCOMES_MAX, OUTPUT_BYTES_MAX, OutcomeReport, RANGES_MAX, Receipts,
};
use proptest::prelude::*;

const EPOCH: Epoch = Epoch {
    boot: 3,
    nonce: 0x0102_0304_0506_0708,
};

fn outcome(sequence: u64, state: u8, reason: &str, output: &[u8]) -> OutcomeReport {
    OutcomeReport {
        at: Position {
            epoch: EPOCH,
            sequence,
        },
        state,
        reason: reason.to_owned(),
        output: output.to_vec(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_report_keeps_its_bytes() {
    let receipts = Receipts {
        lane: 0,
        done: vec![(EPOCH, 1, 300), (EPOCH, 302, 302)],
        outcomes: vec![
            outcome(301, FAILED, "no such file", b""),
            outcome(303, DONE, "", b"42"),
        ],
    };
    let bytes = encode_receipts(&receipts);
    let golden = "00020 3fd080706050403020101fb2c01 03fd0807060504030201fb2e01fb2e01\
        02 03fd0807060504030201fb2d0102 0c6e6f20737563682066696c65 00\
        03fd0807060504030201fb2f0101 00 023432";
    assert_eq!(hex(&bytes), golden.replace(' ', ""));
    assert_eq!(decode_receipts(&bytes), Ok(receipts));
    for length in 0..bytes.len() {
        assert!(decode_receipts(&bytes[..length]).is_err(), "{length} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(
        decode_receipts(&longer),
        Err(CodecError::Trailing { bytes: 1 })
    );
}

#[test]
fn the_fullest_report_fits_a_message() {
    let epoch = Epoch {
        boot: u32::MAX,
        nonce: u64::MAX,
    };
    let mut full = outcome(
        u64::MAX,
        FAILED,
        &"r".repeat(REASON_BYTES_MAX),
        &[0xff; OUTPUT_BYTES_MAX],
    );
    full.at.epoch = epoch;
    let receipts = Receipts {
        lane: 0,
        done: vec![(epoch, u64::MAX, u64::MAX); RANGES_MAX],
        outcomes: vec![full; OUTCOMES_MAX],
    };
    let bytes = encode_receipts(&receipts);
    assert!(bytes.len() <= PAYLOAD_BYTES_MAX, "{} bytes", bytes.len());
    assert_eq!(decode_receipts(&bytes), Ok(receipts));
}

#[test]
fn texts_are_cut_where_they_are_written() {
    let receipts = Receipts {
        lane: 0,
        done: Vec::new(),
        outcomes: vec![outcome(
            1,
            FAILED,
            &"a\n".repeat(300),
            &[7; OUTPUT_BYTES_MAX + 1],
        )],
    };
    let read = decode_receipts(&encode_receipts(&receipts)).expect("what was written reads");
    let outcome = &read.outcomes[0];
    assert_eq!(outcome.reason, "a ".repeat(REASON_BYTES_MAX / 2));
    assert_eq!(outcome.output.len(), OUTPUT_BYTES_MAX);
}

#[test]
fn what_means_nothing_is_refused() {
    let done = |first, last| Receipts {
        done: vec![(EPOCH, first, last)],
        ..Receipts::default()
    };
    let outcomes = |sequence, state| Receipts {
        outcomes: vec![outcome(sequence, state, "", b"")],
        ..Receipts::default()
    };
    let lane = Receipts {
        lane: 1,
        ..Receipts::default()
    };
    let mut too_many = done(1, 1);
    too_many.done = vec![(EPOCH, 1, 1); RANGES_MAX + 1];
    let mut too_many_outcomes = outcomes(1, DONE);
    too_many_outcomes.outcomes = vec![outcome(1, DONE, "", b""); OUTCOMES_MAX + 1];
    for wrong in [
        lane,
        done(0, 1),
        done(2, 1),
        outcomes(0, DONE),
        outcomes(1, 0),
        outcomes(1, 3),
        too_many,
        too_many_outcomes,
    ] {
        assert!(
            decode_receipts(&encode_receipts(&wrong)).is_err(),
            "{wrong:?}"
        );
    }
    // Three bytes for a number that needs one: lane 0, one range whose boot is written wide.
    let wide = [0, 1, 251, 3, 0, 1, 1, 1, 0];
    assert_eq!(decode_receipts(&wide), Err(CodecError::NotCanonical));
    let narrow = [0, 1, 3, 1, 1, 1, 0];
    assert!(decode_receipts(&narrow).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(receipts) = decode_receipts(&bytes) {
            prop_assert_eq!(encode_receipts(&receipts), bytes);
        }
    }

    #[test]
    fn no_changed_report_makes_the_reader_panic(at in 0_usize..60, byte in any::<u8>()) {
        let receipts = Receipts {
            lane: 0,
            done: vec![(EPOCH, 1, 300)],
            outcomes: vec![outcome(301, FAILED, "why", b"out")],
        };
        let mut bytes = encode_receipts(&receipts);
        let length = bytes.len();
        bytes[at % length] = byte;
        if let Ok(receipts) = decode_receipts(&bytes) {
            prop_assert_eq!(encode_receipts(&receipts), bytes);
        }
    }
}
