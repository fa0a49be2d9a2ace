//! One end is honest; the other speaks the protocol by hand and says what it must not.

use crate::by_hand;
use crate::by_hand::Dialler;
use crate::ends::{
    BINDING, DIALLER_SEED, PLACE, RESPONDER_SEED, first_frame, granted, intent, local, respond,
    responder, start, start_with, ticket,
};
use ed25519_dalek::{Signer, SigningKey};
use packhorse_protocol::epoch::Epoch;
use packhorse_protocol::error_class::ErrorClass;
use packhorse_protocol::handshake::{
    Answer, AwaitProof, DialIntent, HandshakeError, HelloRejected, Initiator, LinkKind, Pairing,
};
use packhorse_protocol::identity::IdentityKey;

#[test]
fn a_dialler_accepts_only_the_node_it_dialled() {
    let other = SigningKey::from_bytes(&[3; 32]);
    let (initiator, hello) = start();
    let (reply, _) = by_hand::reply(PLACE, &hello, |t1| by_hand::reply_plain(&other, t1));
    let error = initiator.on_reply(&reply).expect_err("somebody else");
    let actual = IdentityKey::from_seed(&[3; 32]).id();
    let expected = responder().id();
    assert_eq!(error, HandshakeError::WrongResponder { expected, actual });
    assert_eq!(error.class(), ErrorClass::Authentication);

    // And not one that only claims the id, nor one that signs under another purpose or hash.
    let honest = SigningKey::from_bytes(&RESPONDER_SEED);
    type Lie = fn(&SigningKey, &SigningKey, &[u8; 32]) -> Vec<u8>;
    let lies: [Lie; 3] = [
        |honest, other, t1| {
            let mut plain = by_hand::reply_plain(other, t1);
            plain[..32].copy_from_slice(honest.verifying_key().as_bytes());
            plain
        },
        |honest, _, t1| {
            let mut plain = by_hand::reply_plain(honest, t1);
            let id = honest.verifying_key().to_bytes();
            let signed = by_hand::joined("packhorse 1 initiator", &[t1, &id]);
            plain[40..].copy_from_slice(&honest.sign(&signed).to_bytes());
            plain
        },
        |honest, _, _| by_hand::reply_plain(honest, &[0; 32]),
    ];
    for lie in lies {
        let (initiator, hello) = start();
        let (reply, _) = by_hand::reply(PLACE, &hello, |t1| lie(&honest, &other, t1));
        let error = initiator.on_reply(&reply).expect_err("a lie");
        assert!(matches!(error, HandshakeError::Signature(_)), "{error}");
    }
}

#[test]
fn a_pairing_proof_of_one_handshake_proves_nothing_in_another() {
    let key = ticket(7).key();
    let dialler = SigningKey::from_bytes(&DIALLER_SEED);
    let id = *responder().id().as_bytes();
    let proof_for = |t2: &[u8; 32], keys: &by_hand::Keys| {
        let own = dialler.verifying_key();
        let covered = [t2, &id, own.as_bytes()].map(|part| &part[..]);
        let mut plain = keys.proof_plain(&dialler, &id);
        plain[1_252] = 1;
        plain[1_253..1_269].fill(6);
        let mac = by_hand::mac(
            key.as_bytes(),
            &by_hand::joined("packhorse 1 pairing", &covered),
        );
        plain[1_269..1_301].copy_from_slice(&mac);
        keys.seal_proof(&plain)
    };
    for (own, matches) in [(true, true), (false, false)] {
        let (await_proof, keys) = by_hand_proof();
        let t2 = if own { keys.t2 } else { [0; 32] };
        let decision = await_proof
            .on_proof(&proof_for(&t2, &keys))
            .expect("well formed");
        assert_eq!(decision.ticket_id(), Some([6; 16]));
        assert_eq!(decision.ticket_matches(&key), matches);
    }
}

#[test]
fn a_node_neither_dials_nor_admits_its_own_id() {
    let key = responder();
    let started = Initiator::start(
        &key,
        key.id(),
        LinkKind::Quic,
        BINDING,
        local("me"),
        intent(),
        [3; 128],
    );
    assert_eq!(started.expect_err("its own id"), HandshakeError::OwnId);

    let (await_proof, keys) = by_hand_proof();
    let itself = SigningKey::from_bytes(&RESPONDER_SEED);
    let plain = keys.proof_plain(&itself, responder().id().as_bytes());
    let error = await_proof
        .on_proof(&keys.seal_proof(&plain))
        .expect_err("its own id");
    assert_eq!(error, HandshakeError::OwnId);
}

