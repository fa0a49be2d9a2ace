//! Somebody in the middle changes, relays and repeats what two honest ends say.

use crate::by_hand;
use crate::by_hand::Place;
use crate::ends::{
    BINDING, PLACE, RESPONDER_RANDOM, dialler, granted, intent, local, respond, responder, start,
    start_with,
};
use packhorse_protocol::handshake::{
    DialIntent, HELLO_BYTES, HandshakeError, HelloRejected, Initiator, LinkKind, PROOF_BYTES,
    Pairing, REPLY_BYTES, Responder, VERDICT_BYTES,
};

#[test]
fn a_hello_changed_in_any_byte_gets_no_answer() {
    let (_, hello) = start();
    for at in 0..hello.len() {
        let error = respond(&flipped(&hello, at)).expect_err("a changed hello");
        assert_eq!(error, HelloRejected::Silent, "byte {at}");
    }
    for bytes in [
        &hello[..0],
        &hello[..HELLO_BYTES - 1],
        &[&hello[..], &[0]].concat(),
    ] {
        let error = respond(bytes).expect_err("a hello of another length");
        assert_eq!(error, HelloRejected::Silent);
    }
}

/// Who knows the responder's id can mend the knock; the transcript still shows the change.
#[test]
fn a_hello_changed_in_any_byte_with_its_knock_mended_leads_to_no_session() {
    let (_, hello) = start();
    let (mut silent, mut replied) = (0, 0);
    for at in 0..1_261 {
        let mut changed = flipped(&hello, at);
        by_hand::knock(&mut changed, PLACE, responder().id().as_bytes());
        match respond(&changed) {
            Ok((_, reply)) => {
                replied += 1;
                let error = start().0.on_reply(&reply).expect_err("another transcript");
                assert_eq!(
                    error,
                    HandshakeError::Sealed { message: "reply" },
                    "byte {at}"
                );
            }
            Err(HelloRejected::Silent) => silent += 1,
            Err(HelloRejected::NoCommonVersion(_)) => assert!((9..13).contains(&at)),
        }
    }
    // Both ways out were seen: the key's own check, and the transcript's.
    assert!(
        silent > 9 && replied > 64,
        "{silent} silent, {replied} replied"
    );
}

#[test]
fn a_reply_changed_in_any_byte_gets_no_proof() {
    let (_, hello) = start();
    let (_, reply) = respond(&hello).expect("a good hello");
    for at in 0..reply.len() {
        let error = start()
            .0
            .on_reply(&flipped(&reply, at))
            .expect_err("a changed reply");
        match at {
            0 => assert!(matches!(error, HandshakeError::UnknownAnswer(_)), "{error}"),
            1 | 2 => assert!(matches!(error, HandshakeError::Version(_)), "{error}"),
            _ => assert_eq!(
                error,
                HandshakeError::Sealed { message: "reply" },
                "byte {at}"
            ),
        }
    }
    for bytes in [
        &reply[..0],
        &reply[..REPLY_BYTES - 1],
        &[&reply[..], &[0]].concat(),
    ] {
        assert!(start().0.on_reply(bytes).is_err());
    }
}

#[test]
fn a_proof_changed_in_any_byte_gets_no_decision() {
    no_decision_after_a_change(intent());
    let text = "hay for two mules".to_owned();
    no_decision_after_a_change(DialIntent {
        pairing: Some(Pairing::Request { text }),
        ..intent()
    });
}

fn no_decision_after_a_change(intent: DialIntent) {
    let (initiator, hello) = start_with(intent);
    let (_, reply) = respond(&hello).expect("a good hello");
    let (_, proof) = initiator.on_reply(&reply).expect("a good reply");
    for at in 0..proof.len() {
        let (await_proof, _) = respond(&hello).expect("a good hello");
        let error = await_proof
            .on_proof(&flipped(&proof, at))
            .expect_err("a changed proof");
        assert_eq!(
            error,
            HandshakeError::Sealed { message: "proof" },
            "byte {at}"
        );
    }
    for bytes in [
        &proof[..0],
        &proof[..PROOF_BYTES - 1],
        &[&proof[..], &[0]].concat(),
    ] {
        let (await_proof, _) = respond(&hello).expect("a good hello");
        let error = await_proof
            .on_proof(bytes)
            .expect_err("a proof of another length");
        assert!(matches!(error, HandshakeError::Length { .. }), "{error}");
    }
}

