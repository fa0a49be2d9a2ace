//! How a dial goes about addresses, and what becomes of it.

use packhorse_protocol::{handshake::VerdictRefusal, identity::IdentityKey};

use super::*;

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 7))
}

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 7))
}

#[test]
fn what_somebody_here_said_goes_first_and_nothing_is_dialled_twice() {
    let id = IdentityKey::from_seed(&[1; 32]).id();
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let record = PeerRecord {
        addresses: texts(&["quic://a:1", "quic://b:1"]),
        own_addresses: texts(&["quic://c:1", "quic://b:1"]),
        ..PeerRecord::new(PeerNumber(1), id, "peer", 1)
    };
    assert_eq!(
        hints_of(&record),
        ["quic://c:1", "quic://b:1", "quic://a:1"]
    );
}

#[test]
fn what_a_peer_announced_before_is_dialled_last() {
    let id = IdentityKey::from_seed(&[1; 32]).id();
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut record = PeerRecord {
        own_addresses: texts(&["quic://own:1"]),
        ..PeerRecord::new(PeerNumber(1), id, "peer", 1)
    };
    record.announces(&texts(&["quic://a:1", "quic://b:1"]));
    record.announces(&texts(&["quic://b:1", "quic://c:1"]));
    assert_eq!(
        hints_of(&record),
        ["quic://own:1", "quic://b:1", "quic://c:1", "quic://a:1"]
    );
}

#[test]
fn both_families_are_tried_in_turn() {
    let found = vec![v6(1), v6(2), v6(3), v4(1)];
    assert_eq!(interleaved(found), [v6(1), v4(1), v6(2), v6(3)]);
    assert_eq!(
        interleaved(vec![v4(1), v6(1), v4(2)]),
        [v4(1), v6(1), v4(2)]
    );
    assert_eq!(interleaved(Vec::new()), []);
}

#[test]
fn addresses_have_their_turn_in_the_order_of_the_hints() {
    let mut candidates = Candidates::default();
    (0..3).for_each(|place| candidates.expect(place));
    candidates.found(1, vec![v4(1), v4(2)]);
    // The first hint may still lead somewhere.
    assert_eq!(candidates.next(true, false), None);
    assert_eq!(candidates.next(true, true), Some(v4(1)));
    // Another one is under way, and its moment is not over.
    candidates.found(0, vec![v4(1), v4(3)]);
    assert_eq!(candidates.next(false, false), None);
    assert_eq!(candidates.next(false, true), Some(v4(3)), "each once");
    assert_eq!(candidates.next(true, false), Some(v4(2)));
    assert_eq!(candidates.next(true, false), None, "one is being resolved");
    candidates.found(2, (1..=9).map(v4).collect());
    let rest: Vec<_> = std::iter::from_fn(|| candidates.next(true, false)).collect();
    assert_eq!(
        rest,
        [v4(4)],
        "four of one name, three of them tried before"
    );
}

#[test]
fn a_dial_tries_no_more_than_its_limit() {
    let mut candidates = Candidates::default();
    for place in 0..8 {
        candidates.expect(place);
        let place = u8::try_from(place).unwrap();
        candidates.found(
            place.into(),
            (1..=4).map(|last| v4(place * 4 + last)).collect(),
        );
    }
    let tried = std::iter::from_fn(|| candidates.next(true, true)).count();
    assert_eq!(tried, ADDRESSES_TRIED_MAX);
}

#[test]
fn the_error_that_left_this_machine_counts_and_the_others_are_named() {
    let resolve = |hint: &str| LinkError::Resolve {
        hint: hint.to_owned(),
        reason: "unknown".to_owned(),
    };
    let unreachable = |address| LinkError::Unreachable {
        address,
        reason: "nothing within 4 s".to_owned(),
    };
    let mut failed = Failed::default();
    failed.note(resolve("quic://barn:7").into());
    assert_eq!(
        failed.told().to_string(),
        "cannot resolve quic://barn:7: unknown"
    );
    let mut failed = Failed::default();
    failed.note(unreachable(v4(1)).into());
    failed.note(resolve("quic://barn:7").into());
    let told = failed.told();
    assert_eq!(told.blame(), Blame::There);
    assert_eq!(
        told.to_string(),
        "no answer from 192.0.2.1:7: nothing within 4 s; cannot resolve quic://barn:7: unknown"
    );
    let mut failed = Failed::default();
    (1..=16).for_each(|last| failed.note(unreachable(v4(last)).into()));
    let text = failed.told().to_string();
    assert!(text.ends_with("; and 10 more"), "{text}");
    assert!(text.len() < 400);
}

#[test]
fn a_dial_that_did_not_leave_this_machine_is_not_the_peers_failure() {
    let address = SocketAddr::from(([192, 0, 2, 1], 1));
    let reason = || "why".to_owned();
    let handshake = |failure| DialError::Handshake { address, failure };
    let refused = |class| {
        handshake(HandshakeFailure::Refused(VerdictRefusal {
            class,
            code: 1,
            reason: reason(),
            retry_after_ms: 0,
        }))
    };
    let hint = reason();
    let table = [
        (DialError::NoAddress, Blame::Here),
        (DialError::Panicked(reason()), Blame::Here),
        (DialError::GaveWay, Blame::Nobody),
        (DialError::Store(StoreError::Closed), Blame::Here),
        (
            LinkError::Resolve {
                hint,
                reason: reason(),
            }
            .into(),
            Blame::Here,
        ),
        (
            LinkError::NoRoute {
                address,
                reason: reason(),
            }
            .into(),
            Blame::Here,
        ),
        (
            LinkError::Unreachable {
                address,
                reason: reason(),
            }
            .into(),
            Blame::There,
        ),
        (
            handshake(HandshakeFailure::TimedOut(CONNECT_WITHIN)),
            Blame::There,
        ),
        (handshake(LinkError::Lost(reason()).into()), Blame::There),
        (
            handshake(HandshakeFailure::Store(StoreError::Closed)),
            Blame::Here,
        ),
        (refused(ErrorClass::Authentication), Blame::There),
        (refused(ErrorClass::IdentityInUse), Blame::There),
        (refused(ErrorClass::Internal), Blame::There),
        (refused(ErrorClass::Busy), Blame::Nobody),
        (refused(ErrorClass::Displaced), Blame::Nobody),
        (refused(ErrorClass::ShuttingDown), Blame::Nobody),
    ];
    for (error, blame) in table {
        assert_eq!(error.blame(), blame, "{error:?}");
    }
}