#[test]
fn weak_ids_and_foreign_signatures_are_refused() {
    let good = SigningKey::from_bytes(&DIALLER_SEED);
    let id = *responder().id().as_bytes();
    // Under a weak key the signature (neutral point, 0) verifies for everything, loosely checked.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    type Change = Box<dyn Fn(&mut [u8], &by_hand::Keys)>;
    let changes: [(&str, Change); 5] = [
        (
            "weak",
            Box::new(move |plain, _| {
                plain[..32].copy_from_slice(&neutral);
                plain[1_188..1_220].copy_from_slice(&neutral);
                plain[1_220..1_252].fill(0);
            }),
        ),
        ("no Ed25519", Box::new(|plain, _| plain[..32].fill(0xff))),
        ("does not verify", Box::new(|plain, _| plain[1_188] ^= 1)),
        (
            "does not verify",
            Box::new(|plain, _| {
                let other = SigningKey::from_bytes(&[3; 32]);
                plain[..32].copy_from_slice(other.verifying_key().as_bytes());
            }),
        ),
        (
            "does not verify",
            Box::new(move |plain, keys| {
                // Signed for another responder.
                let good = SigningKey::from_bytes(&DIALLER_SEED);
                let own = good.verifying_key().to_bytes();
                let signed = by_hand::joined("packhorse 1 initiator", &[&keys.t2, &[0; 32], &own]);
                plain[1_188..1_252].copy_from_slice(&good.sign(&signed).to_bytes());
            }),
        ),
    ];
    for (wrong, change) in changes {
        let (await_proof, keys) = by_hand_proof();
        let mut plain = keys.proof_plain(&good, &id);
        change(&mut plain, &keys);
        let error = await_proof
            .on_proof(&keys.seal_proof(&plain))
            .expect_err(wrong);
        assert!(
            error.to_string().contains(wrong),
            "{error} does not say: {wrong}"
        );
        assert_eq!(error.class(), ErrorClass::Authentication);
    }
}

#[test]
fn points_of_low_order_give_no_key_on_either_side() {
    let id = *responder().id().as_bytes();
    let mut one = [0; 32];
    one[0] = 1;
    for point in [[0; 32], one] {
        let mut hello = Dialler::new(PLACE, id, (1, 1)).hello;
        hello[1_229..1_261].copy_from_slice(&point);
        by_hand::knock(&mut hello, PLACE, &id);
        assert_eq!(
            respond(&hello).expect_err("a zero secret"),
            HelloRejected::Silent
        );

        let (initiator, hello) = start();
        let (_, mut reply) = respond(&hello).expect("a good hello");
        reply[1_123..1_155].copy_from_slice(&point);
        let error = initiator.on_reply(&reply).expect_err("a zero secret");
        assert_eq!(error, HandshakeError::WeakExchange);
    }
}

#[test]
fn an_encapsulation_key_with_a_coefficient_over_the_modulus_is_refused() {
    let id = *responder().id().as_bytes();
    let mut hello = Dialler::new(PLACE, id, (1, 1)).hello;
    // Two coefficients of 12 bits in three bytes; 4,095 is above q = 3,329.
    hello[45..48].fill(0xff);
    by_hand::knock(&mut hello, PLACE, &id);
    assert_eq!(
        respond(&hello).expect_err("FIPS 203, section 7.2"),
        HelloRejected::Silent
    );
}

#[test]
fn a_request_written_from_the_specification_is_read() {
    let key = SigningKey::from_bytes(&DIALLER_SEED);
    let id = *responder().id().as_bytes();
    for text in ["", "hay for two mules, please", &"ü".repeat(128)] {
        let (await_proof, keys) = by_hand_proof();
        let mut plain = keys.proof_plain(&key, &id);
        by_hand::ask(&mut plain, text.as_bytes());
        // Room for later: ignored by who does not know it.
        plain[1_559..].fill(0xff);
        let decision = await_proof
            .on_proof(&keys.seal_proof(&plain))
            .expect("a good proof");
        assert_eq!(decision.request(), Some(text));
        assert_eq!(decision.ticket_id(), None);
        assert!(!decision.ticket_matches(&ticket(7).key()));
    }
}