#[test]
fn a_verdict_changed_in_any_byte_makes_no_session() {
    let (initiator, hello) = start();
    let (await_proof, reply) = respond(&hello).expect("a good hello");
    let (_, proof) = initiator.on_reply(&reply).expect("a good reply");
    let decision = await_proof.on_proof(&proof).expect("a good proof");
    let (verdict, _) = decision.accept(local("barn"), &granted()).expect("it fits");
    for at in 0..verdict.len() {
        let (await_verdict, _) = start().0.on_reply(&reply).expect("a good reply");
        let error = await_verdict
            .on_verdict(&flipped(&verdict, at))
            .expect_err("changed");
        assert_eq!(
            error,
            HandshakeError::Sealed { message: "verdict" },
            "byte {at}"
        );
    }
    for bytes in [
        &verdict[..0],
        &verdict[..VERDICT_BYTES - 1],
        &[&verdict[..], &[0]].concat(),
    ] {
        let (await_verdict, _) = start().0.on_reply(&reply).expect("a good reply");
        let error = await_verdict.on_verdict(bytes).expect_err("another length");
        assert!(matches!(error, HandshakeError::Length { .. }), "{error}");
    }
}

fn flipped(message: &[u8], at: usize) -> Vec<u8> {
    let mut changed = message.to_vec();
    changed[at] ^= 1 << (at % 8);
    changed
}

#[test]
fn a_handshake_relayed_between_two_links_is_refused() {
    let (_, hello) = start();
    let elsewhere = [
        Responder::new(&responder(), LinkKind::Quic, [8; 32]),
        Responder::new(&responder(), LinkKind::WebSocket, BINDING),
    ];
    for responder in elsewhere {
        let rejected = responder
            .on_hello(&hello, RESPONDER_RANDOM)
            .expect_err("another link");
        assert_eq!(rejected, HelloRejected::Silent);
    }
    // A relay that knows the id mends the knock for its own link; T1 holds the link as well.
    for place in [
        Place {
            kind: 1,
            binding: [8; 32],
        },
        Place {
            kind: 2,
            binding: BINDING,
        },
    ] {
        let (initiator, mut hello) = start();
        by_hand::knock(&mut hello, place, responder().id().as_bytes());
        let kind = if place.kind == 1 {
            LinkKind::Quic
        } else {
            LinkKind::WebSocket
        };
        let (_, reply) = Responder::new(&responder(), kind, place.binding)
            .on_hello(&hello, RESPONDER_RANDOM)
            .expect("the knock is right on that link");
        let error = initiator.on_reply(&reply).expect_err("another link");
        assert_eq!(error, HandshakeError::Sealed { message: "reply" });
    }
}

#[test]
fn replayed_messages_lead_nowhere() {
    let (initiator, hello) = start();
    let (_, reply) = respond(&hello).expect("a good hello");
    let (_, proof) = initiator.on_reply(&reply).expect("a good reply");
    // The same Hello on the same link: the responder answers with fresh keys, for which the
    // recorded Proof is not made.
    let (await_proof, second) = Responder::new(&responder(), LinkKind::Quic, BINDING)
        .on_hello(&hello, [5; 128])
        .expect("a good hello");
    assert_ne!(reply, second);
    let error = await_proof.on_proof(&proof).expect_err("a replay");
    assert_eq!(error, HandshakeError::Sealed { message: "proof" });
    // A recorded Reply does not answer another Hello.
    let (id, random) = (responder().id(), [6; 128]);
    let (initiator, _) = Initiator::start(
        &dialler(),
        id,
        LinkKind::Quic,
        BINDING,
        local("mule"),
        intent(),
        random,
    )
    .expect("nothing is wrong with it");
    let error = initiator.on_reply(&reply).expect_err("a replay");
    assert_eq!(error, HandshakeError::Sealed { message: "reply" });
}

#[test]
fn a_reflected_hello_does_not_knock_on_its_sender() {
    let (_, hello) = start();
    let rejected = Responder::new(&dialler(), LinkKind::Quic, BINDING).on_hello(&hello, [4; 128]);
    assert_eq!(rejected.expect_err("its own hello"), HelloRejected::Silent);
}