#[test]
fn a_request_is_written_as_the_specification_says() {
    let honest = SigningKey::from_bytes(&RESPONDER_SEED);
    let intent = DialIntent {
        pairing: Some(Pairing::Request {
            text: "hay".to_owned(),
        }),
        ..intent()
    };
    let (initiator, hello) = start_with(intent);
    let (reply, keys) = by_hand::reply(PLACE, &hello, |t1| by_hand::reply_plain(&honest, t1));
    let (_, proof) = initiator.on_reply(&reply).expect("SPEC.md is right");
    let key = by_hand::expand(&keys.prk, "packhorse 1 proof", &[&keys.t2]);
    let plain = by_hand::open(&key, &keys.t2, &proof);
    assert_eq!(plain[1_252], 2);
    assert_eq!(plain[1_253..1_301], [0; 48]);
    assert_eq!(plain[1_301..1_306], *b"\x00\x03hay");
    assert!(plain[1_306..].iter().all(|&byte| byte == 0));
}

/// A `by_hand` dialler whose Hello our responder has answered.
fn by_hand_proof() -> (AwaitProof, by_hand::Keys) {
    let by_hand = Dialler::new(PLACE, *responder().id().as_bytes(), (1, 1));
    let (await_proof, reply) = respond(&by_hand.hello).expect("SPEC.md is right about hello");
    let keys = by_hand.keys(&reply);
    (await_proof, keys)
}

#[test]
fn a_dialler_written_from_the_specification_gets_a_session() {
    let key = SigningKey::from_bytes(&DIALLER_SEED);
    let by_hand = Dialler::new(PLACE, *responder().id().as_bytes(), (1, 1));
    let (await_proof, reply) = respond(&by_hand.hello).expect("a good hello");
    let keys = by_hand.keys(&reply);
    let honest = SigningKey::from_bytes(&RESPONDER_SEED);
    assert_eq!(keys.reply, by_hand::reply_plain(&honest, &keys.t1));
    let proof = keys.seal_proof(&keys.proof_plain(&key, responder().id().as_bytes()));
    let decision = await_proof.on_proof(&proof).expect("a good proof");
    assert_eq!(decision.peer().name, "mallory");
    assert_eq!(decision.peer().addresses, ["host:7433"]);
    assert_eq!(decision.peer().epoch, Epoch { boot: 3, nonce: 4 });
    assert_eq!(decision.dial_counter(), 5);
    let (verdict, established) = decision.accept(local("barn"), &granted()).expect("it fits");
    let t3 = keys.t3(&proof);
    assert_eq!(established.session.0, t3[..16]);
    let plain = by_hand::open(&keys.verdict_key(&t3), &t3, &verdict);
    assert_eq!(plain.len(), by_hand::VERDICT_PLAIN_BYTES);
    assert_eq!(plain[..7], *b"\x01\x00\x04barn");
    let session = keys.session(&t3, &verdict);
    let own = key.verifying_key().to_bytes();
    assert_eq!(
        established.compare,
        by_hand::compare(&session, responder().id().as_bytes(), &own)
    );
    assert_eq!(
        by_hand::first_frame(&session, b"hello"),
        first_frame(established)
    );
}

#[test]
fn what_a_dialler_says_about_itself_is_checked_before_it_is_handed_out() {
    let key = SigningKey::from_bytes(&DIALLER_SEED);
    let id = *responder().id().as_bytes();
    type Change = fn(&mut [u8]);
    let changes: &[(&str, Change)] = &[
        ("name contains the control character U+000A", |p| {
            by_hand::write_text(&mut p[32..], b"mal\nory")
        }),
        ("name contains the control character U+001B", |p| {
            by_hand::write_text(&mut p[32..], b"\x1b[2Jory");
        }),
        ("name is not valid UTF-8", |p| p[34] = 0xff),
        ("name is empty", |p| p[32..98].fill(0)),
        ("field `name` of proof is malformed", |p| p[33] = 65),
        ("field `name` of proof is malformed", |p| p[97] = b'x'),
        ("field `address count` of proof is malformed", |p| p[98] = 5),
        ("address is empty", |p| p[98] = 2),
        ("field `address` of proof is malformed", |p| p[98] = 0),
        ("address contains the control character U+0000", |p| {
            p[101] = 0
        }),
        ("address is not valid UTF-8", |p| p[101] = 0xff),
        ("field `alive` of proof is malformed", |p| p[1_163] = 2),
        ("field `alive` of proof is malformed", |p| p[1_164] = 1),
        ("field `pairing` of proof is malformed", |p| p[1_252] = 3),
        ("field `pairing` of proof is malformed", |p| p[1_253] = 1),
        ("field `pairing` of proof is malformed", |p| p[1_300] = 1),
        ("field `pairing` of proof is malformed", |p| {
            by_hand::ask(p, b"hello");
            p[1_253] = 1;
        }),
        ("field `pairing` of proof is malformed", |p| {
            by_hand::ask(p, b"hello");
            p[1_300] = 1;
        }),
        ("request contains the control character U+000A", |p| {
            by_hand::ask(p, b"hel\nlo")
        }),
        ("request contains the control character U+202E", |p| {
            by_hand::ask(p, "hel\u{202e}lo".as_bytes())
        }),
        ("request is not valid UTF-8", |p| {
            by_hand::ask(p, b"hel\xfflo")
        }),
        ("field `request` of proof is malformed", |p| {
            by_hand::ask(p, b"hello");
            p[1_302] = 4;
        }),
        ("field `request` of proof is malformed", |p| {
            by_hand::ask(p, b"hello");
            p[1_558] = b'!';
        }),
        ("field `request` of proof is malformed", |p| {
            by_hand::ask(p, &[b'r'; 256]);
            p[1_301..1_303].copy_from_slice(&[1, 1]);
        }),
    ];
    for (wrong, change) in changes {
        let (await_proof, keys) = by_hand_proof();
        let mut plain = keys.proof_plain(&key, &id);
        change(&mut plain);
        let error = await_proof
            .on_proof(&keys.seal_proof(&plain))
            .expect_err(wrong);
        assert!(
            error.to_string().contains(wrong),
            "{error} does not say: {wrong}"
        );
        assert_eq!(error.class(), ErrorClass::Protocol);
    }
    // Room for later: features and the rest are ignored by who does not know them.
    let (await_proof, keys) = by_hand_proof();
    let mut plain = keys.proof_plain(&key, &id);
    plain[1_180..1_188].fill(0xff);
    plain[1_301..].fill(0xff);
    let decision = await_proof
        .on_proof(&keys.seal_proof(&plain))
        .expect("a newer dialler");
    assert_eq!(decision.peer().name, "mallory");
}

#[test]
fn what_a_responder_says_is_checked_before_it_is_handed_out() {
    let honest = SigningKey::from_bytes(&RESPONDER_SEED);
    type Change = fn(&mut [u8]);
    let verdict = |change: Change| {
        let (initiator, hello) = start();
        let (reply, keys) = by_hand::reply(PLACE, &hello, |t1| by_hand::reply_plain(&honest, t1));
        let (await_verdict, proof) = initiator.on_reply(&reply).expect("SPEC.md is right");
        let t3 = keys.t3(&proof);
        let mut plain = by_hand::verdict_plain();
        change(&mut plain);
        await_verdict.on_verdict(&by_hand::seal(&keys.verdict_key(&t3), &t3, &plain))
    };
    let changes: &[(&str, Change)] = &[
        ("field `kind` of verdict is malformed", |p| p[0] = 0),
        ("name contains the control character U+000A", |p| {
            by_hand::write_text(&mut p[1..], b"re\nay")
        }),
        ("field `address count` of verdict is malformed", |p| {
            p[67] = 5
        }),
        ("field `grant count` of verdict is malformed", |p| {
            p[1_124] = 65
        }),
        ("field `grant` of verdict is malformed", |p| {
            p[1_125..1_127].fill(0xff)
        }),
        ("grant contains the control character U+0007", |p| {
            p[1_130] = 7
        }),
        ("grant is not valid UTF-8", |p| p[1_130] = 0xff),
        ("field `class` of verdict is malformed", |p| {
            p[..3].copy_from_slice(&[2, 0, 9])
        }),
        ("field `reason` of verdict is malformed", |p| {
            p[..3].copy_from_slice(&[2, 0, 4]);
            p[9..11].copy_from_slice(&[1, 1]);
        }),
        ("reason contains the control character U+000A", |p| {
            p.fill(0);
            p[..3].copy_from_slice(&[2, 0, 4]);
            by_hand::write_text(&mut p[9..], b"a\nb");
        }),
    ];
    for (wrong, change) in changes {
        let error = verdict(*change).expect_err(wrong);
        assert!(
            error.to_string().contains(wrong),
            "{error} does not say: {wrong}"
        );
        assert_eq!(error.class(), ErrorClass::Protocol);
    }
    // A capability of a later version is skipped, not an error.
    let unknown: Change = |p| by_hand::write_text(&mut p[1_125..], b"message.fly.:*");
    let Ok(Answer::Accepted { peer, granted, .. }) = verdict(unknown) else {
        panic!("a newer responder was refused");
    };
    assert_eq!(peer.id, responder().id());
    assert!(granted.is_empty());
}
